//! Factors in the place of a weight: new nodes for every node that had it, and the weight goes when nothing reads it any more.
//!
//! Where the new weights lie: beside the old one, as initializers. A function has none and gets `Constant` nodes, and so does a graph
//! inside of an IR 3 model, where each initializer would have to be an input. Where the initializers of a graph are all listed as
//! inputs (IR 3 has to, some exporters did so later), the new ones are, too.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};

use ndarray::{ArrayD, Ix2};

use crate::error::OnnxError;
use crate::fold::FOLDED;
use crate::layers::{Geometry, Kernel, LayerKind, geometry, is_transposed};
use crate::parts::{Part, Parts, Step};
use crate::proto::{Field, Message, Payload, attribute, graph, model, node, tensor};
use crate::scopes::{Maker, Reader, Scope, Scopes, Value};
use crate::{Float, layers};

/// Changes to fields, by their places from the model down.
#[derive(Default)]
struct Edits {
    /// What comes before a field.
    before: BTreeMap<Vec<usize>, Vec<Field>>,
    /// What stands for a field.
    instead: BTreeMap<Vec<usize>, Vec<Field>>,
    /// What comes behind all fields of a message.
    behind: BTreeMap<Vec<usize>, Vec<Field>>,
}

impl Edits {
    fn apply(mut self, root: &mut Message) {
        self.walk(root, &mut Vec::new());
    }

    fn walk(&mut self, message: &mut Message, path: &mut Vec<usize>) {
        let mut fields = Vec::with_capacity(message.fields.len());
        for (index, mut field) in std::mem::take(&mut message.fields).into_iter().enumerate() {
            path.push(index);
            fields.extend(self.before.remove(path).unwrap_or_default());
            match self.instead.remove(path) {
                Some(others) => fields.extend(others),
                None => {
                    if let Payload::Message(child, _) = &mut field.payload {
                        self.walk(child, path);
                    }
                    fields.push(field);
                }
            }
            path.pop();
        }
        fields.extend(self.behind.remove(path).unwrap_or_default());
        message.fields = fields;
    }
}

/// Names that nothing in the model has yet.
struct Names(HashSet<String>);

impl Names {
    fn fresh(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut count = 2;
        while !self.0.insert(name.clone()) {
            name = format!("{wanted}_{count}");
            count += 1;
        }
        name
    }
}

/// What an initializer holds.
enum Stored {
    Floats(ArrayD<f32>),
    /// Positions and axes.
    Integers(Vec<i64>),
}

impl Stored {
    fn tensor(&self, name: &str, float: Float) -> Message {
        match self {
            Stored::Floats(array) => tensor::make(name, array, float),
            Stored::Integers(values) => tensor::make_integers(name, values),
        }
    }

    /// As an input, in models that list their initializers there.
    fn input(&self, name: &str, float: Float) -> Field {
        match self {
            Stored::Floats(array) => graph::input(name, float.number(), array.shape()),
            Stored::Integers(values) => graph::input(name, tensor::INT64, &[values.len()]),
        }
    }
}

/// The new weights, and the positions and axes of what lies between them.
struct Weights {
    fields: Vec<(String, Stored)>,
    /// By part, and whether it is the transpose.
    by_part: HashMap<(usize, bool), String>,
}

impl Weights {
    fn name(
        &mut self,
        names: &mut Names,
        base: &str,
        index: usize,
        turned: bool,
        stored: impl FnOnce() -> Stored,
    ) -> String {
        let fields = &mut self.fields;
        let name = self.by_part.entry((index, turned)).or_insert_with(|| {
            let name = names.fresh(base);
            fields.push((name.clone(), stored()));
            name
        });
        name.clone()
    }
}

/// Replacements that are collected, then made at once.
pub(crate) struct Splicing<'a> {
    scopes: &'a Scopes<'a>,
    names: Names,
    edits: Edits,
    /// Weights that may be read no more: their scopes and names.
    old: Vec<(String, String)>,
}

/// A [`Splicing`] that looks at the model no more.
pub(crate) struct Spliced {
    edits: Edits,
    old: Vec<(String, String)>,
}

impl<'a> Splicing<'a> {
    pub(crate) fn new(scopes: &'a Scopes<'a>) -> Self {
        let names = Names(scopes.names());
        Self { scopes, names, edits: Edits::default(), old: Vec::new() }
    }

