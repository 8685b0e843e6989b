//! [`Executor`]: runs and differentiates a network.

use std::collections::{BTreeMap, BTreeSet};

use cp_net::{Architecture, NetError, Network, Node, Op, ParamRole};
use tch::{Device, Kind, Tensor};

use crate::TorchError;
use crate::convert::{array_from_tensor, shape_of, tensor_from_f32};
use crate::layout::Layout;
use crate::op::{Forward, Run};

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
/// Programs call [`keep_freed_memory`](crate::keep_freed_memory) first, for speed on the CPU.
///
/// An executor runs on one thread at a time (libtorch parallelizes inside the ops); it can be sent to another.
#[derive(Debug)]
pub struct Executor {
    arch: Architecture,
    device: Device,
    layout: Layout,
    schedule: Schedule,
    /// All parameters and statistics by name, sharing memory with those of the steps.
    params: BTreeMap<String, Tensor>,
    roles: BTreeMap<String, ParamRole>,
    /// Names of the nodes that are frozen.
    frozen: BTreeSet<String>,
}

/// Sees every node and its inputs before the node runs.
pub type Watch<'a, E> = dyn FnMut(&Node, &[&Tensor]) -> Result<(), E> + 'a;

/// What a node needs to run. Every value of the network has a slot: the inputs first, then the outputs of the nodes.
#[derive(Debug)]
struct Step {
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    /// In the order of [`cp_net::Op::params`].
    params: Vec<Tensor>,
    /// Slots that no later node reads and the network does not put out.
    drops: Vec<usize>,
    in_place: bool,
}

