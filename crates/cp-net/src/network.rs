//! [`Network`]: a graph of named operations and a map from names to arrays.
//!
//! `input`, `node` and `architecture` are the data; `shapes` and `check` say whether it hangs together; `init` and `head` make and
//! change arrays. What changes the graph is in `rewrite`.

pub(crate) mod architecture;
pub(crate) mod check;
mod eval;
mod head;
mod init;
pub(crate) mod input;
pub(crate) mod node;
mod records;
pub(crate) mod shapes;
mod sparsity;

use std::collections::BTreeMap;

use ndarray::{ArrayD, ArrayViewD};

use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::check::check_shapes;
use crate::network::input::InputSpec;
use crate::network::node::Node;
use crate::network::shapes::{InputShapes, Shapes};
use crate::op::{Conv, Op, ParamRole};

/// A network: its architecture and its arrays. See the crate documentation for an example.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    pub(crate) arch: Architecture,
    pub(crate) params: BTreeMap<String, ArrayD<f32>>,
}

impl Network {
    /// A network from its parts.
    ///
    /// # Errors
    /// Where a name occurs twice, an input is not defined before its use, or `params` are not exactly the arrays that the
    /// ops ask for (the error lists missing, unexpected and mis-shaped names).
    pub fn new(
        arch: Architecture,
        params: BTreeMap<String, ArrayD<f32>>,
    ) -> Result<Self, NetError> {
        arch.check()?;
        let shapes = params.iter().map(|(name, array)| (name.as_str(), array.shape())).collect();
        check_shapes(&arch, &shapes)?;
        Ok(Self { arch, params })
    }

    /// The architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.arch
    }

    /// The operations in the order in which they run.
    pub fn nodes(&self) -> &[Node] {
        &self.arch.nodes
    }

    /// What the network expects at its first input.
    pub fn input(&self) -> &InputSpec {
        self.arch.input()
    }

    /// All arrays (weights, biases, statistics) by name.
    pub fn params(&self) -> &BTreeMap<String, ArrayD<f32>> {
        &self.params
    }

    /// Replaces the array `name`.
    ///
    /// # Errors
    /// Where there is no such array, or its shape is another.
    pub fn set_param(&mut self, name: &str, value: ArrayD<f32>) -> Result<(), NetError> {
        let Some(slot) = self.params.get_mut(name) else {
            return Err(NetError::UnknownParam {
                name: name.into(),
                known: self.params.keys().cloned().collect(),
            });
        };
        if slot.shape() != value.shape() {
            return Err(NetError::ParamShape {
                name: name.into(),
                expected: slot.shape().to_vec(),
                got: value.shape().to_vec(),
            });
        }
        *slot = value;
        Ok(())
    }

    /// Sets the names of the classes that the first output is about, or takes them away (an empty list).
    ///
    /// # Errors
    /// Where there are more or fewer than the output has.
    pub fn set_classes(&mut self, classes: Vec<String>) -> Result<(), NetError> {
        let mut arch = self.arch.clone();
        arch.classes = classes;
        arch.check()?;
        self.arch = arch;
        Ok(())
    }

    /// The role of every array by name.
    pub fn roles(&self) -> BTreeMap<String, ParamRole> {
        self.arch.params().map(|(name, spec)| (name, spec.role)).collect()
    }

    /// The node `name`.
    ///
    /// # Errors
    /// Where there is none, or it has been replaced by factors; the error names those that exist.
    pub fn node(&self, name: &str) -> Result<&Node, NetError> {
        self.arch.node(name)
    }

    /// The convolution `name` with its arrays.
    ///
    /// # Errors
    /// Where there is no such layer, or it is no convolution.
    pub fn conv(&self, name: &str) -> Result<ConvLayer<'_>, NetError> {
        let node = self.node(name)?;
        match &node.op {
            Op::Conv(conv) => Ok(ConvLayer {
                conv,
                weight: self.array(node, "weight")?,
                bias: if conv.bias { Some(self.array(node, "bias")?) } else { None },
            }),
            other => {
                Err(NetError::WrongOp { layer: name.into(), expected: "conv", got: other.kind() })
            }
        }
    }

    /// The weight of the convolution or linear layer `name`: `[T, S/g, k₀, …]` or `[out, in]`.
    ///
    /// # Errors
    /// Where there is no such layer, or it has no kernel.
    pub fn kernel(&self, name: &str) -> Result<ArrayViewD<'_, f32>, NetError> {
        let node = self.node(name)?;
        if node.op.has_kernel() {
            return self.array(node, "weight");
        }
        let (layer, got) = (name.into(), node.op.kind());
        Err(NetError::WrongOp { layer, expected: "conv or linear", got })
    }

    /// Number of parameters: weights, biases and scales, but not running statistics.
    pub fn param_count(&self) -> usize {
        self.arch.param_count()
    }

    /// See [`Architecture::shapes`].
    ///
    /// # Errors
    /// [`NetError::InputShape`] at the first layer that cannot take what it is given.
    pub fn shapes(&self, inputs: impl InputShapes) -> Result<Shapes, NetError> {
        self.arch.shapes(inputs)
    }

    /// The same network for inputs of another shape, where its layers allow that: convolutions do, and a linear layer does
    /// behind an adaptive pooling.
    ///
    /// # Shapes
    /// `shape`: `[C, H, W]`; the channels cannot change.
    ///
    /// # Errors
    /// The layer that cannot take the shape, or [`NetError::OutputShape`] where the output would have another shape.
    pub fn with_input_shape(mut self, shape: impl AsRef<[usize]>) -> Result<Self, NetError> {
        self.arch = self.arch.with_input_shape(shape)?;
        Ok(self)
    }

    /// The same network with another description of its first input, such as other means.
    ///
    /// # Errors
    /// As [`Network::with_input_shape`], and where the description is inconsistent.
    pub fn with_input(mut self, input: InputSpec) -> Result<Self, NetError> {
        self.arch = self.arch.with_input(input)?;
        Ok(self)
    }

    /// The architecture and the arrays by themselves.
    pub fn into_parts(self) -> (Architecture, BTreeMap<String, ArrayD<f32>>) {
        (self.arch, self.params)
    }

    /// The array in a slot of a node.
    pub(crate) fn array(&self, node: &Node, slot: &str) -> Result<ArrayViewD<'_, f32>, NetError> {
        let name = node.param(slot);
        self.params.get(&name).map(ArrayD::view).ok_or_else(|| NetError::UnknownParam {
            name,
            known: self.params.keys().cloned().collect(),
        })
    }
}

