//! Rank plans from one number for the whole network.

use cp_net::{Architecture, Form, InputShapes, Op, Rank, Shapes};

use super::budget::Budget;
use super::ladder::Ladder;
use super::{DenseLayer, PlannedLayer, RankPlan};
use crate::error::PlanError;

/// A layer with less than this share of what the budget counts stays dense: its error would cost accuracy and gain
/// nothing.
const NEGLIGIBLE_SHARE: f64 = 0.001;

/// The same for the last layer, whose rank limits how many classes the network can tell apart.
const NEGLIGIBLE_HEAD_SHARE: f64 = 0.01;

/// A layer that a rank is sought for.
struct UniformLayer {
    name: String,
    form: Form,
    /// Dense weights, in the budget's quantity.
    dense: usize,
    /// What the form costs whatever its rank.
    base: usize,
    /// What each rank costs.
    unit: usize,
    /// The largest rank at which the layer is smaller than dense.
    max: usize,
}

impl UniformLayer {
    fn breakeven(&self) -> f64 {
        (self.dense as f64 - self.base as f64) / self.unit as f64
    }

    fn rank_at(&self, ratio: f64) -> usize {
        ((ratio * self.breakeven()).floor() as usize).clamp(1, self.max)
    }
}

impl RankPlan {
    /// The plan that brings the network to `budget` with one ratio of rank to break-even rank for all layers.
    ///
    /// Convolutions with a spatial extent take `form`, linear layers and 1×1 convolutions become low-rank. The ratio is the
    /// largest at which compressed / dense does not exceed the budget; the ranks that it cuts off most are then rounded
    /// up as far as the budget goes. Layers that no rank makes smaller, or that hold a negligible share (0.1 %; 1 % for the
    /// last layer) of what the budget counts, stay dense, and the plan says why.
    ///
    /// # Shapes
    /// `input`: `[C, H, W]`, without the batch axis.
    ///
    /// # Errors
    /// [`PlanError::BudgetRange`] for a budget outside (0, 1], [`PlanError::BudgetUnreachable`] with the nearest ratio that
    /// ranks of at least 1 reach, [`PlanError::BudgetUnmeasured`] for a budget in seconds, and an input shape that the
    /// network cannot take.
    pub fn uniform(
        arch: impl AsRef<Architecture>,
        input: impl InputShapes,
        budget: Budget,
        form: Form,
    ) -> Result<Self, PlanError> {
        let layers = arch.as_ref().compressible();
        Self::uniform_among(arch, input, budget, form, &layers)
    }

    /// As [`RankPlan::uniform`], with ranks for the given layers only; all others stay as they are.
    ///
    /// # Errors
    /// As [`RankPlan::uniform`], and for unknown or already factorized layers.
    pub fn uniform_among(
        arch: impl AsRef<Architecture>,
        input: impl InputShapes,
        budget: Budget,
        form: Form,
        layers: &[String],
    ) -> Result<Self, PlanError> {
        let (arch, asked) = (arch.as_ref(), budget.ratio()?);
        let total = budget.counted()?(&arch.cost(&input)?.total);
        let shapes = arch.shapes(&input)?;
        let (candidates, dense) = candidates(arch, &shapes, budget, form, layers, total)?;
        let fixed = total - candidates.iter().map(|layer| layer.dense).sum::<usize>();
        let cost = |ranks: &[usize]| {
            fixed
                + candidates
                    .iter()
                    .zip(ranks)
                    .map(|(c, rank)| c.base + c.unit * rank)
                    .sum::<usize>()
        };
        let at = |ratio: f64| -> Vec<usize> {
            candidates.iter().map(|layer| layer.rank_at(ratio)).collect()
        };
        let target = (asked * total as f64).floor() as usize;

        let least = cost(&at(0.0));
        if least > target {
            let nearest = least as f64 / total as f64;
            return Err(PlanError::BudgetUnreachable {
                quantity: budget.quantity(),
                asked,
                nearest,
            });
        }
        // The cost is a step function that never falls: halve the interval down to the precision of f64.
        let (mut low, mut high) = (0.0, 1.0);
        if cost(&at(high)) <= target {
            low = high;
        }
        while high - low > f64::EPSILON {
            let middle = 0.5 * (low + high);
            if cost(&at(middle)) <= target { low = middle } else { high = middle }
        }
        let mut ranks = at(low);
        // One step of the ratio may move many equal layers at once; what is left of the budget goes to single layers.
        let cut_off = |index: &usize| {
            let exact = low * candidates[*index].breakeven();
            exact - exact.floor()
        };
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by(|a, b| cut_off(b).total_cmp(&cut_off(a)).then(a.cmp(b)));
        for index in order {
            ranks[index] += 1;
            if ranks[index] > candidates[index].max || cost(&ranks) > target {
                ranks[index] -= 1;
            }
        }

        let planned = candidates.iter().zip(ranks).map(|(layer, rank)| PlannedLayer {
            name: layer.name.clone(),
            form: layer.form,
            rank: rank.into(),
            why: format!(
                "{:.3} of break-even {:.1} in {}",
                rank as f64 / layer.breakeven(),
                layer.breakeven(),
                budget.quantity()
            ),
        });
        Ok(Self { layers: planned.collect(), dense })
    }

