//! Maximum over the whole map.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::adaptive::{largest, pooled};
use super::spec::{Draw, Mismatch, OpSpec, Sample, Shape, spatial};

/// Maximum of every channel over all spatial axes, which keep a size of 1.
///
/// # Shapes
/// Input `[C, H₀, …]`; output `[C, 1, …]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalMaxPool {}

impl OpSpec for GlobalMaxPool {
    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let axes = inputs[0].len().saturating_sub(1).max(1);
        spatial(inputs[0], axes)?;
        Ok(vec![[vec![inputs[0][0]], vec![1; axes]].concat()])
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let output = vec![1; inputs[0].ndim() - 2];
        vec![pooled(&inputs[0], &output, largest)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let axes = draw.size(2..=4);
        Sample::new(Self {}, vec![draw.sizes(axes, 1..=5)])
    }
}
