//! The matricised tensor times Khatri–Rao product, the kernel that nearly all solvers spend their time in.

use ndarray::{Array2, ArrayView2, ArrayViewD};

use crate::khatri_rao::khatri_rao;
use crate::real::Real;
use crate::tree::{self, Dense};
use crate::unfold::unfold;

/// Matricised tensor times Khatri–Rao product of all factors but one, X₍ₙ₎ (⊙_{m≠n} A⁽ᵐ⁾).
///
/// One matrix product of the tensor with the Khatri–Rao product of one of two groups of modes, then contractions of what
/// is left; the product of full size, `[∏_{m≠n} Iₘ, R]`, is only built where a group is all modes but one, and is then
/// smaller than the tensor. Solvers that need all modes share these partial products between them.
///
/// # Shapes
/// `tensor`: `[I₀, …, I_N₋₁]`; `factors[m]`: `[Iₘ, R]` (that of `mode` is not read beyond its shape); result: `[Iₙ, R]`.
///
/// # Panics
/// If the tensor has fewer than two modes or no mode `mode`, or the factors do not fit the tensor.
///
/// Reference: Kolda & Bader (2009), §3.4, with the modes in the opposite order (see [`unfold`]).
#[track_caller]
pub fn mttkrp<T: Real>(tensor: ArrayViewD<'_, T>, factors: &[Array2<T>], mode: usize) -> Array2<T> {
    let rank = check(&tensor, factors, mode);
    let rows = tensor.shape()[mode];
    if tensor.is_empty() || rank == 0 {
        return Array2::zeros((rows, rank));
    }
    let flat: Vec<Vec<T>> = factors.iter().map(|f| f.iter().copied().collect()).collect();
    let result = tree::single(&Dense::new(&tensor), &flat, rank, mode);
    Array2::from_shape_vec((rows, rank), result).expect("one row for each index of the mode")
}

/// The slow twin of [`mttkrp`]: unfolds the tensor and builds the whole Khatri–Rao product.
///
/// # Shapes
/// As [`mttkrp`].
///
/// # Panics
/// As [`mttkrp`].
#[track_caller]
pub fn mttkrp_slow<T: Real>(
    tensor: ArrayViewD<'_, T>,
    factors: &[Array2<T>],
    mode: usize,
) -> Array2<T> {
    check(&tensor, factors, mode);
    let others: Vec<ArrayView2<'_, T>> =
        factors.iter().enumerate().filter(|&(m, _)| m != mode).map(|(_, f)| f.view()).collect();
    unfold(tensor, mode).dot(&khatri_rao(&others))
}

/// Panics where the arguments do not fit together; returns the rank.
#[track_caller]
fn check<T: Real>(tensor: &ArrayViewD<'_, T>, factors: &[Array2<T>], mode: usize) -> usize {
    let shape = tensor.shape();
    assert!(shape.len() >= 2, "mttkrp of a tensor of order {}, expected at least 2", shape.len());
    assert!(mode < shape.len(), "mode {mode} of a tensor of order {}", shape.len());
    assert!(
        factors.len() == shape.len(),
        "{} factors for a tensor of order {}",
        factors.len(),
        shape.len()
    );
    let rank = factors[0].ncols();
    for (m, factor) in factors.iter().enumerate() {
        let expected = (shape[m], rank);
        assert!(
            factor.dim() == expected,
            "factor {m} has shape {:?}, expected {expected:?}",
            factor.dim()
        );
    }
    rank
}
