//! What stands in the place of `torch.rs` in a program that was built without libtorch.

use cp_net::Network;

use super::{Engine, Forward, Inputs, Ready};
use crate::device::Device;
use crate::error::TrainError;
use crate::libtorch::{ENGINE, refused};

pub(super) fn ready(_: &Network, _: &Inputs, _: Device) -> Result<Box<dyn Ready>, TrainError> {
    Err(refused(ENGINE))
}

/// What stands in for ONNX Runtime, and what is to be said of it.
pub(super) fn in_place_of_onnxruntime() -> (Engine, &'static str) {
    (Engine::Infer, "times are of cp-infer alone, without ONNX Runtime beside it")
}

pub(super) fn classifier(
    _: &Network,
    _: &[String],
    _: Device,
) -> Result<Box<dyn Forward>, TrainError> {
    Err(refused(ENGINE))
}
