//! Shared by the tests: seeded arrays and a slow convolution that the factorized forms are held to.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test files, each of which uses a part of it"
)]

use cp_net::{Conv, Network, Op};
use cp_plan::Decomposer;
use ndarray::{ArrayD, Dimension, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Values in −1…1.
pub fn random(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0..1.0))
}

/// A solver factory for tests: a few sweeps of ALS from a random start.
pub fn als() -> Decomposer {
    Decomposer::als(20, 99)
}

/// out[t, y…] = bias[t] + Σ_{s, j} weight[t, s, j] · x[first channel of the group + s, stride·y + dilation·j − padding].
///
/// # Shapes
/// `x`: `[S, H…]`, `weight`: `[T, S/g, k…]`, result: `[T, H′…]`.
pub fn convolve(
    conv: &Conv,
    x: &ArrayD<f64>,
    weight: &ArrayD<f64>,
    bias: Option<&ArrayD<f64>>,
) -> ArrayD<f64> {
    let mut shape = vec![conv.out_channels];
    for axis in 0..conv.kernel.len() {
        shape.push(conv.output_size(axis, x.shape()[axis + 1]).unwrap());
    }
    let per_group = [conv.out_channels / conv.groups, conv.in_channels / conv.groups];
    let inner = IxDyn(&weight.shape()[1..]);
    ArrayD::from_shape_fn(IxDyn(&shape), |out| {
        let first = out[0] / per_group[0] * per_group[1];
        let mut sum = bias.map_or(0.0, |bias| bias[[out[0]]]);
        for tap in ndarray::indices(inner.clone()) {
            let mut at = vec![first + tap[0]];
            for axis in 0..conv.kernel.len() {
                let place = conv.stride[axis] * out[axis + 1] + conv.dilation[axis] * tap[axis + 1];
                let [before, _] = conv.padding(axis, x.shape()[axis + 1]);
                at.push(place.wrapping_sub(before));
            }
            let mut kernel_at = vec![out[0]];
            kernel_at.extend(tap.slice());
            sum += x.get(IxDyn(&at)).map_or(0.0, |value| value * weight[IxDyn(&kernel_at)]);
        }
        sum
    })
}

/// Runs a chain of convolutions.
pub fn run(net: &Network, x: &ArrayD<f32>) -> ArrayD<f64> {
    let mut x = x.mapv(f64::from);
    for node in net.nodes() {
        let Op::Conv(conv) = &node.op else { panic!("{} is no convolution", node.name) };
        let array = |slot: &str| net.params().get(&node.param(slot)).map(|a| a.mapv(f64::from));
        x = convolve(conv, &x, &array("weight").unwrap(), array("bias").as_ref());
    }
    x
}
