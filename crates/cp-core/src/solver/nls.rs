//! Nonlinear least squares over all factors at once: [`Nls`].

mod jacobian;
mod objective;

use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use self::jacobian::{Jacobian, Layout};
use self::objective::Objective;
use super::conjugate_gradients::conjugate_gradients;
use super::{Als, Decomposition, Solver};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::linalg::dot;
use crate::problem::{Problem, check_option};
use crate::progress::{Progress, StopReason};
use crate::real::Real;
use crate::scale::Scale;

/// Nonlinear least squares: damped Gauss–Newton (Levenberg–Marquardt) steps in all factors at once.
///
/// Minimises ½ ‖X − ⟦A⁽⁰⁾, …⟧‖² / ‖X‖² + (p/2) Σₙ ‖A⁽ⁿ⁾‖² / ‖X‖^{2/N}, the second part only with a
/// [`penalty`](Nls::penalty), over factors with λ folded in and spread evenly ([`CpTensor::balance`]). A step d solves
/// (JᵀJ + (μ + p) I) d = −gradient by preconditioned conjugate gradients; JᵀJ is applied by R × R Grams and never formed. A
/// second solve of the kind corrects d for the bend of the model along it ("geodesic acceleration"), which for a CP model
/// takes no product with the tensor, and in swamps halves the number of steps and more. μ follows the ratio of actual to
/// predicted gain.
///
/// Where terms are nearly collinear, ALS crawls ("swamps") and this does not; near an exact solution it converges
/// quadratically. On convolution kernels, whose error is large and whose minimum is flat, [`Als`] is cheaper for the same
/// error, and the terms found here tend to cancel each other more unless there is a penalty.
///
/// # Cost
/// Per step two matrix products of 2 R ∏ Iₙ operations, as in a sweep of ALS (three, all in f64, once the error or the
/// gains have become too small for the cheap formulas), and 8 R² Σ Iₙ for each step of the conjugate gradients, of which
/// there are up to [`cg_iters`](Nls::cg_iters) in either solve. Memory: that of ALS and N (N + 3) / 2 matrices `[R, R]`; near convergence one
/// more tensor in f64.
///
/// # Numbers
/// Far from a solution the products with the tensor run in its own type. Everything else is f64, and so are the products
/// once digits count: from there on the residual tensor is built, and the gradient is its MTTKRP, which has no cancellation.
/// Exact f64 tensors are met to 1e-12 and better.
///
/// ```
/// use cp_core::{CpTensor, Init, Nls, Solver, congruence};
/// use ndarray::Array2;
///
/// // Two terms whose columns are at an angle of 8° in each mode.
/// let column = |size: usize| Array2::from_shape_fn((size, 2), |(i, r)| 1.0 + (0.1 + 0.1 * r as f64) * (i as f64).sin());
/// let truth = CpTensor::from_factors(vec![column(6), column(5), column(4)])?;
///
/// let found = Nls::new(2).tol(1e-15).init(Init::Random { seed: 1 }).decompose(truth.reconstruct().view())?;
/// assert!(found.rel_error < 1e-12);
/// assert!(congruence(&found.cp, &truth).min > 1.0 - 1e-6);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Sorber, Van Barel & De Lathauwer (2013), §4; Phan, Tichavský & Cichocki (2013), "Low complexity damped
/// Gauss–Newton algorithms for CANDECOMP/PARAFAC"; Tomasi & Bro (2006); damping by Nielsen (1999); bend by
/// Transtrum & Sethna (2012), arXiv 1201.5885, §5.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Nls {
    rank: usize,
    max_iters: usize,
    tol: f64,
    penalty: f64,
    warm_up: usize,
    cg_iters: usize,
    init: Init,
}

