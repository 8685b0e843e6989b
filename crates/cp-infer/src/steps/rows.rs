//! [`Rows`]: the rows of a map that windows read, with their padding or with the taps as channels.

use crate::block::{Block, LANES, ZERO, blocks_of};
use crate::geometry::Geometry;
use crate::step::Input;

/// Where a convolution reads its pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// From the map: every window lies in it.
    Map,
    /// From copied rows with their padding.
    Padded,
    /// From rows in which the taps of a window are channels, made of a plain value: for inputs of few channels, with which a block would
    /// be mostly empty.
    Folded,
}

/// The rows of a convolution's input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub(crate) geometry: Geometry,
    pub(crate) source: Source,
}

/// A strip: output rows of one image, or all of those of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Strip {
    pub(crate) image: usize,
    pub(crate) images: usize,
    pub(crate) row: usize,
    pub(crate) rows: usize,
}

impl Rows {
    /// Blocks from row to row.
    pub(crate) fn pitch(self) -> usize {
        match self.source {
            Source::Map => self.geometry.input.width,
            Source::Padded => self.geometry.pitch(),
            Source::Folded => self.geometry.output.width,
        }
    }

    /// Blocks from a window to the next one of its row.
    pub(crate) fn step(self) -> usize {
        if self.source == Source::Folded { 1 } else { self.geometry.stride[1] }
    }

    /// Blocks from image to image, for `rows` output rows.
    pub(crate) fn image(self, rows: usize) -> usize {
        match self.source {
            Source::Map => self.geometry.input.pixels(),
            _ => self.geometry.rows(rows) * self.pitch(),
        }
    }

    /// Channels of a row.
    pub(crate) fn channels(self) -> usize {
        let channels = self.geometry.input.channels;
        if self.source == Source::Folded { channels * self.geometry.kernel[1] } else { channels }
    }

    /// Blocks that are copied for `rows` output rows of `images`.
    pub(crate) fn size(self, images: usize, rows: usize) -> usize {
        match self.source {
            Source::Map => 0,
            _ => blocks_of(self.channels()) * images * self.image(rows),
        }
    }

    /// Copies what a strip reads: `[channels / 16, images, rows, pitch]`.
    pub(crate) fn copy(self, input: Input<'_>, strip: Strip, to: &mut [Block]) {
        if self.source == Source::Map {
            return;
        }
        let (rows, pitch) = (self.geometry.rows(strip.rows), self.pitch());
        let stride = strip.images * rows * pitch;
        for image in 0..strip.images {
            for row in 0..rows {
                let from = strip.row * self.geometry.stride[0] + row;
                let from = from.checked_sub(self.geometry.before[0]);
                let from = from.filter(|&row| row < self.geometry.input.height);
                let to = &mut to[(image * rows + row) * pitch..];
                if self.source == Source::Padded {
                    self.pad(input, strip.image + image, from, to, stride);
                } else {
                    self.fold(input, strip.image + image, from, to, stride);
                }
            }
        }
    }

    /// A row of the map between zeros, or zeros, in each block of channels.
    fn pad(self, input: Input<'_>, image: usize, row: Option<usize>, to: &mut [Block], stride: usize) {
        let map = self.geometry.input;
        for block in 0..map.blocks() {
            let to = &mut to[block * stride..][..self.pitch()];
            let Some(row) = row else {
                to.fill(ZERO);
                continue;
            };
            let from = input.start + block * input.stride + image * map.pixels() + row * map.width;
            let (left, rest) = to.split_at_mut(self.geometry.before[1]);
            let (middle, right) = rest.split_at_mut(map.width);
            left.fill(ZERO);
            middle.copy_from_slice(&input.blocks()[from..][..map.width]);
            right.fill(ZERO);
        }
    }

    /// A row whose channel k · C + c at column x is channel c below tap k of window x.
    fn fold(self, input: Input<'_>, image: usize, row: Option<usize>, to: &mut [Block], stride: usize) {
        let (map, [_, taps]) = (self.geometry.input, self.geometry.kernel);
        let (step, dilation) = (self.geometry.stride[1], self.geometry.dilation[1]);
        let image = &input.plain()[image * map.channels * map.pixels()..];
        for lane in 0..taps * map.channels {
            let to = &mut to[lane / LANES * stride..][..self.geometry.output.width];
            let Some(row) = row else {
                for block in to {
                    block[lane % LANES] = 0.0;
                }
                continue;
            };
            let line = lane % map.channels * map.pixels() + row * map.width;
            let line = &image[line..][..map.width];
            for (x, block) in to.iter_mut().enumerate() {
                // In the padding in front the difference wraps around, and lies behind the row as well.
                let at = (x * step + lane / map.channels * dilation).wrapping_sub(self.geometry.before[1]);
                block[lane % LANES] = line.get(at).copied().unwrap_or(0.0);
            }
        }
    }
}
