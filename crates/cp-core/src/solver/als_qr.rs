//! Alternating least squares by orthogonal factorizations: [`AlsQr`].

use std::borrow::Cow;
use std::ops::{ControlFlow, Range};

use faer::Mat;
use ndarray::ArrayViewD;

use super::normal::normalize;
use super::{Decomposition, Solver};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::khatri_rao::flat_khatri_rao;
use crate::linalg::{Qr, mat, mat_mut, product, row_major, solve_upper, thin_svd};
use crate::measure;
use crate::problem::{Problem, check_option};
use crate::progress::{Progress, StopReason, iterate};
use crate::real::Real;
use crate::scale::Scale;
use crate::threads::for_each_piece;
use crate::tree::{Dense, split};

/// Alternating least squares by QR, or by QR and the singular value decomposition: the iterates of [`Als`](crate::Als)
/// without a ridge, without squaring the condition number.
///
/// [`Als`](crate::Als) solves with Γ = KᵀK, where K = ⊙_{m≠n} A⁽ᵐ⁾: of the digits of an f64, 16 − 2 log₁₀ cond(K) are left.
/// Here K = QR₀ is decomposed instead, and A⁽ⁿ⁾ is the least-squares solution of A⁽ⁿ⁾R₀ᵀ = Z with Z = X₍ₙ₎Q, which leaves
/// 16 − log₁₀ cond(K). That matters where columns are nearly parallel and the error wanted is small.
///
/// * [`AlsQr::new`], `als-qr`: back-substitution with the triangular R₀. Where R₀ is not square (K has fewer rows than
///   columns) or has a diagonal entry below R ε of the largest, that mode of that sweep is solved as by `als-qr-svd`.
/// * [`AlsQr::svd`], `als-qr-svd`: A⁽ⁿ⁾ = Z (R₀ᵀ)⁺ by the singular value decomposition of R₀, so that terms which are
///   dependent in the other modes share the load (minimum norm) in place of growing against each other.
///
/// K is never built. Modes are split in groups as for [`Als`](crate::Als); a group is left by one mode at a time, whose factor
/// A⁽ᵐ⁾ = QₘRₘ compresses the tensor by Qₘ (a mode of at most R entries needs no Q), and the Khatri–Rao product of Rₘ with
/// the triangle so far is decomposed again. The products with the tensor are shared by the modes of a group.
///
/// # Cost
/// Two matrix products of 2 R ∏ Iₙ operations per sweep like [`Als`](crate::Als), and 2 R⁴ for each pair of triangles of size
/// R that meets in the tree (less where modes are smaller), which is little at R = 5 and nearly everything at R = 100. An f64
/// copy of the tensor is held.
///
/// # Numbers
/// Everything is f64 also for f32 tensors, which are widened once; factors are rounded when the run ends. One seed gives
/// bit-equal results on any number of threads.
///
/// ```
/// use cp_core::{AlsQr, CpTensor, Init, Solver};
/// use ndarray::array;
///
/// // Two terms whose columns differ by 1e-5: normal equations lose ten digits and more to them.
/// let nearly = array![[1.0, 1.0], [0.0, 1e-5], [0.0, 0.0]];
/// let x = CpTensor::from_factors(vec![nearly.clone(), nearly.clone(), nearly])?.reconstruct();
/// let found = AlsQr::svd(2).max_iters(50).tol(0.0).init(Init::Random { seed: 7 }).decompose(x.view())?;
/// assert!(found.rel_error < 1e-9);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Minster, Viviano, Liu & Ballard (2023), "CP decomposition for tensors via alternating least squares with QR
/// decomposition", arXiv 2112.10855, §3 and §4; the tree over groups of modes is that of Phan, Tichavský & Cichocki (2013).
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct AlsQr {
    rank: usize,
    max_iters: usize,
    tol: f64,
    pinv_tol: Option<f64>,
    method: Method,
    init: Init,
}

/// How A R₀ᵀ = Z is solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    BackSubstitution,
    PseudoInverse,
}

/// Sweeps, unless [`AlsQr::max_iters`] says otherwise.
const MAX_ITERS: usize = 100;
/// Change of the fit that ends a run, unless [`AlsQr::tol`] says otherwise.
const TOL: f64 = 1e-8;
/// Squared relative error below which the cheap one has fewer than three digits left.
const CHEAP_FROM: f64 = 4096.0 * f64::EPSILON;

