//! VGG-16 without batch normalization.
//!
//! References: Simonyan & Zisserman (2015), table 1, column D; names as in torchvision.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

/// 138,357,544 parameters.
pub(super) fn vgg16(settings: &mut Settings) -> Result<Architecture, NetError> {
    let mut net = Builder::new("vgg16", InputSpec::imagenet(224));
    let mut index = 0;
    for (channels, convolutions) in [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)] {
        for _ in 0..convolutions {
            net = net.conv(&format!("features.{index}"), channels, window(3).pad(1));
            net = net.relu(&format!("features.{}", index + 1));
            index += 2;
        }
        net = net.max_pool(&format!("features.{index}"), window(2).stride(2));
        index += 1;
    }
    net.adaptive_avg_pool("avgpool", 7)
        .flatten("flatten")
        .linear("classifier.0", 4096)
        .relu("classifier.1")
        .dropout("classifier.2", 0.5)
        .linear("classifier.3", 4096)
        .relu("classifier.4")
        .dropout("classifier.5", 0.5)
        .linear("classifier.6", settings.classes(1000)?)
        .build()
}