    /// Replaces the weight of `group`; the names of the new weights.
    pub(crate) fn replace(
        &mut self,
        group: &layers::Group,
        kernel: &Kernel,
        parts: &Parts,
    ) -> Result<Vec<String>, OnnxError> {
        let layer = &kernel.layer;
        let (Some(float), Some(value)) = (layer.float, &group.value) else { return Ok(Vec::new()) };
        let Self { scopes, names, edits, old } = self;
        let mut weights = Weights { fields: Vec::new(), by_part: HashMap::new() };
        let node = |reader: &Reader| scopes.all[reader.scope].node(reader.field);
        let first = group.users.first().and_then(|(user, _)| node(user));
        let first_transposed = first.is_some_and(is_transposed);
        for &(user, kind) in &group.users {
            let around = &scopes.all[user.scope];
            let Some(node) = around.node(user.field) else { continue };
            let left_alone = |reason| OnnxError::LeftAlone { layer: layer.name.clone(), reason };
            let nodes = if kind == LayerKind::Conv {
                let geometry = geometry(node, kind, &layer.shape).map_err(left_alone)?;
                convolutions(node, &geometry, around.opset, parts, layer, names, &mut weights)
            } else {
                // The kernel is [out, in] as the first node sees it; one that has it the other way round runs the parts backwards.
                let backwards = is_transposed(node) != first_transposed;
                linear(node, kind, around.opset, parts, layer, backwards, names, &mut weights)
            };
            let number = if around.function { model::function::NODES } else { graph::NODES };
            let place = [&around.path[..], &[user.field]].concat();
            let fields = nodes.into_iter().map(|node| Field::message(number, node)).collect();
            edits.instead.insert(place, fields);
        }
        for (name, stored) in &weights.fields {
            let Stored::Floats(array) = stored else { continue };
            let count = array.iter().filter(|&&value| !float.round(value).is_finite()).count();
            if count > 0 {
                let (layer, part) = (layer.name.clone(), name.clone());
                return Err(OnnxError::NotFinite { layer, part, count, float });
            }
        }
        store(&scopes.all[value.0], scopes.ir, &weights, float, edits);
        old.push((scopes.all[value.0].name.clone(), value.1.clone()));
        let is_weight = |(_, stored): &(String, Stored)| matches!(stored, Stored::Floats(_));
        Ok(weights.fields.into_iter().filter(is_weight).map(|(name, _)| name).collect())
    }

    pub(crate) fn finish(self) -> Spliced {
        Spliced { edits: self.edits, old: self.old }
    }
}

impl Spliced {
    /// Makes the replacements; weights that nothing reads any more go.
    pub(crate) fn apply(self, root: &mut Message) {
        self.edits.apply(root);
        // A training graph reads weights by rules of its own.
        if !root.has(model::TRAINING) {
            unread(root, &self.old).apply(root);
        }
    }
}

fn store(scope: &Scope<'_>, ir: i64, weights: &Weights, float: Float, edits: &mut Edits) {
    let inside = scope.parent.is_some();
    if scope.function || (ir < 4 && inside) {
        let number = if scope.function { model::function::NODES } else { graph::NODES };
        let Some((first, _)) = scope.nodes().next() else { return };
        let nodes = weights.fields.iter().map(|(name, stored)| {
            let value = attribute::tensor("value", stored.tensor("", float));
            Field::message(number, node::make("Constant", name, &[], name, vec![value]))
        });
        edits.before.entry([&scope.path[..], &[first]].concat()).or_default().extend(nodes);
        return;
    }
    let listed = !inside && (ir < 4 || scope.lists_initializers());
    let behind = edits.behind.entry(scope.path.clone()).or_default();
    for (name, stored) in &weights.fields {
        behind.push(Field::message(graph::INITIALIZERS, stored.tensor(name, float)));
        if listed {
            behind.push(stored.input(name, float));
        }
    }
}

