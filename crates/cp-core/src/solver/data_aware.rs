//! Data-aware alternating least squares, "ALS-Σ": [`DataAwareAls`] and [`weighted_rel_error`].

mod tucker2;

use std::ops::ControlFlow;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, ArrayViewD};

use super::normal::normalize;
use super::{Decomposition, Problem, Progress, Solver, StopReason};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::linalg::{gram_into, mat, mat_mut, product, solve_factored, solve_normal};
use crate::measure;
use crate::real::Real;
use crate::scale::{self, Scale};
use crate::statistics::InputStatistics;
use crate::tree::Dense;

pub use tucker2::{DataAwareTucker2, WeightedTucker2};

/// Alternating least squares in the metric of a layer's inputs.
///
/// It minimises ‖(W − Ŵ) Σ^½‖², the expected squared change of the layer's output, for the mode-0 unfolding W `[T, P]` of a
/// kernel (mode 0 is the output; P is the product of the other modes) and Σ = E[x xᵀ] `[P, P]` of its unfolded input. With
/// Σ = I this is [`Als`](super::Als). Where the inputs are correlated, as those of a trained network are, the output changes
/// less at equal rank than after plain ALS, and fine-tuning has less to repair. The plain error is larger.
///
/// With W̃ = WΣ and K = ⊙_{m≥1} A⁽ᵐ⁾ the update of mode 0 is A⁽⁰⁾ = W̃K (KᵀΣK + μI)⁻¹. For the other modes the rows of a
/// factor are coupled: the normal operator is D ↦ 𝒞(Σ ℰ(D) C) with ℰ(D) the Khatri–Rao product with D in the place of A⁽ⁿ⁾,
/// 𝒞 its transpose and C = A⁽⁰⁾ᵀA⁽⁰⁾. Where the system of size Iₙ R is small (at most 1024: spatial modes) it is built and
/// solved; otherwise a few steps of conjugate gradients from the current factor lower the error, preconditioned by the
/// Kronecker product of the partial traces of Σ, which for Σ = I is the inverse itself.
///
/// The trace and what an observer sees are the weighted errors ‖(W − Ŵ) Σ^½‖ / ‖WΣ^½‖;
/// [`rel_error`](Decomposition::rel_error) of the result is the plain one.
///
/// # Cost
/// Per sweep, 2 P² R operations for mode 0, for each mode that is solved directly and for each step of conjugate gradients,
/// 2 P Iₙ R² + (Iₙ R)³/3 for a direct solve, and O(T P R). Σ takes P² numbers in f64: 24 MB for 192 channels and 3×3. All of it
/// runs in f64.
///
/// ```
/// use cp_core::{DataAwareAls, Init, InputStatistics, Solver, weighted_rel_error};
/// use ndarray::{Array, Array2};
///
/// let w = Array::from_shape_fn((6, 4, 3), |(t, s, k)| ((t * 7 + s * 5 + k * 3) as f64).sin() + 0.1 * (t * s * k) as f64).into_dyn();
/// // Inputs of which the first entries vary most.
/// let x = Array2::from_shape_fn((200, 12), |(i, p)| ((i * (p + 2)) as f64).cos() / (1.0 + p as f64));
/// let mut statistics = InputStatistics::new(12);
/// statistics.add(x.view())?;
/// let found = DataAwareAls::new(2, statistics.clone()).init(Init::Random { seed: 1 }).decompose(w.view())?;
/// let weighted = weighted_rel_error(w.view(), &found.cp, &statistics)?;
/// assert!(weighted < found.rel_error);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Kalle et al. (2025), arXiv 2511.04494.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct DataAwareAls {
    rank: usize,
    statistics: Arc<InputStatistics>,
    max_iters: usize,
    tol: f64,
    ridge: f64,
    cg_steps: usize,
    init: Init,
}

/// Sweeps, unless [`DataAwareAls::max_iters`] says otherwise.
const MAX_ITERS: usize = 100;
/// Change of the weighted error, unless [`DataAwareAls::tol`] says otherwise.
const TOL: f64 = 1e-8;
/// Relative ridge, unless [`DataAwareAls::ridge`] says otherwise.
const RIDGE: f64 = 1e-12;
/// Steps of conjugate gradients, unless [`DataAwareAls::cg_steps`] says otherwise.
const CG_STEPS: usize = 8;
/// Largest Iₙ R of a direct solve.
const DIRECT: usize = 1024;
/// Part of the first preconditioned residual at which conjugate gradients stop.
const CG_TOL: f64 = 1e-4;
/// How often a ridge is raised tenfold where a matrix has no Cholesky factor.
const RIDGE_STEPS: usize = 14;

