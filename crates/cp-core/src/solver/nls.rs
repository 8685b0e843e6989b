//! Nonlinear least squares over all factors at once: [`Nls`].

mod cg;
mod jacobian;

use std::borrow::Cow;
use std::ops::ControlFlow;

use ndarray::{ArrayView2, ArrayViewD};
use rayon::prelude::*;

use self::cg::dot;
use self::jacobian::{Jacobian, Layout, grams, product_of_grams};
use super::{Als, Decomposition, Problem, Progress, Solver, StopReason};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::khatri_rao::khatri_rao;
use crate::linalg::{mat, mat_mut, parallelism, product};
use crate::real::Real;
use crate::scale::Scale;
use crate::tree::{self, Dense, Workspace, sweep};

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
/// Steps without gain after which a point counts as stationary: μ has grown by 2³⁶ by then.
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
        let expected = "a finite number, at least 0";
        for (option, value) in [("tol", self.tol), ("penalty", self.penalty)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(CpError::InvalidOption { option, value, expected });
            }
        }
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
        problem.finish(&tensor, factors, &weights, run.trace, stop)
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
            return (theta, StopReason::Converged);
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
                return (point.theta, StopReason::Converged);
            };
            let solve = |jacobian: &mut Jacobian<'_>, right: &[f64], forcing: f64| {
                let apply = |v: &[f64], to: &mut [f64]| jacobian.apply(v, damping + penalty, to);
                let precondition = |r: &[f64], to: &mut [f64]| preconditioner.apply(r, to);
                cg::solve(right, apply, precondition, forcing, self.cg_iters)
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
            // A gradient of zero, or rounding has eaten it.
            let stationary = predicted.is_nan() || predicted <= 0.0;
            if !stationary {
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
            if stationary || refused >= REFUSALS || small >= 2 {
                return (point.theta, StopReason::Converged);
            }
        }
        (point.theta, StopReason::MaxIters)
    }
}

/// θ with everything that is known there.
struct Point {
    theta: Vec<f64>,
    grams: Vec<Vec<f64>>,
    /// ‖X − X̂‖² / ‖X‖².
    square: f64,
    /// Gradient of `square` / 2.
    gradient: Vec<f64>,
    /// `square` / 2 with the penalty.
    objective: f64,
}

/// The function to be minimised, in units of ‖X‖ = 1.
struct Objective<'p, 'a, T: Real> {
    problem: &'p Problem<'a, T>,
    layout: &'p Layout,
    penalty: f64,
    /// Whether residuals are built from the entries, in f64.
    exact: bool,
    space: Workspace<T>,
    wide_space: Workspace<f64>,
    /// Scratch: X / ‖X‖ − X̂.
    residual: Vec<f64>,
}

/// What ends a sweep before its end: the objective is above the limit.
struct Above;

/// Relative errors of squares and gains from the cheap formulas, in units of the rounding error of T.
const NOISE: f64 = 1024.0;

impl<'p, 'a, T: Real> Objective<'p, 'a, T> {
    fn new(problem: &'p Problem<'a, T>, layout: &'p Layout, penalty: f64) -> Self {
        let (space, wide_space) = (Workspace::new(), Workspace::new());
        Self { problem, layout, penalty, exact: false, space, wide_space, residual: Vec::new() }
    }

    /// The objective and its gradient at θ; `None` where the objective is not below `limit` (or not a number).
    fn at(&mut self, theta: Vec<f64>, limit: f64) -> Option<Point> {
        let grams = grams(self.layout, &theta);
        let penalty = 0.5 * self.penalty * dot(&theta, &theta);
        let mut point =
            Point { theta, grams, square: f64::NAN, gradient: Vec::new(), objective: f64::NAN };
        point.gradient.resize(self.layout.len(), 0.0);
        if !self.exact {
            let whole = self.cheap(&mut point, limit - penalty).is_ok();
            if point.square < self.noise(&point) {
                self.exact = true;
            } else if !whole {
                return None;
            }
        }
        if self.exact {
            self.direct(&mut point, limit - penalty).ok()?;
        }
        point.objective = 0.5 * point.square + penalty;
        (point.objective < limit).then_some(point)
    }

    /// Below which squares and gains from the cheap formulas mean nothing: rounding, as large as the terms that cancel.
    fn noise(&self, point: &Point) -> f64 {
        let step = self.layout.rank + 1;
        let whole = product_of_grams(&point.grams, &[]);
        let energy: f64 = whole.iter().step_by(step).sum();
        NOISE * T::EPSILON * energy.max(1.0)
    }

    /// Goes over to the residual tensor where `gain` is too small for the cheap formulas; `true` if it did.
    fn sharpen(&mut self, point: &Point, gain: f64) -> bool {
        let now = !self.exact && gain < self.noise(point);
        self.exact |= now;
        now
    }

