//! CharNet: four convolutions with maxout on 24×24 grey patches, 36 classes (A–Z, 0–9).
//!
//! Reference: Jaderberg, Vedaldi & Zisserman (2014), as decomposed by Lebedev et al. (2015), §4.1. The sizes of the
//! layers are recalled, not read in either paper; maps go 24 → 16 → 8 → 1, with no padding and no pooling.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::{Channels, INPUT, InputSpec};

pub(super) fn charnet(settings: &mut Settings) -> Result<Architecture, NetError> {
    // Patches centred around mid grey, in −1…1.
    let input = InputSpec {
        name: INPUT.into(),
        shape: vec![1, 24, 24],
        channels: Channels::Gray,
        scale: 1.0 / 255.0,
        mean: vec![0.5],
        std: vec![0.5],
    };
    Builder::new("charnet", input)
        .conv("conv1", 96, window(9))
        .maxout("maxout1", 2)
        .conv("conv2", 128, window(9))
        .maxout("maxout2", 2)
        .conv("conv3", 512, window(8))
        .maxout("maxout3", 4)
        .conv("conv4", 4 * settings.classes(36)?, window(1))
        .maxout("maxout4", 4)
        .flatten("flatten")
        .build()
}
