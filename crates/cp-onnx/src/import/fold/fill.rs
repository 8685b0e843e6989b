//! Constants out of nothing, or of a shape.

use cp_net::Constant;
use ndarray::{Array1, ArrayD, IxDyn};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::fold::elementwise::known;
use crate::import::fold::made;
use crate::import::value::{Data, Floats, Known, Map, Num, Value};
use crate::proto::{attribute, tensor};

/// Values that stand in the node itself. Tensors come with a source, which the walk adds; other kinds have none.
pub(super) fn constant(call: &mut Call<'_, '_>) -> Outcome {
    let array = |values: Vec<f64>| Array1::from(values).mapv(|value| value as f32).into_dyn();
    let data = if call.attributes.take("value_float").is_some() {
        let value = call.attributes.float("value_float", 0.0) as f32;
        Data::Floats(Floats::from_elem(IxDyn(&[]), value))
    } else if let Some(values) = call.attributes.floats("value_floats") {
        Data::Floats(array(values).into_shared())
    } else if call.attributes.take("value_int").is_some() {
        Data::Ints(ArrayD::from_elem(IxDyn(&[]), Num::Is(call.attributes.int("value_int", 0))))
    } else if let Some(values) = call.attributes.ints("value_ints") {
        Data::Ints(Array1::from(values).mapv(Num::Is).into_dyn())
    } else {
        return Refusal::form("a constant of texts, or a sparse one");
    };
    made(call, data)
}

/// One value everywhere; a value of the network where one of the sizes is that of the batch.
pub(super) fn constant_of_shape(call: &mut Call<'_, '_>) -> Outcome {
    let numbers = known(call, 0)?.numbers("shape")?;
    let value = match call.attributes.take("value") {
        None => Data::Floats(Floats::from_elem(IxDyn(&[]), 0.0)),
        Some(message) => {
            let held = message.children(attribute::TENSOR).last().map(|(_, tensor)| tensor);
            match held.map(|tensor| (tensor, crate::import::data::read(tensor, None))) {
                Some((_, Ok(data))) => data,
                Some((held, Err(source))) => {
                    return Err(Refusal::tensor(&held.string(tensor::NAME), &source));
                }
                None => return Refusal::form("a value that is no tensor"),
            }
        }
    };
    let batches: Vec<usize> =
        (0..numbers.len()).filter(|&axis| numbers[axis] == Num::Batch(1)).collect();
    let sizes: Option<Vec<usize>> = numbers
        .iter()
        .filter(|size| **size != Num::Batch(1))
        .map(|size| size.known().and_then(|size| usize::try_from(size).ok()))
        .collect();
    let Some(sizes) = sizes.filter(|_| batches.len() <= 1) else {
        return Refusal::setting("shape", numbers, "sizes, and the batch's at most once");
    };
    call.allow(&sizes)?;
    let filled = match &value {
        Data::Floats(value) if value.len() == 1 => {
            Data::Floats(Floats::from_elem(IxDyn(&sizes), value.iter().copied().sum()))
        }
        Data::Ints(value) if value.len() == 1 => {
            let number = value.first().copied().unwrap_or(Num::Is(0));
            Data::Ints(ArrayD::from_elem(IxDyn(&sizes), number))
        }
        Data::Bools(value) if value.len() == 1 => {
            Data::Bools(ArrayD::from_elem(IxDyn(&sizes), value.iter().any(|&flag| flag)))
        }
        other => return Refusal::setting("value", other.shape(), "a single value"),
    };
    match batches[..] {
        [axis] => for_each_example(call, filled, axis),
        _ => made(call, filled),
    }
}

/// A constant that has an axis of the batch: the same for all examples.
pub(super) fn for_each_example(call: &mut Call<'_, '_>, data: Data, axis: usize) -> Outcome {
    let known = Known::new(call.output(), data);
    let mut shape = known.floats("value")?.shape().to_vec();
    if shape.contains(&0) {
        // A network has no value without values; put side by side with others, it is left out.
        shape.insert(axis.min(shape.len()), 1);
        return Ok(vec![Value::Known(call.reshaped(&known, &shape)?)]);
    }
    let op = Constant { shape, trained: false };
    let map = call.last(op, &[], vec![("value", known)], axis)?;
    Ok(vec![Value::Map(Map { batch: axis, ..map })])
}

/// From start to before limit.
pub(super) fn range(call: &mut Call<'_, '_>) -> Outcome {
    let [start, limit, step] =
        [known(call, 0)?.clone(), known(call, 1)?.clone(), known(call, 2)?.clone()];
    let is_whole = matches!(start.data, Data::Ints(_));
    let [start, limit, step] =
        [start.scalar("start")?, limit.scalar("limit")?, step.scalar("delta")?];
    let count = ((limit - start) / step).ceil().max(0.0);
    if !count.is_finite() {
        return Refusal::setting("delta", step, "a number other than 0");
    }
    let count = count.min(1e18) as usize;
    call.allow(&[count])?;
    let value = |at: usize| start + at as f64 * step;
    let data = match is_whole {
        true => Data::Ints(Array1::from_shape_fn(count, |at| Num::Is(value(at) as i64)).into_dyn()),
        false => Data::Floats(
            Array1::from_shape_fn(count, |at| value(at) as f32).into_dyn().into_shared(),
        ),
    };
    made(call, data)
}
