//! Fields of `AttributeProto`, and how an attribute is made.

use crate::proto::{Field, Kind, Message};

pub(crate) const NAME: u32 = 1;
pub(crate) const FLOAT: u32 = 2;
pub(crate) const INT: u32 = 3;
pub(crate) const STRING: u32 = 4;
pub(crate) const TENSOR: u32 = 5;
pub(crate) const GRAPH: u32 = 6;
pub(crate) const FLOATS: u32 = 7;
pub(crate) const INTS: u32 = 8;
pub(crate) const GRAPHS: u32 = 11;
/// The parameter of the function that the attribute's value is, inside of functions.
pub(crate) const REFERENCE: u32 = 21;

const TYPE: u32 = 20;

/// With the value in `values`, of type `kind` (`AttributeProto.AttributeType`).
fn make(name: &str, values: impl IntoIterator<Item = Field>, kind: i64) -> Message {
    let fields = std::iter::once(Field::string(NAME, name))
        .chain(values)
        .chain([Field::int(TYPE, kind)])
        .collect();
    Message::new(Kind::Attribute, fields)
}

pub(crate) fn float(name: &str, value: f32) -> Message {
    make(name, [Field::float(FLOAT, value)], 1)
}

pub(crate) fn int(name: &str, value: i64) -> Message {
    make(name, [Field::int(INT, value)], 2)
}

pub(crate) fn ints(name: &str, values: &[i64]) -> Message {
    make(name, values.iter().map(|&value| Field::int(INTS, value)), 7)
}

pub(crate) fn string(name: &str, value: &str) -> Message {
    make(name, [Field::string(STRING, value)], 3)
}

pub(crate) fn tensor(name: &str, value: Message) -> Message {
    make(name, [Field::message(TENSOR, value)], 4)
}
