//! Networks written as ONNX models: every op, every architecture, and back again.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::collections::BTreeMap;

use common::{Case, case, check_models, factors, inputs, run, runs};
use cp_net::{
    Add, Architecture, BatchNorm, Concat, Constant, Conv, Draw, Form, InputSpec, Linear, Lrn,
    Network, Node, Op, PRelu, Relu, ScaleShift, arch,
};
use cp_onnx::{
    Dim, ExportOptions, METADATA_KEY, Model, NETWORK_KEY, OPSETS, OnnxError, export,
    exported_network,
};
use ndarray::ArrayD;

const SEEDS: u64 = 16;

/// The lowest, the default and the highest opset.
fn opsets() -> [i64; 3] {
    [*OPSETS.start(), ExportOptions::default().opset, *OPSETS.end()]
}

/// `seed`'s settings of the op `kind` as a network, and inputs for it.
fn one_node(kind: &str, seed: u64) -> (Network, Vec<ArrayD<f32>>) {
    let mut draw = Draw::new(seed);
    let sample = Op::sample(kind, &mut draw).unwrap();
    let mut specs: Vec<InputSpec> = (sample.inputs.iter().enumerate())
        .map(|(index, shape)| InputSpec::features(shape.clone()).named(format!("in{index}")))
        .collect();
    let read: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
    let mut arrays: Vec<ArrayD<f32>> = (sample.inputs.iter())
        .map(|shape| draw.array(&[&[2], shape.as_slice()].concat(), sample.values))
        .collect();
    if specs.is_empty() {
        specs.push(InputSpec::features([1]).named("unused"));
        arrays.push(ArrayD::zeros(vec![2, 1]));
    }
    let node = Node::new("node", sample.op, read);
    let params: BTreeMap<String, ArrayD<f32>> = node
        .param_specs()
        .map(|(name, spec)| (name, draw.array(&spec.shape, sample.values)))
        .collect();
    let mut arch = Architecture::new(kind, specs[0].clone(), vec![node]);
    arch.inputs = specs;
    (Network::new(arch, params).unwrap(), arrays)
}

fn with_opset(net: &Network, opset: i64) -> Model {
    export(net, &ExportOptions { opset, ..ExportOptions::default() }).unwrap()
}

#[test]
fn every_op_in_every_opset() {
    if !runs() {
        return;
    }
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for kind in Op::KINDS {
        for seed in 0..SEEDS {
            let (net, inputs) = one_node(kind, seed);
            let outputs = run(&net, &inputs);
            for opset in opsets() {
                let label = format!("{kind}, seed {seed}, opset {opset}: {:?}", net.nodes()[0].op);
                cases.push(case(label, with_opset(&net, opset), &net, &inputs));
                expected.push(outputs.clone());
            }
            let folded = ExportOptions { fold: true, ..ExportOptions::default() };
            let label = format!("{kind}, seed {seed}, folded: {:?}", net.nodes()[0].op);
            cases.push(case(label, export(&net, &folded).unwrap(), &net, &inputs));
            expected.push(outputs);
        }
    }
    check_models(&cases, &expected, 1e-4);
}

/// The usual exponent is roots where the model is only to run, over maps of any number of axes.
#[test]
fn local_response_normalization_by_roots() {
    if !runs() {
        return;
    }
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    for shape in [&[7][..], &[7, 5], &[7, 5, 4], &[7, 3, 2, 4]] {
        for size in 1..=6 {
            let lrn = Lrn { size, alpha: 0.5, beta: 0.75, k: 2.0 };
            let input = InputSpec::features(shape.to_vec());
            let node = Node::new("node", lrn, [cp_net::INPUT]);
            let arch = Architecture::new("lrn", input, vec![node]);
            let net = Network::new(arch, BTreeMap::new()).unwrap();
            let inputs = [Draw::new(size as u64).array(&[&[2], shape].concat(), (-3.0, 3.0))];
            let folded = ExportOptions { fold: true, ..ExportOptions::default() };
            let model = export(&net, &folded).unwrap();
            cases.push(case(format!("{shape:?}, {size}"), model, &net, &inputs));
            expected.push(run(&net, &inputs));
        }
    }
    check_models(&cases, &expected, 1e-5);
}

