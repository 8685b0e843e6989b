//! Maximum pooling to a fixed size.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::adaptive::{largest, pooled};
use super::spec::{BadField, Draw, Mismatch, OpSpec, Sample, Shape, per_axis, spatial};

/// Maximum over windows that split each axis evenly: window i of n over size s is ⌊i·s/n⌋ … ⌈(i+1)·s/n⌉.
///
/// # Shapes
/// Input `[C, H₀, …]`; output `[C, output]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdaptiveMaxPool {
    /// Output size of each spatial axis.
    pub output: Vec<usize>,
}

impl OpSpec for AdaptiveMaxPool {
    fn check(&self) -> Result<(), BadField> {
        per_axis("output", &self.output, self.output.len().max(1), true)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        spatial(inputs[0], self.output.len())?;
        Ok(vec![[&inputs[0][..1], &self.output].concat()])
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        vec![pooled(&inputs[0], &self.output, largest)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let axes = draw.size(1..=3);
        let input = draw.sizes(axes + 1, 1..=6);
        Sample::new(Self { output: draw.sizes(axes, 1..=4) }, vec![input])
    }
}
