//! A network into steps: which algorithm runs each unit, and in which layout values lie.
//!
//! | unit | step |
//! |---|---|
//! | 1×1 · depthwise · 1×1, also with two depthwise passes | [`Chain`](crate::steps::chain::Chain) |
//! | 1×1 convolution, stride 1, no padding | [`Pointwise`](crate::steps::pointwise::Pointwise) |
//! | depthwise convolution, scale and shift | [`SeparateChannels`](crate::steps::depthwise::SeparateChannels) |
//! | a convolution of up to four channels of an input of the network | [`First`](crate::steps::first::First) |
//! | a dense 3×3 convolution at distance 1 over a map of [enough pixels and channels](crate::steps::winograd::Winograd::suits) | [`Winograd`](crate::steps::winograd::Winograd) |
//! | any other convolution over one or two axes; a linear layer, as a window over the whole map | [`Direct`](crate::steps::direct::Direct) |
//! | poolings, sums, products, activations, concatenations, slices, paddings, local response normalization | a step of their own |
//! | anything else, such as a convolution over three axes | [`Reference`] |
//!
//! The rule is fixed: it looks at ops and shapes, and measures nothing.

mod conv;
mod moves;
mod pointwise;

use std::collections::BTreeMap;

use cp_net::{Network, Node, Op, Shapes};
use ndarray::ArrayD;

use crate::error::InferError;
use crate::kernels::activation::Clamp;
use crate::kernels::elementwise::Function;
use crate::level::Level;
use crate::map::{Layout, Map};
use crate::step::{BufferId, Step};
use crate::steps::elementwise::Unary;
use crate::steps::reference::{Operand, Reference};
use crate::steps::reorder::{Export, Import};
use crate::units::{Kind, Unit, units};

/// A step and what it works on.
#[derive(Debug)]
pub(crate) struct Task {
    /// The layers that it runs, each with its multiply-adds for one image.
    pub(crate) layers: Vec<(String, usize)>,
    /// The algorithm.
    pub(crate) algorithm: &'static str,
    pub(crate) step: Box<dyn Step>,
    /// Threads that its work is enough for.
    pub(crate) workers: usize,
    pub(crate) reads: Vec<BufferId>,
    pub(crate) writes: Vec<BufferId>,
}

/// A value while steps are made.
#[derive(Debug, Clone)]
enum Value {
    /// In memory.
    Memory {
        shape: Vec<usize>,
        /// In blocks, as this map; a flattened value keeps the map that it was.
        blocked: Option<(BufferId, Map)>,
        plain: Option<BufferId>,
    },
    /// Known, `[1, …]`.
    Constant(ArrayD<f32>),
}

/// Steps, and the layouts of all that they read and make.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) tasks: Vec<Task>,
    pub(crate) layouts: Vec<Layout>,
    /// For each buffer, the value that it belongs to.
    pub(crate) names: Vec<String>,
    /// The buffers of the network's inputs and outputs, plain.
    pub(crate) inputs: Vec<BufferId>,
    pub(crate) outputs: Vec<BufferId>,
}

/// What the choice of steps depends on, beside ops and shapes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) level: Level,
    /// Threads that a step may have, and into how many parts it is to be cut at least.
    pub(crate) workers: usize,
    pub(crate) winograd: bool,
    pub(crate) fast_only: bool,
}

/// Multiply-adds that are worth a thread: about a tenth of a millisecond, many times what it takes to wake one.
const SHARE: usize = 6_000_000;

