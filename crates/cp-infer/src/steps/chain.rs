//! [`Chain`]: 1×1, depthwise, 1×1 in one pass, which is what a CP-3 or CP-4 layer and an inverted residual are.
//!
//! The maps between the three convolutions never exist. Output rows come in strips; for each panel of the R channels between, the rows of the
//! input that are new are reduced into a ring of rows with their padding, and the depthwise convolution of that panel runs while they are in
//! the first cache. What it makes of the strip, all R channels of it, is then expanded in one product.

use std::ops::Range;

use crate::block::{Block, Blocks, ZERO, blocks_of};
use crate::geometry::Geometry;
use crate::kernels::activation::Clamp;
use crate::kernels::depthwise::{Depthwise, Window};
use crate::kernels::product::{Packed, Pixels, Product, ProductInto, Sink};
use crate::kernels::target::Target;
use crate::level::Level;
use crate::lower::Rules;
use crate::step::{Frame, Input, Scratch, Step};
use crate::steps::Ends;
use crate::steps::direct::{PIXELS, WIDTH};
use crate::steps::rows::{Strip, Strips};
use crate::steps::workers::Own;

/// A depthwise convolution: its weights, and how it moves along a row.
#[derive(Debug)]
pub(crate) struct Spatial {
    /// `[R / 16, kh · kw]`.
    pub(crate) weights: Blocks,
    /// `[R / 16]`.
    pub(crate) bias: Blocks,
    /// kh and kw.
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
    pub(crate) clamp: Clamp,
}

impl Spatial {
    /// The window of one block.
    pub(crate) fn window(&self, block: usize) -> Window<'_> {
        let taps = self.kernel[0] * self.kernel[1];
        Window {
            weights: &self.weights[block * taps..][..taps],
            bias: &self.bias[block],
            taps: self.kernel[1],
            stride: self.stride,
            dilation: self.dilation,
            clamp: self.clamp,
        }
    }
}

/// The depthwise part.
#[derive(Debug)]
pub(crate) enum Middle {
    /// A convolution with the whole window.
    One(Spatial),
    /// kh × 1, then 1 × kw.
    Two(Spatial, Spatial),
}

/// S → R by 1×1, depthwise, R → T by 1×1.
#[derive(Debug)]
pub(crate) struct Chain {
    reduce: Packed,
    reduce_clamp: Clamp,
    middle: Middle,
    expand: Packed,
    /// Of the depthwise part: maps of R channels, and the whole window.
    geometry: Geometry,
    /// Output rows of a strip.
    height: usize,
    /// Images of a strip: one, unless that is all of it.
    images: usize,
    /// Positions of the pixels of a strip's images, in the input and in the ring, where rows are too short to be cut into tiles.
    from: Vec<u32>,
    to: Vec<u32>,
    ends: Ends,
}

impl Chain {
    /// From the weights of the three parts.
    pub(crate) fn new(
        [reduce, expand]: [Packed; 2],
        reduce_clamp: Clamp,
        middle: Middle,
        geometry: Geometry,
        rules: Rules,
        ends: Ends,
    ) -> Self {
        let (input, output) = (geometry.input, geometry.output);
        let listed = input.width < WIDTH;
        // Strips of about a few tiles and of at least two rows, which share what they read.
        let target = PIXELS.div_ceil(output.width).max(2);
        let strips = (output.height / target).max(rules.workers.min(output.height));
        let strips = if listed { 1 } else { strips };
        let height = output.height.div_ceil(strips);
        let images = if listed { PIXELS.div_ceil(output.pixels()) } else { 1 };
        let (mut from, mut to) = (Vec::new(), Vec::new());
        if listed {
            let (ring, pitch) = (geometry.rows(height), geometry.pitch());
            // What windows do not reach is not reduced.
            let rows = input.height.min(ring.saturating_sub(geometry.before[0]));
            for image in 0..images {
                for row in 0..rows {
                    for column in 0..input.width {
                        let slot = image * ring + geometry.before[0] + row;
                        from.push((image * input.pixels() + row * input.width + column) as u32);
                        to.push((slot * pitch + geometry.before[1] + column) as u32);
                    }
                }
            }
        }
        Self { reduce, reduce_clamp, middle, expand, geometry, height, images, from, to, ends }
    }

