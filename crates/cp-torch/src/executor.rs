//! [`Executor`]: runs and differentiates a network.

use std::collections::{BTreeMap, BTreeSet};

use cp_net::{Architecture, INPUT, NetError, Network, Node, Op, ParamRole};
use tch::{Device, Kind, Tensor};

use crate::TorchError;
use crate::convert::{array_from_tensor, shape_of, tensor_from_f32};
use crate::layout::Layout;
use crate::op::{self, Run};

/// Whether the network trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Batch normalization uses and updates the statistics of the batch, dropout drops; both only in nodes that are not
    /// frozen.
    Train,
    /// Nothing is random, nothing is updated. Gradients still flow: evaluation that needs none belongs into
    /// [`tch::no_grad`].
    Eval,
    /// As [`Mode::Eval`], but batch normalization uses the statistics of the batch and updates the running ones with the
    /// weight 1/(`seen` + 1), in frozen nodes too: over batches of one size, with `seen` = 0, 1, 2, …, they become their means.
    Calibrate {
        /// Batches that the running statistics hold already.
        seen: u32,
    },
}

/// A network on a device.
///
/// The parameters are tensors of their own, by name, so that an optimizer can be given exactly those to train. Ops run in
/// the order of the nodes; an intermediate result is dropped behind its last use, and ReLU and Add write over
/// their input where nobody else reads it, gradients included.
///
/// On the CPU, the first executor of a process sets glibc's allocator to keep freed memory, up to 2 GiB: without that, the
/// kernel clears the pages of every large map anew, which takes longer than a factorized layer itself.
///
/// An executor runs on one thread at a time (libtorch parallelizes inside the ops); it can be sent to another.
#[derive(Debug)]
pub struct Executor {
    arch: Architecture,
    device: Device,
    layout: Layout,
    /// One per node, in order.
    steps: Vec<Step>,
    /// All parameters and statistics by name, sharing memory with those of the steps.
    params: BTreeMap<String, Tensor>,
    roles: BTreeMap<String, ParamRole>,
    /// Names of the nodes that are frozen.
    frozen: BTreeSet<String>,
}

/// Sees every node and its inputs before the node runs.
pub type Watch<'a, E> = dyn FnMut(&Node, &[&Tensor]) -> Result<(), E> + 'a;

/// What a node needs to run. Slot 0 holds the network's input, slot i + 1 the output of node i.
#[derive(Debug)]
struct Step {
    inputs: Vec<usize>,
    /// In the order of [`Op::params`].
    params: Vec<Tensor>,
    /// Slots that no later node reads.
    drops: Vec<usize>,
    in_place: bool,
}

impl Executor {
    /// A copy of `net` on `device`, in the layout that [`Layout::Auto`] stands for.
    ///
    /// # Errors
    /// Where the device has no memory for the parameters.
    pub fn new(net: &Network, device: Device) -> Result<Self, TorchError> {
        Self::with_layout(net, device, Layout::Auto)
    }

    /// A copy of `net` on `device` in `layout`.
    ///
    /// # Errors
    /// Where the device has no memory for the parameters.
    pub fn with_layout(net: &Network, device: Device, layout: Layout) -> Result<Self, TorchError> {
        if device == Device::Cpu {
            crate::memory::keep_freed_memory();
        }
        let arch = net.architecture().clone();
        let layout = layout.resolve(&arch, device);
        let roles = net.roles();
        let mut params = BTreeMap::new();
        for (name, array) in net.params() {
            let tensor = tch::no_grad(|| {
                let tensor = tensor_from_f32(array.view())?.f_to_device(device)?;
                Ok::<_, TorchError>(layout.apply(&tensor)?)
            })?;
            let trains = roles.get(name).is_some_and(|role| *role != ParamRole::Buffer);
            params.insert(name.clone(), tensor.f_set_requires_grad(trains)?);
        }
        let steps = plan(&arch, &params)?;
        Ok(Self { arch, device, layout, steps, params, roles, frozen: BTreeSet::new() })
    }

    /// The output of the network's last node.
    ///
    /// Other spatial sizes than the network was built for work as far as its layers allow.
    ///
    /// # Shapes
    /// `x`: `[B, C, H₀, …]`, f32, on the executor's device; result: `[B, K]` for a classifier.
    ///
    /// # Errors
    /// Where `x` has other channels or another number of axes than the network's input, another kind or device, or where
    /// a layer cannot take what the one before gives (the error names the layer and the shapes).
    pub fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor, TorchError> {
        self.run(x, mode, &mut BTreeMap::new(), &mut |_, _| Ok(()))
    }

    /// As [`Executor::forward`], showing every node and its inputs to `watch` before the node runs.
    ///
    /// The tensors are the network's own: `watch` may read them, and must copy what it keeps, since a later node may write over
    /// them.
    ///
    /// # Errors
    /// As [`Executor::forward`], and those of `watch`.
    pub fn forward_watched<E: From<TorchError>>(
        &self,
        x: &Tensor,
        mode: Mode,
        watch: &mut Watch<'_, E>,
    ) -> Result<Tensor, E> {
        self.run(x, mode, &mut BTreeMap::new(), watch)
    }

