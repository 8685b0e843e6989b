//! What a network costs: parameters, multiply-adds and activation bytes, and the ranks at which factors stop paying.

use std::collections::BTreeMap;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::error::NetError;
use crate::factorize::{Form, replacement};
use crate::network::{Architecture, Network, Node};
use crate::op::{Conv, Op};
use crate::rank::Rank;

/// Parameters, multiply-adds and activation bytes of an op, a layer or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Weights, biases and scales; running statistics do not count.
    pub params: usize,
    /// Multiply-adds of convolutions and linear layers, for one example. Other ops count as 0.
    pub macs: usize,
    /// Bytes of the outputs as f32, for one example.
    pub activation_bytes: usize,
}

impl Add for Totals {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            params: self.params + other.params,
            macs: self.macs + other.macs,
            activation_bytes: self.activation_bytes + other.activation_bytes,
        }
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Totals {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

/// The cost of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeCost {
    /// Name of the node.
    pub name: String,
    /// Its op, such as `conv`.
    pub op: &'static str,
    /// Shape of its output, without the batch axis.
    pub output: Vec<usize>,
    /// What it costs.
    #[serde(flatten)]
    pub cost: Totals,
}

/// The cost of one layer: a node with parameters, or all parts of a factorized layer together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerCost {
    /// Name of the (dense) layer.
    pub name: String,
    /// Its op, such as `conv`; the dense one where the layer is factorized.
    pub op: &'static str,
    /// Form and rank (of each group), where the layer is factorized.
    pub factors: Option<(Form, Rank)>,
    /// Shape of its output, without the batch axis.
    pub output: Vec<usize>,
    /// What it costs.
    #[serde(flatten)]
    pub cost: Totals,
}

/// The cost of a network for one example. [`Display`](fmt::Display) writes the layers as a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Shape of the input, without the batch axis.
    pub input: Vec<usize>,
    /// Every node, in the order in which they run.
    pub nodes: Vec<NodeCost>,
    /// The layers with parameters, in the order in which they run.
    pub layers: Vec<LayerCost>,
    /// All nodes together.
    pub total: Totals,
}

impl Cost {
    /// The layer `name`.
    pub fn layer(&self, name: &str) -> Option<&LayerCost> {
        self.layers.iter().find(|layer| layer.name == name)
    }
}

impl Architecture {
    /// What this architecture costs for an input of shape `input`.
    ///
    /// # Shapes
    /// `input`: `[C, H, W]`, without the batch axis.
    ///
    /// # Errors
    /// [`NetError::InputShape`] at the first layer that cannot take what it is given.
    pub fn cost(&self, input: impl AsRef<[usize]>) -> Result<Cost, NetError> {
        let input = input.as_ref();
        let whole: BTreeMap<&str, &str> = self
            .factorized
            .iter()
            .flat_map(|(layer, record)| {
                record.parts.iter().map(|part| (part.as_str(), layer.as_str()))
            })
            .collect();
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut layers: Vec<LayerCost> = Vec::new();
        for (node, (name, output)) in self.nodes.iter().zip(self.output_shapes(input)?) {
            let values: usize = output.iter().product();
            let cost = Totals {
                params: node.op.param_count(),
                macs: macs(&node.op, values),
                activation_bytes: values * size_of::<f32>(),
            };
            let layer = whole.get(name.as_str()).copied();
            match layer.and_then(|layer| layers.iter_mut().find(|other| other.name == layer)) {
                Some(known) => {
                    known.cost += cost;
                    known.output.clone_from(&output);
                }
                None if cost.params > 0 => {
                    let record = layer.map(|layer| &self.factorized[layer]);
                    layers.push(LayerCost {
                        name: layer.unwrap_or(&name).into(),
                        op: record.map_or(&node.op, |record| &record.dense).kind(),
                        factors: record.map(|record| (record.form, record.rank)),
                        output: output.clone(),
                        cost,
                    });
                }
                None => {}
            }
            nodes.push(NodeCost { name, op: node.op.kind(), output, cost });
        }
        let total = nodes.iter().map(|node| node.cost).sum();
        Ok(Cost { input: input.to_vec(), nodes, layers, total })
    }

    /// The ranks at which `layer` in the given form costs as much as it does dense.
    ///
    /// # Errors
    /// Unknown layer, a form that does not fit it or whose rank is more than one number, or an input shape that the network
    /// cannot take.
    pub fn breakeven(
        &self,
        layer: &str,
        form: Form,
        input: impl AsRef<[usize]>,
    ) -> Result<BreakEven, NetError> {
        let node = self.node(layer)?;
        let shapes = self.output_shapes(&input)?;
        breakeven(layer, &node.op, form, input_of(node, &shapes, input.as_ref()))
    }
}

impl Network {
    /// See [`Architecture::cost`].
    ///
    /// # Errors
    /// [`NetError::InputShape`] at the first layer that cannot take what it is given.
    pub fn cost(&self, input: impl AsRef<[usize]>) -> Result<Cost, NetError> {
        self.arch.cost(input)
    }

    /// See [`Architecture::breakeven`].
    ///
    /// # Errors
    /// Unknown layer, a form that does not fit it, or an input shape that the network cannot take.
    pub fn breakeven(
        &self,
        layer: &str,
        form: Form,
        input: impl AsRef<[usize]>,
    ) -> Result<BreakEven, NetError> {
        self.arch.breakeven(layer, form, input)
    }
}

