//! The small dense tools, on faer: products, Grams, the Cholesky solve of the normal equations, the thin SVD.
//!
//! All of it takes row-major slices with their sizes. Products run on the current rayon pool, or on one thread where the work
//! is too small to share ([`parallelism`]), and have the same bits on any number of threads; factorizations run on one.

use faer::diag::DiagMut;
use faer::dyn_stack::{MemBuffer, MemStack, StackReq};
use faer::linalg::cholesky::llt::{factor as llt, solve as llt_solve};
use faer::linalg::matmul::{matmul, triangular};
use faer::linalg::qr::no_pivoting::factor as qr;
use faer::linalg::{evd, householder, svd, triangular_solve};
use faer::{Accum, Conj, Mat, MatMut, MatRef, Par};
use ndarray::{Array2, ArrayView2};

use crate::real::Real;
use crate::threads::{for_each_piece, map_pieces, pays, threads};

/// The current rayon pool for `work` multiply-adds, or no threads where sharing would not pay.
pub(crate) fn parallelism(work: f64) -> Par {
    if pays(work) { Par::rayon(threads()) } else { Par::Seq }
}

/// Threads of faer's factorizations (QR, singular values, eigenvalues): none. They add up parts whose number is that of the
/// threads, so that their results would depend on it, and gain little from a second one: half of their work is bound by memory.
pub(crate) const FACTORIZATION: Par = Par::Seq;

/// View of a row-major slice as a matrix `[rows, columns]`.
pub(crate) fn mat<T>(data: &[T], rows: usize, columns: usize) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(data, rows, columns)
}

/// Mutable view of a row-major slice as a matrix `[rows, columns]`.
pub(crate) fn mat_mut<T>(data: &mut [T], rows: usize, columns: usize) -> MatMut<'_, T> {
    MatMut::from_row_major_slice_mut(data, rows, columns)
}

/// `to = left · right` (overwrites).
///
/// # Shapes
/// `left`: `[m, k]`; `right`: `[k, n]`; `to`: `[m, n]`.
pub(crate) fn product<T: Real>(to: MatMut<'_, T>, left: MatRef<'_, T>, right: MatRef<'_, T>) {
    let work = left.nrows() as f64 * left.ncols() as f64 * right.ncols() as f64;
    matmul(to, Accum::Replace, left, right, T::one(), parallelism(work));
}

/// [`product`] on one thread, for pieces of work that threads share.
pub(crate) fn product_on_one<T: Real>(
    to: MatMut<'_, T>,
    left: MatRef<'_, T>,
    right: MatRef<'_, T>,
) {
    matmul(to, Accum::Replace, left, right, T::one(), Par::Seq);
}

/// aᵀb, added up in blocks, which keeps the rounding error small.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    /// Entries per partial sum.
    const BLOCK: usize = 1024;
    /// Sums side by side, so that the compiler may use vector registers.
    const LANES: usize = 8;
    let block = |(a, b): (&[f64], &[f64])| {
        let (mut sums, mut rest) = ([0.0; LANES], 0.0);
        let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        rest += a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum::<f64>();
        for (a, b) in a.zip(b) {
            sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
        }
        sums.iter().sum::<f64>() + rest
    };
    a.chunks(BLOCK).zip(b.chunks(BLOCK)).map(block).sum()
}

/// Gram matrix AᵀA of the columns, accumulated in f64 for both number types.
///
/// # Shapes
/// `matrix`: `[I, R]`; result: `[R, R]`, symmetric.
pub fn gram<T: Real>(matrix: ArrayView2<'_, T>) -> Array2<f64> {
    let (rows, rank) = matrix.dim();
    let data: Vec<f64> = matrix.iter().map(|&x| x.widen()).collect();
    let mut gram = Array2::zeros((rank, rank));
    if let Some(to) = gram.as_slice_mut() {
        gram_into(to, &data, rows, rank);
    }
    gram
}

/// `to = AᵀA`, both halves filled.
///
/// # Shapes
/// `data`: A as `[rows, rank]`; `to`: `[rank, rank]`.
pub(crate) fn gram_into(to: &mut [f64], data: &[f64], rows: usize, rank: usize) {
    let a = mat(data, rows, rank);
    symmetric_product(to, a.transpose(), a);
}

