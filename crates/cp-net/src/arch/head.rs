//! Another head on the same backbone, for transfer learning.

use crate::error::NetError;
use crate::network::Network;
use crate::op::Op;

impl Network {
    /// Replaces the last layer with weights (a linear layer, or a 1×1 convolution such as SqueezeNet's) by a random one
    /// for `classes` classes. A factorized head becomes a dense one.
    ///
    /// # Errors
    /// [`NetError::Head`] where the last layer with weights is another, the output is no vector of classes, or the number
    /// of classes is 0.
    pub fn replace_head(&mut self, classes: usize, seed: u64) -> Result<(), NetError> {
        let mut net = self.clone();
        let head = net.head(classes)?;
        if net.arch.factorized.contains_key(&head) {
            net.arch.densify(&head)?;
        }
        let position = net.arch.position(&head)?;
        let error = |reason| NetError::Head { name: self.arch.name.clone(), classes, reason };
        let [before] = net.arch.output_shape(&net.arch.input.shape)?[..] else {
            return Err(error("its output is no vector; a head gives one value per class"));
        };
        if classes == 0 {
            return Err(error("at least 1 class is needed"));
        }
        let outputs = match &mut net.arch.nodes[position].op {
            Op::Linear(linear) => &mut linear.out_features,
            Op::Conv(conv) if conv.is_pointwise() && conv.geometry.groups == 1 => {
                &mut conv.out_channels
            }
            _ => {
                return Err(error(
                    "its last layer with weights is no linear layer and no 1×1 convolution",
                ));
            }
        };
        // A maxout behind the head takes several outputs for each class.
        if !outputs.is_multiple_of(before) {
            return Err(error("its last layer has no whole number of outputs for each class"));
        }
        *outputs = *outputs / before * classes;
        let got = net.arch.output_shape(&net.arch.input.shape)?;
        if got != [classes] {
            return Err(error(
                "the output does not follow the size of its last layer with weights",
            ));
        }
        let prefix = format!("{head}.");
        net.params.retain(|name, _| !name.starts_with(&prefix));
        let fresh = net.arch.initial_params(position, seed);
        net.params.extend(fresh);
        *self = Network::new(net.arch, net.params)?;
        Ok(())
    }

    /// The layer that gives one output per class: the last one with weights (for a factorized one, the dense layer's
    /// name). Other layers are called the backbone.
    ///
    /// # Errors
    /// [`NetError::Head`] where no layer has weights.
    pub fn head_name(&self) -> Result<String, NetError> {
        self.head(0)
    }

    fn head(&self, classes: usize) -> Result<String, NetError> {
        let last = self
            .arch
            .nodes
            .iter()
            .rev()
            .find(|node| matches!(node.op, Op::Linear(_) | Op::Conv(_)));
        let last = last.ok_or_else(|| NetError::Head {
            name: self.arch.name.clone(),
            classes,
            reason: "no layer has weights",
        })?;
        let whole =
            self.arch.factorized.iter().find(|(_, record)| record.parts.contains(&last.name));
        Ok(whole.map_or_else(|| last.name.clone(), |(layer, _)| layer.clone()))
    }
}
