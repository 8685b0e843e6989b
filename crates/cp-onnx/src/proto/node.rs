//! Fields of `NodeProto`, and how a node is made.

use crate::proto::attribute;
use crate::proto::{Field, Kind, Message};

pub(crate) const INPUTS: u32 = 1;
pub(crate) const OUTPUTS: u32 = 2;
pub(crate) const NAME: u32 = 3;
pub(crate) const OP: u32 = 4;
pub(crate) const ATTRIBUTES: u32 = 5;
pub(crate) const DOMAIN: u32 = 7;
pub(crate) const OVERLOAD: u32 = 8;

/// The attribute `name` of `node`.
pub(crate) fn attribute<'a>(node: &'a Message, name: &str) -> Option<&'a Message> {
    node.children(ATTRIBUTES)
        .map(|(_, attribute)| attribute)
        .find(|attribute| attribute.string(attribute::NAME) == name)
}

/// A node of ONNX's own domain.
pub(crate) fn make(
    op: &str,
    name: &str,
    inputs: &[&str],
    output: &str,
    attributes: Vec<Message>,
) -> Message {
    make_all(op, name, inputs, &[output], attributes)
}

/// The same with several outputs.
pub(crate) fn make_all(
    op: &str,
    name: &str,
    inputs: &[&str],
    outputs: &[&str],
    attributes: Vec<Message>,
) -> Message {
    let mut fields: Vec<Field> = inputs.iter().map(|name| Field::string(INPUTS, name)).collect();
    fields.extend(outputs.iter().map(|name| Field::string(OUTPUTS, name)));
    fields.push(Field::string(NAME, name));
    fields.push(Field::string(OP, op));
    fields.extend(attributes.into_iter().map(|message| Field::message(ATTRIBUTES, message)));
    Message::new(Kind::Node, fields)
}
