//! Hard sigmoid.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Mismatch, OpSpec, Sample, Shape, finite};
use super::unary::each;

/// min(max(`alpha` · x + `beta`, 0), 1).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HardSigmoid {
    /// Slope; 1/6 where it is left out of a file, as torch has it.
    #[serde(default = "alpha")]
    pub alpha: f64,
    /// Value at 0; 1/2 where it is left out of a file.
    #[serde(default = "beta")]
    pub beta: f64,
}

fn alpha() -> f64 {
    1.0 / 6.0
}

fn beta() -> f64 {
    0.5
}

impl OpSpec for HardSigmoid {
    fn check(&self) -> Result<(), BadField> {
        finite("alpha", self.alpha)?;
        finite("beta", self.beta)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        Ok(vec![inputs[0].to_vec()])
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        each(&inputs[0], |x| (self.alpha * x + self.beta).clamp(0.0, 1.0))
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let op = Self { alpha: draw.real(0.1..=0.5), beta: draw.real(0.2..=0.8) };
        Sample::new(op, vec![draw.shape()]).values(-4.0, 4.0)
    }
}
