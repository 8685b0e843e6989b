//! Whether libtorch is there: what the process has of it, and in what words it is refused in a program that was built without.

use crate::error::TrainError;

/// Whether the program was built with it.
pub(crate) const HERE: bool = cfg!(feature = "torch");

pub(crate) const ENGINE: [&str; 2] =
    ["--engine torch", "leave --engine out, or name onnxruntime or infer"];

pub(crate) const FINE_TUNING: [&str; 2] = [
    "fine-tuning",
    "leave --epochs out, and with a data set take --preset quick --calibrate 0, which do what can be done without it",
];

pub(crate) const CALIBRATION: [&str; 2] =
    ["measuring the statistics of batch normalizations anew", "--calibrate 0 leaves it out"];

pub(crate) const SENSITIVITY: [&str; 2] = [
    "measuring losses layer by layer (--plan-by sensitivity, --rank-sums)",
    "plan by errors, which is the default",
];

#[cfg(not(feature = "torch"))]
pub(crate) const ATTACK: [&str; 2] =
    ["attacking a network (polyad attack)", "install polyad with it, which is the default"];

/// That a program without libtorch was asked for what only libtorch does; and what can be had without.
pub(crate) fn refused([what, way_out]: [&'static str; 2]) -> TrainError {
    TrainError::NeedsLibtorch { what, way_out }
}

pub(crate) use process::{set_threads, version};

#[cfg(feature = "torch")]
mod process {
    /// Of the library that is loaded.
    pub(crate) fn version() -> String {
        cp_torch::loaded_version()
    }

    /// Sets the number of threads; 0 leaves it as it is. Returns the number in force.
    pub(crate) fn set_threads(threads: usize) -> usize {
        if threads > 0 {
            cp_torch::tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
        }
        usize::try_from(cp_torch::tch::get_num_threads()).unwrap_or(1)
    }
}

#[cfg(not(feature = "torch"))]
mod process {
    use std::sync::atomic::{AtomicUsize, Ordering};

    pub(crate) fn version() -> String {
        "none".into()
    }

    /// 0 until it is set.
    static THREADS: AtomicUsize = AtomicUsize::new(0);

    /// Sets the number of threads; 0 leaves it as it is. Returns the number in force.
    pub(crate) fn set_threads(threads: usize) -> usize {
        if threads > 0 {
            THREADS.store(threads, Ordering::Relaxed);
        }
        match THREADS.load(Ordering::Relaxed) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}
