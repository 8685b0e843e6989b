//! Forms whose parts are more than convolutions one after the other: a basis for all channels, clusters, colours.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

mod common;

use std::path::{Path, PathBuf};

use common::{difference, factors, random, run};
use cp_net::{
    Architecture, Conv, Factors, Form, INPUT, InputSpec, Network, Node, Op, Padding, Rank,
    replacement,
};
use ndarray::{Array2, ArrayD};
use safetensors::SafeTensors;

/// A network of one convolution, `conv`.
fn one(conv: Conv, map: &[usize]) -> Network {
    let shape = [&[conv.in_channels], map].concat();
    let nodes = vec![Node::new("conv", conv, [INPUT])];
    let arch = Architecture::new("one", InputSpec::features(shape), nodes);
    let params = arch.params().map(|(name, spec)| (name, random(&spec.shape, 3))).collect();
    Network::new(arch, params).unwrap()
}

/// The parts give what the dense convolution with the kernel of the factors gives, before and after a file.
fn check(conv: &Conv, map: &[usize], form: Form, rank: impl Into<Rank>) {
    let rank = rank.into();
    let what = format!("{form} R={rank} of {conv:?}");
    let net = one(conv.clone(), map);
    let given = factors(&net, "conv", form, rank, 9);
    let mut made = net.clone();
    made.put_factors("conv", &given, 0.5).unwrap();
    assert_eq!(made.factors("conv").unwrap(), given, "{what}");
    made.architecture().check().unwrap();
    let x = vec![random(&[&[2, conv.in_channels], map].concat(), 5)];
    let y = run(&made, &x);
    let mut dense = made.clone();
    dense.densify("conv").unwrap();
    assert_eq!(dense.architecture(), net.architecture(), "{what}");
    assert_eq!(dense.params().get("conv.bias"), net.params().get("conv.bias"), "{what}");
    assert_eq!(dense.kernel("conv").unwrap(), made.reconstructed("conv").unwrap().view());
    let worst = difference(&y[0], &run(&dense, &x)[0]);
    assert!(worst < 1e-5, "{what}: {worst}");
    // What is counted beforehand is what there is then.
    let cost = made.cost(&made.architecture().inputs[0].shape[..]).unwrap();
    let shapes = net.architecture().shapes(net.architecture().input_shapes()).unwrap();
    let counted = net.architecture().factors_cost("conv", form, rank, &shapes).unwrap();
    let biases = if conv.bias { conv.out_channels } else { 0 };
    assert_eq!(cost.layer("conv").unwrap().cost.params, counted.params + biases, "{what}");
    assert_eq!(cost.layer("conv").unwrap().cost.macs, counted.macs, "{what}");
    assert_eq!(counted.params + biases, expected_params(conv, form, rank), "{what}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.safetensors");
    made.save(&path).unwrap();
    let again = Network::load(&path).unwrap();
    assert_eq!(again.factors("conv").unwrap(), given, "{what}");
    assert_eq!(run(&again, &x), y, "{what}");
}

/// As the table of the forms has it.
fn expected_params(conv: &Conv, form: Form, rank: Rank) -> usize {
    let (s, t, g) = (conv.in_channels, conv.out_channels, conv.groups);
    let taps: usize = conv.kernel.iter().product();
    let weights = match (form, rank) {
        (Form::Jaderberg1Shared, Rank::One(m)) => m * conv.kernel.iter().sum::<usize>() + s * m * t,
        (Form::Denton, Rank::Three([oc, ic, k])) => {
            let (oc, ic) = (g * oc, g * ic);
            oc * ic / g * k * (t / oc + s / ic + taps)
        }
        (Form::DentonSvd, Rank::Four([oc, ic, out, input])) => {
            let (oc, ic) = (g * oc, g * ic);
            oc * ic / g * (out * t / oc + input * s / ic + out * input * taps)
        }
        (Form::Monochromatic, Rank::One(colours)) => s * colours + t * taps,
        _ => panic!("{form} {rank}"),
    };
    weights + if conv.bias { t } else { 0 }
}

