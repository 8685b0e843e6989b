//! Factorized layers against the dense layer with the reconstructed kernel, over a grid of geometries.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

mod common;

use common::{als, random, run};
use cp_net::{
    Architecture, Conv, Form, InputSpec, Linear, NetError, Network, Node, Op, PART_SUFFIXES,
    Padding, Rank, arch,
};
use cp_plan::{Factorize, KernelModel, PlanError, Profile, ProfileOptions, RankPlan, compress};

/// A network of one convolution on grey or three-channel images is too narrow: a 1×1 convolution in front widens it.
fn one_conv(conv: Conv, size: &[usize], seed: u64) -> Network {
    let widen = Conv { bias: false, ..Conv::new(1, conv.in_channels, vec![1; conv.kernel.len()]) };
    let mut shape = vec![1];
    shape.extend(size);
    let nodes = vec![Node::new("widen", widen, ["input"]), Node::new("conv", conv, ["widen"])];
    filled(Architecture::new("test", InputSpec::features(shape), nodes), seed)
}

/// The network with random arrays.
fn filled(arch: Architecture, seed: u64) -> Network {
    let params = arch
        .params()
        .enumerate()
        .map(|(i, (name, spec))| (name, random(&spec.shape, seed + i as u64)));
    let params = params.collect();
    Network::new(arch, params).unwrap()
}

/// Compresses `conv`, and checks that factors, reconstructed kernel and densified network agree.
fn check(conv: Conv, size: &[usize], form: Form, rank: impl Into<Rank>) {
    let rank = rank.into();
    let what = format!("{form} R={rank} of {conv:?}");
    let mut net = one_conv(conv, size, 7);
    let before = net.clone();
    let plan = RankPlan::default().with("conv", form, rank, "");
    let reports = compress(&mut net, &plan, &als(), &|_| {}).unwrap();
    let error = reports[0].rel_error;
    assert!(error < 1.0, "{what}: error {error}");
    assert!(net.node("conv").is_err());
    let x = random(&before.input().shape, 70);
    let factorized = run(&net, &x);

    let kernel = net.reconstructed("conv").unwrap();
    let old = before.kernel("conv").unwrap();
    let residual = (&kernel - &old).iter().map(|d| f64::from(*d).powi(2)).sum::<f64>().sqrt();
    let measured = residual / old.iter().map(|d| f64::from(*d).powi(2)).sum::<f64>().sqrt();
    assert!((measured - error).abs() < 1e-3, "{what}: error reported {error}, measured {measured}");

    let mut dense = net.clone();
    dense.densify("conv").unwrap();
    assert_eq!(dense.architecture(), before.architecture(), "{what}");
    assert_eq!(dense.params().get("conv.bias"), before.params().get("conv.bias"), "{what}");
    let expected = run(&dense, &x);
    assert_eq!(factorized.shape(), expected.shape(), "{what}");
    let scale = expected.iter().fold(1.0_f64, |a, b| a.max(b.abs()));
    let worst = (&factorized - &expected).iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    assert!(worst / scale < 1e-5, "{what}: outputs differ by {worst} of {scale}");
}

fn conv(channels: [usize; 2], kernel: &[usize], geometry: Geometry) -> Conv {
    let Geometry { stride, padding, dilation, groups } = geometry;
    let padding = Padding::symmetric(padding);
    Conv { stride, padding, dilation, groups, ..Conv::new(channels[0], channels[1], kernel) }
}

/// How a kernel moves over the map.
#[derive(Clone)]
struct Geometry {
    stride: Vec<usize>,
    padding: Vec<usize>,
    dilation: Vec<usize>,
    groups: usize,
}

impl Geometry {
    fn unit(axes: usize) -> Self {
        Self { stride: vec![1; axes], padding: vec![0; axes], dilation: vec![1; axes], groups: 1 }
    }
}

#[test]
fn forms_equal_the_reconstructed_kernel_over_geometries() {
    for form in [Form::Cp3, Form::Cp4] {
        for stride in [[1, 1], [2, 1], [1, 3]] {
            for padding in [[0, 0], [2, 1]] {
                for dilation in [[1, 1], [1, 2]] {
                    for groups in [1, 2] {
                        let geometry = Geometry {
                            stride: stride.into(),
                            padding: padding.into(),
                            dilation: dilation.into(),
                            groups,
                        };
                        check(conv([4, 6], &[3, 2], geometry), &[8, 9], form, 3);
                    }
                }
            }
        }
    }
}

