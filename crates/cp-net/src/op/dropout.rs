//! Dropout.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, demand};

/// Dropout; the identity outside training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dropout {
    /// Probability of dropping a value.
    pub p: f64,
}

impl OpSpec for Dropout {
    fn check(&self) -> Result<(), BadField> {
        demand((0.0..1.0).contains(&self.p), "p", self.p, "a probability below 1")
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        Ok(vec![inputs[0].to_vec()])
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        vec![inputs[0].to_owned()]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        Sample::new(Dropout { p: draw.real(0.0..=0.9) }, vec![draw.shape()])
    }
}
