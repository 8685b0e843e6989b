//! The U-Net for the segmentation of grey images: no padding, so that a 572×572 image gives a map of 388×388.
//!
//! Reference: Ronneberger, Fischer & Brox (2015), figure 1.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;
use crate::op::Slice;

/// 31,030,658 parameters for 1 → 2 channels, biases included.
pub(super) fn unet(settings: &mut Settings) -> Result<Architecture, NetError> {
    let classes = settings.classes(2)?;
    let mut net = Builder::new("unet", InputSpec::gray(572));
    let mut skips = Vec::new();
    for (level, channels) in [64, 128, 256, 512].into_iter().enumerate() {
        net = two_convs(net, &format!("down{}", level + 1), channels);
        skips.push((net.here(), net.shape().to_vec()));
        net = net.max_pool(&format!("pool{}", level + 1), window(2).stride(2));
    }
    net = two_convs(net, "bottom", 1024);
    for (level, (skip, shape)) in skips.iter().enumerate().rev() {
        let name = format!("up{}", level + 1);
        let of = |part: &str| format!("{name}.{part}");
        net = net.conv_transpose(&of("up"), shape[0], window(2).stride(2));
        let (up, size) = (net.here(), net.shape().to_vec());
        // The middle of the map from the other side, as large as this one.
        net = net.at(skip);
        for (axis, part) in [(1, "rows"), (2, "columns")] {
            let size = size.get(axis).copied().unwrap_or(0);
            let start = shape[axis].saturating_sub(size) / 2;
            let end = Some((start + size) as i64);
            net = net.op(&of(part), Slice { axis, start: start as i64, end, step: 1 });
        }
        let skip = net.here();
        net = two_convs(net.concat(&of("concat"), &[skip, up]), &name, shape[0]);
    }
    net.conv("out", classes, window(1)).build()
}

fn two_convs(net: Builder, name: &str, channels: usize) -> Builder {
    let of = |part: &str| format!("{name}.{part}");
    net.conv(&of("conv1"), channels, window(3))
        .relu(&of("relu1"))
        .conv(&of("conv2"), channels, window(3))
        .relu(&of("relu2"))
}
