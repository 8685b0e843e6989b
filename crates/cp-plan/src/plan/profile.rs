//! [`Profile`]: what every layer would cost and lose in every way it could be written.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use cp_core::{CpError, CpTensor, Decomposition, WeightedSvd};
use cp_net::{Form, InputShapes, NetError, Network, Op, Rank, Totals};
use ndarray::{ArrayView2, CowArray, IxDyn};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::ladder::Ladder;
use super::plannable;
use crate::decompose::Decomposer;
use crate::error::PlanError;
use crate::models::Models;

/// What every layer would cost and lose in every way it could be written: the error curves that ranks are chosen from.
///
/// [`Profile::measure`] decomposes; [`Profile::plan`] chooses. Seconds come from whoever can run the network: they are `None`
/// until somebody writes them into the fields.
///
/// ```
/// use cp_net::{Form, arch};
/// use cp_plan::{Budget, Decomposer, Objective, PlanOptions, Profile, ProfileOptions};
///
/// let net = arch::by_name("small-cnn")?.initialize(1)?;
/// let options = ProfileOptions { forms: vec![Form::Cp3], points: 4, ..ProfileOptions::default() };
/// let profile = Profile::measure(&net, [1, 28, 28], None, &options, &Decomposer::als(5, 2), &|_line| {})?;
/// let plan = profile.plan(Budget::Macs(0.5), &Objective::MaxError, &PlanOptions::default())?;
/// let macs = plan.cost(&net, [1, 28, 28])?.total.macs;
/// assert!(2 * macs <= profile.dense.macs);
/// // Every layer is planned for, or the plan says why it stays dense.
/// assert_eq!(plan.layers.len() + plan.dense.len(), 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Shapes of the inputs that costs are for, without the batch axis.
    pub inputs: Vec<Vec<usize>>,
    /// Cost of the whole dense network.
    pub dense: Totals,
    /// Seconds of the whole dense network for a batch, where it was timed.
    #[serde(default)]
    pub dense_seconds: Option<f64>,
    /// The layers, in the order in which they run (or were asked for).
    pub layers: Vec<LayerProfile>,
    /// The CP models that the errors are of, for [`Decomposer::models`]; not part of the JSON, for they are as large as some networks:
    /// [`Models::save`].
    #[serde(skip)]
    pub models: Models,
}

/// What one layer would cost and lose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerProfile {
    /// Name of the dense layer.
    pub layer: String,
    /// What it costs dense, without its bias.
    pub dense: Totals,
    /// Seconds of the dense layer for a batch, where it was timed.
    #[serde(default)]
    pub dense_seconds: Option<f64>,
    /// The ways it could be written: one form after the other, the ranks of each rising. Empty where no rank makes it smaller.
    pub choices: Vec<Choice>,
}

/// One way to write a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// The form.
    pub form: Form,
    /// The rank (of each group).
    pub rank: Rank,
    /// What the factors cost, without the bias.
    pub cost: Totals,
    /// ‖K − K̂‖ / ‖K‖ over all groups.
    pub rel_error: f64,
    /// ‖(K − K̂) Σ^½‖ / ‖KΣ^½‖, the largest of any group, where the decomposer had the statistics of the layer's inputs.
    #[serde(default)]
    pub weighted_error: Option<f64>,
    /// Seconds of the factors for a batch, where they were timed.
    #[serde(default)]
    pub seconds: Option<f64>,
}

impl Choice {
    /// The error that counts: the weighted one where there is one, else that of the kernel.
    pub fn error(&self) -> f64 {
        self.weighted_error.unwrap_or(self.rel_error)
    }

    /// The same, to be lowered.
    fn error_mut(&mut self) -> &mut f64 {
        self.weighted_error.as_mut().unwrap_or(&mut self.rel_error)
    }
}

