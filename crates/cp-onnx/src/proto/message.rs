//! [`Message`]: any message of ONNX.

use crate::limits::{MAX_DEPTH, MAX_FIELDS};
use crate::wire::{Bytes, RawField, WireError, WireType, fields, head, varint};

/// Which message of ONNX it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    Function,
    /// One whose readers all go by name: `ValueInfoProto`, `StringStringEntryProto`, `OperatorSetIdProto`, …
    Leaf,
}

impl Kind {
    /// The message in field `number`, where that is taken apart.
    fn child(self, number: u32) -> Option<Kind> {
        Some(match (self, number) {
            (Kind::Model, 7) | (Kind::Attribute, 6 | 11) => Kind::Graph,
            (Kind::Model, 25) => Kind::Function,
            (Kind::Graph, 1) | (Kind::Function, 7) => Kind::Node,
            (Kind::Graph, 5) | (Kind::Attribute, 5) => Kind::Tensor,
            (Kind::Node, 5) | (Kind::Function, 11) => Kind::Attribute,
            (Kind::Model, 8 | 14) | (Kind::Graph, 11..=14) | (Kind::Tensor, 13) => Kind::Leaf,
            (Kind::Function, 9) => Kind::Leaf,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Model => "ModelProto",
            Kind::Graph => "GraphProto",
            Kind::Node => "NodeProto",
            Kind::Attribute => "AttributeProto",
            Kind::Tensor => "TensorProto",
            Kind::Function => "FunctionProto",
            Kind::Leaf => "a message",
        }
    }
}

/// What a field holds.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// Bytes that are not taken apart.
    Bytes(Bytes),
    /// A message, and the length that it had in the file.
    Message(Message, usize),
}

/// A field.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub(crate) number: u32,
    wire: WireType,
    /// Tag and length as they came.
    head: Bytes,
    pub(crate) payload: Payload,
}

impl Field {
    pub(crate) fn bytes(number: u32, bytes: Vec<u8>) -> Self {
        let head = head(number, WireType::Bytes, bytes.len()).into();
        Self { number, wire: WireType::Bytes, head, payload: Payload::Bytes(bytes.into()) }
    }

    pub(crate) fn string(number: u32, text: &str) -> Self {
        Self::bytes(number, text.as_bytes().to_vec())
    }

    pub(crate) fn int(number: u32, value: i64) -> Self {
        let mut bytes = Vec::new();
        crate::wire::put_varint(&mut bytes, value.cast_unsigned());
        let head = head(number, WireType::Varint, 0).into();
        Self { number, wire: WireType::Varint, head, payload: Payload::Bytes(bytes.into()) }
    }

    pub(crate) fn float(number: u32, value: f32) -> Self {
        let head = head(number, WireType::Fixed32, 0).into();
        let bytes = value.to_le_bytes().to_vec();
        Self { number, wire: WireType::Fixed32, head, payload: Payload::Bytes(bytes.into()) }
    }

    pub(crate) fn message(number: u32, message: Message) -> Self {
        // No message has this length, so that the head is made when it is written.
        let payload = Payload::Message(message, usize::MAX);
        Self { number, wire: WireType::Bytes, head: Vec::new().into(), payload }
    }

    /// Byte of the file at which it stands.
    pub(crate) fn offset(&self) -> usize {
        self.head.offset()
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match &self.payload {
            Payload::Bytes(bytes) => {
                out.extend_from_slice(&self.head);
                out.extend_from_slice(bytes);
            }
            Payload::Message(message, before) => {
                let length = message.len();
                if length == *before {
                    out.extend_from_slice(&self.head);
                } else {
                    out.extend(head(self.number, WireType::Bytes, length));
                }
                message.write(out);
            }
        }
    }

    fn len(&self) -> usize {
        match &self.payload {
            Payload::Bytes(bytes) => self.head.len() + bytes.len(),
            Payload::Message(message, before) => {
                let length = message.len();
                let unchanged = length == *before;
                let head =
                    if unchanged { self.head.len() } else { head_length(self.number, length) };
                head + length
            }
        }
    }
}

