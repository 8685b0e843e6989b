//! One state for each layer within a budget: the multiple-choice knapsack problem behind [`Profile::plan`](crate::Profile::plan).
//!
//! Reference: Kellerer, Pferschy & Pisinger (2004), "Knapsack problems", ch. 11.

use super::profile::Choice;

/// A layer that a choice is sought for.
pub(super) struct Candidate<'a> {
    /// w of [`Objective::SumOfSquares`](crate::Objective).
    pub(super) weight: f64,
    /// What it costs dense, in the budget's quantity.
    pub(super) dense: f64,
    /// The ways that are left, from the cheapest to the dearest; each has a smaller error than all before. Dense is the last,
    /// unless a cheaper one has no error.
    pub(super) states: Vec<LayerState<'a>>,
}

/// One way to write a layer, or dense.
#[derive(Clone, Copy)]
pub(super) struct LayerState<'a> {
    pub(super) cost: f64,
    pub(super) error: f64,
    pub(super) choice: Option<&'a Choice>,
}

impl Candidate<'_> {
    fn damage(&self, state: usize) -> f64 {
        self.weight * self.states[state].error.powi(2)
    }

    /// What the way from one state to a dearer one costs, and the damage it takes away.
    fn step(&self, from: usize, to: usize) -> (f64, f64) {
        (self.states[to].cost - self.states[from].cost, self.damage(from) - self.damage(to))
    }
}

/// The states with the smallest largest error that cost at most `room`, and what is left spent where the error is largest.
pub(super) fn least_largest(candidates: &[Candidate<'_>], room: f64) -> Vec<usize> {
    let at = |error: f64| -> Vec<usize> {
        let first = |c: &Candidate<'_>| c.states.partition_point(|state| state.error > error);
        candidates.iter().map(first).collect()
    };
    let cost = |chosen: &[usize]| -> f64 {
        candidates.iter().zip(chosen).map(|(c, &state)| c.states[state].cost).sum()
    };
    let mut errors: Vec<f64> =
        candidates.iter().flat_map(|c| c.states.iter().map(|state| state.error)).collect();
    errors.sort_by(f64::total_cmp);
    errors.dedup();
    let first = errors.partition_point(|&error| cost(&at(error)) > room);
    let mut chosen = at(errors.get(first).copied().unwrap_or(f64::INFINITY));
    for (candidate, state) in candidates.iter().zip(&mut chosen) {
        *state = (*state).min(candidate.states.len() - 1);
    }
    loop {
        let error = |index: usize| candidates[index].states[chosen[index]].error;
        let mut order: Vec<usize> = (0..candidates.len()).collect();
        order.sort_by(|&a, &b| error(b).total_cmp(&error(a)));
        let left = room - cost(&chosen);
        let next = order.into_iter().find(|&index| {
            let (candidate, state) = (&candidates[index], chosen[index]);
            state + 1 < candidate.states.len() && candidate.step(state, state + 1).0 <= left
        });
        match next {
            Some(index) => chosen[index] += 1,
            None => return chosen,
        }
    }
}

/// The states with a small Σ w e² that cost at most `room`.
pub(super) fn least_sum(candidates: &[Candidate<'_>], room: f64) -> Vec<usize> {
    // The steps of all hulls, steepest first; those of one layer come in their order, for its hull is convex.
    let mut steps: Vec<(f64, usize, usize, usize)> = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        for pair in hull(candidate).windows(2) {
            let (cost, gain) = candidate.step(pair[0], pair[1]);
            if gain > 0.0 {
                steps.push((gain / cost, index, pair[0], pair[1]));
            }
        }
    }
    steps.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut chosen = vec![0; candidates.len()];
    let mut left = room - candidates.iter().map(|layer| layer.states[0].cost).sum::<f64>();
    let mut slope = 0.0;
    for (gain_per_cost, index, from, to) in steps {
        let (cost, _) = candidates[index].step(from, to);
        if cost > left {
            slope = gain_per_cost;
            break;
        }
        chosen[index] = to;
        left -= cost;
    }
    spend(candidates, chosen, left, slope)
}

/// The states of the lower convex hull of (cost, damage), from the cheapest on.
fn hull(candidate: &Candidate<'_>) -> Vec<usize> {
    let mut hull: Vec<usize> = Vec::new();
    for state in 0..candidate.states.len() {
        while let [.., before, last] = hull[..] {
            let (first, second) = (candidate.step(before, last), candidate.step(last, state));
            // The way through `last` has to be steeper before it than behind it.
            if first.1 * second.0 > second.1 * first.0 {
                break;
            }
            hull.pop();
        }
        hull.push(state);
    }
    hull
}

/// Most runs of [`greedy`] that [`spend`] makes; a handful is the rule.
const RUNS: usize = 1000;

/// Spends what is `left` on single layers. `slope` is the damage per cost of the first step that did not fit: no way to spend c
/// takes away more than `slope` · c.
///
/// The greedy choice alone may do worse with more: it takes a dearer step first, and then two others do not fit. So it is
/// run again with less, as long as less could still be more.
fn spend(candidates: &[Candidate<'_>], chosen: Vec<usize>, left: f64, slope: f64) -> Vec<usize> {
    let (mut best, mut most) = (chosen.clone(), 0.0);
    let mut room = left;
    for _ in 0..RUNS {
        let (found, used, gain) = greedy(candidates, &chosen, room);
        if gain > most {
            (best, most) = (found, gain);
        }
        // With any room from `used` on, the run is the same.
        if used <= 0.0 || slope * used <= most {
            break;
        }
        room = used.next_down();
    }
    best
}

/// One step after the other, the one that takes away most damage for its cost, as long as one fits. Returns the states, the cost
/// of the steps and the damage that they take away.
fn greedy(candidates: &[Candidate<'_>], chosen: &[usize], room: f64) -> (Vec<usize>, f64, f64) {
    let mut chosen = chosen.to_vec();
    let (mut used, mut total) = (0.0, 0.0);
    loop {
        let mut best: Option<(f64, usize, usize)> = None;
        for (index, candidate) in candidates.iter().enumerate() {
            for to in chosen[index] + 1..candidate.states.len() {
                let (cost, gain) = candidate.step(chosen[index], to);
                if gain <= 0.0 || used + cost > room {
                    continue;
                }
                let value = gain / cost;
                if best.is_none_or(|(most, ..)| value > most) {
                    best = Some((value, index, to));
                }
            }
        }
        let Some((_, index, to)) = best else { return (chosen, used, total) };
        let (cost, gain) = candidates[index].step(chosen[index], to);
        chosen[index] = to;
        used += cost;
        total += gain;
    }
}
