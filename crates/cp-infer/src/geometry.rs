//! [`Geometry`]: how a window moves over a map.

use cp_net::{Conv, OpSpec};

use crate::map::Map;

/// How the window of a convolution moves over a map; vertical first. A sound is a map of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) input: Map,
    pub(crate) output: Map,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) dilation: [usize; 2],
    /// Zeros in front of the first row and the first column.
    pub(crate) before: [usize; 2],
}

impl Geometry {
    /// Of a convolution with one or two spatial axes over a map of this shape, `[C, L]` or `[C, H, W]`; `None` where it has more.
    pub(crate) fn of(conv: &Conv, input: &[usize]) -> Option<Self> {
        let output = conv.output(&[input]).ok()?;
        let axes = conv.kernel.len();
        if !(1..=2).contains(&axes) {
            return None;
        }
        // A missing vertical axis has one row and one tap.
        let pair = |of: &dyn Fn(usize) -> usize, missing: usize| {
            if axes == 1 { [missing, of(0)] } else { [of(0), of(1)] }
        };
        Some(Self {
            input: Map::of(input)?,
            output: Map::of(&output[0])?,
            kernel: pair(&|axis| conv.kernel[axis], 1),
            stride: pair(&|axis| conv.stride[axis], 1),
            dilation: pair(&|axis| conv.dilation[axis], 1),
            before: pair(&|axis| conv.padding(axis, input[axis + 1])[0], 0),
        })
    }

    /// A window over the whole map.
    pub(crate) fn whole(input: Map, channels: usize) -> Self {
        Self {
            input,
            output: Map { channels, height: 1, width: 1 },
            kernel: [input.height, input.width],
            stride: [1; 2],
            dilation: [1; 2],
            before: [0; 2],
        }
    }

    /// Whether each output pixel is made of the input pixel of the same place.
    pub(crate) fn is_pointwise(self) -> bool {
        let same = (self.input.height, self.input.width) == (self.output.height, self.output.width);
        self.kernel == [1; 2] && self.stride == [1; 2] && self.before == [0; 2] && same
    }

    /// Pixels that the window reaches over along an axis.
    pub(crate) fn reach(self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilation[axis] + 1
    }

    /// Rows that `rows` neighboring output rows are made of.
    pub(crate) fn rows(self, rows: usize) -> usize {
        (rows - 1) * self.stride[0] + self.reach(0)
    }

    /// Columns of a row with its padding, as far as windows reach, or the map if it goes on.
    pub(crate) fn pitch(self) -> usize {
        let windows = (self.output.width - 1) * self.stride[1] + self.reach(1);
        windows.max(self.before[1] + self.input.width)
    }

    /// Whether all windows lie in the map.
    pub(crate) fn is_inside(self) -> bool {
        self.before == [0; 2]
            && self.rows(self.output.height) <= self.input.height
            && self.pitch() <= self.input.width
    }
}
