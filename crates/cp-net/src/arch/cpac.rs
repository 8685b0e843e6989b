//! The networks of CPAC-Conv: one or two convolutions whose parameters are CP factors, for small grey images.
//!
//! Reference: Wang, Guo & Yue (arXiv 2005.13746), §4, and the authors' programs. Names are of our own.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;
use crate::op::{Conv, CpConv};

/// Side of the kernels.
const KERNEL: usize = 3;

/// `layers` convolutions of `filters` 3×3 filters at rank `rank`, each behind it a pooling and a ReLU, then one linear layer (one
/// convolution) or two with nothing between (two convolutions): 10,745 parameters with two layers at rank 5. `rank=0` stands for dense
/// convolutions, the baseline. No convolution has a bias.
pub(super) fn cpac(settings: &mut Settings) -> Result<Architecture, NetError> {
    let layers = settings.count("layers", 2, 1)?;
    let rank = settings.count("rank", 5, 0)?;
    let filters = settings.count("filters", 8, 1)?;
    let resolution = settings.count("resolution", 28, 1)?;
    let classes = settings.classes(10)?;
    if layers > 2 {
        return Err(settings.error(format!("layers is {layers}, expected 1 or 2")));
    }
    let mut input = InputSpec::gray(resolution);
    (input.mean, input.std) = (vec![0.5], vec![0.5]);
    let mut net = Builder::new("cpac", input);
    for layer in 1..=layers {
        let of = |what: &str| format!("{what}{layer}");
        net = if rank == 0 {
            net.conv(&of("conv"), filters, window(KERNEL).no_bias())
        } else {
            let dense = Conv { bias: false, ..Conv::new(net.channels(), filters, [KERNEL; 2]) };
            net.op(&of("conv"), CpConv::of(&dense, rank))
        };
        net = net.max_pool(&of("pool"), window(2).stride(2)).relu(&of("relu"));
    }
    net = net.flatten("flatten");
    if layers == 2 {
        net = net.linear("fc1", 50).linear("fc2", classes);
    } else {
        net = net.linear("fc1", classes);
    }
    net.build()
}