/// `to = AᵀA` in the upper half, columns ≥ row; the lower one keeps what it held.
///
/// # Shapes
/// As [`gram_into`].
pub(crate) fn gram_upper(to: &mut [f64], data: &[f64], rows: usize, rank: usize) {
    let a = mat(data, rows, rank);
    upper_product(to, a.transpose(), a);
}

/// `to = left · right` for a product that is symmetric, both halves filled; half the work of a general product.
///
/// # Shapes
/// `left`: `[n, k]`; `right`: `[k, n]`; `to`: `[n, n]`.
fn symmetric_product(to: &mut [f64], left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
    upper_product(to, left, right);
    let n = left.nrows();
    for row in 1..n {
        for column in 0..row {
            to[row * n + column] = to[column * n + row];
        }
    }
}

/// The upper half of a symmetric product.
fn upper_product(to: &mut [f64], left: MatRef<'_, f64>, right: MatRef<'_, f64>) {
    let n = left.nrows();
    let work = 0.5 * n as f64 * left.ncols() as f64 * n as f64;
    // The transpose has its columns together, as faer's vectorised paths want them; its lower half is our upper one.
    triangular::matmul(
        mat_mut(to, n, n).transpose_mut(),
        triangular::BlockStructure::TriangularLower,
        Accum::Replace,
        left,
        triangular::BlockStructure::Rectangular,
        right,
        triangular::BlockStructure::Rectangular,
        1.0,
        parallelism(work),
    );
}

/// A normal matrix that has no Cholesky factor, or none that gives finite solutions.
#[derive(Debug)]
pub(crate) struct Singular;

/// How often a ridge is raised where a matrix has no Cholesky factor with it.
const RAISES: usize = 12;

/// Calls `attempt` with `ridge`, and tenfold each time where that was too little. `least` is what a ridge of 0 is raised to;
/// without, it stays 0 and a singular matrix an error.
pub(crate) fn raise_ridge<R>(
    ridge: f64,
    least: Option<f64>,
    mut attempt: impl FnMut(f64) -> Result<R, Singular>,
) -> Result<R, Singular> {
    let mut now = ridge;
    for _ in 0..RAISES {
        if let Ok(found) = attempt(now) {
            return Ok(found);
        }
        now = if now > 0.0 { 10.0 * now } else { least.ok_or(Singular)? };
    }
    attempt(now)
}

/// M + μI with μ = `relative` · mean diagonal entry of M; relative to 1 for a matrix of zeros.
///
/// # Shapes
/// `matrix`: M, `[n, n]`.
pub(crate) fn add_ridge(matrix: &mut [f64], n: usize, relative: f64) {
    let trace: f64 = matrix.iter().step_by(n + 1).sum();
    let mean = if trace > 0.0 { trace / n as f64 } else { 1.0 };
    matrix.iter_mut().step_by(n + 1).for_each(|x| *x += relative * mean);
}

/// Overwrites each row b of `right` with the solution x of x Γ = b, for a symmetric positive definite Γ.
///
/// # Shapes
/// `normal`: Γ, `[rank, rank]`, of which only the upper half, columns ≥ row, is read (overwritten by the Cholesky factor);
/// `right`: `[rows, rank]`.
pub(crate) fn solve_normal(
    normal: &mut [f64],
    right: &mut [f64],
    rows: usize,
    rank: usize,
) -> Result<(), Singular> {
    factorize(normal, rank)?;
    solve_factored(normal, right, rows, rank);
    if right.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(Singular) }
}

/// Columns that are factorized at a time, on one thread.
const BLOCK: usize = 128;

