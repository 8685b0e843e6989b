//! Convolution.

use std::ops::Range;

use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, Slice};
use serde::{Deserialize, Serialize};

use super::padding::Padding;
use super::spec::{
    BadField, Draw, Mismatch, OpSpec, ParamSpec, Sample, Shape, at_least, demand, mismatch,
};
use super::window::Sweep;

/// A convolution (cross-correlation) over any number of spatial axes.
///
/// # Shapes
/// `weight`: `[T, S / groups, k₀, …]`; `bias`: `[T]`; input `[S, H₀, …]`; output `[T, H′₀, …]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Input channels S; those of the input where it is left out of a file.
    #[serde(default)]
    pub in_channels: usize,
    /// Output channels T.
    pub out_channels: usize,
    /// Kernel size of each spatial axis, vertical first.
    pub kernel: Vec<usize>,
    /// Step of the kernel along each axis, in pixels; 1 where it is left out of a file.
    #[serde(default)]
    pub stride: Vec<usize>,
    /// Zeros around the map; none where it is left out of a file.
    #[serde(default)]
    pub padding: Padding,
    /// Distance between kernel taps along each axis, in pixels; 1 where it is left out of a file.
    #[serde(default)]
    pub dilation: Vec<usize>,
    /// Number of groups that input and output channels are split into.
    #[serde(default = "one")]
    pub groups: usize,
    /// Whether the layer adds a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

pub(super) fn one() -> usize {
    1
}

pub(super) fn yes() -> bool {
    true
}

impl Conv {
    /// Stride 1, no padding, dilation 1, one group, with a bias.
    pub fn new(in_channels: usize, out_channels: usize, kernel: impl Into<Vec<usize>>) -> Self {
        let kernel = kernel.into();
        let axes = kernel.len();
        Self {
            in_channels,
            out_channels,
            kernel,
            stride: vec![1; axes],
            padding: Padding::none(axes),
            dilation: vec![1; axes],
            groups: 1,
            bias: true,
        }
    }

    /// `[T, S / groups, k₀, …]`.
    pub fn weight_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.out_channels, self.in_channels / self.groups.max(1)];
        shape.extend(&self.kernel);
        shape
    }

    /// Shape of one group's kernel, `[T/g, S/g, k₀, …]`.
    pub fn group_shape(&self) -> Vec<usize> {
        let mut shape = self.weight_shape();
        shape[0] /= self.groups.max(1);
        shape
    }

    /// Whether every spatial extent of the kernel is 1.
    pub fn is_pointwise(&self) -> bool {
        self.kernel.iter().all(|&taps| taps == 1)
    }

    /// Zeros before and behind spatial axis `axis` of an input of `size` pixels.
    pub fn padding(&self, axis: usize, size: usize) -> [usize; 2] {
        self.sweep().padding(axis, size)
    }

    /// Output size of spatial axis `axis` for an input of `size` pixels, or `None` where the kernel does not fit.
    pub fn output_size(&self, axis: usize, size: usize) -> Option<usize> {
        self.sweep().windows(axis, size)
    }

    /// The convolution along some of its axes alone, between other channels, without bias; the other axes have one tap and unit geometry.
    pub(crate) fn along(
        &self,
        axes: &[usize],
        [inputs, outputs]: [usize; 2],
        groups: usize,
    ) -> Self {
        let mut part = Self {
            groups,
            bias: false,
            padding: self.padding.only(axes),
            ..Self::new(inputs, outputs, vec![1; self.kernel.len()])
        };
        for &axis in axes {
            part.kernel[axis] = self.kernel[axis];
            part.stride[axis] = self.stride[axis];
            part.dilation[axis] = self.dilation[axis];
        }
        part
    }

    fn sweep(&self) -> Sweep<'_> {
        Sweep {
            kernel: &self.kernel,
            stride: &self.stride,
            padding: &self.padding,
            dilation: &self.dilation,
            ceil: false,
        }
    }
}

impl OpSpec for Conv {
    fn params(&self) -> Vec<ParamSpec> {
        let mut specs = vec![ParamSpec::weight(self.weight_shape())];
        if self.bias {
            specs.push(ParamSpec::bias(self.out_channels));
        }
        specs
    }

    fn check(&self) -> Result<(), BadField> {
        self.sweep().check()?;
        at_least("groups", self.groups, 1)?;
        for (field, channels) in
            [("in_channels", self.in_channels), ("out_channels", self.out_channels)]
        {
            let fits = channels > 0 && channels.is_multiple_of(self.groups);
            demand(
                fits,
                field,
                channels,
                format!("a positive multiple of the {} groups", self.groups),
            )?;
        }
        Ok(())
    }

