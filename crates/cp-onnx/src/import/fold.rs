//! Constants that are computed from constants: arithmetic of shapes, above all, whose whole numbers may hang on the size of the batch.

mod elementwise;
mod fill;
mod layout;
mod logic;
mod reduce;

use crate::import::call::{Call, Outcome};
use crate::import::value::{Data, Known, Value};

/// Computes a node.
type Fold = fn(&mut Call<'_, '_>) -> Outcome;

/// The ops that are computed where all inputs are constants.
const FOLDED: &[(&str, Fold)] = &[
    ("Abs", elementwise::unary),
    ("Add", elementwise::binary),
    ("And", logic::both),
    ("Cast", elementwise::cast),
    ("CastLike", elementwise::cast_like),
    ("Ceil", elementwise::unary),
    ("Clip", elementwise::clip),
    ("Concat", layout::concat),
    ("Constant", fill::constant),
    ("ConstantOfShape", fill::constant_of_shape),
    ("Div", elementwise::binary),
    ("Dropout", layout::identity),
    ("Equal", logic::compare),
    ("Erf", elementwise::unary),
    ("Exp", elementwise::unary),
    ("Expand", layout::expand),
    ("Flatten", layout::flatten),
    ("Floor", elementwise::unary),
    ("Gather", layout::gather),
    ("Greater", logic::compare),
    ("GreaterOrEqual", logic::compare),
    ("Identity", layout::identity),
    ("Less", logic::compare),
    ("LessOrEqual", logic::compare),
    ("Log", elementwise::unary),
    ("Max", elementwise::several),
    ("Mean", elementwise::several),
    ("Min", elementwise::several),
    ("Mod", elementwise::binary),
    ("Mul", elementwise::binary),
    ("Neg", elementwise::unary),
    ("Not", logic::not),
    ("Or", logic::both),
    ("Pow", elementwise::binary),
    ("Range", fill::range),
    ("Reciprocal", elementwise::unary),
    ("ReduceMax", reduce::reduce),
    ("ReduceMean", reduce::reduce),
    ("ReduceMin", reduce::reduce),
    ("ReduceProd", reduce::reduce),
    ("ReduceSum", reduce::reduce),
    ("Relu", elementwise::unary),
    ("Reshape", layout::reshape),
    ("Shape", layout::shape),
    ("Sigmoid", elementwise::unary),
    ("Size", layout::size),
    ("Slice", layout::slice),
    ("Split", layout::split),
    ("Sqrt", elementwise::unary),
    ("Squeeze", layout::squeeze),
    ("Sub", elementwise::binary),
    ("Sum", elementwise::several),
    ("Tanh", elementwise::unary),
    ("Tile", layout::tile),
    ("Transpose", layout::transpose),
    ("Unsqueeze", layout::unsqueeze),
    ("Where", logic::choose),
    ("Xor", logic::both),
];

/// The ops whose result is a tensor of the file up to steps that can be taken back, or has nothing to do with its values.
const FOLLOWED: [&str; 10] = [
    "Cast",
    "Flatten",
    "Identity",
    "Reshape",
    "Shape",
    "Size",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
    "Dropout",
];

/// What computes `op`, if anything does.
pub(crate) fn folder(op: &str) -> Option<Fold> {
    FOLDED.iter().find(|(known, _)| *known == op).map(|(_, fold)| *fold)
}

/// Whether what `op` makes of a tensor can be led back to it.
pub(crate) fn is_followed(op: &str) -> bool {
    FOLLOWED.contains(&op)
}

/// A result without a tensor behind it.
fn made(call: &Call<'_, '_>, data: Data) -> Outcome {
    Ok(vec![Value::Known(Known::new(call.output(), data))])
}
