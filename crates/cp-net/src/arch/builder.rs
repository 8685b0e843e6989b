//! [`Builder`]: an architecture layer by layer, with input sizes inferred.

use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;
use crate::network::node::Node;
use crate::network::shapes::Shapes;
use crate::op::{
    AdaptiveAvgPool, Add, AvgPool, BatchNorm, Clip, Concat, Conv, ConvTranspose, Dropout, Flatten,
    Linear, Lrn, MaxPool, Maxout, Mul, Op, Padding, Relu, Sigmoid, Silu,
};

/// One number for every spatial axis, or one for each.
#[derive(Debug, Clone, Copy)]
pub enum Sizes {
    /// The same along all axes of the map that it meets.
    All(usize),
    /// Along one to three axes.
    Each([usize; 3], usize),
}

impl Sizes {
    fn of(self, axes: usize) -> Vec<usize> {
        match self {
            Sizes::All(size) => vec![size; axes],
            Sizes::Each(sizes, axes) => sizes[..axes].to_vec(),
        }
    }
}

impl From<usize> for Sizes {
    fn from(size: usize) -> Self {
        Sizes::All(size)
    }
}

impl From<[usize; 1]> for Sizes {
    fn from([a]: [usize; 1]) -> Self {
        Sizes::Each([a, 0, 0], 1)
    }
}

impl From<[usize; 2]> for Sizes {
    fn from([a, b]: [usize; 2]) -> Self {
        Sizes::Each([a, b, 0], 2)
    }
}

impl From<[usize; 3]> for Sizes {
    fn from(sizes: [usize; 3]) -> Self {
        Sizes::Each(sizes, 3)
    }
}

/// A window of a convolution or a pooling: size, stride, padding and what else both need.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Window {
    size: Sizes,
    stride: Sizes,
    before: Sizes,
    behind: Sizes,
    same: bool,
    dilation: Sizes,
    groups: usize,
    bias: bool,
    ceil: bool,
    count_padding: bool,
}

/// A window of this size along every axis (`window(3)`), or of one size for each (`window([3, 1])`), with stride 1 and no padding; a
/// convolution with it has one group and a bias, a pooling rounds down.
pub fn window(size: impl Into<Sizes>) -> Window {
    Window {
        size: size.into(),
        stride: Sizes::All(1),
        before: Sizes::All(0),
        behind: Sizes::All(0),
        same: false,
        dilation: Sizes::All(1),
        groups: 1,
        bias: true,
        ceil: false,
        count_padding: true,
    }
}

impl Window {
    /// Step along the axes, in pixels.
    pub fn stride(self, stride: impl Into<Sizes>) -> Self {
        Self { stride: stride.into(), ..self }
    }

    /// Padding on both sides of each axis, in pixels.
    pub fn pad(self, padding: impl Into<Sizes>) -> Self {
        let padding = padding.into();
        self.pad_sides(padding, padding)
    }

    /// Padding before and behind each axis, in pixels.
    pub fn pad_sides(self, before: impl Into<Sizes>, behind: impl Into<Sizes>) -> Self {
        Self { before: before.into(), behind: behind.into(), ..self }
    }

    /// As much padding as gives ⌈size / stride⌉ outputs.
    pub fn same(self) -> Self {
        Self { same: true, ..self }
    }

    /// Distance of the taps, in pixels.
    pub fn dilation(self, dilation: impl Into<Sizes>) -> Self {
        Self { dilation: dilation.into(), ..self }
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

    /// An average pooling that leaves the padding out of the mean.
    pub fn without_padding(self) -> Self {
        Self { count_padding: false, ..self }
    }

    fn padding(self, axes: usize) -> Padding {
        if self.same {
            return Padding::Same;
        }
        let (before, behind) = (self.before.of(axes), self.behind.of(axes));
        Padding::Each(before.into_iter().zip(behind).map(|(a, b)| [a, b]).collect())
    }
}

/// Puts an [`Architecture`] together: every method adds a node behind the current value and makes its output the current one.
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
///
/// // One spatial axis, or three, in the same way.
/// let sound = Builder::new("sound", InputSpec::features([1, 2048])).conv("conv1", 8, window(65).stride(4)).build()?;
/// assert_eq!(sound.output_shape([1, 2048])?, [8, 496]);
/// # Ok::<(), cp_net::NetError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Builder {
    name: String,
    inputs: Vec<InputSpec>,
    nodes: Vec<Node>,
    /// Of every value so far.
    shapes: Shapes,
    current: String,
    outputs: Option<Vec<String>>,
    error: Option<NetError>,
}

