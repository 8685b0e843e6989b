//! Softmax.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::log_softmax::log_softmax;
use super::spec::{Draw, Mismatch, OpSpec, Sample, Shape, axes_of};

/// exp(x) / Σ exp(x) along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Softmax {
    /// The axis, from 0 behind the batch axis: 0, the channels, where it is left out of a file.
    #[serde(default)]
    pub axis: usize,
}

impl OpSpec for Softmax {
    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        axes_of(&[self.axis], inputs[0], 0)?;
        Ok(vec![inputs[0].to_vec()])
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        vec![log_softmax(&inputs[0], self.axis).mapv(|log| log.exp() as f32)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let axis = draw.size(0..=input.len() - 1);
        Sample::new(Softmax { axis }, vec![input]).values(-3.0, 3.0)
    }
}
