//! What `experiments/transfer.toml` and the command line decide.

use anyhow::{Result, bail};
use cp_train::TrainConfig;
use serde::{Deserialize, Serialize};

use super::plans::{Rule, our_recipe, published_recipe};

/// `experiments/transfer.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(super) dataset: String,
    /// The split that every network is tested on once.
    pub(super) test_split: String,
    pub(super) backbone: Origin,
    pub(super) arch: String,
    pub(super) weights: String,
    /// Height and width of the backbone's input.
    pub(super) input: [usize; 2],
    /// Of the published rule: rank of each spatial convolution / its break-even rank.
    pub(super) ratios: Vec<f64>,
    /// Those of `ratios` at which whole networks are trained, and the dense one with them.
    pub(super) whole_ratios: Vec<f64>,
    /// The plans that are trained whole there.
    pub(super) whole_plans: Vec<Rule>,
    /// Heads on each backbone, with the seeds of the run's upward.
    pub(super) seeds: u64,
    pub(super) decompose: Decompose,
    /// Examples of the training data that are used, validation included.
    pub(super) train_examples: usize,
    /// Examples of the test set that are used; 0 for all.
    pub(super) test_examples: usize,
    pub(super) validation_share: f64,
    pub(super) timing_batch: usize,
    /// Epochs of the head by the published protocol; all else is as in `head`.
    pub(super) published_epochs: usize,
    pub(super) head: TrainConfig,
    pub(super) whole: TrainConfig,
    pub(super) own: Own,
    pub(super) published: Published,
}

/// Where a backbone comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Origin {
    /// Weights that were published, in the data folder.
    Published,
    /// A network trained here on drawn characters, which need no download.
    Own,
}

/// How kernels are decomposed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Decompose {
    /// Sweeps of ALS by the published protocol.
    pub(super) published_sweeps: usize,
    /// Most sweeps of ALS-Σ in ours.
    pub(super) sweeps: usize,
    /// Ranks of each layer and form that our plans are chosen from, and sweeps at each of them.
    pub(super) points: usize,
    pub(super) point_sweeps: usize,
    /// Training images of the target that the inputs of layers are measured on; 0 for kernels alone.
    pub(super) statistics: usize,
    /// Training images of the target for batch normalizations to measure their statistics on.
    pub(super) calibrate: usize,
}

/// How a backbone of one's own is trained: characters, and passes over them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Own {
    pub(super) examples: usize,
    pub(super) epochs: usize,
}

/// Accuracies of another study: of its dense network, and by ratio.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    pub(super) source: String,
    /// The study's network, whose sizes follow from its rule.
    pub(super) arch: String,
    pub(super) dense: f64,
    pub(super) points: Vec<(f64, f64)>,
}

impl Settings {
    /// The head by the published protocol.
    pub(super) fn published_head(&self) -> TrainConfig {
        TrainConfig { epochs: self.published_epochs, ..self.head.clone() }
    }

    /// Whether whole networks are trained at `ratio`.
    pub(super) fn trains_whole(&self, ratio: f64) -> bool {
        self.whole_ratios.contains(&ratio)
    }

    /// Whether the weights are random ones, with which only the way is seen.
    pub(super) fn is_drawn(&self) -> bool {
        self.backbone == Origin::Published && self.weights == "drawn"
    }

    /// Accuracies that the study published at `ratio`.
    pub(super) fn published_at(&self, ratio: Option<f64>) -> Option<f64> {
        let Some(ratio) = ratio else { return Some(self.published.dense) };
        let found = self.published.points.iter().find(|(at, _)| (at - ratio).abs() < 1e-9);
        found.map(|(_, top1)| *top1)
    }

    /// Refuses what makes no sense.
    pub(super) fn check(&self) -> Result<()> {
        if self.backbone == Origin::Published && !self.is_drawn() {
            let file = cp_data::pretrained_file(&self.weights)?;
            if file.trained_on.iter().any(|set| set.split('/').next() == Some(&self.dataset)) {
                bail!(
                    "--arch {}: its weights were trained on {} itself, so there is nothing to transfer",
                    self.arch,
                    self.dataset
                );
            }
        }
        if self.ratios.is_empty() {
            bail!("--ratios: at least one is needed");
        }
        for rule in &self.whole_plans {
            if matches!(rule, Rule::Dense | Rule::Published) {
                bail!(
                    "whole_plans: {} is no plan of the sound protocol, which trains whole networks",
                    rule.name()
                );
            }
        }
        let plan = cp_plan::RankPlan::default();
        published_recipe(self, plan.clone(), 0).check(false)?;
        our_recipe(self, cp_train::Target::Ranks(plan), Vec::new(), 0).check(true)?;
        self.published_head().check()?;
        self.head.check()?;
        Ok(self.whole.check()?)
    }
}
