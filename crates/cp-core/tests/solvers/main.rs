//! The tests of the decompositions, in one program: each would compile the generic kernels anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/degenerate.rs"]
mod degenerate;

mod all_solvers;
mod als_qr;
mod collinear_columns;
mod data_aware;
mod degenerate_tensors;
mod denton;
mod epc;
mod golden;
mod golden_files;
mod invariants;
mod nls;
mod nonneg;
mod power;
mod precompress;
mod rank;
mod recovery;
mod sampled;
mod search;
mod shared_basis;
mod sources;
mod stop_reasons;
mod threads;
mod tucker;