/// Which forms and ranks [`Profile::measure`] looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileOptions {
    /// Forms for convolutions with a spatial extent, one profiled after the other; those that do not fit a layer are left out
    /// there, and CP-4 beside CP-3 where the kernel is too small for a step along each axis to pay. Linear layers and 1×1
    /// convolutions are low-rank.
    pub forms: Vec<Form>,
    /// Ranks of each form and layer, a constant factor apart, from 1/64 of the largest to the largest that is looked at.
    /// Fewer where they fall together.
    pub points: usize,
    /// Every number of a rank is a multiple of this, but for modes that are smaller than it and forms whose rank counts maps for every
    /// channel; 1 for any. A layer that has no such rank below break-even has no choices, and stays dense.
    pub multiple_of: usize,
    /// The largest share of the dense layer's multiply-adds and parameters worth looking at. Ranks below it in neither are left
    /// out.
    pub largest: f64,
}

impl Default for ProfileOptions {
    /// CP-3, CP-4 and Tucker-2 at 12 ranks each, any rank, up to the dense layer's cost.
    fn default() -> Self {
        let forms = vec![Form::Cp3, Form::Cp4, Form::Tucker2];
        Self { forms, points: 12, multiple_of: 1, largest: 1.0 }
    }
}

/// The largest rank looked at is so many times the smallest.
const SPAN: f64 = 64.0;

