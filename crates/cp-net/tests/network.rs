//! Architectures that hang together and those that do not; heads, input sizes, initialization.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

mod common;

use cp_net::arch::{self, Builder, window};
use cp_net::{Add, Architecture, Conv, Dropout, InputSpec, Maxout, NetError, Op, Padding};

fn small() -> Architecture {
    arch::by_name("small-cnn").unwrap()
}

fn fails(change: impl Fn(&mut Architecture), expected: &str) {
    let mut arch = small();
    change(&mut arch);
    let message = arch.check().unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn mistakes_in_a_graph_name_the_layer() {
    fails(|arch| arch.nodes.clear(), "architecture 'small-cnn' has no layers or no outputs");
    fails(|arch| arch.nodes[1].name = "conv1".into(), "layer name 'conv1' is used more than once");
    fails(|arch| arch.nodes[1].name = "input".into(), "layer name 'input' is reserved");
    fails(|arch| arch.nodes[1].name = String::new(), "layer name '' is empty");
    fails(
        |arch| arch.nodes[1].inputs = vec!["conv2".into()],
        "layer 'relu1' takes its input from 'conv2', which is not defined before it",
    );
    fails(|arch| arch.nodes[1].inputs.clear(), "layer 'relu1' (relu) has 0 inputs, expected 1");
    fails(
        |arch| arch.nodes[1].op = Add {}.into(),
        "layer 'relu1' (add) has 1 inputs, expected at least 2",
    );
    fails(
        |arch| arch.nodes[2].inputs = vec!["conv1".into()],
        "nothing reads the output of layer 'relu1', and it is none of the network's outputs (fc2)",
    );
    fails(
        |arch| arch.inputs[0].shape = vec![1, 32, 32],
        "layer 'fc1' (linear) cannot take an input of shape [4096], 'flatten'",
    );
    fails(
        |arch| arch.inputs[0].shape = vec![3, 28, 28],
        "input of 'small-cnn': shape is [3, 28, 28], expected [1, …]",
    );
    fails(|arch| arch.inputs[0].mean.push(0.0), "mean is [0.0, 0.0], expected 1 values");
    fails(|arch| arch.inputs[0].std[0] = 0.0, "std is [0.0], expected positive numbers");
}

#[test]
fn a_parameter_is_trained_everywhere_or_nowhere() {
    let mut arch = Builder::new("tiny", InputSpec::gray(8))
        .conv("conv", 4, window(3))
        .batch_norm("norm")
        .build()
        .unwrap();
    arch.nodes[1].params.insert("bias".into(), "norm.running_var".into());
    let message = arch.check().unwrap_err().to_string();
    assert!(
        message.starts_with("parameter 'norm.running_var' is a bias or scale of one node and a"),
        "{message}"
    );
}

#[test]
fn impossible_values_of_ops() {
    let with = |op: Op, expected: &str| fails(|arch| arch.nodes[1].op = op.clone(), expected);
    with(
        Dropout { p: 1.0 }.into(),
        "layer 'relu1' (dropout): p is 1.0, expected a probability below 1",
    );
    with(Maxout { pieces: 0 }.into(), "layer 'relu1' (maxout): pieces is 0, expected at least 1");
    let conv = |change: &dyn Fn(&mut Conv), expected: &str| {
        fails(
            |arch| {
                let Op::Conv(conv) = &mut arch.nodes[3].op else {
                    panic!("conv2 is a convolution")
                };
                change(conv);
            },
            expected,
        );
    };
    conv(
        &|conv| conv.stride = vec![0, 1],
        "layer 'conv2' (conv): stride is [0, 1], expected 2 positive values",
    );
    conv(
        &|conv| conv.padding = Padding::symmetric([1]),
        "padding is [1], expected 2 values, one per spatial axis",
    );
    conv(&|conv| conv.groups = 0, "groups is 0");
    conv(
        &|conv| conv.groups = 3,
        "in_channels is 32, expected a positive multiple of the 3 groups",
    );
    let huge = small().cost([1, usize::MAX, 28]).unwrap_err().to_string();
    assert!(huge.contains("expected at most 4294967296 values"), "{huge}");
    let window = window(2).stride(2).pad(2);
    let error =
        Builder::new("pools", InputSpec::gray(28)).max_pool("pool", window).build().unwrap_err();
    assert!(
        error.to_string().contains("padding is [2, 2], expected at most half of the window"),
        "{error}"
    );
    let error = Builder::new("deep", InputSpec::gray(4))
        .conv("conv", 1, self::window(9))
        .build()
        .unwrap_err();
    assert!(
        error.to_string().contains("expected at least 9 pixels along spatial axis 0"),
        "{error}"
    );
}

#[test]
fn unknown_names_come_with_those_that_exist() {
    let error = arch::by_name("resnet-20").unwrap_err().to_string();
    assert!(
        error.starts_with("no architecture named 'resnet-20'; did you mean 'resnet20'"),
        "{error}"
    );
    let net = arch::by_name("googlenet").unwrap().initialize(1).unwrap();
    let error = net.conv("conv2/3x3_reduced").unwrap_err().to_string();
    assert!(error.contains("did you mean 'conv2/3x3_reduce'"), "{error}");
    assert!(error.contains("more)"), "long lists are cut: {error}");
    let error = net.conv("pool1/norm1").unwrap_err().to_string();
    assert_eq!(error, "layer 'pool1/norm1' is lrn, expected conv");
    assert_eq!(net.conv("conv2/3x3").unwrap().weight().shape(), [192, 64, 3, 3]);
    assert_eq!(net.conv("conv2/3x3").unwrap().bias().unwrap().shape(), [192]);
    assert!(matches!(net.kernel("pool1/norm1"), Err(NetError::WrongOp { .. })));
}

#[test]
fn parameters_of_another_shape_are_refused() {
    let mut net = small().initialize(1).unwrap();
    let error =
        net.set_param("fc2.weight", ndarray::ArrayD::zeros(vec![10, 127])).unwrap_err().to_string();
    assert_eq!(error, "parameter 'fc2.weight' has shape [10, 127], expected [10, 128]");
    assert!(net.set_param("fc3.weight", ndarray::ArrayD::zeros(vec![1])).is_err());
}

#[test]
fn initialization_is_seeded_and_scaled() {
    let arch = arch::by_name("resnet20").unwrap();
    let net = arch.initialize(7).unwrap();
    assert_eq!(net, arch.initialize(7).unwrap());
    assert_ne!(net, arch.initialize(8).unwrap());
    // He: variance 2 / fan-in in front of a ReLU, 1 / fan-in at the head.
    let variance = |name: &str| {
        let array = net.kernel(name).unwrap();
        array.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / array.len() as f64
    };
    let (conv, head) = (variance("layer3.0.conv2"), variance("linear"));
    assert!((conv * 576.0 / 2.0 - 1.0).abs() < 0.05, "{conv}");
    assert!((head * 64.0 - 1.0).abs() < 0.2, "{head}");
    assert!(net.params()["bn1.weight"].iter().all(|x| (*x - 1.0).abs() < 1e-9));
    assert!(net.params()["bn1.running_var"].iter().all(|x| (*x - 1.0).abs() < 1e-9));
    assert!(net.params()["bn1.running_mean"].iter().all(|x| x.abs() < 1e-9));
    assert!(net.params()["linear.bias"].iter().all(|x| x.abs() < 1e-9));
}

#[test]
fn heads_of_all_kinds() {
    for (name, head, shape) in [
        ("resnet20", "linear", vec![7, 64]),
        ("alexnet", "classifier.6", vec![7, 4096]),
        ("squeezenet1_1", "conv10", vec![7, 512, 1, 1]),
        // Four maxout pieces per class.
        ("charnet", "conv4", vec![28, 128, 1, 1]),
    ] {
        let before = arch::by_name(name).unwrap().initialize(1).unwrap();
        let mut net = before.clone();
        net.replace_head(7, 5).unwrap();
        assert_eq!(net.head_name().unwrap(), head);
        assert_eq!(net.kernel(head).unwrap().shape(), shape, "{name}");
        assert_eq!(
            net.architecture().output_shape(net.architecture().input_shapes()).unwrap(),
            [7],
            "{name}"
        );
        for (param, array) in before.params().iter().filter(|(param, _)| !param.starts_with(head)) {
            assert_eq!(net.params()[param], *array, "{name}");
        }
        let error = net.replace_head(0, 5).unwrap_err().to_string();
        assert!(error.contains("for 0 classes: at least 1 class"), "{error}");
    }
}

#[test]
fn a_factorized_head_becomes_dense() {
    let mut net = small().initialize(1).unwrap();
    let factors = common::factors(&net, "fc2", cp_net::Form::LowRank, 3, 5);
    net.put_factors("fc2", &factors, 0.5).unwrap();
    net.replace_head(4, 2).unwrap();
    assert_eq!(net.kernel("fc2").unwrap().shape(), [4, 128]);
    assert!(net.architecture().factorized.is_empty());
}

#[test]
fn other_input_sizes_where_the_layers_allow_them() {
    let net = arch::by_name("resnet20").unwrap().initialize(1).unwrap();
    let small_macs = net.cost([3, 32, 32]).unwrap().total.macs;
    let net = net.with_input_shape([3, 64, 64]).unwrap();
    assert_eq!(net.input().shape, [3, 64, 64]);
    assert!(net.cost(&net.input().shape).unwrap().total.macs > 3 * small_macs);
    assert!(net.clone().with_input_shape([1, 64, 64]).is_err(), "the channels cannot change");

    let error = small().with_input_shape([1, 32, 32]).unwrap_err().to_string();
    assert!(
        error.contains(
            "layer 'fc1' (linear) cannot take an input of shape [4096], 'flatten': expected [3136]"
        ),
        "{error}"
    );
    let error =
        arch::by_name("charnet").unwrap().with_input_shape([1, 32, 32]).unwrap_err().to_string();
    assert!(error.contains("the output 'flatten' has shape [2916] instead of [36]"), "{error}");
    let error =
        arch::by_name("alexnet").unwrap().with_input_shape([3, 32, 32]).unwrap_err().to_string();
    assert!(
        error.contains("layer 'features.12'") || error.contains("layer 'features.5'"),
        "{error}"
    );
}

#[test]
fn architectures_survive_json() {
    for name in arch::names() {
        let arch = arch::by_name(name).unwrap();
        let json = serde_json::to_string(&arch).unwrap();
        let back: Architecture = serde_json::from_str(&json).unwrap();
        assert_eq!(back, arch, "{name}");
    }
}

/// A network behind another one's layer: any number of channels, and nothing to normalize.
#[test]
fn features_as_input() {
    let arch = Builder::new("head", InputSpec::features([64, 8, 8]))
        .global_avg_pool("pool")
        .flatten("flatten")
        .linear("fc", 10)
        .build()
        .unwrap();
    assert_eq!(arch.param_count(), 650);
    let mut wrong = arch.clone();
    wrong.inputs[0].mean = vec![0.5; 64];
    assert!(wrong.check().unwrap_err().to_string().contains("expected 0 values"));
    wrong.inputs[0] = InputSpec::features([0, 8, 8]);
    assert!(wrong.check().unwrap_err().to_string().contains("no size 0"));
    assert!(Builder::new("none", InputSpec::features([])).flatten("flatten").build().is_err());
}

/// A record that does not say what the nodes say is found on loading.
#[test]
fn records_of_factorized_layers_are_checked() {
    let mut arch = small();
    arch.factorize("conv2", cp_net::Form::Cp4, 4).unwrap();
    arch.check().unwrap();
    let fails = |change: &dyn Fn(&mut cp_net::Factorization), expected: &str| {
        let mut arch = arch.clone();
        change(arch.factorized.get_mut("conv2").unwrap());
        let error = arch.check().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    fails(&|record| record.rank = cp_net::Rank::One(5), "at 'conv2.reduce': the op is not the one");
    fails(&|record| record.parts.swap(1, 2), "at 'conv2.horizontal': the op is not the one");
    fails(&|record| record.parts[2] = "conv7".into(), "at 'conv7': there is no such layer");
    fails(&|record| drop(record.parts.pop()), "the form has another number of parts");
    let mut both = arch.clone();
    both.nodes[4].name = "conv2".into();
    assert!(both.check().is_err());
}
