//! The plan for a budget from a [`Profile`]: which form and rank each layer gets.

use std::collections::{BTreeMap, BTreeSet};

use cp_net::{Form, NetError, Rank, Totals};

use super::budget::Budget;
use super::knapsack::{Candidate, LayerState, least_largest, least_sum};
use super::ladder::Ladder;
use super::profile::{Choice, LayerProfile, Profile};
use super::{DenseLayer, PlannedLayer, RankPlan};
use crate::error::PlanError;

/// What a plan makes small while it keeps the budget.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Objective {
    /// The largest error of any layer (ALDS, Liebenwein et al. 2021): no layer is the bottleneck.
    MaxError,
    /// Σ w e² over the layers: with weights that tell how much the network suffers from the error of a layer, the better choice.
    SumOfSquares {
        /// w of each layer, at least 0; 1 where it is missing.
        weights: BTreeMap<String, f64>,
    },
}

impl Default for Objective {
    /// The sum of squares, all layers alike.
    fn default() -> Self {
        Objective::SumOfSquares { weights: BTreeMap::new() }
    }
}

/// What a plan has to keep to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlanOptions {
    /// Layers whose form and rank are given, larger than dense or not. A rank that the profile does not hold must belong to a form
    /// with one number, of which other ranks were measured: its cost and error are taken from them.
    pub fixed: BTreeMap<String, (Form, Rank)>,
    /// Layers that stay dense.
    pub dense: BTreeSet<String>,
    /// Nothing that takes as long as the dense layer, or longer. Needs a profile with seconds.
    pub never_slower: bool,
    /// The largest error that a layer may have, except those in `fixed`.
    pub max_error: Option<f64>,
    /// Spend what is left of a budget in parameters or multiply-adds on ranks between the measured ones, multiples of this number,
    /// of forms with one number. Their cost is exact, their error interpolated.
    pub fill: Option<usize>,
}

/// What a profile says of a plan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predicted {
    /// Cost of the whole network.
    pub total: Totals,
    /// Seconds of the whole network for a batch: those of the dense network less what each layer saves. `None` where some are
    /// missing.
    pub seconds: Option<f64>,
    /// The largest error of a layer.
    pub max_error: f64,
    /// Σ e² over the layers.
    pub sum_of_squares: f64,
}

