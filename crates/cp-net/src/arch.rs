//! The built-in architectures, one per file, each written with the [`Builder`] so that it reads like its paper's table.
//!
//! Every architecture ends in logits (no softmax) and bears the parameter names of the weights that are published for it.

mod alexnet;
mod builder;
mod charnet;
mod googlenet;
mod head;
mod init;
mod resnet;
mod resnet_cifar;
mod small_cnn;
mod squeezenet;
mod vgg;

pub use builder::{Builder, Window, window};

use crate::error::NetError;
use crate::network::Architecture;

/// Makes an architecture; it cannot fail but for mistakes in this crate, which the tests would find.
type Make = fn() -> Result<Architecture, NetError>;

/// Name and maker of every built-in architecture.
const BUILT_IN: &[(&str, Make)] = &[
    ("alexnet", alexnet::alexnet),
    ("alexnet-caffe", alexnet::alexnet_caffe),
    ("charnet", charnet::charnet),
    ("googlenet", googlenet::googlenet),
    ("resnet18", resnet::resnet18),
    ("resnet20", || resnet_cifar::resnet("resnet20", 3)),
    ("resnet32", || resnet_cifar::resnet("resnet32", 5)),
    ("resnet56", || resnet_cifar::resnet("resnet56", 9)),
    ("small-cnn", small_cnn::small_cnn),
    ("squeezenet1_1", squeezenet::squeezenet1_1),
    ("vgg16", vgg::vgg16),
];

/// The names that [`by_name`] knows.
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

/// The built-in architecture `name`.
///
/// ```
/// let arch = cp_net::arch::by_name("resnet20")?;
/// assert_eq!(arch.param_count(), 269_722);
/// assert_eq!(arch.output_shape([3, 32, 32])?, [10]);
/// # Ok::<(), cp_net::NetError>(())
/// ```
///
/// # Errors
/// [`NetError::UnknownArchitecture`], with the names that exist.
pub fn by_name(name: &str) -> Result<Architecture, NetError> {
    match BUILT_IN.iter().find(|(known, _)| *known == name) {
        Some((_, make)) => make(),
        None => Err(NetError::UnknownArchitecture {
            name: name.into(),
            known: names().into_iter().map(String::from).collect(),
        }),
    }
}