    /// The plan with rank ⌊`ratio` · ⌊break-even in parameters⌋⌋, and at least 1, for every convolution with a spatial
    /// extent; 1×1 convolutions and linear layers stay dense. This is how the transfer-learning experiments of
    /// SqVaD-NLA2024 choose their ranks.
    ///
    /// # Errors
    /// [`PlanError::BudgetRange`] for a ratio outside (0, 1], [`NetError::FormMismatch`](cp_net::NetError::FormMismatch) for low-rank.
    pub fn at_breakeven_ratio(
        arch: impl AsRef<Architecture>,
        form: Form,
        ratio: f64,
    ) -> Result<Self, PlanError> {
        let arch = arch.as_ref();
        if !(ratio > 0.0 && ratio <= 1.0) {
            return Err(PlanError::BudgetRange { got: ratio });
        }
        let mut plan = Self::default();
        for name in arch.compressible() {
            match &arch.node(&name)?.op {
                Op::Conv(conv) if !conv.is_pointwise() => {
                    let even = arch.breakeven(&name, form, arch.input_shapes())?.params.floor();
                    if even < 1.0 {
                        plan.dense
                            .push(DenseLayer { name, why: "no rank makes it smaller".into() });
                        continue;
                    }
                    let rank = ((ratio * even).floor() as usize).max(1);
                    plan = plan.with(&name, form, rank, &format!("{ratio} of break-even {even}"));
                }
                _ => plan.dense.push(DenseLayer { name, why: "no spatial extent".into() }),
            }
        }
        Ok(plan)
    }
}

/// The layers that ranks are sought for, and those that stay dense.
fn candidates(
    arch: &Architecture,
    shapes: &Shapes,
    budget: Budget,
    form: Form,
    layers: &[String],
    total: usize,
) -> Result<(Vec<UniformLayer>, Vec<DenseLayer>), PlanError> {
    let counted = budget.counted()?;
    let head = arch.compressible().pop();
    let (mut candidates, mut dense) = (Vec::new(), Vec::new());
    for name in layers {
        let node = arch.node(name)?;
        let mut keep = |why: String| dense.push(DenseLayer { name: name.clone(), why });
        let Some(form) = form.suited_to(&node.op) else {
            if !node.op.has_kernel() {
                return Err(PlanError::PlanLayer { layer: name.clone(), op: node.op.kind() });
            }
            keep(format!("a {form} form does not fit it"));
            continue;
        };
        let weights = counted(&arch.dense_cost(name, shapes)?);
        let base = counted(&arch.base_cost(name, form, shapes)?);
        let unit = counted(&arch.factors_cost(name, form, Rank::One(1), shapes)?) - base;
        let share = weights as f64 / total as f64;
        let negligible =
            if head.as_ref() == Some(name) { NEGLIGIBLE_HEAD_SHARE } else { NEGLIGIBLE_SHARE };
        // Strictly smaller: base + unit · rank ≤ dense − 1. With padding, multiply-adds may allow more than the form has.
        let most = Ladder::new(arch, name, form, shapes)?.map_or(0, |ladder| ladder.len());
        let max = (weights.saturating_sub(1 + base) / unit).min(most);
        if max == 0 {
            keep(format!(
                "no rank makes it smaller: break-even {:.2}",
                weights as f64 / unit as f64
            ));
        } else if share < negligible {
            keep(format!("holds {:.3} % of the {}", 100.0 * share, budget.quantity()));
        } else {
            candidates.push(UniformLayer {
                name: name.clone(),
                form,
                dense: weights,
                base,
                unit,
                max,
            });
        }
    }
    Ok((candidates, dense))
}
