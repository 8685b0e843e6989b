//! What changes the graph of a network: one primitive ([`edit`](mod@edit)), and a file for each rewriting.
//!
//! A rewriting leaves the function of the network as it is, or, where it approximates, as the arrays that it is given say.

mod bias_order;
mod edit;
mod factored;
mod factorize;
mod factors;
mod fold;
mod kernels;
mod prune;
mod subsample;
mod terms;
mod transduce;
mod unshare;

pub use factors::{Factors, tensor_shape};
pub use terms::Term;
