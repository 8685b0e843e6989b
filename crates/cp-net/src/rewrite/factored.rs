//! Convolutions whose parameters are factors, as the ordinary convolutions that they run as.

use ndarray::{ArrayD, ArrayViewD};

use crate::error::NetError;
use crate::network::Network;
use crate::network::node::Node;
use crate::op::{Op, Way};

impl Network {
    /// Puts the sequence of convolutions with the fewest multiply-adds in the place of every op whose weights are factors
    /// ([`Op::ways`]); the parts are called as those of factorized layers. How many there were.
    pub(super) fn write_factors_out(&mut self) -> Result<usize, NetError> {
        let shapes = self.arch.shapes(self.arch.input_shapes())?;
        let mut count = 0;
        let mut position = 0;
        while position < self.arch.nodes.len() {
            let node = self.arch.nodes[position].clone();
            let ways = node.op.ways();
            let input = node.inputs.first().and_then(|input| shapes.get(input)).unwrap_or_default();
            let Some(way) = ways.into_iter().min_by_key(|way| way.macs(input)) else {
                position += 1;
                continue;
            };
            let parts = self.parts_of(&node, &way)?;
            position += parts.len();
            self.arch.splice(position - parts.len(), parts);
            count += 1;
        }
        Ok(count)
    }

    /// The nodes of `way` in the place of `node`, with their kernels among the parameters.
    fn parts_of(&mut self, node: &Node, way: &Way) -> Result<Vec<Node>, NetError> {
        let mut value = node.inputs[0].clone();
        let mut parts = Vec::with_capacity(way.parts.len());
        for part in &way.parts {
            let factors: Vec<ArrayD<f32>> = part
                .kernel
                .slots
                .iter()
                .map(|slot| self.array(node, slot).map(|array| array.to_owned()))
                .collect::<Result<_, _>>()?;
            let views: Vec<ArrayViewD<'_, f32>> = factors.iter().map(ArrayD::view).collect();
            let kernel = part.kernel.eval(&views).mapv(|value| value as f32);
            // The letters of a contraction are the axes of its kernel but for axes of size 1.
            let kernel = kernel
                .into_shape_with_order(part.conv.weight_shape())
                .unwrap_or_else(|error| unreachable!("the kernel of {}: {error}", node.name));
            let name = match part.suffix {
                "" => node.name.clone(),
                suffix => self.free_node(&format!("{}.{suffix}", node.name)),
            };
            let mut made = Node::new(name, Op::Conv(part.conv.clone()), [value]);
            if part.conv.bias {
                made.set_param("bias", node.param("bias"));
            }
            let weight = self.free_name(&made.param("weight"));
            made.set_param("weight", weight.clone());
            self.params.insert(weight, kernel);
            value = made.output().to_owned();
            parts.push(made);
        }
        Ok(parts)
    }

    /// `wanted`, or with the first number behind it that no node and no value is called by.
    pub(super) fn free_node(&self, wanted: &str) -> String {
        let taken = |name: &String| {
            self.arch.inputs.iter().any(|input| input.name == *name)
                || self
                    .arch
                    .nodes
                    .iter()
                    .any(|node| node.name == *name || node.outputs.contains(name))
        };
        let mut names = std::iter::once(wanted.to_owned())
            .chain((1..).map(|number| format!("{wanted}.{number}")));
        names.find(|name| !taken(name)).unwrap_or_default()
    }
}