/// Steps, unless [`Nls::max_iters`] says otherwise.
const MAX_ITERS: usize = 200;
/// Change of the fit that ends a run, unless [`Nls::tol`] says otherwise.
const TOL: f64 = 1e-10;
/// Sweeps of ALS before the first step, unless [`Nls::warm_up`] says otherwise.
const WARM_UP: usize = 1;
/// Most products with JᵀJ per step, unless [`Nls::cg_iters`] says otherwise.
const CG_ITERS: usize = 100;
/// The first μ, relative to the largest diagonal entry of JᵀJ.
const FIRST_DAMPING: f64 = 1e-2;
/// Largest factor by which μ falls after a step whose gain was as predicted.
const RELAX: f64 = 1.0 / 3.0;
/// Residual of the conjugate gradients relative to their start: the gradient's norm relative to the first one, within
/// these bounds, which gives superlinear convergence (Nocedal & Wright 2006, theorem 7.2).
const FORCING: [f64; 2] = [1e-8, 1e-2];
/// Length of the correction for the bend of the model, relative to the step, from which it is left out: the two terms of
/// the series in the step length then say little about the sum.
const LARGEST_BEND: f64 = 0.5;
/// Steps without gain after which no step is thought to have any: μ has grown by 2³⁶ by then.
const REFUSALS: usize = 8;

impl Nls {
    /// NLS for `rank` terms: 200 steps at most, tolerance 1e-10, no penalty, a random start with seed 0 and one sweep of ALS.
    pub fn new(rank: usize) -> Self {
        let init = Init::Random { seed: 0 };
        let (max_iters, tol, penalty) = (MAX_ITERS, TOL, 0.0);
        Self { rank, max_iters, tol, penalty, warm_up: WARM_UP, cg_iters: CG_ITERS, init }
    }

    /// Most Gauss–Newton steps, refused ones included; default 200. The sweeps of the warm-up are not counted.
    pub fn max_iters(mut self, steps: usize) -> Self {
        self.max_iters = steps;
        self
    }

    /// Stops when the relative error (with a penalty: the root of twice the objective) changes by less than this in two
    /// successful steps running; default 1e-10.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Weight p of the norm penalty (p/2) Σₙ ‖A⁽ⁿ⁾‖² / ‖X‖^{2/N}; default 0.
    ///
    /// It keeps terms from growing against each other. For balanced factors Σₙ ‖A⁽ⁿ⁾‖² = N Σᵣ λᵣ^{2/N}. On
    /// convolution kernels 1e-5 … 1e-4 keeps the component energy at that of ALS for the same error; 1e-3 costs error.
    pub fn penalty(mut self, penalty: f64) -> Self {
        self.penalty = penalty;
        self
    }

    /// Sweeps of [`Als`] before the first step, which come first in the trace; default 1.
    ///
    /// More are no help: on random tensors, 20 sweeps lead to local minima that this method alone avoids.
    pub fn warm_up(mut self, sweeps: usize) -> Self {
        self.warm_up = sweeps;
        self
    }

    /// Most products with JᵀJ in either of the two solves of a step; default 100.
    pub fn cg_iters(mut self, products: usize) -> Self {
        self.cg_iters = products;
        self
    }

    /// Where to start; default [`Init::Random`] with seed 0. A start that is worse than no model at all is scaled to the
    /// best multiple of it.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    fn check(&self) -> Result<(), CpError> {
        check_option("tol", self.tol)?;
        check_option("penalty", self.penalty)?;
        if self.cg_iters == 0 {
            let (option, expected) = ("cg_iters", "at least 1");
            return Err(CpError::InvalidOption { option, value: 0.0, expected });
        }
        Ok(())
    }
}