/// The steps of a folded network.
pub(crate) fn lower(net: &Network, shapes: &Shapes, rules: Rules) -> Result<Lowered, InferError> {
    let mut lowering = Lowering {
        net,
        shapes,
        rules,
        values: BTreeMap::new(),
        tasks: Vec::new(),
        layouts: Vec::new(),
        names: Vec::new(),
        layers: Vec::new(),
    };
    let mut inputs = Vec::new();
    for input in &net.architecture().inputs {
        let shape = lowering.shape(&input.name);
        let buffer = lowering.buffer(&input.name, Layout::Plain(shape.iter().product()));
        let value = Value::Memory { shape, blocked: None, plain: Some(buffer) };
        lowering.values.insert(input.name.clone(), value);
        inputs.push(buffer);
    }
    let mut slow = Vec::new();
    for unit in units(net, shapes) {
        let first = match &unit.kind {
            Kind::Node(node) => *node,
            Kind::Chain(parts, _) => parts[0].0,
        };
        let node = &net.nodes()[first];
        lowering.layers = lowering.layers_of(&unit);
        let macs: usize = lowering.layers.iter().map(|layer| layer.1).sum();
        lowering.rules.workers = (macs / SHARE).clamp(1, rules.workers);
        if lowering.fast(&unit)?.is_none() {
            if !matches!(node.op, Op::Constant(_)) {
                slow.push(format!("{} ({})", node.name, node.op.kind()));
            }
            lowering.reference(node, &unit)?;
        }
    }
    if rules.fast_only && !slow.is_empty() {
        return Err(InferError::NoKernel { layers: slow });
    }
    let mut outputs = Vec::new();
    for output in &net.architecture().outputs {
        lowering.layers = vec![(output.clone(), 0)];
        outputs.push(lowering.output(output, &inputs));
    }
    let Lowering { tasks, layouts, names, .. } = lowering;
    Ok(Lowered { tasks, layouts, names, inputs, outputs })
}

struct Lowering<'a> {
    net: &'a Network,
    shapes: &'a Shapes,
    rules: Rules,
    values: BTreeMap<String, Value>,
    tasks: Vec<Task>,
    layouts: Vec<Layout>,
    names: Vec<String>,
    /// The layers that steps are made for.
    layers: Vec<(String, usize)>,
}

