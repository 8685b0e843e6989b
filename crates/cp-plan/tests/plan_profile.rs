//! Profiles of a network, and the plans for a budget that are made of them.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use cp_core::InputStatistics;
use cp_net::arch::{Builder, window};
use cp_net::{Conv, Form, InputSpec, NetError, Network, Node, Op, Padding, Rank, Totals, arch};
use cp_plan::{
    Budget, Choice, Decomposer, LayerProfile, Models, Objective, PlanError, PlanOptions, Profile,
    ProfileOptions, RankPlan, compress,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const INPUT: [usize; 3] = [1, 28, 28];

static NET: LazyLock<Network> =
    LazyLock::new(|| arch::by_name("small-cnn").unwrap().initialize(1).unwrap());

fn options(forms: &[Form], points: usize) -> ProfileOptions {
    ProfileOptions { forms: forms.to_vec(), points, ..ProfileOptions::default() }
}

fn measure(net: &Network, options: &ProfileOptions, decomposer: &Decomposer) -> Profile {
    Profile::measure(net, &net.input().shape, None, options, decomposer, &|_| {}).unwrap()
}

static SMALL: LazyLock<Profile> = LazyLock::new(|| {
    let forms = [Form::Cp3, Form::Cp4, Form::Tucker2, Form::TkdCpd];
    measure(&NET, &options(&forms, 5), &Decomposer::als(5, 2))
});

/// Layers with errors that fall, costs that rise, and seconds that do neither in order.
fn drawn(layers: usize, choices: usize, seed: u64) -> Profile {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let totals = |params, macs| Totals { params, macs, activation_bytes: 0 };
    let layers: Vec<LayerProfile> = (0..layers)
        .map(|index| {
            let dense = totals(rng.random_range(500..5000), rng.random_range(5000..90000));
            let dense_seconds = rng.random_range(0.5..2.0);
            let choices = (0..choices).map(|k| {
                let share = (k + 1) as f64 / choices as f64 * rng.random_range(0.6..1.0);
                let part = |count: usize| (share * count as f64) as usize;
                Choice {
                    form: Form::Cp3,
                    rank: Rank::One(k + 1),
                    cost: totals(part(dense.params), part(dense.macs)),
                    rel_error: (1.0 - share) * rng.random_range(0.3..1.0),
                    weighted_error: None,
                    seconds: Some(dense_seconds * rng.random_range(0.1..1.3)),
                }
            });
            let choices = choices.collect();
            LayerProfile {
                layer: format!("layer{index}"),
                dense,
                dense_seconds: Some(dense_seconds),
                choices,
            }
        })
        .collect();
    let mut dense: Totals = layers.iter().map(|layer| layer.dense).sum();
    dense.params += 1000;
    let seconds: f64 = layers.iter().filter_map(|layer| layer.dense_seconds).sum();
    Profile {
        inputs: vec![vec![3, 8, 8]],
        dense,
        dense_seconds: Some(seconds + 0.5),
        layers,
        models: Models::default(),
    }
}

fn squares() -> Objective {
    Objective::SumOfSquares { weights: BTreeMap::new() }
}

/// compressed / dense of a plan, in what the budget counts.
fn reached(profile: &Profile, plan: &RankPlan, budget: Budget) -> f64 {
    let predicted = profile.predict(plan).unwrap();
    match budget {
        Budget::Params(_) => predicted.total.params as f64 / profile.dense.params as f64,
        Budget::Macs(_) => predicted.total.macs as f64 / profile.dense.macs as f64,
        Budget::Latency(_) => predicted.seconds.unwrap() / profile.dense_seconds.unwrap(),
    }
}

#[test]
fn a_profile_says_what_the_network_says() {
    let dense = NET.cost(INPUT).unwrap();
    assert_eq!(SMALL.dense, dense.total);
    let names: Vec<&str> = SMALL.layers.iter().map(|layer| layer.layer.as_str()).collect();
    assert_eq!(names, ["conv1", "conv2", "fc1", "fc2"]);
    for layer in &SMALL.layers {
        let bias = dense.layer(&layer.layer).unwrap().cost.params - layer.dense.params;
        for choice in &layer.choices {
            let plan = RankPlan::default().with(&layer.layer, choice.form, choice.rank, "");
            let cost = plan.cost(&*NET, INPUT).unwrap();
            let cost = cost.layer(&layer.layer).unwrap().cost;
            assert_eq!(cost.params - bias, choice.cost.params, "{} {choice:?}", layer.layer);
            assert_eq!(cost.macs, choice.cost.macs, "{} {choice:?}", layer.layer);
            assert_eq!(cost.activation_bytes, choice.cost.activation_bytes);
            assert!(choice.cost.params < layer.dense.params || choice.cost.macs < layer.dense.macs);
        }
        for pair in layer.choices.windows(2).filter(|pair| pair[0].form == pair[1].form) {
            assert!(pair[0].rank < pair[1].rank && pair[0].error() >= pair[1].error());
            assert!(pair[0].cost.macs <= pair[1].cost.macs);
        }
    }
    let conv2 = SMALL.layer("conv2").unwrap();
    let forms: Vec<Form> = conv2.choices.iter().map(|choice| choice.form).collect();
    for form in [Form::Cp3, Form::Tucker2, Form::TkdCpd] {
        assert_eq!(forms.iter().filter(|other| **other == form).count(), 5, "{form}");
    }
    // Beside CP-3, a kernel of 3×3 is too small for two depthwise steps.
    assert!(!forms.contains(&Form::Cp4));
    let fc1 = &SMALL.layer("fc1").unwrap().choices;
    assert!(fc1.iter().all(|choice| choice.form == Form::LowRank));
}

#[test]
fn errors_are_those_of_the_decompositions() {
    let decomposer = Decomposer::als(5, 2);
    for (layer, form) in [("fc1", Form::LowRank), ("conv2", Form::Tucker2), ("conv2", Form::TkdCpd)]
    {
        for choice in SMALL.layer(layer).unwrap().choices.iter().filter(|c| c.form == form) {
            let plan = RankPlan::default().with(layer, form, choice.rank, "");
            let report = &compress(&mut NET.clone(), &plan, &decomposer, &|_| {}).unwrap()[0];
            let difference = report.rel_error - choice.rel_error;
            // A smaller rank may have served, but no larger error.
            assert!(difference.abs() < 1e-5 || difference > 0.0, "{layer} {choice:?} {report:?}");
        }
    }
    // The path does no worse than starts from nowhere.
    for choice in SMALL.layer("conv2").unwrap().choices.iter().filter(|c| c.form == Form::Cp3) {
        let plan = RankPlan::default().with("conv2", Form::Cp3, choice.rank, "");
        let report = &compress(&mut NET.clone(), &plan, &decomposer, &|_| {}).unwrap()[0];
        assert!(choice.rel_error < 1.02 * report.rel_error, "{choice:?} {report:?}");
    }
}

/// Two groups of a convolution: one rank, errors by squares.
#[test]
fn groups_share_a_rank() {
    let padding = Padding::symmetric([1, 1]);
    let conv = Conv { groups: 2, padding, ..Conv::new(8, 12, [3, 3]) };
    let mut arch = arch::by_name("small-cnn").unwrap();
    arch.nodes.truncate(1);
    let Op::Conv(first) = &mut arch.nodes[0].op else { panic!("conv1 is a convolution") };
    first.out_channels = 8;
    arch.nodes.push(Node::new("grouped", conv, ["conv1"]));
    arch.outputs = vec!["grouped".into()];
    let net = arch.initialize(3).unwrap();
    let profile = measure(&net, &options(&[Form::Tucker2], 4), &Decomposer::als(5, 2));
    let grouped = profile.layer("grouped").unwrap();
    assert!(!grouped.choices.is_empty());
    for choice in &grouped.choices {
        let plan = RankPlan::default().with("grouped", choice.form, choice.rank, "");
        let report =
            &compress(&mut net.clone(), &plan, &Decomposer::als(5, 2), &|_| {}).unwrap()[0];
        assert!((report.rel_error - choice.rel_error).abs() < 1e-5, "{choice:?} {report:?}");
        let cost = plan.cost(&net, INPUT).unwrap().layer("grouped").unwrap().cost;
        assert_eq!((cost.params - 12, cost.macs), (choice.cost.params, choice.cost.macs));
    }
}

#[test]
fn statistics_make_the_weighted_error_count() {
    let moments = |size: usize| {
        let decay = |i: usize| 1.0 / (1 + i) as f64;
        let matrix = ndarray::Array2::from_diag(&ndarray::Array1::from_shape_fn(size, decay));
        vec![Arc::new(InputStatistics::from_moments(matrix.view()).unwrap())]
    };
    let statistics = [("conv2".to_string(), moments(288)), ("fc2".to_string(), moments(128))];
    let decomposer = Decomposer { statistics: statistics.into(), ..Decomposer::als(4, 2) };
    let layers = ["conv2".to_string(), "fc2".to_string()];
    let options = options(&[Form::Cp3, Form::Tucker2], 3);
    let profile =
        Profile::measure(&NET, INPUT, Some(&layers), &options, &decomposer, &|_| {}).unwrap();
    assert_eq!(profile.layers.len(), 2);
    for layer in &profile.layers {
        for pair in layer.choices.windows(2).filter(|pair| pair[0].form == pair[1].form) {
            assert!(pair[0].weighted_error.unwrap() >= pair[1].weighted_error.unwrap());
        }
        for choice in &layer.choices {
            assert_eq!(Some(choice.error()), choice.weighted_error);
            assert!(choice.error() < choice.rel_error, "{} {choice:?}", layer.layer);
        }
    }
}

/// All ranks of a linear layer come from one decomposition, with the errors that each would have by itself.
#[test]
fn a_ladder_of_pairs_has_the_errors_of_single_calls() {
    let moments = |size: usize| {
        let decay = |i: usize| 1.0 / (1 + i % 7) as f64;
        let matrix = ndarray::Array2::from_diag(&ndarray::Array1::from_shape_fn(size, decay));
        vec![Arc::new(InputStatistics::from_moments(matrix.view()).unwrap())]
    };
    let aware = Decomposer {
        statistics: [("fc2".to_string(), moments(128))].into(),
        ..Decomposer::als(4, 2)
    };
    let kernels = NET.tensors("fc2", Form::LowRank).unwrap();
    for decomposer in [aware, Decomposer::als(4, 2)] {
        let layers = ["fc2".to_string()];
        let options = options(&[Form::LowRank], 6);
        let profile =
            Profile::measure(&NET, INPUT, Some(&layers), &options, &decomposer, &|_| {}).unwrap();
        let choices = &profile.layer("fc2").unwrap().choices;
        assert!(choices.len() >= 3);
        for choice in choices {
            let go = &mut |_: &cp_core::Progress| std::ops::ControlFlow::Continue(());
            let kernel = kernels[0].view();
            let single = decomposer.decompose("fc2", 0, kernel, choice.form, choice.rank, go);
            let single = single.unwrap();
            assert_eq!(choice.weighted_error, single.weighted_error, "{choice:?}");
            assert!((choice.rel_error - single.rel_error).abs() < 1e-6, "{choice:?}");
        }
    }
}

#[test]
fn threads_do_not_matter() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let forms = [Form::Cp3, Form::Cp4, Form::Tucker2, Form::TkdCpd];
    let options = options(&forms, 5);
    let alone = pool.install(|| measure(&NET, &options, &Decomposer::als(5, 2)));
    assert_eq!(alone.dense, SMALL.dense);
    for (one, many) in alone.layers.iter().zip(&SMALL.layers) {
        assert_eq!(one.choices.len(), many.choices.len());
        for (a, b) in one.choices.iter().zip(&many.choices) {
            assert_eq!((a.form, a.rank, a.cost), (b.form, b.rank, b.cost));
            // Large singular value decompositions may round differently.
            assert!((a.rel_error - b.rel_error).abs() < 1e-12, "{a:?} {b:?}");
        }
    }
    let again = measure(&NET, &options, &Decomposer::als(5, 2));
    assert_eq!(again, *SMALL);
}

