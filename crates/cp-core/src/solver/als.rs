//! Alternating least squares: [`Als`].

mod extrapolation;

use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use extrapolation::Extrapolation;

use super::normal::{inner_product, normalize, rel_error, solve};
use super::{Decomposition, Solver};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::linalg::gram_upper;
use crate::problem::{Problem, check_option};
use crate::progress::{Progress, StopReason, iterate};
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
/// The products run in the tensor's own type, Grams, solves and norms in f64. One seed gives bit-equal results on any
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
    extrapolate: bool,
}

/// Sweeps, unless [`Als::max_iters`] says otherwise.
const MAX_ITERS: usize = 100;
/// Change of the fit that ends a run, unless [`Als::tol`] says otherwise.
const TOL: f64 = 1e-8;

impl Als {
    /// ALS for `rank` terms: 100 sweeps at most, tolerance 1e-8, random start with seed 0.
    pub fn new(rank: usize) -> Self {
        let init = Init::Random { seed: 0 };
        Self { rank, max_iters: MAX_ITERS, tol: TOL, ridge: None, init, extrapolate: false }
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

    /// Whether each sweep starts from a point ahead of the last one's end (Nesterov's sequence with restarts, see
    /// `als/extrapolation.rs`); default no, so that iterates are those of the plain algorithm.
    ///
    /// About the error of 50 plain sweeps after 20, for a few percent more time each. Sweeps that would raise the error
    /// are undone and repeat the last value in the trace.
    pub fn extrapolate(mut self, extrapolate: bool) -> Self {
        self.extrapolate = extrapolate;
        self
    }

    /// Where to start; default [`Init::Random`] with seed 0.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    fn check(&self) -> Result<(), CpError> {
        check_option("tol", self.tol)?;
        check_option("ridge", self.ridge)
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
        let mut state = AlsState::new(&problem, &start);
        let (trace, stop) = if problem.norm == 0.0 {
            state.weights.fill(0.0);
            (Vec::new(), StopReason::Converged)
        } else {
            let ridge = self.ridge.unwrap_or(T::DEFAULT_RIDGE);
            let mut space = Workspace::new();
            let mut ahead = self.extrapolate.then(Extrapolation::new);
            let done = iterate(self.max_iters, self.tol, observe, &mut |iteration| {
                let rel_error = state.sweep(&problem, ridge, iteration, &mut space)?;
                Ok(match &mut ahead {
                    Some(ahead) => ahead.step(&mut state, rel_error),
                    None => rel_error.into(),
                })
            })?;
            if let Some(ahead) = ahead {
                ahead.finish(&mut state);
            }
            done
        };
        problem.finish(state.factors, &state.weights, trace, stop)
    }
}

/// The model while it is being improved: normalised factors with their Grams, and λ.
#[derive(Debug)]
struct AlsState<T> {
    rank: usize,
    /// `[Iₙ, R]` each, columns of norm 1.
    factors: Vec<Vec<T>>,
    /// AₙᵀAₙ, `[R, R]` each, in the upper half (columns ≥ row) alone; so is `normal`.
    grams: Vec<Vec<f64>>,
    /// λ, `[R]`.
    weights: Vec<f64>,
    /// Scratch: Γ, `[R, R]`.
    normal: Vec<f64>,
    /// Scratch: a factor in f64.
    solution: Vec<f64>,
}

impl<T: Real> AlsState<T> {
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
            gram_upper(&mut gram, &wide, factor.nrows(), rank);
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
            gram_upper(&mut grams[mode], solution, rows, rank);
            if mode == last {
                inner = inner_product(g, solution, weights);
            }
            Ok(())
        })?;
        Ok(rel_error(problem, factors, grams, weights, normal, inner))
    }
}
