//! The modules of this crate import each other in no circle.

/// The test of cp-net, which reads the sources of the crate that it is compiled in.
#[path = "../../cp-net/tests/layering.rs"]
mod cp_net;
