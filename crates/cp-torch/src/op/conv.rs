//! Layers with a kernel: convolutions over any number of axes, and linear layers.

use cp_net::ConvGeometry;
use tch::{TchError, Tensor};

use crate::convert::dims;

/// Convolution over 1 to 3 spatial axes.
///
/// # Shapes
/// `x`: `[B, S, H₀, …]`; `weight`: `[T, S / groups, k₀, …]`; `bias`: `[T]`; result: `[B, T, H′₀, …]`.
pub(crate) fn conv(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    geometry: &ConvGeometry,
) -> Result<Tensor, TchError> {
    let ConvGeometry { stride, padding, dilation, groups } = geometry;
    let (stride, padding, dilation) = (dims(stride), dims(padding), dims(dilation));
    x.f_convolution(
        weight,
        bias,
        &stride,
        &padding,
        &dilation,
        false,
        vec![0; stride.len()],
        *groups as i64,
    )
}

/// x Wᵀ + b.
///
/// # Shapes
/// `x`: `[B, in]`; `weight`: `[out, in]`; `bias`: `[out]`; result: `[B, out]`.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    x.f_linear(weight, bias)
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};

    use super::*;
    use crate::layout::is_channels_last;
    use crate::testing::{assert_close, both_layouts, random};

    /// The definition, value by value, over any number of axes.
    fn conv_slow(
        x: &ArrayD<f32>,
        weight: &ArrayD<f32>,
        bias: &ArrayD<f32>,
        geometry: &ConvGeometry,
    ) -> ArrayD<f32> {
        let axes = geometry.stride.len();
        let (per_group_out, per_group_in) =
            (weight.shape()[0] / geometry.groups, weight.shape()[1]);
        let mut shape = vec![x.shape()[0], weight.shape()[0]];
        for axis in 0..axes {
            shape.push(
                geometry.output_size(axis, x.shape()[axis + 2], weight.shape()[axis + 2]).unwrap(),
            );
        }
        ArrayD::from_shape_fn(IxDyn(&shape), |at| {
            let group = at[1] / per_group_out;
            let mut sum = bias[at[1]];
            for channel in 0..per_group_in {
                for tap in ndarray::indices(&weight.shape()[2..]) {
                    let mut there = vec![at[0], group * per_group_in + channel];
                    let mut kernel_at = vec![at[1], channel];
                    for axis in 0..axes {
                        let position = at[axis + 2] * geometry.stride[axis]
                            + tap[axis] * geometry.dilation[axis];
                        there.push(position.wrapping_sub(geometry.padding[axis]));
                        kernel_at.push(tap[axis]);
                    }
                    sum += x.get(there.as_slice()).copied().unwrap_or(0.0)
                        * weight[kernel_at.as_slice()];
                }
            }
            sum
        })
    }

    #[track_caller]
    fn check(
        x: &[usize],
        weight: &[usize],
        stride: &[usize],
        padding: &[usize],
        dilation: &[usize],
        groups: usize,
    ) {
        let geometry = ConvGeometry {
            stride: stride.to_vec(),
            padding: padding.to_vec(),
            dilation: dilation.to_vec(),
            groups,
        };
        let (x, weight, bias) = (random(x, 1), random(weight, 2), random(&weight[..1], 3));
        let expected = conv_slow(&x, &weight, &bias, &geometry);
        for (x, weight) in both_layouts(&x).into_iter().zip(both_layouts(&weight)) {
            let bias = crate::tensor_from_f32(bias.view()).unwrap();
            assert_close(&conv(&x, &weight, Some(&bias), &geometry).unwrap(), &expected, 1e-5);
            // With a gradient to come.
            let weight = weight.set_requires_grad(true);
            assert_close(&conv(&x, &weight, Some(&bias), &geometry).unwrap(), &expected, 1e-5);
        }
    }

    #[test]
    fn convolution_is_its_definition() {
        check(&[2, 3, 7, 6], &[4, 3, 3, 3], &[1, 1], &[1, 1], &[1, 1], 1);
        check(&[1, 4, 9, 8], &[6, 2, 3, 2], &[2, 1], &[1, 0], &[1, 2], 2);
        check(&[2, 6, 8, 8], &[6, 1, 5, 1], &[1, 1], &[2, 0], &[1, 1], 6);
        check(&[2, 6, 8, 8], &[6, 1, 1, 3], &[1, 2], &[0, 3], &[1, 2], 6);
        check(&[1, 1, 5, 5], &[3, 1, 3, 3], &[1, 1], &[0, 0], &[1, 1], 1);
        check(&[2, 5, 1, 1], &[3, 5, 1, 1], &[1, 1], &[0, 0], &[1, 1], 1);
        check(&[2, 4, 9], &[4, 2, 3], &[2], &[1], &[1], 2);
        check(&[1, 2, 4, 5, 6], &[4, 1, 2, 3, 2], &[1, 2, 1], &[1, 0, 1], &[1, 1, 2], 2);
        // Pointwise with a stride, with padding, in groups.
        check(&[2, 4, 5, 5], &[6, 4, 1, 1], &[2, 2], &[0, 0], &[1, 1], 1);
        check(&[2, 4, 5, 5], &[6, 4, 1, 1], &[1, 1], &[1, 1], &[1, 1], 1);
        check(&[2, 4, 5, 5], &[6, 2, 1, 1], &[1, 1], &[0, 0], &[1, 1], 2);
    }

    #[test]
    fn convolution_keeps_channels_last() {
        for (weight, padding, groups) in [
            ([8, 8, 3, 3], [1, 1], 1),
            ([8, 1, 5, 1], [2, 0], 8),
            ([8, 1, 1, 5], [0, 2], 8),
            ([6, 8, 1, 1], [0, 0], 1),
        ] {
            let geometry =
                ConvGeometry { padding: padding.to_vec(), groups, ..ConvGeometry::unit(2) };
            let [_, x] = both_layouts(&random(&[2, 8, 6, 6], 1));
            let [_, weight] = both_layouts(&random(&weight, 1));
            assert!(is_channels_last(&conv(&x, &weight, None, &geometry).unwrap()));
        }
        // A grey image has the same strides in both layouts: the kernel's decide.
        let [_, x] = both_layouts(&random(&[2, 1, 6, 6], 1));
        let [_, weight] = both_layouts(&random(&[4, 1, 3, 3], 1));
        assert!(is_channels_last(&conv(&x, &weight, None, &ConvGeometry::unit(2)).unwrap()));
    }

    #[test]
    fn a_kernel_that_does_not_fit_is_an_error() {
        let [x, _] = both_layouts(&random(&[1, 2, 3, 3], 1));
        let [weight, _] = both_layouts(&random(&[2, 2, 5, 5], 1));
        assert!(conv(&x, &weight, None, &ConvGeometry::unit(2)).is_err());
    }
}
