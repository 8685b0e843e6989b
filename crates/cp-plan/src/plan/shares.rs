//! Ranks as shares of a budget, in proportion to the losses that the layers cause.

use std::collections::BTreeMap;

use cp_net::{Architecture, Form, InputShapes, Op, ParamRole, Rank, Shapes};

use super::{DenseLayer, PlannedLayer, RankPlan, plannable};
use crate::error::PlanError;

/// Sums of ranks, for convolutions (1×1 ones too) and for linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareBudgets {
    /// Σ R over the convolutions.
    pub conv: usize,
    /// Σ R over the linear layers.
    pub linear: usize,
}

/// How losses become ranks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShareRule {
    /// λ, the part of a share that goes by size, 0…1.
    pub size_share: f64,
    /// The rank that sizes are counted at: that of the probes.
    pub probe_rank: usize,
    /// Who gets what rounding leaves over.
    pub rest: Rest,
}

/// Who gets the ranks that are left over when shares are rounded down, one each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rest {
    /// Those whose shares were rounded down the most.
    #[default]
    Largest,
    /// The first layers.
    First,
}

impl ShareRule {
    /// By the losses alone, and largest remainders: what comes nearest to the ranks that Astrid & Lee (2017) print.
    pub const LOSSES: Self = Self { size_share: 0.0, probe_rank: 5, rest: Rest::Largest };

    /// SqVaD's: a part by size, sizes at rank 5, and the rest from the first layer on.
    pub fn sqvad(size_share: f64) -> Self {
        Self { size_share, probe_rank: 5, rest: Rest::First }
    }
}

/// A layer that takes a share of the budget of its kind.
#[derive(Debug, Clone, PartialEq)]
struct Sharer {
    name: String,
    form: Form,
    loss: f64,
    /// Parameters, the bias included, when it is factorized at the rank of the probes.
    size: usize,
    /// The largest rank below break-even.
    most: usize,
}

