//! One plain network, with any kind of convolution: what kinds of layers are compared in.
//!
//! Of our own: a stem of 3×3 filters and three stages of two convolutions with a batch norm and a ReLU each, behind every stage but the last
//! a pooling that halves the map, at the end the mean over the map and a linear layer.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;
use crate::op::{Conv, CpConv, Padding, TtConv, TuckerConv};

/// The kinds of convolution.
const LAYERS: [&str; 12] = [
    "dense",
    "separable",
    "xception",
    "channelwise",
    "decoupled",
    "decoupled-relu",
    "jaderberg",
    "cp",
    "cpac",
    "tucker",
    "tensor-train",
    "bottleneck",
];

/// Groups of the channel-wise layers.
const GROUPS: usize = 2;

/// `width`, 2·`width` and 4·`width` channels in the stages, whose 3×3 convolutions are replaced by `layer`:
///
/// - `dense`: as it is;
/// - `separable`: depthwise, batch norm, ReLU, 1×1 (Howard et al. 2017); `xception`: nothing between (Chollet 2017);
/// - `channelwise`: depthwise, 1×1 in two groups, then group channel-wise (Gao et al. 2018); the first in a stage, which widens the map, is
///   `xception`;
/// - `decoupled`: 1×1, then a 3×3 filter for every output channel (Xie et al. 2018); `decoupled-relu`: a ReLU between;
/// - `jaderberg`: 3×1, 1×3 with `rank` · channels between (Jaderberg et al. 2014, scheme 2);
/// - `cp`: 1×1, 3×3 depthwise, 1×1 as layers of their own (Astrid & Lee 2017), and `bottleneck`: 1×1, 3×3, 1×1 (Kim et al. 2016);
/// - `cpac`, `tucker`, `tensor-train`: a convolution whose parameters are factors.
///
/// `share` is that of the dense kernel's parameters which the layers of the last three lines have, by which their ranks are chosen.
pub(super) fn plain(settings: &mut Settings) -> Result<Architecture, NetError> {
    let layer = settings.choice("layer", "dense", &LAYERS)?;
    let width = settings.count("width", 30, 1)?;
    let share = settings.real("share", 0.25, 1e-3..=4.0)?;
    let resolution = settings.count("resolution", 32, 1)?;
    let classes = settings.classes(10)?;
    let mut net = Builder::new("plain", InputSpec::imagenet(resolution))
        .conv("stem", width, window(3).pad(1).no_bias())
        .batch_norm("stem.norm")
        .relu("stem.relu")
        .max_pool("stem.pool", window(2).stride(2));
    for stage in 1..=3 {
        let channels = width << (stage - 1);
        for index in 1..=2 {
            let name = format!("stage{stage}.conv{index}");
            let first = index == 1;
            net = convolution(net, &name, layer, channels, share, first)
                .batch_norm(&format!("{name}.norm"))
                .relu(&format!("{name}.relu"));
        }
        if stage < 3 {
            net = net.max_pool(&format!("stage{stage}.pool"), window(2).stride(2));
        }
    }
    net.global_avg_pool("pool").flatten("flatten").linear("fc", classes).build()
}

fn convolution(
    net: Builder,
    name: &str,
    layer: &str,
    out: usize,
    share: f64,
    first: bool,
) -> Builder {
    let of = |part: &str| format!("{name}.{part}");
    let three = || window(3).pad(1).no_bias();
    let one = || window(1).no_bias();
    let dense = Conv {
        padding: Padding::symmetric([1; 2]),
        bias: false,
        ..Conv::new(net.channels(), out, [3; 2])
    };
    // Of the factors of a CP, a Tucker or a two-part form with about this share.
    let (inputs, taps) = (net.channels() as f64, 9.0);
    let kernel = inputs * out as f64 * taps;
    let rank = |cost: f64| ((share * kernel / cost).round() as usize).max(1);
    match layer {
        "dense" => net.conv(name, out, three()),
        "separable" => net
            .depthwise(&of("depthwise"), three())
            .batch_norm(&of("between"))
            .relu(&of("between.relu"))
            .conv(&of("pointwise"), out, one()),
        "channelwise" if !first => net
            .depthwise(&of("depthwise"), three())
            .conv(&of("pointwise"), out, one().groups(GROUPS))
            .group_channelwise(&of("channels"), GROUPS, 4 * GROUPS),
        "xception" | "channelwise" => {
            net.depthwise(&of("depthwise"), three()).conv(&of("pointwise"), out, one())
        }
        "decoupled" | "decoupled-relu" => {
            let net = net.conv(&of("reduce"), out, one());
            let net = if layer == "decoupled" { net } else { net.relu(&of("between")) };
            net.depthwise(&of("spatial"), three())
        }
        "jaderberg" => net
            .conv(
                &of("vertical"),
                rank(3.0 * (inputs + out as f64)),
                window([3, 1]).pad([1, 0]).no_bias(),
            )
            .conv(&of("horizontal"), out, window([1, 3]).pad([0, 1]).no_bias()),
        "cp" => net
            .conv(&of("reduce"), rank(inputs + out as f64 + taps), one())
            .depthwise(&of("spatial"), three())
            .conv(&of("expand"), out, one()),
        "bottleneck" => {
            let ranks = TuckerConv::ranks_of_share(&dense, share, true);
            net.conv(&of("reduce"), ranks[1], one()).conv(&of("core"), ranks[0], three()).conv(
                &of("expand"),
                out,
                one(),
            )
        }
        "cpac" => net.op(name, CpConv::of(&dense, CpConv::rank_of_share(&dense, share))),
        "tucker" => {
            net.op(name, TuckerConv::of(&dense, TuckerConv::ranks_of_share(&dense, share, true)))
        }
        _ => net.op(name, TtConv::of(&dense, TtConv::ranks_of_share(&dense, share))),
    }
}
