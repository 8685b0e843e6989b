//! Dense layers into factorized ones and back, as a rewriting of the graph alone, without arrays.
//!
//! It works on a parameter: all layers that use the kernel are replaced, each with its own stride, padding and dilation, and share the
//! factors as they shared the kernel.

use std::collections::BTreeMap;

use crate::error::NetError;
use crate::factor::form::Form;
use crate::factor::order;
use crate::factor::parts::{PART_SUFFIXES, replacement};
use crate::factor::rank::Rank;
use crate::factor::record::Factorization;
use crate::network::architecture::Architecture;
use crate::network::node::Node;
use crate::op::Op;

/// Parameters that got another name: the old one and the new one.
pub(super) type Renamed = Vec<(String, String)>;

impl Architecture {
    /// Replaces `layer`, and every layer that shares its kernel, by the parts of its factorized form; the last part makes the value
    /// that the layer made.
    ///
    /// Orders of channels, which no cost depends on, are as [`replacement`] has them.
    ///
    /// This is the rewriting of the graph alone, without arrays: it is what costs are predicted from. Networks are
    /// factorized by [`Network::put_factors`](crate::Network::put_factors).
    ///
    /// # Errors
    /// Unknown or already factorized layer, a form that does not fit its op, rank 0, a rank above that of the matrix, or a
    /// name of a part that is taken.
    pub fn factorize(
        &mut self,
        layer: &str,
        form: Form,
        rank: impl Into<Rank>,
    ) -> Result<&Factorization, NetError> {
        self.factorize_kernel(layer, form, rank.into(), &[])?;
        self.factorization(layer)
    }

    /// As [`Architecture::factorize`], with the orders of channels of each group, or none; the biases that got another name.
    pub(super) fn factorize_kernel(
        &mut self,
        layer: &str,
        form: Form,
        rank: Rank,
        orders: &[&[Vec<usize>]],
    ) -> Result<Renamed, NetError> {
        let users: Vec<Node> = self.kernel_users(layer)?.into_iter().cloned().collect();
        let mut parts = Vec::with_capacity(users.len());
        for user in &users {
            let mut own = replacement(&user.name, &user.op, form, rank)?;
            if !orders.is_empty() {
                order::put(&user.name, form, &mut own, orders)?;
            }
            parts.push(own);
        }
        // An op without a kernel has no users; `replacement` says what is factorized.
        let Some(first) = users.first() else {
            let op = &self.node(layer)?.op;
            replacement(layer, op, form, rank)?;
            return Ok(Vec::new());
        };
        if users.iter().any(|user| groups(&user.op) != groups(&first.op)) {
            let reason =
                "another layer uses its kernel in other groups; `Network::unshare` it first";
            return Err(NetError::FormMismatch { layer: layer.into(), form, reason });
        }
        for (user, parts) in users.iter().zip(&parts) {
            for (suffix, _) in parts {
                let name = format!("{}.{suffix}", user.name);
                let taken = |node: &Node| node.name == name || node.outputs.contains(&name);
                if self.nodes.iter().any(taken) {
                    return Err(NetError::Name { name, problem: "used more than once" });
                }
            }
        }
        // The last part with a weight has the bias.
        let last = parts[0].iter().rfind(|(_, op)| op.has_kernel());
        let last = last.map_or("", |(suffix, _)| suffix);
        let renamed = self.biases(
            &users,
            |user| format!("{user}.bias"),
            |user| format!("{user}.{last}.bias"),
        );
        let weight = first.param("weight");
        for (user, parts) in users.iter().zip(parts) {
            let position = self.position(&user.name)?;
            let mut inputs = user.inputs.clone();
            let mut nodes = Vec::with_capacity(parts.len());
            for (suffix, op) in parts {
                let mut node = Node::new(format!("{}.{suffix}", user.name), op, inputs);
                if node.op.has_kernel() {
                    node.set_param("weight", format!("{}.{suffix}.weight", first.name));
                }
                inputs = node.outputs.clone();
                nodes.push(node);
            }
            if let Some(last) = nodes.iter_mut().rfind(|node| node.op.has_kernel())
                && has_bias(&user.op)
            {
                let bias = user.param("bias");
                last.set_param("bias", renamed.get(&bias).cloned().unwrap_or(bias));
            }
            let names = nodes.iter().map(|node| node.name.clone()).collect();
            self.splice(position, nodes);
            let record = Factorization {
                form,
                rank,
                dense: user.op.clone(),
                weight: weight.clone(),
                parts: names,
                rel_error: 0.0,
            };
            self.factorized.insert(user.name.clone(), record);
        }
        Ok(renamed.into_iter().collect())
    }

    /// Takes the parts of `layer`, and of every layer that shares its factors, out again and puts the dense ops in their place.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`], [`NetError::UnknownLayer`].
    pub fn densify(&mut self, layer: &str) -> Result<(), NetError> {
        self.densify_kernel(layer).map(drop)
    }