#[test]
fn profiles_survive_json() {
    let mut profile = SMALL.clone();
    profile.dense_seconds = Some(0.1 + 0.2);
    let text = serde_json::to_string(&profile).unwrap();
    // Models have a file of their own.
    profile.models = Models::default();
    assert_eq!(serde_json::from_str::<Profile>(&text).unwrap(), profile);
}

#[test]
fn multiples_where_a_layer_is_large_enough() {
    let forms = [Form::Cp3, Form::Tucker2];
    let options = ProfileOptions { multiple_of: 8, ..options(&forms, 6) };
    let net = arch::by_name("resnet20").unwrap().initialize(1).unwrap();
    let profile = measure(&net, &options, &Decomposer::als(1, 2));
    for layer in &profile.layers {
        let inputs = match net.node(&layer.layer).unwrap().op {
            Op::Conv(ref conv) => conv.in_channels,
            _ => 64,
        };
        for choice in &layer.choices {
            for (mode, number) in choice.rank.parts().iter().enumerate() {
                // The first layer reads three channels, and its R_in cannot be a multiple; the last has ten classes.
                let small = inputs < 8 && mode == 1;
                assert!(small || number % 8 == 0, "{} {choice:?}", layer.layer);
            }
        }
        assert!(!layer.choices.is_empty(), "{}", layer.layer);
    }
}

