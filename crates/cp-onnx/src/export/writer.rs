//! The graph as it is being written ([`Writer`]), and the place of one node in it ([`Site`]), which is what an op sees.
//!
//! ONNX has two kinds of names: of nodes, and of values, which initializers share. Names of the network are kept; where a parameter is
//! called like a value, and for all that is only there in between, a number is put behind.

use std::collections::{BTreeMap, HashSet};

use cp_net::{Network, Node, ParamRole, Shapes};
use ndarray::ArrayD;

use crate::Float;
use crate::export::ExportOptions;
use crate::proto::{Message, attribute, node, tensor};

/// A parameter in the model.
pub(super) struct Param {
    /// Its initializer.
    pub(super) initializer: String,
    /// The value that nodes read, by the shape in which they read it; the first is that of the initializer.
    read: Vec<(Vec<usize>, String)>,
    /// Its transpose, where a node reads that: one for all, so that a shared kernel stays shared.
    turned: Option<String>,
}

/// The nodes and initializers so far.
pub(super) struct Writer<'a> {
    net: &'a Network,
    roles: BTreeMap<String, ParamRole>,
    shapes: Shapes,
    pub(super) opset: i64,
    half: bool,
    /// Whether the model is only to run forward: primitives where runtimes are slow at the operator.
    forward: bool,
    /// Names of values and initializers.
    values: HashSet<String>,
    /// Names of nodes.
    labels: HashSet<String>,
    pub(super) nodes: Vec<Message>,
    pub(super) initializers: Vec<Message>,
    pub(super) params: BTreeMap<String, Param>,
    /// Values that do not depend on the example, whose batch is 1.
    fixed: HashSet<String>,
    /// What nodes read as their weight, by node.
    pub(super) kernels: BTreeMap<String, String>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(net: &'a Network, shapes: Shapes, options: &ExportOptions) -> Self {
        let arch = net.architecture();
        let inputs = arch.inputs.iter().map(|input| input.name.clone());
        let made = arch.nodes.iter().flat_map(|node| node.outputs.iter().cloned());
        Self {
            net,
            roles: net.roles(),
            shapes,
            opset: options.opset,
            half: options.half,
            forward: options.fold,
            values: inputs.chain(made).collect(),
            labels: arch.nodes.iter().map(|node| node.name.clone()).collect(),
            nodes: Vec::new(),
            initializers: Vec::new(),
            params: BTreeMap::new(),
            fixed: HashSet::new(),
            kernels: BTreeMap::new(),
        }
    }

    /// A value's name that nothing has yet.
    pub(super) fn fresh(&mut self, wanted: &str) -> String {
        fresh(&mut self.values, wanted)
    }

    /// A node beside those of the network.
    pub(super) fn push(&mut self, op: &str, label: &str, inputs: &[&str], output: &str) {
        self.push_with(op, label, inputs, output, Vec::new());
    }

    fn push_with(
        &mut self,
        op: &str,
        label: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<Message>,
    ) {
        let label = fresh(&mut self.labels, label);
        self.nodes.push(node::make(op, &label, inputs, output, attributes));
    }

    pub(super) fn shape(&self, value: &str) -> Vec<usize> {
        self.shapes.get(value).unwrap_or_default().to_vec()
    }

    pub(super) fn is_fixed(&self, value: &str) -> bool {
        self.fixed.contains(value)
    }

    /// The place of `node`.
    pub(super) fn site(&mut self, node: &'a Node) -> Site<'_, 'a> {
        if node.inputs.iter().all(|input| self.fixed.contains(input)) {
            self.fixed.extend(node.outputs.iter().cloned());
        }
        Site { writer: self, node, named: false }
    }

    /// The parameter `name` as a value of shape `shape`, which has as many elements.
    fn param(&mut self, name: &str, shape: &[usize]) -> String {
        if let Some(param) = self.params.get(name) {
            if let Some((_, value)) = param.read.iter().find(|(known, _)| known == shape) {
                return value.clone();
            }
            let (initializer, from) = (param.initializer.clone(), param.read[0].1.clone());
            let sizes: Vec<i64> = shape.iter().map(|&size| int(size)).collect();
            let sizes_name = self.fresh(&format!("{initializer}.shape"));
            self.initializers.push(tensor::make_integers(&sizes_name, &sizes));
            let value = self.fresh(&format!("{initializer}.reshaped"));
            self.push("Reshape", &value, &[&from, &sizes_name], &value);
            if let Some(param) = self.params.get_mut(name) {
                param.read.push((shape.to_vec(), value.clone()));
            }
            return value;
        }
        let initializer = self.fresh(name);
        let array = self.net.params().get(name).cloned().unwrap_or_default();
        // As many elements: an op asks for its own parameters.
        let array = array.as_standard_layout().into_owned();
        let array = array.into_shape_with_order(shape).unwrap_or_default();
        let halved = self.half && self.roles.get(name) == Some(&ParamRole::Weight);
        let float = if halved { Float::F16 } else { Float::F32 };
        self.initializers.push(tensor::make(&initializer, &array, float));
        let mut value = initializer.clone();
        if halved {
            value = self.fresh(&format!("{initializer}.f32"));
            let to = attribute::int("to", Float::F32.number());
            self.push_with("Cast", &value.clone(), &[&initializer], &value, vec![to]);
        }
        let read = vec![(shape.to_vec(), value.clone())];
        self.params.insert(name.into(), Param { initializer, read, turned: None });
        value
    }
}

