//! ONNX models, rewritten in place, and networks written as ONNX models.
//!
//! The file stays the source of truth: a [`Model`] is the message as it stands, every field in its place. Layers with a constant weight
//! ([`Model::layers`]) are replaced by their factors ([`Model::replace`]); all else (foreign ops, unknown fields, names, opsets,
//! metadata) is written back byte for byte. A model of which nothing is replaced encodes to the bytes that it was read from.
//!
//! ```
//! use cp_onnx::{Model, OnnxError};
//!
//! // An empty graph of IR 8 and opset 17, and a field 99 that nobody knows.
//! let bytes = [8, 8, 58, 0, 66, 2, 16, 17, 152, 6, 1];
//! let model = Model::decode(bytes.to_vec())?;
//! assert!(model.layers()?.is_empty());
//! assert_eq!(model.encode(), bytes);
//! # Ok::<(), OnnxError>(())
//! ```
//!
//! # What is rewritten
//! - `Conv` over any number of axes and in groups, `Gemm`, and `MatMul` with the weight on the right, in the main graph, in graphs inside
//!   of nodes (`If`, `Loop`, `Scan`) and in local functions.
//! - Weights that are initializers, `Constant` nodes, or `Identity`, `Transpose`, `Reshape`, `Cast` of such; of type float32, float16,
//!   bfloat16 or float64 (rounded to float32 on the way). The factors have the weight's type.
//! - An initializer that is listed as an input, too, counts as constant: IR 3 had to list all of them, and exporters went on to. It
//!   leaves the list with its weight; from IR 4 on, where a caller may feed another, [`Layer::note`] says so.
//!
//! # What is read as a network
//! [`Model::import`] makes a `cp_net::Network` of a model, or of the region between values that are named ([`Model::trainable_region`]
//! finds the longest): constants are computed, constant branches taken, functions inlined, the batch axis followed. It knows which of
//! its kernels are layers of [`Model::layers`], and [`Model::update`] writes trained values back.
//!
//! Quantized models are refused; a layer that is left alone comes with its [`Reason`].
//!
//! # What is written
//! [`export()`] writes a [`cp_net::Network`] as a model in ONNX's own operators, and [`exported_network`] reads it back as it was.

mod error;
mod export;
mod external;
mod finite;
mod fold;
mod import;
mod layers;
pub mod limits;
mod model;
mod parts;
mod proto;
mod record;
mod scopes;
mod splice;
#[cfg(test)]
mod testing;
mod values;
mod view;
pub mod wire;
mod write;

pub use error::{OnnxError, TensorError};
pub use export::{ExportOptions, NETWORK_KEY, OPSETS, export, exported_network};
pub use import::{
    Binding, ImportError, ImportOptions, Imported, Refusal, RefusedNode, Region, Source,
};
pub use layers::{Layer, LayerKind, Note, Reason};
pub use model::Model;
pub use parts::{Part, Parts, Step};
pub use proto::tensor::Float;
pub use record::{Factorization, KEY as METADATA_KEY};
pub use values::{Dim, ElementType, ValueInfo};
pub use view::LayerView;