#[test]
fn only_what_is_worth_looking_at() {
    let layers = ["conv2".to_string()];
    let options = ProfileOptions { largest: 0.25, ..options(&[Form::Cp3], 4) };
    let decomposer = Decomposer::als(1, 2);
    let profile =
        Profile::measure(&NET, INPUT, Some(&layers), &options, &decomposer, &|_| {}).unwrap();
    let conv2 = &profile.layers[0];
    let largest = conv2.choices.last().unwrap().cost;
    assert!(4 * largest.params < conv2.dense.params || 4 * largest.macs < conv2.dense.macs);
    assert!(largest.macs * 5 > conv2.dense.macs);
    let fails = |options: ProfileOptions, layers: &[&str]| {
        let layers: Vec<String> = layers.iter().map(ToString::to_string).collect();
        Profile::measure(&NET, INPUT, Some(&layers), &options, &decomposer, &|_| {}).unwrap_err()
    };
    let error = fails(ProfileOptions { points: 0, ..options.clone() }, &["conv2"]).to_string();
    assert_eq!(error, "points is 0, expected at least 1");
    assert!(matches!(
        fails(ProfileOptions { largest: f64::NAN, ..options.clone() }, &["conv2"]),
        PlanError::PlanOption { option: "largest", .. }
    ));
    assert!(matches!(
        fails(options.clone(), &["conv9"]),
        PlanError::Net(NetError::UnknownLayer { .. })
    ));
    assert!(matches!(fails(options.clone(), &["relu1"]), PlanError::PlanLayer { .. }));
    assert!(matches!(fails(options, &["fc1", "fc1"]), PlanError::PlanDuplicate { .. }));
}

