//! Arithmetic of constants.

use ndarray::{ArrayD, IxDyn};

use crate::Float;
use crate::import::call::{Call, Outcome};
use crate::import::data::BOOL;
use crate::import::error::Refusal;
use crate::import::fold::made;
use crate::import::value::{Data, Known, Num, Value};

/// The shape that both are repeated to.
fn common(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let axes = a.len().max(b.len());
    let size = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(axes).map_or(1, |axis| shape[axis])
    };
    (0..axes)
        .map(|axis| match (size(a, axis), size(b, axis)) {
            (a, b) if a == b || b == 1 => Some(a),
            (1, b) => Some(b),
            _ => None,
        })
        .collect()
}

/// `f` of two arrays, broadcast against each other.
pub(super) fn zip<T: Clone, U: Clone, V>(
    call: &mut Call<'_, '_>,
    a: &ArrayD<T>,
    b: &ArrayD<U>,
    f: impl Fn(&T, &U) -> Option<V>,
) -> Result<ArrayD<V>, Refusal> {
    let unfit = || Refusal::setting("inputs", (a.shape(), b.shape()), "shapes that go together");
    let Some(shape) = common(a.shape(), b.shape()) else { return unfit() };
    call.allow(&shape)?;
    let (Some(a), Some(b)) = (a.broadcast(IxDyn(&shape)), b.broadcast(IxDyn(&shape))) else {
        return unfit();
    };
    let values: Option<Vec<V>> = a.iter().zip(b.iter()).map(|(a, b)| f(a, b)).collect();
    match values.and_then(|values| ArrayD::from_shape_vec(IxDyn(&shape), values).ok()) {
        Some(array) => Ok(array),
        None => Refusal::form(
            "a number that hangs on the size of the batch in another way than as a multiple, or is too large",
        ),
    }
}

pub(super) fn known<'c>(call: &'c Call<'_, '_>, slot: usize) -> Result<&'c Known, Refusal> {
    match call.input(slot) {
        Some(Value::Known(known)) => Ok(known),
        _ => Refusal::setting("inputs", call.inputs.len(), format!("at least {}", slot + 1)),
    }
}

/// A function of each value.
pub(super) fn unary(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("consumed_inputs");
    let x = known(call, 0)?.data.clone();
    call.allow(x.shape())?;
    let data = match x {
        Data::Floats(x) => {
            let f: fn(f64) -> f64 = match call.op.as_str() {
                "Abs" => f64::abs,
                "Ceil" => f64::ceil,
                "Erf" => |_| f64::NAN,
                "Exp" => f64::exp,
                "Floor" => f64::floor,
                "Log" => f64::ln,
                "Neg" => |x| -x,
                "Reciprocal" => f64::recip,
                "Relu" => |x| x.max(0.0),
                "Sigmoid" => |x| 1.0 / (1.0 + (-x).exp()),
                "Sqrt" => f64::sqrt,
                _ => f64::tanh,
            };
            if call.op == "Erf" {
                return Refusal::form("the error function of constants");
            }
            Data::Floats(x.mapv(|x| f(f64::from(x)) as f32).into_shared())
        }
        Data::Ints(x) => {
            let f: fn(Num) -> Option<Num> = match call.op.as_str() {
                "Neg" => |x| match x {
                    Num::Is(x) => x.checked_neg().map(Num::Is),
                    Num::Batch(x) => x.checked_neg().map(Num::Batch),
                },
                "Abs" => |x| x.known().and_then(i64::checked_abs).map(Num::Is),
                "Ceil" | "Floor" => Some,
                _ => return Refusal::form("this op on whole numbers"),
            };
            let values: Option<Vec<Num>> = x.iter().map(|&x| f(x)).collect();
            match values.and_then(|values| ArrayD::from_shape_vec(x.raw_dim(), values).ok()) {
                Some(array) => Data::Ints(array),
                None => return Refusal::form("a number that hangs on the size of the batch"),
            }
        }
        Data::Bools(_) => return Refusal::form("arithmetic of truth values"),
    };
    made(call, data)
}