fn head_length(number: u32, length: usize) -> usize {
    head(number, WireType::Bytes, length).len()
}

/// A message: its fields.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) fields: Vec<Field>,
}

impl Message {
    pub(crate) fn new(kind: Kind, fields: Vec<Field>) -> Self {
        Self { kind, fields }
    }

    pub(crate) fn decode(bytes: Bytes, kind: Kind) -> Result<Self, WireError> {
        Self::within(&bytes, kind, 1, &mut { MAX_FIELDS })
    }

    fn within(
        bytes: &Bytes,
        kind: Kind,
        depth: usize,
        left: &mut usize,
    ) -> Result<Self, WireError> {
        if depth > MAX_DEPTH {
            let (offset, what) = (bytes.offset(), "messages inside each other");
            return Err(WireError::Limit { offset, what, most: MAX_DEPTH });
        }
        let mut found = Vec::new();
        for RawField { number, wire, head, payload } in fields(bytes, left)? {
            let payload = match kind.child(number) {
                Some(child) if wire == WireType::Bytes => {
                    let length = payload.len();
                    Payload::Message(Self::within(&payload, child, depth + 1, left)?, length)
                }
                Some(_) => {
                    return Err(WireError::Kind {
                        offset: head.offset(),
                        number,
                        message: kind.name(),
                        expected: "message",
                    });
                }
                None => Payload::Bytes(payload),
            };
            found.push(Field { number, wire, head, payload });
        }
        Ok(Self { kind, fields: found })
    }

    pub(crate) fn len(&self) -> usize {
        self.fields.iter().map(Field::len).sum()
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        for field in &self.fields {
            field.write(out);
        }
    }

    /// The messages in fields `number`, with the place of each.
    pub(crate) fn children(&self, number: u32) -> impl Iterator<Item = (usize, &Message)> {
        self.fields.iter().enumerate().filter_map(move |(index, field)| match &field.payload {
            Payload::Message(message, _) if field.number == number => Some((index, message)),
            _ => None,
        })
    }

    /// Every text in fields `number`; one that is not UTF-8 reads with � in it, and equals no other name.
    pub(crate) fn strings(&self, number: u32) -> Vec<String> {
        self.all_bytes(number).map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }

    pub(crate) fn string(&self, number: u32) -> String {
        self.strings(number).pop().unwrap_or_default()
    }

    /// Of each field `number` that holds bytes.
    pub(crate) fn all_bytes(&self, number: u32) -> impl Iterator<Item = &Bytes> {
        self.fields.iter().filter_map(move |field| match &field.payload {
            Payload::Bytes(bytes) if field.number == number && field.wire == WireType::Bytes => {
                Some(bytes)
            }
            _ => None,
        })
    }

    /// The last number in field `number`: of a field that stands twice, the last one counts.
    pub(crate) fn int(&self, number: u32) -> Option<i64> {
        self.ints(number).pop()
    }

    /// All numbers in fields `number`, packed or one by one.
    pub(crate) fn ints(&self, number: u32) -> Vec<i64> {
        let mut found = Vec::new();
        for field in self.fields.iter().filter(|field| field.number == number) {
            let Payload::Bytes(bytes) = &field.payload else { continue };
            let mut rest: &[u8] = bytes;
            if matches!(field.wire, WireType::Varint | WireType::Bytes) {
                while let Ok((value, taken)) = varint(rest, 0) {
                    found.push(value.cast_signed());
                    rest = &rest[taken..];
                }
            }
        }
        found
    }

    /// The bytes of all numbers of fixed size in fields `number`, packed or one by one.
    pub(crate) fn fixed(&self, number: u32) -> Vec<u8> {
        let fields = self.fields.iter().filter(|field| field.number == number);
        fields
            .filter_map(|field| match &field.payload {
                Payload::Bytes(bytes) if field.wire != WireType::Varint => Some(&**bytes),
                _ => None,
            })
            .flatten()
            .copied()
            .collect()
    }

    pub(crate) fn has(&self, number: u32) -> bool {
        self.fields.iter().any(|field| field.number == number)
    }
}
