//! [`Profile::plan`]: the forms and ranks that lose least within a budget.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::profile::{Choice, LayerProfile, Profile};
use super::{Budget, DenseLayer, PlannedLayer, RankPlan};
use crate::cost::Totals;
use crate::error::NetError;
use crate::factorize::Form;
use crate::rank::Rank;

/// What a plan minimises within its budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Objective {
    /// Σ wₗ eₗ² over the layers' relative errors, wₗ = 1 for layers that are not named.
    SumOfSquares {
        /// wₗ, at least 0: what the network suffers per squared error of the layer.
        weights: BTreeMap<String, f64>,
    },
    /// The largest eₗ: all layers about equally wrong (ALDS: Liebenwein et al. 2021, arXiv 2107.11442, §3).
    MaxError,
}

impl Default for Objective {
    /// The sum of squares, all layers alike.
    fn default() -> Self {
        Objective::SumOfSquares { weights: BTreeMap::new() }
    }
}

/// What is settled before the plan is made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlanOptions {
    /// Layers whose form and rank are given.
    pub fixed: BTreeMap<String, (Form, Rank)>,
    /// Layers that stay dense.
    pub dense: BTreeSet<String>,
    /// Leave out what was measured to be no faster than the dense layer.
    pub never_slower: bool,
    /// Leave out what has a larger error.
    pub max_error: Option<f64>,
}

/// A layer and what it may become, in the budget's quantity.
struct Item<'a> {
    layer: &'a LayerProfile,
    dense_cost: f64,
    /// Cheapest first, each of less damage than the one before; the last is dense, without damage.
    options: Vec<Way<'a>>,
    /// Why there is nothing but dense.
    why: String,
    chosen: usize,
}

/// One of an item's options; `None` for dense.
struct Way<'a> {
    choice: Option<&'a Choice>,
    cost: f64,
    damage: f64,
}

impl Profile {
    /// The plan of the least damage for `budget`.
    ///
    /// Every layer has its forms and ranks and dense to choose from, but only what is cheaper than dense in the quantity of the
    /// budget. Upgrades from each layer's cheapest option are taken in the order of damage undone per cost, along the lower
    /// convex hull of each layer's options, which is the optimum of the Lagrangian; what is left of the budget goes to the
    /// single steps that undo most. Layers that end dense have the reason in the plan.
    ///
    /// # Errors
    /// [`NetError::BudgetRange`], [`NetError::BudgetUnreachable`] with the nearest ratio that can be reached,
    /// [`NetError::NoSeconds`] for a latency where none was measured, unknown layers in `options`.
    ///
    /// ```
    /// use cp_net::{Budget, Decomposer, Objective, PlanOptions, Profile, ProfileOptions, arch};
    ///
    /// let net = arch::by_name("small-cnn")?.initialize(1)?;
    /// let options = ProfileOptions { points: 4, ..ProfileOptions::default() };
    /// let quick = Decomposer::als(5, 1);
    /// let profile = Profile::measure(&net, [1, 28, 28], None, &options, &quick, &|_| {})?;
    /// let plan = profile.plan(Budget::Macs(0.4), &Objective::default(), &PlanOptions::default())?;
    /// let (dense, planned) = (net.cost([1, 28, 28])?.total, plan.cost(&net, [1, 28, 28])?.total);
    /// assert!(planned.macs as f64 <= 0.4 * dense.macs as f64);
    /// # Ok::<(), cp_net::NetError>(())
    /// ```
    pub fn plan(
        &self,
        budget: Budget,
        objective: &Objective,
        options: &PlanOptions,
    ) -> Result<RankPlan, NetError> {
        let asked = budget.ratio();
        if !(asked > 0.0 && asked <= 1.0) {
            return Err(NetError::BudgetRange { got: asked });
        }
        self.check_names(options)?;
        let whole = match budget {
            Budget::Latency(_) => self.dense_seconds.ok_or(NetError::NoSeconds)?,
            _ => budget.of(self.dense) as f64,
        };
        let mut items = Vec::new();
        let (mut layers, mut spent) = (BTreeMap::new(), 0.0);
        for layer in &self.layers {
            let item = item(layer, budget, objective, options)?;
            spent += item.dense_cost;
            if let Some((form, rank)) = options.fixed.get(&layer.layer) {
                let choice = layer
                    .choices
                    .iter()
                    .find(|choice| (choice.form, choice.rank) == (*form, *rank))
                    .ok_or_else(|| NetError::NotProfiled {
                        layer: layer.layer.clone(),
                        form: *form,
                        rank: *rank,
                    })?;
                let cost = quantity(budget, choice.cost, choice.seconds)?;
                layers.insert(layer.layer.clone(), (*form, *rank, "given".to_owned()));
                items.push(Item { options: vec![Way { choice: None, cost, damage: 0.0 }], ..item });
            } else {
                items.push(item);
            }
        }
        // Everything that no layer of the profile accounts for.
        let fixed = whole - spent;
        let target = asked * whole - fixed;
        let total = |items: &[Item<'_>]| -> f64 {
            items.iter().map(|item| item.options[item.chosen].cost).sum()
        };
        let least = total(&items);
        // Sums of many terms in another order: a relative slack of 1e-12 is rounding, not budget.
        if least > target + 1e-12 * whole {
            return Err(NetError::BudgetUnreachable {
                quantity: budget.quantity(),
                asked,
                nearest: (least + fixed) / whole,
            });
        }
        match objective {
            Objective::SumOfSquares { .. } => along_hulls(&mut items, target),
            Objective::MaxError => equal_errors(&mut items, target),
        }
        fill(&mut items, target, matches!(objective, Objective::MaxError));

        let mut plan = RankPlan::default();
        for item in items {
            let name = item.layer.layer.clone();
            if let Some((form, rank, why)) = layers.remove(&name) {
                plan.layers.push(PlannedLayer { name, form, rank, why });
                continue;
            }
            match item.options[item.chosen].choice {
                Some(choice) => {
                    let share = item.options[item.chosen].cost / item.dense_cost;
                    plan.layers.push(PlannedLayer {
                        name,
                        form: choice.form,
                        rank: choice.rank,
                        why: format!(
                            "error {:.3}, {share:.3} of the dense layer's {}",
                            choice.error(),
                            budget.quantity()
                        ),
                    });
                }
                None => {
                    let why = if item.options.len() > 1 {
                        "its error would cost more than it saves".into()
                    } else {
                        item.why
                    };
                    plan.dense.push(DenseLayer { name, why });
                }
            }
        }
        Ok(plan)
    }

