//! Error-preserving correction: [`Epc`] and its error bound, [`Delta`].

use std::borrow::Cow;
use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use super::Als;
use super::normal::{normalize, product_of_grams};
use super::{Decomposition, Problem, Progress, Solver, StopReason};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::linalg::{gram_into, solve_factored, solve_normal};
use crate::measure;
use crate::real::Real;
use crate::scale::Scale;
use crate::tree::{Dense, Workspace, sweep};

/// The error that [`Epc`] may spend: δ, relative to ‖X‖, from the error e of the model that is corrected.
///
/// A bound below e cannot be kept by every model, so e is used in its place: the correction then lowers the energy at the
/// error that the model has. A bound of 1 or more is met by the zero model, which has no energy at all.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Delta {
    /// e plus a hundredth of it, but at least 1e-4 and at most 1e-3 more. The default.
    Auto,
    /// This relative error, at least 0.
    Relative(f64),
    /// This many times e; at least 0, and useful from 1.
    Factor(f64),
    /// e plus this, at least 0.
    Increase(f64),
}

impl Delta {
    /// δ for a model of relative error `start`.
    fn bound(self, start: f64) -> f64 {
        let bound = match self {
            Delta::Auto => start + (0.01 * start).clamp(1e-4, 1e-3),
            Delta::Relative(error) => error,
            Delta::Factor(factor) => factor * start,
            Delta::Increase(increase) => start + increase,
        };
        bound.max(start)
    }

    fn check(self) -> Result<(), CpError> {
        let value = match self {
            Delta::Auto => return Ok(()),
            Delta::Relative(value) | Delta::Factor(value) | Delta::Increase(value) => value,
        };
        if value.is_finite() && value >= 0.0 {
            return Ok(());
        }
        let expected = "a finite number, at least 0";
        Err(CpError::InvalidOption { option: "delta", value, expected })
    }
}

/// Error-preserving correction: of all models with an error of at most δ, one whose terms do not cancel each other.
///
/// It minimises the component energy Σᵣ λᵣ² (columns of norm 1) subject to ‖X − X̂‖ ≤ δ ‖X‖, one mode at a time:
/// A⁽ⁿ⁾ diag(λ) = G (Γ + μI)⁻¹ with the largest μ ≥ 0 that keeps the error. With Γ = Q diag(γ) Qᵀ and hⱼ the columns of GQ,
///
/// > ‖X − X̂‖² = ‖X‖² − Σⱼ ‖hⱼ‖² (γⱼ + 2μ) / (γⱼ + μ)² = ‖X‖² − ⟨A⁽ⁿ⁾ diag(λ), G⟩ − μ ‖λ‖²
///
/// grows with μ, and a safeguarded Newton iteration in ln μ finds the root. The last form needs no eigenvalues: a Cholesky
/// factor of Γ + μI gives it and its derivative, and since μ hardly moves from cycle to cycle a few of them do, which
/// is several times faster. The energy never rises from one mode to the next. Between cycles the factors are extrapolated
/// along their last change, and the cycle is undone where the energy has not fallen by it: without, the last factor of two
/// takes about ten times as many cycles.
///
/// After ALS with little ridge the energy of convolution kernels falls from 10…100 to 1…2 for an error that grows by a
/// thousandth, and a network made of the terms can be fine-tuned. Tensors whose border rank is below their rank gain less:
/// there the error is bought with energy, and has to be given back.
///
/// As a [`Solver`] it runs [`Als`] first; [`Epc::correct`] takes any model.
///
/// # Cost
/// Per cycle, a sweep of [`Als`] in f64 and, for each mode, a few times R³/3 + 4 Iₙ R² operations. f32 tensors are
/// widened: what is left of an error bound after large terms have cancelled each other is below the resolution of f32
/// products, and these are the smaller part at the ranks of convolution kernels.
///
/// # The bound
/// The error of the model that is returned, taken from its entries after rounding to `T`, is at most δ. Where that cannot be
/// had because the terms cancel beyond what f64 resolves, the model that was to be corrected is returned, and its error ends
/// the trace.
///
/// ```
/// use cp_core::{Als, Delta, Epc, Init, Solver};
/// use ndarray::Array;
///
/// // A tensor of border rank 2 and rank 3: two terms come ever closer to it, and grow without end.
/// let x = Array::from_shape_vec((2, 2, 2), vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])?.into_dyn();
/// let start = Als::new(2).max_iters(1000).tol(0.0).init(Init::Random { seed: 1 }).decompose(x.view())?;
/// let found = Epc::new(2).delta(Delta::Relative(0.1)).correct(x.view(), &start.cp, &mut |_| std::ops::ControlFlow::Continue(()))?;
/// assert!(found.rel_error <= 0.1);
/// assert!(found.component_energy < 0.1 * start.component_energy);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Reference: Phan et al. (2020), arXiv 2008.05441, for any order; the extrapolation follows Ang et al.
/// (2021), "Accelerating block coordinate descent for nonnegative tensor factorization".
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Epc {
    rank: usize,
    delta: Delta,
    max_iters: usize,
    tol: f64,
    als_sweeps: usize,
    ridge: Option<f64>,
    init: Init,
}

