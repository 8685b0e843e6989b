//! [`Sensitivity`]: how much a network suffers when one layer alone is compressed.

#[cfg(feature = "torch")]
mod probe;

use std::collections::BTreeMap;

use cp_net::{Architecture, Form, Network, Rank};
use cp_plan::{Decomposer, PlannedLayer, RankPlan};
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::evaluate::Evaluation;
#[cfg(feature = "torch")]
pub use probe::sensitivity;

/// How layers are probed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensitivityOptions {
    /// Form of convolutions with a spatial extent; 1×1 convolutions and linear layers become low-rank.
    pub form: Form,
    /// The ranks that every layer is probed at; one that a layer has no room for is the largest that it has.
    pub ranks: Vec<ProbeRank>,
    /// Iterations of the solver.
    pub max_iters: usize,
    /// A short fine-tuning of the whole network after each decomposition, as Astrid & Lee (2017) do; none for SqVaD.
    #[serde(default)]
    pub fine_tune: Option<TrainConfig>,
    /// Seed of the decompositions.
    pub seed: u64,
}

impl Default for SensitivityOptions {
    /// CP-3 at rank 5, 50 iterations, no fine-tuning, seed 0.
    fn default() -> Self {
        Self {
            form: Form::Cp3,
            ranks: vec![ProbeRank::Rank(5)],
            max_iters: 50,
            fine_tune: None,
            seed: 0,
        }
    }
}

impl SensitivityOptions {
    /// What to probe of `layers`, one layer and rank after the other; layers that have no room for a rank are left out.
    ///
    /// # Errors
    /// Unknown layers; a form with several ranks.
    pub(crate) fn probes(
        &self,
        arch: &Architecture,
        layers: &[String],
    ) -> Result<Vec<PlannedLayer>, TrainError> {
        let mut planned = Vec::new();
        for name in layers {
            let Some(form) = self.form.suited_to(&arch.node(name)?.op) else { continue };
            if !matches!(form.least_rank(), Rank::One(_)) {
                return Err(TrainError::Config {
                    option: "form",
                    got: form.to_string(),
                    expected: "a form with one rank to probe with: cp3 or cp4",
                });
            }
            let even = arch.breakeven(name, form, arch.input_shapes())?.params;
            // The largest rank below break-even.
            let most = (even.ceil() as usize).saturating_sub(1);
            if most == 0 {
                continue;
            }
            for rank in &self.ranks {
                let rank = match *rank {
                    ProbeRank::Rank(rank) => rank,
                    ProbeRank::Share(share) => (share * even).floor() as usize,
                };
                let rank = Rank::One(rank.clamp(1, most));
                planned.push(PlannedLayer { name: name.clone(), form, rank, why: String::new() });
            }
        }
        Ok(planned)
    }

    /// `network` with this layer alone decomposed, and the relative error of its kernel.
    ///
    /// # Errors
    /// Those of [`cp_plan::compress`].
    pub(crate) fn probed(
        &self,
        network: &Network,
        planned: &PlannedLayer,
    ) -> Result<(Network, f64), TrainError> {
        let decomposer =
            Decomposer { max_iters: self.max_iters, seed: self.seed, ..Decomposer::default() };
        let plan = RankPlan { layers: vec![planned.clone()], dense: Vec::new() };
        let mut probed = network.clone();
        let reports = cp_plan::compress(&mut probed, &plan, &decomposer, &|_| {})?;
        Ok((probed, reports.first().map_or(0.0, |report| report.rel_error)))
    }
}

/// `harm` per squared relative error of a layer's kernel: a weight for [`Objective::SumOfSquares`](cp_plan::Objective).
pub(crate) fn per_squared_error(harm: f64, rel_error: f64) -> f64 {
    harm / rel_error.powi(2).max(1e-6)
}

/// The mean of what was found for every layer.
pub(crate) fn means<'a>(found: impl Iterator<Item = (&'a str, f64)>) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for (layer, value) in found {
        let (sum, count) = sums.entry(layer).or_default();
        *sum += value;
        *count += 1;
    }
    sums.into_iter().map(|(layer, (sum, count))| (layer.to_owned(), sum / count as f64)).collect()
}

/// A rank to probe a layer at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeRank {
    /// This one; 5 in the publications.
    Rank(usize),
    /// This share of the break-even rank in parameters.
    Share(f64),
}

/// The network with one layer compressed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The layer.
    pub layer: String,
    /// The form it was given.
    pub form: Form,
    /// The rank it was given.
    pub rank: Rank,
    /// Relative error of its kernel.
    pub rel_error: f64,
    /// The network on the validation data.
    pub evaluation: Evaluation,
}

/// What probing all layers found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// The dense network on the validation data.
    pub dense: Evaluation,
    /// Layer after layer, the ranks of each in the order asked for.
    pub probes: Vec<Probe>,
}

/// What counts as the loss of a layer when ranks are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossRule {
    /// The fall of the accuracy, in points: Astrid & Lee (2017), §4.1, who measure it after fine-tuning.
    AccuracyDrop,
    /// The cross-entropy itself: SqVaD.
    CrossEntropy,
    /// The rise of the cross-entropy over that of the dense network.
    LossIncrease,
}

impl Sensitivity {
    /// The loss of every layer: the mean over its probes.
    pub fn losses(&self, rule: LossRule) -> BTreeMap<String, f64> {
        self.means(|probe| match rule {
            LossRule::AccuracyDrop => 100.0 * (self.dense.top1 - probe.evaluation.top1),
            LossRule::CrossEntropy => probe.evaluation.loss,
            LossRule::LossIncrease => probe.evaluation.loss - self.dense.loss,
        })
    }

    /// The rise of the cross-entropy per squared relative error of a layer's kernel, at least 0: weights for
    /// [`Objective::SumOfSquares`](cp_plan::Objective).
    pub fn weights(&self) -> BTreeMap<String, f64> {
        self.means(|probe| {
            let rise = (probe.evaluation.loss - self.dense.loss).max(0.0);
            per_squared_error(rise, probe.rel_error)
        })
    }

    fn means(&self, of: impl Fn(&Probe) -> f64) -> BTreeMap<String, f64> {
        means(self.probes.iter().map(|probe| (probe.layer.as_str(), of(probe))))
    }
}
