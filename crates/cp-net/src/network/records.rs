//! Whether the records of factorized layers say what the nodes say.

use std::collections::BTreeMap;

use crate::error::NetError;
use crate::factor::order;
use crate::factor::parts::replacement;
use crate::network::architecture::Architecture;
use crate::network::node::Node;
use crate::op::Op;

impl Architecture {
    pub(super) fn check_factorized(&self) -> Result<(), NetError> {
        let nodes: BTreeMap<&str, &Node> =
            self.nodes.iter().map(|node| (node.name.as_str(), node)).collect();
        // By weight: the orders of channels, which layers with the same factors share.
        let mut orders: BTreeMap<(&str, &str), &Op> = BTreeMap::new();
        for (layer, record) in &self.factorized {
            let wrong = |part: &str, problem| NetError::FactorizationRecord {
                layer: layer.clone(),
                part: part.into(),
                problem,
            };
            let expected = replacement(layer, &record.dense, record.form, record.rank)?;
            if nodes.contains_key(layer.as_str()) {
                return Err(wrong(layer, "the dense layer is still there"));
            }
            if expected.len() != record.parts.len() {
                return Err(wrong(layer, "the form has another number of parts"));
            }
            let groups = if let Op::Conv(conv) = &record.dense { conv.groups } else { 1 };
            let mut before: Option<&Node> = None;
            for (name, part) in record.parts.iter().zip(&expected) {
                let node = nodes
                    .get(name.as_str())
                    .ok_or_else(|| wrong(name, "there is no such layer"))?;
                let front = before.map(|before| &before.op);
                if !order::agrees(record.form, groups, part, front, &node.op) {
                    return Err(wrong(
                        name,
                        "the op is not the one that form, rank and dense op give",
                    ));
                }
                if order::is_open(record.form, part.0)
                    && *orders.entry((&record.weight, part.0)).or_insert(&node.op) != &node.op
                {
                    return Err(wrong(name, "another layer with its factors has other indices"));
                }
                if let Some(before) = before {
                    if node.inputs != before.outputs {
                        return Err(wrong(name, "it does not follow the part before it"));
                    }
                    let value = before.output();
                    if self.readers(value).count() != 1 || self.outputs.iter().any(|o| o == value) {
                        return Err(wrong(&before.name, "more than the next part reads it"));
                    }
                }
                before = Some(node);
            }
        }
        Ok(())
    }
}