impl DataAwareAls {
    /// ALS-Σ for `rank` terms: 100 sweeps at most, tolerance 1e-8, ridge 1e-12, random start with seed 0. Takes the statistics
    /// or an [`Arc`] of them.
    pub fn new(rank: usize, statistics: impl Into<Arc<InputStatistics>>) -> Self {
        Self {
            rank,
            statistics: statistics.into(),
            max_iters: MAX_ITERS,
            tol: TOL,
            ridge: RIDGE,
            cg_steps: CG_STEPS,
            init: Init::Random { seed: 0 },
        }
    }

    /// Most sweeps; default 100. With 0 the start is returned.
    pub fn max_iters(mut self, sweeps: usize) -> Self {
        self.max_iters = sweeps;
        self
    }

    /// Stops when the weighted error changes by less than this between two sweeps; default 1e-8.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Ridge relative to the mean diagonal entry of the normal matrix, as [`Als::ridge`](super::Als::ridge); default 1e-12.
    /// Where the matrix is singular it is raised tenfold until it is not, from 1e-15 where it is 0.
    pub fn ridge(mut self, ridge: f64) -> Self {
        self.ridge = ridge;
        self
    }

    /// Most steps of conjugate gradients for a mode; default 8. More cost more and bring each update nearer to the exact one.
    pub fn cg_steps(mut self, steps: usize) -> Self {
        self.cg_steps = steps;
        self
    }

    /// Where to start; default [`Init::Random`] with seed 0. A few sweeps of plain ALS cost little beside those of ALS-Σ and
    /// are a good start: [`Init::Factors`].
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    fn check(&self) -> Result<(), CpError> {
        check_options(&[("tol", self.tol), ("ridge", self.ridge)])
    }
}

/// Options that have to be finite and at least 0.
pub(super) fn check_options(options: &[(&'static str, f64)]) -> Result<(), CpError> {
    let expected = "a finite number, at least 0";
    match options.iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
        Some(&(option, value)) => Err(CpError::InvalidOption { option, value, expected }),
        None => Ok(()),
    }
}

impl<T: Real> Solver<T> for DataAwareAls {
    fn name(&self) -> &'static str {
        "als-sigma"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        self.check()?;
        let problem = Problem::new(&tensor, self.rank)?;
        let metric = Metric::new(&problem.tensor, &self.statistics)?;
        let start = self.init.factors(&problem.tensor, self.rank)?;
        let mut model = Model::new(start, problem.exponent);
        let mut trace = Vec::new();
        let mut stop = StopReason::MaxIters;
        if metric.whole == 0.0 {
            model.weights.fill(0.0);
            stop = StopReason::Converged;
        } else {
            for iteration in 1..=self.max_iters {
                let rel_error = self.sweep(&metric, &mut model, iteration)?;
                let before = trace.last().copied();
                trace.push(rel_error);
                if observe(&Progress { iteration, rel_error }).is_break() {
                    stop = StopReason::Observer;
                    break;
                }
                if before.is_some_and(|before: f64| (before - rel_error).abs() < self.tol) {
                    stop = StopReason::Converged;
                    break;
                }
            }
        }
        let factors = model.factors.iter().map(|f| f.iter().map(|&x| T::narrow(x)).collect());
        problem.finish(&tensor, factors.collect(), &model.weights, trace, stop)
    }
}

impl DataAwareAls {
    /// One sweep over all modes; returns the weighted error after it.
    fn sweep(&self, metric: &Metric, model: &mut Model, iter: usize) -> Result<f64, CpError> {
        for mode in 0..metric.shape.len() {
            let mut solution = if mode == 0 {
                let k = model.take_inputs(metric);
                let Inputs { kr, weighted } = &k;
                let mut normal = inner(kr, weighted, self.rank);
                symmetrize(&mut normal, self.rank);
                let mut solution = metric.times(kr, self.rank);
                ridge_solve(&mut normal, &mut solution, self.rank, self.ridge)
                    .map_err(|_| CpError::SingularNormalMatrix { mode, iter })?;
                model.inputs = Some(k);
                solution
            } else {
                let step = ModeStep::new(metric, model, mode);
                let size = metric.shape[mode] * self.rank;
                let found = if size <= DIRECT {
                    step.direct(self.ridge)
                } else {
                    step.conjugate_gradients(self.ridge, self.cg_steps)
                };
                model.inputs = None;
                found.map_err(|_| CpError::SingularNormalMatrix { mode, iter })?
            };
            normalize(&mut model.weights, &mut model.factors[mode], &mut solution, self.rank);
        }
        Ok(metric.rel_error(model))
    }
}

