//! A network of maps as a network of sequences of maps: one more spatial axis, in front of the others.

use ndarray::{ArrayD, Axis};

use crate::error::NetError;
use crate::network::Network;
use crate::network::node::Node;
use crate::op::{Conv, CpConv, Op, Padding, Reshape};

impl CpConv {
    /// The same convolution of sequences: an axis of `taps` taps in front of the others, over which it moves step by step.
    ///
    /// With a factor of that axis that is 1 at tap `taps / 2` and 0 elsewhere, every frame gives what it gave by itself.
    ///
    /// Source: Kossaifi et al. (arXiv 1906.06196), §3.3, "transduction".
    pub fn transduced(&self, taps: usize) -> Self {
        let mut op = self.clone();
        op.kernel.insert(0, taps);
        op.stride.insert(0, 1);
        op.dilation.insert(0, 1);
        op.padding = match op.padding {
            Padding::Each(mut pairs) => {
                pairs.insert(0, [taps / 2, taps.saturating_sub(1 + taps / 2)]);
                Padding::Each(pairs)
            }
            // One more value behind or before, as there.
            same => same,
        };
        op
    }
}

impl Network {
    /// The network for sequences of `frames` maps, which lie one below the other in its input, `[C, frames·H, W]`: every [`CpConv`] has a
    /// factor over `taps` frames that picks the frame itself, the other layers work on each frame, and global poolings average over
    /// frames, too. The names of the parameters that are new: the factors over frames.
    ///
    /// What it gives for a sequence of equal maps is what the network gave for the map.
    ///
    /// # Errors
    /// An op that would mix frames or that is not known here, by its layer's name; no [`CpConv`] at all; a kernel of three axes already.
    ///
    /// Source: as [`CpConv::transduced`].
    pub fn transduced(&self, frames: usize, taps: usize) -> Result<(Self, Vec<String>), NetError> {
        if let [_, second, ..] = &self.arch.inputs[..] {
            let (layer, expected) = (second.name.clone(), "the only input of the network");
            return Err(NetError::WrongOp { layer, expected, got: "one of several" });
        }
        let mut net = self.clone();
        let shapes = self.arch.shapes(self.arch.input_shapes())?;
        let mut added = Vec::new();
        for position in 0..net.arch.nodes.len() {
            let node = &net.arch.nodes[position];
            let refused = |expected| {
                let (layer, got) = (node.name.clone(), node.op.kind());
                Err(NetError::WrongOp { layer, expected, got })
            };
            let input = node.inputs.first().and_then(|input| shapes.get(input)).unwrap_or_default();
            let mut op = node.op.clone();
            match &mut op {
                Op::CpConv(conv) if conv.kernel.len() >= 3 => {
                    return refused("a convolution over one or two axes");
                }
                Op::CpConv(conv) => {
                    // What lies before the first frame, so that the tap behind that is the frame itself.
                    let tap = match conv.padding {
                        Padding::Same => taps.saturating_sub(1) / 2,
                        _ => taps / 2,
                    };
                    *conv = conv.transduced(taps);
                    added.push(net.insert_frames(position, op, tap)?);
                    continue;
                }
                Op::Conv(conv) => {
                    let weight = node.param("weight");
                    let axes = conv.kernel.len();
                    *conv = Conv {
                        kernel: [&[1], &conv.kernel[..]].concat(),
                        stride: [&[1], &conv.stride[..]].concat(),
                        dilation: [&[1], &conv.dilation[..]].concat(),
                        padding: still(&conv.padding),
                        ..conv.clone()
                    };
                    // One that shares it may have been here before.
                    if let Some(array) = net.params.get_mut(&weight)
                        && array.ndim() == axes + 2
                    {
                        *array = array.clone().insert_axis(Axis(2));
                    }
                }
                Op::MaxPool(pool) => {
                    pool.kernel.insert(0, 1);
                    pool.stride.insert(0, 1);
                    pool.dilation.insert(0, 1);
                    pool.padding = still(&pool.padding);
                }
                Op::AvgPool(pool) => {
                    pool.kernel.insert(0, 1);
                    pool.stride.insert(0, 1);
                    pool.padding = still(&pool.padding);
                }
                Op::AdaptiveAvgPool(pool) => pool.output.insert(0, kept(&pool.output, frames)),
                Op::AdaptiveMaxPool(pool) => pool.output.insert(0, kept(&pool.output, frames)),
                Op::Concat(concat) if concat.axis == 0 => {}
                Op::Flatten(_) if input.get(1..).unwrap_or_default().iter().any(|&n| n > 1) => {
                    return refused(
                        "flattened behind a global pooling, so that no frame is told apart",
                    );
                }
                // Shapes are laid over each other from behind: one with channels would meet the axis of frames.
                Op::Constant(_) if shapes.get(node.output()).is_some_and(|own| own.len() > 2) => {
                    return refused("no constant over channels, which would meet the frames");
                }
                op if on_each_value(op) || input.len() < 2 => {}
                _ => return refused("an op that works on every frame by itself"),
            }
            net.arch.nodes[position].op = op;
        }
        if added.is_empty() {
            return Err(NetError::WrongOp {
                layer: self.arch.nodes.last().map_or(String::new(), |node| node.name.clone()),
                expected: "in a network with a cp_conv, whose factors an axis can be added to",
                got: "in one without",
            });
        }
        net.take_strips(frames);
        added.sort();
        added.dedup();
        Ok((Self::new(net.arch, net.params)?, added))
    }

