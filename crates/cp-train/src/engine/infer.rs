//! cp-infer: the folded network, or an ONNX model that is understood as one.

use cp_infer::{Compiled, Options};
use cp_net::{InputSpec, Network};
use cp_onnx::{ImportOptions, Model};
use ndarray::Array4;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Forward, Inputs, Outputs, Ready, Subject};
use crate::batch::images_to_array;
use crate::device::Device;
use crate::error::TrainError;
use crate::memory::{Purpose, check_memory};
use crate::timing;

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

pub(super) fn ready(subject: Subject<'_>, inputs: &Inputs) -> Result<Box<dyn Ready>, TrainError> {
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
    let mut draw = ChaCha8Rng::seed_from_u64(0);
    let count = |shape: &Vec<usize>| inputs.batch * shape.iter().product::<usize>();
    let inputs_drawn = shapes
        .iter()
        .map(|shape| (0..count(shape)).map(|_| draw.random::<f32>()).collect())
        .collect();
    let arch = network.architecture();
    let made = arch.shapes(arch.input_shapes())?;
    let outputs = arch.outputs.iter().map(|output| {
        let shape = made.get(output).unwrap_or_default().to_vec();
        vec![0.0; count(&shape)]
    });
    Ok(Box::new(Infer {
        compiled: compiled(network, inputs.batch)?,
        images: inputs.batch,
        inputs: inputs_drawn,
        outputs: outputs.collect(),
    }))
}

impl Ready for Infer {
    fn pass(&mut self) -> Result<(), TrainError> {
        let inputs: Vec<&[f32]> = self.inputs.iter().map(Vec::as_slice).collect();
        let mut outputs: Vec<&mut [f32]> = self.outputs.iter_mut().map(Vec::as_mut_slice).collect();
        Ok(self.compiled.run_into(self.images, &inputs, &mut outputs)?)
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
    fn forward(&mut self, pixels: &Array4<u8>, input: &InputSpec) -> Result<Outputs, TrainError> {
        let x = images_to_array(pixels, input);
        let mut outputs = self.compiled.run(&[x.view()])?;
        let tapped = if self.tapped { outputs.pop() } else { None };
        Ok((outputs.swap_remove(0), tapped))
    }
}
