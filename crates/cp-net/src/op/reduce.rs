//! Reduction of axes.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::reshape::reshaped;
use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, axes_of, demand, distinct, mismatch,
};

/// One number for all values along some of the axes.
///
/// # Shapes
/// Output: the input's without `axes`, or with size 1 there if `keep`; `[]` where all axes go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reduce {
    /// What becomes of the values.
    pub function: Reduction,
    /// The axes, from 0 behind the batch axis.
    pub axes: Vec<usize>,
    /// Leave the axes in place with size 1; they are dropped where it is left out of a file.
    #[serde(default)]
    pub keep: bool,
}

/// What [`Reduce`] makes of several values x.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// Σ x / n.
    Mean,
    /// Σ x.
    Sum,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// Π x.
    Prod,
    /// Σ |x|.
    L1,
    /// √(Σ x²).
    L2,
}

impl Reduction {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Mean, Self::Sum, Self::Max, Self::Min, Self::Prod, Self::L1, Self::L2];

    /// Of `values`, in f64.
    pub fn of(self, values: impl Iterator<Item = f64>) -> f64 {
        match self {
            Reduction::Mean => {
                let (sum, count) =
                    values.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
                sum / count
            }
            Reduction::Sum => values.sum(),
            Reduction::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Reduction::Min => values.fold(f64::INFINITY, f64::min),
            Reduction::Prod => values.product(),
            Reduction::L1 => values.map(f64::abs).sum(),
            Reduction::L2 => values.map(|x| x * x).sum::<f64>().sqrt(),
        }
    }
}

impl Reduce {
    /// The output's shape, if the axes that go stay in place with size 1 where `keep`.
    fn left(&self, input: &[usize], keep: bool) -> Shape {
        let size = |(axis, &size): (usize, &usize)| match self.axes.contains(&axis) {
            true => keep.then_some(1),
            false => Some(size),
        };
        input.iter().enumerate().filter_map(size).collect()
    }
}

impl OpSpec for Reduce {
    fn check(&self) -> Result<(), BadField> {
        demand(!self.axes.is_empty(), "axes", &self.axes, "one or more axes")?;
        distinct("axes", &self.axes)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        axes_of(&self.axes, inputs[0], 0)?;
        if let Some(axis) = self.axes.iter().find(|axis| inputs[0][**axis] == 0) {
            return mismatch(0, format!("at least 1 value along axis {axis}"));
        }
        Ok(vec![self.left(inputs[0], self.keep)])
    }

    fn effect(&self) -> Effect {
        match self.function {
            Reduction::Mean | Reduction::Sum | Reduction::Max | Reduction::Min => Effect::Passes,
            Reduction::Prod | Reduction::L1 | Reduction::L2 => Effect::Other,
        }
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let shape = &inputs[0].shape()[1..];
        let kept = [&inputs[0].shape()[..1], &self.left(shape, true)].concat();
        let reduced = ArrayD::from_shape_fn(kept, |at| {
            let mut values = inputs[0].view();
            for axis in 0..values.ndim() {
                // The whole of an axis that goes, one position of any other.
                if axis == 0 || !self.axes.contains(&(axis - 1)) {
                    values.collapse_axis(ndarray::Axis(axis), at[axis]);
                }
            }
            self.function.of(values.iter().map(|&value| f64::from(value))) as f32
        });
        vec![reshaped(&reduced.view(), &self.left(shape, self.keep))]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let first = draw.size(0..=input.len() - 1);
        // In any order.
        let mut axes = vec![first];
        axes.extend((0..input.len()).filter(|&axis| axis != first && draw.flag()));
        let reduce = Reduce { function: draw.pick(&Reduction::ALL), axes, keep: draw.flag() };
        Sample::new(reduce, vec![input])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(function: Reduction, expected: f64) {
        let found = function.of([3.0, -4.0].into_iter());
        assert!((found - expected).abs() < 1e-12, "{function:?}: {found}");
    }

    #[test]
    fn of_two_values() {
        check(Reduction::Mean, -0.5);
        check(Reduction::Sum, -1.0);
        check(Reduction::Max, 3.0);
        check(Reduction::Min, -4.0);
        check(Reduction::Prod, -12.0);
        check(Reduction::L1, 7.0);
        check(Reduction::L2, 5.0);
    }
}
