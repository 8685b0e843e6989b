//! Data-aware Tucker-2: [`DataAwareTucker2`] and its result, [`WeightedTucker2`].

use std::ops::ControlFlow;
use std::sync::Arc;

use ndarray::{Array2, ArrayD, ArrayViewD, IxDyn};

use super::algebra::{cholesky, ridge_solve, symmetrize, widen};
use super::metric::Metric;
use super::{CG_STEPS, CG_TOL, MAX_ITERS, RIDGE, TOL};
use crate::error::CpError;
use crate::linalg::{dot, mat, mat_mut, product, solve_factored, symmetric_eigen, thin_svd};
use crate::measure;
use crate::problem::{Problem, Stopwatch, check_option};
use crate::progress::{Progress, StopReason};
use crate::real::Real;
use crate::scale::Scale;
use crate::solver::conjugate_gradients::conjugate_gradients;
use crate::statistics::InputStatistics;
use crate::tree::Dense;
use crate::tucker::TuckerTensor;

/// Tucker-2 of a kernel in the metric of a layer's inputs: output and input channels are reduced, the kernel window stays.
///
/// It minimises ‖(W − Ŵ) Σ^½‖² over Ŵ[t, s, k] = Σ_{a,b} U_T[t, a] G[a, b, k] U_S[s, b], with W and Σ as in
/// [`DataAwareAls`](super::DataAwareAls). For a given U_S the best U_T and G are known: a reduced-rank regression on
/// Z = U_S ⊗ I, with U_T the leading eigenvectors of WΣZ (ZᵀΣZ)⁻¹ ZᵀΣWᵀ and G = U_Tᵀ WΣZ (ZᵀΣZ)⁻¹. U_S itself is improved by
/// a few steps of preconditioned conjugate gradients. The weighted error never rises, and starts from the leading singular
/// vectors of the input channels; nothing is drawn. Where WΣ = 0, Σ = I takes the place of the inputs.
///
/// # Cost
/// Per iteration, 2 P² R_S operations for ZᵀΣZ, (R_S K)³/3 for its solve, an eigenvalue decomposition of `[T, T]`, and
/// 2 P² R_T for each step of conjugate gradients, with P = S K and K entries in the window; the steps in f32, their
/// residuals and all else in f64.
///
/// ```
/// use cp_core::{DataAwareTucker2, InputStatistics};
/// use ndarray::{Array, Array2};
///
/// let w = Array::from_shape_fn((6, 4, 3, 3), |(t, s, i, j)| ((t * 7 + s * 5 + i * 3 + j) as f64).sin()).into_dyn();
/// let x = Array2::from_shape_fn((300, 36), |(i, p)| ((i * (p + 2)) as f64).cos() / (1.0 + p as f64));
/// let mut statistics = InputStatistics::new(36);
/// statistics.add(x.view())?;
/// let found = DataAwareTucker2::new([3, 2], statistics).decompose(w.view())?;
/// assert_eq!((found.tucker.shape(), found.tucker.ranks()), (vec![6, 4, 3, 3], vec![3, 2, 3, 3]));
/// assert!(found.weighted_error <= found.rel_error);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Kalle et al. (2025), arXiv 2511.04494; for the regression Izenman (1975), "Reduced-rank regression for the
/// multivariate linear model".
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct DataAwareTucker2 {
    ranks: [usize; 2],
    statistics: Arc<InputStatistics>,
    max_iters: usize,
    tol: f64,
    cg_steps: usize,
}

/// What [`DataAwareTucker2`] finds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WeightedTucker2<T = f64> {
    /// Ŵ: the core G, `[R_T, R_S, kh, kw]` (as many window modes as the kernel has), and in modes 0 and 1 the factors U_T,
    /// `[T, R_T]`, and U_S, `[S, R_S]`, of orthonormal columns.
    pub tucker: TuckerTensor<T>,
    /// ‖W − Ŵ‖ / ‖W‖ of the model as it is returned; 0 for a kernel of zeros.
    pub rel_error: f64,
    /// ‖(W − Ŵ) Σ^½‖ / ‖WΣ^½‖ of the same; 0 where WΣ = 0.
    pub weighted_error: f64,
    /// Weighted error after each iteration.
    pub trace: Vec<f64>,
    /// Why it stopped.
    pub stop: StopReason,
    /// Wall-clock time of the call, in seconds.
    pub seconds: f64,
}