#[test]
fn a_measured_plan_can_be_applied() {
    for budget in [Budget::Params(0.3), Budget::Macs(0.3)] {
        for objective in [Objective::MaxError, squares()] {
            let plan = SMALL.plan(budget, &objective, &PlanOptions::default()).unwrap();
            let predicted = SMALL.predict(&plan).unwrap();
            assert_eq!(plan.cost(&*NET, INPUT).unwrap().total, predicted.total);
            assert!(reached(&SMALL, &plan, budget) <= 0.3);
            compress(&mut NET.clone(), &plan, &Decomposer::als(1, 2), &|_| {}).unwrap();
            for layer in &plan.layers {
                assert!(layer.why.contains("of the dense layer's "), "{layer:?}");
            }
        }
    }
}

#[test]
fn budgets_are_kept_and_nearly_used_up() {
    for seed in 0..20 {
        let profile = drawn(30, 12, seed);
        for asked in [0.4, 0.55, 0.7, 0.9] {
            for budget in [Budget::Params(asked), Budget::Macs(asked), Budget::Latency(asked)] {
                for objective in [Objective::MaxError, squares()] {
                    let plan = profile.plan(budget, &objective, &PlanOptions::default()).unwrap();
                    let got = reached(&profile, &plan, budget);
                    assert!(got <= asked + 1e-12, "{seed} {budget:?} {objective:?}: {got}");
                    assert!(got > asked - 0.03, "{seed} {budget:?} {objective:?}: {got}");
                    assert_eq!(plan.layers.len() + plan.dense.len(), 30);
                    assert_eq!(
                        plan,
                        profile.plan(budget, &objective, &PlanOptions::default()).unwrap()
                    );
                }
            }
        }
    }
}

#[test]
fn more_budget_is_never_worse() {
    for seed in 0..12 {
        let profile = drawn(6, 6, seed);
        let budgets: [fn(f64) -> Budget; 3] = [Budget::Params, Budget::Macs, Budget::Latency];
        for budget in budgets {
            let (mut largest, mut sum) = (f64::INFINITY, f64::INFINITY);
            for step in 1..=400 {
                let budget = budget(f64::from(step) / 400.0);
                let of = |objective| match profile.plan(budget, objective, &PlanOptions::default())
                {
                    Ok(plan) => Some(profile.predict(&plan).unwrap()),
                    Err(PlanError::BudgetUnreachable { .. }) => None,
                    Err(other) => panic!("{other}"),
                };
                let Some(found) = of(&Objective::MaxError) else { continue };
                assert!(found.max_error <= largest, "{seed} {budget:?}");
                largest = found.max_error;
                let found = of(&squares()).unwrap();
                assert!(found.sum_of_squares <= sum + 1e-12, "{seed} {budget:?}");
                sum = found.sum_of_squares;
            }
            assert_eq!((largest, sum), (0.0, 0.0), "with all of it everything stays dense");
        }
    }
}

