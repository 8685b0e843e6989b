//! Convolutions whose parameters are factors, made of trained convolutions or of random kernels.

use std::ops::ControlFlow;

use cp_core::{CpError, CpTensor, Hooi, TuckerSolver, tensor_train};
use cp_net::{Conv, CpConv, Network, Op, TtConv, TuckerConv};
use ndarray::{Array2, ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::decompose::Decomposer;
use crate::error::PlanError;

/// Which factors a convolution gets.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Factored {
    /// [`CpConv`].
    Cp {
        /// R.
        rank: usize,
        /// Whether λ is a parameter of its own; the factors have columns of norm 1 then.
        weights: bool,
    },
    /// [`TuckerConv`].
    Tucker {
        /// Of output and input channels, and of each spatial axis.
        ranks: Vec<usize>,
    },
    /// [`TtConv`].
    TensorTrain {
        /// From one core to the next, those of the input channels first.
        ranks: Vec<usize>,
    },
}

/// The network with the convolution `layer` as one whose parameters are the factors of a decomposition of its kernel; stride, padding,
/// dilation and bias stay as they are, axis by axis. Another layer that shares the kernel keeps it.
///
/// CP by the solver of `decomposer`, Tucker by its number of sweeps of orthogonal iteration, a tensor train by singular value decompositions.
///
/// # Errors
/// A layer that is no convolution of one group, ranks that its kernel does not have, a kernel that is not finite.
pub fn from_conv(
    net: &Network,
    layer: &str,
    factored: &Factored,
    decomposer: &Decomposer,
) -> Result<Network, PlanError> {
    let op = &net.architecture().node(layer)?.op;
    let Op::Conv(dense) = op else {
        return Err(PlanError::PlanLayer { layer: layer.into(), op: op.kind() });
    };
    if dense.groups > 1 {
        return Err(PlanError::Groups { layer: layer.into(), groups: dense.groups });
    }
    let kernel = net.kernel(layer)?.to_owned();
    let (op, arrays) = factors(layer, dense, &kernel, factored, decomposer)?;
    let mut made = net.clone();
    made.put_op(layer, op, arrays)?;
    Ok(made)
}

/// The network with the factors of every [`CpConv`] from a CP model, by alternating least squares, of a kernel of normal numbers divided by the
/// number of its taps; λ, where it is a parameter, is 1.
///
/// Source: Wang, Guo & Yue (arXiv 2005.13746), whose networks start so.
///
/// # Errors
/// As the solver's: none for a checked network.
pub fn cp_start(net: &Network, seed: u64) -> Result<Network, PlanError> {
    let mut made = net.clone();
    let decomposer = Decomposer::als(100, seed);
    for (position, node) in net.nodes().iter().enumerate() {
        let Op::CpConv(op) = &node.op else { continue };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(START + position as u64);
        let shape = op.dense().weight_shape();
        let taps: usize = op.kernel.iter().product();
        let kernel = ArrayD::from_shape_simple_fn(IxDyn(&shape), || {
            let value: f32 = StandardNormal.sample(&mut rng);
            value / taps as f32
        });
        let found = decomposer
            .cp(&node.name, 0, kernel.view(), op.rank, None, &mut |_| ControlFlow::Continue(()));
        let mut cp = found.map_err(failed(&node.name))?.0.cp;
        cp.balance();
        let mut arrays = cp_arrays(&cp);
        if op.weights {
            arrays.push(("weights", ArrayD::ones(IxDyn(&[op.rank]))));
        }
        made.put_op(&node.name, op.clone(), arrays)?;
    }
    Ok(made)
}

/// Streams of [`cp_start`], away from those of [`Architecture::initialize`](cp_net::Architecture::initialize), which counts from 0.
const START: u64 = 1 << 32;

type Arrays = Vec<(&'static str, ArrayD<f32>)>;

/// The op of `factored` and its arrays but for the bias.
fn factors(
    layer: &str,
    dense: &Conv,
    kernel: &ArrayD<f32>,
    factored: &Factored,
    decomposer: &Decomposer,
) -> Result<(Op, Arrays), PlanError> {
    match factored {
        Factored::Cp { rank, weights } => {
            let go_on = &mut |_: &cp_core::Progress| ControlFlow::Continue(());
            let found = decomposer.cp(layer, 0, kernel.view(), *rank, None, go_on);
            let mut cp = found.map_err(failed(layer))?.0.cp;
            if *weights {
                cp.normalize();
            } else {
                cp.balance();
            }
            let mut arrays = cp_arrays(&cp);
            if *weights {
                arrays.push(("weights", cp.weights.clone().into_dyn()));
            }
            Ok((CpConv { weights: *weights, ..CpConv::of(dense, *rank) }.into(), arrays))
        }
        Factored::Tucker { ranks } => {
            let hooi = Hooi::new(ranks.clone()).max_iters(decomposer.max_iters).tol(decomposer.tol);
            let found = hooi.decompose(kernel.view()).map_err(failed(layer))?.tucker;
            let ranks = found.core.shape().to_vec();
            let mut arrays = vec![("core", found.core)];
            let factors = found.factors.into_iter().zip(&ranks);
            let factors =
                factors.map(|(factor, &rank)| factor.unwrap_or_else(|| Array2::eye(rank)));
            arrays.extend(SLOTS.into_iter().zip(factors.map(Array2::into_dyn)));
            Ok((TuckerConv::of(dense, ranks).into(), arrays))
        }
        Factored::TensorTrain { ranks } => {
            // Input channels, axes, output channels.
            let order: Vec<usize> = (1..kernel.ndim()).chain([0]).collect();
            let turned = kernel.view().permuted_axes(order);
            let train = tensor_train(turned, ranks).map_err(failed(layer))?;
            let ranks = train.ranks();
            let slots = ["input", "axis0", "axis1", "axis2"];
            let last = train.cores.len() - 1;
            let arrays = train.cores.into_iter().enumerate().map(|(index, core)| {
                let (before, size, behind) = core.dim();
                let (slot, shape) = match index {
                    0 => ("input", vec![size, behind]),
                    index if index == last => ("output", vec![before, size]),
                    index => (slots[index.min(3)], vec![before, size, behind]),
                };
                let core = core.into_dyn().into_shape_with_order(shape);
                (slot, core.unwrap_or_else(|error| unreachable!("a core of a train: {error}")))
            });
            Ok((TtConv::of(dense, ranks).into(), arrays.collect()))
        }
    }
}

fn failed(layer: &str) -> impl FnOnce(CpError) -> PlanError + '_ {
    move |source| PlanError::Decompose { layer: layer.into(), source }
}

/// The slots of the factors of modes: output channels, input channels, spatial axes.
const SLOTS: [&str; 5] = ["output", "input", "axis0", "axis1", "axis2"];

fn cp_arrays(cp: &CpTensor<f32>) -> Arrays {
    SLOTS.into_iter().zip(cp.factors.iter().map(|factor| factor.clone().into_dyn())).collect()
}
