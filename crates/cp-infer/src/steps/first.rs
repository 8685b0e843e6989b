//! [`First`]: a convolution of few channels, straight from the planes of an image as it was given.

use std::ops::Range;

use crate::block::LANES;
use crate::geometry::Geometry;
use crate::kernels::plain::{PlainInto, PlainProduct};
use crate::kernels::product::Packed;
use crate::lower::Rules;
use crate::pack::Weights;
use crate::step::{Frame, Scratch, Step};
use crate::steps::Ends;
use crate::steps::direct::WIDTH;
use crate::steps::rows::{Rows, Strips};
use crate::steps::workers::Own;

/// Numbers of the rows that are copied for a strip: so many that few of them are copied twice.
const STRIP: usize = 64 * 1024 / size_of::<f32>();

/// A convolution of a plain value over strips of output rows, whose planes are copied with their padding.
#[derive(Debug)]
pub(crate) struct First {
    packed: Packed,
    rows: Rows,
    /// Output rows of a strip.
    height: usize,
    ends: Ends,
}

impl First {
    /// Whether it pays: where a block would hold few other channels.
    pub(crate) fn suits(weights: &Weights, geometry: Geometry) -> bool {
        weights.groups == 1 && weights.inputs <= 4 && geometry.output.width >= WIDTH
    }

    pub(crate) fn new(weights: &Weights, geometry: Geometry, rules: Rules, ends: Ends) -> Self {
        let rows = Rows { geometry, copied: true };
        let mut height = geometry.output.height;
        while height > 1 && geometry.rows(height) * weights.inputs * rows.pitch() > STRIP {
            height -= height.div_ceil(8);
        }
        height = height.min(geometry.output.height.div_ceil(rules.workers));
        height = geometry.output.height.div_ceil(geometry.output.height.div_ceil(height));
        let packed = weights.packed_plain(rules.level.panel_blocks(), |channel, row, tap| {
            (row * geometry.dilation[0] * weights.inputs + channel) * rows.pitch() + rows.tap(tap)
        });
        Self { packed, rows, height, ends }
    }

    /// Numbers that are copied for a strip: `[rows, channels, pitch]`.
    fn size(&self) -> usize {
        let geometry = self.rows.geometry;
        geometry.rows(self.height) * geometry.input.channels * self.rows.pitch()
    }
}

impl Step for First {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, count) = (frame.level, frame.count);
        let open = self.ends.open(frame);
        let (input, residual) = (open.inputs[0].plain(), open.inputs[1]);
        let geometry = self.rows.geometry;
        let (map, planes, pitch) = (geometry.output, geometry.input, self.rows.pitch());
        let strips = Strips { map, height: self.height, images: 1, count };
        let run = |range: Range<usize>, mut own: Own<'_>| {
            let lines = own.scratch.as_flattened_mut();
            for strip in range.map(|index| strips.strip(index)) {
                let image = &input[strip.image * planes.channels * planes.pixels()..];
                let rows = geometry.rows(strip.rows) * planes.channels;
                for (line, to) in lines.chunks_exact_mut(pitch).enumerate().take(rows) {
                    let (line, channel) = (line / planes.channels, line % planes.channels);
                    let plane = &image[channel * planes.pixels()..][..planes.pixels()];
                    self.rows.copy_row(plane, strip.row * geometry.stride[0] + line, to, 0.0);
                }
                let start = strip.image * map.pixels() + strip.row * map.width;
                let product = PlainProduct {
                    packed: &self.packed,
                    input: lines,
                    rows: strip.rows,
                    width: map.width,
                    pitch: geometry.stride[0] * planes.channels * pitch,
                    sink: self.ends.sink(residual, start),
                };
                level.run(PlainInto(&product, &mut own.target));
            }
        };
        let start = |strip| strips.start(strip);
        open.workers.strips(open.output, map.blocks(), self.scratch(), strips.len(), start, run);
    }

    fn scratch(&self) -> Scratch {
        Scratch { blocks: self.size().div_ceil(LANES), table: 0 }
    }
}
