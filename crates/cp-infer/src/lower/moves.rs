//! Ops that move values: concatenations, slices, paddings, other shapes; and the normalization across channels.

use cp_net::{Node, Op, PadMode};

use super::{Lowering, Value};
use crate::kernels::normalize::Normalize;
use crate::map::Map;
use crate::steps::across::Across;
use crate::steps::place::{Place, Taken};

impl Lowering<'_> {
    /// The steps of an op that has such a kernel; `None` of any other.
    pub(super) fn moved(&mut self, node: &Node) -> Option<()> {
        match &node.op {
            Op::Concat(concat) => self.concat(node, concat.axis),
            Op::Slice(slice) => {
                let size = *self.shape(&node.inputs[0]).get(slice.axis)?;
                self.slice(node, slice.axis, slice.range(size), slice.step)
            }
            Op::Split(_) => self.split(node),
            Op::Pad(pad) if pad.mode == PadMode::Constant && pad.value == 0.0 => {
                let (input, from) = self.map(&node.inputs[0])?;
                let to = Map::of(&self.shape(node.output()))?;
                let spatial = |axis: usize| pad.before.get(axis).copied().unwrap_or(0);
                let [above, left] =
                    if pad.before.len() == 2 { [0, spatial(1)] } else { [spatial(1), spatial(2)] };
                let output = self.made(node.output(), to);
                let step = Place {
                    from,
                    to,
                    channels: 0..from.channels,
                    channel: spatial(0),
                    pixels: [
                        Taken { to: above, ..Taken::all(from.height) },
                        Taken { to: left, ..Taken::all(from.width) },
                    ],
                    zeros: true,
                    input,
                    output,
                };
                self.task("copy", step, vec![input], vec![output]);
                Some(())
            }
            Op::Flatten(_)
            | Op::Reshape(_)
            | Op::Squeeze(_)
            | Op::Unsqueeze(_)
            | Op::Identity(_)
            | Op::Dropout(_) => {
                if !matches!(self.values.get(&node.inputs[0]), Some(Value::Memory { .. })) {
                    return None;
                }
                self.alias(&node.inputs[0], node.output());
                Some(())
            }
            Op::Lrn(lrn) if lrn.size <= Normalize::MOST => {
                let (input, map) = self.map(&node.inputs[0])?;
                let output = self.made(node.output(), map);
                let known = (lrn.beta - 0.75).abs() < f64::EPSILON;
                let step = Across {
                    size: lrn.size,
                    alpha: (lrn.alpha / lrn.size as f64) as f32,
                    beta: (!known).then_some(lrn.beta as f32),
                    k: lrn.k as f32,
                    map,
                    input,
                    output,
                };
                self.task("normalize", step, vec![input], vec![output]);
                Some(())
            }
            _ => None,
        }
    }

    /// The same values under another name and in another shape; a flattened map stays as it lies.
    pub(super) fn alias(&mut self, from: &str, to: &str) {
        let shape = self.shape(to);
        let Some(Value::Memory { blocked, plain, .. }) = self.values.get(from).cloned() else {
            return;
        };
        // A vector and the map that it was are both read in blocks; any other shape only in order.
        let kept = blocked.filter(|(_, map)| shape.len() == 1 || Map::of(&shape) == Some(*map));
        let plain = if kept.is_none() && plain.is_none() { Some(self.plain(from)) } else { plain };
        self.values.insert(to.into(), Value::Memory { shape, blocked: kept, plain });
    }

    fn concat(&mut self, node: &Node, axis: usize) -> Option<()> {
        let to = Map::of(&self.shape(node.output()))?;
        let mut inputs = Vec::new();
        for input in &node.inputs {
            inputs.push(self.map(input)?);
        }
        let output = self.made(node.output(), to);
        let vertical = vertical(self.shape(node.output()).len(), axis);
        let mut start = 0;
        for (input, from) in inputs {
            let mut step = Place {
                from,
                to,
                channels: 0..from.channels,
                channel: 0,
                pixels: [Taken::all(from.height), Taken::all(from.width)],
                zeros: false,
                input,
                output,
            };
            start += match vertical {
                None => {
                    step.channel = start;
                    from.channels
                }
                Some(axis) => {
                    step.pixels[axis].to = start;
                    step.pixels[axis].count
                }
            };
            self.task("copy", step, vec![input], vec![output]);
        }
        Some(())
    }

    fn slice(
        &mut self,
        node: &Node,
        axis: usize,
        range: std::ops::Range<usize>,
        step: usize,
    ) -> Option<()> {
        let (input, from) = self.map(&node.inputs[0])?;
        let axes = self.shape(&node.inputs[0]).len();
        let to = Map::of(&self.shape(node.output()))?;
        let mut channels = 0..from.channels;
        let mut pixels = [Taken::all(from.height), Taken::all(from.width)];
        match vertical(axes, axis) {
            None if step > 1 => return None,
            None => channels = range,
            Some(axis) => {
                let count = range.len().div_ceil(step);
                pixels[axis] = Taken { first: range.start, count, step, to: 0 };
            }
        }
        let output = self.made(node.output(), to);
        let step = Place { from, to, channels, channel: 0, pixels, zeros: false, input, output };
        self.task("copy", step, vec![input], vec![output]);
        Some(())
    }

    fn split(&mut self, node: &Node) -> Option<()> {
        let Op::Split(split) = &node.op else { return None };
        let (input, from) = self.map(&node.inputs[0])?;
        let axes = self.shape(&node.inputs[0]).len();
        let mut start = 0;
        for (name, &size) in node.outputs.iter().zip(&split.sizes) {
            let to = Map::of(&self.shape(name))?;
            let mut channels = 0..from.channels;
            let mut pixels = [Taken::all(from.height), Taken::all(from.width)];
            match vertical(axes, split.axis) {
                None => channels = start..start + size,
                Some(axis) => pixels[axis] = Taken { first: start, count: size, step: 1, to: 0 },
            }
            let output = self.made(name, to);
            let step =
                Place { from, to, channels, channel: 0, pixels, zeros: false, input, output };
            self.task("copy", step, vec![input], vec![output]);
            start += size;
        }
        Some(())
    }
}

/// Which of rows and columns (0 and 1) `axis` of a value with so many axes is; `None` of the channels.
fn vertical(axes: usize, axis: usize) -> Option<usize> {
    match (axes, axis) {
        (_, 0) => None,
        (3, axis) => Some(axis - 1),
        _ => Some(1),
    }
}
