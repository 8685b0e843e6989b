//! Constants in another shape or order, and parts of them.

use ndarray::{ArrayD, ArrayView, Axis, IxDyn, concatenate};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::fold::elementwise::known;
use crate::import::fold::fill::for_each_example;
use crate::import::fold::made;
use crate::import::op::positions;
use crate::import::source::Step;
use crate::import::value::{Data, Known, Num, Value, position};

pub(super) fn identity(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("ratio");
    call.attributes.take("seed");
    call.attributes.take("is_test");
    call.attributes.take("consumed_inputs");
    Ok(vec![Value::Known(known(call, 0)?.clone()), Value::Unknown])
}

/// In another shape; what that is of is kept in mind.
fn shaped(call: &Call<'_, '_>, known: &Known, shape: &[usize]) -> Outcome {
    let before = known.data.shape().to_vec();
    fn to<T: Clone>(array: &ArrayD<T>, shape: &[usize]) -> Option<ArrayD<T>> {
        array.as_standard_layout().into_owned().into_shape_with_order(IxDyn(shape)).ok()
    }
    let data = match &known.data {
        Data::Floats(_) => {
            let mut known = call.reshaped(known, shape)?;
            known.name = call.output().into();
            return Ok(vec![Value::Known(known)]);
        }
        Data::Ints(array) => to(array, shape).map(Data::Ints),
        Data::Bools(array) => to(array, shape).map(Data::Bools),
    };
    match data {
        Some(data) => made(call, data),
        None => Refusal::setting("shape", before, format!("as many values as {shape:?}")),
    }
}

pub(super) fn reshape(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("consumed_inputs");
    let allow_zero = call.attributes.flag("allowzero");
    let wanted = call.nums(1, "shape")?.unwrap_or_default();
    let known = known(call, 0)?.clone();
    let before = known.data.shape().to_vec();
    let total: usize = before.iter().product();
    // A constant that is not one for each example: where the file says the batch, its size is 1.
    let mut shape = Vec::with_capacity(wanted.len());
    let mut free = None;
    for (axis, size) in wanted.iter().enumerate() {
        shape.push(match *size {
            Num::Is(-1) if free.is_none() => {
                free = Some(axis);
                1
            }
            Num::Is(0) if !allow_zero && axis < before.len() => before[axis],
            Num::Is(size) if size > 0 || size == 0 && allow_zero => {
                usize::try_from(size).unwrap_or(usize::MAX)
            }
            _ => return Refusal::setting("shape", wanted, "sizes of at least 1, -1 at most once"),
        });
    }
    if let Some(axis) = free {
        let known = shape.iter().try_fold(1_usize, |all, &size| all.checked_mul(size));
        shape[axis] = known.and_then(|known| total.checked_div(known)).unwrap_or(0);
    }
    shaped(call, &known, &shape)
}

pub(super) fn flatten(call: &mut Call<'_, '_>) -> Outcome {
    let axis = call.attributes.int("axis", 1);
    let known = known(call, 0)?.clone();
    let shape = known.data.shape().to_vec();
    let rank = shape.len();
    let axis = if axis == rank as i64 { rank } else { position(axis, rank)? };
    let parts = [shape[..axis].iter().product(), shape[axis..].iter().product()];
    shaped(call, &known, &parts)
}

pub(super) fn squeeze(call: &mut Call<'_, '_>) -> Outcome {
    let axes = call.ints(1, "axes")?;
    let known = known(call, 0)?.clone();
    let shape = known.data.shape().to_vec();
    let axes: Vec<usize> = match axes {
        Some(axes) => {
            axes.into_iter().map(|axis| position(axis, shape.len())).collect::<Result<_, _>>()?
        }
        None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
    };
    let left: Vec<usize> =
        (0..shape.len()).filter(|axis| !axes.contains(axis)).map(|axis| shape[axis]).collect();
    shaped(call, &known, &left)
}

