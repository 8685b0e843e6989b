//! Several starts with the best kept: [`Restarts`], [`best_of`].

use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use super::{Decomposition, Solver};
use crate::error::CpError;
use crate::problem::Stopwatch;
use crate::progress::{Progress, StopReason};
use crate::real::Real;
use crate::threads::{each_on_one, threads};

/// Entries of a tensor up to which several runs go side by side. Products with larger ones keep the threads busy
/// themselves, and each run needs a work space of its own.
const SIDE_BY_SIDE: usize = 1 << 18;

/// Runs all `solvers` on one tensor and keeps the result of lowest error; of equal ones the first.
///
/// Small tensors are decomposed side by side on the threads of the current rayon pool, each on one of them. The result is
/// bit-equal on any number of threads, whatever the scheduling.
///
/// `observe` is called once for each solver, in their order, with the number of solvers done and the lowest error so far;
/// [`ControlFlow::Break`] ends the search with the best model up to there ([`StopReason::Observer`]). The trace is the best
/// run's own, `seconds` is the time of the whole search.
///
/// # Errors
/// The first solver's error where none succeeds; [`CpError::NoSolver`] for an empty list.
///
/// ```
/// use cp_core::{Als, Init, Solver, best_of};
/// use ndarray::Array;
///
/// let x = Array::from_shape_fn((4, 3, 5), |(i, j, k)| (i * j) as f64 - (j * k) as f64 + (i + k) as f64).into_dyn();
/// let als = |seed| -> Box<dyn Solver<f64>> { Box::new(Als::new(2).init(Init::Random { seed })) };
/// let found = best_of(x.view(), &[als(1), als(2), als(3)], &mut |_| std::ops::ControlFlow::Continue(()))?;
/// assert!(found.rel_error <= als(1).decompose(x.view())?.rel_error);
/// # Ok::<(), cp_core::CpError>(())
/// ```
pub fn best_of<T: Real>(
    tensor: ArrayViewD<'_, T>,
    solvers: &[Box<dyn Solver<T>>],
    observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Decomposition<T>, CpError> {
    let watch = Stopwatch::start();
    let together = if tensor.len() <= SIDE_BY_SIDE { threads() } else { 1 };
    let mut best: Option<Decomposition<T>> = None;
    let mut failed = None;
    let mut done = 0;
    'search: for group in solvers.chunks(together) {
        let found: Vec<_> = if group.len() > 1 {
            each_on_one(group, |solver| solver.decompose(tensor.view()))
        } else {
            group.iter().map(|solver| solver.decompose(tensor.view())).collect()
        };
        for found in found {
            match found {
                Ok(found) if best.as_ref().is_none_or(|best| found.rel_error < best.rel_error) => {
                    best = Some(found);
                }
                Ok(_) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
            done += 1;
            let Some(best) = &mut best else { continue };
            if observe(&Progress { iteration: done, rel_error: best.rel_error }).is_break() {
                best.stop = StopReason::Observer;
                break 'search;
            }
        }
    }
    let mut best = best.ok_or_else(|| failed.unwrap_or(CpError::NoSolver))?;
    best.seconds = watch.seconds();
    Ok(best)
}

/// What makes the solver of a start from its number, 0, 1, …
type Factory<T> = Box<dyn Fn(u64) -> Box<dyn Solver<T>> + Send + Sync>;

/// One solver from several starts, the best kept: [`best_of`] as a [`Solver`].
///
/// # Cost
/// That of all its starts; small tensors share the threads between them.
///
/// ```
/// use cp_core::{Als, Init, Restarts, Solver};
/// use ndarray::Array;
///
/// let x = Array::from_shape_fn((4, 3, 5), |(i, j, k)| ((i * j + k * k) as f64).sin()).into_dyn();
/// let five = Restarts::new(5, |start| Box::new(Als::new(3).init(Init::Random { seed: start })));
/// let one = Als::new(3).init(Init::Random { seed: 0 });
/// assert!(five.decompose(x.view())?.rel_error <= one.decompose(x.view())?.rel_error);
/// # Ok::<(), cp_core::CpError>(())
/// ```
#[must_use]
pub struct Restarts<T: Real> {
    starts: u64,
    solver: Factory<T>,
}

impl<T: Real> std::fmt::Debug for Restarts<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Restarts").field("starts", &self.starts).finish_non_exhaustive()
    }
}

impl<T: Real> Restarts<T> {
    /// `starts` runs of the solvers that `solver` makes from the numbers 0, 1, …, to be used as seeds.
    pub fn new(
        starts: u64,
        solver: impl Fn(u64) -> Box<dyn Solver<T>> + Send + Sync + 'static,
    ) -> Self {
        Self { starts, solver: Box::new(solver) }
    }
}

impl<T: Real> Solver<T> for Restarts<T> {
    fn name(&self) -> &'static str {
        "restarts"
    }

    /// # Errors
    /// As [`best_of`].
    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        let solvers: Vec<_> = (0..self.starts).map(&self.solver).collect();
        best_of(tensor, &solvers, observe)
    }
}