impl Profile {
    /// Decomposes every layer in every form at a ladder of ranks. Layers and forms run in parallel; the
    /// number of threads changes nothing.
    ///
    /// The CP forms go up a path: each rank starts from the model of the rank before, with the terms that its residual asks
    /// for ([`cp_core::extend`]), and [`compress`](crate::compress) goes on from them where its decomposer is given [`Profile::models`].
    /// Low-rank errors are the singular values that are left over. Tucker-2 takes
    /// \[R_out, R_in\] in proportion to \[T/g, S/g\], TKD-CPD the same with R = max(R_out, R_in). Where `decomposer` has the
    /// statistics of a layer, the weighted error counts, and low-rank pairs are decomposed one rank at a time as well.
    ///
    /// What counts ([`Choice::error`]) does not rise along the ladder of a form: a larger rank holds the model of a smaller
    /// one, whatever its own solver found.
    ///
    /// `layers` narrows the profile, and every plan made of it, to these layers; `None` is all that can be
    /// compressed. `progress` is given a line of text whenever a form of a layer is done, from several threads.
    ///
    /// # Shapes
    /// `input`: `[C, H, W]`, without the batch axis.
    ///
    /// # Errors
    /// Options out of range ([`PlanError::PlanOption`]); unknown, repeated or already factorized layers; an input shape that the
    /// network cannot take; [`NetError::NotFinite`] for NaN or infinity in a kernel; [`PlanError::Decompose`] where a solver gives up.
    ///
    /// Reference: Liebenwein et al. (2021), arXiv 2107.11442 (ALDS), for plans from the errors of all layers at all ranks.
    pub fn measure(
        net: &Network,
        input: impl InputShapes,
        layers: Option<&[String]>,
        options: &ProfileOptions,
        decomposer: &Decomposer,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, PlanError> {
        options.check()?;
        let arch = net.architecture();
        let whole = net.cost(&input)?;
        let shapes = arch.shapes(&input)?;
        let names = layers.map_or_else(|| arch.compressible(), <[String]>::to_vec);
        let mut seen = BTreeSet::new();
        let mut profiles = Vec::with_capacity(names.len());
        for layer in &names {
            let op = plannable(arch, layer)?;
            if !op.has_kernel() {
                return Err(PlanError::PlanLayer { layer: layer.clone(), op: op.kind() });
            }
            if !seen.insert(arch.layer_of(arch.node(layer)?)) {
                return Err(PlanError::PlanDuplicate { layer: layer.clone() });
            }
            check_finite(net, layer)?;
            let dense = arch.dense_cost(layer, &shapes)?;
            let (layer, choices) = (layer.clone(), Vec::new());
            profiles.push(LayerProfile { layer, dense, dense_seconds: None, choices });
        }

        let mut jobs = Vec::new();
        for (index, layer) in names.iter().enumerate() {
            let op = plannable(arch, layer)?;
            let mut forms = Vec::new();
            // A 1×1 convolution is low-rank whichever forms are asked for.
            for form in options.forms.iter().chain([&Form::LowRank]) {
                forms.extend(form.suited_to(op).filter(|form| !forms.contains(form)));
            }
            if forms.contains(&Form::Cp3) && !pays_in_two_steps(op) {
                forms.retain(|form| *form != Form::Cp4);
            }
            for form in forms {
                if let Some(ladder) = Ladder::new(arch, layer, form, &shapes)? {
                    let ranks = options.ranks(&ladder)?;
                    jobs.push((index, ladder, ranks));
                }
            }
        }
        // Collected before looking for errors, so that the first layer's is reported, whichever thread was faster.
        let found: Vec<Result<(Vec<Choice>, Models), PlanError>> = jobs
            .par_iter()
            .map(|(_, ladder, ranks)| climb(net, ladder, ranks, decomposer, progress))
            .collect();
        let mut models = Models::default();
        for ((index, ..), found) in jobs.iter().zip(found) {
            let (choices, path) = found?;
            profiles[*index].choices.extend(choices);
            models.extend(path);
        }
        let (inputs, dense) = (whole.inputs, whole.total);
        Ok(Self { inputs, dense, dense_seconds: None, layers: profiles, models })
    }

    /// Decomposes single layers in the forms and ranks given, as [`PlanOptions::fixed`](crate::PlanOptions::fixed) needs them, and
    /// adds them to the choices; those that are known already are left alone.
    ///
    /// # Errors
    /// Layers that the profile does not have, forms and ranks that do not fit them, and what [`Profile::measure`] reports.
    pub fn include(
        &mut self,
        net: &Network,
        ranks: &BTreeMap<String, (Form, Rank)>,
        decomposer: &Decomposer,
    ) -> Result<(), PlanError> {
        let arch = net.architecture();
        let shapes = arch.shapes(&self.inputs)?;
        for (name, &(form, rank)) in ranks {
            plannable(arch, name)?;
            let known = self.layers.iter().map(|layer| layer.layer.clone()).collect();
            let Some(layer) = self.layers.iter_mut().find(|layer| layer.layer == *name) else {
                return Err(NetError::UnknownLayer { name: name.clone(), known }.into());
            };
            if layer.choices.iter().any(|choice| choice.form == form && choice.rank == rank) {
                continue;
            }
            check_finite(net, name)?;
            let cost = arch.factors_cost(name, form, rank, &shapes)?;
            let known_as = arch.layer_of(arch.node(name)?);
            let errors = decomposed(known_as, &net.tensors(name, form)?, form, rank, decomposer)
                .map_err(|source| PlanError::Decompose { layer: name.clone(), source })?;
            let (rel_error, weighted_error) = (errors.rel_error(), errors.weighted);
            layer.choices.push(Choice {
                form,
                rank,
                cost,
                rel_error,
                weighted_error,
                seconds: None,
            });
        }
        Ok(())
    }

    /// The layer `name`.
    pub fn layer(&self, name: &str) -> Option<&LayerProfile> {
        self.layers.iter().find(|layer| layer.layer == name)
    }
}

impl ProfileOptions {
    fn check(&self) -> Result<(), PlanError> {
        let at_least_one = |option, got: usize| match got {
            0 => Err(PlanError::PlanOption { option, got: 0.0, expected: "at least 1" }),
            _ => Ok(()),
        };
        at_least_one("points", self.points)?;
        at_least_one("multiple_of", self.multiple_of)?;
        if !(self.largest.is_finite() && self.largest > 0.0) {
            let expected = "a finite number above 0";
            return Err(PlanError::PlanOption { option: "largest", got: self.largest, expected });
        }
        Ok(())
    }

