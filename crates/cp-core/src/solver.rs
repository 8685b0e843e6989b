//! What all solvers share: [`Solver`], [`Progress`], [`Decomposition`], [`StopReason`], and the checks and scaling of
//! tensors (`Problem`).

mod als;
mod als_qr;
mod auto;
mod conjugate_gradients;
mod data_aware;
mod epc;
mod nls;
mod nonneg;
mod normal;
mod path;
mod power;
mod restarts;
mod sampled;
mod tkd_cpd;

use std::ops::{ControlFlow, Deref};
use std::time::Instant;

use ndarray::{Array1, ArrayView2, ArrayViewD};
use serde::{Deserialize, Serialize};

use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::measure::{self, Scaled};
use crate::real::Real;
use crate::scale::Scale;
use crate::tree::Dense;

pub use als::Als;
pub use als_qr::AlsQr;
pub use auto::Auto;
pub use data_aware::{DataAwareAls, DataAwareTucker2, WeightedTucker2, weighted_rel_error};
pub use epc::{Delta, Epc};
pub use nls::Nls;
pub use nonneg::NonNegAls;
pub use path::{extend, rank_path, resize};
pub use power::PowerMethod;
pub use restarts::{Restarts, best_of};
pub use sampled::SampledAls;
pub use tkd_cpd::{TkdCpd, TkdCpdDecomposition};

/// An algorithm that finds a CP model of a tensor. Object-safe: take `&dyn Solver<f32>`.
///
/// Solvers hold their options, not their state: one can be used for many tensors and from many threads.
pub trait Solver<T: Real>: Send + Sync {
    /// Decomposes `tensor` and calls `observe` after each iteration; [`ControlFlow::Break`] stops with the model found so
    /// far ([`StopReason::Observer`]).
    ///
    /// # Shapes
    /// `tensor`: `[I₀, …, I_N₋₁]` with N ≥ 2, any memory layout (copied where it is not row-major).
    ///
    /// # Errors
    /// Entries or options that no model can be found for: see [`CpError`]. Not converging is no error.
    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError>;

    /// Decomposes `tensor`.
    ///
    /// # Errors
    /// As [`Solver::decompose_with`].
    fn decompose(&self, tensor: ArrayViewD<'_, T>) -> Result<Decomposition<T>, CpError> {
        self.decompose_with(tensor, &mut |_| ControlFlow::Continue(()))
    }

    /// The method's name as on the command line: `als`, …
    fn name(&self) -> &'static str;
}

impl<T: Real, S: Solver<T> + ?Sized> Solver<T> for Box<S> {
    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        (**self).decompose_with(tensor, observe)
    }

    fn name(&self) -> &'static str {
        (**self).name()
    }
}

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

/// A model and how it came about.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Decomposition<T = f64> {
    /// The model: columns of norm 1, λ ≥ 0.
    pub cp: CpTensor<T>,
    /// Relative error ‖X − X̂‖ / ‖X‖ of `cp` as it is returned, from the entries; 0 for a tensor of zeros.
    pub rel_error: f64,
    /// Σᵣ (norm of term r)² / ‖X‖²; above about 10 the terms cancel each other.
    pub component_energy: f64,
    /// Largest |cos| of the angle between two terms.
    pub degeneracy: f64,
    /// Expected ‖change of X̂‖² / ‖X‖² per unit variance of independent noise on the entries of the balanced factors
    /// ([`measure::sensitivity`]).
    pub sensitivity: f64,
    /// Relative error after each iteration, as the observer saw it.
    pub trace: Vec<f64>,
    /// Why the solver stopped.
    pub stop: StopReason,
    /// Wall-clock time of the call, measures included, in seconds.
    pub seconds: f64,
}

impl<T: Real> Decomposition<T> {
    /// Measures `cp` against the tensor it is a model of: one matrix product of 2 R ∏ Iₙ operations. `seconds` is the time
    /// that the model took.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn new(
        tensor: ArrayViewD<'_, T>,
        cp: CpTensor<T>,
        trace: Vec<f64>,
        stop: StopReason,
        seconds: f64,
    ) -> Self {
        assert!(
            tensor.shape() == cp.shape(),
            "a model of shape {:?} for a tensor of {:?}",
            cp.shape(),
            tensor.shape()
        );
        Self::of(&Scaled::new(Dense::new(&tensor)), cp, trace, stop, seconds)
    }

    /// [`Decomposition::new`] for a tensor whose norm is known.
    fn of(
        scaled: &Scaled<'_, T>,
        cp: CpTensor<T>,
        trace: Vec<f64>,
        stop: StopReason,
        seconds: f64,
    ) -> Self {
        let rel_error = scaled.rel_error(&cp);
        let norm = Scale::new(scaled.exponent).of(scaled.norm);
        let component_energy = measure::component_energy(&cp, norm);
        let degeneracy = measure::degeneracy(&cp);
        let mut balanced = cp.cast::<f64>();
        balanced.balance();
        let sensitivity = measure::ratio(measure::sensitivity(&balanced), norm * norm);
        Self { cp, rel_error, component_energy, degeneracy, sensitivity, trace, stop, seconds }
    }

    /// Iterations done.
    pub fn iterations(&self) -> usize {
        self.trace.len()
    }

    /// 1 − `rel_error`.
    pub fn fit(&self) -> f64 {
        1.0 - self.rel_error
    }
}