pub(super) fn unsqueeze(call: &mut Call<'_, '_>) -> Outcome {
    let axes = call.ints(1, "axes")?.unwrap_or_default();
    let known = known(call, 0)?.clone();
    let rank = known.data.shape().len() + axes.len();
    let axes: Vec<usize> =
        axes.into_iter().map(|axis| position(axis, rank)).collect::<Result<_, _>>()?;
    let mut old = known.data.shape().iter().copied();
    let shape: Vec<usize> = (0..rank)
        .map(|axis| if axes.contains(&axis) { 1 } else { old.next().unwrap_or(1) })
        .collect();
    shaped(call, &known, &shape)
}

pub(super) fn transpose(call: &mut Call<'_, '_>) -> Outcome {
    let perm = call.attributes.ints("perm");
    let known = known(call, 0)?.clone();
    let rank = known.data.shape().len();
    let axes: Vec<usize> = match &perm {
        None => (0..rank).rev().collect(),
        Some(perm) => {
            perm.iter().map(|&axis| usize::try_from(axis).unwrap_or(usize::MAX)).collect()
        }
    };
    if axes.len() != rank || !(0..rank).all(|axis| axes.contains(&axis)) {
        return Refusal::setting("perm", perm, format!("every axis of {rank} once"));
    }
    call.allow(known.data.shape())?;
    fn turned<T: Clone>(array: ArrayView<'_, T, IxDyn>, axes: &[usize]) -> ArrayD<T> {
        array.permuted_axes(IxDyn(axes)).as_standard_layout().into_owned()
    }
    let data = match &known.data {
        Data::Floats(array) => Data::Floats(turned(array.view(), &axes).into_shared()),
        Data::Ints(array) => Data::Ints(turned(array.view(), &axes)),
        Data::Bools(array) => Data::Bools(turned(array.view(), &axes)),
    };
    let source = known.source.as_ref().map(|source| source.then(Step::Transpose(axes)));
    Ok(vec![Value::Known(Known { name: call.output().into(), data, source })])
}

pub(super) fn shape(call: &mut Call<'_, '_>) -> Outcome {
    let known = known(call, 0)?;
    let rank = known.data.shape().len() as i64;
    let bound = |at: i64| {
        let at = if at < 0 { at.saturating_add(rank) } else { at };
        at.clamp(0, rank) as usize
    };
    let start = bound(call.attributes.int("start", 0));
    let end = bound(call.attributes.int("end", i64::MAX)).max(start);
    let sizes = known.data.shape()[start..end].iter().map(|&size| Num::Is(size as i64));
    Ok(vec![Value::Known(Known::ints(call.output(), sizes))])
}

pub(super) fn size(call: &mut Call<'_, '_>) -> Outcome {
    let count: usize = known(call, 0)?.data.shape().iter().product();
    made(call, Data::Ints(ArrayD::from_elem(IxDyn(&[]), Num::Is(count as i64))))
}

/// The same function of an array of any type.
macro_rules! each {
    ($data:expr, |$array:ident| $f:expr) => {
        match $data {
            Data::Floats($array) => {
                let $array = $array.view();
                let made: Result<_, Refusal> = $f;
                made.map(|array| Data::Floats(array.into_shared()))
            }
            Data::Ints($array) => {
                let $array = $array.view();
                let made: Result<_, Refusal> = $f;
                made.map(Data::Ints)
            }
            Data::Bools($array) => {
                let $array = $array.view();
                let made: Result<_, Refusal> = $f;
                made.map(Data::Bools)
            }
        }
    };
}

fn selected(data: &Data, axis: usize, positions: &[usize]) -> Result<Data, Refusal> {
    each!(data, |array| Ok(array.select(Axis(axis), positions)))
}

