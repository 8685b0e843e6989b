//! Transposed convolution.

use ndarray::{ArrayD, ArrayViewD, Axis};
use serde::{Deserialize, Serialize};

use super::conv::{one, yes};
use super::padding::Padding;
use super::spec::{
    BadField, Draw, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, Start, at_least, demand,
    mismatch, per_axis, spatial,
};
use super::window::Sweep;

/// A transposed convolution over any number of spatial axes: the gradient of a convolution with the same settings.
///
/// # Shapes
/// `weight`: `[S, T / groups, k₀, …]`; `bias`: `[T]`; input `[S, H₀, …]`; output `[T, H′₀, …]` with
/// H′ = (H − 1) · stride − padding + dilation · (k − 1) + 1 + output padding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvTranspose {
    /// Input channels S; those of the input where it is left out of a file.
    #[serde(default)]
    pub in_channels: usize,
    /// Output channels T.
    pub out_channels: usize,
    /// Kernel size of each spatial axis, vertical first.
    pub kernel: Vec<usize>,
    /// Step in the output for each step in the input; 1 where it is left out of a file.
    #[serde(default)]
    pub stride: Vec<usize>,
    /// What is cut off the output, before and behind each axis; nothing where it is left out of a file.
    #[serde(default)]
    pub padding: Padding,
    /// What is added behind each axis of the output; nothing where it is left out of a file.
    #[serde(default)]
    pub output_padding: Vec<usize>,
    /// Distance between kernel taps; 1 where it is left out of a file.
    #[serde(default)]
    pub dilation: Vec<usize>,
    /// Number of groups that input and output channels are split into.
    #[serde(default = "one")]
    pub groups: usize,
    /// Whether the layer adds a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

impl ConvTranspose {
    fn sweep(&self) -> Sweep<'_> {
        let Self { kernel, stride, padding, dilation, .. } = self;
        Sweep { kernel, stride, padding, dilation, ceil: false }
    }

    /// What is cut off before and behind `axis`.
    fn cut(&self, axis: usize) -> [usize; 2] {
        match &self.padding {
            Padding::Each(pairs) => pairs.get(axis).copied().unwrap_or([0; 2]),
            Padding::Same | Padding::SameLower => [0; 2],
        }
    }

    /// Output size of spatial axis `axis` for an input of `size` pixels, or `None` where nothing is left.
    pub fn output_size(&self, axis: usize, size: usize) -> Option<usize> {
        let [before, behind] = self.cut(axis);
        let reach = self.sweep().reach(axis) + self.output_padding[axis];
        let whole = size.checked_sub(1)?.checked_mul(self.stride[axis])?.checked_add(reach)?;
        whole.checked_sub(before + behind).filter(|&size| size > 0)
    }

    /// `[S, T / groups, k₀, …]`.
    pub fn weight_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.in_channels, self.out_channels / self.groups.max(1)];
        shape.extend(&self.kernel);
        shape
    }

    /// What inputs come to a size along spatial axis `axis`.
    fn refused(&self, axis: usize) -> String {
        let [before, behind] = self.cut(axis);
        let reach = self.sweep().reach(axis) + self.output_padding[axis];
        match (before + behind + 1).saturating_sub(reach).div_ceil(self.stride[axis]) + 1 {
            // Some fit: this one is too large.
            1 => format!("fewer pixels along spatial axis {axis}: the output has 2⁶³ or more"),
            least => format!("at least {least} pixels along spatial axis {axis}"),
        }
    }

    fn taps(&self) -> usize {
        self.kernel.iter().fold(1, |taps, size| taps.saturating_mul(*size))
    }
}

impl OpSpec for ConvTranspose {
    fn params(&self) -> Vec<ParamSpec> {
        let groups = self.groups.max(1);
        let shape = self.weight_shape();
        // Every output value sums over the inputs of its group, and on average over taps / stride of the taps.
        let stride = self.stride.iter().fold(1_usize, |steps, step| steps.saturating_mul(*step));
        let sum = (self.in_channels / groups).saturating_mul(self.taps());
        let fan_in = (sum / stride.max(1)).max(1);
        let start = Start::Gaussian { fan_in };
        let mut specs = vec![ParamSpec { slot: "weight", shape, role: ParamRole::Weight, start }];
        if self.bias {
            specs.push(ParamSpec::bias(self.out_channels));
        }
        specs
    }

