//! The one primitive that rewritings are made of: other nodes in the place of one.

use ndarray::ArrayD;

use crate::error::NetError;
use crate::network::Network;
use crate::network::architecture::Architecture;
use crate::network::node::Node;
use crate::op::Op;

impl Architecture {
    /// Puts `parts` in the place of `node`. The last part takes over the values that `node` made, so that nobody who reads them has
    /// to be told.
    ///
    /// # Errors
    /// An unknown node; parts that do not hang together, or give another shape than the node gave. The architecture is unchanged
    /// then.
    pub fn replace(&mut self, node: &str, parts: Vec<Node>) -> Result<(), NetError> {
        let position = self.position(node)?;
        let outputs = self.nodes[position].outputs.clone();
        let before = self.shapes(self.input_shapes())?;
        let mut edited = self.clone();
        edited.splice(position, parts);
        edited.check()?;
        let after = edited.shapes(edited.input_shapes())?;
        for value in outputs {
            let (expected, got) = (before.get(&value), after.get(&value));
            if expected != got {
                return Err(NetError::OutputShape {
                    output: value.clone(),
                    input: self.input().shape.clone(),
                    expected: expected.unwrap_or_default().to_vec(),
                    got: got.unwrap_or_default().to_vec(),
                });
            }
        }
        *self = edited;
        Ok(())
    }

    /// As [`Architecture::replace`], for parts that give the same shapes by construction.
    pub(super) fn splice(&mut self, position: usize, mut parts: Vec<Node>) {
        if let Some(last) = parts.last_mut() {
            last.outputs.clone_from(&self.nodes[position].outputs);
        }
        self.nodes.splice(position..=position, parts);
    }

    /// Takes out a node that gives its only input on; who read its output reads the input. Where the output is one of the network's,
    /// it keeps its name; the node stays where that is not possible, since the input is the network's own or another of its outputs.
    pub(super) fn bypass(&mut self, position: usize) -> bool {
        let node = &self.nodes[position];
        let (Some(from), to) = (node.inputs.first().cloned(), node.output().to_string()) else {
            return false;
        };
        if self.outputs.contains(&to) {
            if self.outputs.contains(&from) || self.producer(&from).is_none() {
                return false;
            }
            self.nodes.remove(position);
            self.rename_value(&from, &to);
        } else {
            self.nodes.remove(position);
            self.rename_value(&to, &from);
        }
        true
    }

    fn rename_value(&mut self, from: &str, to: &str) {
        let nodes = self.nodes.iter_mut();
        let values = nodes.flat_map(|node| node.inputs.iter_mut().chain(&mut node.outputs));
        for value in values.filter(|value| *value == from) {
            *value = to.into();
        }
    }
}

impl Network {
    /// Puts `op` in the place of the op of `layer`, which reads and makes the same values, with `arrays` for its slots. Slots that are not
    /// given keep the parameter that `layer` has in a slot of that name, such as its bias.
    ///
    /// # Errors
    /// An unknown or factorized layer, arrays of other shapes than `op` has, an op that does not fit in its place. The network is
    /// unchanged then.
    pub fn put_op(
        &mut self,
        layer: &str,
        op: impl Into<Op>,
        arrays: Vec<(&'static str, ArrayD<f32>)>,
    ) -> Result<(), NetError> {
        let position = self.arch.position(layer)?;
        let mut net = self.clone();
        let old = &self.arch.nodes[position];
        let mut node = Node::new(layer, op, old.inputs.clone());
        node.outputs.clone_from(&old.outputs);
        for spec in node.op.params() {
            if !arrays.iter().any(|(slot, _)| *slot == spec.slot) {
                node.set_param(spec.slot, old.param(spec.slot));
            }
        }
        for (slot, array) in arrays {
            let own = format!("{layer}.{slot}");
            let others = self.arch.nodes.iter().filter(|other| other.name != *layer);
            let shared = others.flat_map(Node::param_specs).any(|(name, _)| name == own);
            let name = if shared { net.free_name(&own) } else { own };
            node.set_param(slot, name.clone());
            net.params.insert(name, array);
        }
        net.arch.nodes[position] = node;
        net.drop_unused();
        *self = Self::new(net.arch, net.params)?;
        Ok(())
    }
}
