//! Kernels as a map of the channels and a spatial filter, apart for every output channel, in closed form.

use ndarray::{Array2, ArrayD, ArrayViewD, Axis, Ix3, s};

use crate::svd::{check_rank, truncated_svd};
use crate::{CpError, Real};

/// K\[t, s, k\] ≈ Σᵣ c\[t, r, s\] a\[t, r, k\]: a 1×1 convolution to R channels for every output channel, then one spatial filter for each.
///
/// With R = min(S, K) it is exact; with R = K, and every filter a single tap, it is the exact decoupling of the source.
///
/// Source: Xie, Zhou, Dong et al. (AAAI 2018), "decoupled convolutions", the balanced form.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoupled<T = f64> {
    /// c as a matrix, `[T·R, S]`, the R rows of an output channel together.
    pub channels: Array2<T>,
    /// a as a matrix, `[T, R·K]`.
    pub spatial: Array2<T>,
}

impl<T: Real> Decoupled<T> {
    /// R.
    pub fn rank(&self) -> usize {
        self.channels.nrows() / self.spatial.nrows().max(1)
    }

    /// The kernel that they make, `[T, S, K]`.
    pub fn reconstruct(&self) -> ArrayD<T> {
        let (rank, out) = (self.rank(), self.spatial.nrows());
        let taps = self.spatial.ncols() / rank.max(1);
        ArrayD::from_shape_fn(vec![out, self.channels.ncols(), taps], |at| {
            let mut sum = 0.0;
            for r in 0..rank {
                let c = self.channels[[at[0] * rank + r, at[1]]].widen();
                sum += c * self.spatial[[at[0], r * taps + at[2]]].widen();
            }
            T::narrow(sum)
        })
    }
}

/// The best with `rank` filters for every output channel: the truncated singular value decomposition of each `[S, K]`, the root of every
/// singular value on either side.
///
/// # Shapes
/// `kernel`: `[T, S, K]`.
///
/// # Errors
/// A tensor of another order, entries that are not finite, a rank of 0 or above S or K.
pub fn decoupled<T: Real>(kernel: ArrayViewD<'_, T>, rank: usize) -> Result<Decoupled<T>, CpError> {
    let order = kernel.ndim();
    let kernel = kernel
        .into_dimensionality::<Ix3>()
        .map_err(|_| CpError::FactorCount { expected: 3, got: order })?;
    let (out, inputs, taps) = kernel.dim();
    check_rank(rank, inputs, taps)?;
    let mut channels = Array2::from_elem((out * rank, inputs), T::narrow(0.0));
    let mut spatial = Array2::from_elem((out, rank * taps), T::narrow(0.0));
    for (t, filter) in kernel.axis_iter(Axis(0)).enumerate() {
        let (left, right) = truncated_svd(filter, rank)?.balanced();
        channels.slice_mut(s![t * rank..(t + 1) * rank, ..]).assign(&left.t());
        for r in 0..rank {
            spatial.slice_mut(s![t, r * taps..(r + 1) * taps]).assign(&right.row(r));
        }
    }
    Ok(Decoupled { channels, spatial })
}
