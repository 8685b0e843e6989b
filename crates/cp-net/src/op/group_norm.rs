//! Group normalization.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::moments::normalized;
use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, at_least,
    demand, mismatch,
};

/// Normalization of groups of neighboring channels of every example, (x − μ) / √(σ² + ε) · γ + β (Wu & He 2018).
///
/// # Shapes
/// `weight` γ, `bias` β: `[C]`; input and output `[C, …]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupNorm {
    /// Number of groups.
    pub groups: usize,
    /// Channels C; those of the input where it is left out of a file.
    #[serde(default)]
    pub channels: usize,
    /// Added to the variance; 1e-5 where it is left out of a file.
    #[serde(default = "super::batch_norm::eps")]
    pub eps: f64,
    /// Whether there are γ and β.
    #[serde(default = "super::conv::yes")]
    pub affine: bool,
}

impl OpSpec for GroupNorm {
    fn params(&self) -> Vec<ParamSpec> {
        if !self.affine {
            return Vec::new();
        }
        let weight = ParamSpec::vector("weight", self.channels, ParamRole::Bias, 1.0);
        vec![weight, ParamSpec::bias(self.channels)]
    }

    fn check(&self) -> Result<(), BadField> {
        at_least("channels", self.channels, 1)?;
        at_least("groups", self.groups, 1)?;
        let fits = self.channels.is_multiple_of(self.groups);
        let expected = format!("a multiple of the {} groups", self.groups);
        demand(fits, "channels", self.channels, expected)?;
        demand(self.eps > 0.0 && self.eps.is_finite(), "eps", self.eps, "a positive number")
    }

    fn complete(&mut self, inputs: &[&[usize]]) {
        if self.channels == 0 {
            self.channels = inputs[0].first().copied().unwrap_or(0);
        }
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        match inputs[0] {
            [channels, ..] if *channels == self.channels => Ok(vec![inputs[0].to_vec()]),
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
        let affine = |at: &[usize]| match params {
            [gamma, beta] => (f64::from(gamma[[at[1]]]), f64::from(beta[[at[1]]])),
            _ => (1.0, 0.0),
        };
        let members = self.channels / self.groups;
        vec![normalized(&inputs[0], self.eps, |at| vec![at[0], at[1] / members], affine)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let axes = draw.size(1..=3);
        let groups = draw.size(1..=3);
        let channels = groups * draw.size(1..=3);
        let norm = Self { groups, channels, eps: draw.real(1e-3..=1e-1), affine: draw.flag() };
        Sample::new(norm, vec![[vec![channels], draw.sizes(axes, 2..=4)].concat()])
    }
}
