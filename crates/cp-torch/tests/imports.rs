//! Networks that were read from ONNX files, on the executor: the cases of cp-onnx, held against the same references.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "../../cp-onnx/tests/import_support/mod.rs"]
mod import_support;

use cp_net::Network;
use cp_torch::tch::{Device, Tensor, no_grad, set_num_threads};
use cp_torch::{Executor, Mode, array_from_tensor, tensor_from_f32};
use import_support::cases::{files, nodes};
use ndarray::{ArrayD, ArrayViewD};

fn executor(network: &Network, inputs: &[ArrayViewD<'_, f32>]) -> Result<Vec<ArrayD<f32>>, String> {
    let run = || -> Result<Vec<ArrayD<f32>>, cp_torch::TorchError> {
        let model = Executor::new(network, Device::Cpu)?;
        let inputs: Vec<Tensor> =
            inputs.iter().map(|x| tensor_from_f32(x.view())).collect::<Result<_, _>>()?;
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let outputs = no_grad(|| model.forward_all(&inputs, Mode::Eval))?;
        outputs.iter().map(array_from_tensor).collect()
    };
    run().map_err(|error| error.to_string())
}

#[test]
fn tests_of_single_operators() {
    set_num_threads(1);
    nodes("node", &executor);
}

#[test]
fn exports_of_opset_6_to_12() {
    set_num_threads(1);
    nodes("classic", &executor);
}

#[test]
fn every_model_equals_its_reference() {
    set_num_threads(1);
    files(&executor);
}