/// Overwrites a symmetric positive definite matrix `[size, size]`, of which only the upper half is read, by its Cholesky
/// factor.
///
/// Blocks of columns from the left: each is factorized on one thread, and what it explains is taken off the columns to its
/// right in a product that threads share. faer's own recursion rounds differently on other numbers of threads.
///
/// Reference: Golub & Van Loan (2013), algorithm 4.2.3 in blocks ("outer product" form).
fn factorize(matrix: &mut [f64], size: usize) -> Result<(), Singular> {
    let scratch = llt::cholesky_in_place_scratch::<f64>(BLOCK, Par::Seq, Default::default());
    let mut buffer = MemBuffer::try_new(scratch).map_err(|_| Singular)?;
    // The transpose of the upper half is the lower half that faer reads.
    let mut rest = mat_mut(matrix, size, size).transpose_mut();
    loop {
        let width = rest.nrows().min(BLOCK);
        let (mut corner, _, mut below, mut right) = rest.split_at_mut(width, width);
        let stack = MemStack::new(&mut buffer);
        let plain = Default::default();
        llt::cholesky_in_place(corner.as_mut(), plain, Par::Seq, stack, Default::default())
            .map_err(|_| Singular)?;
        if below.nrows() == 0 {
            return Ok(());
        }
        let work = 0.5 * (below.nrows() * below.nrows() * width) as f64;
        triangular_solve::solve_lower_triangular_in_place(
            corner.as_ref(),
            below.as_mut().transpose_mut(),
            Par::Seq,
        );
        triangular::matmul(
            right.as_mut(),
            triangular::BlockStructure::TriangularLower,
            Accum::Add,
            below.as_ref(),
            triangular::BlockStructure::Rectangular,
            below.as_ref().transpose(),
            triangular::BlockStructure::Rectangular,
            -1.0,
            parallelism(work),
        );
        rest = right;
    }
}

/// Rows of right-hand sides that one thread solves for at a time; fixed, so that the result does not depend on the threads.
const ROWS: usize = 128;

/// Overwrites each row b of `right` with the solution x of x Γ = b, for a Γ that a Cholesky factor has taken the place of.
///
/// Rows are independent, so that threads get some each: the substitution itself hardly gains from a second one.
pub(crate) fn solve_factored(factor: &[f64], right: &mut [f64], rows: usize, rank: usize) {
    let work = rank as f64 * rank as f64 * rows as f64;
    for_each_piece(work, right, ROWS * rank, |_, right| {
        let columns = mat_mut(right, right.len() / rank, rank).transpose_mut();
        let factor = mat(factor, rank, rank).transpose();
        // Solving in place needs no scratch.
        let mut buffer = MemBuffer::new(StackReq::EMPTY);
        let stack = MemStack::new(&mut buffer);
        llt_solve::solve_in_place_with_conj(factor, Conj::No, columns, Par::Seq, stack);
    });
}

/// U `[m, k]`, s `[k]` (non-increasing) and V `[n, k]` of A ≈ U diag(s) Vᵀ.
pub(crate) type SvdParts = (Mat<f64>, Vec<f64>, Mat<f64>);

/// Thin singular value decomposition of A, k = min(m, n). `None` where it does not converge or memory is short.
pub(crate) fn thin_svd(a: MatRef<'_, f64>) -> Option<SvdParts> {
    let (rows, columns) = (a.nrows(), a.ncols());
    let size = rows.min(columns);
    let par = FACTORIZATION;
    let mut u = Mat::zeros(rows, size);
    let mut v = Mat::zeros(columns, size);
    let mut s = vec![0.0; size];
    let vectors = svd::ComputeSvdVectors::Thin;
    let scratch = svd::svd_scratch::<f64>(rows, columns, vectors, vectors, par, Default::default());
    let mut buffer = MemBuffer::try_new(scratch).ok()?;
    let stack = MemStack::new(&mut buffer);
    let diagonal = DiagMut::from_slice_mut(&mut s);
    svd::svd(a, diagonal, Some(u.as_mut()), Some(v.as_mut()), par, stack, Default::default())
        .ok()?;
    Some((u, s, v))
}

/// The `rank` largest singular values of A and their vectors, from the eigenvectors U₀ of the smaller Gram matrix: the
/// thin decomposition of the small U₀ᵀA gives the values, and vectors that are orthonormal to the last digit.
///
/// About a third of the time of [`thin_svd`]. Squaring costs half of the digits: values below √ε of the largest, 1e-8, are
/// noise, which is below the resolution of f32.
///
/// Reference: Golub & Van Loan (2013), §8.6.1 and §8.1 (Rayleigh–Ritz).
pub(crate) fn leading_svd(a: MatRef<'_, f64>, rank: usize) -> Option<SvdParts> {
    if a.nrows() > a.ncols() {
        let (v, s, u) = leading_svd(a.transpose(), rank)?;
        return Some((u, s, v));
    }
    let n = a.nrows();
    let mut gram = vec![0.0; n * n];
    symmetric_product(&mut gram, a, a.transpose());
    let (_, vectors) = symmetric_eigen(mat(&gram, n, n))?;
    drop(gram);
    // Eigenvalues come in non-decreasing order.
    let leading = vectors.as_ref().subcols(n - rank, rank);
    let mut small = Mat::zeros(rank, a.ncols());
    product(small.as_mut(), leading.transpose(), a);
    let (turn, s, v) = thin_svd(small.as_ref())?;
    let mut u = Mat::zeros(n, rank);
    product(u.as_mut(), leading, turn.as_ref());
    Some((u, s, v))
}

