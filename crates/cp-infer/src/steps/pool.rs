//! [`Pools`]: every pooling is a list of windows along each axis.

use cp_net::{AvgPool, MaxPool, OpSpec};

use crate::kernels::pool::{Extent, Pool, Pooling};
use crate::map::Map;
use crate::step::{BufferId, Frame, Step};

/// A pooling: windows that move, that split a map evenly, or that are all of it.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) pooling: Pooling,
    pub(crate) rows: Vec<Extent>,
    pub(crate) columns: Vec<Extent>,
    pub(crate) input_map: Map,
    pub(crate) output_map: Map,
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
}

impl Step for Pools {
    fn run(&self, frame: &mut Frame<'_>) {
        let (level, count) = (frame.level, frame.count);
        let open = frame.open(self.output, [self.input]);
        let ([input], output) = (open.inputs, open.output);
        let (from, to) = (self.input_map.pixels(), self.output_map.pixels());
        for block in 0..self.input_map.blocks() {
            for image in 0..count {
                let at = input.start + block * input.stride + image * from;
                let made = output.start + block * output.stride + image * to;
                level.run(Pool {
                    pooling: self.pooling,
                    rows: &self.rows,
                    columns: &self.columns,
                    input: &input.blocks()[at..][..from],
                    width: self.input_map.width,
                    output: &mut output.blocks[made..][..to],
                });
            }
        }
    }
}

/// One axis of a moving window.
#[derive(Debug, Clone, Copy)]
struct Axis {
    size: usize,
    windows: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    padding: [usize; 2],
    /// Whether means count the padding.
    count_padding: bool,
}

impl Axis {
    fn extents(self) -> Vec<Extent> {
        let [before, behind] = self.padding;
        let extent = |window: usize| {
            let first = window * self.stride;
            // Taps in the padding in front, and taps in front of what is behind the map.
            let skipped = before.saturating_sub(first).div_ceil(self.dilation);
            let end = (self.size + before).saturating_sub(first).div_ceil(self.dilation);
            let count = end.min(self.kernel) - skipped;
            let reach = (self.kernel - 1) * self.dilation + 1;
            let clipped = (first + reach).min(self.size + before + behind) - first;
            Extent {
                start: first + skipped * self.dilation - before,
                count,
                step: self.dilation,
                of: if self.count_padding { clipped } else { count },
            }
        };
        (0..self.windows).map(extent).collect()
    }
}

/// A window of one value along an axis that a sound does not have.
const MISSING: Extent = Extent { start: 0, count: 1, step: 1, of: 1 };

/// The windows along rows and columns of a pooling over one or two axes.
fn both(axes: Vec<Vec<Extent>>) -> Option<[Vec<Extent>; 2]> {
    let mut axes = axes.into_iter();
    match (axes.next(), axes.next(), axes.next()) {
        (Some(columns), None, None) => Some([vec![MISSING], columns]),
        (Some(rows), Some(columns), None) => Some([rows, columns]),
        _ => None,
    }
}

/// The windows of a maximum pooling over maps of shape `input`, `[C, …]`; `None` where it has more than two axes.
pub(crate) fn max_windows(pool: &MaxPool, input: &[usize]) -> Option<[Vec<Extent>; 2]> {
    let output = pool.output(&[input]).ok()?;
    let axis = |axis: usize| {
        let (size, windows) = (input[axis + 1], output[0][axis + 1]);
        let axis = Axis {
            size,
            windows,
            kernel: pool.kernel[axis],
            stride: pool.stride[axis],
            dilation: pool.dilation[axis],
            padding: pool.padding(axis, size),
            count_padding: false,
        };
        axis.extents()
    };
    both((0..pool.kernel.len()).map(axis).collect())
}

/// The same of a mean pooling.
pub(crate) fn mean_windows(pool: &AvgPool, input: &[usize]) -> Option<[Vec<Extent>; 2]> {
    let output = pool.output(&[input]).ok()?;
    let axis = |axis: usize| {
        let (size, windows) = (input[axis + 1], output[0][axis + 1]);
        let (kernel, stride) = (pool.kernel[axis], pool.stride[axis]);
        let axis = Axis {
            size,
            windows,
            kernel,
            stride,
            dilation: 1,
            padding: pool.padding.amounts(axis, size, kernel, stride),
            count_padding: pool.count_padding,
        };
        axis.extents()
    };
    both((0..pool.kernel.len()).map(axis).collect())
}

/// Windows that split each axis of `[C, …]` evenly into `output` parts.
pub(crate) fn even_windows(input: &[usize], output: &[usize]) -> Option<[Vec<Extent>; 2]> {
    let axis = |(axis, &count): (usize, &usize)| {
        let size = input[axis + 1];
        let extent = |index: usize| {
            let (start, end) = (index * size / count, ((index + 1) * size).div_ceil(count));
            Extent { start, count: end - start, step: 1, of: end - start }
        };
        (0..count).map(extent).collect()
    };
    both(output.iter().enumerate().map(axis).collect())
}