impl<T: Real> Solver<T> for Nls {
    fn name(&self) -> &'static str {
        "nls"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        self.check()?;
        let problem = Problem::new(&tensor, self.rank)?;
        let mut run = Run { observe, trace: Vec::new(), stopped: false };
        let start = if self.warm_up == 0 || problem.norm == 0.0 {
            self.init.factors(&problem.tensor, self.rank)?
        } else {
            let als = Als::new(self.rank).max_iters(self.warm_up).tol(0.0).init(self.init.clone());
            als.decompose_with(tensor.view(), &mut |progress| run.step(progress.rel_error))?
                .cp
                .cast()
        };
        // Drawn factors have directions, but no size that has to do with that of X.
        let given =
            self.warm_up > 0 || matches!(self.init, Init::Factors(_) | Init::Resized { .. });
        let layout = Layout::new(&problem.tensor.shape, self.rank);
        let (mut theta, mut stop) = (unknowns(&problem, start, given), StopReason::Converged);
        if run.stopped {
            stop = StopReason::Observer;
        } else if problem.norm > 0.0 {
            let mut objective = Objective::new(&problem, &layout, self.penalty);
            objective.rescale(&mut theta, given);
            (theta, stop) = self.steps(&mut objective, theta, &mut run);
        }
        let (factors, weights) = split(&layout, &theta, problem.norm);
        problem.finish(factors, &weights, run.trace, stop)
    }
}

/// The observer and what it saw.
struct Run<'o> {
    observe: &'o mut dyn FnMut(&Progress) -> ControlFlow<()>,
    trace: Vec<f64>,
    stopped: bool,
}

impl Run<'_> {
    fn step(&mut self, rel_error: f64) -> ControlFlow<()> {
        self.trace.push(rel_error);
        let flow = (self.observe)(&Progress { iteration: self.trace.len(), rel_error });
        self.stopped = flow.is_break();
        flow
    }
}

impl Nls {
    /// The iteration itself, from θ to the θ where it ends.
    fn steps<T: Real>(
        &self,
        objective: &mut Objective<'_, '_, T>,
        theta: Vec<f64>,
        run: &mut Run<'_>,
    ) -> (Vec<f64>, StopReason) {
        let layout = objective.layout;
        let penalty = self.penalty;
        let Some(mut point) = objective.at(theta.clone(), f64::INFINITY) else {
            return (theta, StopReason::Breakdown);
        };
        let (mut mu, mut growth) = (None, 2.0);
        let (mut first, mut refused, mut small) = (0.0_f64, 0, 0);
        let mut step = 0;
        while step < self.max_iters {
            objective.balance(&mut point);
            let mut right: Vec<f64> = point.gradient.clone();
            right.iter_mut().zip(&point.theta).for_each(|(g, x)| *g = -(*g + penalty * x));
            let slope = dot(&right, &right).sqrt();
            first = first.max(slope);
            let mut jacobian = Jacobian::new(layout, &point.theta, &point.grams);
            let damping = *mu.get_or_insert_with(|| FIRST_DAMPING * jacobian.largest_diagonal());
            let Ok(preconditioner) = jacobian.preconditioner(damping + penalty) else {
                return (point.theta, StopReason::Breakdown);
            };
            let solve = |jacobian: &mut Jacobian<'_>, right: &[f64], forcing: f64| {
                let apply = |v: &[f64], to: &mut [f64]| jacobian.apply(v, damping + penalty, to);
                let precondition = |r: &[f64], to: &mut [f64]| preconditioner.apply(r, to);
                let (start, right) = (vec![0.0; right.len()], right.to_vec());
                conjugate_gradients(start, right, apply, precondition, forcing, self.cg_iters)
            };
            let forcing = (slope / first).clamp(FORCING[0], FORCING[1]);
            let found = solve(&mut jacobian, &right, forcing);
            // The gain of the undamped model, ½ (bᵀd + dᵀr + μ‖d‖²) with the residual r of the conjugate gradients.
            let d = &found.x;
            let predicted = 0.5 * (dot(&right, d) + dot(&found.residual, d) + damping * dot(d, d));
            if objective.sharpen(&point, predicted) {
                if let Some(same) = objective.at(point.theta.clone(), f64::INFINITY) {
                    point = same;
                }
                continue;
            }
            step += 1;
            let before = point.objective;
            // Nothing to gain where the gradient is zero, or rounding has eaten it.
            let gains = predicted > 0.0;
            if gains {
                let mut theta: Vec<f64> = point.theta.iter().zip(d).map(|(x, d)| x + d).collect();
                let mut bend = vec![0.0; layout.len()];
                jacobian.bend(d, &point.grams, &mut bend);
                bend.iter_mut().for_each(|x| *x = -*x);
                let found = solve(&mut jacobian, &bend, FORCING[1]);
                let correction = (dot(&found.x, &found.x) / dot(d, d)).sqrt();
                if correction < LARGEST_BEND {
                    theta.iter_mut().zip(&found.x).for_each(|(x, c)| *x += c);
                }
                match objective.at(theta, before) {
                    Some(next) => {
                        let ratio = (before - next.objective) / predicted;
                        mu = Some(damping * (1.0 - (2.0 * ratio - 1.0).powi(3)).max(RELAX));
                        growth = 2.0;
                        refused = 0;
                        let change = (2.0 * before).sqrt() - (2.0 * next.objective).sqrt();
                        small = if change < self.tol { small + 1 } else { 0 };
                        point = next;
                    }
                    None => {
                        mu = Some(damping * growth);
                        growth *= 2.0;
                        refused += 1;
                    }
                }
            }
            if run.step(point.square.sqrt()).is_break() {
                return (point.theta, StopReason::Observer);
            }
            if predicted.is_nan() {
                return (point.theta, StopReason::Breakdown);
            }
            if slope == 0.0 || small >= 2 {
                return (point.theta, StopReason::Converged);
            }
            if !gains || refused >= REFUSALS {
                return (point.theta, StopReason::Stalled);
            }
        }
        (point.theta, StopReason::MaxIters)
    }
}

