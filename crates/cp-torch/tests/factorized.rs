//! Every factorized form computes what the dense convolution with the reconstructed kernel computes, in the executor and
//! as a stand-alone module, in both layouts.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::{assert_close, chain, executor, network, random, random_cp, tensor};
use cp_core::{CpTensor, truncated_svd};
use cp_net::{Conv, Flatten, Form, Linear, Network, Op, Padding};
use cp_plan::Factorize as _;
use cp_torch::tch::nn::{Module, VarStore};
use cp_torch::tch::{Device, Kind, Tensor};
use cp_torch::{CpConv2d, Layout, LowRankLinear, Mode, TorchError};
use ndarray::{Array1, ArrayD, Axis, IxDyn, concatenate};

const LAYOUTS: [Layout; 2] = [Layout::Nchw, Layout::ChannelsLast];
const RANK: usize = 5;

/// Stride, padding, dilation and groups of a convolution.
#[derive(Clone)]
struct Geometry {
    stride: Vec<usize>,
    padding: Vec<usize>,
    dilation: Vec<usize>,
    groups: usize,
}

fn conv(in_channels: usize, out_channels: usize, kernel: &[usize], geometry: &Geometry) -> Conv {
    let Geometry { stride, padding, dilation, groups } = geometry.clone();
    let padding = Padding::symmetric(padding);
    Conv { stride, padding, dilation, groups, ..Conv::new(in_channels, out_channels, kernel) }
}

fn unit(axes: usize) -> Geometry {
    geometry(&vec![1; axes], &vec![0; axes], &vec![1; axes], 1)
}

/// 3 → 6 channels by a 1×1 convolution, then `layer`, 6 → 12 channels, whose kernel is exactly that of the CP models.
fn planted(
    kernel: &[usize],
    geometry: &Geometry,
    form: Form,
    input: &[usize],
) -> (Network, Vec<CpTensor<f32>>) {
    let axes = kernel.len();
    let ops = vec![
        ("stem", conv(3, 6, &vec![1; axes], &unit(axes)).into()),
        ("layer", conv(6, 12, kernel, geometry).into()),
    ];
    let mut net = network(chain(input, ops), 1);
    let shape = net.tensors("layer", form).unwrap()[0].shape().to_vec();
    let size = (RANK * shape[1..].iter().product::<usize>()) as f32;
    let mut models: Vec<_> =
        (0..geometry.groups).map(|group| random_cp(&shape, RANK, 20 + group as u64)).collect();
    // Keeps the outputs near 1.
    models.iter_mut().for_each(|cp| cp.weights *= 3.0 / size.sqrt());
    let kernels: Vec<ArrayD<f32>> = models.iter().map(CpTensor::reconstruct).collect();
    let views: Vec<_> = kernels.iter().map(ArrayD::view).collect();
    let whole = concatenate(Axis(0), &views).unwrap();
    let weight_shape = net.kernel("layer").unwrap().shape().to_vec();
    net.set_param("layer.weight", whole.into_shape_with_order(IxDyn(&weight_shape)).unwrap())
        .unwrap();
    (net, models)
}

fn check(kernel: &[usize], geometry: &Geometry, form: Form, input: &[usize]) {
    let (dense, models) = planted(kernel, geometry, form, input);
    let mut factorized = dense.clone();
    factorized.factorize("layer", form, &models).unwrap();

    let batch = [&[2], input].concat();
    let x = tensor(&batch, 9);
    for layout in LAYOUTS {
        let expected = executor(&dense, layout).forward(&x, Mode::Eval).unwrap();
        let model = executor(&factorized, layout);
        assert_close(&model.forward(&x, Mode::Eval).unwrap(), &expected, 1e-4);
        assert_close(&model.forward(&x, Mode::Train).unwrap(), &expected, 1e-4);
        assert!(
            expected.abs().max().double_value(&[]) > 0.1,
            "the outputs are too small for the tolerance to mean much"
        );
    }

    if kernel.len() == 2 {
        let Op::Conv(op) = &dense.node("layer").unwrap().op else { unreachable!() };
        let y = tensor(&[2, 6, input[1], input[2]], 10);
        let expected = {
            let weight = cp_torch::tensor_from_f32(dense.kernel("layer").unwrap()).unwrap();
            let bias = cp_torch::tensor_from_f32(dense.params()["layer.bias"].view()).unwrap();
            let [stride, padding, dilation] =
                [&geometry.stride, &geometry.padding, &geometry.dilation]
                    .map(|values| values.iter().map(|&value| value as i64).collect::<Vec<_>>());
            y.conv2d(&weight, Some(&bias), stride, padding, dilation, geometry.groups as i64)
        };
        let variables = VarStore::new(Device::Cpu);
        let bias: Array1<f32> = dense.params()["layer.bias"].clone().into_dimensionality().unwrap();
        let layer =
            CpConv2d::from_cp(variables.root() / "a", op, &models, Some(bias.view())).unwrap();
        assert_close(&layer.forward(&y), &expected, 1e-4);
        let layer = CpConv2d::from_network(variables.root() / "b", &factorized, "layer").unwrap();
        assert_close(&layer.forward(&y), &expected, 1e-4);
        assert_eq!(layer.rank(), RANK * geometry.groups);
        let parts = factorized.architecture().factorization("layer").unwrap().parts.len();
        assert_eq!(variables.len(), 2 * (parts + 1));
        assert!(
            variables.variables().contains_key("b.reduce.weight"),
            "{:?}",
            variables.variables().keys()
        );
    }
}

