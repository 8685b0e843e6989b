//! Networks that were read from ONNX files, compiled: the cases of cp-onnx, held against the same references.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "../../cp-onnx/tests/import_support/mod.rs"]
mod import_support;

use cp_infer::{Compiled, Options};
use cp_net::Network;
use import_support::cases::{files, nodes};
use ndarray::{ArrayD, ArrayViewD};

fn compiled(network: &Network, inputs: &[ArrayViewD<'_, f32>]) -> Result<Vec<ArrayD<f32>>, String> {
    let batch = inputs.first().map_or(1, |x| x.shape()[0]);
    let run = || -> Result<Vec<ArrayD<f32>>, cp_infer::InferError> {
        Compiled::new(network, &Options::default().threads(1).batch(batch))?.run(inputs)
    };
    run().map_err(|error| error.to_string())
}

#[test]
fn tests_of_single_operators() {
    nodes("node", &compiled);
}

#[test]
fn exports_of_opset_6_to_12() {
    nodes("classic", &compiled);
}

#[test]
fn every_model_equals_its_reference() {
    files(&compiled);
}
