//! Comparisons, and choices by them.

use ndarray::ArrayD;

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::fold::elementwise::{known, zip};
use crate::import::fold::made;
use crate::import::value::{Data, Num};

fn holds<T: PartialOrd>(op: &str, a: T, b: T) -> bool {
    match op {
        "Equal" => a == b,
        "Greater" => a > b,
        "GreaterOrEqual" => a >= b,
        "Less" => a < b,
        _ => a <= b,
    }
}

/// Numbers that hang on the batch's size are compared where the file fixes it.
pub(super) fn compare(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("axis");
    call.attributes.take("broadcast");
    let (a, b) = (known(call, 0)?.data.clone(), known(call, 1)?.data.clone());
    let op = call.op.clone();
    let fixed = call.fixed;
    let number = |number: Num| match number {
        Num::Is(number) => Some(number),
        Num::Batch(times) => fixed.and_then(|size| size.checked_mul(times)),
    };
    let array = match (a, b) {
        (Data::Ints(a), Data::Ints(b)) => {
            // The same multiple is the same number, and none is negative, or 0.
            zip(call, &a, &b, |&a, &b| match (a, b) {
                (Num::Batch(a), Num::Batch(b)) if a == b => Some(holds(&op, a, b)),
                (Num::Batch(1..), Num::Is(least @ ..=0)) => Some(holds(&op, 1, least)),
                (Num::Is(least @ ..=0), Num::Batch(1..)) => Some(holds(&op, least, 1)),
                (a, b) => Some(holds(&op, number(a)?, number(b)?)),
            })?
        }
        (Data::Floats(a), Data::Floats(b)) => {
            zip(call, &a.into_owned(), &b.into_owned(), |a, b| Some(holds(&op, *a, *b)))?
        }
        (Data::Bools(a), Data::Bools(b)) => zip(call, &a, &b, |a, b| Some(holds(&op, *a, *b)))?,
        _ => return Refusal::form("a comparison of values of different types"),
    };
    made(call, Data::Bools(array))
}

fn flags(data: &Data) -> Result<&ArrayD<bool>, Refusal> {
    match data {
        Data::Bools(flags) => Ok(flags),
        _ => Refusal::setting("input", "numbers", "truth values"),
    }
}

pub(super) fn not(call: &mut Call<'_, '_>) -> Outcome {
    let array = flags(&known(call, 0)?.data)?.mapv(|flag| !flag);
    made(call, Data::Bools(array))
}

/// Of two truth values.
pub(super) fn both(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("axis");
    call.attributes.take("broadcast");
    let (a, b) = (known(call, 0)?.data.clone(), known(call, 1)?.data.clone());
    let f: fn(bool, bool) -> bool = match call.op.as_str() {
        "And" => |a, b| a && b,
        "Or" => |a, b| a || b,
        _ => |a, b| a != b,
    };
    let array = zip(call, flags(&a)?, flags(&b)?, |a, b| Some(f(*a, *b)))?;
    made(call, Data::Bools(array))
}

/// The first where the condition holds, else the second.
pub(super) fn choose(call: &mut Call<'_, '_>) -> Outcome {
    let [condition, a, b] =
        [known(call, 0)?.data.clone(), known(call, 1)?.data.clone(), known(call, 2)?.data.clone()];
    let condition = flags(&condition)?;
    fn pick<T: Clone>(
        call: &mut Call<'_, '_>,
        condition: &ArrayD<bool>,
        a: &ArrayD<T>,
        b: &ArrayD<T>,
    ) -> Result<ArrayD<T>, Refusal> {
        let pairs = zip(call, a, b, |a, b| Some((a.clone(), b.clone())))?;
        zip(call, condition, &pairs, |flag, (a, b)| Some(if *flag { a } else { b }.clone()))
    }
    let data = match (a, b) {
        (Data::Ints(a), Data::Ints(b)) => Data::Ints(pick(call, condition, &a, &b)?),
        (Data::Bools(a), Data::Bools(b)) => Data::Bools(pick(call, condition, &a, &b)?),
        (Data::Floats(a), Data::Floats(b)) => {
            Data::Floats(pick(call, condition, &a.into_owned(), &b.into_owned())?.into_shared())
        }
        _ => return Refusal::form("a choice between values of different types"),
    };
    made(call, data)
}
