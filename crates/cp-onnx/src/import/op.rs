//! The ops of ONNX that a network can have: one file a family, each from a [`Call`] to nodes of the network.

mod activation;
mod arithmetic;
mod conv;
mod conv_transpose;
mod layout;
mod linear;
mod norm;
mod pad;
mod pool;
mod reduce;
mod reshape;
mod resize;
mod select;
mod softmax;

pub(crate) use select::positions;

use crate::import::call::{Call, Outcome};

/// Reads a node.
type Importer = fn(&mut Call<'_, '_>) -> Outcome;

/// Every op that is known, with what reads it where it is not a constant.
const KNOWN: &[(&str, Importer)] = &[
    ("Abs", activation::plain),
    ("Add", arithmetic::binary),
    ("AveragePool", pool::average),
    ("BatchNormalization", norm::batch),
    ("Cast", layout::cast),
    ("Ceil", activation::ceil),
    ("Celu", activation::celu),
    ("Clip", activation::clip),
    ("Concat", select::concat),
    ("Conv", conv::conv),
    ("ConvTranspose", conv_transpose::conv_transpose),
    ("DepthToSpace", layout::depth_to_space),
    ("Div", arithmetic::binary),
    ("Dropout", activation::dropout),
    ("Elu", activation::elu),
    ("Erf", activation::plain),
    ("Exp", activation::plain),
    ("Expand", arithmetic::expand),
    ("Flatten", reshape::flatten),
    ("Floor", activation::plain),
    ("Gather", select::gather),
    ("Gelu", activation::gelu),
    ("Gemm", linear::gemm),
    ("GlobalAveragePool", pool::global),
    ("GlobalMaxPool", pool::global),
    ("GroupNormalization", norm::group),
    ("HardSigmoid", activation::hard_sigmoid),
    ("HardSwish", activation::plain),
    ("Identity", layout::identity),
    ("InstanceNormalization", norm::instance),
    ("LRN", norm::local_response),
    ("LayerNormalization", norm::layer),
    ("LeakyRelu", activation::leaky_relu),
    ("Log", activation::plain),
    ("LogSoftmax", softmax::softmax),
    ("MatMul", linear::matmul),
    ("Max", arithmetic::several),
    ("MaxPool", pool::max),
    ("Mean", arithmetic::several),
    ("Min", arithmetic::several),
    ("Mish", activation::plain),
    ("Mul", arithmetic::binary),
    ("Neg", activation::plain),
    ("PRelu", activation::prelu),
    ("Pad", pad::pad),
    ("Pow", arithmetic::binary),
    ("Reciprocal", activation::plain),
    ("ReduceL1", reduce::reduce),
    ("ReduceL2", reduce::reduce),
    ("ReduceLogSum", reduce::reduce),
    ("ReduceMax", reduce::reduce),
    ("ReduceMean", reduce::reduce),
    ("ReduceMin", reduce::reduce),
    ("ReduceProd", reduce::reduce),
    ("ReduceSum", reduce::reduce),
    ("ReduceSumSquare", reduce::reduce),
    ("Relu", activation::plain),
    ("Reshape", reshape::reshape),
    ("Resize", resize::resize),
    ("Selu", activation::selu),
    ("Shape", reshape::shape),
    ("Sigmoid", activation::plain),
    ("Size", reshape::size),
    ("Slice", select::slice),
    ("Softmax", softmax::softmax),
    ("Softplus", activation::plain),
    ("Softsign", activation::softsign),
    ("SpaceToDepth", layout::space_to_depth),
    ("Split", select::split),
    ("Sqrt", activation::plain),
    ("Squeeze", reshape::squeeze),
    ("Sub", arithmetic::binary),
    ("Sum", arithmetic::several),
    ("Swish", activation::swish),
    ("Tanh", activation::plain),
    ("Tile", select::tile),
    ("Transpose", layout::transpose),
    ("Unsqueeze", reshape::unsqueeze),
    ("Upsample", resize::upsample),
];

/// What reads `op`, if it is known.
pub(crate) fn importer(op: &str) -> Option<Importer> {
    KNOWN.iter().find(|(known, _)| *known == op).map(|(_, importer)| *importer)
}
