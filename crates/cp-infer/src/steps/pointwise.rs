//! [`Pointwise`]: a 1×1 convolution, straight from map to map.

use crate::kernels::product::{Packed, Pixels, Product, ProductInto, part};
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
        let (input, output) = (open.inputs[0], open.output);
        let strips = pixels.div_ceil(STRIP);
        for strip in 0..strips {
            let part = part(pixels, strips, strip);
            let product = Product {
                packed: &self.packed,
                panels: 0..self.packed.panels.len(),
                input: input.blocks(),
                input_start: input.start + part.start,
                input_stride: input.stride,
                pixels: Pixels::flat(part.len()),
                sink: self.ends.sink(open.inputs[1], &output, part.start),
            };
            level.run(ProductInto(&product, output.blocks));
        }
    }
}
