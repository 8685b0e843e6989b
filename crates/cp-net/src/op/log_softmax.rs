//! Logarithm of softmax.

use ndarray::{ArrayD, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};

use super::spec::{Draw, Mismatch, OpSpec, Sample, Shape, axes_of};

/// x − ln Σ exp(x) along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSoftmax {
    /// The axis, from 0 behind the batch axis: 0, the channels, where it is left out of a file.
    #[serde(default)]
    pub axis: usize,
}

/// x − ln Σ exp(x) along `axis` behind the batch axis. The largest x is taken off first: no exponential is above 1.
pub(super) fn log_softmax(x: &ArrayViewD<'_, f32>, axis: usize) -> ArrayD<f64> {
    let mut logs = x.mapv(f64::from);
    for mut lane in logs.lanes_mut(Axis(axis + 1)) {
        let most = lane.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = lane.iter().map(|x| (x - most).exp()).sum();
        lane.mapv_inplace(|x| x - most - sum.ln());
    }
    logs
}

impl OpSpec for LogSoftmax {
    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        axes_of(&[self.axis], inputs[0], 0)?;
        Ok(vec![inputs[0].to_vec()])
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        vec![log_softmax(&inputs[0], self.axis).mapv(|log| log as f32)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let axis = draw.size(0..=input.len() - 1);
        Sample::new(LogSoftmax { axis }, vec![input]).values(-3.0, 3.0)
    }
}
