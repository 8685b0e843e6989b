//! Ops that keep channels apart: activations, sums and products, poolings.

use cp_net::{Node, Op};

use super::Lowering;
use crate::kernels::elementwise::{Function, Pair};
use crate::kernels::pool::{Extent, Pooling};
use crate::map::Map;
use crate::steps::elementwise::{Binary, Unary};
use crate::steps::pool::{Pools, even_windows, max_windows, mean_windows};
use crate::units::{Unit, clamp_of};

impl Lowering<'_> {
    /// The steps of an op that has such a kernel; `None` of any other.
    pub(super) fn pointwise(&mut self, unit: &Unit, node: &Node) -> Option<()> {
        if let Some(function) = function(&node.op) {
            let (input, map) = self.map(&node.inputs[0])?;
            let output = self.made(node.output(), map);
            let step = Unary { function, map, input, output };
            self.task("elementwise", step, vec![input], vec![output]);
            return Some(());
        }
        match &node.op {
            Op::Add(_) => self.pairs(unit, node, Pair::Sum),
            Op::Mul(_) => self.pairs(unit, node, Pair::Product),
            _ => self.pool(node),
        }
    }

    /// A sum or a product of two maps of the same size, or of a map and one value for each of its channels.
    fn pairs(&mut self, unit: &Unit, node: &Node, pair: Pair) -> Option<()> {
        let [a, b] = &node.inputs[..] else { return None };
        let [(a, from), (b, other)] = [self.map(a)?, self.map(b)?];
        let (whole, part) =
            if from.pixels() < other.pixels() { (other, from) } else { (from, other) };
        let inputs = if whole == from { [a, b] } else { [b, a] };
        let per_channel = part != whole;
        // Aligned at the last axis, a vector goes along a row, and only with its unit axes along the channels.
        let axes = |input: usize| self.shape(&node.inputs[input]).len();
        if axes(0) != axes(1)
            || part.channels != whole.channels
            || (per_channel && part.pixels() > 1)
        {
            return None;
        }
        let output = self.made(&unit.output, whole);
        let step = Binary { pair, map: whole, inputs, per_channel, output, clamp: unit.clamp };
        self.task("elementwise", step, inputs.to_vec(), vec![output]);
        Some(())
    }

    fn pool(&mut self, node: &Node) -> Option<()> {
        let shape = self.shape(node.inputs.first()?);
        let even = |output: &[usize]| even_windows(&shape, output);
        let global = vec![1; shape.len().saturating_sub(1)];
        let (pooling, [rows, columns]) = match &node.op {
            Op::MaxPool(pool) => (Pooling::Max, max_windows(pool, &shape)?),
            Op::AvgPool(pool) => (Pooling::Mean, mean_windows(pool, &shape)?),
            Op::AdaptiveMaxPool(pool) => (Pooling::Max, even(&pool.output)?),
            Op::AdaptiveAvgPool(pool) => (Pooling::Mean, even(&pool.output)?),
            Op::GlobalMaxPool(_) => (Pooling::Max, even(&global)?),
            Op::GlobalAvgPool(_) => (Pooling::Mean, even(&global)?),
            _ => return None,
        };
        let (input, input_map) = self.map(&node.inputs[0])?;
        let output_map = Map { height: rows.len(), width: columns.len(), ..input_map };
        let same = |extents: &[Extent]| {
            let one = |(at, extent): (usize, &Extent)| {
                (extent.start, extent.count, extent.of) == (at, 1, 1)
            };
            extents.iter().enumerate().all(one)
        };
        if output_map == input_map && same(&rows) && same(&columns) {
            // Windows of one value, as of an adaptive pooling to the size that the map has.
            self.alias(&node.inputs[0], node.output());
            return Some(());
        }
        let output = self.made(node.output(), output_map);
        let step = Pools { pooling, rows, columns, input_map, output_map, input, output };
        self.task("pool", step, vec![input], vec![output]);
        Some(())
    }
}

fn function(op: &Op) -> Option<Function> {
    Some(match op {
        Op::Sigmoid(_) => Function::Sigmoid,
        Op::Silu(_) => Function::Silu,
        Op::HardSigmoid(op) => {
            Function::HardSigmoid { alpha: op.alpha as f32, beta: op.beta as f32 }
        }
        Op::HardSwish(_) => Function::HardSwish,
        Op::LeakyRelu(op) => Function::LeakyRelu(op.slope as f32),
        op => Function::Clamp(clamp_of(op)?),
    })
}
