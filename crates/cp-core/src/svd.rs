//! Truncated singular value decomposition: the best rank-R approximation of a matrix, for linear layers.

use std::marker::PhantomData;

use faer::Mat;
use ndarray::{Array1, Array2, ArrayView2};

use crate::error::CpError;
use crate::linalg;
use crate::measure;
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
    let largest = check(&matrix)?;
    check_rank(rank, rows, columns)?;
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
    Ok(rounded(&u, &s, &v, rank, up))
}

/// The largest absolute entry of a matrix that has entries, all of them finite.
fn check<T: Real>(matrix: &ArrayView2<'_, T>) -> Result<f64, CpError> {
    let (rows, columns) = matrix.dim();
    if let Some(mode) = [rows, columns].iter().position(|&size| size == 0) {
        return Err(CpError::EmptyMode { mode, shape: vec![rows, columns] });
    }
    let mut largest = 0.0_f64;
    for ((row, column), &value) in matrix.indexed_iter() {
        if !value.is_finite() {
            let (what, index, value) = ("matrix", vec![row, column], value.widen());
            return Err(CpError::NotFinite { what, index, value });
        }
        largest = largest.max(value.widen().abs());
    }
    Ok(largest)
}

pub(crate) fn check_rank(rank: usize, rows: usize, columns: usize) -> Result<(), CpError> {
    if rank == 0 {
        return Err(CpError::RankZero);
    }
    if rank > rows.min(columns) {
        return Err(CpError::RankAboveMatrix { rank, rows, columns });
    }
    Ok(())
}

/// The best approximations of a matrix in the metric of a layer's inputs, of all ranks, from one factorization.
///
/// Ŵ = QQᵀW with the R leading eigenvectors Q of WΣWᵀ minimises E ‖Wx − Ŵx‖², the expected squared change of a linear layer's
/// output, for inputs with Σ = E\[x xᵀ\]. The eigenvectors are the same for every rank, so that their errors cost nothing more
/// than one decomposition, and a model an SVD of QᵀW, `[R, n]`. Where WΣ = 0, Σ = I takes its place. Computed in f64.
///
/// ```
/// use cp_core::{InputStatistics, WeightedSvd, weighted_svd};
/// use ndarray::{Array2, array};
///
/// let w = Array2::from_shape_fn((5, 4), |(i, j)| ((i * 3 + j * 7) as f64).sin() + (i == j) as u8 as f64);
/// let mut statistics = InputStatistics::new(4);
/// statistics.add(array![[1., 2., 0., 1.], [0., 1., 3., -1.], [2., 0., 1., 1.], [1., 1., 1., 1.]].view())?;
/// let ladder = WeightedSvd::new(w.view(), &statistics)?;
/// for rank in 1..=4 {
///     let (svd, error) = weighted_svd(w.view(), rank, &statistics)?;
///     assert_eq!((ladder.truncate(rank)?, ladder.weighted_error(rank)), (svd, error));
/// }
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Izenman (1975), "Reduced-rank regression for the multivariate linear model".
#[derive(Debug, Clone)]
pub struct WeightedSvd<T = f64> {
    /// Eigenvalues of WΣWᵀ, non-increasing, `[m]`; none where the inputs say nothing.
    values: Vec<f64>,
    /// Its eigenvectors, in the same order, `[m, m]`.
    vectors: Mat<f64>,
    /// QᵀW for all of them, in units of 2ᵏ, `[m, n]`.
    turned: Mat<f64>,
    /// k.
    exponent: i32,
    number: PhantomData<T>,
}

impl<T: Real> WeightedSvd<T> {
    /// Factorizes W.
    ///
    /// # Shapes
    /// `matrix`: W, `[m, n]`; `statistics`: for n entries.
    ///
    /// # Errors
    /// NaN or infinite entries, an empty matrix; statistics of another size or without examples.
    pub fn new(matrix: ArrayView2<'_, T>, statistics: &InputStatistics) -> Result<Self, CpError> {
        let (rows, columns) = matrix.dim();
        let largest = check(&matrix)?;
        let sigma = statistics.scaled(columns)?;
        let exponent = scale::exponent(largest);
        let down = Scale::new(-exponent);
        let data: Vec<f64> = matrix.iter().map(|&x| down.of(x.widen())).collect();
        let w = linalg::mat(&data, rows, columns);
        let mut weighted = Mat::<f64>::zeros(rows, columns);
        linalg::product(weighted.as_mut(), w, linalg::mat(&sigma, columns, columns));
        let blind = weighted.norm_max() == 0.0;
        let right = if blind { w } else { weighted.as_ref() };
        let mut energy = Mat::<f64>::zeros(rows, rows);
        linalg::product(energy.as_mut(), right, w.transpose());
        let what = "eigenvalue decomposition";
        let (values, vectors) = linalg::symmetric_eigen(energy.as_ref())
            .ok_or(CpError::NoConvergence { what, rows, columns: rows })?;
        // They come in non-decreasing order.
        let vectors = Mat::from_fn(rows, rows, |i, r| vectors[(i, rows - 1 - r)]);
        let mut turned = Mat::<f64>::zeros(rows, columns);
        linalg::product(turned.as_mut(), vectors.as_ref().transpose(), w);
        let values = values.iter().rev().map(|value| value.max(0.0));
        let values = if blind { Vec::new() } else { values.collect() };
        Ok(Self { values, vectors, turned, exponent, number: PhantomData })
    }

