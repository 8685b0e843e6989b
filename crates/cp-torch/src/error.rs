//! What can go wrong between a network and libtorch.

use std::fmt;
use std::path::PathBuf;

use cp_net::NetError;
use tch::{Device, Kind, TchError};

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorchError {
    /// The input is no batch of what the network takes.
    #[error(
        "the network '{network}' takes a batch of shape [B, {}], got {got:?}",
        expected.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    )]
    InputShape {
        /// Name of the architecture.
        network: String,
        /// `[C, H₀, …]` that the network was built for; C and the number of axes must agree.
        expected: Vec<usize>,
        /// Shape of the tensor given, the batch axis included.
        got: Vec<i64>,
    },
    /// Another number of tensors than the network has inputs.
    #[error("the network '{network}' has {} inputs ({}), got {got}", expected.len(), expected.join(", "))]
    InputCount {
        /// Name of the architecture.
        network: String,
        /// Names of its inputs.
        expected: Vec<String>,
        /// How many tensors were given.
        got: usize,
    },
    /// The input has another kind of values, or lies elsewhere, than the network's arrays.
    #[error(
        "the network takes values of kind {expected_kind:?} on {expected_device:?}, got {got_kind:?} on {got_device:?}"
    )]
    InputKind {
        /// The kind of the network's arrays.
        expected_kind: Kind,
        /// The kind of the tensor given.
        got_kind: Kind,
        /// Where the network's arrays lie.
        expected_device: Device,
        /// Where the tensor given lies.
        got_device: Device,
    },
    /// libtorch refused an operation of the network.
    #[error("layer '{node}' cannot run on inputs of shape {inputs:?}: {source}")]
    Node {
        /// The node.
        node: String,
        /// Shapes of its inputs, the batch axis included.
        inputs: Vec<Vec<i64>>,
        /// What libtorch said.
        source: LibtorchError,
    },
    /// Batch normalization is to measure a variance on one value.
    #[error(
        "layer '{node}' (batch_norm) got one value for each channel, and one value has no variance: train on batches of at least 2 examples"
    )]
    OneValue {
        /// The node.
        node: String,
    },
    /// The arrays do not belong to the architecture that runs.
    #[error("the network to load has another architecture than the one that runs ({detail})")]
    OtherArchitecture {
        /// The first difference.
        detail: String,
    },
    /// A stand-alone layer was asked for factors that it has no form for.
    #[error("layer '{layer}' is no {expected}")]
    NotFactorized {
        /// The layer.
        layer: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// CUDA was asked for, and there is none.
    #[error(
        "CUDA was asked for, but {reason}; use `--device cpu`, or point POLYAD_LIBTORCH_CUDA at the libtorch_cuda.so of a PyTorch 2.11.0 that was built for CUDA"
    )]
    NoCuda {
        /// What is missing.
        reason: String,
    },
    /// The library that the user named could not be opened.
    #[error("POLYAD_LIBTORCH_CUDA={}: {reason}; it must be the libtorch_cuda.so of a complete PyTorch 2.11.0 with its CUDA libraries", path.display())]
    CudaLibrary {
        /// The value of the variable.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// No such device.
    #[error("unknown device '{name}': it is cpu, cuda or auto")]
    UnknownDevice {
        /// The name asked for.
        name: String,
    },
    /// The network itself is wrong.
    #[error(transparent)]
    Net(Box<NetError>),
    /// libtorch refused something outside a layer, such as a copy between devices.
    #[error("libtorch: {0}")]
    Torch(LibtorchError),
}

impl From<NetError> for TorchError {
    fn from(error: NetError) -> Self {
        // Boxed, since every `Result` of this crate is as large as its largest error.
        Self::Net(Box::new(error))
    }
}

impl From<TchError> for TorchError {
    fn from(error: TchError) -> Self {
        Self::Torch(error.into())
    }
}

/// What libtorch said, without the frames of C++ that it puts behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibtorchError(String);

impl From<TchError> for LibtorchError {
    fn from(error: TchError) -> Self {
        Self(without_frames(&error.to_string()))
    }
}

impl fmt::Display for LibtorchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LibtorchError {}

/// The lines of `message` in front of the first that is about where in libtorch it came from, as one.
fn without_frames(message: &str) -> String {
    let is_frame = |line: &&str| {
        let line = line.trim_start();
        ["Exception raised from", "frame #", "C++ CapturedTraceback", "C++ stack", "#0 "]
            .iter()
            .any(|mark| line.starts_with(mark))
    };
    let lines = message.lines().take_while(|line| !is_frame(line)).map(str::trim);
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_left_out() {
        let check = |message: &str, expected: &str| assert_eq!(without_frames(message), expected);
        check("a\nException raised from f at x.cpp:1 (most recent call first):\nframe #0: g", "a");
        check("out of memory\nTried 5 GB\n\nframe #0: g\nframe #1: h", "out of memory Tried 5 GB");
        check("plain", "plain");
        check("", "");
    }

    /// The whole chain of causes, as programs print it.
    #[test]
    fn no_error_of_libtorch_shows_frames() {
        let (a, b) =
            (tch::Tensor::from_slice(&[1.0_f32; 6]), tch::Tensor::from_slice(&[1.0_f32; 4]));
        let refused = a.f_add(&b).map_err(TorchError::from).unwrap_err();
        let mut cause: Option<&dyn std::error::Error> = Some(&refused);
        while let Some(error) = cause {
            let text = error.to_string();
            assert!(text.contains("must match") && !text.contains('\n'), "{text}");
            cause = error.source();
        }
    }
}
