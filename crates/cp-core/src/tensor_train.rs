//! Tensor trains: every entry as a product of matrices, one for each index.

use ndarray::{Array2, Array3, ArrayD, ArrayViewD, IxDyn};

use crate::svd::truncated_svd;
use crate::{CpError, Real};

/// X\[i₀, …, i_N₋₁\] = G⁽⁰⁾\[·, i₀, ·\] … G⁽ᴺ⁻¹⁾\[·, i_N₋₁, ·\], a product of matrices, of which the first has one row and the last one column.
///
/// Source: Oseledets (2011), "Tensor-train decomposition", SIAM J. Sci. Comput. 33, definition (1.3).
#[derive(Debug, Clone, PartialEq)]
pub struct TensorTrain<T = f64> {
    /// The cores, `[r₀, I₀, r₁]`, `[r₁, I₁, r₂]`, …, with r₀ = r_N = 1.
    pub cores: Vec<Array3<T>>,
}

impl<T: Real> TensorTrain<T> {
    /// The ranks between the cores, r₁ … r_N₋₁.
    pub fn ranks(&self) -> Vec<usize> {
        self.cores.iter().skip(1).map(|core| core.dim().0).collect()
    }

    /// The tensor, `[I₀, …, I_N₋₁]`.
    pub fn reconstruct(&self) -> ArrayD<T> {
        let shape: Vec<usize> = self.cores.iter().map(|core| core.dim().1).collect();
        // The modes so far as rows, the last rank as columns.
        let mut product = Array2::from_elem((1, 1), T::narrow(1.0));
        for core in &self.cores {
            let (before, size, behind) = core.dim();
            let unfolded = rows(core.iter().copied().collect(), before, size * behind);
            product = matrix(product.dot(&unfolded), behind);
        }
        let values = product.into_raw_vec_and_offset().0;
        ArrayD::from_shape_vec(IxDyn(&shape), values)
            .unwrap_or_else(|error| unreachable!("as many values as the modes have: {error}"))
    }
}

/// A train of the given ranks: one truncated singular value decomposition after the other, from the first mode to the last. Its error is at
/// most √(N−1) times that of the best.
///
/// # Shapes
/// `tensor`: of two modes or more; `ranks`: one fewer. A rank above what a train can use at its place is lowered to that.
///
/// # Errors
/// Fewer than two modes, another number of ranks, a rank of 0, entries that are not finite.
///
/// Source: Oseledets (2011), algorithm 1, with ranks in the place of an error.
pub fn tensor_train<T: Real>(
    tensor: ArrayViewD<'_, T>,
    ranks: &[usize],
) -> Result<TensorTrain<T>, CpError> {
    let shape = tensor.shape().to_vec();
    if shape.len() < 2 {
        return Err(CpError::FactorCount { expected: 2, got: shape.len() });
    }
    if ranks.len() + 1 != shape.len() {
        return Err(CpError::RankCount { expected: shape.len() - 1, got: ranks.len() });
    }
    let mut cores = Vec::with_capacity(shape.len());
    let mut before = 1;
    let mut rest = rows(tensor.iter().copied().collect(), 1, tensor.len());
    for (&size, &rank) in shape.iter().zip(ranks) {
        let columns = rest.len() / (before * size).max(1);
        let unfolded = matrix(rest, columns);
        let most = unfolded.nrows().min(unfolded.ncols());
        let svd = truncated_svd(unfolded.view(), rank.min(most.max(1)))?;
        let found = svd.rank();
        cores.push(core(svd.u, before, size, found));
        rest = &svd.vt * &svd.s.insert_axis(ndarray::Axis(1));
        before = found;
    }
    let last = shape.last().copied().unwrap_or(0);
    cores.push(core(rest, before, last, 1));
    Ok(TensorTrain { cores })
}

/// The values, row by row, in rows of `columns`.
fn matrix<T: Real>(values: Array2<T>, columns: usize) -> Array2<T> {
    let count = values.len() / columns.max(1);
    rows(values.iter().copied().collect(), count, columns)
}

