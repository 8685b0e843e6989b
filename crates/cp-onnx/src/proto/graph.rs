//! Fields of `GraphProto`, `ValueInfoProto` and `SparseTensorProto`.

use crate::proto::{Field, Kind, Message};
use crate::values::Dim;

pub(crate) const NODES: u32 = 1;
pub(crate) const NAME: u32 = 2;
pub(crate) const INITIALIZERS: u32 = 5;
pub(crate) const INPUTS: u32 = 11;
pub(crate) const OUTPUTS: u32 = 12;
pub(crate) const VALUE_INFO: u32 = 13;
pub(crate) const QUANTIZATION: u32 = 14;

/// The `ValueInfoProto` of a tensor in field `number` of a graph: its name, `TypeProto.Tensor` with type and shape.
pub(crate) fn value(number: u32, name: &str, data_type: i64, dims: &[Dim]) -> Field {
    // As bytes, as decoding has them: what reads a type takes it apart itself.
    let bytes = |fields: Vec<Field>| {
        let mut out = Vec::new();
        Message::new(Kind::Leaf, fields).write(&mut out);
        out
    };
    let dim = |dim: &Dim| {
        Field::bytes(
            1,
            match dim {
                Dim::Size(size) => {
                    bytes(vec![Field::int(1, i64::try_from(*size).unwrap_or(i64::MAX))])
                }
                Dim::Symbol(name) => bytes(vec![Field::string(2, name)]),
                Dim::Unknown => Vec::new(),
            },
        )
    };
    let shape = bytes(dims.iter().map(dim).collect());
    let tensor = bytes(vec![Field::int(1, data_type), Field::bytes(2, shape)]);
    let kind = bytes(vec![Field::bytes(1, tensor)]);
    let fields = vec![Field::string(1, name), Field::bytes(2, kind)];
    Field::message(number, Message::new(Kind::Leaf, fields))
}

/// An input of this shape.
pub(crate) fn input(name: &str, data_type: i64, shape: &[usize]) -> Field {
    let dims: Vec<Dim> = shape.iter().map(|&size| Dim::Size(size)).collect();
    value(INPUTS, name, data_type, &dims)
}
