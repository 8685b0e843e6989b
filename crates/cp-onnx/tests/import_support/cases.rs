//! The cases of the importer, whatever runs the networks that it makes.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses a part; a panic is how a test fails, in its helpers too"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use cp_net::Network;
use cp_onnx::{Binding, ImportOptions, Model};
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use rayon::prelude::*;

use super::{arrays, check, compare, floats, folder};

/// What runs a network on its inputs, in their order.
pub(crate) type Engine<'a> =
    &'a (dyn Fn(&Network, &[ArrayViewD<'_, f32>]) -> Result<Vec<ArrayD<f32>>, String> + Sync);

/// The archive, unpacked.
pub(crate) fn unpacked(folder: &Path) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    let file = File::open(folder.join("onnx-node-tests.tar.zst")).unwrap();
    let plain = zstd::Decoder::new(file).unwrap();
    tar::Archive::new(plain).unpack(target.path()).unwrap();
    target
}

/// Whether input `slot` of a test of `op` is a weight or a setting, not a value of each example.
fn is_setting(test: &str, slot: usize, input: &Binding, first: &Binding) -> bool {
    if slot == 0 {
        return false;
    }
    let (shape, first) = (floats(input).shape().to_vec(), floats(first).shape().to_vec());
    let each_example = |shape: &[usize]| shape.len() > 1 && shape.first() == first.first();
    match test {
        _ if test.contains("matmul") => !(shape.len() > 2 && each_example(&shape)),
        _ if test.contains("gemm") => !(slot == 2 && each_example(&shape)),
        _ if test.contains("prelu") || test.contains("conv") => true,
        _ => shape != first,
    }
}

fn node(path: &Path, engine: Engine<'_>) -> Result<(), String> {
    let model = Model::open(path.join("model.onnx")).unwrap();
    let data = arrays(&path.join("data.npz"));
    let test = path.file_name().unwrap().to_str().unwrap();
    let inputs: Vec<String> = model.inputs().into_iter().map(|input| input.name).collect();
    let mut options = ImportOptions::new();
    let mut fed: BTreeMap<String, ArrayD<f32>> = BTreeMap::new();
    for (slot, name) in inputs.iter().enumerate() {
        let input = &data[&format!("input_{slot}")];
        if is_setting(test, slot, input, &data["input_0"]) {
            options = options.bind(name, input.clone());
        } else {
            fed.insert(name.clone(), floats(input));
        }
    }
    let imported = model.import(&options).map_err(|error| error.to_string())?;
    let network = &imported.network;
    let inputs: Vec<_> =
        network.architecture().inputs.iter().map(|input| fed[&input.name].view()).collect();
    let outputs = engine(network, &inputs)?;
    assert_eq!(outputs.len(), model.outputs().len());
    let names: Vec<String> = model.outputs().into_iter().map(|output| output.name).collect();
    for (index, (name, got)) in names.iter().zip(&outputs).enumerate() {
        let expected = floats(&data[&format!("output_{index}")]);
        // The reference has four digits.
        let rounded = test == "test_averagepool_2d_ceil_last_window_starts_on_pad";
        compare(name, got, &expected, if rounded { 2e-4 } else { 1e-4 })?;
    }
    Ok(())
}

/// The archive's tests of `section`, run by `engine`.
pub(crate) fn nodes(section: &str, engine: Engine<'_>) {
    let Some(folder) = folder() else { return };
    let tests = unpacked(&folder);
    let mut paths: Vec<_> = fs::read_dir(tests.path().join(section))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let found = paths
        .par_iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), node(path, engine)))
        .collect();
    check(section, found);
}

/// The models of `exported`, `edge` and `third-party`.
pub(crate) fn models(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for part in ["third-party", "exported", "edge"] {
        for entry in fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "onnx") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().into()
}

/// The arrays beside a model; several models have those of one.
fn reference(path: &Path) -> BTreeMap<String, Binding> {
    let beside = path.with_extension("npz");
    let short = path.with_file_name(format!("{}.npz", name(path).split('.').next().unwrap()));
    arrays(if beside.exists() { &beside } else { &short })
}

fn file(path: &Path, engine: Engine<'_>) -> Result<(), String> {
    let model = Model::open(path).unwrap();
    let data = reference(path);
    let find = |prefix: &str, name: &str| {
        data.get(&format!("{prefix}{name}")).or_else(|| data.get(name)).cloned()
    };
    let mut options = ImportOptions::new();
    for input in model.inputs() {
        options = match find("in:", &input.name) {
            Some(Binding::Floats(array)) if array.ndim() > 0 => {
                options.input(input.name, &array.shape()[1..])
            }
            Some(other) => options.bind(input.name, other),
            None => options,
        };
    }
    let imported = model.import(&options).map_err(|error| error.to_string())?;
    let network = &imported.network;
    let specs = &network.architecture().inputs;
    let inputs: Vec<ArrayD<f32>> =
        specs.iter().map(|input| floats(&find("in:", &input.name).unwrap())).collect();
    let views: Vec<_> = inputs.iter().map(ArrayD::view).collect();
    let outputs = engine(network, &views)?;
    let most = if name(path).contains("fp16") { 2e-3 } else { 1e-4 };
    let names: Vec<String> = model.outputs().into_iter().map(|output| output.name).collect();
    for (output, got) in names.iter().zip(outputs) {
        if let Some(expected) = find("out:", output) {
            let mut expected = floats(&expected);
            // What does not depend on the example has a batch of 1 in the network.
            if got.ndim() == expected.ndim() + 1 {
                expected = expected.insert_axis(ndarray::Axis(0));
            }
            compare(output, &got, &expected, most)?;
            continue;
        }
        let every = format!("out:{output}:every_");
        let (key, expected) = data.iter().find(|(key, _)| key.starts_with(&every)).unwrap();
        let step: usize = key[every.len()..].parse().unwrap();
        let shape = floats(&data[&format!("out:{output}:shape")]);
        let shape: Vec<usize> = shape.iter().map(|&size| size as usize).collect();
        assert_eq!(got.shape(), shape);
        let sampled: Vec<f32> = got.iter().copied().step_by(step).collect();
        let sampled = ArrayD::from_shape_vec(IxDyn(&[sampled.len()]), sampled).unwrap();
        compare(output, &sampled, &floats(expected), most)?;
    }
    Ok(())
}

/// Every model of `exported`, `edge` and `third-party`, run by `engine`.
pub(crate) fn files(engine: Engine<'_>) {
    let Some(folder) = folder() else { return };
    let paths: Vec<_> = models(&folder).into_iter().collect();
    let found =
        paths.par_iter().with_max_len(1).map(|path| (name(path), file(path, engine))).collect();
    check("files", found);
}
