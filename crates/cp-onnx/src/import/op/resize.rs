//! Maps of another size.

use cp_net::{Coordinates, Resize, ResizeMode, Rounding};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::value::{Map, Num, Value, position};

/// Before opset 10: by factors that are an attribute (7, 8) or an input (9).
pub(super) fn upsample(call: &mut Call<'_, '_>) -> Outcome {
    let x = call.layer_input()?;
    let mode = mode(call)?;
    let scales = match call.attributes.floats("scales") {
        Some(scales) => scales,
        None => floats(call, 1, "scales")?.unwrap_or_default(),
    };
    let (coordinates, rounding) = (Coordinates::Asymmetric, Rounding::Floor);
    finish(call, &x, None, Some(scales), mode, coordinates, rounding)
}

fn mode(call: &Call<'_, '_>) -> Result<ResizeMode, Refusal> {
    let mode = call.attributes.string("mode", "nearest");
    match mode.as_str() {
        "nearest" => Ok(ResizeMode::Nearest),
        "linear" | "bilinear" => Ok(ResizeMode::Linear),
        _ => Refusal::form(format!("interpolation of mode '{mode}'")),
    }
}

/// Numbers of a constant input; an empty one is as good as none.
fn floats(
    call: &Call<'_, '_>,
    slot: usize,
    what: &'static str,
) -> Result<Option<Vec<f64>>, Refusal> {
    let Some(known) = call.known(slot, what)? else { return Ok(None) };
    let floats = known.floats(what)?;
    Ok((!floats.is_empty()).then(|| floats.iter().map(|&value| f64::from(value)).collect()))
}

/// For all axes in their order, those that are not named as `default`.
fn spread<T: Clone>(
    given: Vec<T>,
    axes: Option<&[i64]>,
    default: Vec<T>,
    name: &str,
) -> Result<Vec<T>, Refusal> {
    let Some(axes) = axes else {
        return match given.len() == default.len() {
            true => Ok(given),
            false => Refusal::setting(name, given.len(), format!("{} numbers", default.len())),
        };
    };
    if axes.len() != given.len() {
        return Refusal::setting(
            name,
            given.len(),
            format!("{} numbers, one for each axis", axes.len()),
        );
    }
    let mut all = default;
    for (&axis, value) in axes.iter().zip(given) {
        let axis = position(axis, all.len())?;
        all[axis] = value;
    }
    Ok(all)
}

/// Source: <https://onnx.ai/onnx/operators/onnx__Resize.html>. Opset 10 had factors alone, and what `Upsample` meant by them.
pub(super) fn resize(call: &mut Call<'_, '_>) -> Outcome {
    let x = call.layer_input()?;
    let resize_mode = mode(call)?;
    if call.opset < 11 {
        let scales = floats(call, 1, "scales")?.unwrap_or_default();
        let (coordinates, rounding) = (Coordinates::Asymmetric, Rounding::Floor);
        return finish(call, &x, None, Some(scales), resize_mode, coordinates, rounding);
    }
    let transformation = call.attributes.string("coordinate_transformation_mode", "half_pixel");
    let nearest = call.attributes.string("nearest_mode", "round_prefer_floor");
    let policy = call.attributes.string("keep_aspect_ratio_policy", "stretch");
    let antialias = call.attributes.flag("antialias");
    // Of cubic interpolation, and of crops.
    for name in ["cubic_coeff_a", "exclude_outside", "extrapolation_value"] {
        call.attributes.take(name);
    }
    let axes = call.attributes.ints("axes");
    let rank = x.rank();
    let scales = floats(call, 2, "scales")?;
    let sizes = call.known(3, "sizes")?.map(|sizes| sizes.numbers("sizes")).transpose()?;
    let sizes = sizes.filter(|sizes| !sizes.is_empty());
    let scales = scales
        .map(|scales| spread(scales, axes.as_deref(), vec![1.0; rank], "scales"))
        .transpose()?;
    let sizes = sizes.map(|sizes| spread(sizes, axes.as_deref(), x.dims(), "sizes")).transpose()?;
    let (scales, sizes) = match (policy.as_str(), sizes) {
        ("stretch", sizes) => (scales, sizes),
        ("not_larger" | "not_smaller", Some(sizes)) => {
            keep_aspect(&x, &sizes, axes.as_deref(), policy == "not_larger")?
        }
        _ => {
            return Refusal::setting(
                "keep_aspect_ratio_policy",
                policy,
                "stretch, or sizes with it",
            );
        }
    };
    let rounding = match nearest.as_str() {
        "round_prefer_floor" => Rounding::RoundPreferFloor,
        "round_prefer_ceil" => Rounding::RoundPreferCeil,
        "floor" => Rounding::Floor,
        "ceil" => Rounding::Ceil,
        _ => return Refusal::setting("nearest_mode", nearest, "one of ONNX's four"),
    };
    let whole = |(scale, &size): (&f64, &usize)| (scale * size as f64).fract() == 0.0;
    let coordinates = match transformation.as_str() {
        "half_pixel" => Coordinates::HalfPixel,
        // The same where nothing is cut off.
        "half_pixel_symmetric"
            if sizes.is_some()
                || scales.as_ref().is_some_and(|all| all[1..].iter().zip(&x.shape).all(whole)) =>
        {
            Coordinates::HalfPixel
        }
        "pytorch_half_pixel" => Coordinates::PytorchHalfPixel,
        "align_corners" => Coordinates::AlignCorners,
        "asymmetric" => Coordinates::Asymmetric,
        _ => return Refusal::form(format!("coordinates of mode '{transformation}'")),
    };
    if antialias && resize_mode == ResizeMode::Linear {
        let shrinks = match (&scales, &sizes) {
            (Some(scales), _) => scales.iter().any(|scale| *scale < 1.0),
            (None, Some(sizes)) => {
                let smaller = |(new, old): (&Num, Num)| new.known() < old.known();
                sizes.iter().zip(x.dims()).any(smaller)
            }
            (None, None) => false,
        };
        if shrinks {
            return Refusal::form("antialiasing");
        }
    }
    finish(call, &x, sizes, scales, resize_mode, coordinates, rounding)
}