impl Profile {
    /// The plan that keeps `budget` and makes `objective` small.
    ///
    /// A layer stays dense or takes one of its choices that cost less than dense in what the budget counts. Every layer of the
    /// profile is in the plan, among those that stay dense with the reason.
    ///
    /// **[`Objective::MaxError`]**: the smallest ε for which the cheapest ways with errors of at most ε fit the budget (by bisection
    /// over the errors that occur); then, as long as something fits, the layer of largest error goes on to its next smaller
    /// one. No plan of this profile that keeps the budget has a smaller largest error.
    ///
    /// **[`Objective::SumOfSquares`]**: min Σ w e² + μ · cost for the smallest multiplier μ that keeps the budget, which picks from
    /// the lower convex hull of (cost, w e²) of every layer; what is left of the budget goes to single layers, most damage
    /// taken away for its cost first. The sum is within one step of the hull of the least there is.
    ///
    /// More budget never makes the objective larger.
    ///
    /// # Seconds
    /// For [`Budget::Latency`] a network takes `dense_seconds` − Σ (`dense_seconds` − `seconds`) over its factorized layers.
    ///
    /// # Errors
    /// [`PlanError::BudgetRange`] for a budget outside (0, 1]; [`PlanError::BudgetUnreachable`] with the nearest that can be reached;
    /// [`PlanError::SecondsMissing`] where seconds count; [`NetError::UnknownLayer`] for names that the profile has not,
    /// [`PlanError::PlanDuplicate`] for a layer both dense and fixed, [`PlanError::NotMeasured`] for fixed ranks that the profile cannot
    /// tell about; weights and errors that are negative or not finite.
    ///
    /// ```
    /// use cp_net::{Form, arch};
    /// use cp_plan::{Budget, Decomposer, Objective, PlanOptions, Profile, ProfileOptions};
    ///
    /// let net = arch::by_name("small-cnn")?.initialize(1)?;
    /// let options = ProfileOptions { forms: vec![Form::Cp3], points: 5, ..ProfileOptions::default() };
    /// let profile = Profile::measure(&net, [1, 28, 28], None, &options, &Decomposer::als(5, 2), &|_line| {})?;
    /// // The head is dear: an error there counts a hundred times.
    /// let objective = Objective::SumOfSquares { weights: [("fc2".to_string(), 100.0)].into() };
    /// let options = PlanOptions { dense: ["conv1".to_string()].into(), ..PlanOptions::default() };
    /// let plan = profile.plan(Budget::Params(0.25), &objective, &options)?;
    /// assert!(4 * profile.predict(&plan)?.total.params <= profile.dense.params);
    /// assert_eq!(plan.dense[0].why, "kept dense by request");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Reference: Liebenwein et al. (2021), arXiv 2107.11442 (ALDS); Kellerer, Pferschy & Pisinger (2004), "Knapsack problems", ch. 11
    /// (the multiple-choice knapsack problem, its convex hulls and greedy algorithm).
    pub fn plan(
        &self,
        budget: Budget,
        objective: &Objective,
        options: &PlanOptions,
    ) -> Result<RankPlan, PlanError> {
        let asked = budget.ratio()?;
        let total = self.whole(budget)?;
        self.assemble(budget, objective, options, |candidates, fixed_cost| {
            // Counts are exact in f64; sums of seconds are not, and a budget of 1 has to hold the dense network.
            let slack = if matches!(budget, Budget::Latency(_)) { 1e-12 * total } else { 0.0 };
            let room = asked * total - fixed_cost + slack;
            let least: f64 = candidates.iter().map(|layer| layer.states[0].cost).sum();
            if least > room {
                return Err(PlanError::BudgetUnreachable {
                    quantity: budget.quantity(),
                    asked,
                    nearest: (fixed_cost + least) / total,
                });
            }
            Ok(match objective {
                Objective::MaxError => least_largest(candidates, room),
                Objective::SumOfSquares { .. } => least_sum(candidates, room),
            })
        })
    }

    /// The plan in which no layer has a larger error than `most`: of every layer the way of the fewest multiply-adds that keeps
    /// to it, dense where none does.
    ///
    /// # Errors
    /// As [`Profile::plan`], but for the budget.
    pub fn plan_within(&self, most: f64, options: &PlanOptions) -> Result<RankPlan, PlanError> {
        let options = PlanOptions { max_error: Some(most), ..options.clone() };
        // All of the budget would do; the cheapest state of every layer is taken.
        let budget = Budget::Macs(1.0);
        self.assemble(budget, &Objective::MaxError, &options, |candidates, _| {
            Ok(vec![0; candidates.len()])
        })
    }

