//! A small network for 28×28 grey images: two convolutions and two linear layers, 421,642 parameters.
//!
//! Names and sizes of the Fashion-MNIST weights of `pavan24sai/hw-accel-cnns`.

use super::{Builder, window};
use crate::error::NetError;
use crate::network::{Architecture, InputSpec};

pub(super) fn small_cnn() -> Result<Architecture, NetError> {
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
        .linear("fc2", 10)
        .build()
}
