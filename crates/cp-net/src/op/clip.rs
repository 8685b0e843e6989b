//! Clipping.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, demand};
use super::unary::each;

/// min(max(x, `min`), `max`); ReLU6 is a clip to 0 … 6.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clip {
    /// The least value; none where it is left out of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The largest value; none where it is left out of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

impl OpSpec for Clip {
    fn check(&self) -> Result<(), BadField> {
        let bounds = [self.min, self.max];
        let fits = bounds.iter().flatten().all(|bound| bound.is_finite())
            && bounds != [None, None]
            && self.min.zip(self.max).is_none_or(|(min, max)| min <= max);
        demand(
            fits,
            "min, max",
            bounds,
            "one or two finite numbers, the first not above the second",
        )
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        Ok(vec![inputs[0].to_vec()])
    }

    fn effect(&self) -> Effect {
        if self.min == Some(0.0) { Effect::Rectifies } else { Effect::Other }
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        each(&inputs[0], |x| {
            let x = self.min.map_or(x, |min| x.max(min));
            self.max.map_or(x, |max| x.min(max))
        })
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let (min, max) = (draw.real(-0.8..=0.0), draw.real(0.1..=0.8));
        let op = match draw.size(0..=2) {
            0 => Self { min: Some(min), max: None },
            1 => Self { min: None, max: Some(max) },
            _ => Self { min: Some(min), max: Some(max) },
        };
        Sample::new(op, vec![draw.shape()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(min: Option<f64>, max: Option<f64>, fits: bool) {
        assert_eq!(Clip { min, max }.check().is_ok(), fits, "{min:?} {max:?}");
    }

    #[test]
    fn bounds() {
        check(Some(0.0), Some(6.0), true);
        check(Some(1.0), Some(1.0), true);
        check(None, Some(-1.0), true);
        check(None, None, false);
        check(Some(1.0), Some(0.0), false);
        check(Some(f64::NAN), None, false);
        check(None, Some(f64::INFINITY), false);
    }

    #[test]
    fn what_rectifies() {
        assert_eq!(Clip { min: Some(0.0), max: Some(6.0) }.effect(), Effect::Rectifies);
        assert_eq!(Clip { min: Some(-1.0), max: Some(1.0) }.effect(), Effect::Other);
    }
}
