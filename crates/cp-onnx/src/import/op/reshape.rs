//! Other shapes of the same values. Wherever the file has the batch axis, before and behind, the network has it in front; what would
//! join it with another axis is refused.

use cp_net::{Flatten, Reshape};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::value::{Known, Map, Num, Value, position};

/// `map` with these sizes in the file, none of them 0 or −1 any more but the batch's own; `batch` is the place of that.
fn shaped(call: &mut Call<'_, '_>, map: &Map, dims: &[usize], batch: usize) -> Outcome {
    let product =
        |sizes: &[usize]| sizes.iter().fold(1_usize, |all, &size| all.saturating_mul(size));
    if product(&map.shape[..map.batch]) != product(&dims[..batch]) {
        return Refusal::batch("it moves values across");
    }
    if dims == map.shape {
        return Ok(vec![Value::Map(Map { batch, ..map.clone() })]);
    }
    let shaped = if dims.len() == 1 && !map.shape.is_empty() {
        call.last(Flatten { axis: 0 }, &[map], Vec::new(), batch)?
    } else {
        let shape = dims.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
        call.last(Reshape { shape }, &[map], Vec::new(), batch)?
    };
    Ok(vec![Value::Map(shaped)])
}

/// Which of `wanted` is the batch axis, and all sizes but that one. A size is the batch's where it is a multiple of the symbol, where
/// −1 stands for what the others do not hold, or where the file fixes the batch and says that number.
fn resolve(
    map: &Map,
    wanted: &[Num],
    allow_zero: bool,
    fixed: Option<i64>,
) -> Result<(Vec<usize>, usize), Refusal> {
    let before = map.dims();
    let mut dims = Vec::with_capacity(wanted.len());
    for (axis, &size) in wanted.iter().enumerate() {
        dims.push(match size {
            Num::Is(0) if !allow_zero => match before.get(axis) {
                Some(&size) => size,
                None => {
                    return Refusal::setting("shape", wanted, format!("an axis {axis} to keep"));
                }
            },
            Num::Is(size) if size < -1 || size == 0 => {
                return Refusal::setting("shape", wanted, "sizes of at least 1");
            }
            size => size,
        });
    }
    let values = map.shape.iter().fold(1_i64, |all, &size| all.saturating_mul(size as i64));
    let free: Vec<usize> = (0..dims.len()).filter(|&axis| dims[axis] == Num::Is(-1)).collect();
    if free.len() > 1 {
        return Refusal::setting("shape", wanted, "-1 at most once");
    }
    let known = |without: Option<usize>| {
        let sizes = dims.iter().enumerate().filter(|(axis, _)| Some(*axis) != without);
        sizes.fold(1_i64, |all, (_, size)| match size {
            Num::Is(size) if *size > 0 => all.saturating_mul(*size),
            _ => all,
        })
    };
    let symbols: Vec<usize> =
        (0..dims.len()).filter(|&axis| matches!(dims[axis], Num::Batch(_))).collect();
    let front =
        map.shape[..map.batch].iter().fold(1_i64, |all, &size| all.saturating_mul(size as i64));
    let batch = match symbols[..] {
        [axis] if dims[axis] == Num::Batch(1) => axis,
        [] => {
            // What the file fixes: a size that is the batch's, at a place where as many values stand in front of it as before.
            let literal = (0..dims.len()).find(|&axis| {
                let ahead = dims[..axis].iter().try_fold(1_i64, |all, size| match size {
                    Num::Is(size) if *size > 0 => all.checked_mul(*size),
                    _ => None,
                });
                let rest = known(Some(axis));
                let fits =
                    if free.is_empty() { rest == values } else { rest != 0 && values % rest == 0 };
                dims[axis].known() == fixed && fixed.is_some() && ahead == Some(front) && fits
            });
            match (literal, &free[..]) {
                (Some(axis), _) => axis,
                (None, &[axis]) if known(None) == values => axis,
                _ => return Refusal::batch("it joins another axis with"),
            }
        }
        _ => return Refusal::batch("it joins another axis with"),
    };
    let rest = known(Some(batch));
    let mut sizes = Vec::with_capacity(dims.len());
    for (axis, size) in dims.iter().enumerate().filter(|(axis, _)| *axis != batch) {
        let size = match size {
            Num::Is(-1) if rest > 0 && values % rest == 0 => values / rest,
            Num::Is(size) => *size,
            Num::Batch(_) => return Refusal::batch("it joins another axis with"),
        };
        match usize::try_from(size) {
            Ok(size) if size > 0 => sizes.push(size),
            _ => {
                return Refusal::setting(
                    "shape",
                    wanted,
                    format!("a shape of {values} values, axis {axis} of at least 1"),
                );
            }
        }
    }
    let count = sizes.iter().fold(1_i64, |all, &size| all.saturating_mul(size as i64));
    if count != values {
        return Refusal::setting("shape", wanted, format!("{values} values an example"));
    }
    Ok((sizes, batch))
}