impl Lowering<'_> {
    /// Makes the steps of a unit that has kernels; `None` where it has none.
    fn fast(&mut self, unit: &Unit) -> Result<Option<()>, InferError> {
        let position = match &unit.kind {
            Kind::Node(position) => *position,
            Kind::Chain(parts, last) => {
                self.chain(unit, parts, *last)?;
                return Ok(Some(()));
            }
        };
        let node = &self.net.nodes()[position];
        match &node.op {
            Op::Conv(conv) => self.conv(unit, node, conv),
            Op::Linear(_) => self.linear(unit, node),
            Op::ScaleShift(_) => self.scale_shift(unit, node),
            _ => Ok(self.pointwise(unit, node).or_else(|| self.moved(node))),
        }
    }

    /// The layers of a unit, each with its multiply-adds for one image.
    fn layers_of(&self, unit: &Unit) -> Vec<(String, usize)> {
        let layer = |position: usize| {
            let node = &self.net.nodes()[position];
            let macs = node.op.macs(&self.shapes.inputs_of(node), &self.shapes.outputs_of(node));
            (node.name.clone(), macs)
        };
        match &unit.kind {
            Kind::Node(node) => vec![layer(*node)],
            Kind::Chain(parts, last) => {
                parts.iter().map(|part| part.0).chain([*last]).map(layer).collect()
            }
        }
    }

    /// The steps of a node by its definition.
    fn reference(&mut self, node: &Node, unit: &Unit) -> Result<(), InferError> {
        let params = self.params(node)?;
        if let (Op::Constant(_), [value]) = (&node.op, &params[..]) {
            let value = value.clone().insert_axis(ndarray::Axis(0));
            self.values.insert(node.output().into(), Value::Constant(value));
            return Ok(());
        }
        let mut inputs = Vec::new();
        for input in &node.inputs {
            inputs.push(match self.values.get(input) {
                Some(Value::Constant(array)) => Operand::Constant(array.clone()),
                _ => Operand::Value(self.plain(input), self.shape(input)),
            });
        }
        let mut outputs = Vec::new();
        for output in &node.outputs {
            let shape = self.shape(output);
            let buffer = self.buffer(output, Layout::Plain(shape.iter().product()));
            let value = Value::Memory { shape, blocked: None, plain: Some(buffer) };
            self.values.insert(output.clone(), value);
            outputs.push(buffer);
        }
        let reads = inputs.iter().filter_map(|input| match input {
            Operand::Value(buffer, _) => Some(*buffer),
            Operand::Constant(_) => None,
        });
        let (reads, writes) = (reads.collect(), outputs.clone());
        let step = Reference { op: node.op.clone(), params, inputs, outputs };
        self.task("reference", step, reads, writes);
        if unit.output != node.output() {
            self.clamp(node.output(), unit.clamp, &unit.output);
        }
        Ok(())
    }

    /// A clamp by itself.
    fn clamp(&mut self, input: &str, clamp: Clamp, output: &str) -> Option<()> {
        let (input, map) = self.map(input)?;
        let output = self.made(output, map);
        let step = Unary { function: Function::Clamp(clamp), map, input, output };
        self.task("elementwise", step, vec![input], vec![output]);
        Some(())
    }

    /// The arrays of a node, in the order of [`Op::params`].
    fn params(&self, node: &Node) -> Result<Vec<ArrayD<f32>>, InferError> {
        let names = node.param_specs().map(|(name, _)| name);
        let array = |name: String| {
            let params = self.net.params();
            params.get(&name).cloned().ok_or_else(|| cp_net::NetError::UnknownParam {
                name,
                known: params.keys().cloned().collect(),
            })
        };
        Ok(names.map(array).collect::<Result<_, _>>()?)
    }

    fn shape(&self, value: &str) -> Vec<usize> {
        self.shapes.get(value).unwrap_or_default().to_vec()
    }

    /// A buffer for a value.
    fn buffer(&mut self, value: &str, layout: Layout) -> BufferId {
        self.layouts.push(layout);
        self.names.push(value.into());
        BufferId(self.layouts.len() - 1)
    }

    fn task(
        &mut self,
        algorithm: &'static str,
        step: impl Step + 'static,
        reads: Vec<BufferId>,
        writes: Vec<BufferId>,
    ) {
        let mut layers = self.layers.clone();
        if ["import", "export"].contains(&algorithm) {
            // The step that this one is for has them.
            layers.iter_mut().for_each(|(_, macs)| *macs = 0);
        }
        let workers = self.rules.workers;
        self.tasks.push(Task { layers, algorithm, step: Box::new(step), workers, reads, writes });
    }

    /// A value that a step makes as a map.
    fn made(&mut self, value: &str, map: Map) -> BufferId {
        let buffer = self.buffer(value, Layout::Blocked(map));
        let shape = self.shape(value);
        let made = Value::Memory { shape, blocked: Some((buffer, map)), plain: None };
        self.values.insert(value.into(), made);
        buffer
    }

    /// A value as the map of its shape; `None` where it has too many axes, or is a constant.
    fn map(&mut self, value: &str) -> Option<(BufferId, Map)> {
        let Some(Value::Memory { shape, blocked, plain }) = self.values.get(value).cloned() else {
            return None;
        };
        let map = Map::of(&shape)?;
        if let Some((buffer, known)) = blocked
            && known == map
        {
            return Some((buffer, map));
        }
        let input = plain.unwrap_or_else(|| self.plain(value));
        let output = self.buffer(value, Layout::Blocked(map));
        self.task("import", Import { map, input, output }, vec![input], vec![output]);
        let value = self.values.get_mut(value);
        if let Some(Value::Memory { blocked, .. }) = value {
            *blocked = Some((output, map));
        }
        Some((output, map))
    }

    /// A value in the order of its axes.
    fn plain(&mut self, value: &str) -> BufferId {
        if let Some(Value::Memory { plain: Some(plain), .. }) = self.values.get(value) {
            return *plain;
        }
        self.exported(value)
    }

    /// A value that the network gives, in memory of its own.
    fn output(&mut self, value: &str, inputs: &[BufferId]) -> BufferId {
        let shape = self.shape(value);
        let operand = match self.values.get(value).cloned() {
            Some(Value::Constant(array)) => Operand::Constant(array),
            _ => {
                let plain = self.plain(value);
                if !inputs.contains(&plain) {
                    return plain;
                }
                Operand::Value(plain, shape.clone())
            }
        };
        let reads = if let Operand::Value(buffer, _) = operand { vec![buffer] } else { Vec::new() };
        let output = self.buffer(value, Layout::Plain(shape.iter().product()));
        let step = Reference {
            op: cp_net::Identity {}.into(),
            params: Vec::new(),
            inputs: vec![operand],
            outputs: vec![output],
        };
        self.task("copy", step, reads, vec![output]);
        output
    }

    /// A plain copy of a map.
    fn exported(&mut self, value: &str) -> BufferId {
        let blocked = match self.values.get(value) {
            Some(Value::Memory { blocked: Some(blocked), .. }) => *blocked,
            _ => unreachable!("every value that is read was made by a step before"),
        };
        let (input, map) = blocked;
        let output = self.buffer(value, Layout::Plain(map.channels * map.pixels()));
        self.task("export", Export { map, input, output }, vec![input], vec![output]);
        if let Some(Value::Memory { plain, .. }) = self.values.get_mut(value) {
            *plain = Some(output);
        }
        output
    }
}
