//! AlexNet in its two variants, which are not the same network: ranks and parameter counts of one do not carry over; and one for small pictures.
//!
//! References: Krizhevsky, Sutskever & Hinton (2012), with two groups, as in Caffe's `bvlc_alexnet`; Krizhevsky (2014,
//! "One weird trick"), §5 footnote 1, without groups, as in torchvision.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

/// torchvision's AlexNet: 61,100,840 parameters, 714.2 M multiply-adds at 224×224.
pub(super) fn alexnet(settings: &mut Settings) -> Result<Architecture, NetError> {
    Builder::new("alexnet", InputSpec::imagenet(224))
        .conv("features.0", 64, window(11).stride(4).pad(2))
        .relu("features.1")
        .max_pool("features.2", window(3).stride(2))
        .conv("features.3", 192, window(5).pad(2))
        .relu("features.4")
        .max_pool("features.5", window(3).stride(2))
        .conv("features.6", 384, window(3).pad(1))
        .relu("features.7")
        .conv("features.8", 256, window(3).pad(1))
        .relu("features.9")
        .conv("features.10", 256, window(3).pad(1))
        .relu("features.11")
        .max_pool("features.12", window(3).stride(2))
        .adaptive_avg_pool("avgpool", 6)
        .flatten("flatten")
        .dropout("classifier.0", 0.5)
        .linear("classifier.1", 4096)
        .relu("classifier.2")
        .dropout("classifier.3", 0.5)
        .linear("classifier.4", 4096)
        .relu("classifier.5")
        .linear("classifier.6", settings.classes(1000)?)
        .build()
}

/// Caffe's AlexNet (`bvlc_alexnet`), with groups and local response normalization: 60,965,224 parameters.
pub(super) fn alexnet_caffe(settings: &mut Settings) -> Result<Architecture, NetError> {
    Builder::new("alexnet-caffe", InputSpec::caffe(227))
        .conv("conv1", 96, window(11).stride(4))
        .relu("relu1")
        .lrn("norm1")
        .max_pool("pool1", window(3).stride(2).ceil())
        .conv("conv2", 256, window(5).pad(2).groups(2))
        .relu("relu2")
        .lrn("norm2")
        .max_pool("pool2", window(3).stride(2).ceil())
        .conv("conv3", 384, window(3).pad(1))
        .relu("relu3")
        .conv("conv4", 384, window(3).pad(1).groups(2))
        .relu("relu4")
        .conv("conv5", 256, window(3).pad(1).groups(2))
        .relu("relu5")
        .max_pool("pool5", window(3).stride(2).ceil())
        .flatten("flatten")
        .linear("fc6", 4096)
        .relu("relu6")
        .dropout("drop6", 0.5)
        .linear("fc7", 4096)
        .relu("relu7")
        .dropout("drop7", 0.5)
        .linear("fc8", settings.classes(1000)?)
        .build()
}

/// AlexNet for pictures of 32 × 32: torchvision's layers, with a first one of 3×3 and stride 2 and windows of 2 in the pools, and `width` times
/// their channels.
pub(super) fn alexnet_32(settings: &mut Settings) -> Result<Architecture, NetError> {
    let width = settings.real("width", 1.0, 0.05..=8.0)?;
    let wide = |channels: f64| (channels * width).round().max(1.0) as usize;
    Builder::new("alexnet-32", InputSpec::imagenet(32))
        .conv("features.0", wide(64.0), window(3).stride(2).pad(1))
        .relu("features.1")
        .max_pool("features.2", window(2).stride(2))
        .conv("features.3", wide(192.0), window(3).pad(1))
        .relu("features.4")
        .max_pool("features.5", window(2).stride(2))
        .conv("features.6", wide(384.0), window(3).pad(1))
        .relu("features.7")
        .conv("features.8", wide(256.0), window(3).pad(1))
        .relu("features.9")
        .conv("features.10", wide(256.0), window(3).pad(1))
        .relu("features.11")
        .max_pool("features.12", window(2).stride(2))
        .flatten("flatten")
        .dropout("classifier.0", 0.5)
        .linear("classifier.1", wide(4096.0))
        .relu("classifier.2")
        .dropout("classifier.3", 0.5)
        .linear("classifier.4", wide(4096.0))
        .relu("classifier.5")
        .linear("classifier.6", settings.classes(10)?)
        .build()
}

#[cfg(test)]
mod tests {
    /// By hand: five convolutions, three linear layers.
    #[test]
    fn the_small_variant_counts() {
        let convs = [(3, 64), (64, 192), (192, 384), (384, 256), (256, 256)];
        let linears = [(256 * 2 * 2, 4096), (4096, 4096), (4096, 10)];
        let count = convs.map(|(i, o)| (9 * i + 1) * o).iter().sum::<usize>()
            + linears.map(|(i, o)| (i + 1) * o).iter().sum::<usize>();
        let arch = super::super::by_name("alexnet-32").unwrap();
        assert_eq!(arch.param_count(), count);
        assert!(super::super::by_name("alexnet-32(width=0)").is_err());
    }
}
