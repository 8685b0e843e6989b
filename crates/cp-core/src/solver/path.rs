//! Models at other ranks: [`extend`], and [`rank_path`], which takes each rank's result to the next.

use ndarray::ArrayViewD;

use super::{Als, Decomposition, Solver};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::real::Real;
use crate::resize::{join, resize};

/// Sweeps on what the old terms leave over.
const SWEEPS: usize = 10;

/// The model with terms added that a few sweeps of [`Als`] find in the residual X − X̂; with terms of least norm dropped where
/// `rank` is lower.
///
/// # Cost
/// Two reconstructions and 10 sweeps at the number of new terms. Memory: one more tensor.
///
/// # Errors
/// A model of another shape than the tensor, rank 0, entries that are not finite.
pub fn extend<T: Real>(
    tensor: ArrayViewD<'_, T>,
    cp: &CpTensor<T>,
    rank: usize,
    seed: u64,
) -> Result<CpTensor<f64>, CpError> {
    let shape = cp.shape();
    if shape.len() != tensor.ndim() {
        return Err(CpError::FactorCount { expected: tensor.ndim(), got: shape.len() });
    }
    for (mode, (&got, &expected)) in shape.iter().zip(tensor.shape()).enumerate() {
        if got != expected {
            let rank = cp.rank();
            return Err(CpError::FactorShape {
                mode,
                expected: [expected, rank],
                got: [got, rank],
            });
        }
    }
    if rank <= cp.rank() {
        return resize(&cp.cast(), rank, seed);
    }
    let residual = &tensor - &cp.reconstruct();
    let als = Als::new(rank - cp.rank()).max_iters(SWEEPS).init(Init::Random { seed });
    let new = als.decompose(residual.view())?;
    Ok(join(&cp.cast(), &new.cp.cast()))
}

/// Decomposes a tensor at several ranks, each started from the model of the rank before: with terms found in its residual
/// where the rank rises ([`extend`]), without its smallest terms where it falls ([`resize`]).
///
/// `solver(rank, init)` makes the solver of a rank; the first `init` is [`Init::Random`] with `seed`. Ranks in rising order
/// give errors that never rise, if the solver's own do not, for fewer sweeps than starts from random factors.
///
/// # Errors
/// Those of the solvers.
///
/// ```
/// use cp_core::{Als, rank_path};
/// use ndarray::Array;
///
/// let x = Array::from_shape_fn((6, 5, 7), |(i, j, k)| ((i * j) as f64 + 0.3 * (k * k) as f64).cos()).into_dyn();
/// let path = rank_path(x.view(), &[1, 2, 4], 7, |rank, init| Box::new(Als::new(rank).max_iters(30).init(init)))?;
/// assert_eq!(path.iter().map(|found| found.cp.rank()).collect::<Vec<_>>(), [1, 2, 4]);
/// assert!(path.windows(2).all(|pair| pair[1].rel_error <= pair[0].rel_error));
/// # Ok::<(), cp_core::CpError>(())
/// ```
pub fn rank_path<T: Real>(
    tensor: ArrayViewD<'_, T>,
    ranks: &[usize],
    seed: u64,
    solver: impl Fn(usize, Init) -> Box<dyn Solver<T>>,
) -> Result<Vec<Decomposition<T>>, CpError> {
    let mut path: Vec<Decomposition<T>> = Vec::with_capacity(ranks.len());
    for &rank in ranks {
        let init = match path.last() {
            None => Init::Random { seed },
            Some(before) => Init::Factors(extend(
                tensor.view(),
                &before.cp,
                rank,
                seed.wrapping_add(rank as u64),
            )?),
        };
        path.push(solver(rank, init).decompose(tensor.view())?);
    }
    Ok(path)
}
