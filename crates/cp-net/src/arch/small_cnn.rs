//! A small network for 28×28 grey images: two convolutions and two linear layers, 421,642 parameters.
//!
//! Names and sizes of the Fashion-MNIST weights of `pavan24sai/hw-accel-cnns`.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

pub(super) fn small_cnn(settings: &mut Settings) -> Result<Architecture, NetError> {
    Builder::new("small-cnn", InputSpec::gray(28))
        .conv("conv1", 32, window(3).pad(1))
        .relu("relu1")
        .max_pool("pool1", window(2).stride(2))
        .conv("conv2", 64, window(3).pad(1))
        .relu("relu2")
        .max_pool("pool2", window(2).stride(2))
        .flatten("flatten")
        .linear("fc1", 128)
        .relu("relu3")
        .linear("fc2", settings.classes(10)?)
        .build()
}
