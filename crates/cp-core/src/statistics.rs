//! Second moments of a layer's inputs: [`InputStatistics`].

use ndarray::{Array2, ArrayView2};

use crate::error::CpError;
use crate::linalg::{gram_add, solve_normal};
use crate::real::Real;

/// Σ = E[x xᵀ] over the unfolded inputs x of a layer, gathered batch by batch in f64.
///
/// For a convolution with kernel `[T, S, kh, kw]`, x is the patch `[S, kh, kw]` under the kernel at one place, in row-major
/// order (what `im2col` makes), so that the output is W x with the mode-0 unfolding W. For a linear layer x is its input.
///
/// # Cost
/// P² numbers of memory for P entries of x, and P² multiply-adds an example (half of them saved).
///
/// ```
/// use cp_core::InputStatistics;
/// use ndarray::array;
///
/// let mut statistics = InputStatistics::new(2);
/// statistics.add(array![[1.0, 0.0], [1.0, 2.0]].view())?;
/// statistics.add(array![[-2.0, 0.0]].view())?;
/// assert_eq!(statistics.examples(), 3);
/// assert_eq!(statistics.moments()?, array![[6.0, 2.0], [2.0, 4.0]] / 3.0);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Kalle et al. (2025), arXiv 2511.04494.
#[derive(Debug, Clone, PartialEq)]
pub struct InputStatistics {
    size: usize,
    examples: usize,
    /// Σ x xᵀ, `[P, P]`, lower half.
    sum: Vec<f64>,
    /// How much of the mean diagonal entry takes the place of Σ.
    shrinkage: f64,
}

/// Inputs widened at a time.
const ROWS: usize = 1024;

impl InputStatistics {
    /// No examples yet, of `size` entries each.
    pub fn new(size: usize) -> Self {
        Self { size, examples: 0, sum: vec![0.0; size * size], shrinkage: 0.0 }
    }

    /// Given second moments.
    ///
    /// # Shapes
    /// `moments`: Σ, `[P, P]`.
    ///
    /// # Errors
    /// A matrix that is not square, not finite, not symmetric to 1e-8 of its largest diagonal entry, or has an eigenvalue below
    /// minus that.
    pub fn from_moments(moments: ArrayView2<'_, f64>) -> Result<Self, CpError> {
        let (size, columns) = moments.dim();
        if columns != size {
            return Err(CpError::StatisticsSize { expected: size, got: columns });
        }
        if let Some(((i, j), &value)) = moments.indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(CpError::NotFinite { what: "second moments", index: vec![i, j], value });
        }
        let largest = moments.diag().iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let tolerance = 1e-8 * largest;
        for ((i, j), &value) in moments.indexed_iter() {
            let mirror = moments[[j, i]];
            if (value - mirror).abs() > tolerance {
                return Err(CpError::NotSymmetric { index: [i, j], values: [value, mirror] });
            }
        }
        let sum: Vec<f64> = moments.iter().copied().collect();
        // All zero is fine, and has no Cholesky factor.
        if largest > 0.0 || sum.iter().any(|&x| x != 0.0) {
            let scale = if largest > 0.0 { largest } else { 1.0 };
            let mut shifted: Vec<f64> = sum.iter().map(|x| x / scale).collect();
            shifted.iter_mut().step_by(size + 1).for_each(|x| *x += 1e-8);
            let mut ones = vec![1.0; size];
            solve_normal(&mut shifted, &mut ones, 1, size)
                .map_err(|_| CpError::NotPositive { size })?;
        }
        Ok(Self { size, examples: 1, sum, shrinkage: 0.0 })
    }

    /// Adds a batch.
    ///
    /// # Shapes
    /// `inputs`: one example a row, `[B, P]`.
    ///
    /// # Errors
    /// Rows of another length, NaN or infinite entries; nothing is added then.
    pub fn add<T: Real>(&mut self, inputs: ArrayView2<'_, T>) -> Result<(), CpError> {
        let size = self.size;
        if inputs.ncols() != size {
            return Err(CpError::StatisticsSize { expected: size, got: inputs.ncols() });
        }
        if let Some(((i, j), value)) = inputs.indexed_iter().find(|(_, x)| !x.is_finite()) {
            let value = value.widen();
            return Err(CpError::NotFinite { what: "inputs", index: vec![i, j], value });
        }
        for rows in inputs.axis_chunks_iter(ndarray::Axis(0), ROWS) {
            let wide: Vec<f64> = rows.iter().map(|x| x.widen()).collect();
            gram_add(&mut self.sum, &wide, rows.nrows(), size);
        }
        self.examples += inputs.nrows();
        Ok(())
    }

    /// Replaces Σ by (1 − `share`) Σ + `share` · (mean of its diagonal) · I from now on; 0 for none, and more than 1 counts
    /// as 1. With fewer independent examples than entries Σ is singular, and a model may put any error where no example was:
    /// a share of 0.01 to 0.1 keeps it near the kernel there.
    #[must_use]
    pub fn shrink(mut self, share: f64) -> Self {
        self.shrinkage = share.clamp(0.0, 1.0);
        self
    }

    /// Number of examples so far; 1 for given moments.
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// Entries of an example, P.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Σ, `[P, P]`, symmetric.
    ///
    /// # Errors
    /// No examples.
    pub fn moments(&self) -> Result<Array2<f64>, CpError> {
        if self.examples == 0 {
            return Err(CpError::NoExamples);
        }
        let (n, count) = (self.size, self.examples as f64);
        let mean = self.sum.iter().step_by(n + 1).sum::<f64>() / (n.max(1) as f64 * count);
        Ok(Array2::from_shape_fn((n, n), |(i, j)| {
            let value = self.sum[i.max(j) * n + i.min(j)] / count;
            let diagonal = if i == j { self.shrinkage * mean } else { 0.0 };
            (1.0 - self.shrinkage) * value + diagonal
        }))
    }

    /// Σ divided by the mean of its diagonal, row-major; zeros stay.
    ///
    /// # Errors
    /// No examples, a size that is not `expected`, sums that have overflowed.
    pub(crate) fn scaled(&self, expected: usize) -> Result<Vec<f64>, CpError> {
        if self.size != expected {
            return Err(CpError::StatisticsSize { expected, got: self.size });
        }
        let mut moments = self.moments()?;
        let mean = moments.diag().sum() / expected as f64;
        if let Some((i, &value)) = moments.diag().indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(CpError::NotFinite { what: "second moments", index: vec![i, i], value });
        }
        if !mean.is_finite() {
            return Err(CpError::NotFinite {
                what: "second moments",
                index: vec![0, 0],
                value: mean,
            });
        }
        if mean > 0.0 {
            moments.mapv_inplace(|x| x / mean);
        }
        Ok(moments.into_raw_vec_and_offset().0)
    }
}
