//! Other shapes of the same values.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, demand, mismatch, value_count,
};

/// The values in the same order, last axis fastest, in another shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reshape {
    /// Sizes of the axes behind the batch axis. 0 keeps the input's axis of that position; one of them may be −1: whatever is left.
    pub shape: Vec<i64>,
}

/// `x`, with `shape` behind the batch axis; the number of values is the same.
pub(super) fn reshaped(x: &ArrayViewD<'_, f32>, shape: &[usize]) -> ArrayD<f32> {
    let shape = [&x.shape()[..1], shape].concat();
    // The shapes were checked.
    ArrayD::from_shape_vec(shape, x.iter().copied().collect()).unwrap_or_default()
}

impl OpSpec for Reshape {
    fn check(&self) -> Result<(), BadField> {
        let inferred = self.shape.iter().filter(|size| **size == -1).count();
        let fits = inferred <= 1 && self.shape.iter().all(|size| *size >= -1);
        demand(fits, "shape", &self.shape, "sizes, 0 (as before) or, at most once, -1")
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let input = inputs[0];
        let Some(values) = value_count(input) else {
            return mismatch(0, "sizes of at least 1, and less than 2⁶³ values");
        };
        let mut output = Vec::with_capacity(self.shape.len());
        for (axis, &size) in self.shape.iter().enumerate() {
            output.push(match size {
                // Until the others are known.
                -1 => 1,
                0 => match input.get(axis) {
                    Some(&size) => size,
                    None => return mismatch(0, format!("an axis {axis} behind the batch axis")),
                },
                _ => usize::try_from(size).unwrap_or(usize::MAX),
            });
        }
        let known = value_count(&output);
        let rest = known.filter(|known| values.is_multiple_of(*known)).map(|known| values / known);
        let inferred = self.shape.iter().position(|size| *size == -1);
        match (rest, inferred) {
            (Some(rest), Some(axis)) => output[axis] = rest,
            (Some(1), None) => {}
            _ => {
                let known = known.map_or("2⁶³ or more".into(), |known| known.to_string());
                let times = if inferred.is_some() { "a multiple of " } else { "" };
                return mismatch(0, format!("{times}{known} values, not {values}"));
            }
        }
        Ok(vec![output])
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let shapes = self.output(&[&inputs[0].shape()[1..]]).unwrap_or_default();
        shapes.iter().map(|shape| reshaped(&inputs[0], shape)).collect()
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        // Some of the sizes joined, then as they are, kept, or one of them inferred.
        let mut sizes: Shape = Vec::new();
        for &size in &input {
            match sizes.last_mut() {
                Some(last) if draw.flag() => *last *= size,
                _ => sizes.push(size),
            }
        }
        if draw.flag() {
            sizes.reverse();
        }
        let inferred = draw.size(0..=sizes.len());
        let size = |(axis, &size): (usize, &usize)| match draw.flag() {
            _ if axis == inferred => -1,
            true if input[axis] == size => 0,
            _ => size as i64,
        };
        let shape = sizes.iter().enumerate().map(size).collect();
        Sample::new(Reshape { shape }, vec![input])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: &[i64], expected: Result<&[usize], &str>) {
        let output = Reshape { shape: shape.to_vec() }.output(&[&[2, 3, 4]]);
        let output = output.map(|shapes| shapes[0].clone()).map_err(|error| error.expected);
        assert_eq!(output.as_deref().map_err(String::as_str), expected, "{shape:?}");
    }

    #[test]
    fn sizes() {
        check(&[24], Ok(&[24]));
        check(&[4, 6], Ok(&[4, 6]));
        check(&[-1], Ok(&[24]));
        check(&[0, -1], Ok(&[2, 12]));
        check(&[-1, 0, 2], Ok(&[4, 3, 2]));
        check(&[0, 0, 0, -1], Ok(&[2, 3, 4, 1]));
        check(&[5, -1], Err("a multiple of 5 values, not 24"));
        check(&[5, 5], Err("25 values, not 24"));
        check(&[], Err("1 values, not 24"));
        check(&[1, 1, 1, 0], Err("an axis 3 behind the batch axis"));
        check(&[i64::MAX, 2], Err("2⁶³ or more values, not 24"));
    }

    #[test]
    fn one_size_is_inferred() {
        let error = Reshape { shape: vec![-1, 2, -1] }.check().unwrap_err();
        let expected = "shape is [-1, 2, -1], expected sizes, 0 (as before) or, at most once, -1";
        assert_eq!(error.to_string(), expected);
        assert!(Reshape { shape: vec![-2] }.check().is_err());
    }
}
