//! [`Unary`] and [`Binary`]: functions of one and of two maps.

use crate::kernels::activation::Clamp;
use crate::kernels::elementwise::{Each, Function, Pair, Pairs};
use crate::map::Map;
use crate::step::{BufferId, Frame, Step};

/// A function of every value of a map.
#[derive(Debug)]
pub(crate) struct Unary {
    pub(crate) function: Function,
    pub(crate) map: Map,
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
}

impl Step for Unary {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, pixels) = (frame.level, frame.count * self.map.pixels());
        let open = frame.open(self.output, [self.input]);
        let ([input], output) = (open.inputs, open.output);
        for block in 0..self.map.blocks() {
            level.run(Each {
                function: self.function,
                input: &input.blocks()[input.start + block * input.stride..][..pixels],
                output: &mut output.blocks[output.start + block * output.stride..][..pixels],
            });
        }
    }
}

/// A sum or a product of two maps, of which the second may have one value for each channel.
#[derive(Debug)]
pub(crate) struct Binary {
    pub(crate) pair: Pair,
    pub(crate) map: Map,
    pub(crate) inputs: [BufferId; 2],
    /// Whether the second input has one pixel.
    pub(crate) per_channel: bool,
    pub(crate) output: BufferId,
    pub(crate) clamp: Clamp,
}

impl Step for Binary {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, count) = (frame.level, frame.count);
        let open = frame.open(self.output, self.inputs);
        let ([a, b], output) = (open.inputs, open.output);
        // A part of which the second input is one block, or has as many.
        let (parts, pixels) = match self.per_channel {
            true => (count, self.map.pixels()),
            false => (1, count * self.map.pixels()),
        };
        let others = if self.per_channel { 1 } else { pixels };
        for block in 0..self.map.blocks() {
            for part in 0..parts {
                level.run(Pairs {
                    pair: self.pair,
                    a: &a.blocks()[a.start + block * a.stride + part * pixels..][..pixels],
                    b: &b.blocks()[b.start + block * b.stride + part * others..][..others],
                    output: &mut output.blocks
                        [output.start + block * output.stride + part * pixels..][..pixels],
                    clamp: self.clamp,
                });
            }
        }
    }
}
