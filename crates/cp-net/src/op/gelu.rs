//! Gaussian error linear unit.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{Draw, Effect, Mismatch, OpSpec, Sample, Shape};
use super::unary::each;

/// x · Φ(x), where Φ is the distribution function of the normal distribution (Hendrycks & Gimpel 2016).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gelu {
    /// Whether Φ is approximated: x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))).
    #[serde(default)]
    pub tanh: bool,
}

impl OpSpec for Gelu {
    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        Ok(vec![inputs[0].to_vec()])
    }

    fn effect(&self) -> Effect {
        Effect::Rectifies
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        each(&inputs[0], |x| {
            let erf = if self.tanh {
                ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()
            } else {
                libm::erf(x / std::f64::consts::SQRT_2)
            };
            0.5 * x * (1.0 + erf)
        })
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        Sample::new(Self { tanh: draw.flag() }, vec![draw.shape()]).values(-4.0, 4.0)
    }
}