    /// The plan of the ways that `choose` picks: for every candidate the index of one of its states, knowing what everything
    /// else costs.
    fn assemble<'a>(
        &'a self,
        budget: Budget,
        objective: &Objective,
        options: &PlanOptions,
        choose: impl FnOnce(&[Candidate<'a>], f64) -> Result<Vec<usize>, PlanError>,
    ) -> Result<RankPlan, PlanError> {
        self.check(objective, options)?;
        let total = self.whole(budget)?;
        let mut fixed_cost = total;
        let mut entries: Vec<Entry> = Vec::with_capacity(self.layers.len());
        let mut candidates = Vec::new();
        for layer in &self.layers {
            let entry = if options.dense.contains(&layer.layer) {
                Entry::Dense("kept dense by request".into())
            } else if let Some((form, rank)) = options.fixed.get(&layer.layer) {
                let choice = layer.at(*form, *rank)?;
                let (cost, dense) = (choice.costs(layer, budget)?, layer.costs(budget)?);
                fixed_cost -= dense - cost;
                let why = format!("fixed by request: {}", told(&choice, cost / dense, budget));
                Entry::Planned { form: *form, rank: *rank, why }
            } else {
                match allowed(layer, budget, objective, options)? {
                    Ok(candidate) => {
                        fixed_cost -= candidate.dense;
                        candidates.push(candidate);
                        Entry::Open
                    }
                    Err(why) => Entry::Dense(why),
                }
            };
            entries.push(entry);
        }

        let chosen = choose(&candidates, fixed_cost)?;
        let open: Vec<(&LayerProfile, &Candidate<'_>)> = self
            .layers
            .iter()
            .zip(&entries)
            .filter(|(_, entry)| matches!(entry, Entry::Open))
            .map(|(layer, _)| layer)
            .zip(&candidates)
            .collect();
        let between = match (options.fill, budget) {
            (Some(multiple), Budget::Params(_) | Budget::Macs(_))
                if options.max_error.is_none() =>
            {
                let room = budget.ratio()? * total - fixed_cost;
                fill(&open, &chosen, room, multiple.max(1), budget, options)?
            }
            _ => vec![None; candidates.len()],
        };

        let mut plan = RankPlan::default();
        let mut open = candidates.iter().zip(chosen).zip(between);
        for (layer, entry) in self.layers.iter().zip(entries) {
            let name = layer.layer.clone();
            let entry = match entry {
                Entry::Open => match open.next() {
                    Some(((_, _), Some(between))) => Some(planned(
                        &between,
                        between.costs(layer, budget)? / layer.costs(budget)?,
                        budget,
                    )),
                    Some(((candidate, state), None)) => Some(settled(candidate, state, budget)),
                    None => None,
                },
                other => Some(other),
            };
            match entry {
                Some(Entry::Planned { form, rank, why }) => {
                    plan.layers.push(PlannedLayer { name, form, rank, why });
                }
                Some(Entry::Dense(why)) => plan.dense.push(DenseLayer { name, why }),
                Some(Entry::Open) | None => {}
            }
        }
        Ok(plan)
    }

    /// What `plan` will cost and lose. Layers that it does not name stay dense.
    ///
    /// # Errors
    /// [`NetError::UnknownLayer`] and [`PlanError::NotMeasured`] for layers and ranks that the profile cannot tell about.
    pub fn predict(&self, plan: &RankPlan) -> Result<Predicted, PlanError> {
        let mut predicted = Predicted {
            total: self.dense,
            seconds: self.dense_seconds,
            max_error: 0.0,
            sum_of_squares: 0.0,
        };
        for PlannedLayer { name, form, rank, .. } in &plan.layers {
            let layer = self.known(name)?;
            let choice = layer.at(*form, *rank)?;
            let (cost, dense, total) = (choice.cost, layer.dense, &mut predicted.total);
            total.params = total.params + cost.params - dense.params;
            total.macs = total.macs + cost.macs - dense.macs;
            total.activation_bytes =
                total.activation_bytes + cost.activation_bytes - dense.activation_bytes;
            predicted.seconds = match (predicted.seconds, layer.dense_seconds, choice.seconds) {
                (Some(whole), Some(dense), Some(seconds)) => Some(whole - (dense - seconds)),
                _ => None,
            };
            predicted.max_error = predicted.max_error.max(choice.error());
            predicted.sum_of_squares += choice.error().powi(2);
        }
        Ok(predicted)
    }

    fn known(&self, name: &str) -> Result<&LayerProfile, PlanError> {
        let known = || self.layers.iter().map(|layer| layer.layer.clone()).collect();
        let unknown = || NetError::UnknownLayer { name: name.into(), known: known() }.into();
        self.layer(name).ok_or_else(unknown)
    }

    fn check(&self, objective: &Objective, options: &PlanOptions) -> Result<(), PlanError> {
        let PlanOptions { fixed, dense, max_error, .. } = options;
        for name in fixed.keys().chain(dense) {
            self.known(name)?;
        }
        if let Some(layer) = dense.iter().find(|name| fixed.contains_key(*name)) {
            return Err(PlanError::PlanDuplicate { layer: layer.clone() });
        }
        let expected = "a finite number, at least 0";
        let bad = |value: f64| !(value.is_finite() && value >= 0.0);
        if let Some(got) = max_error.filter(|error| bad(*error)) {
            return Err(PlanError::PlanOption { option: "max_error", got, expected });
        }
        if let Objective::SumOfSquares { weights } = objective {
            for (name, &got) in weights {
                self.known(name)?;
                if bad(got) {
                    let (layer, option) = (name.clone(), "weight");
                    return Err(PlanError::LayerOption { layer, option, got, expected });
                }
            }
        }
        Ok(())
    }

    /// The whole dense network, in the budget's quantity.
    fn whole(&self, budget: Budget) -> Result<f64, PlanError> {
        match budget {
            Budget::Latency(_) => {
                present(self.dense_seconds, || "the whole dense network".to_string())
            }
            _ => Ok(budget.counted()?(&self.dense) as f64),
        }
    }
}

/// What is known of a layer before, and after, the budget is spent.
enum Entry {
    Planned { form: Form, rank: Rank, why: String },
    Dense(String),
    Open,
}

fn present(seconds: Option<f64>, what: impl Fn() -> String) -> Result<f64, PlanError> {
    // A time of 0 or NaN was not measured either.
    seconds
        .filter(|s| s.is_finite() && *s > 0.0)
        .ok_or_else(|| PlanError::SecondsMissing { what: what() })
}

impl LayerProfile {
    /// What it costs dense, in the budget's quantity.
    fn costs(&self, budget: Budget) -> Result<f64, PlanError> {
        match budget {
            Budget::Latency(_) => self.timed(),
            _ => Ok(budget.counted()?(&self.dense) as f64),
        }
    }

    fn timed(&self) -> Result<f64, PlanError> {
        present(self.dense_seconds, || format!("layer '{}'", self.layer))
    }

    /// The choice of a rank: as measured, or for forms with one number from the two measured ranks next to it. Costs are
    /// exact there, for they are linear in the rank; beyond the ends the error is that of the end.
    fn at(&self, form: Form, rank: Rank) -> Result<Choice, PlanError> {
        let mut same: Vec<&Choice> = self.choices.iter().filter(|c| c.form == form).collect();
        if let Some(choice) = same.iter().find(|choice| choice.rank == rank) {
            return Ok((*choice).clone());
        }
        same.sort_by_key(|choice| choice.rank);
        let missing = || PlanError::NotMeasured {
            layer: self.layer.clone(),
            form,
            rank,
            measured: same.iter().map(|choice| choice.rank).collect(),
        };
        let place = |choice: &Choice| choice.rank.one().map(|rank| rank as f64);
        let at = rank.one().filter(|rank| *rank > 0).ok_or_else(missing)? as f64;
        let above =
            same.partition_point(|choice| choice.rank < rank).clamp(1, same.len().max(2) - 1);
        let [low, high] = match (same.get(above - 1), same.get(above)) {
            (Some(low), Some(high)) => [*low, *high],
            (Some(only), None) => return only.scaled(rank, at).ok_or_else(missing),
            _ => return Err(missing()),
        };
        let (Some(first), Some(second)) = (place(low), place(high)) else { return Err(missing()) };
        let share = (at - first) / (second - first);
        let line = |a: f64, b: f64| a + share * (b - a);
        let count = |a: usize, b: usize| line(a as f64, b as f64).round().max(0.0) as usize;
        let between = |a: f64, b: f64| a + share.clamp(0.0, 1.0) * (b - a);
        let both = |a: Option<f64>, b: Option<f64>| a.zip(b);
        Ok(Choice {
            form,
            rank,
            cost: Totals {
                params: count(low.cost.params, high.cost.params),
                macs: count(low.cost.macs, high.cost.macs),
                activation_bytes: count(low.cost.activation_bytes, high.cost.activation_bytes),
            },
            rel_error: between(low.rel_error, high.rel_error),
            weighted_error: both(low.weighted_error, high.weighted_error)
                .map(|(a, b)| between(a, b)),
            seconds: both(low.seconds, high.seconds).map(|(a, b)| line(a, b).max(0.0)),
        })
    }
}

impl Choice {
    /// The cost at another rank, where this is the only one known; its error stays, and seconds are anybody's guess.
    fn scaled(&self, rank: Rank, at: f64) -> Option<Choice> {
        // Filters that every output channel has are no matter of the rank.
        if self.form == Form::Monochromatic {
            return None;
        }
        let share = at / self.rank.one()? as f64;
        let count = |count: usize| (share * count as f64).round() as usize;
        let Totals { params, macs, activation_bytes } = self.cost;
        let cost = Totals { params: count(params), macs: count(macs), activation_bytes };
        Some(Choice { rank, cost, seconds: None, ..self.clone() })
    }

    /// In the budget's quantity.
    fn costs(&self, layer: &LayerProfile, budget: Budget) -> Result<f64, PlanError> {
        match budget {
            Budget::Latency(_) => self.timed(layer),
            _ => Ok(budget.counted()?(&self.cost) as f64),
        }
    }

    fn timed(&self, layer: &LayerProfile) -> Result<f64, PlanError> {
        let Choice { form, rank, .. } = self;
        present(self.seconds, || format!("layer '{}' as {form} R={rank}", layer.layer))
    }
}

/// The ways that a layer may be written, or why it stays dense.
fn allowed<'a>(
    layer: &'a LayerProfile,
    budget: Budget,
    objective: &Objective,
    options: &PlanOptions,
) -> Result<Result<Candidate<'a>, String>, PlanError> {
    if layer.choices.is_empty() {
        return Ok(Err("no rank makes it smaller".into()));
    }
    let dense = layer.costs(budget)?;
    let mut states = Vec::with_capacity(layer.choices.len());
    for choice in &layer.choices {
        let (cost, error) = (choice.costs(layer, budget)?, choice.error());
        states.push(LayerState { cost, error, choice: Some(choice) });
    }
    states.retain(|state| state.cost < dense);
    if states.is_empty() {
        return Ok(Err(match budget {
            Budget::Latency(_) => slower(layer)?,
            Budget::Params(_) => "no rank makes it smaller".into(),
            Budget::Macs(_) => "no rank needs fewer multiply-adds".into(),
        }));
    }
    if options.never_slower {
        let dense = layer.timed()?;
        let mut faster = Vec::with_capacity(states.len());
        for state in states {
            let seconds = state.choice.map_or(Ok(dense), |choice| choice.timed(layer))?;
            faster.extend((seconds < dense).then_some(state));
        }
        states = faster;
        if states.is_empty() {
            return Ok(Err(slower(layer)?));
        }
    }
    if let Some(most) = options.max_error {
        let least = states.iter().map(|state| state.error).fold(f64::INFINITY, f64::min);
        states.retain(|state| state.error <= most);
        if states.is_empty() {
            return Ok(Err(format!(
                "its error would be at least {least:.3}, above the {most} allowed"
            )));
        }
    }
    states.push(LayerState { cost: dense, error: 0.0, choice: None });
    states.sort_by(|a, b| a.cost.total_cmp(&b.cost).then(a.error.total_cmp(&b.error)));
    let mut least = f64::INFINITY;
    states.retain(|state| {
        let better = state.error < least;
        least = least.min(state.error);
        better
    });
    let weight = match objective {
        Objective::MaxError => 1.0,
        Objective::SumOfSquares { weights } => weights.get(&layer.layer).copied().unwrap_or(1.0),
    };
    Ok(Ok(Candidate { weight, dense, states }))
}