/// The shape that `node` reads (its first input), from the outputs of all nodes and the network's input.
pub(crate) fn input_of<'a>(
    node: &Node,
    outputs: &'a [(String, Vec<usize>)],
    input: &'a [usize],
) -> &'a [usize] {
    let from = node.inputs.first();
    outputs.iter().find(|(name, _)| Some(name) == from).map_or(input, |(_, shape)| shape)
}

/// Multiply-adds of `op` where its output has `values` values.
fn macs(op: &Op, values: usize) -> usize {
    match op {
        Op::Conv(Conv { in_channels, geometry, kernel, .. }) => {
            values * (in_channels / geometry.groups) * kernel.iter().product::<usize>()
        }
        Op::Linear(linear) => values * linear.in_features,
        _ => 0,
    }
}

/// The ranks (of each group) at which a factorized layer costs as much as the dense one; below, it is smaller.
///
/// The two differ where the layer strides or does not keep the size of its map: `reduce` runs at the input's resolution,
/// the dense kernel at the output's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct BreakEven {
    /// In parameters: numel(K) / Σ shape(K), for one group's kernel K (in CP-3 with its spatial axes merged).
    pub params: f64,
    /// In multiply-adds.
    pub macs: f64,
}

/// Break-even ranks of a layer whose input has shape `input`. Biases are left out: both sides have the same one.
pub(crate) fn breakeven(
    layer: &str,
    op: &Op,
    form: Form,
    input: &[usize],
) -> Result<BreakEven, NetError> {
    let dense = weights_cost(layer, &[op], input)?;
    let unit = unit_cost(layer, op, form, input)?;
    Ok(BreakEven {
        params: dense.params as f64 / unit.params as f64,
        macs: dense.macs as f64 / unit.macs as f64,
    })
}

/// What each rank of the factorized layer adds; the cost is linear in the rank, the bias apart.
pub(crate) fn unit_cost(
    layer: &str,
    op: &Op,
    form: Form,
    input: &[usize],
) -> Result<Totals, NetError> {
    factors_cost(layer, op, form, Rank::One(1), input)
}

/// Cost of the parts of a factorized layer, without biases.
pub(crate) fn factors_cost(
    layer: &str,
    op: &Op,
    form: Form,
    rank: Rank,
    input: &[usize],
) -> Result<Totals, NetError> {
    let parts = replacement(layer, op, form, rank)?;
    let ops: Vec<&Op> = parts.iter().map(|(_, op)| op).collect();
    weights_cost(layer, &ops, input)
}

/// Cost of ops that follow each other, without biases.
pub(crate) fn weights_cost(layer: &str, ops: &[&Op], input: &[usize]) -> Result<Totals, NetError> {
    let mut shape = input.to_vec();
    let mut total = Totals::default();
    for op in ops {
        let node = Node { name: layer.into(), op: (*op).clone(), inputs: Vec::new() };
        shape = node.output_shape(&[&shape])?;
        let values: usize = shape.iter().product();
        let weight = op.params().into_iter().find(|spec| spec.suffix == "weight");
        total += Totals {
            params: weight.map_or(0, |spec| spec.shape.iter().product()),
            macs: macs(op, values),
            activation_bytes: values * size_of::<f32>(),
        };
    }
    Ok(total)
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name_width =
            self.layers.iter().map(|layer| layer.name.chars().count()).max().unwrap_or(0).max(9);
        let kind = |layer: &LayerCost| match layer.factors {
            Some((form, rank)) => format!("{form} R={rank}"),
            None => layer.op.into(),
        };
        let kind_width =
            self.layers.iter().map(|layer| kind(layer).len()).max().unwrap_or(0).max(4);
        let row =
            |f: &mut fmt::Formatter<'_>, name: &str, kind: &str, output: &str, cost: Totals| {
                writeln!(
                    f,
                    "{name:name_width$}  {kind:kind_width$}  {output:>12}  {:>13}  {:>15}  {:>12}",
                    thousands(cost.params),
                    thousands(cost.macs),
                    thousands(cost.activation_bytes)
                )
            };
        writeln!(
            f,
            "{:name_width$}  {:kind_width$}  {:>12}  {:>13}  {:>15}  {:>12}",
            "layer", "op", "output", "parameters", "multiply-adds", "output bytes"
        )?;
        let mut rest = self.total;
        for layer in &self.layers {
            row(f, &layer.name, &kind(layer), &by(&layer.output), layer.cost)?;
            rest.activation_bytes -= layer.cost.activation_bytes;
        }
        row(
            f,
            "other ops",
            "",
            "",
            Totals { activation_bytes: rest.activation_bytes, ..Totals::default() },
        )?;
        row(
            f,
            "total",
            "",
            &by(&self.nodes.last().map_or_else(Vec::new, |node| node.output.clone())),
            self.total,
        )
    }
}

/// `[64, 55, 55]` as `64x55x55`.
fn by(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}

/// `61100840` as `61,100,840`.
fn thousands(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        for (count, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (61_100_840, "61,100,840")] {
            assert_eq!(thousands(count), text);
        }
    }
}