fn rows<T: Real>(values: Vec<T>, rows: usize, columns: usize) -> Array2<T> {
    Array2::from_shape_vec((rows, columns), values)
        .unwrap_or_else(|error| unreachable!("{rows} rows of {columns}: {error}"))
}

fn core<T: Real>(values: Array2<T>, before: usize, size: usize, behind: usize) -> Array3<T> {
    let values: Vec<T> = values.iter().copied().collect();
    Array3::from_shape_vec((before, size, behind), values)
        .unwrap_or_else(|error| unreachable!("a core of {before}×{size}×{behind}: {error}"))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, s};

    use super::*;

    fn tensor(shape: &[usize]) -> ArrayD<f64> {
        let mut state = 7_u64;
        Array::from_shape_simple_fn(IxDyn(shape), || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as f64 / f64::from(1_u32 << 31) - 0.5
        })
    }

    fn error(x: &ArrayD<f64>, train: &TensorTrain<f64>) -> f64 {
        crate::norm((x - &train.reconstruct()).view()) / crate::norm(x.view())
    }

    #[test]
    fn at_full_ranks_it_is_the_tensor() {
        for shape in [&[3, 4][..], &[4, 3, 2], &[2, 5, 3, 3], &[1, 3, 1, 2, 2]] {
            let x = tensor(shape);
            let train = tensor_train(x.view(), &vec![1000; shape.len() - 1]).unwrap();
            assert!(error(&x, &train) < 1e-12, "{shape:?}");
        }
    }

    /// A train of ranks 2 and 3 is found again.
    #[test]
    fn a_planted_train_is_found() {
        let parts = [[1, 4, 2], [2, 5, 3], [3, 6, 1]];
        let cores = parts.map(|[a, b, c]| {
            let core = tensor(&[a, b, c]);
            core.into_shape_with_order((a, b, c)).unwrap()
        });
        let planted = TensorTrain { cores: cores.to_vec() };
        let x = planted.reconstruct();
        // By the definition.
        let [first, second, third] = &planted.cores[..] else { panic!() };
        let at = |core: &Array3<f64>, index: usize| core.slice(s![.., index, ..]).to_owned();
        let rows: Array2<f64> = at(first, 1).dot(&at(second, 2));
        let entry: Array2<f64> = rows.dot(&at(third, 3));
        let value = entry[[0, 0]];
        assert!((x[[1, 2, 3]] - value).abs() < 1e-12);
        let found = tensor_train(x.view(), &[2, 3]).unwrap();
        assert_eq!(found.ranks(), [2, 3]);
        assert!(error(&x, &found) < 1e-10);
        let lower = error(&x, &tensor_train(x.view(), &[2, 2]).unwrap());
        assert!(lower > 1e-3 && lower < 1.0, "{lower}");
    }

    /// √(N−1) times the larger of the unfoldings' own errors bounds it.
    #[test]
    fn the_error_is_near_the_best() {
        let x = tensor(&[5, 4, 6]);
        let ranks = [3, 3];
        let own: Vec<f64> = [(5, 24), (20, 6)]
            .iter()
            .zip(ranks)
            .map(|(&shape, rank)| {
                let unfolded = x.clone().into_shape_with_order(shape).unwrap();
                let svd = truncated_svd(unfolded.view(), rank).unwrap();
                crate::norm((&unfolded - &svd.reconstruct()).into_dyn().view())
            })
            .collect();
        let bound = own.iter().map(|e| e * e).sum::<f64>().sqrt() / crate::norm(x.view());
        let found = error(&x, &tensor_train(x.view(), &ranks).unwrap());
        assert!(found <= bound * (1.0 + 1e-9), "{found} above {bound}");
    }

    #[test]
    fn what_is_no_train_is_refused() {
        assert!(tensor_train(tensor(&[4]).view(), &[]).is_err());
        assert!(tensor_train(tensor(&[4, 3, 2]).view(), &[2]).is_err());
        assert!(tensor_train(tensor(&[4, 3]).view(), &[0]).is_err());
        let mut x = tensor(&[4, 3]);
        x[[1, 1]] = f64::NAN;
        assert!(tensor_train(x.view(), &[2]).is_err());
    }
}