/// Why a layer stays dense that no choice makes faster: the fastest of them.
fn slower(layer: &LayerProfile) -> Result<String, PlanError> {
    let dense = layer.timed()?;
    let mut fastest: Option<(f64, &Choice)> = None;
    for choice in &layer.choices {
        let seconds = choice.timed(layer)?;
        if fastest.is_none_or(|(least, _)| seconds < least) {
            fastest = Some((seconds, choice));
        }
    }
    Ok(match fastest {
        Some((seconds, Choice { form, rank, .. })) => format!(
            "no form is faster: {form} R={rank} takes {:.2} of the dense time",
            seconds / dense
        ),
        None => "no rank makes it smaller".into(),
    })
}

/// The error of a choice and what it costs, in words.
fn told(choice: &Choice, share: f64, budget: Budget) -> String {
    let quantity = budget.quantity();
    format!("error {:.3}, {share:.2} of the dense layer's {quantity}", choice.error())
}

/// What a layer gets.
fn settled(candidate: &Candidate<'_>, state: usize, budget: Budget) -> Entry {
    let LayerState { cost, choice, .. } = candidate.states[state];
    match choice {
        Some(choice) => planned(choice, cost / candidate.dense, budget),
        None => Entry::Dense(match candidate.states[..state].last().and_then(|s| s.choice) {
            Some(best) => format!(
                "its error would cost more than it saves: {:.3} as {} R={}",
                best.error(),
                best.form,
                best.rank
            ),
            None => "its error would cost more than it saves".into(),
        }),
    }
}

