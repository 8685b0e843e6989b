//! Arithmetic of two values, of a value and a weight, or of a value and a number.

use cp_net::{Add, Div, Max, Min, Mul, Op, Pow, Sub};
use ndarray::Axis;

use crate::program::call::{Call, Fail, Operand, Tensor, Weight, because};

/// `add(self, other, alpha)`, `sub`, `rsub` (the other way round), `mul`, `div`, `pow(self, exponent)`, `maximum`, `minimum`.
pub(super) fn binary(call: &mut Call<'_, '_>, name: &str, overload: &str) -> Result<(), Fail> {
    let op: Op = match name {
        "add" => Add {}.into(),
        "sub" | "rsub" => Sub {}.into(),
        "mul" => Mul {}.into(),
        "div" if overload.ends_with("_mode") => return because("it rounds its quotient"),
        "div" => Div {}.into(),
        "pow" => Pow {}.into(),
        "maximum" => Max {}.into(),
        _ => Min {}.into(),
    };
    let second = if name == "pow" { "exponent" } else { "other" };
    let (Some(a), Some(b)) = (call.operand("self")?, call.operand(second)?) else {
        return because("it has not two arguments");
    };
    let b = match (call.float("alpha")?.unwrap_or(1.0), b) {
        (1.0, b) => b,
        (alpha, Operand::Number(number)) => Operand::Number(alpha * number),
        (alpha, _) => return because(format!("its 'alpha' is {alpha}: multiply before it")),
    };
    let (a, b) = if name == "rsub" { (b, a) } else { (a, b) };
    let Some(axes) = [&a, &b].into_iter().filter_map(axes).max() else {
        return because("it works on weights alone: do that before the export");
    };
    let a = value(call, a, axes)?;
    let b = value(call, b, axes)?;
    call.emit(op, vec![a, b])
}

/// Axes of a value that depends on the input.
fn axes(operand: &Operand) -> Option<usize> {
    match operand {
        Operand::Tensor(Tensor { shape, .. }) => Some(shape.len()),
        _ => None,
    }
}

/// The operand as a value that goes together with one of `axes` axes.
fn value(call: &mut Call<'_, '_>, operand: Operand, axes: usize) -> Result<String, Fail> {
    match operand {
        Operand::Tensor(Tensor { value, shape }) if shape.len() == axes => Ok(value),
        Operand::Tensor(_) => because("its arguments have different numbers of axes"),
        Operand::Weight(Weight { array, .. }) if array.ndim() == axes => {
            if array.len_of(Axis(0)) != 1 {
                return because("a weight has an axis where the batch is");
            }
            // Without its first axis it is no longer as it was in PyTorch.
            let array = array.index_axis_move(Axis(0), 0);
            Ok(call.constant(Operand::Weight(Weight { name: None, array })))
        }
        Operand::Weight(Weight { array, .. }) if array.ndim() > axes => {
            because("a weight has more axes than the value")
        }
        other => Ok(call.constant(other)),
    }
}
