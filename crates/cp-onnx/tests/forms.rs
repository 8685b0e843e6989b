//! Forms that permute channels or turn them into an axis, in models of any origin: in ONNX Runtime, and what was trained back in the file.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::{case, check_models, difference, factors, inputs, run, runs};
use cp_net::{Architecture, Conv, Draw, Form, InputSpec, Network, Node, Padding, Rank, Relu};
use cp_onnx::{ExportOptions, ImportOptions, Model, OPSETS, Parts, export};

/// The new forms and a rank of each for the first layer of [`network`].
fn forms() -> [(Form, Rank); 4] {
    [
        (Form::Jaderberg1Shared, 3.into()),
        (Form::Denton, [3, 2, 2].into()),
        (Form::DentonSvd, [2, 3, 3, 2].into()),
        (Form::Monochromatic, 2.into()),
    ]
}

/// A convolution to be replaced between others that are not.
fn network() -> Network {
    let conv = Conv {
        stride: vec![2, 1],
        padding: Padding::Each(vec![[1, 0], [2, 1]]),
        dilation: vec![1, 2],
        ..Conv::new(6, 12, [3, 2])
    };
    let nodes = vec![
        Node::new("front", Conv::new(2, 6, [1, 1]), ["input"]),
        Node::new("conv", conv, ["front"]),
        Node::new("relu", Relu {}, ["conv"]),
        Node::new("behind", Conv::new(12, 3, [1, 1]), ["relu"]),
    ];
    Architecture::new("net", InputSpec::features([2, 8, 7]), nodes).initialize(3).unwrap()
}

/// As `initialize` leaves them at 0, which no order changes.
fn with_biases(mut net: Network, draw: &mut Draw) -> Network {
    let biases: Vec<String> =
        net.params().keys().filter(|name| name.ends_with("bias")).cloned().collect();
    for name in biases {
        let array = draw.array(net.params()[&name].shape(), (-1.0, 1.0));
        net.set_param(&name, array).unwrap();
    }
    net
}

fn model_in(net: &Network, opset: i64) -> Model {
    export(net, &ExportOptions { opset, ..ExportOptions::default() }).unwrap()
}

#[test]
fn replaced_layers_run_in_every_opset() {
    if !runs() {
        return;
    }
    let mut draw = Draw::new(7);
    let net = with_biases(network(), &mut draw);
    let (mut cases, mut expected) = (Vec::new(), Vec::new());
    // Axes are an attribute up to 12, and an input from 13 on.
    for opset in [*OPSETS.start(), 12.max(*OPSETS.start()), 13, *OPSETS.end()] {
        for (form, rank) in forms() {
            let given = factors(&net, "conv", form, rank, &mut draw);
            let mut model = model_in(&net, opset);
            let layer = model.layers().unwrap().into_iter().find(|layer| layer.name == "conv");
            let layer = layer.unwrap();
            model.replace(&layer, &Parts::new(&layer, &given).unwrap()).unwrap();
            let mut made = net.clone();
            made.put_factors("conv", &given, 0.0).unwrap();
            let x = inputs(&net, &mut draw);
            let label = |what: &str| format!("{what} {form} in opset {opset}");
            cases.push(case(label("spliced"), model, &net, &x));
            // The network itself, written with its factors.
            cases.push(case(label("exported"), model_in(&made, opset), &net, &x));
            expected.extend([run(&made, &x), run(&made, &x)]);
        }
    }
    check_models(&cases, &expected, 1e-4);
}

/// A trained bias goes where it was, channels in their places, and comes back with the factors.
#[test]
fn biases_are_written_back() {
    for (form, rank) in forms() {
        let mut draw = Draw::new(7);
        let net = with_biases(network(), &mut draw);
        let mut model = model_in(&net, 17);
        let imported = model.import(&ImportOptions::new()).unwrap();
        let node = |name: &str| {
            let is = |node: &&Node| node.output() == name || node.name == name;
            imported.network.nodes().iter().find(is).unwrap().clone()
        };
        let conv = node("conv");
        let mut trained = imported.network.clone();
        let bias = conv.param("bias");
        let shifted = trained.params()[&bias].mapv(|value| 2.0 * value + 1.0);
        trained.set_param(&bias, shifted.clone()).unwrap();
        let given = factors(&trained, &conv.name, form, rank, &mut draw);
        trained.put_factors(&conv.name, &given, 0.0).unwrap();
        assert_eq!(trained.restored_bias(&conv.name).unwrap(), Some(shifted), "{form}");
        model.rewrite(&imported, &trained).unwrap();
        let again = model.import(&ImportOptions::new()).unwrap().network;
        let x = inputs(&net, &mut draw);
        let worst = difference(&run(&again, &x)[0], &run(&trained, &x)[0]);
        assert!(worst < 1e-5, "{form}: {worst}");
        assert_eq!(model.factorizations().unwrap()[0].form, form);
    }
}

/// What is not the order of a layer is named before anything is changed.
#[test]
fn wrong_steps_are_refused() {
    use cp_onnx::Step;
    let mut draw = Draw::new(7);
    let net = network();
    let mut model = model_in(&net, 17);
    let layer = model.layers().unwrap().into_iter().find(|layer| layer.name == "conv").unwrap();
    let before = model.encode();
    let mut fails = |form: Form, rank: Rank, change: &dyn Fn(&mut Vec<Step>), expected: &str| {
        let given = factors(&net, "conv", form, rank, &mut draw);
        let mut parts = Parts::new(&layer, &given).unwrap();
        change(&mut parts.steps);
        let error = model.replace(&layer, &parts).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(model.encode(), before);
    };
    let [(shared, three), (denton, clusters), ..] = forms();
    let indices = |steps: &mut Vec<Step>, at: usize, index: usize| {
        let Step::Gather { indices, .. } = &mut steps[at] else { panic!() };
        indices[0] = index;
    };
    fails(denton, clusters, &|steps| indices(steps, 0, 6), "positions among 6 channels");
    fails(denton, clusters, &|steps| indices(steps, 5, 0), "every channel once");
    fails(denton, clusters, &|steps| drop(steps.remove(2)), "a part for every axis");
    fails(shared, three, &|steps| drop(steps.pop()), "channels at the end");
    fails(shared, three, &|steps| drop(steps.remove(0)), "taps");
    fails(shared, three, &|steps| drop(steps.remove(3)), "axis of size 1");
}
