//! Softmax and its logarithm.

use cp_net::{LogSoftmax, Op, Reshape, Softmax};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::value::{Value, position};

/// Along an axis (the last one by default) from opset 13 on; before, over all axes from one on (the second by default) together.
pub(super) fn softmax(call: &mut Call<'_, '_>) -> Outcome {
    let logarithm = call.op == "LogSoftmax";
    let op = |axis: usize| -> Op {
        if logarithm { LogSoftmax { axis }.into() } else { Softmax { axis }.into() }
    };
    let joint = call.opset < 13;
    let axis = call.attributes.int("axis", if joint { 1 } else { -1 });
    let x = call.float_map(0)?;
    if !joint {
        let axis = x.inner(axis, "it normalizes over")?;
        return Ok(vec![Value::Map(call.last(op(axis), &[&x], Vec::new(), x.batch)?)]);
    }
    let first = position(axis, x.rank())?;
    if first <= x.batch {
        return Refusal::batch("it normalizes over");
    }
    let (front, joined) = x.shape.split_at(first - 1);
    let long: Vec<usize> = (0..joined.len()).filter(|&axis| joined[axis] != 1).collect();
    if let [] | [_] = long[..] {
        let axis = front.len() + long.first().copied().unwrap_or(0);
        return Ok(vec![Value::Map(call.last(op(axis), &[&x], Vec::new(), x.batch)?)]);
    }
    let sizes = |sizes: &[usize]| Reshape {
        shape: sizes.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect(),
    };
    let flat = sizes(&[front, &[joined.iter().product()]].concat());
    let flat = call.part("flat", flat, &[&x], Vec::new(), x.batch)?;
    let soft = call.part("soft", op(front.len()), &[&flat], Vec::new(), x.batch)?;
    Ok(vec![Value::Map(call.last(sizes(&x.shape), &[&soft], Vec::new(), x.batch)?)])
}
