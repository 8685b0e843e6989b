//! Model files of format 1: one input, one output, values without names of their own, and ops whose settings stand apart.
//!
//! They are brought into format 2 as JSON, before anything is read from them.

use serde_json::{Map, Value, json};

use crate::network::input::INPUT;

/// The JSON of an architecture of format 1 in that of format 2. What is not as expected is left as it is, for the reader to complain.
pub(super) fn upgraded(mut arch: Value) -> Value {
    let Some(fields) = arch.as_object_mut() else { return arch };
    if let Some(mut input) = fields.remove("input") {
        input["name"] = INPUT.into();
        fields.insert("inputs".into(), json!([input]));
    }
    let mut nodes = Vec::new();
    if let Some(Value::Array(old)) = fields.remove("nodes") {
        for node in old {
            nodes.extend(upgraded_node(node));
        }
    }
    let last = nodes.last().map(|node| node["name"].clone());
    fields.insert("nodes".into(), nodes.into());
    fields.insert("outputs".into(), json!(last.into_iter().collect::<Vec<_>>()));
    if let Some(Value::Object(records)) = fields.get_mut("factorized") {
        for (layer, record) in records {
            record["weight"] = format!("{layer}.weight").into();
            let dense = record["dense"].take();
            record["dense"] = upgraded_op(dense);
        }
    }
    arch
}

/// The op's settings go beside the name; the padded shortcut, which was one op, becomes a slice for each axis and a padding.
fn upgraded_node(mut node: Value) -> Vec<Value> {
    let op = upgraded_op(node["op"].take());
    if op["op"] == "pad_shortcut" {
        return shortcut(&node, &op);
    }
    let (Value::Object(fields), Value::Object(settings)) = (&mut node, op) else {
        return vec![node];
    };
    fields.extend(settings);
    vec![node]
}

/// Stride, padding and dilation stood in a `geometry`.
fn upgraded_op(mut op: Value) -> Value {
    let geometry = op.as_object_mut().and_then(|fields| fields.remove("geometry"));
    if let (Some(Value::Object(geometry)), Value::Object(fields)) = (geometry, &mut op) {
        fields.extend::<Map<String, Value>>(geometry);
    }
    op
}

/// Every `stride`-th pixel along both axes, between `before` and `after` channels of zeros.
fn shortcut(node: &Value, op: &Value) -> Vec<Value> {
    let name = node["name"].as_str().unwrap_or_default();
    let (rows, columns) = (format!("{name}.rows"), format!("{name}.columns"));
    let slice = |name: &str, axis: usize, inputs: Value| json!({"name": name, "op": "slice", "axis": axis, "step": op["stride"], "inputs": inputs});
    vec![
        slice(&rows, 1, node["inputs"].clone()),
        slice(&columns, 2, json!([rows])),
        json!({
            "name": name, "op": "pad", "inputs": [columns],
            "before": [op["before"], 0, 0], "behind": [op["after"], 0, 0],
        }),
    ]
}
