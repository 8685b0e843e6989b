//! Convolution.

use cp_net::{Conv, Padding};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::value::Value;

/// Sizes of at least `least`, one for each of `axes`; `default` where they are left out or empty, as some exporters write it.
pub(super) fn sizes(
    call: &Call<'_, '_>,
    name: &str,
    axes: usize,
    default: usize,
    least: usize,
) -> Result<Vec<usize>, Refusal> {
    let Some(given) = call.attributes.ints(name).filter(|given| !given.is_empty()) else {
        return Ok(vec![default; axes]);
    };
    let sizes: Option<Vec<usize>> = given
        .iter()
        .map(|&size| usize::try_from(size).ok().filter(|&size| size >= least))
        .collect();
    match sizes {
        Some(sizes) if sizes.len() == axes => Ok(sizes),
        _ => Refusal::setting(name, given, format!("{axes} numbers of at least {least}")),
    }
}

/// What `auto_pad` and `pads` say, for `axes` axes.
pub(super) fn padding(call: &Call<'_, '_>, axes: usize) -> Result<Padding, Refusal> {
    let auto = call.attributes.string("auto_pad", "NOTSET");
    let pads = sizes(call, "pads", 2 * axes, 0, 0)?;
    match auto.as_str() {
        "" | "NOTSET" => {
            Ok(Padding::Each((0..axes).map(|axis| [pads[axis], pads[axes + axis]]).collect()))
        }
        "VALID" => Ok(Padding::none(axes)),
        "SAME_UPPER" => Ok(Padding::Same),
        "SAME_LOWER" => Ok(Padding::SameLower),
        _ => Refusal::setting("auto_pad", auto, "NOTSET, VALID, SAME_UPPER or SAME_LOWER"),
    }
}

/// The weight's `shape` without its first two axes, as `kernel_shape` has to have it, too.
pub(super) fn kernel(call: &Call<'_, '_>, shape: &[usize]) -> Result<Vec<usize>, Refusal> {
    let Some(kernel) = shape.get(2..).filter(|kernel| !kernel.is_empty()) else {
        return Refusal::setting("weight", shape, "[out, in, k₀, …]");
    };
    let given = sizes(call, "kernel_shape", kernel.len(), 1, 1)?;
    if call.attributes.ints("kernel_shape").is_some_and(|given| !given.is_empty())
        && given != kernel
    {
        return Refusal::setting(
            "kernel_shape",
            given,
            format!("{kernel:?}, as the weight has it"),
        );
    }
    Ok(kernel.to_vec())
}

/// The number of groups.
pub(super) fn groups(call: &Call<'_, '_>) -> Result<usize, Refusal> {
    let group = call.attributes.int("group", 1);
    match usize::try_from(group) {
        Ok(groups) if groups > 0 => Ok(groups),
        _ => Refusal::setting("group", group, "at least 1"),
    }
}

pub(super) fn conv(call: &mut Call<'_, '_>) -> Outcome {
    let x = call.layer_input()?;
    let weight = call.constant(1, "weight")?;
    let shape = weight.floats("weight")?.shape().to_vec();
    let kernel = kernel(call, &shape)?;
    let (axes, groups) = (kernel.len(), groups(call)?);
    let bias = call.known(2, "bias")?;
    let conv = Conv {
        in_channels: shape[1].saturating_mul(groups),
        out_channels: shape[0],
        stride: sizes(call, "strides", axes, 1, 1)?,
        padding: padding(call, axes)?,
        dilation: sizes(call, "dilations", axes, 1, 1)?,
        kernel,
        groups,
        bias: bias.is_some(),
    };
    let mut params = vec![("weight", weight)];
    params.extend(bias.map(|bias| ("bias", bias)));
    let map = call.last(conv, &[&x], params, 0)?;
    call.kernel = call.net.nodes.last().map(|node| node.param("weight"));
    Ok(vec![Value::Map(map)])
}
