//! Several axes as one.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::reshape::reshaped;
use super::spec::{Draw, Effect, Mismatch, OpSpec, Sample, Shape, axes_of, mismatch, value_count};

/// All axes from one on as a single one.
///
/// # Shapes
/// `[…, A, B, …]` → `[…, A · B · …]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flatten {
    /// The first of them, from 0 behind the batch axis; 0, all axes, where it is left out of a file.
    #[serde(default)]
    pub axis: usize,
}

impl OpSpec for Flatten {
    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        axes_of(&[self.axis], inputs[0], 0)?;
        let (front, joined) = inputs[0].split_at(self.axis);
        match value_count(joined) {
            Some(size) => Ok(vec![[front, &[size]].concat()]),
            None => mismatch(0, "sizes of at least 1, and less than 2⁶³ values"),
        }
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let (front, joined) = inputs[0].shape()[1..].split_at(self.axis);
        vec![reshaped(&inputs[0], &[front, &[joined.iter().product()]].concat())]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        Sample::new(Flatten { axis: draw.size(0..=input.len() - 1) }, vec![input])
    }
}
