//! The order of the channels behind the part of a factorized layer that has its bias: where parts come in clusters, so does the bias.

use std::collections::BTreeSet;

use ndarray::{ArrayD, Axis};

use crate::error::NetError;
use crate::network::Network;
use crate::network::architecture::Architecture;
use crate::network::node::Node;
use crate::op::Op;

impl Network {
    /// The bias of the layer that the factors of `layer` stand for, in the order of its output channels; `None` where it has none. Factors that
    /// put channels into clusters have it in the order of these.
    ///
    /// # Shapes
    /// `[T]`.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`], [`NetError::UnknownLayer`].
    pub fn restored_bias(&self, layer: &str) -> Result<Option<ArrayD<f32>>, NetError> {
        let (lasts, restore) = outputs_of(&self.arch, &[layer.to_owned()])?;
        let Some(last) = lasts.first() else { return Ok(None) };
        let node = self.node(last)?;
        if node.op.params().len() < 2 {
            return Ok(None);
        }
        let bias = self.array(node, "bias")?;
        let identity = restore.is_empty();
        Ok(Some(if identity { bias.to_owned() } else { bias.select(Axis(0), &restore) }))
    }

    /// Makes the biases of `nodes` those of these channels; a bias that other nodes have, too, stays for those, and `nodes` get one of their own.
    pub(super) fn select_biases(&mut self, nodes: &[String], channels: &[usize]) {
        if channels.is_sorted() {
            return;
        }
        let is_one = |node: &Node| nodes.contains(&node.name);
        let has = |node: &Node, bias: &str| node.param_specs().any(|(name, _)| name == bias);
        let own: BTreeSet<String> = (self.arch.nodes.iter())
            .filter(|node| is_one(node) && node.op.params().len() > 1)
            .map(|node| node.param("bias"))
            .collect();
        for bias in own {
            let Some(array) = self.params.get(&bias) else { continue };
            let array = array.select(Axis(0), channels);
            let mut name = bias.clone();
            if self.arch.nodes.iter().any(|node| !is_one(node) && has(node, &bias)) {
                name = self.free_name(&format!("{}.bias", nodes[0]));
                for node in self.arch.nodes.iter_mut().filter(|node| is_one(node)) {
                    if has(node, &bias) {
                        node.set_param("bias", name.clone());
                    }
                }
            }
            self.params.insert(name, array);
        }
    }
}

/// The parts with the biases of the layers `users`, and where behind them each output channel is.
pub(super) fn outputs_of(
    arch: &Architecture,
    users: &[String],
) -> Result<(Vec<String>, Vec<usize>), NetError> {
    let (mut lasts, mut restore) = (Vec::new(), Vec::new());
    for user in users {
        let record = arch.factorization(user)?;
        lasts.extend(arch.weighted_parts(user)?.pop().map(|node| node.name.clone()));
        let end = record.parts.last().map(|part| arch.node(part)).transpose()?;
        if let Some(Op::Gather(gather)) = end.map(|end| &end.op) {
            restore.clone_from(&gather.indices);
        }
    }
    Ok((lasts, restore))
}

/// At each place of a permutation where that is.
pub(super) fn inverse(permutation: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; permutation.len()];
    permutation.iter().enumerate().for_each(|(at, &place)| inverse[place] = at);
    inverse
}
