//! Convolutions, straight and transposed.

use cp_net::{Conv, ConvTranspose, Padding};

use crate::program::call::{Call, Fail, Tensor, Weight, because};

/// Settings that all of them have.
struct Settings {
    input: Tensor,
    weight: Weight,
    bias: Option<Weight>,
    stride: Vec<usize>,
    dilation: Vec<usize>,
    groups: usize,
}

fn settings(call: &mut Call<'_, '_>) -> Result<Settings, Fail> {
    let input = call.tensor("input")?;
    let Some(weight) = call.weight("weight")? else { return because("it has no weight") };
    let axes = weight.array.ndim().saturating_sub(2);
    if axes == 0 || input.shape.len() != axes + 2 {
        return because(format!("its input has {} axes: it needs a batch axis", input.shape.len()));
    }
    let ones = vec![1; axes];
    let groups = call.int("groups")?.unwrap_or(1);
    let Ok(groups) = usize::try_from(groups) else { return because("its groups are negative") };
    Ok(Settings {
        input,
        weight,
        bias: call.weight("bias")?,
        stride: call.per_axis("stride", axes, &ones)?,
        dilation: call.per_axis("dilation", axes, &ones)?,
        groups,
    })
}

/// `conv2d(input, weight, bias, stride, padding, dilation, groups)`; of the overload `padding`, that is a word.
pub(super) fn conv(call: &mut Call<'_, '_>, name: &str, overload: &str) -> Result<(), Fail> {
    let settings = settings(call)?;
    let axes = settings.stride.len();
    if !name.ends_with(&format!("{axes}d")) {
        return because(format!("its weight has {axes} spatial axes"));
    }
    let padding = if overload == "padding" {
        match call.text("padding")? {
            None | Some("valid") => Padding::none(axes),
            // What is odd goes behind.
            Some("same") => Padding::Each(
                (0..axes)
                    .map(|axis| {
                        let kernel = settings.weight.array.shape()[axis + 2];
                        let all = settings.dilation[axis] * kernel.saturating_sub(1);
                        [all / 2, all - all / 2]
                    })
                    .collect(),
            ),
            Some(other) => return because(format!("its padding '{other}' is not known")),
        }
    } else {
        Padding::symmetric(call.per_axis("padding", axes, &vec![0; axes])?)
    };
    emit(call, settings, padding)
}

/// `convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding, groups)`.
pub(super) fn convolution(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let settings = settings(call)?;
    let axes = settings.stride.len();
    let none = vec![0; axes];
    let padding = Padding::symmetric(call.per_axis("padding", axes, &none)?);
    let output_padding = call.per_axis("output_padding", axes, &none)?;
    if call.flag("transposed")? {
        emit_transposed(call, settings, padding, output_padding)
    } else {
        emit(call, settings, padding)
    }
}

/// `conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)`.
pub(super) fn transposed(call: &mut Call<'_, '_>, name: &str) -> Result<(), Fail> {
    let settings = settings(call)?;
    let axes = settings.stride.len();
    if !name.ends_with(&format!("{axes}d")) {
        return because(format!("its weight has {axes} spatial axes"));
    }
    let none = vec![0; axes];
    let padding = Padding::symmetric(call.per_axis("padding", axes, &none)?);
    let output_padding = call.per_axis("output_padding", axes, &none)?;
    emit_transposed(call, settings, padding, output_padding)
}

fn layer<'w>(weight: Weight, bias: Option<Weight>) -> Vec<(&'w str, Weight)> {
    let bias = bias.map(|bias| ("bias", bias));
    [("weight", weight)].into_iter().chain(bias).collect()
}

fn emit(call: &mut Call<'_, '_>, settings: Settings, padding: Padding) -> Result<(), Fail> {
    let Settings { input, weight, bias, stride, dilation, groups } = settings;
    let shape = weight.array.shape();
    let conv = Conv {
        in_channels: shape[1].saturating_mul(groups),
        out_channels: shape[0],
        kernel: shape[2..].to_vec(),
        stride,
        padding,
        dilation,
        groups,
        bias: bias.is_some(),
    };
    call.layer(conv, input.value, layer(weight, bias))
}

fn emit_transposed(
    call: &mut Call<'_, '_>,
    settings: Settings,
    padding: Padding,
    output_padding: Vec<usize>,
) -> Result<(), Fail> {
    let Settings { input, weight, bias, stride, dilation, groups } = settings;
    let shape = weight.array.shape();
    let conv = ConvTranspose {
        in_channels: shape[0],
        out_channels: shape[1].saturating_mul(groups),
        kernel: shape[2..].to_vec(),
        stride,
        padding,
        output_padding,
        dilation,
        groups,
        bias: bias.is_some(),
    };
    call.layer(conv, input.value, layer(weight, bias))
}
