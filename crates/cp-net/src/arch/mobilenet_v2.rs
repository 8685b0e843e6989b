//! MobileNet-v2 for 224×224 images.
//!
//! Reference: Sandler et al. (2018), table 2; names as in torchvision.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

/// Expansion, channels, blocks and stride of each stage.
const STAGES: [[usize; 4]; 7] = [
    [1, 16, 1, 1],
    [6, 24, 2, 2],
    [6, 32, 3, 2],
    [6, 64, 4, 2],
    [6, 96, 3, 1],
    [6, 160, 3, 2],
    [6, 320, 1, 1],
];

/// 3,504,872 parameters at width 1.
pub(super) fn mobilenet_v2(settings: &mut Settings) -> Result<Architecture, NetError> {
    let width = settings.real("width", 1.0, 0.05..=8.0)?;
    let classes = settings.classes(1000)?;
    let channels = |of: usize| eights(of as f64 * width);
    let mut net = Builder::new("mobilenet-v2", InputSpec::imagenet(224));
    net = conv_norm_relu(net, "features.0", channels(32), 3, 2);
    let mut index = 1;
    for [expansion, out, blocks, stride] in STAGES {
        for block in 0..blocks {
            let stride = if block == 0 { stride } else { 1 };
            net = inverted_residual(
                net,
                &format!("features.{index}"),
                expansion,
                channels(out),
                stride,
            );
            index += 1;
        }
    }
    net = conv_norm_relu(net, &format!("features.{index}"), eights(1280.0 * width.max(1.0)), 1, 1);
    net.global_avg_pool("avgpool")
        .flatten("flatten")
        .dropout("classifier.0", 0.2)
        .linear("classifier.1", classes)
        .build()
}

/// The nearest multiple of 8, and no more than a tenth below.
fn eights(channels: f64) -> usize {
    let rounded = (((channels + 4.0) / 8.0) as usize * 8).max(8);
    if (rounded as f64) < 0.9 * channels { rounded + 8 } else { rounded }
}

fn conv_norm_relu(net: Builder, name: &str, out: usize, size: usize, stride: usize) -> Builder {
    net.conv(&format!("{name}.0"), out, window(size).stride(stride).pad(size / 2).no_bias())
        .batch_norm(&format!("{name}.1"))
        .relu6(&format!("{name}.2"))
}

/// 1×1 to `expansion` times as many channels, 3×3 depthwise, 1×1 to `out` without a non-linearity.
fn inverted_residual(
    net: Builder,
    name: &str,
    expansion: usize,
    out: usize,
    stride: usize,
) -> Builder {
    let (from, entry) = (net.here(), net.channels());
    let of = |part: &str| format!("{name}.conv.{part}");
    let (mut net, mut part) = (net, 0);
    if expansion > 1 {
        net = conv_norm_relu(net, &of("0"), entry * expansion, 1, 1);
        part = 1;
    }
    net = net
        .depthwise(&of(&format!("{part}.0")), window(3).stride(stride).pad(1).no_bias())
        .batch_norm(&of(&format!("{part}.1")))
        .relu6(&of(&format!("{part}.2")))
        .conv(&of(&(part + 1).to_string()), out, window(1).no_bias())
        .batch_norm(&of(&(part + 2).to_string()));
    if stride == 1 && entry == out { net.add(&format!("{name}.add"), &from) } else { net }
}
