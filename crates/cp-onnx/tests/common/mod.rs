//! Shared by the tests: networks run by the definitions of their ops, and models run in ONNX Runtime.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a module of several test files, each of which uses a part of it; a panic is how a test fails"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cp_net::{Draw, Factors, Form, Network, Rank};
use cp_onnx::Model;
use ndarray::{Array2, ArrayD, ArrayViewD};
use serde_json::{Value, json};

/// A Python with ONNX Runtime and numpy.
pub fn python() -> Option<PathBuf> {
    let Some(python) = std::env::var_os("POLYAD_PYTHON") else {
        println!("skipped: POLYAD_PYTHON not set");
        return None;
    };
    let has = Command::new(&python).args(["-c", "import numpy, onnxruntime"]).output();
    if has.is_ok_and(|found| found.status.success()) {
        return Some(python.into());
    }
    println!("skipped: POLYAD_PYTHON has no onnxruntime (`pip install onnxruntime numpy onnx`)");
    None
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

/// The outputs of every case, by ONNX Runtime in one process, or what it complained of.
pub fn run_models(python: &Path, cases: &[Case]) -> Vec<Result<Outputs, String>> {
    run_all(python, cases, true)
}

fn run_all(python: &Path, cases: &[Case], check: bool) -> Vec<Result<Outputs, String>> {
    let folder = tempfile::tempdir().unwrap();
    let mut values: Vec<f32> = Vec::new();
    let mut list = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let name = format!("{index}.onnx");
        case.model.save(folder.path().join(&name)).unwrap();
        let mut inputs = Vec::new();
        for (input, array) in &case.inputs {
            inputs.push(json!([input, array.shape(), values.len()]));
            values.extend(array);
        }
        list.push(json!({"model": name, "inputs": inputs}));
    }
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    fs::write(folder.path().join("inputs.bin"), bytes).unwrap();
    fs::write(folder.path().join("cases.json"), Value::from(list).to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/run.py");
    let mut command = Command::new(python);
    command.arg(script).arg(folder.path()).args((!check).then_some("--unchecked"));
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let text = fs::read_to_string(folder.path().join("results.json")).unwrap();
    let results: Value = serde_json::from_str(&text).unwrap();
    if check && results["checked"] != json!(true) {
        println!("skipped: onnx.checker, POLYAD_PYTHON has no package onnx");
    }
    let bytes = fs::read(folder.path().join("outputs.bin")).unwrap();
    let mut values = bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk));
    let results = results["cases"].as_array().unwrap().iter().map(|result| {
        if let Some(error) = result["error"].as_str() {
            return Err(error.to_owned());
        }
        let shapes: Vec<Vec<usize>> = serde_json::from_value(result["shapes"].clone()).unwrap();
        Ok(shapes
            .into_iter()
            .map(|shape| {
                let count = shape.iter().product();
                let values: Vec<f32> = values.by_ref().take(count).collect();
                ArrayD::from_shape_vec(shape, values).unwrap()
            })
            .collect())
    });
    results.collect()
}

/// Runs `cases` and compares with `expected`, within `tolerance` of the largest value; all that differ are listed together.
pub fn check_models(python: &Path, cases: &[Case], expected: &[Outputs], tolerance: f32) {
    compare(cases, run_models(python, cases), expected, tolerance);
}

/// The same without onnx's checker.
pub fn check_unchecked(python: &Path, cases: &[Case], expected: &[Outputs], tolerance: f32) {
    compare(cases, run_all(python, cases, false), expected, tolerance);
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
    let group = |_| Factors {
        form,
        rank,
        parts: parts
            .iter()
            .map(|part| {
                let shape = arch.node(part).unwrap().op.params()[0].shape.clone();
                let columns: usize = shape[1..].iter().product();
                let array = draw.array(&[shape[0] / groups, columns], (-1.0, 1.0));
                array.into_dimensionality::<ndarray::Ix2>().unwrap() as Array2<f32>
            })
            .collect(),
    };
    (0..groups).map(group).collect()
}
