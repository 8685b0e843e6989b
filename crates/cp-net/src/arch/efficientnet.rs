//! EfficientNet-B0 for 224×224 images.
//!
//! Reference: Tan & Le (2019), table 1; names as in torchvision. Stochastic depth, which only training has, is left out.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

/// Expansion, kernel size, stride, channels and blocks of each stage.
const STAGES: [[usize; 5]; 7] = [
    [1, 3, 1, 16, 1],
    [6, 3, 2, 24, 2],
    [6, 5, 2, 40, 2],
    [6, 3, 2, 80, 3],
    [6, 5, 1, 112, 3],
    [6, 5, 2, 192, 4],
    [6, 3, 1, 320, 1],
];

/// 5,288,548 parameters.
pub(super) fn b0(settings: &mut Settings) -> Result<Architecture, NetError> {
    let classes = settings.classes(1000)?;
    let mut net = Builder::new("efficientnet-b0", InputSpec::imagenet(224));
    net = conv_norm_silu(net, "features.0", 32, 3, 2);
    for (stage, [expansion, size, stride, out, blocks]) in STAGES.into_iter().enumerate() {
        for block in 0..blocks {
            let stride = if block == 0 { stride } else { 1 };
            let name = format!("features.{}.{block}", stage + 1);
            net = mobile_block(net, &name, expansion, size, stride, out);
        }
    }
    conv_norm_silu(net, "features.8", 1280, 1, 1)
        .global_avg_pool("avgpool")
        .flatten("flatten")
        .dropout("classifier.0", 0.2)
        .linear("classifier.1", classes)
        .build()
}

fn conv_norm_silu(net: Builder, name: &str, out: usize, size: usize, stride: usize) -> Builder {
    net.conv(&format!("{name}.0"), out, window(size).stride(stride).pad(size / 2).no_bias())
        .batch_norm(&format!("{name}.1"))
        .silu(&format!("{name}.2"))
}

/// 1×1 to `expansion` times as many channels, depthwise, a gate for every channel, 1×1 to `out` without a non-linearity.
fn mobile_block(
    net: Builder,
    name: &str,
    expansion: usize,
    size: usize,
    stride: usize,
    out: usize,
) -> Builder {
    let (from, entry) = (net.here(), net.channels());
    let of = |part: usize, inner: &str| format!("{name}.block.{part}{inner}");
    let (mut net, mut part) = (net, 0);
    if expansion > 1 {
        net = conv_norm_silu(net, &of(0, ""), entry * expansion, 1, 1);
        part = 1;
    }
    net = net
        .depthwise(&of(part, ".0"), window(size).stride(stride).pad(size / 2).no_bias())
        .batch_norm(&of(part, ".1"))
        .silu(&of(part, ".2"));
    // Squeeze and excitation (Hu, Shen & Sun 2018): from the mean of every channel.
    let (map, channels) = (net.here(), net.channels());
    net = net
        .global_avg_pool(&of(part + 1, ".avgpool"))
        .conv(&of(part + 1, ".fc1"), (entry / 4).max(1), window(1))
        .silu(&of(part + 1, ".activation"))
        .conv(&of(part + 1, ".fc2"), channels, window(1))
        .sigmoid(&of(part + 1, ".scale_activation"))
        .mul(&of(part + 1, ".scale"), &map);
    net = net.conv(&of(part + 2, ".0"), out, window(1).no_bias()).batch_norm(&of(part + 2, ".1"));
    if stride == 1 && entry == out { net.add(&format!("{name}.add"), &from) } else { net }
}