/// Eigenvalues, non-decreasing, and orthonormal eigenvectors (as columns) of a symmetric matrix.
pub(crate) fn symmetric_eigen(a: MatRef<'_, f64>) -> Option<(Vec<f64>, Mat<f64>)> {
    let n = a.nrows();
    let par = FACTORIZATION;
    let mut values = vec![0.0; n];
    let mut vectors = Mat::zeros(n, n);
    let scratch = evd::self_adjoint_evd_scratch::<f64>(
        n,
        evd::ComputeEigenvectors::Yes,
        par,
        Default::default(),
    );
    let mut buffer = MemBuffer::try_new(scratch).ok()?;
    let stack = MemStack::new(&mut buffer);
    let diagonal = DiagMut::from_slice_mut(&mut values);
    evd::self_adjoint_evd(a, diagonal, Some(vectors.as_mut()), par, stack, Default::default())
        .ok()?;
    Some((values, vectors))
}

/// A QR decomposition by Householder reflections, A `[m, n]` = QR with Q `[m, k]` of orthonormal columns and R `[k, n]`
/// upper triangular (trapezoidal where m < n), k = min(m, n).
///
/// A column that differs from a combination of the ones before it by less than 16 m ε of its norm counts as that
/// combination: its reflection is left out, and R has a zero on the diagonal.
pub(crate) struct Qr {
    /// The reflections: vectors below the diagonal, and their coefficients.
    basis: Mat<f64>,
    coefficients: Mat<f64>,
    pub(crate) r: Mat<f64>,
}

impl Qr {
    /// `None` where memory is short.
    pub(crate) fn new(a: MatRef<'_, f64>) -> Option<Self> {
        let (rows, columns) = (a.nrows(), a.ncols());
        let size = rows.min(columns);
        let par = FACTORIZATION;
        let block = qr::recommended_block_size::<f64>(rows, columns);
        let mut basis = a.to_owned();
        let mut coefficients = Mat::zeros(block, size);
        let scratch = qr::qr_in_place_scratch::<f64>(rows, columns, block, par, Default::default());
        let mut buffer = MemBuffer::try_new(scratch).ok()?;
        let stack = MemStack::new(&mut buffer);
        let factors = (basis.as_mut(), coefficients.as_mut());
        let info = qr::qr_in_place(factors.0, factors.1, par, stack, Default::default());
        // Below row `rank` there is only what was left out.
        let entry = |i, j| if i <= j && i < info.rank { basis[(i, j)] } else { 0.0 };
        let r = Mat::from_fn(size, columns, entry);
        Some(Self { basis, coefficients, r })
    }

    /// Q.
    pub(crate) fn q(&self) -> Option<Mat<f64>> {
        let (rows, size) = (self.basis.nrows(), self.coefficients.ncols());
        let mut q = vec![0.0; rows * size];
        q.iter_mut().step_by(rows + 1).for_each(|x| *x = 1.0);
        let block = self.coefficients.nrows();
        self.columnwise(&mut q, |columns| {
            let scratch =
                householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(
                    rows,
                    block,
                    columns.ncols(),
                );
            householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
                self.basis.as_ref().subcols(0, size),
                self.coefficients.as_ref(),
                Conj::No,
                columns,
                Par::Seq,
                MemStack::new(&mut MemBuffer::try_new(scratch).ok()?),
            );
            Some(())
        })?;
        Some(MatRef::from_column_major_slice(&q, rows, size).to_owned())
    }

    /// B Q for B `[count, m]`, row-major, which is overwritten: the first k entries of each row, without building Q. Cheaper
    /// where B has fewer rows than Q has columns.
    pub(crate) fn times_q(&self, b: &mut [f64]) -> Option<()> {
        let (rows, size) = (self.basis.nrows(), self.coefficients.ncols());
        let block = self.coefficients.nrows();
        self.columnwise(b, |columns| {
            let scratch =
                householder::apply_block_householder_sequence_transpose_on_the_left_in_place_scratch::<
                    f64,
                >(rows, block, columns.ncols());
            householder::apply_block_householder_sequence_transpose_on_the_left_in_place_with_conj(
                self.basis.as_ref().subcols(0, size),
                self.coefficients.as_ref(),
                Conj::No,
                columns,
                Par::Seq,
                MemStack::new(&mut MemBuffer::try_new(scratch).ok()?),
            );
            Some(())
        })
    }

    /// Applies the reflections to the columns of a matrix `[m, count]`, in column-major order: so many at a time that the
    /// result does not depend on the threads.
    fn columnwise(
        &self,
        to: &mut [f64],
        apply: impl Fn(MatMut<'_, f64>) -> Option<()> + Sync,
    ) -> Option<()> {
        let (rows, size) = (self.basis.nrows(), self.coefficients.ncols());
        let work = to.len() as f64 * size as f64;
        let done = map_pieces(work, to, rows * ROWS, |_, piece| {
            let count = piece.len() / rows;
            apply(MatMut::from_column_major_slice_mut(piece, rows, count))
        });
        done.into_iter().collect()
    }
}