impl RankPlan {
    /// Ranks from the loss that each layer causes when it alone is decomposed at a small rank.
    ///
    /// A layer's share of the budget of its kind is
    ///
    /// > (1 − λ) lossᵢ / Σ loss + λ sizeᵢ / Σ size,
    ///
    /// with λ = [`ShareRule::size_share`], size the parameters of the layer when it is factorized at the rank of the probes, and the sums
    /// over the layers of that kind with a loss. Losses below 0 count as 0; where all are 0 the shares of the loss are equal. `fixed` ranks come off the budget first, as they are;
    /// those layers need no loss.
    ///
    /// A rank is at least 1 and below break-even in multiply-adds: what a layer cannot take goes to the others of its kind. The
    /// ranks are rounded down, and the rest goes round by [`ShareRule::rest`], so that their sum is the budget, unless all layers are at their limit. A
    /// layer that no rank makes cheaper stays dense, as does one without a loss, and the plan says why.
    ///
    /// Convolutions with a spatial extent take `form`, linear layers and 1×1 convolutions become low-rank.
    ///
    /// **Grouped layers.** Here a rank is that of each group, and the budget counts it once. Published budgets may
    /// count all groups: for the grouped AlexNet of Astrid & Lee, Σ 750 is over ranks twice as large in conv2, conv4 and conv5 as
    /// a plan would have them.
    ///
    /// # Shapes
    /// `input`: `[C, H, W]`, without the batch axis.
    ///
    /// # Errors
    /// Unknown or already factorized layers; losses that are not finite; `size_share` outside 0…1;
    /// [`PlanError::RankBudget`] for a budget below 1 for each layer and what is fixed; fixed ranks that the layer
    /// cannot have; an input shape that the network cannot take.
    ///
    /// ```
    /// use std::collections::BTreeMap;
    /// use cp_net::{Form, arch};
    /// use cp_plan::{RankPlan, ShareBudgets, ShareRule};
    ///
    /// let arch = arch::by_name("small-cnn")?;
    /// let losses: BTreeMap<String, f64> =
    ///     [("conv2", 3.0), ("fc1", 1.5), ("fc2", 0.5)].map(|(name, loss)| (name.to_string(), loss)).into();
    /// let budgets = ShareBudgets { conv: 40, linear: 24 };
    /// let plan = RankPlan::from_losses(&arch, [1, 28, 28], Form::Cp3, &losses, &budgets, &ShareRule::LOSSES, &BTreeMap::new())?;
    /// assert_eq!(plan.rank("conv2"), Some(40.into()));
    /// assert_eq!(plan.rank("fc1"), Some(18.into()));
    /// assert_eq!(plan.rank("fc2"), Some(6.into()));
    /// assert_eq!(plan.dense[0].name, "conv1"); // nobody measured its loss
    /// # Ok::<(), cp_plan::PlanError>(())
    /// ```
    ///
    /// Reference: Astrid & Lee (2017), arXiv 1701.07148, for shares of the loss; SqVaD-NLA2024 for the share of the size.
    pub fn from_losses(
        arch: impl AsRef<Architecture>,
        input: impl InputShapes,
        form: Form,
        losses: &BTreeMap<String, f64>,
        budgets: &ShareBudgets,
        rule: &ShareRule,
        fixed: &BTreeMap<String, usize>,
    ) -> Result<Self, PlanError> {
        let arch = arch.as_ref();
        let ShareRule { size_share, probe_rank, rest } = *rule;
        if !(0.0..=1.0).contains(&size_share) {
            let expected = "a number from 0 to 1";
            return Err(PlanError::PlanOption { option: "size_share", got: size_share, expected });
        }
        for (name, &got) in losses {
            kernel_op(arch, name)?;
            if !got.is_finite() {
                let (layer, option, expected) = (name.clone(), "loss", "a finite number");
                return Err(PlanError::LayerOption { layer, option, got, expected });
            }
        }
        for name in fixed.keys() {
            kernel_op(arch, name)?;
        }

        let shapes = arch.shapes(input)?;
        let mut dense = Vec::new();
        let mut sharers = [Vec::new(), Vec::new()];
        let mut taken = [0; 2];
        let mut ranks: BTreeMap<String, (Form, usize, String)> = BTreeMap::new();
        for name in arch.compressible() {
            let op = kernel_op(arch, &name)?;
            let kind = usize::from(matches!(op, Op::Linear(_)));
            let suited = form.suited_to(op);
            if let Some(&rank) = fixed.get(&name) {
                taken[kind] += rank;
                let why = "fixed by request".to_string();
                ranks.insert(name, (suited.unwrap_or(form), rank, why)); // `check` says what does not fit
                continue;
            }
            let mut keep = |why: String| dense.push(DenseLayer { name: name.clone(), why });
            let Some(&loss) = losses.get(&name) else {
                keep("no loss was measured for it".into());
                continue;
            };
            let Some(form) = suited else {
                keep(format!("a {form} form does not fit it"));
                continue;
            };
            let whole = arch.dense_cost(&name, &shapes)?;
            let unit = arch.factors_cost(&name, form, Rank::One(1), &shapes)?;
            match whole.macs.saturating_sub(1) / unit.macs {
                0 => keep(format!(
                    "no rank needs fewer multiply-adds: break-even {:.2}",
                    whole.macs as f64 / unit.macs as f64
                )),
                most => {
                    let probed = Rank::One(probe_rank.clamp(1, most));
                    let size = probed_size(arch, &name, form, probed, &shapes)?;
                    let loss = loss.max(0.0);
                    sharers[kind].push(Sharer { name, form, loss, size, most });
                }
            }
        }

        for (kind, sharers) in sharers.iter().enumerate() {
            let (layers, budget) =
                [("convolutions", budgets.conv), ("linear layers", budgets.linear)][kind];
            if sharers.is_empty() {
                continue;
            }
            let least = taken[kind] + sharers.len();
            if budget < least {
                return Err(PlanError::RankBudget { layers, budget, least });
            }
            let shares = shares(sharers, size_share);
            let most: Vec<usize> = sharers.iter().map(|sharer| sharer.most).collect();
            let found = apportion(&shares, &most, budget - taken[kind], rest);
            for ((sharer, share), rank) in sharers.iter().zip(&shares).zip(found) {
                let limit = if rank == sharer.most { ", all that is below break-even" } else { "" };
                let why = format!(
                    "loss {:.4}, {:.1} % of the {layers}' {budget}{limit}",
                    sharer.loss,
                    100.0 * share
                );
                ranks.insert(sharer.name.clone(), (sharer.form, rank, why));
            }
        }

        let order = arch.compressible().into_iter();
        let layers = order.filter_map(|name| {
            let (form, rank, why) = ranks.remove(&name)?;
            Some(PlannedLayer { name, form, rank: rank.into(), why })
        });
        let plan = Self { layers: layers.collect(), dense };
        plan.check(arch)?;
        Ok(plan)
    }
}

