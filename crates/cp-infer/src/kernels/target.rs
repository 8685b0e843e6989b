//! [`Target`]: where sums go.

use crate::block::Block;

/// A map that is written, or the part of it that one thread writes.
#[derive(Debug)]
pub(crate) enum Target<'a> {
    /// Blocks of channels from the `first` on, `stride` blocks apart, in one piece from `start` on.
    Whole { blocks: &'a mut [Block], start: usize, stride: usize, first: usize },
    /// Of every block of channels the pixels from `before` on.
    Parts { parts: Vec<&'a mut [Block]>, before: usize },
}

impl<'a> Target<'a> {
    /// All of `blocks`, from `start` on.
    pub(crate) fn whole(blocks: &'a mut [Block], start: usize, stride: usize) -> Self {
        Target::Whole { blocks, start, stride, first: 0 }
    }

    /// `len` pixels of a block of channels from `pixel` on.
    #[inline(always)]
    pub(crate) fn row(&mut self, block: usize, pixel: usize, len: usize) -> &mut [Block] {
        match self {
            Target::Whole { blocks, start, stride, first } => {
                &mut blocks[*start + (block - *first) * *stride + pixel..][..len]
            }
            Target::Parts { parts, before } => &mut parts[block][pixel - *before..][..len],
        }
    }
}
