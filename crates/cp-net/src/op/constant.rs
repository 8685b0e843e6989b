//! A value of the network's own.

use std::ops::RangeInclusive;

use ndarray::{ArrayD, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, Start, demand,
    value_count,
};

/// Values that no input has to do with: the same for every example.
///
/// # Shapes
/// `value` and output: `shape`, with a batch of 1 in front of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// Sizes of the axes behind the batch axis.
    pub shape: Shape,
    /// Whether training changes it (it is a bias then); no, where it is left out of a file.
    #[serde(default)]
    pub trained: bool,
}

impl OpSpec for Constant {
    fn arity(&self) -> RangeInclusive<usize> {
        0..=0
    }

    fn params(&self) -> Vec<ParamSpec> {
        vec![ParamSpec {
            slot: "value",
            shape: self.shape.clone(),
            role: if self.trained { ParamRole::Bias } else { ParamRole::Buffer },
            start: Start::Constant(0.0),
        }]
    }

    fn check(&self) -> Result<(), BadField> {
        let fits = value_count(&self.shape).is_some();
        demand(fits, "shape", &self.shape, "sizes of at least 1, and less than 2⁶³ values")
    }

    fn output(&self, _inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        Ok(vec![self.shape.clone()])
    }

    fn eval(
        &self,
        _inputs: &[ArrayViewD<'_, f32>],
        params: &[ArrayViewD<'_, f32>],
    ) -> Vec<ArrayD<f32>> {
        vec![params[0].to_owned().insert_axis(Axis(0))]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        Sample::new(Constant { shape: draw.shape(), trained: draw.flag() }, Vec::new())
    }
}