/// Overwrites each row b of `right` with the solution x of x Rᵀ = b, for an upper triangular R without zeros on the
/// diagonal.
///
/// # Shapes
/// `upper`: R, `[rank, rank]`, row-major; `right`: `[rows, rank]`.
pub(crate) fn solve_upper(upper: &[f64], right: &mut [f64], rows: usize, rank: usize) {
    let work = 0.5 * (rank * rank) as f64 * rows as f64;
    for_each_piece(work, right, ROWS * rank, |_, right| {
        triangular_solve::solve_upper_triangular_in_place_with_conj(
            mat(upper, rank, rank),
            Conj::No,
            mat_mut(right, right.len() / rank, rank).transpose_mut(),
            Par::Seq,
        );
    });
}

/// The entries of a matrix in row-major order.
pub(crate) fn row_major(matrix: &Mat<f64>) -> Vec<f64> {
    let columns = matrix.ncols();
    (0..matrix.nrows() * columns).map(|at| matrix[(at / columns, at % columns)]).collect()
}

/// `to = to + left · right`; shapes as [`product`].
pub(crate) fn add_product<T: Real>(to: MatMut<'_, T>, left: MatRef<'_, T>, right: MatRef<'_, T>) {
    let work = left.nrows() as f64 * left.ncols() as f64 * right.ncols() as f64;
    matmul(to, Accum::Add, left, right, T::one(), parallelism(work));
}

/// Cholesky factor of a symmetric positive definite matrix that many systems are solved with; [`solve_normal`] is for one.
#[derive(Debug)]
pub(crate) struct Cholesky {
    /// `[size, size]`; only the upper half counts.
    factor: Vec<f64>,
    size: usize,
}

impl Cholesky {
    /// `matrix`: `[size, size]`, of which only the upper half is read.
    pub(crate) fn new(mut matrix: Vec<f64>, size: usize) -> Result<Self, Singular> {
        factorize(&mut matrix, size)?;
        let diagonal = matrix.iter().step_by(size + 1);
        if diagonal.into_iter().all(|x| x.is_finite()) {
            Ok(Self { factor: matrix, size })
        } else {
            Err(Singular)
        }
    }

    /// Overwrites each row b of `right`, `[rows, size]`, with the x of x M = b.
    pub(crate) fn solve(&self, right: &mut [f64], rows: usize) {
        solve_factored(&self.factor, right, rows, self.size);
    }
}

