//! [`Block`], the unit of all arrays here, and [`Blocks`], memory for them.

use std::ops::{Deref, DerefMut};

/// Channels of a block: a vector of AVX-512, two of AVX2, a cache line in any case.
pub(crate) const LANES: usize = 16;

/// 16 neighboring channels of one pixel. Channels that a layer does not have are 0 in a weight and anything in a map: nobody reads them.
pub(crate) type Block = [f32; LANES];

/// Blocks of zeros.
pub(crate) const ZERO: Block = [0.0; LANES];

/// Blocks that start at a cache line: a vector that lies in two costs two loads.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Blocks {
    /// `len` blocks of zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let values = vec![0.0; (len + 1) * LANES];
        // A whole number of floats, since an allocation is aligned to one at least; 0 where it is not known.
        let start = match values.as_ptr().align_offset(size_of::<Block>()) {
            start if start <= LANES => start,
            _ => 0,
        };
        Self { values, start, len }
    }

    /// A copy of `blocks`.
    pub(crate) fn of(blocks: &[Block]) -> Self {
        let mut copy = Self::zeros(blocks.len());
        copy.copy_from_slice(blocks);
        copy
    }
}

impl Deref for Blocks {
    type Target = [Block];

    fn deref(&self) -> &[Block] {
        &self.values[self.start..].as_chunks().0[..self.len]
    }
}

impl DerefMut for Blocks {
    fn deref_mut(&mut self) -> &mut [Block] {
        &mut self.values[self.start..].as_chunks_mut().0[..self.len]
    }
}

/// Blocks that hold `channels`.
pub(crate) fn blocks_of(channels: usize) -> usize {
    channels.div_ceil(LANES)
}