impl Builder {
    /// An architecture with no layer yet; the current value is the input.
    pub fn new(name: &str, input: InputSpec) -> Self {
        Self {
            name: name.into(),
            current: input.name.clone(),
            shapes: Shapes::of_inputs(std::slice::from_ref(&input)),
            inputs: vec![input],
            nodes: Vec::new(),
            outputs: None,
            error: None,
        }
    }

    /// Another input, which becomes the current value.
    pub fn input(mut self, input: InputSpec) -> Self {
        self.shapes.extend([(input.name.clone(), input.shape.clone())]);
        self.current.clone_from(&input.name);
        self.inputs.push(input);
        self
    }

    /// Name of the current value, to come back to it with [`Builder::at`].
    pub fn here(&self) -> String {
        self.current.clone()
    }

    /// Makes `value` the current one: what is added next reads it.
    pub fn at(mut self, value: &str) -> Self {
        self.current = value.into();
        self
    }

    /// Adds any op behind the current value.
    pub fn op(self, name: &str, op: impl Into<Op>) -> Self {
        let inputs = vec![self.current.clone()];
        self.node(name, op, inputs)
    }

    /// Adds any op with inputs of any name. Settings that are left open (0 channels, no strides) are filled in.
    pub fn node(self, name: &str, op: impl Into<Op>, inputs: Vec<String>) -> Self {
        self.push(Node::new(name, op, inputs))
    }

    /// As [`Builder::op`], with the parameters of the node `other`, which it shares.
    pub fn shared(self, name: &str, op: impl Into<Op>, other: &str) -> Self {
        let mut node = Node::new(name, op, [self.current.clone()]);
        let slots: Vec<&str> = node.op.params().iter().map(|spec| spec.slot).collect();
        for slot in slots {
            let from = self.nodes.iter().find(|node| node.name == other);
            let param = from.map_or_else(|| format!("{other}.{slot}"), |node| node.param(slot));
            node.set_param(slot, param);
        }
        self.push(node)
    }

    fn push(mut self, mut node: Node) -> Self {
        if self.error.is_none() {
            node.complete(&self.shapes);
            match node.infer(&self.shapes) {
                Ok(shapes) => self.shapes.extend(node.outputs.iter().cloned().zip(shapes)),
                Err(error) => self.error = Some(error),
            }
        }
        node.output().clone_into(&mut self.current);
        self.nodes.push(node);
        self
    }

    /// Keeps what is wrong with a layer, unless something was wrong before it.
    pub(super) fn refuse(mut self, error: NetError) -> Self {
        self.error.get_or_insert(error);
        self
    }

    /// A convolution to `out` channels.
    pub fn conv(self, name: &str, out: usize, window: Window) -> Self {
        let axes = self.axes();
        let conv = Conv {
            stride: window.stride.of(axes),
            padding: window.padding(axes),
            dilation: window.dilation.of(axes),
            groups: window.groups,
            bias: window.bias,
            ..Conv::new(self.channels(), out, window.size.of(axes))
        };
        self.op(name, conv)
    }

    /// A convolution of every channel by itself.
    pub fn depthwise(self, name: &str, window: Window) -> Self {
        let channels = self.channels();
        self.conv(name, channels, window.groups(channels))
    }

    /// A transposed convolution to `out` channels.
    pub fn conv_transpose(self, name: &str, out: usize, window: Window) -> Self {
        let axes = self.axes();
        let conv = ConvTranspose {
            in_channels: self.channels(),
            out_channels: out,
            kernel: window.size.of(axes),
            stride: window.stride.of(axes),
            padding: window.padding(axes),
            output_padding: vec![0; axes],
            dilation: window.dilation.of(axes),
            groups: window.groups,
            bias: window.bias,
        };
        self.op(name, conv)
    }

    /// A fully connected layer to `out` features.
    pub fn linear(self, name: &str, out: usize) -> Self {
        self.op(name, Linear { in_features: 0, out_features: out, bias: true })
    }

    /// Batch normalization with torch's constants (ε 1e-5, momentum 0.1).
    pub fn batch_norm(self, name: &str) -> Self {
        self.op(name, BatchNorm::new(0))
    }

