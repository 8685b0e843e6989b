//! Convolutions whose parameters are factors, against what their authors' programs compute: CPAC-Conv (Wang, Guo & Yue) layer by layer, as
//! a network, in training and with the authors' trained weights; `FactorizedConv` of tensorly-torch over one to three axes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::collections::BTreeMap;

use common::cpac::{Cpac, map};
use common::executor;
use common::golden::{Golden, LAYOUTS, check, idx};
use cp_net::{
    Architecture, Conv, CpConv, INPUT, InputSpec, Network, Node, Op, Padding, TtConv, TuckerConv,
};
use cp_torch::tch::{Kind, Tensor, no_grad};
use cp_torch::{Executor, Layout, Mode, array_from_tensor};
use ndarray::ArrayD;

/// The factors of CPAC-Conv in the files and here.
const CPAC: [(&str, &str); 4] =
    [("kN", "output"), ("kS", "input"), ("kX", "axis0"), ("kY", "axis1")];

/// A network of one layer with arrays of the file by slot.
fn single(op: impl Into<Op>, input: &[i64], params: &[(&str, Tensor)]) -> Network {
    let shape: Vec<usize> = input.iter().map(|&size| size as usize).collect();
    let arch = Architecture::new(
        "layer",
        InputSpec::features(shape),
        vec![Node::new("layer", op, [INPUT])],
    );
    let params = params
        .iter()
        .map(|(slot, tensor)| (format!("layer.{slot}"), array_from_tensor(tensor).unwrap()));
    Network::new(arch, params.collect()).unwrap()
}

fn parameter(model: &Executor, name: &str) -> Tensor {
    let found = model.tensors().find(|(known, ..)| *known == name);
    found.map(|(_, _, tensor)| tensor.shallow_clone()).unwrap()
}

/// Output and gradients of `net` for batches of the file, in every layout; `gradients` are pairs of an array of the file and a slot.
fn check_layer(
    golden: &Golden,
    net: &Network,
    x: &Tensor,
    y: &Tensor,
    cotangent: &Tensor,
    gradients: &[(&str, &str)],
) {
    for layout in LAYOUTS {
        let model = executor(net, layout);
        let x = x.copy().set_requires_grad(true);
        let got = model.forward(&x, Mode::Train).unwrap();
        check(&got, y, &format!("output in {layout:?}"));
        (got * cotangent).sum(Kind::Float).backward();
        for (array, slot) in gradients {
            let expected = golden.get(array);
            let gradient = match *slot {
                "x" => x.grad(),
                slot => parameter(&model, &format!("layer.{slot}")).grad(),
            };
            check(&gradient.reshape(expected.size()), &expected, &format!("{array} in {layout:?}"));
        }
    }
    // What only runs forward: ordinary convolutions, in libtorch too.
    let folded = net.folded().unwrap();
    assert!(folded.nodes().iter().all(|node| matches!(node.op, Op::Conv(_))));
    let got = no_grad(|| executor(&folded, Layout::Auto).forward(x, Mode::Eval).unwrap());
    check(&got, y, "output when folded");
}

