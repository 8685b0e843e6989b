//! Truncated singular value decomposition: the best rank-R approximation of a matrix, for linear layers.

use ndarray::{Array1, Array2, ArrayView2};

use crate::error::CpError;
use crate::linalg;
use crate::real::Real;
use crate::scale::{self, Scale};

/// A truncated singular value decomposition W ≈ U diag(s) Vᵀ.
#[derive(Debug, Clone, PartialEq)]
pub struct Svd<T = f64> {
    /// U, left singular vectors as columns, `[m, R]`.
    pub u: Array2<T>,
    /// Singular values, non-negative and non-increasing, `[R]`.
    pub s: Array1<T>,
    /// Vᵀ, right singular vectors as rows, `[R, n]`.
    pub vt: Array2<T>,
}

impl<T: Real> Svd<T> {
    /// Number of singular values R.
    pub fn rank(&self) -> usize {
        self.s.len()
    }

    /// U diag(s) Vᵀ, `[m, n]`.
    pub fn reconstruct(&self) -> Array2<T> {
        (&self.u * &self.s).dot(&self.vt)
    }

    /// The two factors of a linear layer y = W x ≈ (U√s)(√s Vᵀ) x, as `(expand, reduce)`.
    ///
    /// Each column of `expand` has the norm of its row of `reduce`, so that neither layer trains faster than the other.
    ///
    /// # Shapes
    /// `expand`: U√s, `[m, R]`; `reduce`: √s Vᵀ, `[R, n]`.
    pub fn balanced(&self) -> (Array2<T>, Array2<T>) {
        let root = self.s.mapv(|s| s.sqrt());
        let expand = &self.u * &root;
        let reduce = &self.vt * &root.insert_axis(ndarray::Axis(1));
        (expand, reduce)
    }
}

/// Smaller side from which an f32 matrix is decomposed through its Gram matrix.
const LARGE: usize = 128;

/// The best approximation of `matrix` of rank R in the Frobenius norm, by its R largest singular values.
///
/// Computed in f64 for both number types; large f32 matrices of which at most half the rank is wanted go through the
/// eigenvectors of their Gram matrix, which resolves values down to 1e-8 of the largest, finer than f32 itself. The signs
/// are fixed so that the largest entry of each column of U is positive.
///
/// # Shapes
/// `matrix`: W, `[m, n]`; 1 ≤ R ≤ min(m, n).
///
/// # Errors
/// NaN or infinite entries, an empty matrix, rank 0, a rank above the smaller side.
///
/// ```
/// use ndarray::array;
///
/// let w = array![[3., 0.], [0., 1.], [0., 0.]];
/// let svd = cp_core::truncated_svd(w.view(), 1)?;
/// assert!((svd.s[0] - 3.0_f64).abs() < 1e-12);
/// let (expand, reduce) = svd.balanced();
/// assert!((expand.dot(&reduce)[[0, 0]] - 3.0).abs() < 1e-12);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Eckart & Young (1936).
pub fn truncated_svd<T: Real>(matrix: ArrayView2<'_, T>, rank: usize) -> Result<Svd<T>, CpError> {
    let (rows, columns) = matrix.dim();
    if let Some(mode) = [rows, columns].iter().position(|&size| size == 0) {
        return Err(CpError::EmptyMode { mode, shape: vec![rows, columns] });
    }
    if rank == 0 {
        return Err(CpError::RankZero);
    }
    if rank > rows.min(columns) {
        return Err(CpError::RankAboveMatrix { rank, rows, columns });
    }
    let mut largest = 0.0_f64;
    for ((row, column), &value) in matrix.indexed_iter() {
        if !value.is_finite() {
            return Err(CpError::NotFinite {
                what: "matrix",
                index: vec![row, column],
                value: value.widen(),
            });
        }
        largest = largest.max(value.widen().abs());
    }
    // A power of two is exact, and keeps the squares inside from overflowing or vanishing.
    let exponent = scale::exponent(largest);
    let (down, up) = (Scale::new(-exponent), Scale::new(exponent));
    let data: Vec<f64> = matrix.iter().map(|&x| down.of(x.widen())).collect();
    let a = linalg::mat(&data, rows, columns);
    let squared =
        T::EPSILON > f64::EPSILON && rows.min(columns) >= LARGE && rank <= rows.min(columns) / 2;
    let parts = if squared { linalg::leading_svd(a, rank) } else { linalg::thin_svd(a) };
    let what = "singular value decomposition";
    let (u, s, v) = parts.ok_or(CpError::NoConvergence { what, rows, columns })?;
    let signs: Vec<f64> = (0..rank)
        .map(|r| {
            let peak = (0..rows)
                .map(|i| u[(i, r)])
                .fold(0.0_f64, |a, b| if b.abs() > a.abs() { b } else { a });
            if peak < 0.0 { -1.0 } else { 1.0 }
        })
        .collect();
    Ok(Svd {
        u: Array2::from_shape_fn((rows, rank), |(i, r)| T::narrow(signs[r] * u[(i, r)])),
        s: Array1::from_shape_fn(rank, |r| T::narrow(up.of(s[r]))),
        vt: Array2::from_shape_fn((rank, columns), |(r, j)| T::narrow(signs[r] * v[(j, r)])),
    })
}
