//! What training needs and running forward does not: [`Network::folded`].
//!
//! | rewriting | why there |
//! |---|---|
//! | dropout and identity are taken out | what follows looks at neighbours |
//! | convolutions whose parameters are factors become those that they run as ([`factored`](super::factored)) | norms go into convolutions |
//! | ops on constants become constants | so that a scale made of constants is one |
//! | channels of zeros behind a subsampled map are made by a convolution ([`subsample`](super::subsample)) | engines keep their order in memory |
//! | a batch norm goes into the layer in front, else into the one behind, else becomes a scale and a shift | last: it needs the neighbours that remain |

use std::collections::{BTreeMap, BTreeSet};

use ndarray::{ArrayD, ArrayViewD, Axis};

use crate::error::NetError;
use crate::network::Network;
use crate::network::node::Node;
use crate::op::{Constant, Op, ScaleShift};

impl Network {
    /// The same function of the inputs in evaluation mode, for what only runs forward: without dropout and identities, with constants
    /// computed, with factors multiplied out into the convolutions that they run as, with parameter-free shortcuts as convolutions, and with every batch norm folded: into the layer in front of it where nobody else reads that layer, into the
    /// layer behind it where that pads nothing or the shift is 0, else into a scale and a shift.
    ///
    /// Outputs are equal but for rounding. The records of factorized layers are left behind: the result is to be run, not compressed.
    ///
    /// # Errors
    /// As [`Architecture::check`](crate::Architecture::check), which a checked network passes.
    pub fn folded(&self) -> Result<Self, NetError> {
        let mut net = self.clone();
        net.arch.factorized.clear();
        net.drop_identities();
        net.write_factors_out()?;
        net.fold_constants();
        net.fold_norms()?;
        net.merge_subsampling()?;
        net.drop_unused();
        Self::new(net.arch, net.params)
    }

    fn drop_identities(&mut self) -> usize {
        let mut dropped = 0;
        for position in (0..self.arch.nodes.len()).rev() {
            let is = matches!(self.arch.nodes[position].op, Op::Dropout(_) | Op::Identity(_));
            dropped += usize::from(is && self.arch.bypass(position));
        }
        dropped
    }

    /// Ops that read nothing but constants become constants; constants that nobody reads go.
    fn fold_constants(&mut self) -> usize {
        let mut folded = 0;
        let mut known: BTreeMap<String, ArrayD<f32>> = BTreeMap::new();
        let mut nodes = Vec::with_capacity(self.arch.nodes.len());
        for node in std::mem::take(&mut self.arch.nodes) {
            let inputs: Option<Vec<ArrayViewD<'_, f32>>> =
                node.inputs.iter().map(|value| known.get(value).map(ArrayD::view)).collect();
            let params: Option<Vec<ArrayViewD<'_, f32>>> = node
                .param_specs()
                .map(|(name, _)| self.params.get(&name).map(ArrayD::view))
                .collect();
            let (Some(inputs), Some(params)) = (inputs, params) else {
                nodes.push(node);
                continue;
            };
            let outputs = node.op.eval(&inputs, &params);
            known.extend(node.outputs.iter().cloned().zip(outputs.iter().cloned()));
            if matches!(node.op, Op::Constant(_)) {
                nodes.push(node);
                continue;
            }
            folded += 1;
            for (output, array) in node.outputs.iter().zip(outputs) {
                let array = array.index_axis_move(Axis(0), 0);
                let constant = Constant { shape: array.shape().to_vec(), trained: false };
                let mut made = Node::new(output.clone(), constant, [""; 0]);
                let name = self.free_name(&made.param("value"));
                made.set_param("value", name.clone());
                self.params.insert(name, array);
                nodes.push(made);
            }
        }
        let read: BTreeSet<String> =
            nodes.iter().flat_map(|node| &node.inputs).chain(&self.arch.outputs).cloned().collect();
        nodes.retain(|node| !matches!(node.op, Op::Constant(_)) || read.contains(node.output()));
        self.arch.nodes = nodes;
        folded
    }

    fn fold_norms(&mut self) -> Result<usize, NetError> {
        let mut folded = 0;
        let mut position = 0;
        while position < self.arch.nodes.len() {
            let node = &self.arch.nodes[position];
            let Op::BatchNorm(norm) = &node.op else {
                position += 1;
                continue;
            };
            let eps = norm.eps;
            let channels = norm.channels;
            let [gamma, beta, mean, var] = [
                self.array(node, "weight")?,
                self.array(node, "bias")?,
                self.array(node, "running_mean")?,
                self.array(node, "running_var")?,
            ];
            // y = scale · x + shift for every channel.
            let scale: Vec<f64> = gamma
                .iter()
                .zip(&var)
                .map(|(gamma, var)| f64::from(*gamma) / (f64::from(*var) + eps).sqrt())
                .collect();
            let shift: Vec<f64> = beta
                .iter()
                .zip(&mean)
                .zip(&scale)
                .map(|((beta, mean), scale)| f64::from(*beta) - f64::from(*mean) * scale)
                .collect();
            folded += 1;
            if self.fold_into_front(position, &scale, &shift)?
                || self.fold_into_back(position, &scale, &shift)?
            {
                // The next node has moved to this position.
                continue;
            }
            let node = &mut self.arch.nodes[position];
            node.op = Op::ScaleShift(ScaleShift { channels });
            node.params.clear();
            for (slot, values) in [("weight", &scale), ("bias", &shift)] {
                let name =
                    self.free_name(&format!("{}.folded_{slot}", self.arch.nodes[position].name));
                self.params.insert(name.clone(), vector(values));
                self.arch.nodes[position].set_param(slot, name);
            }
            position += 1;
        }
        Ok(folded)
    }

