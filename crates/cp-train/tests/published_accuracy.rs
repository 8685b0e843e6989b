//! Published weights on real images reach the accuracy that was measured for them elsewhere (datasets/README.md).
//!
//! Needs the data: set `POLYAD_DATA`. A wrong normalization, channel order, padding or pooling rule costs whole points.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use cp_data::DataDir;
use cp_net::{Network, arch};
use cp_torch::Executor;
use cp_torch::tch::Device;
use cp_train::{EvalOptions, Evaluation, evaluate};

/// Accuracy of the published `weights` of `arch` on a data set, or `None` (said on standard output) where there is no data.
fn accuracy(arch: &str, weights: &str, dataset: &str, split: &str) -> Option<Evaluation> {
    let Some(data) = std::env::var_os("POLYAD_DATA") else {
        println!("skipped: {arch} on {dataset}: POLYAD_DATA is not set");
        return None;
    };
    let path = std::path::Path::new(&data).join("pretrained").join(weights);
    let net = Network::load_as(path, arch::by_name(arch).unwrap()).unwrap().network;
    let set = cp_data::open(dataset, split, &DataDir::locate(None)).unwrap();
    let model = Executor::new(&net, Device::Cpu).unwrap();
    let result = evaluate(&model, &set, &EvalOptions::default()).unwrap();
    println!("{arch} on {dataset}/{split}: {result:?}");
    Some(result)
}

/// Expects `top1` of `examples` within `margin`; the exact sets allow for a tie that rounding breaks the other way, no more.
fn check(result: Option<Evaluation>, examples: usize, top1: f64, margin: f64) {
    let Some(result) = result else { return };
    assert_eq!(result.examples, examples);
    assert!(
        (result.top1 - top1).abs() <= margin,
        "top-1 {} instead of {top1} ± {margin}",
        result.top1
    );
}

#[test]
fn resnet20_on_exact_cifar10_test_images() {
    check(
        accuracy("resnet20", "resnet20-cifar10.safetensors", "cifar10", "test-1000"),
        1000,
        0.915,
        0.0011,
    );
}

#[test]
fn resnet56_on_exact_cifar10_test_images() {
    check(
        accuracy("resnet56", "resnet56-cifar10.safetensors", "cifar10", "test-1000"),
        1000,
        0.926,
        0.0011,
    );
}

#[test]
fn small_cnn_on_fashion_mnist() {
    check(
        accuracy("small-cnn", "small-cnn-fashion-mnist.safetensors", "fashion-mnist", "test"),
        10_000,
        0.902,
        0.0006,
    );
}

// On all 1,000 images. The publisher of the sample reports 62.0 / 85.0 and 77.3 / 93.5 % for 400 of them; the first 400, where animals
// abound, give 66.3 / 88.0 and 77.8 / 94.0 %.

#[test]
fn squeezenet_on_the_imagenet_sample() {
    let result = accuracy(
        "squeezenet1_1",
        "squeezenet1_1-imagenet-caffe.safetensors",
        "imagenet-sample",
        "all",
    );
    check(result, 1000, 0.597, 0.0021);
}

#[test]
fn googlenet_on_the_imagenet_sample() {
    let result = accuracy(
        "googlenet",
        "bvlc_googlenet-imagenet-caffe.safetensors",
        "imagenet-sample",
        "all",
    );
    check(result, 1000, 0.725, 0.0021);
}