impl Architecture {
    /// See [`Network::with_input_shape`].
    ///
    /// # Errors
    /// The layer that cannot take the shape, or [`NetError::OutputShape`] where the output would have another shape.
    pub fn with_input_shape(self, shape: impl AsRef<[usize]>) -> Result<Self, NetError> {
        let input = InputSpec { shape: shape.as_ref().to_vec(), ..self.input().clone() };
        self.with_input(input)
    }

    /// See [`Network::with_input`].
    ///
    /// # Errors
    /// As [`Architecture::with_input_shape`], and where the description is inconsistent.
    pub fn with_input(mut self, input: InputSpec) -> Result<Self, NetError> {
        let expected = self.output_shape(self.input_shapes())?;
        // The nodes go on reading it by its name.
        let name = self.inputs[0].name.clone();
        self.inputs[0] = input.named(name);
        self.check()?;
        let got = self.output_shape(self.input_shapes())?;
        if got != expected {
            let output = self.outputs.first().cloned().unwrap_or_default();
            let input = self.inputs.swap_remove(0).shape;
            return Err(NetError::OutputShape { output, input, expected, got });
        }
        Ok(self)
    }
}

impl AsRef<Architecture> for Network {
    fn as_ref(&self) -> &Architecture {
        &self.arch
    }
}

/// A convolution and its arrays, as [`Network::conv`] finds it.
#[derive(Debug, Clone)]
pub struct ConvLayer<'a> {
    conv: &'a Conv,
    weight: ArrayViewD<'a, f32>,
    bias: Option<ArrayViewD<'a, f32>>,
}

impl<'a> ConvLayer<'a> {
    /// Channels, kernel size, geometry.
    pub fn op(&self) -> &'a Conv {
        self.conv
    }

    /// The kernel, `[T, S/g, k₀, …]`.
    pub fn weight(&self) -> ArrayViewD<'a, f32> {
        self.weight.clone()
    }

    /// The bias, `[T]`.
    pub fn bias(&self) -> Option<ArrayViewD<'a, f32>> {
        self.bias.clone()
    }
}
