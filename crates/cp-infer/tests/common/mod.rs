//! Networks with random arrays, and how far two results are apart.
#![allow(dead_code, reason = "no test program uses all of it")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use cp_infer::{Compiled, Level, Options};
use cp_net::{Architecture, Draw, InputSpec, Network, Node, Op, ParamRole, Shape};
use cp_onnx::{ExportOptions, export};
use cp_ort::{Model, OrtError, Session, SessionOptions, Tensor};
use ndarray::{ArrayD, ArrayViewD};

/// A network of one op, with inputs `a`, `b`, ….
pub(crate) fn single(op: impl Into<Op>, inputs: &[Shape]) -> Architecture {
    let names: Vec<String> = ('a'..).take(inputs.len()).map(String::from).collect();
    let node = Node::new("layer", op, names.clone());
    let outputs = node.outputs.clone();
    let mut arch = Architecture::new("single", InputSpec::features([1]), vec![node]);
    let named = |(name, shape): (String, &Shape)| InputSpec::features(shape.clone()).named(name);
    // A constant has no input, and a network at least one.
    if !inputs.is_empty() {
        arch.inputs = names.into_iter().zip(inputs).map(named).collect();
    }
    arch.outputs = outputs;
    arch
}

/// Small whole numbers in all arrays, so that sums are exact in any order.
pub(crate) fn whole_numbers(arch: &Architecture, seed: u64) -> Network {
    let mut net = arch.initialize(seed).unwrap();
    let mut draw = Draw::new(seed);
    for name in net.params().keys().cloned().collect::<Vec<_>>() {
        let array = net.params()[&name].mapv(|_| draw.size(0..=4) as f32 - 2.0);
        net.set_param(&name, array).unwrap();
    }
    net
}

/// Small whole numbers for `images`.
pub(crate) fn whole_inputs(net: &Network, images: usize, seed: u64) -> Vec<ArrayD<f32>> {
    inputs(net, images, seed).into_iter().map(|input| input.mapv(|x| (2.0 * x).round())).collect()
}

/// Random weights, and biases and statistics that are not 0 and 1, so that it shows where one is lost.
pub(crate) fn initialized(arch: &Architecture, seed: u64) -> Network {
    let mut net = arch.initialize(seed).unwrap();
    let mut draw = Draw::new(seed + 1);
    for (name, role) in net.roles() {
        if role != ParamRole::Weight {
            let shape = net.params()[&name].shape().to_vec();
            let around_zero = name.ends_with("bias") || name.ends_with("mean");
            let range = if around_zero { (-0.2, 0.2) } else { (0.8, 1.2) };
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

/// What the network gives.
pub(crate) fn run(net: &Network, options: &Options, inputs: &[ArrayD<f32>]) -> Vec<ArrayD<f32>> {
    Compiled::new(net, options).unwrap().run(&views(inputs)).unwrap()
}

pub(crate) fn views(arrays: &[ArrayD<f32>]) -> Vec<ArrayViewD<'_, f32>> {
    arrays.iter().map(ArrayD::view).collect()
}

/// What the network gives by the definitions of its ops; what does not depend on the image as often as there are images.
pub(crate) fn evaluated(net: &Network, inputs: &[ArrayD<f32>]) -> Vec<ArrayD<f32>> {
    let images = inputs.first().map_or(1, |input| input.shape()[0]);
    let repeated = |output: ArrayD<f32>| {
        let shape = [&[images], &output.shape()[1..]].concat();
        output.broadcast(shape).unwrap().to_owned()
    };
    net.eval(&views(inputs)).unwrap().into_iter().map(repeated).collect()
}

/// The first output in ONNX Runtime on one thread, or `None` and a line that says so where there is no library.
pub(crate) fn in_onnx_runtime(net: &Network, inputs: &[ArrayD<f32>]) -> Option<ArrayD<f32>> {
    match cp_ort::library() {
        Ok(_) => {}
        Err(OrtError::NotFound { .. }) => {
            println!("skipped: no ONNX Runtime (`cargo xtask setup`)");
            return None;
        }
        Err(error) => panic!("{error}"),
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    export(net, &ExportOptions::default()).unwrap().save(&path).unwrap();
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    let mut session = Session::new(Model::File(&path), &options).unwrap();
    let names = net.architecture().inputs.iter().map(|input| input.name.as_str());
    let tensors = inputs.iter().map(|input| Tensor::from(input.clone()));
    let given: Vec<(&str, Tensor)> = names.zip(tensors).collect();
    let made = session.run(&given).unwrap();
    Some(made[0].1.as_f32().unwrap().clone())
}

/// The largest difference over the largest value.
pub(crate) fn distance(found: &ArrayD<f32>, expected: &ArrayD<f32>) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let largest = expected.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let pairs = found.iter().zip(expected);
    let far = pairs.map(|(found, expected)| (found - expected).abs());
    // A NaN is as far as anything.
    far.fold(0.0, |most: f32, far| if far <= most { most } else { far }) / largest
}

/// Fails with all that was found at once.
#[track_caller]
pub(crate) fn none(failures: &[String]) {
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The levels of this machine.
pub(crate) fn levels() -> Vec<(Level, Options)> {
    Level::all().into_iter().map(|level| (level, Options::default().level(level))).collect()
}
