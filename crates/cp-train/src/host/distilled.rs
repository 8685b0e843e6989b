//! [`Distilled`]: what a distillation made.

use cp_onnx::Model;
use serde::{Deserialize, Serialize};

/// Figures of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DistilledEpoch {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Learning rate of its last step.
    pub lr: f64,
    /// Mean loss over its steps.
    pub loss: f64,
    /// The root of the loss of the outputs on the examples that nothing is trained on: 0 for equal outputs, 1 for constant ones.
    pub held: f64,
    /// Seconds of training.
    pub seconds: f64,
}

/// What distillation made.
#[derive(Debug, Clone)]
pub struct Distilled {
    /// The compressed model with trained weights.
    pub model: Model,
    /// As [`DistilledEpoch::held`], before the first epoch.
    pub before: f64,
    /// Figures of every epoch.
    pub epochs: Vec<DistilledEpoch>,
    /// The epoch whose weights the model has; `None` where all were worse than before.
    pub kept: Option<usize>,
    /// What was not trained, and why, in words.
    pub notes: Vec<String>,
}

#[cfg(not(feature = "torch"))]
impl super::Host {
    /// Refuses: training is libtorch's.
    ///
    /// # Errors
    /// [`TrainError::NeedsLibtorch`](crate::TrainError::NeedsLibtorch).
    pub fn distill(
        &self,
        _compressed: &cp_net::Network,
        _config: &crate::TrainConfig,
        _stages: &crate::Stages,
    ) -> Result<Distilled, crate::TrainError> {
        Err(crate::libtorch::refused(crate::libtorch::FINE_TUNING))
    }
}
