//! Maps of another size.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, demand, mismatch, spatial, value_count,
};

/// Maps of another size, each value from the nearest pixel or linear between two pixels along each spatial axis, as ONNX's `Resize`
/// has it.
///
/// # Shapes
/// `[C, H, …]` → `[C, H′, …]`, where H′ is given or ⌊H · scale⌋.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resize {
    /// Size of each spatial axis of the output; or `scales`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<Vec<usize>>,
    /// Factor to the size of each spatial axis; or `sizes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales: Option<Vec<f64>>,
    /// Which pixels a value is made of.
    pub mode: ResizeMode,
    /// Where in the input an output pixel lies; `half_pixel` where it is left out of a file.
    #[serde(default)]
    pub coordinates: Coordinates,
    /// Which pixel is nearest; `round_prefer_floor` where it is left out of a file.
    #[serde(default)]
    pub rounding: Rounding,
}

/// Which pixels a value of [`Resize`] is made of. The outermost pixels go on beyond the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResizeMode {
    /// The nearest, as [`Rounding`] says.
    Nearest,
    /// The two around it along each axis, weighted by how near they are.
    Linear,
}

/// Where output pixel x of [`Resize`] lies in the input, along an axis of n pixels that becomes one of n′: `s` is the scale, or n′ / n
/// where sizes are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Coordinates {
    /// (x + ½) / s − ½: pixels are squares, and the maps' outlines match.
    #[default]
    HalfPixel,
    /// The same, but 0 where n′ is 1.
    PytorchHalfPixel,
    /// x · (n − 1) / (n′ − 1), whatever the scale, and 0 where n′ is 1: the centers of the outermost pixels match.
    AlignCorners,
    /// x / s.
    Asymmetric,
}

/// Which pixel is nearest to a position between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// The nearer, the one before where both are as near.
    #[default]
    RoundPreferFloor,
    /// The nearer, the one behind where both are as near.
    RoundPreferCeil,
    /// The one before.
    Floor,
    /// The one behind.
    Ceil,
}

/// Pixels along an axis beyond which f64 does not count every one.
const MOST: f64 = 9e15;

impl Resize {
    /// Size that spatial axis `axis` of `size` pixels comes to; `None` where that is 0 or beyond counting.
    pub fn size(&self, axis: usize, size: usize) -> Option<usize> {
        match (&self.sizes, &self.scales) {
            (Some(sizes), _) => sizes.get(axis).copied(),
            (None, scales) => {
                let scaled = (size as f64 * scales.as_ref()?.get(axis)?).floor();
                (1.0..=MOST).contains(&scaled).then_some(scaled as usize)
            }
        }
    }

    /// The two pixels that each pixel along spatial axis `axis`, of `size` pixels in the input, is made of, and their weights: 1 and 0
    /// for the nearest.
    pub fn taps(&self, axis: usize, size: usize) -> Vec<[(usize, f64); 2]> {
        let last = size.saturating_sub(1);
        let tap = |position: f64| match self.mode {
            ResizeMode::Nearest => {
                let share = position - position.floor();
                let up = match self.rounding {
                    Rounding::RoundPreferFloor => share > 0.5,
                    Rounding::RoundPreferCeil => share >= 0.5,
                    Rounding::Floor => false,
                    Rounding::Ceil => true,
                };
                let nearest = if up { position.ceil() } else { position.floor() };
                // A negative number becomes 0.
                let nearest = (nearest as usize).min(last);
                [(nearest, 1.0), (nearest, 0.0)]
            }
            ResizeMode::Linear => {
                let position = position.clamp(0.0, last as f64);
                let (before, share) = (position as usize, position.fract());
                [(before, 1.0 - share), ((before + 1).min(last), share)]
            }
        };
        let new = self.size(axis, size).unwrap_or(0);
        (0..new).map(|pixel| tap(self.position(axis, [size, new], pixel as f64))).collect()
    }

    /// What is wrong with `size` pixels along spatial axis `axis` that come to none or to more than can be counted.
    fn refused<T>(&self, axis: usize, size: usize) -> Result<T, Mismatch> {
        let scale =
            self.scales.as_ref().and_then(|scales| scales.get(axis)).copied().unwrap_or(1.0);
        let (bound, pixels) = match size as f64 * scale < 1.0 {
            true => ("at least", (1.0 / scale).ceil()),
            false => ("at most", (MOST / scale).floor()),
        };
        mismatch(0, format!("{bound} {pixels} pixels along spatial axis {axis}, scaled by {scale}"))
    }

