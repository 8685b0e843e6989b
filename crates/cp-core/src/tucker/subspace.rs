//! Leading left singular vectors: the bases that Tucker models are made of.

use faer::Mat;
use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::svd;
use ndarray::ArrayViewD;

use crate::error::CpError;
use crate::linalg::{FACTORIZATION, mat, mat_mut, symmetric_eigen};
use crate::real::Real;
use crate::unfold::unfold;

/// Rows from which the basis of an f32 unfolding comes from its Gram matrix.
const LARGE: usize = 64;

/// Orthonormal columns and the singular values that belong to them.
#[derive(Debug, Clone)]
pub(crate) struct Basis {
    /// U, `[Iₙ, min(Iₙ, ∏_{m≠n} Iₘ)]`.
    pub(crate) u: Mat<f64>,
    /// Non-increasing, as many as U has columns.
    pub(crate) s: Vec<f64>,
}

impl Basis {
    /// The first `rank` columns, row-major and rounded to `T`, the largest entry of each column positive.
    pub(crate) fn leading<T: Real>(&self, rank: usize) -> Vec<T> {
        let rows = self.u.nrows();
        let mut data = vec![T::zero(); rows * rank];
        for r in 0..rank {
            let peak = (0..rows)
                .map(|i| self.u[(i, r)])
                .fold(0.0_f64, |a, b| if b.abs() > a.abs() { b } else { a });
            let sign = if peak < 0.0 { -1.0 } else { 1.0 };
            (0..rows).for_each(|i| data[i * rank + r] = T::narrow(sign * self.u[(i, r)]));
        }
        data
    }
}

/// All left singular vectors of the unfolding X₍ₙ₎, in f64.
///
/// The unfolding of an f32 tensor with at least 64 rows and more columns goes through the eigenvectors of its Gram matrix,
/// where values below 1e-8 of the largest are noise, finer than f32 itself.
///
/// # Shapes
/// `data`: X of shape `shape`, row-major.
pub(crate) fn of_unfolding<T: Real>(
    data: &[T],
    shape: &[usize],
    mode: usize,
) -> Result<Basis, CpError> {
    let view = ArrayViewD::from_shape(shape, data).expect("as many entries as the shape says");
    let unfolded = unfold(view, mode);
    let (rows, columns) = unfolded.dim();
    let wide: Vec<f64> = unfolded.iter().map(|x| x.widen()).collect();
    drop(unfolded);
    let squared = T::EPSILON > f64::EPSILON && rows >= LARGE && columns >= rows;
    of_matrix(&wide, rows, columns, squared)
}

/// All left singular vectors of A, `[rows, columns]`; by its Gram matrix if `squared`, which wants rows ≤ columns.
pub(crate) fn of_matrix(
    a: &[f64],
    rows: usize,
    columns: usize,
    squared: bool,
) -> Result<Basis, CpError> {
    let failed = |what| CpError::NoConvergence { what, rows, columns };
    if squared {
        let a = mat(a, rows, columns);
        let mut gram = vec![0.0; rows * rows];
        crate::linalg::product(mat_mut(&mut gram, rows, rows), a, a.transpose());
        let (values, vectors) =
            symmetric_eigen(mat(&gram, rows, rows)).ok_or(failed("eigenvalue decomposition"))?;
        // Eigenvalues come in non-decreasing order.
        let u = Mat::from_fn(rows, rows, |i, r| vectors[(i, rows - 1 - r)]);
        return Ok(Basis { u, s: values.iter().rev().map(|x| x.max(0.0).sqrt()).collect() });
    }
    let size = rows.min(columns);
    let mut u = Mat::zeros(rows, size);
    let s = values(a, rows, columns, Some(&mut u)).ok_or(failed("singular value decomposition"))?;
    Ok(Basis { u, s })
}

/// Singular values of A, `[rows, columns]`, non-increasing, and where asked for the thin left vectors. `None` where the
/// iteration does not converge or memory is short.
pub(crate) fn values(
    a: &[f64],
    rows: usize,
    columns: usize,
    u: Option<&mut Mat<f64>>,
) -> Option<Vec<f64>> {
    use svd::ComputeSvdVectors::{No, Thin};
    let size = rows.min(columns);
    let par = FACTORIZATION;
    let left = if u.is_some() { Thin } else { No };
    let mut s = vec![0.0; size];
    let scratch = svd::svd_scratch::<f64>(rows, columns, left, No, par, Default::default());
    let mut buffer = MemBuffer::try_new(scratch).ok()?;
    let stack = MemStack::new(&mut buffer);
    let a = mat(a, rows, columns);
    let diagonal = DiagMut::from_slice_mut(&mut s);
    svd::svd(a, diagonal, u.map(|u| u.as_mut()), None, par, stack, Default::default()).ok()?;
    Some(s)
}
