//! [`Scales`]: how far the outputs of a model are from those of another, whatever they mean.
//!
//! An output of a detector holds numbers of several kinds side by side: coordinates of boxes, which vary a lot, and scores, nearly all of
//! which are nearly 0 while the few others are all that counts. ‖z − ẑ‖ / ‖z‖ over all of them sees the coordinates alone.

use cp_torch::tch::{Kind, Tensor};

use crate::error::TrainError;

/// Added to ‖z‖²: an output that is zero throughout has no relative error.
const TINY: f64 = 1e-12;

/// Of the mean square of a column, what its variance counts for at least: a column that does not vary is right to a thousandth.
const LEAST: f64 = 1e-6;

/// Of the mean variance of columns that are no probabilities, what each counts for at least.
const LEAST_OF_MEAN: f64 = 1e-2;

/// For each output, what a squared difference in each of its columns is divided by.
///
/// Columns are channels (`[B, C, …]`; of three axes, the shorter of the last two). The error of an output is the mean over *groups* of columns of
/// Σ (z − ẑ)² / Σ (z − z̄)², the share of the variance that is not explained. All columns whose values stay within 0 and 1 are one group, since among
/// probabilities those that are ever large are what counts; every other column is a group of its own.
pub(super) struct Scales(Vec<Scale>);

struct Scale {
    /// By columns, shaped for the output.
    weights: Tensor,
    columns: f64,
}

/// Sums over examples, by columns.
#[derive(Default)]
struct Sums {
    count: f64,
    sum: Vec<f64>,
    square: Vec<f64>,
    most: Vec<f64>,
    lowest: Vec<f64>,
    shape: Vec<i64>,
}

/// The axis of the columns of an output with these sizes, the batch first.
fn columns_axis(sizes: &[i64]) -> Option<usize> {
    match sizes {
        [] | [_] => None,
        [_, channels, positions] if positions < channels => Some(2),
        _ => Some(1),
    }
}

impl Sums {
    fn add(&mut self, x: &Tensor) -> Result<(), TrainError> {
        let sizes = x.size();
        let axis = columns_axis(&sizes);
        let flat = match axis {
            Some(axis) => x.f_movedim_int(axis as i64, 0)?.f_flatten(1, -1)?,
            None => x.f_reshape([1, -1])?,
        };
        let flat = flat.f_to_kind(Kind::Double)?;
        let by_column = |x: Tensor| -> Result<Vec<f64>, TrainError> { Ok(Vec::try_from(&x)?) };
        let one = Some(&[1i64][..]);
        let sum = by_column(flat.f_sum_dim_intlist(one, false, Kind::Double)?)?;
        let square = by_column(flat.f_square()?.f_sum_dim_intlist(one, false, Kind::Double)?)?;
        let most = by_column(flat.f_amax([1i64], false)?)?;
        let lowest = by_column(flat.f_amin([1i64], false)?)?;
        if self.sum.is_empty() {
            let columns = sum.len();
            self.sum = vec![0.0; columns];
            self.square = vec![0.0; columns];
            self.most = vec![f64::NEG_INFINITY; columns];
            self.lowest = vec![f64::INFINITY; columns];
            self.shape = vec![1; sizes.len()];
            if let Some(axis) = axis {
                self.shape[axis] = sizes[axis];
            }
        }
        self.count += flat.size()[1] as f64;
        let fold = |into: &mut [f64], from: &[f64], with: fn(f64, f64) -> f64| {
            into.iter_mut().zip(from).for_each(|(into, from)| *into = with(*into, *from));
        };
        fold(&mut self.sum, &sum, |a, b| a + b);
        fold(&mut self.square, &square, |a, b| a + b);
        fold(&mut self.most, &most, f64::max);
        fold(&mut self.lowest, &lowest, f64::min);
        Ok(())
    }

    /// Of every column: one over its group's variance and the number of groups.
    fn weights(&self) -> Vec<f64> {
        let count = self.count.max(1.0);
        let spread = |column: usize| {
            let (mean, square) = (self.sum[column] / count, self.square[column] / count);
            (square - mean * mean).max(LEAST * square) + TINY
        };
        let spreads: Vec<f64> = (0..self.sum.len()).map(spread).collect();
        let probable = |column: &usize| self.lowest[*column] >= 0.0 && self.most[*column] <= 1.0;
        let (alike, others): (Vec<usize>, Vec<usize>) = (0..spreads.len()).partition(probable);
        let groups = (others.len() + usize::from(!alike.is_empty())) as f64;
        let total = |columns: &[usize]| columns.iter().map(|&column| spreads[column]).sum::<f64>();
        let least = LEAST_OF_MEAN * total(&others) / others.len().max(1) as f64;
        let mut weights = vec![0.0; spreads.len()];
        for &column in &others {
            weights[column] = 1.0 / (groups * spreads[column].max(least));
        }
        for &column in &alike {
            weights[column] = 1.0 / (groups * total(&alike));
        }
        weights
    }
}

