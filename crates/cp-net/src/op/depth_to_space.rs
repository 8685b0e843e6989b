//! Channels to pixels.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, demand, mismatch, spatial,
};

/// Every block² channels as a block of block × block pixels (Shi et al. 2016, "pixel shuffle").
///
/// # Shapes
/// `[C · block², H, W]` → `[C, H · block, W · block]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DepthToSpace {
    /// Side of a block, in pixels.
    pub block: usize,
    /// Order of the input's channels; `column_first` where it is left out of a file.
    #[serde(default)]
    pub mode: ChannelOrder,
}

/// Which of the input's channels is channel c at pixel (i, j) of a block of [`DepthToSpace`], of C channels and blocks of side b.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelOrder {
    /// (i · b + j) · C + c: ONNX's `DCR`, TensorFlow.
    DepthFirst,
    /// c · b² + i · b + j: ONNX's `CRD`, torch's `pixel_shuffle`.
    #[default]
    ColumnFirst,
}

impl OpSpec for DepthToSpace {
    fn check(&self) -> Result<(), BadField> {
        let fits = self.block > 0 && self.block.checked_mul(self.block).is_some();
        demand(fits, "block", self.block, "at least 1, with a square below 2⁶⁴")
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        spatial(inputs[0], 2)?;
        let (block, pixels) = (self.block, self.block * self.block);
        let [channels, height, width] = [0, 1, 2].map(|axis| inputs[0][axis]);
        if !channels.is_multiple_of(pixels) {
            return mismatch(0, format!("a multiple of {pixels} channels"));
        }
        let sizes = [height, width].map(|size| size.saturating_mul(block));
        Ok(vec![vec![channels / pixels, sizes[0], sizes[1]]])
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let (x, block) = (&inputs[0], self.block);
        let channels = x.shape()[1] / (block * block);
        let shape = vec![x.shape()[0], channels, x.shape()[2] * block, x.shape()[3] * block];
        vec![ArrayD::from_shape_fn(shape, |at| {
            let pixel = at[2] % block * block + at[3] % block;
            let channel = match self.mode {
                ChannelOrder::DepthFirst => pixel * channels + at[1],
                ChannelOrder::ColumnFirst => at[1] * block * block + pixel,
            };
            x[[at[0], channel, at[2] / block, at[3] / block]]
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let block = draw.size(1..=3);
        let mode = draw.pick(&[ChannelOrder::DepthFirst, ChannelOrder::ColumnFirst]);
        let input = vec![block * block * draw.size(1..=3), draw.size(1..=3), draw.size(1..=3)];
        Sample::new(DepthToSpace { block, mode }, vec![input])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mode: ChannelOrder, expected: [f32; 8]) {
        let x = ArrayD::from_shape_fn(vec![1, 8, 1, 1], |at| at[1] as f32);
        let pixels = DepthToSpace { block: 2, mode }.eval(&[x.view()], &[]);
        assert_eq!(pixels[0].shape(), [1, 2, 2, 2]);
        assert_eq!(pixels[0].as_slice(), Some(&expected[..]), "{mode:?}");
    }

    #[test]
    fn orders() {
        check(ChannelOrder::DepthFirst, [0.0, 2.0, 4.0, 6.0, 1.0, 3.0, 5.0, 7.0]);
        check(ChannelOrder::ColumnFirst, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
    }

    #[test]
    fn refusals() {
        let shuffle = |block| DepthToSpace { block, mode: ChannelOrder::default() };
        let error = shuffle(2).output(&[&[6, 1, 1]]).unwrap_err();
        assert_eq!(error.expected, "a multiple of 4 channels");
        assert!(shuffle(0).check().is_err() && shuffle(usize::MAX).check().is_err());
    }
}
