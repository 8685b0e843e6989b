//! SqueezeNet 1.1, with the names and conventions of its Caffe release (poolings round up, BGR input).
//!
//! References: Iandola et al. (2016), table 1; `forresti/SqueezeNet`, `SqueezeNet_v1.1/deploy.prototxt`.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

/// 1,235,496 parameters.
pub(super) fn squeezenet1_1(settings: &mut Settings) -> Result<Architecture, NetError> {
    let pool = window(3).stride(2).ceil();
    let net = Builder::new("squeezenet1_1", InputSpec::caffe(227))
        .conv("conv1", 64, window(3).stride(2))
        .relu("relu_conv1")
        .max_pool("pool1", pool);
    let net = fire(fire(net, "fire2", 16, 64), "fire3", 16, 64).max_pool("pool3", pool);
    let net = fire(fire(net, "fire4", 32, 128), "fire5", 32, 128).max_pool("pool5", pool);
    let net = fire(fire(net, "fire6", 48, 192), "fire7", 48, 192);
    fire(fire(net, "fire8", 64, 256), "fire9", 64, 256)
        .dropout("drop9", 0.5)
        .conv("conv10", settings.classes(1000)?, window(1))
        .relu("relu_conv10")
        .global_avg_pool("pool10")
        .flatten("flatten")
        .build()
}

/// Squeeze to `squeeze` channels, expand to `expand` by 1×1 and as many by 3×3.
fn fire(net: Builder, name: &str, squeeze: usize, expand: usize) -> Builder {
    let of = |part: &str| format!("{name}/{part}");
    net.conv(&of("squeeze1x1"), squeeze, window(1))
        .relu(&of("relu_squeeze1x1"))
        .conv(&of("expand1x1"), expand, window(1))
        .relu(&of("relu_expand1x1"))
        .at(&of("relu_squeeze1x1"))
        .conv(&of("expand3x3"), expand, window(3).pad(1))
        .relu(&of("relu_expand3x3"))
        .concat(&of("concat"), &[of("relu_expand1x1"), of("relu_expand3x3")])
}
