//! Rewritings leave the function of a network as it is: sharing, factors in and out, folding.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

mod common;

use std::collections::BTreeMap;

use common::{difference, factors, random, run};
use cp_net::arch::{self, Builder, window};
use cp_net::{
    Add, Architecture, BatchNorm, Constant, Conv, CpConv, Draw, Form, INPUT, Identity, InputSpec,
    Mul, Network, Node, Op, Pad, Padding, Relu, Slice,
};
use ndarray::{ArrayD, Axis};

/// Random values everywhere, variances above 0.
fn filled(arch: &Architecture, seed: u64) -> Network {
    let params: BTreeMap<String, ArrayD<f32>> = arch
        .params()
        .enumerate()
        .map(|(index, (name, spec))| {
            let array = random(&spec.shape, seed + index as u64);
            let positive = spec.slot == "running_var";
            (name, if positive { array.mapv(|value| value.abs() + 0.5) } else { array })
        })
        .collect();
    Network::new(arch.clone(), params).unwrap()
}

fn input(arch: &Architecture, seed: u64) -> Vec<ArrayD<f32>> {
    arch.inputs.iter().map(|input| random(&[&[2], &input.shape[..]].concat(), seed)).collect()
}

/// `before` and its folded form give the same, and the folded form has these ops.
#[track_caller]
fn check_folded(before: &Architecture, kinds: &[&str]) {
    let net = filled(before, 3);
    let folded = net.folded().unwrap();
    let got: Vec<&str> = folded.nodes().iter().map(|node| node.op.kind()).collect();
    assert_eq!(got, kinds);
    assert_eq!(folded.architecture().outputs, before.outputs);
    let x = input(before, 5);
    for (a, b) in run(&folded, &x).iter().zip(&run(&net, &x)) {
        assert!(difference(a, b) < 1e-5, "{}", difference(a, b));
    }
    assert_eq!(folded.folded().unwrap(), folded, "a second run changes nothing");
}

fn builder(shape: [usize; 3]) -> Builder {
    Builder::new("net", InputSpec::features(shape))
}

#[test]
fn a_norm_goes_into_the_layer_in_front() {
    let pad = window(3).pad(1);
    check_folded(
        &builder([3, 5, 5]).conv("c", 4, pad).batch_norm("n").relu("r").build().unwrap(),
        &["conv", "relu"],
    );
    let bare = builder([4, 5, 5]).conv("c", 6, pad.no_bias().groups(2)).batch_norm("n");
    check_folded(&bare.build().unwrap(), &["conv"]);
    let up =
        builder([4, 5, 5]).conv_transpose("c", 6, window(2).stride(2).groups(2)).batch_norm("n");
    check_folded(&up.build().unwrap(), &["conv_transpose"]);
    check_folded(
        &builder([3, 2, 2]).flatten("f").linear("l", 5).batch_norm("n").build().unwrap(),
        &["flatten", "linear"],
    );
}

#[test]
fn channels_of_zeros_are_made_by_a_convolution() {
    let every = |axis, start| Slice { axis, start, end: None, step: 2 };
    let zeros = || Pad::zeros(vec![1, 0, 0], vec![2, 0, 0]);
    let net = builder([3, 5, 6]).relu("r").op("rows", every(1, 0)).op("columns", every(2, 0));
    check_folded(&net.op("pad", zeros()).relu("s").build().unwrap(), &["relu", "conv", "relu"]);
    check_folded(&builder([3, 5, 6]).op("pad", zeros()).build().unwrap(), &["conv"]);
    // From the second row on it is none; nor where the slice is read by something else, or pixels are added.
    let net = builder([3, 5, 6]).op("rows", every(1, 1)).op("pad", zeros());
    check_folded(&net.build().unwrap(), &["slice", "conv"]);
    let mut net = builder([3, 5, 6]).op("rows", every(1, 0)).op("pad", zeros()).build().unwrap();
    net.outputs.push("rows".into());
    check_folded(&net, &["slice", "conv"]);
    let around = Pad::zeros(vec![1, 1, 0], vec![0, 0, 0]);
    check_folded(&builder([3, 5, 6]).op("pad", around).build().unwrap(), &["pad"]);
}

