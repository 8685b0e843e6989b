//! [`Pointwise`]: a 1×1 convolution, straight from map to map.

use std::ops::Range;

use crate::kernels::product::{Packed, Pixels, Product, ProductInto, part};
use crate::kernels::target::Target;
use crate::map::Map;
use crate::step::{Frame, Step};
use crate::steps::Ends;

/// Pixels of a strip, whose inputs stay in the cache while all output channels are made.
const STRIP: usize = 112;

/// A 1×1 convolution; the pixels of all images of the chunk are one row.
#[derive(Debug)]
pub(crate) struct Pointwise {
    pub(crate) packed: Packed,
    pub(crate) map: Map,
    pub(crate) ends: Ends,
}

impl Step for Pointwise {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, pixels) = (frame.level, frame.count * self.map.pixels());
        let open = self.ends.open(frame);
        let [input, residual] = open.inputs;
        let strips = pixels.div_ceil(STRIP);
        let run = |panels: Range<usize>, strip: usize, target: &mut Target<'_>| {
            let part = part(pixels, strips, strip);
            let product = Product {
                packed: &self.packed,
                panels,
                input: input.blocks(),
                input_start: input.start + part.start,
                input_stride: input.stride,
                pixels: Pixels::flat(part.len()),
                sink: self.ends.sink(residual, part.start),
            };
            level.run(ProductInto(&product, target));
        };
        if strips < open.workers.count {
            open.workers.panels(open.output, &self.packed, |panels, mut target| {
                for strip in 0..strips {
                    run(panels.clone(), strip, &mut target);
                }
            });
            return;
        }
        let (blocks, panels) = (self.packed.bias.len(), self.packed.panels.len());
        let start = |strip| part(pixels, strips, strip).start;
        open.workers.strips(
            open.output,
            blocks,
            self.scratch(),
            strips,
            start,
            |strips, mut own| {
                for strip in strips {
                    run(0..panels, strip, &mut own.target);
                }
            },
        );
    }
}
