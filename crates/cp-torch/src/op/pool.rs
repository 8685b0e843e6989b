//! Pooling over 1 to 3 spatial axes.

use cp_net::Pool;
use tch::{TchError, Tensor};

use crate::convert::{dims, shape_of};

/// Maximum over each window; padding never wins.
///
/// # Shapes
/// `x`: `[B, C, H₀, …]`; result: `[B, C, H′₀, …]`.
pub(crate) fn max_pool(x: &Tensor, pool: &Pool) -> Result<Tensor, TchError> {
    let [kernel, stride, padding] = geometry(pool);
    let dilation = vec![1; kernel.len()];
    match kernel.len() {
        1 => x.f_max_pool1d(kernel, stride, padding, dilation, pool.ceil),
        2 => x.f_max_pool2d(kernel, stride, padding, dilation, pool.ceil),
        3 => x.f_max_pool3d(kernel, stride, padding, dilation, pool.ceil),
        axes => Err(too_many_axes(axes)),
    }
}

/// Mean over each window; padding counts as zeros, what a window rounded up reaches beyond it does not count.
///
/// # Shapes
/// `x`: `[B, C, H₀, …]`; result: `[B, C, H′₀, …]`.
pub(crate) fn avg_pool(x: &Tensor, pool: &Pool) -> Result<Tensor, TchError> {
    let [kernel, stride, padding] = geometry(pool);
    match kernel.len() {
        1 => x.f_avg_pool1d(kernel, stride, padding, pool.ceil, true),
        2 => x.f_avg_pool2d(kernel, stride, padding, pool.ceil, true, None),
        3 => x.f_avg_pool3d(kernel, stride, padding, pool.ceil, true, None),
        axes => Err(too_many_axes(axes)),
    }
}

/// Mean over windows that split each axis evenly into `output` parts.
///
/// # Shapes
/// `x`: `[B, C, H₀, …]`; result: `[B, C, output₀, …]`.
pub(crate) fn adaptive_avg_pool(x: &Tensor, output: &[usize]) -> Result<Tensor, TchError> {
    // The mean of single values; AlexNet at 224 × 224.
    if shape_of(x).get(2..) == Some(output) {
        return Ok(x.shallow_clone());
    }
    match output.len() {
        1 => x.f_adaptive_avg_pool1d(dims(output)),
        2 => x.f_adaptive_avg_pool2d(dims(output)),
        3 => x.f_adaptive_avg_pool3d(dims(output)),
        axes => Err(too_many_axes(axes)),
    }
}

fn geometry(pool: &Pool) -> [Vec<i64>; 3] {
    [dims(&pool.kernel), dims(&pool.stride), dims(&pool.padding)]
}