#[test]
fn a_norm_goes_into_the_layer_behind() {
    check_folded(
        &builder([3, 5, 5]).relu("r").batch_norm("n").conv("c", 4, window(3)).build().unwrap(),
        &["relu", "conv"],
    );
    check_folded(
        &builder([4, 5, 5]).batch_norm("n").conv("c", 4, window(1).groups(2)).build().unwrap(),
        &["conv"],
    );
}

/// Where neither is possible: zeros around the map are not shifted; somebody else reads the value; it is an output; the axes differ.
#[test]
fn else_a_norm_becomes_a_scale_and_a_shift() {
    let padded = builder([3, 5, 5]).batch_norm("n").conv("c", 4, window(3).pad(1));
    check_folded(&padded.build().unwrap(), &["scale_shift", "conv"]);
    let read_twice = builder([3, 5, 5]).conv("c", 3, window(1)).batch_norm("n").add("a", "c");
    check_folded(&read_twice.build().unwrap(), &["conv", "scale_shift", "add"]);
    let put_out = builder([3, 5, 5]).conv("c", 3, window(1)).batch_norm("n").outputs(&["c", "n"]);
    check_folded(&put_out.build().unwrap(), &["conv", "scale_shift"]);
    let rows = builder([3, 5, 4]).linear("l", 4).batch_norm("n");
    check_folded(&rows.build().unwrap(), &["linear", "scale_shift"]);
}

/// A norm without a shift goes behind into a layer that pads.
#[test]
fn zeros_stay_zeros_without_a_shift() {
    let arch = builder([3, 5, 5]).batch_norm("n").conv("c", 4, window(3).pad(1)).build().unwrap();
    let mut net = filled(&arch, 3);
    for name in ["n.bias", "n.running_mean"] {
        net.set_param(name, ArrayD::zeros(vec![3])).unwrap();
    }
    let folded = net.folded().unwrap();
    assert_eq!(folded.nodes().len(), 1);
    let x = input(&arch, 5);
    assert!(difference(&run(&folded, &x)[0], &run(&net, &x)[0]) < 1e-5);
}

/// One norm and one kernel in two places: each place gets arrays of its own, and the others keep theirs.
#[test]
fn shared_arrays_are_copied_first() {
    let arch = builder([3, 5, 5])
        .conv("c", 3, window(3).pad(1))
        .batch_norm("n")
        .relu("r")
        .shared("d", Conv { padding: Padding::symmetric([1, 1]), ..Conv::new(3, 3, [3, 3]) }, "c")
        .shared("m", BatchNorm::new(3), "n")
        .build()
        .unwrap();
    assert_eq!(arch.param_count(), 3 * 27 + 3 + 6);
    check_folded(&arch, &["conv", "relu", "conv"]);
}

#[test]
fn what_does_nothing_goes_and_constants_are_computed() {
    let constant = |shape: &[usize]| Constant { shape: shape.to_vec(), trained: false };
    let arch = Architecture::new(
        "net",
        InputSpec::features([3, 4, 4]),
        vec![
            Node::new("two", constant(&[3, 1, 1]), [""; 0]),
            Node::new("three", constant(&[1]), [""; 0]),
            Node::new("sum", Add {}, ["two", "three"]),
            Node::new("same", Identity {}, ["sum"]),
            Node::new("scaled", Mul {}, ["input", "same"]),
            Node::new("relu", Relu {}, ["scaled"]),
            Node::new("out", Identity {}, ["relu"]),
        ],
    );
    check_folded(&arch, &["constant", "mul", "relu"]);
    // The network's own input stays readable under the output's name.
    let through = Architecture::new(
        "net",
        InputSpec::features([3, 4, 4]),
        vec![Node::new("out", Identity {}, ["input"])],
    );
    check_folded(&through, &["identity"]);
}

