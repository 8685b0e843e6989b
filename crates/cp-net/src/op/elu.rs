//! Exponential linear unit.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, finite};
use super::unary::each;

/// x where it is positive, else `alpha` · (e^x − 1) (Clevert, Unterthiner & Hochreiter 2016).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elu {
    /// What it comes to for very negative values; 1 where it is left out of a file.
    #[serde(default = "alpha")]
    pub alpha: f64,
}

fn alpha() -> f64 {
    1.0
}

impl OpSpec for Elu {
    fn check(&self) -> Result<(), BadField> {
        finite("alpha", self.alpha)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        Ok(vec![inputs[0].to_vec()])
    }

    fn effect(&self) -> Effect {
        Effect::Rectifies
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        each(&inputs[0], |x| if x < 0.0 { self.alpha * x.exp_m1() } else { x })
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        Sample::new(Self { alpha: draw.real(0.1..=2.0) }, vec![draw.shape()])
    }
}
