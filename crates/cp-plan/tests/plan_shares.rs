//! Ranks as shares of a budget.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use std::collections::BTreeMap;

use cp_net::{Form, arch};
use cp_plan::{PlanError, PlanWarning, RankPlan, ShareBudgets, ShareRule};

const INPUT: [usize; 3] = [3, 224, 224];
const CONVS: [&str; 5] = ["features.0", "features.3", "features.6", "features.8", "features.10"];
const LINEARS: [&str; 3] = ["classifier.1", "classifier.4", "classifier.6"];
const PUBLISHED: ShareBudgets = ShareBudgets { conv: 750, linear: 900 };

fn losses(convs: [f64; 5], linears: [f64; 3]) -> BTreeMap<String, f64> {
    let names = CONVS.into_iter().chain(LINEARS).map(String::from);
    names.zip(convs.into_iter().chain(linears)).collect()
}

fn astrid_and_lee() -> BTreeMap<String, f64> {
    losses([5.38, 11.89, 11.86, 13.68, 15.17], [28.69, 21.50, 20.31])
}

fn plan(
    form: Form,
    losses: &BTreeMap<String, f64>,
    budgets: ShareBudgets,
    size_share: f64,
    fixed: &[(&str, usize)],
) -> Result<RankPlan, PlanError> {
    let arch = arch::by_name("alexnet").unwrap();
    let fixed = fixed.iter().map(|(name, rank)| (name.to_string(), *rank)).collect();
    let rule = ShareRule { size_share, ..ShareRule::LOSSES };
    RankPlan::from_losses(&arch, INPUT, form, losses, &budgets, &rule, &fixed)
}

fn ranks(plan: &RankPlan, names: &[&str]) -> Vec<usize> {
    names.iter().map(|name| plan.rank(name).unwrap().one().unwrap()).collect()
}

/// The published ranks, off by rounding at most 1: they are not rounded by largest remainders, and the losses have two digits.
#[test]
fn published_ranks_of_alexnet() {
    let plan = plan(Form::Cp3, &astrid_and_lee(), PUBLISHED, 0.0, &[]).unwrap();
    for (names, published) in
        [(&CONVS[..], &[69, 154, 153, 178, 196][..]), (&LINEARS[..], &[365, 275, 260][..])]
    {
        let found = ranks(&plan, names);
        assert_eq!(found.iter().sum::<usize>(), published.iter().sum::<usize>());
        let near = found.iter().zip(published).all(|(a, b): (&usize, &usize)| a.abs_diff(*b) <= 1);
        assert!(near, "{found:?} {published:?}");
    }
    assert_eq!(plan.layers[0].why, "loss 5.3800, 9.3 % of the convolutions' 750");
}

/// SqVaD's 164 for the first layer would make it slower than dense, at 224×224 pixels with a stride of 4: it gets what is below
/// break-even, and the other layers the rest.
#[test]
fn no_rank_reaches_break_even() {
    let losses = losses([8.34, 7.46, 8.66, 7.16, 6.66], [6.68, 6.77, 5.51]);
    let arch = arch::by_name("alexnet").unwrap();
    for form in [Form::Cp3, Form::Cp4] {
        let plan = plan(form, &losses, PUBLISHED, 0.0, &[]).unwrap();
        let found = ranks(&plan, &CONVS);
        let even = arch.breakeven("features.0", form, INPUT).unwrap().macs;
        assert!(even < 164.0);
        assert_eq!(found[0], even.ceil() as usize - 1);
        assert!(plan.layers[0].why.ends_with("all that is below break-even"));
        assert_eq!(found.iter().sum::<usize>(), 750);
        for (got, published) in found.iter().zip([164, 147, 169, 140, 130]).skip(1) {
            assert!(*got >= published, "{found:?}");
        }
        let found = ranks(&plan, &LINEARS);
        assert!(found.iter().zip([318, 321, 261]).all(|(a, b): (&usize, _)| a.abs_diff(b) <= 1));
        let warnings = plan.warnings(&arch, INPUT).unwrap();
        assert!(!warnings.iter().any(|warning| matches!(warning, PlanWarning::MoreMacs(_))));
    }
}

#[test]
fn sums_are_exact_wherever_the_limits_allow() {
    let sum = |plan: &RankPlan, names: &[&str]| ranks(plan, names).iter().sum::<usize>();
    for size_share in [0.0, 0.3, 0.8, 1.0] {
        for conv in [5, 6, 50, 333, 750, 2000] {
            for linear in [3, 17, 900, 2500] {
                let budgets = ShareBudgets { conv, linear };
                let plan = plan(Form::Cp3, &astrid_and_lee(), budgets, size_share, &[]).unwrap();
                assert_eq!((sum(&plan, &CONVS), sum(&plan, &LINEARS)), (conv, linear));
                assert!(plan.layers.iter().all(|layer| layer.rank.parts()[0] >= 1));
            }
        }
    }
    // More than all together may have: each is at its limit.
    let budgets = ShareBudgets { conv: 1_000_000, linear: 1_000_000 };
    let plan = plan(Form::Cp3, &astrid_and_lee(), budgets, 0.0, &[]).unwrap();
    assert!(plan.layers.iter().all(|layer| layer.why.ends_with("all that is below break-even")));
}

