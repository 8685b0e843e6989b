//! The operations a [`Network`](crate::Network) is made of: one file an op, with everything that belongs to it ([`OpSpec`]), and
//! here the one list of them, from which [`Op`] is made.
//!
//! The list is a macro that takes a macro: an engine passes its own to [`for_each_op`] to make a match over all ops, so that an op
//! without a forward function there is an error of the compiler.

mod adaptive;
mod broadcast;
mod factored;
mod moments;
mod padding;
mod share;
mod spec;
mod unary;
mod window;

use std::fmt;
use std::ops::RangeInclusive;

use ndarray::{ArrayD, ArrayViewD};
use serde::{Deserialize, Serialize};

pub(crate) use factored::axis_suffixes;
pub use factored::{Contraction, Factored, Way, WayPart};
pub use padding::Padding;
pub use spec::{
    BadField, Draw, Effect, Mismatch, OpSpec, ParamRole, ParamSpec, Sample, Shape, Start,
};

/// Expands `$then! { file::Struct = "kind", … }` over all ops: the file below `op/`, its struct, and the name in model files.
#[macro_export]
macro_rules! for_each_op {
    ($then:ident) => {
        $then! {
            abs::Abs = "abs",
            adaptive_avg_pool::AdaptiveAvgPool = "adaptive_avg_pool",
            adaptive_max_pool::AdaptiveMaxPool = "adaptive_max_pool",
            add::Add = "add",
            avg_pool::AvgPool = "avg_pool",
            batch_norm::BatchNorm = "batch_norm",
            clip::Clip = "clip",
            concat::Concat = "concat",
            constant::Constant = "constant",
            conv::Conv = "conv",
            conv_transpose::ConvTranspose = "conv_transpose",
            cp_conv::CpConv = "cp_conv",
            depth_to_space::DepthToSpace = "depth_to_space",
            div::Div = "div",
            dropout::Dropout = "dropout",
            elu::Elu = "elu",
            erf::Erf = "erf",
            exp::Exp = "exp",
            flatten::Flatten = "flatten",
            floor::Floor = "floor",
            gather::Gather = "gather",
            gelu::Gelu = "gelu",
            global_avg_pool::GlobalAvgPool = "global_avg_pool",
            global_max_pool::GlobalMaxPool = "global_max_pool",
            group_norm::GroupNorm = "group_norm",
            hard_sigmoid::HardSigmoid = "hard_sigmoid",
            hard_swish::HardSwish = "hard_swish",
            identity::Identity = "identity",
            instance_norm::InstanceNorm = "instance_norm",
            layer_norm::LayerNorm = "layer_norm",
            leaky_relu::LeakyRelu = "leaky_relu",
            linear::Linear = "linear",
            log::Log = "log",
            log_softmax::LogSoftmax = "log_softmax",
            lrn::Lrn = "lrn",
            matmul::MatMul = "matmul",
            max::Max = "max",
            max_pool::MaxPool = "max_pool",
            maxout::Maxout = "maxout",
            min::Min = "min",
            mish::Mish = "mish",
            mul::Mul = "mul",
            neg::Neg = "neg",
            pad::Pad = "pad",
            pow::Pow = "pow",
            prelu::PRelu = "prelu",
            reciprocal::Reciprocal = "reciprocal",
            reduce::Reduce = "reduce",
            relu::Relu = "relu",
            reshape::Reshape = "reshape",
            resize::Resize = "resize",
            scale_shift::ScaleShift = "scale_shift",
            sigmoid::Sigmoid = "sigmoid",
            silu::Silu = "silu",
            slice::Slice = "slice",
            softmax::Softmax = "softmax",
            softplus::Softplus = "softplus",
            split::Split = "split",
            sqrt::Sqrt = "sqrt",
            squeeze::Squeeze = "squeeze",
            sub::Sub = "sub",
            tanh::Tanh = "tanh",
            transpose::Transpose = "transpose",
            tt_conv::TtConv = "tt_conv",
            tucker_conv::TuckerConv = "tucker_conv",
            unsqueeze::Unsqueeze = "unsqueeze",
        }
    };
}