/// Of whole numbers, of which some are multiples of the batch's size.
fn whole(op: &str, a: Num, b: Num) -> Option<Num> {
    use Num::{Batch, Is};
    match (op, a, b) {
        ("Add", Is(a), Is(b)) => a.checked_add(b).map(Is),
        ("Add", Batch(a), Batch(b)) => a.checked_add(b).map(Batch),
        ("Add", Batch(a), Is(0)) | ("Add", Is(0), Batch(a)) | ("Sub", Batch(a), Is(0)) => {
            Some(Batch(a))
        }
        ("Sub", Is(a), Is(b)) => a.checked_sub(b).map(Is),
        ("Sub", Batch(a), Batch(b)) if a == b => Some(Is(0)),
        ("Sub", Batch(a), Batch(b)) => a.checked_sub(b).map(Batch),
        ("Mul", Is(a), Is(b)) => a.checked_mul(b).map(Is),
        ("Mul", Batch(_), Is(0)) | ("Mul", Is(0), Batch(_)) => Some(Is(0)),
        ("Mul", Batch(a), Is(b)) | ("Mul", Is(a), Batch(b)) => a.checked_mul(b).map(Batch),
        // Whole numbers are divided towards zero.
        ("Div", Is(a), Is(b)) => a.checked_div(b).map(Is),
        ("Div", Batch(a), Is(b)) if b != 0 && a % b == 0 => Some(Batch(a / b)),
        ("Div", Batch(a), Batch(b)) if b != 0 && a % b == 0 => Some(Is(a / b)),
        ("Mod", Is(a), Is(b)) if b != 0 => a.checked_rem(b).map(|rest| {
            // The sign is the divisor's.
            Is(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest })
        }),
        ("Pow", Is(a), Is(b)) => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)).map(Is),
        ("Max", Is(a), Is(b)) => Some(Is(a.max(b))),
        ("Min", Is(a), Is(b)) => Some(Is(a.min(b))),
        ("Max" | "Min", Batch(a), Batch(b)) if a == b => Some(Batch(a)),
        _ => None,
    }
}

fn real(op: &str, a: f64, b: f64) -> f64 {
    match op {
        "Add" => a + b,
        "Sub" => a - b,
        "Mul" => a * b,
        "Div" => a / b,
        "Mod" => a % b,
        "Pow" => a.powf(b),
        "Max" => a.max(b),
        _ => a.min(b),
    }
}

fn two(call: &mut Call<'_, '_>, op: &str, a: &Data, b: &Data) -> Result<Data, Refusal> {
    Ok(match (a, b) {
        (Data::Ints(a), Data::Ints(b)) => Data::Ints(zip(call, a, b, |&a, &b| whole(op, a, b))?),
        (Data::Floats(a), Data::Floats(b)) => {
            let (a, b) = (a.to_owned().into_owned(), b.to_owned().into_owned());
            let f = |a: &f32, b: &f32| Some(real(op, f64::from(*a), f64::from(*b)) as f32);
            Data::Floats(zip(call, &a, &b, f)?.into_shared())
        }
        // A power may have an exponent of another type.
        (Data::Floats(a), Data::Ints(b)) if op == "Pow" => {
            let a = a.to_owned().into_owned();
            let f = |a: &f32, b: &Num| Some(f64::from(*a).powf(b.known()? as f64) as f32);
            Data::Floats(zip(call, &a, b, f)?.into_shared())
        }
        _ => return Refusal::form("arithmetic of values of different types"),
    })
}

pub(super) fn binary(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("consumed_inputs");
    call.attributes.take("fmod");
    if call.opset < 7 && call.attributes.take("axis").is_some() {
        return Refusal::form("broadcasting of constants along an axis before opset 7");
    }
    call.attributes.take("broadcast");
    let (a, b) = (known(call, 0)?.data.clone(), known(call, 1)?.data.clone());
    let op = call.op.clone();
    let data = two(call, &op, &a, &b)?;
    made(call, data)
}

