//! Every model of `exported`, `edge` and `third-party` that consists of known ops equals its reference; the others stand in `import.toml`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod import_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cp_onnx::{Binding, ImportOptions, Model};
use import_support::{arrays, check, compare, floats, folder};
use ndarray::{ArrayD, IxDyn};
use rayon::prelude::*;

fn models(folder: &Path) -> Vec<PathBuf> {
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

fn run(path: &Path) -> Result<(), String> {
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
    let outputs = network.eval(&views).map_err(|error| error.to_string())?;
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

#[test]
fn every_model_equals_its_reference() {
    let Some(folder) = folder() else { return };
    let paths: Vec<_> = models(&folder).into_iter().collect();
    let found = paths.par_iter().with_max_len(1).map(|path| (name(path), run(path))).collect();
    check("files", found);
}
