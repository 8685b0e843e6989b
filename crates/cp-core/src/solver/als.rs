//! Alternating least squares: [`Als`].

use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use super::{Decomposition, Problem, Progress, Solver, StopReason};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::linalg::{gram_into, solve_normal};
use crate::measure;
use crate::real::Real;
use crate::scale::Scale;
use crate::tree::{Workspace, sweep};

/// Alternating least squares by the normal equations.
///
/// One sweep solves min ‖X₍ₙ₎ − A⁽ⁿ⁾ (⊙_{m≠n} A⁽ᵐ⁾)ᵀ‖² for each mode in turn, A⁽ⁿ⁾ = G (Γ + μI)⁻¹ with the MTTKRP G and
/// Γ = ⊛_{m≠n} A⁽ᵐ⁾ᵀA⁽ᵐ⁾, and scales the columns of A⁽ⁿ⁾ to norm 1 (λ takes the norms).
///
/// # Cost
/// Two matrix products of 2 R ∏ Iₙ operations per sweep, shared by the modes (see `tree.rs`), and O(R² Σ Iₙ + N R³).
///
/// # Numbers
/// The products run in the tensor's own type, Grams, solves and norms in f64. One seed gives bit-equal results on one
/// number of threads.
///
/// ```
/// use cp_core::{Als, Init, Solver};
/// use ndarray::Array;
///
/// // An outer product has rank 1.
/// let x = Array::from_shape_fn((4, 3, 2), |(i, j, k)| (i + 1) as f64 * (j as f64 - 1.0) * (k + 2) as f64).into_dyn();
/// let found = Als::new(1).init(Init::Random { seed: 7 }).decompose(x.view())?;
/// assert!(found.rel_error < 1e-9);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Kolda & Bader (2009), figure 3.3.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Als {
    rank: usize,
    max_iters: usize,
    tol: f64,
    ridge: Option<f64>,
    init: Init,
}

/// Sweeps, unless [`Als::max_iters`] says otherwise.
const MAX_ITERS: usize = 100;
/// Change of the fit that ends a run, unless [`Als::tol`] says otherwise.
const TOL: f64 = 1e-8;
/// How often the ridge is raised tenfold where the normal matrix has no Cholesky factor.
const RIDGE_STEPS: usize = 12;

impl Als {
    /// ALS for `rank` terms: 100 sweeps at most, tolerance 1e-8, random start with seed 0.
    pub fn new(rank: usize) -> Self {
        Self { rank, max_iters: MAX_ITERS, tol: TOL, ridge: None, init: Init::Random { seed: 0 } }
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

    /// Ridge μ relative to the mean diagonal entry of the normal matrix; default 1e-12 in f64, 1e-7 in f32.
    ///
    /// It keeps the terms from growing against each other where the rank is near or above what the tensor needs: without,
    /// a 64×3×121 kernel at R = 200 ends in component energies above 10⁴ or in NaN. With 0 there is none, and a singular
    /// normal matrix is an error. Where the default leaves the matrix singular it is raised tenfold until it is not.
    pub fn ridge(mut self, ridge: f64) -> Self {
        self.ridge = Some(ridge);
        self
    }

    /// Where to start; default [`Init::Random`] with seed 0.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    fn check(&self) -> Result<(), CpError> {
        let expected = "a finite number, at least 0";
        let options = [("tol", Some(self.tol)), ("ridge", self.ridge)];
        for (option, value) in options {
            if let Some(value) = value.filter(|value| !(value.is_finite() && *value >= 0.0)) {
                return Err(CpError::InvalidOption { option, value, expected });
            }
        }
        Ok(())
    }
}

impl<T: Real> Solver<T> for Als {
    fn name(&self) -> &'static str {
        "als"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        self.check()?;
        let problem = Problem::new(&tensor, self.rank)?;
        let start = self.init.factors(&problem.tensor, self.rank)?;
        let mut state = State::new(&problem, &start);
        let mut trace = Vec::new();
        let mut stop = StopReason::MaxIters;
        if problem.norm == 0.0 {
            state.weights.fill(0.0);
            stop = StopReason::Converged;
        } else {
            let ridge = self.ridge.unwrap_or(T::DEFAULT_RIDGE);
            let mut space = Workspace::new();
            for iteration in 1..=self.max_iters {
                let rel_error = state.sweep(&problem, ridge, iteration, &mut space)?;
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
        problem.finish(&tensor, state.factors, &state.weights, trace, stop)
    }
}

/// The model while it is being improved: normalised factors with their Grams, and λ.
struct State<T> {
    rank: usize,
    /// `[Iₙ, R]` each, columns of norm 1.
    factors: Vec<Vec<T>>,
    /// AₙᵀAₙ, `[R, R]` each.
    grams: Vec<Vec<f64>>,
    /// λ, `[R]`.
    weights: Vec<f64>,
    /// Scratch: Γ, `[R, R]`.
    normal: Vec<f64>,
    /// Scratch: a factor in f64.
    solution: Vec<f64>,
}

impl<T: Real> State<T> {
    /// `start` with its columns normalised, in units of the scaled tensor.
    fn new(problem: &Problem<'_, T>, start: &CpTensor<f64>) -> Self {
        let rank = start.rank();
        let mut start = start.clone();
        start.normalize();
        let mut factors = Vec::new();
        let mut grams = Vec::new();
        for factor in &start.factors {
            let rounded: Vec<T> = factor.iter().map(|&x| T::narrow(x)).collect();
            let wide: Vec<f64> = rounded.iter().map(|x| x.widen()).collect();
            let mut gram = vec![0.0; rank * rank];
            gram_into(&mut gram, &wide, factor.nrows(), rank);
            factors.push(rounded);
            grams.push(gram);
        }
        let down = Scale::new(-problem.exponent);
        let weights = start.weights.iter().map(|&w| down.of(w)).collect();
        Self { rank, factors, grams, weights, normal: vec![0.0; rank * rank], solution: Vec::new() }
    }