/// Scales and sizes (one of the two).
type Target = (Option<Vec<f64>>, Option<Vec<Num>>);

/// One factor for all axes, so that none is larger (or smaller) than `sizes`; each size is rounded.
fn keep_aspect(
    x: &Map,
    sizes: &[Num],
    axes: Option<&[i64]>,
    larger: bool,
) -> Result<Target, Refusal> {
    let mut ratios = Vec::new();
    let mut named = vec![axes.is_none(); x.rank()];
    for &axis in axes.unwrap_or_default() {
        named[position(axis, x.rank())?] = true;
    }
    for ((new, old), named) in sizes.iter().zip(x.dims()).zip(&named) {
        if let (Num::Is(new), Num::Is(old), true) = (*new, old, named) {
            ratios.push(new as f64 / old as f64);
        }
    }
    let ratio = ratios.into_iter().reduce(|a, b| if larger { a.min(b) } else { a.max(b) });
    let Some(ratio) = ratio.filter(|ratio| *ratio > 0.0) else {
        return Refusal::setting("sizes", sizes, "sizes of at least 1");
    };
    let scaled = |(old, named): (Num, &bool)| match (old, named) {
        (Num::Is(old), true) => Num::Is((ratio * old as f64 + 0.5).floor() as i64),
        (old, _) => old,
    };
    let rounded: Vec<Num> = x.dims().into_iter().zip(&named).map(scaled).collect();
    let floor = x.dims().into_iter().zip(&named).all(|(old, named)| match (old, named) {
        (Num::Is(old), true) => (ratio * old as f64).fract() == 0.0,
        _ => true,
    });
    if !floor {
        return Refusal::form("a ratio that is kept, but comes to no whole size");
    }
    Ok((None, Some(rounded)))
}

/// Everything but the spatial axes stays as it is.
fn finish(
    call: &mut Call<'_, '_>,
    x: &Map,
    sizes: Option<Vec<Num>>,
    scales: Option<Vec<f64>>,
    mode: ResizeMode,
    coordinates: Coordinates,
    rounding: Rounding,
) -> Outcome {
    let what = "channels or examples of another number";
    let (sizes, scales) = match (sizes, scales) {
        (Some(sizes), _) => {
            let channels = Num::Is(x.shape.first().map_or(0, |&size| size as i64));
            let batch = match sizes.first() {
                Some(Num::Is(size)) => *size == 1 || Some(*size) == call.fixed,
                Some(other) => *other == Num::Batch(1),
                None => false,
            };
            if !batch || sizes.get(1) != Some(&channels) {
                return Refusal::form(what);
            }
            let spatial: Option<Vec<usize>> = sizes[2..]
                .iter()
                .map(|size| size.known().and_then(|size| usize::try_from(size).ok()))
                .collect();
            match spatial {
                Some(sizes) => (Some(sizes), None),
                None => return Refusal::setting("sizes", sizes, "sizes of at least 1"),
            }
        }
        (None, Some(scales)) => match &scales[..] {
            [batch, channels, spatial @ ..]
                if [*batch, *channels].map(f64::to_bits) == [1.0_f64.to_bits(); 2]
                    && spatial.len() + 1 == x.shape.len() =>
            {
                (None, Some(spatial.to_vec()))
            }
            [_, _, spatial @ ..] if spatial.len() + 1 == x.shape.len() => {
                return Refusal::form(what);
            }
            _ => return Refusal::setting("scales", scales, format!("{} numbers", x.rank())),
        },
        (None, None) => return Refusal::form("neither scales nor sizes"),
    };
    let op = Resize { sizes, scales, mode, coordinates, rounding };
    Ok(vec![Value::Map(call.last(op, &[x], Vec::new(), 0)?)])
}
