//! [`Import`] and [`Export`]: plain values into maps and back.

use crate::block::{LANES, ZERO};
use crate::map::Map;
use crate::step::{BufferId, Frame, Step};

/// `[N, C, H, W]` → `[C / 16, N, H, W, 16]`.
#[derive(Debug)]
pub(crate) struct Import {
    pub(crate) map: Map,
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
}

impl Step for Import {
    fn run(&self, frame: &mut Frame<'_>) {
        let count = frame.count;
        let open = frame.open(self.output, [self.input]);
        let (values, output) = (open.inputs[0].plain(), open.output);
        let pixels = self.map.pixels();
        for block in 0..self.map.blocks() {
            let lanes = (self.map.channels - block * LANES).min(LANES);
            for image in 0..count {
                let start = output.start + block * output.stride + image * pixels;
                let made = &mut output.blocks[start..][..pixels];
                let first = (image * self.map.channels + block * LANES) * pixels;
                let channels = &values[first..][..lanes * pixels];
                for (pixel, made) in made.iter_mut().enumerate() {
                    *made = ZERO;
                    for lane in 0..lanes {
                        made[lane] = channels[lane * pixels + pixel];
                    }
                }
            }
        }
    }
}

/// `[C / 16, N, H, W, 16]` → `[N, C, H, W]`.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) map: Map,
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
}

impl Step for Export {
    fn run(&self, frame: &mut Frame<'_>) {
        let count = frame.count;
        let mut open = frame.open(self.output, [self.input]);
        let (input, values) = (open.inputs[0], open.output.plain());
        let pixels = self.map.pixels();
        for block in 0..self.map.blocks() {
            let lanes = (self.map.channels - block * LANES).min(LANES);
            for image in 0..count {
                let start = input.start + block * input.stride + image * pixels;
                let from = &input.blocks()[start..][..pixels];
                let first = (image * self.map.channels + block * LANES) * pixels;
                let channels = &mut values[first..][..lanes * pixels];
                for (pixel, from) in from.iter().enumerate() {
                    for lane in 0..lanes {
                        channels[lane * pixels + pixel] = from[lane];
                    }
                }
            }
        }
    }
}
