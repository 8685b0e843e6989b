//! Runs and differentiates networks on libtorch, on the CPU and on CUDA.
//!
//! ```text
//! cp_net::Network ──Executor::new──▶ Executor ──forward──▶ logits, gradients
//!                 ◀──network()──────
//! ```
//!
//! [`Executor`] runs any [`cp_net::Network`], dense or factorized. [`CpConv2d`] and [`LowRankLinear`] are the factorized
//! layers alone, for people who write their models with tch. Both call the same forward functions. tch types
//! cross into the rest of the workspace only through this crate; it re-exports [`tch`].
//!
//! ```
//! use cp_torch::tch::{self, Kind, Tensor};
//! use cp_torch::{DeviceRequest, Executor, Mode, device};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let net = cp_net::arch::by_name("resnet20")?.initialize(1)?;
//! let model = Executor::new(&net, device(DeviceRequest::Auto)?)?;
//! let images = Tensor::zeros([2, 3, 32, 32], (Kind::Float, model.device()));
//! let logits = tch::no_grad(|| model.forward(&images, Mode::Eval))?;
//! assert_eq!(logits.size(), [2, 10]);
//!
//! // The trainable parameters by name; the network with their current values.
//! assert_eq!(model.trainable()[0].0, "conv1.weight");
//! assert_eq!(model.network()?, net);
//! # Ok(())
//! # }
//! ```
//!
//! The program links against the CPU half of libtorch; [`device()`] opens the CUDA half where there is one.

mod convert;
mod device;
mod error;
mod executor;
mod layout;
mod memory;
mod modules;
mod op;
#[cfg(test)]
mod testing;

pub use convert::{array_from_tensor, tensor_from_f32, tensor_from_i64, tensor_from_u8};
pub use device::{CUDA_LIBRARY_VARIABLE, DeviceRequest, device, loaded_version};
pub use error::{LibtorchError, TorchError};
pub use executor::{Executor, Mode, Watch};
pub use layout::Layout;
pub use memory::keep_freed_memory;
pub use modules::{CpConv2d, LowRankLinear};
pub use tch;