fn check_all(conv: &Conv, map: &[usize]) {
    for rank in [[1, 1, 2], [2, 3, 2], [3, 1, 1], [6 / conv.groups, 6 / conv.groups, 1]] {
        check(conv, map, Form::Denton, rank);
    }
    for rank in [[1, 1, 2, 2], [3, 1, 2, 3], [1, 3, 2, 1], [3, 3, 1, 1]] {
        check(conv, map, Form::DentonSvd, rank);
    }
    if conv.groups == 1 {
        check(conv, map, Form::Monochromatic, 2);
        check(conv, map, Form::Monochromatic, conv.out_channels);
        if conv.kernel.len() == 2 {
            check(conv, map, Form::Jaderberg1Shared, 1);
            check(conv, map, Form::Jaderberg1Shared, 4);
        }
    }
}

#[test]
fn the_parts_are_the_convolution_with_their_kernel() {
    let dense = Conv::new(6, 12, [3, 2]);
    check_all(&dense, &[6, 5]);
    check_all(&Conv { bias: false, ..dense.clone() }, &[4, 4]);
    let strided = Conv { stride: vec![2, 3], dilation: vec![2, 1], ..dense.clone() };
    check_all(&strided, &[9, 8]);
    let padding = Padding::Each(vec![[0, 2], [1, 0]]);
    check_all(&Conv { padding, ..strided.clone() }, &[9, 8]);
    for padding in [Padding::Same, Padding::SameLower] {
        check_all(&Conv { padding, ..strided.clone() }, &[8, 7]);
    }
    check_all(&Conv::new(6, 12, [4]), &[9]);
    check_all(&Conv::new(6, 12, [2, 1, 3]), &[3, 2, 4]);
}

#[test]
fn groups_have_clusters_of_their_own() {
    let padding = Padding::symmetric([1, 1]);
    let grouped = Conv { groups: 2, padding, stride: vec![2, 1], ..Conv::new(12, 18, [3, 3]) };
    for rank in [[1, 1, 2], [3, 2, 2], [9, 6, 1]] {
        check(&grouped, &[6, 6], Form::Denton, rank);
    }
    for rank in [[1, 1, 2, 3], [3, 2, 2, 1], [9, 6, 1, 1]] {
        check(&grouped, &[6, 6], Form::DentonSvd, rank);
    }
}

/// Layers with one kernel share factors and orders, and come back together.
#[test]
fn layers_with_one_kernel() {
    let conv = Conv { padding: Padding::symmetric([1, 1]), ..Conv::new(4, 4, [3, 3]) };
    let mut second = Node::new("b", Conv { stride: vec![2; 2], ..conv.clone() }, ["a"]);
    second.params.insert("weight".into(), "a.weight".into());
    let nodes = vec![Node::new("a", conv, [INPUT]), second];
    let arch = Architecture::new("net", InputSpec::features([4, 6, 6]), nodes);
    let params = arch.params().map(|(name, spec)| (name, random(&spec.shape, 3))).collect();
    let net = Network::new(arch, params).unwrap();
    let ranks: [(Form, Rank); 4] = [
        (Form::Denton, [2, 2, 3].into()),
        (Form::DentonSvd, [2, 1, 2, 3].into()),
        (Form::Monochromatic, 3.into()),
        (Form::Jaderberg1Shared, 2.into()),
    ];
    for (form, rank) in ranks {
        let given = factors(&net, "a", form, rank, 9);
        let mut made = net.clone();
        made.put_factors("b", &given, 0.5).unwrap();
        made.architecture().check().unwrap();
        assert_eq!(made.architecture().factorized.len(), 2);
        for layer in ["a", "b"] {
            assert_eq!(made.factors(layer).unwrap(), given, "{form}");
        }
        // What one of them reads, the other has to.
        let mut apart = made.architecture().clone();
        let gather = apart.nodes.iter_mut().find_map(|node| match &mut node.op {
            Op::Gather(gather) if node.name.starts_with("b.") => Some(gather),
            _ => None,
        });
        if let Some(gather) = gather {
            gather.indices.rotate_left(1);
            let error = apart.check().unwrap_err().to_string();
            assert!(error.contains("has other indices"), "{error}");
        }
        let mut dense = made.clone();
        dense.densify("a").unwrap();
        assert_eq!(dense.architecture(), net.architecture(), "{form}");
        let x = vec![random(&[2, 4, 6, 6], 5)];
        let worst = difference(&run(&made, &x)[0], &run(&dense, &x)[0]);
        assert!(worst < 1e-5, "{form}: {worst}");
    }
}

