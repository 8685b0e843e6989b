//! Ranks by rules for single layers.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

mod common;

use std::sync::{Arc, LazyLock};

use common::random;
use cp_core::InputStatistics;
use cp_net::{Form, NetError, Network, Rank, arch};
use cp_plan::{Decomposer, LayerReport, PlanError, RankPlan, compress};
use ndarray::{Array1, Array2, ArrayD, IxDyn};

/// `small-cnn` with kernels whose unfoldings have low ranks, and some noise.
static NET: LazyLock<Network> = LazyLock::new(|| {
    let mut net = arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
    let low = |shape: [usize; 2], rank: usize, noise: f32, seed: u64| {
        let matrix = |shape: [usize; 2], seed| {
            random(&shape, seed).into_dimensionality::<ndarray::Ix2>().unwrap()
        };
        let product = matrix([shape[0], rank], seed).dot(&matrix([rank, shape[1]], seed + 1));
        product + matrix(shape, seed + 2) * noise
    };
    // conv2, [64, 32, 3, 3]: 6 patterns of output and 4 of input channels.
    let outer = low([64, 4 * 9], 6, 0.0, 10).to_shape((64, 4, 9)).unwrap().into_owned();
    let inner = low([32, 4], 4, 0.0, 20);
    let noise = random(&[64, 32, 9], 30);
    let kernel = ArrayD::from_shape_fn(IxDyn(&[64, 32, 3, 3]), |i| {
        let tap = 3 * i[2] + i[3];
        let sum: f32 = (0..4).map(|s| outer[[i[0], s, tap]] * inner[[i[1], s]]).sum();
        sum + 0.02 * noise[[i[0], i[1], tap]]
    });
    net.set_param("conv2.weight", kernel).unwrap();
    net.set_param("fc1.weight", low([128, 3136], 5, 0.02, 40).into_dyn()).unwrap();
    net
});

fn als() -> Decomposer {
    Decomposer::als(12, 2)
}

fn report(net: &Network, layer: &str, form: Form, rank: Rank) -> LayerReport {
    let plan = RankPlan::default().with(layer, form, rank, "");
    compress(&mut net.clone(), &plan, &Decomposer::als(60, 2), &|_| {}).unwrap().remove(0)
}

fn why<'a>(plan: &'a RankPlan, name: &str) -> &'a str {
    &plan.dense.iter().find(|layer| layer.name == name).unwrap().why
}

#[test]
fn the_error_asked_for() {
    for target in [0.1, 0.5] {
        for form in [Form::Cp3, Form::Cp4, Form::Tucker2, Form::TkdCpd] {
            let plan = RankPlan::by_error(&NET, form, target, &als()).unwrap();
            assert_eq!(plan.layers.len() + plan.dense.len(), 4);
            for layer in &plan.layers {
                let found = report(&NET, &layer.name, layer.form, layer.rank);
                // Starts from nowhere need more sweeps and end elsewhere; closed forms do not.
                let slack =
                    if matches!(layer.form, Form::LowRank | Form::Tucker2) { 1e-6 } else { 0.05 };
                assert!(found.rel_error <= target + slack, "{target} {layer:?} {found:?}");
                assert!(found.after.params < found.before.params);
            }
        }
    }
}

#[test]
fn low_rank_pairs_are_the_smallest() {
    let plan = RankPlan::by_error(&NET, Form::Cp3, 0.3, &als()).unwrap();
    for name in ["fc1", "fc2"] {
        let rank = plan.rank(name).unwrap().one().unwrap();
        assert!(report(&NET, name, Form::LowRank, rank.into()).rel_error <= 0.3);
        assert!(
            report(&NET, name, Form::LowRank, (rank - 1).into()).rel_error > 0.3,
            "{name} {rank}"
        );
    }
}

#[test]
fn statistics_count_for_errors() {
    let decay = |i: usize| 1.0 / (1 + i * i) as f64;
    let moments = Array2::from_diag(&Array1::from_shape_fn(128, decay));
    let statistics = vec![Arc::new(InputStatistics::from_moments(moments.view()).unwrap())];
    let aware = Decomposer { statistics: [("fc2".to_string(), statistics)].into(), ..als() };
    let rank = |decomposer: &Decomposer| {
        let plan = RankPlan::by_error(&NET, Form::Cp3, 0.4, decomposer).unwrap();
        plan.rank("fc2").unwrap().one().unwrap()
    };
    assert!(rank(&aware) < rank(&als()), "{} {}", rank(&aware), rank(&als()));
}

