//! What a network costs: parameters, multiply-adds and activation bytes, and the ranks at which factors stop paying.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::error::NetError;
use crate::factor::form::Form;
use crate::factor::parts::replacement;
use crate::factor::rank::Rank;
use crate::network::Network;
use crate::network::architecture::Architecture;
use crate::network::node::Node;
use crate::network::shapes::{InputShapes, Shapes};
use crate::op::{Op, Shape};

/// Parameters, multiply-adds and activation bytes of an op, a layer or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Weights, biases and scales; running statistics do not count.
    pub params: usize,
    /// Multiply-adds of convolutions, linear layers and matrix products, for one example. Other ops count as 0.
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
    /// Shapes of the inputs, without the batch axis.
    pub inputs: Vec<Shape>,
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
    /// What this architecture costs for inputs of these shapes. A shared parameter counts once, at the first of its nodes;
    /// multiply-adds count at every use.
    ///
    /// # Shapes
    /// `inputs`: `[C, H, W]`, without the batch axis.
    ///
    /// # Errors
    /// [`NetError::InputShape`] at the first layer that cannot take what it is given.
    pub fn cost(&self, inputs: impl InputShapes) -> Result<Cost, NetError> {
        let whole: BTreeMap<&str, &str> = self
            .factorized
            .iter()
            .flat_map(|(layer, record)| {
                record.parts.iter().map(|part| (part.as_str(), layer.as_str()))
            })
            .collect();
        let shapes = self.shapes(&inputs)?;
        let mut nodes = Vec::with_capacity(self.nodes.len());
        let mut layers: Vec<LayerCost> = Vec::new();
        let mut counted = BTreeSet::new();
        for node in &self.nodes {
            let outputs = shapes.outputs_of(node);
            let own = node.param_specs().filter(|(name, _)| counted.insert(name.clone()));
            let cost = Totals {
                params: own.map(|(_, spec)| spec.count()).sum(),
                ..passing(&node.op, &shapes.inputs_of(node), &outputs)
            };
            let output = outputs.into_iter().next().unwrap_or_default();
            let layer = whole.get(node.name.as_str()).copied();
            match layer.and_then(|layer| layers.iter_mut().find(|other| other.name == layer)) {
                Some(known) => {
                    known.cost += cost;
                    known.output.clone_from(&output);
                }
                None if node.op.param_count() > 0 => {
                    let record = layer.map(|layer| &self.factorized[layer]);
                    layers.push(LayerCost {
                        name: layer.unwrap_or(&node.name).into(),
                        op: record.map_or(&node.op, |record| &record.dense).kind(),
                        factors: record.map(|record| (record.form, record.rank)),
                        output: output.clone(),
                        cost,
                    });
                }
                None => {}
            }
            nodes.push(NodeCost { name: node.name.clone(), op: node.op.kind(), output, cost });
        }
        let total = nodes.iter().map(|node| node.cost).sum();
        Ok(Cost { inputs: inputs.shapes(), nodes, layers, total })
    }

    /// The ranks at which `layer` in the given form costs as much as it does dense, in all places where its kernel is used.
    ///
    /// # Errors
    /// Unknown layer, a form that does not fit it or whose rank is more than one number, or an input shape that the network
    /// cannot take.
    pub fn breakeven(
        &self,
        layer: &str,
        form: Form,
        inputs: impl InputShapes,
    ) -> Result<BreakEven, NetError> {
        let shapes = self.shapes(inputs)?;
        let dense = self.dense_cost(layer, &shapes)?;
        let unit = self.factors_cost(layer, form, form.least_rank(), &shapes)?;
        if form.least_rank().one().is_none() {
            return Err(NetError::RankKind {
                layer: layer.into(),
                form,
                expected: "several numbers, so that no single one is where it breaks even",
                got: form.least_rank(),
            });
        }
        let base = self.base_cost(layer, form, &shapes)?;
        let even = |dense: usize, base: usize, first: usize| {
            (dense as f64 - base as f64) / first.saturating_sub(base) as f64
        };
        Ok(BreakEven {
            params: even(dense.params, base.params, unit.params),
            macs: even(dense.macs, base.macs, unit.macs),
        })
    }

    /// What a form of one number costs whatever its rank, in parameters and multiply-adds: the filters of monochromatic layers, of which there is one
    /// for each output channel; nothing of other forms.
    ///
    /// # Errors
    /// As [`Architecture::factors_cost`].
    pub fn base_cost(&self, layer: &str, form: Form, shapes: &Shapes) -> Result<Totals, NetError> {
        if form != Form::Monochromatic {
            return Ok(Totals::default());
        }
        let [first, second] = match self.factors_cost(layer, form, Rank::One(2), shapes) {
            Ok(second) => [self.factors_cost(layer, form, Rank::One(1), shapes)?, second],
            // Of a single channel, whose only rank is 1.
            Err(NetError::RankTooLarge { .. }) => return Ok(Totals::default()),
            Err(other) => return Err(other),
        };
        let base = |first: usize, second: usize| (2 * first).saturating_sub(second);
        Ok(Totals {
            params: base(first.params, second.params),
            macs: base(first.macs, second.macs),
            activation_bytes: 0,
        })
    }

    /// Cost of a layer without its bias: its kernel once, multiply-adds in all places where it is used.
    ///
    /// # Errors
    /// Unknown layer.
    pub fn dense_cost(&self, layer: &str, shapes: &Shapes) -> Result<Totals, NetError> {
        self.sequence_cost(layer, shapes, |node| Ok(vec![node.op.clone()]))
    }

    /// Cost of the parts of a layer if it were factorized, without its bias: factors once, multiply-adds in all places where they are
    /// used. Forms of one number cost a rank times what they cost at rank 1, beyond their [`Architecture::base_cost`].
    ///
    /// # Errors
    /// Unknown layer, a form that does not fit it, or a rank that it cannot have.
    pub fn factors_cost(
        &self,
        layer: &str,
        form: Form,
        rank: Rank,
        shapes: &Shapes,
    ) -> Result<Totals, NetError> {
        self.sequence_cost(layer, shapes, |node| {
            let parts = replacement(&node.name, &node.op, form, rank)?;
            Ok(parts.into_iter().map(|(_, op)| op).collect())
        })
    }

    fn sequence_cost(
        &self,
        layer: &str,
        shapes: &Shapes,
        ops: impl Fn(&Node) -> Result<Vec<Op>, NetError>,
    ) -> Result<Totals, NetError> {
        let mut users = self.kernel_users(layer)?;
        if users.is_empty() {
            users.push(self.node(layer)?);
        }
        let mut total = Totals::default();
        for (index, user) in users.into_iter().enumerate() {
            let input = shapes.inputs_of(user).first().map(|shape| shape.to_vec());
            let sequence = weights_cost(layer, &ops(user)?, &input.unwrap_or_default())?;
            let params = if index == 0 { sequence.params } else { 0 };
            total += Totals { params, ..sequence };
        }
        Ok(total)
    }
}