/// W, Σ and what follows from them, in f64. Σ is divided by the mean of its diagonal.
pub(super) struct Metric {
    /// `[T, I₁, …]`.
    pub(super) shape: Vec<usize>,
    /// T and P.
    pub(super) rows: usize,
    pub(super) size: usize,
    /// W, `[T, P]`.
    pub(super) x: Vec<f64>,
    /// Σ, `[P, P]`.
    pub(super) sigma: Vec<f64>,
    /// WΣ, `[T, P]`.
    pub(super) y: Vec<f64>,
    /// ‖WΣ^½‖².
    pub(super) whole: f64,
    /// (Partial trace of Σ over all modes but n)⁻¹, scaled to a mean diagonal of 1 before; `[Iₙ, Iₙ]` for n ≥ 1.
    pub(super) inverses: Vec<Vec<f64>>,
    /// The partial traces themselves.
    pub(super) traces: Vec<Vec<f64>>,
}

impl Metric {
    pub(super) fn new<T: Real>(
        tensor: &Dense<'_, T>,
        statistics: &InputStatistics,
    ) -> Result<Self, CpError> {
        let shape = tensor.shape.clone();
        let rows = shape[0];
        let size: usize = shape[1..].iter().product();
        let sigma = statistics.scaled(size)?;
        let x: Vec<f64> = tensor.data.iter().map(|x| x.widen()).collect();
        let mut y = vec![0.0; rows * size];
        product(mat_mut(&mut y, rows, size), mat(&x, rows, size), mat(&sigma, size, size));
        let whole = dot(&x, &y).max(0.0);
        let mut metric =
            Self { shape, rows, size, x, sigma, y, whole, inverses: vec![], traces: vec![] };
        for mode in 0..metric.shape.len() {
            let trace = if mode == 0 { vec![1.0] } else { metric.partial_trace(mode) };
            let n = trace.len().isqrt();
            let mut identity = vec![0.0; n * n];
            identity.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
            // A preconditioner: a ridge does no harm, and no inverse will do as well.
            let mut normal = trace.clone();
            if ridge_solve(&mut normal, &mut identity, n, 1e-9).is_err() {
                identity.fill(0.0);
                identity.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
            }
            metric.inverses.push(identity);
            metric.traces.push(trace);
        }
        Ok(metric)
    }

    /// Numbers of indices of the input modes before and after `mode`.
    fn around(&self, mode: usize) -> [usize; 2] {
        [self.shape[1..mode].iter().product(), self.shape[mode + 1..].iter().product()]
    }

    fn partial_trace(&self, mode: usize) -> Vec<f64> {
        let [left, right] = self.around(mode);
        let n = self.shape[mode];
        let mut trace = vec![0.0; n * n];
        for (i, row) in trace.chunks_exact_mut(n).enumerate() {
            for (j, to) in row.iter_mut().enumerate() {
                for l in 0..left {
                    for q in 0..right {
                        let place = |i: usize| (l * n + i) * right + q;
                        *to += self.sigma[place(i) * self.size + place(j)];
                    }
                }
                *to /= (left * right) as f64;
            }
        }
        trace
    }

    /// Σ `matrix`, `[P, R]`.
    pub(super) fn weigh(&self, matrix: &[f64], rank: usize) -> Vec<f64> {
        let mut to = vec![0.0; self.size * rank];
        let sigma = mat(&self.sigma, self.size, self.size);
        product(mat_mut(&mut to, self.size, rank), sigma, mat(matrix, self.size, rank));
        to
    }

    /// WΣ `matrix`, `[T, R]`.
    pub(super) fn times(&self, matrix: &[f64], rank: usize) -> Vec<f64> {
        let mut to = vec![0.0; self.rows * rank];
        let y = mat(&self.y, self.rows, self.size);
        product(mat_mut(&mut to, self.rows, rank), y, mat(matrix, self.size, rank));
        to
    }

