//! From the graph of a program to a [`Network`]: values, arrays and names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use cp_net::{Architecture, Constant, InputSpec, Network, Node, Op};
use ndarray::ArrayD;
use serde_json::Value;

use super::ProgramError;
use super::aten;
use super::call::{Call, Fail};
use super::container::Contents;
use super::schema::{Graph, Signature, TensorMeta};
use crate::tensor::Decoded;

/// What a name of PyTorch's graph stands for.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// A value that depends on the input: its name here. The first of its axes is the batch.
    Value(String),
    /// A weight: its name in PyTorch. With the last two axes exchanged where `transposed`.
    Array { name: String, transposed: bool },
    /// What an operation that failed would have made, or something that is no array of numbers.
    Nothing,
}

/// A tensor of PyTorch's graph. Names that stand for the same memory share one, so that an operation in place changes all of them.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) kind: Kind,
    /// With the batch axis.
    pub(super) shape: Vec<usize>,
    /// Whether it is a view of another's memory, or another one of its memory: changes in place would then be seen elsewhere.
    pub(super) is_shared: bool,
}

/// The network so far.
pub(super) struct Builder<'a> {
    metas: &'a BTreeMap<String, TensorMeta>,
    arrays: BTreeMap<String, Decoded>,
    slots: Vec<Slot>,
    names: HashMap<String, usize>,
    nodes: Vec<Node>,
    params: BTreeMap<String, ArrayD<f32>>,
    /// Names of nodes and values.
    taken: BTreeSet<String>,
}

/// The network of a program.
pub(super) fn network(contents: Contents, name: &str) -> Result<Network, ProgramError> {
    let Contents { program, arrays } = contents;
    let Graph { nodes, tensor_values } = program.graph_module.graph;
    let signature = program.graph_module.signature;
    let mut builder = Builder {
        metas: &tensor_values,
        arrays,
        slots: Vec::new(),
        names: HashMap::new(),
        nodes: Vec::new(),
        params: BTreeMap::new(),
        taken: BTreeSet::new(),
    };
    let inputs = builder.inputs(&signature)?;
    let mut unsupported: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in &nodes {
        let mut call = Call::new(&mut builder, node);
        let result = aten::convert(&mut call);
        match result {
            Ok(()) => {}
            Err(fail) => {
                call.give_up();
                if let Fail::Because(reason) = fail {
                    let target = node.target.trim_start_matches("torch.ops.");
                    let value = node.outputs.iter().flat_map(|output| output.tensors()).next();
                    unsupported
                        .entry(format!("{target}: {reason}"))
                        .or_default()
                        .push(value.unwrap_or_default().into());
                }
            }
        }
    }
    if !unsupported.is_empty() {
        let line = |(reason, at): (String, Vec<String>)| {
            let more =
                if at.len() > 1 { format!(" and {} more", at.len() - 1) } else { String::new() };
            format!("{reason} ('{}'{more})", at[0])
        };
        return Err(ProgramError::Unsupported(unsupported.into_iter().map(line).collect()));
    }
    let outputs = builder.outputs(&signature)?;
    let nodes = used(builder.nodes, &outputs);
    let arch = Architecture {
        name: name.into(),
        inputs,
        nodes,
        outputs,
        classes: Vec::new(),
        factorized: BTreeMap::new(),
    };
    let wanted: BTreeSet<String> = arch.params().map(|(name, _)| name).collect();
    builder.params.retain(|name, _| wanted.contains(name));
    let network = Network::new(arch, builder.params)?;
    check(&network, &builder.slots)?;
    Ok(network)
}

/// The nodes that an output depends on.
fn used(mut nodes: Vec<Node>, outputs: &[String]) -> Vec<Node> {
    let mut read: BTreeSet<String> = outputs.iter().cloned().collect();
    let mut kept = Vec::with_capacity(nodes.len());
    while let Some(node) = nodes.pop() {
        if node.outputs.iter().any(|output| read.contains(output)) {
            read.extend(node.inputs.iter().cloned());
            kept.push(node);
        }
    }
    kept.reverse();
    kept
}