#[test]
fn every_op_comes_back() {
    for kind in Op::KINDS {
        for seed in 0..SEEDS {
            let (net, _) = one_node(kind, seed);
            for opset in opsets() {
                let bytes = with_opset(&net, opset).encode();
                let again = exported_network(&Model::decode(bytes).unwrap()).unwrap();
                assert_eq!(again.as_ref(), Some(&net), "{kind}, seed {seed}, opset {opset}");
            }
        }
    }
}

#[test]
fn every_architecture_comes_back() {
    for name in arch::names() {
        let net = arch::by_name(name).unwrap().initialize(3).unwrap();
        let model = export(&net, &ExportOptions::default()).unwrap();
        assert!(exported_network(&model).unwrap() == Some(net.clone()), "{name}");
        // What can be compressed there can be compressed here, under the same names.
        let layers = model.layers().unwrap();
        let names: Vec<String> = layers.iter().map(|layer| layer.name.clone()).collect();
        let mut known = net.architecture().compressible();
        // Shortcuts without parameters are written as convolutions.
        let more = |node: &&Node| match &node.op {
            Op::ConvTranspose(_) => true,
            Op::Pad(_) => node.name.ends_with("shortcut"),
            _ => false,
        };
        known.extend(net.nodes().iter().filter(more).map(|node| node.name.clone()));
        // And layers whose parameters are factors as the convolutions that they run as, the last of which has their name.
        let shapes = net.shapes(net.architecture().input_shapes()).unwrap();
        for layer in net.nodes().iter().filter(|node| !node.op.ways().is_empty()) {
            let input = shapes.get(&layer.inputs[0]).unwrap();
            let ways = layer.op.ways().into_iter();
            let Some(way) = ways.min_by_key(|way| way.macs(input)) else { continue };
            let inner = way.parts.iter().rev().skip(1);
            known.extend(inner.map(|part| format!("{}.{}", layer.name, part.suffix)));
            known.push(layer.name.clone());
        }
        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(names), sorted(known), "{name}");
        if net.param_count() > 30_000_000 {
            continue;
        }
        let folded = ExportOptions { fold: true, ..ExportOptions::default() };
        let model = export(&net, &folded).unwrap();
        assert!(exported_network(&model).unwrap() == Some(net.folded().unwrap()), "{name}");
    }
}

#[test]
fn small_architectures_are_equal() {
    if !runs() {
        return;
    }
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    let channelnets = [
        ("v1", "topology=paper"),
        ("v2", "topology=released"),
        ("v3", "topology=paper"),
        ("v3", "topology=released"),
        ("v3", "classifier=unshared"),
    ];
    let small = "channels=4/8/16/16/32/64, resolution=64, classes=10";
    let channelnets =
        channelnets.map(|(version, more)| format!("channelnet-{version}({more}, {small})"));
    let names = ["small-cnn", "charnet", "resnet20"].into_iter();
    for name in names.chain(channelnets.iter().map(String::as_str)) {
        let net = arch::by_name(name).unwrap().initialize(5).unwrap();
        let inputs = inputs(&net, &mut Draw::new(1));
        let outputs = run(&net, &inputs);
        for opset in opsets() {
            for fold in [false, true] {
                let options = ExportOptions { opset, fold, ..ExportOptions::default() };
                let label = format!("{name}, opset {opset}, fold {fold}");
                cases.push(case(label, export(&net, &options).unwrap(), &net, &inputs));
                expected.push(outputs.clone());
            }
        }
    }
    check_models(&cases, &expected, 1e-4);
}

/// Larger ones for small inputs, against what they come to after folding.
#[test]
fn large_architectures_run() {
    if !runs() {
        return;
    }
    let mut cases = Vec::new();
    for name in arch::names() {
        let net = arch::by_name(name).unwrap().initialize(5).unwrap();
        if net.param_count() > 10_000_000 {
            continue;
        }
        let inputs = inputs(&net, &mut Draw::new(1));
        for fold in [false, true] {
            let options = ExportOptions { fold, ..ExportOptions::default() };
            let model = export(&net, &options).unwrap();
            cases.push(case(format!("{name}, fold {fold}"), model, &net, &inputs));
        }
    }
    let outputs = common::run_models(&cases);
    for (case, outputs) in cases.chunks(2).zip(outputs.chunks(2)) {
        let [dense, folded] = [0, 1].map(|index| outputs[index].clone().unwrap());
        for (dense, folded) in dense.iter().zip(&folded) {
            let difference = common::difference(folded, dense);
            assert!(difference < 1e-4, "{}: {difference}", case[0].label);
        }
    }
}

