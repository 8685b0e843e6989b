//! What a node does with its kernel: its settings, checked, and as an op of cp-net.

use cp_net::{Conv, ConvTranspose, Linear, Op, Padding};

use crate::layers::{LayerKind, Reason, label};
use crate::proto::{Message, attribute, node};

/// Whether a linear node has its weight as `[out, in]`.
pub(crate) fn is_transposed(node: &Message) -> bool {
    is_set(node, "transB")
}

/// Whether the features of what a linear layer reads lie along its first axis.
pub(crate) fn reads_transposed(node: &Message) -> bool {
    is_set(node, "transA")
}

fn is_set(node: &Message, flag: &str) -> bool {
    node::attribute(node, flag).and_then(|flag| flag.int(attribute::INT)).unwrap_or(0) != 0
}

/// What a node does with its kernel beside multiplying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) groups: usize,
    pub(crate) strides: Vec<i64>,
    pub(crate) dilations: Vec<i64>,
    /// All begins, then all ends.
    pub(crate) pads: Vec<i64>,
    /// Other than `NOTSET`, in the place of `pads`.
    pub(crate) auto_pad: Option<String>,
}

/// Reads and checks the attributes of `node`, whose weight is stored in `shape`.
pub(crate) fn geometry(
    node: &Message,
    kind: LayerKind,
    shape: &[usize],
) -> Result<Geometry, Reason> {
    let known: &[&str] = match kind {
        LayerKind::Conv => &["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"],
        LayerKind::ConvTranspose => return Err(Reason::Transposed),
        LayerKind::Gemm => &["alpha", "beta", "transA", "transB", "broadcast"],
        LayerKind::MatMul => &[],
    };
    let wrong = |name: &str| Reason::Attribute { node: label(node), attribute: name.into() };
    for (_, found) in node.children(node::ATTRIBUTES) {
        let name = found.string(attribute::NAME);
        if !known.contains(&name.as_str()) || found.has(attribute::REFERENCE) {
            return Err(wrong(&name));
        }
    }
    let bad_shape = || Reason::Shape { shape: shape.to_vec(), op: kind.op() };
    let linear = kind != LayerKind::Conv;
    if shape.contains(&0) || if linear { shape.len() != 2 } else { shape.len() < 3 } {
        return Err(bad_shape());
    }
    let axes = if linear { 0 } else { shape.len() - 2 };
    let ints = |name: &str, count: usize, default: i64, least: i64| {
        let values = node::attribute(node, name).map(|found| found.ints(attribute::INTS));
        // An empty list is what some exporters write for the default.
        let values = values.filter(|values| !values.is_empty());
        let values = values.unwrap_or_else(|| vec![default; count]);
        let fits = values.len() == count && values.iter().all(|&value| value >= least);
        if fits { Ok(values) } else { Err(wrong(name)) }
    };
    let group = node::attribute(node, "group").and_then(|group| group.int(attribute::INT));
    let groups = usize::try_from(group.unwrap_or(1)).ok().filter(|&groups| groups > 0);
    let groups = groups.ok_or_else(|| wrong("group"))?;
    if !shape[0].is_multiple_of(groups) || shape[1].checked_mul(groups).is_none() {
        return Err(wrong("group"));
    }
    if !linear && node::attribute(node, "kernel_shape").is_some() {
        let kernel = ints("kernel_shape", axes, 1, 1)?;
        if !kernel.iter().zip(&shape[2..]).all(|(&size, &taps)| usize::try_from(size) == Ok(taps)) {
            return Err(wrong("kernel_shape"));
        }
    }
    let auto_pad = node::attribute(node, "auto_pad").map(|found| found.string(attribute::STRING));
    Ok(Geometry {
        groups,
        strides: ints("strides", axes, 1, 1)?,
        dilations: ints("dilations", axes, 1, 1)?,
        // Negative pads, which cut off, are no business of ours: they go onto the spatial part as they are.
        pads: ints("pads", 2 * axes, 0, i64::MIN)?,
        auto_pad: auto_pad.filter(|auto_pad| !matches!(auto_pad.as_str(), "" | "NOTSET")),
    })
}