    /// (WΣ)ᵀ `matrix`, `[P, R]`.
    pub(super) fn transposed_times(&self, matrix: &[f64], rank: usize) -> Vec<f64> {
        let mut to = vec![0.0; self.size * rank];
        let y = mat(&self.y, self.rows, self.size).transpose();
        product(mat_mut(&mut to, self.size, rank), y, mat(matrix, self.rows, rank));
        to
    }

    /// The weighted error: the cheap formula where it has digits left, from the entries otherwise. Leaves K and ΣK in the model.
    fn rel_error(&self, model: &mut Model) -> f64 {
        let rank = model.weights.len();
        let inputs = model.take_inputs(self);
        let scale = |row: &[f64]| -> Vec<f64> {
            row.iter().zip(&model.weights).map(|(x, w)| x * w).collect()
        };
        let output: Vec<f64> = model.factors[0].chunks_exact(rank).flat_map(scale).collect();
        let cross = dot(&output, &self.times(&inputs.kr, rank));
        let mut gram = vec![0.0; rank * rank];
        gram_into(&mut gram, &output, self.rows, rank);
        let square = dot(&gram, &inner(&inputs.kr, &inputs.weighted, rank));
        let cheap = (self.whole - 2.0 * cross + square) / self.whole;
        let energy = (model.weights.iter().map(|w| w * w).sum::<f64>() * self.size as f64
            / self.whole)
            .max(1.0);
        let error = if cheap > 1e6 * f64::EPSILON * energy {
            cheap.sqrt()
        } else {
            let mut difference = vec![0.0; self.rows * self.size];
            let k = mat(&inputs.kr, self.size, rank).transpose();
            product(
                mat_mut(&mut difference, self.rows, self.size),
                mat(&output, self.rows, rank),
                k,
            );
            (self.square_of_difference(&difference) / self.whole).sqrt()
        };
        model.inputs = Some(inputs);
        error
    }

    /// ‖(W − Ŵ) Σ^½‖² for Ŵ `[T, P]`.
    pub(super) fn square_of_difference(&self, model: &[f64]) -> f64 {
        let difference: Vec<f64> = self.x.iter().zip(model).map(|(x, y)| x - y).collect();
        let mut weighted = vec![0.0; difference.len()];
        product(
            mat_mut(&mut weighted, self.rows, self.size),
            mat(&difference, self.rows, self.size),
            mat(&self.sigma, self.size, self.size),
        );
        dot(&difference, &weighted).max(0.0)
    }
}

/// K = ⊙_{m≥1} A⁽ᵐ⁾ and ΣK, `[P, R]`.
struct Inputs {
    kr: Vec<f64>,
    weighted: Vec<f64>,
}

/// Normalised factors and λ, in units of the scaled tensor.
struct Model {
    factors: Vec<Vec<f64>>,
    weights: Vec<f64>,
    /// For the factors as they are, where it is known.
    inputs: Option<Inputs>,
}

impl Model {
    fn new(mut cp: CpTensor<f64>, exponent: i32) -> Self {
        cp.normalize();
        let down = Scale::new(-exponent);
        let factors = cp.factors.iter().map(|f| f.iter().copied().collect()).collect();
        let weights = cp.weights.iter().map(|&w| down.of(w)).collect();
        Self { factors, weights, inputs: None }
    }

    fn take_inputs(&mut self, metric: &Metric) -> Inputs {
        let rank = self.weights.len();
        self.inputs.take().unwrap_or_else(|| {
            let factors: Vec<&[f64]> = self.factors[1..].iter().map(|f| f.as_slice()).collect();
            let kr = khatri_rao(&factors, rank);
            let weighted = metric.weigh(&kr, rank);
            Inputs { kr, weighted }
        })
    }
}

/// The least-squares problem of one input mode: D ↦ 𝒞(Σ ℰ(D) C) and its right-hand side.
struct ModeStep<'a> {
    metric: &'a Metric,
    mode: usize,
    rank: usize,
    /// Khatri–Rao products of the input factors before and after the mode, `[left, R]`, `[right, R]`.
    left: Vec<f64>,
    right: Vec<f64>,
    /// C = A⁽⁰⁾ᵀA⁽⁰⁾, `[R, R]`.
    outputs: Vec<f64>,
    /// C ⊛ (⊛ of AₘᵀΣₘAₘ over the other input modes), `[R, R]`: the operator for a Σ that is a Kronecker product, over Σₙ.
    normal: Vec<f64>,
    /// 𝒞((WΣ)ᵀA⁽⁰⁾), `[Iₙ, R]`.
    goal: Vec<f64>,
    /// A⁽ⁿ⁾ diag(λ), `[Iₙ, R]`.
    start: Vec<f64>,
}

