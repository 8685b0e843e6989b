//! The Khatri–Rao (column-wise Kronecker) product.

use ndarray::{Array2, ArrayView2};

use crate::real::Real;

/// Khatri–Rao product A⁽⁰⁾ ⊙ … ⊙ A⁽ᴷ⁻¹⁾: column r is the Kronecker product of the r-th columns, the index of the last
/// matrix varies fastest.
///
/// # Shapes
/// `matrices[k]`: `[Iₖ, R]`; result: `[∏ₖ Iₖ, R]`.
///
/// # Panics
/// If there is no matrix, or the matrices differ in their number of columns.
///
/// ```
/// use ndarray::array;
///
/// let (a, b) = (array![[1., 2.], [3., 4.]], array![[1., 10.], [2., 20.]]);
/// assert_eq!(cp_core::khatri_rao(&[a.view(), b.view()]), array![[1., 20.], [2., 40.], [3., 40.], [6., 80.]]);
/// ```
///
/// Reference: Kolda & Bader (2009), §2.6.
#[track_caller]
pub fn khatri_rao<T: Real>(matrices: &[ArrayView2<'_, T>]) -> Array2<T> {
    let first = matrices.first().expect("khatri_rao needs at least one matrix");
    let rank = first.ncols();
    assert!(
        matrices.iter().all(|m| m.ncols() == rank),
        "khatri_rao needs matrices of one number of columns"
    );
    let matrices: Vec<_> = matrices.iter().map(|m| m.as_standard_layout()).collect();
    let slices: Vec<&[T]> =
        matrices.iter().map(|m| m.as_slice().expect("standard layout")).collect();
    let rows = matrices.iter().map(|m| m.nrows()).product();
    Array2::from_shape_vec((rows, rank), flat_khatri_rao(&slices, rank))
        .expect("the product of the sizes is the number of entries")
}

/// [`khatri_rao`] of row-major slices, `[Iₖ, R]` each; a row of ones for none.
pub(crate) fn flat_khatri_rao<T: Real, M: AsRef<[T]>>(matrices: &[M], rank: usize) -> Vec<T> {
    let Some((first, rest)) = matrices.split_first() else { return vec![T::one(); rank] };
    let mut data = first.as_ref().to_vec();
    // Without columns there are no entries, and no rows to go through.
    if rank == 0 {
        return data;
    }
    for lower in rest.iter().map(AsRef::as_ref) {
        let mut product = Vec::with_capacity(data.len() / rank * lower.len());
        for upper in data.chunks_exact(rank) {
            for lower in lower.chunks_exact(rank) {
                product.extend(upper.iter().zip(lower).map(|(&x, &y)| x * y));
            }
        }
        data = product;
    }
    data
}
