//! Kernels as sums of a filter along the columns and one along the rows over all channels, in closed form.

use ndarray::{Array2, ArrayD, ArrayViewD, Ix4};

use crate::svd::truncated_svd;
use crate::{CpError, Real};

/// K\[t, s, i, j\] ≈ Σᵣ v\[r, s, i\] h\[t, r, j\]: a convolution kh×1 to R channels, then one of 1×kw.
///
/// Source: Jaderberg, Vedaldi & Zisserman (2014), §3, scheme 2.
#[derive(Debug, Clone, PartialEq)]
pub struct Separable<T = f64> {
    /// v as a matrix, `[R, S·kh]`.
    pub vertical: Array2<T>,
    /// h as a matrix, `[T, R·kw]`.
    pub horizontal: Array2<T>,
    /// `[T, S, kh, kw]`.
    shape: [usize; 4],
}

impl<T: Real> Separable<T> {
    /// R.
    pub fn rank(&self) -> usize {
        self.vertical.nrows()
    }

    /// The kernel that they make, `[T, S, kh, kw]`.
    pub fn reconstruct(&self) -> ArrayD<T> {
        let [out, inputs, rows, columns] = self.shape;
        ArrayD::from_shape_fn(vec![out, inputs, rows, columns], |at| {
            let mut sum = 0.0;
            for r in 0..self.rank() {
                let v = self.vertical[[r, at[1] * rows + at[2]]].widen();
                sum += v * self.horizontal[[at[0], r * columns + at[3]]].widen();
            }
            T::narrow(sum)
        })
    }
}

/// The best of rank `rank`: the truncated singular value decomposition of the matrix of rows (s, i) and columns (j, t), the root of every
/// singular value on either side.
///
/// # Shapes
/// `kernel`: `[T, S, kh, kw]`.
///
/// # Errors
/// A tensor of another order, entries that are not finite, a rank of 0 or above S·kh or T·kw.
///
/// Source: Tai, Xiao, Zhang, Wang & E (2016), theorem 1.
pub fn separable<T: Real>(kernel: ArrayViewD<'_, T>, rank: usize) -> Result<Separable<T>, CpError> {
    let order = kernel.ndim();
    let kernel = kernel
        .into_dimensionality::<Ix4>()
        .map_err(|_| CpError::FactorCount { expected: 4, got: order })?;
    let (out, inputs, rows, columns) = kernel.dim();
    let matrix = Array2::from_shape_fn((inputs * rows, columns * out), |(row, column)| {
        kernel[[column % out, row / rows, row % rows, column / out]]
    });
    let svd = truncated_svd(matrix.view(), rank)?;
    let (left, right) = svd.balanced();
    let horizontal = Array2::from_shape_fn((out, rank * columns), |(t, column)| {
        right[[column / columns, column % columns * out + t]]
    });
    let vertical = left.reversed_axes().as_standard_layout().into_owned();
    Ok(Separable { vertical, horizontal, shape: [out, inputs, rows, columns] })
}