impl AlsQr {
    /// ALS-QR for `rank` terms: 100 sweeps at most, tolerance 1e-8, random start with seed 0.
    pub fn new(rank: usize) -> Self {
        let (max_iters, tol, init) = (MAX_ITERS, TOL, Init::Random { seed: 0 });
        Self { rank, max_iters, tol, pinv_tol: None, method: Method::BackSubstitution, init }
    }

    /// ALS-QR-SVD for `rank` terms, with the same defaults.
    pub fn svd(rank: usize) -> Self {
        Self { method: Method::PseudoInverse, ..Self::new(rank) }
    }

    /// Most sweeps; default 100. With 0 the start is returned.
    pub fn max_iters(mut self, sweeps: usize) -> Self {
        self.max_iters = sweeps;
        self
    }

    /// Stops when the fit changes by less than this between two sweeps; default 1e-8. With 0 there are exactly
    /// [`max_iters`](Self::max_iters) sweeps.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Singular values of R₀ up to this share of the largest count as zero in the pseudo-inverse; default R ε = 2.2e-16 R.
    ///
    /// A direction is kept or dropped as a whole, so that a larger value is no smooth bound on the component energy as the
    /// ridge of [`Als`](crate::Als) is: terms that cancel each other grow until they are as parallel as this allows, and
    /// then the error jumps.
    pub fn pinv_tol(mut self, tol: f64) -> Self {
        self.pinv_tol = Some(tol);
        self
    }

    /// Where to start; default [`Init::Random`] with seed 0.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    fn check(&self) -> Result<(), CpError> {
        check_option("tol", self.tol)?;
        check_option("pinv_tol", self.pinv_tol)
    }
}

impl<T: Real> Solver<T> for AlsQr {
    fn name(&self) -> &'static str {
        match self.method {
            Method::BackSubstitution => "als-qr",
            Method::PseudoInverse => "als-qr-svd",
        }
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        self.check()?;
        let problem = Problem::new(&tensor, self.rank)?;
        reserve(&problem.tensor.shape, self.rank)?;
        let start = self.init.factors(&problem.tensor, self.rank)?;
        let mut state = QrState::new(self, &problem, start);
        let (trace, stop) = if problem.norm == 0.0 {
            state.weights.fill(0.0);
            (Vec::new(), StopReason::Converged)
        } else {
            iterate(self.max_iters, self.tol, observe, &mut |_| state.sweep().map(Into::into))?
        };
        let QrState { factors, weights, .. } = state;
        let narrow = |factor: Vec<f64>| factor.into_iter().map(T::narrow).collect();
        problem.finish(factors.into_iter().map(narrow).collect(), &weights, trace, stop)
    }
}

/// The model while it is being improved, in f64.
struct QrState {
    /// The scaled tensor.
    tensor: Dense<'static, f64>,
    norm: f64,
    rank: usize,
    method: Method,
    /// Share of the largest singular value up to which others count as zero.
    pinv_tol: f64,
    /// `[Iₙ, R]` each, columns of norm 1.
    factors: Vec<Vec<f64>>,
    /// λ, `[R]`.
    weights: Vec<f64>,
}

impl QrState {
    fn new<T: Real>(options: &AlsQr, problem: &Problem<'_, T>, mut start: CpTensor<f64>) -> Self {
        start.normalize();
        let down = Scale::new(-problem.exponent);
        let data: Vec<f64> = problem.tensor.data.iter().map(|x| x.widen()).collect();
        Self {
            tensor: Dense { shape: problem.tensor.shape.clone(), data: Cow::Owned(data) },
            norm: problem.norm,
            rank: options.rank,
            method: options.method,
            pinv_tol: options.pinv_tol.unwrap_or(options.rank as f64 * f64::EPSILON),
            factors: start.factors.iter().map(|f| f.iter().copied().collect()).collect(),
            weights: start.weights.iter().map(|&w| down.of(w)).collect(),
        }
    }

