//! The dense kernels that the parts of factorized layers stand for.

use ndarray::{Array2, ArrayView2, s};

use crate::factor::form::Form;
use crate::factor::rank::Rank;

/// The kernel of one group, from its factors.
///
/// # Shapes
/// `parts` and `order`: as [`Factors`](crate::Factors) has them; `shape`: of the group's tensor, `[T, S, …]` or `[T, S]`; result: `[T, S·∏k]`.
pub(super) fn kernel(
    (form, rank): (Form, Rank),
    parts: &[Array2<f32>],
    order: &[Vec<usize>],
    shape: &[usize],
) -> Array2<f32> {
    let parts: Vec<ArrayView2<'_, f32>> = parts.iter().map(Array2::view).collect();
    let Some((expand, before)) = parts.split_last() else { return Array2::default((0, 0)) };
    let inputs = shape.get(1).copied().unwrap_or(1);
    let sides = [2, 3].map(|axis| shape.get(axis).copied().unwrap_or(1));
    match (form, rank, before) {
        (Form::Tucker2, _, [reduce, core]) => tucker_kernel(expand, core, reduce),
        (Form::TkdCpd, _, [reduce, core_reduce, spatial, core_expand]) => {
            let inner = core_reduce.dot(reduce);
            expand.dot(core_expand).dot(&row_products(&[inner.view(), spatial.view()]))
        }
        (Form::Jaderberg1, _, [vertical, horizontal]) => {
            per_channel_kernel(expand, vertical, horizontal, inputs)
        }
        (Form::Jaderberg1Shared, _, [vertical, horizontal]) => {
            shared_kernel(expand, &row_products(&[vertical.view(), horizontal.view()]))
        }
        (Form::Jaderberg2, _, [vertical]) => separable_kernel(vertical, expand, sides),
        (Form::Decoupled, _, [reduce]) => decoupled_kernel(reduce, expand),
        (Form::Denton, Rank::Three([outputs, inputs, k]), [reduce, spatial]) => {
            let block = |block: usize| {
                let rows = s![block * k..(block + 1) * k, ..];
                row_products(&[reduce.slice(rows), spatial.slice(rows)])
            };
            blocks_kernel(expand, [outputs, inputs, k], block, order)
        }
        (Form::DentonSvd, Rank::Four([outputs, inputs, out, input]), [reduce, core]) => {
            let block = |block: usize| {
                let reduce = reduce.slice(s![block * input..(block + 1) * input, ..]);
                let core = core.slice(s![block * out..(block + 1) * out, ..]);
                tucker_kernel(&Array2::eye(out).view(), &core, &reduce)
            };
            blocks_kernel(expand, [outputs, inputs, out], block, order)
        }
        (Form::Monochromatic, _, [reduce]) => {
            let assignment = order.first().map_or(&[][..], Vec::as_slice);
            colour_kernel(reduce, expand, assignment)
        }
        _ => expand.dot(&row_products(before)),
    }
}

