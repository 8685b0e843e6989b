//! StasGT's two networks for CIFAR-100, whose layers share batch norms.
//!
//! Reference: the notebooks of StasGT/Decomposition; names as there. The logits pass through a ReLU, as in the source.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;
use crate::op::{BatchNorm, Transpose};

/// 217,255 parameters.
pub(super) fn simple(settings: &mut Settings) -> Result<Architecture, NetError> {
    let net = trunk("stasgt-simple").shared("bn2n.conv3", BatchNorm::new(0), "bn2n").relu("relu3");
    head(net, settings)
}

/// 282,925 parameters: beside the map, a convolution over the whole height of it and one over the whole width, each of which takes rows
/// (or columns) for channels.
pub(super) fn advanced(settings: &mut Settings) -> Result<Architecture, NetError> {
    let net = trunk("stasgt-advanced");
    let map = net.here();
    let rows = || Transpose { axes: vec![1, 0, 2] };
    let columns = || Transpose { axes: vec![2, 1, 0] };
    let net = net
        .op("rows", rows())
        .conv("conv3D2", SIZE, window([32, 1]))
        .op("over_rows", rows())
        .at(&map)
        .op("columns", columns())
        .conv("conv3D1", SIZE, window([1, 32]))
        .op("over_columns", columns())
        .concat("all", &[map, "over_rows".into(), "over_columns".into()])
        .batch_norm("bn7")
        .relu("relu7");
    head(net, settings)
}

/// Height and width of the images.
const SIZE: usize = 32;

/// Up to the third convolution, the first two of which share a batch norm.
fn trunk(name: &str) -> Builder {
    let half = vec![0.5; 3];
    let input = InputSpec { mean: half.clone(), std: half, ..InputSpec::imagenet(SIZE) };
    Builder::new(name, input)
        .conv("conv1", 96, window(3).pad(1))
        .batch_norm("bn")
        .relu("relu1")
        .conv("conv2", 96, window(3).pad(1))
        .shared("bn.conv2", BatchNorm::new(0), "bn")
        .relu("relu2")
        .conv("conv2n", 32, window(1))
        .batch_norm("bn2n")
        .relu("relu2n")
        .conv("conv3", 32, window(5).pad(2))
}

fn head(net: Builder, settings: &mut Settings) -> Result<Architecture, NetError> {
    net.conv("conv4", 1, window(1))
        .batch_norm("bn4")
        .relu("relu4")
        .flatten("flat")
        .linear("fc1", settings.classes(100)?)
        .relu("logits")
        .build()
}
