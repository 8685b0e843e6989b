//! Jaderberg's schemes, the decoupled form and Denton's: at full rank the dense convolution, below it the convolution with the kernel that they make,
//! and the numbers of other programs.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::collections::BTreeMap;

use common::golden::{Golden, LAYOUTS, check, check_within};
use common::{executor, random};
use cp_net::{Architecture, Conv, Form, INPUT, InputSpec, Network, Node, Padding, Rank, Relu};
use cp_plan::{Decomposer, Factorize};
use cp_torch::tch::{Kind, Tensor, no_grad};
use cp_torch::{Executor, Layout, Mode, array_from_tensor, tensor_from_f32};

const FORMS: [Form; 3] = [Form::Jaderberg1, Form::Jaderberg2, Form::Decoupled];

/// A network of one convolution.
fn single(conv: Conv, map: [usize; 2], seed: u64) -> Network {
    let shape = vec![conv.in_channels, map[0], map[1]];
    let params = [("conv.weight", conv.weight_shape()), ("conv.bias", vec![conv.out_channels])];
    let params = params.iter().map(|(name, shape)| ((*name).to_owned(), random(shape, seed)));
    let params = params.collect();
    let nodes = vec![Node::new("conv", conv, [INPUT])];
    Network::new(Architecture::new("one", InputSpec::features(shape), nodes), params).unwrap()
}

fn run(net: &Network, x: &Tensor) -> Tensor {
    no_grad(|| executor(net, Layout::Auto).forward(x, Mode::Eval).unwrap())
}

/// Factorizes `conv`; ‖K − K̂‖ / ‖K‖, as the network's record has it.
fn factorize(
    net: &mut Network,
    form: Form,
    rank: impl Into<Rank>,
    decomposer: &Decomposer,
) -> Result<f64, Box<dyn std::error::Error>> {
    let rank = rank.into();
    let observe = &mut |_: &cp_core::Progress| std::ops::ControlFlow::Continue(());
    let tensors = net.tensors("conv", form)?;
    // What has no such rank is refused before anything is decomposed.
    cp_net::replacement("conv", &net.node("conv")?.op, form, rank)?;
    let models = tensors.iter().enumerate().map(|(group, tensor)| {
        decomposer
            .decompose("conv", group, tensor.view(), form, rank, observe)
            .map(|found| found.model)
    });
    let models = models.collect::<Result<Vec<_>, _>>()?;
    drop(tensors);
    net.factorize_with("conv", form, &models)?;
    Ok(net.architecture().factorization("conv")?.rel_error)
}

/// Full rank of a form for the groups of a convolution.
fn full(conv: &Conv, form: Form) -> usize {
    let shape = conv.group_shape();
    let (out, inputs, rows, columns) = (shape[0], shape[1], shape[2], shape[3]);
    match form {
        Form::Jaderberg1 => (out * rows).min(out * columns).min(rows * columns),
        Form::Jaderberg2 => (inputs * rows).min(out * columns),
        _ => inputs.min(rows * columns),
    }
}

#[test]
fn the_form_is_the_convolution_with_its_kernel() {
    let dense = Conv {
        stride: vec![2, 1],
        padding: Padding::Each(vec![[1, 0], [2, 1]]),
        dilation: vec![1, 2],
        ..Conv::new(4, 6, [3, 2])
    };
    for groups in [1, 2] {
        let conv = Conv { groups, ..dense.clone() };
        let net = single(conv.clone(), [9, 8], 3);
        let x = tensor_from_f32(random(&[2, 4, 9, 8], 5).view()).unwrap();
        let y = run(&net, &x);
        for form in FORMS {
            let most = full(&conv, form);
            for rank in [1, most] {
                let decomposer = Decomposer { max_energy: None, ..Decomposer::als(400, 1) };
                let mut made = net.clone();
                let error = factorize(&mut made, form, rank, &decomposer).unwrap();
                let what = format!("{form} R={rank} in {groups} groups");
                let mut again = made.clone();
                again.densify("conv").unwrap();
                let kernel = again.kernel("conv").unwrap().to_owned();
                let truth = net.kernel("conv").unwrap().to_owned();
                let norm = |a: &ndarray::ArrayD<f32>| {
                    a.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt()
                };
                let distance = norm(&(&kernel - &truth)) / norm(&truth);
                assert!((distance - error).abs() < 1e-5, "{what}: {distance}, said {error}");
                check_within(1e-5, &run(&made, &x), &run(&again, &x), &what);
                if rank == most {
                    assert!(error < 2e-3, "{what}: {error}");
                    check_within(5e-3, &run(&made, &x), &y, &what);
                } else {
                    assert!(error > 1e-2, "{what}: {error}");
                }
                // Parameters as the table of the forms counts them.
                let (s, t, g) = (4, 6, groups);
                let counted = match form {
                    Form::Jaderberg1 => s * rank * (3 + 2) + s * rank * t / g + t,
                    Form::Jaderberg2 => rank * (s * 3 + t * 2) + t,
                    _ => rank * t * (s / g + 6) + t,
                };
                assert_eq!(made.param_count(), counted, "{what}");
            }
            let mut made = net.clone();
            let refused = factorize(&mut made, form, most + 1, &Decomposer::als(5, 1));
            let message = refused.unwrap_err().to_string();
            assert!(
                message.contains(&(most + 1).to_string()) && message.contains(&most.to_string()),
                "{message}"
            );
            assert!(factorize(&mut made, form, 0, &Decomposer::als(5, 1)).is_err());
        }
    }
}