    /// Where output pixel `pixel` lies in the input, along an axis of `size` pixels that becomes one of `new`.
    fn position(&self, axis: usize, [size, new]: [usize; 2], pixel: f64) -> f64 {
        // One division, so that what comes to a whole number is one.
        let unscaled = |at: f64| match &self.scales {
            Some(scales) => at / scales[axis],
            None => at * size as f64 / new as f64,
        };
        match self.coordinates {
            Coordinates::PytorchHalfPixel | Coordinates::AlignCorners if new == 1 => 0.0,
            Coordinates::HalfPixel | Coordinates::PytorchHalfPixel => unscaled(pixel + 0.5) - 0.5,
            Coordinates::AlignCorners => pixel * (size - 1) as f64 / (new - 1) as f64,
            Coordinates::Asymmetric => unscaled(pixel),
        }
    }
}

impl OpSpec for Resize {
    fn check(&self) -> Result<(), BadField> {
        match (&self.sizes, &self.scales) {
            (Some(sizes), None) => {
                let fits = !sizes.is_empty() && !sizes.contains(&0);
                demand(fits, "sizes", sizes, "positive sizes, one per spatial axis")
            }
            (None, Some(scales)) => {
                let positive = |scale: &f64| *scale > 0.0 && scale.is_finite();
                let fits = !scales.is_empty() && scales.iter().all(positive);
                demand(fits, "scales", scales, "positive numbers, one per spatial axis")
            }
            (None, None) => demand(false, "sizes", "left out", "a list, or one of scales"),
            (Some(_), Some(scales)) => {
                demand(false, "scales", scales, "to be left out where there are sizes")
            }
        }
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let axes = self.sizes.as_ref().map(Vec::len).or(self.scales.as_ref().map(Vec::len));
        spatial(inputs[0], axes.unwrap_or(0))?;
        let mut output = vec![inputs[0][0]];
        for (axis, &size) in inputs[0][1..].iter().enumerate() {
            match self.size(axis, size) {
                Some(new) => output.push(new),
                None => return self.refused(axis, size),
            }
        }
        match value_count(&output) {
            Some(_) => Ok(vec![output]),
            None => mismatch(0, "fewer values: the output has 2⁶³ or more"),
        }
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let mut map = inputs[0].mapv(f64::from);
        for axis in 2..map.ndim() {
            let taps = self.taps(axis - 2, map.shape()[axis]);
            let mut shape = map.shape().to_vec();
            shape[axis] = taps.len();
            map = ArrayD::from_shape_fn(shape, |at| {
                let part = |(pixel, weight): (usize, f64)| {
                    let mut from = at.clone();
                    from[axis] = pixel;
                    map[from] * weight
                };
                taps[at[axis]].into_iter().filter(|tap| tap.1 != 0.0).map(part).sum()
            });
        }
        vec![map.mapv(|value| value as f32)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let axes = draw.size(1..=3);
        let scaled = draw.flag();
        let scales = (0..axes).map(|_| draw.pick(&[0.5, 0.6, 1.0, 1.5, 2.0, 2.3, 3.0])).collect();
        let sizes = draw.sizes(axes, 1..=6);
        let resize = Resize {
            sizes: (!scaled).then_some(sizes),
            scales: scaled.then_some(scales),
            mode: draw.pick(&[ResizeMode::Nearest, ResizeMode::Linear]),
            coordinates: draw.pick(&[
                Coordinates::HalfPixel,
                Coordinates::PytorchHalfPixel,
                Coordinates::AlignCorners,
                Coordinates::Asymmetric,
            ]),
            rounding: draw.pick(&[
                Rounding::RoundPreferFloor,
                Rounding::RoundPreferCeil,
                Rounding::Floor,
                Rounding::Ceil,
            ]),
        };
        let channels = draw.size(1..=2);
        Sample::new(resize, vec![[vec![channels], draw.sizes(axes, 2..=5)].concat()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coordinates::{AlignCorners, Asymmetric, HalfPixel, PytorchHalfPixel};
    use Rounding::{Ceil, Floor, RoundPreferCeil, RoundPreferFloor};

    fn sized(sizes: &[usize]) -> Resize {
        Resize {
            sizes: Some(sizes.to_vec()),
            scales: None,
            mode: ResizeMode::Linear,
            coordinates: HalfPixel,
            rounding: RoundPreferFloor,
        }
    }

    fn scaled(scales: &[f64]) -> Resize {
        Resize { sizes: None, scales: Some(scales.to_vec()), ..sized(&[]) }
    }

    /// Of the pixels 0, 1, 2, 3: each value is its position in the input.
    fn check(resize: Resize, expected: &[f32]) {
        let x = ArrayD::from_shape_fn(vec![1, 1, 4], |at| at[2] as f32);
        let found = resize.eval(&[x.view()], &[]).remove(0);
        assert_eq!(resize.output(&[&[1, 4]]).unwrap(), [found.shape()[1..].to_vec()]);
        let near = found.iter().zip(expected).all(|(found, wanted)| (found - wanted).abs() < 1e-6);
        assert!(near && found.len() == expected.len(), "{resize:?}: {found}");
    }

    fn check_linear(coordinates: Coordinates, resize: Resize, expected: &[f32]) {
        check(Resize { coordinates, ..resize }, expected);
    }

    fn check_nearest(coordinates: Coordinates, rounding: Rounding, new: usize, expected: &[f32]) {
        let mode = ResizeMode::Nearest;
        check(Resize { mode, coordinates, rounding, ..sized(&[new]) }, expected);
    }

    #[test]
    fn coordinates() {
        check_linear(HalfPixel, sized(&[8]), &[0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]);
        check_linear(HalfPixel, sized(&[3]), &[1.0 / 6.0, 1.5, 17.0 / 6.0]);
        check_linear(HalfPixel, sized(&[1]), &[1.5]);
        check_linear(HalfPixel, scaled(&[0.6]), &[1.0 / 3.0, 2.0]);
        check_linear(PytorchHalfPixel, sized(&[3]), &[1.0 / 6.0, 1.5, 17.0 / 6.0]);
        check_linear(PytorchHalfPixel, sized(&[1]), &[0.0]);
        check_linear(AlignCorners, sized(&[7]), &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
        check_linear(AlignCorners, sized(&[1]), &[0.0]);
        check_linear(AlignCorners, scaled(&[0.6]), &[0.0, 3.0]);
        check_linear(Asymmetric, sized(&[6]), &[0.0, 2.0 / 3.0, 4.0 / 3.0, 2.0, 8.0 / 3.0, 3.0]);
        check_linear(Asymmetric, scaled(&[0.6]), &[0.0, 5.0 / 3.0]);
    }

    #[test]
    fn roundings() {
        // At 0, ½, 1, ….
        check_nearest(AlignCorners, RoundPreferFloor, 7, &[0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
        check_nearest(AlignCorners, RoundPreferCeil, 7, &[0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        check_nearest(AlignCorners, Floor, 7, &[0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
        check_nearest(AlignCorners, Ceil, 7, &[0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        // At −¼, ¼, ¾, …, 3¼.
        check_nearest(HalfPixel, RoundPreferFloor, 8, &[0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        check_nearest(HalfPixel, RoundPreferCeil, 8, &[0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
        check_nearest(HalfPixel, Floor, 8, &[0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
        check_nearest(HalfPixel, Ceil, 8, &[0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 3.0]);
    }

    #[test]
    fn two_axes() {
        let x = ArrayD::from_shape_fn(vec![1, 1, 2, 4], |at| (4 * at[2] + at[3]) as f32);
        let found = scaled(&[0.6, 0.6]).eval(&[x.view()], &[]).remove(0);
        // ONNX's test_resize_downsample_scales_linear, whose pixels are larger by 1.
        assert_eq!(found.shape(), [1, 1, 1, 2]);
        assert!((found[[0, 0, 0, 0]] - 5.0 / 3.0).abs() < 1e-6, "{found}");
        assert!((found[[0, 0, 0, 1]] - 10.0 / 3.0).abs() < 1e-6, "{found}");
    }

    fn check_refused(resize: Resize, expected: &str) {
        let refused = match resize.check() {
            Err(error) => error.to_string(),
            Ok(()) => resize.output(&[&[1, 4]]).unwrap_err().expected,
        };
        assert_eq!(refused, expected, "{resize:?}");
    }

    #[test]
    fn refusals() {
        check_refused(
            Resize { sizes: Some(vec![2]), ..scaled(&[2.0]) },
            "scales is [2.0], expected to be left out where there are sizes",
        );
        check_refused(
            Resize { sizes: None, ..sized(&[]) },
            "sizes is \"left out\", expected a list, or one of scales",
        );
        check_refused(
            scaled(&[-1.0]),
            "scales is [-1.0], expected positive numbers, one per spatial axis",
        );
        check_refused(scaled(&[0.2]), "at least 5 pixels along spatial axis 0, scaled by 0.2");
        check_refused(
            scaled(&[1e16]),
            "at most 0 pixels along spatial axis 0, scaled by 10000000000000000",
        );
        check_refused(sized(&[usize::MAX]), "fewer values: the output has 2⁶³ or more");
    }
}
