//! Axes in another order.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, demand, mismatch};

/// The axes behind the batch axis in another order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transpose {
    /// Axis i of the output is axis `axes[i]` of the input, both from 0 behind the batch axis.
    pub axes: Vec<usize>,
}

impl OpSpec for Transpose {
    fn check(&self) -> Result<(), BadField> {
        let fits = (0..self.axes.len()).all(|axis| self.axes.contains(&axis));
        demand(fits, "axes", &self.axes, format!("every axis below {} once", self.axes.len()))
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        if inputs[0].len() != self.axes.len() {
            return mismatch(0, format!("{} axes behind the batch axis", self.axes.len()));
        }
        Ok(vec![self.axes.iter().map(|&axis| inputs[0][axis]).collect()])
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let axes: Vec<usize> =
            [0].into_iter().chain(self.axes.iter().map(|axis| axis + 1)).collect();
        vec![inputs[0].view().permuted_axes(axes).as_standard_layout().into_owned()]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let mut left: Vec<usize> = (0..input.len()).collect();
        let mut axes = Vec::new();
        while !left.is_empty() {
            axes.push(left.remove(draw.size(0..=left.len() - 1)));
        }
        Sample::new(Transpose { axes }, vec![input])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_takes_from_the_input() {
        let transpose = Transpose { axes: vec![2, 0, 1] };
        assert_eq!(transpose.output(&[&[3, 4, 5]]).unwrap(), [[5, 3, 4]]);
        let expected = "axes is [0, 2], expected every axis below 2 once";
        let error = Transpose { axes: vec![0, 2] }.check().unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
}
