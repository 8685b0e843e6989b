//! Evaluation of a network that is in libtorch already, such as one in training.

use std::sync::Arc;

use cp_data::Dataset;
use cp_torch::Executor;

use super::{EvalOptions, Evaluation, evaluate_with};
use crate::engine::Running;
use crate::error::TrainError;

/// Evaluates `model` on all of `data`, as [`evaluate_in`](crate::evaluate_in) does.
///
/// # Errors
/// As [`evaluate_in`](crate::evaluate_in).
pub fn evaluate(
    model: &Executor,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
) -> Result<Evaluation, TrainError> {
    let (arch, device) = (model.architecture(), model.device().into());
    evaluate_with(arch, device, data, options, |taps| Ok(Running { model, taps: taps.to_vec() }))
}