    /// The plan in which no layer has a larger relative error than `most`: of every layer the form and rank of the fewest
    /// multiply-adds within it, dense where none is.
    ///
    /// # Errors
    /// Unknown layers in `options`.
    pub fn plan_within(&self, most: f64, options: &PlanOptions) -> Result<RankPlan, NetError> {
        self.check_names(options)?;
        let options = PlanOptions { max_error: Some(most), ..options.clone() };
        let budget = Budget::Macs(1.0);
        let mut plan = RankPlan::default();
        for layer in &self.layers {
            let name = layer.layer.clone();
            if let Some((form, rank)) = options.fixed.get(&name) {
                plan = plan.with(&name, *form, *rank, "given");
                continue;
            }
            let item = item(layer, budget, &Objective::default(), &options)?;
            match item.options.first().and_then(|way| way.choice) {
                Some(choice) => {
                    let why = format!("error {:.3}, at most {most}", choice.error());
                    plan = plan.with(&name, choice.form, choice.rank, &why);
                }
                None => plan.dense.push(DenseLayer { name, why: item.why }),
            }
        }
        Ok(plan)
    }

    fn check_names(&self, options: &PlanOptions) -> Result<(), NetError> {
        for name in options.fixed.keys().chain(&options.dense) {
            if self.layer(name).is_none() {
                let known = self.layers.iter().map(|layer| layer.layer.clone()).collect();
                return Err(NetError::UnknownLayer { name: name.clone(), known });
            }
        }
        Ok(())
    }
}

/// A cost in the quantity of the budget.
fn quantity(budget: Budget, cost: Totals, seconds: Option<f64>) -> Result<f64, NetError> {
    match budget {
        Budget::Latency(_) => seconds.ok_or(NetError::NoSeconds),
        _ => Ok(budget.of(cost) as f64),
    }
}

