//! Concatenation along an axis.

use ndarray::{ArrayD, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

use super::spec::{Draw, Effect, Mismatch, OpSpec, Sample, Shape, axes_of, mismatch};

/// All inputs side by side along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concat {
    /// The axis, from 0 behind the batch axis: 0, the channels, where it is left out of a file.
    #[serde(default)]
    pub axis: usize,
}

impl OpSpec for Concat {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=usize::MAX
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let mut joined = inputs[0].to_vec();
        for (index, input) in inputs.iter().enumerate() {
            axes_of(&[self.axis], input, index)?;
            let alike = |(axis, size): (usize, &usize)| axis == self.axis || joined[axis] == *size;
            if input.len() != joined.len() || !input.iter().enumerate().all(alike) {
                return mismatch(
                    index,
                    format!(
                        "the sizes of the first input, {:?}, but along axis {}",
                        inputs[0], self.axis
                    ),
                );
            }
            if index > 0 {
                joined[self.axis] += input[self.axis];
            }
        }
        Ok(vec![joined])
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let batch = inputs.iter().map(|input| input.shape()[0]).max().unwrap_or(1);
        let repeated: Vec<ArrayViewD<'_, f32>> = inputs
            .iter()
            .filter_map(|input| {
                let mut shape = input.shape().to_vec();
                shape[0] = batch;
                input.broadcast(shape)
            })
            .collect();
        // The shapes were checked.
        vec![ndarray::concatenate(Axis(self.axis + 1), &repeated).unwrap_or_default()]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let shape = draw.shape();
        let axis = draw.size(0..=shape.len() - 1);
        let count = draw.size(2..=4);
        let inputs = (0..count).map(|_| {
            let mut input = shape.clone();
            input[axis] = draw.size(1..=4);
            input
        });
        Sample::new(Concat { axis }, inputs.collect())
    }
}