impl<'a> ModeStep<'a> {
    fn new(metric: &'a Metric, model: &Model, mode: usize) -> Self {
        let rank = model.weights.len();
        let slices = |factors: &'_ [Vec<f64>]| -> Vec<f64> {
            khatri_rao(&factors.iter().map(|f| f.as_slice()).collect::<Vec<_>>(), rank)
        };
        let left = slices(&model.factors[1..mode]);
        let right = slices(&model.factors[mode + 1..]);
        let mut outputs = vec![0.0; rank * rank];
        gram_into(&mut outputs, &model.factors[0], metric.rows, rank);
        let mut normal = outputs.clone();
        for m in (1..model.factors.len()).filter(|&m| m != mode) {
            let (n, factor) = (metric.shape[m], &model.factors[m]);
            let mut weighted = vec![0.0; n * rank];
            let trace = mat(&metric.traces[m], n, n);
            product(mat_mut(&mut weighted, n, rank), trace, mat(factor, n, rank));
            let gram = inner(factor, &weighted, rank);
            normal.iter_mut().zip(&gram).for_each(|(to, x)| *to *= x);
        }
        symmetrize(&mut normal, rank);
        let scaled = |row: &[f64]| -> Vec<f64> {
            row.iter().zip(&model.weights).map(|(x, w)| x * w).collect()
        };
        let start = model.factors[mode].chunks_exact(rank).flat_map(scaled).collect();
        let mut step =
            Self { metric, mode, rank, left, right, outputs, normal, goal: vec![], start };
        step.goal = step.contract(&metric.transposed_times(&model.factors[0], rank));
        step
    }

    /// ℰ(D), `[P, R]`.
    fn expand(&self, factor: &[f64]) -> Vec<f64> {
        khatri_rao(&[&self.left, factor, &self.right], self.rank)
    }

    /// 𝒞(M), `[Iₙ, R]`: Σ over all other indices of M times the product of the other factors.
    fn contract(&self, matrix: &[f64]) -> Vec<f64> {
        let rank = self.rank;
        let size = self.metric.shape[self.mode];
        let mut to = vec![0.0; size * rank];
        let block = self.right.len();
        for (l, slab) in self.left.chunks_exact(rank).zip(matrix.chunks_exact(size * block)) {
            for (to, slab) in to.chunks_exact_mut(rank).zip(slab.chunks_exact(block)) {
                for (q, row) in self.right.chunks_exact(rank).zip(slab.chunks_exact(rank)) {
                    for (((to, x), l), q) in to.iter_mut().zip(row).zip(l).zip(q) {
                        *to += x * l * q;
                    }
                }
            }
        }
        to
    }

    /// The ridge: relative to the mean diagonal entry of the operator (1 for Σₙ, and that of `normal`).
    fn damping(&self, ridge: f64) -> f64 {
        let trace: f64 = self.normal.iter().step_by(self.rank + 1).sum();
        ridge * trace / self.rank as f64
    }

    fn apply(&self, factor: &[f64], damping: f64) -> Vec<f64> {
        let (size, rank) = (self.metric.size, self.rank);
        let weighted = self.metric.weigh(&self.expand(factor), rank);
        let mut turned = vec![0.0; size * rank];
        let outputs = mat(&self.outputs, rank, rank);
        product(mat_mut(&mut turned, size, rank), mat(&weighted, size, rank), outputs);
        let mut to = self.contract(&turned);
        to.iter_mut().zip(factor).for_each(|(to, x)| *to += damping * x);
        to
    }

    /// The exact update, by the matrix of the operator, `[Iₙ R, Iₙ R]`.
    fn direct(&self, ridge: f64) -> Result<Vec<f64>, crate::linalg::Singular> {
        let mut matrix = self.matrix();
        let n = self.goal.len();
        let mut solution = self.goal.clone();
        ridge_solve(&mut matrix, &mut solution, n, ridge)?;
        Ok(solution)
    }

    fn matrix(&self) -> Vec<f64> {
        let (metric, rank) = (self.metric, self.rank);
        let [left, right] = metric.around(self.mode);
        let (n, size, rest) = (metric.shape[self.mode], metric.size, left * right);
        let others = khatri_rao(&[&self.left, &self.right], rank);
        let mut matrix = vec![0.0; n * rank * n * rank];
        let mut rows = vec![0.0; rest * size];
        let mut weighted = vec![0.0; size * rank];
        let mut slice = vec![0.0; rest * rank];
        let mut gram = vec![0.0; rank * rank];
        for j in 0..n {
            // The rows of Σ with index j in this mode, over all others.
            for (place, row) in rows.chunks_exact_mut(size).enumerate() {
                let at = (place / right * n + j) * right + place % right;
                row.copy_from_slice(&metric.sigma[at * size..][..size]);
            }
            product(
                mat_mut(&mut weighted, size, rank),
                mat(&rows, rest, size).transpose(),
                mat(&others, rest, rank),
            );
            for i in 0..n {
                for (place, row) in slice.chunks_exact_mut(rank).enumerate() {
                    let at = (place / right * n + i) * right + place % right;
                    row.copy_from_slice(&weighted[at * rank..][..rank]);
                }
                product(
                    mat_mut(&mut gram, rank, rank),
                    mat(&others, rest, rank).transpose(),
                    mat(&slice, rest, rank),
                );
                for r in 0..rank {
                    let to = &mut matrix[(i * rank + r) * n * rank + j * rank..][..rank];
                    let pairs = gram[r * rank..].iter().zip(&self.outputs[r * rank..]);
                    to.iter_mut().zip(pairs).for_each(|(to, (x, c))| *to = x * c);
                }
            }
        }
        symmetrize(&mut matrix, n * rank);
        matrix
    }

    /// A few steps from the current factor; each lowers the error.
    fn conjugate_gradients(
        &self,
        ridge: f64,
        steps: usize,
    ) -> Result<Vec<f64>, crate::linalg::Singular> {
        let (n, rank) = (self.metric.shape[self.mode], self.rank);
        let mut factor = self.normal.clone();
        cholesky(&mut factor, rank, ridge.max(1e-12))?;
        let inverse = mat(&self.metric.inverses[self.mode], n, n);
        let precondition = |residual: &[f64]| {
            let mut half = residual.to_vec();
            solve_factored(&factor, &mut half, n, rank);
            let mut to = vec![0.0; n * rank];
            product(mat_mut(&mut to, n, rank), inverse, mat(&half, n, rank));
            to
        };
        Ok(conjugate_gradients(
            self.start.clone(),
            &self.goal,
            &|factor| self.apply(factor, self.damping(ridge)),
            &precondition,
            steps,
        ))
    }
}