/// A bias that another layer has, too, is left to that one.
#[test]
fn layers_with_one_bias() {
    let conv = |kernel: usize| Conv {
        padding: Padding::symmetric([kernel / 2; 2]),
        ..Conv::new(4, 4, [kernel; 2])
    };
    let mut second = Node::new("b", conv(1), ["a"]);
    second.params.insert("bias".into(), "a.bias".into());
    let nodes = vec![Node::new("a", conv(3), [INPUT]), second];
    let arch = Architecture::new("net", InputSpec::features([4, 5, 5]), nodes);
    let params = arch.params().map(|(name, spec)| (name, random(&spec.shape, 3))).collect();
    let net = Network::new(arch, params).unwrap();
    let given = factors(&net, "a", Form::Denton, [2, 2, 3], 9);
    let mut made = net.clone();
    made.put_factors("a", &given, 0.5).unwrap();
    assert_eq!(made.params()["a.bias"], net.params()["a.bias"]);
    let mut dense = made.clone();
    dense.densify("a").unwrap();
    let x = vec![random(&[2, 4, 5, 5], 5)];
    assert!(difference(&run(&made, &x)[0], &run(&dense, &x)[0]) < 1e-5);
    let mut expected = net.clone();
    expected.set_param("a.weight", made.reconstructed("a").unwrap()).unwrap();
    assert!(difference(&run(&dense, &x)[0], &run(&expected, &x)[0]) < 1e-5);
}

/// A permutation that was changed by hand changes what the layer computes, and another file is read as it is; one that is none is refused.
#[test]
fn orders_are_checked() {
    let net = one(Conv::new(4, 6, [3, 3]), &[4, 4]);
    let given = factors(&net, "conv", Form::Denton, [3, 2, 1], 9);
    let colours = factors(&net, "conv", Form::Monochromatic, 3, 9);
    let fails = |factors: &[Factors], order: Vec<Vec<usize>>, expected: &str| {
        let mut made = net.clone();
        let error = made.put_factors("conv", &[factors[0].clone().with_order(order)], 0.0);
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(made, net);
    };
    let all: Vec<usize> = (0..6).collect();
    fails(&given, vec![], "number of orders of channels is [0], expected [2]");
    fails(&given, vec![vec![0, 1, 2], all.clone()], "'arrange' has 3 entries, expected 4");
    fails(&given, vec![vec![0, 1, 4, 2], all.clone()], "holds 4, expected numbers from 0 to 3");
    fails(&given, vec![vec![0, 1, 1, 2], all.clone()], "'arrange' holds 1 more than once");
    fails(&given, vec![vec![0, 1, 3, 2], vec![0; 6]], "'restore' holds 0 more than once");
    fails(&colours, vec![], "number of orders");
    fails(&colours, vec![vec![0, 1, 2, 3, 0, 0]], "'assign' holds 3, expected numbers from 0 to 2");
    fails(&colours, vec![vec![0; 5]], "'assign' has 5 entries, expected 6");
    let cp = factors(&net, "conv", Form::Cp3, 2, 9);
    fails(&cp, vec![all], "number of orders of channels is [1], expected [0]");

    let mut made = net.clone();
    made.put_factors("conv", &given, 0.0).unwrap();
    let changed = |part: &str, indices: Vec<usize>| {
        let mut arch = made.architecture().clone();
        let node = arch.nodes.iter_mut().find(|node| node.name == part).unwrap();
        let Op::Gather(gather) = &mut node.op else { panic!("{part}") };
        gather.indices = indices;
        Network::new(arch, made.params().clone())
    };
    let other = changed("conv.arrange", vec![2, 0, 1, 3]).unwrap();
    assert_eq!(other.factors("conv").unwrap()[0].order[0], [2, 0, 1, 3]);
    for (part, wrong) in [
        ("conv.arrange", vec![0, 1, 2, 2]),
        ("conv.restore", vec![0, 1, 2, 3, 4, 4]),
        ("conv.shuffle", vec![1, 0, 2, 3, 4, 5]),
    ] {
        let error = changed(part, wrong).unwrap_err().to_string();
        assert!(error.contains("the op is not the one"), "{error}");
    }
    // A channel of another group is none of this one's.
    let grouped = one(Conv { groups: 2, ..Conv::new(4, 6, [3, 3]) }, &[4, 4]);
    let mut arch = grouped.architecture().clone();
    arch.factorize("conv", Form::Denton, [1, 2, 1]).unwrap();
    let node = arch.nodes.iter_mut().find(|node| node.name == "conv.arrange").unwrap();
    let Op::Gather(gather) = &mut node.op else { panic!() };
    gather.indices = vec![0, 2, 1, 3];
    assert!(arch.check().unwrap_err().to_string().contains("the op is not the one"));
}

