//! Which modes a Tucker model compresses, and how far.

use crate::error::CpError;

/// The ranks of a solver as its user gave them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ranks {
    /// The modes that the ranks belong to; all of them for `None`.
    pub(crate) modes: Option<Vec<usize>>,
    pub(crate) ranks: Vec<usize>,
}

impl Ranks {
    /// Rₙ for each mode that is compressed, `None` for the others. Ranks above what the other modes allow, ∏_{m≠n} Rₘ, are
    /// lowered to that: no model with these ranks needs more.
    ///
    /// # Errors
    /// Another number of ranks than modes, a mode that the tensor has not or that comes twice, a rank of 0 or above the
    /// size of its mode.
    pub(crate) fn resolve(&self, shape: &[usize]) -> Result<Vec<Option<usize>>, CpError> {
        let modes = resolve_modes(self.modes.as_deref(), shape)?;
        if self.ranks.len() != modes.len() {
            return Err(CpError::RankCount { expected: modes.len(), got: self.ranks.len() });
        }
        let mut ranks = vec![None; shape.len()];
        for (&mode, &rank) in modes.iter().zip(&self.ranks) {
            let size = shape[mode];
            if rank == 0 {
                return Err(CpError::RankZero);
            }
            if rank > size {
                return Err(CpError::RankAboveMode { mode, rank, size });
            }
            ranks[mode] = Some(rank);
        }
        // Only the largest rank can be above the product of the others, and only once.
        for mode in 0..shape.len() {
            let size = |m: usize| ranks[m].unwrap_or(shape[m]);
            let others = (0..shape.len()).filter(|&m| m != mode).map(size);
            let bound = others.fold(1, usize::saturating_mul);
            ranks[mode] = ranks[mode].map(|rank| rank.min(bound));
        }
        Ok(ranks)
    }
}

/// The modes to compress: those given, or all.
///
/// # Errors
/// A mode that the tensor has not or that comes twice.
pub(crate) fn resolve_modes(
    modes: Option<&[usize]>,
    shape: &[usize],
) -> Result<Vec<usize>, CpError> {
    let order = shape.len();
    let Some(modes) = modes else { return Ok((0..order).collect()) };
    for (k, &mode) in modes.iter().enumerate() {
        if mode >= order {
            return Err(CpError::Mode { mode, order });
        }
        if modes[..k].contains(&mode) {
            let (option, value, expected) = ("modes", mode as f64, "each mode at most once");
            return Err(CpError::InvalidOption { option, value, expected });
        }
    }
    Ok(modes.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ranks: &[usize], modes: Option<&[usize]>, shape: &[usize], expect: &[Option<usize>]) {
        let ranks = Ranks { modes: modes.map(<[usize]>::to_vec), ranks: ranks.to_vec() };
        assert_eq!(ranks.resolve(shape).unwrap(), expect, "{ranks:?} of {shape:?}");
    }

    #[test]
    fn ranks_are_lowered_to_what_the_others_allow() {
        check(&[2, 3, 4], None, &[5, 5, 5], &[Some(2), Some(3), Some(4)]);
        check(&[2, 2, 5], None, &[5, 5, 5], &[Some(2), Some(2), Some(4)]);
        check(&[5, 1, 1], None, &[5, 5, 5], &[Some(1), Some(1), Some(1)]);
        check(&[7, 2], Some(&[0, 1]), &[9, 4, 3], &[Some(6), Some(2), None]);
        check(&[3], Some(&[2]), &[1, 2, 8], &[None, None, Some(2)]);
        check(&[], Some(&[]), &[3, 2], &[None, None]);
    }
}