fn convolutions(
    node: &Message,
    geometry: &Geometry,
    opset: i64,
    parts: &Parts,
    layer: &layers::Layer,
    names: &mut Names,
    weights: &mut Weights,
) -> Vec<Message> {
    let base = layers::label(node);
    let inputs = node.strings(node::INPUTS);
    let mut value = inputs.first().cloned().unwrap_or_default();
    let biased = parts.steps.iter().rposition(|step| step.kernel().is_some());
    let mut nodes = Vec::new();
    for (index, step) in parts.steps.iter().enumerate() {
        let named = |slot: &str| format!("{}.{}.{slot}", layer.name, step.suffix());
        let own = format!("{base}.{}", step.suffix());
        let output = output(node, index + 1 == parts.steps.len(), &own, names);
        let mut reads = vec![value];
        let (op, attributes) = match step {
            Step::Kernel(part) => {
                let kernel = || Stored::Floats(part.kernel.clone());
                reads.push(weights.name(names, &named("weight"), index, false, kernel));
                let bias = inputs.get(2).filter(|bias| biased == Some(index) && !bias.is_empty());
                let order = parts.bias_order().filter(|_| bias.is_some());
                if let (Some(bias), Some(order)) = (bias, order) {
                    // Each number to the channel that it is added to.
                    let own = names.fresh(&format!("{own}.bias"));
                    let index = parts.steps.len();
                    let order = integers(weights, names, &named("bias_order"), index, &order);
                    let axis = vec![attribute::int("axis", 0)];
                    nodes.push(node::make("Gather", &own, &[bias, &order], &own, axis));
                    reads.push(own);
                } else {
                    reads.extend(bias.cloned());
                }
                ("Conv", conv_attributes(part, geometry))
            }
            Step::Gather { indices, .. } => {
                reads.push(integers(weights, names, &named("indices"), index, indices));
                ("Gather", vec![attribute::int("axis", 1)])
            }
            Step::Unsqueeze { .. } | Step::Squeeze { .. } => {
                // Behind the examples, and there behind the channels.
                let (op, axis) = match step {
                    Step::Unsqueeze { .. } => ("Unsqueeze", 1_u8),
                    _ => ("Squeeze", 2),
                };
                if opset < 13 {
                    (op, vec![attribute::ints("axes", &[axis.into()])])
                } else {
                    reads.push(integers(weights, names, &named("axes"), index, &[axis.into()]));
                    (op, Vec::new())
                }
            }
        };
        let name = names.fresh(&own);
        let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
        nodes.push(node::make(op, &name, &reads, &output, attributes));
        value = output;
    }
    nodes
}

/// The name of a tensor of positions.
fn integers(
    weights: &mut Weights,
    names: &mut Names,
    base: &str,
    index: usize,
    values: &[usize],
) -> String {
    let values = values.iter().map(|&value| i64::try_from(value).unwrap_or(0));
    weights.name(names, base, index, false, || Stored::Integers(values.collect()))
}

/// Those of a part of a convolution: it moves along its own axes as the layer did, and along no other.
fn conv_attributes(part: &Part, geometry: &Geometry) -> Vec<Message> {
    let Part { kernel, groups, axes: own, .. } = part;
    let axes = geometry.strides.len();
    let extra = (kernel.ndim() - 2).saturating_sub(axes);
    // `values` has one for each axis of the layer, once or (begins, then ends) twice.
    let only = |values: &[i64], other: i64| -> Vec<i64> {
        let pick = |(axis, value)| if own.contains(&axis) { value } else { other };
        let side = |values: &[i64]| -> Vec<i64> {
            let front = std::iter::repeat_n(other, extra);
            front.chain(values.iter().copied().enumerate().map(pick)).collect()
        };
        values.chunks(axes).flat_map(side).collect()
    };
    let taps: Vec<i64> =
        kernel.shape()[2..].iter().map(|&size| i64::try_from(size).unwrap_or(1)).collect();
    // Along an axis with one tap and stride 1, every `auto_pad` pads nothing.
    let pads = match &geometry.auto_pad {
        Some(auto_pad) if !own.is_empty() => attribute::string("auto_pad", auto_pad),
        Some(_) => attribute::ints("pads", &vec![0; 2 * taps.len()]),
        None => attribute::ints("pads", &only(&geometry.pads, 0)),
    };
    vec![
        attribute::ints("dilations", &only(&geometry.dilations, 1)),
        attribute::int("group", i64::try_from(*groups).unwrap_or(1)),
        attribute::ints("kernel_shape", &taps),
        attribute::ints("strides", &only(&geometry.strides, 1)),
        pads,
    ]
}

/// The old output for the last part, so that no reader is told; a new name for the others.
fn output(node: &Message, last: bool, base: &str, names: &mut Names) -> String {
    match node.strings(node::OUTPUTS).into_iter().next() {
        Some(output) if last => output,
        _ => names.fresh(&format!("{base}.output")),
    }
}