/// Every value has the shape that PyTorch says it has.
fn check(network: &Network, slots: &[Slot]) -> Result<(), ProgramError> {
    let shapes = network.shapes(network.architecture().input_shapes())?;
    for slot in slots {
        let Kind::Value(value) = &slot.kind else { continue };
        let Some(got) = shapes.get(value) else { continue };
        let expected = slot.shape.get(1..).unwrap_or_default();
        if got != expected {
            let (expected, got) = (expected.to_vec(), got.to_vec());
            return Err(ProgramError::Shape { value: value.clone(), expected, got });
        }
    }
    Ok(())
}

impl Builder<'_> {
    /// Binds what goes into the graph: weights by their names, and the inputs, which are returned.
    fn inputs(&mut self, signature: &Signature) -> Result<Vec<InputSpec>, ProgramError> {
        let mut inputs = Vec::new();
        for spec in &signature.input_specs {
            let Some((kind, spec)) = spec.iter().next() else { continue };
            let text = |path: &[&str]| {
                let found = path.iter().try_fold(spec, |value, field| value.get(field));
                found.and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let field = match kind.as_str() {
                "parameter" => "parameter_name",
                "buffer" => "buffer_name",
                "tensor_constant" => "tensor_constant_name",
                "user_input" => {
                    inputs.push(self.input(&spec["arg"], &text(&["arg", "as_tensor", "name"]))?);
                    continue;
                }
                _ => {
                    return Err(ProgramError::Signature {
                        which: "input",
                        name: text(&["arg", "name"]),
                        what: format!("a {kind}"),
                        way_out: "",
                    });
                }
            };
            let (own, name) = (text(&["arg", "name"]), text(&[field]));
            let shape = match self.arrays.get(&name) {
                Some(Decoded::Float(array)) => array.shape().to_vec(),
                Some(Decoded::Integer(array)) => array.shape().to_vec(),
                None => return Err(ProgramError::Missing { name }),
            };
            // As the graph says, so that an operation on it is not told two things.
            if self.metas.get(&own).and_then(TensorMeta::shape).is_some_and(|meta| meta != shape) {
                return Err(ProgramError::Missing { name });
            }
            let kind = Kind::Array { name, transposed: false };
            self.bind(&own, Slot { kind, shape, is_shared: true });
        }
        Ok(inputs)
    }

    fn input(&mut self, arg: &Value, own: &str) -> Result<InputSpec, ProgramError> {
        let refused = |what: &str, way_out| ProgramError::Signature {
            which: "input",
            name: own.into(),
            what: what.into(),
            way_out,
        };
        let Some(meta) = self.metas.get(own) else {
            let kind = arg.as_object().and_then(|arg| arg.keys().next());
            let what = kind.map_or("nothing", |kind| kind.trim_start_matches("as_")).to_owned();
            return Err(refused(&what, "; make it a constant of the module before the export"));
        };
        if !is_float(meta.dtype) {
            return Err(refused("no tensor of floating-point numbers", ""));
        }
        let shape = meta.shape().filter(|shape| shape.len() >= 2 && !shape.contains(&0));
        let Some(shape) = shape else {
            let way_out = "; its first axis has to be the batch";
            return Err(refused("a tensor of fewer than two axes, or without values", way_out));
        };
        let name = self.unique(own);
        self.taken.insert(name.clone());
        let kind = Kind::Value(name.clone());
        self.bind(own, Slot { kind, shape: shape.clone(), is_shared: false });
        Ok(InputSpec::features(&shape[1..]).named(name))
    }

    /// The values that the program gives.
    fn outputs(&mut self, signature: &Signature) -> Result<Vec<String>, ProgramError> {
        let mut outputs = Vec::new();
        for spec in &signature.output_specs {
            let Some((kind, spec)) = spec.iter().next() else { continue };
            let name = spec["arg"]["as_tensor"]["name"].as_str().unwrap_or_default();
            let refused = |what: String, way_out| ProgramError::Signature {
                which: "output",
                name: name.into(),
                what,
                way_out,
            };
            if kind != "user_output" {
                let way_out = "; export the model in evaluation mode (model.eval())";
                return Err(refused(format!("a {kind}"), way_out));
            }
            match self.slot(name).map(|slot| &slot.kind) {
                Some(Kind::Value(value)) => outputs.push(value.clone()),
                _ => return Err(refused("nothing that depends on an input".into(), "")),
            }
        }
        // A value that is given twice is given once here, as an input that is given as it is.
        let mut seen = BTreeSet::new();
        if let Some(twice) = outputs.iter().find(|output| !seen.insert(*output)) {
            return Err(ProgramError::Signature {
                which: "output",
                name: twice.clone(),
                what: "given more than once".into(),
                way_out: "",
            });
        }
        Ok(outputs)
    }

    /// What `name` stands for.
    pub(super) fn slot(&self, name: &str) -> Option<&Slot> {
        self.names.get(name).and_then(|index| self.slots.get(*index))
    }

    pub(super) fn slot_mut(&mut self, name: &str) -> Option<&mut Slot> {
        self.names.get(name).and_then(|index| self.slots.get_mut(*index))
    }

    /// Makes `name` stand for something new.
    pub(super) fn bind(&mut self, name: &str, slot: Slot) {
        self.names.insert(name.into(), self.slots.len());
        self.slots.push(slot);
    }

    /// Makes `name` stand for the same memory as `other`.
    pub(super) fn bind_alike(&mut self, name: &str, other: &str) {
        if let Some(&index) = self.names.get(other) {
            self.names.insert(name.into(), index);
        }
    }

    /// The shape of a tensor as the graph says, with the batch axis, and whether it is of floating-point numbers.
    pub(super) fn meta(&self, name: &str) -> Option<(Vec<usize>, bool)> {
        let meta = self.metas.get(name)?;
        Some((meta.shape()?, is_float(meta.dtype)))
    }

    /// A weight as it lies in the file; `None` where it is of whole numbers.
    pub(super) fn array(&self, name: &str) -> Option<&ArrayD<f32>> {
        match self.arrays.get(name) {
            Some(Decoded::Float(array)) => Some(array),
            _ => None,
        }
    }

    /// Adds a node called `name`, or nearly so where that is taken, and returns the values that it makes. Parameters come by slot, with
    /// the names that they keep; without one they are called like the node.
    pub(super) fn push(
        &mut self,
        name: &str,
        op: Op,
        inputs: Vec<String>,
        params: Vec<(&'static str, Option<String>, ArrayD<f32>)>,
    ) -> Vec<String> {
        let mut node = Node::new(self.unique(name), op, inputs);
        let mut number = 1;
        // The values of a node with several are called NAME.0, NAME.1, …, which may be taken, too.
        while node.outputs.iter().any(|output| self.taken.contains(output)) {
            number += 1;
            let other = self.unique(&format!("{name}_{number}"));
            node = Node::new(other, node.op, node.inputs);
        }
        for (slot, own, array) in params {
            let by_default = format!("{}.{slot}", node.name);
            let own = own.unwrap_or_else(|| by_default.clone());
            if own != by_default {
                node.params.insert(slot.into(), own.clone());
            }
            self.params.insert(own, array);
        }
        self.taken.insert(node.name.clone());
        self.taken.extend(node.outputs.iter().cloned());
        let outputs = node.outputs.clone();
        self.nodes.push(node);
        outputs
    }

    /// A value that does not depend on the input: `array` without a batch axis.
    pub(super) fn constant(
        &mut self,
        name: &str,
        own: Option<String>,
        array: ArrayD<f32>,
        trained: bool,
    ) -> String {
        let op = Constant { shape: array.shape().to_vec(), trained };
        self.push(name, op.into(), Vec::new(), vec![("value", own, array)]).swap_remove(0)
    }

    fn unique(&self, name: &str) -> String {
        let name = if name.is_empty() { "value" } else { name };
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let mut names = std::iter::once(name.to_owned()).chain(numbered);
        names.find(|name| !self.taken.contains(name)).unwrap_or_default()
    }
}

/// Whether a type of the schema is of floating-point numbers: half, float, double, bfloat16.
fn is_float(dtype: i64) -> bool {
    matches!(dtype, 6 | 7 | 8 | 13)
}