fn too_many_axes(axes: usize) -> TchError {
    TchError::Shape(format!("pooling runs over 1 to 3 spatial axes, not {axes}"))
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, IxDyn};

    use super::*;
    use crate::layout::is_channels_last;
    use crate::testing::{assert_close, both_layouts, random};

    /// Output size of one axis: as many windows as start inside the image or the padding before it, rounded up or down.
    fn output_size(pool: &Pool, axis: usize, size: usize) -> usize {
        let (kernel, stride, padding) = (pool.kernel[axis], pool.stride[axis], pool.padding[axis]);
        let room = size + 2 * padding - kernel;
        let windows = if pool.ceil { room.div_ceil(stride) } else { room / stride } + 1;
        if pool.ceil && (windows - 1) * stride >= size + padding { windows - 1 } else { windows }
    }

    /// `reduce` of the values in each window and of the window's size clipped to image and padding.
    fn pool_slow(
        x: &ArrayD<f32>,
        pool: &Pool,
        reduce: impl Fn(&[f32], usize) -> f32,
    ) -> ArrayD<f32> {
        let axes = pool.kernel.len();
        let mut shape = x.shape()[..2].to_vec();
        shape.extend((0..axes).map(|axis| output_size(pool, axis, x.shape()[axis + 2])));
        ArrayD::from_shape_fn(IxDyn(&shape), |at| {
            let mut values = Vec::new();
            let mut clipped = 1;
            let first = |axis: usize| at[axis + 2] * pool.stride[axis];
            for axis in 0..axes {
                let end = (first(axis) + pool.kernel[axis])
                    .min(x.shape()[axis + 2] + 2 * pool.padding[axis]);
                clipped *= end - first(axis);
            }
            for offset in ndarray::indices(pool.kernel.clone()) {
                let mut there = vec![at[0], at[1]];
                for axis in 0..axes {
                    // Wraps to a huge position, which `get` refuses, in the padding before the image.
                    there.push((first(axis) + offset[axis]).wrapping_sub(pool.padding[axis]));
                }
                values.extend(x.get(there.as_slice()));
            }
            reduce(&values, clipped)
        })
    }

    #[track_caller]
    fn check(shape: &[usize], kernel: &[usize], stride: &[usize], padding: &[usize], ceil: bool) {
        let pool = Pool {
            kernel: kernel.to_vec(),
            stride: stride.to_vec(),
            padding: padding.to_vec(),
            ceil,
        };
        let array = random(shape, 5);
        let max = pool_slow(&array, &pool, |values, _| {
            values.iter().copied().fold(f32::NEG_INFINITY, f32::max)
        });
        let mean =
            pool_slow(&array, &pool, |values, clipped| values.iter().sum::<f32>() / clipped as f32);
        for x in both_layouts(&array) {
            assert_close(&max_pool(&x, &pool).unwrap(), &max, 0.0);
            assert_close(&avg_pool(&x, &pool).unwrap(), &mean, 1e-6);
        }
    }

    #[test]
    fn pooling_is_its_definition() {
        for ceil in [false, true] {
            check(&[2, 3, 8, 7], &[2, 2], &[2, 2], &[0, 0], ceil);
            check(&[1, 2, 7, 7], &[3, 3], &[2, 2], &[0, 0], ceil);
            // GoogLeNet's pool1: 112 → 56 rounded up.
            check(&[1, 2, 12, 12], &[3, 3], &[2, 2], &[0, 0], ceil);
            // The last window would start in the padding behind the image, and is dropped.
            check(&[1, 1, 3, 3], &[2, 2], &[2, 2], &[1, 1], ceil);
            check(&[1, 2, 9, 6], &[3, 2], &[2, 3], &[1, 0], ceil);
            check(&[2, 2, 9], &[3], &[2], &[1], ceil);
            check(&[1, 2, 5, 6, 7], &[2, 3, 2], &[2, 2, 3], &[0, 1, 1], ceil);
        }
    }

    #[test]
    fn adaptive_pooling_splits_evenly() {
        let x = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0]).reshape([1, 1, 2, 2]);
        assert_close(
            &adaptive_avg_pool(&x, &[1, 1]).unwrap(),
            &ndarray::arr1(&[2.5]).into_shape_with_order(vec![1, 1, 1, 1]).unwrap(),
            0.0,
        );
        assert_eq!(
            adaptive_avg_pool(&x, &[1, 2]).unwrap().flatten(0, -1),
            Tensor::from_slice(&[2.0_f32, 3.0])
        );
        assert_eq!(adaptive_avg_pool(&x, &[2, 2]).unwrap(), x);
    }

    #[test]
    fn pooling_keeps_channels_last() {
        let [_, x] = both_layouts(&random(&[2, 8, 6, 6], 1));
        let pool = Pool { kernel: vec![3, 3], stride: vec![2, 2], padding: vec![1, 1], ceil: true };
        assert!(is_channels_last(&max_pool(&x, &pool).unwrap()));
        assert!(is_channels_last(&avg_pool(&x, &pool).unwrap()));
        assert!(is_channels_last(&adaptive_avg_pool(&x, &[2, 2]).unwrap()));
    }

    #[test]
    fn four_axes_are_an_error() {
        let pool =
            Pool { kernel: vec![1; 4], stride: vec![1; 4], padding: vec![0; 4], ceil: false };
        let x = Tensor::zeros([1, 1, 2, 2, 2, 2], (tch::Kind::Float, tch::Device::Cpu));
        assert!(max_pool(&x, &pool).unwrap_err().to_string().contains("not 4"));
    }
}
