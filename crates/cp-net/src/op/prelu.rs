//! Parametric rectified linear unit.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, at_least,
    mismatch,
};

/// x where it is positive, else a trained slope times x (He et al. 2015).
///
/// # Shapes
/// `weight`: `[channels]`, one slope for each channel (axis 0) or one for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PRelu {
    /// Number of slopes: 1, or that of the channels; the latter where it is left out of a file.
    #[serde(default)]
    pub channels: usize,
}

impl OpSpec for PRelu {
    fn params(&self) -> Vec<ParamSpec> {
        vec![ParamSpec::vector("weight", self.channels, ParamRole::Bias, 0.25)]
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
        if self.channels == 1 || inputs[0].first() == Some(&self.channels) {
            return Ok(vec![inputs[0].to_vec()]);
        }
        mismatch(0, format!("[{}, …]", self.channels))
    }

    fn effect(&self) -> Effect {
        Effect::Rectifies
    }

    fn eval(
        &self,
        inputs: &[ArrayViewD<'_, f32>],
        params: &[ArrayViewD<'_, f32>],
    ) -> Vec<ArrayD<f32>> {
        vec![ArrayD::from_shape_fn(inputs[0].raw_dim(), |at| {
            let channel = if self.channels == 1 { 0 } else { at[1] };
            let x = inputs[0][at];
            if x < 0.0 { x * params[0][[channel]] } else { x }
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let channels = if draw.flag() { 1 } else { input[0] };
        Sample::new(Self { channels }, vec![input])
    }
}
