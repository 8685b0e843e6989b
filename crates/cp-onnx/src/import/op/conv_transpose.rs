//! Transposed convolution.

use cp_net::{ConvTranspose, Padding};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::op::conv::{groups, kernel, sizes};
use crate::import::value::Value;

/// The output's size is given (`output_shape`), or by `auto_pad` size · stride, or comes from the padding. Where it is given, what is
/// cut off follows from it, the larger half in front unless `SAME_UPPER`; where there is less than that, the rest is added behind.
///
/// Source: <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>.
pub(super) fn conv_transpose(call: &mut Call<'_, '_>) -> Outcome {
    let x = call.layer_input()?;
    let weight = call.constant(1, "weight")?;
    let shape = weight.floats("weight")?.shape().to_vec();
    let kernel = kernel(call, &shape)?;
    let (axes, groups) = (kernel.len(), groups(call)?);
    if x.shape.len() != axes + 1 {
        let (shape, expected) = (x.shape.clone(), format!("channels and {axes} spatial axes"));
        return Err(Refusal::Shape { input: 0, shape, expected });
    }
    let stride = sizes(call, "strides", axes, 1, 1)?;
    let dilation = sizes(call, "dilations", axes, 1, 1)?;
    let mut output_padding = sizes(call, "output_padding", axes, 0, 0)?;
    let pads = sizes(call, "pads", 2 * axes, 0, 0)?;
    let auto = call.attributes.string("auto_pad", "NOTSET");
    let given = call.attributes.ints("output_shape").filter(|sizes| !sizes.is_empty());
    let given = given.map(|_| sizes(call, "output_shape", axes, 1, 1)).transpose()?;
    let wanted: Option<Vec<usize>> = match (auto.as_str(), given) {
        (_, Some(given)) => Some(given),
        ("SAME_UPPER" | "SAME_LOWER", None) => {
            Some((0..axes).map(|axis| x.shape[axis + 1].saturating_mul(stride[axis])).collect())
        }
        ("" | "NOTSET" | "VALID", None) => None,
        _ => return Refusal::setting("auto_pad", auto, "NOTSET, VALID, SAME_UPPER or SAME_LOWER"),
    };
    let mut padding: Vec<[usize; 2]> = match auto.as_str() {
        "VALID" => vec![[0; 2]; axes],
        _ => (0..axes).map(|axis| [pads[axis], pads[axes + axis]]).collect(),
    };
    for (axis, &size) in wanted.iter().flatten().enumerate() {
        let reach = dilation[axis].saturating_mul(kernel[axis] - 1).saturating_add(1);
        let moved = (x.shape[axis + 1] - 1).saturating_mul(stride[axis]);
        let whole = moved.saturating_add(reach).saturating_add(output_padding[axis]);
        let cut = whole.saturating_sub(size);
        let (less, more) = (cut / 2, cut.div_ceil(2));
        padding[axis] = if auto == "SAME_UPPER" { [less, more] } else { [more, less] };
        output_padding[axis] += size.saturating_sub(whole);
    }
    let bias = call.known(2, "bias")?;
    let conv = ConvTranspose {
        in_channels: shape[0],
        out_channels: shape[1].saturating_mul(groups),
        kernel,
        stride,
        padding: Padding::Each(padding),
        output_padding,
        dilation,
        groups,
        bias: bias.is_some(),
    };
    let mut params = vec![("weight", weight)];
    params.extend(bias.map(|bias| ("bias", bias)));
    let map = call.last(conv, &[&x], params, 0)?;
    call.kernel = call.net.nodes.last().map(|node| node.param("weight"));
    Ok(vec![Value::Map(map)])
}
