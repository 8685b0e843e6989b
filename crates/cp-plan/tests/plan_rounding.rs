//! Ranks rounded to multiples.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use cp_net::{Architecture, Form, NetError, Rank, arch};
use cp_plan::{Budget, PlanError, PlanWarning, RankPlan};

/// Rounds a plan and checks what holds for all of them.
fn check(arch: &Architecture, plan: &RankPlan, multiple: usize) -> RankPlan {
    let rounded = plan.clone().rounded(arch, multiple).unwrap();
    assert_eq!(rounded.clone().rounded(arch, multiple).unwrap(), rounded, "not idempotent");
    assert_eq!(rounded.dense, plan.dense);
    let warned = |plan: &RankPlan| -> Vec<String> {
        let warnings = plan.warnings(arch, arch.input_shapes()).unwrap();
        let name = |warning: &PlanWarning| match warning {
            PlanWarning::MoreParams(cost) => format!("params {}", cost.layer),
            PlanWarning::MoreMacs(cost) => format!("macs {}", cost.layer),
            other => format!("{other:?}"),
        };
        warnings.iter().map(name).collect()
    };
    let before = warned(plan);
    for warning in warned(&rounded) {
        assert!(before.contains(&warning), "{multiple}: {warning}");
    }
    for (old, new) in plan.layers.iter().zip(&rounded.layers) {
        assert_eq!((&old.name, old.form), (&new.name, new.form));
        for (&a, &b) in old.rank.parts().iter().zip(new.rank.parts()) {
            assert!(b > 0 && (b.is_multiple_of(multiple) || b == a), "{old:?} {new:?}");
            assert!(a.abs_diff(b) < multiple, "{old:?} {new:?}");
        }
        assert_eq!(old.rank == new.rank, old.why == new.why);
    }
    rounded
}

#[test]
fn plans_round_to_multiples() {
    for name in ["resnet20", "alexnet", "alexnet-caffe", "resnet18", "squeezenet1_1"] {
        let arch = arch::by_name(name).unwrap();
        for multiple in [1, 4, 8, 32] {
            for form in [Form::Cp3, Form::Cp4] {
                for asked in [0.2, 0.5, 1.0] {
                    let budget = Budget::Macs(asked);
                    let plan = RankPlan::uniform(&arch, arch.input_shapes(), budget, form);
                    let Ok(plan) = plan else { continue };
                    let rounded = check(&arch, &plan, multiple);
                    if multiple == 1 {
                        assert_eq!(rounded, plan);
                    }
                }
            }
        }
    }
    let net = arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
    for form in [Form::Tucker2, Form::TkdCpd] {
        for share in [0.3, 0.6, 0.9] {
            let plan = RankPlan::by_energy(&net, form, share).unwrap();
            for multiple in [3, 8, 16, 100] {
                check(net.architecture(), &plan, multiple);
            }
        }
    }
}

#[test]
fn numbers_round_as_a_layer_allows() {
    let arch = &arch::by_name("small-cnn").unwrap();
    let rounded = |layer: &str, form, rank: Rank, multiple, expect: Rank| {
        let plan = RankPlan::default().with(layer, form, rank, "");
        assert_eq!(check(arch, &plan, multiple).rank(layer), Some(expect), "{layer} {rank}");
    };
    rounded("conv2", Form::Cp3, 20.into(), 8, 24.into());
    rounded("conv2", Form::Cp3, 19.into(), 8, 16.into());
    rounded("conv2", Form::Cp3, 1.into(), 8, 8.into());
    // Break-even is 175.5: 175 would go to 176.
    rounded("conv2", Form::Cp3, 175.into(), 8, 168.into());
    // Above it before, so it may stay above.
    rounded("conv2", Form::Cp3, 177.into(), 8, 176.into());
    // Ten classes, and 9.3 to break even.
    rounded("fc2", Form::LowRank, 3.into(), 8, 8.into());
    rounded("fc2", Form::LowRank, 3.into(), 16, 3.into());
    // One input channel has no multiple; 32 output channels have.
    rounded("conv1", Form::Tucker2, [3, 1].into(), 4, [4, 1].into());
    rounded("conv1", Form::Tucker2, [3, 1].into(), 8, [3, 1].into());
    rounded("conv2", Form::TkdCpd, [21, 10, 30].into(), 8, [24, 8, 32].into());

    let bad = RankPlan::default().with("conv2", Form::Cp3, 4, "");
    assert!(matches!(bad.rounded(arch, 0), Err(PlanError::PlanOption { option: "multiple", .. })));
    let unknown = RankPlan::default().with("conv9", Form::Cp3, 4, "");
    assert!(matches!(unknown.rounded(arch, 8), Err(PlanError::Net(NetError::UnknownLayer { .. }))));
}
