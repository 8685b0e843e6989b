//! Maps of another size.

use cp_net::{Coordinates, Resize, ResizeMode, Rounding};

use crate::program::call::{Call, Fail, because};

/// `upsample_nearest2d(self, output_size, scales_h, scales_w)`, `upsample_bilinear2d(self, output_size, align_corners, …)`, and those of
/// the overload `vec`: `(input, output_size, align_corners, scale_factors)`.
///
/// PyTorch's nearest pixel is ⌊x / s⌋, that of `nearest_exact` ⌊(x + ½) / s⌋; s is the factor where one is given, else the ratio of the sizes.
pub(super) fn upsample(call: &mut Call<'_, '_>, name: &str) -> Result<(), Fail> {
    let input = match call.operand("input")? {
        Some(crate::program::call::Operand::Tensor(input)) => input,
        _ => call.tensor("self")?,
    };
    let axes = input.shape.len().saturating_sub(2);
    let is_nearest = name.starts_with("upsample_nearest") || name.starts_with("upsample__nearest");
    let is_linear = ["linear1d", "bilinear2d", "trilinear3d"]
        .iter()
        .any(|kind| name.strip_prefix("upsample_") == Some(kind));
    if !is_nearest && !is_linear {
        return because("is not supported");
    }
    let sizes = call.ints("output_size")?;
    let factors = call.floats("scale_factors")?;
    let each = ["scales_d", "scales_h", "scales_w", "scales"];
    let mut scales = Vec::new();
    for name in each {
        scales.extend(call.float(name)?);
    }
    let scales = factors.unwrap_or(scales);
    let coordinates = match (is_linear, call.flag("align_corners")?) {
        (true, true) => Coordinates::AlignCorners,
        (true, false) => Coordinates::HalfPixel,
        _ if name.contains("exact") => Coordinates::HalfPixel,
        _ => Coordinates::Asymmetric,
    };
    let rounding = if name.contains("exact") { Rounding::RoundPreferCeil } else { Rounding::Floor };
    let mode = if is_linear { ResizeMode::Linear } else { ResizeMode::Nearest };
    let sizes: Option<Vec<usize>> =
        sizes.map(|sizes| sizes.iter().filter_map(|size| usize::try_from(*size).ok()).collect());
    // Both where a factor was given: the factor says where pixels lie, and the sizes follow from it.
    let (sizes, scales) = match (sizes, scales.len()) {
        (_, count) if count == axes => (None, Some(scales)),
        (Some(sizes), 0) if sizes.len() == axes => (Some(sizes), None),
        _ => return because("its sizes and factors are not those of its axes"),
    };
    call.emit(Resize { sizes, scales, mode, coordinates, rounding }, vec![input.value])
}
