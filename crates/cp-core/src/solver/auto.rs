//! The default: ALS, and more where more pays. [`Auto`].

use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use super::{Als, Decomposition, Epc, Nls, Solver};
use crate::error::CpError;
use crate::init::Init;
use crate::problem::Stopwatch;
use crate::progress::{Progress, StopReason};
use crate::random::further_seed;
use crate::real::Real;

/// What to use where nothing is known about the tensor: [`Als`] first, [`Nls`] and further starts where they still gain.
///
/// 1. ALS from the start asked for, extrapolated ([`Als::extrapolate`]).
/// 2. If the model is small, or the tensor has far more entries than the model has numbers, and ALS explains most of it, the tensor has a structure
///    that can be missed: ALS gets stuck in local minima and swamps. There a step of NLS costs little more than a sweep.
///    So NLS goes on from the result and starts anew from other factors, until the lowest error has been met twice or
///    [`starts`](Auto::starts) are used up.
/// 3. Otherwise, as for convolution kernels, two short steps of NLS are tried, at the cost of some 10 sweeps, and go on
///    only where they gain more per operation than the last sweeps did.
///
/// 4. Where the terms of the best model cancel each other, with a component energy above
///    [`max_energy`](Auto::max_energy), [`Epc`] spends up to 1 % of the error, 1e-3 at most, on smaller ones.
///
/// All decisions depend on errors and counts of operations, not on the clock: one seed
/// gives bit-equal results on any number of threads.
///
/// The trace, and the observer, see the lowest error so far, and then that of the corrected model.
///
/// ```
/// use cp_core::{Auto, CpTensor, Solver};
/// use ndarray::Array2;
///
/// let column = |size: usize| Array2::from_shape_fn((size, 3), |(i, r)| ((i * i + 3 * i * r + r) as f64).sin());
/// let truth = CpTensor::from_factors(vec![column(12), column(11), column(10)])?;
/// let found = Auto::new(3).decompose(truth.reconstruct().view())?;
/// assert!(found.rel_error < 1e-8);
/// # Ok::<(), cp_core::CpError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Auto {
    rank: usize,
    max_iters: usize,
    tol: f64,
    starts: usize,
    max_energy: f64,
    init: Init,
}

/// Sweeps of ALS, and steps of NLS per start, unless [`Auto::max_iters`] says otherwise.
const MAX_ITERS: usize = 100;
/// Change of the fit that ends ALS, unless [`Auto::tol`] says otherwise.
const TOL: f64 = 1e-8;
/// Starts, unless [`Auto::starts`] says otherwise.
const STARTS: usize = 6;
/// Component energy above which terms are corrected, unless [`Auto::max_energy`] says otherwise: where fine-tuning begins to
/// suffer.
const MAX_ENERGY: f64 = 10.0;
/// Entries of the tensor per number of the model from which a step of NLS, with some 50 products with JᵀJ, costs no more
/// than a few sweeps: one product takes 6 R² Σ Iₙ operations, a sweep 4 R ∏ Iₙ.
const STRUCTURED: f64 = 20.0;
/// Numbers of a model up to which all of this takes milliseconds, whatever the tensor.
const SMALL: f64 = 1000.0;
/// Relative error above which ALS has found no structure.
const UNEXPLAINED: f64 = 0.5;
/// Errors that differ by less, relatively, and by less, absolutely, are the same minimum.
const SAME: [f64; 2] = [1e-3, 1e-7];
/// Steps of the short trial, and products with JᵀJ in each of its solves.
const TRIAL: [usize; 2] = [2, 5];
/// Norm penalty of the trial, relative to the squared error: it keeps the terms from cancelling each other where there is no
/// structure to find, and vanishes where there is.
const PENALTY: f64 = 1e-4;
/// Last sweeps of ALS that the trial is compared with.
const LAST: usize = 5;

impl Auto {
    /// The default for `rank` terms: 100 sweeps at most, tolerance 1e-8, up to 6 starts, the first random with seed 0.
    pub fn new(rank: usize) -> Self {
        let init = Init::Random { seed: 0 };
        let (max_iters, tol) = (MAX_ITERS, TOL);
        Self { rank, max_iters, tol, starts: STARTS, max_energy: MAX_ENERGY, init }
    }

    /// Most sweeps of ALS, and most steps of NLS from each start; default 100.
    pub fn max_iters(mut self, iterations: usize) -> Self {
        self.max_iters = iterations;
        self
    }

    /// Stops ALS when the fit changes by less than this between two sweeps, and NLS at a hundredth of it; default 1e-8.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Most starts; default 6. With 1, NLS only goes on from where ALS ends.
    pub fn starts(mut self, starts: usize) -> Self {
        self.starts = starts;
        self
    }

    /// Component energy above which [`Epc`] corrects the model; default 10. With infinity it never does.
    pub fn max_energy(mut self, energy: f64) -> Self {
        self.max_energy = energy;
        self
    }

    /// Where ALS starts; default [`Init::Random`] with seed 0. Further starts are random.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    /// Random factors that are not those of the first start.
    fn other(&self, start: usize) -> Init {
        let first = match self.init {
            Init::Random { seed } | Init::Hosvd { seed } | Init::Resized { seed, .. } => seed,
            Init::Factors(_) => 0,
        };
        Init::Random { seed: further_seed(first, start) }
    }
}

