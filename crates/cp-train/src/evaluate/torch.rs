//! Networks in libtorch, by the functions for executors.

use std::sync::Arc;

use cp_data::Dataset;
use cp_net::Network;
use cp_torch::{Executor, array_from_tensor};
use ndarray::{Array2, Ix2};

use super::{EvalOptions, Evaluation, executor};
use crate::device::Device;
use crate::error::TrainError;

pub(super) fn evaluate(
    folded: &Network,
    device: Device,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
) -> Result<Evaluation, TrainError> {
    executor::evaluate(&Executor::new(folded, device.into())?, data, options)
}

pub(super) fn logits(
    folded: &Network,
    device: Device,
    data: &Arc<dyn Dataset>,
    options: &EvalOptions,
) -> Result<Array2<f32>, TrainError> {
    let found = executor::logits(&Executor::new(folded, device.into())?, data, options)?;
    Ok(array_from_tensor(&found)?.into_dimensionality::<Ix2>().unwrap_or_default())
}