/// Largest error and Σ e² of the best plans that keep `room`, each by itself.
fn brute_force(profile: &Profile, room: f64, cost: fn(&Totals) -> usize) -> (f64, f64) {
    let mut best = (f64::INFINITY, f64::INFINITY);
    let counts: Vec<usize> = profile.layers.iter().map(|layer| layer.choices.len() + 1).collect();
    for mut code in 0..counts.iter().product() {
        let (mut total, mut largest, mut sum) = (cost(&profile.dense) as f64, 0.0, 0.0);
        for (layer, count) in profile.layers.iter().zip(&counts) {
            if let Some(choice) = layer.choices.get(code % count) {
                total += cost(&choice.cost) as f64 - cost(&layer.dense) as f64;
                largest = f64::max(largest, choice.error());
                sum += choice.error().powi(2);
            }
            code /= count;
        }
        if total <= room {
            best = (best.0.min(largest), best.1.min(sum));
        }
    }
    best
}

#[test]
fn no_plan_has_a_smaller_largest_error() {
    let (mut near, mut count) = (0.0, 0.0);
    let mut check = |profile: &Profile, asked: f64| {
        let (plan_of, counted): (_, fn(&Totals) -> usize) = (
            |objective| profile.plan(Budget::Macs(asked), objective, &PlanOptions::default()),
            |c| c.macs,
        );
        let (largest, sum) = brute_force(profile, asked * profile.dense.macs as f64, counted);
        let Ok(plan) = plan_of(&Objective::MaxError) else {
            assert!(largest.is_infinite());
            return;
        };
        let found = profile.predict(&plan).unwrap().max_error;
        assert!((found - largest).abs() < 1e-15, "{asked}: {found} {largest}");
        let found = profile.predict(&plan_of(&squares()).unwrap()).unwrap().sum_of_squares;
        assert!(found >= sum - 1e-12, "{asked}");
        if sum > 0.0 {
            near += found / sum;
            count += 1.0;
        }
    };
    for asked in [0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 0.95] {
        for seed in 0..10 {
            check(&drawn(4, 5, seed), asked);
        }
        check(&measure(&NET, &options(&[Form::Cp3], 5), &Decomposer::als(2, 2)), asked);
    }
    // The sum of squares is not the least there is, but near it, even with so few layers.
    assert!(near / count < 1.1, "{}", near / count);
}

#[test]
fn wishes_are_respected() {
    let profile = drawn(8, 6, 3);
    let fixed = [
        ("layer1".to_string(), (Form::Cp3, Rank::One(2))),
        ("layer2".to_string(), (Form::Cp3, Rank::One(9))),
    ];
    let dense = ["layer4".to_string(), "layer5".to_string()];
    let options = PlanOptions {
        fixed: fixed.into(),
        dense: dense.into(),
        max_error: Some(0.4),
        ..PlanOptions::default()
    };
    for objective in [Objective::MaxError, squares()] {
        let plan = profile.plan(Budget::Params(0.8), &objective, &options).unwrap();
        assert!(reached(&profile, &plan, Budget::Params(0.8)) <= 0.8);
        assert_eq!((plan.rank("layer1"), plan.rank("layer2")), (Some(2.into()), Some(9.into())));
        let why = |name: &str| plan.dense.iter().find(|l| l.name == name).map(|l| l.why.as_str());
        assert_eq!(why("layer4"), Some("kept dense by request"));
        assert_eq!(why("layer5"), Some("kept dense by request"));
        assert!(plan.layers[0].why.starts_with("error") || plan.layers[0].name == "layer1");
        let layer1 = plan.layers.iter().find(|layer| layer.name == "layer1").unwrap();
        assert!(layer1.why.starts_with("fixed by request: error"), "{}", layer1.why);
        for layer in plan.layers.iter().filter(|l| !options.fixed.contains_key(&l.name)) {
            let choices = &profile.layer(&layer.name).unwrap().choices;
            let choice = choices.iter().find(|choice| choice.rank == layer.rank).unwrap();
            assert!(choice.error() <= 0.4);
        }
    }
    let strict = PlanOptions { max_error: Some(0.0), ..PlanOptions::default() };
    let plan = profile.plan(Budget::Params(1.0), &squares(), &strict).unwrap();
    assert!(plan.dense[0].why.starts_with("its error would be at least 0."), "{plan:?}");
}