    /// ‖X − X̂‖² = ‖X‖² − 2⟨X, X̂⟩ + ‖X̂‖² and the gradient A Γ − G, by two products in T; the second is left out where
    /// the first shows that the limit is passed.
    fn cheap(&mut self, point: &mut Point, limit: f64) -> Result<(), Above> {
        let Self { problem, layout, space, .. } = self;
        let rank = layout.rank;
        let model: f64 = product_of_grams(&point.grams, &[]).iter().sum();
        let Point { theta, grams, square, gradient, .. } = point;
        let narrow = |block: &std::ops::Range<usize>| {
            theta[block.clone()].iter().map(|&x| T::narrow(x)).collect()
        };
        let mut factors: Vec<Vec<T>> = layout.blocks.iter().map(narrow).collect();
        let scale = problem.norm.recip();
        sweep(&problem.tensor, &mut factors, rank, space, &mut |mode, g, _| {
            let block = layout.blocks[mode].clone();
            let (a, to) = (&theta[block.clone()], &mut gradient[block]);
            to.iter_mut().zip(g).for_each(|(to, g)| *to = scale * g.widen());
            if mode == 0 {
                *square = 1.0 - 2.0 * dot(to, a) + model;
                if square.is_nan() || 0.5 * *square >= limit {
                    return Err(Above);
                }
            }
            let normal = product_of_grams(grams, &[mode]);
            let rows = layout.rows(mode);
            let mut normal_part = vec![0.0; to.len()];
            product(
                mat_mut(&mut normal_part, rows, rank),
                mat(a, rows, rank),
                mat(&normal, rank, rank),
            );
            to.iter_mut().zip(&normal_part).for_each(|(to, x)| *to = x - *to);
            Ok(())
        })
    }

    /// The same from the residual tensor E = X − X̂ in f64: the gradient is −E₍ₙ₎ (⊙_{m≠n} A⁽ᵐ⁾). Three products.
    fn direct(&mut self, point: &mut Point, limit: f64) -> Result<(), Above> {
        let rank = self.layout.rank;
        let Point { theta, square, gradient, .. } = point;
        *square = self.build_residual(theta);
        if square.is_nan() || 0.5 * *square >= limit {
            return Err(Above);
        }
        let factors = self.layout.blocks.iter().map(|block| theta[block.clone()].to_vec());
        let mut factors: Vec<Vec<f64>> = factors.collect();
        let data = Cow::Borrowed(self.residual.as_slice());
        let tensor = Dense { shape: self.problem.tensor.shape.clone(), data };
        sweep(&tensor, &mut factors, rank, &mut self.wide_space, &mut |mode, g, _| {
            let to = &mut gradient[self.layout.blocks[mode].clone()];
            to.iter_mut().zip(g).for_each(|(to, g)| *to = -g);
            Ok(())
        })
    }

    /// Fills `residual` and returns its square.
    fn build_residual(&mut self, theta: &[f64]) -> f64 {
        let Self { problem, layout, residual, .. } = self;
        let rank = layout.rank;
        let shape = &problem.tensor.shape;
        let group = |modes: std::ops::Range<usize>| {
            let view = |mode: usize| {
                let size = (shape[mode], rank);
                ArrayView2::from_shape(size, &theta[layout.blocks[mode].clone()])
                    .expect("a block holds one row for each index")
            };
            khatri_rao(&modes.map(view).collect::<Vec<_>>())
        };
        let middle = tree::split(shape);
        let (left, right) = (group(0..middle), group(middle..shape.len()));
        let (rows, columns) = (left.nrows(), right.nrows());
        let (left, right) = (left.into_raw_vec_and_offset().0, right.into_raw_vec_and_offset().0);
        residual.resize(rows * columns, 0.0);
        product(
            mat_mut(residual, rows, columns),
            mat(&left, rows, rank),
            mat(&right, columns, rank).transpose(),
        );
        /// Entries that are taken from X at a time; fixed, so that the sum of squares does not depend on the threads.
        const BLOCK: usize = 1 << 14;
        let scale = problem.norm.recip();
        let subtract = |(e, x): (&mut [f64], &[T])| {
            e.iter_mut().zip(x).for_each(|(e, x)| *e = scale * x.widen() - *e);
            dot(e, e)
        };
        let data = &problem.tensor.data;
        let squares: Vec<f64> = if matches!(parallelism(16.0 * data.len() as f64), faer::Par::Seq) {
            residual.chunks_mut(BLOCK).zip(data.chunks(BLOCK)).map(subtract).collect()
        } else {
            residual.par_chunks_mut(BLOCK).zip(data.par_chunks(BLOCK)).map(subtract).collect()
        };
        squares.iter().sum()
    }

