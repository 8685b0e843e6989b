//! [`TrainConfig`]: everything that decides what a training run computes, as data.

use serde::{Deserialize, Serialize};

use crate::distill::Distillation;
use crate::error::TrainError;

/// A training run. Two runs with equal configurations, data and thread counts give the same weights on the CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training set.
    pub epochs: usize,
    /// Examples per step.
    pub batch_size: usize,
    /// Update rule.
    pub optimizer: OptimizerConfig,
    /// Peak learning rate, per step (not per example).
    pub lr: f64,
    /// How the learning rate falls from its peak.
    pub schedule: Schedule,
    /// Epochs, possibly fractional, in which the learning rate rises linearly from 0 to its peak.
    #[serde(default)]
    pub warmup_epochs: f64,
    /// Share of the target probability that is spread evenly over all classes (Szegedy et al. 2016).
    #[serde(default)]
    pub label_smoothing: f64,
    /// Largest Euclidean norm of the gradient over all parameters; larger gradients are scaled down.
    #[serde(default)]
    pub clip_norm: Option<f64>,
    /// The penalty l1·Σ|λ| on the weights λ of the terms of every [`CpConv`](cp_net::CpConv) that has them, by which terms that do little become
    /// exactly 0; none where absent. [`Network::prune_terms`](cp_net::Network::prune_terms) takes those out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l1: Option<f64>,
    /// Random changes to training images.
    #[serde(default)]
    pub augmentation: Augmentation,
    /// Learning rates of parts of the network relative to `lr`; the first group that fits a parameter counts.
    #[serde(default)]
    pub groups: Vec<ParamGroup>,
    /// What is learned from the dense network beside the labels ([`train_from`](crate::train_from)).
    #[serde(default)]
    pub distill: Option<Distillation>,
    /// Stop after so many epochs without a better validation accuracy; all epochs where absent.
    #[serde(default)]
    pub patience: Option<usize>,
    /// End with the weights of the epoch of the best validation accuracy (of equals, that of the lowest loss) and not with the
    /// last ones.
    #[serde(default)]
    pub keep_best: bool,
    /// Seed of the order of examples, of augmentation and of dropout.
    pub seed: u64,
    /// Threads that prepare images. The result does not depend on it.
    #[serde(default = "default_workers")]
    pub workers: usize,
}

fn default_workers() -> usize {
    2
}

/// An update rule and its constants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum, as torch defines it.
    Sgd {
        /// Share of the previous update that is kept.
        momentum: f64,
        /// Nesterov's variant.
        nesterov: bool,
        /// λ of the penalty λ/2·‖w‖² on weights (not on biases and normalizations).
        weight_decay: f64,
        /// The penalty on biases and normalizations too, as torch has it where an optimizer is given all parameters as one group.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        decay_all: bool,
    },
    /// Adam (Kingma & Ba 2015, algorithm 1).
    Adam {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the root of the squared mean.
        eps: f64,
        /// Decoupled weight decay per step and unit of learning rate (Loshchilov & Hutter 2019).
        weight_decay: f64,
    },
}

impl OptimizerConfig {
    /// SGD with momentum 0.9, Nesterov's variant, and the given weight decay.
    pub fn sgd(weight_decay: f64) -> Self {
        Self::Sgd { momentum: 0.9, nesterov: true, weight_decay, decay_all: false }
    }

    /// Adam with the constants of its paper and no weight decay.
    pub fn adam() -> Self {
        Self::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

/// How the learning rate changes after the warm-up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// It stays.
    Constant,
    /// Half a cosine down to zero (Loshchilov & Hutter 2017).
    Cosine,
    /// Multiplied by `gamma` at the start of each of the `epochs`.
    Step {
        /// Epochs, from 0, in rising order.
        epochs: Vec<usize>,
        /// Factor.
        gamma: f64,
    },
}

/// Random changes to training images, drawn anew for every example and epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// Mirror half of the images left to right.
    #[serde(default)]
    pub flip: bool,
    /// Add this many pixels of zeros on every side and crop back at a random place.
    #[serde(default)]
    pub crop_padding: usize,
}

/// The random changes that the manifest of the data set `name` allows; none for sets without a manifest.
pub fn augmentation_of(name: &str) -> Augmentation {
    let cp_data::ImageChanges { flip, crop_padding } = cp_data::augmentation(name);
    Augmentation { flip, crop_padding }
}

/// A part of the network with a learning rate of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParamGroup {
    /// Beginning of the parameter names.
    pub prefix: String,
    /// Learning rate relative to [`TrainConfig::lr`].
    pub lr_scale: f64,
}

