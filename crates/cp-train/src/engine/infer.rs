//! cp-infer: the folded network, or an ONNX model that is understood as one.

use std::sync::atomic::{AtomicU64, Ordering};

use cp_data::Batch;
use cp_infer::{Compiled, Options, Watch};
use cp_net::{InputSpec, Network};
use cp_onnx::{ImportOptions, Model};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Forward, Inputs, NodeTime, Outputs, Ready, Subject};
use crate::batch::to_array;
use crate::device::Device;
use crate::error::TrainError;
use crate::memory::{Purpose, available, check_memory};
use crate::timing::{self, Stopwatch, Timing};

struct Infer {
    compiled: Compiled,
    images: usize,
    inputs: Vec<Vec<f32>>,
    outputs: Vec<Vec<f32>>,
}

/// `network` made ready for batches of `batch` on the threads set.
fn compiled(network: &Network, batch: usize) -> Result<Compiled, TrainError> {
    let options = Options::default().threads(timing::set_threads(0)).batch(batch);
    Ok(Compiled::new(network, &options)?)
}

/// Numbers of an image that may as well be made by slow code.
const FEW: usize = 1024;

/// Whether there are kernels for `network`: for all of it but for a hundredth of its values, or some few, such as those of the softmax
/// behind a classifier.
pub(super) fn has_kernels(network: &Network) -> bool {
    let Ok(compiled) = Compiled::new(network, &Options::default()) else { return false };
    let steps = compiled.steps();
    let values = |slow: bool| -> usize {
        let steps = steps.iter().filter(|step| !slow || step.algorithm == "reference");
        steps.map(|step| step.values).sum()
    };
    let slow = values(true);
    slow <= FEW || 100 * slow <= values(false)
}

pub(super) fn ready(subject: Subject<'_>, inputs: &Inputs) -> Result<Box<dyn Ready>, TrainError> {
    Ok(Box::new(prepared(subject, inputs)?))
}

/// As [`Engine::node_times`](super::Engine::node_times): a node is a layer, and layers that run as one step share its time by their
/// multiply-adds.
pub(super) fn node_times(
    subject: Subject<'_>,
    inputs: &Inputs,
    warmup: usize,
    runs: usize,
) -> Result<Vec<NodeTime>, TrainError> {
    let mut prepared = prepared(subject, inputs)?;
    for _ in 0..warmup {
        prepared.pass()?;
    }
    let steps = prepared.compiled.steps();
    let clock = Clock(steps.iter().map(|_| AtomicU64::new(0)).collect());
    let (mut passes, mut of_steps) = (Vec::new(), vec![Vec::new(); steps.len()]);
    for _ in 0..runs.max(1) {
        let watch = Stopwatch::start();
        prepared.watched(&clock)?;
        passes.push(watch.seconds());
        for (times, nanos) in of_steps.iter_mut().zip(&clock.0) {
            times.push(nanos.swap(0, Ordering::Relaxed) as f64);
        }
    }
    let nanos: Vec<f64> = of_steps.into_iter().map(|times| Timing::of(times).median).collect();
    // Threads that have images of their own run steps side by side: each step has its share of the time of a pass.
    let scale = Timing::of(passes).median / nanos.iter().sum::<f64>().max(1.0);
    let times = steps.into_iter().zip(nanos).flat_map(|(step, nanos)| {
        // At least 1 each, for what has none.
        let all: usize = step.layers.iter().map(|layer| layer.1.max(1)).sum();
        step.layers.into_iter().map(move |(node, macs)| NodeTime {
            node,
            op: step.algorithm.to_owned(),
            seconds: nanos * scale * macs.max(1) as f64 / all as f64,
        })
    });
    Ok(times.collect())
}

/// Nanoseconds of each step.
struct Clock(Vec<AtomicU64>);

impl Watch for Clock {
    fn step(&self, index: usize, run: &mut dyn FnMut()) {
        let watch = Stopwatch::start();
        run();
        self.0[index].fetch_add((watch.seconds() * 1e9) as u64, Ordering::Relaxed);
    }
}

