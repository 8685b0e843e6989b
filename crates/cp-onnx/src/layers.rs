//! Which layers a model has: [`Layer`], one for each weight.
//!
//! A weight, not a node: what is shared is decomposed once, and every node that has it as its kernel is rewritten.

mod geometry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cp_net::{Conv, Linear, Op};
use ndarray::ArrayD;

use crate::Float;
use crate::fold::{Constant, constant};
use crate::limits::MAX_FOLDS;
use crate::proto::{Message, model, node};
use crate::record::Record;
use crate::scopes::{Maker, Reader, Scopes, Value};

pub(crate) use geometry::{Geometry, geometry, is_transposed, op, reads_transposed};

/// The op of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LayerKind {
    /// A convolution over any number of axes.
    Conv,
    /// A transposed convolution, which is listed and left alone.
    ConvTranspose,
    /// A linear layer with scales and transpositions.
    Gemm,
    /// A linear layer without a bias.
    MatMul,
}

impl LayerKind {
    /// The name of the operator.
    pub fn op(self) -> &'static str {
        match self {
            LayerKind::Conv => "Conv",
            LayerKind::ConvTranspose => "ConvTranspose",
            LayerKind::Gemm => "Gemm",
            LayerKind::MatMul => "MatMul",
        }
    }

    fn of(node: &Message) -> Option<Self> {
        use LayerKind::{Conv, ConvTranspose, Gemm, MatMul};
        let op = node.string(node::OP);
        let kind = [Conv, ConvTranspose, Gemm, MatMul].into_iter().find(|kind| kind.op() == op)?;
        model::is_onnx_domain(&node.string(node::DOMAIN)).then_some(kind)
    }
}

/// Why a layer is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The weight comes from outside.
    #[error("its weight '{value}' is an input, or nothing makes it")]
    Input {
        /// The input.
        value: String,
    },
    /// The weight is made by an op that is not looked through.
    #[error(
        "its weight comes from '{value}', which {op} computes; run a constant folder over the model first"
    )]
    Computed {
        /// The value.
        value: String,
        /// What makes it.
        op: String,
    },
    /// Too many ops between weight and initializer.
    #[error("more than {most} nodes lie between its weight and an initializer")]
    Deep {
        /// The limit.
        most: usize,
    },
    /// The stored values cannot be read, or are no floating-point numbers.
    #[error("its weight '{value}': {problem}")]
    Unreadable {
        /// The tensor.
        value: String,
        /// What is wrong.
        problem: String,
    },
    /// An attribute that is unknown, is a parameter of the function around, or does not fit the weight.
    #[error(
        "node '{node}': attribute '{attribute}' is unknown, set by a function's caller, or does not fit the weight"
    )]
    Attribute {
        /// The node.
        node: String,
        /// The attribute.
        attribute: String,
    },
    /// A weight of another shape than the op has.
    #[error("its weight has shape {shape:?}, which is none of a {op}")]
    Shape {
        /// The shape.
        shape: Vec<usize>,
        /// The op.
        op: &'static str,
    },
    /// The constant is the left operand, so that the layer mixes rows, not features.
    #[error("the constant is the left operand of its {op}")]
    LeftOperand {
        /// The op.
        op: &'static str,
    },
    /// Nodes with one weight and different numbers of groups.
    #[error("nodes that share its weight have different numbers of groups")]
    Groups,
    /// An op whose factorized forms are not written.
    #[error("transposed convolutions are not factorized")]
    Transposed,
    /// A part of a layer that was factorized before.
    #[error("it is a part of '{layer}', which is factorized already")]
    Factorized {
        /// The layer that there was.
        layer: String,
    },
}

