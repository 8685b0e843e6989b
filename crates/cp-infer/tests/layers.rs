//! Convolutions of many shapes and their factorized forms, at every level, exactly: in small whole numbers all sums are.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::{
    distance, evaluated, initialized, inputs as inputs_of, levels, none, run, single, views,
    whole_inputs, whole_numbers,
};
use cp_infer::{Compiled, Options};
use cp_net::{
    Add, Architecture, Conv, Form, InputSpec, Linear, Network, Node, Padding, Rank, Relu,
};

/// A convolution: channels in and out, groups, kernel, stride, dilation, padding, and the size of the map.
#[derive(Clone)]
struct Case {
    channels: [usize; 2],
    groups: usize,
    kernel: Vec<usize>,
    stride: Vec<usize>,
    dilation: Vec<usize>,
    padding: Padding,
    size: Vec<usize>,
}

impl Case {
    fn arch(&self) -> Architecture {
        let conv = Conv {
            groups: self.groups,
            stride: self.stride.clone(),
            dilation: self.dilation.clone(),
            padding: self.padding.clone(),
            ..Conv::new(self.channels[0], self.channels[1], self.kernel.clone())
        };
        single(conv, &[[&[self.channels[0]], &self.size[..]].concat()])
    }
}

/// Without dilation, and padded alike on both sides.
fn case(
    channels: [usize; 2],
    kernel: [usize; 2],
    stride: usize,
    pad: usize,
    size: [usize; 2],
) -> Case {
    Case {
        channels,
        groups: 1,
        kernel: kernel.to_vec(),
        stride: vec![stride; 2],
        dilation: vec![1; 2],
        padding: Padding::symmetric([pad; 2]),
        size: size.to_vec(),
    }
}

/// Compares for 1 and 3 images at every level; what differs.
fn differences(net: &Network) -> Vec<String> {
    let mut failures = Vec::new();
    for images in [1, 3] {
        let x = whole_inputs(net, images, 7);
        let expected = evaluated(net, &x);
        for (level, options) in levels() {
            let found = run(net, &options, &x);
            if found != expected {
                let wrong = found[0]
                    .iter()
                    .zip(&expected[0])
                    .filter(|(a, b)| (*a - *b).abs() > 0.0)
                    .count();
                failures
                    .push(format!("{level}, {images} images: {wrong} of {}", expected[0].len()));
            }
        }
    }
    failures
}

/// Runs all cases, `change`d into networks, and fails with all that differ.
fn check(cases: Vec<Case>, change: impl Fn(Architecture) -> Option<Architecture>) {
    let mut failures = Vec::new();
    for case in cases {
        let arch = case.arch();
        let op = arch.nodes[0].op.clone();
        let Some(arch) = change(arch) else { continue };
        let net = whole_numbers(&arch, 3);
        failures.extend(differences(&net).into_iter().map(|what| format!("{what}: {op:?}")));
    }
    none(&failures);
}

/// Shapes around the edges of tiles, blocks and panels.
fn shapes() -> Vec<Case> {
    let mut cases = Vec::new();
    // Channels around a block and a panel, widths around a tile.
    for inputs in [1, 3, 5, 16, 17, 33] {
        for outputs in [1, 15, 16, 17, 32, 40] {
            cases.push(case([inputs, outputs], [3, 3], 1, 1, [5, 9]));
        }
    }
    for width in [1, 2, 3, 6, 7, 8, 13, 14, 15, 27, 28, 29] {
        cases.push(case([3, 17], [3, 3], 1, 1, [3, width]));
        cases.push(case([16, 17], [3, 3], 1, 1, [4, width]));
        cases.push(case([20, 33], [1, 1], 1, 0, [2, width]));
    }
    // Windows.
    for kernel in [[1, 1], [1, 3], [2, 2], [3, 1], [5, 5], [7, 4]] {
        for stride in [1, 2, 3] {
            for pad in [0, 1, 2] {
                cases.push(case([3, 16], kernel, stride, pad, [10, 9]));
                cases.push(case([17, 16], kernel, stride, pad, [9, 16]));
            }
        }
    }
    // Rows and columns that differ in everything, more rows than a strip has, and several images a strip.
    let uneven = Case {
        channels: [18, 20],
        groups: 1,
        kernel: vec![3, 2],
        stride: vec![1, 2],
        dilation: vec![2, 3],
        padding: Padding::Each(vec![[0, 3], [4, 1]]),
        size: vec![11, 15],
    };
    let plain = Case { channels: [3, 20], size: vec![13, 17], ..uneven.clone() };
    cases.extend([uneven, plain]);
    cases.push(case([48, 16], [3, 3], 1, 1, [80, 16]));
    cases.push(case([3, 16], [3, 3], 2, 1, [90, 90]));
    cases.push(case([16, 16], [3, 3], 1, 1, [4, 4]));
    cases.push(case([16, 16], [3, 3], 2, 1, [4, 3]));
    // One axis.
    for (kernel, stride, size) in [(1, 1, 40), (3, 1, 5), (9, 2, 64), (4, 3, 31)] {
        cases.push(Case {
            channels: [5, 18],
            groups: 1,
            kernel: vec![kernel],
            stride: vec![stride],
            dilation: vec![2],
            padding: Padding::Each(vec![[kernel - 1, 1]]),
            size: vec![size],
        });
    }
    cases
}

#[test]
fn dense() {
    check(shapes(), Some);
}

