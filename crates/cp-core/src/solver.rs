//! The solvers of CP models: the trait [`Solver`], and [`Decomposition`], what they return.

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

use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::measure::{self, Scaled};
use crate::problem::Problem;
use crate::progress::{Progress, StopReason};
use crate::real::Real;
use crate::scale::Scale;
use crate::tree::Dense;

pub use als::Als;
pub use als_qr::AlsQr;
pub use auto::Auto;
pub use data_aware::{
    DataAwareAls, DataAwareTucker2, WeightedTucker2, weighted_distance, weighted_rel_error,
};
pub use epc::{Delta, Epc};
pub use nls::Nls;
pub use nonneg::NonNegAls;
pub use path::{extend, rank_path};
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

impl<T: Real> Problem<'_, T> {
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
        let mut found = Decomposition::of(self, cp, trace, stop, 0.0);
        found.seconds = self.started.seconds();
        Ok(found)
    }
}
