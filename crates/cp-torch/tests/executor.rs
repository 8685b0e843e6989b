//! The executor: modes, freezing, copies in and out, layouts, bad input.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{architecture, assert_close, chain, executor, max_difference, network, tensor};
use cp_net::{
    AdaptiveAvgPool, Add, Architecture, AvgPool, BatchNorm, Concat, Constant, Conv, Dropout,
    Flatten, Form, INPUT, InputSpec, Linear, Lrn, MaxPool, Maxout, Mul, Network, Node, Op, Pad,
    Padding, ParamRole, Relu, Slice, Softmax, Split, arch,
};
use cp_plan::Factorize as _;
use cp_torch::tch::{self, Device, Kind, Tensor};
use cp_torch::{Executor, Layout, Mode, TorchError};

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::ChannelsLast];

fn conv(in_channels: usize, out_channels: usize) -> Op {
    let padding = Padding::symmetric([1, 1]);
    Conv { padding, ..Conv::new(in_channels, out_channels, [3, 3]) }.into()
}

fn norm(channels: usize) -> Op {
    BatchNorm::new(channels).into()
}

fn node(name: &str, op: impl Into<Op>, inputs: &[&str]) -> Node {
    Node::new(name, op, inputs.iter().copied())
}

/// conv–bn–relu with a residual branch, dropout and a linear head: every kind of node whose behaviour depends on the mode,
/// and everything that runs in place.
fn residual() -> Network {
    let nodes = vec![
        node("conv1", conv(3, 8), &[INPUT]),
        node("bn1", norm(8), &["conv1"]),
        node("relu1", Relu {}, &["bn1"]),
        node("conv2", conv(8, 8), &["relu1"]),
        node("bn2", norm(8), &["conv2"]),
        node("sum", Add {}, &["bn2", "relu1"]),
        node("relu2", Relu {}, &["sum"]),
        node("pool", AdaptiveAvgPool { output: vec![1, 1] }, &["relu2"]),
        node("flat", Flatten { axis: 0 }, &["pool"]),
        node("drop", Dropout { p: 0.5 }, &["flat"]),
        node("fc", Linear { in_features: 8, out_features: 4, bias: true }, &["drop"]),
    ];
    network(architecture(&[3, 6, 6], nodes), 5)
}

/// The same network written with tch, out of place; parameters by name.
fn residual_in_tch(model: &Executor, x: &Tensor, train: bool) -> Tensor {
    let p = |name: &str| {
        model
            .tensors()
            .find(|(known, ..)| *known == name)
            .map(|(_, _, tensor)| tensor.shallow_clone())
            .unwrap()
    };
    let conv = |x: &Tensor, name: &str| {
        x.conv2d(
            &p(&format!("{name}.weight")),
            Some(p(&format!("{name}.bias"))),
            [1, 1],
            [1, 1],
            [1, 1],
            1,
        )
    };
    let norm = |x: &Tensor, name: &str| {
        // Copies, so that the statistics of the model stay as they are.
        let [mean, var] =
            ["running_mean", "running_var"].map(|suffix| p(&format!("{name}.{suffix}")).copy());
        let [weight, bias] = ["weight", "bias"].map(|suffix| p(&format!("{name}.{suffix}")));
        x.batch_norm(Some(weight), Some(bias), Some(mean), Some(var), train, 0.1, 1e-5, false)
    };
    let relu1 = norm(&conv(x, "conv1"), "bn1").relu();
    let sum = norm(&conv(&relu1, "conv2"), "bn2") + &relu1;
    let flat = sum.relu().mean_dim([2, 3].as_slice(), false, Kind::Float);
    flat.linear(&p("fc.weight"), Some(p("fc.bias")))
}

fn gradients(model: &Executor) -> Vec<(String, Tensor)> {
    model.trainable().into_iter().map(|(name, _, tensor)| (name, tensor.grad().copy())).collect()
}