    /// The ranks to look at, rising.
    fn ranks(&self, ladder: &Ladder<'_>) -> Result<Vec<Rank>, PlanError> {
        let below = |cost: usize, dense: usize| (cost as f64) < self.largest * dense as f64;
        let fits = |cost: &Totals| {
            below(cost.macs, ladder.dense.macs) || below(cost.params, ladder.dense.params)
        };
        let largest = ladder.last(fits)?;
        if largest == 0 {
            return Ok(Vec::new());
        }
        let least = (largest as f64 / SPAN).max(1.0);
        let growth = largest as f64 / least;
        let step = |point: usize| match self.points {
            1 => largest,
            points => {
                let share = point as f64 / (points - 1) as f64;
                (least * growth.powf(share)).round() as usize
            }
        };
        let mut ranks: Vec<Rank> =
            (0..self.points).map(|p| ladder.rank(step(p).clamp(1, largest))).collect();
        ranks.dedup();
        let multiple = Ladder::multiple(ladder.form, self.multiple_of);
        let mut multiples = Vec::new();
        for rank in &ranks {
            // Where not even one multiple is below break-even, there is no such rank.
            if rank.one().is_some() && largest < multiple {
                continue;
            }
            let rank = ladder.to_multiple(*rank, multiple, largest);
            if fits(&ladder.cost(rank)?) {
                multiples.push(rank);
            }
        }
        multiples.dedup();
        Ok(multiples)
    }
}

/// Every entry of the kernel is a number.
pub(super) fn check_finite(net: &Network, layer: &str) -> Result<(), PlanError> {
    match net.kernel(layer)?.iter().filter(|value| !value.is_finite()).count() {
        0 => Ok(()),
        count => Err(NetError::NotFinite { layer: layer.into(), count }.into()),
    }
}

/// The errors of the groups of a layer, put together: of the kernel by squares, weighted ones by the largest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Errors {
    total: f64,
    residual: f64,
    weighted: Option<f64>,
}

impl Errors {
    /// Adds a group: ‖K‖, ‖K − K̂‖ / ‖K‖ and the weighted error.
    pub(super) fn add(&mut self, norm: f64, rel_error: f64, weighted: Option<f64>) {
        self.total += norm.powi(2);
        self.residual += (rel_error * norm).powi(2);
        self.weighted = match (self.weighted, weighted) {
            (Some(a), Some(b)) => Some(f64::max(a, b)),
            (a, b) => a.or(b),
        };
    }

    /// Adds a group whose kernel has these singular values, truncated at a rank.
    fn add_pair(&mut self, values: &[f64], rank: usize) {
        // From the small end: what is dropped may be far smaller than what is kept.
        let norm = |values: &[f64]| values.iter().rev().map(|s| s * s).sum::<f64>().sqrt();
        let (whole, dropped) = (norm(values), norm(&values[rank.min(values.len())..]));
        self.add(whole, if dropped == 0.0 { 0.0 } else { dropped / whole }, None);
    }

    /// ‖K − K̂‖ / ‖K‖ over all groups.
    pub(super) fn rel_error(&self) -> f64 {
        if self.residual == 0.0 { 0.0 } else { (self.residual / self.total).sqrt() }
    }

    /// The error that counts.
    pub(super) fn counted(&self) -> f64 {
        self.weighted.unwrap_or_else(|| self.rel_error())
    }
}

/// Whether CP-4 may be the better form where CP-3 is looked at, too.
///
/// At equal ranks CP-3 is at least as close, and saves a pass over R maps, which costs an engine more than the ∏k − Σk multiply-adds a
/// rank and place of the output that CP-4 saves, unless these are a tenth of the S/g + T/g + ∏k that CP-3 has: never for 3×3 kernels
/// with more than 21 channels in and out.
fn pays_in_two_steps(op: &Op) -> bool {
    let Op::Conv(conv) = op else { return true };
    let taps: usize = conv.kernel.iter().product();
    let saved = taps.saturating_sub(conv.kernel.iter().sum());
    let shape = conv.group_shape();
    10 * saved >= shape[0] + shape[1] + taps
}

/// The kernels of the groups of a layer.
pub(super) type Kernels<'a> = [CowArray<'a, f32, IxDyn>];

