//! [`Direct`]: a convolution with a window, as a product whose terms are the taps (an implicit im2col).

use crate::block::Block;
use crate::geometry::Geometry;
use crate::kernels::product::{Packed, Pixels, Product, ProductInto};
use crate::pack::Weights;
use crate::step::{Frame, Scratch, Step};
use crate::steps::Ends;
use crate::steps::rows::{Rows, Strip};

/// Blocks that are copied for a strip: a fifth of a usual L2 cache, which weights and outputs share with them.
const STRIP: usize = 192 * 1024 / size_of::<Block>();

/// Fewer pixels than this do not fill the tiles: then a strip is several images, where that makes one row of them.
pub(crate) const PIXELS: usize = 56;

/// The least width of a map whose rows are cut into tiles by themselves.
pub(crate) const WIDTH: usize = 7;

/// A convolution over strips of output rows, or over whole images where these are small.
#[derive(Debug)]
pub(crate) struct Direct {
    packed: Packed,
    rows: Rows,
    /// Output rows of a strip.
    height: usize,
    /// Images of a strip: one, unless that is all of it.
    images: usize,
    /// Positions of the pixels of a strip where they are no neighbors: in what is read, and in what is made.
    from: Vec<u32>,
    to: Vec<u32>,
    ends: Ends,
}

impl Direct {
    /// With panels of `panel` blocks.
    pub(crate) fn new(weights: &Weights, geometry: Geometry, panel: usize, ends: Ends) -> Self {
        let rows = Rows::new(geometry);
        let down = geometry.dilation[0] * rows.pitch();
        let packed = weights.packed(panel, |row, tap| row * down + rows.tap(tap));
        let output = geometry.output;
        let listed = output.width < WIDTH;
        let (mut height, mut images) = (output.height, 1);
        if listed {
            images = PIXELS.div_ceil(output.pixels());
            while images > 1 && rows.size(images, height) > STRIP {
                images -= 1;
            }
        }
        while height > 1 && images == 1 && rows.size(1, height) > STRIP {
            height -= height.div_ceil(8);
        }
        // Strips of the same height.
        height = output.height.div_ceil(output.height.div_ceil(height));
        let (mut from, mut to) = (Vec::new(), Vec::new());
        if listed {
            for image in 0..images {
                for row in 0..height {
                    let start =
                        image * rows.image(height) + row * geometry.stride[0] * rows.pitch();
                    for column in 0..output.width {
                        to.push(from.len() as u32);
                        from.push((start + column) as u32);
                    }
                }
            }
        }
        Self { packed, rows, height, images, from, to, ends }
    }
}

impl Step for Direct {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, count) = (frame.level, frame.count);
        let open = self.ends.open(frame);
        let (input, output, scratch) = (open.inputs[0], open.output, open.scratch);
        let geometry = self.rows.geometry;
        let (pitch, map) = (self.rows.pitch(), geometry.output);
        for image in (0..count).step_by(self.images) {
            for row in (0..map.height).step_by(self.height) {
                let images = self.images.min(count - image);
                let rows = self.height.min(map.height - row);
                self.rows.copy(input, Strip { image, images, row, rows }, scratch);
                let (values, input_start, input_stride) = if self.rows.copied {
                    (&*scratch, 0, images * self.rows.image(rows))
                } else {
                    let above = row * geometry.stride[0] * pitch;
                    let start = input.start + image * geometry.input.pixels() + above;
                    (input.blocks(), start, input.stride)
                };
                let pixels = if self.from.is_empty() {
                    let (input, output) = (geometry.stride[0] * pitch, map.width);
                    Pixels::Rows { rows, width: map.width, input, output }
                } else {
                    let len = images * rows * map.width;
                    Pixels::Each { inputs: &self.from[..len], outputs: &self.to[..len] }
                };
                let made = image * map.pixels() + row * map.width;
                let product = Product {
                    packed: &self.packed,
                    panels: 0..self.packed.panels.len(),
                    input: values,
                    input_start,
                    input_stride,
                    pixels,
                    sink: self.ends.sink(open.inputs[1], &output, made),
                };
                level.run(ProductInto(&product, output.blocks));
            }
        }
    }

    fn scratch(&self, _images: usize) -> Scratch {
        Scratch { blocks: self.rows.size(self.images, self.height), table: 0 }
    }
}
