//! Maps that are subsampled and get channels of zeros, as one convolution.
//!
//! The parameter-free shortcut of a residual network (He et al. 2016, option A) takes every second row and column and puts zeros in the
//! place of the channels that are missing. As a 1×1 convolution with a kernel of ones and zeros it is the same numbers, and stays in the
//! order of channels in memory that engines run convolutions in: behind a slice or a padding ONNX Runtime brings every map of the residual
//! stream into that order and back. That costs more than the multiply-adds, which are a thousandth of the network's.

use std::borrow::Cow;

use ndarray::ArrayD;

use crate::error::NetError;
use crate::network::Network;
use crate::network::node::Node;
use crate::network::shapes::Shapes;
use crate::op::{Conv, Op, Pad, PadMode};

impl Network {
    /// The same function with a convolution in the place of every padding of channels with zeros, and of the slices of rows and columns
    /// in front of it: for engines, which run it faster. Borrowed where there is nothing of the kind.
    ///
    /// # Errors
    /// As [`Architecture::check`](crate::Architecture::check), which a checked network passes.
    pub fn subsampling_merged(&self) -> Result<Cow<'_, Self>, NetError> {
        if self.subsampled(&self.arch.shapes(self.arch.input_shapes())?).is_none() {
            return Ok(Cow::Borrowed(self));
        }
        let mut net = self.clone();
        net.merge_subsampling()?;
        Ok(Cow::Owned(Self::new(net.arch, net.params)?))
    }

    /// Puts a convolution in the place of every padding of channels with zeros, and of the slices of rows and columns in front of it.
    pub(super) fn merge_subsampling(&mut self) -> Result<usize, NetError> {
        let shapes = self.arch.shapes(self.arch.input_shapes())?;
        let mut merged = 0;
        while let Some(Subsampled { position, conv, from, slices }) = self.subsampled(&shapes) {
            let before = match &self.arch.nodes[position].op {
                Op::Pad(pad) => pad.before[0],
                _ => 0,
            };
            let mut kernel = ArrayD::zeros(vec![conv.out_channels, conv.in_channels, 1, 1]);
            for channel in 0..conv.in_channels {
                kernel[[before + channel, channel, 0, 0]] = 1.0;
            }
            let old = &self.arch.nodes[position];
            let output = old.output().to_owned();
            let mut node = Node::new(old.name.clone(), Op::Conv(conv), [from]);
            node.outputs = vec![output];
            let name = self.free_name(&node.param("weight"));
            node.set_param("weight", name.clone());
            self.params.insert(name, kernel);
            self.arch.nodes[position] = node;
            self.arch.nodes.retain(|node| !slices.contains(&node.name));
            merged += 1;
        }
        Ok(merged)
    }

    /// The first one that there is.
    fn subsampled(&self, shapes: &Shapes) -> Option<Subsampled> {
        for (position, node) in self.arch.nodes.iter().enumerate() {
            let Op::Pad(pad) = &node.op else { continue };
            if !pads_channels(pad) {
                continue;
            }
            let (mut stride, mut slices) = ([1; 2], Vec::new());
            let mut value = node.inputs[0].clone();
            while let Some(slice) = self.arch.producer(&value) {
                let Op::Slice(op) = &slice.op else { break };
                let alone =
                    self.arch.readers(&value).count() == 1 && !self.arch.outputs.contains(&value);
                if !alone || op.start != 0 || op.end.is_some() || !(1..=2).contains(&op.axis) {
                    break;
                }
                stride[op.axis - 1] *= op.step;
                slices.push(slice.name.clone());
                value = slice.inputs[0].clone();
            }
            let Some(&[channels, _, _]) = shapes.get(&value) else { continue };
            let conv = Conv {
                stride: stride.into(),
                bias: false,
                ..Conv::new(channels, channels + pad.before[0] + pad.behind[0], [1, 1])
            };
            return Some(Subsampled { position, conv, from: value, slices });
        }
        None
    }
}

/// A padding of channels that is a convolution, with the slices in front of it.
struct Subsampled {
    position: usize,
    conv: Conv,
    /// What it reads.
    from: String,
    slices: Vec<String>,
}

/// Whether `pad` adds channels of zeros to maps, and nothing else.
fn pads_channels(pad: &Pad) -> bool {
    let inner = |sides: &[usize]| sides.len() == 3 && sides[1..] == [0, 0];
    pad.mode == PadMode::Constant
        && pad.value == 0.0
        && inner(&pad.before)
        && inner(&pad.behind)
        && pad.before[0] + pad.behind[0] > 0
}