/// The row r of the result is the outer product of the rows r: `[R, ∏ columns]`, the last matrix varying fastest.
fn row_products(matrices: &[ArrayView2<'_, f32>]) -> Array2<f32> {
    let Some((first, rest)) = matrices.split_first() else { return Array2::default((0, 0)) };
    rest.iter().fold(first.to_owned(), |product, matrix| {
        let columns = matrix.ncols();
        Array2::from_shape_fn((product.nrows(), product.ncols() * columns), |(row, column)| {
            product[[row, column / columns]] * matrix[[row, column % columns]]
        })
    })
}

/// Σ expand[t, o] core[o, i, k] reduce[i, s], `[T, S·∏k]`; the core comes as `[R_out, R_in·∏k]`.
fn tucker_kernel(
    expand: &ArrayView2<'_, f32>,
    core: &ArrayView2<'_, f32>,
    reduce: &ArrayView2<'_, f32>,
) -> Array2<f32> {
    let inputs = reduce.nrows();
    let taps = core.ncols() / inputs;
    let wide = expand.dot(core); // [T, R_in·∏k]
    let mut kernel = Array2::zeros([expand.nrows(), reduce.ncols() * taps]);
    for (row, mut slice) in wide.outer_iter().zip(kernel.outer_iter_mut()) {
        for tap in 0..taps {
            let column = row.slice(s![tap..; taps]); // [R_in]
            slice.slice_mut(s![tap..; taps]).assign(&column.dot(reduce));
        }
    }
    kernel
}

/// Σₘ expand\[t, sM + m\] vertical\[sM + m, i\] horizontal\[sM + m, j\], `[T, S·kh·kw]`, of M maps for every one of S = `inputs` channels.
fn per_channel_kernel(
    expand: &ArrayView2<'_, f32>,
    vertical: &ArrayView2<'_, f32>,
    horizontal: &ArrayView2<'_, f32>,
    inputs: usize,
) -> Array2<f32> {
    let patterns = row_products(&[vertical.view(), horizontal.view()]); // [S·M, kh·kw]
    let (basis, taps) = (expand.ncols() / inputs.max(1), patterns.ncols());
    Array2::from_shape_fn((expand.nrows(), inputs * taps), |(t, column)| {
        let (s, tap) = (column / taps, column % taps);
        (s * basis..(s + 1) * basis).map(|map| expand[[t, map]] * patterns[[map, tap]]).sum()
    })
}

/// Σᵣ vertical\[r, s·kh + i\] horizontal\[t, r·kw + j\], `[T, S·kh·kw]`.
fn separable_kernel(
    vertical: &ArrayView2<'_, f32>,
    horizontal: &ArrayView2<'_, f32>,
    [rows, columns]: [usize; 2],
) -> Array2<f32> {
    let inputs = vertical.ncols() / rows;
    Array2::from_shape_fn((horizontal.nrows(), inputs * rows * columns), |(t, at)| {
        let (row, column) = (at / columns, at % columns);
        let of_rank = |r: usize| vertical[[r, row]] * horizontal[[t, r * columns + column]];
        (0..vertical.nrows()).map(of_rank).sum()
    })
}

/// Σᵣ reduce\[t·R + r, s\] spatial\[t, r·K + k\], `[T, S·K]`.
fn decoupled_kernel(reduce: &ArrayView2<'_, f32>, spatial: &ArrayView2<'_, f32>) -> Array2<f32> {
    let (out, inputs) = (spatial.nrows(), reduce.ncols());
    let rank = reduce.nrows() / out;
    let taps = spatial.ncols() / rank;
    Array2::from_shape_fn((out, inputs * taps), |(t, column)| {
        let (s, tap) = (column / taps, column % taps);
        (0..rank).map(|r| reduce[[t * rank + r, s]] * spatial[[t, r * taps + tap]]).sum()
    })
}

/// Σₘ expand\[t, mS + s\] patterns\[m, k\], `[T, S·K]`.
fn shared_kernel(expand: &ArrayView2<'_, f32>, patterns: &Array2<f32>) -> Array2<f32> {
    let (basis, taps) = patterns.dim();
    let inputs = expand.ncols() / basis.max(1);
    Array2::from_shape_fn((expand.nrows(), inputs * taps), |(t, column)| {
        let (s, tap) = (column / taps, column % taps);
        (0..basis).map(|m| expand[[t, m * inputs + s]] * patterns[[m, tap]]).sum()
    })
}

/// For output channel t at place p of cluster o, and input channel s at place j of cluster i: Σᵣ expand\[p, i·R + r\] block(i, o)\[r, j·K + k\],
/// `[T, S·K]`.
///
/// # Shapes
/// `counts`: output and input clusters, and maps R of a block; `block(i·oc + o)`: `[R, S/ic·K]`; `order`: places of gathers, `[S]` and `[T]`.
fn blocks_kernel(
    expand: &ArrayView2<'_, f32>,
    [outputs, inputs, maps]: [usize; 3],
    block: impl Fn(usize) -> Array2<f32>,
    order: &[Vec<usize>],
) -> Array2<f32> {
    let [arrange, restore] = order else { return Array2::default((0, 0)) };
    let rows = expand.nrows() / outputs;
    let mut clustered: Vec<Array2<f32>> = Vec::with_capacity(outputs * inputs);
    for output in 0..outputs {
        for input in 0..inputs {
            let own = s![output * rows..(output + 1) * rows, input * maps..(input + 1) * maps];
            clustered.push(expand.slice(own).dot(&block(input * outputs + output)));
        }
    }
    let columns = arrange.len() / inputs;
    let taps = clustered.first().map_or(0, |block| block.ncols() / columns);
    let mut kernel = Array2::zeros((restore.len(), arrange.len() * taps));
    for (t, &row) in restore.iter().enumerate() {
        for (column, &s) in arrange.iter().enumerate() {
            let block = &clustered[row / rows * inputs + column / columns];
            let (row, first) = (row % rows, column % columns * taps);
            kernel
                .slice_mut(s![t, s * taps..(s + 1) * taps])
                .assign(&block.slice(s![row, first..first + taps]));
        }
    }
    kernel
}

/// reduce\[a(t), s\] spatial\[t, k\], `[T, S·K]`.
fn colour_kernel(
    reduce: &ArrayView2<'_, f32>,
    spatial: &ArrayView2<'_, f32>,
    assignment: &[usize],
) -> Array2<f32> {
    let taps = spatial.ncols();
    Array2::from_shape_fn((assignment.len(), reduce.ncols() * taps), |(t, column)| {
        reduce[[assignment[t], column / taps]] * spatial[[t, column % taps]]
    })
}