/// Cycles, unless [`Epc::max_iters`] says otherwise.
const MAX_ITERS: usize = 1000;
/// Relative change of the energy, unless [`Epc::tol`] says otherwise.
const TOL: f64 = 3e-4;
/// Cycles in a row over which the energy has to have settled.
const SETTLED: usize = 10;
/// Sweeps of ALS before the correction, unless [`Epc::als_sweeps`] says otherwise.
const ALS_SWEEPS: usize = 100;
/// Extra cycles under a lower bound where rounding has put the error above the bound.
const REPAIRS: usize = 3;

impl Epc {
    /// EPC for `rank` terms: [`Delta::Auto`], 1000 cycles at most, tolerance 3e-4, after 100 sweeps of ALS at most.
    pub fn new(rank: usize) -> Self {
        Self {
            rank,
            delta: Delta::Auto,
            max_iters: MAX_ITERS,
            tol: TOL,
            als_sweeps: ALS_SWEEPS,
            ridge: None,
            init: Init::Random { seed: 0 },
        }
    }

    /// The error bound; default [`Delta::Auto`].
    pub fn delta(mut self, delta: Delta) -> Self {
        self.delta = delta;
        self
    }

    /// Most cycles of the correction; default 1000.
    pub fn max_iters(mut self, cycles: usize) -> Self {
        self.max_iters = cycles;
        self
    }

    /// Stops when the energy has fallen by less than this part of itself in each of ten cycles in a row; default 3e-4.
    /// With 0 there are [`max_iters`](Self::max_iters) cycles.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Most sweeps of [`Als`] before the correction; default 100. The correction does not lower the error, so the model has
    /// to be a good one before. Not used by [`correct`](Self::correct).
    pub fn als_sweeps(mut self, sweeps: usize) -> Self {
        self.als_sweeps = sweeps;
        self
    }

    /// [`Als::ridge`] of these sweeps; default as there.
    pub fn ridge(mut self, ridge: f64) -> Self {
        self.ridge = Some(ridge);
        self
    }

    /// Where ALS starts; default [`Init::Random`] with seed 0.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Corrects a given model. The trace and what `observe` sees are the errors after each cycle.
    ///
    /// # Shapes
    /// `tensor`: `[I₀, …, I_N₋₁]`; `cp`: factors `[Iₙ, R]` for the R of [`Epc::new`].
    ///
    /// # Errors
    /// As [`Solver::decompose_with`], and a model that does not fit the tensor or the rank.
    pub fn correct<T: Real>(
        &self,
        tensor: ArrayViewD<'_, T>,
        cp: &CpTensor<T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        self.check()?;
        let problem = Problem::new(&tensor, self.rank)?;
        self.run(&problem, &tensor, cp, Vec::new(), observe)
    }

    fn check(&self) -> Result<(), CpError> {
        self.delta.check()?;
        if !(self.tol.is_finite() && self.tol >= 0.0) {
            let expected = "a finite number, at least 0";
            return Err(CpError::InvalidOption { option: "tol", value: self.tol, expected });
        }
        Ok(())
    }

