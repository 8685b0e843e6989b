//! Axes of size 1 away.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::reshape::reshaped;
use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, axes_of, demand, distinct, mismatch,
};

/// The input without some of its axes of size 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Squeeze {
    /// The axes that go, from 0 behind the batch axis.
    pub axes: Vec<usize>,
}

impl Squeeze {
    fn left(&self, input: &[usize]) -> Shape {
        let stays = |&axis: &usize| !self.axes.contains(&axis);
        (0..input.len()).filter(stays).map(|axis| input[axis]).collect()
    }
}

impl OpSpec for Squeeze {
    fn check(&self) -> Result<(), BadField> {
        demand(!self.axes.is_empty(), "axes", &self.axes, "one or more axes")?;
        distinct("axes", &self.axes)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        axes_of(&self.axes, inputs[0], 0)?;
        match self.axes.iter().find(|axis| inputs[0][**axis] != 1) {
            Some(axis) => mismatch(0, format!("size 1 along axis {axis}")),
            None => Ok(vec![self.left(inputs[0])]),
        }
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        vec![reshaped(&inputs[0], &self.left(&inputs[0].shape()[1..]))]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let mut input = draw.shape();
        let first = draw.size(0..=input.len() - 1);
        // In any order.
        let mut axes = vec![first];
        axes.extend((0..input.len()).filter(|&axis| axis != first && draw.flag()));
        for &axis in &axes {
            input[axis] = 1;
        }
        Sample::new(Squeeze { axes }, vec![input])
    }
}