/// The errors of all ranks of one form.
fn climb(
    net: &Network,
    ladder: &Ladder<'_>,
    ranks: &[Rank],
    decomposer: &Decomposer,
    progress: &(dyn Fn(&str) + Sync),
) -> Result<(Vec<Choice>, Models), PlanError> {
    let Ladder { layer, form, .. } = *ladder;
    let mut models = Models::default();
    let Some(last) = ranks.last() else {
        progress(&format!("{layer}: no {form} form is smaller"));
        return Ok((Vec::new(), models));
    };
    let kernels = net.tensors(layer, form)?;
    let failed = |source| PlanError::Decompose { layer: layer.into(), source };
    let known_as = net.architecture().layer_of(net.node(layer)?);
    let errors = match form {
        Form::Cp3 | Form::Cp4 => {
            let mut path = CpPath::new(known_as, &kernels, decomposer);
            let ones = ranks.iter().filter_map(|rank| rank.one());
            let errors = ones.map(|rank| Ok(path.at(rank)?.0)).collect::<Result<Vec<_>, _>>();
            for (rank, groups) in path.models {
                models.insert(known_as, form, rank, groups);
            }
            errors
        }
        Form::LowRank => Pairs::new(known_as, &kernels, decomposer).map(|pairs| {
            let ones = ranks.iter().filter_map(|rank| rank.one());
            ones.map(|rank| pairs.errors(rank)).collect()
        }),
        _ => ranks
            .iter()
            .map(|&rank| decomposed(known_as, &kernels, form, rank, decomposer))
            .collect::<Result<Vec<_>, _>>(),
    };
    let errors = errors.map_err(failed)?;
    let mut least = f64::INFINITY;
    let mut choices = Vec::with_capacity(ranks.len());
    for (&rank, errors) in ranks.iter().zip(errors) {
        let cost = ladder.cost(rank)?;
        let (rel_error, weighted_error) = (errors.rel_error(), errors.weighted);
        let mut choice = Choice { form, rank, cost, rel_error, weighted_error, seconds: None };
        least = least.min(choice.error());
        *choice.error_mut() = least;
        choices.push(choice);
    }
    progress(&format!("{layer}: {form} up to R={last}, error {least:.4}"));
    Ok((choices, models))
}

/// The errors of one form and rank, from the decomposition itself.
pub(super) fn decomposed(
    layer: &str,
    kernels: &Kernels<'_>,
    form: Form,
    rank: Rank,
    decomposer: &Decomposer,
) -> Result<Errors, CpError> {
    let mut errors = Errors::default();
    for (group, kernel) in kernels.iter().enumerate() {
        let observe = &mut |_: &cp_core::Progress| ControlFlow::Continue(());
        let found = decomposer.decompose(layer, group, kernel.view(), form, rank, observe)?;
        errors.add(cp_core::norm(kernel.view()), found.rel_error, found.weighted_error);
    }
    Ok(errors)
}

/// CP models of the groups of a layer at several ranks, each from that of the next lower rank there is.
pub(super) struct CpPath<'a, 'k> {
    layer: &'a str,
    kernels: &'a Kernels<'k>,
    decomposer: &'a Decomposer,
    /// The models of a rank, one for each group.
    models: BTreeMap<usize, Vec<CpTensor<f32>>>,
}

impl<'a, 'k> CpPath<'a, 'k> {
    pub(super) fn new(
        layer: &'a str,
        kernels: &'a Kernels<'k>,
        decomposer: &'a Decomposer,
    ) -> Self {
        Self { layer, kernels, decomposer, models: BTreeMap::new() }
    }

    /// The errors at a rank, and the decomposition of the last group.
    pub(super) fn at(&mut self, rank: usize) -> Result<(Errors, Decomposition<f32>), CpError> {
        let (mut errors, mut last) = (Errors::default(), None);
        let mut models = Vec::with_capacity(self.kernels.len());
        let lower = self.models.range(..rank).next_back().map(|(_, models)| models);
        for (group, kernel) in self.kernels.iter().enumerate() {
            let before =
                lower.and_then(|models| models.get(group)).filter(|_| self.decomposer.goes_on());
            let observe = &mut |_: &cp_core::Progress| ControlFlow::Continue(());
            let (found, weighted) =
                self.decomposer.cp(self.layer, group, kernel.view(), rank, before, observe)?;
            errors.add(cp_core::norm(kernel.view()), found.rel_error, weighted);
            models.push(found.cp.clone());
            last = Some(found);
        }
        self.models.insert(rank, models);
        last.map(|found| (errors, found)).ok_or(CpError::Order { order: 0 })
    }
}

