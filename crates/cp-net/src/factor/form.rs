//! [`Form`]: which small layers a dense one is replaced by.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::factor::rank::Rank;
use crate::op::Op;

/// The factorized form of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Form {
    /// 1×1 S→R · kh×kw depthwise · 1×1 R→T (Astrid & Lee 2017): nodes `reduce`, `spatial`, `expand`.
    Cp3,
    /// 1×1 S→R · kh×1 depthwise · 1×kw depthwise · 1×1 R→T (Lebedev et al. 2015): nodes `reduce`, `vertical`,
    /// `horizontal`, `expand` (for three spatial axes `depth` in front, for one `spatial`).
    Cp4,
    /// Two linear layers, or two 1×1 convolutions, in→R→out by truncated SVD: nodes `reduce`, `expand`.
    LowRank,
    /// 1×1 S→R_in · kh×kw R_in→R_out · 1×1 R_out→T (Kim et al. 2016): nodes `reduce`, `core`, `expand`.
    Tucker2,
    /// Tucker-2 with its core in CP-3 (Phan et al. 2020): nodes `reduce`, `core_reduce`, `spatial`, `core_expand`, `expand`.
    TkdCpd,
    /// kh×1 S→S·M in S groups · 1×kw depthwise · 1×1 S·M→T (Jaderberg et al. 2014, scheme 1, with a basis for every input channel):
    /// nodes `vertical`, `horizontal`, `expand`.
    Jaderberg1,
    /// kh×1 S→R · 1×kw R→T (Jaderberg et al. 2014, scheme 2): nodes `vertical`, `horizontal`.
    Jaderberg2,
    /// 1×1 S→R·T · kh×kw R·T→T in T groups (Xie et al. 2018, the balanced form): nodes `reduce`, `spatial`.
    Decoupled,
    /// kh×1 1→M · 1×kw depthwise · 1×1 S·M→T, the first two for every input channel alike (Jaderberg et al. 2014, scheme 1, with one basis
    /// for all input channels), as convolutions over three axes: nodes `unsqueeze`, `vertical`, `horizontal`, `expand`, `squeeze`.
    Jaderberg1Shared,
    /// Clusters of channels, and k rank-one terms for each block (Denton et al. 2014): nodes `arrange`, `reduce`, `spatial`, `shuffle`,
    /// `expand`, `restore`.
    Denton,
    /// Clusters of channels, and Tucker-2 of each block by two singular value decompositions (Denton et al. 2014): nodes `arrange`, `reduce`,
    /// `core`, `shuffle`, `expand`, `restore`.
    DentonSvd,
    /// 1×1 S→C · each output channel reads one of these · kh×kw depthwise (Denton et al. 2014, for a first layer): nodes `reduce`, `assign`,
    /// `spatial`.
    Monochromatic,
}

impl Form {
    /// All of them.
    pub const ALL: [Form; 12] = [
        Form::Cp3,
        Form::Cp4,
        Form::LowRank,
        Form::Tucker2,
        Form::TkdCpd,
        Form::Jaderberg1,
        Form::Jaderberg2,
        Form::Decoupled,
        Form::Jaderberg1Shared,
        Form::Denton,
        Form::DentonSvd,
        Form::Monochromatic,
    ];

    /// The name as in plans and on the command line: `cp3`, `cp4`, `low-rank`, `tucker2`, `tkd-cpd`, `jaderberg1`, `jaderberg2`,
    /// `decoupled`, `jaderberg1-shared`, `denton`, `denton-svd`, `monochromatic`.
    pub fn name(self) -> &'static str {
        match self {
            Form::Cp3 => "cp3",
            Form::Cp4 => "cp4",
            Form::LowRank => "low-rank",
            Form::Tucker2 => "tucker2",
            Form::TkdCpd => "tkd-cpd",
            Form::Jaderberg1 => "jaderberg1",
            Form::Jaderberg2 => "jaderberg2",
            Form::Decoupled => "decoupled",
            Form::Jaderberg1Shared => "jaderberg1-shared",
            Form::Denton => "denton",
            Form::DentonSvd => "denton-svd",
            Form::Monochromatic => "monochromatic",
        }
    }

    /// The rank of this form in which all numbers are 1.
    pub fn least_rank(self) -> Rank {
        match self {
            Form::Tucker2 => Rank::Two([1; 2]),
            Form::TkdCpd | Form::Denton => Rank::Three([1; 3]),
            Form::DentonSvd => Rank::Four([1; 4]),
            _ => Rank::One(1),
        }
    }

    /// What a rank of this form looks like, for messages.
    pub(crate) fn rank_words(self) -> &'static str {
        match self {
            Form::Tucker2 => "two numbers, of output and input channels, as in `rank = [24, 16]`",
            Form::TkdCpd => {
                "three numbers, of output and input channels and of the core, as in `rank = [24, 16, 30]`"
            }
            Form::Denton => {
                "three numbers, of output and input clusters and of terms of a block, as in `rank = [2, 48, 6]`"
            }
            Form::DentonSvd => {
                "four numbers, of output and input clusters and of output and input channels of a block, as in `rank = [2, 2, 48, 24]`"
            }
            _ => "one number, as in `rank = 16`",
        }
    }

    /// The form that `op` takes where `self` is wanted for convolutions with a spatial extent: linear layers and 1×1
    /// convolutions have no spatial factor and become [`Form::LowRank`]. `None` for ops without a kernel and for
    /// convolutions with a spatial extent where `self` is [`Form::LowRank`].
    pub fn suited_to(self, op: &Op) -> Option<Form> {
        match op {
            Op::Linear(_) => Some(Form::LowRank),
            Op::Conv(conv) if conv.is_pointwise() => Some(Form::LowRank),
            Op::Conv(_) if self != Form::LowRank => Some(self),
            _ => None,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is no form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "no form named '{0}'; there are: cp3, cp4, low-rank, tucker2, tkd-cpd, jaderberg1, jaderberg2, decoupled, \
     jaderberg1-shared, denton, denton-svd, monochromatic"
)]
pub struct UnknownForm(pub String);

impl FromStr for Form {
    type Err = UnknownForm;

    fn from_str(name: &str) -> Result<Self, UnknownForm> {
        Form::ALL
            .into_iter()
            .find(|form| form.name() == name)
            .ok_or_else(|| UnknownForm(name.into()))
    }
}
