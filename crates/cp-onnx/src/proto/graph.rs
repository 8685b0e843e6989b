//! Fields of `GraphProto`, `ValueInfoProto` and `SparseTensorProto`.

use crate::proto::{Field, Kind, Message};

pub(crate) const NODES: u32 = 1;
pub(crate) const INITIALIZERS: u32 = 5;
pub(crate) const INPUTS: u32 = 11;
pub(crate) const OUTPUTS: u32 = 12;
pub(crate) const VALUE_INFO: u32 = 13;
pub(crate) const QUANTIZATION: u32 = 14;

/// The `ValueInfoProto` of a tensor: its name, `TypeProto.Tensor` with type and shape.
pub(crate) fn input(name: &str, data_type: i64, shape: &[usize]) -> Field {
    let message = |fields| Message::new(Kind::Leaf, fields);
    let dims = shape
        .iter()
        .map(|&size| {
            let size = i64::try_from(size).unwrap_or(i64::MAX);
            Field::message(1, message(vec![Field::int(1, size)]))
        })
        .collect();
    let tensor = message(vec![Field::int(1, data_type), Field::message(2, message(dims))]);
    let kind = message(vec![Field::message(1, tensor)]);
    Field::message(INPUTS, message(vec![Field::string(1, name), Field::message(2, kind)]))
}