/// The form is the convolution with its kernel; ‖K − K̂‖ / ‖K‖.
fn check_form(net: &Network, x: &Tensor, form: Form, rank: Rank, params: usize) -> f64 {
    let what = format!("{form} R={rank}");
    let decomposer = Decomposer { max_energy: None, ..Decomposer::als(400, 1) };
    let mut made = net.clone();
    let error = factorize(&mut made, form, rank, &decomposer).unwrap();
    let mut again = made.clone();
    again.densify("conv").unwrap();
    check_within(1e-5, &run(&made, x), &run(&again, x), &what);
    assert_eq!(made.param_count(), params, "{what}");
    error
}

#[test]
fn a_shared_basis_blocks_and_colours() {
    let dense = Conv {
        stride: vec![2, 1],
        padding: Padding::Each(vec![[1, 0], [2, 1]]),
        dilation: vec![1, 2],
        ..Conv::new(4, 6, [3, 2])
    };
    for groups in [1, 2] {
        let conv = Conv { groups, ..dense.clone() };
        let net = single(conv, [9, 8], 3);
        let x = tensor_from_f32(random(&[2, 4, 9, 8], 5).view()).unwrap();
        let y = run(&net, &x);
        // Clusters of each group: three of output channels, two of input channels; blocks are [2/g, 2/g, 6].
        let (oc, ic, g) = (3, 2, groups);
        for k in [1, 2 / g] {
            let params = oc * ic * g * k * (6 / (oc * g) + 4 / (ic * g) + 6) + 6;
            let error = check_form(&net, &x, Form::Denton, [oc, ic, k].into(), params);
            assert!((error < 1e-6) == (g == 2), "{error}");
        }
        for r in [1, 2 / g] {
            let params = oc * ic * g * (r * 6 / (oc * g) + r * 4 / (ic * g) + r * r * 6) + 6;
            let error = check_form(&net, &x, Form::DentonSvd, [oc, ic, r, r].into(), params);
            assert!((error < 1e-6) == (r == 2 / g), "{error}");
        }
        let mut exact = net.clone();
        let rank = [oc, ic, 2 / g, 2 / g];
        factorize(&mut exact, Form::DentonSvd, rank, &Decomposer::default()).unwrap();
        check_within(1e-5, &run(&exact, &x), &y, "blocks at full rank");
        if groups == 1 {
            for m in [1, 6] {
                let params = m * (3 + 2) + 4 * m * 6 + 6;
                let error = check_form(&net, &x, Form::Jaderberg1Shared, m.into(), params);
                assert!((error < 2e-3) == (m == 6), "{error}");
            }
            for colours in [1, 6] {
                let params = 4 * colours + 6 * 6 + 6;
                let error = check_form(&net, &x, Form::Monochromatic, colours.into(), params);
                assert!(error > 1e-2, "{error}");
            }
        }
    }
}

fn check_scheme2(
    name: &str,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    groups: usize,
    rank: usize,
    params: usize,
) {
    let Some(golden) = Golden::load(name) else { return };
    let shape = golden.get("kernel").size();
    let conv = Conv {
        stride: stride.to_vec(),
        padding: Padding::symmetric(padding),
        groups,
        ..Conv::new(shape[1] as usize * groups, shape[0] as usize, kernel)
    };
    let x = golden.get("x");
    let mut net = single(conv, [x.size()[2] as usize, x.size()[3] as usize], 0);
    for (param, array) in [("conv.weight", "kernel"), ("conv.bias", "bias")] {
        net.set_param(param, array_from_tensor(&golden.get(array)).unwrap()).unwrap();
    }
    let error = factorize(&mut net, Form::Jaderberg2, rank, &Decomposer::default()).unwrap();
    let expected = golden.get("relative_error").double_value(&[0]);
    assert!((error - expected).abs() < 1e-5, "{error} for {expected}");
    assert_eq!(net.param_count(), params);
    check(&run(&net, &x), &golden.get("y"), name);
    let kernel = tensor_from_f32(net.reconstructed("conv").unwrap().view()).unwrap();
    check(&kernel, &golden.get("reconstructed_kernel"), "kernel");
}

