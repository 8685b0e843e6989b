//! Padding.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, Sample, Shape, demand, finite, mismatch, value_count,
};

/// Values around the input, along any of its axes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pad {
    /// How many before each axis behind the batch axis, channels too.
    pub before: Vec<usize>,
    /// How many behind each axis.
    pub behind: Vec<usize>,
    /// Which; constant where it is left out of a file.
    #[serde(default)]
    pub mode: PadMode,
    /// The constant; 0 where it is left out of a file.
    #[serde(default)]
    pub value: f64,
}

/// What [`Pad`] puts around x₀ x₁ x₂ ….
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PadMode {
    /// One value.
    #[default]
    Constant,
    /// The input mirrored at its outermost values, which are not repeated: … x₂ x₁ before x₀.
    Reflect,
    /// The outermost values: … x₀ x₀ before x₀.
    Edge,
}

impl Pad {
    /// Zeros.
    pub fn zeros(before: impl Into<Vec<usize>>, behind: impl Into<Vec<usize>>) -> Self {
        let (before, behind) = (before.into(), behind.into());
        Self { before, behind, mode: PadMode::Constant, value: 0.0 }
    }

    /// Where along `axis` of `size` values the one at `at` of the output comes from, or `None` where it is the constant.
    pub fn source(&self, axis: usize, size: usize, at: usize) -> Option<usize> {
        let (before, last) = (self.before[axis], size.saturating_sub(1));
        if (before..=before + last).contains(&at) {
            return Some(at - before);
        }
        match self.mode {
            PadMode::Constant => None,
            PadMode::Reflect if at < before => Some(before - at),
            PadMode::Reflect => Some(2 * last - (at - before)),
            PadMode::Edge => Some(at.saturating_sub(before).min(last)),
        }
    }

    fn axes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.before.iter().copied().zip(self.behind.iter().copied())
    }
}

impl OpSpec for Pad {
    fn check(&self) -> Result<(), BadField> {
        let axes = self.before.len();
        let expected = format!("{axes} values, as many as before the axes");
        demand(self.behind.len() == axes, "behind", &self.behind, expected)?;
        finite("value", self.value)
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let input = inputs[0];
        if input.len() != self.before.len() || input.contains(&0) {
            return mismatch(0, format!("{} axes, none of size 0", self.before.len()));
        }
        for (axis, (before, behind)) in self.axes().enumerate() {
            let most = before.max(behind);
            if self.mode == PadMode::Reflect && most >= input[axis] {
                return mismatch(0, format!("more than {most} values along axis {axis} to mirror"));
            }
        }
        let padded = |((before, behind), &size): ((usize, usize), &usize)| {
            size.checked_add(before)?.checked_add(behind)
        };
        let output: Option<Shape> = self.axes().zip(input).map(padded).collect();
        match output.filter(|output| value_count(output).is_some()) {
            Some(output) => Ok(vec![output]),
            None => mismatch(0, "fewer values: the output has 2⁶³ or more"),
        }
    }

    fn effect(&self) -> Effect {
        Effect::Passes
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let x = &inputs[0];
        let mut shape = x.shape().to_vec();
        for (size, (before, behind)) in shape[1..].iter_mut().zip(self.axes()) {
            *size += before + behind;
        }
        vec![ArrayD::from_shape_fn(shape, |at| {
            let source = |axis: usize| match axis {
                0 => Some(at[0]),
                _ => self.source(axis - 1, x.shape()[axis], at[axis]),
            };
            let from: Option<Vec<usize>> = (0..x.ndim()).map(source).collect();
            from.map_or(self.value as f32, |from| x[from.as_slice()])
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let input = draw.shape();
        let mode = draw.pick(&[PadMode::Constant, PadMode::Reflect, PadMode::Edge]);
        let mut pad = |size: usize| match mode {
            PadMode::Reflect => draw.size(0..=size - 1),
            _ => draw.size(0..=2),
        };
        let before = input.iter().map(|&size| pad(size)).collect();
        let behind = input.iter().map(|&size| pad(size)).collect();
        Sample::new(Pad { before, behind, mode, value: draw.real(-1.0..=1.0) }, vec![input])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pad(mode: PadMode, before: usize, behind: usize) -> Pad {
        Pad { before: vec![before], behind: vec![behind], mode, value: 9.0 }
    }

    fn check(mode: PadMode, expected: [f32; 7]) {
        let x = ArrayD::from_shape_fn(vec![1, 3], |at| at[1] as f32);
        let padded = pad(mode, 2, 2).eval(&[x.view()], &[]);
        assert_eq!(padded[0].as_slice(), Some(&expected[..]), "{mode:?}");
    }

    #[test]
    fn modes() {
        check(PadMode::Constant, [9.0, 9.0, 0.0, 1.0, 2.0, 9.0, 9.0]);
        check(PadMode::Reflect, [2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0]);
        check(PadMode::Edge, [0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 2.0]);
    }

    fn check_refused(pad: Pad, expected: &str) {
        assert_eq!(pad.output(&[&[3]]).unwrap_err().expected, expected, "{pad:?}");
    }

    #[test]
    fn refusals() {
        check_refused(pad(PadMode::Reflect, 3, 0), "more than 3 values along axis 0 to mirror");
        check_refused(
            pad(PadMode::Edge, usize::MAX, 0),
            "fewer values: the output has 2⁶³ or more",
        );
        let two = Pad { before: vec![1, 1], ..pad(PadMode::Edge, 0, 1) };
        let expected = "behind is [1], expected 2 values, as many as before the axes";
        assert_eq!(two.check().unwrap_err().to_string(), expected);
    }
}
