//! Another head on the same backbone: for transfer learning, and for weights of another number of classes.

use crate::error::NetError;
use crate::network::Network;
use crate::network::architecture::Architecture;
use crate::op::Op;

impl Network {
    /// Replaces the last layer with weights (a linear layer, or a 1×1 convolution such as SqueezeNet's) by a random one
    /// for `classes` classes. A factorized head becomes a dense one; names of classes are taken away.
    ///
    /// # Errors
    /// [`NetError::Head`] where the last layer with weights is another, the output is no vector of classes, or the number
    /// of classes is 0.
    pub fn replace_head(&mut self, classes: usize, seed: u64) -> Result<(), NetError> {
        let mut net = self.clone();
        net.arch = net.arch.with_classes(classes)?;
        let position = net.arch.position(&net.arch.head_name()?)?;
        let wanted: Vec<String> = net.arch.params().map(|(name, _)| name).collect();
        net.params.retain(|name, _| wanted.contains(name));
        net.params.extend(net.arch.initial_params(position, seed));
        *self = Network::new(net.arch, net.params)?;
        Ok(())
    }

    /// See [`Architecture::head_name`].
    ///
    /// # Errors
    /// [`NetError::Head`] where no layer has weights.
    pub fn head_name(&self) -> Result<String, NetError> {
        self.arch.head_name()
    }
}

impl Architecture {
    /// The layer that gives one output per class: the last one with weights (for a factorized one, the dense layer's
    /// name). Other layers are called the backbone.
    ///
    /// # Errors
    /// [`NetError::Head`] where no layer has weights.
    pub fn head_name(&self) -> Result<String, NetError> {
        let last = self.nodes.iter().rev().find(|node| node.op.has_kernel());
        let last = last.ok_or_else(|| self.head_error(0, "no layer has weights"))?;
        let whole = self.factorized.iter().find(|(_, record)| record.parts.contains(&last.name));
        Ok(whole.map_or_else(|| last.name.clone(), |(layer, _)| layer.clone()))
    }

    /// The same architecture for another number of classes.
    ///
    /// # Errors
    /// As [`Network::replace_head`].
    pub fn with_classes(&self, classes: usize) -> Result<Self, NetError> {
        let error = |reason| self.head_error(classes, reason);
        let mut arch = self.clone();
        let head = arch.head_name()?;
        if arch.factorized.contains_key(&head) {
            arch.densify(&head)?;
        }
        let position = arch.position(&head)?;
        let [before] = arch.output_shape(arch.input_shapes())?[..] else {
            return Err(error("its output is no vector; a head gives one value per class"));
        };
        if classes == 0 {
            return Err(error("at least 1 class is needed"));
        }
        if arch.kernel_users(&head)?.len() > 1 {
            return Err(error("other layers share the weights of its last layer"));
        }
        let outputs = match &mut arch.nodes[position].op {
            Op::Linear(linear) => &mut linear.out_features,
            Op::Conv(conv) if conv.is_pointwise() && conv.groups == 1 => &mut conv.out_channels,
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
        *outputs = outputs.div_euclid(before).saturating_mul(classes);
        arch.classes.clear();
        if arch.output_shape(arch.input_shapes())? != [classes] {
            return Err(error(
                "the output does not follow the size of its last layer with weights",
            ));
        }
        arch.check()?;
        Ok(arch)
    }

    fn head_error(&self, classes: usize, reason: &'static str) -> NetError {
        NetError::Head { name: self.name.clone(), classes, reason }
    }
}
