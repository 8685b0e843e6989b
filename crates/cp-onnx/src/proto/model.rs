//! Fields of `ModelProto`, `FunctionProto` and `StringStringEntryProto`.

use crate::proto::{Field, Kind, Message};

pub(crate) const IR_VERSION: u32 = 1;
pub(crate) const PRODUCER: u32 = 2;
pub(crate) const PRODUCER_VERSION: u32 = 3;
pub(crate) const GRAPH: u32 = 7;
pub(crate) const OPSETS: u32 = 8;
pub(crate) const METADATA: u32 = 14;
pub(crate) const TRAINING: u32 = 20;
pub(crate) const FUNCTIONS: u32 = 25;

pub(crate) mod function {
    pub(crate) const NAME: u32 = 1;
    pub(crate) const INPUTS: u32 = 4;
    pub(crate) const OUTPUTS: u32 = 5;
    pub(crate) const NODES: u32 = 7;
    pub(crate) const OPSETS: u32 = 9;
    pub(crate) const DOMAIN: u32 = 10;
    pub(crate) const DEFAULTS: u32 = 11;
    pub(crate) const OVERLOAD: u32 = 13;
}

/// Whether `domain` is that of ONNX itself.
pub(crate) fn is_onnx_domain(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// The version of ONNX's own operators among the sets in fields `number`.
pub(crate) fn opset(message: &Message, number: u32) -> i64 {
    message
        .children(number)
        .filter(|(_, set)| is_onnx_domain(&set.string(1)))
        .find_map(|(_, set)| set.int(2))
        .unwrap_or(1)
}

/// A key and its value.
pub(crate) fn entry(number: u32, key: &str, value: &str) -> Field {
    let fields = vec![Field::string(1, key), Field::string(2, value)];
    Field::message(number, Message::new(Kind::Leaf, fields))
}
