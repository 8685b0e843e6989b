//! Runs the binary `polyad` as its users do. One test program, as each would link libtorch anew.

#![allow(clippy::unwrap_used, reason = "a helper of a test that cannot go on has found a failure")]

mod attack;
mod decompose;
mod deploy;
mod engine;
mod help;
mod inputs;
mod mistakes;
mod models;
mod onnx;
mod other_files;
mod pictures;
mod pytorch;
mod real_data;
mod run;
mod significance;
mod support;
mod work;
