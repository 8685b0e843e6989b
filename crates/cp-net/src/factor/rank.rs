//! [`Rank`]: the size of a factorized layer, one number or several.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The size of a factorized layer (of each group): one number for most forms, several for those with two stages.
///
/// In TOML and JSON a number or a list: `rank = 154`, `rank = [24, 12]`, `rank = [24, 12, 30]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a whole number of at least 1, two of them for tucker2 (`[out, in]`), or three for tkd-cpd (`[out, in, inner]`)"
)]
pub enum Rank {
    /// R of CP-3, CP-4 and low-rank layers.
    One(usize),
    /// \[R_out, R_in\] of Tucker-2.
    Two([usize; 2]),
    /// \[R_out, R_in, R\] of TKD-CPD: the ranks of Tucker-2 and that of the CP model of its core.
    Three([usize; 3]),
}

impl Rank {
    /// All numbers.
    pub fn parts(&self) -> &[usize] {
        match self {
            Rank::One(rank) => std::slice::from_ref(rank),
            Rank::Two(ranks) => ranks,
            Rank::Three(ranks) => ranks,
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

impl PartialEq<usize> for Rank {
    fn eq(&self, other: &usize) -> bool {
        *self == Rank::One(*other)
    }
}

/// `154`, `24x12`, `24x12x30`.
impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.parts().iter().map(usize::to_string).collect();
        f.pad(&parts.join("x"))
    }
}
