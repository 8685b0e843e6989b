//! The CIFAR ResNets of depth 6n + 2 with parameter-free shortcuts (option A).
//!
//! References: He, Zhang, Ren & Sun (2016), §4.2; names as in `akamaster/pytorch_resnet_cifar10`.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;
use crate::op::{Pad, Slice};

/// Of any depth 6n + 2: `resnet-cifar(depth=110)`.
pub(super) fn resnet_cifar(settings: &mut Settings) -> Result<Architecture, NetError> {
    let depth = settings.count("depth", 20, 8)?;
    if depth % 6 != 2 || depth > 1202 {
        return Err(settings
            .error(format!("depth is {depth}, expected 6n + 2, such as 20, 32, 44, 56 or 110")));
    }
    resnet(settings, depth)
}

/// Three stages of (depth − 2) / 6 basic blocks with 16, 32 and 64 channels.
pub(super) fn resnet(settings: &mut Settings, depth: usize) -> Result<Architecture, NetError> {
    let mut net = Builder::new("resnet-cifar", InputSpec::imagenet(32))
        .conv("conv1", 16, window(3).pad(1).no_bias())
        .batch_norm("bn1")
        .relu("relu");
    for (stage, channels) in [(1, 16), (2, 32), (3, 64)] {
        for block in 0..(depth - 2) / 6 {
            let stride = if stage > 1 && block == 0 { 2 } else { 1 };
            net = basic_block(net, &format!("layer{stage}.{block}"), channels, stride);
        }
    }
    // The source pools over the whole 8×8 map; written this way, other input sizes work too.
    net.global_avg_pool("avg_pool")
        .flatten("flatten")
        .linear("linear", settings.classes(10)?)
        .build()
}

fn basic_block(net: Builder, name: &str, channels: usize, stride: usize) -> Builder {
    let of = |part: &str| format!("{name}.{part}");
    let (from, entry) = (net.here(), net.channels());
    let net = net
        .conv(&of("conv1"), channels, window(3).stride(stride).pad(1).no_bias())
        .batch_norm(&of("bn1"))
        .relu(&of("relu1"))
        .conv(&of("conv2"), channels, window(3).pad(1).no_bias())
        .batch_norm(&of("bn2"));
    if stride == 1 && entry == channels {
        return net.add(&of("add"), &from).relu(&of("relu2"));
    }
    let body = net.here();
    // Every other row and column, and a quarter of the output channels as zeros on each side of the input's.
    let every = |axis| Slice { axis, start: 0, end: None, step: stride };
    let zeros = Pad::zeros(vec![channels / 4, 0, 0], vec![channels / 4, 0, 0]);
    net.at(&from)
        .op(&of("shortcut.rows"), every(1))
        .op(&of("shortcut.columns"), every(2))
        .op(&of("shortcut"), zeros)
        .at(&body)
        .add(&of("add"), &of("shortcut"))
        .relu(&of("relu2"))
}