/// Costs are linear in the rank, so those of ranks in between are known.
#[test]
fn fixed_ranks_need_not_be_measured() {
    let fixed = |rank| PlanOptions {
        fixed: [("conv2".to_string(), rank)].into(),
        ..PlanOptions::default()
    };
    for rank in [1, 7, 33, 90, 150] {
        let options = fixed((Form::Cp3, Rank::One(rank)));
        let plan = SMALL.plan(Budget::Macs(0.9), &squares(), &options);
        let Ok(plan) = plan else { panic!("{rank}: {plan:?}") };
        assert_eq!(plan.rank("conv2"), Some(rank.into()));
        assert_eq!(SMALL.predict(&plan).unwrap().total, plan.cost(&*NET, INPUT).unwrap().total);
    }
    // Even beyond the largest measured.
    let large = RankPlan::default().with("conv2", Form::Cp3, 300, "");
    assert_eq!(SMALL.predict(&large).unwrap().total, large.cost(&*NET, INPUT).unwrap().total);
    let error = SMALL
        .plan(Budget::Macs(0.9), &squares(), &fixed((Form::Tucker2, Rank::Two([5, 31]))))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("layer 'conv2': tucker2 R=5x31 is not in the profile; measured: "),
        "{error}"
    );
}

#[test]
fn ranks_that_are_included_are_measured() {
    let mut profile = SMALL.clone();
    let wish = |name: &str, form, rank| -> BTreeMap<String, (Form, Rank)> {
        [(name.to_string(), (form, rank))].into()
    };
    let ranks = wish("conv2", Form::Tucker2, Rank::Two([5, 31]));
    let decomposer = Decomposer::als(5, 1);
    profile.include(&NET, &ranks, &decomposer).unwrap();
    let once = profile.clone();
    profile.include(&NET, &ranks, &decomposer).unwrap();
    assert_eq!(profile, once);
    let choice = profile.layer("conv2").unwrap().choices.last().unwrap();
    assert_eq!(choice.rank, Rank::Two([5, 31]));
    assert!(choice.rel_error > 0.0 && choice.rel_error < 1.0, "{choice:?}");

    let options = PlanOptions { fixed: ranks, ..PlanOptions::default() };
    let plan = profile.plan(Budget::Macs(0.9), &squares(), &options).unwrap();
    assert_eq!(plan.rank("conv2"), Some(Rank::Two([5, 31])));
    assert_eq!(profile.predict(&plan).unwrap().total, plan.cost(&*NET, INPUT).unwrap().total);

    let mut fails = |name: &str, form, rank| {
        profile.include(&NET, &wish(name, form, rank), &decomposer).unwrap_err().to_string()
    };
    assert!(fails("conv9", Form::Cp3, Rank::One(1)).starts_with("no layer named 'conv9'"));
    assert!(fails("conv2", Form::Cp3, Rank::One(0)).contains("conv2"));
    assert!(fails("fc2", Form::Cp3, Rank::One(1)).contains("fc2"));
}

#[test]
fn weights_tell_what_matters() {
    let profile = drawn(8, 8, 5);
    let error = |name: &str, weight: f64| {
        let weights = [(name.to_string(), weight)].into();
        let objective = Objective::SumOfSquares { weights };
        let plan = profile.plan(Budget::Macs(0.4), &objective, &PlanOptions::default()).unwrap();
        plan.rank(name).map_or(0.0, |rank| {
            let choices = &profile.layer(name).unwrap().choices;
            choices.iter().find(|choice| choice.rank == rank).unwrap().error()
        })
    };
    let mut smaller = 0;
    for layer in &profile.layers {
        let [none, one, many] = [0.0, 1.0, 1000.0].map(|weight| error(&layer.layer, weight));
        assert!(none >= one && one >= many, "{}: {none} {one} {many}", layer.layer);
        smaller += usize::from(many < one);
    }
    assert!(smaller > 2, "{smaller}");
    let unknown = Objective::SumOfSquares { weights: [("layer9".to_string(), 1.0)].into() };
    let negative = Objective::SumOfSquares { weights: [("layer3".to_string(), -1.0)].into() };
    let fails = |objective| {
        profile.plan(Budget::Macs(0.5), objective, &PlanOptions::default()).unwrap_err().to_string()
    };
    assert!(fails(&unknown).starts_with("no layer named 'layer9'"));
    assert_eq!(
        fails(&negative),
        "weight of layer 'layer3' is -1, expected a finite number, at least 0"
    );
}

