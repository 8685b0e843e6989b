//! libtorch: the executor, on an input drawn once.

use cp_net::Network;
use cp_torch::tch::{Device, Kind, Tensor};
use cp_torch::{Executor, Mode};

use super::{Inputs, Ready};
use crate::error::TrainError;
use crate::memory::{Purpose, check_memory};
use crate::timing::synchronize;

struct Torch {
    model: Executor,
    inputs: Vec<Tensor>,
}

pub(super) fn ready(
    network: &Network,
    inputs: &Inputs,
    device: Device,
) -> Result<Box<dyn Ready>, TrainError> {
    let arch = network.architecture();
    let shapes = inputs.of_architecture(arch);
    let option = "--batch, --timing-batch or --input";
    check_memory(arch, &shapes, inputs.batch, Purpose::Forward, device, option)?;
    let model = Executor::new(&network.folded()?, device)?;
    cp_torch::tch::manual_seed(0);
    let drawn = shapes.iter().map(|shape| {
        let sizes: Vec<i64> = [inputs.batch].iter().chain(shape).map(|&size| size as i64).collect();
        Ok(Tensor::f_rand(sizes.as_slice(), (Kind::Float, device))?)
    });
    let inputs = drawn.collect::<Result<_, TrainError>>()?;
    Ok(Box::new(Torch { model, inputs }))
}

impl Ready for Torch {
    fn pass(&mut self) -> Result<(), TrainError> {
        let _guard = cp_torch::tch::no_grad_guard();
        let inputs: Vec<&Tensor> = self.inputs.iter().collect();
        let _ = self.model.forward_all(&inputs, Mode::Eval)?;
        synchronize(self.model.device());
        Ok(())
    }
}