/// A tensor that passed the checks that all solvers make.
pub(crate) struct Problem<'a, T: Real> {
    scaled: Scaled<'a, T>,
    started: Stopwatch,
}

/// The scaled tensor, its norm and exponent.
impl<'a, T: Real> Deref for Problem<'a, T> {
    type Target = Scaled<'a, T>;

    fn deref(&self) -> &Scaled<'a, T> {
        &self.scaled
    }
}

/// The crate's one look at the clock, for [`Decomposition::seconds`]; no result depends on it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the one place in this crate")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

impl<'a, T: Real> Problem<'a, T> {
    /// Checks tensor and rank.
    pub(crate) fn new(tensor: &'a ArrayViewD<'_, T>, rank: usize) -> Result<Self, CpError> {
        let started = Stopwatch::start();
        let shape = tensor.shape().to_vec();
        if shape.len() < 2 {
            return Err(CpError::Order { order: shape.len() });
        }
        if let Some(mode) = shape.iter().position(|&size| size == 0) {
            return Err(CpError::EmptyMode { mode, shape });
        }
        if rank == 0 {
            return Err(CpError::RankZero);
        }
        let scaled = Scaled::new(Dense::new(tensor));
        // Squares of NaN are NaN, and those of infinities infinite, but those of large numbers may be too.
        if !(scaled.norm.is_finite() && scaled.largest.is_finite())
            && let Some((at, x)) = tensor.iter().enumerate().find(|(_, x)| !x.is_finite())
        {
            let (what, index, value) = ("tensor", index_of(at, &shape), x.widen());
            return Err(CpError::NotFinite { what, index, value });
        }
        reserve(&shape, rank)?;
        Ok(Self { scaled, started })
    }

    /// The model of X for a model of 2⁻ᵏ X with normalised factors.
    ///
    /// # Shapes
    /// `factors[n]`: `[Iₙ, R]`, row-major; `weights`: `[R]`.
    pub(crate) fn model(
        &self,
        factors: Vec<Vec<T>>,
        weights: &[f64],
    ) -> Result<CpTensor<T>, CpError> {
        let rank = weights.len();
        let up = Scale::new(self.exponent);
        let weights: Array1<T> = weights.iter().map(|&w| T::narrow(up.of(w))).collect();
        if weights.iter().any(|w| !w.is_finite()) {
            return Err(CpError::Range { largest: self.largest });
        }
        let factors = factors.iter().zip(&self.tensor.shape).map(|(data, &size)| {
            ArrayView2::from_shape((size, rank), data).expect("one row for each index").to_owned()
        });
        Ok(CpTensor { weights, factors: factors.collect() })
    }

    /// The result of a solver that ends with this model of 2⁻ᵏ X.
    ///
    /// # Shapes
    /// As [`Problem::model`].
    pub(crate) fn finish(
        &self,
        factors: Vec<Vec<T>>,
        weights: &[f64],
        trace: Vec<f64>,
        stop: StopReason,
    ) -> Result<Decomposition<T>, CpError> {
        let cp = self.model(factors, weights)?;
        let mut found = Decomposition::of(&self.scaled, cp, trace, stop, 0.0);
        found.seconds = self.started.seconds();
        Ok(found)
    }
}

/// The check of an option that has to be a finite number, at least 0; one that is not set passes.
pub(crate) fn check_option(
    option: &'static str,
    value: impl Into<Option<f64>>,
) -> Result<(), CpError> {
    let expected = "a finite number, at least 0";
    match value.into().filter(|value| !(value.is_finite() && *value >= 0.0)) {
        Some(value) => Err(CpError::InvalidOption { option, value, expected }),
        None => Ok(()),
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

/// Index of the entry at a place in row-major order.
fn index_of(mut place: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, &size) in index.iter_mut().zip(shape).rev() {
        *i = place % size;
        place /= size;
    }
    index
}

/// Finds out whether the work space can be had, so that an absurd rank is an error and not an abort.
fn reserve(shape: &[usize], rank: usize) -> Result<(), CpError> {
    let split = crate::tree::split(shape);
    let group = |modes: &[usize]| modes.iter().product::<usize>() as u128;
    // A Gram per mode and two more of the size, two partial products and a Khatri–Rao product, factors and their copies.
    let grams = (shape.len() as u128 + 2).saturating_mul(rank as u128);
    let rows = grams.saturating_add(4 * (group(&shape[..split]) + group(&shape[split..])));
    let bytes = rows.saturating_mul(rank as u128).saturating_mul(size_of::<f64>() as u128);
    let refused = || CpError::OutOfMemory { rank, shape: shape.to_vec(), bytes };
    let len = usize::try_from(bytes).map_err(|_| refused())?;
    Vec::<u8>::new().try_reserve_exact(len).map_err(|_| refused())
}
