//! [`Engine`]: what runs networks forward, to be timed.
//!
//! A network that was made several times cheaper is that much faster only in an engine that turns fewer multiply-adds into less
//! time. Training and its evaluations are libtorch's alone.

mod foreign;
mod infer;
mod onnxruntime;
#[cfg_attr(not(feature = "torch"), path = "engine/without_torch.rs")]
mod torch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use cp_data::Batch;
use cp_net::{Architecture, InputShapes, InputSpec, Network};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::error::TrainError;
use crate::libtorch;
use crate::timing::{self, Timing, TimingOptions};

pub use crate::timing::Ready;

pub(crate) use foreign::tapped;
pub use foreign::{Change, changes, changes_on, value_shapes};
pub use onnxruntime::ready_on;
#[cfg(feature = "torch")]
pub(crate) use torch::Running;
#[cfg(feature = "torch")]
pub use torch::{latency, latency_in_layout};

/// What runs networks forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// libtorch, node by node, on this device.
    Torch(Device),
    /// ONNX Runtime with all its optimizations, on the CPU.
    OnnxRuntime,
    /// cp-infer, on the CPU.
    Infer,
}

/// The engine's name in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineName {
    /// libtorch.
    #[default]
    Torch,
    /// ONNX Runtime.
    OnnxRuntime,
    /// cp-infer.
    Infer,
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            EngineName::Torch => "libtorch",
            EngineName::OnnxRuntime => "ONNX Runtime",
            EngineName::Infer => "cp-infer",
        })
    }
}

/// Where the time of a pass goes: what an engine runs as one.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeTime {
    /// The name that the engine has for it after its optimizations; in cp-infer that of the layer.
    pub node: String,
    /// The op as it runs, such as `FusedConv`; in cp-infer the algorithm.
    pub op: String,
    /// Seconds in a pass.
    pub seconds: f64,
}

/// Where the time of a pass goes, by the kind of node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpTime {
    /// As [`NodeTime::op`].
    pub op: String,
    /// Nodes of this kind.
    pub nodes: usize,
    /// Seconds of all of them in a pass.
    pub seconds: f64,
}

/// What a model takes, by the names of its inputs.
pub type Feed = Vec<(String, cp_ort::Tensor)>;

/// What is timed.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A network, as it runs forward: [`Network::folded`].
    Network(&'a Network),
    /// An ONNX model: as it lies in its file in ONNX Runtime, as a network where all of it is understood in cp-infer; not in libtorch.
    Model(&'a Path),
}

/// Inputs to draw: shapes without the batch axis by name, and the examples of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inputs {
    /// By the names of the inputs; the only input that has axes takes the only shape, whatever its name.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Examples.
    pub batch: usize,
}

impl Inputs {
    /// One input.
    pub fn one(shape: &[usize], batch: usize) -> Self {
        Self { shapes: [(cp_net::INPUT.to_owned(), shape.to_vec())].into(), batch }
    }

    /// The inputs of `network` at these shapes, in their order.
    pub fn of(network: &Network, shapes: impl InputShapes, batch: usize) -> Self {
        let names = network.architecture().inputs.iter().map(|input| input.name.clone());
        Self { shapes: names.zip(shapes.shapes()).collect(), batch }
    }

    /// The shapes of the inputs of `arch` in their order; one that is not named has the shape that it was built for.
    fn of_architecture(&self, arch: &Architecture) -> Vec<Vec<usize>> {
        let alone = arch.inputs.len() == 1;
        let shape =
            |input: &InputSpec| self.shape(&input.name, alone).unwrap_or(&input.shape).to_vec();
        arch.inputs.iter().map(shape).collect()
    }

    /// The shape of the input `name`, which may be the only one that there is to have a shape.
    fn shape(&self, name: &str, alone: bool) -> Option<&[usize]> {
        let only = || self.shapes.values().next().filter(|_| alone && self.shapes.len() == 1);
        self.shapes.get(name).or_else(only).map(Vec::as_slice)
    }
}

/// A network of one input that is made ready for its outputs, and not to be timed.
pub(crate) trait Forward {
    /// What the network puts out for a batch brought to `input`: `[B, …]`, and the tapped value.
    fn forward(&mut self, batch: &Batch, input: &InputSpec) -> Result<Outputs, TrainError>;
}

impl Forward for Box<dyn Forward> {
    fn forward(&mut self, batch: &Batch, input: &InputSpec) -> Result<Outputs, TrainError> {
        (**self).forward(batch, input)
    }
}

/// What a network puts out, and the value that was tapped.
pub(crate) type Outputs = (ArrayD<f32>, Option<ArrayD<f32>>);

