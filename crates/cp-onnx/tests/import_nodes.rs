//! ONNX's own tests of single operators, and PyTorch's oldest exports: each is read as a network and equals its reference by the slow
//! definitions of the ops, or stands in `import.toml` with the reason why not.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod import_support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;

use cp_net::Op;
use cp_onnx::{Binding, ImportOptions, Model};
use import_support::{arrays, check, compare, floats, folder};
use ndarray::{ArrayD, Axis};
use rayon::prelude::*;

/// The archive, unpacked.
fn unpacked(folder: &Path) -> tempfile::TempDir {
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

fn run(path: &Path) -> Result<(), String> {
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
    let outputs = network.eval(&inputs).map_err(|error| error.to_string())?;
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

fn run_all(section: &str) {
    let Some(folder) = folder() else { return };
    let tests = unpacked(&folder);
    let mut paths: Vec<_> = fs::read_dir(tests.path().join(section))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let found = paths
        .par_iter()
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), run(path)))
        .collect();
    check(section, found);
}

#[test]
fn tests_of_single_operators() {
    run_all("node");
}

#[test]
fn exports_of_opset_6_to_12() {
    run_all("classic");
}

/// Multiply-adds of convolutions and linear layers, and values of the convolutions' kernels, as the data's README has them.
const LIGHT: [(&str, usize, usize); 9] = [
    ("light_bvlc_alexnet", 654_560_384, 2_332_704),
    ("light_densenet121", 2_834_161_664, 7_894_208),
    ("light_inception_v1", 1_431_556_352, 5_966_272),
    ("light_inception_v2", 2_018_851_840, 10_150_080),
    ("light_resnet50", 4_089_184_256, 23_454_912),
    ("light_shufflenet", 124_664_528, 821_464),
    ("light_squeezenet", 349_151_936, 1_231_552),
    ("light_vgg19", 19_632_062_464, 20_018_880),
    ("light_zfnet512", 1_481_727_008, 6_526_752),
];

#[test]
fn costs_of_well_known_networks() {
    let Some(folder) = folder() else { return };
    let tests = unpacked(&folder);
    for (name, macs, kernels) in LIGHT {
        let model = Model::open(tests.path().join(format!("light/{name}.onnx"))).unwrap();
        let network = model.import(&ImportOptions::new()).unwrap().network;
        let cost = network.cost([3, 224, 224]).unwrap();
        let of_convs: usize = network
            .nodes()
            .iter()
            .filter(|node| matches!(node.op, Op::Conv(_)))
            .map(|node| network.kernel(&node.name).unwrap().len())
            .sum();
        assert_eq!((cost.total.macs, of_convs), (macs, kernels), "{name}");
    }
}

/// Examples do not know of each other: a batch of two is two batches of one.
#[test]
fn the_batch_is_free() {
    let Some(folder) = folder() else { return };
    let model = Model::open(folder.join("exported/audio1d.legacy.onnx")).unwrap();
    let network = model.import(&ImportOptions::new()).unwrap().network;
    let x = floats(&arrays(&folder.join("exported/audio1d.npz"))["input"]);
    let both = network.eval(&[x.view()]).unwrap().remove(0);
    for example in 0..x.len_of(Axis(0)) {
        let one = x.select(Axis(0), &[example]);
        let alone = network.eval(&[one.view()]).unwrap().remove(0);
        compare("output", &alone, &both.select(Axis(0), &[example]), 1e-6).unwrap();
    }
}