    /// The correction, after the iterations in `trace`.
    fn run<T: Real>(
        &self,
        problem: &Problem<'_, T>,
        tensor: &ArrayViewD<'_, T>,
        cp: &CpTensor<T>,
        mut trace: Vec<f64>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        let start = Init::Factors(cp.cast()).factors(&problem.tensor, self.rank)?;
        let start = Model::new(start, problem.exponent)?;
        if problem.norm == 0.0 {
            let zero = vec![0.0; self.rank];
            let factors = start.rounded();
            return problem.finish(tensor, factors, &zero, trace, StopReason::Converged);
        }
        let wide = Dense {
            shape: problem.tensor.shape.clone(),
            data: Cow::Owned(problem.tensor.data.iter().map(|x| x.widen()).collect()),
        };
        let bound = self.delta.bound(start.error::<T>(&wide, problem.norm));
        let mut model = start.clone();
        let mut cycles = Cycles::new(&wide, problem.norm);
        let mut stop = StopReason::MaxIters;
        let mut settled = 0;
        let mut momentum = Momentum::new();
        let mut rel_error = f64::NAN;
        for _ in 0..self.max_iters {
            let before = model.energy(problem.norm);
            // A cycle from extrapolated factors counts only where it ends lower than the last one.
            let mut next = model.clone();
            let extrapolated = momentum.extrapolate(&mut next);
            let step = cycles.next(&mut next, bound)?;
            let energy = next.energy(problem.norm);
            let taken = !extrapolated || (step.feasible && energy < before);
            momentum.judge(taken);
            if taken {
                rel_error = step.rel_error;
                momentum.last = Some(std::mem::replace(&mut model, next));
                settled = if before - energy < self.tol * before { settled + 1 } else { 0 };
            }
            trace.push(rel_error);
            if observe(&Progress { iteration: trace.len(), rel_error }).is_break() {
                stop = StopReason::Observer;
                break;
            }
            if settled == SETTLED || energy == 0.0 {
                stop = StopReason::Converged;
                break;
            }
        }
        // The cycles judge the error by a formula that cancels; what is returned is judged by its entries.
        let mut goal = bound;
        for repair in 0.. {
            let error = model.error::<T>(&wide, problem.norm);
            if error <= bound {
                break;
            }
            goal -= 2.0 * (error - bound).max(f64::EPSILON * bound);
            if repair == REPAIRS || goal.is_nan() || goal <= 0.0 {
                model = start;
                trace.push(model.error::<T>(&wide, problem.norm));
                break;
            }
            cycles.next(&mut model, goal)?;
        }
        problem.finish(tensor, model.rounded(), &model.weights, trace, stop)
    }
}

impl<T: Real> Solver<T> for Epc {
    fn name(&self) -> &'static str {
        "epc"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        self.check()?;
        let mut als = Als::new(self.rank).max_iters(self.als_sweeps).init(self.init.clone());
        if let Some(ridge) = self.ridge {
            als = als.ridge(ridge);
        }
        let problem = Problem::new(&tensor, self.rank)?;
        let start = als.decompose_with(tensor.view(), observe)?;
        if start.stop == StopReason::Observer {
            return Ok(start);
        }
        self.run(&problem, &tensor, &start.cp, start.trace, observe)
    }
}

/// The model while it is being corrected: normalised factors with their Grams, and λ.
#[derive(Debug, Clone)]
struct Model {
    shape: Vec<usize>,
    /// `[Iₙ, R]` each, columns of norm 1.
    factors: Vec<Vec<f64>>,
    /// AₙᵀAₙ, `[R, R]` each.
    grams: Vec<Vec<f64>>,
    /// λ, `[R]`, in units of the scaled tensor 2⁻ᵏ X.
    weights: Vec<f64>,
    /// k.
    exponent: i32,
}

impl Model {
    fn new(mut cp: CpTensor<f64>, exponent: i32) -> Result<Self, CpError> {
        let rank = cp.rank();
        cp.normalize();
        if let Some((r, &value)) = cp.weights.indexed_iter().find(|(_, w)| !w.is_finite()) {
            return Err(CpError::NotFinite { what: "weights", index: vec![r], value });
        }
        let shape = cp.shape();
        let factors: Vec<Vec<f64>> =
            cp.factors.iter().map(|factor| factor.iter().copied().collect()).collect();
        let gram = |(factor, &size): (&Vec<f64>, &usize)| {
            let mut gram = vec![0.0; rank * rank];
            gram_into(&mut gram, factor, size, rank);
            gram
        };
        let grams = factors.iter().zip(&shape).map(gram).collect();
        let down = Scale::new(-exponent);
        let weights = cp.weights.iter().map(|&w| down.of(w)).collect();
        Ok(Self { shape, factors, grams, weights, exponent })
    }

    /// Σ λ² / ‖X‖².
    fn energy(&self, norm: f64) -> f64 {
        self.weights.iter().map(|w| (w / norm).powi(2)).sum()
    }

    /// The factors as they are returned.
    fn rounded<T: Real>(&self) -> Vec<Vec<T>> {
        self.factors.iter().map(|f| f.iter().map(|&x| T::narrow(x)).collect()).collect()
    }

