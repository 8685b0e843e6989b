//! What a model reads and makes: names, element types and sizes.

use std::fmt;

use crate::model::Model;
use crate::proto::{Kind, Message, graph, model, tensor};
use crate::wire::Bytes;

/// The size of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Size(usize),
    /// A name, such as `batch`: the same number wherever it stands.
    Symbol(String),
    /// Not said, or negative, which old exporters write for it.
    Unknown,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Size(size) => write!(f, "{size}"),
            Dim::Symbol(name) => f.pad(name),
            Dim::Unknown => f.pad("?"),
        }
    }
}

/// The type of a tensor's elements, by its number in `TensorProto.DataType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ElementType(pub i64);

impl ElementType {
    /// 32-bit floating point.
    pub const FLOAT32: Self = Self(1);
    /// 16-bit floating point.
    pub const FLOAT16: Self = Self(10);
    /// Whole numbers of 64 bits.
    pub const INT64: Self = Self(7);

    /// Its name in numpy; `None` for those that this version does not know.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            1 => "float32",
            2 => "uint8",
            3 => "int8",
            4 => "uint16",
            5 => "int16",
            6 => "int32",
            7 => "int64",
            8 => "string",
            9 => "bool",
            10 => "float16",
            11 => "float64",
            12 => "uint32",
            13 => "uint64",
            14 => "complex64",
            15 => "complex128",
            16 => "bfloat16",
            _ => return None,
        })
    }
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// Type of its elements; `None` for what is no tensor (a sequence, a map) or is not said.
    pub element: Option<ElementType>,
    /// Sizes of its axes; `None` where not even their number is said.
    pub dims: Option<Vec<Dim>>,
}

impl ValueInfo {
    /// Of a `ValueInfoProto`. A type that is damaged reads as one that is not said.
    pub(crate) fn of(value: &Message) -> Self {
        let child = |message: &Message, number| {
            let bytes: Bytes = message.all_bytes(number).last()?.clone();
            Message::decode(bytes, Kind::Leaf).ok()
        };
        let tensor = child(value, 2).and_then(|kind| child(&kind, 1));
        let shape = tensor.as_ref().and_then(|tensor| child(tensor, 2));
        let dims = shape.map(|shape| {
            let dim = |bytes: &Bytes| {
                let Ok(dim) = Message::decode(bytes.clone(), Kind::Leaf) else {
                    return Dim::Unknown;
                };
                let symbol = dim.string(2);
                match dim.int(1).map(usize::try_from) {
                    Some(Ok(size)) => Dim::Size(size),
                    None if !symbol.is_empty() => Dim::Symbol(symbol),
                    _ => Dim::Unknown,
                }
            };
            shape.all_bytes(1).map(dim).collect()
        });
        let element = tensor.and_then(|tensor| tensor.int(1)).filter(|&number| number != 0);
        Self { name: value.string(1), element: element.map(ElementType), dims }
    }
}

impl fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(dims) = &self.dims {
            let dims: Vec<String> = dims.iter().map(Dim::to_string).collect();
            write!(f, " [{}]", dims.join(", "))?;
        }
        match self.element {
            Some(element) => write!(f, " {element}"),
            None => Ok(()),
        }
    }
}

impl Model {
    /// What has to be given to the model, in its order. An input with a default, which is an initializer too, is not among them.
    pub fn inputs(&self) -> Vec<ValueInfo> {
        let graph = self.graph();
        let defaults: std::collections::HashSet<String> = graph
            .into_iter()
            .flat_map(|graph| graph.children(graph::INITIALIZERS))
            .map(|(_, tensor)| tensor.string(tensor::NAME))
            .collect();
        self.declared(graph::INPUTS).filter(|value| !defaults.contains(&value.name)).collect()
    }

    /// What the model gives, in its order.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.declared(graph::OUTPUTS).collect()
    }

    fn declared(&self, number: u32) -> impl Iterator<Item = ValueInfo> {
        let values = self.graph().into_iter().flat_map(move |graph| graph.children(number));
        values.map(|(_, value)| ValueInfo::of(value))
    }

    /// The main graph, which every model has.
    pub(crate) fn graph(&self) -> Option<&Message> {
        self.root.children(model::GRAPH).next().map(|(_, graph)| graph)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Field;
    use crate::testing::with_graph;

    fn message(fields: Vec<Field>) -> Message {
        Message::new(Kind::Leaf, fields)
    }

    #[test]
    fn sizes_and_types() {
        let dims = [Dim::Size(3), Dim::Symbol("n".into()), Dim::Unknown];
        // An axis of size −1, as old exporters write one that is not known.
        let shape = message(vec![Field::message(1, message(vec![Field::int(1, -1)]))]);
        let tensor = message(vec![Field::int(1, 10), Field::message(2, shape)]);
        let kind = message(vec![Field::message(1, tensor)]);
        let negative = message(vec![Field::string(1, "negative"), Field::message(2, kind)]);
        // A tensor of any shape, a sequence, nothing.
        let tensor = message(vec![Field::message(1, message(vec![Field::int(1, 1)]))]);
        let any = message(vec![Field::string(1, "any"), Field::message(2, tensor)]);
        let kind = message(vec![Field::message(4, message(Vec::new()))]);
        let sequence = message(vec![Field::string(1, "sequence"), Field::message(2, kind)]);
        let nothing = message(vec![Field::string(1, "nothing")]);
        let mut fields = vec![graph::value(graph::INPUTS, "known", 7, &dims)];
        for value in [negative, any, sequence, nothing] {
            fields.push(Field::message(graph::INPUTS, value));
        }
        fields.push(graph::value(graph::OUTPUTS, "scalar", 99, &[]));
        let model = with_graph(8, 17, fields);
        let inputs: Vec<String> = model.inputs().iter().map(ToString::to_string).collect();
        let expected =
            ["known [3, n, ?] int64", "negative [?] float16", "any float32", "sequence", "nothing"];
        assert_eq!(inputs, expected);
        assert_eq!(model.inputs()[0].dims.as_deref(), Some(&dims[..]));
        assert_eq!((model.inputs()[2].dims.clone(), model.inputs()[3].element), (None, None));
        assert_eq!(model.outputs()[0].to_string(), "scalar [] type 99");
    }
}