#[expect(clippy::too_many_arguments, reason = "what a node is made of")]
fn linear(
    node: &Message,
    kind: LayerKind,
    opset: i64,
    parts: &Parts,
    layer: &layers::Layer,
    backwards: bool,
    names: &mut Names,
    weights: &mut Weights,
) -> Vec<Message> {
    let base = layers::label(node);
    let inputs = node.strings(node::INPUTS);
    let mut value = inputs.first().cloned().unwrap_or_default();
    // A linear layer has no other steps.
    let kernels: Vec<&Part> = parts.steps.iter().filter_map(Step::kernel).collect();
    let count = kernels.len();
    let mut nodes = Vec::new();
    for step in 0..count {
        let index = if backwards { count - 1 - step } else { step };
        let Part { suffix, kernel, .. } = kernels[index];
        let weight = format!("{}.{suffix}.weight", layer.name);
        // What a product from the right needs: [in, out] of this step.
        let weight = weights.name(names, &weight, index, backwards, || {
            let matrix = kernel.view().into_dimensionality::<Ix2>();
            Stored::Floats(match matrix {
                Ok(matrix) if !backwards => matrix.t().as_standard_layout().into_owned().into_dyn(),
                _ => kernel.clone(),
            })
        });
        let (first, last) = (step == 0, step + 1 == count);
        let output = output(node, last, &format!("{base}.{suffix}"), names);
        let name = names.fresh(&format!("{base}.{suffix}"));
        let mut reads = vec![value.clone(), weight];
        let mut attributes = Vec::new();
        if kind == LayerKind::Gemm {
            let old = |name: &str| node::attribute(node, name).cloned();
            if first {
                attributes.extend(old("alpha").into_iter().chain(old("transA")));
            }
            match inputs.get(2).filter(|bias| !bias.is_empty()) {
                Some(bias) if last => {
                    reads.push(bias.clone());
                    attributes.extend(old("beta").into_iter().chain(old("broadcast")));
                }
                _ if opset < 11 => {
                    // C was no option then.
                    let columns = if backwards { kernel.shape()[1] } else { kernel.shape()[0] };
                    let zeros = || Stored::Floats(ArrayD::zeros(vec![columns]));
                    let bias = format!("{}.{suffix}.bias", layer.name);
                    reads.push(weights.name(names, &bias, count + index, backwards, zeros));
                    if opset < 7 {
                        attributes.push(attribute::int("broadcast", 1));
                    }
                }
                _ => {}
            }
        }
        let reads: Vec<&str> = reads.iter().map(String::as_str).collect();
        nodes.push(node::make(kind.op(), &name, &reads, &output, attributes));
        value = output;
    }
    nodes
}

/// What takes the values `old` away where nothing reads them, and then what they were made from.
fn unread(root: &Message, old: &[(String, String)]) -> Edits {
    let scopes = Scopes::of(root);
    let mut edits = Edits::default();
    let found = |(scope, name): &(String, String)| Some((scopes.by_name(scope)?, name.clone()));
    let mut candidates: Vec<Value> = old.iter().filter_map(found).collect();
    let mut gone: HashSet<(usize, usize)> = HashSet::new();
    while let Some(value) = candidates.pop() {
        let (index, name) = &value;
        let around = &scopes.all[*index];
        let left = |reader: &Reader| !gone.contains(&(reader.scope, reader.field));
        if scopes.is_output(&value) || scopes.readers(&value).iter().any(left) {
            continue;
        }
        let field = match around.maker(name) {
            Some(Maker::Initializer { field }) => field,
            Some(Maker::Node { field }) => {
                let Some(node) = around.node(field) else { continue };
                let outputs = node.strings(node::OUTPUTS);
                let foldable = FOLDED.contains(&node.string(node::OP).as_str())
                    && model::is_onnx_domain(&node.string(node::DOMAIN));
                if !foldable || outputs.len() != 1 {
                    continue;
                }
                let inputs = node.strings(node::INPUTS);
                candidates.extend(inputs.iter().filter_map(|input| scopes.resolve(*index, input)));
                field
            }
            _ => continue,
        };
        if !gone.insert((*index, field)) {
            continue;
        }
        let mut go = |field: usize| {
            edits.instead.insert([&around.path[..], &[field]].concat(), Vec::new());
        };
        go(field);
        if !around.function {
            for number in [graph::INPUTS, graph::VALUE_INFO, graph::QUANTIZATION] {
                for (field, message) in around.message.children(number) {
                    if message.string(1) == *name {
                        go(field);
                    }
                }
            }
        }
    }
    edits
}