#[test]
fn never_slower() {
    let mut profile = drawn(6, 5, 8);
    let slow = profile.layers[2].dense_seconds.map(|seconds| 1.3 * seconds);
    for choice in &mut profile.layers[2].choices {
        choice.seconds = slow;
    }
    let options = PlanOptions { never_slower: true, ..PlanOptions::default() };
    let plan = profile.plan(Budget::Macs(0.6), &Objective::MaxError, &options).unwrap();
    for layer in &plan.layers {
        let known = profile.layer(&layer.name).unwrap();
        let choice = known.choices.iter().find(|choice| choice.rank == layer.rank).unwrap();
        assert!(choice.seconds < known.dense_seconds, "{layer:?}");
    }
    let why = &plan.dense.iter().find(|layer| layer.name == "layer2").unwrap().why;
    assert_eq!(why, "no form is faster: cp3 R=1 takes 1.30 of the dense time");
    // The same reason where seconds are the budget.
    let plan = profile.plan(Budget::Latency(0.8), &squares(), &PlanOptions::default()).unwrap();
    assert!(plan.dense.iter().any(|layer| &layer.why == why), "{plan:?}");
}

#[test]
fn seconds_have_to_be_measured() {
    let error = |profile: &Profile, budget, options: &PlanOptions| {
        profile.plan(budget, &squares(), options).unwrap_err().to_string()
    };
    let fast = PlanOptions { never_slower: true, ..PlanOptions::default() };
    let mut profile = drawn(3, 3, 1);
    profile.layers[1].choices[1].seconds = None;
    let message = error(&profile, Budget::Latency(0.5), &PlanOptions::default());
    assert!(message.contains("no seconds for layer 'layer1' as cp3 R=2"), "{message}");
    let message = error(&profile, Budget::Macs(0.8), &fast);
    assert!(message.contains("no seconds for layer 'layer1' as cp3 R=2"), "{message}");
    profile.layers[0].dense_seconds = None;
    let message = error(&profile, Budget::Latency(0.5), &PlanOptions::default());
    assert!(message.contains("no seconds for layer 'layer0'"), "{message}");
    profile.dense_seconds = None;
    let message = error(&profile, Budget::Latency(0.5), &PlanOptions::default());
    assert!(message.contains("no seconds for the whole dense network"), "{message}");
    assert_eq!(profile.predict(&RankPlan::default()).unwrap().seconds, None);

    let uniform = RankPlan::uniform(&*NET, INPUT, Budget::Latency(0.5), Form::Cp3);
    assert!(matches!(uniform, Err(PlanError::BudgetUnmeasured)));
}

#[test]
fn budgets_out_of_reach() {
    let profile = drawn(5, 4, 2);
    let budgets: [fn(f64) -> Budget; 3] = [Budget::Params, Budget::Macs, Budget::Latency];
    for budget in budgets {
        for objective in [Objective::MaxError, squares()] {
            let plan = |ratio| profile.plan(budget(ratio), &objective, &PlanOptions::default());
            let Err(PlanError::BudgetUnreachable { nearest, quantity, .. }) = plan(0.01) else {
                panic!("nothing is that small");
            };
            assert!(["parameters", "multiply-adds", "seconds"].contains(&quantity));
            let found = plan(nearest + 1e-9).unwrap();
            assert!((reached(&profile, &found, budget(0.0)) - nearest).abs() < 1e-9);
            assert!(matches!(plan(nearest - 1e-9), Err(PlanError::BudgetUnreachable { .. })));
            for ratio in [0.0, -0.5, 1.5, f64::NAN] {
                assert!(matches!(plan(ratio), Err(PlanError::BudgetRange { .. })), "{ratio}");
            }
        }
    }
}

#[test]
fn unknown_layers_in_wishes() {
    let profile = drawn(3, 3, 4);
    let fails = |options: PlanOptions| {
        profile.plan(Budget::Macs(0.9), &Objective::MaxError, &options).unwrap_err()
    };
    let named =
        |name: &str| PlanOptions { dense: [name.to_string()].into(), ..PlanOptions::default() };
    let fixed = |name: &str| [(name.to_string(), (Form::Cp3, Rank::One(1)))];
    let error = fails(named("layer7")).to_string();
    assert!(error.starts_with("no layer named 'layer7'; did you mean 'layer0'"), "{error}");
    let options = PlanOptions { fixed: fixed("layer8").into(), ..PlanOptions::default() };
    assert!(matches!(fails(options), PlanError::Net(NetError::UnknownLayer { .. })));
    let options = PlanOptions { fixed: fixed("layer0").into(), ..named("layer0") };
    assert!(matches!(fails(options), PlanError::PlanDuplicate { .. }));
    let other = PlanOptions {
        fixed: [("layer0".to_string(), (Form::Cp4, Rank::One(1)))].into(),
        ..PlanOptions::default()
    };
    assert!(
        fails(other)
            .to_string()
            .ends_with("is not in the profile, nor is any other rank of that form")
    );
    let options = PlanOptions { max_error: Some(f64::NAN), ..PlanOptions::default() };
    assert!(matches!(fails(options), PlanError::PlanOption { option: "max_error", .. }));
}

