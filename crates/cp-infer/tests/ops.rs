//! Every op of cp-net with random settings, at every level, against its definition: those with kernels and those that run by the definition.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::{distance, evaluated, inputs, levels, none, run, single, views};
use cp_infer::{Compiled, Options};
use cp_net::{Draw, Network, Op};

/// Draws of settings for each op.
const DRAWS: u64 = 24;

#[test]
fn every_op_gives_what_it_is_defined_to_give() {
    let mut failures = Vec::new();
    for kind in Op::KINDS {
        for seed in 0..DRAWS {
            let mut draw = Draw::new(seed);
            let Some(sample) = Op::sample(kind, &mut draw) else { continue };
            let arch = single(sample.op.clone(), &sample.inputs);
            let mut net = arch.initialize(seed).unwrap();
            for name in net.params().keys().cloned().collect::<Vec<_>>() {
                let shape = net.params()[&name].shape().to_vec();
                let (least, most) = sample.values;
                // Variances are positive.
                let least = if name.ends_with("var") { 0.1 } else { least };
                net.set_param(&name, draw.array(&shape, (least, most))).unwrap();
            }
            let shapes = net.architecture().inputs.iter().map(|input| &input.shape);
            let x: Vec<_> = shapes
                .map(|shape| draw.array(&[&[3], &shape[..]].concat(), sample.values))
                .collect();
            let expected = evaluated(&net, &x);
            for (level, options) in levels() {
                let found = run(&net, &options, &x);
                for (found, expected) in found.iter().zip(&expected) {
                    let far = distance(found, expected);
                    if far > 1e-5 {
                        failures.push(format!("{kind} {seed} {level}: {far} {:?}", sample.op));
                    }
                }
            }
        }
    }
    none(&failures);
}

#[test]
fn what_has_a_kernel_is_known() {
    // For all settings, up to two spatial axes; a maxout has one only behind a layer, sums and products where one of two is a map.
    let expected = [
        "adaptive_avg_pool",
        "adaptive_max_pool",
        "avg_pool",
        "batch_norm",
        "clip",
        "concat",
        "constant",
        "conv",
        "cp_conv",
        "dropout",
        "flatten",
        "global_avg_pool",
        "global_max_pool",
        "hard_sigmoid",
        "hard_swish",
        "identity",
        "leaky_relu",
        "lrn",
        "max_pool",
        "relu",
        "reshape",
        "scale_shift",
        "sigmoid",
        "silu",
        "split",
        "squeeze",
        "tt_conv",
        "tucker_conv",
        "unsqueeze",
    ];
    let options = Options::default().fast_only(true);
    let is_fast = |kind: &&str| {
        (0..DRAWS).all(|seed| {
            let sample = Op::sample(kind, &mut Draw::new(seed)).unwrap();
            let arch = single(sample.op, &sample.inputs);
            let shapes = arch.shapes(arch.input_shapes()).unwrap();
            let is_map = shapes.iter().all(|(_, shape)| shape.len() <= 3);
            !is_map || Compiled::new(&arch.initialize(1).unwrap(), &options).is_ok()
        })
    };
    let found: Vec<&str> = Op::KINDS.iter().copied().filter(is_fast).collect();
    assert_eq!(found, expected);
}

#[test]
fn layers_without_a_kernel_are_refused_by_name() {
    let sample = Op::sample("erf", &mut Draw::new(1)).unwrap();
    let net: Network = single(sample.op, &sample.inputs).initialize(1).unwrap();
    let error = Compiled::new(&net, &Options::default().fast_only(true)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no fast kernel for layer (erf); leave `Options::fast_only` out to run them by their slow definitions"
    );
    let compiled = Compiled::new(&net, &Options::default()).unwrap();
    assert_eq!(compiled.steps()[0].algorithm, "reference");
    let x = inputs(&net, 2, 1);
    assert_eq!(compiled.run(&views(&x)).unwrap().len(), 1);
}
