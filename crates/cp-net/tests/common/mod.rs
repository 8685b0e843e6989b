//! Shared by the tests: seeded arrays, and a network run by the definitions of its ops.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test files, each of which uses a part of it"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cp_net::{Factors, Form, Network, Op, Rank};
use ndarray::{Array2, ArrayD, ArrayViewD, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The numbers of the original programs: `shared/golden` beside the workspace, or where `POLYAD_GOLDEN` says; without it, says so.
pub fn golden() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let folder = std::env::var_os("POLYAD_GOLDEN").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no golden data at {}", folder.display());
    None
}

/// Values in −1…1.
pub fn random(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0..1.0))
}

/// All outputs of a network for one batch, node by node in plain Rust.
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

/// Random factors for a layer: what a decomposition might give.
pub fn factors(
    net: &Network,
    layer: &str,
    form: Form,
    rank: impl Into<Rank>,
    seed: u64,
) -> Vec<Factors> {
    let rank = rank.into();
    let mut arch = net.architecture().clone();
    arch.factorize(layer, form, rank).unwrap();
    let groups = net.tensors(layer, form).unwrap().len();
    let parts = arch.factorized[layer].parts.clone();
    let parts: Vec<Op> = parts.iter().map(|part| arch.node(part).unwrap().op.clone()).collect();
    let weights: Vec<Vec<usize>> =
        parts.iter().filter_map(|op| Some(op.params().first()?.shape.clone())).collect();
    (0..groups)
        .map(|group| {
            let matrix = |(index, shape): (usize, &Vec<usize>)| {
                let columns: usize = shape[1..].iter().product();
                let array =
                    random(&[shape[0] / groups, columns], seed + (10 * group + index) as u64);
                array.into_dimensionality::<ndarray::Ix2>().unwrap() as Array2<f32>
            };
            let matrices = weights.iter().enumerate().map(matrix).collect();
            Factors::new(form, rank, matrices).with_order(orders(form, rank, &parts, groups, group))
        })
        .collect()
}

/// Orders that are neither as the channels come nor the same for every group: backwards, and turned by the group.
fn orders(form: Form, rank: Rank, parts: &[Op], groups: usize, group: usize) -> Vec<Vec<usize>> {
    let size = |place: usize| match &parts[place] {
        Op::Gather(gather) => gather.indices.len() / groups,
        other => panic!("{other:?}"),
    };
    let turned = |size: usize| (0..size).rev().map(|at| (at + group + 1) % size).collect();
    match form {
        Form::Denton | Form::DentonSvd => vec![turned(size(0)), turned(size(parts.len() - 1))],
        Form::Monochromatic => {
            let colours = rank.one().unwrap();
            vec![(0..size(1)).map(|filter| (filter * filter + 1) % colours).collect()]
        }
        _ => Vec::new(),
    }
}

/// The largest difference, relative to the largest value.
pub fn difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    let largest = b.iter().fold(1e-6_f32, |most, value| most.max(value.abs()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}
