//! What stands in the place of `torch.rs` in a program that was built without libtorch.

use cp_net::Network;

use super::{Engine, Inputs, Ready, Subject, needs_libtorch};
use crate::device::Device;
use crate::error::TrainError;
use crate::timing::{Timing, TimingOptions};

pub(super) fn ready(_: &Network, _: &Inputs, _: Device) -> Result<Box<dyn Ready>, TrainError> {
    Err(needs_libtorch())
}

/// What stands in for ONNX Runtime, and what is to be said of it.
pub(super) fn in_place_of_onnxruntime() -> (Engine, &'static str) {
    (Engine::Infer, "times are of cp-infer alone, without ONNX Runtime beside it")
}

/// Times single layers of a network.
pub(crate) struct LayerTimer {
    engine: Engine,
}

impl LayerTimer {
    pub(crate) fn new(engine: Engine, _: &Network) -> Result<Self, TrainError> {
        match engine {
            Engine::Torch(_) => Err(needs_libtorch()),
            engine => Ok(Self { engine }),
        }
    }

    /// Seconds of each network, a layer on inputs of shape `[batch, input…]`, in turn.
    pub(crate) fn time(
        &self,
        networks: &[Network],
        input: &[usize],
        batch: usize,
        options: &TimingOptions,
    ) -> Result<Vec<Timing>, TrainError> {
        let subjects: Vec<Subject<'_>> = networks.iter().map(Subject::Network).collect();
        self.engine.latency(&subjects, &Inputs::one(input, batch), options)
    }
}