#[test]
fn groups() {
    let grouped = |channels, groups, kernel: [usize; 2], stride, size| Case {
        groups,
        ..case(channels, kernel, stride, kernel[0] / 2, size)
    };
    let mut cases = Vec::new();
    for (channels, groups) in [
        ([32, 64], 2),
        ([6, 9], 3),
        ([40, 24], 4),
        ([96, 96], 3),
        ([5, 10], 5),
        ([34, 34], 17),
        ([64, 16], 16),
    ] {
        cases.push(grouped(channels, groups, [3, 3], 1, [6, 8]));
        cases.push(grouped(channels, groups, [1, 1], 1, [3, 5]));
        cases.push(grouped(channels, groups, [3, 3], 2, [7, 6]));
    }
    // Depthwise.
    for channels in [2, 16, 19, 48] {
        for kernel in [[1, 1], [3, 3], [5, 5], [3, 1], [1, 7], [9, 9]] {
            for stride in [1, 2, 3] {
                cases.push(grouped([channels; 2], channels, kernel, stride, [11, 13]));
            }
        }
    }
    cases.push(Case { dilation: vec![2, 3], ..grouped([20; 2], 20, [3, 3], 1, [9, 12]) });
    // Taller than a strip of a depthwise convolution by itself.
    cases.push(grouped([16; 2], 16, [3, 3], 1, [70, 60]));
    check(cases, Some);
}

/// Cases whose layer is replaced by a form of a rank that the closure gives; all must run as `algorithm`.
fn factorized(cases: Vec<Case>, form: Form, rank: impl Fn(&Conv) -> Rank, algorithm: &str) {
    let change = |mut arch: Architecture| {
        let cp_net::Op::Conv(conv) = &arch.nodes[0].op else { return None };
        let rank = rank(conv);
        arch.factorize("layer", form, rank).ok()?;
        let net = arch.initialize(1).unwrap();
        let steps = Compiled::new(&net, &Options::default()).unwrap().steps();
        assert!(steps.iter().any(|step| step.algorithm == algorithm), "{steps:?}");
        Some(arch)
    };
    check(cases, change);
}

#[test]
fn cp3() {
    for rank in [2, 7, 16, 33] {
        factorized(shapes(), Form::Cp3, |_| rank.into(), "chain");
    }
}

#[test]
fn cp4() {
    for rank in [5, 32] {
        let two_axes = shapes().into_iter().filter(|case| case.kernel.len() == 2).collect();
        factorized(two_axes, Form::Cp4, |_| rank.into(), "chain");
    }
}

#[test]
fn tall_chains_go_round_the_ring() {
    let mut cases = Vec::new();
    for (kernel, stride) in [([3, 3], 1), ([3, 3], 2), ([5, 3], 1), ([2, 2], 3), ([9, 9], 1)] {
        for size in [[40, 7], [33, 20], [30, 57], [23, 60]] {
            cases.push(case([20, 17], kernel, stride, kernel[0] / 2, size));
        }
    }
    let grouped = Case { groups: 2, ..case([32, 48], [3, 3], 1, 1, [20, 20]) };
    cases.push(grouped);
    factorized(cases.clone(), Form::Cp3, |_| 19.into(), "chain");
    factorized(cases, Form::Cp4, |_| 19.into(), "chain");
}

#[test]
fn other_forms() {
    let cases =
        || vec![case([33, 40], [3, 3], 1, 1, [9, 10]), case([18, 20], [5, 5], 2, 2, [11, 30])];
    factorized(cases(), Form::Tucker2, |_| [17, 9].into(), "direct");
    factorized(cases(), Form::TkdCpd, |_| [12, 17, 21].into(), "chain");
    let pointwise =
        vec![case([40, 33], [1, 1], 1, 0, [5, 9]), case([40, 33], [1, 1], 2, 0, [8, 9])];
    factorized(pointwise, Form::LowRank, |_| 11.into(), "pointwise");
}

#[test]
fn linear_layers() {
    let mut failures = Vec::new();
    for (inputs, outputs) in [(1, 1), (16, 16), (17, 40), (300, 10), (64, 1000)] {
        let linear = Linear { in_features: inputs, out_features: outputs, bias: true };
        let net = whole_numbers(&single(linear, &[vec![inputs]]), 3);
        failures.extend(differences(&net));
    }
    none(&failures);
}

/// Dense 3×3 layers by Winograd's transform, at every level, within 1e-4 of the definition; with a sum and an activation behind.
#[test]
fn winograd() {
    let mut failures = Vec::new();
    for ([inputs, outputs], size, pads) in [
        ([32, 64], [12, 12], [[1, 1], [1, 1]]),
        ([33, 65], [13, 19], [[1, 1], [1, 1]]),
        ([70, 33], [16, 30], [[0, 0], [0, 2]]),
        ([64, 48], [50, 33], [[2, 1], [0, 1]]),
        ([48, 300], [14, 14], [[1, 1], [1, 1]]),
    ] {
        let padding = Padding::Each(pads.to_vec());
        let conv = Conv { padding, ..Conv::new(inputs, outputs, vec![3; 2]) };
        let mut arch = single(conv, &[[&[inputs], &size[..]].concat()]);
        let made = arch.shapes(arch.input_shapes()).unwrap().get("layer").unwrap().to_vec();
        arch.inputs.push(InputSpec::features(made).named("other"));
        arch.nodes.push(Node::new("sum", Add {}, ["layer", "other"]));
        arch.nodes.push(Node::new("relu", Relu {}, ["sum"]));
        arch.outputs = vec!["relu".into()];
        let net = initialized(&arch, 3);
        let x = inputs_of(&net, 2, 5);
        let expected = evaluated(&net, &x);
        for (level, options) in levels() {
            let compiled = Compiled::new(&net, &options).unwrap();
            assert!(compiled.steps().iter().any(|step| step.algorithm == "winograd"));
            let far = distance(&compiled.run(&views(&x)).unwrap()[0], &expected[0]);
            if far > 1e-4 {
                failures.push(format!("{level} {inputs}→{outputs} {size:?}: {far}"));
            }
        }
    }
    none(&failures);
}
