//! Convolutional networks as data.
//!
//! A [`Network`] is a value: an [`Architecture`] (a graph of named operations) and a map from names to arrays. Loading,
//! counting, rewriting (dense → factors) and saving are plain functions on that value; nothing here needs libtorch.
//!
//! ```
//! use cp_core::{Als, Init, Solver};
//! use cp_net::{Form, Network, arch};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("small-cnn.safetensors");
//! arch::by_name("small-cnn")?.initialize(1)?.save(&path)?;
//! let mut net = Network::load(&path)?; //                    nodes + a map from names to arrays
//! let kernel = &net.tensors("conv2", Form::Cp3)?[0]; //      [64, 32, 9], one per group
//! let cp = Als::new(16).max_iters(20).init(Init::Random { seed: 2 }).decompose(kernel.view())?.cp;
//! net.factorize("conv2", Form::Cp3, &[cp])?; //              conv2.reduce, .spatial, .expand
//! let cost = net.cost([1, 28, 28])?; //                      parameters, multiply-adds, per layer
//! println!("{cost}");
//! assert_eq!(cost.layer("conv2").unwrap().cost.params, 16 * (64 + 32 + 9) + 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A whole network is compressed by a [`RankPlan`], which can be costed before anything is decomposed:
//!
//! ```
//! use cp_net::{Budget, Decomposer, Form, RankPlan, arch, compress};
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
//! # Conventions
//! - Shapes are without the batch axis: `[C, H, W]` for maps, `[features]` behind a flattening. Spatial axes come in the
//!   order vertical, horizontal.
//! - A kernel is `[T, S/g, kh, kw]`: T output channels, S input channels, g groups. The rank R of a grouped layer is that of
//!   each group.
//! - A parameter is named after its node: `features.0` has `features.0.weight` and `features.0.bias`, as torchvision's
//!   networks do, so that weights move by name.
//! - Costs count multiply-adds ("MACs"), not floating-point operations, for one example.

pub mod arch;
mod atomic;
mod check;
mod compress;
mod cost;
mod decompose;
mod error;
mod factorize;
mod factors;
mod model;
mod network;
mod op;
mod plan;
mod rank;
mod shape;
mod weights;

pub use atomic::write_atomic;
pub use compress::{Event, LayerReport, compress};
pub use cost::{BreakEven, Cost, LayerCost, NodeCost, Totals};
pub use decompose::{Decomposer, Found, LayerStatistics, MAX_ENERGY, Method, UnknownMethod};
pub use error::NetError;
pub use factorize::{Factorization, Form, PART_SUFFIXES, UnknownForm};
pub use model::Model;
pub use network::{Architecture, Channels, ConvLayer, INPUT, InputSpec, Network, Node};
pub use op::{BatchNorm, Conv, ConvGeometry, Linear, Lrn, Op, ParamRole, ParamSpec, Pool};
pub use plan::{
    Budget, Choice, DenseLayer, LayerProfile, Objective, PlanOptions, PlanWarning, PlannedCost,
    PlannedLayer, Predicted, Profile, ProfileOptions, RankPlan, ShareBudgets,
};
pub use rank::Rank;
pub use weights::METADATA_KEY;