    /// Scales θ to the best multiple of the model; a given one only where it is worse than no model.
    fn rescale(&mut self, theta: &mut [f64], given: bool) {
        let Some(point) = self.at(theta.to_vec(), f64::INFINITY) else { return };
        if given && point.square <= 1.0 {
            return;
        }
        let model: f64 = product_of_grams(&point.grams, &[]).iter().sum();
        let inner = 0.5 * (1.0 + model - point.square);
        // Where X and the model are (nearly) orthogonal, small steps in any direction help: do not start at zero.
        let multiple = (inner / model).abs().max(1e-3 / model.sqrt());
        if !multiple.is_finite() {
            return;
        }
        let scale = multiple.powf((self.layout.blocks.len() as f64).recip());
        theta.iter_mut().for_each(|x| *x *= scale);
        if inner < 0.0 {
            theta[self.layout.blocks[0].clone()].iter_mut().for_each(|x| *x = -*x);
        }
    }

    /// Gives the columns of each term the same norm in all modes. X̂ stays as it is, the penalty becomes smallest, and the
    /// unknowns are of one size, as μI takes them to be.
    fn balance(&self, point: &mut Point) {
        let Self { layout, .. } = self;
        let rank = layout.rank;
        let order = layout.blocks.len() as f64;
        let diagonal = |gram: &Vec<f64>, r: usize| gram[r * (rank + 1)].sqrt();
        let logs: Vec<f64> = (0..rank)
            .map(|r| point.grams.iter().map(|gram| diagonal(gram, r).ln()).sum::<f64>() / order)
            .collect();
        for (mode, block) in layout.blocks.iter().enumerate() {
            let scales: Vec<f64> = (0..rank)
                .map(|r| {
                    let scale = (logs[r] - diagonal(&point.grams[mode], r).ln()).exp();
                    // A term of norm zero keeps its directions.
                    if scale.is_normal() && logs[r].is_finite() { scale } else { 1.0 }
                })
                .collect();
            for row in point.theta[block.clone()].chunks_exact_mut(rank) {
                row.iter_mut().zip(&scales).for_each(|(x, scale)| *x *= scale);
            }
            for row in point.gradient[block.clone()].chunks_exact_mut(rank) {
                row.iter_mut().zip(&scales).for_each(|(g, scale)| *g /= scale);
            }
            for (row, left) in point.grams[mode].chunks_exact_mut(rank).zip(&scales) {
                row.iter_mut().zip(&scales).for_each(|(x, right)| *x *= left * right);
            }
        }
        point.objective = 0.5 * point.square + 0.5 * self.penalty * dot(&point.theta, &point.theta);
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
mod tests {
    use ndarray::{Array2, ArrayD};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    fn draw(len: usize, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..len).map(|_| StandardNormal.sample(&mut rng)).collect()
    }

    /// X̂ at θ.
    fn model(shape: &[usize], layout: &Layout, theta: &[f64]) -> ArrayD<f64> {
        let factor = |(block, &size): (&std::ops::Range<usize>, &usize)| {
            Array2::from_shape_vec((size, layout.rank), theta[block.clone()].to_vec()).unwrap()
        };
        let factors = layout.blocks.iter().zip(shape).map(factor).collect();
        CpTensor::from_factors(factors).unwrap().reconstruct()
    }

    /// The slow twin of [`Jacobian`]: one column of J per unknown, exact because X̂ is linear in each.
    fn slow_jacobian(shape: &[usize], layout: &Layout, theta: &[f64]) -> Vec<ArrayD<f64>> {
        let column = |i: usize| {
            let mut moved = theta.to_vec();
            moved[i] += 1.0;
            model(shape, layout, &moved) - model(shape, layout, theta)
        };
        (0..layout.len()).map(column).collect()
    }

    fn check_jacobian(shape: &[usize], rank: usize) {
        let layout = Layout::new(shape, rank);
        let (theta, v) = (draw(layout.len(), 1), draw(layout.len(), 2));
        let columns = slow_jacobian(shape, &layout, &theta);
        let mut jv = ArrayD::zeros(shape);
        columns.iter().zip(&v).for_each(|(column, v)| jv = &jv + column * *v);
        let mu = 0.7;
        let mut fast = vec![0.0; layout.len()];
        let mut jacobian = Jacobian::new(&layout, &theta, &grams(&layout, &theta));
        jacobian.apply(&v, mu, &mut fast);
        for ((fast, column), v) in fast.iter().zip(&columns).zip(&v) {
            let slow = (column * &jv).sum() + mu * v;
            assert!((fast - slow).abs() < 1e-9 * (1.0 + slow.abs()), "{shape:?}: {fast} {slow}");
        }
        // Along v the model is X̂ + h J v + h² q(v) + …
        let along = |h: f64| {
            let moved: Vec<f64> = theta.iter().zip(&v).map(|(x, v)| x + h * v).collect();
            model(shape, &layout, &moved)
        };
        let h = 1e-3;
        let bend = (along(h) + along(-h) - 2.0 * along(0.0)) / (2.0 * h * h);
        jacobian.bend(&v, &grams(&layout, &theta), &mut fast);
        for (fast, column) in fast.iter().zip(&columns) {
            let slow = (column * &bend).sum();
            assert!((fast - slow).abs() < 1e-4 * (1.0 + slow.abs()), "{shape:?}: {fast} {slow}");
        }
        let largest = columns.iter().map(|c| (c * c).sum()).fold(0.0, f64::max);
        assert!((jacobian.largest_diagonal() - largest).abs() < 1e-9 * largest);
        // The preconditioner undoes the diagonal blocks: those of a vector with one block alone.
        let preconditioner = jacobian.preconditioner(mu).unwrap();
        for block in &layout.blocks {
            let mut alone = vec![0.0; layout.len()];
            alone[block.clone()].copy_from_slice(&v[block.clone()]);
            jacobian.apply(&alone, mu, &mut fast);
            let mut back = vec![0.0; layout.len()];
            preconditioner.apply(&fast, &mut back);
            let pairs = back[block.clone()].iter().zip(&v[block.clone()]);
            pairs.for_each(|(x, y)| assert!((x - y).abs() < 1e-8, "{shape:?}: {x} {y}"));
        }
    }

    #[test]
    fn jacobian_products_equal_the_dense_ones() {
        check_jacobian(&[4, 3], 2);
        check_jacobian(&[4, 3, 5], 3);
        check_jacobian(&[3, 1, 4, 2], 5);
        check_jacobian(&[2, 3, 2, 3, 2], 2);
    }

    /// Both ways to the objective and its gradient against central differences.
    fn check_gradient(shape: &[usize], rank: usize, penalty: f64) {
        let layout = Layout::new(shape, rank);
        let theta = draw(layout.len(), 3);
        let tensor = model(shape, &layout, &draw(layout.len(), 4));
        let view = tensor.view();
        let problem = Problem::new(&view, rank).unwrap();
        for exact in [false, true] {
            let mut objective = Objective::new(&problem, &layout, penalty);
            objective.exact = exact;
            let mut at = |theta: Vec<f64>| objective.at(theta, f64::INFINITY).unwrap();
            let point = at(theta.clone());
            for i in 0..layout.len() {
                let mut shifted = |h: f64| {
                    let mut theta = theta.clone();
                    theta[i] += h;
                    at(theta).objective
                };
                let slope = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                let gradient = point.gradient[i] + penalty * theta[i];
                let scale = 1.0 + point.objective;
                assert!(
                    (slope - gradient).abs() < 1e-6 * scale,
                    "{shape:?} {i}: {slope} {gradient}"
                );
            }
            assert_eq!(objective.exact, exact);
        }
    }

    #[test]
    fn gradients_equal_finite_differences() {
        check_gradient(&[4, 3], 2, 0.0);
        check_gradient(&[4, 3, 5], 2, 0.3);
        check_gradient(&[3, 1, 4, 2], 3, 0.0);
        check_gradient(&[2, 3, 2, 3, 2], 2, 0.1);
    }

    #[test]
    fn balancing_changes_neither_model_nor_slope() {
        let shape = [4, 3, 5];
        let layout = Layout::new(&shape, 2);
        let tensor = model(&shape, &layout, &draw(layout.len(), 5));
        let view = tensor.view();
        let problem = Problem::new(&view, 2).unwrap();
        let mut objective = Objective::new(&problem, &layout, 0.1);
        let mut theta = draw(layout.len(), 6);
        theta[layout.blocks[1].clone()].iter_mut().for_each(|x| *x *= 30.0);
        let mut point = objective.at(theta, f64::INFINITY).unwrap();
        let before = point.objective;
        objective.balance(&mut point);
        assert!(point.objective < before, "the penalty is smallest for balanced factors");
        let again = objective.at(point.theta.clone(), f64::INFINITY).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9 * (1.0 + b.abs());
        assert!(close(point.square, again.square) && close(point.objective, again.objective));
        assert!(point.gradient.iter().zip(&again.gradient).all(|(a, b)| close(*a, *b)));
        let grams = point.grams.iter().flatten().zip(again.grams.iter().flatten());
        assert!(grams.into_iter().all(|(a, b)| close(*a, *b)));
    }
}
