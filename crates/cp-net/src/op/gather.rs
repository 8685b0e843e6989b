//! Picking along an axis.

use ndarray::{ArrayD, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, axes_of, demand, mismatch, value_count,
};

/// These positions along an axis, in this order; one may come several times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gather {
    /// The axis, from 0 behind the batch axis.
    pub axis: usize,
    /// The positions.
    pub indices: Vec<usize>,
}

impl OpSpec for Gather {
    fn check(&self) -> Result<(), BadField> {
        demand(!self.indices.is_empty(), "indices", &self.indices, "one or more positions")
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        axes_of(&[self.axis], inputs[0], 0)?;
        let size = inputs[0][self.axis];
        if let Some(index) = self.indices.iter().find(|index| **index >= size) {
            return mismatch(0, format!("a position {index} along axis {}", self.axis));
        }
        let mut output = inputs[0].to_vec();
        output[self.axis] = self.indices.len();
        match value_count(&output) {
            Some(_) => Ok(vec![output]),
            None => mismatch(0, "fewer values: the output has 2⁶³ or more"),
        }
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        vec![inputs[0].select(Axis(self.axis + 1), &self.indices)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let axis = draw.size(0..=input.len() - 1);
        let count = draw.size(1..=6);
        let indices = draw.sizes(count, 0..=input[axis] - 1);
        Sample::new(Gather { axis, indices }, vec![input])
    }
}
