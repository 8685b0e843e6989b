//! What was factorized, as the model itself says it: JSON in `metadata_props`.

use cp_net::{Form, Rank};
use serde::{Deserialize, Serialize};

/// The key in `metadata_props`.
pub const KEY: &str = "polyad";

/// A layer that was replaced by factors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Factorization {
    /// The layer that there was.
    pub layer: String,
    /// The scope of its weight.
    pub scope: String,
    /// The form.
    pub form: Form,
    /// The ranks.
    pub rank: Rank,
    /// Names of the new weights, in the order in which the parts run.
    pub weights: Vec<String>,
}

/// The value under [`KEY`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) layers: Vec<Factorization>,
}