fn geometry(stride: &[usize], padding: &[usize], dilation: &[usize], groups: usize) -> Geometry {
    Geometry {
        stride: stride.to_vec(),
        padding: padding.to_vec(),
        dilation: dilation.to_vec(),
        groups,
    }
}

/// All combinations of the geometry for one kernel and one number of groups.
fn grid(kernel: &[usize], groups: usize) {
    for form in [Form::Cp3, Form::Cp4] {
        for stride in [[1, 1], [2, 2], [2, 1], [1, 3]] {
            for padding in [[0, 0], [1, 1], [2, 0], [1, 2]] {
                for dilation in [[1, 1], [2, 1], [1, 3]] {
                    check(
                        kernel,
                        &geometry(&stride, &padding, &dilation, groups),
                        form,
                        &[3, 11, 10],
                    );
                }
            }
        }
    }
}

#[test]
fn square_kernels() {
    grid(&[3, 3], 1);
}

#[test]
fn square_kernels_in_groups() {
    grid(&[3, 3], 2);
    grid(&[3, 3], 3);
}

#[test]
fn oblong_kernels() {
    grid(&[5, 2], 1);
    grid(&[1, 3], 2);
    grid(&[4, 1], 1);
}

#[test]
fn one_and_three_axes() {
    for form in [Form::Cp3, Form::Cp4] {
        check(&[3], &geometry(&[2], &[1], &[2], 1), form, &[3, 11]);
        check(&[4], &geometry(&[1], &[2], &[1], 2), form, &[3, 11]);
        check(&[2, 3, 3], &geometry(&[1, 2, 1], &[1, 0, 2], &[1, 1, 2], 1), form, &[3, 4, 7, 6]);
        check(&[2, 1, 3], &geometry(&[2, 1, 1], &[0, 0, 1], &[1, 1, 1], 2), form, &[3, 4, 5, 6]);
    }
}

#[test]
fn low_rank() {
    let ops = vec![
        ("stem", conv(3, 6, &[3, 3], &geometry(&[1, 1], &[1, 1], &[1, 1], 1)).into()),
        ("point", conv(6, 12, &[1, 1], &geometry(&[2, 1], &[0, 1], &[1, 1], 2)).into()),
        ("flat", Flatten { axis: 0 }.into()),
        ("fc", Linear { in_features: 12 * 3 * 7, out_features: 9, bias: true }.into()),
    ];
    let mut dense = network(chain(&[3, 6, 5], ops), 2);
    let mut factorized = dense.clone();
    // Rank 2 of 3 by 6: the dense network gets the truncated kernels.
    let svds: Vec<_> = dense
        .tensors("point", Form::LowRank)
        .unwrap()
        .iter()
        .map(|group| truncated_svd(group.view().into_dimensionality().unwrap(), 2).unwrap())
        .collect();
    factorized.factorize_low_rank("point", &svds).unwrap();
    let matrix = dense.kernel("fc").unwrap().into_dimensionality().unwrap().to_owned();
    let svd = truncated_svd(matrix.view(), 4).unwrap();
    factorized.factorize_linear("fc", &svd).unwrap();
    for layer in ["point", "fc"] {
        dense
            .set_param(&format!("{layer}.weight"), factorized.reconstructed(layer).unwrap())
            .unwrap();
    }
    let x = tensor(&[3, 3, 6, 5], 4);
    for layout in LAYOUTS {
        let expected = executor(&dense, layout).forward(&x, Mode::Eval).unwrap();
        assert_close(
            &executor(&factorized, layout).forward(&x, Mode::Eval).unwrap(),
            &expected,
            1e-4,
        );
    }

    let variables = VarStore::new(Device::Cpu);
    let y = tensor(&[3, 252], 5);
    let bias: Array1<f32> = dense.params()["fc.bias"].clone().into_dimensionality().unwrap();
    let weight = cp_torch::tensor_from_f32(dense.kernel("fc").unwrap()).unwrap();
    let expected =
        y.linear(&weight, Some(&cp_torch::tensor_from_f32(bias.view().into_dyn()).unwrap()));
    let layer = LowRankLinear::from_svd(variables.root() / "a", &svd, Some(bias.view())).unwrap();
    assert_close(&layer.forward(&y), &expected, 1e-4);
    let layer = LowRankLinear::from_network(variables.root() / "b", &factorized, "fc").unwrap();
    assert_close(&layer.forward(&y), &expected, 1e-4);
    assert_eq!((layer.rank(), variables.len()), (4, 6));
}

