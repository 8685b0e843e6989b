//! Fully connected layer.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Mismatch, OpSpec, ParamSpec, Sample, Shape, at_least, mismatch};

/// A fully connected layer over the last axis, x Wᵀ + b; all axes in front of it are treated alike.
///
/// # Shapes
/// `weight`: `[out, in]`; `bias`: `[out]`; input `[…, in]`; output `[…, out]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Input features; those of the input where it is left out of a file.
    #[serde(default)]
    pub in_features: usize,
    /// Output features.
    pub out_features: usize,
    /// Whether the layer adds a bias.
    #[serde(default = "super::conv::yes")]
    pub bias: bool,
}

impl OpSpec for Linear {
    fn params(&self) -> Vec<ParamSpec> {
        let mut specs = vec![ParamSpec::weight(vec![self.out_features, self.in_features])];
        if self.bias {
            specs.push(ParamSpec::bias(self.out_features));
        }
        specs
    }

    fn check(&self) -> Result<(), BadField> {
        at_least("in_features", self.in_features, 1)?;
        at_least("out_features", self.out_features, 1)
    }

    fn complete(&mut self, inputs: &[&[usize]]) {
        if self.in_features == 0 {
            self.in_features = inputs[0].last().copied().unwrap_or(0);
        }
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        match inputs[0] {
            [front @ .., features] if *features == self.in_features => {
                Ok(vec![[front, &[self.out_features]].concat()])
            }
            [_] | [] => mismatch(0, format!("[{}]", self.in_features)),
            _ => mismatch(0, format!("[…, {}]", self.in_features)),
        }
    }

    fn macs(&self, _inputs: &[&[usize]], outputs: &[Shape]) -> usize {
        outputs[0].iter().product::<usize>() * self.in_features
    }

    fn eval(
        &self,
        inputs: &[ArrayViewD<'_, f32>],
        params: &[ArrayViewD<'_, f32>],
    ) -> Vec<ArrayD<f32>> {
        let (x, weight) = (&inputs[0], &params[0]);
        let last = x.ndim() - 1;
        let mut shape = x.shape().to_vec();
        shape[last] = self.out_features;
        vec![ArrayD::from_shape_fn(shape, |at| {
            let mut at = ndarray::Dimension::slice(&at).to_vec();
            let output = at[last];
            let mut sum = params.get(1).map_or(0.0, |bias| f64::from(bias[[output]]));
            for feature in 0..self.in_features {
                at[last] = feature;
                sum += f64::from(x[at.as_slice()]) * f64::from(weight[[output, feature]]);
            }
            sum as f32
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let linear = Linear {
            in_features: input[input.len() - 1],
            out_features: draw.size(1..=5),
            bias: draw.flag(),
        };
        Sample::new(linear, vec![input])
    }
}