/// A weight and the nodes that have it as their kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Name of the first node, or of its output where it has none; unique in the model.
    pub name: String,
    /// The graph or function that holds the weight.
    pub scope: String,
    /// Name of the weight there.
    pub weight: String,
    /// Op of the first node.
    pub kind: LayerKind,
    /// Of convolutions `[out, in / groups, k₀, …]`, of linear layers `[out, in]`; empty where the weight is unknown.
    pub shape: Vec<usize>,
    /// Groups of a convolution, 1 for others.
    pub groups: usize,
    /// The type in which the weight is stored, where it is known.
    pub float: Option<Float>,
    /// Every node with this kernel, by its name or its first output.
    pub nodes: Vec<String>,
    /// Why it is not rewritten; `None` for those that can be.
    pub left_alone: Option<Reason>,
    /// What somebody should know who rewrites it.
    pub note: Option<Note>,
}

/// What is worth knowing of a layer that can be rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Note {
    /// The weight is an initializer and an input in a model of IR 4 or later, in which a caller may feed another. Exporters of that
    /// time listed all initializers as inputs, as IR 3 had to, and nobody fed them: it counts as constant. The input goes with it.
    #[error(
        "its weight '{value}' is an input with a default, too; a model in which it is replaced does not have that input"
    )]
    DefaultInput {
        /// The initializer.
        value: String,
    },
}

impl Layer {
    /// The layer as an op of cp-net, without stride, padding and dilation (which its nodes may have each their own): what
    /// `cp_net::replacement` and cp-plan's choice of a solver need to know of it. `None` where the shape is not known.
    pub fn op(&self) -> Option<Op> {
        match (self.kind, &self.shape[..]) {
            (LayerKind::Conv, [out, inputs, kernel @ ..]) => Some(Op::Conv(Conv {
                groups: self.groups,
                ..Conv::new(inputs * self.groups, *out, kernel)
            })),
            (LayerKind::Gemm | LayerKind::MatMul, &[out_features, in_features]) => {
                Some(Op::Linear(Linear { in_features, out_features, bias: true }))
            }
            _ => None,
        }
    }
}

/// The nodes of one weight.
pub(crate) struct Group {
    pub(crate) name: String,
    /// `None` where nothing in sight makes it.
    pub(crate) value: Option<Value>,
    pub(crate) weight: String,
    pub(crate) users: Vec<(Reader, LayerKind)>,
}

impl Group {
    /// The scope that holds the weight, or that of the first node where nothing in sight makes it.
    pub(crate) fn scope(&self) -> usize {
        let first = self.users.first().map_or(0, |(user, _)| user.scope);
        self.value.as_ref().map_or(first, |value| value.0)
    }
}

/// How a node is called in messages: by its name, or by its first output.
pub(crate) fn label(node: &Message) -> String {
    let name = node.string(node::NAME);
    let output = || node.strings(node::OUTPUTS).into_iter().next().unwrap_or_default();
    if name.is_empty() { output() } else { name }
}

/// Every weight that is the kernel of a node, in the order of the nodes.
pub(crate) fn groups(scopes: &Scopes<'_>) -> Vec<Group> {
    let mut found: Vec<Group> = Vec::new();
    let mut by_value = BTreeMap::new();
    let mut names = BTreeSet::new();
    for (scope, around) in scopes.all.iter().enumerate() {
        for (field, node) in around.nodes() {
            let Some(kind) = LayerKind::of(node) else { continue };
            let weight = node.strings(node::INPUTS).into_iter().nth(1).unwrap_or_default();
            let value = scopes.resolve(scope, &weight);
            let user = (Reader { scope, field, slot: 1 }, kind);
            if let Some(value) = &value
                && let Some(&index) = by_value.get(value)
            {
                let group: &mut Group = &mut found[index];
                group.users.push(user);
                continue;
            }
            if let Some(value) = &value {
                by_value.insert(value.clone(), found.len());
            }
            let plain = label(node);
            let mut name = plain.clone();
            let mut count = 2;
            while !names.insert(name.clone()) {
                name = format!("{plain}#{count}");
                count += 1;
            }
            found.push(Group { name, value, weight, users: vec![user] });
        }
    }
    found
}

/// A layer together with its kernel in the convention of [`Layer::shape`].
pub(crate) struct Kernel {
    pub(crate) layer: Layer,
    pub(crate) array: Option<ArrayD<f32>>,
}