    /// Local response normalization over 5 channels with α = 1e-4, β = 0.75, k = 1, as Caffe's models have it.
    pub fn lrn(self, name: &str) -> Self {
        self.op(name, Lrn { size: 5, alpha: 1e-4, beta: 0.75, k: 1.0 })
    }

    /// Maximum pooling.
    pub fn max_pool(self, name: &str, window: Window) -> Self {
        let axes = self.axes();
        let pool = MaxPool {
            kernel: window.size.of(axes),
            stride: window.stride.of(axes),
            padding: window.padding(axes),
            dilation: window.dilation.of(axes),
            ceil: window.ceil,
        };
        self.op(name, pool)
    }

    /// Average pooling.
    pub fn avg_pool(self, name: &str, window: Window) -> Self {
        let axes = self.axes();
        let pool = AvgPool {
            kernel: window.size.of(axes),
            stride: window.stride.of(axes),
            padding: window.padding(axes),
            ceil: window.ceil,
            count_padding: window.count_padding,
        };
        self.op(name, pool)
    }

    /// Average over the whole map, whatever its size: `[C, 1, …]`.
    pub fn global_avg_pool(self, name: &str) -> Self {
        self.adaptive_avg_pool(name, 1)
    }

    /// Average pooling to `size` along every axis.
    pub fn adaptive_avg_pool(self, name: &str, size: usize) -> Self {
        let output = vec![size; self.axes()];
        self.op(name, AdaptiveAvgPool { output })
    }

    /// max(x, 0).
    pub fn relu(self, name: &str) -> Self {
        self.op(name, Relu {})
    }

    /// min(max(x, 0), 6).
    pub fn relu6(self, name: &str) -> Self {
        self.op(name, Clip { min: Some(0.0), max: Some(6.0) })
    }

    /// x · sigmoid(x).
    pub fn silu(self, name: &str) -> Self {
        self.op(name, Silu {})
    }

    /// 1 / (1 + e^−x).
    pub fn sigmoid(self, name: &str) -> Self {
        self.op(name, Sigmoid {})
    }

    /// Maximum over `pieces` neighbouring channels.
    pub fn maxout(self, name: &str, pieces: usize) -> Self {
        self.op(name, Maxout { pieces })
    }

    /// Dropout with probability `p`.
    pub fn dropout(self, name: &str, p: f64) -> Self {
        self.op(name, Dropout { p })
    }

    /// Everything into one axis.
    pub fn flatten(self, name: &str) -> Self {
        self.op(name, Flatten { axis: 0 })
    }

    /// Sum of the current value and `other`.
    pub fn add(self, name: &str, other: &str) -> Self {
        let inputs = vec![self.current.clone(), other.into()];
        self.node(name, Add {}, inputs)
    }

    /// Product of the current value and `other`.
    pub fn mul(self, name: &str, other: &str) -> Self {
        let inputs = vec![self.current.clone(), other.into()];
        self.node(name, Mul {}, inputs)
    }

    /// `inputs` side by side along the channels.
    pub fn concat(self, name: &str, inputs: &[String]) -> Self {
        self.node(name, Concat { axis: 0 }, inputs.to_vec())
    }

    /// The values that the network gives; without it, those of the last node.
    pub fn outputs(mut self, outputs: &[&str]) -> Self {
        self.outputs = Some(outputs.iter().map(ToString::to_string).collect());
        self
    }

    /// Channels (or features) of the current value; 0 behind a mistake.
    pub fn channels(&self) -> usize {
        self.shape().first().copied().unwrap_or(0)
    }

    /// Shape of the current value, without the batch axis; empty behind a mistake.
    pub fn shape(&self) -> &[usize] {
        self.shapes.get(&self.current).unwrap_or_default()
    }

    /// Spatial axes of the current value.
    fn axes(&self) -> usize {
        self.shape().len().saturating_sub(1)
    }

    /// The architecture.
    ///
    /// # Errors
    /// The first layer that did not fit, or what [`Architecture::check`] finds.
    pub fn build(self) -> Result<Architecture, NetError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let mut inputs = self.inputs.into_iter();
        let Some(first) = inputs.next() else { return Err(NetError::Empty { name: self.name }) };
        let mut arch = Architecture::new(self.name, first, self.nodes);
        arch.inputs.extend(inputs);
        if let Some(outputs) = self.outputs {
            arch.outputs = outputs;
        }
        arch.check()?;
        Ok(arch)
    }
}