#[test]
fn scheme_2_is_the_closed_form() {
    check_scheme2("jaderberg-scheme2", [3, 3], [1, 2], [1, 1], 1, 5, 156);
    check_scheme2("jaderberg-scheme2-grouped", [5, 3], [2, 1], [2, 1], 2, 3, 120);
}

/// The parts of `form` with arrays of a file, by the names of the parts; perhaps with a ReLU behind the first.
fn parts(
    conv: &Conv,
    map: &[i64],
    form: Form,
    rank: usize,
    arrays: &[(&str, Tensor)],
    relu: bool,
) -> Network {
    let mut nodes = Vec::new();
    let mut value = INPUT.to_owned();
    for (suffix, op) in
        cp_net::replacement("conv", &conv.clone().into(), form, Rank::One(rank)).unwrap()
    {
        nodes.push(Node::new(suffix, op, [std::mem::replace(&mut value, suffix.to_owned())]));
        if relu && nodes.len() == 1 {
            nodes.push(Node::new(
                "relu",
                Relu {},
                [std::mem::replace(&mut value, "relu".to_owned())],
            ));
        }
    }
    let shape: Vec<usize> = map.iter().map(|&size| size as usize).collect();
    let arch = Architecture::new("parts", InputSpec::features(shape), nodes);
    let params: BTreeMap<_, _> = arch
        .params()
        .map(|(name, spec)| {
            let array =
                arrays.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}"));
            let array = array_from_tensor(&array.1).unwrap();
            (name, array.into_shape_with_order(spec.shape).unwrap())
        })
        .collect();
    Network::new(arch, params).unwrap()
}

/// Output and gradients; `gradients` are arrays of the file and parameters.
fn check_layer(golden: &Golden, net: &Network, y: &str, gradients: &[(&str, &str)]) {
    for layout in LAYOUTS {
        let model: Executor = executor(net, layout);
        let x = golden.get("x").copy().set_requires_grad(true);
        let got = model.forward(&x, Mode::Train).unwrap();
        check(&got, &golden.get(y), &format!("{y} in {layout:?}"));
        (got * golden.get("cotangent")).sum(Kind::Float).backward();
        for (array, name) in gradients {
            let expected = golden.get(array);
            let gradient = match *name {
                "x" => x.grad(),
                name => model.tensors().find(|(known, ..)| *known == name).unwrap().2.grad(),
            };
            check(&gradient.reshape(expected.size()), &expected, &format!("{array} in {layout:?}"));
        }
    }
}

#[test]
fn scheme_1_with_a_basis_for_every_channel() {
    let Some(golden) = Golden::load("jaderberg-scheme1-per-channel") else { return };
    let conv =
        Conv { stride: vec![2; 2], padding: Padding::symmetric([2, 2]), ..Conv::new(4, 3, [5, 5]) };
    // Input channel slowest: [S, M, k] is [S·M, k], and [T, S, M] is [T, S·M].
    let arrays = [
        ("vertical.weight", golden.get("vertical")),
        ("horizontal.weight", golden.get("horizontal")),
        ("expand.weight", golden.get("mix")),
        ("expand.bias", golden.get("bias")),
    ];
    let x = golden.get("x");
    let net = parts(&conv, &x.size()[1..], Form::Jaderberg1, 3, &arrays, false);
    assert_eq!(net.param_count(), 159);
    let gradients = [
        ("grad.vertical", "vertical.weight"),
        ("grad.horizontal", "horizontal.weight"),
        ("grad.mix", "expand.weight"),
        ("grad.x", "x"),
    ];
    check_layer(&golden, &net, "y", &gradients);
}