    /// Rows of the ring for each image.
    fn ring(&self) -> usize {
        self.geometry.rows(self.height)
    }

    /// Blocks of the ring for each block of channels.
    fn ring_stride(&self) -> usize {
        self.images * self.ring() * self.geometry.pitch()
    }

    /// Pixels of a strip.
    fn strip_stride(&self) -> usize {
        self.images * self.height * self.geometry.output.width
    }

    /// Blocks between the two passes of a CP-4.
    fn between(&self) -> usize {
        match self.middle {
            Middle::One(_) => 0,
            Middle::Two(..) => self.images * self.height * self.geometry.pitch(),
        }
    }

    /// Zeros around the rows of the ring, which nothing else writes, and of what lies between two passes.
    fn clear(&self, ring: &mut [Block], between: &mut [Block]) {
        let (pitch, left, width) =
            (self.geometry.pitch(), self.geometry.before[1], self.geometry.input.width);
        for row in ring.chunks_exact_mut(pitch).chain(between.chunks_exact_mut(pitch)) {
            row[..left].fill(ZERO);
            row[left + width..].fill(ZERO);
        }
    }

    /// Reduces a panel of the rows `new` of image `image`, counted from the first of the padding.
    fn fill(
        &self,
        level: Level,
        input: Input<'_>,
        panel: usize,
        (image, images): (usize, usize),
        new: Range<usize>,
        ring: &mut [Block],
    ) {
        let (map, pitch) = (self.geometry.input, self.geometry.pitch());
        let [above, left] = self.geometry.before;
        let blocks = &self.reduce.panels[panel];
        let rows = new.start.max(above)..new.end.min(above + map.height);
        for block in blocks.first..blocks.first + blocks.blocks {
            for row in new.clone().filter(|row| !rows.contains(row)) {
                for image in 0..images {
                    let slot = image * self.ring() + row % self.ring();
                    let start = block * self.ring_stride() + slot * pitch;
                    ring[start..start + pitch].fill(ZERO);
                }
            }
        }
        let mut ring = Target::whole(ring, 0, self.ring_stride());
        let mut product = Product {
            packed: &self.reduce,
            panels: panel..panel + 1,
            input: input.blocks(),
            input_start: input.start + image * map.pixels(),
            input_stride: input.stride,
            pixels: Pixels::Each { inputs: &[], outputs: &[] },
            sink: Sink { start: 0, residual: None, clamp: self.reduce_clamp },
        };
        if !self.from.is_empty() {
            let len = self.from.len() / self.images * images;
            product.pixels = Pixels::Each { inputs: &self.from[..len], outputs: &self.to[..len] };
            level.run(ProductInto(&product, &mut ring));
            return;
        }
        let mut row = rows.start;
        while row < rows.end {
            // Up to where the ring begins again.
            let slot = row % self.ring();
            let count = (rows.end - row).min(self.ring() - slot);
            product.input_start = input.start + image * map.pixels() + (row - above) * map.width;
            product.sink.start = slot * pitch + left;
            product.pixels =
                Pixels::Rows { rows: count, width: map.width, input: map.width, output: pitch };
            level.run(ProductInto(&product, &mut ring));
            row += count;
        }
    }

    /// The depthwise part of one block, from the ring to the strip; `starts` are the rows of each window, `[rows, kh]`.
    fn convolve(
        &self,
        level: Level,
        block: usize,
        ring: &[Block],
        starts: &[u32],
        between: &mut [Block],
        strip: &mut [Block],
    ) {
        let (width, pitch) = (self.geometry.output.width, self.geometry.pitch());
        let input = &ring[block * self.ring_stride()..][..self.ring_stride()];
        let output = &mut strip[block * self.strip_stride()..][..self.strip_stride()];
        match &self.middle {
            Middle::One(all) => {
                let window = all.window(block);
                level.run(Depthwise { window, input, starts, output, pitch: width, width });
            }
            Middle::Two(vertical, horizontal) => {
                let rows = starts.len() / vertical.kernel[0];
                let left = self.geometry.before[1];
                level.run(Depthwise {
                    window: vertical.window(block),
                    input: &input[left..],
                    starts,
                    output: &mut between[left..],
                    pitch,
                    width: self.geometry.input.width,
                });
                let window = horizontal.window(block);
                for row in 0..rows {
                    let output = &mut output[row * width..][..width];
                    let starts = &[(row * pitch) as u32];
                    level.run(Depthwise {
                        window,
                        input: between,
                        starts,
                        output,
                        pitch: width,
                        width,
                    });
                }
            }
        }
    }
}