    /// As [`Architecture::densify`]; the biases that got another name.
    pub(super) fn densify_kernel(&mut self, layer: &str) -> Result<Renamed, NetError> {
        let users = self.sharing(layer)?;
        let (mut lasts, mut outputs) = (Vec::new(), Vec::new());
        for user in &users {
            let parts = &self.factorized[user].parts;
            let nodes = parts.iter().map(|part| self.node(part)).collect::<Result<Vec<_>, _>>()?;
            let last = nodes.iter().rfind(|node| node.op.has_kernel()).zip(nodes.last());
            let Some((last, end)) = last else {
                return Err(NetError::FactorizationRecord {
                    layer: user.clone(),
                    part: user.clone(),
                    problem: "it has no parts",
                });
            };
            outputs.push(end.outputs.clone());
            lasts.push((*last).clone());
        }
        let renamed = self.biases(
            &lasts,
            |last| format!("{last}.bias"),
            |last| {
                let without = |suffix: &&str| last.strip_suffix(*suffix)?.strip_suffix('.');
                format!("{}.bias", PART_SUFFIXES.iter().find_map(without).unwrap_or(last))
            },
        );
        for ((user, last), outputs) in users.iter().zip(&lasts).zip(outputs) {
            let Some(record) = self.factorized.remove(user) else { continue };
            let position = self.position(record.parts.first().unwrap_or(user))?;
            let inputs = self.nodes[position].inputs.clone();
            let mut node = Node::new(user.clone(), record.dense, inputs);
            node.outputs = outputs;
            node.set_param("weight", record.weight);
            if has_bias(&node.op) {
                let bias = last.param("bias");
                node.set_param("bias", renamed.get(&bias).cloned().unwrap_or(bias));
            }
            self.nodes[position] = node;
            self.nodes.retain(|node| !record.parts.contains(&node.name));
        }
        Ok(renamed.into_iter().collect())
    }

    /// How `layer` was factorized.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`] where it was not, [`NetError::UnknownLayer`] where there is none.
    pub fn factorization(&self, layer: &str) -> Result<&Factorization, NetError> {
        if let Some(record) = self.factorized.get(layer) {
            return Ok(record);
        }
        self.position(layer)?;
        Err(NetError::NotFactorized {
            layer: layer.into(),
            factorized: self.factorized.keys().cloned().collect(),
        })
    }

    /// The parts of `layer` that have a weight, in order.
    pub(super) fn weighted_parts(&self, layer: &str) -> Result<Vec<&Node>, NetError> {
        let parts = self.factorization(layer)?.parts.iter();
        let nodes = parts.map(|part| self.node(part)).collect::<Result<Vec<_>, _>>()?;
        Ok(nodes.into_iter().filter(|node| node.op.has_kernel()).collect())
    }

    /// The factorized layers with the factors of `layer`, in the order in which they run: that layer, unless they are shared.
    pub(super) fn sharing(&self, layer: &str) -> Result<Vec<String>, NetError> {
        let weight = &self.factorization(layer)?.weight;
        let of = |name: &String| self.nodes.iter().position(|node| node.name == *name);
        let mut users: Vec<(Option<usize>, String)> = self
            .factorized
            .iter()
            .filter(|(_, record)| record.weight == *weight)
            .map(|(name, record)| (record.parts.first().and_then(of), name.clone()))
            .collect();
        users.sort();
        Ok(users.into_iter().map(|(_, name)| name).collect())
    }

    /// New names for the biases of `users`: those that are called `from(user)` and that nobody else uses become `to(user)`, where nothing is
    /// called so.
    fn biases(
        &self,
        users: &[Node],
        from: impl Fn(&str) -> String,
        to: impl Fn(&str) -> String,
    ) -> BTreeMap<String, String> {
        let mut renamed = BTreeMap::new();
        for user in users {
            let name = from(&user.name);
            let uses = |node: &Node| node.param_specs().any(|(param, _)| param == name);
            let of_users = |node: &Node| users.iter().any(|user| user.name == node.name);
            let used = users.iter().any(|user| has_bias(&user.op) && user.param("bias") == name);
            let new = to(&user.name);
            let taken = self.params().any(|(param, _)| param == new);
            if used && !taken && self.nodes.iter().filter(|node| uses(node)).all(of_users) {
                renamed.insert(name, new);
            }
        }
        renamed
    }
}

fn has_bias(op: &Op) -> bool {
    op.params().iter().any(|spec| spec.slot == "bias")
}

/// Groups of a convolution; 1 for a linear layer.
pub(super) fn groups(op: &Op) -> usize {
    if let Op::Conv(conv) = op { conv.groups } else { 1 }
}