fn fresh(names: &mut HashSet<String>, wanted: &str) -> String {
    let mut name = wanted.to_owned();
    let mut count = 2;
    while !names.insert(name.clone()) {
        name = format!("{wanted}_{count}");
        count += 1;
    }
    name
}

/// A size as ONNX has it.
pub(super) fn int(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Sizes as ONNX has them.
pub(super) fn int_list(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&size| int(size)).collect()
}

/// One node of the network, and the graph that its ONNX nodes are added to.
pub(super) struct Site<'w, 'a> {
    writer: &'w mut Writer<'a>,
    node: &'a Node,
    /// Whether a node has its name already.
    named: bool,
}

impl Site<'_, '_> {
    pub(super) fn opset(&self) -> i64 {
        self.writer.opset
    }

    /// Whether the model is only to run forward.
    pub(super) fn forward(&self) -> bool {
        self.writer.forward
    }

    pub(super) fn inputs(&self) -> Vec<String> {
        self.node.inputs.clone()
    }

    /// The first input.
    pub(super) fn input(&self) -> String {
        self.node.inputs.first().cloned().unwrap_or_default()
    }

    /// Shape of an input, without the batch axis.
    pub(super) fn shape(&self, index: usize) -> Vec<usize> {
        self.node.inputs.get(index).map_or(Vec::new(), |input| self.writer.shape(input))
    }

    /// Shape of the first output, without the batch axis.
    pub(super) fn output_shape(&self) -> Vec<usize> {
        self.writer.shape(self.node.output())
    }

    /// Whether an input does not depend on the example: its batch is 1 then.
    pub(super) fn is_fixed(&self, index: usize) -> bool {
        self.node.inputs.get(index).is_some_and(|input| self.writer.is_fixed(input))
    }

    /// The parameter in `slot`.
    pub(super) fn param(&mut self, slot: &str) -> String {
        let name = self.node.param(slot);
        let shape = self.writer.net.params().get(&name).map(|array| array.shape().to_vec());
        self.param_as(slot, &shape.unwrap_or_default())
    }

    /// The same in another shape.
    pub(super) fn param_as(&mut self, slot: &str, shape: &[usize]) -> String {
        self.writer.param(&self.node.param(slot), shape)
    }

    /// A matrix, transposed.
    pub(super) fn param_transposed(&mut self, slot: &str) -> String {
        let (name, matrix) = (self.node.param(slot), self.param(slot));
        if let Some(turned) = self.writer.params.get(&name).and_then(|param| param.turned.clone()) {
            return turned;
        }
        let turned = self.writer.fresh(&format!("{name}.transposed"));
        let perm = vec![attribute::ints("perm", &[1, 0])];
        self.writer.push_with("Transpose", &turned, &[&matrix], &turned, perm);
        if let Some(param) = self.writer.params.get_mut(&name) {
            param.turned = Some(turned.clone());
        }
        turned
    }

    /// A parameter `[C]` as `[C, 1, …]`, so that it goes along the channels of the first input.
    pub(super) fn per_channel(&mut self, slot: &str) -> String {
        let channels = self.writer.net.params().get(&self.node.param(slot)).map_or(0, ArrayD::len);
        let mut shape = vec![channels];
        shape.resize(self.shape(0).len().max(1), 1);
        self.param_as(slot, &shape)
    }

    /// Whole numbers, as an initializer.
    pub(super) fn ints(&mut self, what: &str, values: &[i64]) -> String {
        let name = self.writer.fresh(&format!("{}.{what}", self.node.name));
        self.writer.initializers.push(tensor::make_integers(&name, values));
        name
    }

    /// Numbers, as an initializer.
    pub(super) fn floats(&mut self, what: &str, values: &ArrayD<f32>) -> String {
        let name = self.writer.fresh(&format!("{}.{what}", self.node.name));
        self.writer.initializers.push(tensor::make(&name, values, Float::F32));
        name
    }

    /// A number, as an initializer without axes.
    pub(super) fn scalar(&mut self, what: &str, value: f64) -> String {
        self.floats(what, &ndarray::arr0(value as f32).into_dyn())
    }

    /// A node in between; the value that it makes.
    pub(super) fn emit(
        &mut self,
        op: &str,
        what: &str,
        inputs: &[&str],
        attributes: Vec<Message>,
    ) -> String {
        let output = self.writer.fresh(&format!("{}.{what}", self.node.name));
        let label = format!("{}.{what}", self.node.name);
        self.writer.push_with(op, &label, inputs, &output, attributes);
        output
    }