/// The options of one layer: those that no other beats in both cost and damage.
fn item<'a>(
    layer: &'a LayerProfile,
    budget: Budget,
    objective: &Objective,
    options: &PlanOptions,
) -> Result<Item<'a>, NetError> {
    let dense_cost = quantity(budget, layer.dense, layer.dense_seconds)?;
    let weight = match objective {
        Objective::SumOfSquares { weights } => {
            weights.get(&layer.layer).copied().unwrap_or(1.0).max(0.0)
        }
        Objective::MaxError => 1.0,
    };
    let mut why = "no rank makes it smaller".to_owned();
    let mut found = Vec::new();
    let mut fastest: Option<(&Choice, f64)> = None;
    for choice in &layer.choices {
        let cost = quantity(budget, choice.cost, choice.seconds)?;
        if let (Some(seconds), Some(dense)) = (choice.seconds, layer.dense_seconds) {
            let share = seconds / dense;
            if fastest.is_none_or(|(_, other)| share < other) {
                fastest = Some((choice, share));
            }
            if options.never_slower && seconds >= dense {
                continue;
            }
        }
        if cost >= dense_cost {
            continue;
        }
        if options.max_error.is_some_and(|most| choice.error() > most) {
            why = "every smaller form has too large an error".into();
            continue;
        }
        let error = choice.error();
        found.push(Way { choice: Some(choice), cost, damage: weight * error * error });
    }
    if let (true, Some((choice, share))) = (found.is_empty(), fastest)
        && share >= 1.0
    {
        why = format!(
            "no form is faster: {} at rank {} takes {share:.2} of the dense time",
            choice.form, choice.rank
        );
    }
    if options.dense.contains(&layer.layer) {
        found.clear();
        why = "kept dense by request".into();
    }
    found.push(Way { choice: None, cost: dense_cost, damage: 0.0 });
    // Rising cost; of equal cost the least damage first. What is dearer must lose less.
    found.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.damage.total_cmp(&b.damage)));
    let mut lowest = f64::INFINITY;
    found.retain(|option| {
        let keeps = option.damage < lowest || option.choice.is_none();
        lowest = lowest.min(option.damage);
        keeps
    });
    Ok(Item { layer, dense_cost, options: found, why, chosen: 0 })
}

/// Upgrades along the lower convex hull of every layer's options, those that undo most per cost first, as long as they fit.
fn along_hulls(items: &mut [Item<'_>], target: f64) {
    let mut steps: Vec<(f64, usize, usize)> = Vec::new(); // damage undone per cost, item, option
    for (index, item) in items.iter().enumerate() {
        let mut at = 0;
        while at + 1 < item.options.len() {
            let slope = |to: usize| {
                let (from, to) = (&item.options[at], &item.options[to]);
                (from.damage - to.damage) / (to.cost - from.cost).max(f64::MIN_POSITIVE)
            };
            let mut next = at + 1;
            for to in at + 2..item.options.len() {
                if slope(to) > slope(next) {
                    next = to;
                }
            }
            steps.push((slope(next), index, next));
            at = next;
        }
    }
    // Stable: equal slopes in the order of the layers. Within a layer slopes fall, so its steps stay in order.
    steps.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut cost: f64 = items.iter().map(|item| item.options[item.chosen].cost).sum();
    for (_, index, to) in steps {
        let item = &mut items[index];
        let more = item.options[to].cost - item.options[item.chosen].cost;
        if cost + more <= target {
            cost += more;
            item.chosen = to;
        } else {
            break;
        }
    }
}

/// The smallest bound on all errors that the budget allows, every layer at its cheapest option within it.
fn equal_errors(items: &mut [Item<'_>], target: f64) {
    let at = |item: &Item<'_>, bound: f64| {
        // Damage falls along the options, and dense has none.
        item.options
            .iter()
            .position(|option| option.damage <= bound)
            .unwrap_or(item.options.len() - 1)
    };
    let mut bounds: Vec<f64> =
        items.iter().flat_map(|item| item.options.iter().map(|option| option.damage)).collect();
    bounds.sort_by(f64::total_cmp);
    let cost =
        |bound: f64| -> f64 { items.iter().map(|item| item.options[at(item, bound)].cost).sum() };
    // The cost never rises with the bound.
    let first = bounds.partition_point(|&bound| cost(bound) > target);
    let Some(&bound) = bounds.get(first) else { return };
    let chosen: Vec<usize> = items.iter().map(|item| at(item, bound)).collect();
    items.iter_mut().zip(chosen).for_each(|(item, chosen)| item.chosen = chosen);
}

/// Single steps within what is left: those that undo most, or for equal errors those of the most wrong layer.
fn fill(items: &mut [Item<'_>], target: f64, most_wrong: bool) {
    loop {
        let spent: f64 = items.iter().map(|item| item.options[item.chosen].cost).sum();
        let mut best: Option<(f64, usize, usize)> = None;
        for (index, item) in items.iter().enumerate() {
            let now = &item.options[item.chosen];
            for (to, option) in item.options.iter().enumerate().skip(item.chosen + 1) {
                if spent - now.cost + option.cost > target || option.damage >= now.damage {
                    continue;
                }
                let gain = if most_wrong { now.damage } else { now.damage - option.damage };
                // Of one layer, the cheapest step that helps most.
                if best.is_none_or(|(other, at, _)| gain > other && !(most_wrong && at == index)) {
                    best = Some((gain, index, to));
                }
            }
        }
        let Some((_, index, to)) = best else { return };
        items[index].chosen = to;
    }
}