/// The op of cp-net that `node` is, one of a layer of shape `shape`; `turned` where it has a linear weight the other way round than
/// the layer's first node.
pub(crate) fn op(node: &Message, kind: LayerKind, shape: &[usize], turned: bool) -> Option<Op> {
    let bias = node.strings(node::INPUTS).get(2).is_some_and(|bias| !bias.is_empty());
    let op = match kind {
        LayerKind::Conv => conv(&geometry(node, kind, shape).ok()?, shape, bias)?,
        LayerKind::ConvTranspose => conv_transpose(node, shape, bias)?,
        LayerKind::Gemm | LayerKind::MatMul => {
            geometry(node, kind, shape).ok()?;
            let &[out, inputs] = shape else { return None };
            // The shape is as the first node sees it.
            let (out_features, in_features) = if turned { (inputs, out) } else { (out, inputs) };
            Op::Linear(Linear { in_features, out_features, bias })
        }
    };
    op.check().ok().map(|()| op)
}

/// Numbers that are not negative.
fn sizes(values: &[i64]) -> Option<Vec<usize>> {
    values.iter().map(|&value| usize::try_from(value).ok()).collect()
}

/// All begins, then all ends, as a pair for each axis.
fn pairs(pads: &[i64]) -> Option<Padding> {
    let pads = sizes(pads)?;
    let (before, behind) = pads.split_at(pads.len() / 2);
    Some(Padding::Each(before.iter().zip(behind).map(|(&a, &b)| [a, b]).collect()))
}

fn conv(settings: &Geometry, shape: &[usize], bias: bool) -> Option<Op> {
    let [out_channels, inputs, ref taps @ ..] = *shape else { return None };
    let padding = match settings.auto_pad.as_deref() {
        Some("SAME_UPPER") => Padding::Same,
        Some("SAME_LOWER") => Padding::SameLower,
        Some("VALID") => Padding::none(taps.len()),
        Some(_) => return None,
        None => pairs(&settings.pads)?,
    };
    Some(Op::Conv(Conv {
        in_channels: inputs * settings.groups,
        out_channels,
        kernel: taps.to_vec(),
        stride: sizes(&settings.strides)?,
        padding,
        dilation: sizes(&settings.dilations)?,
        groups: settings.groups,
        bias,
    }))
}

/// Where the padding is written out; `auto_pad` and `output_shape` make it depend on the input's size.
fn conv_transpose(node: &Message, shape: &[usize], bias: bool) -> Option<Op> {
    let [in_channels, outputs, ref taps @ ..] = *shape else { return None };
    let mut groups = 1;
    let mut settings =
        [("strides", 1, 1), ("dilations", 1, 1), ("output_padding", 1, 0), ("pads", 2, 0)]
            .map(|(name, times, default)| (name, vec![default; times * taps.len()]));
    for (_, found) in node.children(node::ATTRIBUTES) {
        let name = found.string(attribute::NAME);
        let values = found.ints(attribute::INTS);
        match name.as_str() {
            _ if found.has(attribute::REFERENCE) => return None,
            "kernel_shape" => {}
            "group" => groups = usize::try_from(found.int(attribute::INT)?).ok()?,
            "auto_pad" if matches!(found.string(attribute::STRING).as_str(), "" | "NOTSET") => {}
            _ => {
                let (_, known) = settings.iter_mut().find(|(known, _)| *known == name)?;
                if values.len() != known.len() {
                    return None;
                }
                *known = values;
            }
        }
    }
    let [(_, stride), (_, dilation), (_, added), (_, pads)] = &settings;
    Some(Op::ConvTranspose(ConvTranspose {
        in_channels,
        out_channels: outputs.checked_mul(groups)?,
        kernel: taps.to_vec(),
        stride: sizes(stride)?,
        padding: pairs(pads)?,
        output_padding: sizes(added)?,
        dilation: sizes(dilation)?,
        groups,
        bias,
    }))
}
