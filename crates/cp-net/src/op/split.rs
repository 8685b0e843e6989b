//! Splitting along an axis.

use ndarray::{ArrayD, ArrayViewD, Axis, Slice};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Mismatch, OpSpec, Sample, Shape, axes_of, demand, mismatch};

/// The input cut along an axis into several outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The axis that is cut, from 0 behind the batch axis.
    pub axis: usize,
    /// Sizes of the parts; they add up to that of the axis.
    pub sizes: Vec<usize>,
}

impl OpSpec for Split {
    fn output_count(&self) -> usize {
        self.sizes.len()
    }

    fn check(&self) -> Result<(), BadField> {
        let fits = !self.sizes.is_empty() && !self.sizes.contains(&0);
        demand(fits, "sizes", &self.sizes, "one or more sizes of at least 1")
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        axes_of(&[self.axis], inputs[0], 0)?;
        let whole: usize = self.sizes.iter().sum();
        if inputs[0][self.axis] != whole {
            return mismatch(0, format!("{whole} values along axis {}", self.axis));
        }
        let part = |&size: &usize| {
            let mut shape = inputs[0].to_vec();
            shape[self.axis] = size;
            shape
        };
        Ok(self.sizes.iter().map(part).collect())
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let mut start = 0;
        let part = |&size: &usize| {
            let range = Slice::from(start..start + size);
            start += size;
            inputs[0].slice_axis(Axis(self.axis + 1), range).to_owned()
        };
        self.sizes.iter().map(part).collect()
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let mut input = draw.shape();
        let axis = draw.size(0..=input.len() - 1);
        let parts = draw.size(1..=3);
        let sizes = draw.sizes(parts, 1..=3);
        input[axis] = sizes.iter().sum();
        Sample::new(Split { axis, sizes }, vec![input])
    }
}
