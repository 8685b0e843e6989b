//! Convolutions, linear layers and chains of them into steps.

use cp_net::{Conv, Node, Op};
use ndarray::ArrayD;

use super::{Lowering, Value};
use crate::block::LANES;
use crate::error::InferError;
use crate::geometry::Geometry;
use crate::kernels::activation::Clamp;
use crate::map::Map;
use crate::pack::Weights;
use crate::step::BufferId;
use crate::steps::Ends;
use crate::steps::across::MaxBlocks;
use crate::steps::chain::{Chain, Middle, Spatial, joined};
use crate::steps::depthwise::SeparateChannels;
use crate::steps::direct::Direct;
use crate::steps::first::First;
use crate::steps::pointwise::Pointwise;
use crate::steps::winograd::Winograd;
use crate::units::{Unit, is_depthwise};

impl Lowering<'_> {
    /// A convolution over one or two axes; `None` over more.
    pub(super) fn conv(
        &mut self,
        unit: &Unit,
        node: &Node,
        conv: &Conv,
    ) -> Result<Option<()>, InferError> {
        let Some(geometry) = Geometry::of(conv, &self.shape(&node.inputs[0])) else {
            return Ok(None);
        };
        let weights = self.weights(node, conv, geometry.kernel)?;
        if is_depthwise(conv) {
            let Some((input, _)) = self.map(&node.inputs[0]) else { return Ok(None) };
            self.separate(unit, &weights, geometry, input);
            return Ok(Some(()));
        }
        if First::suits(&weights, geometry)
            && let Some(Value::Memory { plain: Some(input), .. }) = self.values.get(&node.inputs[0])
        {
            let input = *input;
            let (weights, ends, made) = self.ends(unit, &weights, geometry.output, input);
            let step = First::new(&weights, geometry, self.rules, ends);
            self.ended("first", step, ends, made);
            return Ok(Some(()));
        }
        let Some((input, _)) = self.map(&node.inputs[0]) else { return Ok(None) };
        self.dense(unit, &weights, geometry, input);
        Ok(Some(()))
    }

    /// A linear layer of a vector: a window over the map that was flattened, or a 1×1 convolution of one pixel.
    pub(super) fn linear(&mut self, unit: &Unit, node: &Node) -> Result<Option<()>, InferError> {
        let Op::Linear(linear) = &node.op else { return Ok(None) };
        let flat = match self.values.get(&node.inputs[0]) {
            Some(Value::Memory { shape, blocked, .. }) if shape.len() == 1 => *blocked,
            _ => return Ok(None),
        };
        let Some((input, map)) = flat.or_else(|| self.map(&node.inputs[0])) else {
            return Ok(None);
        };
        let mut params = self.params(node)?.into_iter();
        let weights = Weights {
            outputs: linear.out_features,
            inputs: map.channels,
            groups: 1,
            kernel: [map.height, map.width],
            values: flattened(params.next()),
            bias: flattened(params.next()),
        };
        let geometry = Geometry::whole(map, linear.out_features);
        self.dense(unit, &weights, geometry, input);
        Ok(Some(()))
    }

    /// A scale and a shift of every channel: a depthwise convolution with one tap.
    pub(super) fn scale_shift(
        &mut self,
        unit: &Unit,
        node: &Node,
    ) -> Result<Option<()>, InferError> {
        let Some((input, map)) = self.map(&node.inputs[0]) else { return Ok(None) };
        let mut params = self.params(node)?.into_iter();
        let weights = Weights {
            outputs: map.channels,
            inputs: map.channels,
            groups: map.channels,
            kernel: [1; 2],
            values: flattened(params.next()),
            bias: flattened(params.next()),
        };
        let geometry = Geometry { kernel: [1; 2], output: map, ..Geometry::whole(map, 0) };
        self.separate(unit, &weights, geometry, input);
        Ok(Some(()))
    }

    /// 1×1, depthwise, 1×1.
    pub(super) fn chain(
        &mut self,
        unit: &Unit,
        parts: &[(usize, Clamp)],
        last: usize,
    ) -> Result<(), InferError> {
        let nodes = self.net.nodes();
        let mut geometries = Vec::new();
        let mut weights = Vec::new();
        for position in parts.iter().map(|part| part.0).chain([last]) {
            let node = &nodes[position];
            let Op::Conv(conv) = &node.op else { continue };
            let Some(geometry) = Geometry::of(conv, &self.shape(&node.inputs[0])) else { continue };
            weights.push(self.weights(node, conv, geometry.kernel)?);
            geometries.push(geometry);
        }
        let reduce = weights.remove(0).packed(self.rules.level.panel_blocks(), |_, _| 0);
        let spatial: Vec<Spatial> = (1..parts.len())
            .map(|part| spatial(&weights[part - 1], geometries[part], parts[part].1))
            .collect();
        let mut spatial = spatial.into_iter();
        let (middle, geometry) = match (spatial.next(), spatial.next()) {
            (Some(vertical), Some(horizontal)) => {
                (Middle::Two(vertical, horizontal), joined(geometries[1], geometries[2]))
            }
            (Some(all), None) => (Middle::One(all), geometries[1]),
            _ => unreachable!("a chain has a depthwise part"),
        };
        let Some((input, _)) = self.map(&nodes[parts[0].0].inputs[0]) else {
            unreachable!("the input of a convolution over one or two axes is a map")
        };
        let map = geometries[geometries.len() - 1].output;
        let (expand, ends, made) = self.ends(unit, &weights[weights.len() - 1], map, input);
        let expand = expand.packed(self.rules.level.panel_blocks(), |_, _| 0);
        let step = Chain::new([reduce, expand], parts[0].1, middle, geometry, self.rules, ends);
        self.ended("chain", step, ends, made);
        Ok(())
    }

    fn dense(&mut self, unit: &Unit, weights: &Weights, geometry: Geometry, input: BufferId) {
        let (weights, ends, made) = self.ends(unit, weights, geometry.output, input);
        let panel = self.rules.level.panel_blocks();
        if geometry.is_pointwise() {
            let (packed, map) = (weights.packed(panel, |_, _| 0), geometry.input);
            self.ended("pointwise", Pointwise { packed, map, ends }, ends, made);
        } else if self.rules.winograd && Winograd::suits(&weights, geometry) {
            let step = Winograd::new(&weights, geometry, self.rules, ends);
            self.ended("winograd", step, ends, made);
        } else {
            let step = Direct::new(&weights, geometry, self.rules, ends);
            self.ended("direct", step, ends, made);
        }
    }

    fn separate(&mut self, unit: &Unit, weights: &Weights, geometry: Geometry, input: BufferId) {
        let output = self.made(&unit.output, geometry.output);
        let ends = Ends { input, output, residual: None, clamp: unit.clamp };
        let step = SeparateChannels::new(
            spatial(weights, geometry, unit.clamp),
            geometry,
            self.rules,
            ends,
        );
        self.task("depthwise", step, vec![input], vec![output]);
    }

    /// The output of a unit, and the residual that is added; with a maxout, the weights of its pieces side by side, and the map that it makes.
    fn ends(
        &mut self,
        unit: &Unit,
        weights: &Weights,
        map: Map,
        input: BufferId,
    ) -> (Weights, Ends, Option<(Map, usize)>) {
        let residual = unit.residual.as_ref().and_then(|value| self.map(value));
        let residual = residual.map(|(residual, _)| residual);
        let clamp = unit.clamp;
        if unit.pieces == 1 {
            let output = self.made(&unit.output, map);
            return (weights.clone(), Ends { input, output, residual, clamp }, None);
        }
        let pieces = unit.pieces;
        let after = Map { channels: map.channels / pieces, ..map };
        let order: Vec<Option<usize>> = (0..after.blocks() * pieces * LANES)
            .map(|output| {
                let (block, lane) = (output / LANES, output % LANES);
                let channel = block / pieces * LANES + lane;
                (channel < after.channels).then_some(channel * pieces + block % pieces)
            })
            .collect();
        let wide = Map { channels: order.len(), ..map };
        let output = self.buffer(&unit.output, crate::map::Layout::Blocked(wide));
        (weights.permuted(&order), Ends { input, output, residual, clamp }, Some((after, pieces)))
    }

    /// The task of a step with these ends, and the maxout behind it.
    fn ended(
        &mut self,
        algorithm: &'static str,
        step: impl crate::step::Step + 'static,
        ends: Ends,
        maxout: Option<(Map, usize)>,
    ) {
        let reads = [Some(ends.input), ends.residual].into_iter().flatten().collect();
        self.task(algorithm, step, reads, vec![ends.output]);
        if let Some((map, pieces)) = maxout {
            let value = self.names[ends.output.0].clone();
            let (input, output) = (ends.output, self.made(&value, map));
            self.task(
                "maxout",
                MaxBlocks { pieces, map, input, output },
                vec![input],
                vec![output],
            );
        }
    }

    fn weights(&self, node: &Node, conv: &Conv, kernel: [usize; 2]) -> Result<Weights, InferError> {
        let mut params = self.params(node)?.into_iter();
        Ok(Weights {
            outputs: conv.out_channels,
            inputs: conv.in_channels,
            groups: conv.groups,
            kernel,
            values: flattened(params.next()),
            bias: flattened(params.next()),
        })
    }
}

fn spatial(weights: &Weights, geometry: Geometry, clamp: Clamp) -> Spatial {
    let (values, bias) = weights.depthwise();
    Spatial {
        weights: values,
        bias,
        kernel: geometry.kernel,
        stride: geometry.stride[1],
        dilation: geometry.dilation[1],
        clamp,
    }
}

/// The values of a parameter in order; none where there is none.
fn flattened(array: Option<ArrayD<f32>>) -> Vec<f32> {
    array.map(|array| array.iter().copied().collect()).unwrap_or_default()
}
