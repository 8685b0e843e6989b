//! The built-in architectures, one per file, each written with the [`Builder`] so that it reads like its paper's table.
//!
//! Every architecture ends in logits (no softmax) and bears the parameter names of the weights that are published for it.

mod alexnet;
mod builder;
mod channelnet;
mod channelwise;
mod charnet;
mod cpac;
mod efficientnet;
mod googlenet;
mod mobilenet_v1;
mod mobilenet_v2;
mod plain;
mod resnet;
mod resnet_cifar;
mod settings;
mod small_cnn;
mod squeezenet;
mod stasgt;
mod unet;
mod vgg;
mod yolox;

pub use builder::{Builder, Sizes, Window, window};

use crate::arch::channelnet::Version;
use crate::arch::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;

/// Makes an architecture from its settings.
type Make = fn(&mut Settings) -> Result<Architecture, NetError>;

/// Name and maker of every built-in architecture.
const BUILT_IN: &[(&str, Make)] = &[
    ("alexnet", alexnet::alexnet),
    ("alexnet-32", alexnet::alexnet_32),
    ("alexnet-caffe", alexnet::alexnet_caffe),
    ("channelnet-v1", |settings| channelnet::channelnet(settings, Version::V1)),
    ("channelnet-v2", |settings| channelnet::channelnet(settings, Version::V2)),
    ("channelnet-v3", |settings| channelnet::channelnet(settings, Version::V3)),
    ("charnet", charnet::charnet),
    ("cpac", cpac::cpac),
    ("efficientnet-b0", efficientnet::b0),
    ("googlenet", googlenet::googlenet),
    ("mobilenet-v1", mobilenet_v1::mobilenet_v1),
    ("mobilenet-v2", mobilenet_v2::mobilenet_v2),
    ("plain", plain::plain),
    ("resnet18", |settings| resnet::resnet(settings, 18)),
    ("resnet34", |settings| resnet::resnet(settings, 34)),
    ("resnet50", |settings| resnet::resnet(settings, 50)),
    ("resnet101", |settings| resnet::resnet(settings, 101)),
    ("resnet152", |settings| resnet::resnet(settings, 152)),
    ("resnet-cifar", resnet_cifar::resnet_cifar),
    ("resnet20", |settings| resnet_cifar::resnet(settings, 20)),
    ("resnet32", |settings| resnet_cifar::resnet(settings, 32)),
    ("resnet56", |settings| resnet_cifar::resnet(settings, 56)),
    ("small-cnn", small_cnn::small_cnn),
    ("squeezenet1_1", squeezenet::squeezenet1_1),
    ("stasgt-advanced", stasgt::advanced),
    ("stasgt-simple", stasgt::simple),
    ("unet", unet::unet),
    ("vgg16", vgg::vgg16),
    ("yolox-nano", yolox::nano),
];

/// The names that [`by_name`] knows.
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

/// The built-in architecture `name`, with the settings in brackets behind it: `resnet-cifar(depth=32, classes=100)`. All take
/// `classes`.
///
/// ```
/// let arch = cp_net::arch::by_name("resnet20")?;
/// assert_eq!(arch.param_count(), 269_722);
/// assert_eq!(arch.output_shape([3, 32, 32])?, [10]);
/// assert_eq!(cp_net::arch::by_name("resnet20(classes=100)")?.output_shape([3, 32, 32])?, [100]);
/// # Ok::<(), cp_net::NetError>(())
/// ```
///
/// # Errors
/// [`NetError::UnknownArchitecture`], with the names that exist; [`NetError::Setting`], with the settings that it has.
pub fn by_name(name: &str) -> Result<Architecture, NetError> {
    let (base, mut settings) = Settings::parse(name)?;
    let Some((_, make)) = BUILT_IN.iter().find(|(known, _)| *known == base) else {
        return Err(NetError::UnknownArchitecture {
            name: base.into(),
            known: names().into_iter().map(String::from).collect(),
        });
    };
    let mut arch = make(&mut settings)?;
    settings.finish()?;
    arch.name = name.trim().into();
    Ok(arch)
}