    /// One sweep over all modes; returns the relative error after it.
    fn sweep(
        &mut self,
        problem: &Problem<'_, T>,
        ridge: f64,
        iter: usize,
        space: &mut Workspace<T>,
    ) -> Result<f64, CpError> {
        let Self { rank, factors, grams, weights, normal, solution } = self;
        let rank = *rank;
        let last = factors.len() - 1;
        // ⟨X, X̂⟩, known once the last mode is solved for.
        let mut inner = 0.0;
        sweep(&problem.tensor, factors, rank, space, &mut |mode, g, factors| {
            let rows = g.len() / rank;
            solve(solution, normal, g, grams, mode, ridge)
                .map_err(|_| CpError::SingularNormalMatrix { mode, iter })?;
            normalize(weights, &mut factors[mode], solution, rank);
            gram_into(&mut grams[mode], solution, rows, rank);
            if mode == last {
                inner = inner_product(g, solution, weights);
            }
            Ok(())
        })?;
        Ok(self.rel_error(problem, inner))
    }

    /// ‖X − X̂‖ / ‖X‖: the cheap formula where it has digits left, from the entries otherwise.
    fn rel_error(&mut self, problem: &Problem<'_, T>, inner: f64) -> f64 {
        product_of_grams(&mut self.normal, &self.grams, None);
        let square = |x: f64| x * x;
        let mut model = 0.0;
        for (row, &w) in self.normal.chunks_exact(self.rank).zip(&self.weights) {
            model += w * row.iter().zip(&self.weights).map(|(g, v)| g * v).sum::<f64>();
        }
        let whole = square(problem.norm);
        let cheap = (whole - 2.0 * inner + model) / whole;
        // Rounding of the products, as large as the terms that cancel each other; the factor was found by comparison with
        // the direct residual on convolution kernels and on exact low-rank tensors.
        let energy = self.weights.iter().map(|&w| square(w)).sum::<f64>() / whole;
        if cheap > 256.0 * T::EPSILON * energy.max(1.0) {
            return cheap.sqrt();
        }
        let wide: Vec<Vec<f64>> =
            self.factors.iter().map(|f| f.iter().map(|x| x.widen()).collect()).collect();
        measure::residual(&problem.tensor, &wide, &self.weights, Scale::new(0)) / problem.norm
    }
}

/// Γ = ⊛_{m≠mode} AₘᵀAₘ, `[R, R]`; over all modes for `None`.
fn product_of_grams(to: &mut [f64], grams: &[Vec<f64>], mode: Option<usize>) {
    to.fill(1.0);
    for (_, gram) in grams.iter().enumerate().filter(|&(m, _)| Some(m) != mode) {
        to.iter_mut().zip(gram).for_each(|(to, x)| *to *= x);
    }
}

/// `solution` = G (Γ + μI)⁻¹, in f64.
fn solve<T: Real>(
    solution: &mut Vec<f64>,
    normal: &mut [f64],
    g: &[T],
    grams: &[Vec<f64>],
    mode: usize,
    ridge: f64,
) -> Result<(), crate::linalg::Singular> {
    let rank = normal.len().isqrt();
    let mut relative = ridge;
    for attempt in 0.. {
        product_of_grams(normal, grams, Some(mode));
        let trace: f64 = normal.iter().step_by(rank + 1).sum();
        normal.iter_mut().step_by(rank + 1).for_each(|x| *x += relative * trace / rank as f64);
        solution.clear();
        solution.extend(g.iter().map(|x| x.widen()));
        match solve_normal(normal, solution, g.len() / rank, rank) {
            Err(singular) if ridge == 0.0 || attempt == RIDGE_STEPS => return Err(singular),
            Err(_) => relative *= 10.0,
            Ok(()) => break,
        }
    }
    Ok(())
}

/// Scales the columns of `solution` to norm 1, rounds them into `factor`, and puts the norms into `weights`. A column that
/// has become zero keeps its old direction with weight 0, from where it may come back.
fn normalize<T: Real>(weights: &mut [f64], factor: &mut [T], solution: &mut [f64], rank: usize) {
    weights.fill(0.0);
    for row in solution.chunks_exact(rank) {
        weights.iter_mut().zip(row).for_each(|(square, x)| *square += x * x);
    }
    // Reciprocals of the norms; 0 marks a column without one.
    let scales: Vec<f64> = weights
        .iter_mut()
        .map(|w| {
            *w = w.sqrt();
            let scale = w.recip();
            if scale.is_finite() && scale > 0.0 {
                scale
            } else {
                *w = 0.0;
                0.0
            }
        })
        .collect();
    for (factor, row) in factor.chunks_exact_mut(rank).zip(solution.chunks_exact_mut(rank)) {
        for ((to, x), &scale) in factor.iter_mut().zip(row).zip(&scales) {
            if scale != 0.0 {
                *to = T::narrow(*x * scale);
            }
            // What was rounded is what the Gram has to be made of.
            *x = to.widen();
        }
    }
}

/// ⟨G, A diag(λ)⟩.
fn inner_product<T: Real>(g: &[T], factor: &[f64], weights: &[f64]) -> f64 {
    let rank = weights.len();
    let rows = g.chunks_exact(rank).zip(factor.chunks_exact(rank));
    rows.map(|(g, a)| {
        g.iter().zip(a).zip(weights).map(|((g, a), w)| g.widen() * a * w).sum::<f64>()
    })
    .sum()
}
