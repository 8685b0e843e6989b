//! Two singular value decompositions of a block, over its output and over its input channels: [`block_svd`].

use ndarray::{Array2, Array3, ArrayView3};

use crate::error::CpError;
use crate::real::Real;
use crate::svd::truncated_svd;

/// K\[t, s, k\] ≈ Σ_ab u\[t, a\] c\[a, b, k\] p\[b, s\].
#[derive(Debug, Clone, PartialEq)]
pub struct BlockSvd<T = f64> {
    /// u, `[T, R_out]`, orthonormal columns.
    pub outputs: Array2<T>,
    /// c, `[R_out, R_in, K]`.
    pub core: Array3<T>,
    /// p, `[R_in, S]`, orthonormal rows.
    pub inputs: Array2<T>,
}

/// The right factor of the first decomposition, as the second one sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RightFactor {
    /// With the singular values: the directions that are kept weigh as much as they do in the block. The error is never above √2 times the
    /// least, as for every sequentially truncated Tucker decomposition.
    Scaled,
    /// Orthonormal rows, as in the published programs: every kept direction weighs the same.
    Orthonormal,
}

impl<T: Real> BlockSvd<T> {
    /// The block that they make, `[T, S, K]`.
    pub fn reconstruct(&self) -> Array3<T> {
        let (out_rank, in_rank, taps) = self.core.dim();
        Array3::from_shape_fn((self.outputs.nrows(), self.inputs.ncols(), taps), |(t, s, k)| {
            let mut sum = 0.0;
            for a in 0..out_rank {
                let u = self.outputs[[t, a]].widen();
                for b in 0..in_rank {
                    sum += u * self.core[[a, b, k]].widen() * self.inputs[[b, s]].widen();
                }
            }
            T::narrow(sum)
        })
    }
}

/// The truncated singular value decomposition of `[T, S·K]` at R_out = `ranks[0]`, then that of its right factor, as `[S, R_out·K]`, at
/// R_in = `ranks[1]`.
///
/// # Shapes
/// `block`: `[T, S, K]`.
///
/// # Errors
/// An empty block, entries that are not finite, R_out of 0 or above min(T, S·K), R_in of 0 or above min(S, R_out·K).
///
/// Source: Denton, Zaremba, Bruna, LeCun & Fergus (2014), §3.3; with [`RightFactor::Scaled`] Vannieuwenhoven, Vandebril & Meerbergen
/// (2012), "A new truncation strategy for the higher-order singular value decomposition".
pub fn block_svd<T: Real>(
    block: ArrayView3<'_, T>,
    [out_rank, in_rank]: [usize; 2],
    right: RightFactor,
) -> Result<BlockSvd<T>, CpError> {
    let (out, inputs, taps) = block.dim();
    let rows =
        Array2::from_shape_fn((out, inputs * taps), |(t, at)| block[[t, at / taps, at % taps]]);
    let first = truncated_svd(rows.view(), out_rank)?;
    let scaled = |a: usize, s: usize, k: usize| {
        T::narrow(first.s[a].widen() * first.vt[[a, s * taps + k]].widen())
    };
    let of_inputs = Array2::from_shape_fn((inputs, out_rank * taps), |(s, at)| {
        let (a, k) = (at / taps, at % taps);
        match right {
            RightFactor::Scaled => scaled(a, s, k),
            RightFactor::Orthonormal => first.vt[[a, s * taps + k]],
        }
    });
    let basis = truncated_svd(of_inputs.view(), in_rank)?.u.reversed_axes(); // [R_in, S]
    let core = Array3::from_shape_fn((out_rank, in_rank, taps), |(a, b, k)| {
        let product = |s: usize| basis[[b, s]].widen() * scaled(a, s, k).widen();
        T::narrow((0..inputs).map(product).sum())
    });
    let inputs = basis.as_standard_layout().into_owned();
    Ok(BlockSvd { outputs: first.u, core, inputs })
}
