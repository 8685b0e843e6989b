//! [`Factorization`]: the record of a layer that was replaced by factors.

use serde::{Deserialize, Serialize};

use crate::factor::form::Form;
use crate::factor::rank::Rank;
use crate::op::Op;

/// How a layer was factorized: kept with the network, so that a report or a second compression knows what stood there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factorization {
    /// The form.
    pub form: Form,
    /// The rank (of each group).
    pub rank: Rank,
    /// The dense op that was replaced.
    pub dense: Op,
    /// The dense layer's weight: layers with the same one were replaced together, and share their factors.
    pub weight: String,
    /// The nodes that took its place, in order; the last one carries the dense layer's bias.
    pub parts: Vec<String>,
    /// ‖K − K̂‖ / ‖K‖ of the weights when they were replaced.
    pub rel_error: f64,
}