fn clear_gradients(model: &Executor) {
    for (_, _, mut tensor) in model.trainable() {
        tensor.zero_grad();
    }
}

/// libtorch has one generator for the whole process, which dropout draws from in train mode: tests that do take turns.
fn generator() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn what_runs_in_place_changes_neither_outputs_nor_gradients() {
    let _alone = generator();
    for layout in LAYOUTS {
        let mut model = executor(&residual(), layout);
        // Without dropout, whose mask would differ.
        model.freeze(|name| name == "drop");
        let x = tensor(&[3, 3, 6, 6], 1);
        for (mode, train) in [(Mode::Eval, false), (Mode::Train, true)] {
            let expected = residual_in_tch(&model, &x, train);
            expected.square().sum(Kind::Float).backward();
            let expected_gradients = gradients(&model);
            clear_gradients(&model);
            let got = model.forward(&x, mode).unwrap();
            assert_close(&got, &expected, 1e-5);
            got.square().sum(Kind::Float).backward();
            for ((name, got), (_, expected)) in gradients(&model).iter().zip(&expected_gradients) {
                let size = expected.abs().max().double_value(&[]) as f32;
                let difference = max_difference(got, expected);
                assert!(difference <= 1e-4 * (1.0 + size), "{name} in {mode:?}: {difference}");
            }
            clear_gradients(&model);
        }
    }
}

#[test]
fn the_input_stays_as_it_is() {
    // ReLU and Add directly behind the input, and an input that is read twice.
    let nodes = vec![
        node("relu", Relu {}, &[INPUT]),
        node("sum", Add {}, &["relu", INPUT]),
        node("twice", Add {}, &["sum", "sum"]),
        node("out", Relu {}, &["twice"]),
    ];
    let net = network(architecture(&[3, 2, 2], nodes), 1);
    for layout in LAYOUTS {
        let x = tensor(&[1, 3, 2, 2], 1);
        let before = x.copy();
        let got = executor(&net, layout).forward(&x, Mode::Eval).unwrap();
        assert_eq!(x, before);
        assert_close(&got, &((x.relu() + &x) * 2.0).relu(), 0.0);
    }
}

#[test]
fn training_updates_the_statistics_and_evaluation_does_not() {
    let _alone = generator();
    let net = residual();
    let model = executor(&net, Layout::Auto);
    let x = tensor(&[4, 3, 6, 6], 2);
    let _ = model.forward(&x, Mode::Eval).unwrap();
    assert_eq!(model.network().unwrap(), net);

    let first = model.forward(&x, Mode::Train).unwrap();
    let after = model.network().unwrap();
    for (name, array) in after.params() {
        let is_statistic = name.contains("running");
        assert_eq!(*array != net.params()[name], is_statistic, "{name}");
    }
    // The new running mean of bn1 is 0.9 · old + 0.1 · mean of the batch.
    let p = |name: &str| cp_torch::tensor_from_f32(net.params()[name].view()).unwrap();
    let batch_mean = x
        .conv2d(&p("conv1.weight"), Some(p("conv1.bias")), [1, 1], [1, 1], [1, 1], 1)
        .mean_dim([0, 2, 3].as_slice(), false, Kind::Float);
    let got = cp_torch::tensor_from_f32(after.params()["bn1.running_mean"].view()).unwrap();
    assert_close(&got, &(p("bn1.running_mean") * 0.9 + batch_mean * 0.1), 1e-6);
    // And the modes differ in their outputs.
    assert!(max_difference(&first, &model.forward(&x, Mode::Eval).unwrap()) > 1e-3);
}

