//! Maxout.

use ndarray::{ArrayD, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Mismatch, OpSpec, Sample, Shape, at_least, mismatch};

/// Maximum over groups of `pieces` neighboring channels (Goodfellow et al. 2013).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maxout {
    /// Channels of each group.
    pub pieces: usize,
}

impl OpSpec for Maxout {
    fn check(&self) -> Result<(), BadField> {
        at_least("pieces", self.pieces, 1)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        match inputs[0] {
            [channels, rest @ ..] if channels.is_multiple_of(self.pieces) => {
                Ok(vec![[&[channels / self.pieces], rest].concat()])
            }
            _ => mismatch(0, format!("a multiple of {} channels", self.pieces)),
        }
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let mut shape = inputs[0].shape().to_vec();
        shape[1] /= self.pieces;
        let mut y = ArrayD::from_elem(shape, f32::NEG_INFINITY);
        for (channel, map) in inputs[0].axis_iter(Axis(1)).enumerate() {
            let mut best = y.index_axis_mut(Axis(1), channel / self.pieces);
            best.zip_mut_with(&map, |y, &x| *y = y.max(x));
        }
        vec![y]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let mut input = draw.shape();
        let pieces = draw.size(1..=4);
        input[0] *= pieces;
        Sample::new(Maxout { pieces }, vec![input])
    }
}
