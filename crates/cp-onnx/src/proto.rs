//! ONNX's messages: trees of fields in the order in which they stand, with typed readers.
//!
//! A message keeps all of its fields, known or not; only what is changed is written anew. Which fields are messages is said in
//! [`Kind::child`], by the numbers of <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3>.

pub(crate) mod attribute;
pub(crate) mod graph;
pub(crate) mod message;
pub(crate) mod model;
pub(crate) mod node;
pub(crate) mod tensor;

pub(crate) use message::{Field, Kind, Message, Payload};