#[test]
fn frozen_nodes_get_no_gradient_and_behave_as_in_evaluation() {
    let _alone = generator();
    let net = residual();
    let mut model = executor(&net, Layout::Auto);
    let all = model.trainable().len();
    model.freeze(|name| name != "fc");
    let names: Vec<String> = model.trainable().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["fc.weight", "fc.bias"]);

    let x = tensor(&[4, 3, 6, 6], 3);
    let train = model.forward(&x, Mode::Train).unwrap();
    // Batch norm and dropout are frozen too.
    assert_eq!(train, model.forward(&x, Mode::Eval).unwrap());
    train.sum(Kind::Float).backward();
    assert_eq!(model.network().unwrap(), net);
    for (name, role, tensor) in model.tensors() {
        let trains = name.starts_with("fc.");
        assert_eq!(tensor.requires_grad(), trains, "{name}");
        assert_eq!(tensor.grad().defined(), trains, "{name}");
        assert_eq!(role == ParamRole::Buffer, name.contains("running"), "{name}");
    }

    model.freeze(|_| false);
    assert_eq!(model.trainable().len(), all);
    model.forward(&x, Mode::Train).unwrap().sum(Kind::Float).backward();
    assert!(
        model
            .tensors()
            .filter(|(_, role, _)| *role != ParamRole::Buffer)
            .all(|(_, _, t)| t.grad().defined())
    );
    assert_ne!(model.network().unwrap(), net);
}

#[test]
fn roles_and_order_of_the_trainable_parameters() {
    let model = executor(&residual(), Layout::Auto);
    let got: Vec<(String, ParamRole)> =
        model.trainable().into_iter().map(|(name, role, _)| (name, role)).collect();
    let expected = [
        ("conv1.weight", ParamRole::Weight),
        ("conv1.bias", ParamRole::Bias),
        ("bn1.weight", ParamRole::Bias),
        ("bn1.bias", ParamRole::Bias),
    ];
    for ((got, role), (expected, expected_role)) in got.iter().zip(expected) {
        assert_eq!((got.as_str(), *role), (expected, expected_role));
    }
    assert_eq!(got.last().map(|(name, _)| name.as_str()), Some("fc.bias"));
}

#[test]
fn trained_tensors_are_the_executors_own() {
    let net = residual();
    let mut model = executor(&net, Layout::ChannelsLast);
    let held = model.trainable();
    tch::no_grad(|| {
        for (_, _, tensor) in &held {
            let _ = tensor.shallow_clone().f_add_scalar_(1.0).unwrap();
        }
    });
    let changed = model.network().unwrap();
    let difference = &changed.params()["conv2.weight"] - &net.params()["conv2.weight"];
    assert!(difference.iter().all(|value| (value - 1.0).abs() < 1e-6));
    // Loading writes into the same tensors.
    model.load(&net).unwrap();
    assert_eq!(model.network().unwrap(), net);
    let (_, _, weight) = &held[0];
    assert_eq!(cp_torch::array_from_tensor(weight).unwrap(), net.params()["conv1.weight"]);
    assert!(weight.requires_grad());
}

#[test]
fn loading_another_architecture_is_an_error() {
    let mut model = executor(&residual(), Layout::Auto);
    let other =
        network(chain(&[3, 6, 6], vec![("conv1", conv(3, 8)), ("relu", Relu {}.into())]), 1);
    let message = model.load(&other).unwrap_err().to_string();
    assert!(message.contains("'bn1' against 'relu'"), "{message}");
    let shorter = network(chain(&[3, 6, 6], vec![("conv1", conv(3, 8))]), 1);
    assert!(model.load(&shorter).unwrap_err().to_string().contains("11 layers against 1"));
}