fn check_cpac(name: &str, params: usize) {
    let Some(golden) = Golden::load(name) else { return };
    let x = golden.get("x");
    let (out, rank) = golden.get("kN").size2().unwrap();
    let (channels, _) = golden.get("kS").size2().unwrap();
    let dense = Conv { bias: false, ..Conv::new(channels as usize, out as usize, [3, 3]) };
    let factors: Vec<(&str, Tensor)> =
        CPAC.iter().map(|(array, slot)| (*slot, golden.get(array))).collect();
    let net = single(CpConv::of(&dense, rank as usize), &x.size(), &factors);
    assert_eq!(net.param_count(), params);
    let gradients: Vec<(String, &str)> =
        CPAC.iter().map(|(array, slot)| (format!("grad.{array}"), *slot)).collect();
    let mut gradients: Vec<(&str, &str)> =
        gradients.iter().map(|(array, slot)| (array.as_str(), *slot)).collect();
    gradients.push(("grad.x", "x"));
    let [batch, y, cotangent] = ["x", "y", "cotangent"].map(|name| golden.get(name).unsqueeze(0));
    check_layer(&golden, &net, &batch, &y, &cotangent, &gradients);

    // The paper's expressions: the same, and the slopes of their own forward pass.
    let double = |name: &str| array_from_tensor(&golden.get(name)).unwrap().mapv(f64::from);
    let arrays: Vec<ArrayD<f64>> = CPAC.iter().map(|(array, _)| double(array)).collect();
    let layer = Cpac::new([&arrays[0], &arrays[1], &arrays[2], &arrays[3]]);
    let (image, cotangent) = (map(&double("x")), map(&double("cotangent")));
    let maps = layer.term_maps(image.view());
    close(&maps.clone().into_dyn(), &double("rank_maps"), 1e-5, "maps of the terms");
    close(&maps.sum_axis(ndarray::Axis(0)).into_dyn(), &double("y"), 1e-5, "output");
    let found = layer.backward(image.view(), cotangent.view());
    let Cpac { output, input, rows, columns } = found.factors;
    let found_factors = [output, input, rows, columns];
    for ((array, _), found) in CPAC.iter().zip(&found_factors) {
        let name = format!("grad.{array}");
        close(&found.clone().into_dyn(), &double(&name), 1e-5, &name);
    }
    close(&found.image.clone().into_dyn(), &double("grad.x"), 1e-5, "grad.x");
    let step = 1e-5;
    for (which, found) in found_factors.iter().enumerate() {
        for (at, gradient) in found.indexed_iter() {
            let moved = |by: f64| {
                let mut moved = layer.clone();
                let factor = match which {
                    0 => &mut moved.output,
                    1 => &mut moved.input,
                    2 => &mut moved.rows,
                    _ => &mut moved.columns,
                };
                factor[at] += by;
                moved.score(image.view(), cotangent.view())
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!(
                (slope - gradient).abs() <= 1e-6 * (1.0 + slope.abs()),
                "{which} {at:?}: {gradient}, {slope}"
            );
        }
    }
}

#[track_caller]
fn close(got: &ArrayD<f64>, expected: &ArrayD<f64>, tolerance: f64, what: &str) {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    let largest = expected.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    let worst = (got - expected).iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    assert!(worst <= tolerance * largest, "{what} differs by up to {worst} of {largest}");
}

#[test]
fn cpac_of_one_channel() {
    check_cpac("cpac-layer-1ch", 75);
}

#[test]
fn cpac_of_three_channels() {
    check_cpac("cpac-layer-3ch", 56);
}

/// A built-in network with the arrays of a file under `prefix`.
fn cpac_network(golden: &Golden, prefix: &str, name: &str) -> Network {
    let arch = cp_net::arch::by_name(name).unwrap();
    let params = arch.params().map(|(name, _)| {
        let (layer, slot) = name.rsplit_once('.').unwrap();
        let array = CPAC.iter().find(|(_, own)| *own == slot).map_or(slot, |(array, _)| array);
        let array = golden.get(&format!("{prefix}{layer}.{array}"));
        (name, array_from_tensor(&array).unwrap())
    });
    let params = params.collect();
    Network::new(arch, params).unwrap()
}

#[test]
fn cpac_network_and_nine_steps_of_adam() {
    let Some(golden) = Golden::load("cpac-net2") else { return };
    let net = cpac_network(&golden, "weight.", "cpac");
    assert_eq!(net.param_count(), 10_745);
    let (x, labels) = (golden.get("x"), golden.get("labels"));
    let model = executor(&net, Layout::Auto);
    let log_probs = model.forward(&x, Mode::Train).unwrap().log_softmax(1, Kind::Float);
    check(&log_probs, &golden.get("log_probs"), "log-probabilities");
    let loss = log_probs.nll_loss(&labels);
    check(&loss.reshape([1]), &golden.get("loss"), "loss");
    loss.backward();
    for (name, expected) in golden.under("grad.") {
        let (layer, slot) = name.rsplit_once('.').unwrap();
        let slot = CPAC.iter().find(|(array, _)| *array == slot).map_or(slot, |(_, own)| own);
        check(&parameter(&model, &format!("{layer}.{slot}")).grad(), expected, name);
    }

    // One image a step: 0, 1, 2, 0, …
    let model = executor(&net, Layout::Auto);
    let (rate, first, second) = (1e-4, 0.9, 0.999);
    let mut moments: BTreeMap<String, [Tensor; 2]> = BTreeMap::new();
    let losses = Vec::<f32>::try_from(golden.get("adam_losses_batch1")).unwrap();
    for (step, expected) in losses.into_iter().enumerate() {
        let image = step as i64 % 3;
        let y = model.forward(&x.narrow(0, image, 1), Mode::Train).unwrap();
        let loss = y.cross_entropy_for_logits(&labels.narrow(0, image, 1));
        loss.backward();
        let loss = loss.double_value(&[]);
        assert!((loss - f64::from(expected)).abs() <= 1e-4, "step {step}: {loss} for {expected}");
        let count = step as i32 + 1;
        no_grad(|| {
            for (name, _, mut param) in model.trainable() {
                let gradient = param.grad();
                let zero = || [gradient.zeros_like(), gradient.zeros_like()];
                let [mean, square] = moments.entry(name).or_insert_with(zero);
                *mean = &*mean * first + &gradient * (1.0 - first);
                *square = &*square * second + &gradient * &gradient * (1.0 - second);
                let mean = &*mean / (1.0 - f64::powi(first, count));
                let square = &*square / (1.0 - f64::powi(second, count));
                param -= mean / (square.sqrt() + 1e-8) * rate;
                param.zero_grad();
            }
        });
    }
    for (name, expected) in golden.under("adam_after9.") {
        let (layer, slot) = name.rsplit_once('.').unwrap();
        let slot = CPAC.iter().find(|(array, _)| *array == slot).map_or(slot, |(_, own)| own);
        let got = parameter(&model, &format!("{layer}.{slot}"));
        // A step of Adam is as large where the gradient is all rounding.
        let worst = (got.detach() - expected).abs().max().double_value(&[]);
        assert!(worst <= 2e-5, "{name} differs by up to {worst}");
    }
}

/// The weights that the authors trained: 97.82 % of the 10,000 test images, which the paper has too.
#[test]
fn cpac_on_mnist() {
    let Some(golden) = Golden::load("real/cpac-mnist-1layer-r5") else { return };
    let net = cpac_network(&golden, "", "cpac(layers=1)");
    let images = idx("mnist-t10k-images-idx3-ubyte.gz", 16).reshape([-1, 1, 28, 28]);
    let labels = idx("mnist-t10k-labels-idx1-ubyte.gz", 8).to_kind(Kind::Int64);
    let images = (images.to_kind(Kind::Float) / 255.0 - 0.5) / 0.5;
    let model = executor(&net, Layout::Auto);
    let log_probs =
        no_grad(|| model.forward(&images, Mode::Eval).unwrap().log_softmax(1, Kind::Float));
    check(&log_probs.narrow(0, 0, 16), &golden.get("log_probs_first_16"), "log-probabilities");
    let classes = log_probs.argmax(1, false);
    assert_eq!(classes.narrow(0, 0, 200), golden.get("pred_first_200"));
    assert_eq!(classes.eq_tensor(&labels).sum(Kind::Int64).int64_value(&[]), 9782);
    let loss = log_probs.nll_loss(&labels).double_value(&[]);
    assert!((loss - 0.074_513).abs() < 5e-6, "{loss}");
}

/// A layer of `FactorizedConv`: the factors are `factor.T`, `factor.S`, `factor.k0`, …
fn check_factorized(
    name: &str,
    dense: Conv,
    make: impl Fn(&Conv) -> Op,
    params: usize,
) -> Option<(Golden, Network)> {
    let golden = Golden::load(name)?;
    let arrays: Vec<(String, &str)> = [
        ("factor.T", "output"),
        ("factor.S", "input"),
        ("core", "core"),
        ("lambda", "weights"),
        ("bias", "bias"),
    ]
    .into_iter()
    .map(|(array, slot)| (array.to_owned(), slot))
    .chain(
        ["axis0", "axis1", "axis2"]
            .into_iter()
            .enumerate()
            .map(|(axis, slot)| (format!("factor.k{axis}"), slot)),
    )
    .filter(|(array, _)| golden.0.contains_key(array))
    .collect();
    let op = make(&dense);
    let shapes: BTreeMap<&str, Vec<i64>> = op
        .params()
        .into_iter()
        .map(|spec| (spec.slot, spec.shape.iter().map(|&size| size as i64).collect()))
        .collect();
    // The ends of a train have a rank of 1 there.
    let tensors: Vec<(&str, Tensor)> = arrays
        .iter()
        .map(|(array, slot)| (*slot, golden.get(array).reshape(&shapes[slot])))
        .collect();
    let x = golden.get("x");
    let net = single(op, &x.size()[1..], &tensors);
    assert_eq!(net.param_count(), params);
    let gradients: Vec<(String, &str)> =
        arrays.iter().map(|(array, slot)| (format!("grad.{array}"), *slot)).collect();
    let mut gradients: Vec<(&str, &str)> =
        gradients.iter().map(|(array, slot)| (array.as_str(), *slot)).collect();
    gradients.push(("grad.x", "x"));
    check_layer(&golden, &net, &x, &golden.get("y"), &golden.get("cotangent"), &gradients);

    // The kernel put together.
    let way = net.nodes()[0].op.ways().remove(0);
    let factors: Vec<ArrayD<f32>> = way.parts[0]
        .kernel
        .slots
        .iter()
        .map(|slot| net.params()[&format!("layer.{slot}")].clone())
        .collect();
    let views: Vec<_> = factors.iter().map(ArrayD::view).collect();
    let kernel = array_from_tensor(&golden.get("kernel")).unwrap().mapv(f64::from);
    close(&way.parts[0].kernel.eval(&views), &kernel, 1e-6, "kernel");
    Some((golden, net))
}

/// The convolution of a file: channels, kernel, stride, padding, dilation.
fn geometry(
    channels: [usize; 2],
    kernel: &[usize],
    stride: &[usize],
    padding: &[usize],
    dilation: &[usize],
) -> Conv {
    Conv {
        stride: stride.to_vec(),
        padding: Padding::symmetric(padding),
        dilation: dilation.to_vec(),
        ..Conv::new(channels[0], channels[1], kernel)
    }
}

fn cp(rank: usize) -> impl Fn(&Conv) -> Op {
    move |dense| CpConv { weights: true, ..CpConv::of(dense, rank) }.into()
}

#[test]
fn cp_of_one_to_three_axes() {
    check_factorized("factorizedconv-cp-1d", geometry([4, 5], &[3], &[2], &[1], &[2]), cp(6), 83);
    check_factorized(
        "factorizedconv-cp-3d",
        geometry([3, 4], &[3, 3, 2], &[1, 2, 1], &[1, 1, 0], &[1, 1, 2]),
        cp(5),
        84,
    );
    check_factorized(
        "factorizedconv-cp-2d",
        geometry([4, 5], &[3, 2], &[2, 1], &[1, 1], &[1, 2]),
        cp(6),
        95,
    );
}

#[test]
fn tucker_of_two_and_three_axes() {
    check_factorized(
        "factorizedconv-tucker-2d",
        geometry([6, 5], &[3, 3], &[1, 2], &[1, 1], &[1, 1]),
        |dense| TuckerConv::of(dense, [3, 4, 2, 3]).into(),
        131,
    );
    check_factorized(
        "factorizedconv-tucker-3d",
        geometry([4, 3], &[3, 2, 3], &[1, 1, 2], &[1, 0, 1], &[1; 3]),
        |dense| TuckerConv::of(dense, [2, 3, 2, 2, 3]).into(),
        112,
    );
}

#[test]
fn tensor_train() {
    check_factorized(
        "factorizedconv-tt-2d",
        geometry([4, 5], &[3, 3], &[1, 1], &[1, 1], &[1, 1]),
        |dense| TtConv::of(dense, [3, 4, 3]).into(),
        104,
    );
}
