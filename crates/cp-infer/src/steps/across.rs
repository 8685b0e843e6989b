//! [`MaxBlocks`] and [`Across`]: what mixes the channels of each pixel, but for products.

use crate::block::LANES;
use crate::kernels::elementwise::Largest;
use crate::kernels::normalize::Normalize;
use crate::map::Map;
use crate::step::{BufferId, Frame, Step};

/// The largest of every `pieces` blocks: a maxout over channels that the layer in front made in this order.
#[derive(Debug)]
pub(crate) struct MaxBlocks {
    pub(crate) pieces: usize,
    pub(crate) map: Map,
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
}

impl Step for MaxBlocks {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, pixels) = (frame.level, frame.count * self.map.pixels());
        let open = frame.open(self.output, [self.input]);
        let ([input], output) = (open.inputs, open.output);
        for block in 0..self.map.blocks() {
            let start = input.start + block * self.pieces * input.stride;
            level.run(Largest {
                pieces: self.pieces,
                input: &input.blocks()[start..],
                stride: input.stride,
                output: &mut output.blocks[output.start + block * output.stride..][..pixels],
            });
        }
    }
}

/// Local response normalization: x · (k + α/n Σ x²)^−β over the n channels around each.
#[derive(Debug)]
pub(crate) struct Across {
    /// n, at most [`Normalize::MOST`].
    pub(crate) size: usize,
    /// α / n.
    pub(crate) alpha: f32,
    /// β, or `None` for 3/4.
    pub(crate) beta: Option<f32>,
    pub(crate) k: f32,
    pub(crate) map: Map,
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
}

impl Step for Across {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, pixels) = (frame.level, frame.count * self.map.pixels());
        let open = frame.open(self.output, [self.input]);
        let ([input], output) = (open.inputs, open.output);
        let blocks = input.blocks();
        for block in 0..self.map.blocks() {
            let near = [block.checked_sub(1), Some(block), Some(block + 1)];
            let near = near.map(|near| near.filter(|near| *near < self.map.blocks()));
            level.run(Normalize {
                size: self.size,
                alpha: self.alpha,
                beta: self.beta,
                k: self.k,
                inputs: near.map(|near| match near {
                    Some(near) => &blocks[input.start + near * input.stride..][..pixels],
                    None => &[],
                }),
                channels: near.map(|near| {
                    near.map_or(0, |near| self.map.channels.saturating_sub(near * LANES).min(LANES))
                }),
                output: &mut output.blocks[output.start + block * output.stride..][..pixels],
            });
        }
    }
}