#[test]
fn two_stage_forms_equal_the_reconstructed_kernel() {
    for stride in [[1, 1], [2, 1]] {
        for groups in [1, 2] {
            let geometry = Geometry {
                stride: stride.into(),
                padding: vec![2, 1],
                dilation: vec![1, 2],
                groups,
            };
            check(conv([4, 6], &[3, 2], geometry.clone()), &[8, 9], Form::Tucker2, [2, 1]);
            check(conv([8, 6], &[3, 2], geometry.clone()), &[8, 9], Form::Tucker2, [3, 4]);
            check(conv([8, 6], &[3, 2], geometry), &[8, 9], Form::TkdCpd, [2, 3, 5]);
        }
    }
    let line = Geometry { stride: vec![2], padding: vec![1], ..Geometry::unit(1) };
    check(conv([4, 6], &[5], line.clone()), &[11], Form::Tucker2, [3, 2]);
    check(conv([4, 6], &[5], line), &[11], Form::TkdCpd, [3, 2, 4]);
}

#[test]
fn one_and_three_spatial_axes() {
    let line = Geometry { stride: vec![2], padding: vec![1], ..Geometry::unit(1) };
    let room = Geometry { stride: vec![1, 2, 1], padding: vec![0, 1, 2], ..Geometry::unit(3) };
    for form in [Form::Cp3, Form::Cp4] {
        check(conv([4, 6], &[5], line.clone()), &[11], form, 3);
        check(conv([3, 4], &[2, 3, 4], room.clone()), &[4, 5, 6], form, 3);
    }
}

#[test]
fn rank_above_break_even_and_of_one() {
    check(conv([2, 3], &[3, 3], Geometry::unit(2)), &[6, 6], Form::Cp4, 1);
    check(conv([2, 3], &[3, 3], Geometry::unit(2)), &[6, 6], Form::Cp3, 20);
}

#[test]
fn pointwise_convolutions_become_two() {
    let geometry = |stride, padding, groups| Geometry {
        stride: vec![stride; 2],
        padding: vec![padding; 2],
        groups,
        ..Geometry::unit(2)
    };
    for (stride, padding, groups) in [(1, 0, 1), (2, 0, 1), (2, 1, 1), (1, 1, 2)] {
        check(conv([4, 6], &[1, 1], geometry(stride, padding, groups)), &[5, 6], Form::LowRank, 2);
    }
}

#[test]
fn linear_layers_of_full_rank_are_exact() {
    let mut net = arch::by_name("small-cnn").unwrap().initialize(3).unwrap();
    let dense = net.kernel("fc2").unwrap().to_owned();
    let bias = net.params()["fc2.bias"].clone();
    let plan = RankPlan::default().with("fc2", Form::LowRank, 10, "");
    let reports = compress(&mut net, &plan, &als(), &|_| {}).unwrap();
    assert!(reports[0].rel_error < 1e-6);
    let rebuilt = net.reconstructed("fc2").unwrap();
    assert!((&rebuilt - &dense).iter().all(|d| d.abs() < 1e-6));
    assert_eq!(net.params()["fc2.expand.bias"], bias);
    // √σ in both: each column of `expand` has the norm of its row of `reduce`.
    let (reduce, expand) = (&net.params()["fc2.reduce.weight"], &net.params()["fc2.expand.weight"]);
    for r in 0..10 {
        let row: f32 = reduce.index_axis(ndarray::Axis(0), r).iter().map(|x| x * x).sum();
        let column: f32 = expand.index_axis(ndarray::Axis(1), r).iter().map(|x| x * x).sum();
        assert!((row / column - 1.0).abs() < 1e-4, "{row} {column}");
    }
}

/// The last part makes the value that the layer made, and the whole network still checks.
#[test]
fn the_graph_stays_connected() {
    let mut net = arch::by_name("resnet20").unwrap().initialize(1).unwrap();
    let plan = RankPlan::at_breakeven_ratio(&net, Form::Cp4, 0.2).unwrap();
    compress(&mut net, &plan, &als(), &|_| {}).unwrap();
    net.architecture().check().unwrap();
    assert_eq!(net.node("bn1").unwrap().inputs, ["conv1"]);
    assert_eq!(net.architecture().producer("conv1").unwrap().name, "conv1.expand");
    assert_eq!(net.node("conv1.vertical").unwrap().inputs, ["conv1.reduce"]);
    assert_eq!(net.architecture().output_shape([3, 32, 32]).unwrap(), [10]);
    let compressible = net.architecture().compressible();
    assert_eq!(compressible, ["linear"]);
    // Back again, one by one.
    for layer in plan.layers.iter().map(|planned| &planned.name) {
        net.densify(layer).unwrap();
    }
    assert_eq!(net.architecture(), &arch::by_name("resnet20").unwrap());
}

