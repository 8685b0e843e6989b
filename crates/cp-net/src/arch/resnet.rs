//! ResNet-18 for 224×224 images.
//!
//! References: He, Zhang, Ren & Sun (2016), table 1; names as in torchvision.

use super::{Builder, window};
use crate::error::NetError;
use crate::network::{Architecture, InputSpec};

/// 11,689,512 parameters, 11,176,512 of them in front of `fc`.
pub(super) fn resnet18() -> Result<Architecture, NetError> {
    let mut net = Builder::new("resnet18", InputSpec::imagenet(224))
        .conv("conv1", 64, window(7).stride(2).pad(3).no_bias())
        .batch_norm("bn1")
        .relu("relu")
        .max_pool("maxpool", window(3).stride(2).pad(1));
    for (stage, channels) in [(1, 64), (2, 128), (3, 256), (4, 512)] {
        for block in 0..2 {
            let stride = if stage > 1 && block == 0 { 2 } else { 1 };
            net = basic_block(net, &format!("layer{stage}.{block}"), channels, stride);
        }
    }
    net.global_avg_pool("avgpool").flatten("flatten").linear("fc", 1000).build()
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
    net.at(&from)
        .conv(&of("downsample.0"), channels, window(1).stride(stride).no_bias())
        .batch_norm(&of("downsample.1"))
        .at(&body)
        .add(&of("add"), &of("downsample.1"))
        .relu(&of("relu2"))
}