impl TrainConfig {
    /// Settings for a compressed network: SGD with momentum at a rate of 0.02 that falls by a cosine, batches of 128, weight
    /// decay 5e-4, gradients of norm 5 at most, the weights of the best epoch, seed 0; nothing is augmented or distilled.
    ///
    /// The rate is a tenth of what these networks are trained with: factors multiply, and at the full rate the first steps throw
    /// away what the decomposition has kept (Lebedev et al. 2015, §5).
    pub fn fine_tuning(epochs: usize) -> Self {
        Self {
            epochs,
            batch_size: 128,
            optimizer: OptimizerConfig::sgd(5e-4),
            lr: 0.02,
            schedule: Schedule::Cosine,
            warmup_epochs: 0.5_f64.min(0.1 * epochs as f64),
            label_smoothing: 0.0,
            clip_norm: Some(5.0),
            l1: None,
            augmentation: Augmentation::default(),
            groups: Vec::new(),
            distill: None,
            patience: None,
            keep_best: true,
            seed: 0,
            workers: default_workers(),
        }
    }

    /// Settings to learn from a dense model without labels ([`Host::distill`](crate::Host::distill)): Adam at a rate of 0.001 that falls by a
    /// cosine, batches of 8, the outputs of the layers as much as those of the model, the weights of the best epoch.
    pub fn distilling(epochs: usize) -> Self {
        Self {
            batch_size: 8,
            optimizer: OptimizerConfig::adam(),
            lr: 1e-3,
            distill: Some(Distillation { weight: 1.0, temperature: 1.0, layers: 1.0 }),
            ..Self::fine_tuning(epochs)
        }
    }

    /// The learning-rate factor of the parameter `name`.
    pub fn lr_scale(&self, name: &str) -> f64 {
        self.groups
            .iter()
            .find(|group| name.starts_with(&group.prefix))
            .map_or(1.0, |group| group.lr_scale)
    }

    /// Whether the values make sense.
    ///
    /// # Errors
    /// [`TrainError::Config`] for the first that does not.
    pub fn check(&self) -> Result<(), TrainError> {
        let need = |ok: bool, option, got: String, expected| {
            if ok { Ok(()) } else { Err(TrainError::Config { option, got, expected }) }
        };
        let positive = |x: f64| x.is_finite() && x > 0.0;
        need(self.batch_size > 0, "batch_size", self.batch_size.to_string(), "at least 1")?;
        need(positive(self.lr), "lr", self.lr.to_string(), "a positive number")?;
        need(
            self.warmup_epochs.is_finite() && self.warmup_epochs >= 0.0,
            "warmup_epochs",
            self.warmup_epochs.to_string(),
            "0 or more",
        )?;
        need(
            (0.0..1.0).contains(&self.label_smoothing),
            "label_smoothing",
            self.label_smoothing.to_string(),
            "0 up to, not including, 1",
        )?;
        need(
            self.clip_norm.is_none_or(positive),
            "clip_norm",
            format!("{:?}", self.clip_norm),
            "a positive number",
        )?;
        need(
            self.l1.is_none_or(|l1| l1.is_finite() && l1 >= 0.0),
            "l1",
            format!("{:?}", self.l1),
            "0 or more",
        )?;
        if let Some(distill) = &self.distill {
            distill.check()?;
        }
        need(self.patience != Some(0), "patience", "0".into(), "at least 1 epoch")?;
        for group in &self.groups {
            need(
                group.lr_scale.is_finite() && group.lr_scale >= 0.0,
                "groups.lr_scale",
                group.lr_scale.to_string(),
                "0 or more",
            )?;
        }
        match &self.optimizer {
            OptimizerConfig::Sgd { momentum, nesterov, weight_decay, decay_all: _ } => {
                need(
                    (0.0..1.0).contains(momentum),
                    "momentum",
                    momentum.to_string(),
                    "0 up to, not including, 1",
                )?;
                need(
                    !nesterov || *momentum > 0.0,
                    "nesterov",
                    "true".into(),
                    "false where momentum is 0",
                )?;
                need(*weight_decay >= 0.0, "weight_decay", weight_decay.to_string(), "0 or more")?;
            }
            OptimizerConfig::Adam { beta1, beta2, eps, weight_decay } => {
                need(
                    (0.0..1.0).contains(beta1),
                    "beta1",
                    beta1.to_string(),
                    "0 up to, not including, 1",
                )?;
                need(
                    (0.0..1.0).contains(beta2),
                    "beta2",
                    beta2.to_string(),
                    "0 up to, not including, 1",
                )?;
                need(positive(*eps), "eps", eps.to_string(), "a positive number")?;
                need(*weight_decay >= 0.0, "weight_decay", weight_decay.to_string(), "0 or more")?;
            }
        }
        if let Schedule::Step { epochs, gamma } = &self.schedule {
            need(
                epochs.is_sorted(),
                "schedule.epochs",
                format!("{epochs:?}"),
                "epochs in rising order",
            )?;
            need(positive(*gamma), "schedule.gamma", gamma.to_string(), "a positive number")?;
        }
        Ok(())
    }
}
