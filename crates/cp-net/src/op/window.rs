//! The arithmetic of windows that move over spatial axes, for convolutions and poolings, and their slow sweep.

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use super::padding::Padding;
use super::spec::{BadField, Mismatch, Shape, demand, mismatch, per_axis, spatial};

/// Settings of windows beyond this are typing errors; the sums and products of a few such numbers stay below 2⁶³.
const MOST: usize = 1 << 30;

/// How a window moves: one entry per spatial axis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sweep<'a> {
    pub(super) kernel: &'a [usize],
    pub(super) stride: &'a [usize],
    pub(super) padding: &'a Padding,
    pub(super) dilation: &'a [usize],
    /// Round sizes up; a last window that would start beyond the map and what is before it is dropped.
    pub(super) ceil: bool,
}

impl Sweep<'_> {
    /// `Err` unless there is one setting for each spatial axis, none of them so large that a size could overflow.
    pub(super) fn check(&self) -> Result<(), BadField> {
        let axes = self.kernel.len();
        for (field, values) in
            [("kernel", self.kernel), ("stride", self.stride), ("dilation", self.dilation)]
        {
            per_axis(field, values, axes.max(1), true)?;
            let fits = values.iter().all(|&value| value <= MOST);
            demand(fits, field, values, format!("at most {MOST} along each axis"))?;
        }
        self.padding.check(axes)?;
        match self.padding {
            Padding::Each(pairs) if pairs.iter().flatten().any(|&size| size > MOST) => {
                Err(self.padding.wrong(format!("at most {MOST} on each side")))
            }
            _ => Ok(()),
        }
    }

    /// Values that the window reaches over along `axis`.
    pub(super) fn reach(&self, axis: usize) -> usize {
        self.dilation[axis] * (self.kernel[axis] - 1) + 1
    }

    /// Padding before and behind `axis` of `size` values.
    pub(super) fn padding(&self, axis: usize, size: usize) -> [usize; 2] {
        self.padding.amounts(axis, size, self.reach(axis), self.stride[axis])
    }

    /// Number of windows along `axis` of `size` values, or `None` where none fits.
    ///
    /// With `ceil` it is rounded up, and a last window that would start beyond the map and its leading padding is dropped: the
    /// rule of torch (`pooling_output_shape`) and of Caffe (`pooling_layer.cpp`).
    pub(super) fn windows(&self, axis: usize, size: usize) -> Option<usize> {
        let [before, behind] = self.padding(axis, size);
        let stride = self.stride[axis];
        // room = size + padding − reach, and with `ceil` + stride − 1, which may save a window larger than the map.
        let room = (size + before + behind + if self.ceil { stride - 1 } else { 0 })
            .checked_sub(self.reach(axis))?;
        let windows = room / stride + 1;
        let beyond = self.ceil && (windows - 1) * stride >= size + before;
        Some(if beyond { windows - 1 } else { windows }).filter(|&windows| windows > 0)
    }

    /// The sizes of the output's spatial axes for an input `[C, …]`.
    pub(super) fn sizes(&self, input: &[usize]) -> Result<Shape, Mismatch> {
        spatial(input, self.kernel.len())?;
        let mut sizes = Vec::with_capacity(self.kernel.len());
        for (axis, &size) in input[1..].iter().enumerate() {
            let Some(windows) = self.windows(axis, size) else {
                let [before, behind] = self.padding(axis, size);
                let least = self.reach(axis).saturating_sub(before + behind);
                return mismatch(0, format!("at least {least} pixels along spatial axis {axis}"));
            };
            sizes.push(windows);
        }
        Ok(sizes)
    }

    /// Calls `see` with the position of every tap of the window at `at` (both behind the channels): the tap, and the position in
    /// the map, or `None` where that lies in the padding.
    pub(super) fn taps(
        &self,
        at: &[usize],
        map: &[usize],
        mut see: impl FnMut(&[usize], Option<&[usize]>),
    ) {
        for tap in ndarray::indices(IxDyn(self.kernel)) {
            let there: Option<Vec<usize>> = (0..map.len())
                .map(|axis| {
                    let [before, _] = self.padding(axis, map[axis]);
                    let from_start = at[axis] * self.stride[axis] + tap[axis] * self.dilation[axis];
                    from_start.checked_sub(before).filter(|&position| position < map[axis])
                })
                .collect();
            see(ndarray::Dimension::slice(&tap), there.as_deref());
        }
    }

    /// `reduce` of what every window of every channel holds: its values inside the map, and its size clipped to map and padding.
    ///
    /// # Shapes
    /// `x`: `[B, C, …]`; result: `[B, C, …]`.
    pub(super) fn pooled(
        &self,
        x: &ArrayViewD<'_, f32>,
        reduce: impl Fn(&[f32], usize) -> f32,
    ) -> ArrayD<f32> {
        let map = &x.shape()[2..];
        let mut shape = x.shape()[..2].to_vec();
        shape.extend(
            map.iter().enumerate().map(|(axis, &size)| self.windows(axis, size).unwrap_or(0)),
        );
        ArrayD::from_shape_fn(shape, |at| {
            let at = ndarray::Dimension::slice(&at);
            let mut values = Vec::new();
            self.taps(&at[2..], map, |_, there| {
                if let Some(there) = there {
                    values.push(x[[&at[..2], there].concat().as_slice()]);
                }
            });
            let clipped = (0..map.len()).map(|axis| {
                let [before, behind] = self.padding(axis, map[axis]);
                let first = at[axis + 2] * self.stride[axis];
                (first + self.reach(axis)).min(map[axis] + before + behind) - first
            });
            reduce(&values, clipped.product())
        })
    }
}