/// Of any number of constants.
pub(super) fn several(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("consumed_inputs");
    let op = match call.op.as_str() {
        "Sum" | "Mean" => "Add",
        "Max" => "Max",
        _ => "Min",
    };
    let mut all = known(call, 0)?.data.clone();
    let count = call.inputs.len();
    for slot in 1..count {
        let next = known(call, slot)?.data.clone();
        all = two(call, op, &all, &next)?;
    }
    if call.op == "Mean" {
        let by = Data::Floats(ArrayD::from_elem(IxDyn(&[]), count as f32).into_shared());
        all = two(call, "Div", &all, &by)?;
    }
    made(call, all)
}

pub(super) fn clip(call: &mut Call<'_, '_>) -> Outcome {
    let mut data = known(call, 0)?.data.clone();
    for (slot, name, op) in [(1, "min", "Max"), (2, "max", "Min")] {
        let attribute = call.attributes.float(name, f64::NAN);
        let bound = match call.known(slot, name)? {
            Some(bound) => bound.data,
            None if attribute.is_nan() => continue,
            None => Data::Floats(ArrayD::from_elem(IxDyn(&[]), attribute as f32).into_shared()),
        };
        data = two(call, op, &data, &bound)?;
    }
    made(call, data)
}

fn converted(call: &mut Call<'_, '_>, known: &Known, to: i64) -> Outcome {
    call.allow(known.data.shape())?;
    let float = Float::by_number(to);
    let data = match (&known.data, float, to) {
        (Data::Floats(x), Some(float), _) => {
            let data = Data::Floats(x.mapv(|value| float.round(value)).into_shared());
            let known = Known { name: call.output().into(), data, source: known.source.clone() };
            return Ok(vec![Value::Known(known)]);
        }
        (Data::Ints(x), Some(float), _) => {
            let values: Option<Vec<f32>> = x
                .iter()
                .map(|number| number.known().map(|number| float.round(number as f32)))
                .collect();
            match values.and_then(|values| ArrayD::from_shape_vec(x.raw_dim(), values).ok()) {
                Some(array) => Data::Floats(array.into_shared()),
                None => {
                    return Refusal::form(
                        "a number that hangs on the size of the batch, as a floating-point number",
                    );
                }
            }
        }
        (Data::Bools(x), Some(_), _) => {
            Data::Floats(x.mapv(|flag| f32::from(u8::from(flag))).into_shared())
        }
        (Data::Floats(x), None, BOOL) => Data::Bools(x.mapv(|value| value != 0.0).into_owned()),
        (Data::Ints(x), None, BOOL) => Data::Bools(x.mapv(|number| number != Num::Is(0))),
        (Data::Bools(_), None, BOOL) | (Data::Ints(_), None, 2..=7 | 12 | 13) => known.data.clone(),
        // Towards zero.
        (Data::Floats(x), None, 2..=7 | 12 | 13) => {
            Data::Ints(x.mapv(|value| Num::Is(value.trunc() as i64)).into_owned())
        }
        (Data::Bools(x), None, 2..=7 | 12 | 13) => {
            Data::Ints(x.mapv(|flag| Num::Is(i64::from(flag))))
        }
        _ => return Refusal::setting("to", to, "a type of numbers"),
    };
    made(call, data)
}

pub(super) fn cast(call: &mut Call<'_, '_>) -> Outcome {
    let to = call.attributes.int("to", 0);
    call.attributes.take("saturate");
    call.attributes.take("round_mode");
    let known = known(call, 0)?.clone();
    converted(call, &known, to)
}

pub(super) fn cast_like(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("saturate");
    call.attributes.take("round_mode");
    let to = match known(call, 1)?.data {
        Data::Floats(_) => Float::F32.number(),
        Data::Ints(_) => 7,
        Data::Bools(_) => BOOL,
    };
    let known = known(call, 0)?.clone();
    converted(call, &known, to)
}
