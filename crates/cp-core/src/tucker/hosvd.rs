//! The sequentially truncated higher-order singular value decomposition: [`Hosvd`].

use std::ops::ControlFlow;

use faer::MatRef;
use ndarray::ArrayViewD;

use super::ranks::{Ranks, resolve_modes};
use super::{Parts, TuckerDecomposition, TuckerSolver, multiply, subspace};
use crate::error::CpError;
use crate::linalg::mat;
use crate::problem::{Problem, Stopwatch};
use crate::progress::{Progress, StopReason};
use crate::real::Real;

/// Sequentially truncated higher-order singular value decomposition (ST-HOSVD): a Tucker model without iterations.
///
/// One mode after the other, the smallest first, U⁽ⁿ⁾ becomes the leading left singular vectors of the unfolding of what is
/// left, 𝒢 ← 𝒢 ×ₙ U⁽ⁿ⁾ᵀ. The squares of the singular values that are dropped add up to ‖X − X̂‖², which is at most N times
/// that of the best model with the same ranks.
///
/// # When
/// As a start ([`Hooi`](super::Hooi) begins with it), or where its error will do: it is often within a percent of HOOI's.
/// [`Hosvd::within`] chooses the ranks for an error.
///
/// # Cost
/// For each mode a singular value decomposition of an unfolding, O(Iₙ ∏ Iₘ) operations in total on sizes that shrink as it goes.
///
/// ```
/// use cp_core::{Hosvd, TuckerSolver};
/// use ndarray::Array;
///
/// // A sum of three functions of one index each has multilinear rank (2, 2, 2).
/// let x = Array::from_shape_fn((8, 7, 6), |(i, j, k)| (i * i) as f64 + (j as f64).sin() + (k as f64).sqrt()).into_dyn();
/// let found = Hosvd::within(1e-10).decompose(x.view())?;
/// assert_eq!(found.tucker.ranks(), [2, 2, 2]);
/// assert!(found.rel_error <= 1e-10);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Vannieuwenhoven, Vandebril & Meerbergen (2012), "A new truncation strategy for the higher-order singular
/// value decomposition", SIAM J. Sci. Comput. 34, algorithm 1.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Hosvd {
    target: Target,
}

#[derive(Debug, Clone, PartialEq)]
enum Target {
    Ranks(Ranks),
    Error { modes: Option<Vec<usize>>, error: f64 },
}

impl Hosvd {
    /// A model with these ranks, one for each mode.
    ///
    /// A rank of 0 or above the size of its mode is an error; one above the product of the others is lowered to that, which
    /// changes nothing about the model (the further columns would meet zeros in the core).
    pub fn new(ranks: impl Into<Vec<usize>>) -> Self {
        Self { target: Target::Ranks(Ranks { modes: None, ranks: ranks.into() }) }
    }

    /// A model with a relative error of at most `rel_error`, 0 ≤ `rel_error` < 1, up to rounding: each of the modes may drop
    /// singular values with squares up to `rel_error`² ‖X‖² / (number of modes).
    pub fn within(rel_error: f64) -> Self {
        Self { target: Target::Error { modes: None, error: rel_error } }
    }

    /// The modes to compress; the ranks belong to them in this order, and the others get no factor. Default: all.
    pub fn modes(mut self, which: impl Into<Vec<usize>>) -> Self {
        let (Target::Ranks(Ranks { modes, .. }) | Target::Error { modes, .. }) = &mut self.target;
        *modes = Some(which.into());
        self
    }
}

impl<T: Real> TuckerSolver<T> for Hosvd {
    fn name(&self) -> &'static str {
        "hosvd"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<TuckerDecomposition<T>, CpError> {
        let watch = Stopwatch::start();
        let problem = Problem::new(&tensor, 1)?;
        let shape = &problem.tensor.shape;
        let parts = match &self.target {
            Target::Ranks(ranks) => {
                let ranks = ranks.resolve(shape)?;
                truncate(&problem.tensor.data, shape, &mut |mode, _| ranks[mode])?
            }
            &Target::Error { ref modes, error: value } => {
                let (option, expected) = ("rel_error", "a number from 0 to below 1");
                if !(0.0..1.0).contains(&value) {
                    return Err(CpError::InvalidOption { option, value, expected });
                }
                let modes = resolve_modes(modes.as_deref(), shape)?;
                let budget = (value * problem.norm).powi(2) / modes.len() as f64;
                truncate(&problem.tensor.data, shape, &mut |mode, s| {
                    modes.contains(&mode).then(|| rank_within(s, budget))
                })?
            }
        };
        let mut found = parts.finish(&problem, Vec::new(), StopReason::Converged, watch)?;
        found.trace.push(found.rel_error);
        // One step, nothing left to stop.
        let _ = observe(&Progress { iteration: 1, rel_error: found.rel_error });
        Ok(found)
    }
}

/// The smallest rank, at least 1, for which the squares of the values dropped add up to at most `budget`.
pub(crate) fn rank_within(s: &[f64], budget: f64) -> usize {
    let mut dropped = 0.0;
    let mut rank = s.len();
    while rank > 1 {
        dropped += s[rank - 1] * s[rank - 1];
        if dropped > budget {
            break;
        }
        rank -= 1;
    }
    rank
}

/// One mode after the other, smallest first. `keep` gets a mode and the singular values of its unfolding, and answers with the
/// number of them to keep, or `None` to leave the mode as it is.
pub(crate) fn truncate<T: Real>(
    data: &[T],
    shape: &[usize],
    keep: &mut dyn FnMut(usize, &[f64]) -> Option<usize>,
) -> Result<Parts<T>, CpError> {
    let mut parts =
        Parts { core: data.to_vec(), ranks: shape.to_vec(), factors: vec![None; shape.len()] };
    let mut modes: Vec<usize> = (0..shape.len()).collect();
    modes.sort_by_key(|&mode| shape[mode]);
    for mode in modes {
        // Nothing is known of the values yet: asks first, so that no decomposition is made in vain.
        if keep(mode, &[]).is_none() {
            continue;
        }
        let basis = subspace::of_unfolding(&parts.core, &parts.ranks, mode)?;
        let Some(rank) = keep(mode, &basis.s) else { continue };
        let rank = rank.min(basis.s.len());
        let factor = basis.leading::<T>(rank);
        parts.core =
            multiply(&parts.core, &mut parts.ranks, mode, columns(&factor, rank).transpose());
        parts.factors[mode] = Some(factor);
    }
    Ok(parts)
}

/// A row-major factor of `rank` columns as a matrix.
pub(super) fn columns<T>(factor: &[T], rank: usize) -> MatRef<'_, T> {
    mat(factor, factor.len() / rank, rank)
}
