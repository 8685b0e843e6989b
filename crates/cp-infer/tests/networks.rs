//! The built-in architectures, dense and factorized, against the definitions of their ops or, where these take too long, ONNX Runtime.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::{distance, evaluated, in_onnx_runtime, initialized, inputs, run};
use cp_infer::{Compiled, Options};
use cp_net::arch::{Builder, window};
use cp_net::{Architecture, Form, InputSpec, Op, Rank, arch};

/// `name` at another size of its input.
fn sized(name: &str, shape: [usize; 3]) -> Architecture {
    arch::by_name(name).unwrap().with_input_shape(shape).unwrap()
}

/// Every convolution and linear layer that takes it in `form`, at the rank of a third of its smaller side, odd; 1×1 layers in low rank.
fn factorized(arch: &Architecture, form: Form) -> Architecture {
    let mut made = arch.clone();
    for layer in arch.compressible() {
        let op = &arch.node(&layer).unwrap().op;
        let Some(form) = form.suited_to(op) else { continue };
        let shape = op.params().remove(0).shape;
        let rank = (shape[0].min(shape[1]) / 3) | 1;
        let rank: Rank = match form {
            Form::Tucker2 => [rank, rank].into(),
            Form::TkdCpd => [rank, rank, rank + 3].into(),
            _ => rank.into(),
        };
        // Layers of one channel, and ranks that a form does not have.
        let mut changed = made.clone();
        if changed.factorize(&layer, form, rank).is_ok() {
            made = changed;
        }
    }
    made
}

/// Runs two images through `arch` and compares.
fn check(arch: &Architecture, by_definition: bool) {
    let net = initialized(arch, 3);
    let x = inputs(&net, 2, 5);
    let expected = if by_definition {
        evaluated(&net, &x).remove(0)
    } else {
        let Some(expected) = in_onnx_runtime(&net, &x) else { return };
        expected
    };
    for (winograd, most) in [(false, 1e-5), (true, 1e-4)] {
        let found = run(&net, &Options::default().winograd(winograd), &x).remove(0);
        let far = distance(&found, &expected);
        assert!(far <= most, "{}: {far}", arch.name);
    }
}

#[test]
fn by_their_definitions() {
    for arch in [sized("small-cnn", [1, 28, 28]), sized("resnet20", [3, 32, 32])] {
        check(&arch, true);
        check(&factorized(&arch, Form::Cp3), true);
    }
}

#[test]
fn three_axes() {
    let net = Builder::new("volume", InputSpec::features([2, 6, 5, 4]))
        .conv("conv1", 5, window(3).pad(1))
        .relu("relu1");
    let from = net.here();
    let arch = net
        .conv("conv2", 5, window(3).pad(1))
        .add("add", &from)
        .relu("relu2")
        .batch_norm("norm")
        .relu("relu3")
        .conv("conv3", 6, window([3, 1, 2]).stride([2, 1, 1]))
        .global_avg_pool("pool")
        .flatten("flatten")
        .linear("linear", 3)
        .build()
        .unwrap();
    check(&arch, true);
}

/// All but `unet`, whose crops are made for the one size of its paper: 572 × 572 pixels take seconds.
#[test]
fn in_onnx_runtime_by_name() {
    for (name, shape) in [
        ("alexnet(classes=9)", [3, 64, 64]),
        ("channelnet-v1(width=0.25, resolution=64)", [3, 64, 64]),
        ("channelnet-v2(topology=released, width=0.25, resolution=64)", [3, 64, 64]),
        ("channelnet-v3(width=0.25, resolution=64, classes=99)", [3, 64, 64]),
        ("channelnet-v3(classifier=unshared, width=0.25, resolution=64, classes=99)", [3, 64, 64]),
        ("charnet", [1, 24, 24]),
        ("efficientnet-b0", [3, 64, 64]),
        ("googlenet", [3, 64, 64]),
        ("mobilenet-v2", [3, 64, 64]),
        ("resnet18", [3, 64, 64]),
        ("resnet50", [3, 32, 32]),
        ("resnet56", [3, 32, 32]),
        ("squeezenet1_1", [3, 40, 40]),
        ("yolox-nano", [3, 416, 416]),
    ] {
        check(&sized(name, shape), false);
    }
}

#[test]
fn factorized_in_onnx_runtime() {
    for form in [Form::Cp3, Form::Cp4, Form::Tucker2, Form::TkdCpd] {
        for (name, shape) in [
            ("alexnet(classes=9)", [3, 64, 64]),
            ("charnet", [1, 24, 24]),
            ("googlenet", [3, 64, 64]),
            ("resnet18", [3, 64, 64]),
            ("resnet56", [3, 32, 32]),
        ] {
            check(&factorized(&sized(name, shape), form), false);
        }
    }
}

#[test]
fn blocks_of_layers_run_as_one_step() {
    let arch = factorized(&sized("resnet20", [3, 32, 32]), Form::Cp3);
    let net = arch.initialize(1).unwrap();
    let steps = Compiled::new(&net, &Options::default()).unwrap().steps();
    // The first has one channel between, too few for a depthwise convolution.
    assert_eq!((steps[0].layers[0].0.as_str(), steps[0].algorithm), ("conv1.reduce", "first"));
    // One chain for each of the 18 others; the sums and activations are in them.
    let chains = steps.iter().filter(|step| step.algorithm == "chain");
    assert!(chains.clone().all(|step| step.layers.len() == 3), "{steps:?}");
    assert_eq!(chains.count(), 18);
    assert!(!steps.iter().any(|step| step.algorithm == "elementwise"), "{steps:?}");
    // All multiply-adds are some step's.
    let macs: usize = steps.iter().flat_map(|step| &step.layers).map(|layer| layer.1).sum();
    let folded = net.folded().unwrap();
    assert_eq!(macs, folded.cost(arch.input_shapes()).unwrap().total.macs);
    assert_eq!(arch.nodes.iter().filter(|node| matches!(node.op, Op::Add(_))).count(), 9);
}
