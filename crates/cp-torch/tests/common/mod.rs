//! Helpers shared by the tests: seeded arrays, small networks, comparison.
#![allow(dead_code, reason = "every test program uses a part of these")]

pub(crate) mod cpac;
pub(crate) mod golden;

use cp_core::CpTensor;
use cp_net::{Architecture, INPUT, InputSpec, Network, Node, Op, ParamRole};
use cp_torch::tch::{Device, Tensor};
use cp_torch::{Executor, Layout, array_from_tensor, tensor_from_f32};
use ndarray::{Array1, Array2, ArrayD, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Uniform values in −1 … 1.
pub(crate) fn random(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0..1.0))
}

pub(crate) fn tensor(shape: &[usize], seed: u64) -> Tensor {
    tensor_from_f32(random(shape, seed).view()).unwrap()
}

/// A CP model with random factors and λ ≠ 1.
pub(crate) fn random_cp(shape: &[usize], rank: usize, seed: u64) -> CpTensor<f32> {
    let matrix = |mode: usize, size: usize| {
        let values = random(&[size, rank], seed * 10 + mode as u64);
        values.into_dimensionality().unwrap()
    };
    let factors: Vec<Array2<f32>> =
        shape.iter().enumerate().map(|(mode, &size)| matrix(mode, size)).collect();
    let weights = Array1::from_iter((0..rank).map(|r| 0.5 + r as f32 / rank as f32));
    CpTensor::new(weights, factors).unwrap()
}

/// A chain of ops behind an input of `shape` (one or three channels).
pub(crate) fn chain(shape: &[usize], ops: Vec<(&str, Op)>) -> Architecture {
    let mut before = INPUT.to_owned();
    let mut nodes = Vec::new();
    for (name, op) in ops {
        nodes.push(Node::new(name, op, [std::mem::replace(&mut before, name.into())]));
    }
    architecture(shape, nodes)
}

pub(crate) fn architecture(shape: &[usize], nodes: Vec<Node>) -> Architecture {
    Architecture::new("test", InputSpec::features(shape), nodes)
}

/// Random weights of the size that keeps activations near 1; running variances are positive.
pub(crate) fn network(arch: Architecture, seed: u64) -> Network {
    let params = arch
        .params()
        .enumerate()
        .map(|(index, (name, spec))| {
            let values = random(&spec.shape, seed * 1000 + index as u64);
            let fan_in: usize = spec.shape.iter().skip(1).product();
            let array = match spec.role {
                ParamRole::Weight => values / (fan_in as f32).sqrt(),
                _ if spec.slot == "running_var" || spec.slot == "weight" => values * 0.4 + 1.0,
                _ => values * 0.2,
            };
            (name, array)
        })
        .collect();
    Network::new(arch, params).unwrap()
}

pub(crate) fn executor(net: &Network, layout: Layout) -> Executor {
    // The tests themselves run side by side.
    cp_torch::tch::set_num_threads(1);
    Executor::with_layout(net, Device::Cpu, layout).unwrap()
}

pub(crate) fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    let (a, b) = (array_from_tensor(a).unwrap(), array_from_tensor(b).unwrap());
    assert_eq!(a.shape(), b.shape());
    assert!(a.iter().chain(&b).all(|value| value.is_finite()));
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[track_caller]
pub(crate) fn assert_close(a: &Tensor, b: &Tensor, tolerance: f32) {
    let difference = max_difference(a, b);
    assert!(difference <= tolerance, "differs by up to {difference}");
}
