//! [`Budget`]: what a compressed network may cost.

use cp_net::Totals;

use crate::error::PlanError;

/// What a compressed network may cost, as compressed / dense of the whole network, in (0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Budget {
    /// Of its parameters.
    Params(f64),
    /// Of its multiply-adds.
    Macs(f64),
    /// Of the seconds that a batch takes. Only a [`Profile`](crate::Profile) with measured seconds can tell.
    Latency(f64),
}

impl Budget {
    /// compressed / dense asked for.
    ///
    /// # Errors
    /// [`PlanError::BudgetRange`] where it is outside (0, 1].
    pub(super) fn ratio(self) -> Result<f64, PlanError> {
        let (Budget::Params(ratio) | Budget::Macs(ratio) | Budget::Latency(ratio)) = self;
        if ratio > 0.0 && ratio <= 1.0 {
            Ok(ratio)
        } else {
            Err(PlanError::BudgetRange { got: ratio })
        }
    }

    /// What it counts, for messages.
    pub(super) fn quantity(self) -> &'static str {
        match self {
            Budget::Params(_) => "parameters",
            Budget::Macs(_) => "multiply-adds",
            Budget::Latency(_) => "seconds",
        }
    }

    /// What it counts of a cost that is known without measuring.
    ///
    /// # Errors
    /// [`PlanError::BudgetUnmeasured`] for seconds.
    pub(super) fn counted(self) -> Result<fn(&Totals) -> usize, PlanError> {
        match self {
            Budget::Params(_) => Ok(|cost| cost.params),
            Budget::Macs(_) => Ok(|cost| cost.macs),
            Budget::Latency(_) => Err(PlanError::BudgetUnmeasured),
        }
    }
}
