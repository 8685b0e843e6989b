//! [`Builder`]: an architecture layer by layer, with input sizes inferred.

use std::collections::BTreeMap;

use crate::error::NetError;
use crate::network::{Architecture, INPUT, InputSpec, Node};
use crate::op::{BatchNorm, Conv, ConvGeometry, Linear, Lrn, Op, Pool};

/// A square window of a convolution or a pooling: size, stride, padding and what else both need.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Window {
    size: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    groups: usize,
    bias: bool,
    ceil: bool,
}

/// A `size`×`size` window with stride 1 and no padding; a convolution with it has one group and a bias, a pooling rounds
/// down.
pub fn window(size: usize) -> Window {
    Window { size, stride: 1, padding: 0, dilation: 1, groups: 1, bias: true, ceil: false }
}

impl Window {
    /// Step along both axes, in pixels.
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// Padding on all sides, in pixels.
    pub fn pad(self, padding: usize) -> Self {
        Self { padding, ..self }
    }

    /// Distance of the taps of a convolution, in pixels.
    pub fn dilation(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    /// Groups of a convolution.
    pub fn groups(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// A convolution without bias.
    pub fn no_bias(self) -> Self {
        Self { bias: false, ..self }
    }

    /// A pooling that rounds its output size up.
    pub fn ceil(self) -> Self {
        Self { ceil: true, ..self }
    }

    fn pool(self) -> Pool {
        Pool {
            kernel: vec![self.size; 2],
            stride: vec![self.stride; 2],
            padding: vec![self.padding; 2],
            ceil: self.ceil,
        }
    }
}

/// Puts an [`Architecture`] together: every method adds a node behind the current one and makes it the current one.
/// The first mistake is kept and reported by [`Builder::build`].
///
/// ```
/// use cp_net::{InputSpec, arch::{Builder, window}};
/// let arch = Builder::new("tiny", InputSpec::gray(28))
///     .conv("conv1", 8, window(3).pad(1))
///     .relu("relu1")
///     .max_pool("pool1", window(2).stride(2))
///     .flatten("flatten")
///     .linear("fc", 10)
///     .build()?;
/// assert_eq!(arch.param_count(), 8 * 9 + 8 + 10 * 8 * 14 * 14 + 10);
/// # Ok::<(), cp_net::NetError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder {
    name: String,
    input: InputSpec,
    nodes: Vec<Node>,
    /// Output shape of every node, and of the input.
    shapes: BTreeMap<String, Vec<usize>>,
    current: String,
    error: Option<NetError>,
}

impl Builder {
    /// An architecture with no layer yet; the current node is the input.
    pub fn new(name: &str, input: InputSpec) -> Self {
        let shapes = BTreeMap::from([(INPUT.to_string(), input.shape.clone())]);
        Self {
            name: name.into(),
            input,
            nodes: Vec::new(),
            shapes,
            current: INPUT.into(),
            error: None,
        }
    }

    /// Name of the current node, to come back to it with [`Builder::at`].
    pub fn here(&self) -> String {
        self.current.clone()
    }

    /// Makes `node` the current one: what is added next reads it.
    pub fn at(mut self, node: &str) -> Self {
        self.current = node.into();
        self
    }

    /// Adds any op behind the current node.
    pub fn op(self, name: &str, op: Op) -> Self {
        let inputs = vec![self.current.clone()];
        self.node(name, op, inputs)
    }

    /// Adds any op with inputs of any name.
    pub fn node(mut self, name: &str, op: Op, inputs: Vec<String>) -> Self {
        let node = Node { name: name.into(), op, inputs };
        if self.error.is_none() {
            match self.shape_of(&node) {
                Ok(shape) => {
                    self.shapes.insert(name.into(), shape);
                }
                Err(error) => self.error = Some(error),
            }
        }
        self.nodes.push(node);
        self.current = name.into();
        self
    }