macro_rules! make_op {
    ($($file:ident::$name:ident = $kind:literal,)*) => {
        $(mod $file;)*
        $(pub use $file::$name;)*

        /// One operation.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "op")]
        #[allow(missing_docs, reason = "the structs have theirs")]
        pub enum Op {
            $(#[serde(rename = $kind)] $name($name),)*
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Self {
                Op::$name(op)
            }
        })*

        impl Op {
            /// The names of all ops.
            pub const KINDS: &'static [&'static str] = &[$($kind),*];

            /// The op's name, as in a model file.
            pub fn kind(&self) -> &'static str {
                match self { $(Op::$name(_) => $kind,)* }
            }

            /// See [`OpSpec::arity`].
            pub fn arity(&self) -> RangeInclusive<usize> {
                match self { $(Op::$name(op) => op.arity(),)* }
            }

            /// See [`OpSpec::output_count`].
            pub fn output_count(&self) -> usize {
                match self { $(Op::$name(op) => op.output_count(),)* }
            }

            /// See [`OpSpec::params`].
            pub fn params(&self) -> Vec<ParamSpec> {
                match self { $(Op::$name(op) => op.params(),)* }
            }

            /// See [`OpSpec::check`].
            ///
            /// # Errors
            /// The setting that is impossible.
            pub fn check(&self) -> Result<(), BadField> {
                match self { $(Op::$name(op) => op.check(),)* }
            }

            /// See [`OpSpec::complete`].
            pub fn complete(&mut self, inputs: &[&[usize]]) {
                match self { $(Op::$name(op) => op.complete(inputs),)* }
            }

            /// See [`OpSpec::output`].
            ///
            /// # Errors
            /// The input that does not fit.
            pub fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
                match self { $(Op::$name(op) => op.output(inputs),)* }
            }

            /// See [`OpSpec::macs`].
            pub fn macs(&self, inputs: &[&[usize]], outputs: &[Shape]) -> usize {
                match self { $(Op::$name(op) => op.macs(inputs, outputs),)* }
            }

            /// See [`OpSpec::effect`].
            pub fn effect(&self) -> Effect {
                match self { $(Op::$name(op) => op.effect(),)* }
            }

            /// See [`OpSpec::eval`].
            pub fn eval(
                &self,
                inputs: &[ArrayViewD<'_, f32>],
                params: &[ArrayViewD<'_, f32>],
            ) -> Vec<ArrayD<f32>> {
                match self { $(Op::$name(op) => op.eval(inputs, params),)* }
            }

            /// Random settings of the op `kind` and inputs that fit them, or `None` where there is no such op.
            pub fn sample(kind: &str, draw: &mut Draw) -> Option<Sample<Op>> {
                match kind {
                    $($kind => Some($name::sample(draw).map(Op::$name)),)*
                    _ => None,
                }
            }
        }
    };
}

for_each_op!(make_op);

pub use depth_to_space::ChannelOrder;
pub use pad::PadMode;
pub use reduce::Reduction;
pub use resize::{Coordinates, ResizeMode, Rounding};

impl Op {
    /// Number of parameters: weights, biases and scales, but not running statistics.
    pub fn param_count(&self) -> usize {
        self.params().iter().map(ParamSpec::count).sum()
    }

    /// Whether it has a kernel that can be decomposed: a convolution or a linear layer.
    pub fn has_kernel(&self) -> bool {
        matches!(self, Op::Conv(_) | Op::Linear(_))
    }

    /// See [`Factored::ways`]; none for ops whose weights are no factors.
    pub fn ways(&self) -> Vec<Way> {
        match self {
            Op::CpConv(op) => op.ways(),
            Op::TtConv(op) => op.ways(),
            Op::TuckerConv(op) => op.ways(),
            _ => Vec::new(),
        }
    }

    /// How many inputs it takes, in words.
    pub(crate) fn arity_words(&self) -> String {
        let arity = self.arity();
        match (*arity.start(), *arity.end()) {
            (least, usize::MAX) => format!("at least {least}"),
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.kind())
    }
}