pub(super) fn concat(call: &mut Call<'_, '_>) -> Outcome {
    let axis = call.attributes.int("axis", 1);
    let mut all = Vec::with_capacity(call.inputs.len());
    for slot in 0..call.inputs.len() {
        all.push(known(call, slot)?.data.clone());
    }
    let Some(first) = all.first() else { return Refusal::setting("inputs", 0, "at least 1") };
    let axis = position(axis, first.shape().len())?;
    let mut shape = first.shape().to_vec();
    shape[axis] = all.iter().map(|data| data.shape().get(axis).copied().unwrap_or(0)).sum();
    call.allow(&shape)?;
    macro_rules! joined {
        ($kind:ident) => {{
            let views: Option<Vec<_>> = all
                .iter()
                .map(|data| if let Data::$kind(array) = data { Some(array.view()) } else { None })
                .collect();
            views.and_then(|views| concatenate(Axis(axis), &views).ok())
        }};
    }
    let data = match first {
        Data::Floats(_) => joined!(Floats).map(|array| Data::Floats(array.into_shared())),
        Data::Ints(_) => joined!(Ints).map(Data::Ints),
        Data::Bools(_) => joined!(Bools).map(Data::Bools),
    };
    match data {
        Some(data) => made(call, data),
        None => Refusal::form("pieces of different types or shapes"),
    }
}

pub(super) fn gather(call: &mut Call<'_, '_>) -> Outcome {
    let axis = call.attributes.int("axis", 0);
    let data = known(call, 0)?.data.clone();
    let axis = position(axis, data.shape().len())?;
    let size = data.shape()[axis];
    let wanted = known(call, 1)?.clone();
    let mut indices = Vec::new();
    for number in wanted.numbers("indices")? {
        let place =
            number.known().map(|at| if at < 0 { at.saturating_add(size as i64) } else { at });
        match place.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < size) {
            Some(at) => indices.push(at),
            None => return Refusal::setting("indices", number, format!("positions below {size}")),
        }
    }
    let before = data.shape();
    let shape = [&before[..axis], wanted.data.shape(), &before[axis + 1..]].concat();
    call.allow(&shape)?;
    let picked = selected(&data, axis, &indices)?;
    shaped(call, &Known::new(call.output(), picked), &shape)
}

pub(super) fn slice(call: &mut Call<'_, '_>) -> Outcome {
    let starts = call.ints(1, "starts")?.unwrap_or_default();
    let ends = call.ints(2, "ends")?.unwrap_or_default();
    let axes = match call.ints(3, "axes")? {
        Some(axes) => axes,
        None => (0..starts.len() as i64).collect(),
    };
    let steps = match call.known(4, "steps")? {
        Some(steps) => steps.numbers("steps")?,
        None => vec![Num::Is(1); axes.len()],
    };
    if [starts.len(), ends.len(), steps.len()] != [axes.len(); 3] {
        return Refusal::setting("starts", starts, format!("{} numbers, as axes", axes.len()));
    }
    let mut data = known(call, 0)?.data.clone();
    call.allow(data.shape())?;
    for (index, &axis) in axes.iter().enumerate() {
        let axis = position(axis, data.shape().len())?;
        let step = steps[index].known().filter(|&step| step != 0);
        let Some(step) = step else { return Refusal::setting("steps", &steps, "other than 0") };
        let positions = positions(data.shape()[axis], starts[index], ends[index], step);
        data = selected(&data, axis, &positions)?;
    }
    made(call, data)
}