#[test]
fn errors_name_the_layer_and_leave_the_network_alone() {
    let net = arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
    let fails = |layer: &str, form, rank, expected: &str| {
        let mut copy = net.clone();
        let plan = RankPlan::default().with(layer, form, rank, "");
        let message = compress(&mut copy, &plan, &als(), &|_| {}).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
        assert_eq!(copy, net);
    };
    fails("conv3", Form::Cp3, 4, "no layer named 'conv3'; did you mean 'conv1', 'conv2'?");
    fails("conv2", Form::Cp3, 0, "rank of layer 'conv2' is 0");
    fails("conv2", Form::LowRank, 4, "layer 'conv2' cannot be written as low-rank");
    fails("fc1", Form::Cp4, 4, "layer 'fc1' cannot be written as cp4");
    fails("fc2", Form::LowRank, 11, "rank 11 of layer 'fc2' is above 10");
    fails(
        "conv2",
        Form::Cp3,
        usize::MAX,
        "of layer 'conv2' is above 18432, the largest that its kernel can need",
    );
    fails("relu1", Form::Cp3, 4, "the plan names layer 'relu1', which is relu");

    let mut broken = net.clone();
    let mut kernel = broken.kernel("conv2").unwrap().to_owned();
    kernel[[3, 2, 1, 0]] = f32::NAN;
    broken.set_param("conv2.weight", kernel).unwrap();
    let plan = RankPlan::default().with("conv2", Form::Cp3, 4, "");
    let error = compress(&mut broken, &plan, &als(), &|_| {}).unwrap_err();
    assert!(
        matches!(&error, PlanError::Net(NetError::NotFinite { layer, count: 1 }) if layer == "conv2"),
        "{error}"
    );

    let mut twice = net.clone();
    compress(&mut twice, &plan, &als(), &|_| {}).unwrap();
    let error = compress(&mut twice, &plan, &als(), &|_| {}).unwrap_err().to_string();
    assert!(
        error.contains("layer 'conv2' is factorized (conv2.reduce, conv2.spatial, conv2.expand)"),
        "{error}"
    );

    let wrong = cp_core::CpTensor::from_factors(vec![
        ndarray::Array2::ones((64, 2)),
        ndarray::Array2::ones((32, 2)),
    ]);
    let error =
        net.clone().factorize("conv2", Form::Cp3, &[wrong.unwrap()]).unwrap_err().to_string();
    assert_eq!(
        error,
        "factors for layer 'conv2': shape of the model is [64, 32], expected [64, 32, 9]"
    );
}

/// A kernel of zeros has no error to speak of, and its record can be saved.
#[test]
fn a_kernel_of_zeros() {
    let mut net = arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
    let shape = net.kernel("conv2").unwrap().raw_dim();
    net.set_param("conv2.weight", ndarray::ArrayD::zeros(shape)).unwrap();
    let plan = RankPlan::default().with("conv2", Form::Cp3, 4, "");
    let report = compress(&mut net, &plan, &als(), &|_| {}).unwrap().remove(0);
    assert!(report.rel_error.abs() < 1e-12 && report.component_energy.abs() < 1e-12, "{report:?}");
    assert!(net.reconstructed("conv2").unwrap().iter().all(|value| value.abs() < 1e-12));
}