    /// The largest rank there is, min(m, n).
    pub fn max_rank(&self) -> usize {
        self.turned.nrows().min(self.turned.ncols())
    }

    /// ‖(W − Ŵ) Σ^½‖ / ‖WΣ^½‖ of the model of rank R, 0 where WΣ = 0; ranks above the largest count as that.
    pub fn weighted_error(&self, rank: usize) -> f64 {
        let sum = |values: &[f64]| values.iter().rev().sum::<f64>();
        let dropped = &self.values[rank.min(self.values.len())..];
        measure::ratio(sum(dropped), sum(&self.values)).sqrt()
    }

    /// ‖W − Ŵ‖ / ‖W‖ of the model of rank R, before it is rounded to `T`; 0 where W = 0.
    pub fn rel_error(&self, rank: usize) -> f64 {
        let (rows, columns) = (self.turned.nrows(), self.turned.ncols());
        // From the small end: what is dropped may be far smaller than what is kept.
        let square = |r: usize| (0..columns).map(|j| self.turned[(r, j)].powi(2)).sum::<f64>();
        let norm = |first: usize| (first..rows).rev().map(square).sum::<f64>().sqrt();
        measure::ratio(norm(rank.min(rows)), norm(0))
    }

    /// The model of rank R.
    ///
    /// # Errors
    /// Rank 0, and a rank above the smaller side.
    pub fn truncate(&self, rank: usize) -> Result<Svd<T>, CpError> {
        let (rows, columns) = (self.turned.nrows(), self.turned.ncols());
        check_rank(rank, rows, columns)?;
        let what = "singular value decomposition";
        let (turn, s, v) = linalg::thin_svd(self.turned.as_ref().subrows(0, rank))
            .ok_or(CpError::NoConvergence { what, rows: rank, columns })?;
        let mut u = Mat::<f64>::zeros(rows, rank);
        linalg::product(u.as_mut(), self.vectors.as_ref().subcols(0, rank), turn.as_ref());
        Ok(rounded(&u, &s, &v, rank, Scale::new(self.exponent)))
    }
}

/// The first `rank` singular values, times 2ᵏ, and vectors, the largest entry of each column of U positive.
fn rounded<T: Real>(u: &Mat<f64>, s: &[f64], v: &Mat<f64>, rank: usize, up: Scale) -> Svd<T> {
    let (rows, columns) = (u.nrows(), v.nrows());
    let signs: Vec<f64> = (0..rank)
        .map(|r| {
            let peak = (0..rows)
                .map(|i| u[(i, r)])
                .fold(0.0_f64, |a, b| if b.abs() > a.abs() { b } else { a });
            if peak < 0.0 { -1.0 } else { 1.0 }
        })
        .collect();
    Svd {
        u: Array2::from_shape_fn((rows, rank), |(i, r)| T::narrow(signs[r] * u[(i, r)])),
        s: Array1::from_shape_fn(rank, |r| T::narrow(up.of(s[r]))),
        vt: Array2::from_shape_fn((rank, columns), |(r, j)| T::narrow(signs[r] * v[(j, r)])),
    }
}

/// The best approximation of rank R in the metric of a layer's inputs, and its error ‖(W − Ŵ) Σ^½‖ / ‖WΣ^½‖ (0 where WΣ^½ is
/// 0): one rank of [`WeightedSvd`].
///
/// # Shapes
/// `matrix`: W, `[m, n]`; `statistics`: for n entries; 1 ≤ R ≤ min(m, n).
///
/// # Errors
/// As [`WeightedSvd::new`] and [`WeightedSvd::truncate`].
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
pub fn weighted_svd<T: Real>(
    matrix: ArrayView2<'_, T>,
    rank: usize,
    statistics: &InputStatistics,
) -> Result<(Svd<T>, f64), CpError> {
    check(&matrix)?;
    check_rank(rank, matrix.nrows(), matrix.ncols())?;
    let ladder = WeightedSvd::new(matrix, statistics)?;
    Ok((ladder.truncate(rank)?, ladder.weighted_error(rank)))
}
