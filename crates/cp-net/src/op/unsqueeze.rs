//! New axes of size 1.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::reshape::reshaped;
use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, demand, distinct, mismatch,
};

/// The input with axes of size 1 put in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unsqueeze {
    /// Where they are in the output, from 0 behind the batch axis.
    pub axes: Vec<usize>,
}

impl Unsqueeze {
    fn widened(&self, input: &[usize]) -> Shape {
        let mut sizes = input.iter().copied();
        let size = |axis| if self.axes.contains(&axis) { Some(1) } else { sizes.next() };
        (0..input.len() + self.axes.len()).map_while(size).collect()
    }
}

impl OpSpec for Unsqueeze {
    fn check(&self) -> Result<(), BadField> {
        demand(!self.axes.is_empty(), "axes", &self.axes, "one or more axes")?;
        distinct("axes", &self.axes)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let axes = inputs[0].len() + self.axes.len();
        match self.axes.iter().find(|axis| **axis >= axes) {
            Some(axis) => {
                let least = (axis - self.axes.len()).saturating_add(1);
                mismatch(0, format!("at least {least} axes for a new axis {axis}"))
            }
            None => Ok(vec![self.widened(inputs[0])]),
        }
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        vec![reshaped(&inputs[0], &self.widened(&inputs[0].shape()[1..]))]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let mut axes = Vec::new();
        for new in 1..=draw.size(1..=2) {
            let axis = draw.size(0..=input.len());
            // Behind the last axis of the output so far where there is one at this position.
            axes.push(if axes.contains(&axis) { input.len() + new - 1 } else { axis });
        }
        Sample::new(Unsqueeze { axes }, vec![input])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(axes: &[usize], expected: Result<&[usize], &str>) {
        let output = Unsqueeze { axes: axes.to_vec() }.output(&[&[2, 3]]);
        let output = output.map(|shapes| shapes[0].clone()).map_err(|error| error.expected);
        assert_eq!(output.as_deref().map_err(String::as_str), expected, "{axes:?}");
    }

    #[test]
    fn positions_are_those_of_the_output() {
        check(&[0], Ok(&[1, 2, 3]));
        check(&[1], Ok(&[2, 1, 3]));
        check(&[2], Ok(&[2, 3, 1]));
        check(&[0, 2], Ok(&[1, 2, 1, 3]));
        check(&[3, 1], Ok(&[2, 1, 3, 1]));
        check(&[2, 3], Ok(&[2, 3, 1, 1]));
        check(&[3], Err("at least 3 axes for a new axis 3"));
        check(&[0, 4], Err("at least 3 axes for a new axis 4"));
    }
}
