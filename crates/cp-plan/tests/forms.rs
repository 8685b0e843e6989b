//! One basis for all channels, clusters and colours: decomposed, planned, and refused where a rule says nothing of them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use common::random;
use cp_core::InputStatistics;
use cp_net::{Architecture, Conv, Form, INPUT, InputSpec, Network, Node, Padding, Rank, Relu};
use cp_plan::{
    Budget, Decomposer, Objective, PlanOptions, Profile, ProfileOptions, RankPlan, compress,
};
use ndarray::ArrayD;

const FORMS: [Form; 4] =
    [Form::Jaderberg1Shared, Form::Denton, Form::DentonSvd, Form::Monochromatic];

fn network(nodes: Vec<Node>, shape: &[usize]) -> Network {
    let arch = Architecture::new("net", InputSpec::features(shape), nodes);
    let params = arch.params().enumerate();
    let params = params.map(|(at, (name, spec))| (name, random(&spec.shape, 3 + at as u64)));
    let params = params.collect();
    Network::new(arch, params).unwrap()
}

fn one(conv: Conv, map: [usize; 2]) -> Network {
    let shape = [conv.in_channels, map[0], map[1]];
    network(vec![Node::new("conv", conv, [INPUT])], &shape)
}

fn norm(array: &ArrayD<f32>) -> f64 {
    array.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// Decomposes `conv`; the error reported, which is that of the kernel, as the outputs are those of the kernel.
fn check(net: &Network, form: Form, rank: Rank, decomposer: &Decomposer) -> f64 {
    let what = format!("{form} R={rank}");
    let mut made = net.clone();
    let plan = RankPlan::default().with("conv", form, rank, "");
    let report = compress(&mut made, &plan, decomposer, &|_| {}).unwrap().remove(0);
    let (old, new) = (net.kernel("conv").unwrap().to_owned(), made.reconstructed("conv").unwrap());
    let measured = norm(&(&new - &old)) / norm(&old);
    assert!((measured - report.rel_error).abs() < 1e-5, "{what}: {measured}, said {report:?}");
    let mut dense = made.clone();
    dense.densify("conv").unwrap();
    let x = random(&[&[2], &net.input().shape[..]].concat(), 70);
    let [got, expected] = [&made, &dense].map(|net| net.eval(&[x.view()]).unwrap().remove(0));
    let worst = norm(&(&got - &expected)) / norm(&expected);
    assert!(worst < 1e-5, "{what}: {worst}");
    report.rel_error
}

#[test]
fn full_ranks_are_exact_where_they_can_be() {
    let padding = Padding::Each(vec![[1, 0], [2, 1]]);
    let dense = Conv { padding, stride: vec![2, 1], ..Conv::new(8, 12, [3, 2]) };
    let thorough = Decomposer { max_energy: None, ..Decomposer::als(400, 1) };
    for groups in [1, 2] {
        let net = one(Conv { groups, ..dense.clone() }, [7, 6]);
        let (out, input) = (12 / groups, 8 / groups);
        // Every block at full rank, however it is cut.
        for [outputs, inputs] in [[1, 1], [2, 2], [3, 4]] {
            let rank = [outputs, inputs, out / outputs, input / inputs];
            let error = check(&net, Form::DentonSvd, rank.into(), &thorough);
            assert!(error < 1e-6, "{rank:?}: {error}");
            // One channel less is missed.
            if out > outputs {
                let less = [outputs, inputs, out / outputs - 1, input / inputs];
                assert!(check(&net, Form::DentonSvd, less.into(), &thorough) > 1e-2);
            }
        }
        // Blocks of one filter each are of rank one.
        let error = check(&net, Form::Denton, [out, input, 1].into(), &thorough);
        assert!(error < 1e-6, "{error}");
        // Each term takes its share.
        let errors = [1, 2, 4].map(|k| check(&net, Form::Denton, [2, 2, k].into(), &thorough));
        assert!(errors[0] > errors[1] && errors[1] > errors[2] && errors[2] > 1e-3, "{errors:?}");
    }
    let net = one(dense, [7, 6]);
    let errors = [1, 3, 6].map(|m| check(&net, Form::Jaderberg1Shared, m.into(), &thorough));
    assert!(errors[0] > errors[1] && errors[1] > 0.05 && errors[2] < 2e-3, "{errors:?}");
}

#[test]
fn a_kernel_of_few_colours_is_found() {
    let mut net = one(Conv::new(5, 9, [3, 3]), [4, 4]);
    let (colours, spatial) = (random(&[3, 5], 8), random(&[9, 3, 3], 9));
    let kernel = ArrayD::from_shape_fn(vec![9, 5, 3, 3], |at| {
        colours[[at[0] * at[0] % 4 % 3, at[1]]] * spatial[[at[0], at[2], at[3]]]
    });
    net.set_param("conv.weight", kernel).unwrap();
    let error = check(&net, Form::Monochromatic, 3.into(), &Decomposer::default());
    assert!(error < 1e-6, "{error}");
    let net = one(Conv::new(5, 9, [3, 3]), [4, 4]);
    let errors = [1, 4, 9].map(|colours| {
        check(&net, Form::Monochromatic, Rank::One(colours), &Decomposer::default())
    });
    assert!(errors[0] > errors[1] && errors[1] > errors[2] && errors[2] > 0.05, "{errors:?}");
}

/// With statistics it is what the inputs see of an error that is reported beside it.
#[test]
fn errors_are_weighted_where_inputs_are_known() {
    let net = one(Conv::new(4, 6, [3, 3]), [5, 5]);
    let mut statistics = InputStatistics::new(36);
    let inputs = random(&[200, 36], 5).into_dimensionality::<ndarray::Ix2>().unwrap();
    // Some entries of the inputs are large, which the errors of their weights show.
    let inputs = ndarray::Array2::from_shape_fn(inputs.dim(), |(row, column)| {
        inputs[[row, column]] * if column < 9 { 10.0 } else { 0.1 }
    });
    statistics.add(inputs.view()).unwrap();
    let statistics = BTreeMap::from([("conv".to_owned(), vec![Arc::new(statistics)])]);
    let decomposer = Decomposer { statistics, ..Decomposer::als(30, 1) };
    for (form, rank) in [
        (Form::Jaderberg1Shared, Rank::One(3)),
        (Form::Denton, [2, 2, 2].into()),
        (Form::DentonSvd, [2, 2, 2, 1].into()),
        (Form::Monochromatic, Rank::One(3)),
    ] {
        let plan = RankPlan::default().with("conv", form, rank, "");
        let report = compress(&mut net.clone(), &plan, &decomposer, &|_| {}).unwrap().remove(0);
        let weighted = report.weighted_error.unwrap();
        assert!(weighted > 0.01 && (weighted - report.rel_error).abs() > 1e-3, "{report:?}");
    }
}

/// A first layer of three channels, one whose channels split in many ways, and one that is prime.
static NET: LazyLock<Network> = LazyLock::new(|| {
    let conv =
        |input, out| Conv { padding: Padding::symmetric([1, 1]), ..Conv::new(input, out, [3, 3]) };
    let nodes = vec![
        Node::new("first", conv(3, 16), [INPUT]),
        Node::new("relu", Relu {}, ["first"]),
        Node::new("wide", conv(16, 24), ["relu"]),
        Node::new("odd", conv(24, 7), ["wide"]),
    ];
    network(nodes, &[3, 8, 8])
});

#[test]
fn plans_keep_their_clusters() {
    for form in FORMS {
        let options = ProfileOptions { forms: vec![form], points: 4, ..ProfileOptions::default() };
        let decomposer = Decomposer::als(15, 2);
        let profile =
            Profile::measure(&NET, [3, 8, 8], None, &options, &decomposer, &|_| {}).unwrap();
        let wide = profile.layer("wide").unwrap();
        assert!(wide.choices.len() > 2, "{form}: {wide:?}");
        for choice in &wide.choices {
            match (form, choice.rank) {
                (Form::Denton, Rank::Three([2, 8, _])) => {}
                (Form::DentonSvd, Rank::Four([2, 2, out, input])) => {
                    // In proportion to 12 and 8 channels.
                    assert!((2 * out).abs_diff(3 * input) <= 3, "{choice:?}");
                }
                (Form::Jaderberg1Shared | Form::Monochromatic, Rank::One(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        for pair in wide.choices.windows(2) {
            assert!(pair[0].rank < pair[1].rank && pair[0].error() >= pair[1].error());
            assert!(pair[0].cost.params < pair[1].cost.params);
        }
        // Seven output channels split into ones alone, three input channels not at all.
        let clusters = |layer: &str| {
            let choice = profile.layer(layer).unwrap().choices.first().cloned();
            choice.map(|choice| choice.rank.parts()[..2.min(choice.rank.parts().len())].to_vec())
        };
        match form {
            Form::Denton => {
                assert_eq!(clusters("odd"), Some(vec![7, 12]));
                assert_eq!(clusters("first"), Some(vec![2, 1]));
            }
            Form::DentonSvd => assert_eq!(clusters("first"), Some(vec![2, 3])),
            _ => {}
        }
        let objective = Objective::SumOfSquares { weights: BTreeMap::new() };
        let budget = Budget::Params(0.7);
        let plan = profile.plan(budget, &objective, &PlanOptions::default()).unwrap();
        assert!(!plan.layers.is_empty(), "{form}: {plan:?}");
        let predicted = profile.predict(&plan).unwrap();
        let mut made = NET.clone();
        compress(&mut made, &plan, &decomposer, &|_| {}).unwrap();
        assert_eq!(made.cost([3, 8, 8]).unwrap().total.params, predicted.total.params, "{form}");
        assert!(predicted.total.params as f64 <= 0.7 * profile.dense.params as f64, "{form}");
        // A plan comes through a file.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        plan.save(&path).unwrap();
        assert_eq!(RankPlan::load(&path).unwrap(), plan);
    }
}

/// Ranks that count maps of a block or a channel stay as they are; colours are channels.
#[test]
fn multiples_are_for_channels() {
    for (form, rank, expected) in [
        (Form::Jaderberg1Shared, Rank::One(5), Rank::One(5)),
        (Form::Denton, [4, 4, 3].into(), [4, 4, 3].into()),
        (Form::DentonSvd, [4, 4, 3, 2].into(), [4, 4, 3, 2].into()),
        (Form::Monochromatic, Rank::One(14), Rank::One(16)),
    ] {
        let plan = RankPlan::default().with("wide", form, rank, "by hand");
        assert_eq!(plan.rounded(&*NET, 8).unwrap().rank("wide"), Some(expected), "{form}");
    }
}

#[test]
fn rules_that_look_at_unfoldings_say_where_to_go() {
    for form in FORMS {
        let refused = [RankPlan::by_energy(&NET, form, 0.9), RankPlan::by_evbmf(&NET, form, 0.5)];
        for refused in refused {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(form.name()) && message.contains("tucker2"), "{message}");
        }
        // By the error itself there is a plan.
        let plan = RankPlan::by_error(&NET, form, 0.75, &Decomposer::als(30, 2)).unwrap();
        for layer in &plan.layers {
            let asked = RankPlan::default().with(&layer.name, layer.form, layer.rank, "");
            let report = compress(&mut NET.clone(), &asked, &Decomposer::als(30, 2), &|_| {});
            let error = report.unwrap().remove(0).rel_error;
            assert!(error <= 0.75 + 1e-6, "{layer:?}: {error}");
        }
        assert_eq!(plan.layers.len() + plan.dense.len(), 3);
        let easiest = if form == Form::Monochromatic { "first" } else { "wide" };
        assert!(plan.rank(easiest).is_some(), "{form}: {plan:?}");
    }
}

/// One ratio for the whole network, also where a layer has filters that no rank takes away.
#[test]
fn one_ratio_for_all() {
    for form in [Form::Jaderberg1Shared, Form::Monochromatic] {
        let plan = RankPlan::uniform(&*NET, [3, 8, 8], Budget::Params(0.6), form).unwrap();
        let cost = plan.cost(&*NET, [3, 8, 8]).unwrap().total.params as f64;
        let dense = NET.cost([3, 8, 8]).unwrap().total.params as f64;
        assert!(cost <= 0.6 * dense, "{form}: {cost} of {dense}");
    }
}
