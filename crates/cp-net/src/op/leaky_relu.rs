//! Leaky rectified linear unit.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, finite};
use super::unary::each;

/// x where it is positive, else `slope` · x (Maas, Hannun & Ng 2013).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeakyRelu {
    /// Slope of the negative part; 0.01 where it is left out of a file.
    #[serde(default = "slope")]
    pub slope: f64,
}

fn slope() -> f64 {
    0.01
}

impl OpSpec for LeakyRelu {
    fn check(&self) -> Result<(), BadField> {
        finite("slope", self.slope)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        Ok(vec![inputs[0].to_vec()])
    }

    fn effect(&self) -> Effect {
        Effect::Rectifies
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        each(&inputs[0], |x| if x < 0.0 { self.slope * x } else { x })
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        Sample::new(Self { slope: draw.real(-0.5..=0.5) }, vec![draw.shape()])
    }
}
