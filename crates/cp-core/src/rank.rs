//! Which rank? Estimates from the singular values of unfoldings, from an error target, and a check of a model that was found.
//!
//! | question | answer |
//! |---|---|
//! | What stands out of the noise? | [`evbmf`]; for a convolution kernel [`tucker2_ranks`] and [`cp_rank_by_evbmf`] |
//! | What holds a share of the energy? | [`rank_for_energy`] |
//! | What reaches an error? | [`rank_for_error`] |
//! | Has this model too many terms? | [`core_consistency`] |
//!
//! None of them knows the network: they tell what the weights hold, not what the accuracy needs.

mod core_consistency;
mod energy;
mod error_target;
mod evbmf;

pub use core_consistency::core_consistency;
pub use energy::rank_for_energy;
pub use error_target::{RankSearch, rank_for_error};
pub use evbmf::{Vbmf, cp_rank_by_evbmf, evbmf, tucker2_ranks};
