//! What can be wrong with a model.

use std::io;
use std::path::PathBuf;

use cp_net::{FileKind, NetError};

use crate::wire::WireError;

/// The error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the file system reports.
        source: io::Error,
    },
    /// A file of another kind.
    #[error("{}: is {kind}, not an ONNX model; {}", path.display(), kind.way_out())]
    ForeignFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
    },
    /// Numbers of a layer that are none.
    #[error(
        "{}: '{value}' of node '{node}' ({op}) holds {count} values that are {what}; a training that diverged, or a damaged copy: no output \
         of the model can be trusted",
        file(path)
    )]
    NoNumbers {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// The node.
        node: String,
        /// Its op.
        op: String,
        /// The initializer or constant.
        value: String,
        /// How many.
        count: usize,
        /// `NaN or infinite`, or `negative variances`.
        what: &'static str,
    },
    /// Bytes that are no model.
    #[error("{}: no ONNX model, or a damaged one: {source}", file(path))]
    Wire {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// Where and why.
        source: WireError,
    },
    /// A message that has no graph, or several.
    #[error(
        "{}: expected an ONNX model with one graph, found {graphs}; is it the whole file, and an .onnx?",
        file(path)
    )]
    NoGraph {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// How many there are.
        graphs: usize,
    },
    /// A model larger than a message of protocol buffers can be.
    #[error(
        "{}: {bytes} bytes, expected at most {most}; keep the weights as external data",
        file(path)
    )]
    TooLarge {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// How many bytes.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// A tensor that does not hold what it says.
    #[error("{}: tensor '{tensor}' (byte {offset}): {source}", file(path))]
    Tensor {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// Name of the tensor.
        tensor: String,
        /// Byte of the file at which it starts.
        offset: usize,
        /// What is wrong.
        source: TensorError,
    },
    /// A model whose weights are integers already.
    #[error(
        "{}: node '{node}' ({op}): the model is quantized; compress the float model first, then quantize the result",
        file(path)
    )]
    Quantized {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// A node that says so.
        node: String,
        /// Its op.
        op: String,
    },
    /// A record of factorizations that this version did not write.
    #[error("{}: metadata '{key}' is no record of factorizations: {source}", file(path), key = crate::record::KEY)]
    Record {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// An entry of an exported network that this version did not write.
    #[error("{}: metadata '{key}' is no network: {source}; remove the entry to read the graph alone", file(path), key = crate::export::NETWORK_KEY)]
    NetworkRecord {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// An opset that is not written.
    #[error("opset {opset} is not written; choose one from {least} to {most}")]
    Opset {
        /// What was asked for.
        opset: i64,
        /// The first that is written.
        least: i64,
        /// The last.
        most: i64,
    },
    /// Weights that half precision does not hold.
    #[error(
        "weight '{name}': {count} values are too large or too small for half precision; export in single precision"
    )]
    Half {
        /// The parameter.
        name: String,
        /// How many.
        count: usize,
    },
    /// Nothing in the model can be compressed.
    #[error(
        "{}: has no layer that can be compressed{}",
        file(path),
        why.iter().take(5).map(|(layer, why)| format!("; '{layer}': {why}")).collect::<String>()
    )]
    NoLayers {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// The layers that there are, and why they are left alone.
        why: Vec<(String, String)>,
    },
    /// No layer of this name.
    #[error(
        "the model has no layer '{layer}' with the weight '{weight}' in {scope}; was it replaced already?"
    )]
    UnknownLayer {
        /// The layer.
        layer: String,
        /// Its weight.
        weight: String,
        /// Where it was looked for.
        scope: String,
    },
    /// No value of this name.
    #[error(
        "nothing in the main graph makes the value '{value}'; values inside of subgraphs and functions cannot be given out"
    )]
    UnknownValue {
        /// The name.
        value: String,
    },
    /// A file that would be written over.
    #[error(
        "{} is there already, and another model may read it; remove it, or save under another name",
        path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A layer that is not rewritten.
    #[error("layer '{layer}' is left alone: {reason}")]
    LeftAlone {
        /// The layer.
        layer: String,
        /// Why.
        reason: crate::Reason,
    },
    /// A part with a kernel that does not follow the one before, or does not fit the layer.
    #[error("layer '{layer}', part '{part}': the kernel has shape {got:?}, expected {expected}")]
    Part {
        /// The layer.
        layer: String,
        /// The part.
        part: String,
        /// Shape of its kernel.
        got: Vec<usize>,
        /// What would do.
        expected: String,
    },
    /// Values that the weight's type cannot hold.
    #[error("layer '{layer}', part '{part}': {count} values are not finite as {float}")]
    NotFinite {
        /// The layer.
        layer: String,
        /// The part.
        part: String,
        /// How many.
        count: usize,
        /// The type.
        float: crate::Float,
    },
    /// A model that cannot be read as a network, or trained values that cannot be written back.
    #[error("{}: {source}", file(path))]
    Import {
        /// The file, if the bytes come from one.
        path: Option<PathBuf>,
        /// What is wrong.
        source: crate::ImportError,
    },
    /// A form that does not fit the layer.
    #[error(transparent)]
    Form(#[from] NetError),
}

fn file(path: &Option<PathBuf>) -> String {
    path.as_ref().map_or_else(|| "model".into(), |path| path.display().to_string())
}

/// Why a tensor cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// Negative sizes, or more than the limits allow.
    #[error("shape {shape:?} is negative or too large")]
    Shape {
        /// The sizes.
        shape: Vec<i64>,
    },
    /// No floating-point numbers of a type known here.
    #[error(
        "its values have type {number} of TensorProto.DataType, expected float32, float16, bfloat16 or float64"
    )]
    Type {
        /// The number of the type.
        number: i64,
    },
    /// A tensor in several pieces, which no exporter has written for years.
    #[error("it is stored in segments, which are not supported")]
    Segment,
    /// More or fewer bytes than its shape and type say.
    #[error("{got} bytes of values, expected {expected}")]
    Bytes {
        /// By shape and type.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// More or fewer values than its shape says.
    #[error("{got} values, expected {expected}")]
    Count {
        /// By its shape.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// An entry of `external_data` that is no number.
    #[error("external data: {key} is '{value}', expected a number")]
    External {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// A path that leads out of the model's folder.
    #[error("external data '{location}' is not below the model's folder")]
    Outside {
        /// The path.
        location: String,
    },
    /// External data of a model that has no folder.
    #[error("its values lie in '{location}'; open the model by its path")]
    NoFolder {
        /// The path.
        location: String,
    },
    /// A file of external data that cannot be read.
    #[error("external data {}: {source}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What the file system reports.
        source: io::Error,
    },
    /// A file of external data that ends too early.
    #[error("external data {}: bytes {offset} to {offset}+{length} of a file of {size}", path.display())]
    Short {
        /// The file.
        path: PathBuf,
        /// The first byte.
        offset: u64,
        /// How many.
        length: u64,
        /// Bytes of the file.
        size: u64,
    },
}
