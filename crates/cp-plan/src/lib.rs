//! Decides how the layers of a network are factorized, and decomposes them.
//!
//! The network is a [`cp_net::Network`], the solvers are those of `cp-core`. A [`RankPlan`] says which layers get which form at
//! which rank; it can be costed before anything is decomposed. It comes from one number for the whole network
//! ([`RankPlan::uniform`]), from a rule ([`RankPlan::by_error`], [`RankPlan::by_energy`], [`RankPlan::by_evbmf`]), from losses
//! ([`RankPlan::from_losses`]), or from the measured errors of all layers ([`Profile::plan`]). [`compress`] applies it:
//!
//! ```
//! use cp_net::{Form, arch};
//! use cp_plan::{Budget, Decomposer, RankPlan, compress};
//!
//! let mut net = arch::by_name("small-cnn")?.initialize(1)?;
//! let plan = RankPlan::uniform(&net, [1, 28, 28], Budget::Macs(0.5), Form::Cp4)?;
//! let (dense, planned) = (net.cost([1, 28, 28])?, plan.cost(&net, [1, 28, 28])?);
//! assert!(2 * planned.total.macs <= dense.total.macs);
//! # let plan = RankPlan::default().with("conv2", Form::Cp4, 4, "quick");
//! let decomposer = Decomposer { max_iters: 10, seed: 2, ..Decomposer::default() };
//! let reports = compress(&mut net, &plan, &decomposer, &|_event| {})?;
//! assert!(reports[0].after.macs < reports[0].before.macs);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Single layers are factorized by [`Factorize`].
//!
//! # Conventions
//! - Shapes and kernels as in [`cp_net`]; the rank of a grouped layer is that of each group.
//! - Layers that share a kernel are one layer here, known by the name of the first of them; a plan may name any one of them, and
//!   factorizes all.
//! - Errors are relative, ‖K − K̂‖ / ‖K‖.

mod compress;
mod decompose;
mod error;
mod factorize;
mod from_conv;
mod model;
mod models;
mod plan;

pub use compress::{Event, LayerReport, compress};
pub use decompose::{Decomposed, Decomposer, LayerStatistics, MAX_ENERGY, Method, UnknownMethod};
pub use error::PlanError;
pub use factorize::Factorize;
pub use from_conv::{Factored, cp_start, from_conv};
pub use model::KernelModel;
pub use models::Models;
pub use plan::allocate::{Objective, PlanOptions, Predicted};
pub use plan::budget::Budget;
pub use plan::profile::{Choice, LayerProfile, Profile, ProfileOptions};
pub use plan::shares::{Rest, ShareBudgets, ShareRule};
pub use plan::{DenseLayer, PlanWarning, PlannedCost, PlannedLayer, RankPlan};
