//! Unfolding: a tensor as a matrix whose rows belong to one mode, and back.

use ndarray::{Array2, ArrayD, ArrayView2, ArrayViewD, Axis, IxDyn};

use crate::error::CpError;
use crate::real::Real;

/// Unfolding X₍ₙ₎ of `tensor` along `mode`: rows belong to that mode, the other modes keep their order in the columns and
/// the last of them varies fastest.
///
/// # Shapes
/// `tensor`: `[I₀, …, I_N₋₁]`; result: `[Iₙ, ∏_{m≠n} Iₘ]`.
///
/// # Panics
/// If the tensor has no mode `mode`.
///
/// ```
/// use ndarray::{Array, array};
///
/// let x = Array::from_shape_vec((2, 2, 2), (0..8).map(f64::from).collect()).unwrap().into_dyn();
/// assert_eq!(cp_core::unfold(x.view(), 1), array![[0., 1., 4., 5.], [2., 3., 6., 7.]]);
/// ```
///
/// Reference: Kolda & Bader (2009), §2.4, with the columns in the opposite order (theirs let the first mode vary fastest).
#[track_caller]
pub fn unfold<T: Real>(tensor: ArrayViewD<'_, T>, mode: usize) -> Array2<T> {
    assert!(mode < tensor.ndim(), "mode {mode} of a tensor of order {}", tensor.ndim());
    let rows = tensor.len_of(Axis(mode));
    let columns = tensor
        .shape()
        .iter()
        .enumerate()
        .filter(|&(m, _)| m != mode)
        .map(|(_, &size)| size)
        .product();
    let mut axes: Vec<usize> = (0..tensor.ndim()).collect();
    axes[..=mode].rotate_right(1);
    let moved = tensor.permuted_axes(IxDyn(&axes));
    let mut unfolded = Array2::zeros((rows, columns));
    unfolded.iter_mut().zip(&moved).for_each(|(to, &from)| *to = from);
    unfolded
}

/// The tensor of shape `shape` whose unfolding along `mode` is `matrix`: `fold(unfold(X, n), n) = X`.
///
/// # Shapes
/// `matrix`: `[Iₙ, ∏_{m≠n} Iₘ]`; result: `shape` = `[I₀, …, I_N₋₁]`.
///
/// # Errors
/// [`CpError::Mode`] or [`CpError::FoldShape`] where mode, shape and matrix do not belong together.
pub fn fold<T: Real>(
    matrix: ArrayView2<'_, T>,
    mode: usize,
    shape: &[usize],
) -> Result<ArrayD<T>, CpError> {
    if mode >= shape.len() {
        return Err(CpError::Mode { mode, order: shape.len() });
    }
    let mut moved = shape.to_vec();
    moved[..=mode].rotate_right(1);
    let got = [matrix.nrows(), matrix.ncols()];
    let columns: usize = moved[1..].iter().product();
    if got != [moved[0], columns] {
        return Err(CpError::FoldShape { mode, shape: shape.to_vec(), got });
    }
    let mut axes: Vec<usize> = (0..shape.len()).collect();
    axes[..=mode].rotate_right(1);
    let mut folded = ArrayD::zeros(IxDyn(shape));
    folded
        .view_mut()
        .permuted_axes(IxDyn(&axes))
        .iter_mut()
        .zip(matrix)
        .for_each(|(to, &from)| *to = from);
    Ok(folded)
}
