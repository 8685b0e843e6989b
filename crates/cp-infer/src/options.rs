//! [`Options`]: how a network is made ready.

use crate::level::Level;

/// How a network is made ready.
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    pub(crate) threads: usize,
    pub(crate) batch: usize,
    pub(crate) level: Option<Level>,
    pub(crate) winograd: bool,
    pub(crate) fast_only: bool,
}

impl Options {
    /// [`Options::threads`] by default.
    pub const THREADS: usize = 1;

    /// [`Options::batch`] by default.
    pub const BATCH: usize = 16;

    /// Threads of the current rayon pool that share the images of a call, or the work of large layers where there are fewer images than threads;
    /// [`Options::THREADS`] by default. The result does not depend on it.
    pub fn threads(self, threads: usize) -> Self {
        Self { threads: threads.max(1), ..self }
    }

    /// Most images for which memory is planned; [`Options::BATCH`] by default. More are taken in several rounds.
    pub fn batch(self, batch: usize) -> Self {
        Self { batch: batch.max(1), ..self }
    }

    /// The vector instructions; the fastest of this machine by default.
    pub fn level(self, level: Level) -> Self {
        Self { level: Some(level), ..self }
    }

    /// Whether dense 3×3 layers on large maps are computed by Winograd's transform, which takes a third to a half of the time; yes by default.
    /// What they give is then within 1e-4 of its largest value, otherwise within 1e-5.
    pub fn winograd(self, winograd: bool) -> Self {
        Self { winograd, ..self }
    }

    /// Whether a layer that would run by its slow definition is an error; no by default.
    pub fn fast_only(self, fast_only: bool) -> Self {
        Self { fast_only, ..self }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: Self::THREADS,
            batch: Self::BATCH,
            level: None,
            winograd: true,
            fast_only: false,
        }
    }
}
