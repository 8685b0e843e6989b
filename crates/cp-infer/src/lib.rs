//! Runs convolutional networks forward on a CPU, dense and factorized ones alike, in safe Rust.
#![forbid(unsafe_code)]

mod block;
mod compiled;
mod error;
mod geometry;
mod kernels;
mod level;
mod lower;
mod map;
mod pack;
mod plan;
mod step;
mod steps;
mod units;

pub use compiled::{Compiled, Options, StepInfo};
pub use error::InferError;
pub use level::Level;
