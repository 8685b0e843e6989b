//! The JSON of an exported program, as far as it is read: `torch/_export/serde/schema.py`, version 8. Fields that are not named here are
//! left out; unions are objects of one field, whose name says which.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

/// What is looked at first.
#[derive(Debug, Deserialize)]
pub(super) struct Version {
    #[serde(default)]
    pub(super) schema_version: Value,
}

#[derive(Debug, Deserialize)]
pub(super) struct Program {
    pub(super) graph_module: GraphModule,
}

#[derive(Debug, Deserialize)]
pub(super) struct GraphModule {
    pub(super) graph: Graph,
    pub(super) signature: Signature,
}

#[derive(Debug, Deserialize)]
pub(super) struct Graph {
    pub(super) nodes: Vec<Node>,
    pub(super) tensor_values: BTreeMap<String, TensorMeta>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Node {
    pub(super) target: String,
    pub(super) inputs: Vec<NamedArgument>,
    pub(super) outputs: Vec<Argument>,
}

#[derive(Debug, Deserialize)]
pub(super) struct NamedArgument {
    pub(super) name: String,
    pub(super) arg: Argument,
}

/// One of `as_tensor`, `as_ints`, `as_none`, ….
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Argument(Map<String, Value>);

impl Argument {
    /// Which it is, and what it holds.
    pub(super) fn parts(&self) -> (&str, &Value) {
        self.0.iter().next().map_or(("as_none", &Value::Null), |(kind, value)| (kind, value))
    }

    /// The names of the tensors that it is: one, several, or none.
    pub(super) fn tensors(&self) -> Vec<&str> {
        match self.parts() {
            ("as_tensor", value) => value["name"].as_str().into_iter().collect(),
            ("as_tensors", value) => {
                let items = value.as_array().into_iter().flatten();
                items.filter_map(|item| item["name"].as_str()).collect()
            }
            _ => Vec::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct TensorMeta {
    pub(super) dtype: i64,
    pub(super) sizes: Vec<Size>,
    pub(super) strides: Vec<Size>,
    pub(super) storage_offset: Size,
    pub(super) layout: i64,
}

/// `as_int`, or `as_expr` with the size that the example had.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Size(Value);

impl Size {
    /// The size, or that of the example where it is dynamic.
    pub(super) fn hint(&self) -> Option<i64> {
        let int = |value: &Value| value.get("as_int").and_then(Value::as_i64);
        int(&self.0).or_else(|| int(self.0.get("as_expr")?.get("hint")?))
    }
}

impl TensorMeta {
    /// The sizes; `None` where one is not known or negative.
    pub(super) fn shape(&self) -> Option<Vec<usize>> {
        self.sizes.iter().map(|size| usize::try_from(size.hint()?).ok()).collect()
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Signature {
    pub(super) input_specs: Vec<Map<String, Value>>,
    pub(super) output_specs: Vec<Map<String, Value>>,
}

/// The table of the weights that lie beside the program.
#[derive(Debug, Deserialize)]
pub(super) struct Weights {
    pub(super) config: BTreeMap<String, Weight>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Weight {
    pub(super) path_name: String,
    #[serde(default)]
    pub(super) use_pickle: bool,
    pub(super) tensor_meta: TensorMeta,
}