    /// W ← scale · W, b ← scale · b + shift in the layer that makes what the norm at `position` reads.
    fn fold_into_front(
        &mut self,
        position: usize,
        scale: &[f64],
        shift: &[f64],
    ) -> Result<bool, NetError> {
        let norm = &self.arch.nodes[position];
        let value = norm.inputs[0].clone();
        let read_by_all = self.arch.readers(&value).count();
        let front = self.arch.nodes.iter().position(|node| node.outputs.contains(&value));
        let Some(front) = front.filter(|_| read_by_all == 1 && !self.arch.outputs.contains(&value))
        else {
            return Ok(false);
        };
        let node = self.arch.nodes[front].clone();
        // A linear layer's outputs are channels only where they are the one axis.
        let (axis, groups) = match &node.op {
            Op::Conv(_) => (0, 1),
            Op::Linear(linear) if self.is_vector(&value, linear.out_features)? => (0, 1),
            Op::ConvTranspose(conv) => (1, conv.groups),
            _ => return Ok(false),
        };
        let mut weight = self.array(&node, "weight")?.to_owned();
        if axis == 0 {
            for (mut rows, scale) in weight.axis_iter_mut(Axis(0)).zip(scale) {
                rows.mapv_inplace(|w| (f64::from(w) * scale) as f32);
            }
        } else {
            // [S, T/g, …]: channel t of the output is column t mod T/g of the inputs of its group.
            let (inputs, columns) = (weight.len_of(Axis(0)), weight.len_of(Axis(1)));
            for (at, w) in weight.indexed_iter_mut() {
                let group = at[0] / (inputs / groups);
                *w = (f64::from(*w) * scale[group * columns + at[1]]) as f32;
            }
        }
        let bias: Vec<f64> = match self.array(&node, "bias") {
            Ok(bias) if node.op.params().iter().any(|spec| spec.slot == "bias") => {
                bias.iter().map(|b| f64::from(*b)).collect()
            }
            _ => vec![0.0; scale.len()],
        };
        let bias: Vec<f64> = bias
            .iter()
            .zip(scale)
            .zip(shift)
            .map(|((b, scale), shift)| b * scale + shift)
            .collect();
        self.put_own(front, weight, &bias);
        Ok(self.arch.bypass(position))
    }

    /// W ← W · scale, b ← b + W · shift in the layer that reads what the norm at `position` makes.
    fn fold_into_back(
        &mut self,
        position: usize,
        scale: &[f64],
        shift: &[f64],
    ) -> Result<bool, NetError> {
        let value = self.arch.nodes[position].output().to_string();
        let readers: Vec<usize> = (0..self.arch.nodes.len())
            .filter(|&index| self.arch.nodes[index].inputs.contains(&value))
            .collect();
        let [back] = readers[..] else { return Ok(false) };
        if self.arch.outputs.contains(&value) {
            return Ok(false);
        }
        let node = self.arch.nodes[back].clone();
        let unshifted = shift.iter().all(|shift| *shift == 0.0);
        let groups = match &node.op {
            Op::Conv(conv) if unshifted || conv.padding.is_none() => conv.groups,
            Op::Linear(linear) if self.is_vector(&value, linear.in_features)? => 1,
            _ => return Ok(false),
        };
        let mut weight = self.array(&node, "weight")?.to_owned();
        let (outputs, columns) = (weight.len_of(Axis(0)), weight.len_of(Axis(1)));
        let mut bias: Vec<f64> = match self.array(&node, "bias") {
            Ok(bias) if node.op.params().iter().any(|spec| spec.slot == "bias") => {
                bias.iter().map(|b| f64::from(*b)).collect()
            }
            _ => vec![0.0; outputs],
        };
        for (at, w) in weight.indexed_iter_mut() {
            let channel = at[0] / (outputs / groups) * columns + at[1];
            bias[at[0]] += f64::from(*w) * shift[channel];
            *w = (f64::from(*w) * scale[channel]) as f32;
        }
        self.put_own(back, weight, &bias);
        Ok(self.arch.bypass(position))
    }

    /// Gives a layer arrays of its own, and a bias.
    fn put_own(&mut self, position: usize, weight: ArrayD<f32>, bias: &[f64]) {
        let layer = self.arch.nodes[position].name.clone();
        match &mut self.arch.nodes[position].op {
            Op::Conv(conv) => conv.bias = true,
            Op::ConvTranspose(conv) => conv.bias = true,
            Op::Linear(linear) => linear.bias = true,
            _ => {}
        }
        for (slot, array) in [("weight", weight), ("bias", vector(bias))] {
            let name = self.arch.nodes[position].param(slot);
            let uses = |node: &&Node| node.param_specs().any(|(param, _)| param == name);
            let shared = self.arch.nodes.iter().filter(uses).count() > 1;
            let name =
                if shared { self.free_name(&format!("{layer}.folded_{slot}")) } else { name };
            self.params.insert(name.clone(), array);
            self.arch.nodes[position].set_param(slot, name);
        }
    }

    /// Whether `value` has one axis, of `features` values.
    fn is_vector(&self, value: &str, features: usize) -> Result<bool, NetError> {
        let shapes = self.arch.shapes(self.arch.input_shapes())?;
        Ok(shapes.get(value) == Some(&[features][..]))
    }
}

fn vector(values: &[f64]) -> ArrayD<f32> {
    values.iter().map(|value| *value as f32).collect::<ndarray::Array1<f32>>().into_dyn()
}