pub(super) fn split(call: &mut Call<'_, '_>) -> Outcome {
    let axis = call.attributes.int("axis", 0);
    let count = call.attributes.int("num_outputs", call.outputs.len() as i64);
    let data = known(call, 0)?.data.clone();
    let axis = position(axis, data.shape().len())?;
    let size = data.shape()[axis];
    call.allow(data.shape())?;
    let sizes: Vec<usize> = match call.ints(1, "split")? {
        Some(sizes) => {
            sizes.iter().map(|&size| usize::try_from(size).unwrap_or(usize::MAX)).collect()
        }
        None => {
            let count = usize::try_from(count).unwrap_or(0);
            if count == 0 || count > call.outputs.len() {
                return Refusal::setting("num_outputs", count, "as many as the outputs");
            }
            let each = size.div_ceil(count);
            (0..count).map(|part| each.min(size.saturating_sub(part * each))).collect()
        }
    };
    let mut at = 0_usize;
    let mut parts = Vec::new();
    for (index, &part) in sizes.iter().enumerate() {
        let end = at.checked_add(part).filter(|&end| end <= size);
        let Some(end) = end else {
            return Refusal::setting("split", &sizes, format!("sizes that add up to {size}"));
        };
        let name = call.outputs.get(index).map_or("", String::as_str);
        let positions: Vec<usize> = (at..end).collect();
        parts.push(Value::Known(Known::new(name, selected(&data, axis, &positions)?)));
        at = end;
    }
    Ok(parts)
}

/// Repeats a constant to a shape; along the batch, the network does it by itself.
pub(super) fn expand(call: &mut Call<'_, '_>) -> Outcome {
    let data = known(call, 0)?.data.clone();
    let numbers = known(call, 1)?.numbers("shape")?;
    let batches: Vec<usize> =
        (0..numbers.len()).filter(|&axis| matches!(numbers[axis], Num::Batch(_))).collect();
    let sizes: Option<Vec<usize>> = numbers
        .iter()
        .map(|size| match size {
            Num::Batch(1) => Some(1),
            Num::Batch(_) => None,
            Num::Is(size) => usize::try_from(*size).ok(),
        })
        .collect();
    let Some(sizes) = sizes.filter(|_| batches.len() <= 1) else {
        return Refusal::setting("shape", numbers, "sizes, and the batch's at most once");
    };
    let axes = sizes.len().max(data.shape().len());
    let at = |shape: &[usize], axis: usize| {
        (axis + shape.len()).checked_sub(axes).map_or(1, |axis| shape[axis])
    };
    let shape: Vec<usize> = (0..axes)
        .map(|axis| match (at(data.shape(), axis), at(&sizes, axis)) {
            (1, wanted) => wanted,
            (size, _) => size,
        })
        .collect();
    call.allow(&shape)?;
    let spread = each!(&data, |array| match array.broadcast(IxDyn(&shape)) {
        Some(array) => Ok(array.to_owned()),
        None => Refusal::setting("shape", &sizes, "a shape that goes with the input's"),
    })?;
    let [axis] = batches[..] else { return made(call, spread) };
    let axis = axis + axes - sizes.len();
    if shape[axis] != 1 {
        return Refusal::batch("a constant holds a value for each example along");
    }
    let one = selected(&spread, axis, &[0])?;
    let mut inner = shape;
    inner.remove(axis);
    let name = call.output().to_string();
    let flat = shaped(call, &Known::new(&name, one), &inner)?;
    match flat.into_iter().next() {
        Some(Value::Known(known)) => for_each_example(call, known.data, axis),
        _ => Refusal::form("this shape"),
    }
}

pub(super) fn tile(call: &mut Call<'_, '_>) -> Outcome {
    let mut data = known(call, 0)?.data.clone();
    let repeats = known(call, 1)?.numbers("repeats")?;
    let rank = data.shape().len();
    if repeats.len() != rank {
        return Refusal::setting("repeats", repeats, format!("{rank} numbers"));
    }
    for (axis, times) in repeats.into_iter().enumerate() {
        let Some(times) = times.known().and_then(|times| usize::try_from(times).ok()) else {
            return Refusal::batch("it repeats a constant along");
        };
        let mut shape = data.shape().to_vec();
        shape[axis] = shape[axis].saturating_mul(times);
        call.allow(&shape)?;
        let size = data.shape()[axis];
        let positions: Vec<usize> = (0..shape[axis]).map(|at| at % size.max(1)).collect();
        data = selected(&data, axis, &positions)?;
    }
    made(call, data)
}