#[test]
fn wrong_input_is_an_error_that_names_both_shapes() {
    let model = executor(&residual(), Layout::Auto);
    let message = |x: Tensor| model.forward(&x, Mode::Eval).unwrap_err().to_string();
    let floats = (Kind::Float, Device::Cpu);
    for shape in [&[1, 4, 6, 6][..], &[3, 6, 6], &[2, 3, 6, 6, 1], &[], &[0]] {
        let message = message(Tensor::zeros(shape, floats));
        assert!(
            message.contains("[B, 3, 6, 6]") && message.contains(&format!("{shape:?}")),
            "{message}"
        );
    }
    assert!(message(Tensor::zeros([1, 3, 6, 6], (Kind::Uint8, Device::Cpu))).contains("Uint8"));

    // Other sizes run as far as the layers allow.
    assert_eq!(
        model.forward(&Tensor::zeros([2, 3, 9, 5], floats), Mode::Eval).unwrap().size(),
        [2, 4]
    );
    assert_eq!(
        model.forward(&Tensor::zeros([0, 3, 6, 6], floats), Mode::Eval).unwrap().size(),
        [0, 4]
    );
    let valid = Conv { bias: false, ..Conv::new(3, 2, [5, 5]) };
    let fixed = Linear { in_features: 8, out_features: 2, bias: false };
    let ops = vec![
        ("valid", Op::Conv(valid)),
        ("flat", Flatten { axis: 0 }.into()),
        ("fc", Op::Linear(fixed)),
    ];
    let model = executor(&network(chain(&[3, 6, 6], ops), 1), Layout::Auto);
    assert!(model.forward(&Tensor::zeros([1, 3, 6, 6], floats), Mode::Eval).is_ok());
    for (size, layer) in [(4, "'valid'"), (7, "'fc'")] {
        let error =
            model.forward(&Tensor::zeros([1, 3, size, size], floats), Mode::Eval).unwrap_err();
        assert!(matches!(error, TorchError::Node { .. }));
        let message = error.to_string();
        assert!(message.contains(layer) && !message.contains('\n'), "{message}");
    }
}

#[test]
fn saved_and_loaded_networks_give_the_same_output_bit_for_bit() {
    let _alone = generator();
    let net = arch::by_name("resnet20").unwrap().initialize(3).unwrap();
    let model = executor(&net, Layout::Auto);
    let x = tensor(&[2, 3, 32, 32], 1);
    // Moves weights and statistics away from the initial ones.
    let _ = model.forward(&x, Mode::Train).unwrap();
    let expected = model.forward(&x, Mode::Eval).unwrap();

    let path = std::env::temp_dir().join(format!("cp-torch-{}.safetensors", std::process::id()));
    model.network().unwrap().save(&path).unwrap();
    let loaded = Network::load(&path);
    std::fs::remove_file(&path).unwrap();
    let loaded = loaded.unwrap();
    assert_eq!(loaded, model.network().unwrap());
    assert_eq!(executor(&loaded, Layout::Auto).forward(&x, Mode::Eval).unwrap(), expected);
    // The same again, from the executor that has run already.
    assert_eq!(model.forward(&x, Mode::Eval).unwrap(), expected);
}

#[test]
fn dropout_follows_the_seed() {
    let _alone = generator();
    let model = executor(&residual(), Layout::Auto);
    let x = tensor(&[2, 3, 6, 6], 1);
    let run = |seed| {
        tch::manual_seed(seed);
        model.forward(&x, Mode::Train).unwrap()
    };
    let first = run(1);
    assert_eq!(first, run(1));
}

/// Logits in both layouts, relative to the largest.
fn check_layouts(net: &Network, batch: usize) {
    let shape = [&[batch], &net.input().shape[..]].concat();
    let x = tensor(&shape, 1);
    let [a, b] = LAYOUTS
        .map(|layout| tch::no_grad(|| executor(net, layout).forward(&x, Mode::Eval).unwrap()));
    let size = a.abs().max().double_value(&[]) as f32;
    assert!(size > 0.0);
    let difference = max_difference(&a, &b);
    assert!(
        difference <= 1e-4 * size.max(1.0),
        "{}: {difference} of {size}",
        net.architecture().name
    );
}

#[test]
fn layouts_agree_on_the_built_in_networks() {
    for name in [
        "resnet20",
        "small-cnn",
        "charnet",
        "squeezenet1_1",
        "googlenet",
        "alexnet",
        "alexnet-caffe",
        "resnet18",
    ] {
        check_layouts(&arch::by_name(name).unwrap().initialize(1).unwrap(), 2);
    }
}