    /// Relative error after rounding to `T`, from the entries.
    fn error<T: Real>(&self, tensor: &Dense<'_, f64>, norm: f64) -> f64 {
        let round = |x: &f64| T::narrow(*x).widen();
        let factors: Vec<Vec<f64>> =
            self.factors.iter().map(|f| f.iter().map(round).collect()).collect();
        // The weights are rounded in the units of X, where tiny ones may lose digits.
        let (up, down) = (Scale::new(self.exponent), Scale::new(-self.exponent));
        let weights: Vec<f64> = self.weights.iter().map(|&w| down.of(round(&up.of(w)))).collect();
        measure::residual(tensor, &factors, &weights, Scale::new(0)) / norm
    }
}

/// What one cycle came to.
struct Step {
    rel_error: f64,
    /// Whether every mode could keep the bound.
    feasible: bool,
}

/// Extrapolation of the factors along their last change, as far as it pays: β grows while the energy falls, and shrinks where
/// it does not.
///
/// Reference: Ang, Cohen, Gillis & Le (2021), "Accelerating block coordinate descent for nonnegative tensor factorization".
struct Momentum {
    /// The model before the last one.
    last: Option<Model>,
    beta: f64,
    ceiling: f64,
}

impl Momentum {
    fn new() -> Self {
        Self { last: None, beta: 0.5, ceiling: 1.0 }
    }

    /// Moves the factors of `model` on, columns of norm 1 again; mode 0 is solved for before it is used. False where there is
    /// nothing to go by.
    fn extrapolate(&self, model: &mut Model) -> bool {
        let Some(last) = &self.last else { return false };
        let rank = model.weights.len();
        for mode in 1..model.factors.len() {
            let mut moved: Vec<f64> = model.factors[mode]
                .iter()
                .zip(&last.factors[mode])
                .map(|(now, before)| now + self.beta * (now - before))
                .collect();
            let mut norms = vec![0.0; rank];
            normalize(&mut norms, &mut model.factors[mode], &mut moved, rank);
            gram_into(&mut model.grams[mode], &moved, model.shape[mode], rank);
        }
        true
    }

    fn judge(&mut self, taken: bool) {
        if taken {
            self.beta = (1.05 * self.beta).min(self.ceiling);
            self.ceiling = (1.01 * self.ceiling).min(1.0);
        } else {
            self.ceiling = self.beta;
            self.beta /= 1.5;
            self.last = None;
        }
    }
}

/// What the cycles keep from one to the next.
struct Cycles<'a> {
    tensor: &'a Dense<'a, f64>,
    norm: f64,
    space: Workspace<f64>,
    /// The root μ of each mode in the last cycle, where the next search starts.
    roots: Vec<f64>,
    search: Search,
}

impl<'a> Cycles<'a> {
    fn new(tensor: &'a Dense<'a, f64>, norm: f64) -> Self {
        let roots = vec![FIRST; tensor.shape.len()];
        Self { tensor, norm, space: Workspace::new(), roots, search: Search::default() }
    }

    /// One update of each mode under the bound.
    fn next(&mut self, model: &mut Model, bound: f64) -> Result<Step, CpError> {
        let Self { tensor, norm, space, roots, search } = self;
        let Model { factors, grams, weights, .. } = model;
        let rank = weights.len();
        let whole = *norm * *norm;
        let mut square = None;
        let mut feasible = true;
        let done: Result<(), CpError> =
            sweep(tensor, factors, rank, space, &mut |mode, g, factors| {
                // Rounding of the sums in `Search::residual`, which are as large as the terms.
                let energy: f64 = weights.iter().map(|w| w * w).sum();
                let noise = 64.0 * f64::EPSILON * energy.max(whole);
                let goal = bound * bound * whole - noise;
                search.normal.resize(rank * rank, 0.0);
                product_of_grams(&mut search.normal, grams, Some(mode));
                // With no room left by rounding the factor stays, and with it the error.
                let Some(root) =
                    search.largest_root(g, rank, [whole, goal, WINDOW * goal + noise], roots[mode])
                else {
                    feasible = false;
                    return Ok(());
                };
                if root.is_finite() {
                    roots[mode] = root;
                }
                square = Some(search.square);
                let solution = &mut search.best;
                normalize(weights, &mut factors[mode], solution, rank);
                gram_into(&mut grams[mode], solution, solution.len() / rank, rank);
                Ok(())
            });
        done?;
        let rel_error = match square {
            Some(square) => (square.max(0.0) / whole).sqrt(),
            None => model.error::<f64>(tensor, *norm),
        };
        Ok(Step { rel_error, feasible })
    }
}

