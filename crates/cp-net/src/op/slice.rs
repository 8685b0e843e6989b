//! Part of an axis.

use std::ops::Range;

use ndarray::{ArrayD, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, at_least, axes_of, mismatch,
};

/// Every `step`-th position from `start` to before `end` along an axis.
///
/// Negative bounds count from the end; what lies beyond the axis is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// The axis, from 0 behind the batch axis.
    pub axis: usize,
    /// The first position; 0 where it is left out of a file.
    #[serde(default)]
    pub start: i64,
    /// The position behind the last; the end of the axis where it is left out of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// Distance of the positions; 1 where it is left out of a file.
    #[serde(default = "super::conv::one")]
    pub step: usize,
}

impl Slice {
    /// The positions between the bounds along an axis of `size`, of which every `step`-th is taken.
    pub fn range(&self, size: usize) -> Range<usize> {
        let bound = |at: i64| {
            let distance = usize::try_from(at.unsigned_abs()).unwrap_or(usize::MAX);
            if at < 0 { size.saturating_sub(distance) } else { size.min(distance) }
        };
        bound(self.start)..self.end.map_or(size, bound)
    }
}

impl OpSpec for Slice {
    fn check(&self) -> Result<(), BadField> {
        at_least("step", self.step, 1)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        axes_of(&[self.axis], inputs[0], 0)?;
        let range = self.range(inputs[0][self.axis]);
        if range.is_empty() {
            let end = self.end.map_or(String::new(), |end| end.to_string());
            let (start, axis) = (self.start, self.axis);
            return mismatch(0, format!("at least 1 position in {start}..{end} along axis {axis}"));
        }
        let mut output = inputs[0].to_vec();
        output[self.axis] = range.len().div_ceil(self.step);
        Ok(vec![output])
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let axis = Axis(self.axis + 1);
        let positions: Vec<usize> = self.range(inputs[0].len_of(axis)).step_by(self.step).collect();
        vec![inputs[0].select(axis, &positions)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let axis = draw.size(0..=input.len() - 1);
        let size = input[axis];
        let first = draw.size(0..=size - 1);
        let behind = draw.size(first + 1..=size);
        // The same position as it is, counted from the end, and from beyond the axis where that comes to the same.
        let (counted, far) = (|at: usize| at as i64 - size as i64, 2 * size as i64);
        let start = match draw.size(0..=2) {
            0 => counted(first),
            1 if first == 0 => -far,
            _ => first as i64,
        };
        let end = match draw.size(0..=3) {
            0 if behind == size => None,
            1 if behind == size => Some(far),
            2 if behind < size => Some(counted(behind)),
            _ => Some(behind as i64),
        };
        Sample::new(Slice { axis, start, end, step: draw.size(1..=3) }, vec![input])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(start: i64, end: Option<i64>, step: usize, expected: &[f32]) {
        let slice = Slice { axis: 0, start, end, step };
        let x = ArrayD::from_shape_fn(vec![1, 5], |at| at[1] as f32);
        assert_eq!(slice.output(&[&[5]]).unwrap(), [[expected.len()]], "{slice:?}");
        assert_eq!(slice.eval(&[x.view()], &[])[0].as_slice(), Some(expected), "{slice:?}");
    }

    #[test]
    fn bounds() {
        check(0, None, 1, &[0.0, 1.0, 2.0, 3.0, 4.0]);
        check(1, Some(4), 2, &[1.0, 3.0]);
        check(0, Some(4), 3, &[0.0, 3.0]);
        check(-2, None, 1, &[3.0, 4.0]);
        check(1, Some(-1), 1, &[1.0, 2.0, 3.0]);
        check(-4, Some(-2), 1, &[1.0, 2.0]);
        check(i64::MIN, Some(i64::MAX), usize::MAX, &[0.0]);
    }

    #[test]
    fn nothing_left() {
        let slice = Slice { axis: 0, start: 3, end: Some(-2), step: 1 };
        let expected = "at least 1 position in 3..-2 along axis 0";
        assert_eq!(slice.output(&[&[5]]).unwrap_err().expected, expected);
    }
}
