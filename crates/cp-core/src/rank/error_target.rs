//! The rank that reaches an error: [`rank_for_error`].

use std::collections::BTreeMap;

use crate::error::CpError;
use crate::solver::Decomposition;

/// What [`rank_for_error`] found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RankSearch<T = f64> {
    /// The model of the smallest rank tried that reaches the target; where none does, the one with the smallest error.
    pub best: Decomposition<T>,
    /// Whether `best` reaches the target.
    pub reached: bool,
    /// Rank and relative error of every decomposition made, in the order of the ranks.
    pub tried: Vec<(usize, f64)>,
}

impl<T: crate::Real> RankSearch<T> {
    /// Rank of `best`.
    pub fn rank(&self) -> usize {
        self.best.cp.rank()
    }
}

/// The smallest rank, up to `max_rank`, whose decomposition reaches a relative error of at most `target`.
///
/// Tries 1, 2, 4, … until the target is reached, then halves the gap between the last miss and the first hit: about
/// 2 log₂ R decompositions. `decompose` makes them; it may start each from the factors of an earlier one, since the ranks
/// rise until the first hit.
///
/// # Errors fall with the rank only if the solver finds them
/// The best error falls with every further term, that of a solver need not: it may end in a poor local minimum, or stop before
/// it has converged. The rank found is therefore one that reaches the target while the one below it, *as decomposed here*,
/// did not. A lower one may reach it from another start; `tried` shows how sharp the edge is. With a solver that stops early, give
/// it more iterations or several starts.
///
/// # Errors
/// A target that is negative or NaN, `max_rank` 0, and whatever `decompose` returns.
///
/// ```
/// use cp_core::{Als, CpTensor, Init, Solver, rank::rank_for_error};
/// use ndarray::Array2;
///
/// let column = |size: usize, k: f64| Array2::from_shape_fn((size, 3), |(i, r)| ((1 + i) as f64 * k + (r * r) as f64).cos());
/// let x = CpTensor::from_factors(vec![column(9, 0.9), column(8, 1.7), column(7, 2.3)])?.reconstruct();
/// let found = rank_for_error(1e-4, 20, |rank| {
///     Als::new(rank).max_iters(1000).tol(1e-9).init(Init::Random { seed: 5 }).decompose(x.view())
/// })?;
/// assert!(found.reached && found.rank() <= 3);
/// # Ok::<(), cp_core::CpError>(())
/// ```
pub fn rank_for_error<T: crate::Real>(
    target: f64,
    max_rank: usize,
    mut decompose: impl FnMut(usize) -> Result<Decomposition<T>, CpError>,
) -> Result<RankSearch<T>, CpError> {
    if target.is_nan() || target < 0.0 {
        let expected = "a number, at least 0";
        return Err(CpError::InvalidOption { option: "target", value: target, expected });
    }
    if max_rank == 0 {
        return Err(CpError::RankZero);
    }
    let mut tried = BTreeMap::new();
    let mut hit: Option<(usize, Decomposition<T>)> = None;
    let mut nearest: Option<Decomposition<T>> = None;
    // Largest rank known to miss the target, below the smallest that reaches it.
    let mut miss = 0;
    let mut rank = 1;
    loop {
        let found = decompose(rank)?;
        tried.insert(rank, found.rel_error);
        if found.rel_error <= target {
            hit = Some((rank, found));
        } else {
            miss = rank;
            if nearest.as_ref().is_none_or(|best| found.rel_error < best.rel_error) {
                nearest = Some(found);
            }
        }
        rank = match &hit {
            None if rank == max_rank => break,
            None => rank.saturating_mul(2).min(max_rank),
            Some((hit, _)) if hit - miss == 1 => break,
            Some((hit, _)) => miss + (hit - miss) / 2,
        };
    }
    let reached = hit.is_some();
    let best = hit.map(|(_, found)| found).or(nearest).ok_or(CpError::RankZero)?;
    Ok(RankSearch { best, reached, tried: tried.into_iter().collect() })
}