impl Step for Chain {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, count) = (frame.level, frame.count);
        let open = self.ends.open(frame);
        let [input, residual] = open.inputs;
        let (geometry, map) = (self.geometry, self.geometry.output);
        let strips = Strips { map, height: self.height, images: self.images, count };
        let run = |range: Range<usize>, mut own: Own<'_>| {
            let (ring, rest) = own.scratch.split_at_mut(map.blocks() * self.ring_stride());
            let (strip, rest) = rest.split_at_mut(map.blocks() * self.strip_stride());
            let between = &mut rest[..self.between()];
            self.clear(ring, between);
            // The first row that the ring does not have yet.
            let mut next = 0;
            for index in range {
                let Strip { image, images, row, rows } = strips.strip(index);
                let first = row * geometry.stride[0];
                let new = if row == 0 { first } else { next.max(first) };
                let new = new..first + geometry.rows(rows);
                next = new.end;
                let starts = self.starts(row..row + rows, images, own.table);
                for (index, panel) in self.reduce.panels.iter().enumerate() {
                    self.fill(level, input, index, (image, images), new.clone(), ring);
                    for block in panel.first..panel.first + panel.blocks {
                        self.convolve(level, block, ring, starts, between, strip);
                    }
                }
                let product = Product {
                    packed: &self.expand,
                    panels: 0..self.expand.panels.len(),
                    input: strip,
                    input_start: 0,
                    input_stride: self.strip_stride(),
                    pixels: Pixels::flat(images * rows * map.width),
                    sink: self.ends.sink(residual, image * map.pixels() + row * map.width),
                };
                level.run(ProductInto(&product, &mut own.target));
            }
        };
        let start = |strip| strips.start(strip);
        let blocks = self.expand.bias.len();
        open.workers.strips(open.output, blocks, self.scratch(), strips.len(), start, run);
    }

    fn scratch(&self) -> Scratch {
        let blocks = blocks_of(self.geometry.output.channels);
        Scratch {
            blocks: blocks * (self.ring_stride() + self.strip_stride()) + self.between(),
            table: self.images * self.height * self.geometry.kernel[0],
        }
    }
}

impl Chain {
    /// Where in the ring the rows of each window start: output rows `rows` of `images`.
    fn starts<'a>(&self, rows: Range<usize>, images: usize, table: &'a mut [u32]) -> &'a [u32] {
        let (geometry, ring) = (self.geometry, self.ring());
        let mut len = 0;
        for image in 0..images {
            for row in rows.clone() {
                for tap in 0..geometry.kernel[0] {
                    let at = row * geometry.stride[0] + tap * geometry.dilation[0];
                    table[len] = ((image * ring + at % ring) * geometry.pitch()) as u32;
                    len += 1;
                }
            }
        }
        &table[..len]
    }
}

/// The geometry of two windows, one behind the other: kh × 1, then 1 × kw.
pub(crate) fn joined(vertical: Geometry, horizontal: Geometry) -> Geometry {
    let of = |vertical: [usize; 2], horizontal: [usize; 2]| [vertical[0], horizontal[1]];
    Geometry {
        input: vertical.input,
        output: horizontal.output,
        kernel: of(vertical.kernel, horizontal.kernel),
        stride: of(vertical.stride, horizontal.stride),
        dilation: of(vertical.dilation, horizontal.dilation),
        before: of(vertical.before, horizontal.before),
    }
}
