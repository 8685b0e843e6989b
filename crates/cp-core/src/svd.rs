//! Truncated singular value decomposition: the best rank-R approximation of a matrix, for linear layers.

use faer::Mat;
use ndarray::{Array1, Array2, ArrayView2};

use crate::error::CpError;
use crate::linalg;
use crate::real::Real;
use crate::scale::{self, Scale};
use crate::statistics::InputStatistics;

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

/// The best approximation Ŵ = U diag(s) Vᵀ of rank R in the metric of a layer's inputs, and its error ‖(W − Ŵ) Σ^½‖ / ‖WΣ^½‖ (0
/// where WΣ^½ is 0).
///
/// It minimises E ‖Wx − Ŵx‖², the expected squared change of a linear layer's output, for inputs with Σ = E\[x xᵀ\]: Ŵ = QQᵀW
/// with the R leading eigenvectors Q of WΣWᵀ. Computed in f64.
///
/// # Shapes
/// `matrix`: W, `[m, n]`; `statistics`: for n entries; 1 ≤ R ≤ min(m, n).
///
/// # Errors
/// As [`truncated_svd`], and statistics of another size or without examples.
///
/// ```
/// use ndarray::array;
///
/// // The second input never varies: a matrix of rank one loses nothing.
/// let mut statistics = cp_core::InputStatistics::new(2);
/// statistics.add(array![[1., 0.], [-2., 0.]].view())?;
/// let w = array![[3.0_f64, 5.], [0., 7.]];
/// let (svd, weighted) = cp_core::weighted_svd(w.view(), 1, &statistics)?;
/// assert!(weighted < 1e-6 && (svd.reconstruct()[[0, 0]] - 3.0).abs() < 1e-9);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Izenman (1975), "Reduced-rank regression for the multivariate linear model".
pub fn weighted_svd<T: Real>(
    matrix: ArrayView2<'_, T>,
    rank: usize,
    statistics: &InputStatistics,
) -> Result<(Svd<T>, f64), CpError> {
    let (rows, columns) = matrix.dim();
    // The checks of matrix and rank, and an answer where Σ says nothing.
    let plain = truncated_svd(matrix, rank)?;
    let sigma = statistics.scaled(columns)?;
    let largest = matrix.iter().fold(0.0_f64, |a, b| a.max(b.widen().abs()));
    let exponent = scale::exponent(largest);
    let (down, up) = (Scale::new(-exponent), Scale::new(exponent));
    let data: Vec<f64> = matrix.iter().map(|&x| down.of(x.widen())).collect();
    let w = linalg::mat(&data, rows, columns);
    let mut weighted = Mat::<f64>::zeros(rows, columns);
    linalg::product(weighted.as_mut(), w, linalg::mat(&sigma, columns, columns));
    let mut energy = Mat::<f64>::zeros(rows, rows);
    linalg::product(energy.as_mut(), weighted.as_ref(), w.transpose());
    let what = "eigenvalue decomposition";
    let (values, vectors) = linalg::symmetric_eigen(energy.as_ref())
        .ok_or(CpError::NoConvergence { what, rows, columns: rows })?;
    let total: f64 = values.iter().map(|value| value.max(0.0)).sum();
    if total == 0.0 {
        return Ok((plain, 0.0));
    }
    let leading = vectors.as_ref().subcols(rows - rank, rank);
    let mut inner = Mat::<f64>::zeros(rank, columns);
    linalg::product(inner.as_mut(), leading.transpose(), w);
    let inner = Array2::from_shape_fn((rank, columns), |(r, j)| inner[(r, j)]);
    let turned = truncated_svd(inner.view(), rank)?;
    let u = Array2::from_shape_fn((rows, rank), |(i, r)| {
        T::narrow((0..rank).map(|k| leading[(i, k)] * turned.u[[k, r]]).sum())
    });
    let svd = Svd { u, s: turned.s.mapv(|s| T::narrow(up.of(s))), vt: turned.vt.mapv(T::narrow) };
    let lost: f64 = values[..rows - rank].iter().map(|value| value.max(0.0)).sum();
    Ok((svd, (lost / total).sqrt()))
}
