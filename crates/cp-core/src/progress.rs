//! What iterations have in common: [`Progress`], [`StopReason`], and the loop itself.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use crate::error::CpError;

/// Where a solver is, after one iteration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Progress {
    /// Iterations done, from 1.
    pub iteration: usize,
    /// Relative error ‖X − X̂‖ / ‖X‖ of the current model.
    pub rel_error: f64,
}

/// Why a solver stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StopReason {
    /// The fit changed by less than the tolerance, or there was nothing to do (a tensor of zeros).
    Converged,
    /// The number of iterations allowed was used up.
    MaxIters,
    /// The observer said so.
    Observer,
    /// No step makes the model any better, although its last changes were not below the tolerance: rounding has eaten what is
    /// left to gain. The model is as good as this solver makes it.
    Stalled,
    /// The arithmetic broke down: numbers left the range, or a system had no solution. The model is the last one before, which
    /// may be no good.
    Breakdown,
}

impl StopReason {
    /// `converged`, `max-iters`, `observer`, `stalled` or `breakdown`.
    pub fn name(self) -> &'static str {
        match self {
            StopReason::Converged => "converged",
            StopReason::MaxIters => "max-iters",
            StopReason::Observer => "observer",
            StopReason::Stalled => "stalled",
            StopReason::Breakdown => "breakdown",
        }
    }
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What a sweep came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Swept {
    /// Relative error of the model that there is after it.
    pub(crate) rel_error: f64,
    /// Whether its model is the one of this sweep. One that was undone says nothing about convergence.
    pub(crate) kept: bool,
}

impl From<f64> for Swept {
    /// A sweep that was kept.
    fn from(rel_error: f64) -> Self {
        Self { rel_error, kept: true }
    }
}

/// Runs `sweep`, which takes the iteration from 1, until the fit changes by less than `tol`, the observer says stop, the error
/// is no number any more, or `max_iters` sweeps are done.
pub(crate) fn iterate(
    max_iters: usize,
    tol: f64,
    observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    sweep: &mut dyn FnMut(usize) -> Result<Swept, CpError>,
) -> Result<(Vec<f64>, StopReason), CpError> {
    let mut trace: Vec<f64> = Vec::new();
    for iteration in 1..=max_iters {
        let Swept { rel_error, kept } = sweep(iteration)?;
        let before = trace.last().copied().filter(|_| kept);
        trace.push(rel_error);
        if observe(&Progress { iteration, rel_error }).is_break() {
            return Ok((trace, StopReason::Observer));
        }
        if rel_error.is_nan() {
            return Ok((trace, StopReason::Breakdown));
        }
        if before.is_some_and(|before| (before - rel_error).abs() < tol) {
            return Ok((trace, StopReason::Converged));
        }
    }
    Ok((trace, StopReason::MaxIters))
}
