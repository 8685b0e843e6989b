//! [`Parts`]: the steps that stand for a layer, and which of them moves along which axis.

use cp_net::{
    Architecture, Conv, Factors, Form, InputSpec, NetError, Network, Node, Op, Padding, ParamSpec,
    Rank,
};
use ndarray::ArrayD;

use crate::error::OnnxError;
use crate::layers::{Layer, LayerKind};

/// A kernel in the place of another.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Suffix of its names, as cp-net's: `reduce`, `spatial`, `vertical`, `horizontal`, `core`, `expand`, …
    pub suffix: String,
    /// Of convolutions `[out, in / groups, k₀, …]`, of linear layers `[out, in]`. Behind a [`Step::Unsqueeze`] it has an axis more than the
    /// layer, in front of the layer's own.
    pub kernel: ArrayD<f32>,
    /// Groups of a convolution; 1 for linear layers.
    pub groups: usize,
    /// The spatial axes of the layer whose stride, padding and dilation it has. Each belongs to one part.
    pub axes: Vec<usize>,
}

/// One of the nodes that a layer is replaced by.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A convolution or a linear layer.
    Kernel(Part),
    /// Channels in another order; one may come several times, or never.
    Gather {
        /// Suffix of its names.
        suffix: String,
        /// The channel that each one is.
        indices: Vec<usize>,
    },
    /// The channels become an axis of the map of one channel, in front of the others.
    Unsqueeze {
        /// Suffix of its names.
        suffix: String,
    },
    /// That axis, which has size 1 by then, goes.
    Squeeze {
        /// Suffix of its names.
        suffix: String,
    },
}

impl Step {
    /// The kernel, where it has one.
    pub fn kernel(&self) -> Option<&Part> {
        if let Step::Kernel(part) = self { Some(part) } else { None }
    }

    /// Suffix of its names.
    pub fn suffix(&self) -> &str {
        match self {
            Step::Kernel(Part { suffix, .. })
            | Step::Gather { suffix, .. }
            | Step::Unsqueeze { suffix }
            | Step::Squeeze { suffix } => suffix,
        }
    }
}

/// What a layer is replaced by: its steps in the order in which they run. The last one with a kernel has the layer's bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The form, for the record.
    pub form: Form,
    /// The ranks, for the record.
    pub rank: Rank,
    /// The nodes.
    pub steps: Vec<Step>,
}

impl Parts {
    /// From the factors of `layer`, one for each of its groups, as cp-plan makes them.
    ///
    /// # Errors
    /// A form that does not fit the layer, or factors of other shapes than the form has.
    pub fn new(layer: &Layer, factors: &[Factors]) -> Result<Self, OnnxError> {
        let name = &layer.name;
        let part_error = |part: &str, got: Vec<usize>, expected: String| OnnxError::Part {
            layer: name.clone(),
            part: part.into(),
            got,
            expected,
        };
        let unknown = || part_error("", layer.shape.clone(), "the shape of a layer".into());
        let mut op = layer.op().ok_or_else(unknown)?;
        let first = factors.first().filter(|_| factors.len() == layer.groups);
        let Some(&Factors { form, rank, .. }) = first else {
            let expected = format!("factors for each of {} groups", layer.groups);
            return Err(part_error("", vec![factors.len()], expected));
        };
        if factors.iter().any(|other| (other.form, other.rank) != (form, rank)) {
            return Err(part_error("", Vec::new(), "one form and rank for all groups".into()));
        }
        // cp-net says which part carries which axis: the one that inherits the dense layer's stride.
        const MARK: usize = 2;
        if let Op::Conv(conv) = &mut op {
            let axes = conv.kernel.len();
            *conv = Conv { stride: vec![MARK; axes], padding: Padding::none(axes), ..conv.clone() };
        }
        // The layer alone, with its factors: cp-net checks them and puts every number in its place.
        let net = factorized(name, op, factors)?;
        let record = net.architecture().factorization(name)?;
        let step = |part: &String| -> Result<Step, NetError> {
            let node = net.architecture().node(part)?;
            let suffix = part.strip_prefix(&format!("{name}.")).unwrap_or(part).to_owned();
            let kernel = || Ok::<_, NetError>(net.params()[&node.param("weight")].clone());
            Ok(match &node.op {
                Op::Conv(conv) => {
                    let extra = conv.kernel.len() - layer.shape.len().saturating_sub(2);
                    let moving = |&axis: &usize| conv.stride[axis] == MARK;
                    let axes = (extra..conv.kernel.len()).filter(moving).map(|axis| axis - extra);
                    let (axes, groups) = (axes.collect(), conv.groups);
                    Step::Kernel(Part { suffix, kernel: kernel()?, groups, axes })
                }
                Op::Linear(_) => {
                    Step::Kernel(Part { suffix, kernel: kernel()?, groups: 1, axes: Vec::new() })
                }
                Op::Gather(gather) => Step::Gather { suffix, indices: gather.indices.clone() },
                Op::Unsqueeze(_) => Step::Unsqueeze { suffix },
                Op::Squeeze(_) => Step::Squeeze { suffix },
                _ => {
                    let reason = "it has parts that are not written into models";
                    return Err(NetError::FormMismatch { layer: name.clone(), form, reason });
                }
            })
        };
        let steps = record.parts.iter().map(step).collect::<Result<_, NetError>>()?;
        Ok(Self { form, rank, steps })
    }

