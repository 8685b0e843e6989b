//! Shared by the tests: networks run by the definitions of their ops, and models run in ONNX Runtime.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a module of several test files, each of which uses a part of it; a panic is how a test fails"
)]

use std::collections::BTreeMap;

use cp_net::{Draw, Factors, Form, Network, Op, Rank};
use cp_onnx::Model;
use cp_ort::{Optimize, OrtError, Session, SessionOptions, Tensor};
use ndarray::{ArrayD, ArrayViewD};

/// Whether models can be run: where there is an ONNX Runtime.
pub fn runs() -> bool {
    match cp_ort::library() {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

/// What a model gives.
pub type Outputs = Vec<ArrayD<f32>>;

/// A model and what it is fed.
pub struct Case {
    /// For messages.
    pub label: String,
    pub model: Model,
    pub inputs: Vec<(String, ArrayD<f32>)>,
}

/// The outputs of every case, by ONNX Runtime without optimizations, or what it complained of.
pub fn run_models(cases: &[Case]) -> Vec<Result<Outputs, String>> {
    let options =
        SessionOptions { threads: 1, optimize: Optimize::None, ..SessionOptions::default() };
    let run = |case: &Case| -> Result<Outputs, OrtError> {
        let mut session = Session::new(&case.model.encode()[..], &options)?;
        let feed: Vec<(&str, Tensor)> = case
            .inputs
            .iter()
            .map(|(name, array)| (name.as_str(), Tensor::from(array.clone())))
            .collect();
        let outputs = session.run(&feed)?;
        Ok(outputs.into_iter().map(|(_, array)| array.as_f32().unwrap().clone()).collect())
    };
    cases.iter().map(|case| run(case).map_err(|error| error.to_string())).collect()
}

/// Runs `cases` and compares with `expected`, within `tolerance` of the largest value; all that differ are listed together.
pub fn check_models(cases: &[Case], expected: &[Outputs], tolerance: f32) {
    compare(cases, run_models(cases), expected, tolerance);
}

fn compare(
    cases: &[Case],
    found: Vec<Result<Outputs, String>>,
    expected: &[Outputs],
    tolerance: f32,
) {
    assert_eq!(found.len(), cases.len());
    let mut failures = Vec::new();
    let mut worst: f32 = 0.0;
    for ((case, found), expected) in cases.iter().zip(found).zip(expected) {
        let label = &case.label;
        match found {
            Err(error) => {
                failures.push(format!("{label}: {}", error.lines().next().unwrap_or_default()))
            }
            Ok(found) if found.len() != expected.len() => {
                failures.push(format!("{label}: {} outputs", found.len()));
            }
            Ok(found) => {
                for (found, expected) in found.iter().zip(expected) {
                    let difference = difference(found, expected);
                    if difference.is_nan() || difference > tolerance {
                        failures.push(format!(
                            "{label}: {difference:.1e}, {:?}, expected {:?}",
                            found.shape(),
                            expected.shape()
                        ));
                    }
                    worst = worst.max(difference);
                }
            }
        }
    }
    println!("{} models, worst {worst:.1e}", cases.len());
    let first: Vec<&str> = failures.iter().take(40).map(String::as_str).collect();
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), first.join("\n"));
}

/// The largest difference, relative to the largest value; infinite where the shapes differ.
pub fn difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    if a.shape() != b.shape() {
        return f32::INFINITY;
    }
    let largest = b.iter().fold(1e-6_f32, |most, value| most.max(value.abs()));
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    // max() passes NaN over.
    let worst =
        worst.fold(0.0, |most: f32, value| if value.is_nan() { value } else { most.max(value) });
    worst / largest
}

/// All outputs of a network for one batch, node by node by the definitions of the ops.
pub fn run(net: &Network, inputs: &[ArrayD<f32>]) -> Vec<ArrayD<f32>> {
    let arch = net.architecture();
    let names = arch.inputs.iter().map(|input| input.name.clone());
    let mut values: BTreeMap<String, ArrayD<f32>> = names.zip(inputs.iter().cloned()).collect();
    for node in &arch.nodes {
        let inputs: Vec<ArrayViewD<'_, f32>> =
            node.inputs.iter().map(|value| values[value].view()).collect();
        let params: Vec<ArrayViewD<'_, f32>> =
            node.param_specs().map(|(name, _)| net.params()[&name].view()).collect();
        let outputs = node.op.eval(&inputs, &params);
        values.extend(node.outputs.iter().cloned().zip(outputs));
    }
    arch.outputs.iter().map(|output| values[output].clone()).collect()
}

/// Inputs of `net` for a batch of 2, from −1 to 1.
pub fn inputs(net: &Network, draw: &mut Draw) -> Vec<ArrayD<f32>> {
    let inputs = net.architecture().inputs.iter();
    inputs.map(|input| draw.array(&[&[2], &input.shape[..]].concat(), (-1.0, 1.0))).collect()
}

/// `net` as a case, with its inputs.
pub fn case(label: String, model: Model, net: &Network, inputs: &[ArrayD<f32>]) -> Case {
    let names = net.architecture().inputs.iter().map(|input| input.name.clone());
    Case { label, model, inputs: names.zip(inputs.iter().cloned()).collect() }
}

/// Random factors for a layer: what a decomposition might give.
pub fn factors(
    net: &Network,
    layer: &str,
    form: Form,
    rank: Rank,
    draw: &mut Draw,
) -> Vec<Factors> {
    let mut arch = net.architecture().clone();
    let parts = arch.factorize(layer, form, rank).unwrap().parts.clone();
    let groups = net.tensors(layer, form).unwrap().len();
    let group = |_| {
        let (mut matrices, mut gathers) = (Vec::new(), Vec::new());
        for part in &parts {
            match &arch.node(part).unwrap().op {
                Op::Gather(gather) => gathers.push(gather.indices.len() / groups),
                op if op.has_kernel() => {
                    let shape = op.params()[0].shape.clone();
                    let columns = shape[1..].iter().product();
                    let array = draw.array(&[shape[0] / groups, columns], (-1.0, 1.0));
                    matrices.push(array.into_dimensionality::<ndarray::Ix2>().unwrap());
                }
                _ => {}
            }
        }
        Factors::new(form, rank, matrices).with_order(orders(form, rank, &gathers))
    };
    (0..groups).map(group).collect()
}

/// Orders in which nothing stays where it was, of gathers of these sizes.
fn orders(form: Form, rank: Rank, sizes: &[usize]) -> Vec<Vec<usize>> {
    let backwards = |size: usize| (0..size).rev().collect();
    match (form, sizes) {
        (Form::Denton | Form::DentonSvd, &[first, _, last]) => {
            vec![backwards(first), backwards(last)]
        }
        (Form::Monochromatic, &[filters]) => {
            let colours = rank.parts()[0];
            vec![(0..filters).map(|filter| (filter * filter + 1) % colours).collect()]
        }
        _ => Vec::new(),
    }
}