#[test]
fn layouts_agree_on_everything_else() {
    let (kernel, stride, padding) = (vec![3, 3], vec![2, 2], Padding::symmetric([1, 1]));
    let mean = AvgPool { kernel, stride, padding, ceil: true, count_padding: true };
    let AvgPool { kernel, stride, padding, ceil, .. } = mean.clone();
    let max = MaxPool { kernel, stride, padding, dilation: vec![1, 1], ceil };
    let every_other = |axis| Slice { axis, start: 0, end: None, step: 2 };
    let nodes = vec![
        node("conv", conv(1, 12), &[INPUT]),
        node("lrn", Lrn { size: 5, alpha: 0.1, beta: 0.75, k: 1.0 }, &["conv"]),
        node("maxout", Maxout { pieces: 3 }, &["lrn"]),
        node("max", max, &["maxout"]),
        node("mean", mean, &["maxout"]),
        node("both", Concat { axis: 0 }, &["max", "mean"]),
        node("rows", every_other(1), &["both"]),
        node("columns", every_other(2), &["rows"]),
        node("short", Pad::zeros([2, 0, 0], [1, 0, 0]), &["columns"]),
        node("conv2", conv(11, 5), &["short"]),
        node("flat", Flatten { axis: 0 }, &["conv2"]),
        node("softmax", Softmax { axis: 0 }, &["flat"]),
    ];
    let net = network(architecture(&[1, 14, 13], nodes), 2);
    check_layouts(&net, 3);
    let y = executor(&net, Layout::ChannelsLast)
        .forward(&tensor(&[3, 1, 14, 13], 1), Mode::Eval)
        .unwrap();
    assert_close(
        &y.sum_dim_intlist([1].as_slice(), false, Kind::Float),
        &Tensor::ones([3], (Kind::Float, Device::Cpu)),
        1e-5,
    );
}

#[test]
fn gradients_agree_in_both_layouts() {
    let _alone = generator();
    let mut net = residual();
    let shape = net.tensors("conv2", Form::Cp4).unwrap()[0].shape().to_vec();
    net.factorize("conv2", Form::Cp4, &[common::random_cp(&shape, 4, 3)]).unwrap();
    let x = tensor(&[3, 3, 6, 6], 1);
    let [a, b] = LAYOUTS.map(|layout| {
        let mut model = executor(&net, layout);
        model.freeze(|name| name == "drop");
        model.forward(&x, Mode::Train).unwrap().square().sum(Kind::Float).backward();
        gradients(&model)
    });
    for ((name, a), (_, b)) in a.iter().zip(&b) {
        let size = a.abs().max().double_value(&[]) as f32;
        assert!(max_difference(a, b) <= 1e-4 * (1.0 + size), "{name}");
    }
}

#[test]
fn an_executor_can_be_sent_to_a_thread() {
    let model = executor(&residual(), Layout::Auto);
    let x = tensor(&[1, 3, 6, 6], 1);
    let expected = model.forward(&x, Mode::Eval).unwrap();
    let got = std::thread::spawn(move || model.forward(&x, Mode::Eval).unwrap()).join().unwrap();
    assert_eq!(got, expected);
}

#[test]
fn the_rest_of_a_chain_may_run_under_no_grad() {
    let model = executor(&residual(), Layout::Auto);
    let x = tensor(&[1, 3, 6, 6], 1);
    assert!(model.forward(&x, Mode::Eval).unwrap().requires_grad());
    assert!(!tch::no_grad(|| model.forward(&x, Mode::Eval).unwrap()).requires_grad());
}