    /// One sweep over all modes; returns the relative error after it.
    fn sweep(&mut self) -> Result<f64, CpError> {
        let Self { tensor, norm, rank, method, pinv_tol, factors, weights } = self;
        let (rank, last) = (*rank, factors.len() - 1);
        let mut cheap = 0.0;
        let partial = Cow::Borrowed(&*tensor.data);
        let root = QrNode { partial, depth: 1, r: Cow::Owned(vec![1.0; rank]) };
        descend(&tensor.shape, 0..last + 1, &root, factors, rank, &mut |mode, node, factors| {
            let mut solution = match method {
                Method::BackSubstitution => back_substitute(node, rank),
                Method::PseudoInverse => None,
            }
            .map_or_else(|| pseudo_solve(node, rank, *pinv_tol), Ok)?;
            normalize(weights, &mut factors[mode], &mut solution, rank);
            if mode == last {
                cheap = square_left(node, &factors[mode], weights, *norm) / (*norm * *norm);
            }
            Ok(())
        })?;
        Ok(measure::cheap_or_direct(cheap, CHEAP_FROM, || {
            measure::residual(tensor, factors, weights) / *norm
        }))
    }
}

/// A node of the tree: the tensor compressed to the group of modes G by an orthonormal basis Q of the column space of
/// K = ⊙_{m∉G} A⁽ᵐ⁾, where K = QR₀. For a single mode these are Z and R₀ of its least-squares problem.
struct QrNode<'a> {
    /// X₍G₎Q, `[∏ G, depth]`.
    partial: Cow<'a, [f64]>,
    /// Columns of Q, at most R.
    depth: usize,
    /// R₀, `[depth, R]`: upper triangular where a decomposition made it.
    r: Cow<'a, [f64]>,
}

/// What is done with each mode: `(mode, its node, all factors)`.
type Update<'u> = dyn FnMut(usize, &QrNode<'_>, &mut [Vec<f64>]) -> Result<(), CpError> + 'u;

/// Visits the modes of a group in order, each with the newest factors of the others.
fn descend(
    shape: &[usize],
    modes: Range<usize>,
    node: &QrNode<'_>,
    factors: &mut [Vec<f64>],
    rank: usize,
    update: &mut Update<'_>,
) -> Result<(), CpError> {
    if modes.len() == 1 {
        return update(modes.start, node, factors);
    }
    let middle = modes.start + split(&shape[modes.clone()]);

    let mut child = node.borrow();
    for mode in (middle..modes.end).rev() {
        let kept: usize = shape[modes.start..mode].iter().product();
        child = child.without_last(&factors[mode], kept, rank)?;
    }
    descend(shape, modes.start..middle, &child, factors, rank, update)?;

    let mut child = node.borrow();
    for mode in modes.start..middle {
        let kept: usize = shape[mode + 1..modes.end].iter().product();
        child = child.without_first(&factors[mode], kept, rank)?;
    }
    descend(shape, middle..modes.end, &child, factors, rank, update)
}

