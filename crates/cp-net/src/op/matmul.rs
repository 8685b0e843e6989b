//! Matrix product of two values.

use ndarray::{ArrayD, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

use super::broadcast::{broadcast, sample_shapes};
use super::spec::{Draw, Mismatch, OpSpec, Sample, Shape, mismatch};

/// The matrix products of the last two axes of two values; the axes in front of them are broadcast.
///
/// # Shapes
/// Inputs `[…, M, K]` and `[…, K, N]`; output `[…, M, N]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatMul {}

impl OpSpec for MatMul {
    fn arity(&self) -> RangeInclusive<usize> {
        2..=2
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let [a @ .., rows, inner] = inputs[0] else {
            return mismatch(0, "[…, M, K]: two axes or more behind the batch axis");
        };
        match inputs[1] {
            [b @ .., depth, columns] if depth == inner => {
                let Ok(front) = broadcast(&[a, b]) else {
                    return mismatch(
                        1,
                        format!(
                            "[…, {inner}, N], where … is {a:?}, or a size of 1 where it differs"
                        ),
                    );
                };
                let front = front.into_iter().flatten();
                Ok(vec![front.chain([*rows, *columns]).collect()])
            }
            _ => mismatch(1, format!("[…, {inner}, N]")),
        }
    }

    fn macs(&self, inputs: &[&[usize]], outputs: &[Shape]) -> usize {
        let inner = inputs[0].last().copied().unwrap_or(0);
        outputs[0].iter().fold(inner, |macs, &size| macs.saturating_mul(size))
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let axes = inputs.iter().map(ArrayViewD::ndim).max().unwrap_or(0);
        let aligned = |input: &ArrayViewD<'_, f32>| {
            let mut input = input.to_owned();
            while input.ndim() < axes {
                input = input.insert_axis(Axis(1));
            }
            input
        };
        let (a, b) = (aligned(&inputs[0]), aligned(&inputs[1]));
        let mut shape: Vec<usize> =
            a.shape().iter().zip(b.shape()).map(|(a, b)| if *a == 1 { *b } else { *a }).collect();
        (shape[axes - 2], shape[axes - 1]) = (a.shape()[axes - 2], b.shape()[axes - 1]);
        vec![ArrayD::from_shape_fn(shape, |at| {
            let front = |of: &ArrayD<f32>| -> Vec<usize> {
                (0..axes - 2).map(|axis| if of.shape()[axis] == 1 { 0 } else { at[axis] }).collect()
            };
            let (front_a, front_b) = (front(&a), front(&b));
            let sum: f64 = (0..a.shape()[axes - 1])
                .map(|k| {
                    let x = a[[&front_a[..], &[at[axes - 2], k]].concat().as_slice()];
                    let y = b[[&front_b[..], &[k, at[axes - 1]]].concat().as_slice()];
                    f64::from(x) * f64::from(y)
                })
                .sum();
            sum as f32
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let fronts = if draw.flag() { sample_shapes(draw, 2) } else { vec![Vec::new(); 2] };
        let [rows, inner, columns] = [0; 3].map(|_| draw.size(1..=5));
        let a = [&fronts[0][..], &[rows, inner]].concat();
        let b = [&fronts[1][..], &[inner, columns]].concat();
        Sample::new(MatMul {}, vec![a, b])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: &[usize], b: &[usize], expected: Result<&[usize], (usize, &str)>) {
        let output = MatMul {}.output(&[a, b]).map(|shapes| shapes[0].clone());
        let output = output.map_err(|error| (error.input, error.expected));
        let output = output.as_deref().map_err(|(input, expected)| (*input, expected.as_str()));
        assert_eq!(output, expected, "{a:?} {b:?}");
    }

    #[test]
    fn shapes() {
        check(&[2, 3], &[3, 4], Ok(&[2, 4]));
        check(&[5, 2, 3], &[3, 4], Ok(&[5, 2, 4]));
        check(&[5, 1, 2, 3], &[6, 3, 4], Ok(&[5, 6, 2, 4]));
        check(&[3], &[3, 4], Err((0, "[…, M, K]: two axes or more behind the batch axis")));
        check(&[2, 3], &[4, 3], Err((1, "[…, 3, N]")));
        check(&[2, 3], &[3], Err((1, "[…, 3, N]")));
        let expected = "[…, 3, N], where … is [5], or a size of 1 where it differs";
        check(&[5, 2, 3], &[6, 3, 4], Err((1, expected)));
    }

    /// A product of two examples with one value that does not depend on the example.
    #[test]
    fn values_by_hand() {
        let a = ndarray::arr3(&[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]]).into_dyn();
        let b = ndarray::arr3(&[[[1.0, 10.0], [100.0, 1000.0]]]).into_dyn();
        let y = MatMul {}.eval(&[a.view(), b.view()], &[]);
        let expected = [201.0, 2010.0, 403.0, 4030.0, 100.0, 1000.0, 1.0, 10.0];
        assert_eq!(y[0].as_slice(), Some(&expected[..]));
    }
}