/// The singular values of the groups of a layer: the errors of all low-rank pairs at once.
pub(super) struct Tails {
    /// Of each group.
    pub(super) groups: Vec<Vec<f64>>,
}

/// Of the unfoldings of a mode; mode 0 of kernels `[T/g, S/g]` is all of them.
pub(super) fn tails(kernels: &Kernels<'_>, mode: usize) -> Result<Tails, CpError> {
    let groups =
        kernels.iter().map(|kernel| singular_values(cp_core::unfold(kernel.view(), mode).view()));
    Ok(Tails { groups: groups.collect::<Result<_, _>>()? })
}

impl Tails {
    /// The errors of pairs of this rank.
    pub(super) fn errors(&self, rank: usize) -> Errors {
        let mut errors = Errors::default();
        self.groups.iter().for_each(|values| errors.add_pair(values, rank));
        errors
    }
}

/// The errors of all low-rank pairs of a layer at once, from one decomposition of each group.
pub(super) struct Pairs {
    groups: Vec<Pair>,
}

enum Pair {
    /// Singular values.
    Plain(Vec<f64>),
    /// ‖K‖, and what the inputs make of K.
    Weighted(f64, WeightedSvd<f32>),
}

impl Pairs {
    /// `kernels`: `[T/g, S/g]`.
    pub(super) fn new(
        layer: &str,
        kernels: &Kernels<'_>,
        decomposer: &Decomposer,
    ) -> Result<Self, CpError> {
        let statistics = decomposer.statistics.get(layer);
        let group = |(group, kernel): (usize, &CowArray<'_, f32, IxDyn>)| {
            let matrix = cp_core::unfold(kernel.view(), 0);
            match statistics.and_then(|groups| groups.get(group)) {
                None => singular_values(matrix.view()).map(Pair::Plain),
                Some(statistics) => {
                    let ladder = WeightedSvd::new(matrix.view(), statistics)?;
                    Ok(Pair::Weighted(cp_core::norm(kernel.view()), ladder))
                }
            }
        };
        Ok(Self { groups: kernels.iter().enumerate().map(group).collect::<Result<_, _>>()? })
    }

    /// The errors of pairs of this rank.
    pub(super) fn errors(&self, rank: usize) -> Errors {
        let mut errors = Errors::default();
        for group in &self.groups {
            match group {
                Pair::Plain(values) => errors.add_pair(values, rank),
                Pair::Weighted(norm, ladder) => {
                    let weighted = Some(ladder.weighted_error(rank));
                    errors.add(*norm, ladder.rel_error(rank), weighted);
                }
            }
        }
        errors
    }
}

/// All singular values of a matrix, non-increasing.
fn singular_values(matrix: ArrayView2<'_, f32>) -> Result<Vec<f64>, CpError> {
    // With the noise given there is nothing left of the estimate but the singular values.
    Ok(cp_core::rank::evbmf(matrix, Some(0.0))?.singular_values.to_vec())
}

#[cfg(test)]
mod tests {
    use cp_net::Conv;

    use super::*;

    #[test]
    fn two_steps_pay_for_large_kernels_on_few_channels() {
        for (channels, kernel, pays) in [
            ([64, 64], [3, 3], false),
            ([8, 8], [3, 3], true),
            ([48, 128], [5, 5], false),
            ([96, 128], [9, 9], true),
            ([48, 64], [9, 9], true),
        ] {
            let conv = Op::Conv(Conv::new(channels[0], channels[1], kernel));
            assert_eq!(pays_in_two_steps(&conv), pays, "{channels:?} {kernel:?}");
        }
    }
}
