//! Convolutional networks as data.
//!
//! A [`Network`] is a value: an [`Architecture`] (a graph of named operations) and a map from names to arrays. Loading,
//! counting, rewriting (dense → factors, batch norms folded) and saving are plain functions on that value; nothing here needs
//! libtorch or a solver. What decomposes kernels and decides on ranks is in `cp-plan`.
//!
//! ```
//! use cp_net::{Form, Network, arch};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("small-cnn.safetensors");
//! arch::by_name("small-cnn(classes=7)")?.initialize(1)?.save(&path)?;
//! let net = Network::load(&path)?; //                          nodes + a map from names to arrays
//! let dense = net.cost([1, 28, 28])?; //                       parameters, multiply-adds, per layer
//! println!("{dense}");
//!
//! let mut arch = net.architecture().clone();
//! arch.factorize("conv2", Form::Cp3, 16)?; //                  conv2.reduce, .spatial, .expand: the graph alone
//! let cost = arch.cost([1, 28, 28])?;
//! assert_eq!(cost.layer("conv2").unwrap().cost.params, 16 * (64 + 32 + 9) + 64);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Conventions
//! - Shapes are without the batch axis: `[C, H, W]` for maps, `[features]` behind a flattening. Axes count from 0 behind it; spatial
//!   axes come in the order vertical, horizontal.
//! - A kernel is `[T, S/g, kh, kw]`: T output channels, S input channels, g groups. The rank R of a grouped layer is that of
//!   each group.
//! - A node reads and makes values. A value is called like the node that makes it, a parameter like its node and its slot, unless they
//!   have names of their own: `features.0` makes `features.0` and has `features.0.weight` and `features.0.bias`, as torchvision's
//!   networks do, so that weights move by name. Nodes that name the same parameter share it.
//! - Costs count multiply-adds ("MACs"), not floating-point operations, for one example.

pub mod arch;
mod atomic;
mod cost;
mod error;
mod factor;
mod file;
mod network;
mod op;
mod rewrite;

pub use atomic::{AtomicFile, TemporaryFolder, remove_unfinished, write_atomic};
pub use cost::{BreakEven, Cost, LayerCost, NodeCost, Totals};
pub use error::NetError;
pub use factor::form::{Form, UnknownForm};
pub use factor::parts::{PART_SUFFIXES, replacement};
pub use factor::rank::Rank;
pub use factor::record::Factorization;
pub use file::arrays::Loaded;
pub use file::kind::FileKind;
pub use file::read::{read_file, read_text};
pub use file::safetensors::METADATA_KEY;
pub use network::architecture::Architecture;
pub use network::input::{Channels, INPUT, InputSpec};
pub use network::node::Node;
pub use network::shapes::{InputShapes, Shapes};
pub use network::{ConvLayer, Network};
pub use op::*;
pub use rewrite::{Factors, Term, tensor_shape};