/// `to += AᵀA`, the lower half only.
///
/// # Shapes
/// `data`: A as `[rows, size]`; `to`: `[size, size]`.
pub(crate) fn gram_add(to: &mut [f64], data: &[f64], rows: usize, size: usize) {
    let a = mat(data, rows, size);
    triangular::matmul(
        mat_mut(to, size, size),
        triangular::BlockStructure::TriangularLower,
        Accum::Add,
        a.transpose(),
        triangular::BlockStructure::Rectangular,
        a,
        triangular::BlockStructure::Rectangular,
        1.0,
        parallelism(0.5 * rows as f64 * size as f64 * size as f64),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Q has orthonormal columns, R is upper triangular, and their product is `a`.
    fn check(a: &Mat<f64>) {
        let qr = Qr::new(a.as_ref()).expect("little memory is needed");
        let (q, r) = (qr.q().expect("little memory is needed"), &qr.r);
        let size = a.nrows().min(a.ncols());
        let gram = q.transpose() * &q;
        for i in 0..size {
            for j in 0..size {
                let expected = f64::from(u8::from(i == j));
                assert!((gram[(i, j)] - expected).abs() < 1e-14 * size as f64, "{gram:?}");
                assert!(i <= j || r[(i, j)].abs() == 0.0, "{r:?}");
            }
        }
        let error = (&q * r - a).norm_max();
        let tolerance = 1e-13 * a.norm_max() * a.nrows() as f64;
        assert!(error <= tolerance, "off by {error:e}");
        // And without building Q: AᵀQ = Rᵀ.
        let mut turned = row_major(&a.transpose().to_owned());
        qr.times_q(&mut turned).expect("little memory is needed");
        for (j, row) in turned.chunks_exact(a.nrows()).enumerate() {
            for i in 0..size {
                let error = (row[i] - r[(i, j)]).abs();
                assert!(error <= tolerance, "off by {error:e}");
            }
        }
    }

    fn wave(rows: usize, columns: usize) -> Mat<f64> {
        Mat::from_fn(rows, columns, |i, j| ((i * 7 + j * 13 + i * j) as f64).sin())
    }

    #[test]
    fn ridges_are_raised_until_they_do() {
        let tried = |ridge: f64, least: Option<f64>, enough: f64| {
            let mut tried = Vec::new();
            let found = raise_ridge(ridge, least, |ridge| {
                tried.push(ridge);
                if ridge >= enough { Ok(()) } else { Err(Singular) }
            });
            (found.is_ok(), tried.len(), tried[tried.len() - 1])
        };
        assert_eq!(tried(1.0, None, 1.0), (true, 1, 1.0));
        assert_eq!(tried(1.0, None, 999.0), (true, 4, 1000.0));
        assert_eq!(tried(1.0, None, f64::INFINITY), (false, RAISES + 1, 1e12));
        assert_eq!(tried(0.0, None, 1.0), (false, 1, 0.0));
        assert_eq!(tried(0.0, Some(1.0), 10.0), (true, 3, 10.0));
        assert!(!tried(f64::NAN, None, 1.0).0);
    }

    /// Sizes below, at and above one and several blocks of columns.
    #[test]
    fn cholesky_in_blocks() {
        for size in [1, 2, 127, 128, 129, 229, 256, 300, 500] {
            let a = wave(size + 3, size);
            let mut gram = vec![0.0; size * size];
            gram_into(&mut gram, &row_major(&a), size + 3, size);
            add_ridge(&mut gram, size, 0.1);
            let expected: Vec<f64> = (0..2 * size).map(|i| (i as f64).sin()).collect();
            let mut right = vec![0.0; 2 * size];
            let x = mat(&expected, 2, size);
            product(mat_mut(&mut right, 2, size), x, mat(&gram, size, size));
            // The lower half is not read.
            (0..size).for_each(|i| gram[i * size..][..i].fill(f64::NAN));
            solve_normal(&mut gram, &mut right, 2, size).expect("positive definite");
            for (a, b) in right.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-9, "{size}: {a} {b}");
            }
        }
        let mut indefinite = vec![0.0; 300 * 300];
        indefinite.iter_mut().step_by(301).for_each(|x| *x = 1.0);
        indefinite[300 * 300 - 1] = -1.0;
        assert!(solve_normal(&mut indefinite, &mut [1.0; 300], 1, 300).is_err());
    }

    #[test]
    fn qr_of_tall_wide_and_single() {
        for (rows, columns) in [(1, 1), (5, 1), (1, 5), (7, 7), (300, 40), (40, 300), (2500, 5)] {
            check(&wave(rows, columns));
        }
    }

    #[test]
    fn qr_of_dependent_columns() {
        check(&Mat::zeros(6, 3));
        for (rows, columns) in [(30, 6), (300, 60), (9, 9)] {
            let full = wave(rows, columns);
            // Every column twice, a zero column, and rank 2 throughout.
            check(&Mat::from_fn(rows, columns, |i, j| full[(i, j / 2)]));
            check(&Mat::from_fn(rows, columns, |i, j| if j == 1 { 0.0 } else { full[(i, j)] }));
            check(&Mat::from_fn(rows, columns, |i, j| {
                full[(i, 0)] + (j * j) as f64 * full[(i, 1)]
            }));
        }
    }
}