impl<T: Real> Solver<T> for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        let watch = Stopwatch::start();
        if self.max_energy.is_nan() || self.max_energy < 0.0 {
            let (option, value, expected) = ("max_energy", self.max_energy, "a number, at least 0");
            return Err(CpError::InvalidOption { option, value, expected });
        }
        let als = Als::new(self.rank).max_iters(self.max_iters).tol(self.tol);
        let als = als.init(self.init.clone()).extrapolate(true);
        let mut search = BetterMinimum::start(tensor, observe, &als)?;
        // ALS has checked everything, so what follows can only fail for lack of memory or in the algebra; then its result stands.
        search.improve(self);
        search.bound_energy(self);
        let BetterMinimum { best: mut found, trace, stopped, .. } = search;
        found.trace = trace;
        if stopped {
            found.stop = StopReason::Observer;
        }
        found.seconds = watch.seconds();
        Ok(found)
    }
}

/// The best model so far, and what the observer has seen.
struct BetterMinimum<'t, 'o, T: Real> {
    tensor: ArrayViewD<'t, T>,
    observe: &'o mut dyn FnMut(&Progress) -> ControlFlow<()>,
    best: Decomposition<T>,
    trace: Vec<f64>,
    stopped: bool,
}

/// Runs a solver; trace and observer get the lowest error up to there.
fn watched<T: Real>(
    solver: &dyn Solver<T>,
    tensor: ArrayViewD<'_, T>,
    observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    trace: &mut Vec<f64>,
    stopped: &mut bool,
) -> Result<Decomposition<T>, CpError> {
    let mut lowest = trace.last().copied().unwrap_or(f64::INFINITY);
    solver.decompose_with(tensor, &mut |progress| {
        lowest = lowest.min(progress.rel_error);
        trace.push(lowest);
        let flow = observe(&Progress { iteration: trace.len(), rel_error: lowest });
        *stopped = flow.is_break();
        flow
    })
}

impl<'t, 'o, T: Real> BetterMinimum<'t, 'o, T> {
    /// The model of the first solver.
    fn start(
        tensor: ArrayViewD<'t, T>,
        observe: &'o mut dyn FnMut(&Progress) -> ControlFlow<()>,
        solver: &dyn Solver<T>,
    ) -> Result<Self, CpError> {
        let (mut trace, mut stopped) = (Vec::new(), false);
        let best = watched(solver, tensor.view(), observe, &mut trace, &mut stopped)?;
        Ok(Self { tensor, observe, best, trace, stopped })
    }

    /// Runs a solver and keeps its model if it is the best; returns its error.
    fn run(&mut self, solver: &dyn Solver<T>) -> Result<f64, CpError> {
        let Self { tensor, observe, best, trace, stopped } = self;
        let found = watched(solver, tensor.view(), observe, trace, stopped)?;
        let error = found.rel_error;
        if error < best.rel_error {
            *best = found;
        }
        Ok(error)
    }

    /// What comes after ALS.
    fn improve(&mut self, auto: &Auto) {
        let found = &self.best;
        let (error, trace) = (found.rel_error, &found.trace);
        if self.stopped || error == 0.0 || auto.max_iters == 0 {
            return;
        }
        let entries = self.tensor.len() as f64;
        let numbers = found.cp.parameters() as f64;
        let nls = |init: Init| {
            Nls::new(auto.rank).max_iters(auto.max_iters).tol(1e-2 * auto.tol).init(init)
        };
        let from_best = Init::Factors(found.cp.cast());
        let affordable = entries >= STRUCTURED * numbers || numbers <= SMALL;
        if affordable && error < UNEXPLAINED {
            self.search(auto, &nls, from_best);
            return;
        }
        if found.stop == StopReason::Converged {
            return;
        }
        // Error per operation: a sweep takes 4 R ∏ Iₙ operations, a step of NLS as many and 6 R² Σ Iₙ for each product.
        let before = trace.len().checked_sub(LAST + 1).map_or(1.0, |at| trace[at]);
        let per_sweep = (before - error) / LAST as f64;
        let [steps, products] = TRIAL;
        let step = 1.5 + 2.0 * products as f64 * 1.5 * numbers / entries;
        let trial = nls(from_best).warm_up(0).cg_iters(products).penalty(PENALTY * error * error);
        let Ok(after) = self.run(&trial.clone().max_iters(steps)) else { return };
        let gains = error - after > per_sweep * step * steps as f64;
        if gains && !self.stopped {
            let rest = (auto.max_iters as f64 / step) as usize;
            let trial = trial.init(Init::Factors(self.best.cp.cast()));
            // Should it fail, the model found so far stands.
            let _ = self.run(&trial.max_iters(rest));
        }
    }

    /// The error-preserving correction of a model whose terms cancel each other.
    fn bound_energy(&mut self, auto: &Auto) {
        let Self { tensor, observe, best, trace, stopped } = self;
        if *stopped || auto.max_iters == 0 || best.component_energy <= auto.max_energy {
            return;
        }
        let corrected = Epc::new(auto.rank).correct(tensor.view(), &best.cp, &mut |progress| {
            trace.push(progress.rel_error);
            let flow = observe(&Progress { iteration: trace.len(), rel_error: progress.rel_error });
            *stopped = flow.is_break();
            flow
        });
        // Should it fail, the model found so far stands.
        if let Ok(corrected) = corrected
            && corrected.component_energy < best.component_energy
        {
            *best = corrected;
        }
    }

    /// NLS from here and from other starts, until the lowest error has been met from two of them.
    fn search(&mut self, auto: &Auto, nls: &dyn Fn(Init) -> Nls, from_best: Init) {
        let Ok(first) = self.run(&nls(from_best).warm_up(0)) else { return };
        let mut errors = vec![first];
        for start in 1..auto.starts {
            let lowest = errors.iter().copied().fold(f64::INFINITY, f64::min);
            let same = |error: &&f64| **error - lowest <= SAME[0] * lowest + SAME[1];
            if self.stopped || errors.iter().filter(same).count() >= 2 {
                return;
            }
            let Ok(error) = self.run(&nls(auto.other(start))) else { return };
            errors.push(error);
        }
    }
}
