//! How much a file may ask for. Every limit is above what PyTorch writes and below what hurts a machine.

use std::cell::Cell;

/// Members of an archive: a checkpoint has one for each storage.
pub(crate) const MAX_MEMBERS: u64 = 1 << 20;

/// Bytes of a pickle: that of a network with a thousand layers has a few hundred thousand.
pub(crate) const MAX_PICKLE: usize = 1 << 28;

/// Bytes of a program's JSON, some two thousand an operation.
pub(crate) const MAX_JSON: usize = 1 << 26;

/// Opcodes of a pickle, each of which may make one object of some hundred bytes.
pub(crate) const MAX_OPCODES: usize = 1 << 24;

/// Collections under construction inside each other; Python's own pickler stops at a thousand.
pub(crate) const MAX_MARKS: usize = 1 << 12;

/// Axes of a tensor: what PyTorch allows.
pub(crate) const MAX_AXES: usize = 64;

/// Weights hardly compress, and views of them are rarely larger than they are: what is read may take this many times the file …
const EXPANSION: u64 = 64;

/// … and so many bytes besides, for small files.
const BESIDES: u64 = 1 << 26;

/// What is left of the memory that a file may ask for; drawn on before anything is allocated.
#[derive(Debug)]
pub(crate) struct Budget {
    most: u64,
    left: Cell<u64>,
}

/// A file that asks for more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "its contents take more than {most} bytes in memory, {EXPANSION} times the file and more; it is damaged or made to do harm"
)]
pub struct OverBudget {
    /// The limit.
    pub most: u64,
}

impl Budget {
    /// That of a file of `bytes` bytes.
    pub(crate) fn of(bytes: usize) -> Self {
        let most = (bytes as u64).saturating_mul(EXPANSION).saturating_add(BESIDES);
        Self { most, left: Cell::new(most) }
    }

    /// Takes `bytes` bytes.
    pub(crate) fn take(&self, bytes: usize) -> Result<(), OverBudget> {
        let left = self.left.get().checked_sub(bytes as u64);
        self.left.set(left.ok_or(OverBudget { most: self.most })?);
        Ok(())
    }
}
