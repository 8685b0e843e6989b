//! Tensors for the tests.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use cp_core::{CpTensor, norm};
use ndarray::{Array2, ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Independent standard normal entries.
pub(crate) fn gaussian(shape: &[usize], seed: u64) -> ArrayD<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || StandardNormal.sample(&mut rng))
}

/// Standard normal factors, `[Iₙ, rank]`.
pub(crate) fn factors(shape: &[usize], rank: usize, seed: u64) -> Vec<Array2<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    shape
        .iter()
        .map(|&size| Array2::from_shape_simple_fn((size, rank), || StandardNormal.sample(&mut rng)))
        .collect()
}

/// A tensor of the given rank plus noise of `noise` times its norm, and the model behind it.
///
/// Seeds: tests must start solvers from seeds that are not used here, or they start at the answer.
pub(crate) fn planted(
    shape: &[usize],
    rank: usize,
    noise: f64,
    seed: u64,
) -> (CpTensor, ArrayD<f64>) {
    let cp = CpTensor::from_factors(factors(shape, rank, seed)).unwrap();
    let signal = cp.reconstruct();
    let mut disturbance = gaussian(shape, seed + 1_000_000);
    disturbance *= noise * norm(signal.view()) / norm(disturbance.view());
    (cp, signal + disturbance)
}

/// In single precision.
pub(crate) fn narrow(tensor: &ArrayD<f64>) -> ArrayD<f32> {
    tensor.mapv(|x| x as f32)
}
