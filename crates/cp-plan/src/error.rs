//! What can be wrong with a plan, or with the work on it.

use std::path::PathBuf;

use cp_core::CpError;
use cp_net::{Form, NetError, Rank};

/// The error of this crate. Variants hold data; the messages say what was found, what was expected and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The network, or what was asked of it.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A plan names a layer twice.
    #[error("the plan names layer '{layer}' more than once")]
    PlanDuplicate {
        /// The layer.
        layer: String,
    },
    /// A plan names a layer that has no kernel to decompose.
    #[error(
        "the plan names layer '{layer}', which is {op}; only convolutions and linear layers are factorized"
    )]
    PlanLayer {
        /// The layer.
        layer: String,
        /// Its op.
        op: &'static str,
    },
    /// A convolution in groups where one kernel is wanted.
    #[error(
        "layer '{layer}' is a convolution in {groups} groups; convolutions whose parameters are factors have one: write it in a form instead (cp3, cp4, tucker2)"
    )]
    Groups {
        /// The layer.
        layer: String,
        /// Its groups.
        groups: usize,
    },
    /// A plan is no valid TOML of a plan.
    #[error("rank plan: {0}")]
    PlanSyntax(#[from] toml::de::Error),
    /// A plan cannot be written as TOML.
    #[error("rank plan: {0}")]
    PlanWrite(#[from] toml::ser::Error),
    /// No ratio to break-even meets the budget.
    #[error(
        "{quantity} cannot be brought to {asked:.4} of the dense network with these layers and forms; the nearest that \
         can be reached is {nearest:.4}"
    )]
    BudgetUnreachable {
        /// `parameters`, `multiply-adds` or `seconds`.
        quantity: &'static str,
        /// compressed / dense asked for.
        asked: f64,
        /// The nearest compressed / dense that ranks of at least 1 give.
        nearest: f64,
    },
    /// A rule that chooses ranks of other forms.
    #[error(
        "{rule} says nothing of ranks of the form {form}: give a budget or an error, or take one of cp3, cp4, tucker2, tkd-cpd"
    )]
    RuleForm {
        /// The rule.
        rule: &'static str,
        /// The form asked for.
        form: Form,
    },
    /// A budget that is no ratio.
    #[error("a budget of {got} for compressed / dense; expected a number above 0 and at most 1")]
    BudgetRange {
        /// As given.
        got: f64,
    },
    /// A budget in seconds for a plan that knows none.
    #[error(
        "a budget in seconds needs a profile in which the network was timed: `Profile::measure`, then seconds for the network, its \
         layers and its choices, then `Profile::plan`"
    )]
    BudgetUnmeasured,
    /// A profile without seconds where they count.
    #[error(
        "the profile has no seconds for {what}; time it, or ask for parameters or multiply-adds"
    )]
    SecondsMissing {
        /// The network, a layer, or one choice of a layer.
        what: String,
    },
    /// A rank that a profile does not hold and cannot be taken from its neighbours.
    #[error(
        "layer '{layer}': {form} R={rank} is not in the profile{}",
        if measured.is_empty() { ", nor is any other rank of that form".into() } else { format!("; measured: {}", list(measured)) }
    )]
    NotMeasured {
        /// The layer.
        layer: String,
        /// The form asked for.
        form: Form,
        /// The rank asked for.
        rank: Rank,
        /// The ranks of this form that were measured.
        measured: Vec<Rank>,
    },
    /// A sum of ranks that does not go round.
    #[error(
        "a rank budget of {budget} for the {layers}: with 1 for each layer and the ranks that are fixed, {least} are needed"
    )]
    RankBudget {
        /// `convolutions` or `linear layers`.
        layers: &'static str,
        /// As given.
        budget: usize,
        /// The least that will do.
        least: usize,
    },
    /// An option of a plan is out of its range.
    #[error("{option} is {got}, expected {expected}")]
    PlanOption {
        /// The option.
        option: &'static str,
        /// Its value.
        got: f64,
        /// What would do.
        expected: &'static str,
    },
    /// A number given for a layer is out of its range.
    #[error("{option} of layer '{layer}' is {got}, expected {expected}")]
    LayerOption {
        /// The layer.
        layer: String,
        /// What the number is.
        option: &'static str,
        /// Its value.
        got: f64,
        /// What would do.
        expected: &'static str,
    },
    /// A decomposition failed.
    #[error("layer '{layer}': {source}")]
    Decompose {
        /// The layer.
        layer: String,
        /// What cp-core said.
        source: CpError,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file holds no plan.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<PlanError>,
    },
}

/// Ranks, one after the other.
fn list(ranks: &[Rank]) -> String {
    ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