impl DataAwareTucker2 {
    /// Tucker-2 with ranks `[R_T, R_S]`: 100 iterations at most, tolerance 1e-8.
    pub fn new(ranks: [usize; 2], statistics: impl Into<Arc<InputStatistics>>) -> Self {
        let statistics = statistics.into();
        Self { ranks, statistics, max_iters: MAX_ITERS, tol: TOL, cg_steps: CG_STEPS }
    }

    /// Most iterations; default 100. With 0 only U_T and the core are solved for.
    pub fn max_iters(mut self, iterations: usize) -> Self {
        self.max_iters = iterations;
        self
    }

    /// Stops when the weighted error changes by less than this between two iterations; default 1e-8.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Most steps of conjugate gradients for U_S; default 8.
    pub fn cg_steps(mut self, steps: usize) -> Self {
        self.cg_steps = steps;
        self
    }

    /// Decomposes `kernel`.
    ///
    /// # Errors
    /// As [`DataAwareTucker2::decompose_with`].
    pub fn decompose<T: Real>(
        &self,
        kernel: ArrayViewD<'_, T>,
    ) -> Result<WeightedTucker2<T>, CpError> {
        self.decompose_with(kernel, &mut |_| ControlFlow::Continue(()))
    }

    /// Decomposes `kernel` and shows each iteration's weighted error to `observe`, which may stop it.
    ///
    /// # Shapes
    /// `kernel`: `[T, S, …]`, at least two modes.
    ///
    /// # Errors
    /// Kernels and options that no model can be found for; a rank above its mode; statistics of another size than S times the
    /// window.
    pub fn decompose_with<T: Real>(
        &self,
        kernel: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<WeightedTucker2<T>, CpError> {
        let watch = Stopwatch::start();
        check_option("tol", self.tol)?;
        let [outer_rank, inner_rank] = self.ranks;
        let problem = Problem::new(&kernel, outer_rank.min(inner_rank))?;
        let shape = &problem.tensor.shape;
        for (mode, (&size, rank)) in shape.iter().zip(self.ranks).enumerate() {
            if rank > size {
                return Err(CpError::RankAboveMode { mode, rank, size });
            }
        }
        let window: usize = shape[2..].iter().product();
        let collapsed =
            Dense { shape: vec![shape[0], shape[1], window], data: problem.tensor.data.clone() };
        let metric = Metric::new(&collapsed, &self.statistics)?;
        let mut input = leading_inputs(&metric, inner_rank)?;
        let (mut outer, mut error) = Outer::best(&metric, &input, self.ranks)?;
        let mut trace = Vec::new();
        let mut stop = StopReason::MaxIters;
        for iteration in 1..=self.max_iters {
            let before = error;
            if metric.whole > 0.0 {
                input = self.improve(&metric, &input, &outer)?;
                (outer, error) = Outer::best(&metric, &input, self.ranks)?;
            }
            trace.push(error);
            if observe(&Progress { iteration, rel_error: error }).is_break() {
                stop = StopReason::Observer;
                break;
            }
            if (before - error).abs() < self.tol || metric.whole == 0.0 {
                stop = StopReason::Converged;
                break;
            }
        }
        let up = Scale::new(problem.exponent);
        let mut core_shape = shape.clone();
        (core_shape[0], core_shape[1]) = (outer_rank, inner_rank);
        let core: Vec<T> = outer.core.iter().map(|&x| T::narrow(up.of(x))).collect();
        let narrow = |data: &[f64], rows, columns| {
            Array2::from_shape_fn((rows, columns), |(i, j)| T::narrow(data[i * columns + j]))
        };
        let mut factors = vec![
            Some(narrow(&outer.output, shape[0], outer_rank)),
            Some(narrow(&input, shape[1], inner_rank)),
        ];
        factors.resize(shape.len(), None);
        let mut found = WeightedTucker2 {
            tucker: TuckerTensor { core: array(&core_shape, core), factors },
            rel_error: 0.0,
            weighted_error: 0.0,
            trace,
            stop,
            seconds: 0.0,
        };
        let down = Scale::new(-problem.exponent);
        let model: Vec<f64> =
            found.tucker.reconstruct().iter().map(|x| down.of(x.widen())).collect();
        let distance = metric.x.iter().zip(&model).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
        found.rel_error = measure::ratio(distance.sqrt(), problem.norm);
        // Inputs that say nothing about W say nothing about its error either.
        let lost = if metric.blind { 0.0 } else { metric.square_of_difference(&model) };
        found.weighted_error = measure::ratio(lost.sqrt(), metric.whole.sqrt());
        found.seconds = watch.seconds();
        Ok(found)
    }

    /// A better U_S for the U_T and core that there are, with orthonormal columns.
    fn improve(&self, metric: &Metric, input: &[f64], outer: &Outer) -> Result<Vec<f64>, CpError> {
        let [a, b] = self.ranks;
        let [inner, window] = [metric.shape[1], metric.shape[2]];
        let sizes = [inner, b, window, a];
        let core = gather(&outer.core, [a, b, window]);
        let columns = window * a;
        let contract = |matrix: &[f64], to: &mut [f64]| {
            let core = mat(&core, b, columns).transpose();
            product(mat_mut(to, inner, b), mat(matrix, inner, columns), core);
        };
        let apply = |input: &[f64], to: &mut [f64]| {
            contract(&widen(&metric.weigh_roughly(&expand(input, &core, sizes), a)), to);
        };
        let (mut residual, mut image) = (vec![0.0; inner * b], vec![0.0; inner * b]);
        contract(&metric.transposed_times(&outer.output, a), &mut residual);
        contract(&metric.weigh(&expand(input, &core, sizes), a), &mut image);
        residual.iter_mut().zip(&image).for_each(|(r, y)| *r -= y);
        // For a Σ that is the Kronecker product of its partial traces, the operator is Σ_S D N.
        let mut turned = vec![0.0; core.len()];
        for (to, block) in turned.chunks_exact_mut(columns).zip(core.chunks_exact(columns)) {
            let trace = mat(&metric.traces[2], window, window);
            product(mat_mut(to, window, a), trace, mat(block, window, a));
        }
        let mut normal = vec![0.0; b * b];
        let right = mat(&turned, b, columns).transpose();
        product(mat_mut(&mut normal, b, b), mat(&core, b, columns), right);
        symmetrize(&mut normal, b);
        let failed =
            |_| CpError::NoConvergence { what: "Cholesky factorization", rows: b, columns: b };
        cholesky(&mut normal, b, 1e-10).map_err(failed)?;
        let inverse = mat(&metric.inverses[1], inner, inner);
        let precondition = |residual: &[f64], to: &mut [f64]| {
            let mut half = residual.to_vec();
            solve_factored(&normal, &mut half, inner, b);
            product(mat_mut(to, inner, b), inverse, mat(&half, inner, b));
        };
        let start = input.to_vec();
        let better =
            conjugate_gradients(start, residual, apply, precondition, CG_TOL, self.cg_steps).x;
        let what = "singular value decomposition";
        let (basis, _, _) = thin_svd(mat(&better, inner, b)).ok_or(CpError::NoConvergence {
            what,
            rows: inner,
            columns: b,
        })?;
        Ok((0..inner * b).map(|at| basis[(at / b, at % b)]).collect())
    }
}

/// U_T `[T, R_T]` and the core `[R_T, R_S, K]`.
struct Outer {
    output: Vec<f64>,
    core: Vec<f64>,
}

impl Outer {
    /// The best of them for an U_S, and the weighted error with it.
    fn best(metric: &Metric, input: &[f64], [a, b]: [usize; 2]) -> Result<(Self, f64), CpError> {
        let [inner, window] = [metric.shape[1], metric.shape[2]];
        let (rows, columns) = (metric.rows, b * window);
        let weighted = reduce_rows(&metric.sigma, input, [inner, b, window]);
        // ZᵀΣZ: the rows (s, k) of ΣZ are reduced in the same way.
        let mut normal = vec![0.0; columns * columns];
        product(
            mat_mut(&mut normal, b, window * columns),
            mat(input, inner, b).transpose(),
            mat(&weighted, inner, window * columns),
        );
        symmetrize(&mut normal, columns);
        let cross = reduce_rows(&metric.y, input, [inner, b, window]);
        let mut regression = cross.clone();
        let failed =
            |_| CpError::NoConvergence { what: "Cholesky factorization", rows: columns, columns };
        ridge_solve(&mut normal, &mut regression, columns, RIDGE).map_err(failed)?;
        let mut explained = vec![0.0; rows * rows];
        let right = mat(&cross, rows, columns).transpose();
        product(mat_mut(&mut explained, rows, rows), mat(&regression, rows, columns), right);
        symmetrize(&mut explained, rows);
        let what = "eigenvalue decomposition";
        let (values, vectors) = symmetric_eigen(mat(&explained, rows, rows))
            .ok_or(CpError::NoConvergence { what, rows, columns: rows })?;
        let leading = vectors.as_ref().subcols(rows - a, a);
        let output = (0..rows * a).map(|at| leading[(at / a, at % a)]).collect();
        let mut core = vec![0.0; a * columns];
        let regression = mat(&regression, rows, columns);
        product(mat_mut(&mut core, a, columns), leading.transpose(), regression);
        let outer = Self { output, core };
        if metric.whole == 0.0 {
            return Ok((outer, 0.0));
        }
        let cheap = 1.0 - values[rows - a..].iter().sum::<f64>() / metric.whole;
        let error = measure::cheap_or_direct(cheap, 1e-8, || {
            let factor = expand(input, &gather(&outer.core, [a, b, window]), [inner, b, window, a]);
            let mut model = vec![0.0; rows * metric.size];
            let right = mat(&factor, metric.size, a).transpose();
            product(mat_mut(&mut model, rows, metric.size), mat(&outer.output, rows, a), right);
            (metric.square_of_difference(&model) / metric.whole).sqrt()
        });
        Ok((outer, error))
    }
}

fn array<T>(shape: &[usize], data: Vec<T>) -> ArrayD<T> {
    ArrayD::from_shape_vec(IxDyn(shape), data)
        .expect("the product of the sizes is the number of entries")
}

/// `matrix` Z with Z = U_S ⊗ I: each row `[S, K]` becomes `[R_S, K]`.
fn reduce_rows(matrix: &[f64], input: &[f64], [inner, b, window]: [usize; 3]) -> Vec<f64> {
    let mut to = vec![0.0; matrix.len() / inner * b];
    let left = mat(input, inner, b).transpose();
    for (to, row) in to.chunks_exact_mut(b * window).zip(matrix.chunks_exact(inner * window)) {
        product(mat_mut(to, b, window), left, mat(row, inner, window));
    }
    to
}

/// The core `[R_T, R_S, K]` as `[R_S, K, R_T]`.
fn gather(core: &[f64], [a, b, window]: [usize; 3]) -> Vec<f64> {
    let mut to = vec![0.0; core.len()];
    for (i, row) in core.chunks_exact(b * window).enumerate() {
        to[i..].iter_mut().step_by(a).zip(row).for_each(|(to, &x)| *to = x);
    }
    to
}

/// U_S `[S, R_S]` times the core `[R_S, K, R_T]`: `[S, K, R_T]`.
fn expand(input: &[f64], core: &[f64], [inner, b, window, a]: [usize; 4]) -> Vec<f64> {
    let mut to = vec![0.0; inner * window * a];
    let core = mat(core, b, window * a);
    product(mat_mut(&mut to, inner, window * a), mat(input, inner, b), core);
    to
}

/// The leading left singular vectors of the unfolding along the input channels, `[S, R_S]`.
fn leading_inputs(metric: &Metric, rank: usize) -> Result<Vec<f64>, CpError> {
    let [inner, window] = [metric.shape[1], metric.shape[2]];
    let mut gram = vec![0.0; inner * inner];
    for (i, row) in gram.chunks_exact_mut(inner).enumerate() {
        for (j, to) in row.iter_mut().enumerate() {
            for slab in metric.x.chunks_exact(inner * window) {
                *to += dot(&slab[i * window..][..window], &slab[j * window..][..window]);
            }
        }
    }
    let (_, vectors) = symmetric_eigen(mat(&gram, inner, inner)).ok_or(CpError::NoConvergence {
        what: "eigenvalue decomposition",
        rows: inner,
        columns: inner,
    })?;
    let first = inner - rank;
    Ok((0..inner * rank).map(|at| vectors[(at / rank, first + at % rank)]).collect())
}