    /// As [`Executor::forward`], with the outputs of the nodes `taps` beside that of the network, in their order.
    ///
    /// # Errors
    /// As [`Executor::forward`], and [`NetError::UnknownLayer`].
    pub fn forward_tapped(
        &self,
        x: &Tensor,
        mode: Mode,
        taps: &[String],
    ) -> Result<(Tensor, Vec<Tensor>), TorchError> {
        let mut slots = Vec::with_capacity(taps.len());
        for name in taps {
            self.arch.node(name)?;
            let position = self.arch.nodes.iter().position(|node| node.name == *name);
            slots.extend(position.map(|index| index + 1));
        }
        let mut kept: BTreeMap<usize, Option<Tensor>> =
            slots.iter().map(|&slot| (slot, None)).collect();
        let output = self.run(x, mode, &mut kept, &mut |_, _| Ok::<(), TorchError>(()))?;
        let tapped =
            slots.iter().filter_map(|slot| Some(kept.get(slot)?.as_ref()?.shallow_clone()));
        Ok((output, tapped.collect()))
    }

    /// The forward pass. The outputs of the slots in `kept` are put there, and no later node writes over them.
    fn run<E: From<TorchError>>(
        &self,
        x: &Tensor,
        mode: Mode,
        kept: &mut BTreeMap<usize, Option<Tensor>>,
        watch: &mut Watch<'_, E>,
    ) -> Result<Tensor, E> {
        self.check_input(x)?;
        let mut values: Vec<Option<Tensor>> = (0..=self.steps.len()).map(|_| None).collect();
        values[0] = Some(self.layout.apply(x).map_err(TorchError::from)?);
        for (index, (node, step)) in self.arch.nodes.iter().zip(&self.steps).enumerate() {
            let run = Run {
                train: mode == Mode::Train && !self.frozen.contains(&node.name),
                calibration: match mode {
                    Mode::Calibrate { seen } => Some(1.0 / (f64::from(seen) + 1.0)),
                    Mode::Train | Mode::Eval => None,
                },
                in_place: step.in_place
                    && !step.inputs.first().is_some_and(|slot| kept.contains_key(slot)),
            };
            let output = {
                let inputs: Vec<&Tensor> =
                    step.inputs.iter().filter_map(|&slot| values[slot].as_ref()).collect();
                watch(node, &inputs)?;
                op::forward(&node.op, &inputs, &step.params, run).map_err(|source| {
                    TorchError::Node {
                        node: node.name.clone(),
                        inputs: inputs.iter().map(|input| input.size()).collect(),
                        source,
                    }
                })?
            };
            for &slot in &step.drops {
                values[slot] = None;
            }
            if let Some(kept) = kept.get_mut(&(index + 1)) {
                *kept = Some(output.shallow_clone());
            }
            values[index + 1] = Some(output);
        }
        // A network without nodes is the identity.
        Ok(values.pop().flatten().unwrap_or_else(|| x.shallow_clone()))
    }

    fn check_input(&self, x: &Tensor) -> Result<(), TorchError> {
        let expected = &self.arch.input.shape;
        let shape = shape_of(x);
        if shape.len() != expected.len() + 1 || shape.get(1) != expected.first() {
            let (network, expected) = (self.arch.name.clone(), expected.clone());
            return Err(TorchError::InputShape { network, expected, got: x.size() });
        }
        let (kind, device) = (x.f_kind()?, x.device());
        if kind != Kind::Float || device != self.device {
            return Err(TorchError::InputKind {
                expected_kind: Kind::Float,
                got_kind: kind,
                expected_device: self.device,
                got_device: device,
            });
        }
        Ok(())
    }

    /// The parameters to train, in the order of the nodes: name, role and the tensor itself, which shares its memory with the
    /// executor's. Statistics and the parameters of frozen nodes are not among them.
    pub fn trainable(&self) -> Vec<(String, ParamRole, Tensor)> {
        let mut trainable = Vec::new();
        for node in self.arch.nodes.iter().filter(|node| !self.frozen.contains(&node.name)) {
            for spec in node.op.params().iter().filter(|spec| spec.role != ParamRole::Buffer) {
                let name = format!("{}.{}", node.name, spec.suffix);
                if let Some(tensor) = self.params.get(&name) {
                    trainable.push((name, spec.role, tensor.shallow_clone()));
                }
            }
        }
        trainable
    }

    /// Freezes exactly the nodes whose names `frozen` accepts: their parameters get no gradient, and they behave as in
    /// [`Mode::Eval`] in [`Mode::Train`] too. Everything else is thawed.
    ///
    /// A backbone whose weights are frozen while its batch normalization goes on training drifts away from what its weights
    /// were trained for; hence the two go together.
    pub fn freeze(&mut self, frozen: impl Fn(&str) -> bool) {
        self.frozen = self
            .arch
            .nodes
            .iter()
            .map(|node| node.name.clone())
            .filter(|name| frozen(name))
            .collect();
        for node in &self.arch.nodes {
            let trains = !self.frozen.contains(&node.name);
            for spec in node.op.params().iter().filter(|spec| spec.role != ParamRole::Buffer) {
                if let Some(tensor) = self.params.get(&format!("{}.{}", node.name, spec.suffix)) {
                    // The tensor returned is the same one.
                    let _ = tensor.set_requires_grad(trains);
                }
            }
        }
    }