/// The same factors with one thread and with several.
#[test]
fn the_number_of_threads_does_not_matter() {
    let net = arch::by_name("resnet20").unwrap().initialize(5).unwrap();
    let plan = RankPlan::at_breakeven_ratio(&net, Form::Cp3, 0.3).unwrap();
    let with = |threads| {
        let mut net = net.clone();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compress(&mut net, &plan, &als(), &|_| {})).unwrap();
        net
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn linear_replacement_in_a_table_of_costs() {
    let linear = Linear { in_features: 6, out_features: 4, bias: true };
    assert_eq!(Op::Linear(linear).param_count(), 28);
    let net = arch::by_name("alexnet").unwrap();
    let plan = RankPlan::default().with("classifier.1", Form::LowRank, 365, "");
    let cost = plan.cost(&net, [3, 224, 224]).unwrap();
    let layer = cost.layer("classifier.1").unwrap();
    assert_eq!(layer.factors, Some((Form::LowRank, Rank::One(365))));
    assert_eq!(layer.cost.params, 365 * (9216 + 4096) + 4096);
    assert!(cost.to_string().contains("low-rank R=365"), "{cost}");
}

#[test]
fn parts_have_the_suffixes_that_are_listed() {
    let mut seen = std::collections::BTreeSet::new();
    for axes in 1..=3 {
        let conv = Conv::new(4, 5, vec![3; axes]);
        for (form, rank) in [
            (Form::Cp3, Rank::One(2)),
            (Form::Cp4, Rank::One(2)),
            (Form::Tucker2, Rank::Two([2, 2])),
            (Form::TkdCpd, Rank::Three([2, 2, 3])),
        ] {
            let mut arch = one_conv(conv.clone(), &vec![5; axes], 1).architecture().clone();
            arch.factorize("conv", form, rank).unwrap();
            for part in &arch.factorized["conv"].parts {
                seen.insert(part.strip_prefix("conv.").unwrap().to_owned());
            }
        }
    }
    let listed = PART_SUFFIXES.map(str::to_owned).into();
    assert_eq!(seen, listed);
}

/// Two convolutions with one kernel, of different strides: both are factorized, and share the factors too.
#[test]
fn a_shared_kernel() {
    let conv = |stride: usize| Conv {
        stride: vec![stride; 2],
        padding: Padding::symmetric([1, 1]),
        ..Conv::new(4, 6, [3, 3])
    };
    let mut second = Node::new("b", conv(2), ["input"]);
    second.params.insert("weight".into(), "a.weight".into());
    let nodes = vec![Node::new("a", conv(1), ["input"]), second];
    let mut arch = Architecture::new("shared", InputSpec::features([4, 8, 8]), nodes);
    arch.outputs.insert(0, "a".into());
    let net = filled(arch, 11);
    assert_eq!(net.architecture().compressible(), ["a"]);
    assert_eq!(net.params().keys().collect::<Vec<_>>(), ["a.bias", "a.weight", "b.bias"]);
    let dense = net.cost([4, 8, 8]).unwrap();
    assert_eq!(dense.total.params, 6 * 4 * 9 + 6 + 6);
    assert_eq!(dense.total.macs, 6 * 4 * 9 * (64 + 16));

    // Either name stands for both, and both together are one layer too many.
    let twice = RankPlan::default().with("a", Form::Cp3, 3, "").with("b", Form::Cp3, 3, "");
    assert!(matches!(twice.check(&net), Err(PlanError::PlanDuplicate { layer }) if layer == "b"));
    let both = ["a".to_string(), "b".to_string()];
    let options = ProfileOptions::default();
    let error = Profile::measure(&net, [4, 8, 8], Some(&both), &options, &als(), &|_| {});
    assert!(matches!(error, Err(PlanError::PlanDuplicate { layer }) if layer == "b"));

    let kernels = net.tensors("a", Form::Cp3).unwrap();
    let observe = &mut |_: &cp_core::Progress| std::ops::ControlFlow::Continue(());
    let found = als().decompose("a", 0, kernels[0].view(), Form::Cp3, 3.into(), observe).unwrap();
    let KernelModel::Cp(cp) = found.model else { panic!("CP-3 is a CP model") };
    drop(kernels);
    let mut results = Vec::new();
    for name in ["a", "b"] {
        let mut factorized = net.clone();
        factorized.factorize(name, Form::Cp3, std::slice::from_ref(&cp)).unwrap();
        let cost = factorized.cost([4, 8, 8]).unwrap();
        assert_eq!(cost.total.params, 3 * (6 + 4 + 9) + 6 + 6);
        // `reduce` runs on the whole map in both.
        assert_eq!(
            cost.total.macs,
            3 * (4 * 64 + 9 * 64 + 6 * 64) + 3 * (4 * 64 + 9 * 16 + 6 * 16)
        );
        for layer in ["a", "b"] {
            let record = factorized.architecture().factorization(layer).unwrap();
            assert!((record.rel_error - found.rel_error).abs() < 1e-6);
        }
        let plan = RankPlan::default().with(name, Form::Cp3, 3, "");
        assert_eq!(plan.cost(&net, [4, 8, 8]).unwrap(), cost);
        let mut compressed = net.clone();
        let report = compress(&mut compressed, &plan, &als(), &|_| {}).unwrap().remove(0);
        assert_eq!(compressed, factorized);
        assert_eq!((report.before, report.after), (dense.total, cost.total));

        factorized.densify(name).unwrap();
        assert_eq!(factorized.architecture(), net.architecture());
        assert_eq!(factorized.params()["b.bias"], net.params()["b.bias"]);
        results.push(compressed);
    }
    assert_eq!(results[0], results[1]);
}
