//! Networks with random arrays, and how far two results are apart.
#![allow(dead_code, reason = "no test program uses all of it")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use cp_net::{Architecture, Draw, Network, ParamRole};
use ndarray::{ArrayD, ArrayViewD};

/// Random weights, and biases and statistics that are not 0 and 1, so that it shows where one is lost.
pub(crate) fn initialized(arch: &Architecture, seed: u64) -> Network {
    let mut net = arch.initialize(seed).unwrap();
    let mut draw = Draw::new(seed + 1);
    for (name, role) in net.roles() {
        if role != ParamRole::Weight {
            let shape = net.params()[&name].shape().to_vec();
            let range = if name.ends_with("bias") || name.ends_with("mean") {
                (-0.2, 0.2)
            } else {
                (0.8, 1.2)
            };
            net.set_param(&name, draw.array(&shape, range)).unwrap();
        }
    }
    net
}

/// Random inputs for `images`.
pub(crate) fn inputs(net: &Network, images: usize, seed: u64) -> Vec<ArrayD<f32>> {
    let mut draw = Draw::new(seed);
    let inputs = net.architecture().inputs.iter();
    inputs.map(|input| draw.array(&[&[images], &input.shape[..]].concat(), (-1.0, 1.0))).collect()
}

/// The largest difference over the largest value.
pub(crate) fn distance(found: &ArrayViewD<'_, f32>, expected: &ArrayViewD<'_, f32>) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let pairs = found.iter().zip(expected);
    let far = pairs.map(|(found, expected)| (found - expected).abs());
    // A NaN is as far as anything.
    far.fold(0.0, |most: f32, far| if far <= most { most } else { far }) / largest
}
