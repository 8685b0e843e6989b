//! Helpers of the unit tests: seeded arrays, tensors in both layouts, comparison.

use ndarray::{ArrayD, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

use crate::convert::{array_from_tensor, tensor_from_f32};
use crate::layout::Layout;

/// Uniform values in −1 … 1.
pub(crate) fn random(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0..1.0))
}

/// The array in NCHW and in channels-last.
pub(crate) fn both_layouts(array: &ArrayD<f32>) -> [Tensor; 2] {
    let tensor = tensor_from_f32(array.view()).unwrap();
    [Layout::Nchw, Layout::ChannelsLast].map(|layout| layout.apply(&tensor).unwrap())
}

#[track_caller]
pub(crate) fn assert_close(got: &Tensor, expected: &ArrayD<f32>, tolerance: f32) {
    let got = array_from_tensor(got).unwrap();
    assert_eq!(got.shape(), expected.shape());
    let worst = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst <= tolerance, "differs by up to {worst}");
    assert!(got.iter().all(|value| !value.is_nan()));
}
