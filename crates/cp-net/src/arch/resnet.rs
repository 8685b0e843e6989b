//! The ResNets of depth 18 to 152 for 224×224 images.
//!
//! References: He, Zhang, Ren & Sun (2016), table 1; names as in torchvision, whose bottlenecks stride at the 3×3 convolution.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

/// How often each of the four stages repeats its block, and whether that is a bottleneck.
fn stages(depth: usize) -> ([usize; 4], bool) {
    match depth {
        18 => ([2, 2, 2, 2], false),
        34 => ([3, 4, 6, 3], false),
        50 => ([3, 4, 6, 3], true),
        101 => ([3, 4, 23, 3], true),
        _ => ([3, 8, 36, 3], true),
    }
}

/// 11,689,512 parameters at depth 18 (11,176,512 of them in front of `fc`), 25,557,032 at depth 50.
pub(super) fn resnet(settings: &mut Settings, depth: usize) -> Result<Architecture, NetError> {
    let mut net = Builder::new("resnet", InputSpec::imagenet(224))
        .conv("conv1", 64, window(7).stride(2).pad(3).no_bias())
        .batch_norm("bn1")
        .relu("relu")
        .max_pool("maxpool", window(3).stride(2).pad(1));
    let (blocks, bottleneck) = stages(depth);
    for (stage, (blocks, channels)) in blocks.into_iter().zip([64, 128, 256, 512]).enumerate() {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("layer{}.{block}", stage + 1);
            net = if bottleneck {
                bottleneck_block(net, &name, channels, stride)
            } else {
                basic_block(net, &name, channels, stride)
            };
        }
    }
    net.global_avg_pool("avgpool").flatten("flatten").linear("fc", settings.classes(1000)?).build()
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
    shortcut(net, name, &from, entry, stride, "relu2")
}

/// 1×1 to `channels`, 3×3, 1×1 to four times as many.
fn bottleneck_block(net: Builder, name: &str, channels: usize, stride: usize) -> Builder {
    let of = |part: &str| format!("{name}.{part}");
    let (from, entry) = (net.here(), net.channels());
    let net = net
        .conv(&of("conv1"), channels, window(1).no_bias())
        .batch_norm(&of("bn1"))
        .relu(&of("relu1"))
        .conv(&of("conv2"), channels, window(3).stride(stride).pad(1).no_bias())
        .batch_norm(&of("bn2"))
        .relu(&of("relu2"))
        .conv(&of("conv3"), 4 * channels, window(1).no_bias())
        .batch_norm(&of("bn3"));
    shortcut(net, name, &from, entry, stride, "relu3")
}

/// Adds the block's input, through a 1×1 convolution where the shapes differ.
fn shortcut(
    net: Builder,
    name: &str,
    from: &str,
    entry: usize,
    stride: usize,
    relu: &str,
) -> Builder {
    let of = |part: &str| format!("{name}.{part}");
    let (body, channels) = (net.here(), net.channels());
    if stride == 1 && entry == channels {
        return net.add(&of("add"), from).relu(&of(relu));
    }
    net.at(from)
        .conv(&of("downsample.0"), channels, window(1).stride(stride).no_bias())
        .batch_norm(&of("downsample.1"))
        .at(&body)
        .add(&of("add"), &of("downsample.1"))
        .relu(&of(relu))
}
