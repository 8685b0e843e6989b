//! The windows of adaptive and global poolings.

use ndarray::{ArrayD, ArrayViewD, Axis, Slice};

/// `reduce` of the values of every window: window i of n over size s is ⌊i·s/n⌋ … ⌈(i+1)·s/n⌉.
///
/// # Shapes
/// `x`: `[B, C, …]`; result: `[B, C, output]`.
pub(super) fn pooled(
    x: &ArrayViewD<'_, f32>,
    output: &[usize],
    reduce: impl Fn(&[f32]) -> f32,
) -> ArrayD<f32> {
    let shape = [&x.shape()[..2], output].concat();
    ArrayD::from_shape_fn(shape, |at| {
        let mut window = x.view();
        for (axis, &count) in output.iter().enumerate() {
            let (index, size) = (at[axis + 2], x.shape()[axis + 2]);
            let range = index * size / count..((index + 1) * size).div_ceil(count);
            window.slice_axis_inplace(Axis(axis + 2), Slice::from(range));
        }
        for axis in 0..2 {
            window.slice_axis_inplace(Axis(axis), Slice::from(at[axis]..at[axis] + 1));
        }
        reduce(&window.iter().copied().collect::<Vec<f32>>())
    })
}

/// Their mean, summed in f64.
pub(super) fn mean(values: &[f32]) -> f32 {
    let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
    (sum / values.len() as f64) as f32
}

/// The largest.
pub(super) fn largest(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the pixels 0, 1, 2, …: the first and the last of each window.
    fn check(size: usize, count: usize, expected: &[(f32, f32)]) {
        let x = ArrayD::from_shape_fn(vec![1, 1, size], |at| at[2] as f32);
        let smallest = |values: &[f32]| values.iter().copied().fold(f32::INFINITY, f32::min);
        let ends = [pooled(&x.view(), &[count], smallest), pooled(&x.view(), &[count], largest)];
        let found: Vec<(f32, f32)> = ends[0].iter().copied().zip(ends[1].iter().copied()).collect();
        assert_eq!(found, expected, "{size} to {count}");
    }

    #[test]
    fn windows() {
        check(6, 3, &[(0.0, 1.0), (2.0, 3.0), (4.0, 5.0)]);
        check(5, 3, &[(0.0, 1.0), (1.0, 3.0), (3.0, 4.0)]);
        check(7, 3, &[(0.0, 2.0), (2.0, 4.0), (4.0, 6.0)]);
        check(2, 3, &[(0.0, 0.0), (0.0, 1.0), (1.0, 1.0)]);
        check(1, 2, &[(0.0, 0.0), (0.0, 0.0)]);
        check(4, 1, &[(0.0, 3.0)]);
    }
}