impl<'a> QrNode<'a> {
    fn borrow(&self) -> QrNode<'_> {
        QrNode {
            partial: Cow::Borrowed(&self.partial),
            depth: self.depth,
            r: Cow::Borrowed(&self.r),
        }
    }

    /// The node of the group without its last mode, whose factor is A = QR₁: `[p, b, d]` = Σ_q `partial[p, q, d]` Q`[q, b]`.
    fn without_last(self, factor: &[f64], kept: usize, rank: usize) -> Result<Self, CpError> {
        let (size, depth) = (factor.len() / rank, self.depth);
        if size <= rank {
            return self.joined(factor, kept, rank);
        }
        let (q, r) = thin_qr(factor, size, rank)?;
        let mut to = vec![0.0; kept * rank * depth];
        let (out, len) = (rank * depth, size * depth);
        if depth == 1 {
            let x = mat(&self.partial, kept, size);
            product(mat_mut(&mut to, kept, rank), x, q.as_ref());
        } else {
            let work = self.partial.len() as f64 * rank as f64;
            for_each_piece(work, &mut to, out, |i, to| {
                let block = mat(&self.partial[i * len..][..len], size, depth);
                product(mat_mut(to, rank, depth), q.transpose(), block);
            });
        }
        QrNode { partial: Cow::Owned(to), ..self }.joined(&r, kept, rank)
    }

    /// The node of the group without its first mode, whose factor is A = QR₁: `[q, b, d]` = Σ_p Q`[p, b]` `partial[p, q, d]`.
    fn without_first(self, factor: &[f64], kept: usize, rank: usize) -> Result<Self, CpError> {
        let (size, depth) = (factor.len() / rank, self.depth);
        let width = size.min(rank);
        let mut compressed = Cow::Borrowed(&*self.partial);
        let mut r = Cow::Borrowed(factor);
        if size > rank {
            let (q, triangle) = thin_qr(factor, size, rank)?;
            r = Cow::Owned(triangle);
            let x = mat(&self.partial, size, kept * depth);
            let mut to = vec![0.0; width * kept * depth];
            if depth == 1 {
                product(mat_mut(&mut to, kept, width), x.transpose(), q.as_ref());
                return QrNode { partial: Cow::Owned(to), ..self }.joined(&r, kept, rank);
            }
            product(mat_mut(&mut to, width, kept * depth), q.transpose(), x);
            compressed = Cow::Owned(to);
        }
        let mut to = vec![0.0; compressed.len()];
        for (b, block) in compressed.chunks_exact(kept * depth).enumerate() {
            for (column, entries) in block.chunks_exact(depth).enumerate() {
                to[(column * width + b) * depth..][..depth].copy_from_slice(entries);
            }
        }
        QrNode { partial: Cow::Owned(to), ..self }.joined(&r, kept, rank)
    }

    /// Brings the columns `(b, d)` of a node that has just taken in a mode down to at most R: K is now Q times the
    /// Khatri–Rao product of the mode's R₁ and R₀, which is decomposed in its turn.
    fn joined(self, r: &[f64], kept: usize, rank: usize) -> Result<Self, CpError> {
        let joint = flat_khatri_rao(&[r, &self.r], rank);
        let rows = joint.len() / rank;
        if rows <= rank {
            return Ok(QrNode { depth: rows, r: Cow::Owned(joint), ..self });
        }
        let failed = || out_of_memory(&joint, rank);
        let qr = Qr::new(mat(&joint, rows, rank)).ok_or_else(failed)?;
        let mut partial = vec![0.0; kept * rank];
        if kept < rank {
            let mut turned = self.partial.into_owned();
            qr.times_q(&mut turned).ok_or_else(failed)?;
            for (to, from) in partial.chunks_exact_mut(rank).zip(turned.chunks_exact(rows)) {
                to.copy_from_slice(&from[..rank]);
            }
        } else {
            let q = qr.q().ok_or_else(failed)?;
            product(mat_mut(&mut partial, kept, rank), mat(&self.partial, kept, rows), q.as_ref());
        }
        Ok(QrNode { partial: Cow::Owned(partial), depth: rank, r: Cow::Owned(row_major(&qr.r)) })
    }
}

/// Q and R, row-major, of a matrix `[rows, rank]`.
fn thin_qr(matrix: &[f64], rows: usize, rank: usize) -> Result<(Mat<f64>, Vec<f64>), CpError> {
    let failed = || out_of_memory(matrix, rank);
    let qr = Qr::new(mat(matrix, rows, rank)).ok_or_else(failed)?;
    Ok((qr.q().ok_or_else(failed)?, row_major(&qr.r)))
}

/// No work space for the decomposition of this matrix.
fn out_of_memory(matrix: &[f64], rank: usize) -> CpError {
    let bytes = size_of_val(matrix) as u128;
    CpError::OutOfMemory { rank, shape: vec![matrix.len() / rank], bytes }
}

/// The solution of A R₀ᵀ = Z by back-substitution; `None` where R₀ is not square or too close to singular.
fn back_substitute(node: &QrNode<'_>, rank: usize) -> Option<Vec<f64>> {
    if node.depth != rank {
        return None;
    }
    let rows = node.partial.len() / rank;
    // A Khatri–Rao product of just R rows was left as it is.
    let triangular = (1..rank).all(|i| node.r[i * rank..][..i].iter().all(|&x| x == 0.0));
    let (mut solution, upper) = if triangular {
        (node.partial.to_vec(), Cow::Borrowed(&*node.r))
    } else {
        let (q, r) = thin_qr(&node.r, rank, rank).ok()?;
        let mut turned = vec![0.0; rows * rank];
        product(mat_mut(&mut turned, rows, rank), mat(&node.partial, rows, rank), q.as_ref());
        (turned, Cow::Owned(r))
    };
    let diagonal = || upper.iter().step_by(rank + 1).map(|x| x.abs());
    let largest = diagonal().fold(0.0, f64::max);
    if !diagonal().all(|x| x > rank as f64 * f64::EPSILON * largest) {
        return None;
    }
    solve_upper(&upper, &mut solution, rows, rank);
    solution.iter().all(|x| x.is_finite()).then_some(solution)
}

