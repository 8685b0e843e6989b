//! [`Distillation`]: a compressed network learns from the outputs of the dense one.

#[cfg(feature = "torch")]
mod teacher;

use serde::{Deserialize, Serialize};

use crate::error::TrainError;
#[cfg(feature = "torch")]
pub(crate) use teacher::Teacher;

/// How much a network learns from its teacher, beside the labels.
///
/// The loss is (1 − w) H(y, p) + w T² KL(q_T ‖ p_T) + l · mean over the factorized layers of ‖z − z′‖² / ‖z′‖², with p and q the
/// softmax of the student's and the teacher's logits, p_T and q_T those of the logits divided by T, and z and z′ the outputs of
/// a layer in the student and in the teacher.
///
/// References: Hinton, Vinyals & Dean (2015), arXiv 1503.02531, §2 (logits); Romero et al. (2015), arXiv 1412.6550 (layers).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// w, 0…1: the part of the teacher's logits.
    pub weight: f64,
    /// T: larger values show more of how the teacher ranks the wrong classes.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
    /// l: the part of the outputs of the factorized layers, 0 for none.
    #[serde(default)]
    pub layers: f64,
}

fn default_temperature() -> f64 {
    4.0
}

impl Distillation {
    pub(crate) fn check(&self) -> Result<(), TrainError> {
        let need = |ok: bool, option, got: f64, expected| {
            if ok {
                Ok(())
            } else {
                Err(TrainError::Config { option, got: got.to_string(), expected })
            }
        };
        let (weight, temperature) = (self.weight, self.temperature);
        need((0.0..=1.0).contains(&weight), "distill.weight", weight, "a number from 0 to 1")?;
        need(
            temperature.is_finite() && temperature > 0.0,
            "distill.temperature",
            temperature,
            "a positive number",
        )?;
        let layers = self.layers;
        need(layers.is_finite() && layers >= 0.0, "distill.layers", layers, "0 or more")
    }
}