#[test]
fn whole_networks_fold() {
    for (name, size) in [("resnet20", 8), ("resnet18", 32)] {
        let arch = arch::by_name(name).unwrap().with_input_shape([3, size, size]).unwrap();
        let net = filled(&arch, 7);
        let folded = net.folded().unwrap();
        assert!(
            !folded.architecture().has_op(|op| matches!(op, Op::BatchNorm(_) | Op::ScaleShift(_))),
            "{name}"
        );
        let x = vec![random(&[&[1], &arch.input().shape[..]].concat(), 1)];
        let worst = difference(&run(&folded, &x)[0], &run(&net, &x)[0]);
        assert!(worst < 1e-4, "{name}: {worst}");
    }
}

/// Two layers, one kernel, other strides; a bias of each its own.
fn two_of_a_kind() -> Architecture {
    let conv = |stride: usize| Conv {
        stride: vec![stride; 2],
        padding: Padding::symmetric([1, 1]),
        ..Conv::new(4, 4, [3, 3])
    };
    let mut second = Node::new("b", conv(2), ["a"]);
    second.params.insert("weight".into(), "a.weight".into());
    let nodes = vec![Node::new("a", conv(1), ["input"]), second];
    Architecture::new("net", InputSpec::features([4, 6, 6]), nodes)
}