    /// The network as it is now: the architecture and a copy of the current arrays (f32, row-major).
    ///
    /// # Errors
    /// Where the arrays cannot be copied from the device.
    pub fn network(&self) -> Result<Network, TorchError> {
        let params =
            self.params.iter().map(|(name, tensor)| Ok((name.clone(), array_from_tensor(tensor)?)));
        Ok(Network::new(self.arch.clone(), params.collect::<Result<_, TorchError>>()?)?)
    }

    /// Copies the arrays of `net`, which must have the same nodes, over the executor's. Optimizers that hold
    /// [`Executor::trainable`] see the new values.
    ///
    /// # Errors
    /// Where `net` has other nodes; nothing is copied then.
    pub fn load(&mut self, net: &Network) -> Result<(), TorchError> {
        if let Some(detail) = difference(&self.arch, net.architecture()) {
            return Err(TorchError::OtherArchitecture { detail });
        }
        tch::no_grad(|| {
            for (name, tensor) in &mut self.params {
                let array = net.params().get(name).ok_or_else(|| NetError::UnknownParam {
                    name: name.clone(),
                    known: net.params().keys().cloned().collect(),
                })?;
                // Keeps the layout of the target.
                tensor.f_copy_(&tensor_from_f32(array.view())?)?;
            }
            Ok(())
        })
    }

    /// Where the network runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// `x` in the order in memory that the network runs in: [`Executor::forward`] then converts nothing.
    ///
    /// # Errors
    /// Where the device has no memory for it.
    pub fn in_layout(&self, x: &Tensor) -> Result<Tensor, TorchError> {
        Ok(self.layout.apply(x)?)
    }

    /// The layout in use: [`Layout::Nchw`] or [`Layout::ChannelsLast`].
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.arch
    }

    /// Every parameter and statistic: name, role and tensor (shared memory).
    pub fn tensors(&self) -> impl Iterator<Item = (&str, ParamRole, &Tensor)> {
        self.params
            .iter()
            .filter_map(|(name, tensor)| Some((name.as_str(), *self.roles.get(name)?, tensor)))
    }
}

/// The first difference between the nodes of two architectures.
fn difference(ours: &Architecture, other: &Architecture) -> Option<String> {
    if let Some((a, b)) = ours.nodes.iter().zip(&other.nodes).find(|(a, b)| a != b) {
        return Some(format!("layer '{}' against '{}'", a.name, b.name));
    }
    let (a, b) = (ours.nodes.len(), other.nodes.len());
    (a != b).then(|| format!("{a} layers against {b}"))
}

/// Resolves names to slots, finds last uses, and where a node may write over its input.
fn plan(arch: &Architecture, params: &BTreeMap<String, Tensor>) -> Result<Vec<Step>, TorchError> {
    let slots: BTreeMap<&str, usize> = std::iter::once((INPUT, 0))
        .chain(arch.nodes.iter().enumerate().map(|(index, node)| (node.name.as_str(), index + 1)))
        .collect();
    let unknown = |name: &str| NetError::UnknownLayer {
        name: name.into(),
        known: arch.nodes.iter().map(|node| node.name.clone()).collect(),
    };
    let mut readers = vec![0_usize; arch.nodes.len() + 1];
    let mut last_reader = vec![None; arch.nodes.len() + 1];
    let mut steps = Vec::with_capacity(arch.nodes.len());
    for (index, node) in arch.nodes.iter().enumerate() {
        let mut inputs = Vec::new();
        for name in &node.inputs {
            let slot = *slots.get(name.as_str()).ok_or_else(|| unknown(name))?;
            readers[slot] += 1;
            last_reader[slot] = Some(index);
            inputs.push(slot);
        }
        let mut tensors = Vec::new();
        for spec in node.op.params() {
            let name = format!("{}.{}", node.name, spec.suffix);
            let tensor = params.get(&name).ok_or_else(|| NetError::UnknownParam {
                name: name.clone(),
                known: params.keys().cloned().collect(),
            })?;
            tensors.push(tensor.shallow_clone());
        }
        steps.push(Step { inputs, params: tensors, drops: Vec::new(), in_place: false });
    }
    for (slot, reader) in last_reader.into_iter().enumerate() {
        if let Some(reader) = reader {
            steps[reader].drops.push(slot);
        }
    }
    for (step, node) in steps.iter_mut().zip(&arch.nodes) {
        let Some(&first) = step.inputs.first() else { continue };
        step.in_place = matches!(node.op, Op::Relu | Op::Add)
            && readers[first] == 1
            && first > 0
            && overwritable(&arch.nodes[first - 1].op);
    }
    Ok(steps)
}

/// Whether the output of `op` is memory of its own that the op's gradient does not need.
fn overwritable(op: &Op) -> bool {
    matches!(op, Op::Conv(_) | Op::Linear(_) | Op::BatchNorm(_) | Op::Add)
}