/// Conjugate gradients for M x = `goal` from `x`, M symmetric positive semidefinite.
pub(super) fn conjugate_gradients(
    mut x: Vec<f64>,
    goal: &[f64],
    apply: &dyn Fn(&[f64]) -> Vec<f64>,
    precondition: &dyn Fn(&[f64]) -> Vec<f64>,
    steps: usize,
) -> Vec<f64> {
    let mut residual: Vec<f64> = goal.iter().zip(apply(&x)).map(|(b, y)| b - y).collect();
    let mut z = precondition(&residual);
    let mut direction = z.clone();
    let mut product = dot(&residual, &z);
    let first = product;
    for _ in 0..steps {
        if !(product > CG_TOL * CG_TOL * first && product > 0.0) {
            break;
        }
        let image = apply(&direction);
        let curvature = dot(&direction, &image);
        let step = product / curvature;
        if !(curvature > 0.0 && step.is_finite()) {
            break;
        }
        x.iter_mut().zip(&direction).for_each(|(x, d)| *x += step * d);
        residual.iter_mut().zip(&image).for_each(|(r, y)| *r -= step * y);
        z = precondition(&residual);
        let before = std::mem::replace(&mut product, dot(&residual, &z));
        let beta = product / before;
        direction.iter_mut().zip(&z).for_each(|(d, z)| *d = z + beta * *d);
    }
    x
}