#[test]
fn sizes_take_their_share() {
    let rank = |size_share| {
        let plan = plan(Form::Cp3, &astrid_and_lee(), PUBLISHED, size_share, &[]).unwrap();
        ranks(&plan, &LINEARS)
    };
    // At rank 5 with bias 5·(9216 + 4096) + 4096, 5·(4096 + 4096) + 4096 and 5·(4096 + 1000) + 1000 numbers of 142,192.
    assert_eq!(rank(1.0), [447, 285, 168]);
    let (none, half) = (rank(0.0), rank(0.5));
    assert!(none[0] < half[0] && half[0] < 447, "{none:?} {half:?}");
}

#[test]
fn fixed_ranks_come_off_first() {
    let fixed = [("features.0", 200), ("classifier.6", 100)];
    let mut losses = astrid_and_lee();
    losses.remove("features.0"); // it needs none
    let plan = plan(Form::Cp3, &losses, PUBLISHED, 0.0, &fixed).unwrap();
    assert_eq!(
        (plan.rank("features.0"), plan.rank("classifier.6")),
        (Some(200.into()), Some(100.into()))
    );
    assert_eq!(plan.layers[0].why, "fixed by request");
    assert_eq!(ranks(&plan, &CONVS).iter().sum::<usize>(), 750);
    assert_eq!(ranks(&plan, &LINEARS).iter().sum::<usize>(), 900);
    // 550 over 11.89, 11.86, 13.68 and 15.17.
    assert_eq!(ranks(&plan, &CONVS), [200, 124, 124, 143, 159]);
}

#[test]
fn losses_of_nothing() {
    let equal = plan(Form::Cp3, &losses([0.0; 5], [-1.0, -2.0, 0.0]), PUBLISHED, 0.0, &[]).unwrap();
    // The first layer is at its limit, so the others share the rest of 750.
    assert_eq!(ranks(&equal, &CONVS), [98, 163, 163, 163, 163]);
    assert_eq!(ranks(&equal, &LINEARS), [300; 3]);
    let one = plan(Form::Cp3, &losses([0.0, 1.0, -3.0, 0.0, 0.0], [1.0; 3]), PUBLISHED, 0.0, &[]);
    assert_eq!(ranks(&one.unwrap(), &CONVS), [1, 746, 1, 1, 1]);
}

/// Each group has the rank, and the budget counts it once.
#[test]
fn grouped_layers_count_once() {
    let arch = arch::by_name("alexnet-caffe").unwrap();
    let names = arch.compressible();
    let losses = names.iter().map(|name| (name.clone(), 1.0)).collect();
    let budgets = ShareBudgets { conv: 100, linear: 30 };
    let plan = RankPlan::from_losses(
        &arch,
        arch.input_shapes(),
        Form::Cp3,
        &losses,
        &budgets,
        &ShareRule::LOSSES,
        &BTreeMap::new(),
    )
    .unwrap();
    assert_eq!(plan.layers.iter().filter_map(|layer| layer.rank.one()).sum::<usize>(), 130);
}

#[test]
fn layers_that_stay_dense_say_why() {
    let mut losses = astrid_and_lee();
    losses.remove("features.8");
    let plan = plan(Form::Cp3, &losses, PUBLISHED, 0.0, &[]).unwrap();
    assert_eq!(plan.dense.len(), 1);
    assert_eq!(
        (plan.dense[0].name.as_str(), plan.dense[0].why.as_str()),
        ("features.8", "no loss was measured for it")
    );

    let arch = arch::by_name("small-cnn").unwrap();
    let losses = [("fc2".to_string(), 1.0), ("conv1".to_string(), 1.0)].into();
    let budgets = ShareBudgets { conv: 4, linear: 4 };
    let none = BTreeMap::new();
    let low = RankPlan::from_losses(
        &arch,
        [1, 28, 28],
        Form::LowRank,
        &losses,
        &budgets,
        &ShareRule::LOSSES,
        &none,
    );
    let low = low.unwrap();
    assert_eq!(low.dense[0].why, "a low-rank form does not fit it");
    assert_eq!(low.rank("fc2"), Some(4.into()));
}

#[test]
fn mistakes() {
    let fails = |losses: &BTreeMap<String, f64>, budgets, share, fixed: &[(&str, usize)]| {
        plan(Form::Cp3, losses, budgets, share, fixed).unwrap_err().to_string()
    };
    let good = astrid_and_lee();
    let small = ShareBudgets { conv: 4, ..PUBLISHED };
    assert_eq!(
        fails(&good, small, 0.0, &[]),
        "a rank budget of 4 for the convolutions: with 1 for each layer and the ranks that are fixed, 5 are needed"
    );
    let error = fails(&good, PUBLISHED, 0.0, &[("classifier.1", 899)]);
    assert!(
        error.contains("900 for the linear layers") && error.ends_with("901 are needed"),
        "{error}"
    );
    assert_eq!(
        fails(&good, PUBLISHED, 1.5, &[]),
        "size_share is 1.5, expected a number from 0 to 1"
    );
    let mut bad = good.clone();
    bad.insert("features.3".into(), f64::NAN);
    assert_eq!(
        fails(&bad, PUBLISHED, 0.0, &[]),
        "loss of layer 'features.3' is NaN, expected a finite number"
    );
    bad.insert("features.4".into(), 1.0);
    bad.remove("features.3");
    assert!(fails(&bad, PUBLISHED, 0.0, &[]).contains("the plan names layer 'features.4'"));
    assert!(
        fails(&good, PUBLISHED, 0.0, &[("feature.3", 5)])
            .starts_with("no layer named 'feature.3'; did you mean")
    );
    assert!(
        fails(&good, PUBLISHED, 0.0, &[("features.3", 0)])
            .contains("rank of layer 'features.3' is 0")
    );
}