#[test]
fn what_does_not_fit_is_refused() {
    let conv = Conv::new(4, 6, [3, 2]);
    let fails = |conv: &Conv, form: Form, rank: Rank, expected: &[&str]| {
        let error = replacement("conv", &conv.clone().into(), form, rank).unwrap_err().to_string();
        for expected in expected {
            assert!(error.contains(expected), "{form} {rank}: {error}");
        }
    };
    let (denton, svd) = (Form::Denton, Form::DentonSvd);
    fails(&conv, denton, [4, 2, 1].into(), &["4 clusters", "6 output channels"]);
    fails(&conv, denton, [2, 3, 1].into(), &["3 clusters", "4 input channels"]);
    fails(&conv, denton, [8, 2, 1].into(), &["8 clusters", "6 output channels"]);
    fails(&conv, denton, [2, 2, 7].into(), &["rank 7", "above 6"]);
    fails(&conv, denton, [2, 2, 0].into(), &["rank"]);
    fails(&conv, denton, [0, 2, 2].into(), &["rank"]);
    fails(&conv, denton, 2.into(), &["three numbers", "one number"]);
    fails(&conv, svd, [2, 2, 4, 1].into(), &["rank 4", "above 3"]);
    fails(&conv, svd, [2, 2, 3, 3].into(), &["rank 3", "above 2"]);
    fails(&conv, svd, [4, 2, 1, 1].into(), &["4 clusters"]);
    fails(&conv, svd, [2, 2, 1].into(), &["four numbers", "three numbers"]);
    fails(&conv, Form::Monochromatic, 7.into(), &["rank 7", "above 6"]);
    fails(&conv, Form::Monochromatic, 0.into(), &["rank"]);
    fails(&conv, Form::Jaderberg1Shared, 7.into(), &["rank 7", "above 6"]);
    let grouped = Conv { groups: 2, ..conv.clone() };
    fails(&grouped, Form::Jaderberg1Shared, 1.into(), &["use jaderberg1"]);
    fails(&grouped, Form::Monochromatic, 1.into(), &["one group"]);
    fails(&Conv::new(4, 6, [3]), Form::Jaderberg1Shared, 1.into(), &["two spatial axes"]);
    fails(&Conv::new(4, 6, [1, 1]), denton, [1, 1, 1].into(), &["use low-rank"]);
    for form in [denton, svd, Form::Monochromatic, Form::Jaderberg1Shared] {
        replacement("conv", &conv.clone().into(), form, form.least_rank()).unwrap();
        assert_eq!(form.name().parse::<Form>(), Ok(form));
        let json = serde_json::to_string(&form).unwrap();
        assert_eq!(json, format!("\"{form}\""));
    }
    let rank: Rank = serde_json::from_str("[2, 2, 48, 24]").unwrap();
    assert_eq!((rank, rank.to_string().as_str()), (Rank::Four([2, 2, 48, 24]), "2x2x48x24"));
}

/// Without factors, which cost the same, channels stay as they are and colours come in turn.
#[test]
fn the_graph_alone() {
    let mut arch = one(Conv::new(4, 6, [3, 3]), &[4, 4]).architecture().clone();
    let gathers = |arch: &Architecture| -> Vec<Vec<usize>> {
        let indices = |node: &Node| match &node.op {
            Op::Gather(gather) => Some(gather.indices.clone()),
            _ => None,
        };
        arch.nodes.iter().filter_map(indices).collect()
    };
    let mut clusters = arch.clone();
    clusters.factorize("conv", Form::Denton, [3, 2, 2]).unwrap();
    let shuffle = vec![0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11];
    let identity = |size: usize| (0..size).collect::<Vec<_>>();
    assert_eq!(gathers(&clusters), [identity(4), shuffle, identity(6)]);
    arch.factorize("conv", Form::Monochromatic, 4).unwrap();
    assert_eq!(gathers(&arch), [[0, 1, 2, 3, 0, 1]]);
    // Of six channels, four colours and their sums: 4·4 + 6·9 for 6·4·9.
    let even = one(Conv::new(4, 6, [3, 3]), &[4, 4]);
    let even = even.breakeven("conv", Form::Monochromatic, [4, 4, 4]).unwrap();
    assert!((even.params - (216.0 - 54.0) / 4.0).abs() < 1e-9, "{even:?}");
}

