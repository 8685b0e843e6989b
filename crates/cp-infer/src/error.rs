//! [`InferError`].

use cp_net::NetError;

/// Why a network cannot be made ready, or cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferError {
    /// The network does not hang together for the shape of its inputs.
    #[error(transparent)]
    Network(#[from] NetError),

    /// Layers without a kernel, which were not to be run by their definitions.
    #[error(
        "no fast kernel for {}; leave `Options::fast_only` out to run them by their slow definitions", .layers.join(", ")
    )]
    NoKernel {
        /// Names and kinds of the layers, such as `up (resize)`.
        layers: Vec<String>,
    },

    /// A value of more pixels than a position can count.
    #[error(
        "value '{value}' of {images} images needs {bytes} bytes, more than one can have; plan for fewer images with `Options::batch`"
    )]
    TooLarge {
        /// The value.
        value: String,
        /// Images that it was to hold.
        images: usize,
        /// Bytes for all of them.
        bytes: usize,
    },

    /// More or fewer arrays than the network has inputs or outputs.
    #[error("{got} arrays for the {expected} {what} of network '{network}'")]
    Count {
        /// Name of the network.
        network: String,
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many there are.
        expected: usize,
        /// How many were given.
        got: usize,
    },

    /// An input of another shape.
    #[error(
        "input '{input}' has shape {got:?}, expected [N, …] with {expected:?} behind the number of images, the same for all inputs"
    )]
    Shape {
        /// Name of the input.
        input: String,
        /// Its shape without the batch axis.
        expected: Vec<usize>,
        /// The shape that was given.
        got: Vec<usize>,
    },

    /// A slice of another length.
    #[error("{what} '{name}' has room for {got} numbers, expected {expected}")]
    Length {
        /// `input` or `output`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Numbers that it should hold.
        expected: usize,
        /// Numbers that it does hold.
        got: usize,
    },
}
