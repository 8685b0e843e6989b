//! [`SeparateChannels`]: a depthwise convolution by itself, or a scale and a shift of every channel.

use std::ops::Range;

use crate::block::{Block, ZERO};
use crate::geometry::Geometry;
use crate::kernels::depthwise::Depthwise;
use crate::level::Level;
use crate::lower::Rules;
use crate::step::{Frame, Scratch, Step};
use crate::steps::Ends;
use crate::steps::chain::Spatial;
use crate::steps::rows::{Rows, Strip, Strips};
use crate::steps::workers::Own;

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
    pub(crate) fn new(spatial: Spatial, geometry: Geometry, rules: Rules, ends: Ends) -> Self {
        let mut height = geometry.output.height.div_ceil(rules.workers);
        while !geometry.is_inside()
            && height > 1
            && geometry.rows(height) * geometry.pitch() > STRIP
        {
            height = height.div_ceil(2);
        }
        Self { spatial, geometry, height, ends }
    }
}

impl SeparateChannels {
    /// Makes one strip of one block of channels; `map` is that of the image.
    fn strip(&self, level: Level, map: &[Block], block: usize, strip: Strip, own: &mut Own<'_>) {
        let (geometry, to) = (self.geometry, self.geometry.output);
        let inside = geometry.is_inside();
        let pitch = if inside { geometry.input.width } else { geometry.pitch() };
        let mut len = 0;
        for row in if inside { strip.row..strip.row + strip.rows } else { 0..strip.rows } {
            for tap in 0..geometry.kernel[0] {
                let at = row * geometry.stride[0] + tap * geometry.dilation[0];
                own.table[len] = (at * pitch) as u32;
                len += 1;
            }
        }
        if !inside {
            // The kernel takes windows at any distance.
            let geometry = Geometry { stride: [1; 2], ..geometry };
            let padded = Rows { geometry, copied: true };
            let first = strip.row * self.geometry.stride[0];
            for line in 0..self.geometry.rows(strip.rows) {
                let made = &mut own.scratch[line * pitch..][..pitch];
                padded.copy_row(map, first + line, made, ZERO);
            }
        }
        let made = strip.image * to.pixels() + strip.row * to.width;
        level.run(Depthwise {
            window: self.spatial.window(block),
            input: if inside { map } else { &*own.scratch },
            starts: &own.table[..len],
            output: own.target.row(block, made, strip.rows * to.width),
            pitch: to.width,
            width: to.width,
        });
    }
}

impl Step for SeparateChannels {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, count) = (frame.level, frame.count);
        let open = self.ends.open(frame);
        let input = open.inputs[0];
        let (from, map) = (self.geometry.input, self.geometry.output);
        let strips = Strips { map, height: self.height, images: 1, count };
        let run = |range: Range<usize>, mut own: Own<'_>| {
            for block in 0..map.blocks() {
                for strip in range.clone().map(|index| strips.strip(index)) {
                    let start = input.start + block * input.stride + strip.image * from.pixels();
                    let image = &input.blocks()[start..][..from.pixels()];
                    self.strip(level, image, block, strip, &mut own);
                }
            }
        };
        let start = |strip| strips.start(strip);
        open.workers.strips(open.output, map.blocks(), self.scratch(), strips.len(), start, run);
    }

    fn scratch(&self) -> Scratch {
        let pixels = self.geometry.rows(self.height) * self.geometry.pitch();
        Scratch {
            blocks: if self.geometry.is_inside() { 0 } else { pixels },
            table: self.height * self.geometry.kernel[0],
        }
    }
}
