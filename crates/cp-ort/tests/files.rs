//! Every float model of `shared/datasets/onnx` beside the workspace, or of `POLYAD_ONNX`; without them the tests are skipped.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use common::has_library;
use cp_ort::{ElementType, Optimize, OrtError, Session, SessionOptions, Tensor};
use half::f16;
use ndarray::{ArrayD, IxDyn};
use ndarray_npy::{NpzReader, ReadableElement};

fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/datasets/onnx");
    let folder = std::env::var_os("POLYAD_ONNX").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no ONNX models at {}", folder.display());
    None
}

/// The models, each with its arrays.
fn models(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    for part in ["third-party", "exported", "edge"] {
        for entry in fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if !name.ends_with(".onnx") || name.contains(".q") {
                continue;
            }
            let beside = path.with_extension("npz");
            let short = path.with_file_name(format!("{}.npz", name.split('.').next().unwrap()));
            let arrays = if beside.exists() { beside } else { short };
            if arrays.exists() {
                found.push((path, arrays));
            } else {
                println!("{name}: no arrays");
            }
        }
    }
    found.sort();
    found
}

type Arrays = NpzReader<File>;

fn read<T: ReadableElement>(arrays: &mut Arrays, name: &str) -> Option<ArrayD<T>> {
    arrays.by_name(name).ok()
}

/// An array as float64, whatever it was written as.
fn floats(arrays: &mut Arrays, name: &str) -> ArrayD<f64> {
    let found = read::<f32>(arrays, name).map(|array| array.mapv(f64::from));
    let found = found.or_else(|| read::<i64>(arrays, name).map(|array| array.mapv(|x| x as f64)));
    found.unwrap_or_else(|| panic!("array '{name}' is neither float32 nor int64"))
}

/// The name of the array of an input (`in`) or output (`out`): the parts are told apart where a model has both of one name.
fn key(names: &[String], part: &str, name: &str) -> Option<String> {
    let all = [format!("{part}:{name}"), name.to_owned()];
    all.into_iter().find(|key| names.contains(key))
}

/// `values` as the type that the model takes.
fn as_type(values: &ArrayD<f64>, ty: &ElementType) -> Tensor {
    match ty {
        ElementType::F32 => values.mapv(|x| x as f32).into(),
        ElementType::F64 => values.clone().into(),
        ElementType::F16 => values.mapv(f16::from_f64).into(),
        ElementType::I64 => values.mapv(|x| x as i64).into(),
        other => panic!("{other}"),
    }
}

fn back(tensor: &Tensor) -> ArrayD<f64> {
    match tensor {
        Tensor::F32(a) => a.mapv(f64::from),
        Tensor::F64(a) => a.clone(),
        Tensor::F16(a) => a.mapv(f64::from),
        other => panic!("an output is {}", other.element_type()),
    }
}

/// Largest difference from the output that was recorded, relative to its largest value; `None` where none was.
fn difference(
    arrays: &mut Arrays,
    names: &[String],
    output: &str,
    got: &ArrayD<f64>,
) -> Option<f64> {
    let (expected, got): (ArrayD<f64>, Vec<f64>) = if let Some(whole) = key(names, "out", output) {
        let expected = floats(arrays, &whole);
        assert_eq!(got.shape(), expected.shape(), "{output}");
        (expected, got.iter().copied().collect())
    } else {
        let start = format!("out:{output}:every_");
        let every = names.iter().find(|name| name.starts_with(&start))?;
        let shape = read::<i64>(arrays, &format!("out:{output}:shape")).unwrap();
        let shape: Vec<usize> = shape.iter().map(|&size| usize::try_from(size).unwrap()).collect();
        assert_eq!(got.shape(), shape, "{output}");
        let step = every[start.len()..].parse().unwrap();
        (floats(arrays, every), got.iter().copied().step_by(step).collect())
    };
    assert_eq!(got.len(), expected.len(), "{output}");
    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let worst = expected.iter().zip(got).fold(0.0_f64, |most, (x, y)| {
        assert!(y.is_finite() || !x.is_finite(), "{output}");
        if x.is_finite() { most.max((x - y).abs()) } else { most }
    });
    Some(worst / largest.max(f64::MIN_POSITIVE))
}

#[test]
fn every_float_model_gives_what_was_recorded() {
    let Some(folder) = folder() else { return };
    if !has_library() {
        return;
    }
    let options =
        SessionOptions { threads: 1, optimize: Optimize::None, ..SessionOptions::default() };
    let (mut seen, mut failed) = (0, Vec::new());
    for (path, beside) in models(&folder) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut arrays = NpzReader::new(File::open(beside).unwrap()).unwrap();
        let names = arrays.names().unwrap();
        let mut session = Session::new(&path, &options).unwrap();
        let inputs: Vec<(String, Tensor)> = session
            .inputs()
            .iter()
            .map(|input| {
                let values = floats(&mut arrays, &key(&names, "in", &input.name).unwrap());
                (input.name.clone(), as_type(&values, &input.ty))
            })
            .collect();
        let inputs: Vec<(&str, Tensor)> =
            inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let outputs = session.run(&inputs).unwrap();
        let mut compared = 0;
        for (output, tensor) in &outputs {
            let found = difference(&mut arrays, &names, output, &back(tensor));
            let Some(worst) = found else { continue };
            compared += 1;
            // Half the numbers have a quarter of the digits.
            let most = if name.contains("fp16") { 2e-3 } else { 1e-5 };
            println!("{name}, {output}: {worst:.1e}");
            if worst > most {
                failed.push(format!("{name}, {output}: {worst:.1e}"));
            }
        }
        assert!(compared > 0, "{name}: no output was recorded");
        seen += 1;
    }
    assert_eq!(failed, Vec::<String>::new());
    assert!(seen > 40, "{seen} models");
}

#[test]
fn external_data_is_found_beside_the_file_alone() {
    let Some(folder) = folder() else { return };
    if !has_library() {
        return;
    }
    let path = folder.join("exported/resnet.external.onnx");
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    Session::new(&path, &options).unwrap();
    let alone = tempfile::tempdir().unwrap();
    let copy = alone.path().join("m.onnx");
    fs::copy(&path, &copy).unwrap();
    let error = Session::new(&copy, &options).unwrap_err();
    assert!(matches!(error, OrtError::Model { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("resnet.external.onnx.data") && !text.contains(".cc"), "{text}");
}

#[test]
fn optimized_models_give_nearly_the_same() {
    let Some(folder) = folder() else { return };
    if !has_library() {
        return;
    }
    let path = folder.join("exported/resnet20-cifar10.onnx");
    let run = |optimize, threads| {
        let options = SessionOptions { threads, optimize, ..SessionOptions::default() };
        let mut session = Session::new(&path, &options).unwrap();
        let name = session.inputs()[0].name.clone();
        let wave = |index: IxDyn| (0..4).map(|axis| index[axis] as f32).sum::<f32>().sin();
        let images = ArrayD::from_shape_fn(IxDyn(&[4, 3, 32, 32]), wave);
        let outputs = session.run(&[(&name, images.into())]).unwrap();
        back(&outputs[0].1)
    };
    let plain = run(Optimize::None, 1);
    let largest = plain.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    for threads in [1, 2, 0] {
        let optimized = run(Optimize::All, threads);
        let worst = (&optimized - &plain).iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        assert!(worst <= 1e-4 * largest, "{threads} threads: {worst}");
    }
}