    /// A square convolution to `out` channels.
    pub fn conv(self, name: &str, out: usize, window: Window) -> Self {
        let conv = Conv {
            in_channels: self.channels(),
            out_channels: out,
            kernel: vec![window.size; 2],
            geometry: ConvGeometry {
                stride: vec![window.stride; 2],
                padding: vec![window.padding; 2],
                dilation: vec![window.dilation; 2],
                groups: window.groups,
            },
            bias: window.bias,
        };
        self.op(name, Op::Conv(conv))
    }

    /// A fully connected layer to `out` features.
    pub fn linear(self, name: &str, out: usize) -> Self {
        let linear = Linear { in_features: self.channels(), out_features: out, bias: true };
        self.op(name, Op::Linear(linear))
    }

    /// Batch normalization with torch's constants (ε 1e-5, momentum 0.1).
    pub fn batch_norm(self, name: &str) -> Self {
        let norm = BatchNorm { channels: self.channels(), eps: 1e-5, momentum: 0.1 };
        self.op(name, Op::BatchNorm(norm))
    }

    /// Local response normalization over 5 channels with α = 1e-4, β = 0.75, k = 1, as Caffe's models have it.
    pub fn lrn(self, name: &str) -> Self {
        self.op(name, Op::Lrn(Lrn { size: 5, alpha: 1e-4, beta: 0.75, k: 1.0 }))
    }

    /// Maximum pooling.
    pub fn max_pool(self, name: &str, window: Window) -> Self {
        self.op(name, Op::MaxPool(window.pool()))
    }

    /// Average over the whole map, whatever its size: `[C, 1, 1]`.
    pub fn global_avg_pool(self, name: &str) -> Self {
        self.adaptive_avg_pool(name, 1)
    }

    /// Average pooling to `size`×`size`.
    pub fn adaptive_avg_pool(self, name: &str, size: usize) -> Self {
        self.op(name, Op::AdaptiveAvgPool { output: vec![size; 2] })
    }

    /// max(x, 0).
    pub fn relu(self, name: &str) -> Self {
        self.op(name, Op::Relu)
    }

    /// Maximum over `pieces` neighbouring channels.
    pub fn maxout(self, name: &str, pieces: usize) -> Self {
        self.op(name, Op::Maxout { pieces })
    }

    /// Dropout with probability `p`.
    pub fn dropout(self, name: &str, p: f64) -> Self {
        self.op(name, Op::Dropout { p })
    }

    /// Everything into one axis.
    pub fn flatten(self, name: &str) -> Self {
        self.op(name, Op::Flatten)
    }

    /// Sum of the current node and `other`.
    pub fn add(self, name: &str, other: &str) -> Self {
        let inputs = vec![self.current.clone(), other.into()];
        self.node(name, Op::Add, inputs)
    }

    /// `inputs` side by side along the channels.
    pub fn concat(self, name: &str, inputs: &[String]) -> Self {
        self.node(name, Op::Concat, inputs.to_vec())
    }

    /// Channels (or features) of the current node; 0 behind a mistake.
    pub fn channels(&self) -> usize {
        self.shapes.get(&self.current).and_then(|shape| shape.first()).copied().unwrap_or(0)
    }

    /// The architecture.
    ///
    /// # Errors
    /// The first layer that did not fit, or what [`Architecture::check`] finds.
    pub fn build(self) -> Result<Architecture, NetError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let arch = Architecture {
            name: self.name,
            input: self.input,
            nodes: self.nodes,
            factorized: BTreeMap::default(),
        };
        arch.check()?;
        Ok(arch)
    }

    fn shape_of(&self, node: &Node) -> Result<Vec<usize>, NetError> {
        node.check()?;
        let inputs = node
            .inputs
            .iter()
            .map(|input| {
                self.shapes.get(input).map(Vec::as_slice).ok_or_else(|| NetError::UndefinedInput {
                    layer: node.name.clone(),
                    input: input.clone(),
                    known: self.shapes.keys().cloned().collect(),
                })
            })
            .collect::<Result<Vec<&[usize]>, _>>()?;
        node.output_shape(&inputs)
    }
}