impl Scales {
    /// From what the outputs are for some examples.
    pub(super) fn of(
        runs: impl IntoIterator<Item = Result<Vec<Tensor>, TrainError>>,
    ) -> Result<Self, TrainError> {
        let mut sums: Vec<Sums> = Vec::new();
        for outputs in runs {
            let outputs = outputs?;
            sums.resize_with(outputs.len(), Sums::default);
            for (sums, output) in sums.iter_mut().zip(&outputs) {
                sums.add(output)?;
            }
        }
        let scale = |sums: &Sums| -> Result<Scale, TrainError> {
            let weights: Vec<f32> =
                sums.weights().into_iter().map(|weight| weight as f32).collect();
            let columns = weights.len() as f64;
            Ok(Scale { weights: Tensor::f_from_slice(&weights)?.f_reshape(&sums.shape)?, columns })
        };
        Ok(Self(sums.iter().map(scale).collect::<Result<_, _>>()?))
    }

    /// The mean error of the outputs: 0 for equal ones, 1 for the mean of every column.
    pub(super) fn error(&self, ours: &[Tensor], theirs: &[Tensor]) -> Result<Tensor, TrainError> {
        let mut parts = Vec::with_capacity(ours.len());
        for ((ours, theirs), scale) in ours.iter().zip(theirs).zip(&self.0) {
            let weights = scale.weights.f_to_device(ours.device())?;
            let off = ours.f_sub(theirs)?.f_square()?.f_mul(&weights)?;
            parts.push(off.f_mean(Kind::Float)?.f_mul_scalar(scale.columns)?);
        }
        Ok(Tensor::f_stack(&parts, 0)?.f_mean(Kind::Float)?)
    }
}

/// The mean over pairs of ‖ours − theirs‖² / ‖theirs‖².
pub(super) fn relative_error(ours: &[Tensor], theirs: &[Tensor]) -> Result<Tensor, TrainError> {
    let mut parts = Vec::with_capacity(ours.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        let off = ours.f_sub(theirs)?.f_square()?.f_sum(Kind::Float)?;
        let whole = theirs.f_square()?.f_sum(Kind::Float)?.f_add_scalar(TINY)?;
        parts.push(off.f_div(&whole)?);
    }
    Ok(Tensor::f_stack(&parts, 0)?.f_mean(Kind::Float)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cp_torch::tch::Device;

    use super::*;

    fn error(scales: &Scales, ours: &Tensor, theirs: &Tensor) -> f64 {
        let found = scales.error(&[ours.shallow_clone()], &[theirs.shallow_clone()]).unwrap();
        f64::try_from(&found).unwrap()
    }

    fn scales(x: &Tensor) -> Scales {
        Scales::of([Ok(vec![x.shallow_clone()])]).unwrap()
    }

    /// The mean of every column explains nothing, whatever the columns' sizes.
    #[test]
    fn the_mean_of_each_column_is_an_error_of_one() {
        cp_torch::tch::manual_seed(1);
        for sizes in [&[4, 6, 5, 3][..], &[4, 30, 5], &[4, 5, 30], &[50, 4], &[40]] {
            let x = Tensor::randn(sizes, (Kind::Float, Device::Cpu));
            let (x, axis) = match columns_axis(sizes) {
                Some(axis) => {
                    let columns = sizes[axis];
                    let mut shape = vec![1; sizes.len()];
                    shape[axis] = columns;
                    let size = Tensor::arange(columns, (Kind::Float, Device::Cpu)) * 0.1 + 1.0;
                    (x * size.reshape(&shape) + size.reshape(&shape), Some(axis))
                }
                None => (x, None),
            };
            let others: Vec<i64> =
                (0..sizes.len()).filter(|at| Some(*at) != axis).map(|at| at as i64).collect();
            let mean = x.mean_dim(Some(&others[..]), true, Kind::Float).expand_as(&x);
            assert!((error(&scales(&x), &mean, &x) - 1.0).abs() < 1e-3, "{sizes:?}");
            assert!(error(&scales(&x), &x, &x).abs() < f64::EPSILON);
        }
    }

    /// One score in a thousand is 1: to miss it is as wrong as to miss the boxes, though these are some hundred times larger; a class that is
    /// never seen does not count.
    #[test]
    fn rare_scores_count_as_much_as_boxes() {
        cp_torch::tch::manual_seed(2);
        let boxes = Tensor::randn([1, 1000, 1], (Kind::Float, Device::Cpu)) * 100.0;
        let scores = Tensor::zeros([1, 1000, 2], (Kind::Float, Device::Cpu));
        let _ = scores.get(0).get(7).narrow(0, 0, 1).fill_(1.0);
        let _ = scores.select(2, 1).fill_(1e-4);
        let x = Tensor::cat(&[boxes.shallow_clone(), scores.shallow_clone()], 2);
        let scales = scales(&x);
        let blind = Tensor::cat(&[boxes.shallow_clone(), scores.zeros_like()], 2);
        assert!((error(&scales, &blind, &x) - 0.5).abs() < 0.01);
        let no_boxes = Tensor::cat(&[boxes.zeros_like(), scores.shallow_clone()], 2);
        assert!((error(&scales, &no_boxes, &x) - 0.5).abs() < 0.01);
        let unseen = &x + 1e-4;
        assert!(error(&scales, &unseen, &x) < 1e-3);
    }

    /// A constant output has no variance, and no error is infinite.
    #[test]
    fn constant_outputs_have_errors_that_are_numbers() {
        let x = Tensor::full([3, 2, 4], 5.0, (Kind::Float, Device::Cpu));
        let found = error(&scales(&x), &(&x * 1.01), &x);
        assert!(found.is_finite() && found > 1.0, "{found}");
        let zero = x.zeros_like();
        assert!(error(&scales(&zero), &zero, &zero).abs() < f64::EPSILON);
    }
}