/// The op of a layer that can be factorized.
fn kernel_op<'a>(arch: &'a Architecture, layer: &str) -> Result<&'a Op, PlanError> {
    let op = plannable(arch, layer)?;
    if op.has_kernel() {
        Ok(op)
    } else {
        Err(PlanError::PlanLayer { layer: layer.into(), op: op.kind() })
    }
}

/// Parameters of a layer in `form` at `rank`, with its bias, which the cost of the factors leaves out.
fn probed_size(
    arch: &Architecture,
    layer: &str,
    form: Form,
    rank: Rank,
    shapes: &Shapes,
) -> Result<usize, PlanError> {
    let factors = arch.factors_cost(layer, form, rank, shapes)?.params;
    let specs = arch.node(layer)?.param_specs();
    let biases = specs.filter(|(_, spec)| spec.role == ParamRole::Bias);
    Ok(factors + biases.map(|(_, spec)| spec.shape.iter().product::<usize>()).sum::<usize>())
}

/// (1 − λ) lossᵢ / Σ loss + λ sizeᵢ / Σ size.
fn shares(sharers: &[Sharer], size_share: f64) -> Vec<f64> {
    let losses: f64 = sharers.iter().map(|sharer| sharer.loss).sum();
    let sizes: f64 = sharers.iter().map(|sharer| sharer.size as f64).sum();
    let equal = 1.0 / sharers.len() as f64;
    let share = |sharer: &Sharer| {
        let loss = if losses > 0.0 { sharer.loss / losses } else { equal };
        (1.0 - size_share) * loss + size_share * sharer.size as f64 / sizes
    };
    sharers.iter().map(share).collect()
}

/// Whole numbers from 1 to `most` in proportion to the shares, with the sum `budget` or, where that is more than all can take, at
/// their limits. `budget` is at least 1 for each.
fn apportion(shares: &[f64], most: &[usize], budget: usize, rest: Rest) -> Vec<usize> {
    let quotas = quotas(shares, most, budget);
    let mut ranks: Vec<usize> = quotas.iter().map(|quota| quota.floor() as usize).collect();
    let mut left = budget.min(most.iter().sum()).saturating_sub(ranks.iter().sum());
    let lost = |index: &usize| quotas[*index] - quotas[*index].floor();
    let mut order: Vec<usize> = (0..ranks.len()).collect();
    if rest == Rest::Largest {
        order.sort_by(|a, b| lost(b).total_cmp(&lost(a)));
    }
    // A sum of quotas may miss a whole number by a rounding error, so that once round is not always enough.
    for index in order.into_iter().cycle().take(2 * ranks.len()) {
        if left > 0 && ranks[index] < most[index] {
            ranks[index] += 1;
            left -= 1;
        }
    }
    ranks
}