#[test]
fn scheme_1_with_one_basis_for_all_channels() {
    let Some(mut golden) = Golden::load("jaderberg-scheme1-shared") else { return };
    let conv = Conv { padding: Padding::symmetric([1, 1]), ..Conv::new(3, 5, [3, 3]) };
    // [T, S, M] there; here the channels are the depth of every filter: [T, M, S].
    for name in ["mix", "grad.mix"] {
        let turned = golden.get(name).permute([0, 2, 1]).contiguous();
        golden.0.insert(format!("{name}, turned"), turned);
    }
    let arrays = [
        ("vertical.weight", golden.get("vertical")),
        ("horizontal.weight", golden.get("horizontal")),
        ("expand.weight", golden.get("mix, turned")),
        ("expand.bias", golden.get("bias")),
    ];
    let x = golden.get("x");
    let net = parts(&conv, &x.size()[1..], Form::Jaderberg1Shared, 2, &arrays, false);
    assert_eq!(net.param_count(), 47);
    let gradients = [
        ("grad.vertical", "vertical.weight"),
        ("grad.horizontal", "horizontal.weight"),
        ("grad.mix, turned", "expand.weight"),
        ("grad.x", "x"),
    ];
    check_layer(&golden, &net, "y", &gradients);
}

fn check_decoupled(name: &str, conv: &Conv, rank: usize, params: usize) {
    let Some(golden) = Golden::load(name) else { return };
    let arrays = [
        ("reduce.weight", golden.get("balanced.channel_map")),
        ("spatial.weight", golden.get("balanced.aggregation")),
        ("spatial.bias", golden.get("bias")),
    ];
    let x = golden.get("x");
    let map = &x.size()[1..];
    let net = parts(conv, map, Form::Decoupled, rank, &arrays, false);
    assert_eq!(net.param_count(), params);
    let gradients = [
        ("grad.balanced.channel_map", "reduce.weight"),
        ("grad.balanced.aggregation", "spatial.weight"),
        ("grad.bias", "spatial.bias"),
        ("grad.x", "x"),
    ];
    check_layer(&golden, &net, "balanced.y", &gradients);
    let net = parts(conv, map, Form::Decoupled, rank, &arrays, true);
    check(&run(&net, &x), &golden.get("balanced.y_relu_between"), "with a ReLU");

    // The exact view: a map of the channels for every output and tap, then a filter of a single tap for each.
    let taps: usize = conv.kernel.iter().product();
    let shifts = Tensor::eye(taps as i64, (Kind::Float, cp_torch::tch::Device::Cpu));
    let shifts = shifts.repeat([conv.out_channels as i64, 1]);
    let nodes = vec![
        Node::new(
            "map",
            Conv { bias: false, ..Conv::new(conv.in_channels, conv.out_channels * taps, [1, 1]) },
            [INPUT],
        ),
        Node::new(
            "sum",
            Conv {
                in_channels: conv.out_channels * taps,
                groups: conv.out_channels,
                ..conv.clone()
            },
            ["map"],
        ),
    ];
    let shape: Vec<usize> = map.iter().map(|&size| size as usize).collect();
    let arch = Architecture::new("exact", InputSpec::features(shape), nodes);
    let array = |tensor: &Tensor| array_from_tensor(tensor).unwrap();
    let specs: BTreeMap<String, Vec<usize>> =
        arch.params().map(|(name, spec)| (name, spec.shape)).collect();
    let params = [
        ("map.weight", golden.get("exact.channel_map")),
        ("sum.weight", shifts),
        ("sum.bias", golden.get("bias")),
    ];
    let params = params.iter().map(|(name, tensor)| {
        ((*name).to_owned(), array(tensor).into_shape_with_order(specs[*name].clone()).unwrap())
    });
    let exact = Network::new(arch, params.collect()).unwrap();
    check(&run(&exact, &x), &golden.get("y_dense"), "the exact view");

    // What the closed form finds at full rank, from the dense kernel.
    let mut dense = single(conv.clone(), [map[1] as usize, map[2] as usize], 0);
    for (param, array) in [("conv.weight", "dense_kernel"), ("conv.bias", "bias")] {
        dense.set_param(param, array_from_tensor(&golden.get(array)).unwrap()).unwrap();
    }
    check(&run(&dense, &x), &golden.get("y_dense"), "dense");
    let most = full(conv, Form::Decoupled);
    let error = factorize(&mut dense, Form::Decoupled, most, &Decomposer::default()).unwrap();
    assert!(error < 1e-6, "{error}");
    check(&run(&dense, &x), &golden.get("y_dense"), "decoupled at full rank");
}

#[test]
fn decoupled() {
    let conv = Conv { padding: Padding::symmetric([1, 1]), ..Conv::new(5, 4, [3, 3]) };
    check_decoupled("decoupled", &conv, 2, 116);
    let conv = Conv {
        stride: vec![2, 1],
        padding: Padding::symmetric([1, 0]),
        dilation: vec![1, 2],
        ..Conv::new(4, 3, [3, 2])
    };
    check_decoupled("decoupled-strided", &conv, 3, 93);
}