    fn check(&self) -> Result<(), BadField> {
        let axes = self.kernel.len();
        if !self.padding.is_explicit() {
            let expected =
                "one number or pair per spatial axis: a transposed convolution pads by none itself";
            return Err(self.padding.wrong(expected.into()));
        }
        self.sweep().check()?;
        per_axis("output_padding", &self.output_padding, axes, false)?;
        for axis in 0..axes {
            let most = self.stride[axis].max(self.dilation[axis]);
            let expected =
                format!("below the larger of stride and dilation, {most}, along axis {axis}");
            demand(
                self.output_padding[axis] < most,
                "output_padding",
                &self.output_padding,
                expected,
            )?;
        }
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
        for (sizes, size) in
            [(&mut self.stride, 1), (&mut self.dilation, 1), (&mut self.output_padding, 0)]
        {
            if sizes.is_empty() {
                *sizes = vec![size; axes];
            }
        }
        self.padding.complete(axes);
    }

    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
        spatial(inputs[0], self.kernel.len())?;
        if inputs[0][0] != self.in_channels {
            return mismatch(0, format!("{} channels", self.in_channels));
        }
        let mut output = vec![self.out_channels];
        for (axis, &size) in inputs[0][1..].iter().enumerate() {
            let Some(size) = self.output_size(axis, size) else {
                return mismatch(0, self.refused(axis));
            };
            output.push(size);
        }
        Ok(vec![output])
    }

    /// Every input value goes through all taps to the output channels of its group.
    fn macs(&self, inputs: &[&[usize]], _outputs: &[Shape]) -> usize {
        let outputs = (self.out_channels / self.groups).saturating_mul(self.taps());
        inputs[0].iter().fold(outputs, |macs, &size| macs.saturating_mul(size))
    }

    fn eval(
        &self,
        inputs: &[ArrayViewD<'_, f32>],
        params: &[ArrayViewD<'_, f32>],
    ) -> Vec<ArrayD<f32>> {
        let (x, weight) = (&inputs[0], &params[0]);
        let axes = self.kernel.len();
        let (rows, columns) = (self.in_channels / self.groups, self.out_channels / self.groups);
        let mut shape = vec![x.shape()[0], self.out_channels];
        shape
            .extend((0..axes).map(|axis| self.output_size(axis, x.shape()[axis + 2]).unwrap_or(0)));
        let mut y = ArrayD::<f64>::zeros(shape);
        if let Some(bias) = params.get(1) {
            for (channel, mut map) in y.axis_iter_mut(Axis(1)).enumerate() {
                map.fill(f64::from(bias[[channel]]));
            }
        }
        for (at, value) in x.indexed_iter() {
            let group = at[1] / rows;
            for (tap, factor) in weight.index_axis(Axis(0), at[1]).indexed_iter() {
                let mut there = vec![at[0], group * columns + tap[0]];
                for axis in 0..axes {
                    let place =
                        at[axis + 2] * self.stride[axis] + tap[axis + 1] * self.dilation[axis];
                    // Wraps to a huge position, which `get_mut` refuses, where it is cut off.
                    there.push(place.wrapping_sub(self.cut(axis)[0]));
                }
                if let Some(y) = y.get_mut(there.as_slice()) {
                    *y += f64::from(*value) * f64::from(*factor);
                }
            }
        }
        vec![y.mapv(|value| value as f32)]
    }

    fn sample(draw: &mut Draw) -> Sample<Self> {
        let axes = draw.size(1..=3);
        let groups = draw.size(1..=3);
        let (stride, dilation) = (draw.sizes(axes, 1..=3), draw.sizes(axes, 1..=2));
        let added =
            (0..axes).map(|axis| draw.size(0..=stride[axis].max(dilation[axis]) - 1)).collect();
        let conv = ConvTranspose {
            in_channels: groups * draw.size(1..=3),
            out_channels: groups * draw.size(1..=3),
            kernel: draw.sizes(axes, 1..=3),
            stride,
            padding: Padding::Each(
                (0..axes).map(|_| [draw.size(0..=1), draw.size(0..=1)]).collect(),
            ),
            output_padding: added,
            dilation,
            groups,
            bias: draw.flag(),
        };
        // Three pixels are more than the padding cuts off.
        let sizes = draw.sizes(axes, 3..=5);
        let input = [vec![conv.in_channels], sizes].concat();
        Sample::new(conv, vec![input])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One axis, one channel, weights 1, 10, 100.
    fn conv(stride: usize, dilation: usize, padding: [usize; 2], added: usize) -> ConvTranspose {
        ConvTranspose {
            in_channels: 1,
            out_channels: 1,
            kernel: vec![3],
            stride: vec![stride],
            padding: Padding::Each(vec![padding]),
            output_padding: vec![added],
            dilation: vec![dilation],
            groups: 1,
            bias: false,
        }
    }

    /// Of the pixels 1, 2.
    fn check(conv: ConvTranspose, expected: &[f32]) {
        conv.check().unwrap();
        let x = ndarray::arr3(&[[[1.0, 2.0]]]).into_dyn();
        let weight = ndarray::arr3(&[[[1.0, 10.0, 100.0]]]).into_dyn();
        let y = conv.eval(&[x.view()], &[weight.view()]);
        assert_eq!(y[0].as_slice(), Some(expected), "{conv:?}");
        assert_eq!(conv.output(&[&[1, 2]]).unwrap(), [[1, expected.len()]], "{conv:?}");
    }

    #[test]
    fn values_by_hand() {
        check(conv(1, 1, [0, 0], 0), &[1.0, 12.0, 120.0, 200.0]);
        check(conv(2, 1, [0, 0], 0), &[1.0, 10.0, 102.0, 20.0, 200.0]);
        check(conv(2, 1, [1, 2], 1), &[10.0, 102.0, 20.0]);
        check(conv(2, 1, [0, 0], 1), &[1.0, 10.0, 102.0, 20.0, 200.0, 0.0]);
        check(conv(1, 2, [0, 1], 0), &[1.0, 2.0, 10.0, 20.0, 100.0]);
        check(conv(4, 1, [0, 0], 0), &[1.0, 10.0, 100.0, 0.0, 2.0, 20.0, 200.0]);
    }

    /// Two groups of two inputs and one output: the weights of an input go to the output of its group.
    #[test]
    fn groups() {
        let conv = ConvTranspose {
            in_channels: 4,
            out_channels: 2,
            kernel: vec![1],
            groups: 2,
            ..conv(1, 1, [0, 0], 0)
        };
        let x = ndarray::arr3(&[[[1.0], [2.0], [3.0], [4.0]]]).into_dyn();
        let weight = ndarray::arr3(&[[[1.0]], [[10.0]], [[100.0]], [[1000.0]]]).into_dyn();
        let y = conv.eval(&[x.view()], &[weight.view()]);
        assert_eq!(y[0].as_slice(), Some(&[21.0, 4300.0][..]));
        assert_eq!(conv.macs(&[&[4, 5]], &[vec![2, 5]]), 4 * 5);
    }

    fn check_start(stride: usize, expected: usize) {
        let conv = ConvTranspose { in_channels: 6, groups: 2, ..conv(stride, 1, [0, 0], 0) };
        assert_eq!(conv.params()[0].start, Start::Gaussian { fan_in: expected }, "{stride}");
    }

    #[test]
    fn starts_by_the_taps_that_meet() {
        check_start(1, 9);
        check_start(2, 4);
        check_start(3, 3);
        check_start(10, 1);
    }

    fn check_refused(conv: ConvTranspose, expected: &str) {
        assert_eq!(conv.check().unwrap_err().to_string(), expected);
    }

    #[test]
    fn refusals() {
        check_refused(
            ConvTranspose { padding: Padding::Same, ..conv(1, 1, [0, 0], 0) },
            "padding is \"same\", expected one number or pair per spatial axis: a transposed convolution pads by none itself",
        );
        check_refused(
            conv(2, 1, [0, 0], 2),
            "output_padding is [2], expected below the larger of stride and dilation, 2, along axis 0",
        );
        check_refused(
            conv(usize::MAX, 1, [0, 0], 0),
            "stride is [18446744073709551615], expected at most 1073741824 along each axis",
        );
    }

    fn check_mismatch(conv: ConvTranspose, size: usize, expected: &str) {
        assert_eq!(conv.output(&[&[1, size]]).unwrap_err().expected, expected, "{conv:?}");
    }

    #[test]
    fn inputs_that_come_to_nothing() {
        check_mismatch(conv(2, 1, [3, 3], 0), 2, "at least 3 pixels along spatial axis 0");
        assert_eq!(conv(2, 1, [3, 3], 0).output(&[&[1, 3]]).unwrap(), [[1, 1]]);
        check_mismatch(
            conv(1 << 30, 1, [0, 0], 0),
            1 << 40,
            "fewer pixels along spatial axis 0: the output has 2⁶³ or more",
        );
    }
}
