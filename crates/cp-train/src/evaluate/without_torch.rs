//! What stands in the place of `torch.rs` in a program that was built without libtorch.

use std::sync::Arc;

use cp_data::Dataset;
use cp_net::Network;
use ndarray::Array2;

use super::{EvalOptions, Evaluation};
use crate::device::Device;
use crate::engine::needs_libtorch;
use crate::error::TrainError;

pub(super) fn evaluate(
    _: &Network,
    _: Device,
    _: &Arc<dyn Dataset>,
    _: &EvalOptions,
) -> Result<Evaluation, TrainError> {
    Err(needs_libtorch())
}

pub(super) fn logits(
    _: &Network,
    _: Device,
    _: &Arc<dyn Dataset>,
    _: &EvalOptions,
) -> Result<Array2<f32>, TrainError> {
    Err(needs_libtorch())
}
