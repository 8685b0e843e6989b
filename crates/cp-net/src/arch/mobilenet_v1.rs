//! MobileNet-v1: thirteen depthwise separable convolutions.
//!
//! Reference: Howard et al. (2017), table 1, with the width multiplier α and the resolution multiplier (the resolution itself here).
//! Names are of our own.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

/// Channels and stride of each block.
const BLOCKS: [(usize, usize); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

/// 4,231,976 parameters and 568,740,352 multiply-adds at width 1 and 224×224. With `between=false` nothing stands between the depthwise
/// and the pointwise convolution, as in Xception (Chollet, 2017); else a batch norm and a ReLU.
pub(super) fn mobilenet_v1(settings: &mut Settings) -> Result<Architecture, NetError> {
    let width = settings.real("width", 1.0, 0.05..=8.0)?;
    let resolution = settings.count("resolution", 224, 1)?;
    let between = settings.take("between", true)?;
    let classes = settings.classes(1000)?;
    // Never fewer than 8, as in the authors' code.
    let channels = |of: usize| ((of as f64 * width).round() as usize).max(8);
    let mut net = Builder::new("mobilenet-v1", InputSpec::imagenet(resolution))
        .conv("conv1", channels(32), window(3).stride(2).pad(1).no_bias())
        .batch_norm("bn1")
        .relu("relu1");
    for (index, (out, stride)) in BLOCKS.into_iter().enumerate() {
        let name = format!("block{}", index + 1);
        net = separable(net, &name, channels(out), stride, between);
    }
    net.global_avg_pool("avgpool").flatten("flatten").linear("fc", classes).build()
}

/// 3×3 depthwise, then 1×1 to `out` channels.
fn separable(net: Builder, name: &str, out: usize, stride: usize, between: bool) -> Builder {
    let of = |part: &str| format!("{name}.{part}");
    let mut net = net.depthwise(&of("depthwise"), window(3).stride(stride).pad(1).no_bias());
    if between {
        net = net.batch_norm(&of("bn1")).relu(&of("relu1"));
    }
    net.conv(&of("pointwise"), out, window(1).no_bias()).batch_norm(&of("bn2")).relu(&of("relu2"))
}