#[test]
fn weights_in_half_precision() {
    let net = arch::by_name("small-cnn").unwrap().initialize(5).unwrap();
    let options = ExportOptions { half: true, ..ExportOptions::default() };
    let model = export(&net, &options).unwrap();
    let whole = export(&net, &ExportOptions::default()).unwrap();
    assert!(model.encode().len() < whole.encode().len() * 6 / 10);
    let rounded = exported_network(&model).unwrap().unwrap();
    assert_eq!(rounded.architecture(), net.architecture());
    assert_ne!(rounded, net);
    // Rounded once, they stay as they are.
    assert_eq!(
        exported_network(&export(&rounded, &options).unwrap()).unwrap(),
        Some(rounded.clone())
    );
    let layers = model.layers().unwrap();
    assert!(!layers.is_empty() && layers.iter().all(|layer| layer.left_alone.is_none()));

    let mut large = net.clone();
    let kernel = ArrayD::from_elem(net.params()["conv2.weight"].raw_dim(), 1e5);
    large.set_param("conv2.weight", kernel).unwrap();
    let error = export(&large, &options).unwrap_err();
    assert!(matches!(&error, OnnxError::Half { name, .. } if name == "conv2.weight"), "{error}");

    if !runs() {
        return;
    }
    let inputs = inputs(&net, &mut Draw::new(2));
    let cases = [case("half".into(), model, &net, &inputs)];
    check_models(&cases, &[run(&rounded, &inputs)], 1e-4);
    check_models(&cases, &[run(&net, &inputs)], 2e-3);
}

#[test]
fn opsets_that_are_not_written() {
    let net = arch::by_name("small-cnn").unwrap().initialize(5).unwrap();
    for opset in [0, OPSETS.start() - 1, OPSETS.end() + 1] {
        let error = export(&net, &ExportOptions { opset, ..ExportOptions::default() }).unwrap_err();
        let expected = format!("opset {opset} is not written; choose one from 13 to 22");
        assert_eq!(error.to_string(), expected);
    }
}

/// Values that do not depend on the example, inputs of different rank, shared parameters, names that meet, a value given twice.
fn tangled() -> Network {
    let node = |name: &str, op: Op, inputs: &[&str]| Node::new(name, op, inputs.iter().copied());
    let conv = |name: &str, input: &str| {
        let conv = Conv { bias: false, ..Conv::new(3, 3, [1, 1]) };
        let mut node = node(name, conv.into(), &[input]);
        node.params.insert("weight".into(), "kernel".into());
        node
    };
    let slopes = |name: &str, input: &str| {
        let mut node = node(name, PRelu { channels: 3 }.into(), &[input]);
        node.params.insert("weight".into(), "slopes".into());
        node
    };
    let constant = |name: &str, shape: &[usize]| {
        node(name, Constant { shape: shape.to_vec(), trained: true }.into(), &[])
    };
    let mut arch = Architecture::new(
        "tangled",
        InputSpec::features([3, 4, 4]).named("x"),
        vec![
            conv("a", "x"),
            conv("b", "a"),
            slopes("c", "b"),
            // Called like the parameter of another node.
            node("a.weight", Op::Relu(Relu::default()), &["c"]),
            constant("row", &[4]),
            constant("map", &[2, 4, 4]),
            node("more", Op::Add(Add::default()), &["a.weight", "row"]),
            node("both", Concat { axis: 0 }.into(), &["more", "map"]),
            node(
                "vector",
                Op::Linear(Linear { in_features: 4, out_features: 3, bias: true }),
                &["both"],
            ),
            // One axis against three, both with the batch in front.
            node(
                "flat",
                cp_net::Reduce { function: cp_net::Reduction::Sum, axes: vec![0, 1], keep: false }
                    .into(),
                &["vector"],
            ),
            slopes("d", "flat"),
            node("shift", ScaleShift { channels: 3 }.into(), &["d"]),
            node("last", Op::Add(Add::default()), &["vector", "shift"]),
            node("norm", BatchNorm::new(5).into(), &["last"]),
            constant("alone", &[2]),
        ],
    );
    arch.outputs = ["norm", "x", "alone", "norm"].map(String::from).to_vec();
    let mut draw = Draw::new(9);
    let params =
        arch.params().map(|(name, spec)| (name, draw.array(&spec.shape, (0.1, 1.0)))).collect();
    Network::new(arch, params).unwrap()
}

