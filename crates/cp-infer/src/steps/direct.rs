//! [`Direct`]: a convolution with a window, as a product whose terms are the taps (an implicit im2col).

use std::ops::Range;

use crate::block::Block;
use crate::geometry::Geometry;
use crate::kernels::product::{Packed, Pixels, Product, ProductInto};
use crate::kernels::target::Target;
use crate::level::Level;
use crate::lower::Rules;
use crate::pack::Weights;
use crate::step::{Frame, Input, Scratch, Step};
use crate::steps::Ends;
use crate::steps::rows::{Rows, Strip, Strips};
use crate::steps::workers::Own;

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
    pub(crate) fn new(weights: &Weights, geometry: Geometry, rules: Rules, ends: Ends) -> Self {
        let rows = Rows::new(geometry);
        let down = geometry.dilation[0] * rows.pitch();
        let packed =
            weights.packed(rules.level.panel_blocks(), |row, tap| row * down + rows.tap(tap));
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
        if !listed {
            height = height.min(output.height.div_ceil(rules.workers));
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

impl Direct {
    /// Makes one strip of some panels.
    fn strip(
        &self,
        level: Level,
        [input, residual]: [Input<'_>; 2],
        (panels, strip): (Range<usize>, Strip),
        target: &mut Target<'_>,
        scratch: &mut [Block],
    ) {
        let Strip { image, images, row, rows } = strip;
        let geometry = self.rows.geometry;
        let (pitch, map) = (self.rows.pitch(), geometry.output);
        self.rows.copy(input, strip, scratch);
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
        let product = Product {
            packed: &self.packed,
            panels,
            input: values,
            input_start,
            input_stride,
            pixels,
            sink: self.ends.sink(residual, image * map.pixels() + row * map.width),
        };
        level.run(ProductInto(&product, target));
    }
}

impl Step for Direct {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, count) = (frame.level, frame.count);
        let open = self.ends.open(frame);
        let inputs = open.inputs;
        let map = self.rows.geometry.output;
        let strips = Strips { map, height: self.height, images: self.images, count };
        if strips.len() < open.workers.count && !self.rows.copied {
            // A few pixels of many channels, such as those of a linear layer.
            open.workers.panels(open.output, &self.packed, |panels, mut target| {
                for index in 0..strips.len() {
                    let work = (panels.clone(), strips.strip(index));
                    self.strip(level, inputs, work, &mut target, &mut []);
                }
            });
            return;
        }
        let (need, panels) = (self.scratch(), self.packed.panels.len());
        let start = |strip| strips.start(strip);
        let run = |range: Range<usize>, mut own: Own<'_>| {
            for index in range {
                let work = (0..panels, strips.strip(index));
                self.strip(level, inputs, work, &mut own.target, own.scratch);
            }
        };
        open.workers.strips(open.output, map.blocks(), need, strips.len(), start, run);
    }

    fn scratch(&self) -> Scratch {
        Scratch { blocks: self.rows.size(self.images, self.height), table: 0 }
    }
}
