//! Pooling over 1 to 3 spatial axes.

use cp_net::{AvgPool, MaxPool, OpSpec};
use tch::{TchError, Tensor};

use super::conv::symmetric;
use super::{along, pad_list, simple};
use crate::convert::{dims, shape_of};

simple! {
    MaxPool: |op, x, _, _| max_pool(x, op);
    AvgPool: |op, x, _, _| avg_pool(x, op);
    GlobalAvgPool: |_, x, _, _| global_avg_pool(x);
    GlobalMaxPool: |_, x, _, _| x.f_amax(spatial(x), true);
    AdaptiveAvgPool: |op, x, _, _| adaptive_avg_pool(x, &op.output);
    AdaptiveMaxPool: |op, x, _, _| adaptive_max_pool(x, &op.output);
}

/// The padding of each axis and the sizes of the output.
fn sizes(
    op: &impl OpSpec,
    x: &Tensor,
    axes: usize,
    padding: impl Fn(usize, usize) -> [usize; 2],
) -> Result<(Vec<[usize; 2]>, Vec<usize>), TchError> {
    if !(1..=3).contains(&axes) {
        return Err(too_many_axes(axes));
    }
    let shape = shape_of(x);
    let outputs = shape.get(1..).ok_or("no axes".to_string()).and_then(|input| {
        let refused = |mismatch: cp_net::Mismatch| format!("{}, got {input:?}", mismatch.expected);
        op.output(&[input]).map_err(refused)
    });
    let output = outputs.map_err(TchError::Shape)?.swap_remove(0);
    let pairs = (0..axes).map(|axis| padding(axis, shape[axis + 2])).collect();
    Ok((pairs, output[1..].to_vec()))
}

/// `x` with `value` around it, or with less of it behind, so that as many windows fit exactly along each axis as the output has
/// values.
///
/// # Shapes
/// `x`: `[B, C, H₀, …]`; `reach`: values that a window reaches over along each axis; result: `[B, C, H″₀, …]`.
fn fitted(
    x: &Tensor,
    pairs: &[[usize; 2]],
    output: &[usize],
    reach: &[usize],
    stride: &[usize],
    value: f64,
) -> Result<Tensor, TchError> {
    let size = shape_of(x);
    let amounts = (0..pairs.len()).map(|axis| {
        let before = pairs[axis][0] as i64;
        let end = ((output[axis] - 1) * stride[axis] + reach[axis]) as i64;
        [before, end - before - size[axis + 2] as i64]
    });
    x.f_pad(pad_list(amounts), "constant", value)
}

/// Whether libtorch pads by itself: the same before and behind, and at most half of the window.
fn torch_padding(pairs: &[[usize; 2]], kernel: &[usize]) -> Option<Vec<i64>> {
    let small = pairs.iter().zip(kernel).all(|([before, _], kernel)| 2 * before <= *kernel);
    symmetric(pairs).filter(|_| small)
}

/// Maximum over each window; padding never wins.
///
/// # Shapes
/// `x`: `[B, C, H₀, …]`; result: `[B, C, H′₀, …]`.
fn max_pool(x: &Tensor, pool: &MaxPool) -> Result<Tensor, TchError> {
    let axes = pool.kernel.len();
    let (pairs, output) = sizes(pool, x, axes, |axis, size| pool.padding(axis, size))?;
    let (padding, ceil, x) = match torch_padding(&pairs, &pool.kernel) {
        Some(padding) => (padding, pool.ceil, x.shallow_clone()),
        None => {
            let reach = |(kernel, dilation): (&usize, &usize)| dilation * (kernel - 1) + 1;
            let reach: Vec<usize> = pool.kernel.iter().zip(&pool.dilation).map(reach).collect();
            let x = fitted(x, &pairs, &output, &reach, &pool.stride, f64::NEG_INFINITY)?;
            (vec![0; axes], false, x)
        }
    };
    let [kernel, stride, dilation] = [&pool.kernel, &pool.stride, &pool.dilation].map(|v| dims(v));
    match axes {
        1 => x.f_max_pool1d(kernel, stride, padding, dilation, ceil),
        2 => x.f_max_pool2d(kernel, stride, padding, dilation, ceil),
        3 => x.f_max_pool3d(kernel, stride, padding, dilation, ceil),
        axes => Err(too_many_axes(axes)),
    }
}

