//! libtorch: the executor, on an input drawn once.

use cp_data::Batch;
use cp_net::{InputSpec, Network};
use cp_torch::tch::{self, Kind, Tensor};
use cp_torch::{Executor, Mode, array_from_tensor};

use super::{Engine, Forward, Inputs, Outputs, Ready};
use crate::batch::input_to_tensor;
use crate::device::Device;
use crate::error::TrainError;
use crate::memory::{Purpose, check_memory};
use crate::timing::{Timing, TimingOptions, interleaved};

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
    let device = tch::Device::from(device);
    let model = Executor::new(&network.folded()?, device)?;
    tch::manual_seed(0);
    let drawn = shapes.iter().map(|shape| {
        let sizes: Vec<i64> = [inputs.batch].iter().chain(shape).map(|&size| size as i64).collect();
        Ok(Tensor::f_rand(sizes.as_slice(), (Kind::Float, device))?)
    });
    let inputs = drawn.collect::<Result<_, TrainError>>()?;
    Ok(Box::new(Torch { model, inputs }))
}

impl Ready for Torch {
    fn pass(&mut self) -> Result<(), TrainError> {
        let _guard = tch::no_grad_guard();
        let inputs: Vec<&Tensor> = self.inputs.iter().collect();
        let _ = self.model.forward_all(&inputs, Mode::Eval)?;
        synchronize(self.model.device());
        Ok(())
    }
}

/// What stands in for ONNX Runtime on the CPU, and what is to be said of it.
pub(super) fn in_place_of_onnxruntime() -> (Engine, &'static str) {
    let note = "times are of libtorch, which is slower than ONNX Runtime on a processor";
    (Engine::Torch(Device::Cpu), note)
}

/// A network in libtorch, for its outputs.
struct Classifier {
    model: Executor,
    taps: Vec<String>,
}

pub(super) fn classifier(
    network: &Network,
    taps: &[String],
    device: Device,
) -> Result<Box<dyn Forward>, TrainError> {
    let model = Executor::new(network, device.into())?;
    Ok(Box::new(Classifier { model, taps: taps.to_vec() }))
}

impl Forward for Classifier {
    fn forward(&mut self, batch: &Batch, input: &InputSpec) -> Result<Outputs, TrainError> {
        forward(&self.model, &self.taps, batch, input)
    }
}

/// A network that is in libtorch already, such as one in training.
pub(crate) struct Running<'a> {
    pub(crate) model: &'a Executor,
    pub(crate) taps: Vec<String>,
}

impl Forward for Running<'_> {
    fn forward(&mut self, batch: &Batch, input: &InputSpec) -> Result<Outputs, TrainError> {
        forward(self.model, &self.taps, batch, input)
    }
}

fn forward(
    model: &Executor,
    taps: &[String],
    batch: &Batch,
    input: &InputSpec,
) -> Result<Outputs, TrainError> {
    let _guard = tch::no_grad_guard();
    let x = input_to_tensor(batch, input, model.device())?;
    let (output, tapped) = model.forward_tapped(&x, Mode::Eval, taps)?;
    let tapped = tapped.first().map(array_from_tensor).transpose()?;
    Ok((array_from_tensor(&output)?, tapped))
}

/// Waits until the device has finished all work given to it.
fn synchronize(device: tch::Device) {
    if let tch::Device::Cuda(index) = device {
        tch::Cuda::synchronize(i64::try_from(index).unwrap_or_default());
    }
}

/// Latency of a forward pass of each model, in seconds per batch: eval mode, no gradients, random input, the device
/// synchronized before the clock is read. All models run on the same input, in turn.
///
/// `input` is `[channels, height, width]`.
///
/// # Errors
/// Where a model rejects the input, or memory cannot hold the batch.
pub fn latency(
    models: &[&Executor],
    input: &[usize],
    batch: usize,
    options: &TimingOptions,
) -> Result<Vec<Timing>, TrainError> {
    let inputs = random_inputs(models, input, batch)?;
    latency_on(models, inputs, options)
}

/// As [`latency`], with inputs that already lie in memory as the models want them: for single layers, whose time the
/// conversion would change, and which get such maps from the layers before them.
///
/// # Errors
/// As [`latency`].
pub fn latency_in_layout(
    models: &[&Executor],
    input: &[usize],
    batch: usize,
    options: &TimingOptions,
) -> Result<Vec<Timing>, TrainError> {
    let inputs = models
        .iter()
        .zip(random_inputs(models, input, batch)?)
        .map(|(model, x)| Ok(model.in_layout(&x)?))
        .collect::<Result<_, TrainError>>()?;
    latency_on(models, inputs, options)
}

/// For each model, uniform numbers from a fixed seed: timing does not depend on the values, but denormals would be slow.
fn random_inputs(
    models: &[&Executor],
    input: &[usize],
    batch: usize,
) -> Result<Vec<Tensor>, TrainError> {
    let option = "--batch, --timing-batch or --input";
    for model in models {
        let (arch, device) = (model.architecture(), model.device());
        check_memory(arch, input, batch, Purpose::Forward, device.into(), option)?;
    }
    let mut shape = vec![batch as i64];
    shape.extend(input.iter().map(|&size| size as i64));
    let drawn = models.iter().map(|model| {
        tch::manual_seed(0);
        Ok(Tensor::f_rand(shape.as_slice(), (Kind::Float, model.device()))?)
    });
    drawn.collect()
}

fn latency_on(
    models: &[&Executor],
    inputs: Vec<Tensor>,
    options: &TimingOptions,
) -> Result<Vec<Timing>, TrainError> {
    let _guard = tch::no_grad_guard();
    let mut runs: Vec<_> = models
        .iter()
        .zip(inputs)
        .map(|(model, x)| {
            move || -> Result<(), TrainError> {
                let _ = model.forward(&x, Mode::Eval)?;
                synchronize(model.device());
                Ok(())
            }
        })
        .collect();
    let mut subjects: Vec<&mut dyn FnMut() -> Result<(), TrainError>> =
        runs.iter_mut().map(|run| run as &mut dyn FnMut() -> Result<(), TrainError>).collect();
    interleaved(&mut subjects, options)
}