#[test]
fn factors_go_into_all_layers_of_a_kernel_and_out_again() {
    let net = filled(&two_of_a_kind(), 1);
    assert_eq!(net.architecture().kernel_layers().count(), 1);
    for (asked, form) in [("a", Form::Cp3), ("b", Form::Cp4), ("b", Form::Tucker2)] {
        let mut factorized = net.clone();
        let given = match form {
            Form::Tucker2 => tucker(&net),
            _ => factors(&net, "a", form, 3, 9),
        };
        factorized.put_factors(asked, &given, 0.5).unwrap();
        assert_eq!(factorized.factors(asked).unwrap(), given);
        let arch = factorized.architecture();
        assert_eq!(arch.factorized.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(arch.node("b.reduce").unwrap().param("weight"), "a.reduce.weight");
        assert_eq!(arch.node("b.expand").unwrap().param("bias"), "b.expand.bias");
        assert_eq!(arch.outputs, ["b"]);
        // Multiply-adds in both places, parameters once.
        let cost = factorized.cost([4, 6, 6]).unwrap();
        let alone = |layer: &str| cost.layer(layer).unwrap().cost;
        assert!(alone("a").params > alone("b").params && alone("b").params == 4);
        assert!(alone("b").macs > 0);
        // The dense kernel that the factors stand for, in both places.
        let mut dense = factorized.clone();
        dense.densify(asked).unwrap();
        let names: Vec<&String> = dense.params().keys().collect();
        assert_eq!(names, ["a.bias", "a.weight", "b.bias"]);
        assert_eq!(dense.architecture(), net.architecture());
        let x = input(net.architecture(), 2);
        let worst = difference(&run(&dense, &x)[0], &run(&factorized, &x)[0]);
        assert!(worst < 1e-4, "{form}: {worst}");
    }
}

fn tucker(net: &Network) -> Vec<cp_net::Factors> {
    let shapes = [[2, 4], [3, 18], [4, 3]];
    let _ = net;
    let parts = shapes.iter().enumerate().map(|(index, shape)| {
        random(shape, index as u64).into_dimensionality::<ndarray::Ix2>().unwrap()
    });
    vec![cp_net::Factors::new(Form::Tucker2, [3, 2], parts.collect())]
}

#[test]
fn layers_part_company() {
    let net = filled(&two_of_a_kind(), 1);
    let x = input(net.architecture(), 2);
    for layer in ["a", "b"] {
        let mut apart = net.clone();
        assert_eq!(apart.unshare(layer).unwrap(), 1);
        assert_eq!(apart.params()["a.weight"], apart.params()["b.weight"]);
        assert_eq!(run(&apart, &x), run(&net, &x));
        assert_eq!(apart.unshare(layer).unwrap(), 0);
        apart.put_factors("a", &factors(&net, "a", Form::Cp3, 3, 9), 0.5).unwrap();
        assert_eq!(apart.architecture().node("b").unwrap().op.kind(), "conv");
    }
}

#[test]
fn a_replacement_keeps_the_value_and_its_shape() {
    let mut arch = two_of_a_kind();
    arch.replace(
        "a",
        vec![Node::new("first", Relu {}, ["input"]), Node::new("second", Relu {}, ["first"])],
    )
    .unwrap();
    assert_eq!(arch.node("second").unwrap().outputs, ["a"]);
    let before = arch.clone();
    let smaller = Conv { stride: vec![2; 2], ..Conv::new(4, 4, [3, 3]) };
    let error = arch
        .replace("second", vec![Node::new("third", smaller, ["first"])])
        .unwrap_err()
        .to_string();
    assert!(error.contains("[4, 2, 2] instead of [4, 6, 6]"), "{error}");
    assert_eq!(arch, before, "nothing changes then");
}

/// The terms of a layer: their norms, and that the network is their sum.
#[test]
fn a_cp_layer_is_the_sum_of_its_terms() {
    let dense =
        Conv { padding: Padding::symmetric([1, 0]), bias: false, ..Conv::new(3, 4, [3, 2]) };
    let op = CpConv { weights: true, ..CpConv::of(&dense, 5) };
    let pointwise = CpConv { bias: true, ..CpConv::of(&Conv::new(4, 6, [1, 1]), 2) };
    let nodes = vec![Node::new("conv", op, [INPUT]), Node::new("mix", pointwise, ["conv"])];
    let arch = Architecture::new("two", InputSpec::features([3, 6, 5]), nodes);
    let mut draw = Draw::new(3);
    let params = arch.params().map(|(name, spec)| (name, draw.array(&spec.shape, (-1.0, 1.0))));
    let params = params.collect();
    let net = Network::new(arch, params).unwrap();
    let x = draw.array(&[2, 3, 6, 5], (-1.0, 1.0));
    let run = |net: &Network| net.eval(&[x.view()]).unwrap().remove(0);
    let expected = run(&net);
    let worst = |a: &ArrayD<f32>, b: &ArrayD<f32>| {
        (a - b).iter().fold(0.0_f32, |worst, d| worst.max(d.abs()))
    };

    let factorized = net.with_cp_layers().unwrap();
    assert_eq!(factorized.cp_layers(), ["conv", "mix"]);
    assert!(worst(&run(&factorized), &expected) < 1e-4);

    let column = |name: &str, term: usize| net.params()[name].index_axis(Axis(1), term).to_owned();
    let norm = |a: &ArrayD<f32>| a.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt();
    let terms = factorized.terms("conv").unwrap();
    assert_eq!(terms.len(), 5);
    for (index, term) in terms.iter().enumerate() {
        let names = ["output", "input", "axis0", "axis1"].map(|slot| format!("conv.{slot}"));
        let product: f64 = names.iter().map(|name| norm(&column(name, index))).product();
        let lambda = product * f64::from(net.params()["conv.weights"][[index]].abs());
        assert!((term.lambda - lambda).abs() < 1e-5 * lambda, "{} {lambda}", term.lambda);
        assert!((term.input - norm(&column("conv.input", index))).abs() < 1e-5);
        let (rows, columns) = (column("conv.axis0", index), column("conv.axis1", index));
        let size = (norm(&rows) * norm(&columns)) as f32;
        for ((i, j), value) in
            term.pattern.clone().into_dimensionality::<ndarray::Ix2>().unwrap().indexed_iter()
        {
            assert!((value - rows[[i]] * columns[[j]] / size).abs() < 1e-5);
        }
    }
    assert_eq!(factorized.terms("mix").unwrap()[0].pattern.len(), 0);

    // A network without a term has a zero where the term had its λ.
    let mut fewer = net.clone();
    let mut weights = net.params()["conv.weights"].clone();
    weights[[1]] = 0.0;
    weights[[4]] = 0.0;
    fewer.set_param("conv.weights", weights).unwrap();
    let without = factorized.without_terms("conv", &[4, 1]).unwrap();
    assert!(worst(&run(&without), &run(&fewer)) < 1e-4);
    assert!(worst(&run(&without), &expected) > 1e-2);
    assert!(net.terms("conv").is_err());
}