/// The derivative of Σ y ⊙ c with respect to every parameter, along a random direction, against central differences. The
/// network is linear in each parameter, so that a long step has no error but rounding.
#[test]
fn gradients_of_a_factorized_network_are_those_of_finite_differences() {
    for (form, groups) in [(Form::Cp3, 1), (Form::Cp4, 1), (Form::Cp3, 2), (Form::Cp4, 3)] {
        let geometry = geometry(&[2, 1], &[1, 2], &[1, 1], groups);
        let (mut net, models) = planted(&[3, 3], &geometry, form, &[3, 7, 6]);
        net.factorize("layer", form, &models).unwrap();
        for layout in LAYOUTS {
            let model = executor(&net, layout);
            let x = tensor(&[2, 3, 7, 6], 3);
            let c = tensor(&[2, 12, 4, 8], 4);
            let loss = || (model.forward(&x, Mode::Train).unwrap() * &c).sum(Kind::Double);
            loss().backward();
            let trainable = model.trainable();
            assert_eq!(trainable.len(), if form == Form::Cp3 { 6 } else { 7 });
            for (index, (name, _, tensor)) in trainable.iter().enumerate() {
                let shape: Vec<usize> = tensor.size().iter().map(|&size| size as usize).collect();
                let direction = common::tensor(&shape, 100 + index as u64);
                let expected = (tensor.grad() * &direction).sum(Kind::Double).double_value(&[]);
                let step = 0.25;
                let at = |by: f64| {
                    cp_torch::tch::no_grad(|| {
                        let mut tensor = tensor.shallow_clone();
                        let before = tensor.copy();
                        tensor.copy_(&(&before + &direction * by));
                        let value = loss().double_value(&[]);
                        tensor.copy_(&before);
                        value
                    })
                };
                let got = (at(step) - at(-step)) / (2.0 * step);
                assert!(
                    (got - expected).abs() <= 1e-3 * (1.0 + expected.abs()),
                    "{name}: {got} against {expected}"
                );
            }
        }
    }
}

#[test]
fn a_module_trains() {
    let variables = VarStore::new(Device::Cpu);
    let padding = Padding::symmetric([1, 1]);
    let op = Conv { padding, bias: false, ..Conv::new(4, 6, [3, 3]) };
    let layer =
        CpConv2d::from_cp(variables.root(), &op, &[random_cp(&[6, 4, 3, 3], 3, 1)], None).unwrap();
    let x = tensor(&[2, 4, 5, 5], 1);
    layer.forward(&x).square().sum(Kind::Float).backward();
    for (name, variable) in variables.variables() {
        assert!(variable.grad().abs().max().double_value(&[]) > 0.0, "{name}");
    }
}

#[test]
fn modules_refuse_what_does_not_fit() {
    let variables = VarStore::new(Device::Cpu);
    let op = |kernel: &[usize], groups| Conv { groups, bias: false, ..Conv::new(4, 6, kernel) };
    let build =
        |op: &Conv, models: &[CpTensor<f32>]| CpConv2d::from_cp(variables.root(), op, models, None);
    let message = |result: Result<CpConv2d, TorchError>| result.unwrap_err().to_string();

    let swapped = message(build(&op(&[3, 3], 1), &[random_cp(&[4, 6, 3, 3], 2, 1)]));
    assert!(
        swapped.contains("[6, 4, 3, 3, 2]") && swapped.contains("[4, 6, 3, 3, 2]"),
        "{swapped}"
    );
    assert!(
        message(build(&op(&[3, 3], 2), &[random_cp(&[3, 2, 9], 2, 1)])).contains("one per group")
    );
    assert!(build(&op(&[1, 1], 1), &[random_cp(&[6, 4, 1], 2, 1)]).is_err());
    assert!(message(build(&op(&[3], 1), &[random_cp(&[6, 4, 3], 2, 1)])).contains("two axes"));
    assert!(build(&op(&[3, 3], 1), &[]).is_err());

    let layer = build(&op(&[3, 3], 1), &[random_cp(&[6, 4, 9], 2, 1)]).unwrap();
    let wrong = Tensor::zeros([1, 5, 8, 8], (Kind::Float, Device::Cpu));
    assert!(layer.f_forward(&wrong).is_err());
    assert!(layer.f_forward(&wrong.squeeze()).unwrap_err().to_string().contains("[5, 8, 8]"));

    let (net, _) = planted(&[3, 3], &unit(2), Form::Cp3, &[3, 8, 8]);
    let dense = CpConv2d::from_network(variables.root(), &net, "layer").unwrap_err().to_string();
    assert!(dense.contains("layer"), "{dense}");
    let svd = truncated_svd(random(&[6, 4], 1).into_dimensionality().unwrap().view(), 2).unwrap();
    assert!(
        LowRankLinear::from_svd(variables.root(), &svd, Some(Array1::zeros(4).view())).is_err()
    );
}