    fn complete(&mut self, inputs: &[&[usize]]) {
        let axes = self.kernel.len();
        if self.in_channels == 0 {
            self.in_channels = inputs[0].first().copied().unwrap_or(0);
        }
        for steps in [&mut self.stride, &mut self.dilation] {
            if steps.is_empty() {
                *steps = vec![1; axes];
            }
        }
        self.padding.complete(axes);
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        let sizes = self.sweep().sizes(inputs[0])?;
        if inputs[0][0] != self.in_channels {
            return mismatch(0, format!("{} channels", self.in_channels));
        }
        Ok(vec![[vec![self.out_channels], sizes].concat()])
    }

    /// Every output value is a sum over the window in the channels of its group; taps in the padding count.
    fn macs(&self, _inputs: &[&[usize]], outputs: &[Shape]) -> usize {
        let channels = self.in_channels / self.groups;
        let sizes = outputs[0].iter().chain(&self.kernel).chain([&channels]);
        sizes.fold(1, |macs: usize, &size| macs.saturating_mul(size))
    }

    fn eval(
        &self,
        inputs: &[ArrayViewD<'_, f32>],
        params: &[ArrayViewD<'_, f32>],
    ) -> Vec<ArrayD<f32>> {
        let (x, weight) = (&inputs[0], &params[0]);
        let map = &x.shape()[2..];
        let (rows, columns) = (self.out_channels / self.groups, self.in_channels / self.groups);
        let sizes =
            map.iter().enumerate().map(|(axis, &size)| self.output_size(axis, size).unwrap_or(0));
        let shape: Vec<usize> =
            [x.shape()[0], self.out_channels].into_iter().chain(sizes).collect();
        let mut y = ArrayD::<f64>::zeros(shape);
        if let Some(bias) = params.get(1) {
            for (channel, mut map) in y.axis_iter_mut(Axis(1)).enumerate() {
                map.fill(f64::from(bias[[channel]]));
            }
        }
        let x = x.mapv(f64::from);
        for tap in ndarray::indices(IxDyn(&self.kernel)) {
            // Along each axis: the windows whose tap lies in the map, and where it lies for the first of them.
            let seen: Vec<(Range<usize>, usize)> = (0..map.len())
                .map(|axis| {
                    let [before, _] = self.padding(axis, map[axis]);
                    let (stride, offset) = (self.stride[axis], tap[axis] * self.dilation[axis]);
                    let first = before.saturating_sub(offset).div_ceil(stride);
                    let end = (map[axis] + before).saturating_sub(offset).div_ceil(stride);
                    let end = end.min(y.shape()[axis + 2]).max(first);
                    (first..end, (first * stride + offset).saturating_sub(before))
                })
                .collect();
            if seen.iter().any(|(windows, _)| windows.is_empty()) {
                continue;
            }
            for (channel, column) in
                (0..self.out_channels).flat_map(|row| (0..columns).map(move |column| (row, column)))
            {
                let at = [&[channel, column][..], ndarray::Dimension::slice(&tap)].concat();
                let source = x.index_axis(Axis(1), channel / rows * columns + column);
                let source = source.slice_each_axis(|axis| match axis.axis.index() {
                    0 => Slice::from(..),
                    index => {
                        let (windows, first) = &seen[index - 1];
                        let stride = self.stride[index - 1];
                        let end = first + (windows.len() - 1) * stride + 1;
                        Slice::from(*first..end).step_by(stride as isize)
                    }
                });
                let mut target = y.index_axis_mut(Axis(1), channel);
                let mut target = target.slice_each_axis_mut(|axis| match axis.axis.index() {
                    0 => Slice::from(..),
                    index => Slice::from(seen[index - 1].0.clone()),
                });
                target.scaled_add(f64::from(weight[at.as_slice()]), &source);
            }
        }
        vec![y.mapv(|value| value as f32)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let axes = draw.size(1..=3);
        let groups = draw.size(1..=3);
        let (inputs, outputs) = (groups * draw.size(1..=3), groups * draw.size(1..=3));
        let mut conv = Conv {
            kernel: draw.sizes(axes, 1..=3),
            stride: draw.sizes(axes, 1..=2),
            dilation: draw.sizes(axes, 1..=2),
            groups,
            bias: draw.flag(),
            ..Conv::new(inputs, outputs, vec![1; axes])
        };
        conv.padding = Padding::sample(draw, axes, 2);
        // As large as the reach of the window, which then fits whatever the padding is.
        let sizes: Vec<usize> =
            (0..axes).map(|axis| conv.sweep().reach(axis) + draw.size(0..=3)).collect();
        Sample::new(conv, vec![[vec![inputs], sizes].concat()])
    }
}