/// The least-squares solution of A R₀ᵀ = Z of least norm, Z U diag(s)⁺ Vᵀ for R₀ = U diag(s) Vᵀ.
fn pseudo_solve(node: &QrNode<'_>, rank: usize, tol: f64) -> Result<Vec<f64>, CpError> {
    let depth = node.depth;
    let what = "singular value decomposition";
    let failed = CpError::NoConvergence { what, rows: depth, columns: rank };
    let (u, s, v) = thin_svd(mat(&node.r, depth, rank)).ok_or(failed)?;
    let rows = node.partial.len() / depth;
    let mut turned = vec![0.0; rows * s.len()];
    product(mat_mut(&mut turned, rows, s.len()), mat(&node.partial, rows, depth), u.as_ref());
    let least = tol * s[0];
    for row in turned.chunks_exact_mut(s.len()) {
        row.iter_mut().zip(&s).for_each(|(x, &s)| *x = if s > least { *x / s } else { 0.0 });
    }
    let mut solution = vec![0.0; rows * rank];
    product(mat_mut(&mut solution, rows, rank), mat(&turned, rows, s.len()), v.transpose());
    Ok(solution)
}

/// ‖X − X̂‖² from the small matrices of a mode: what Q leaves of X, ‖X‖² − ‖Z‖², and what A diag(λ) R₀ᵀ leaves of Z.
///
/// Unlike ‖X‖² − 2⟨X, X̂⟩ + ‖X̂‖², which has the numbers of the paper's equation, it does not subtract norms of terms that
/// cancel each other.
fn square_left(node: &QrNode<'_>, factor: &[f64], weights: &[f64], norm: f64) -> f64 {
    let (rank, depth) = (weights.len(), node.depth);
    let rows = factor.len() / rank;
    let weighted: Vec<f64> = factor
        .chunks_exact(rank)
        .flat_map(|row| row.iter().zip(weights).map(|(a, w)| a * w))
        .collect();
    let mut model = vec![0.0; rows * depth];
    product(
        mat_mut(&mut model, rows, depth),
        mat(&weighted, rows, rank),
        mat(&node.r, depth, rank).transpose(),
    );
    let inside: f64 = node.partial.iter().map(|z| z * z).sum();
    let missed: f64 = node.partial.iter().zip(&model).map(|(z, m)| (z - m).powi(2)).sum();
    (norm * norm - inside).max(0.0) + missed
}

/// Finds out whether the tree's work space can be had, so that an absurd rank is an error and not an abort.
fn reserve(shape: &[usize], rank: usize) -> Result<(), CpError> {
    /// Entries held at a time in and below a node of this depth.
    fn entries(shape: &[usize], depth: u128, rank: u128) -> u128 {
        if shape.len() < 2 {
            return 0;
        }
        let rows = |modes: &[usize]| modes.iter().map(|&n| n as u128).product::<u128>();
        let part = |kept: &[usize], summed: &[usize]| {
            let columns = rows(summed).saturating_mul(depth);
            // A Khatri–Rao product of two small matrices, its copy, its Q and its triangle.
            let widest = summed.iter().map(|&n| (n as u128).min(rank)).max().unwrap_or(1);
            let joint = columns.min(widest.saturating_mul(rank)).saturating_mul(4 * rank);
            // The tensor compressed by one mode, and the same in another order.
            let partials = rows(kept).saturating_mul(columns).saturating_mul(2);
            let below = entries(kept, columns.min(rank), rank);
            joint.saturating_add(partials).saturating_add(below)
        };
        let (left, right) = shape.split_at(split(shape));
        part(left, right).max(part(right, left))
    }
    let tensor = shape.iter().map(|&n| n as u128).product::<u128>();
    let entries = entries(shape, 1, rank as u128).saturating_add(tensor);
    let bytes = entries.saturating_mul(size_of::<f64>() as u128);
    let refused = || CpError::OutOfMemory { rank, shape: shape.to_vec(), bytes };
    let len = usize::try_from(bytes).map_err(|_| refused())?;
    Vec::<u8>::new().try_reserve_exact(len).map_err(|_| refused())
}