pub(super) fn reshape(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("consumed_inputs");
    let allow_zero = call.attributes.flag("allowzero");
    let map = call.map(0)?;
    let wanted = match call.nums(1, "shape")? {
        Some(wanted) => wanted,
        None => return Refusal::form("a shape that is left out"),
    };
    let (dims, batch) = resolve(&map, &wanted, allow_zero, call.fixed)?;
    shaped(call, &map, &dims, batch)
}

/// Two axes: all before one, and all from that on.
pub(super) fn flatten(call: &mut Call<'_, '_>) -> Outcome {
    let axis = call.attributes.int("axis", 1);
    let map = call.map(0)?;
    let rank = map.rank();
    let axis = if axis == rank as i64 { rank } else { position(axis, rank)? };
    let dims = map.dims();
    let part = |dims: &[Num]| {
        dims.iter().fold(Num::Is(1), |all, size| match (all, size) {
            (Num::Is(a), Num::Is(b)) => Num::Is(a.saturating_mul(*b)),
            (Num::Is(a), Num::Batch(b)) | (Num::Batch(a), Num::Is(b)) => {
                Num::Batch(a.saturating_mul(*b))
            }
            (Num::Batch(_), Num::Batch(_)) => Num::Batch(i64::MAX),
        })
    };
    let wanted = [part(&dims[..axis]), part(&dims[axis..])];
    let (dims, batch) = resolve(&map, &wanted, false, None)?;
    shaped(call, &map, &dims, batch)
}

/// Without axes of size 1: those that are named, or all.
pub(super) fn squeeze(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.map(0)?;
    let mut gone = Vec::new();
    match call.ints(1, "axes")? {
        Some(axes) => {
            for axis in axes {
                let axis = map.inner(axis, "it takes away")?;
                if map.shape[axis] != 1 {
                    return Refusal::setting("axes", axis, "axes of size 1");
                }
                gone.push(axis);
            }
        }
        None if call.fixed == Some(1) => return Refusal::batch("it takes away"),
        None => gone.extend((0..map.shape.len()).filter(|&axis| map.shape[axis] == 1)),
    }
    let batch = map.batch - (0..map.batch).filter(|axis| gone.contains(axis)).count();
    let stays = (0..map.shape.len()).filter(|axis| !gone.contains(axis));
    let dims: Vec<usize> = stays.map(|axis| map.shape[axis]).collect();
    shaped(call, &map, &dims, batch)
}

/// With new axes of size 1, which are counted in the result.
pub(super) fn unsqueeze(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.map(0)?;
    let axes = call.ints(1, "axes")?.unwrap_or_default();
    let rank = map.rank() + axes.len();
    let mut new = Vec::new();
    for axis in axes {
        let axis = position(axis, rank)?;
        if new.contains(&axis) {
            return Refusal::setting("axes", axis, "every axis once");
        }
        new.push(axis);
    }
    let mut old = map.dims().into_iter();
    let mut dims = Vec::with_capacity(rank);
    let mut batch = 0;
    for axis in 0..rank {
        match if new.contains(&axis) { Some(Num::Is(1)) } else { old.next() } {
            Some(Num::Is(size)) => dims.push(usize::try_from(size).unwrap_or(usize::MAX)),
            _ => batch = axis,
        }
    }
    shaped(call, &map, &dims, batch)
}

/// The sizes, of which one is the batch.
pub(super) fn shape(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.map(0)?;
    let dims = map.dims();
    let bound = |at: i64| {
        let rank = dims.len() as i64;
        let at = if at < 0 { at.saturating_add(rank) } else { at };
        at.clamp(0, rank) as usize
    };
    let start = bound(call.attributes.int("start", 0));
    let end = bound(call.attributes.int("end", i64::MAX)).max(start);
    Ok(vec![Value::Known(Known::ints(call.output(), dims[start..end].iter().copied()))])
}

/// How many values there are.
pub(super) fn size(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.map(0)?;
    let count = map.shape.iter().fold(1_i64, |all, &size| all.saturating_mul(size as i64));
    let array = ndarray::ArrayD::from_elem(ndarray::IxDyn(&[]), Num::Batch(count));
    Ok(vec![Value::Known(Known::new(call.output(), crate::import::value::Data::Ints(array)))])
}