/// θ of a model: balanced factors in units of ‖X‖ = 1, or where the model's own size means nothing, of its largest term.
fn unknowns<T: Real>(problem: &Problem<'_, T>, mut cp: CpTensor<f64>, given: bool) -> Vec<f64> {
    cp.normalize();
    let (down, unit) = if given {
        (Scale::new(-problem.exponent), problem.norm)
    } else {
        (Scale::new(0), cp.weights.iter().copied().fold(0.0, f64::max))
    };
    let order = cp.order();
    let mut theta = Vec::with_capacity(cp.parameters());
    for (mode, factor) in cp.factors.iter().enumerate() {
        let scales: Vec<f64> = cp
            .weights
            .iter()
            .map(|&weight| {
                let norm = (down.of(weight) / unit).powf((order as f64).recip());
                // A term without weight keeps its directions but one, from where it may come back.
                match norm {
                    norm if norm.is_finite() && norm > 0.0 => norm,
                    _ if mode + 1 == order => 0.0,
                    _ => 1.0,
                }
            })
            .collect();
        for row in factor.rows() {
            theta.extend(row.iter().zip(&scales).map(|(x, scale)| x * scale));
        }
    }
    theta
}

/// Normalised factors in T and the weights, for a tensor of this norm.
fn split<T: Real>(layout: &Layout, theta: &[f64], norm: f64) -> (Vec<Vec<T>>, Vec<f64>) {
    let rank = layout.rank;
    let mut weights = vec![norm; rank];
    let mut factors = Vec::new();
    for block in &layout.blocks {
        let a = &theta[block.clone()];
        let mut norms = vec![0.0; rank];
        for row in a.chunks_exact(rank) {
            norms.iter_mut().zip(row).for_each(|(norm, x): (&mut f64, _)| *norm = norm.hypot(*x));
        }
        weights.iter_mut().zip(&norms).for_each(|(weight, norm)| *weight *= norm);
        let unit = |(i, x): (usize, &f64)| {
            let norm = norms[i % rank];
            T::narrow(if norm > 0.0 { x / norm } else { 0.0 })
        };
        factors.push(a.iter().enumerate().map(unit).collect());
    }
    (factors, weights)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