/// Mean over each window; padding counts as zeros where the op says so, what a window rounded up reaches beyond it does not count.
///
/// # Shapes
/// `x`: `[B, C, H₀, …]`; result: `[B, C, H′₀, …]`.
fn avg_pool(x: &Tensor, pool: &AvgPool) -> Result<Tensor, TchError> {
    let axes = pool.kernel.len();
    let amounts = |axis: usize, size: usize| {
        pool.padding.amounts(axis, size, pool.kernel[axis], pool.stride[axis])
    };
    let (pairs, output) = sizes(pool, x, axes, amounts)?;
    let size = shape_of(x);
    // libtorch refuses three axes where a map is smaller than the window and only rounding up makes it fit.
    let holds = |axis: usize| size[axis + 2] + pairs[axis][0] + pairs[axis][1] >= pool.kernel[axis];
    let padding = torch_padding(&pairs, &pool.kernel);
    if let Some(padding) = padding.filter(|_| axes < 3 || (0..axes).all(holds)) {
        return mean(x, pool, padding, pool.ceil, pool.count_padding);
    }
    // The mean over whole windows, and along each axis how much larger they are than what counts of them.
    let whole = fitted(x, &pairs, &output, &pool.kernel, &pool.stride, 0.0)?;
    let mut y = mean(&whole, pool, vec![0; axes], false, true)?;
    for axis in 0..axes {
        let [before, behind] = pairs[axis];
        let map = before + size[axis + 2];
        let counted = if pool.count_padding { 0..map + behind } else { before..map };
        let ratios: Vec<f64> = (0..output[axis])
            .map(|at| {
                let first = at * pool.stride[axis];
                let end = (first + pool.kernel[axis]).min(counted.end);
                let count = end.saturating_sub(first.max(counted.start)).max(1);
                pool.kernel[axis] as f64 / count as f64
            })
            .collect();
        if ratios.iter().any(|&ratio| ratio > 1.0) {
            y = y.f_mul(&along(axis + 2, &ratios, x)?)?;
        }
    }
    Ok(y)
}

/// libtorch's average pooling.
fn mean(
    x: &Tensor,
    pool: &AvgPool,
    padding: Vec<i64>,
    ceil: bool,
    count_padding: bool,
) -> Result<Tensor, TchError> {
    let (kernel, stride) = (dims(&pool.kernel), dims(&pool.stride));
    match kernel.len() {
        1 => x.f_avg_pool1d(kernel, stride, padding, ceil, count_padding),
        2 => x.f_avg_pool2d(kernel, stride, padding, ceil, count_padding, None),
        3 => x.f_avg_pool3d(kernel, stride, padding, ceil, count_padding, None),
        axes => Err(too_many_axes(axes)),
    }
}

/// Mean over each map.
///
/// # Shapes
/// `x`: `[B, C, H₀, …]`; result: `[B, C, 1, …]`.
fn global_avg_pool(x: &Tensor) -> Result<Tensor, TchError> {
    match x.dim() {
        // Keeps the layout.
        4 => x.f_adaptive_avg_pool2d([1, 1]),
        _ => x.f_mean_dim(&spatial(x)[..], true, x.f_kind()?),
    }
}

/// The axes behind the channels.
fn spatial(x: &Tensor) -> Vec<i64> {
    (2..x.dim() as i64).collect()
}

/// Mean over windows that split each axis evenly into `output` parts.
///
/// # Shapes
/// `x`: `[B, C, H₀, …]`; result: `[B, C, output₀, …]`.
fn adaptive_avg_pool(x: &Tensor, output: &[usize]) -> Result<Tensor, TchError> {
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

/// Maximum over windows that split each axis evenly into `output` parts.
///
/// # Shapes
/// `x`: `[B, C, H₀, …]`; result: `[B, C, output₀, …]`.
fn adaptive_max_pool(x: &Tensor, output: &[usize]) -> Result<Tensor, TchError> {
    if shape_of(x).get(2..) == Some(output) {
        return Ok(x.shallow_clone());
    }
    let pooled = match output.len() {
        1 => x.f_adaptive_max_pool1d(dims(output)),
        2 => x.f_adaptive_max_pool2d(dims(output)),
        3 => x.f_adaptive_max_pool3d(dims(output)),
        axes => return Err(too_many_axes(axes)),
    };
    Ok(pooled?.0)
}

fn too_many_axes(axes: usize) -> TchError {
    TchError::Shape(format!("pooling runs over 1 to 3 spatial axes, not {axes}"))
}
