//! `Resize`, where a runtime that computes positions in single precision takes the same pixels as cp-net does; else the pixels are
//! picked by their numbers, which are known.

use cp_net::{Coordinates, Resize, ResizeMode, Rounding};
use ndarray::ArrayD;

use crate::export::Export;
use crate::export::writer::{Site, int, int_list};
use crate::proto::attribute;

/// Nearer than this to where another pixel is nearest, and rounding decides.
const MARGIN: f64 = 1e-3;

impl Export for Resize {
    fn export(&self, at: &mut Site<'_, '_>) {
        let shape = at.shape(0);
        let native = shape.len() <= 4
            && (shape[1..].iter().enumerate()).all(|(axis, &size)| is_safe(self, axis, size));
        if native { one_node(self, at) } else { by_axis(self, at) }
    }
}

/// The scale of spatial axis `axis` of `size` pixels, in double and in single precision.
fn scale(resize: &Resize, axis: usize, size: usize) -> (f64, f32) {
    match (&resize.scales, resize.size(axis, size)) {
        (Some(scales), _) => (scales[axis], scales[axis] as f32),
        (None, new) => {
            let new = new.unwrap_or(0);
            (new as f64 / size as f64, new as f32 / size as f32)
        }
    }
}

/// Whether single precision comes to the same size and the same nearest pixels.
#[expect(clippy::float_cmp, reason = "whether a number is exact is the question")]
fn is_safe(resize: &Resize, axis: usize, size: usize) -> bool {
    let (wide, narrow) = scale(resize, axis, size);
    let new = resize.size(axis, size).unwrap_or(0);
    if resize.scales.is_some() {
        let sizes = [f64::from(size as f32 * narrow), size as f64 * f64::from(narrow)];
        if sizes.iter().any(|found| found.floor() != new as f64) {
            return false;
        }
    }
    if resize.mode == ResizeMode::Linear {
        return true;
    }
    // A power of two: quotients are exact, also those that lie halfway between pixels.
    let exact = f64::from(narrow) == wide
        && narrow.log2().fract() == 0.0
        && resize.coordinates != Coordinates::AlignCorners;
    let bound = match resize.rounding {
        Rounding::RoundPreferFloor | Rounding::RoundPreferCeil => 0.5,
        Rounding::Floor | Rounding::Ceil => 0.0,
    };
    exact
        || (0..new).all(|pixel| {
            let at = pixel as f64;
            let position = match resize.coordinates {
                Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if new == 1 => 0.0,
                Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => (at + 0.5) / wide - 0.5,
                Coordinates::AlignCorners => at * (size - 1) as f64 / (new - 1) as f64,
                Coordinates::Asymmetric => at / wide,
            };
            // Position 0 comes from 0, whatever the scale.
            let away = position - bound - (position - bound).round();
            away.abs() > MARGIN || (position == 0.0 && at == 0.0)
        })
}

fn one_node(resize: &Resize, at: &mut Site<'_, '_>) {
    let (input, shape) = (at.input(), at.shape(0));
    let mut attributes = vec![
        attribute::string(
            "coordinate_transformation_mode",
            match resize.coordinates {
                Coordinates::HalfPixel => "half_pixel",
                Coordinates::PytorchHalfPixel => "pytorch_half_pixel",
                Coordinates::AlignCorners => "align_corners",
                Coordinates::Asymmetric => "asymmetric",
            },
        ),
        attribute::string(
            "mode",
            match resize.mode {
                ResizeMode::Nearest => "nearest",
                ResizeMode::Linear => "linear",
            },
        ),
        attribute::string(
            "nearest_mode",
            match resize.rounding {
                Rounding::RoundPreferFloor => "round_prefer_floor",
                Rounding::RoundPreferCeil => "round_prefer_ceil",
                Rounding::Floor => "floor",
                Rounding::Ceil => "ceil",
            },
        ),
    ];
    if let Some(scales) = &resize.scales {
        let all: Vec<f32> =
            [1.0; 2].into_iter().chain(scales.iter().map(|&scale| scale as f32)).collect();
        let scales = at.floats("scales", &ndarray::Array1::from(all).into_dyn());
        return at.finish("Resize", &[&input, "", &scales], attributes);
    }
    let sizes = resize.sizes.clone().unwrap_or_default();
    let sizes = if at.opset() >= 18 {
        // Sizes of some axes, so that the batch stays what it is.
        let axes: Vec<i64> = (2..int(shape.len()) + 1).collect();
        attributes.push(attribute::ints("axes", &axes));
        at.ints("sizes", &int_list(&sizes))
    } else {
        let batch = at.batch_of(&input);
        let rest = at.ints("sizes", &int_list(&[&shape[..1], &sizes].concat()));
        let axis = vec![attribute::int("axis", 0)];
        at.emit("Concat", "all_sizes", &[&batch, &rest], axis)
    };
    at.finish("Resize", &[&input, "", "", &sizes], attributes);
}

/// Along one axis after the other: the pixels picked, or two of each and their weights.
fn by_axis(resize: &Resize, at: &mut Site<'_, '_>) {
    let (mut value, shape) = (at.input(), at.shape(0));
    for (axis, &size) in shape[1..].iter().enumerate() {
        let taps = resize.taps(axis, size);
        let kept = |(pixel, tap): (usize, &[(usize, f64); 2])| tap[0] == (pixel, 1.0);
        if taps.len() == size && taps.iter().enumerate().all(kept) {
            continue;
        }
        let mut picked = |side: usize| {
            let pixels: Vec<i64> = taps.iter().map(|tap| int(tap[side].0)).collect();
            let pixels = at.ints(&format!("pixels_{axis}_{side}"), &pixels);
            let along = vec![attribute::int("axis", int(axis) + 2)];
            at.emit("Gather", &format!("picked_{axis}_{side}"), &[&value, &pixels], along)
        };
        if resize.mode == ResizeMode::Nearest {
            value = picked(0);
            continue;
        }
        let sides = [picked(0), picked(1)];
        // Broadcast over the axes behind.
        let mut weights = vec![taps.len()];
        weights.resize(shape.len() - 1 - axis, 1);
        let mut terms = Vec::new();
        for (side, pixels) in sides.iter().enumerate() {
            let weights = ArrayD::from_shape_fn(weights.clone(), |at| taps[at[0]][side].1 as f32);
            let weights = at.floats(&format!("weights_{axis}_{side}"), &weights);
            let what = format!("weighted_{axis}_{side}");
            terms.push(at.emit("Mul", &what, &[pixels, &weights], Vec::new()));
        }
        let what = format!("axis_{axis}");
        value = at.emit("Add", &what, &[&terms[0], &terms[1]], Vec::new());
    }
    at.finish("Identity", &[&value], Vec::new());
}