/// Where the first search for μ starts; the diagonal of Γ is 1.
const FIRST: f64 = 1e-4;
/// Below this, Γ + μI is Γ to f64.
const LOWEST: f64 = 1e-15;
/// How far below the goal the residual may end, relatively.
const WINDOW: f64 = 1e-8;

/// The search for the largest μ with ‖X − G (Γ + μI)⁻¹ Kᵀ‖² = ‖X‖² − ⟨A, G⟩ − μ‖A‖² ≤ goal.
#[derive(Debug, Default)]
struct Search {
    /// Γ, `[R, R]`.
    normal: Vec<f64>,
    /// The Cholesky factor of Γ + μI, `[R, R]`.
    factor: Vec<f64>,
    /// A = G (Γ + μI)⁻¹, `[Iₙ, R]`.
    solution: Vec<f64>,
    /// A (Γ + μI)⁻¹, `[Iₙ, R]`.
    derivative: Vec<f64>,
    /// The A of the largest μ so far that keeps the goal, and its residual.
    best: Vec<f64>,
    square: f64,
}

impl Search {
    /// Newton's method in ln μ between bounds that close in: the residual grows with μ, and is to end between `goal` − `window`
    /// and `goal`; `whole` is ‖X‖². Leaves the solution in `best`. ∞ where the zero model will do, `None` where no μ will.
    fn largest_root(
        &mut self,
        g: &[f64],
        rank: usize,
        [whole, goal, window]: [f64; 3],
        guess: f64,
    ) -> Option<f64> {
        if whole <= goal {
            self.best.clear();
            self.best.resize(g.len(), 0.0);
            self.square = whole;
            return Some(f64::INFINITY);
        }
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mut mu = guess;
        // Newton's method aims at the middle of the window, so that it ends inside, wherever it comes from.
        for _ in 0..100 {
            // Where there is no Cholesky factor, μ is lost in the rounding of Γ.
            let (square, slope) = self.residual(g, rank, whole, mu)?;
            let excess = square - goal;
            if excess > 0.0 {
                high = mu;
            } else {
                low = mu;
                self.square = square;
                std::mem::swap(&mut self.best, &mut self.solution);
                if excess >= -window {
                    break;
                }
            }
            let step = -(excess + 0.5 * window) / slope;
            let newton = mu * step.clamp(-7.0, 7.0).exp();
            mu = if newton > low && newton < high {
                newton
            } else if high == f64::INFINITY {
                16.0 * mu
            } else if low > 0.0 {
                (low * high).sqrt()
            } else {
                high / 16.0
            };
            if mu < LOWEST || high <= low * (1.0 + 1e-12) {
                break;
            }
        }
        (low > 0.0).then_some(low)
    }

    /// The squared residual at μ and its derivative by ln μ, 2μ²⟨A, A (Γ + μI)⁻¹⟩.
    fn residual(&mut self, g: &[f64], rank: usize, whole: f64, mu: f64) -> Option<(f64, f64)> {
        let Self { normal, factor, solution, derivative, .. } = self;
        let rows = g.len() / rank;
        factor.clone_from(normal);
        factor.iter_mut().step_by(rank + 1).for_each(|x| *x += mu);
        solution.clear();
        solution.extend_from_slice(g);
        solve_normal(factor, solution, rows, rank).ok()?;
        derivative.clone_from(solution);
        solve_factored(factor, derivative, rows, rank);
        let inner = dot(solution, g) + mu * dot(solution, solution);
        Some((whole - inner, 2.0 * mu * mu * dot(solution, derivative)))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]
mod tests {
    use super::*;
    use crate::linalg::{mat, symmetric_eigen};

    /// The residual of one mode as a rational function of μ, by the eigenvalues of Γ: ‖X‖² − Σⱼ ‖hⱼ‖² (γⱼ + 2μ)/(γⱼ + μ)².
    fn slow_residual(values: &[f64], squares: &[f64], whole: f64, mu: f64) -> f64 {
        let term = |(v, h): (&f64, &f64)| h * (v + 2.0 * mu) / (v + mu).powi(2);
        whole - values.iter().zip(squares).map(term).sum::<f64>()
    }

