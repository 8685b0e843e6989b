//! How values lie in memory: [`Map`] and [`Layout`].

use crate::block::{LANES, blocks_of};

/// Channels and pixels of a value for one image. A vector is a map of one pixel, a sound one of one row.
///
/// In memory `[C / 16, N, H, W, 16]` for N images: blocks of channels, each with all pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
}

impl Map {
    /// Of a shape without the batch axis, `[C]`, `[C, L]` or `[C, H, W]`.
    pub(crate) fn of(shape: &[usize]) -> Option<Self> {
        let (channels, height, width) = match *shape {
            [channels] => (channels, 1, 1),
            [channels, width] => (channels, 1, width),
            [channels, height, width] => (channels, height, width),
            _ => return None,
        };
        Some(Self { channels, height, width })
    }

    pub(crate) fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Blocks of channels.
    pub(crate) fn blocks(self) -> usize {
        blocks_of(self.channels)
    }

    /// Blocks in memory for one image.
    pub(crate) fn size(self) -> usize {
        self.blocks() * self.pixels()
    }
}

/// How a value lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// As a [`Map`].
    Blocked(Map),
    /// So many numbers for each image, in the order of their axes.
    Plain(usize),
}

impl Layout {
    /// Blocks in memory for `images`.
    pub(crate) fn size(self, images: usize) -> usize {
        match self {
            Layout::Blocked(map) => map.size() * images,
            Layout::Plain(len) => (len * images).div_ceil(LANES),
        }
    }
}