/// Two inputs, two outputs, a split, a constant, one kernel and one norm in two places.
fn branched() -> Architecture {
    let shared = |name: &str, op: Op, input: &str, other: &str| {
        let mut node = Node::new(name, op, [input]);
        for spec in node.op.params() {
            node.params.insert(spec.slot.into(), format!("{other}.{}", spec.slot));
        }
        node
    };
    let nodes = vec![
        node("parts", Split { axis: 0, sizes: vec![2, 2] }, &["left"]),
        node("conv", conv(2, 3), &["parts.0"]),
        shared("again", conv(2, 3), "parts.1", "conv"),
        node("norm", norm(3), &["conv"]),
        shared("norm2", norm(3), "again", "norm"),
        node("relu", Relu {}, &["norm"]),
        node("sum", Add {}, &["norm2", "right", "relu"]),
        node("scale", Constant { shape: vec![3, 1, 1], trained: true }, &[]),
        node("out", Mul {}, &["sum", "scale"]),
    ];
    let mut arch =
        Architecture::new("branched", InputSpec::features([4, 5, 5]).named("left"), nodes);
    arch.inputs.push(InputSpec::features([3, 1, 1]).named("right"));
    arch.outputs = vec!["out".into(), "norm".into()];
    arch
}

#[test]
fn several_inputs_and_outputs_and_shared_parameters() {
    let _alone = generator();
    let net = network(branched(), 4);
    let p = |name: &str| cp_torch::tensor_from_f32(net.params()[name].view()).unwrap();
    let (x, y) = (tensor(&[2, 4, 5, 5], 1), tensor(&[2, 3, 1, 1], 2));
    let (mean, var) = (p("norm.running_mean"), p("norm.running_var"));
    let step = |x: &Tensor, train| {
        let x = x.conv2d(&p("conv.weight"), Some(p("conv.bias")), [1, 1], [1, 1], [1, 1], 1);
        let (weight, bias) = (Some(p("norm.weight")), Some(p("norm.bias")));
        let statistics = [&mean, &var].map(|tensor| Some(tensor.shallow_clone()));
        let [mean, var] = statistics;
        x.batch_norm(weight, bias, mean, var, train, 0.1, 1e-5, false)
    };
    for train in [false, true] {
        let model = executor(&net, Layout::Auto);
        let mode = if train { Mode::Train } else { Mode::Eval };
        let got = model.forward_all(&[&x, &y], mode).unwrap();
        // In the order of the nodes: the statistics move twice.
        let a = step(&x.narrow(1, 0, 2), train);
        let b = step(&x.narrow(1, 2, 2), train);
        let expected = (b + &y + a.relu()) * p("scale.value");
        assert_close(&got[0], &expected, 1e-5);
        assert_close(&got[1], &a, 1e-5);
        let after = model.network().unwrap();
        let moved = cp_torch::tensor_from_f32(after.params()["norm.running_mean"].view()).unwrap();
        assert_close(&moved, &mean, 1e-6);
        // A shared parameter is there once.
        let names: Vec<String> = model.trainable().into_iter().map(|(name, ..)| name).collect();
        let expected = ["conv.weight", "conv.bias", "norm.weight", "norm.bias", "scale.value"];
        assert_eq!(names, expected);
    }
    let model = executor(&net, Layout::Auto);
    let message = model.forward(&x, Mode::Eval).unwrap_err().to_string();
    assert!(message.contains("has 2 inputs (left, right), got 1"), "{message}");
}

/// The view that only runs forward gives what the network gives.
#[test]
fn folded_networks_give_the_same() {
    for name in ["resnet20", "googlenet", "squeezenet1_1"] {
        let net = network(arch::by_name(name).unwrap(), 3);
        let x = tensor(&[&[2], &net.input().shape[..]].concat(), 1);
        let run = |net: &Network| {
            tch::no_grad(|| executor(net, Layout::Auto).forward(&x, Mode::Eval).unwrap())
        };
        let (expected, got) = (run(&net), run(&net.folded().unwrap()));
        let size = expected.abs().max().double_value(&[]) as f32;
        assert!(max_difference(&got, &expected) <= 1e-5 * size.max(1.0), "{name}");
    }
}