impl Engine {
    /// `network` with the first of `taps` put out, too.
    pub(crate) fn classifier(
        self,
        network: &Network,
        taps: &[String],
    ) -> Result<Box<dyn Forward>, TrainError> {
        Ok(match self {
            Engine::Torch(device) => torch::classifier(network, taps, device)?,
            Engine::OnnxRuntime => Box::new(onnxruntime::Classifier::new(network, taps)?),
            Engine::Infer => Box::new(infer::Classifier::new(network, taps)?),
        })
    }

    /// Where networks run in it.
    pub(crate) fn device(self) -> Device {
        match self {
            Engine::Torch(device) => device,
            Engine::OnnxRuntime | Engine::Infer => Device::Cpu,
        }
    }

    /// The engine for `subjects` on `device`, by a rule that looks at ops and shapes and measures nothing: on the CPU cp-infer for networks
    /// that it has kernels for; else, and for ONNX models, which are made for it, [`Engine::deployed`].
    pub fn auto<'a>(
        device: Device,
        subjects: impl IntoIterator<Item = Subject<'a>>,
    ) -> (Self, Option<String>) {
        let ours = |subject| matches!(subject, Subject::Network(net) if infer::has_kernels(net));
        if device == Device::Cpu && subjects.into_iter().all(ours) {
            return (Engine::Infer, None);
        }
        Self::deployed(device)
    }

    /// What most networks on `device` are deployed in: ONNX Runtime on the CPU, libtorch on others. Without ONNX Runtime's library it
    /// is libtorch, or cp-infer where the program was built without that, and the second value says so.
    pub fn deployed(device: Device) -> (Self, Option<String>) {
        match (device, cp_ort::library()) {
            (Device::Cpu, Ok(_)) => (Engine::OnnxRuntime, None),
            (Device::Cpu, Err(error)) => {
                let (engine, note) = torch::in_place_of_onnxruntime();
                (engine, Some(format!("{note}: {error}")))
            }
            _ => (Engine::Torch(device), None),
        }
    }

    /// libtorch.
    ///
    /// # Errors
    /// In a program that was built without it.
    pub fn libtorch(device: Device) -> Result<Self, TrainError> {
        if libtorch::HERE {
            Ok(Engine::Torch(device))
        } else {
            Err(libtorch::refused(libtorch::ENGINE))
        }
    }

    /// All engines that there are for networks on `device`: ONNX Runtime where its library is found.
    pub(crate) fn at_hand(device: Device) -> Vec<Self> {
        let mut engines = Vec::new();
        if device == Device::Cpu {
            engines.push(Engine::Infer);
            engines.extend(cp_ort::library().is_ok().then_some(Engine::OnnxRuntime));
        }
        engines.extend(libtorch::HERE.then_some(Engine::Torch(device)));
        engines
    }

    /// Its name.
    pub fn name(self) -> EngineName {
        match self {
            Engine::Torch(_) => EngineName::Torch,
            Engine::OnnxRuntime => EngineName::OnnxRuntime,
            Engine::Infer => EngineName::Infer,
        }
    }

    /// Its version, where it is known.
    pub fn version(self) -> Option<&'static str> {
        match self {
            Engine::Torch(_) => None,
            Engine::OnnxRuntime => cp_ort::library().ok().map(cp_ort::Library::version),
            Engine::Infer => Some(env!("CARGO_PKG_VERSION")),
        }
    }

    /// Makes `subject` ready to be timed on inputs drawn from a fixed seed: numbers from 0 to 1, since denormals would be slow.
    ///
    /// # Errors
    /// What the engine does not run; inputs that do not fit, or that memory does not hold.
    pub fn ready(
        self,
        subject: Subject<'_>,
        inputs: &Inputs,
    ) -> Result<Box<dyn Ready>, TrainError> {
        match (self, subject) {
            (Engine::Torch(device), Subject::Network(network)) => {
                torch::ready(network, inputs, device)
            }
            (Engine::Torch(_), Subject::Model(path)) => {
                Err(TrainError::EngineModel { path: path.into() })
            }
            (Engine::OnnxRuntime, subject) => onnxruntime::ready(subject, inputs),
            (Engine::Infer, subject) => infer::ready(subject, inputs),
        }
    }

    /// Seconds of a forward pass of each subject on the same shapes, in turn, with the threads set ([`timing::set_threads`]).
    ///
    /// # Errors
    /// As [`Engine::ready`].
    pub fn latency(
        self,
        subjects: &[Subject<'_>],
        inputs: &Inputs,
        options: &TimingOptions,
    ) -> Result<Vec<Timing>, TrainError> {
        let mut ready = Vec::with_capacity(subjects.len());
        for subject in subjects {
            ready.push(self.ready(*subject, inputs)?);
        }
        timing::in_turn(&mut ready, options)
    }

    /// Where the time of `subject` goes, node by node, in `runs` passes behind `warmup` others: the median in cp-infer, the mean in ONNX Runtime, which sums
    /// up by itself. libtorch does not tell: none.
    ///
    /// # Errors
    /// As [`Engine::ready`].
    pub fn node_times(
        self,
        subject: Subject<'_>,
        inputs: &Inputs,
        warmup: usize,
        runs: usize,
    ) -> Result<Vec<NodeTime>, TrainError> {
        match self {
            Engine::Torch(_) => Ok(Vec::new()),
            Engine::OnnxRuntime => onnxruntime::node_times(subject, inputs, warmup, runs),
            Engine::Infer => infer::node_times(subject, inputs, warmup, runs),
        }
    }

    /// [`Self::node_times`] by the kinds of nodes; the slowest kind first.
    ///
    /// # Errors
    /// As [`Engine::ready`].
    pub fn op_times(
        self,
        subject: Subject<'_>,
        inputs: &Inputs,
    ) -> Result<Vec<OpTime>, TrainError> {
        let mut ops: BTreeMap<String, OpTime> = BTreeMap::new();
        for NodeTime { op, seconds, .. } in self.node_times(subject, inputs, 3, 11)? {
            let found =
                ops.entry(op.clone()).or_insert_with(|| OpTime { op, nodes: 0, seconds: 0.0 });
            found.nodes += 1;
            found.seconds += seconds;
        }
        let mut ops: Vec<OpTime> = ops.into_values().collect();
        ops.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        Ok(ops)
    }

    /// What an ONNX model takes.
    ///
    /// # Errors
    /// A model that ONNX Runtime does not read.
    pub fn model_inputs(path: &Path) -> Result<Vec<cp_ort::ValueInfo>, TrainError> {
        onnxruntime::model_inputs(path)
    }

    /// The shapes of the inputs of an ONNX model without the batch axis: those given by name, else those that the model fixes.
    ///
    /// # Errors
    /// A model that ONNX Runtime does not read; an input whose shape stays open; a name that the model does not have.
    pub fn model_shapes(
        path: &Path,
        given: &BTreeMap<String, Vec<usize>>,
    ) -> Result<BTreeMap<String, Vec<usize>>, TrainError> {
        onnxruntime::model_shapes(path, given)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cp_net::{Conv, Node, Op};

    use super::*;

    fn resnet() -> Network {
        cp_net::arch::by_name("resnet20").unwrap().initialize(1).unwrap()
    }

    #[test]
    fn auto_is_a_rule_by_ops_and_shapes() {
        let resnet = resnet();
        let conv = |axes: usize| {
            let op = Op::Conv(Conv::new(2, 4, vec![3; axes]));
            let node = Node::new("conv", op, [cp_net::INPUT]);
            let shape: Vec<usize> = std::iter::once(2).chain(vec![16; axes]).collect();
            Architecture::new("conv", InputSpec::features(shape), vec![node]).initialize(1).unwrap()
        };
        let volumes = conv(3);
        let (ours, other) = (Subject::Network(&resnet), Subject::Network(&volumes));
        let model = Subject::Model(Path::new("model.onnx"));
        let auto = |subjects: &[Subject<'_>]| Engine::auto(Device::Cpu, subjects.iter().copied()).0;
        let deployed = Engine::deployed(Device::Cpu).0;
        assert_eq!(auto(&[ours]), Engine::Infer);
        assert_eq!(auto(&[Subject::Network(&conv(1)), ours]), Engine::Infer);
        assert_eq!(auto(&[ours, other]), deployed);
        assert_eq!(auto(&[model]), deployed);
        assert_eq!(auto(&[ours, model]), deployed);
    }

    #[test]
    fn nodes_take_the_time_of_a_pass() {
        let resnet = resnet();
        let (subject, inputs) = (Subject::Network(&resnet), Inputs::one(&[3, 32, 32], 3));
        let nodes = Engine::Infer.node_times(subject, &inputs, 1, 2).unwrap();
        for node in &resnet.folded().unwrap().architecture().nodes {
            // Sums, activations and batch norms are part of other nodes.
            let there = nodes.iter().any(|time| time.node == node.name && time.seconds > 0.0);
            assert!(there || !matches!(node.op, Op::Conv(_) | Op::Linear(_)), "{}", node.name);
        }
        let ops = Engine::Infer.op_times(subject, &inputs).unwrap();
        assert!(ops.windows(2).all(|pair| pair[0].seconds >= pair[1].seconds));
        assert_eq!(ops.iter().map(|op| op.nodes).sum::<usize>(), nodes.len());
    }
}
