//! The value of a weight that is not an initializer itself: `Constant`, and `Identity`, `Transpose`, `Reshape`, `Cast` of a constant.

use std::path::Path;

use ndarray::{ArrayD, IxDyn};

use crate::Float;
use crate::error::TensorError;
use crate::layers::Reason;
use crate::limits::MAX_FOLDS;
use crate::proto::{Message, attribute, model, node, tensor};
use crate::scopes::{Maker, Scopes, Value};

/// The ops that are looked through.
pub(crate) const FOLDED: [&str; 5] = ["Constant", "Identity", "Transpose", "Reshape", "Cast"];

/// Values, and the type in which the model has them.
pub(crate) struct Constant {
    pub(crate) array: ArrayD<f32>,
    pub(crate) float: Float,
}

/// What `value` is whenever the model runs.
pub(crate) fn constant(
    scopes: &Scopes<'_>,
    value: &Value,
    folder: Option<&Path>,
) -> Result<Constant, Reason> {
    fold(scopes, value, folder, 0)
}

fn fold(
    scopes: &Scopes<'_>,
    value: &Value,
    folder: Option<&Path>,
    depth: usize,
) -> Result<Constant, Reason> {
    if depth > MAX_FOLDS {
        return Err(Reason::Deep { most: MAX_FOLDS });
    }
    if let Some(tensor) = stored(scopes, value)? {
        return read(tensor, folder).map_err(|source| unreadable(&value.1, source));
    }
    let (node, op) = maker(scopes, value)?;
    let inputs = node.strings(node::INPUTS);
    let input = |slot: usize| {
        let name = inputs.get(slot).map_or("", String::as_str);
        scopes.resolve(value.0, name).ok_or_else(|| computed(&value.1, &op))
    };
    let refuse = || computed(&value.1, &op);
    if !FOLDED.contains(&op.as_str()) || op == "Constant" {
        return Err(refuse());
    }
    let Constant { array, float } = fold(scopes, &input(0)?, folder, depth + 1)?;
    let (array, float) = match op.as_str() {
        "Transpose" => {
            let axes = match node::attribute(node, "perm") {
                Some(perm) => axes(&perm.ints(attribute::INTS), array.ndim()).ok_or_else(refuse)?,
                None => (0..array.ndim()).rev().collect(),
            };
            let turned = array.permuted_axes(IxDyn(&axes));
            (turned.as_standard_layout().into_owned(), float)
        }
        "Reshape" => {
            let wanted = match node::attribute(node, "shape") {
                Some(shape) => shape.ints(attribute::INTS), // before opset 5
                None => match stored(scopes, &input(1)?)? {
                    Some(tensor) => tensor::integers(tensor).map_err(|_| refuse())?,
                    None => return Err(refuse()),
                },
            };
            let zero = node::attribute(node, "allowzero").and_then(|flag| flag.int(attribute::INT));
            let shape = reshaped(&wanted, array.shape(), zero == Some(1)).ok_or_else(refuse)?;
            (array.into_shape_with_order(IxDyn(&shape)).map_err(|_| refuse())?, float)
        }
        "Cast" => {
            let to = node::attribute(node, "to").and_then(|to| to.int(attribute::INT));
            let to = to.and_then(Float::by_number).ok_or_else(refuse)?;
            (array.mapv(|value| to.round(value)), to)
        }
        _ => (array, float),
    };
    Ok(Constant { array, float })
}

fn computed(value: &str, op: &str) -> Reason {
    Reason::Computed { value: value.into(), op: op.into() }
}

fn unreadable(value: &str, source: TensorError) -> Reason {
    Reason::Unreadable { value: value.into(), problem: source.to_string() }
}

fn read(tensor: &Message, folder: Option<&Path>) -> Result<Constant, TensorError> {
    let array = tensor::array(tensor, |place| place.read(folder))?;
    Ok(Constant { array, float: tensor::float(tensor)? })
}

/// The node that makes `value`, and its op; with the domain before it, where that is a foreign one.
fn maker<'a>(scopes: &Scopes<'a>, value: &Value) -> Result<(&'a Message, String), Reason> {
    let scope = scopes.all.get(value.0);
    let found = match scope.and_then(|scope| scope.maker(&value.1)) {
        Some(Maker::Node { field }) => scope.and_then(|scope| scope.node(field)),
        _ => None,
    };
    let node = found.ok_or_else(|| Reason::Input { value: value.1.clone() })?;
    let (domain, op) = (node.string(node::DOMAIN), node.string(node::OP));
    Ok((node, if model::is_onnx_domain(&domain) { op } else { format!("{domain}.{op}") }))
}

/// The tensor of an initializer or a `Constant`.
fn stored<'a>(scopes: &Scopes<'a>, value: &Value) -> Result<Option<&'a Message>, Reason> {
    if let Some(scope) = scopes.all.get(value.0)
        && let Some(Maker::Initializer { field }) = scope.maker(&value.1)
    {
        return Ok(scope.node(field));
    }
    let (node, op) = maker(scopes, value)?;
    if op != "Constant" {
        return Ok(None);
    }
    let held = node::attribute(node, "value")
        .and_then(|value| value.children(attribute::TENSOR).last().map(|(_, tensor)| tensor));
    held.map(Some).ok_or_else(|| computed(&value.1, &op))
}

/// `perm` as axes, if it names each once.
fn axes(perm: &[i64], count: usize) -> Option<Vec<usize>> {
    let axes: Vec<usize> =
        perm.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<_>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..count).then_some(axes)
}

/// The shape that `Reshape` makes: 0 is the size before (unless `allowzero`), −1 what is left.
fn reshaped(wanted: &[i64], before: &[usize], allow_zero: bool) -> Option<Vec<usize>> {
    let total = before.iter().product::<usize>();
    let sizes = wanted.iter().enumerate().map(|(axis, &size)| match size {
        -1 => Some(None),
        0 if !allow_zero => before.get(axis).copied().map(Some),
        size => usize::try_from(size).ok().map(Some),
    });
    let sizes: Vec<Option<usize>> = sizes.collect::<Option<_>>()?;
    let known = sizes.iter().flatten().try_fold(1_usize, |all, &size| all.checked_mul(size))?;
    let free = if sizes.contains(&None) { total.checked_div(known)? } else { 0 };
    let shape: Vec<usize> = sizes.into_iter().map(|size| size.unwrap_or(free)).collect();
    let count = shape.iter().try_fold(1_usize, |all, &size| all.checked_mul(size))?;
    (count == total).then_some(shape)
}
