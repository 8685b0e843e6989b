//! Batch normalization measures its statistics anew, the cheapest repair of a compressed network.

#[cfg(feature = "torch")]
mod executor;

use crate::config::Augmentation;
#[cfg(feature = "torch")]
pub use executor::calibrate;

/// What the statistics of batch normalizations are measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CalibrationOptions {
    /// Images, rounded down to whole batches of 100, at least one batch.
    pub images: usize,
    /// Random changes to the images: those that the network was trained with. The statistics of a network that was trained on
    /// shifted images are not those of unshifted ones; with the wrong ones a dense network, too, gets worse.
    pub augmentation: Augmentation,
    /// Seed of the order and of the changes.
    pub seed: u64,
    /// Threads that read images.
    pub workers: usize,
}