#[test]
fn what_a_plan_promises_is_what_it_gives() {
    let forms = [Form::Cp3, Form::Cp4, Form::Tucker2];
    let decomposer = Decomposer { max_energy: None, ..Decomposer::als(40, 2) };
    let profile = measure(&NET, &options(&forms, 5), &decomposer);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("models.safetensors");
    profile.models.save(&file).unwrap();
    let models = Models::load(&file).unwrap();
    assert_eq!(models, profile.models);
    assert!(!models.is_empty());
    for budget in [0.2, 0.5] {
        let plan = profile.plan(Budget::Macs(budget), &squares(), &PlanOptions::default()).unwrap();
        let promised = profile.predict(&plan).unwrap();
        let decomposer = Decomposer { models: models.clone(), ..decomposer.clone() };
        let mut net = NET.clone();
        let reports = compress(&mut net, &plan, &decomposer, &|_| {}).unwrap();
        let squares: f64 = reports.iter().map(|report| report.rel_error.powi(2)).sum();
        assert!(squares <= promised.sum_of_squares * 1.001, "{squares} {promised:?}");
        let far = |report: &cp_plan::LayerReport| report.rel_error < 0.8 * promised.max_error;
        assert!(!reports.iter().all(far), "{reports:?}");
    }
}

#[test]
fn a_budget_is_used_to_within_a_hundredth() {
    let net = arch::by_name("charnet").unwrap().initialize(1).unwrap();
    let profile = measure(&net, &options(&[Form::Cp3, Form::Cp4], 6), &Decomposer::als(3, 2));
    for multiple in [1, 8] {
        let options = PlanOptions { fill: Some(multiple), ..PlanOptions::default() };
        for asked in [0.15, 0.3, 0.5, 0.8] {
            for (budget, slack) in [(Budget::Macs(asked), 0.01), (Budget::Params(asked), 0.01)] {
                let slack = slack * multiple as f64;
                let plan = profile.plan(budget, &squares(), &options).unwrap();
                let share = reached(&profile, &plan, budget);
                assert!(share <= asked && share >= asked * (1.0 - slack), "{budget:?}: {share}");
                let cost = plan.cost(&net, &net.input().shape).unwrap().total;
                assert_eq!(cost, profile.predict(&plan).unwrap().total);
                let off = |rank: Rank| rank.one().is_some_and(|rank| rank % multiple != 0);
                let measured = |layer: &cp_plan::PlannedLayer| {
                    let known = &profile.layer(&layer.name).unwrap().choices;
                    known.iter().any(|choice| choice.rank == layer.rank)
                };
                assert!(plan.layers.iter().all(|layer| measured(layer) || !off(layer.rank)));
            }
        }
    }
}

/// The head of a detector has few outputs, which bound the rank of its many inputs.
#[test]
fn measured_multiples_are_multiples_to_rounding_too() {
    for (inputs, outputs) in [(256, 6), (6, 256), (64, 24), (40, 40)] {
        let net = Builder::new("head", InputSpec::features([inputs, 4, 5]))
            .conv("conv", outputs, window(3).pad(1))
            .build()
            .unwrap()
            .initialize(1)
            .unwrap();
        let forms = vec![Form::Cp3, Form::Tucker2, Form::TkdCpd];
        let options =
            ProfileOptions { forms, points: 8, multiple_of: 16, ..ProfileOptions::default() };
        let profile =
            Profile::measure(&net, [inputs, 4, 5], None, &options, &Decomposer::als(1, 0), &|_| {})
                .unwrap();
        for choice in &profile.layers[0].choices {
            let plan = RankPlan::default().with("conv", choice.form, choice.rank, "");
            let rounded = plan.rounded(&net, 16).unwrap();
            assert_eq!(rounded.rank("conv"), Some(choice.rank), "{inputs} → {outputs}: {choice:?}");
        }
    }
}
