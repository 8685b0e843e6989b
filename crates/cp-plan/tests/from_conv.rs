//! Convolutions with factors made of trained ones: at full rank the same function, below it that of the kernel that the factors make; and
//! the start of CPAC's networks.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::{als, random};
use cp_net::{
    Architecture, Conv, CpConv, INPUT, InputSpec, Network, Node, Op, Padding, TtConv, TuckerConv,
    arch,
};
use cp_plan::{Decomposer, Factored, cp_start, from_conv};
use ndarray::{ArrayD, ArrayView, Axis};

/// One convolution whose geometry differs axis by axis.
fn network(kernel: &[usize], groups: usize) -> Network {
    let axes = kernel.len();
    let conv = Conv {
        stride: (0..axes).map(|axis| 1 + axis % 2).collect(),
        padding: Padding::Each((0..axes).map(|axis| [axis, 1]).collect()),
        dilation: (0..axes).map(|axis| 2 - axis % 2).collect(),
        groups,
        ..Conv::new(4, 6, kernel)
    };
    let shape = [&[4], &[7, 6, 5][..axes]].concat();
    let params = [
        ("conv.weight".to_owned(), random(&conv.weight_shape(), 1)),
        ("conv.bias".to_owned(), random(&[6], 2)),
    ];
    let nodes = vec![Node::new("conv", conv, [INPUT])];
    Network::new(Architecture::new("one", InputSpec::features(shape), nodes), params.into())
        .unwrap()
}

fn input(net: &Network) -> ArrayD<f32> {
    random(&[&[2], &net.input().shape[..]].concat(), 5)
}

fn output(net: &Network, x: &ArrayD<f32>) -> ArrayD<f32> {
    net.eval(&[x.view()]).unwrap().remove(0)
}

fn distance(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f64 {
    let size =
        |x: ArrayView<'_, f32, _>| x.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    size((a - b).view()) / size(b.view())
}

#[test]
fn at_full_rank_the_function_stays() {
    for kernel in [&[3][..], &[3, 2], &[2, 3, 2]] {
        let net = network(kernel, 1);
        let x = input(&net);
        let y = output(&net, &x);
        let sizes: Vec<usize> = [&[6, 4], kernel].concat();
        let cp_rank =
            6 * 4 * kernel.iter().product::<usize>() / kernel.iter().max().unwrap().max(&6);
        let many = Decomposer { max_energy: None, ..Decomposer::als(800, 3) };
        for weights in [false, true] {
            let made =
                from_conv(&net, "conv", &Factored::Cp { rank: cp_rank, weights }, &many).unwrap();
            let Op::CpConv(op) = &made.nodes()[0].op else { panic!() };
            assert_eq!(*op, CpConv { weights, ..CpConv::of(&dense(&net), cp_rank) });
            let error = distance(&output(&made, &x), &y);
            assert!(error < 2e-2, "CP over {kernel:?}: {error}");
            if weights {
                let factor = &made.params()["conv.output"];
                let first: f32 = factor.index_axis(Axis(1), 0).iter().map(|v| v * v).sum();
                assert!((first - 1.0).abs() < 1e-4, "columns of norm 1: {first}");
            }
        }
        let tucker = Factored::Tucker { ranks: sizes.clone() };
        let made = from_conv(&net, "conv", &tucker, &als()).unwrap();
        assert!(
            matches!(&made.nodes()[0].op, Op::TuckerConv(op) if *op == TuckerConv::of(&dense(&net), sizes))
        );
        assert!(distance(&output(&made, &x), &y) < 1e-5, "Tucker over {kernel:?}");
        let train = Factored::TensorTrain { ranks: vec![1000; kernel.len() + 1] };
        let made = from_conv(&net, "conv", &train, &als()).unwrap();
        assert!(
            matches!(&made.nodes()[0].op, Op::TtConv(TtConv { stride, .. }) if *stride == dense(&net).stride)
        );
        assert!(distance(&output(&made, &x), &y) < 1e-5, "train over {kernel:?}");
    }
}

fn dense(net: &Network) -> Conv {
    let Op::Conv(conv) = &net.nodes()[0].op else { panic!() };
    conv.clone()
}

/// Below full rank: the error of the output is about that of the kernel, and falls with the rank.
#[test]
fn lower_ranks_come_nearer_as_they_rise() {
    let net = network(&[3, 3], 1);
    let x = input(&net);
    let y = output(&net, &x);
    let errors = |of: &dyn Fn(usize) -> Factored| -> Vec<f64> {
        let at =
            |rank| distance(&output(&from_conv(&net, "conv", &of(rank), &als()).unwrap(), &x), &y);
        [1, 3, 4].map(at).to_vec()
    };
    for found in [
        errors(&|rank| Factored::Cp { rank: 4 * rank, weights: true }),
        errors(&|rank| Factored::Tucker { ranks: vec![rank, rank, rank.min(3), rank.min(3)] }),
        errors(&|rank| Factored::TensorTrain { ranks: vec![rank; 3] }),
    ] {
        assert!(found.is_sorted_by(|a, b| a > b) && found[2] > 0.01 && found[0] < 1.0, "{found:?}");
    }
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |net: &Network, layer: &str, factored: Factored, words: &[&str]| {
        let message = from_conv(net, layer, &factored, &als()).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    let net = network(&[3, 2], 1);
    let cp = |rank| Factored::Cp { rank, weights: false };
    refused(&net, "conf", cp(2), &["conf", "conv"]);
    refused(&net, "conv", cp(0), &["conv", "0"]);
    refused(&net, "conv", Factored::Tucker { ranks: vec![7, 2, 2, 2] }, &["conv", "7"]);
    refused(&net, "conv", Factored::Tucker { ranks: vec![2, 2] }, &["conv", "4", "2"]);
    refused(&net, "conv", Factored::TensorTrain { ranks: vec![2] }, &["conv", "3", "1"]);
    refused(&network(&[3, 2], 2), "conv", cp(2), &["conv", "2 groups"]);
    let charnet = arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
    refused(&charnet, "fc1", cp(2), &["fc1", "linear"]);
}

/// Factors of about the size of those of a kernel of variance 1/81, and the same for the same seed.
#[test]
fn cpac_starts_from_random_kernels() {
    let net = arch::by_name("cpac(rank=5)").unwrap().initialize(1).unwrap();
    let made = cp_start(&net, 7).unwrap();
    assert_eq!(made, cp_start(&net, 7).unwrap());
    assert_ne!(made, cp_start(&net, 8).unwrap());
    for (name, array) in made.params() {
        let factor = name.starts_with("conv");
        assert_eq!(*array != net.params()[name], factor, "{name}");
    }
    // The model of rank 72 of a kernel [8, 1, 3, 3] is the kernel: of variance 1/81.
    let whole =
        arch::by_name("cpac(layers=1, rank=24, filters=200)").unwrap().initialize(1).unwrap();
    let whole = cp_start(&whole, 3).unwrap().with_cp_layers().unwrap();
    let kernel = whole.reconstructed("conv1").unwrap();
    let variance = kernel.iter().map(|v| f64::from(v * v)).sum::<f64>() / kernel.len() as f64;
    assert!((variance * 81.0 - 1.0).abs() < 0.15, "{variance}");
    // Numbers of other layers do not repeat.
    let two = arch::by_name("cpac(rank=3, filters=1)").unwrap().initialize(1).unwrap();
    let two = cp_start(&two, 3).unwrap();
    assert_ne!(two.params()["conv1.axis0"], two.params()["conv2.axis0"]);
}
