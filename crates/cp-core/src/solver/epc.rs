//! Error-preserving correction: [`Epc`] and its error bound, [`Delta`].

mod cycles;
mod search;

use std::borrow::Cow;
use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use self::cycles::{Cycles, Momentum};
use super::{Als, Decomposition, Solver};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::linalg::gram_into;
use crate::measure;
use crate::problem::{Problem, check_option};
use crate::progress::{Progress, StopReason};
use crate::real::Real;
use crate::scale::Scale;
use crate::tree::Dense;

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
        match self {
            Delta::Auto => Ok(()),
            Delta::Relative(value) | Delta::Factor(value) | Delta::Increase(value) => {
                check_option("delta", value)
            }
        }
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
/// had because the terms cancel beyond what f64 resolves, the model that was to be corrected is returned, its error ends
/// the trace, and the run has [stalled](StopReason::Stalled).
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
        self.run(&problem, cp, Vec::new(), observe)
    }

    fn check(&self) -> Result<(), CpError> {
        self.delta.check()?;
        check_option("tol", self.tol)
    }

    /// The correction, after the iterations in `trace`.
    fn run<T: Real>(
        &self,
        problem: &Problem<'_, T>,
        cp: &CpTensor<T>,
        mut trace: Vec<f64>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        let start = Init::Factors(cp.cast()).factors(&problem.tensor, self.rank)?;
        let start = EpcModel::new(start, problem.exponent)?;
        if problem.norm == 0.0 {
            let zero = vec![0.0; self.rank];
            let factors = start.rounded();
            return problem.finish(factors, &zero, trace, StopReason::Converged);
        }
        let wide = Dense {
            shape: problem.tensor.shape.clone(),
            data: Cow::Owned(problem.tensor.data.iter().map(|x| x.widen()).collect()),
        };
        let mut rel_error = start.error::<T>(&wide, problem.norm);
        let bound = self.delta.bound(rel_error);
        let mut model = start.clone();
        let mut cycles = Cycles::new(&wide, problem.norm);
        let mut stop = StopReason::MaxIters;
        let mut settled = 0;
        let mut momentum = Momentum::new();
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
                stop = if step.moved { StopReason::Converged } else { StopReason::Stalled };
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
                stop = StopReason::Stalled;
                break;
            }
            cycles.next(&mut model, goal)?;
        }
        problem.finish(model.rounded(), &model.weights, trace, stop)
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
        self.run(&problem, &start.cp, start.trace, observe)
    }
}

/// The model while it is being corrected: normalised factors with their Grams, and λ.
#[derive(Debug, Clone)]
struct EpcModel {
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

impl EpcModel {
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
        measure::residual(tensor, &factors, &weights) / norm
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "exact values are meant")]
mod tests {
    use super::*;

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
