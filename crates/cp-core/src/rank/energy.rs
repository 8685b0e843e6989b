//! Ranks by the share of the energy: [`rank_for_energy`].

use crate::error::CpError;

/// The smallest R for which the R largest singular values hold at least `share` of the energy, Σ_{r<R} sᵣ² ≥ share · Σ sᵣ².
///
/// The relative error of the truncated matrix is then at most √(1 − share). At least 1, also for zeros.
///
/// # Shapes
/// `singular_values`: `[L]` in any order, non-negative; L ≥ 1.
///
/// # Errors
/// No values, values that are negative or not finite, a share outside of 0…1.
///
/// ```
/// assert_eq!(cp_core::rank::rank_for_energy(&[4.0, 2.0, 1.0], 0.9)?, 2); // 20/21 = 0.952, 16/21 = 0.762
/// # Ok::<(), cp_core::CpError>(())
/// ```
pub fn rank_for_energy(singular_values: &[f64], share: f64) -> Result<usize, CpError> {
    if singular_values.is_empty() {
        return Err(CpError::EmptyMode { mode: 0, shape: vec![0] });
    }
    if !(0.0..=1.0).contains(&share) {
        let (option, expected) = ("share", "a number from 0 to 1");
        return Err(CpError::InvalidOption { option, value: share, expected });
    }
    if let Some(i) = singular_values.iter().position(|s| !(s.is_finite() && *s >= 0.0)) {
        let (option, value) = ("singular_values", singular_values[i]);
        return Err(CpError::InvalidOption {
            option,
            value,
            expected: "finite numbers, at least 0",
        });
    }
    let mut values = singular_values.to_vec();
    values.sort_by(|a, b| b.total_cmp(a));
    let largest = values[0];
    if largest == 0.0 {
        return Ok(1);
    }
    // From the small end: what may be dropped is known to more digits than what has to be kept.
    let squares: Vec<f64> = values.iter().map(|s| (s / largest).powi(2)).collect();
    let budget = (1.0 - share) * squares.iter().rev().sum::<f64>();
    let mut dropped = 0.0;
    let mut rank = squares.len();
    while rank > 1 {
        dropped += squares[rank - 1];
        if dropped > budget {
            break;
        }
        rank -= 1;
    }
    Ok(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(values: &[f64], share: f64, expect: usize) {
        assert_eq!(rank_for_energy(values, share).unwrap(), expect, "{values:?} at {share}");
    }

    #[test]
    fn shares() {
        check(&[1.0, 1.0, 1.0, 1.0], 0.5, 2);
        check(&[1.0, 1.0, 1.0, 1.0], 0.51, 3);
        check(&[1.0, 1.0, 1.0, 1.0], 1.0, 4);
        check(&[1.0, 3.0, 2.0], 0.6, 1);
        check(&[3.0, 2.0, 0.0], 1.0, 2);
        check(&[3.0, 2.0], 0.0, 1);
        check(&[0.0, 0.0], 1.0, 1);
        check(&[1e200, 1e200, 1e-200], 0.9, 2);
    }

    #[test]
    fn refusals() {
        assert!(rank_for_energy(&[], 0.5).is_err());
        assert!(rank_for_energy(&[1.0, f64::NAN], 0.5).is_err());
        assert!(rank_for_energy(&[1.0, -1.0], 0.5).is_err());
        assert!(rank_for_energy(&[1.0], 1.5).is_err());
        assert!(rank_for_energy(&[1.0], f64::NAN).is_err());
    }
}
