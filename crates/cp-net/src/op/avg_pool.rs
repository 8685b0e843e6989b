//! Average pooling.

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use super::padding::Padding;
use super::spec::{BadField, Draw, Mismatch, OpSpec, Sample, Shape};
use super::window::Sweep;

/// Mean over each window.
///
/// # Shapes
/// Input `[C, H₀, …]`; output `[C, H′₀, …]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AvgPool {
    /// Window size of each spatial axis.
    pub kernel: Vec<usize>,
    /// Step of each spatial axis; 1 where it is left out of a file.
    #[serde(default)]
    pub stride: Vec<usize>,
    /// Padding around the map; none where it is left out of a file.
    #[serde(default)]
    pub padding: Padding,
    /// Round output sizes up, as Caffe does; a last window that would start beyond the map and its leading padding is dropped.
    #[serde(default)]
    pub ceil: bool,
    /// Whether padding counts as zeros in the mean; what a window that was rounded up reaches beyond it never counts.
    #[serde(default = "super::conv::yes")]
    pub count_padding: bool,
}

impl AvgPool {
    fn sweep<'a>(&'a self, dilation: &'a [usize]) -> Sweep<'a> {
        let Self { kernel, stride, padding, ceil, .. } = self;
        Sweep { kernel, stride, padding, dilation, ceil: *ceil }
    }
}

impl OpSpec for AvgPool {
    fn check(&self) -> Result<(), BadField> {
        self.sweep(&vec![1; self.kernel.len()]).check()?;
        self.padding.check_pool(&self.kernel)
    }

    fn complete(&mut self, _inputs: &[&[usize]]) {
        let axes = self.kernel.len();
        if self.stride.is_empty() {
            self.stride = vec![1; axes];
        }
        self.padding.complete(axes);
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let sizes = self.sweep(&vec![1; self.kernel.len()]).sizes(inputs[0])?;
        Ok(vec![[vec![inputs[0][0]], sizes].concat()])
    }

    fn eval(&self, inputs: &[ArrayViewD<'_, f32>], _: &[ArrayViewD<'_, f32>]) -> Vec<ArrayD<f32>> {
        let unit = vec![1; self.kernel.len()];
        vec![self.sweep(&unit).pooled(&inputs[0], |values, clipped| {
            let count = if self.count_padding { clipped } else { values.len() };
            let sum: f64 = values.iter().map(|value| f64::from(*value)).sum();
            (sum / count as f64) as f32
        })]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let axes = draw.size(1..=3);
        let kernel = draw.sizes(axes, 1..=3);
        let padding = Padding::sample_pool(draw, &kernel);
        let pool = AvgPool {
            stride: draw.sizes(axes, 1..=3),
            ceil: draw.flag() && padding.is_explicit(),
            padding,
            count_padding: draw.flag(),
            kernel,
        };
        let sizes: Vec<usize> = pool.kernel.iter().map(|size| size + draw.size(0..=4)).collect();
        let channels = draw.size(1..=3);
        Sample::new(pool, vec![[vec![channels], sizes].concat()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows of 3 that move by 2.
    fn pool(padding: [usize; 2], ceil: bool, count_padding: bool) -> AvgPool {
        let padding = Padding::Each(vec![padding]);
        AvgPool { kernel: vec![3], stride: vec![2], padding, ceil, count_padding }
    }

    /// Of the pixels 6, 12, 18, 24.
    fn check(pool: AvgPool, expected: &[f32]) {
        pool.check().unwrap();
        let x = ndarray::arr3(&[[[6.0, 12.0, 18.0, 24.0]]]).into_dyn();
        assert_eq!(pool.eval(&[x.view()], &[])[0].as_slice(), Some(expected), "{pool:?}");
        assert_eq!(pool.output(&[&[1, 4]]).unwrap(), [[1, expected.len()]], "{pool:?}");
    }

    #[test]
    fn what_counts() {
        check(pool([0, 0], false, true), &[12.0]);
        check(pool([1, 0], false, true), &[6.0, 18.0]);
        check(pool([1, 0], false, false), &[9.0, 18.0]);
        // Rounded up, the last window reaches over 18, 24 and one beyond, which never counts.
        check(pool([0, 0], true, true), &[12.0, 21.0]);
        check(pool([0, 0], true, false), &[12.0, 21.0]);
        // 24, a zero of the padding, and one beyond.
        check(pool([1, 1], true, true), &[6.0, 18.0, 12.0]);
        check(pool([1, 1], true, false), &[9.0, 18.0, 24.0]);
    }

    fn check_refused(pool: AvgPool, expected: &str) {
        assert_eq!(pool.check().unwrap_err().to_string(), expected);
    }

    #[test]
    fn refusals() {
        check_refused(
            pool([1, 2], false, true),
            "padding is [[1, 2]], expected at most half of the window",
        );
        check_refused(
            AvgPool { kernel: vec![usize::MAX], ..pool([0, 0], false, true) },
            "kernel is [18446744073709551615], expected at most 1073741824 along each axis",
        );
        check_refused(
            pool([usize::MAX, 0], false, true),
            "padding is [[18446744073709551615, 0]], expected at most 1073741824 on each side",
        );
        let small = pool([0, 0], false, true).output(&[&[1, 2]]).unwrap_err();
        assert_eq!(small.expected, "at least 3 pixels along spatial axis 0");
    }
}
