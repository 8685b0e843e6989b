//! The core consistency diagnostic: [`core_consistency`].

use ndarray::{Array2, ArrayViewD};

use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::linalg::{mat, thin_svd};
use crate::problem::Problem;
use crate::real::Real;
use crate::scale::Scale;
use crate::tucker::multiply;

/// Core consistency (CORCONDIA) of a CP model, in percent: 100 (1 − ‖𝒢 − ℐ‖² / R).
///
/// 𝒢 = X ×₀ A⁽⁰⁾⁺ ×₁ A⁽¹⁾⁺ … is the best core for the factors of the model, ℐ the core that the model claims, ones where all
/// indices agree and zeros elsewhere. λ is folded into the factors evenly first ([`CpTensor::balance`]).
///
/// Near 100 the terms act on their own, as a CP model says. Around 50 the model is unstable, and near 0 or far below some terms
/// only correct others: it has too many. So the rank to take is the last before the value falls. Never above 100; without
/// bound below.
///
/// # When
/// For small ranks of data with a meaning, where R terms are a claim about the world. A kernel decomposed at a rank near or above
/// its modes has no such structure, and the diagnostic does not exist there: above the size of a mode, A⁽ⁿ⁾⁺A⁽ⁿ⁾ cannot be the
/// identity, and even an exact model would be found inconsistent. That is an error here and not a number.
///
/// Terms that are zero or copies of others lower the value: their share of 𝒢 is lost or spread out.
///
/// # Cost
/// One singular value decomposition `[Iₙ, R]` per mode and products of 2 R ∏ Iₙ operations.
///
/// # Errors
/// [`CpError::RankAboveMode`] as said; a model of another shape than the tensor; entries that are not finite.
///
/// ```
/// use cp_core::{CpTensor, rank::core_consistency};
/// use ndarray::Array2;
///
/// let column = |size: usize, k: f64| Array2::from_shape_fn((size, 2), |(i, r)| ((1 + i) as f64 * k + r as f64).cos());
/// let cp = CpTensor::from_factors(vec![column(6, 0.9), column(5, 1.7), column(4, 2.3)])?;
/// assert!((core_consistency(cp.reconstruct().view(), &cp)? - 100.0).abs() < 1e-6);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Bro & Kiers (2003), "A new efficient method for determining the number of components in PARAFAC models",
/// J. Chemometrics 17, eq. 5; here for any order.
pub fn core_consistency<T: Real>(
    tensor: ArrayViewD<'_, T>,
    cp: &CpTensor<T>,
) -> Result<f64, CpError> {
    let rank = cp.rank();
    let problem = Problem::new(&tensor, 1)?;
    // In units of the scaled tensor; checks that the model is one.
    let mut wide = cp.cast::<f64>();
    let down = Scale::new(-problem.exponent);
    wide.weights.mapv_inplace(|w| down.of(w));
    let mut wide = CpTensor::new(wide.weights, wide.factors)?;
    if wide.order() != problem.tensor.shape.len() {
        let (expected, got) = (problem.tensor.shape.len(), wide.order());
        return Err(CpError::FactorCount { expected, got });
    }
    for (mode, (factor, &size)) in wide.factors.iter().zip(&problem.tensor.shape).enumerate() {
        let (expected, got) = ([size, rank], [factor.nrows(), rank]);
        if got != expected {
            return Err(CpError::FactorShape { mode, expected, got });
        }
        if rank > size {
            return Err(CpError::RankAboveMode { mode, rank, size });
        }
    }
    wide.balance();
    let mut core: Vec<f64> = problem.tensor.data.iter().map(|x| x.widen()).collect();
    let mut shape = problem.tensor.shape.clone();
    for (mode, factor) in wide.factors.iter().enumerate() {
        let inverse = pseudo_inverse(factor, T::EPSILON)?;
        let size = shape[mode];
        core = multiply(&core, &mut shape, mode, mat(&inverse, rank, size));
    }
    let step: usize = (0..shape.len()).map(|n| rank.pow(n as u32)).sum();
    for r in 0..rank {
        core[r * step] -= 1.0;
    }
    let square: f64 = core.iter().map(|x| x * x).sum();
    Ok(100.0 * (1.0 - square / rank as f64))
}

/// A⁺, `[R, I]`, without singular values that are noise in the number type of the model.
fn pseudo_inverse(factor: &Array2<f64>, epsilon: f64) -> Result<Vec<f64>, CpError> {
    let (rows, rank) = factor.dim();
    let data: Vec<f64> = factor.iter().copied().collect();
    let what = "singular value decomposition";
    let (u, s, v) = thin_svd(mat(&data, rows, rank)).ok_or(CpError::NoConvergence {
        what,
        rows,
        columns: rank,
    })?;
    let noise = epsilon * rows.max(rank) as f64 * s[0];
    let mut inverse = vec![0.0; rank * rows];
    for (k, &s) in s.iter().enumerate().filter(|(_, s)| **s > noise) {
        for r in 0..rank {
            for i in 0..rows {
                inverse[r * rows + i] += v[(r, k)] * u[(i, k)] / s;
            }
        }
    }
    Ok(inverse)
}
