//! Rank plans: files, checks, warnings, and the plan for a budget.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use cp_net::{Architecture, Form, NetError, Rank, arch};
use cp_plan::{Budget, PlanError, PlanWarning, RankPlan};

fn parse(text: &str) -> Result<RankPlan, PlanError> {
    text.parse()
}

#[test]
fn plans_survive_toml() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    let arch = arch::by_name("resnet20").unwrap();
    let plan =
        RankPlan::uniform(&arch, arch.input_shapes(), Budget::Params(0.5), Form::Cp3).unwrap();
    assert!(!plan.dense.is_empty());
    plan.save(&path).unwrap();
    assert_eq!(RankPlan::load(&path).unwrap(), plan);
}

#[test]
fn mistakes_in_plans() {
    let arch = arch::by_name("small-cnn").unwrap();
    let fails = |text: &str, expected: &str| {
        let error = parse(text).and_then(|plan| plan.check(&arch)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let layer = |name: &str, form: &str, rank: &str| {
        format!("[[layer]]\nname = '{name}'\nform = '{form}'\nrank = {rank}\n")
    };
    fails(&layer("conv2", "cp5", "3"), "unknown variant `cp5`");
    fails(&layer("conv2", "cp3", "-3"), "rank = -3");
    fails(&layer("conv2", "cp3", "0"), "rank of layer 'conv2' is 0");
    fails(
        &layer("conv", "cp3", "3"),
        "no layer named 'conv'; did you mean 'conv1', 'conv2'? There are: conv1, conv2, fc1, fc2",
    );
    fails(
        &(layer("conv2", "cp3", "3") + &layer("conv2", "cp4", "3")),
        "names layer 'conv2' more than once",
    );
    fails(
        &(layer("conv2", "cp3", "3") + "[[dense]]\nname = 'conv2'"),
        "names layer 'conv2' more than once",
    );
    fails("[[dense]]\nname = 'fc9'", "no layer named 'fc9'");
    fails("[[layer]]\nname = 'conv2'\nform = 'cp3'", "missing field `rank`");
    fails(
        "[[layer]]\nname = 'conv2'\nform = 'cp3'\nrank = 3\ncolour = 1",
        "unknown field `colour`",
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    std::fs::write(&path, "[[layer").unwrap();
    let error = RankPlan::load(&path).unwrap_err().to_string();
    assert!(error.starts_with(path.to_str().unwrap()), "{error}");
}

#[test]
fn ranks_above_break_even_are_warned_of() {
    let arch = arch::by_name("alexnet").unwrap();
    let even = arch.breakeven("features.3", Form::Cp4, [3, 224, 224]).unwrap();
    assert!((even.params - 192.0 * 64.0 * 25.0 / 266.0).abs() < 1e-9);
    let plan = |layer, form, rank| RankPlan::default().with(layer, form, rank, "");
    let warnings = |plan: RankPlan| plan.warnings(&arch, [3, 224, 224]).unwrap();
    assert!(warnings(plan("features.3", Form::Cp4, 1154)).is_empty());
    let found = warnings(plan("features.3", Form::Cp4, 1155));
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0].to_string(),
        "layer 'features.3': rank 1155 is not below 1154.9, the break-even rank in parameters"
    );
    // conv1 strides by 4: `reduce` at 224×224 makes multiply-adds break even at another rank.
    let even = arch.breakeven("features.0", Form::Cp4, [3, 224, 224]).unwrap();
    assert!(even.macs < even.params, "{even:?}");
    let rank = (0.5 * (even.macs + even.params)) as usize;
    let found = warnings(plan("features.0", Form::Cp4, rank));
    assert!(matches!(found[..], [PlanWarning::MoreMacs { .. }]), "{found:?}");
}

/// The plan's compressed / dense, and the largest that one more rank anywhere would give.
fn reached(arch: &Architecture, plan: &RankPlan, budget: Budget) -> f64 {
    let (dense, planned) =
        (arch.cost(arch.input_shapes()).unwrap(), plan.cost(arch, arch.input_shapes()).unwrap());
    match budget {
        Budget::Params(_) => planned.total.params as f64 / dense.total.params as f64,
        Budget::Macs(_) => planned.total.macs as f64 / dense.total.macs as f64,
        Budget::Latency(_) => unreachable!("nothing is timed here"),
    }
}

#[test]
fn budgets_are_kept_and_used_up() {
    for name in
        ["alexnet", "resnet20", "resnet56", "resnet18", "squeezenet1_1", "googlenet", "charnet"]
    {
        let arch = arch::by_name(name).unwrap();
        for form in [Form::Cp3, Form::Cp4] {
            for asked in [0.3, 0.5, 0.8, 1.0] {
                for budget in [Budget::Params(asked), Budget::Macs(asked)] {
                    let plan = RankPlan::uniform(&arch, arch.input_shapes(), budget, form).unwrap();
                    let got = reached(&arch, &plan, budget);
                    assert!(got <= asked, "{name} {form} {budget:?}: {got}");
                    // Ranks end below break-even, so 1 itself is not reached.
                    assert!(got > asked.min(0.9) - 0.002, "{name} {form} {budget:?}: {got}");
                    // Nothing planned is larger than dense in what the budget counts.
                    let dense = arch.cost(arch.input_shapes()).unwrap();
                    let cost = plan.cost(&arch, arch.input_shapes()).unwrap();
                    for layer in plan.layers.iter().map(|layer| layer.name.as_str()) {
                        let (before, after) =
                            (dense.layer(layer).unwrap().cost, cost.layer(layer).unwrap().cost);
                        match budget {
                            Budget::Params(_) => {
                                assert!(after.params < before.params, "{name} {layer}")
                            }
                            _ => assert!(after.macs < before.macs, "{name} {layer}"),
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn layers_that_gain_nothing_stay_dense() {
    let arch = arch::by_name("resnet56").unwrap();
    let plan = RankPlan::uniform(&arch, arch.input_shapes(), Budget::Macs(0.5), Form::Cp3).unwrap();
    let why = |name: &str| {
        plan.dense.iter().find(|layer| layer.name == name).map(|layer| layer.why.as_str())
    };
    assert_eq!(why("linear"), Some("holds 0.001 % of the multiply-adds"));
    assert!(plan.rank("layer3.8.conv2").is_some());
    assert!(plan.layers[0].why.contains("of break-even"), "{:?}", plan.layers[0]);
    // One ratio: equal layers have ranks that differ by one at most.
    let ranks: Vec<usize> =
        (1..9).filter_map(|block| plan.rank(&format!("layer3.{block}.conv1"))?.one()).collect();
    assert_eq!(ranks.len(), 8);
    assert!(ranks.iter().max().unwrap() - ranks.iter().min().unwrap() <= 1, "{ranks:?}");
    // As low-rank layers, only the 1×1 kernels are left.
    let low =
        RankPlan::uniform(&arch, arch.input_shapes(), Budget::Macs(1.0), Form::LowRank).unwrap();
    assert!(low.layers.is_empty());
    assert_eq!(low.dense[0].why, "a low-rank form does not fit it");
}

#[test]
fn only_the_layers_asked_for() {
    let arch = arch::by_name("resnet20").unwrap();
    let layers = ["layer3.1.conv1".to_string(), "layer3.1.conv2".to_string()];
    let plan = RankPlan::uniform_among(
        &arch,
        arch.input_shapes(),
        Budget::Params(0.9),
        Form::Cp3,
        &layers,
    )
    .unwrap();
    assert_eq!(plan.layers.len(), 2);
    let unknown = ["layer9".to_string()];
    let error = RankPlan::uniform_among(
        &arch,
        arch.input_shapes(),
        Budget::Params(0.9),
        Form::Cp3,
        &unknown,
    );
    assert!(matches!(error, Err(PlanError::Net(NetError::UnknownLayer { .. }))));
}

#[test]
fn budgets_out_of_reach() {
    let arch = arch::by_name("resnet20").unwrap();
    let uniform = |budget| RankPlan::uniform(&arch, arch.input_shapes(), budget, Form::Cp3);
    let Err(PlanError::BudgetUnreachable { nearest, .. }) = uniform(Budget::Params(0.001)) else {
        panic!("ranks of 1 have more parameters than that");
    };
    // The nearest ratio is one that can be reached.
    let plan = uniform(Budget::Params(nearest + 1e-9)).unwrap();
    assert!(plan.layers.iter().all(|layer| layer.rank == 1), "{plan:?}");
    for ratio in [0.0, -0.5, 1.5, f64::NAN, f64::INFINITY] {
        assert!(
            matches!(uniform(Budget::Macs(ratio)), Err(PlanError::BudgetRange { .. })),
            "{ratio}"
        );
    }
}

/// The backbone sizes of the transfer experiments (without `fc`): CP-4, rank ⌊ratio · ⌊break-even⌋⌋.
#[test]
fn resnet18_at_ratios_of_breakeven() {
    let arch = arch::by_name("resnet18").unwrap();
    let check = |ratio, expected| {
        let plan = RankPlan::at_breakeven_ratio(&arch, Form::Cp4, ratio).unwrap();
        let cost = plan.cost(&arch, arch.input_shapes()).unwrap();
        let backbone = cost.total.params - cost.layer("fc").unwrap().cost.params;
        assert_eq!(backbone, expected, "ratio {ratio}");
    };
    check(0.01, 286_723);
    check(0.03, 507_283);
    check(0.05, 727_115);
    check(0.1, 1_278_447);
    check(0.2, 2_377_823);
    check(0.3, 3_476_966);
    check(0.4, 4_576_342);
    check(0.5, 5_676_940);
    check(0.6, 6_774_291);
    check(0.7, 7_873_131);
    check(0.8, 8_972_810);
    check(0.9, 10_071_650);
}

/// One step more of a form costs more than the plan that it is compared with, so that the rank found is the largest.
#[test]
fn other_forms_at_equal_multiply_adds() {
    let arch = arch::by_name("charnet").unwrap();
    let input = arch.input_shapes();
    let layers = ["conv2", "conv3"];
    let plan = |form: Form, rank: usize| {
        layers.into_iter().fold(RankPlan::default(), |plan, name| plan.with(name, form, rank, ""))
    };
    let shapes = arch.shapes(&input).unwrap();
    let macs = |name: &str, form: Form, rank: Rank| {
        arch.factors_cost(name, form, rank, &shapes).unwrap().macs
    };
    for form in [Form::Cp3, Form::Cp4, Form::Jaderberg1, Form::Jaderberg2] {
        let found = plan(Form::Cp4, 64).at_equal_macs(&arch, &input, form).unwrap();
        assert_eq!(found.layers.len(), 2);
        for layer in &found.layers {
            let rank = layer.rank.one().unwrap();
            let most = macs(&layer.name, Form::Cp4, 64.into());
            assert!(macs(&layer.name, form, rank.into()) <= most, "{form} {}", layer.name);
            // Jaderberg's first scheme may be exact before.
            let next = arch.clone().factorize(&layer.name, form, rank + 1).is_ok();
            assert!(!next || macs(&layer.name, form, (rank + 1).into()) > most, "{form}");
        }
    }
    let same = plan(Form::Cp4, 64).at_equal_macs(&arch, &input, Form::Cp4).unwrap();
    assert_eq!(same.rank("conv2"), Some(64.into()));
    for form in [Form::Tucker2, Form::Denton] {
        let found = plan(Form::Cp4, 64).at_equal_macs(&arch, &input, form).unwrap();
        for layer in &found.layers {
            let share = macs(&layer.name, form, layer.rank) as f64
                / macs(&layer.name, Form::Cp4, 64.into()) as f64;
            assert!((0.8..=1.0).contains(&share), "{form} {}: {share}", layer.name);
        }
    }

    let error = plan(Form::Cp4, 1).at_equal_macs(&arch, &input, Form::Jaderberg1).unwrap_err();
    assert!(
        matches!(error, PlanError::BudgetUnreachable { asked, nearest, .. } if asked < nearest),
        "{error}"
    );
    let error = plan(Form::Cp4, 8).at_equal_macs(&arch, &input, Form::LowRank).unwrap_err();
    assert!(matches!(error, PlanError::Net(NetError::FormMismatch { .. })), "{error}");
}
