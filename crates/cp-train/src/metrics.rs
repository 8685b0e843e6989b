//! [`EpochMetrics`]: the figures of one epoch, as records and checkpoints keep them.

use serde::{Deserialize, Serialize};

use crate::evaluate::Evaluation;

/// Figures of one epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Learning rate of its last step.
    pub lr: f64,
    /// Mean training loss over its steps, label smoothing included, in nats per example.
    #[serde(with = "crate::finite")]
    pub train_loss: f64,
    /// Share of training examples classified right on the way, 0…1.
    pub train_top1: f64,
    /// The network on the validation data after the epoch.
    pub validation: Option<Evaluation>,
    /// Seconds of training, evaluation not included.
    pub seconds: f64,
}
