//! [`Rank`]: the size of a factorized layer, one number or several.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The size of a factorized layer (of each group): one number for most forms, several for those with two stages.
///
/// In TOML and JSON a number or a list: `rank = 154`, `rank = [24, 12]`, `rank = [24, 12, 30]`, `rank = [2, 2, 48, 24]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a whole number of at least 1, two of them for tucker2 (`[out, in]`), three for tkd-cpd (`[out, in, inner]`) and denton (`[out clusters, in clusters, terms]`), or four for denton-svd (`[out clusters, in clusters, out, in]`)"
)]
pub enum Rank {
    /// R of CP-3, CP-4 and low-rank layers.
    One(usize),
    /// \[R_out, R_in\] of Tucker-2.
    Two([usize; 2]),
    /// \[R_out, R_in, R\] of TKD-CPD: the ranks of Tucker-2 and that of the CP model of its core; \[oc, ic, k\] of Denton's form: clusters of
    /// output and input channels, and terms of each block.
    Three([usize; 3]),
    /// \[oc, ic, r_o, r_i\] of Denton's form by singular values: clusters of output and input channels, and ranks of each block.
    Four([usize; 4]),
}

impl Rank {
    /// All numbers.
    pub fn parts(&self) -> &[usize] {
        match self {
            Rank::One(rank) => std::slice::from_ref(rank),
            Rank::Two(ranks) => ranks,
            Rank::Three(ranks) => ranks,
            Rank::Four(ranks) => ranks,
        }
    }

    /// The number, where there is just one.
    pub fn one(self) -> Option<usize> {
        if let Rank::One(rank) = self { Some(rank) } else { None }
    }

    /// How a message says what kind of rank this is.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Rank::One(_) => "one number",
            Rank::Two(_) => "two numbers",
            Rank::Three(_) => "three numbers",
            Rank::Four(_) => "four numbers",
        }
    }
}

impl From<usize> for Rank {
    fn from(rank: usize) -> Self {
        Rank::One(rank)
    }
}

impl From<[usize; 2]> for Rank {
    fn from(ranks: [usize; 2]) -> Self {
        Rank::Two(ranks)
    }
}

impl From<[usize; 3]> for Rank {
    fn from(ranks: [usize; 3]) -> Self {
        Rank::Three(ranks)
    }
}

impl From<[usize; 4]> for Rank {
    fn from(ranks: [usize; 4]) -> Self {
        Rank::Four(ranks)
    }
}

impl PartialEq<usize> for Rank {
    fn eq(&self, other: &usize) -> bool {
        *self == Rank::One(*other)
    }
}

/// `154`, `24x12`, `24x12x30`, `2x2x48x24`.
impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts().iter().map(usize::to_string).collect();
        f.pad(&parts.join("x"))
    }
}