#[test]
fn a_tangled_graph() {
    let net = tangled();
    for opset in opsets() {
        let model = with_opset(&net, opset);
        assert_eq!(exported_network(&model).unwrap().as_ref(), Some(&net));
        let outputs: Vec<String> = model.outputs().iter().map(ToString::to_string).collect();
        assert_eq!(
            outputs,
            [
                "norm [batch, 5, 4, 3] float32",
                "x_2 [batch, 3, 4, 4] float32",
                "alone [1, 2] float32",
                "norm_2 [batch, 5, 4, 3] float32",
            ]
        );
    }
    let fixed = ExportOptions { batch: Dim::Size(2), ..ExportOptions::default() };
    let fixed = export(&net, &fixed).unwrap();
    assert_eq!(fixed.inputs()[0].to_string(), "x [2, 3, 4, 4] float32");
    if !runs() {
        return;
    }
    let inputs = inputs(&net, &mut Draw::new(2));
    let mut cases: Vec<Case> = (opsets().into_iter())
        .map(|opset| case(format!("opset {opset}"), with_opset(&net, opset), &net, &inputs))
        .collect();
    cases.push(case("fixed batch".into(), fixed, &net, &inputs));
    let outputs = run(&net, &inputs);
    check_models(&cases, &vec![outputs; 4], 1e-4);
}

#[test]
fn factorized_layers_are_known_as_such() {
    let mut net = arch::by_name("small-cnn").unwrap().initialize(5).unwrap();
    let mut draw = Draw::new(4);
    for (layer, form, rank) in [("conv2", Form::Cp3, 8), ("fc1", Form::LowRank, 5)] {
        let factors = factors(&net, layer, form, rank.into(), &mut draw);
        net.put_factors(layer, &factors, 0.5).unwrap();
    }
    for half in [false, true] {
        let model = export(&net, &ExportOptions { half, ..ExportOptions::default() }).unwrap();
        let records = model.factorizations().unwrap();
        let names: Vec<&str> = records.iter().map(|record| record.layer.as_str()).collect();
        assert_eq!(names, ["conv2", "fc1"]);
        assert_eq!((records[0].form, records[0].rank), (Form::Cp3, 8.into()));
        let known = model.layers().unwrap();
        let alone = known.iter().filter(|layer| layer.left_alone.is_some());
        let alone: Vec<&str> = alone.map(|layer| layer.name.as_str()).collect();
        let expected =
            ["conv2.reduce", "conv2.spatial", "conv2.expand", "fc1.reduce", "fc1.expand"];
        assert_eq!(alone, expected);
        if !half {
            assert_eq!(exported_network(&model).unwrap().as_ref(), Some(&net));
        }
    }
    if !runs() {
        return;
    }
    let inputs = inputs(&net, &mut draw);
    let model = export(&net, &ExportOptions::default()).unwrap();
    check_models(&[case("factorized".into(), model, &net, &inputs)], &[run(&net, &inputs)], 1e-4);
}

/// Three layers with one kernel, of which one reads vectors and two maps: one record, which knows all parts.
#[test]
fn factorized_layers_that_share_a_kernel() {
    let linear = |name: &str, input: &str| {
        let linear = Linear { in_features: 4, out_features: 4, bias: false };
        let mut node = Node::new(name, linear, [input]);
        node.params.insert("weight".into(), "kernel".into());
        node
    };
    let sum = cp_net::Reduce { function: cp_net::Reduction::Sum, axes: vec![0], keep: false };
    let nodes = vec![
        linear("a", "input"),
        linear("b", "a"),
        Node::new("sum", sum, ["b"]),
        linear("c", "sum"),
    ];
    let arch = Architecture::new("shared", InputSpec::features([3, 4]), nodes);
    let mut net = arch.initialize(1).unwrap();
    let mut draw = Draw::new(4);
    let count = |net: &Network| {
        let model = export(net, &ExportOptions::default()).unwrap();
        let layers = model.layers().unwrap();
        let alone = layers.iter().filter(|layer| layer.left_alone.is_some()).count();
        (layers.len(), alone, model.factorizations().unwrap().len())
    };
    // The kernel, and its transpose.
    assert_eq!(count(&net), (2, 0, 0));
    let factors = factors(&net, "a", Form::LowRank, 2.into(), &mut draw);
    net.put_factors("a", &factors, 0.0).unwrap();
    assert_eq!(count(&net), (4, 4, 1));
    let model = export(&net, &ExportOptions::default()).unwrap();
    assert_eq!(exported_network(&model).unwrap().as_ref(), Some(&net));
    if !runs() {
        return;
    }
    let inputs = inputs(&net, &mut draw);
    let cases = [case("shared".into(), model, &net, &inputs)];
    check_models(&cases, &[run(&net, &inputs)], 1e-4);
}