#[test]
fn errors_out_of_reach() {
    let plan = RankPlan::by_error(&NET, Form::Cp3, 1e-4, &Decomposer::als(3, 2)).unwrap();
    assert!(plan.layers.is_empty());
    assert!(
        why(&plan, "fc2").contains(", the largest rank that makes it smaller; 0.0001 asked for")
    );
    let plan = RankPlan::by_error(&NET, Form::Tucker2, 1e-4, &als()).unwrap();
    assert!(why(&plan, "conv2").starts_with("no smaller than dense at R=64x32"), "{plan:?}");
    for target in [-0.1, f64::NAN] {
        let error = RankPlan::by_error(&NET, Form::Cp3, target, &als());
        assert!(matches!(error, Err(PlanError::PlanOption { option: "target", .. })));
    }
}

#[test]
fn energy_finds_what_was_planted() {
    let rank = |form, share| RankPlan::by_energy(&NET, form, share).unwrap();
    let tucker = rank(Form::Tucker2, 0.99);
    assert_eq!((tucker.rank("conv2"), tucker.rank("fc1")), (Some([6, 4].into()), Some(5.into())));
    assert_eq!(tucker.layers.iter().find(|l| l.name == "fc1").unwrap().why, "0.99 of the energy");
    assert_eq!(rank(Form::Cp3, 0.99).rank("conv2"), Some(6.into()));
    assert_eq!(rank(Form::Cp4, 0.99).rank("conv2"), Some(6.into()));
    assert_eq!(rank(Form::TkdCpd, 0.99).rank("conv2"), Some([6, 4, 6].into()));
    // More energy, more ranks; in the end factors are no smaller.
    let ranks: Vec<usize> = [0.3, 0.6, 0.9]
        .map(|share| rank(Form::Cp3, share).rank("fc2").unwrap().one().unwrap())
        .to_vec();
    assert!(ranks.is_sorted() && ranks[0] < ranks[2], "{ranks:?}");
    let all = rank(Form::Tucker2, 1.0);
    assert!(all.layers.is_empty(), "{all:?}");
    assert_eq!(why(&all, "fc2"), "no smaller than dense at R=10 (1 of the energy)");
    let low = rank(Form::LowRank, 0.9);
    assert_eq!(why(&low, "conv2"), "a low-rank form does not fit it");
    for share in [-0.1, 1.1, f64::NAN] {
        assert!(RankPlan::by_energy(&NET, Form::Cp3, share).is_err());
    }
}

#[test]
fn noise_is_told_from_signal() {
    let rank = |form, weaken| RankPlan::by_evbmf(&NET, form, weaken).unwrap();
    let full = rank(Form::Tucker2, 1.0);
    assert_eq!((full.rank("conv2"), full.rank("fc1")), (Some([6, 4].into()), Some(5.into())));
    assert_eq!(full.layers.iter().find(|l| l.name == "fc1").unwrap().why, "EVBMF finds R=5");
    // 64 − 0.8 · 58 = 17.6, 32 − 0.8 · 28 = 9.6, 128 − 0.8 · 123 = 29.6.
    let weak = rank(Form::Tucker2, 0.8);
    assert_eq!((weak.rank("conv2"), weak.rank("fc1")), (Some([18, 10].into()), Some(30.into())));
    assert_eq!(
        weak.layers.iter().find(|l| l.name == "conv2").unwrap().why,
        "EVBMF finds R=6x4, weakened to 0.8 of the way from 64x32"
    );
    assert_eq!(rank(Form::Cp3, 1.0).rank("conv2"), Some(6.into()));
    assert_eq!(rank(Form::Cp3, 0.8).rank("conv2"), Some(18.into()));
    assert_eq!(rank(Form::TkdCpd, 1.0).rank("conv2"), Some([6, 4, 6].into()));
    // Nothing is taken away at 0.
    let none = rank(Form::Tucker2, 0.0);
    assert!(none.layers.is_empty(), "{none:?}");
    assert!(why(&none, "fc1").starts_with("no smaller than dense at R=128"));
    for weaken in [-0.1, 1.1, f64::NAN] {
        assert!(RankPlan::by_evbmf(&NET, Form::Cp3, weaken).is_err());
    }
}

#[test]
fn kernels_have_to_be_finite() {
    let mut net = NET.clone();
    let mut weight = net.params()["fc2.weight"].clone();
    weight[[3, 4]] = f32::NAN;
    net.set_param("fc2.weight", weight).unwrap();
    let error = RankPlan::by_energy(&net, Form::Cp3, 0.5);
    assert!(matches!(error, Err(PlanError::Net(NetError::NotFinite { count: 1, .. }))));
}
