//! Ops of several values that are broadcast against each other.
//!
//! The file aligns shapes at their last axis, batch axis and all; the network does so behind the batch axis. Both are the same where
//! the batch axes of all values are equally far from the end, and where a constant has size 1 there.

use cp_net::{Add, Div, Max, Min, Mul, Op, Pow, Sub};
use ndarray::IxDyn;

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::value::{Data, Floats, Kind, Known, Map, Num, Value};

/// A constant's `shape` without the batch axis of `map`, which it is broadcast against.
pub(super) fn behind_batch(shape: &[usize], map: &Map) -> Result<Vec<usize>, Refusal> {
    let from_end = map.rank() - map.batch;
    let mut inner = shape.to_vec();
    if let Some(axis) = shape.len().checked_sub(from_end) {
        if inner.remove(axis) != 1 {
            return Refusal::batch("a constant holds a value for each example along");
        }
        // Axes of size 1 in front say nothing, but for how many axes the result has.
        while inner.len() > map.shape.len() && inner.first() == Some(&1) {
            inner.remove(0);
        }
    }
    Ok(inner)
}

/// All inputs as values of the network, and where the result has the batch axis.
pub(super) fn aligned(
    call: &mut Call<'_, '_>,
    values: &[Value],
) -> Result<(Vec<Map>, usize), Refusal> {
    let maps = || {
        values.iter().filter_map(|value| if let Value::Map(map) = value { Some(map) } else { None })
    };
    let Some(first) = maps().max_by_key(|map| map.rank()).cloned() else {
        return Refusal::form("this op on constants, which is not computed beforehand");
    };
    let from_end = first.rank() - first.batch;
    if maps().any(|map| map.rank() - map.batch != from_end) {
        return Refusal::batch("its inputs have different axes in the place of");
    }
    if maps().any(|map| map.kind != Kind::Float) {
        return Refusal::form("arithmetic of whole numbers or truth values");
    }
    let mut found = Vec::with_capacity(values.len());
    let mut rank = first.rank();
    for value in values {
        match value {
            Value::Map(map) => found.push(map.clone()),
            Value::Known(known) => {
                rank = rank.max(known.data.shape().len());
                let mut inner = behind_batch(known.data.shape(), &first)?;
                // A constant with more axes than any other gives them to the result.
                while inner.len() + 1 < known.data.shape().len()
                    && known.data.shape().len() > first.rank()
                {
                    inner.insert(0, 1);
                }
                let known = call.reshaped(known, &inner)?;
                found.push(call.net.constant(&known, 0)?);
            }
            Value::Nothing | Value::Unknown => return Refusal::form("an input that is left out"),
        }
    }
    Ok((found, rank - from_end))
}

/// Before opset 7 the second input was repeated only where an attribute said so, and from the axis that another one said.
fn legacy(call: &mut Call<'_, '_>) -> Result<(), Refusal> {
    call.attributes.take("consumed_inputs");
    if call.opset >= 7 {
        return Ok(());
    }
    let broadcast = call.attributes.flag("broadcast");
    let axis = call.attributes.take("axis").map(|_| call.attributes.int("axis", 0));
    let (Some(axis), true) = (axis, broadcast) else { return Ok(()) };
    let rank = match call.input(0) {
        Some(Value::Map(map)) => map.rank(),
        Some(Value::Known(known)) => known.data.shape().len(),
        _ => return Ok(()),
    };
    let Some(Value::Known(known)) = call.input(1).cloned() else {
        return Refusal::form("broadcasting of computed values before opset 7");
    };
    let axis = crate::import::value::position(axis, rank)?;
    let shape = known.data.shape();
    let Some(behind) = (rank - axis).checked_sub(shape.len()) else {
        return Refusal::setting("axis", axis, "one that leaves room for the second input");
    };
    let shape = [shape, &vec![1; behind][..]].concat();
    call.inputs[1] = Value::Known(call.reshaped(&known, &shape)?);
    Ok(())
}

/// Sum, difference, product, quotient, power of two values.
pub(super) fn binary(call: &mut Call<'_, '_>) -> Outcome {
    legacy(call)?;
    let op: Op = match call.op.as_str() {
        "Add" => Add {}.into(),
        "Sub" => Sub {}.into(),
        "Mul" => Mul {}.into(),
        "Div" => Div {}.into(),
        _ => Pow {}.into(),
    };
    let values = call.inputs.clone();
    if values.len() != 2 {
        return Refusal::setting("inputs", values.len(), "2");
    }
    let (maps, batch) = aligned(call, &values)?;
    Ok(vec![Value::Map(call.last(op, &[&maps[0], &maps[1]], Vec::new(), batch)?)])
}

/// Sum, mean, largest, smallest of any number of values.
pub(super) fn several(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("consumed_inputs");
    let op: Op = match call.op.as_str() {
        "Max" => Max {}.into(),
        "Min" => Min {}.into(),
        _ => Add {}.into(),
    };
    let values = call.inputs.clone();
    let (maps, batch) = aligned(call, &values)?;
    if maps.len() == 1 {
        return Ok(values);
    }
    let all: Vec<&Map> = maps.iter().collect();
    if call.op != "Mean" {
        return Ok(vec![Value::Map(call.last(op, &all, Vec::new(), batch)?)]);
    }
    let sum = call.part("sum", op, &all, Vec::new(), batch)?;
    let by = call.number("share", 1.0 / maps.len() as f64)?;
    Ok(vec![Value::Map(call.last(Mul {}, &[&sum, &by], Vec::new(), batch)?)])
}

/// A product with ones of the shape that is wanted.
pub(super) fn expand(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.float_map(0)?;
    let wanted = call.constant(1, "shape")?.numbers("shape")?;
    let from_end = map.rank() - map.batch;
    let mut ones = Vec::new();
    for (axis, size) in wanted.iter().enumerate() {
        let is_batch = wanted.len() - axis == from_end;
        match size {
            // A size of 1 leaves the batch as it is, and so does the batch's own.
            Num::Batch(1) if is_batch => {}
            Num::Is(size) if is_batch && (*size == 1 || Some(*size) == call.fixed) => {}
            Num::Is(size) if !is_batch => match usize::try_from(*size) {
                Ok(size) if size > 0 => ones.push(size),
                _ => return Refusal::setting("shape", size, "sizes of at least 1"),
            },
            _ => return Refusal::batch("it repeats"),
        }
    }
    call.allow(&ones)?;
    let rank = map.rank().max(wanted.len());
    let known = Known::new(
        &format!("{}.ones", call.label),
        Data::Floats(Floats::from_elem(IxDyn(&ones), 1.0)),
    );
    let ones = call.net.constant(&known, 0)?;
    let expanded = call.last(Mul {}, &[&map, &ones], Vec::new(), rank - from_end)?;
    Ok(vec![Value::Map(expanded)])
}
