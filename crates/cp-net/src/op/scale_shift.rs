//! A scale and a shift for every channel.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, at_least,
    mismatch,
};

/// x · weight + bias for every channel: what a batch norm becomes where it can be folded into no neighbor.
///
/// # Shapes
/// `weight`, `bias`: `[C]`; input and output `[C, …]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleShift {
    /// Channels C; those of the input where it is left out of a file.
    #[serde(default)]
    pub channels: usize,
}

impl OpSpec for ScaleShift {
    fn params(&self) -> Vec<ParamSpec> {
        let weight = ParamSpec::vector("weight", self.channels, ParamRole::Bias, 1.0);
        vec![weight, ParamSpec::bias(self.channels)]
    }

    fn check(&self) -> Result<(), BadField> {
        at_least("channels", self.channels, 1)
    }

    fn complete(&mut self, inputs: &[&[usize]]) {
        if self.channels == 0 {
            self.channels = inputs[0].first().copied().unwrap_or(0);
        }
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        if inputs[0].first() == Some(&self.channels) {
            return Ok(vec![inputs[0].to_vec()]);
        }
        mismatch(0, format!("[{}, …]", self.channels))
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(
        &self,
        inputs: &[ArrayViewD<'_, f32>],
        params: &[ArrayViewD<'_, f32>],
    ) -> Vec<ArrayD<f32>> {
        vec![ArrayD::from_shape_fn(inputs[0].raw_dim(), |at| {
            let channel = at[1];
            let (scale, shift) = (params[0][[channel]], params[1][[channel]]);
            (f64::from(inputs[0][at]) * f64::from(scale) + f64::from(shift)) as f32
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        Sample::new(Self { channels: input[0] }, vec![input])
    }
}