/// What `group` is; `None` for products of two values of which neither is constant.
pub(crate) fn kernel(
    scopes: &Scopes<'_>,
    group: &Group,
    record: &Record,
    folder: Option<&Path>,
) -> Option<Kernel> {
    let &(first, kind) = group.users.first()?;
    let scope = group.scope();
    let nodes = group.users.iter().filter_map(|(user, _)| scopes.all[user.scope].node(user.field));
    let mut layer = Layer {
        name: group.name.clone(),
        scope: scopes.all[scope].name.clone(),
        weight: group.weight.clone(),
        kind,
        shape: Vec::new(),
        groups: 1,
        float: None,
        nodes: nodes.map(label).collect(),
        left_alone: None,
        note: None,
    };
    if let Some(default) = group.value.as_ref().and_then(|value| default_input(scopes, value)) {
        layer.note = Some(Note::DefaultInput { value: default });
    }
    let input = || Reason::Input { value: group.weight.clone() };
    let value = group.value.as_ref().ok_or_else(input);
    match value.and_then(|value| constant(scopes, value, folder)) {
        Ok(constant) => Some(known(scopes, group, record, layer, constant)),
        Err(reason) => {
            if kind == LayerKind::MatMul && !is_stored(scopes, group) {
                let node = scopes.all[first.scope].node(first.field)?;
                let left = scopes.resolve(first.scope, node.strings(node::INPUTS).first()?)?;
                constant(scopes, &left, folder).ok()?;
                layer.left_alone = Some(Reason::LeftOperand { op: kind.op() });
            } else {
                layer.left_alone = Some(reason);
            }
            Some(Kernel { layer, array: None })
        }
    }
}

/// The initializer that `value` is made from, where a caller may feed another.
fn default_input(scopes: &Scopes<'_>, value: &Value) -> Option<String> {
    let mut value = value.clone();
    for _ in 0..=MAX_FOLDS {
        let scope = scopes.all.get(value.0)?;
        match scope.maker(&value.1)? {
            Maker::Initializer { .. } => {
                return (scopes.ir >= 4 && scope.is_default(&value.1)).then_some(value.1);
            }
            Maker::Node { field } => {
                let first = scope.node(field)?.strings(node::INPUTS).into_iter().next()?;
                value = scopes.resolve(value.0, &first)?;
            }
            Maker::Input => return None,
        }
    }
    None
}

fn is_stored(scopes: &Scopes<'_>, group: &Group) -> bool {
    group.value.as_ref().is_some_and(|(scope, name)| {
        matches!(scopes.all[*scope].maker(name), Some(Maker::Initializer { .. }))
    })
}

fn known(
    scopes: &Scopes<'_>,
    group: &Group,
    record: &Record,
    mut layer: Layer,
    constant: Constant,
) -> Kernel {
    layer.float = Some(constant.float);
    let mut array = constant.array;
    let mut reasons = Vec::new();
    let mut group_counts = BTreeSet::new();
    for (index, (user, kind)) in group.users.iter().enumerate() {
        let Some(node) = scopes.all[user.scope].node(user.field) else { continue };
        match geometry(node, *kind, array.shape()) {
            Ok(geometry) => {
                group_counts.insert(geometry.groups);
                if index == 0 {
                    layer.groups = geometry.groups;
                }
            }
            Err(reason) => reasons.push(reason),
        }
    }
    let first = group.users[0].0;
    let node = scopes.all[first.scope].node(first.field);
    if matches!(layer.kind, LayerKind::Gemm | LayerKind::MatMul)
        && array.ndim() == 2
        && !node.is_some_and(is_transposed)
    {
        array = array.reversed_axes().as_standard_layout().into_owned();
    }
    layer.shape = array.shape().to_vec();
    let part = record.layers.iter().find(|factorization| {
        factorization.scope == layer.scope && factorization.weights.contains(&layer.weight)
    });
    layer.left_alone = part
        .map(|factorization| Reason::Factorized { layer: factorization.layer.clone() })
        .or_else(|| reasons.into_iter().next())
        .or_else(|| (group_counts.len() > 1).then_some(Reason::Groups));
    Kernel { layer, array: Some(array) }
}
