//! What the tests of plans share: a network of two convolutions, and the right to libtorch's settings.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cp_net::arch::{Builder, window};
use cp_net::{InputSpec, Network};
use cp_torch::tch;

/// libtorch has one generator and one number of threads for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    tch::set_num_threads(1);
    guard
}

pub(crate) fn network() -> Network {
    let arch = Builder::new("tiny", InputSpec::gray(8))
        .conv("conv1", 8, window(3).pad(1).no_bias())
        .batch_norm("norm1")
        .relu("relu1")
        .conv("conv2", 8, window(3).pad(1).no_bias())
        .batch_norm("norm2")
        .relu("relu2")
        .max_pool("pool", window(2).stride(2))
        .flatten("flat")
        .linear("fc", 3)
        .build()
        .unwrap();
    arch.initialize(1).unwrap()
}
