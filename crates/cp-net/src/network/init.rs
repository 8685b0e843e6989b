//! Seeded random weights for an architecture.

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::error::NetError;
use crate::network::Network;
use crate::network::architecture::Architecture;
use crate::op::{Effect, Op, Start};

impl Architecture {
    /// A network with random weights: He's normal initialization of convolutions and linear layers, biases 0, batch
    /// normalization 1 and 0 with running mean 0 and variance 1.
    ///
    /// The weights of a layer with n inputs per output have variance g/n. The gain g is 2 in general, for the half of
    /// the values that a ReLU drops, and 1 where nothing is dropped: in front of a maxout, at the last layer, and in all but
    /// the last part of a factorized layer. Convolutions whose parameters are factors ([`CpConv`](crate::CpConv) and its like) start as
    /// their sources have it.
    ///
    /// The draw of a layer depends on `seed` and the layer's position alone. A shared parameter is drawn for the first of its
    /// nodes.
    ///
    /// Reference: He, Zhang, Ren & Sun (2015), equation (10).
    ///
    /// # Errors
    /// As [`Architecture::check`].
    pub fn initialize(&self, seed: u64) -> Result<Network, NetError> {
        self.check()?;
        let mut params = BTreeMap::new();
        for position in 0..self.nodes.len() {
            for (name, array) in self.initial_params(position, seed) {
                params.entry(name).or_insert(array);
            }
        }
        Network::new(self.clone(), params)
    }

    /// Random arrays of the node at `position`.
    pub(crate) fn initial_params(&self, position: usize, seed: u64) -> Vec<(String, ArrayD<f32>)> {
        let node = &self.nodes[position];
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // Slices are not counted: the shortcut of the CIFAR ResNets was one op in the files of format 1 and is a slice for each
        // axis and a padding now, and a seed should go on giving the weights that it gave.
        let counted = self.nodes[..position].iter().filter(|node| !matches!(node.op, Op::Slice(_)));
        rng.set_stream(counted.count() as u64);
        let gain = if self.is_rectified(position) { 2.0 } else { 1.0 };
        node.param_specs()
            .map(|(name, spec)| {
                let shape = IxDyn(&spec.shape);
                let array = match spec.start {
                    Start::Gaussian { fan_in } => {
                        gaussian(&spec.shape, gain / fan_in as f64, &mut rng)
                    }
                    Start::Normal { std } => gaussian(&spec.shape, std * std, &mut rng),
                    Start::Constant(value) => ArrayD::from_elem(shape, value),
                };
                (name, array)
            })
            .collect()
    }

    /// Whether half of what the node at `position` gives is dropped, perhaps behind a normalization or a sum.
    fn is_rectified(&self, position: usize) -> bool {
        let outputs = &self.nodes[position].outputs;
        self.nodes.iter().enumerate().skip(position + 1).any(|(next, node)| {
            node.inputs.iter().any(|input| outputs.contains(input))
                && match node.op.effect() {
                    Effect::Rectifies => true,
                    Effect::Passes => self.is_rectified(next),
                    Effect::Other => false,
                }
        })
    }
}

fn gaussian(shape: &[usize], variance: f64, rng: &mut ChaCha8Rng) -> ArrayD<f32> {
    // A positive, finite variance is all that `Normal` asks for; every fan-in is at least 1 in a checked architecture.
    let normal =
        Normal::new(0.0, variance.sqrt()).unwrap_or_else(|_| unreachable!("variance {variance}"));
    ArrayD::from_shape_simple_fn(IxDyn(shape), || normal.sample(rng) as f32)
}