fn prepared(subject: Subject<'_>, inputs: &Inputs) -> Result<Infer, TrainError> {
    let imported;
    let network = match subject {
        Subject::Network(network) => network,
        Subject::Model(path) => {
            let model = Model::open(path)?;
            let options =
                inputs.shapes.iter().fold(ImportOptions::new(), |options, (name, shape)| {
                    options.input(name.clone(), shape.clone())
                });
            imported = model.import(&options)?.network;
            &imported
        }
    };
    let arch = network.architecture();
    let shapes = inputs.of_architecture(arch);
    let option = "--batch, --timing-batch or --input";
    check_memory(arch, &shapes, inputs.batch, Purpose::Forward, Device::Cpu, option)?;
    let reshaped;
    let network = match &shapes[..] {
        [shape] if *shape != arch.input().shape => {
            reshaped = network.clone().with_input_shape(shape)?;
            &reshaped
        }
        _ => network,
    };
    let compiled = compiled(network, inputs.batch)?;
    let arch = network.architecture();
    let made = arch.shapes(arch.input_shapes())?;
    let count = |shape: &[usize]| inputs.batch * shape.iter().product::<usize>();
    let inputs_of: Vec<usize> = shapes.iter().map(|shape| count(shape)).collect();
    let outputs_of = arch.outputs.iter().map(|output| count(made.get(output).unwrap_or_default()));
    let outputs_of: Vec<usize> = outputs_of.collect();
    // What was planned, in blocks of channels, may be several times what the maps hold.
    let numbers = inputs_of.iter().chain(&outputs_of).sum::<usize>() as u128;
    let needed = 4 * numbers + compiled.peak_memory() as u128;
    if let Some(free) = available()
        && needed > u128::from(free)
    {
        let shape = shapes.into_iter().next().unwrap_or_default();
        return Err(TrainError::Memory { batch: inputs.batch, shape, needed, free, option });
    }
    let mut draw = ChaCha8Rng::seed_from_u64(0);
    let mut drawn = |count: usize| (0..count).map(|_| draw.random::<f32>()).collect();
    Ok(Infer {
        compiled,
        images: inputs.batch,
        inputs: inputs_of.into_iter().map(&mut drawn).collect(),
        outputs: outputs_of.into_iter().map(|count| vec![0.0; count]).collect(),
    })
}

impl Infer {
    fn watched(&mut self, watch: &dyn Watch) -> Result<(), TrainError> {
        let inputs: Vec<&[f32]> = self.inputs.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [f32]> = self.outputs.iter_mut().map(Vec::as_mut_slice).collect();
        Ok(self.compiled.run_watched(self.images, &inputs, &mut outputs, watch)?)
    }
}

impl Ready for Infer {
    fn pass(&mut self) -> Result<(), TrainError> {
        self.watched(&())
    }
}

/// A network of one input, for its outputs.
pub(super) struct Classifier {
    compiled: Compiled,
    tapped: bool,
}

/// Images that a classifier takes at once.
const BATCH: usize = 64;

impl Classifier {
    /// `network` with the first of `taps` put out, too.
    pub(super) fn new(network: &Network, taps: &[String]) -> Result<Self, TrainError> {
        let (mut arch, params) = network.clone().into_parts();
        arch.outputs.truncate(1);
        arch.outputs.extend(taps.first().cloned());
        let network = Network::new(arch, params)?;
        Ok(Self { compiled: compiled(&network, BATCH)?, tapped: !taps.is_empty() })
    }
}

impl Forward for Classifier {
    fn forward(&mut self, batch: &Batch, input: &InputSpec) -> Result<Outputs, TrainError> {
        let x = to_array(batch, input);
        let mut outputs = self.compiled.run(&[x.view()])?;
        let tapped = if self.tapped { outputs.pop() } else { None };
        Ok((outputs.swap_remove(0), tapped))
    }
}