    /// The search against a scan of μ over many decades.
    fn check(rows: usize, rank: usize, share: f64, collinear: f64, seed: u64) {
        let dense = Dense { shape: vec![rows, 40], data: vec![0.0; 40 * rows].into() };
        let draw = Init::Random { seed }.factors(&dense, rank).unwrap();
        // K with columns that lean on the first, of norm 1, and X = A Kᵀ plus noise.
        let mut k = draw.factors[1].clone();
        let first = k.column(0).to_owned();
        k.columns_mut().into_iter().for_each(|mut c| c.scaled_add(collinear, &first));
        k.columns_mut().into_iter().for_each(|mut c| {
            let norm = c.dot(&c).sqrt();
            c /= norm;
        });
        let noise = Init::Random { seed: seed + 1 }.factors(&dense, rows).unwrap();
        let x = draw.factors[0].dot(&k.t()) + 0.1 * noise.factors[0].dot(&noise.factors[1].t());
        let whole = x.iter().map(|x| x * x).sum::<f64>();
        let g: Vec<f64> = x.dot(&k).iter().copied().collect();
        let normal: Vec<f64> = k.t().dot(&k).iter().copied().collect();
        let (values, vectors) = symmetric_eigen(mat(&normal, rank, rank)).unwrap();
        let mut squares = vec![0.0; rank];
        for row in g.chunks_exact(rank) {
            for (j, square) in squares.iter_mut().enumerate() {
                *square += (0..rank).map(|r| row[r] * vectors[(r, j)]).sum::<f64>().powi(2);
            }
        }
        let slow = |mu: f64| slow_residual(&values, &squares, whole, mu);
        let least = slow(0.0);
        let goal = least + share * (whole - least);
        let mut search = Search { normal, ..Search::default() };
        let root = search.largest_root(&g, rank, [whole, goal, WINDOW * goal], FIRST).unwrap();
        assert!(slow(root) <= goal * (1.0 + 1e-12), "{} above {goal}", slow(root));
        assert!((search.square - slow(root)).abs() < 1e-9 * whole);
        // The scan: μ on a grid of a hundredth of a decade and better.
        let grid = (-1500..800).map(|i| 10f64.powf(f64::from(i) / 100.0));
        let scanned = grid.filter(|&mu| slow(mu) <= goal).fold(0.0, f64::max);
        let ratio = root / scanned;
        assert!((1.0 - 1e-6..1.024).contains(&ratio), "found {root:e}, scanned {scanned:e}");
        // And A itself.
        let mut shifted = search.normal.clone();
        shifted.iter_mut().step_by(rank + 1).for_each(|x| *x += root);
        let mut expected = g.clone();
        solve_normal(&mut shifted, &mut expected, rows, rank).unwrap();
        assert!(
            expected.iter().zip(&search.best).all(|(a, b)| (a - b).abs() < 1e-9 * whole.sqrt())
        );
        // Bounds that nothing meets, and that everything does.
        assert!(search.largest_root(&g, rank, [whole, 0.5 * least, 1e-8], FIRST).is_none());
        assert_eq!(search.largest_root(&g, rank, [whole, whole, 1e-8], FIRST), Some(f64::INFINITY));
    }

    #[test]
    fn roots_equal_a_scan() {
        check(5, 3, 0.01, 0.0, 1);
        check(5, 3, 1e-4, 0.0, 2);
        check(20, 8, 0.5, 0.0, 3);
        check(20, 8, 0.95, 0.0, 4);
        check(20, 8, 1e-3, 3.0, 5);
        check(3, 30, 1e-3, 10.0, 6);
        check(1, 1, 0.1, 0.0, 7);
    }

    #[test]
    fn bounds_are_at_least_the_error() {
        assert_eq!(Delta::Relative(0.3).bound(0.4), 0.4);
        assert_eq!(Delta::Relative(0.5).bound(0.4), 0.5);
        assert_eq!(Delta::Factor(0.9).bound(0.4), 0.4);
        assert!((Delta::Factor(1.1).bound(0.4) - 0.44).abs() < 1e-15);
        assert!((Delta::Increase(0.1).bound(0.4) - 0.5).abs() < 1e-15);
        assert!((Delta::Auto.bound(0.4) - 0.401).abs() < 1e-15);
        assert!((Delta::Auto.bound(0.05) - 0.0505).abs() < 1e-15);
        assert!((Delta::Auto.bound(0.0) - 1e-4).abs() < 1e-15);
    }
}
