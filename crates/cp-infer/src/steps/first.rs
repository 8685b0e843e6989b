//! [`First`]: a convolution of few channels, straight from the planes of an image as it was given.

use crate::block::LANES;
use crate::geometry::Geometry;
use crate::kernels::plain::{PlainInto, PlainProduct};
use crate::kernels::product::Packed;
use crate::pack::Weights;
use crate::step::{Frame, Scratch, Step};
use crate::steps::Ends;
use crate::steps::direct::WIDTH;
use crate::steps::rows::Rows;

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

    pub(crate) fn new(weights: &Weights, geometry: Geometry, panel: usize, ends: Ends) -> Self {
        let rows = Rows { geometry, copied: true };
        let mut height = geometry.output.height;
        while height > 1 && geometry.rows(height) * weights.inputs * rows.pitch() > STRIP {
            height -= height.div_ceil(8);
        }
        height = geometry.output.height.div_ceil(geometry.output.height.div_ceil(height));
        let packed = weights.packed_plain(panel, |channel, row, tap| {
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
        let (input, output) = (open.inputs[0].plain(), open.output);
        let scratch = open.scratch.as_flattened_mut();
        let geometry = self.rows.geometry;
        let (map, planes, pitch) = (geometry.output, geometry.input, self.rows.pitch());
        for image in 0..count {
            let image_planes = &input[image * planes.channels * planes.pixels()..];
            for row in (0..map.height).step_by(self.height) {
                let rows = self.height.min(map.height - row);
                for (line, to) in scratch
                    .chunks_exact_mut(pitch)
                    .enumerate()
                    .take(geometry.rows(rows) * planes.channels)
                {
                    let (line, channel) = (line / planes.channels, line % planes.channels);
                    let plane = &image_planes[channel * planes.pixels()..][..planes.pixels()];
                    self.rows.copy_row(plane, row * geometry.stride[0] + line, to, 0.0);
                }
                let made = image * map.pixels() + row * map.width;
                let product = PlainProduct {
                    packed: &self.packed,
                    input: scratch,
                    rows,
                    width: map.width,
                    pitch: geometry.stride[0] * planes.channels * pitch,
                    sink: self.ends.sink(open.inputs[1], &output, made),
                };
                level.run(PlainInto(&product, output.blocks));
            }
        }
    }

    fn scratch(&self, _images: usize) -> Scratch {
        Scratch { blocks: self.size().div_ceil(LANES), table: 0 }
    }
}