/// Relative error of a model in the metric of the inputs, ‖(W − Ŵ) Σ^½‖ / ‖WΣ^½‖, from the entries in f64; 0 where both are 0.
///
/// Costs 2 T P² + 2 T P R operations.
///
/// # Shapes
/// `tensor`: `[T, I₁, …]`, the shape of `cp`; `statistics`: for P = ∏_{n≥1} Iₙ entries.
///
/// # Errors
/// Statistics of another size or without examples.
///
/// # Panics
/// If the shapes of tensor and model differ.
#[track_caller]
pub fn weighted_rel_error<T: Real>(
    tensor: ArrayViewD<'_, T>,
    cp: &CpTensor<T>,
    statistics: &InputStatistics,
) -> Result<f64, CpError> {
    assert!(
        tensor.shape() == cp.shape(),
        "a model of shape {:?} for a tensor of {:?}",
        cp.shape(),
        tensor.shape()
    );
    let dense = Dense::new(&tensor);
    // A power of two keeps the squares in range.
    let down = Scale::new(-scale::exponent(measure::largest(&dense.data)));
    let size: usize = dense.shape[1..].iter().product();
    let sigma = statistics.scaled(size)?;
    let rows = dense.shape[0];
    let rank = cp.rank();
    let factors: Vec<Vec<f64>> =
        cp.factors.iter().map(|f| f.iter().map(|x| x.widen()).collect()).collect();
    let inputs: Vec<&[f64]> = factors[1..].iter().map(|f| f.as_slice()).collect();
    let kr = khatri_rao(&inputs, rank);
    let weights: Vec<f64> = cp.weights.iter().map(|w| down.of(w.widen())).collect();
    let scaled =
        |row: &[f64]| -> Vec<f64> { row.iter().zip(&weights).map(|(x, w)| x * w).collect() };
    let output: Vec<f64> = factors[0].chunks_exact(rank).flat_map(scaled).collect();
    let mut model = vec![0.0; rows * size];
    product(
        mat_mut(&mut model, rows, size),
        mat(&output, rows, rank),
        mat(&kr, size, rank).transpose(),
    );
    let x: Vec<f64> = dense.data.iter().map(|x| down.of(x.widen())).collect();
    let square = |matrix: &[f64]| {
        let mut weighted = vec![0.0; matrix.len()];
        let (x, sigma) = (mat(matrix, rows, size), mat(&sigma, size, size));
        product(mat_mut(&mut weighted, rows, size), x, sigma);
        dot(matrix, &weighted).max(0.0)
    };
    let difference: Vec<f64> = x.iter().zip(&model).map(|(x, y)| x - y).collect();
    Ok(measure::ratio(square(&difference).sqrt(), square(&x).sqrt()))
}

/// Adds a relative ridge and solves x M = b for each row b of `right`; raises the ridge where it has to.
///
/// # Shapes
/// `matrix`: M, `[n, n]`, symmetric (overwritten); `right`: `[rows, n]`.
pub(super) fn ridge_solve(
    matrix: &mut [f64],
    right: &mut [f64],
    n: usize,
    ridge: f64,
) -> Result<(), crate::linalg::Singular> {
    cholesky(matrix, n, ridge)?;
    solve_factored(matrix, right, right.len() / n, n);
    if right.iter().all(|x| x.is_finite()) { Ok(()) } else { Err(crate::linalg::Singular) }
}

/// Overwrites M by the Cholesky factor of M with a relative ridge, raised tenfold until there is one.
pub(super) fn cholesky(
    matrix: &mut [f64],
    n: usize,
    ridge: f64,
) -> Result<(), crate::linalg::Singular> {
    let kept = matrix.to_vec();
    let mean = kept.iter().step_by(n + 1).sum::<f64>() / n as f64;
    // A matrix of zeros: its solution is any, and zero after this.
    let mean = if mean > 0.0 { mean } else { 1.0 };
    let mut relative = ridge;
    for _ in 0..RIDGE_STEPS {
        matrix.copy_from_slice(&kept);
        matrix.iter_mut().step_by(n + 1).for_each(|x| *x += relative * mean);
        // One right-hand side shows whether the factor is of use.
        let mut ones = vec![1.0; n];
        if solve_normal(matrix, &mut ones, 1, n).is_ok() {
            return Ok(());
        }
        relative = (10.0 * relative).max(1e-15);
    }
    Err(crate::linalg::Singular)
}

