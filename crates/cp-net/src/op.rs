//! The operations a [`Network`](crate::Network) is made of: plain data, no arrays.
//!
//! Every op knows which parameters it owns ([`Op::params`]); a parameter's full name is the node's name, a dot and
//! the suffix, which gives torchvision's names for torchvision's networks (`features.0.weight`).

use serde::{Deserialize, Serialize};

/// Stride, padding and dilation of a convolution, one entry per spatial axis (vertical first), and its groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConvGeometry {
    /// Step of the kernel along each axis, in pixels.
    pub stride: Vec<usize>,
    /// Zeros added on both sides of each axis, in pixels.
    pub padding: Vec<usize>,
    /// Distance between kernel taps along each axis, in pixels.
    pub dilation: Vec<usize>,
    /// Number of groups that input and output channels are split into.
    pub groups: usize,
}

impl ConvGeometry {
    /// Stride 1, no padding, dilation 1, one group, for `axes` spatial axes.
    pub fn unit(axes: usize) -> Self {
        Self { stride: vec![1; axes], padding: vec![0; axes], dilation: vec![1; axes], groups: 1 }
    }

    /// Output size of axis `axis` for an input of `size` pixels and a kernel of `kernel` taps, or `None` where the
    /// kernel does not fit.
    pub fn output_size(&self, axis: usize, size: usize, kernel: usize) -> Option<usize> {
        let reach = self.dilation[axis] * (kernel - 1) + 1;
        let room = (size + 2 * self.padding[axis]).checked_sub(reach)?;
        Some(room / self.stride[axis] + 1)
    }
}

/// A convolution over any number of spatial axes.
///
/// # Shapes
/// `weight`: `[T, S / groups, k₀, …]`; `bias`: `[T]`; input `[S, H₀, …]`; output `[T, H′₀, …]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Input channels S.
    pub in_channels: usize,
    /// Output channels T.
    pub out_channels: usize,
    /// Kernel size of each spatial axis, vertical first.
    pub kernel: Vec<usize>,
    /// Stride, padding, dilation and groups.
    pub geometry: ConvGeometry,
    /// Whether the layer adds a bias.
    pub bias: bool,
}

/// A fully connected layer.
///
/// # Shapes
/// `weight`: `[out, in]`; `bias`: `[out]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Input features.
    pub in_features: usize,
    /// Output features.
    pub out_features: usize,
    /// Whether the layer adds a bias.
    pub bias: bool,
}

/// Batch normalization over the channel axis: `weight`, `bias`, `running_mean`, `running_var`, each `[channels]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNorm {
    /// Channels.
    pub channels: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Weight of the current batch in the running statistics.
    pub momentum: f64,
}

/// Local response normalization across channels, as Caffe and torch define it (α is divided by `size`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lrn {
    /// Number of neighbouring channels.
    pub size: usize,
    /// Multiplier of the mean square.
    pub alpha: f64,
    /// Exponent.
    pub beta: f64,
    /// Additive constant.
    pub k: f64,
}

/// A pooling window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Window size of each spatial axis.
    pub kernel: Vec<usize>,
    /// Step of each spatial axis.
    pub stride: Vec<usize>,
    /// Padding on both sides of each spatial axis.
    pub padding: Vec<usize>,
    /// Round output sizes up, as Caffe does; a last window that would start beyond the image and its padding is dropped.
    pub ceil: bool,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Op {
    /// Convolution.
    Conv(Conv),
    /// Fully connected layer.
    Linear(Linear),
    /// Batch normalization.
    BatchNorm(BatchNorm),
    /// Local response normalization.
    Lrn(Lrn),
    /// Maximum pooling.
    MaxPool(Pool),
    /// Average pooling; padding counts as zeros in the mean.
    AvgPool(Pool),
    /// Average pooling to a fixed output size.
    AdaptiveAvgPool {
        /// Output size of each spatial axis.
        output: Vec<usize>,
    },
    /// max(x, 0).
    Relu,
    /// Sum of all inputs.
    Add,
    /// Concatenation along the channels.
    Concat,
    /// Maximum over groups of `pieces` neighbouring channels (Goodfellow et al. 2013).
    Maxout {
        /// Channels per group.
        pieces: usize,
    },
    /// Dropout; the identity outside training.
    Dropout {
        /// Probability of dropping a value.
        p: f64,
    },
    /// Everything but the batch axis into one axis.
    Flatten,
    /// Softmax over the features.
    Softmax,
    /// The parameter-free shortcut of the CIFAR ResNets (option A): every `stride`-th row and column, with zero
    /// channels added before and after.
    PadShortcut {
        /// Step along both spatial axes.
        stride: usize,
        /// Zero channels in front.
        before: usize,
        /// Zero channels behind.
        after: usize,
    },
}

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamRole {
    /// Multiplies the input; weight decay applies.
    Weight,
    /// Is added, or scales a normalization; trained without weight decay by convention.
    Bias,
    /// Running statistics: saved, not trained, not counted as parameters.
    Buffer,
}

/// One parameter of an op.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamSpec {
    /// The part of the name behind the node's name and the dot.
    pub suffix: &'static str,
    /// Shape of the array.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: ParamRole,
}

impl Op {
    /// The op's name, as in a model file.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Conv(_) => "conv",
            Op::Linear(_) => "linear",
            Op::BatchNorm(_) => "batch_norm",
            Op::Lrn(_) => "lrn",
            Op::MaxPool(_) => "max_pool",
            Op::AvgPool(_) => "avg_pool",
            Op::AdaptiveAvgPool { .. } => "adaptive_avg_pool",
            Op::Relu => "relu",
            Op::Add => "add",
            Op::Concat => "concat",
            Op::Maxout { .. } => "maxout",
            Op::Dropout { .. } => "dropout",
            Op::Flatten => "flatten",
            Op::Softmax => "softmax",
            Op::PadShortcut { .. } => "pad_shortcut",
        }
    }

    /// Number of parameters: weights, biases and scales, but not running statistics.
    pub fn param_count(&self) -> usize {
        self.params()
            .iter()
            .filter(|spec| spec.role != ParamRole::Buffer)
            .map(|spec| spec.shape.iter().product::<usize>())
            .sum()
    }

    /// The parameters of this op, in the order weight, bias, statistics.
    pub fn params(&self) -> Vec<ParamSpec> {
        let spec = |suffix, shape: Vec<usize>, role| ParamSpec { suffix, shape, role };
        let affine = |shape: Vec<usize>, out: usize, bias: bool| {
            let mut specs = vec![spec("weight", shape, ParamRole::Weight)];
            if bias {
                specs.push(spec("bias", vec![out], ParamRole::Bias));
            }
            specs
        };
        match self {
            Op::Conv(conv) => affine(conv.weight_shape(), conv.out_channels, conv.bias),
            Op::Linear(linear) => affine(
                vec![linear.out_features, linear.in_features],
                linear.out_features,
                linear.bias,
            ),
            Op::BatchNorm(norm) => vec![
                spec("weight", vec![norm.channels], ParamRole::Bias),
                spec("bias", vec![norm.channels], ParamRole::Bias),
                spec("running_mean", vec![norm.channels], ParamRole::Buffer),
                spec("running_var", vec![norm.channels], ParamRole::Buffer),
            ],
            _ => Vec::new(),
        }
    }
}

impl Conv {
    /// `[T, S / groups, k₀, …]`.
    pub fn weight_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.out_channels, self.in_channels / self.geometry.groups.max(1)];
        shape.extend(&self.kernel);
        shape
    }
}