/// The bytes with `from` replaced, where it stands once.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> =
        (0..bytes.len() - from.len()).filter(|&at| bytes[at..].starts_with(from)).collect();
    assert_eq!(places.len(), 1, "{}", String::from_utf8_lossy(from));
    let mut bytes = bytes.to_vec();
    bytes[places[0]..places[0] + from.len()].copy_from_slice(to);
    bytes
}

#[test]
fn a_graph_that_was_changed_is_read_as_it_is() {
    let net = arch::by_name("small-cnn").unwrap().initialize(5).unwrap();
    let model = export(&net, &ExportOptions::default()).unwrap();
    let bytes = model.encode();
    let read = |bytes: Vec<u8>| exported_network(&Model::decode(bytes).unwrap());
    assert!(read(bytes.clone()).unwrap().is_some());
    // One weight.
    let value = net.params()["conv1.weight"].as_slice().unwrap();
    let old: Vec<u8> = value[..4].iter().flat_map(|value| value.to_le_bytes()).collect();
    let new: Vec<u8> = value[..4].iter().flat_map(|value| (value + 1.0).to_le_bytes()).collect();
    assert!(read(replaced(&bytes, &old, &new)).unwrap().is_none());
    // An entry of a later version, and one that is damaged.
    let later = replaced(&bytes, b"\"version\":1", b"\"version\":9");
    assert!(read(later).unwrap().is_none());
    let error = read(replaced(&bytes, b"\"version\":1", b"\"version\":x")).unwrap_err();
    assert!(error.to_string().contains(NETWORK_KEY), "{error}");
    // Replaced layers.
    let mut model = model;
    let layer = model.layers().unwrap().into_iter().find(|layer| layer.name == "conv2").unwrap();
    let factors = factors(&net, "conv2", Form::Cp3, 4.into(), &mut Draw::new(1));
    model.replace(&layer, &cp_onnx::Parts::new(&layer, &factors).unwrap()).unwrap();
    assert!(exported_network(&model).unwrap().is_none());
    assert_eq!(model.factorizations().unwrap().len(), 1);
    assert_eq!(METADATA_KEY, "polyad");
    // A model of anyone else's.
    let bytes = [8, 8, 58, 0, 66, 2, 16, 17];
    assert!(read(bytes.to_vec()).unwrap().is_none());
}

#[test]
fn values_in_between() {
    let net = arch::by_name("small-cnn").unwrap().initialize(5).unwrap();
    let model = export(&net, &ExportOptions::default()).unwrap();
    let arch = net.architecture();
    let input = arch.input().name.clone();
    let mut names: Vec<&str> = vec![&input];
    names.extend(arch.nodes.iter().map(|node| node.output()));
    let tapped = model.taps(&names).unwrap();
    let outputs: Vec<String> = tapped.outputs().into_iter().map(|output| output.name).collect();
    // What is an output already stays the first.
    let last = names.pop().unwrap();
    names.insert(0, last);
    assert_eq!(outputs, names);
    let error = model.taps(&["nowhere"]).unwrap_err();
    assert!(matches!(error, OnnxError::UnknownValue { .. }), "{error}");

    // The inputs of all layers are among them.
    for layer in model.layers().unwrap() {
        let value = model.value_of_layer_input(&layer).unwrap().remove(0).unwrap();
        assert_eq!(value, arch.node(&layer.name).unwrap().inputs[0]);
        assert_eq!(
            model.geometry(&layer).unwrap(),
            [Some(arch.node(&layer.name).unwrap().op.clone())]
        );
    }

    if !runs() {
        return;
    }
    let inputs = inputs(&net, &mut Draw::new(2));
    let mut all = arch.clone();
    all.outputs = names.iter().map(ToString::to_string).collect();
    let all = Network::new(all, net.params().clone()).unwrap();
    let case =
        Case { label: "taps".into(), model: tapped, inputs: vec![(input, inputs[0].clone())] };
    // The checker wants a type at each output; inference is left to the runtime.
    check_models(&[case], &[run(&all, &inputs)], 1e-4);
}
