//! ONNX Runtime as an engine.
//!
//! The library is opened at run time ([`library`]), so programs build and start without it; what needs it gets an error that says how to
//! come by it. A [`Session`] is a model made ready to run; arrays go in and come out by name, each as a [`Tensor`].
//!
//! ```
//! use cp_ort::{OrtError, Session, SessionOptions, Tensor};
//! use ndarray::arr1;
//!
//! // y = x + x for one axis of any size: IR 8, opset 17.
//! let model = b"\x08\x08\x3a1\x0a\x0e\x0a\x01x\x0a\x01x\x12\x01y\x22\x03Add\x12\x01g\
//!     Z\x0d\x0a\x01x\x12\x08\x0a\x06\x08\x01\x12\x02\x0a\x00b\x0d\x0a\x01y\x12\x08\x0a\x06\x08\x01\x12\x02\x0a\x00B\x04\x0a\x00\x10\x11";
//! # if cp_ort::library().is_err() { return Ok(()); }
//! let mut session = Session::new(&model[..], &SessionOptions { threads: 1, ..SessionOptions::default() })?;
//! let x = Tensor::from(arr1(&[1.0_f32, 2.0]).into_dyn());
//! let outputs = session.run(&[("x", x)])?;
//! assert_eq!(outputs[0].0, "y");
//! assert_eq!(outputs[0].1, Tensor::from(arr1(&[2.0_f32, 4.0]).into_dyn()));
//! # Ok::<(), OrtError>(())
//! ```
//!
//! # Timing
//! [`Session::run`] copies outputs into arrays of the caller's. A call that is timed should not: [`Inputs`] are made once, and
//! [`Session::run_prepared`] passes them on as they lie and leaves the outputs where the library put them.
//!
//! # The process
//! The library is opened once and stays; every session of a process belongs to one environment. Sessions on several threads are
//! independent of each other, each with threads of its own. The library's log goes nowhere: what matters comes back as an [`OrtError`].
//! (`ORT_LOG=verbose` shows what is logged until the environment stands, which concerns the devices found.)

mod error;
mod library;
mod locate;
mod message;
mod profile;
mod session;
mod tensor;
mod value;

pub use error::OrtError;
pub use library::{Library, library};
pub use locate::{DYLIB_VARIABLE, VARIABLE};
pub use profile::{NodeTime, profile};
pub use session::{Inputs, Model, Optimize, Outputs, Session, SessionOptions};
pub use tensor::{ElementType, Tensor};
pub use value::{Dim, ValueInfo};

/// The Rust of the page on deployment compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/deploy.md")]
struct Deployment;