    /// A node in between with several outputs.
    pub(super) fn emit_several(
        &mut self,
        op: &str,
        what: &str,
        inputs: &[&str],
        attributes: Vec<Message>,
        count: usize,
    ) -> Vec<String> {
        let base = format!("{}.{what}", self.node.name);
        let outputs: Vec<String> =
            (0..count).map(|index| self.writer.fresh(&format!("{base}_{index}"))).collect();
        let label = fresh(&mut self.writer.labels, &base);
        let names: Vec<&str> = outputs.iter().map(String::as_str).collect();
        self.writer.nodes.push(node::make_all(op, &label, inputs, &names, attributes));
        outputs
    }

    /// The node that does the work, where others follow: it has the name.
    pub(super) fn emit_named(
        &mut self,
        op: &str,
        what: &str,
        inputs: &[&str],
        attributes: Vec<Message>,
    ) -> String {
        let output = self.writer.fresh(&format!("{}.{what}", self.node.name));
        self.named = true;
        self.writer.nodes.push(node::make(op, &self.node.name, inputs, &output, attributes));
        output
    }

    /// The last node, which makes the values of the network's node, and has its name unless another has.
    pub(super) fn finish(&mut self, op: &str, inputs: &[&str], attributes: Vec<Message>) {
        let label = if self.named {
            fresh(&mut self.writer.labels, &format!("{}.{}", self.node.name, op.to_lowercase()))
        } else {
            self.node.name.clone()
        };
        let outputs: Vec<&str> = self.node.outputs.iter().map(String::as_str).collect();
        self.writer.nodes.push(node::make_all(op, &label, inputs, &outputs, attributes));
    }

    /// Remembers what the node reads as its weight.
    pub(super) fn kernel(&mut self, value: &str) {
        self.writer.kernels.insert(self.node.name.clone(), value.into());
    }

    /// `value` in another shape behind the batch axis.
    pub(super) fn reshape(&mut self, what: &str, value: &str, shape: &[usize]) -> String {
        let sizes = self.batch_and(&format!("{what}_shape"), shape);
        self.emit("Reshape", what, &[value, &sizes], Vec::new())
    }

    /// As [`Site::reshape`], as the last node.
    pub(super) fn finish_reshape(&mut self, value: &str, shape: &[usize]) {
        let sizes = self.batch_and("shape", shape);
        self.finish("Reshape", &[value, &sizes], Vec::new());
    }

    /// What `Reshape` reads: 0, the batch as it is, and the other sizes.
    fn batch_and(&mut self, what: &str, shape: &[usize]) -> String {
        let sizes: Vec<i64> = [0].into_iter().chain(int_list(shape)).collect();
        self.ints(what, &sizes)
    }

    /// The inputs with as many axes as the output. cp-net aligns shapes behind the batch axis, ONNX whole ones: axes of size 1 are put
    /// in behind the batch axis where it is not 1 itself.
    pub(super) fn aligned(&mut self) -> Vec<String> {
        let axes = self.output_shape().len();
        let inputs = self.inputs().into_iter().enumerate();
        let align = |(index, input): (usize, String)| {
            let own = self.shape(index).len();
            if own >= axes || self.is_fixed(index) {
                return input;
            }
            let new: Vec<i64> = (1..=int(axes - own)).collect();
            let new = self.ints(&format!("axes_{index}"), &new);
            self.emit("Unsqueeze", &format!("aligned_{index}"), &[&input, &new], Vec::new())
        };
        inputs.map(align).collect()
    }

    /// The inputs, those that do not depend on the example repeated for each.
    pub(super) fn repeated(&mut self) -> Vec<String> {
        let inputs = self.inputs();
        let free = (0..inputs.len()).find(|&index| !self.is_fixed(index));
        let Some(free) = free else { return inputs };
        let mut batch = None;
        let mut repeated = Vec::with_capacity(inputs.len());
        for (index, input) in inputs.iter().enumerate() {
            if !self.is_fixed(index) {
                repeated.push(input.clone());
                continue;
            }
            if batch.is_none() {
                batch = Some(self.batch_of(&inputs[free]));
            }
            let ones = self.ints(&format!("ones_{index}"), &vec![1; self.shape(index).len()]);
            let count = batch.clone().unwrap_or_default();
            let axis = vec![attribute::int("axis", 0)];
            let sizes = self.emit("Concat", &format!("sizes_{index}"), &[&count, &ones], axis);
            let what = format!("repeated_{index}");
            repeated.push(self.emit("Expand", &what, &[input, &sizes], Vec::new()));
        }
        repeated
    }

    /// The batch size of `value` when the model runs, as one number along one axis.
    pub(super) fn batch_of(&mut self, value: &str) -> String {
        let shape = self.emit("Shape", "input_shape", &[value], Vec::new());
        let bounds = [("start", 0), ("end", 1), ("axis", 0)]
            .map(|(what, at)| self.ints(&format!("batch_{what}"), &[at]));
        let [start, end, axis] = bounds;
        self.emit("Slice", "batch", &[&shape, &start, &end, &axis], Vec::new())
    }
}