fn planned(choice: &Choice, share: f64, budget: Budget) -> Entry {
    Entry::Planned { form: choice.form, rank: choice.rank, why: told(choice, share, budget) }
}

/// Ranks above the chosen ones and below the next measured ones, for what is left of the budget: of all layers always the one
/// whose damage falls most with it.
fn fill(
    layers: &[(&LayerProfile, &Candidate<'_>)],
    chosen: &[usize],
    room: f64,
    multiple: usize,
    budget: Budget,
    options: &PlanOptions,
) -> Result<Vec<Option<Choice>>, PlanError> {
    let mut found: Vec<Option<Choice>> = vec![None; layers.len()];
    let chosen: Vec<LayerState<'_>> =
        layers.iter().zip(chosen).map(|((_, candidate), &at)| candidate.states[at]).collect();
    let mut left = room - chosen.iter().map(|state| state.cost).sum::<f64>();
    loop {
        let mut best: Option<(f64, usize, Choice, f64)> = None;
        for (index, (layer, candidate)) in layers.iter().enumerate() {
            let Some(now) = found[index].as_ref().or(chosen[index].choice) else { continue };
            let Some(between) = next_between(layer, now, left, multiple, budget)? else { continue };
            let cost = between.costs(layer, budget)?;
            let slower = options.never_slower && between.timed(layer)? >= layer.timed()?;
            if cost >= candidate.dense || slower {
                continue;
            }
            let gain = candidate.weight * (now.error().powi(2) - between.error().powi(2));
            if gain > best.as_ref().map_or(0.0, |(most, ..)| *most) {
                best = Some((gain, index, between, cost - now.costs(layer, budget)?));
            }
        }
        let Some((_, index, between, cost)) = best else { return Ok(found) };
        left -= cost;
        found[index] = Some(between);
    }
}

/// The largest rank that costs at most `left` more than `now`, below the next measured one; none for forms with several numbers.
fn next_between(
    layer: &LayerProfile,
    now: &Choice,
    left: f64,
    multiple: usize,
    budget: Budget,
) -> Result<Option<Choice>, PlanError> {
    let number = |choice: &Choice| choice.rank.one();
    let Some(rank) = number(now) else { return Ok(None) };
    let next = layer
        .choices
        .iter()
        .filter(|choice| choice.form == now.form && number(choice).is_some_and(|r| r > rank))
        .min_by_key(|choice| choice.rank);
    let Some((next, end)) = next.and_then(|next| Some((next, number(next)?))) else {
        return Ok(None);
    };
    let each = (next.costs(layer, budget)? - now.costs(layer, budget)?) / (end - rank) as f64;
    let more = if each > 0.0 { (left / each).max(0.0).floor() as usize } else { 0 };
    let multiple = Ladder::multiple(now.form, multiple);
    let most = (rank + more).min(end - 1) / multiple * multiple;
    if most <= rank { Ok(None) } else { layer.at(now.form, Rank::One(most)).map(Some) }
}
