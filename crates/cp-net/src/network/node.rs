//! [`Node`]: one operation of the graph, and how it is written in a file.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};

use crate::op::{Op, ParamSpec};

/// One operation of the graph. It reads and makes values, which have names of their own; so have its parameters.
///
/// In a file, the settings of the op stand beside the name: `{"name": "pool", "op": "max_pool", "kernel": [2, 2], "inputs": ["conv"]}`.
/// Outputs and parameters are written only where they do not have the names that they have by default.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// The values that it reads, in order.
    pub inputs: Vec<String>,
    /// The values that it makes, in order: by default one with the node's own name, or `NAME.0`, `NAME.1`, … of several.
    pub outputs: Vec<String>,
    /// The parameters that are not called `NAME.SLOT`, by slot: those that it shares with another node.
    pub params: BTreeMap<String, String>,
}

impl Node {
    /// A node whose outputs and parameters have the names that they have by default.
    pub fn new(
        name: impl Into<String>,
        op: impl Into<Op>,
        inputs: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let (name, op) = (name.into(), op.into());
        let outputs = default_outputs(&name, &op);
        let inputs = inputs.into_iter().map(Into::into).collect();
        Self { name, op, inputs, outputs, params: BTreeMap::new() }
    }

    /// Its first output.
    pub fn output(&self) -> &str {
        self.outputs.first().map_or("", String::as_str)
    }

    /// The name of the parameter in `slot`.
    pub fn param(&self, slot: &str) -> String {
        self.params.get(slot).cloned().unwrap_or_else(|| format!("{}.{slot}", self.name))
    }

    /// Its parameters by name, in the order of [`Op::params`].
    pub fn param_specs(&self) -> impl Iterator<Item = (String, ParamSpec)> + '_ {
        self.op.params().into_iter().map(|spec| (self.param(spec.slot), spec))
    }

    /// Puts the parameter `name` into `slot`.
    pub(crate) fn set_param(&mut self, slot: &str, name: String) {
        if name == format!("{}.{slot}", self.name) {
            self.params.remove(slot);
        } else {
            self.params.insert(slot.into(), name);
        }
    }
}

fn default_outputs(name: &str, op: &Op) -> Vec<String> {
    match op.output_count() {
        1 => vec![name.into()],
        count => (0..count).map(|index| format!("{name}.{index}")).collect(),
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let op = serde_json::to_value(&self.op).map_err(serde::ser::Error::custom)?;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("op", self.op.kind())?;
        for (field, value) in op.as_object().into_iter().flatten().filter(|(key, _)| *key != "op") {
            map.serialize_entry(field, value)?;
        }
        map.serialize_entry("inputs", &self.inputs)?;
        if self.outputs != default_outputs(&self.name, &self.op) {
            map.serialize_entry("outputs", &self.outputs)?;
        }
        if !self.params.is_empty() {
            map.serialize_entry("params", &self.params)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut fields = Map::deserialize(deserializer)?;
        let name: String = match fields.remove("name") {
            Some(Value::String(name)) => name,
            _ => return Err(de::Error::custom("a node without a \"name\"")),
        };
        let wrong =
            |error: serde_json::Error| de::Error::custom(format!("layer '{name}': {error}"));
        let mut take = |field: &str| fields.remove(field);
        let (inputs, outputs, params) = (take("inputs"), take("outputs"), take("params"));
        let inputs = inputs.map(serde_json::from_value).transpose().map_err(wrong)?;
        let outputs = outputs.map(serde_json::from_value).transpose().map_err(wrong)?;
        let params = params.map(serde_json::from_value).transpose().map_err(wrong)?;
        let op: Op = serde_json::from_value(Value::Object(fields)).map_err(wrong)?;
        let outputs = outputs.unwrap_or_else(|| default_outputs(&name, &op));
        Ok(Self {
            name,
            op,
            inputs: inputs.unwrap_or_default(),
            outputs,
            params: params.unwrap_or_default(),
        })
    }
}
