//! A whole network by the definitions of its ops: slow, and what engines and readers of foreign models are held to.

use std::collections::BTreeMap;

use ndarray::{ArrayD, ArrayViewD};

use crate::error::NetError;
use crate::network::Network;
use crate::op::Shape;

impl Network {
    /// The network's outputs in their order, in evaluation mode, through [`Op::eval`](crate::Op::eval) of each node. A value is dropped
    /// behind the last node that reads it.
    ///
    /// # Shapes
    /// `inputs`: one for each input of the network, `[B, …]` each; results: `[B, …]`, or `[1, …]` of a value that does not depend on the
    /// example.
    ///
    /// # Errors
    /// [`NetError::EvalInput`] where there are more or fewer inputs, or their batches differ; [`NetError::InputShape`] at the first layer
    /// that cannot take what it is given.
    pub fn eval(&self, inputs: &[ArrayViewD<'_, f32>]) -> Result<Vec<ArrayD<f32>>, NetError> {
        let wrong = |expected: String| NetError::EvalInput {
            name: self.arch.name.clone(),
            expected,
            got: inputs.iter().map(|input| input.shape().to_vec()).collect(),
        };
        if inputs.len() != self.arch.inputs.len() {
            return Err(wrong(format!("{} inputs", self.arch.inputs.len())));
        }
        let batch = inputs.first().and_then(|input| input.shape().first()).copied().unwrap_or(0);
        if inputs.iter().any(|input| input.shape().first() != Some(&batch)) || batch == 0 {
            return Err(wrong("a batch axis in front, of one size in all inputs".into()));
        }
        let shapes: Vec<Shape> = inputs.iter().map(|input| input.shape()[1..].to_vec()).collect();
        self.arch.shapes(&shapes)?;
        let mut last = BTreeMap::new();
        for (index, node) in self.arch.nodes.iter().enumerate() {
            last.extend(node.inputs.iter().map(|value| (value.as_str(), index)));
        }
        let mut known: BTreeMap<&str, ArrayD<f32>> = BTreeMap::new();
        for (spec, input) in self.arch.inputs.iter().zip(inputs) {
            known.insert(&spec.name, input.to_owned());
        }
        for (index, node) in self.arch.nodes.iter().enumerate() {
            let mut params = Vec::new();
            for spec in node.op.params() {
                params.push(self.array(node, spec.slot)?);
            }
            // The shapes were checked, so that every input is there.
            let values: Vec<ArrayViewD<'_, f32>> = node
                .inputs
                .iter()
                .filter_map(|value| known.get(value.as_str()).map(ArrayD::view))
                .collect();
            let made = node.op.eval(&values, &params);
            known.extend(node.outputs.iter().map(String::as_str).zip(made));
            for value in &node.inputs {
                if last.get(value.as_str()) == Some(&index) && !self.arch.outputs.contains(value) {
                    known.remove(value.as_str());
                }
            }
        }
        Ok(self
            .arch
            .outputs
            .iter()
            .filter_map(|output| known.get(output.as_str()).cloned())
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ndarray::{ArrayD, IxDyn};

    use crate::{Add, Architecture, InputSpec, Linear, NetError, Network, Node, Relu};

    /// max(W x, 0) + x with W = [[1, 0], [0, −1]].
    fn network() -> Network {
        let linear = Linear { in_features: 2, out_features: 2, bias: false };
        let nodes = vec![
            Node::new("turn", linear, ["input"]),
            Node::new("relu", Relu {}, ["turn"]),
            Node::new("sum", Add {}, ["relu", "input"]),
        ];
        let arch = Architecture::new("small", InputSpec::features([2]), nodes);
        let weight = ArrayD::from_shape_vec(IxDyn(&[2, 2]), vec![1.0, 0.0, 0.0, -1.0]).unwrap();
        Network::new(arch, BTreeMap::from([("turn.weight".into(), weight)])).unwrap()
    }

    #[test]
    fn values_by_hand() {
        let x = ArrayD::from_shape_vec(IxDyn(&[2, 2]), vec![1.0, 2.0, -3.0, -4.0]).unwrap();
        let y = network().eval(&[x.view()]).unwrap();
        assert_eq!(y.len(), 1);
        assert_eq!(y[0].as_slice(), Some(&[2.0, 2.0, -3.0, 0.0][..]));
    }

    #[test]
    fn inputs_that_do_not_fit() {
        let x = ArrayD::zeros(IxDyn(&[2, 3]));
        let error = network().eval(&[x.view()]).unwrap_err();
        assert!(matches!(error, NetError::InputShape { .. }), "{error}");
        let error = network().eval(&[]).unwrap_err().to_string();
        assert_eq!(error, "network 'small' was given inputs of shapes [], expected 1 inputs");
    }
}