    /// Whether the parts can stand for `layer`: channels that follow each other, every axis with one part.
    pub(crate) fn check(&self, layer: &Layer) -> Result<(), OnnxError> {
        let conv = layer.kind == LayerKind::Conv;
        let error = |part: &str, got: &[usize], expected: String| {
            let (layer, part) = (layer.name.clone(), part.into());
            Err(OnnxError::Part { layer, part, got: got.to_vec(), expected })
        };
        let &[out, inputs, ref taps @ ..] = &layer.shape[..] else {
            return error("", &layer.shape, "the shape of a layer".into());
        };
        let mut channels = inputs * layer.groups;
        // Size of the axis in front of the layer's own, while there is one.
        let mut depth = None;
        let mut free = vec![true; taps.len()];
        for step in &self.steps {
            match step {
                Step::Kernel(part) => {
                    let Part { suffix, kernel, groups, axes } = part;
                    for &axis in axes {
                        match free.get_mut(axis) {
                            Some(free) if *free => *free = false,
                            _ => {
                                let expected = format!("one part for axis {axis}");
                                return error(suffix, kernel.shape(), expected);
                            }
                        }
                    }
                    let expected = own_taps(taps, axes);
                    if !(part.follows(channels, depth, &expected) && (conv || *groups == 1)) {
                        let expected = format!("{channels} channels in and {expected:?} taps");
                        return error(suffix, kernel.shape(), expected);
                    }
                    channels = kernel.shape()[0];
                    // A kernel over all of the depth leaves one.
                    depth = depth.map(|depth| depth + 1 - kernel.shape()[2]);
                }
                Step::Gather { suffix, indices } => {
                    let most = indices.iter().max().map_or(0, |most| most + 1);
                    if !conv || indices.is_empty() || most > channels {
                        let expected = format!("positions among {channels} channels");
                        return error(suffix, &[most], expected);
                    }
                    channels = indices.len();
                }
                Step::Unsqueeze { suffix } => {
                    if !conv || depth.is_some() {
                        return error(suffix, &[channels], "channels, once".into());
                    }
                    (depth, channels) = (Some(channels), 1);
                }
                Step::Squeeze { suffix } => {
                    if depth != Some(1) {
                        return error(suffix, depth.as_slice(), "an axis of size 1".into());
                    }
                    depth = None;
                }
            }
        }
        if !self.behind().iter().all(|indices| is_permutation(indices)) {
            let expected = "every channel once behind the last kernel, which has the bias".into();
            return error("", &layer.shape, expected);
        }
        let kernels = self.steps.iter().filter_map(Step::kernel).count();
        if channels != out || free.contains(&true) || kernels == 0 || depth.is_some() {
            let expected = format!("{out} channels at the end, and a part for every axis");
            return error("", &layer.shape, expected);
        }
        Ok(())
    }
}

impl Parts {
    /// The indices of the gathers behind the last kernel.
    fn behind(&self) -> Vec<&[usize]> {
        let behind = self.steps.iter().rev().take_while(|step| step.kernel().is_none());
        let mut behind: Vec<&[usize]> = behind
            .filter_map(|step| match step {
                Step::Gather { indices, .. } => Some(&indices[..]),
                _ => None,
            })
            .collect();
        behind.reverse();
        behind
    }

    /// For each channel of the last kernel that of the layer which it becomes; `None` where they are the same.
    pub(crate) fn bias_order(&self) -> Option<Vec<usize>> {
        let mut behind = self.behind().into_iter();
        let mut restored = behind.next()?.to_vec();
        for indices in behind {
            restored = indices.iter().map(|&index| restored[index]).collect();
        }
        let mut order = vec![0; restored.len()];
        restored.iter().enumerate().for_each(|(channel, &place)| order[place] = channel);
        (!order.is_sorted()).then_some(order)
    }
}

/// Whether every position comes once.
fn is_permutation(indices: &[usize]) -> bool {
    let mut sorted = indices.to_vec();
    sorted.sort_unstable();
    sorted.into_iter().eq(0..indices.len())
}

impl Part {
    /// Whether it can read `channels` channels, with an axis of size `depth` in front, and has these taps.
    fn follows(&self, channels: usize, depth: Option<usize>, taps: &[usize]) -> bool {
        let [rows, columns, ref own @ ..] = *self.kernel.shape() else { return false };
        let fits = match (depth, own) {
            (None, own) => own == taps,
            (Some(depth), &[first, ref own @ ..]) => (1..=depth).contains(&first) && own == taps,
            (Some(_), []) => false,
        };
        fits && rows > 0
            && self.groups > 0
            && rows.is_multiple_of(self.groups)
            && columns.checked_mul(self.groups) == Some(channels)
    }
}

/// The taps of a part with these axes of a layer.
fn own_taps(taps: &[usize], axes: &[usize]) -> Vec<usize> {
    let own = |(axis, &size): (usize, &usize)| if axes.contains(&axis) { size } else { 1 };
    taps.iter().enumerate().map(own).collect()
}

/// A network of `op` alone, replaced by the factors.
fn factorized(name: &str, op: Op, factors: &[Factors]) -> Result<Network, NetError> {
    let input = match &op {
        Op::Conv(conv) => [&[conv.in_channels], &conv.kernel[..]].concat(),
        Op::Linear(linear) => vec![linear.in_features],
        _ => Vec::new(),
    };
    // No name of its own, which might be that of the layer.
    let value = format!("input of {name}");
    let node = Node::new(name, op, [&value]);
    let input = InputSpec::features(input).named(&value);
    let arch = Architecture::new("layer", input, vec![node]);
    let zeros = |(param, spec): (String, ParamSpec)| (param, ArrayD::zeros(spec.shape));
    let params = arch.params().map(zeros).collect();
    let mut net = Network::new(arch, params)?;
    net.put_factors(name, factors, 0.0)?;
    Ok(net)
}
