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
    let (first, rest) = matrices.split_first().expect("khatri_rao needs at least one matrix");
    let rank = first.ncols();
    assert!(
        rest.iter().all(|m| m.ncols() == rank),
        "khatri_rao needs matrices of one number of columns"
    );
    let mut data: Vec<T> = first.iter().copied().collect();
    let mut rows = first.nrows();
    for matrix in rest {
        let matrix = matrix.as_standard_layout();
        let right = matrix.as_slice().expect("standard layout");
        let mut product = Vec::with_capacity(rows * right.len());
        if rank > 0 {
            for upper in data.chunks_exact(rank) {
                for lower in right.chunks_exact(rank) {
                    product.extend(upper.iter().zip(lower).map(|(&x, &y)| x * y));
                }
            }
        }
        rows *= matrix.nrows();
        data = product;
    }
    Array2::from_shape_vec((rows, rank), data)
        .expect("the product of the sizes is the number of entries")
}