/// Numbers from 1 to `most` in proportion to the shares as far as these limits allow, with the sum `budget`.
fn quotas(shares: &[f64], most: &[usize], budget: usize) -> Vec<f64> {
    let mut quotas = vec![1.0; shares.len()];
    let mut free: Vec<usize> = (0..shares.len()).collect();
    let limits = |index: usize| (1.0, most[index] as f64);
    let mut shares = shares.to_vec();
    loop {
        // Those without a share take, in equal parts, what the others cannot.
        if free.iter().all(|&index| shares[index] <= 0.0) {
            free.iter().for_each(|&index| shares[index] = 1.0);
        }
        let settled: f64 = (0..shares.len())
            .filter(|index| !free.contains(index))
            .map(|index| quotas[index])
            .sum();
        let sum: f64 = free.iter().map(|&index| shares[index]).sum();
        let room = budget as f64 - settled;
        for &index in &free {
            quotas[index] = room * shares[index] / sum;
        }
        // By how much the quotas are below 1 and above the limit, in all: the larger side is settled first, for the other may
        // come right by it.
        let (mut below, mut above) = (0.0, 0.0);
        for &index in &free {
            let (least, most) = limits(index);
            below += (least - quotas[index]).max(0.0);
            above += (quotas[index] - most).max(0.0);
        }
        let before = free.len();
        free.retain(|&index| {
            let (least, most) = limits(index);
            let out = if above >= below { quotas[index] > most } else { quotas[index] < least };
            if out {
                quotas[index] = quotas[index].clamp(least, most);
            }
            !out
        });
        if free.is_empty() {
            // All are at a limit; with something left over, those at the lower one are the ones without a share.
            let total: f64 = quotas.iter().sum();
            free = (0..quotas.len()).filter(|&index| quotas[index] < limits(index).1).collect();
            if total >= budget as f64 || free.is_empty() {
                return quotas;
            }
        } else if free.len() == before {
            return quotas;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shares: &[f64], most: &[usize], budget: usize, expect: &[usize]) {
        let found = apportion(shares, most, budget, Rest::Largest);
        assert_eq!(found, expect, "{shares:?} up to {most:?} of {budget}");
    }

    #[test]
    fn sums_are_exact() {
        check(&[1.0, 1.0, 1.0], &[99; 3], 10, &[4, 3, 3]);
        check(&[0.5, 0.3, 0.2], &[99; 3], 10, &[5, 3, 2]);
        check(&[0.98, 0.01, 0.01], &[99; 3], 10, &[8, 1, 1]);
        check(&[1.0, 0.0, 0.0], &[99; 3], 10, &[8, 1, 1]);
        check(&[1.0, 0.0, 0.0], &[4, 99, 99], 10, &[4, 3, 3]);
        check(&[0.8, 0.1, 0.1], &[4, 99, 99], 10, &[4, 3, 3]);
        check(&[0.8, 0.15, 0.05], &[4, 5, 99], 20, &[4, 5, 11]);
        check(&[0.6, 0.2, 0.2], &[3, 2, 2], 10, &[3, 2, 2]);
        check(&[0.5, 0.5], &[1, 1], 2, &[1, 1]);
        check(&[1.0], &[7], 5, &[5]);
    }

    /// By hand: 0.9 · 12 is above 8, and 0.02 · 12 below 1; with 8 and 1 settled the other has 3.
    #[test]
    fn both_limits_at_once() {
        check(&[0.9, 0.08, 0.02], &[8, 99, 99], 12, &[8, 3, 1]);
    }

    /// Ranks of layers without limits, as the sources have none.
    fn unlimited(losses: &[f64], sizes: &[usize], rule: &ShareRule, budget: usize) -> Vec<usize> {
        let sharer = |(&loss, &size): (&f64, &usize)| Sharer {
            name: String::new(),
            form: Form::Cp4,
            loss,
            size,
            most: usize::MAX,
        };
        let sharers: Vec<Sharer> = losses.iter().zip(sizes).map(sharer).collect();
        let most = vec![usize::MAX / 16; losses.len()];
        apportion(&shares(&sharers, rule.size_share), &most, budget, rule.rest)
    }

    /// Astrid & Lee's ranks differ by at most 1 from largest remainders, by 2 from the other rule: they print 178 where the share is 176.96,
    /// and losses of two digits.
    #[test]
    fn published_ranks() {
        let check = |losses: &[f64], budget: usize, expect: &[usize]| {
            let found = unlimited(losses, &vec![1; losses.len()], &ShareRule::LOSSES, budget);
            assert_eq!(found.iter().sum::<usize>(), budget);
            for (got, expect) in found.iter().zip(expect) {
                assert!(got.abs_diff(*expect) <= 1, "{found:?} {expect:?}");
            }
        };
        check(&[5.38, 11.89, 11.86, 13.68, 15.17], 750, &[69, 154, 153, 178, 196]);
        check(&[28.69, 21.50, 20.31], 900, &[365, 275, 260]);
    }

    #[derive(serde::Deserialize)]
    struct Printed {
        conv_probe_sizes: Vec<usize>,
        fc_probe_sizes: Vec<usize>,
        layers: Vec<String>,
        runs: Vec<Run>,
    }

    #[derive(serde::Deserialize)]
    struct Run {
        conv_budget: usize,
        fc_budget: usize,
        size_share: f64,
        conv_losses: Vec<f64>,
        fc_losses: Vec<f64>,
        printed_conv_ranks: Vec<usize>,
        printed_fc_ranks: Vec<usize>,
    }

    /// Seven allocations that SqVaD's program printed, from losses of two digits: 54 of 56 ranks are equal, two are within 1. They stand in
    /// `shared/golden` beside the workspace, or where `POLYAD_GOLDEN` says; without them the test is skipped.
    #[test]
    fn ranks_that_sqvad_prints() {
        let beside =
            || std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden");
        let folder = std::env::var_os("POLYAD_GOLDEN").map_or_else(beside, Into::into);
        if !folder.is_dir() {
            println!("skipped: no golden data at {}", folder.display());
            return;
        }
        let text = std::fs::read_to_string(folder.join("rank-allocation-sqvad.json")).unwrap();
        let printed: Printed = serde_json::from_str(&text).unwrap();
        let arch = cp_net::arch::by_name("alexnet").unwrap();
        let shapes = arch.shapes([3, 224, 224]).unwrap();
        let sizes = [printed.conv_probe_sizes, printed.fc_probe_sizes].concat();
        for (layer, &size) in printed.layers.iter().zip(&sizes) {
            let form = Form::Cp4.suited_to(kernel_op(&arch, layer).unwrap()).unwrap();
            let found = probed_size(&arch, layer, form, Rank::One(5), &shapes).unwrap();
            assert_eq!(found, size, "{layer}");
        }
        let (mut equal, mut count) = (0, 0);
        let (convs, linears) = sizes.split_at(5);
        for run in &printed.runs {
            let rule = ShareRule::sqvad(run.size_share);
            let mut check = |losses: &[f64], sizes: &[usize], budget, expect: &[usize]| {
                let found = unlimited(losses, sizes, &rule, budget);
                assert_eq!(found.iter().sum::<usize>(), budget);
                for (got, expect) in found.iter().zip(expect) {
                    assert!(got.abs_diff(*expect) <= 1, "{found:?} {expect:?}");
                    equal += usize::from(got == expect);
                    count += 1;
                }
            };
            check(&run.conv_losses, convs, run.conv_budget, &run.printed_conv_ranks);
            check(&run.fc_losses, linears, run.fc_budget, &run.printed_fc_ranks);
        }
        assert_eq!((equal, count), (54, 56));
    }
}
