//! ONNX's own tests of single operators, and PyTorch's oldest exports: each is read as a network and equals its reference by the slow
//! definitions of the ops, or stands in `import.toml` with the reason why not.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod import_support;

use cp_net::{Network, Op};
use cp_onnx::{ImportOptions, Model};
use import_support::cases::{nodes, unpacked};
use import_support::{arrays, compare, floats, folder};
use ndarray::{ArrayD, ArrayViewD, Axis};

/// By the slow definitions of the ops.
fn eval(network: &Network, inputs: &[ArrayViewD<'_, f32>]) -> Result<Vec<ArrayD<f32>>, String> {
    network.eval(inputs).map_err(|error| error.to_string())
}

#[test]
fn tests_of_single_operators() {
    nodes("node", &eval);
}

#[test]
fn exports_of_opset_6_to_12() {
    nodes("classic", &eval);
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
