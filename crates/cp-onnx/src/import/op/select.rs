//! Parts of values, and values side by side.

use cp_net::{Concat, Gather, Reshape, Slice, Split};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::op::arithmetic::behind_batch;
use crate::import::value::{Kind, Map, Num, Value};

/// Constants among the inputs are the same for every example.
pub(super) fn concat(call: &mut Call<'_, '_>) -> Outcome {
    let axis = call.attributes.int("axis", 1);
    let maps = || {
        call.inputs
            .iter()
            .filter_map(|value| if let Value::Map(map) = value { Some(map) } else { None })
    };
    let Some(first) = maps().next().cloned() else {
        return Refusal::form("this op on constants, which is not computed beforehand");
    };
    if maps().any(|map| (map.rank(), map.batch) != (first.rank(), first.batch)) {
        return Refusal::batch("its inputs have different axes in the place of");
    }
    let axis = first.inner(axis, "it puts values side by side along")?;
    let values = call.inputs.clone();
    if let [Value::Map(map)] = &values[..] {
        return Ok(vec![Value::Map(map.clone())]);
    }
    let mut found = Vec::with_capacity(values.len());
    for value in &values {
        match value {
            Value::Map(map) => found.push(map.clone()),
            Value::Known(known) if known.data.shape().len() == first.rank() => {
                let inner = behind_batch(known.data.shape(), &first)?;
                // An empty piece adds nothing.
                if inner.contains(&0) {
                    continue;
                }
                let known = call.reshaped(known, &inner)?;
                found.push(call.net.constant(&known, first.batch)?);
            }
            _ => return Refusal::form("pieces with different numbers of axes"),
        }
    }
    let kind =
        if found.iter().all(|map| map.kind == Kind::Float) { Kind::Float } else { Kind::Other };
    if let [map] = &found[..] {
        return Ok(vec![Value::Map(map.clone())]);
    }
    let all: Vec<&Map> = found.iter().collect();
    let map = call.last(Concat { axis }, &all, Vec::new(), first.batch)?;
    Ok(vec![Value::Map(Map { kind, ..map })])
}

/// Bounds are attributes before opset 10, inputs from then on. Steps back pick positions one by one.
pub(super) fn slice(call: &mut Call<'_, '_>) -> Outcome {
    let mut map = call.map(0)?;
    let starts = call.nums(1, "starts")?.unwrap_or_default();
    let ends = call.nums(2, "ends")?.unwrap_or_default();
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
    let mut cuts: Vec<(usize, Vec<usize>, bool)> = Vec::new();
    for (index, &axis) in axes.iter().enumerate() {
        let (start, end, step) = (starts[index], ends[index], steps[index]);
        let Some(inner) = map.axis(axis)? else {
            let whole = match (start, end, step) {
                (Num::Is(0), Num::Batch(1), Num::Is(1)) => true,
                (Num::Is(0), Num::Is(end), Num::Is(1)) => {
                    call.fixed.is_some_and(|size| end >= size) || end >= i64::from(i32::MAX)
                }
                _ => false,
            };
            if whole {
                continue;
            }
            return Refusal::batch("it takes a part of");
        };
        let (Some(start), Some(end), Some(step)) = (start.known(), end.known(), step.known())
        else {
            return Refusal::batch("it takes bounds from");
        };
        if step == 0 {
            return Refusal::setting("steps", step, "other than 0");
        }
        let positions = positions(map.shape[inner], start, end, step);
        if positions.is_empty() {
            return Refusal::form(format!("an empty part of axis {axis}"));
        }
        if positions.len() != map.shape[inner] || step < 0 {
            cuts.push((inner, positions, step < 0));
        }
    }
    let count = cuts.len();
    for (index, (axis, positions, back)) in cuts.into_iter().enumerate() {
        let (first, last) = (positions[0], positions[positions.len() - 1]);
        let op: cp_net::Op = if back {
            Gather { axis, indices: positions }.into()
        } else {
            let step = positions.get(1).map_or(1, |second| second - first);
            let end = (last + 1 < map.shape[axis]).then_some(last as i64 + 1);
            Slice { axis, start: first as i64, end, step }.into()
        };
        map = if index + 1 == count {
            call.last(op, &[&map], Vec::new(), map.batch)?
        } else {
            call.part(&format!("axis{axis}"), op, &[&map], Vec::new(), map.batch)?
        };
    }
    Ok(vec![Value::Map(map)])
}

/// Every `step`-th position from `start` to before `end`; negative bounds count from the end, and those beyond an end mean it.
pub(crate) fn positions(size: usize, start: i64, end: i64, step: i64) -> Vec<usize> {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let place = |at: i64| if at < 0 { at.saturating_add(size) } else { at };
    let mut found = Vec::new();
    let (mut at, end) = match step > 0 {
        true => (place(start).clamp(0, size), place(end).clamp(0, size)),
        false => (place(start).clamp(-1, size - 1), place(end).clamp(-1, size - 1)),
    };
    while if step > 0 { at < end } else { at > end } {
        found.extend(usize::try_from(at));
        at = at.saturating_add(step);
    }
    found
}

