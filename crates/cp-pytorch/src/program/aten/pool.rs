//! Poolings.

use cp_net::{AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, MaxPool, Padding};

use crate::program::call::{Call, Fail, Tensor, because};

/// The input and the number of its spatial axes.
fn input(call: &mut Call<'_, '_>) -> Result<(Tensor, usize), Fail> {
    let input = call.tensor("self")?;
    match input.shape.len() {
        0..=2 => because("its input has no batch axis"),
        axes => Ok((input, axes - 2)),
    }
}

/// `max_pool2d(self, kernel_size, stride, padding, dilation, ceil_mode)`; the indices that some make besides are not known here.
pub(super) fn max_pool(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let (input, axes) = input(call)?;
    let kernel = call.per_axis("kernel_size", axes, &[])?;
    let pool = MaxPool {
        stride: call.per_axis("stride", axes, &kernel)?,
        padding: Padding::symmetric(call.per_axis("padding", axes, &vec![0; axes])?),
        dilation: call.per_axis("dilation", axes, &vec![1; axes])?,
        ceil: call.flag("ceil_mode")?,
        kernel,
    };
    call.emit(pool, vec![input.value])
}

/// `avg_pool2d(self, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)`.
pub(super) fn avg_pool(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let (input, axes) = input(call)?;
    let kernel = call.per_axis("kernel_size", axes, &[])?;
    if call.int("divisor_override")?.is_some() {
        return because("it divides by another number than that of its values");
    }
    let pool = AvgPool {
        stride: call.per_axis("stride", axes, &kernel)?,
        padding: Padding::symmetric(call.per_axis("padding", axes, &vec![0; axes])?),
        ceil: call.flag("ceil_mode")?,
        count_padding: call.flag_or("count_include_pad", true)?,
        kernel,
    };
    call.emit(pool, vec![input.value])
}

/// `adaptive_avg_pool2d(self, output_size)`, or of maxima.
pub(super) fn adaptive(call: &mut Call<'_, '_>, is_max: bool) -> Result<(), Fail> {
    let (input, axes) = input(call)?;
    let output = call.per_axis("output_size", axes, &[])?;
    if is_max {
        call.emit(AdaptiveMaxPool { output }, vec![input.value])
    } else {
        call.emit(AdaptiveAvgPool { output }, vec![input.value])
    }
}