/// `shared/golden` beside the workspace, or where `POLYAD_GOLDEN` says.
fn golden(file: &str) -> Option<Vec<u8>> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
    let folder: PathBuf = std::env::var_os("POLYAD_GOLDEN").map_or_else(beside, Into::into);
    if !folder.is_dir() {
        println!("skipped: no golden data at {}", folder.display());
        return None;
    }
    Some(std::fs::read(folder.join(file)).unwrap())
}

fn array(file: &[u8], name: &str) -> ArrayD<f32> {
    let file = SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(name).unwrap();
    let values = view.data().chunks_exact(4);
    let values = values.map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    ArrayD::from_shape_vec(view.shape().to_vec(), values).unwrap()
}

/// What the layer of others computes with its own weights.
#[test]
fn a_basis_for_all_channels() {
    let Some(file) = golden("jaderberg-scheme1-shared.safetensors") else { return };
    let get = |name: &str| array(&file, name);
    let conv = Conv { padding: Padding::symmetric([1, 1]), ..Conv::new(3, 5, [3, 3]) };
    let mut net = one(conv, &[7, 8]);
    net.set_param("conv.weight", get("kernel")).unwrap();
    net.set_param("conv.bias", get("bias")).unwrap();
    let close = |got: &ArrayD<f32>, what: &str| {
        let expected = get(what);
        assert_eq!(got.shape(), expected.shape());
        let largest = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let worst = (got - &expected).iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!(worst <= 2e-5 * largest + 1e-6, "{what}: {worst}");
    };
    close(&run(&net, &[get("x")])[0], "y");
    let matrix = |name: &str| get(name).into_dimensionality::<ndarray::Ix2>().unwrap();
    // [T, S, M] there, [T, M, S] here.
    let mix = get("mix");
    let expand = Array2::from_shape_fn((5, 6), |(t, at)| mix[[t, at % 3, at / 3]]);
    let parts = vec![matrix("vertical"), matrix("horizontal"), expand];
    net.put_factors("conv", &[Factors::new(Form::Jaderberg1Shared, 2, parts)], 0.0).unwrap();
    assert_eq!(net.param_count(), 47);
    close(&run(&net, &[get("x")])[0], "y");
    close(&net.reconstructed("conv").unwrap(), "kernel");
}

/// Published settings: weights and multiply-adds of every step, to the digit.
#[test]
fn published_counts() {
    let Some(file) = golden("denton-jaderberg-counts.json") else { return };
    let counts: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let number = |value: &serde_json::Value| usize::try_from(value.as_u64().unwrap()).unwrap();
    let conv2 = &counts["denton_conv2"];
    let net = one(Conv { bias: false, ..Conv::new(96, 256, [5, 5]) }, &[55, 55]);
    let dense = net.cost([96, 55, 55]).unwrap();
    assert_eq!(dense.total.macs, number(&conv2["dense_macs"]));
    let rows = conv2["rows"].as_array().unwrap();
    assert!(rows.len() > 4);
    for row in rows {
        let rank = ["output_clusters", "input_clusters", "k"].map(|key| number(&row[key]));
        let mut arch = net.architecture().clone();
        arch.factorize("conv", Form::Denton, rank).unwrap();
        let cost = arch.cost([96, 55, 55]).unwrap();
        assert_eq!(cost.total.params, number(&row["weights"]), "{rank:?}");
        let steps = row["macs_three_steps"].as_array().unwrap();
        for (part, expected) in ["conv.reduce", "conv.spatial", "conv.expand"].iter().zip(steps) {
            let node = cost.nodes.iter().find(|node| node.name == *part).unwrap();
            assert_eq!(node.cost.macs, number(expected), "{rank:?} {part}");
        }
        let ratio = dense.total.macs as f64 / cost.total.macs as f64;
        assert!((ratio - row["mac_ratio"].as_f64().unwrap()).abs() < 1e-9, "{rank:?}: {ratio}");
    }
    let conv1 = Conv { bias: false, ..Conv::new(3, 96, [7, 7]) };
    let rows = counts["denton_conv1_monochromatic"].as_array().unwrap();
    assert!(rows.len() > 4);
    for row in rows {
        let mut arch = one(conv1.clone(), &[20, 20]).architecture().clone();
        assert_eq!(arch.param_count(), number(&row["weights_dense"]));
        arch.factorize("conv", Form::Monochromatic, number(&row["colours"])).unwrap();
        assert_eq!(arch.param_count(), number(&row["weights"]));
    }
}
