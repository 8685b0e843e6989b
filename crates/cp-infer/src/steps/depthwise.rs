//! [`SeparateChannels`]: a depthwise convolution by itself, or a scale and a shift of every channel.

use crate::block::{Block, ZERO};
use crate::geometry::Geometry;
use crate::kernels::depthwise::Depthwise;
use crate::step::{Frame, Scratch, Step};
use crate::steps::Ends;
use crate::steps::chain::Spatial;
use crate::steps::rows::Rows;

/// Blocks of the padded rows of a strip: an eighth of a usual L2 cache.
const STRIP: usize = 128 * 1024 / size_of::<Block>();

/// A depthwise convolution, block after block, over strips of rows that are copied where they need padding.
#[derive(Debug)]
pub(crate) struct SeparateChannels {
    spatial: Spatial,
    geometry: Geometry,
    /// Output rows of a strip.
    height: usize,
    ends: Ends,
}

impl SeparateChannels {
    pub(crate) fn new(spatial: Spatial, geometry: Geometry, ends: Ends) -> Self {
        let mut height = geometry.output.height;
        while !geometry.is_inside()
            && height > 1
            && geometry.rows(height) * geometry.pitch() > STRIP
        {
            height = height.div_ceil(2);
        }
        Self { spatial, geometry, height, ends }
    }
}

impl Step for SeparateChannels {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, count) = (frame.level, frame.count);
        let open = self.ends.open(frame);
        let (geometry, input) = (self.geometry, open.inputs[0]);
        let (from, to) = (geometry.input, geometry.output);
        let inside = geometry.is_inside();
        // The kernel takes windows at any distance.
        let padded = Rows { geometry: Geometry { stride: [1; 2], ..geometry }, copied: true };
        let pitch = if inside { from.width } else { geometry.pitch() };
        for block in 0..to.blocks() {
            for image in 0..count {
                let map = input.start + block * input.stride + image * from.pixels();
                let map = &input.blocks()[map..][..from.pixels()];
                for row in (0..to.height).step_by(self.height) {
                    let rows = self.height.min(to.height - row);
                    let mut len = 0;
                    for row in if inside { row..row + rows } else { 0..rows } {
                        for tap in 0..geometry.kernel[0] {
                            let at = row * geometry.stride[0] + tap * geometry.dilation[0];
                            open.table[len] = (at * pitch) as u32;
                            len += 1;
                        }
                    }
                    if !inside {
                        for line in 0..geometry.rows(rows) {
                            let made = &mut open.scratch[line * pitch..][..pitch];
                            let at = row * geometry.stride[0] + line;
                            padded.copy_row(map, at, made, ZERO);
                        }
                    }
                    let start = open.output.start
                        + block * open.output.stride
                        + image * to.pixels()
                        + row * to.width;
                    level.run(Depthwise {
                        window: self.spatial.window(block),
                        input: if inside { map } else { &*open.scratch },
                        starts: &open.table[..len],
                        output: &mut open.output.blocks[start..],
                        pitch: to.width,
                        width: to.width,
                    });
                }
            }
        }
    }

    fn scratch(&self, _images: usize) -> Scratch {
        let pixels = self.geometry.rows(self.height) * self.geometry.pitch();
        Scratch {
            blocks: if self.geometry.is_inside() { 0 } else { pixels },
            table: self.height * self.geometry.kernel[0],
        }
    }
}
