//! The product of a tensor with a matrix along one mode.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatRef, Par};
use ndarray::{ArrayD, ArrayView2, ArrayViewD, IxDyn};

use crate::linalg::{mat, mat_mut, parallelism, product};
use crate::real::Real;
use crate::threads::{for_each_piece, threads};
use crate::tree::Dense;

/// The n-mode product Y = X ×ₙ M, which multiplies every fiber of mode n by M: Y₍ₙ₎ = M X₍ₙ₎.
///
/// Nothing is unfolded. Costs 2 J ∏ Iₘ operations.
///
/// # Shapes
/// `tensor`: `[I₀, …, I_N₋₁]`; `matrix`: M, `[J, Iₙ]`; result: as the tensor with J in place of Iₙ.
///
/// # Panics
/// If the tensor has no mode `mode`, or the matrix another number of columns than that mode has entries.
///
/// ```
/// use ndarray::array;
///
/// let x = array![[1., 2.], [3., 4.]].into_dyn();
/// let sum = cp_core::mode_product(x.view(), array![[1., 1.]].view(), 0);
/// assert_eq!(sum, array![[4., 6.]].into_dyn());
/// ```
///
/// Reference: Kolda & Bader (2009), §2.5.
#[track_caller]
pub fn mode_product<T: Real>(
    tensor: ArrayViewD<'_, T>,
    matrix: ArrayView2<'_, T>,
    mode: usize,
) -> ArrayD<T> {
    assert!(mode < tensor.ndim(), "mode {mode} of a tensor of order {}", tensor.ndim());
    let size = tensor.shape()[mode];
    assert!(
        matrix.ncols() == size,
        "a matrix of {} columns for mode {mode} of size {size}",
        matrix.ncols()
    );
    let dense = Dense::new(&tensor);
    let flat: Vec<T> = matrix.iter().copied().collect();
    let mut shape = dense.shape.clone();
    let data = multiply(&dense.data, &mut shape, mode, mat(&flat, matrix.nrows(), size));
    ArrayD::from_shape_vec(IxDyn(&shape), data)
        .expect("the product of the sizes is the number of entries")
}

/// X ×ₙ M on row-major data; `shape` is that of X before and that of the product after.
///
/// # Shapes
/// `matrix`: `[J, shape[mode]]`.
pub(crate) fn multiply<T: Real>(
    data: &[T],
    shape: &mut [usize],
    mode: usize,
    matrix: MatRef<'_, T>,
) -> Vec<T> {
    let inner: usize = shape[mode + 1..].iter().product();
    let (to, from) = (matrix.nrows(), shape[mode]);
    let outer: usize = shape[..mode].iter().product();
    shape[mode] = to;
    let mut result = vec![T::zero(); outer * to * inner];
    if result.is_empty() || from == 0 {
        return result;
    }
    if inner == 1 {
        product(mat_mut(&mut result, outer, to), mat(data, outer, from), matrix.transpose());
        return result;
    }
    let work = to as f64 * data.len() as f64;
    // Many blocks are shared between the threads whole, few are split.
    let whole = outer >= 2 * threads();
    let par = if whole { Par::Seq } else { parallelism(work / outer as f64) };
    for_each_piece(if whole { work } else { 0.0 }, &mut result, to * inner, |i, block| {
        let from = mat(&data[i * from * inner..][..from * inner], from, inner);
        matmul(mat_mut(block, to, inner), Accum::Replace, matrix, from, T::one(), par);
    });
    result
}
