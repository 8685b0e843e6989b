//! [`Architecture`]: everything about a network but its arrays.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::error::NetError;
use crate::factor::record::Factorization;
use crate::network::input::InputSpec;
use crate::network::node::Node;
use crate::op::{Op, ParamSpec};

/// Everything about a network but its arrays: what the metadata of a model file holds, and what `--arch net.json` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Name of the architecture, such as `resnet20`.
    pub name: String,
    /// What the network expects at its inputs.
    pub inputs: Vec<InputSpec>,
    /// The operations, each behind those it takes its inputs from.
    pub nodes: Vec<Node>,
    /// The values that the network gives; those of its last node where a file leaves them out.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Names of the classes that the first output is about, in its order; empty where they are not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub classes: Vec<String>,
    /// The layers that were replaced by factors, by the name of the dense layer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub factorized: BTreeMap<String, Factorization>,
}

impl Architecture {
    /// A network of one input whose output is that of its last node.
    pub fn new(name: impl Into<String>, input: InputSpec, nodes: Vec<Node>) -> Self {
        let outputs = nodes.last().map(|node| node.outputs.clone()).unwrap_or_default();
        Self {
            name: name.into(),
            inputs: vec![input],
            nodes,
            outputs,
            classes: Vec::new(),
            factorized: BTreeMap::new(),
        }
    }

    /// What the network expects at its first input.
    ///
    /// # Panics
    /// If it has none, which [`Architecture::check`] refuses.
    #[track_caller]
    pub fn input(&self) -> &InputSpec {
        self.inputs.first().expect("a checked architecture has an input")
    }

    /// The node `name`.
    ///
    /// # Errors
    /// [`NetError::UnknownLayer`], or [`NetError::AlreadyFactorized`] where its parts took its place.
    pub fn node(&self, name: &str) -> Result<&Node, NetError> {
        Ok(&self.nodes[self.position(name)?])
    }

    /// Position of the node `name`.
    ///
    /// # Errors
    /// As [`Architecture::node`].
    pub fn position(&self, name: &str) -> Result<usize, NetError> {
        if let Some(position) = self.nodes.iter().position(|node| node.name == name) {
            return Ok(position);
        }
        if let Some(record) = self.factorized.get(name) {
            return Err(NetError::AlreadyFactorized {
                layer: name.into(),
                parts: record.parts.clone(),
            });
        }
        let known = self.nodes.iter().map(|node| node.name.clone()).collect();
        Err(NetError::UnknownLayer { name: name.into(), known })
    }

    /// The node that makes `value`; `None` for an input of the network.
    pub fn producer(&self, value: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.outputs.iter().any(|output| output == value))
    }

    /// The nodes that read `value`.
    pub fn readers<'a>(&'a self, value: &'a str) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(move |node| node.inputs.iter().any(|input| input == value))
    }

    /// Names, shapes, roles and starts of all arrays that this architecture asks for, each once, in the order of the nodes.
    pub fn params(&self) -> impl Iterator<Item = (String, ParamSpec)> + '_ {
        let mut seen = BTreeSet::new();
        self.nodes
            .iter()
            .flat_map(Node::param_specs)
            .filter(move |(name, _)| seen.insert(name.clone()))
    }

    /// Number of parameters: weights, biases and scales, but not running statistics; a shared one counts once.
    pub fn param_count(&self) -> usize {
        self.params().map(|(_, spec)| spec.count()).sum()
    }

    /// The layers whose kernels can be decomposed: convolutions and linear layers. Of layers that share a kernel only the first is
    /// listed, and stands for all of them.
    pub fn kernel_layers(&self) -> impl Iterator<Item = &Node> {
        let mut seen = BTreeSet::new();
        self.nodes
            .iter()
            .filter(|node| node.op.has_kernel())
            .filter(move |node| seen.insert(node.param("weight")))
    }

    /// Names of the dense convolutions and linear layers, in the order in which they run: [`Architecture::kernel_layers`] without the
    /// parts of factorized layers.
    pub fn compressible(&self) -> Vec<String> {
        let parts: BTreeSet<&String> =
            self.factorized.values().flat_map(|record| &record.parts).collect();
        self.kernel_layers()
            .filter(|node| !parts.contains(&node.name))
            .map(|node| node.name.clone())
            .collect()
    }

    /// The layers that use the kernel of `layer`, in the order in which they run: itself, unless it is shared.
    ///
    /// # Errors
    /// As [`Architecture::node`].
    pub fn kernel_users(&self, layer: &str) -> Result<Vec<&Node>, NetError> {
        let weight = self.node(layer)?.param("weight");
        Ok(self
            .nodes
            .iter()
            .filter(|node| node.op.has_kernel() && node.param("weight") == weight)
            .collect())
    }

    /// The name under which plans and statistics know `node`: that of the first layer with the same kernel, and of the dense
    /// layer where it is a part of a factorized one.
    pub fn layer_of<'a>(&'a self, node: &'a Node) -> &'a str {
        if node.op.has_kernel()
            && let Some(first) =
                self.kernel_layers().find(|first| first.param("weight") == node.param("weight"))
        {
            return &first.name;
        }
        &node.name
    }

    /// Whether any node is of this kind.
    pub fn has_op(&self, of: impl Fn(&Op) -> bool) -> bool {
        self.nodes.iter().any(|node| of(&node.op))
    }
}

/// Functions that need no arrays take a network or an architecture.
impl AsRef<Architecture> for Architecture {
    fn as_ref(&self) -> &Architecture {
        self
    }
}
