//! How much a file may ask for. Every limit is above what exporters write and below what hurts a machine.

/// Bytes of a model file: what protocol buffers allow one message to have.
/// Source: <https://protobuf.dev/programming-guides/proto-limits/>.
pub const MAX_BYTES: u64 = (1 << 31) - 1;

/// Messages inside each other, the limit of protocol buffers' own readers. An `If` inside an `If` takes three.
pub const MAX_DEPTH: usize = 100;

/// Fields of a file that are kept one by one. A field of two bytes costs about a hundred in memory.
pub const MAX_FIELDS: usize = 1 << 22;

/// Values of one weight: 2³⁰, 4 GiB as f32.
pub const MAX_VALUES: usize = 1 << 30;

/// Axes of a tensor.
pub const MAX_AXES: usize = 32;

/// Nodes between a weight and its initializer (`Transpose` of `Reshape` of …); also what ends a circle.
pub const MAX_FOLDS: usize = 32;

/// Values of all constants that are computed while a model is read as a network: 2²⁹, 2 GiB as f32.
pub const MAX_FOLDED: usize = 1 << 29;

/// Nodes that are read as a network, with functions inlined at each call.
pub const MAX_NODES: usize = 1 << 20;

/// Local functions that call each other.
pub const MAX_CALLS: usize = 32;