    /// Makes the node at `position` the transduced `op`, whose first axis picks `tap`; the name of that factor.
    fn insert_frames(&mut self, position: usize, op: Op, tap: usize) -> Result<String, NetError> {
        let Op::CpConv(conv) = &op else { unreachable!("of a cp_conv") };
        let (taps, rank) = (conv.kernel[0], conv.rank);
        let name = self.arch.nodes[position].name.clone();
        self.unshare(&name)?;
        let old = self.arch.nodes[position].clone();
        let mut node = Node::new(name, op, old.inputs.clone());
        node.outputs.clone_from(&old.outputs);
        // The factor of an axis is now that of the next one.
        let mut moved = Vec::new();
        for spec in old.op.params() {
            let param = old.param(spec.slot);
            match spec.slot.strip_prefix("axis").and_then(|axis| axis.parse::<usize>().ok()) {
                Some(axis) => {
                    moved.extend(Some(format!("axis{}", axis + 1)).zip(self.params.remove(&param)))
                }
                None => node.set_param(spec.slot, param),
            }
        }
        let picks = ArrayD::from_shape_fn(vec![taps, rank], |at| f32::from(at[0] == tap));
        moved.push(("axis0".to_owned(), picks));
        let mut added = String::new();
        for (slot, array) in moved {
            added = self.free_name(&format!("{}.{slot}", node.name));
            node.set_param(&slot, added.clone());
            self.params.insert(added.clone(), array);
        }
        self.arch.nodes[position] = node;
        Ok(added)
    }

    /// Sequences come as their maps one below the other, which in memory are the sequences themselves.
    fn take_strips(&mut self, frames: usize) {
        let free = self.free_node("frames");
        let Some(input) = self.arch.inputs.first_mut() else { return };
        let name = input.name.clone();
        let mut shape: Vec<i64> =
            input.shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
        shape.insert(1.min(shape.len()), i64::try_from(frames).unwrap_or(i64::MAX));
        if let Some(rows) = input.shape.get_mut(1) {
            *rows = rows.saturating_mul(frames);
        }
        for node in &mut self.arch.nodes {
            for value in node.inputs.iter_mut().filter(|value| **value == name) {
                value.clone_from(&free);
            }
        }
        self.arch.nodes.insert(0, Node::new(free, Reshape { shape }, [name]));
    }
}

/// Nothing around the axis of frames.
fn still(padding: &Padding) -> Padding {
    match padding {
        Padding::Each(pairs) => Padding::Each([&[[0; 2]], &pairs[..]].concat()),
        same => same.clone(),
    }
}

/// Frames behind an adaptive pooling to `output`: one where it takes everything together.
fn kept(output: &[usize], frames: usize) -> usize {
    if output.iter().all(|&size| size == 1) { 1 } else { frames }
}

/// Ops that do the same whatever spatial axes there are.
fn on_each_value(op: &Op) -> bool {
    matches!(
        op,
        Op::Abs(_)
            | Op::Add(_)
            | Op::BatchNorm(_)
            | Op::Clip(_)
            | Op::Div(_)
            | Op::Dropout(_)
            | Op::Elu(_)
            | Op::Exp(_)
            | Op::Flatten(_)
            | Op::Gelu(_)
            | Op::GlobalAvgPool(_)
            | Op::GlobalMaxPool(_)
            | Op::HardSigmoid(_)
            | Op::HardSwish(_)
            | Op::Identity(_)
            | Op::LeakyRelu(_)
            | Op::Lrn(_)
            | Op::Max(_)
            | Op::Maxout(_)
            | Op::Min(_)
            | Op::Mish(_)
            | Op::Mul(_)
            | Op::Neg(_)
            | Op::PRelu(_)
            | Op::Relu(_)
            | Op::ScaleShift(_)
            | Op::Sigmoid(_)
            | Op::Silu(_)
            | Op::Softplus(_)
            | Op::Sqrt(_)
            | Op::Sub(_)
            | Op::Tanh(_)
    )
}
