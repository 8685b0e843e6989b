//! [`Network`]: a graph of named operations and a map from names to arrays.

use std::collections::BTreeMap;

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

use crate::error::NetError;
use crate::factorize::Factorization;
use crate::op::{Conv, Op, ParamRole};

/// The name by which nodes refer to the network's input.
pub const INPUT: &str = "input";

/// Order of the colour channels that a network was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// One grey channel.
    Gray,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red (Caffe).
    Bgr,
    /// No image: any number of channels from another network's layer, as they are.
    Features,
}

/// What the network expects at its input, so that data can be prepared without knowing the architecture:
/// x = (pixel · `scale` − `mean`) / `std`, pixels 0…255, channels in the order of `channels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// `[channels, height, width]` that the network was built for.
    pub shape: Vec<usize>,
    /// Channel order.
    pub channels: Channels,
    /// Multiplier of the pixel value.
    pub scale: f64,
    /// Subtracted, per channel in the order of `channels`.
    pub mean: Vec<f64>,
    /// Divided by, per channel in the order of `channels`.
    pub std: Vec<f64>,
}

impl InputSpec {
    /// The output of another network's layer: any shape without the batch axis, no scaling.
    pub fn features(shape: impl Into<Vec<usize>>) -> Self {
        Self {
            shape: shape.into(),
            channels: Channels::Features,
            scale: 1.0,
            mean: Vec::new(),
            std: Vec::new(),
        }
    }

    /// Square RGB images normalized with ImageNet's statistics, as torchvision's weights expect.
    pub fn imagenet(size: usize) -> Self {
        Self {
            shape: vec![3, size, size],
            channels: Channels::Rgb,
            scale: 1.0 / 255.0,
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
        }
    }

    /// Square BGR images of values 0…255 minus the mean of ImageNet, as Caffe's weights expect.
    pub fn caffe(size: usize) -> Self {
        Self {
            shape: vec![3, size, size],
            channels: Channels::Bgr,
            scale: 1.0,
            mean: vec![104.0, 117.0, 123.0],
            std: vec![1.0; 3],
        }
    }

    /// Square grey images of values 0…1.
    pub fn gray(size: usize) -> Self {
        Self {
            shape: vec![1, size, size],
            channels: Channels::Gray,
            scale: 1.0 / 255.0,
            mean: vec![0.0],
            std: vec![1.0],
        }
    }
}

/// One operation of the graph.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Unique name; parameters are named after it.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// Names of the nodes whose outputs it takes ([`INPUT`] for the network's input), in order.
    pub inputs: Vec<String>,
}

/// Everything about a network but its arrays: what the metadata of a model file holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Name of the architecture, such as `resnet20`.
    pub name: String,
    /// What the network expects at its input.
    pub input: InputSpec,
    /// The operations, each behind those it takes its inputs from; the last one is the output.
    pub nodes: Vec<Node>,
    /// The layers that were replaced by factors, by the name of the dense layer.
    #[serde(default)]
    pub factorized: BTreeMap<String, Factorization>,
}

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
        let net = Self { arch, params };
        net.check_params()?;
        Ok(net)
    }

    /// The architecture.
    pub fn architecture(&self) -> &Architecture {
        &self.arch
    }

    /// The operations in the order in which they run.
    pub fn nodes(&self) -> &[Node] {
        &self.arch.nodes
    }

    /// What the network expects at its input.
    pub fn input(&self) -> &InputSpec {
        &self.arch.input
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
        match &self.node(name)?.op {
            Op::Conv(conv) => Ok(ConvLayer {
                conv,
                weight: self.array(name, "weight")?,
                bias: self.optional_array(name, "bias"),
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
        match &self.node(name)?.op {
            Op::Conv(_) | Op::Linear(_) => self.array(name, "weight"),
            other => Err(NetError::WrongOp {
                layer: name.into(),
                expected: "conv or linear",
                got: other.kind(),
            }),
        }
    }

    /// Number of parameters: weights, biases and scales, but not running statistics.
    pub fn param_count(&self) -> usize {
        self.arch.param_count()
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

    /// The same network with another description of its input, such as other means.
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

    pub(crate) fn array(&self, layer: &str, suffix: &str) -> Result<ArrayViewD<'_, f32>, NetError> {
        self.optional_array(layer, suffix).ok_or_else(|| NetError::UnknownParam {
            name: format!("{layer}.{suffix}"),
            known: self.params.keys().cloned().collect(),
        })
    }

    pub(crate) fn optional_array(&self, layer: &str, suffix: &str) -> Option<ArrayViewD<'_, f32>> {
        self.params.get(&format!("{layer}.{suffix}")).map(ArrayD::view)
    }
}

impl Architecture {
    /// The node `name`.
    ///
    /// # Errors
    /// [`NetError::UnknownLayer`], or [`NetError::AlreadyFactorized`] where its parts took its place.
    pub fn node(&self, name: &str) -> Result<&Node, NetError> {
        Ok(&self.nodes[self.position(name)?])
    }

    /// Position of the node `name`.
    pub(crate) fn position(&self, name: &str) -> Result<usize, NetError> {
        if let Some(position) = self.nodes.iter().position(|node| node.name == name) {
            return Ok(position);
        }
        if let Some(record) = self.factorized.get(name) {
            return Err(NetError::AlreadyFactorized {
                layer: name.into(),
                parts: record.parts.clone(),
            });
        }
        let known = self.nodes.iter().map(|node| node.name.clone()).collect();
        Err(NetError::UnknownLayer { name: name.into(), known })
    }

    /// Number of parameters: weights, biases and scales, but not running statistics.
    pub fn param_count(&self) -> usize {
        self.nodes.iter().map(|node| node.op.param_count()).sum()
    }

    /// See [`Network::with_input_shape`].
    ///
    /// # Errors
    /// The layer that cannot take the shape, or [`NetError::OutputShape`] where the output would have another shape.
    pub fn with_input_shape(self, shape: impl AsRef<[usize]>) -> Result<Self, NetError> {
        let input = InputSpec { shape: shape.as_ref().to_vec(), ..self.input.clone() };
        self.with_input(input)
    }

    /// See [`Network::with_input`].
    ///
    /// # Errors
    /// As [`Architecture::with_input_shape`], and where the description is inconsistent.
    pub fn with_input(mut self, input: InputSpec) -> Result<Self, NetError> {
        let expected = self.output_shape(&self.input.shape)?;
        self.input = input;
        self.check()?;
        let got = self.output_shape(&self.input.shape)?;
        if got != expected {
            let layer = self.nodes.last().map(|node| node.name.clone()).unwrap_or_default();
            return Err(NetError::OutputShape { layer, input: self.input.shape, expected, got });
        }
        Ok(self)
    }
}

/// Functions that need no arrays take a network or an architecture.
impl AsRef<Architecture> for Architecture {
    fn as_ref(&self) -> &Architecture {
        self
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