/// Into parts of given sizes: an attribute before opset 13, an input from then on; or into even ones, the last of which may be smaller.
pub(super) fn split(call: &mut Call<'_, '_>) -> Outcome {
    let axis = call.attributes.int("axis", 0);
    let count = call.attributes.take("num_outputs").map(|_| call.attributes.int("num_outputs", 0));
    let map = call.map(0)?;
    let inner = map.inner(axis, "it splits")?;
    let size = map.shape[inner];
    let sizes: Vec<usize> = match call.ints(1, "split")? {
        Some(given) => {
            let sizes: Option<Vec<usize>> =
                given.iter().map(|&size| usize::try_from(size).ok()).collect();
            match sizes {
                Some(sizes) => sizes,
                None => return Refusal::setting("split", given, "sizes of at least 1"),
            }
        }
        None => {
            let count = count.map_or(Some(call.outputs.len()), |count| usize::try_from(count).ok());
            let Some(count) = count.filter(|&count| count > 0 && count <= size) else {
                return Refusal::setting(
                    "num_outputs",
                    count,
                    format!("at least 1, at most {size}"),
                );
            };
            let each = size.div_ceil(count);
            let last = size.saturating_sub(each * (count - 1));
            [vec![each; count - 1], vec![last]].concat()
        }
    };
    if sizes.len() < call.outputs.len() {
        return Refusal::setting("split", sizes, format!("{} parts", call.outputs.len()));
    }
    if sizes.len() == 1 {
        return Ok(vec![Value::Map(map)]);
    }
    let mut names = Vec::with_capacity(sizes.len());
    for index in 0..sizes.len() {
        let wanted = call.outputs.get(index).filter(|name| !name.is_empty());
        let wanted = wanted.cloned().unwrap_or_else(|| format!("{}.{index}", call.label));
        names.push(call.net.value(&wanted));
    }
    let op = Split { axis: inner, sizes };
    let label = call.label.clone();
    let shapes = call.net.add(&label, op.into(), &[&map], Vec::new(), names.clone())?;
    let part = |(name, shape)| Value::Map(Map { name, shape, turned: None, ..map.clone() });
    Ok(names.into_iter().zip(shapes).map(part).collect())
}

/// Constant positions along an axis: one of them takes the axis away, several axes of them stand in its place.
pub(super) fn gather(call: &mut Call<'_, '_>) -> Outcome {
    let axis = call.attributes.int("axis", 0);
    let map = call.map(0)?;
    let inner = map.inner(axis, "it picks examples along")?;
    let positions = call.constant(1, "indices")?;
    let size = map.shape[inner];
    let mut indices = Vec::new();
    for number in positions.numbers("indices")? {
        let place =
            number.known().map(|at| if at < 0 { at.saturating_add(size as i64) } else { at });
        match place.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < size) {
            Some(at) => indices.push(at),
            None => return Refusal::setting("indices", number, format!("positions below {size}")),
        }
    }
    let wanted = positions.data.shape().to_vec();
    let op = Gather { axis: inner, indices };
    if wanted.len() == 1 {
        return Ok(vec![Value::Map(call.last(op, &[&map], Vec::new(), map.batch)?)]);
    }
    let picked = call.part("picked", op, &[&map], Vec::new(), map.batch)?;
    let shape = [&map.shape[..inner], &wanted, &map.shape[inner + 1..]].concat();
    let in_front = map.outer(inner) < map.batch;
    let batch = if in_front { map.batch + wanted.len() - 1 } else { map.batch };
    let shape = shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
    Ok(vec![Value::Map(call.last(Reshape { shape }, &[&picked], Vec::new(), batch)?)])
}

/// The value several times side by side.
pub(super) fn tile(call: &mut Call<'_, '_>) -> Outcome {
    let mut map = call.map(0)?;
    let repeats = call.constant(1, "repeats")?.numbers("repeats")?;
    if repeats.len() != map.rank() {
        return Refusal::setting("repeats", repeats, format!("{} numbers", map.rank()));
    }
    for (outer, times) in repeats.into_iter().enumerate() {
        match (map.axis(outer as i64)?, times.known()) {
            (_, Some(1)) => {}
            (None, _) => return Refusal::batch("it repeats"),
            (Some(axis), Some(times @ 2..=1024)) => {
                let all = vec![&map; times as usize];
                map = call.part(
                    &format!("axis{axis}"),
                    Concat { axis },
                    &all,
                    Vec::new(),
                    map.batch,
                )?;
            }
            (Some(_), times) => return Refusal::setting("repeats", times, "from 1 to 1024"),
        }
    }
    Ok(vec![Value::Map(map)])
}
