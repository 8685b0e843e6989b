//! Layer normalization.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::moments::normalized;
use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, Start, demand,
    mismatch,
};

/// Normalization over the last axes, (x − μ) / √(σ² + ε) · γ + β (Ba, Kiros & Hinton 2016).
///
/// # Shapes
/// `weight` γ, `bias` β: `shape`; input and output `[…, shape]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNorm {
    /// Sizes of the last axes, which are normalized together.
    pub shape: Vec<usize>,
    /// Added to the variance; 1e-5 where it is left out of a file.
    #[serde(default = "super::batch_norm::eps")]
    pub eps: f64,
    /// Whether there is γ.
    #[serde(default = "super::conv::yes")]
    pub affine: bool,
    /// Whether there is β too.
    #[serde(default = "super::conv::yes")]
    pub bias: bool,
}

impl OpSpec for LayerNorm {
    fn params(&self) -> Vec<ParamSpec> {
        let spec = |slot, value| ParamSpec {
            slot,
            shape: self.shape.clone(),
            role: ParamRole::Bias,
            start: Start::Constant(value),
        };
        let mut specs = Vec::new();
        if self.affine {
            specs.push(spec("weight", 1.0));
            if self.bias {
                specs.push(spec("bias", 0.0));
            }
        }
        specs
    }

    fn check(&self) -> Result<(), BadField> {
        let fits = !self.shape.is_empty() && !self.shape.contains(&0);
        demand(fits, "shape", &self.shape, "one or more sizes of at least 1")?;
        demand(self.eps > 0.0 && self.eps.is_finite(), "eps", self.eps, "a positive number")
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        if inputs[0].ends_with(&self.shape) {
            return Ok(vec![inputs[0].to_vec()]);
        }
        mismatch(0, format!("the last sizes {:?}", self.shape))
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(
        &self,
        inputs: &[ArrayViewD<'_, f32>],
        params: &[ArrayViewD<'_, f32>],
    ) -> Vec<ArrayD<f32>> {
        let front = inputs[0].ndim() - self.shape.len();
        let of = |index: usize, at: &[usize], otherwise| {
            params.get(index).map_or(otherwise, |param| f64::from(param[&at[front..]]))
        };
        let affine = |at: &[usize]| (of(0, at, 1.0), of(1, at, 0.0));
        vec![normalized(&inputs[0], self.eps, |at| at[..front].to_vec(), affine)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let axes = draw.size(1..=4);
        let input = draw.sizes(axes, 2..=4);
        let from = draw.size(0..=axes - 1);
        let norm = Self {
            shape: input[from..].to_vec(),
            eps: draw.real(1e-3..=1e-1),
            affine: draw.flag(),
            bias: draw.flag(),
        };
        Sample::new(norm, vec![input])
    }
}
