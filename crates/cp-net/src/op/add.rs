//! Sum.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

use super::broadcast::{broadcast, fold, sample_shapes};
use super::spec::{Draw, Effect, Mismatch, OpSpec, Sample, Shape};

/// Sum of all inputs, broadcast against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {}

impl OpSpec for Add {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=usize::MAX
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        broadcast(inputs)
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        fold(inputs, |a, b| a + b)
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let count = draw.size(2..=4);
        Sample::new(Self {}, sample_shapes(draw, count))
    }
}
