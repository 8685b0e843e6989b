//! Steps that move channels: [`Place`], [`MaxBlocks`], [`Normalize`].

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

/// The largest of every `pieces` blocks: a maxout over channels that the layer in front made in this order.
#[derive(Debug)]
pub(crate) struct MaxBlocks {
    pub(crate) pieces: usize,
    pub(crate) map: Map,
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
}

impl Step for MaxBlocks {
    fn run(&self, frame: &mut Frame<'_>) {
        let pixels = frame.count * self.map.pixels();
        let open = frame.open(self.output, [self.input]);
        let ([input], output) = (open.inputs, open.output);
        for block in 0..self.map.blocks() {
            let made = &mut output.blocks[output.start + block * output.stride..][..pixels];
            for piece in 0..self.pieces {
                let start = input.start + (block * self.pieces + piece) * input.stride;
                let from = &input.blocks()[start..][..pixels];
                if piece == 0 {
                    made.copy_from_slice(from);
                    continue;
                }
                for (y, x) in made.iter_mut().zip(from) {
                    for lane in 0..LANES {
                        y[lane] = y[lane].max(x[lane]);
                    }
                }
            }
        }
    }
}

/// Local response normalization: x · (k + α/n Σ x²)^−β over the n channels around each.
#[derive(Debug)]
pub(crate) struct Normalize {
    /// Channels of the sum, at most [`Normalize::MOST`].
    pub(crate) size: usize,
    /// α / n.
    pub(crate) alpha: f32,
    /// β, or `None` for 3/4, which all published networks have and which roots make.
    pub(crate) beta: Option<f32>,
    pub(crate) k: f32,
    pub(crate) map: Map,
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
}

impl Normalize {
    /// So many channels reach no further than the blocks beside.
    pub(crate) const MOST: usize = 2 * LANES;
}

impl Step for Normalize {
    fn run(&self, frame: &mut Frame<'_>) {
        let pixels = frame.count * self.map.pixels();
        let open = frame.open(self.output, [self.input]);
        let ([input], output) = (open.inputs, open.output);
        let blocks = input.blocks();
        for block in 0..self.map.blocks() {
            for pixel in 0..pixels {
                // The squares of this block between those of its neighbors.
                let mut squares = [0.0; 3 * LANES];
                for (near, squares) in squares.chunks_exact_mut(LANES).enumerate() {
                    let Some(near) = (block + near).checked_sub(1).filter(|near| *near < self.map.blocks())
                    else {
                        continue;
                    };
                    let lanes = (self.map.channels - near * LANES).min(LANES);
                    let x = &blocks[input.start + near * input.stride + pixel];
                    for lane in 0..lanes {
                        squares[lane] = x[lane] * x[lane];
                    }
                }
                let mut sums = ZERO;
                let first = LANES - self.size / 2;
                for offset in first..first + self.size {
                    for (sum, square) in sums.iter_mut().zip(&squares[offset..][..LANES]) {
                        *sum += square;
                    }
                }
                let x = &blocks[input.start + block * input.stride + pixel];
                let y = &mut output.blocks[output.start + block * output.stride + pixel];
                for lane in 0..LANES {
                    let divisor = self.k + self.alpha * sums[lane];
                    let power = match self.beta {
                        None => divisor.sqrt() * divisor.sqrt().sqrt(),
                        Some(beta) => divisor.powf(beta),
                    };
                    y[lane] = x[lane] / power;
                }
            }
        }
    }
}