/// The steps of a network, and the slots of what it puts out.
#[derive(Debug)]
struct Schedule {
    steps: Vec<Step>,
    slots: BTreeMap<String, usize>,
    outputs: Vec<usize>,
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
        let schedule = schedule(&arch, &params)?;
        Ok(Self { arch, device, layout, schedule, params, roles, frozen: BTreeSet::new() })
    }

    /// The first output of a network with one input.
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
        self.run(&[x], mode, &mut BTreeMap::new(), &mut |_, _| Ok(())).and_then(first)
    }

    /// All outputs, from all inputs.
    ///
    /// # Shapes
    /// `inputs`: one `[B, …]` for each input of the network, f32, on the executor's device; results: one for each output.
    ///
    /// # Errors
    /// As [`Executor::forward`], and where there are more or fewer tensors than inputs.
    pub fn forward_all(&self, inputs: &[&Tensor], mode: Mode) -> Result<Vec<Tensor>, TorchError> {
        self.run(inputs, mode, &mut BTreeMap::new(), &mut |_, _| Ok(()))
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
        let outputs = self.run(&[x], mode, &mut BTreeMap::new(), watch)?;
        Ok(first(outputs)?)
    }

    /// As [`Executor::forward`], with the (first) outputs of the nodes `taps`, or values that nodes make, beside that of the network, in
    /// their order.
    ///
    /// # Errors
    /// As [`Executor::forward`], and [`NetError::UnknownLayer`].
    pub fn forward_tapped(
        &self,
        x: &Tensor,
        mode: Mode,
        taps: &[String],
    ) -> Result<(Tensor, Vec<Tensor>), TorchError> {
        let (outputs, tapped) = self.forward_all_tapped(&[x], mode, taps)?;
        Ok((first(outputs)?, tapped))
    }

    /// [`Executor::forward_tapped`] for networks of any inputs and outputs: all outputs, and the tapped values.
    ///
    /// # Errors
    /// As [`Executor::forward_all`], and [`NetError::UnknownLayer`].
    pub fn forward_all_tapped(
        &self,
        inputs: &[&Tensor],
        mode: Mode,
        taps: &[String],
    ) -> Result<(Vec<Tensor>, Vec<Tensor>), TorchError> {
        let mut slots = Vec::with_capacity(taps.len());
        for name in taps {
            let value = match self.arch.node(name) {
                Ok(node) => node.output(),
                Err(_) if self.schedule.slots.contains_key(name) => name,
                Err(error) => return Err(error.into()),
            };
            slots.extend(self.schedule.slots.get(value).copied());
        }
        let mut kept: BTreeMap<usize, Option<Tensor>> =
            slots.iter().map(|&slot| (slot, None)).collect();
        let outputs = self.run(inputs, mode, &mut kept, &mut |_, _| Ok::<(), TorchError>(()))?;
        let tapped =
            slots.iter().filter_map(|slot| Some(kept.get(slot)?.as_ref()?.shallow_clone()));
        Ok((outputs, tapped.collect()))
    }

    /// The forward pass. The values of the slots in `kept` are put there, and no later node writes over them.
    fn run<E: From<TorchError>>(
        &self,
        inputs: &[&Tensor],
        mode: Mode,
        kept: &mut BTreeMap<usize, Option<Tensor>>,
        watch: &mut Watch<'_, E>,
    ) -> Result<Vec<Tensor>, E> {
        self.check_inputs(inputs)?;
        let Schedule { steps, slots, outputs } = &self.schedule;
        let mut values: Vec<Option<Tensor>> = (0..slots.len()).map(|_| None).collect();
        for (slot, x) in inputs.iter().enumerate() {
            values[slot] = Some(self.layout.apply(x).map_err(TorchError::from)?);
        }
        for (node, step) in self.arch.nodes.iter().zip(steps) {
            let run = Run {
                train: mode == Mode::Train && !self.frozen.contains(&node.name),
                calibration: match mode {
                    Mode::Calibrate { seen } => Some(1.0 / (f64::from(seen) + 1.0)),
                    Mode::Train | Mode::Eval => None,
                },
                in_place: step.in_place
                    && !step.inputs.first().is_some_and(|slot| kept.contains_key(slot)),
            };
            let made = {
                let inputs: Vec<&Tensor> =
                    step.inputs.iter().filter_map(|&slot| values[slot].as_ref()).collect();
                watch(node, &inputs)?;
                if matches!(node.op, Op::BatchNorm(_)) && (run.train || run.calibration.is_some()) {
                    check_values(node, &inputs)?;
                }
                node.op.forward(&inputs, &step.params, run).map_err(|source| TorchError::Node {
                    node: node.name.clone(),
                    inputs: inputs.iter().map(|input| input.size()).collect(),
                    source: source.into(),
                })?
            };
            for &slot in &step.drops {
                values[slot] = None;
            }
            for (&slot, value) in step.outputs.iter().zip(made) {
                if let Some(kept) = kept.get_mut(&slot) {
                    *kept = Some(value.shallow_clone());
                }
                values[slot] = Some(value);
            }
        }
        Ok(outputs
            .iter()
            .filter_map(|&slot| values[slot].as_ref().map(Tensor::shallow_clone))
            .collect())
    }

    fn check_inputs(&self, inputs: &[&Tensor]) -> Result<(), TorchError> {
        if inputs.len() != self.arch.inputs.len() {
            return Err(TorchError::InputCount {
                network: self.arch.name.clone(),
                expected: self.arch.inputs.iter().map(|input| input.name.clone()).collect(),
                got: inputs.len(),
            });
        }
        inputs
            .iter()
            .zip(&self.arch.inputs)
            .try_for_each(|(x, spec)| self.check_input(x, &spec.shape))
    }

    fn check_input(&self, x: &Tensor, expected: &[usize]) -> Result<(), TorchError> {
        let shape = shape_of(x);
        if shape.len() != expected.len() + 1 || shape.get(1) != expected.first() {
            let (network, expected) = (self.arch.name.clone(), expected.to_vec());
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
        let mut seen = BTreeSet::new();
        for node in self.arch.nodes.iter().filter(|node| !self.frozen.contains(&node.name)) {
            for (name, spec) in node.param_specs() {
                if spec.role == ParamRole::Buffer || !seen.insert(name.clone()) {
                    continue;
                }
                if let Some(tensor) = self.params.get(&name).filter(|_| !self.is_frozen(&name)) {
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
        for (name, tensor) in &self.params {
            if self.roles.get(name).is_some_and(|role| *role != ParamRole::Buffer) {
                // The tensor returned is the same one.
                let _ = tensor.set_requires_grad(!self.is_frozen(name));
            }
        }
    }

    /// Whether a frozen node uses the parameter: a shared one is frozen with the first of its nodes that is.
    fn is_frozen(&self, param: &str) -> bool {
        let mut frozen = self.arch.nodes.iter().filter(|node| self.frozen.contains(&node.name));
        frozen.any(|node| node.param_specs().any(|(name, _)| name == param))
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

/// That there is more than one value for each channel, whose variance the batch norm `node` is to take.
fn check_values(node: &Node, inputs: &[&Tensor]) -> Result<(), TorchError> {
    let Some(x) = inputs.first() else { return Ok(()) };
    let channels = x.size().get(1).map_or(1, |channels| (*channels).max(1) as usize);
    if x.numel() > channels {
        return Ok(());
    }
    Err(TorchError::OneValue { node: node.name.clone() })
}

/// The first difference between the nodes of two architectures.
fn difference(ours: &Architecture, other: &Architecture) -> Option<String> {
    if let Some((a, b)) = ours.nodes.iter().zip(&other.nodes).find(|(a, b)| a != b) {
        return Some(format!("layer '{}' against '{}'", a.name, b.name));
    }
    let (a, b) = (ours.nodes.len(), other.nodes.len());
    (a != b).then(|| format!("{a} layers against {b}"))
}

/// The first of the outputs.
fn first(outputs: Vec<Tensor>) -> Result<Tensor, TorchError> {
    outputs.into_iter().next().ok_or_else(|| NetError::Empty { name: String::new() }.into())
}

/// Gives every value a slot, finds last uses, and where a node may write over its input.
fn schedule(
    arch: &Architecture,
    params: &BTreeMap<String, Tensor>,
) -> Result<Schedule, TorchError> {
    let values = arch.inputs.iter().map(|input| &input.name);
    let slots: BTreeMap<String, usize> = values
        .chain(arch.nodes.iter().flat_map(|node| &node.outputs))
        .enumerate()
        .map(|(slot, value)| (value.clone(), slot))
        .collect();
    let slot_of = |value: &String| {
        slots.get(value).copied().ok_or_else(|| NetError::UnknownValue {
            value: value.clone(),
            known: slots.keys().cloned().collect(),
        })
    };
    let outputs = arch.outputs.iter().map(slot_of).collect::<Result<Vec<usize>, _>>()?;
    let mut readers = vec![0_usize; slots.len()];
    let mut last_reader = vec![None; slots.len()];
    let mut free = vec![false; slots.len()];
    let mut steps = Vec::with_capacity(arch.nodes.len());
    for (index, node) in arch.nodes.iter().enumerate() {
        let inputs = node.inputs.iter().map(slot_of).collect::<Result<Vec<usize>, _>>()?;
        for &slot in &inputs {
            readers[slot] += 1;
            last_reader[slot] = Some(index);
        }
        let made = node.outputs.iter().map(slot_of).collect::<Result<Vec<usize>, _>>()?;
        for &slot in &made {
            free[slot] = node.op.frees_output();
        }
        let tensors = node.param_specs().map(|(name, _)| {
            params.get(&name).map(Tensor::shallow_clone).ok_or_else(|| NetError::UnknownParam {
                name: name.clone(),
                known: params.keys().cloned().collect(),
            })
        });
        let params = tensors.collect::<Result<Vec<Tensor>, _>>()?;
        steps.push(Step { inputs, outputs: made, params, drops: Vec::new(), in_place: false });
    }
    for &slot in &outputs {
        // Kept to the end, and not written over.
        last_reader[slot] = None;
        free[slot] = false;
    }
    for (slot, reader) in last_reader.into_iter().enumerate() {
        if let Some(reader) = reader {
            steps[reader].drops.push(slot);
        }
    }
    for (step, node) in steps.iter_mut().zip(&arch.nodes) {
        let first = step.inputs.first();
        step.in_place =
            node.op.in_place() && first.is_some_and(|&slot| readers[slot] == 1 && free[slot]);
    }
    Ok(Schedule { steps, slots, outputs })
}