/// Khatri–Rao product of row-major factors, the rows of the last fastest; a row of ones for none.
pub(super) fn khatri_rao(factors: &[&[f64]], rank: usize) -> Vec<f64> {
    let ones = Array2::ones((1, rank));
    let view = |factor: &&'_ [f64]| {
        ArrayView2::from_shape((factor.len() / rank, rank), factor)
            .expect("a factor has whole rows")
            .to_owned()
    };
    let mut arrays = vec![ones];
    arrays.extend(factors.iter().map(view));
    let views: Vec<_> = arrays.iter().map(|f| f.view()).collect();
    crate::khatri_rao::khatri_rao(&views).into_raw_vec_and_offset().0
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

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn draw(shape: &[usize], seed: u64) -> ndarray::ArrayD<f64> {
        let size: usize = shape.iter().product();
        let dense = Dense { shape: vec![size, 1], data: vec![0.0; size].into() };
        let cp = Init::Random { seed }.factors(&dense, 1).unwrap();
        ndarray::ArrayD::from_shape_vec(shape, cp.factors[0].iter().copied().collect()).unwrap()
    }

    /// Dense weighted least squares for one factor: the columns of the design matrix are the models of unit factors.
    fn slow_update(metric: &Metric, model: &Model, mode: usize) -> Vec<f64> {
        let (rank, size) = (model.weights.len(), metric.size);
        let unknowns = metric.shape[mode] * rank;
        let mut design = Vec::new();
        for unknown in 0..unknowns {
            let mut factors = model.factors.clone();
            factors[mode].fill(0.0);
            factors[mode][unknown] = 1.0;
            let all: Vec<&[f64]> = factors.iter().map(|f| f.as_slice()).collect();
            design.push(
                khatri_rao(&all, rank)
                    .chunks_exact(rank)
                    .map(|row| row.iter().sum())
                    .collect::<Vec<f64>>(),
            );
        }
        let weigh = |column: &[f64]| -> Vec<f64> {
            let row = |row: &[f64]| -> Vec<f64> {
                (0..size)
                    .map(|q| (0..size).map(|p| row[p] * metric.sigma[p * size + q]).sum())
                    .collect()
            };
            column.chunks_exact(size).flat_map(row).collect()
        };
        let mut normal = vec![0.0; unknowns * unknowns];
        for (i, a) in design.iter().enumerate() {
            let weighted = weigh(a);
            for (j, b) in design.iter().enumerate() {
                normal[i * unknowns + j] = dot(&weighted, b);
            }
        }
        let mut solution: Vec<f64> = design.iter().map(|a| dot(a, &weigh(&metric.x))).collect();
        solve_normal(&mut normal, &mut solution, 1, unknowns).unwrap();
        solution
    }

    fn check(shape: &[usize], rank: usize) {
        let tensor = draw(shape, 1);
        let size: usize = shape[1..].iter().product();
        let mut statistics = InputStatistics::new(size);
        let inputs = draw(&[3 * size, size], 2).into_dimensionality::<ndarray::Ix2>().unwrap();
        statistics.add(inputs.view()).unwrap();
        let view = tensor.view();
        let problem = Problem::new(&view, rank).unwrap();
        let metric = Metric::new(&problem.tensor, &statistics).unwrap();
        let start = Init::Random { seed: 3 }.factors(&problem.tensor, rank).unwrap();
        let model = Model::new(start, 0);
        for mode in 1..shape.len() {
            let slow = slow_update(&metric, &model, mode);
            let step = ModeStep::new(&metric, &model, mode);
            let close = |found: &[f64], tolerance: f64, what: &str| {
                let distance =
                    slow.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(distance < tolerance, "{shape:?} mode {mode} {what}: {distance:e}");
            };
            close(&step.direct(0.0).unwrap(), 1e-9, "direct");
            // They stop at 1e-4 of their first residual.
            close(&step.conjugate_gradients(0.0, 400).unwrap(), 3e-3, "conjugate gradients");
            // One step alone lowers the quadratic.
            let value = |x: &[f64]| dot(x, &step.apply(x, 0.0)) - 2.0 * dot(x, &step.goal);
            assert!(value(&step.conjugate_gradients(0.0, 1).unwrap()) < value(&step.start));
        }
        // Mode 0, as in a sweep.
        let slow = slow_update(&metric, &model, 0);
        let mut model = model;
        let inputs = model.take_inputs(&metric);
        let mut normal = inner(&inputs.kr, &inputs.weighted, rank);
        let mut solution = metric.times(&inputs.kr, rank);
        ridge_solve(&mut normal, &mut solution, rank, 0.0).unwrap();
        assert!(slow.iter().zip(&solution).all(|(a, b)| (a - b).abs() < 1e-8), "{shape:?} mode 0");
    }

    #[test]
    fn updates_equal_dense_least_squares() {
        check(&[4, 5], 2);
        check(&[4, 3, 5], 2);
        check(&[5, 3, 2, 3], 3);
        check(&[3, 2, 2, 2, 2], 2);
        check(&[4, 1, 3], 1);
    }
}
