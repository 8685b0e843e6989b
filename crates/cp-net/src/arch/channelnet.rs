//! ChannelNets: MobileNet-v1 with grouped modules and channel-wise convolutions.
//!
//! Reference: Gao, Wang & Ji (NeurIPS 2018), and the code that they released. Names are of our own. Nothing stands between depthwise and pointwise
//! convolutions, and ReLU6 behind the norms. The two differ: the code concatenates what goes into a block with what comes out of it at three
//! places, has no activation behind the first convolution, and a channel-wise convolution [across pixels](Builder::channelwise_across_pixels)
//! and a depthwise one in front of the classification layer where the paper has neither.

use std::fmt;
use std::str::FromStr;

use super::builder::{Builder, Window, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;

/// Each is the one before, and more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// A group module and two group channel-wise modules in the place of six blocks.
    V1,
    /// A depthwise separable channel-wise convolution in the place of the last block.
    V2,
    /// The convolutional classification layer.
    V3,
}

/// Channels of the first convolution, behind the first block, and of the four stages behind that; in a setting with slashes between.
#[derive(Debug, Clone, Copy)]
struct Channels([usize; 6]);

/// Taps along the channels for each group.
const TAPS: usize = 4;

/// Parameters and multiply-adds at width 1 and 224×224, in the paper's topology and in that of the released code (`topology=released`):
///
/// | version | paper | released code |
/// |---|---|---|
/// | v1 | 3,703,432 / 468,488,704 | 3,875,112 / 534,971,904 |
/// | v2 | 2,652,872 / 420,319,744 | 2,978,152 / 640,943,616 |
/// | v3 | 1,629,097 / 420,520,744 | 1,963,593 / 641,596,200 |
///
/// The paper prints 3.7 M and 407 M for v1. With `same` strides of 2 are padded behind alone, as TensorFlow does, else by 1 on either side.
pub(super) fn channelnet(
    settings: &mut Settings,
    version: Version,
) -> Result<Architecture, NetError> {
    let released = settings.choice("topology", "paper", &["paper", "released"])? == "released";
    let groups = settings.count("groups", 2, 1)?;
    let width = settings.real("width", 1.0, 0.05..=8.0)?;
    let [stem, first, second, third, fourth, last] = settings
        .take("channels", Channels([32, 64, 128, 256, 512, 1024]))?
        .0
        .map(|of| ((of as f64 * width).round() as usize).max(1));
    let resolution = settings.count("resolution", 224, 1)?;
    let same = settings.take("same", released)?;
    let kernel = if version >= Version::V2 { settings.count("kernel", 64, 1)? } else { 0 };
    let classifier = match version {
        Version::V3 => {
            let default = if released { "depthwise" } else { "convolution" };
            settings.choice("classifier", default, &["convolution", "depthwise", "unshared"])?
        }
        _ => "linear",
    };
    let classes = settings.classes(1000)?;
    if !fourth.is_multiple_of(groups) {
        return Err(settings.error(format!(
            "groups is {groups}, expected a divisor of the {fourth} channels of its modules; other widths or channels have others"
        )));
    }
    let net = Net { groups, same };

    let mut at = Builder::new("channelnet", InputSpec::imagenet(resolution))
        .conv("stem", stem, net.window(2))
        .batch_norm("stem.bn");
    if !released {
        at = at.relu6("stem.relu");
    }
    let mut before = at.here();
    for (index, (out, stride)) in
        [(first, 1), (second, 2), (second, 1), (third, 2), (third, 1), (fourth, 2)]
            .into_iter()
            .enumerate()
    {
        at = net.separable(at, &format!("conv_1_{index}"), out, stride);
        // Even ones come at their end: what went in and what comes out, side by side.
        if released && stride == 1 {
            let both = [before, at.here()];
            at = at.concat(&format!("conv_1_{index}.concat"), &both);
        }
        before = at.here();
    }
    at = net.group_module(at, "group_module").add("group_module.add", &before);
    at = net.group_channelwise_module(at, "group_channelwise_module_1");
    let before = at.here();
    at = net
        .group_channelwise_module(at, "group_channelwise_module_2")
        .add("group_channelwise_module_2.add", &before);

    at = net.separable(at, "conv_3_0", last, 2);
    at = match version {
        Version::V1 => net.separable(at, "conv_3_1", last, 1),
        _ => {
            let at = at.depthwise("conv_3_1.depthwise", net.window(1));
            if released {
                at.channelwise_across_pixels("conv_3_1.channelwise", kernel)
            } else {
                at.channelwise("conv_3_1.channelwise", kernel)
            }
        }
    };
    match classifier {
        "convolution" => at.convolutional_classifier("classifier.convolution", classes),
        "depthwise" => at
            .depthwise("classifier.depthwise", net.window(1))
            .convolutional_classifier("classifier.convolution", classes),
        "unshared" => at.unshared_classifier("classifier", classes),
        _ => at.global_avg_pool("avgpool").flatten("flatten").linear("classifier", classes),
    }
    .build()
}

/// What its blocks have in common.
struct Net {
    groups: usize,
    same: bool,
}

impl Net {
    /// 3×3, padded.
    fn window(&self, stride: usize) -> Window {
        let window = window(3).stride(stride).no_bias();
        if self.same { window.same() } else { window.pad(1) }
    }

    /// 3×3 depthwise, then 1×1 to `out` channels.
    fn separable(&self, at: Builder, name: &str, out: usize, stride: usize) -> Builder {
        at.depthwise(&format!("{name}.depthwise"), self.window(stride))
            .conv(&format!("{name}.pointwise"), out, window(1).no_bias())
            .batch_norm(&format!("{name}.bn"))
            .relu6(&format!("{name}.relu"))
    }

    /// Twice 3×3 depthwise, then 1×1 in groups.
    fn group_module(&self, mut at: Builder, name: &str) -> Builder {
        let channels = at.channels();
        for index in 1..=2 {
            at = at
                .depthwise(&format!("{name}.depthwise{index}"), self.window(1))
                .conv(
                    &format!("{name}.group_pointwise{index}"),
                    channels,
                    window(1).groups(self.groups).no_bias(),
                )
                .batch_norm(&format!("{name}.bn{index}"))
                .relu6(&format!("{name}.relu{index}"));
        }
        at
    }

    /// A group module whose groups see all channels, by a group channel-wise convolution in front.
    fn group_channelwise_module(&self, at: Builder, name: &str) -> Builder {
        let kernel = TAPS * self.groups;
        let at = at.group_channelwise(&format!("{name}.channelwise"), self.groups, kernel);
        self.group_module(at, name)
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = self.0.map(|number| number.to_string());
        f.write_str(&numbers.join("/"))
    }
}

impl FromStr for Channels {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number =
            |number: &str| number.trim().parse().ok().filter(|of| (1..=1 << 20).contains(of));
        let numbers = text.split('/').map(number).collect::<Option<Vec<usize>>>().ok_or(())?;
        numbers.try_into().map(Channels).map_err(|_| ())
    }
}