impl Network {
    /// See [`Architecture::cost`].
    ///
    /// # Errors
    /// [`NetError::InputShape`] at the first layer that cannot take what it is given.
    pub fn cost(&self, inputs: impl InputShapes) -> Result<Cost, NetError> {
        self.arch.cost(inputs)
    }

    /// See [`Architecture::breakeven`].
    ///
    /// # Errors
    /// Unknown layer, a form that does not fit it, or an input shape that the network cannot take.
    pub fn breakeven(
        &self,
        layer: &str,
        form: Form,
        inputs: impl InputShapes,
    ) -> Result<BreakEven, NetError> {
        self.arch.breakeven(layer, form, inputs)
    }
}

/// What an op costs each time that it runs.
fn passing(op: &Op, inputs: &[&[usize]], outputs: &[Shape]) -> Totals {
    let values: usize = outputs.iter().map(|shape| shape.iter().product::<usize>()).sum();
    Totals {
        params: 0,
        macs: op.macs(inputs, outputs),
        activation_bytes: values * size_of::<f32>(),
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

/// Cost of ops that follow each other, without biases.
fn weights_cost(layer: &str, ops: &[Op], input: &[usize]) -> Result<Totals, NetError> {
    let mut shape = input.to_vec();
    let mut total = Totals::default();
    for op in ops {
        let outputs = op.output(&[&shape]).map_err(|mismatch| NetError::InputShape {
            layer: layer.into(),
            op: op.kind(),
            index: 0,
            inputs: vec![(layer.into(), shape.clone())],
            expected: mismatch.expected,
        })?;
        let weight = op.params().into_iter().find(|spec| spec.slot == "weight");
        total += Totals {
            params: weight.map_or(0, |spec| spec.shape.iter().product()),
            ..passing(op, &[&shape], &outputs)
        };
        shape = outputs.into_iter().next().unwrap_or_default();
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
