//! GoogLeNet (Inception v1) without its auxiliary heads, with the names and conventions of Caffe's `bvlc_googlenet`
//! (poolings round up, local response normalization, BGR input).
//!
//! Reference: Szegedy et al. (2015), table 1.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

/// One row of table 1: channels of 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool projection.
type Row = [usize; 6];

/// 6,998,552 parameters.
pub(super) fn googlenet(settings: &mut Settings) -> Result<Architecture, NetError> {
    let pool = window(3).stride(2).ceil();
    let net = Builder::new("googlenet", InputSpec::caffe(224))
        .conv("conv1/7x7_s2", 64, window(7).stride(2).pad(3))
        .relu("conv1/relu_7x7")
        .max_pool("pool1/3x3_s2", pool)
        .lrn("pool1/norm1")
        .conv("conv2/3x3_reduce", 64, window(1))
        .relu("conv2/relu_3x3_reduce")
        .conv("conv2/3x3", 192, window(3).pad(1))
        .relu("conv2/relu_3x3")
        .lrn("conv2/norm2")
        .max_pool("pool2/3x3_s2", pool);
    let net = inception(net, "inception_3a", [64, 96, 128, 16, 32, 32]);
    let net =
        inception(net, "inception_3b", [128, 128, 192, 32, 96, 64]).max_pool("pool3/3x3_s2", pool);
    let net = inception(net, "inception_4a", [192, 96, 208, 16, 48, 64]);
    let net = inception(net, "inception_4b", [160, 112, 224, 24, 64, 64]);
    let net = inception(net, "inception_4c", [128, 128, 256, 24, 64, 64]);
    let net = inception(net, "inception_4d", [112, 144, 288, 32, 64, 64]);
    let net = inception(net, "inception_4e", [256, 160, 320, 32, 128, 128])
        .max_pool("pool4/3x3_s2", pool);
    let net = inception(net, "inception_5a", [256, 160, 320, 32, 128, 128]);
    inception(net, "inception_5b", [384, 192, 384, 48, 128, 128])
        .global_avg_pool("pool5/7x7_s1")
        .flatten("flatten")
        .dropout("pool5/drop_7x7_s1", 0.4)
        .linear("loss3/classifier", settings.classes(1000)?)
        .build()
}

fn inception(net: Builder, name: &str, [one, reduce3, three, reduce5, five, proj]: Row) -> Builder {
    let of = |part: &str| format!("{name}/{part}");
    let from = net.here();
    net.conv(&of("1x1"), one, window(1))
        .relu(&of("relu_1x1"))
        .at(&from)
        .conv(&of("3x3_reduce"), reduce3, window(1))
        .relu(&of("relu_3x3_reduce"))
        .conv(&of("3x3"), three, window(3).pad(1))
        .relu(&of("relu_3x3"))
        .at(&from)
        .conv(&of("5x5_reduce"), reduce5, window(1))
        .relu(&of("relu_5x5_reduce"))
        .conv(&of("5x5"), five, window(5).pad(2))
        .relu(&of("relu_5x5"))
        .at(&from)
        .max_pool(&of("pool"), window(3).pad(1).ceil())
        .conv(&of("pool_proj"), proj, window(1))
        .relu(&of("relu_pool_proj"))
        .concat(
            &of("output"),
            &[of("relu_1x1"), of("relu_3x3"), of("relu_5x5"), of("relu_pool_proj")],
        )
}
