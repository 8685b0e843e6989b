//! What the data-aware methods need of dense algebra: solves with a ridge that is raised where it has to be, and products
//! that are symmetric.

use crate::linalg::{
    Singular, add_ridge, mat, mat_mut, product, raise_ridge, solve_factored, solve_normal,
};

/// What a relative ridge of 0 is raised to where it has to be.
const LEAST_RIDGE: f64 = 1e-15;

/// Adds a relative ridge and solves x M = b for each row b of `right`; raises the ridge where it has to.
///
/// # Shapes
/// `matrix`: M, `[n, n]`, symmetric (overwritten); `right`: `[rows, n]`.
pub(super) fn ridge_solve(
    matrix: &mut [f64],
    right: &mut [f64],
    n: usize,
    ridge: f64,
) -> Result<(), Singular> {
    cholesky(matrix, n, ridge)?;
    solve_factored(matrix, right, right.len() / n, n);
    if right.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(Singular) }
}

/// Overwrites M by the Cholesky factor of M with a relative ridge, raised tenfold until there is one.
pub(super) fn cholesky(matrix: &mut [f64], n: usize, ridge: f64) -> Result<(), Singular> {
    let kept = matrix.to_vec();
    raise_ridge(ridge, Some(LEAST_RIDGE), |relative| {
        matrix.copy_from_slice(&kept);
        add_ridge(matrix, n, relative);
        // One right-hand side shows whether the factor is of use.
        solve_normal(matrix, &mut vec![1.0; n], 1, n)
    })
}

/// AᵀB, `[R, R]`, for A and B `[n, R]`.
pub(super) fn inner(a: &[f64], b: &[f64], rank: usize) -> Vec<f64> {
    let rows = a.len() / rank;
    let mut to = vec![0.0; rank * rank];
    product(mat_mut(&mut to, rank, rank), mat(a, rows, rank).transpose(), mat(b, rows, rank));
    to
}

/// Makes a matrix that is symmetric up to rounding exactly so.
pub(super) fn symmetrize(matrix: &mut [f64], n: usize) {
    for i in 0..n {
        for j in 0..i {
            let mean = 0.5 * (matrix[i * n + j] + matrix[j * n + i]);
            matrix[i * n + j] = mean;
            matrix[j * n + i] = mean;
        }
    }
}

/// The values in f32.
pub(super) fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&x| x as f32).collect()
}

/// The values in f64.
pub(super) fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}
