//! Runs convolutional networks forward on a CPU, dense and factorized ones alike, in safe Rust.
//!
//! [`Compiled::new`] takes a [`Network`](cp_net::Network), folds it, chooses an algorithm for each of its layers, packs their weights and plans
//! their memory; [`Compiled::run`] runs it. A layer in CP-3 or CP-4, and every other 1×1 – depthwise – 1×1, is one pass in which the maps between
//! the three convolutions never exist, so that it is as much faster than the dense layer as its multiply-adds are fewer, whatever its rank is.
//!
//! ```
//! use cp_infer::{Compiled, Options};
//! use cp_net::{Form, arch};
//! use ndarray::ArrayD;
//!
//! let mut arch = arch::by_name("resnet20")?;
//! arch.factorize("layer3.1.conv2", Form::Cp3, 41)?;
//! let net = arch.initialize(1)?; //                         random weights; `Network::load` reads a file
//!
//! let compiled = Compiled::new(&net, &Options::default())?;
//! let images = ArrayD::zeros(vec![5, 3, 32, 32]);
//! let outputs = compiled.run(&[images.view()])?; //         one array for each output of the network
//! assert_eq!(outputs[0].shape(), [5, 10]);
//! println!("{} MB beside the weights", compiled.peak_memory() / 1_000_000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Results
//! Sums are in f32, in an order that depends on the [`Level`] alone: neither on the threads, nor on how many images there are. They are within
//! 1e-5 of the largest value of what the ops are defined to give, or 1e-4 with [`Options::winograd`]. Every op of cp-net runs: those without a kernel by their definition, slowly
//! ([`Options::fast_only`] refuses them, [`Compiled::steps`] tells them).
//!
//! # How it runs
//! - Between layers, channels lie in blocks of 16: `[C / 16, N, H, W, 16]`. A block is a vector of AVX-512, two of AVX2, four of Neon; the pixels
//!   of a row are neighbors, which a tile of registers takes several of.
//! - Batch norms are in the weights; biases start the sums; a residual, a ReLU or a clip is done before sums are stored.
//! - A chunk of images goes through all layers, so many that their maps stay in the L2 cache, until maps are small; from there on all go together,
//!   since small maps do not fill the tiles, and reading the weights is what costs.
//! - The kernels are written with [`pulp`] for any vectors, without `unsafe`.

#![forbid(unsafe_code)]

mod block;
mod compiled;
mod error;
mod geometry;
mod kernels;
mod level;
mod lower;
mod map;
mod options;
mod pack;
mod plan;
mod schedule;
mod step;
mod steps;
mod units;

pub use compiled::{Compiled, StepInfo, Watch};
pub use error::InferError;
pub use level::Level;
pub use options::Options;
