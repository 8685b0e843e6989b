//! [`Place`]: channels and pixels from one map to a place in another.

use std::ops::Range;

use crate::block::{Block, LANES, ZERO};
use crate::map::Map;
use crate::step::{BufferId, Frame, Step};

/// Some channels and pixels of a map to a place in another: parts of a concatenation, slices, and padding with zeros.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) from: Map,
    pub(crate) to: Map,
    /// Channels that are taken, and where the first of them goes.
    pub(crate) channels: Range<usize>,
    pub(crate) channel: usize,
    /// Rows and columns that are taken, every `step`-th, and where the first of them goes.
    pub(crate) pixels: [Taken; 2],
    /// Whether all other values of the output are made 0.
    pub(crate) zeros: bool,
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
}

/// Positions along an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) first: usize,
    pub(crate) count: usize,
    pub(crate) step: usize,
    pub(crate) to: usize,
}

impl Taken {
    /// All of an axis, in place.
    pub(crate) fn all(size: usize) -> Self {
        Self { first: 0, count: size, step: 1, to: 0 }
    }
}

impl Place {
    /// Copies lanes of a row of pixels.
    fn row(&self, from: &[Block], to: &mut [Block], lanes: Lanes) {
        let [_, columns] = self.pixels;
        for index in 0..columns.count {
            let x = &from[columns.first + index * columns.step];
            let y = &mut to[columns.to + index];
            y[lanes.to..][..lanes.count].copy_from_slice(&x[lanes.from..][..lanes.count]);
        }
    }
}

/// Neighboring lanes that go from one block into one block.
#[derive(Debug, Clone, Copy)]
struct Lanes {
    from: usize,
    to: usize,
    count: usize,
}

impl Step for Place {
    fn run(&self, frame: &mut Frame<'_>) {
        let count = frame.count;
        let open = frame.open(self.output, [self.input]);
        let ([input], output) = (open.inputs, open.output);
        if self.zeros {
            for block in 0..self.to.blocks() {
                let start = output.start + block * output.stride;
                output.blocks[start..][..count * self.to.pixels()].fill(ZERO);
            }
        }
        let [rows, columns] = self.pixels;
        let mut channel = self.channels.start;
        while channel < self.channels.end {
            let made = self.channel + channel - self.channels.start;
            let room = (LANES - channel % LANES).min(LANES - made % LANES);
            let lanes = Lanes {
                from: channel % LANES,
                to: made % LANES,
                count: room.min(self.channels.end - channel),
            };
            for image in 0..count {
                for row in 0..rows.count {
                    let at = input.start
                        + channel / LANES * input.stride
                        + image * self.from.pixels()
                        + (rows.first + row * rows.step) * self.from.width;
                    let from = &input.blocks()[at..][..self.from.width];
                    let at = output.start
                        + made / LANES * output.stride
                        + image * self.to.pixels()
                        + (rows.to + row) * self.to.width;
                    let to = &mut output.blocks[at..][..self.to.width];
                    if lanes.count == LANES && columns.step == 1 {
                        to[columns.to..][..columns.count]
                            .copy_from_slice(&from[columns.first..][..columns.count]);
                    } else {
                        self.row(from, to, lanes);
                    }
                }
            }
            channel += lanes.count;
        }
    }
}
