//! Batch normalization.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, at_least,
    demand, mismatch,
};

/// Batch normalization over the channel axis, (x − μ) / √(σ² + ε) · γ + β.
///
/// # Shapes
/// `weight` γ, `bias` β, `running_mean` μ, `running_var` σ²: `[C]`; input and output `[C, …]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// Channels C; those of the input where it is left out of a file.
    #[serde(default)]
    pub channels: usize,
    /// Added to the variance; 1e-5 where it is left out of a file.
    #[serde(default = "eps")]
    pub eps: f64,
    /// Weight of the current batch in the running statistics; 0.1 where it is left out of a file.
    #[serde(default = "momentum")]
    pub momentum: f64,
}

pub(super) fn eps() -> f64 {
    1e-5
}

fn momentum() -> f64 {
    0.1
}

impl BatchNorm {
    /// With torch's constants: ε 1e-5, momentum 0.1.
    pub fn new(channels: usize) -> Self {
        Self { channels, eps: eps(), momentum: momentum() }
    }
}

impl OpSpec for BatchNorm {
    fn params(&self) -> Vec<ParamSpec> {
        let vector = |slot, role, start| ParamSpec::vector(slot, self.channels, role, start);
        vec![
            vector("weight", ParamRole::Bias, 1.0),
            vector("bias", ParamRole::Bias, 0.0),
            vector("running_mean", ParamRole::Buffer, 0.0),
            vector("running_var", ParamRole::Buffer, 1.0),
        ]
    }

    fn check(&self) -> Result<(), BadField> {
        at_least("channels", self.channels, 1)?;
        demand(self.eps > 0.0 && self.eps.is_finite(), "eps", self.eps, "a positive number")?;
        let fits = (0.0..=1.0).contains(&self.momentum);
        demand(fits, "momentum", self.momentum, "a number from 0 to 1")
    }

    fn complete(&mut self, inputs: &[&[usize]]) {
        if self.channels == 0 {
            self.channels = inputs[0].first().copied().unwrap_or(0);
        }
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        match inputs[0].first() {
            Some(&channels) if channels == self.channels => Ok(vec![inputs[0].to_vec()]),
            _ => mismatch(0, format!("[{}, …]", self.channels)),
        }
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
            let [gamma, beta, mean, var] = [0, 1, 2, 3].map(|i| f64::from(params[i][[at[1]]]));
            ((f64::from(inputs[0][at]) - mean) / (var + self.eps).sqrt() * gamma + beta) as f32
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let norm = Self { eps: draw.real(1e-5..=1e-1), ..Self::new(input[0]) };
        // Statistics are drawn from the same values, and a variance is not negative.
        Sample::new(norm, vec![input]).values(0.1, 1.0)
    }
}
