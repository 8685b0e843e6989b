//! Ops that move values about, or leave them where they are.

use cp_net::{ChannelOrder, DepthToSpace, Reshape, Transpose};

use crate::Float;
use crate::import::call::{Call, Outcome};
use crate::import::data::BOOL;
use crate::import::error::Refusal;
use crate::import::value::{Kind, Map, Value};

pub(super) fn identity(call: &mut Call<'_, '_>) -> Outcome {
    Ok(vec![Value::Map(call.map(0)?)])
}

/// To floating-point numbers: all of them are the network's own. To others, values would be rounded.
pub(super) fn cast(call: &mut Call<'_, '_>) -> Outcome {
    let to = call.attributes.int("to", 0);
    call.attributes.take("saturate");
    call.attributes.take("round_mode");
    let map = call.map(0)?;
    if Float::by_number(to).is_some() {
        return Ok(vec![Value::Map(Map { kind: Kind::Float, ..map })]);
    }
    if map.kind == Kind::Other && to != BOOL {
        return Ok(vec![Value::Map(map)]);
    }
    Refusal::form("a cast of computed values to whole numbers or truth values")
}

/// `map` with the axes that the file gives it in another order; the batch axis may move, and the network's axes follow each other as
/// the others do. What was turned before is turned once, or not at all.
pub(super) fn transposed(
    call: &mut Call<'_, '_>,
    map: &Map,
    order: &[usize],
    last: bool,
) -> Result<Map, Refusal> {
    let batch = order.iter().position(|&axis| axis == map.batch).unwrap_or(0);
    let inner = order.iter().filter(|&&axis| axis != map.batch);
    let axes: Vec<usize> =
        inner.map(|&axis| if axis < map.batch { axis } else { axis - 1 }).collect();
    if axes.iter().copied().eq(0..axes.len()) {
        return Ok(Map { batch, ..map.clone() });
    }
    let (source, axes) = match &map.turned {
        Some((source, before)) => {
            (source.clone(), axes.iter().map(|&axis| before[axis]).collect::<Vec<usize>>())
        }
        None => (map.name.clone(), axes),
    };
    // The sizes of what is turned in the end, before that was turned for the first time.
    let mut shape = map.shape.clone();
    if let Some((_, before)) = &map.turned {
        for (to, &from) in before.iter().enumerate() {
            shape[from] = map.shape[to];
        }
    }
    let whole = Map { name: source.clone(), shape, batch, kind: map.kind, turned: None };
    if axes.iter().copied().eq(0..axes.len()) {
        return Ok(whole);
    }
    let op = Transpose { axes: axes.clone() };
    let turned = match last {
        true => call.last(op, &[&whole], Vec::new(), batch)?,
        false => call.part("transposed", op, &[&whole], Vec::new(), batch)?,
    };
    Ok(Map { turned: Some((source, axes)), ..turned })
}

pub(super) fn transpose(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.map(0)?;
    let order: Vec<usize> = match call.attributes.ints("perm") {
        None => (0..map.rank()).rev().collect(),
        Some(perm) => {
            let axes: Option<Vec<usize>> =
                perm.iter().map(|&axis| usize::try_from(axis).ok()).collect();
            match axes {
                Some(axes)
                    if axes.len() == map.rank()
                        && (0..axes.len()).all(|axis| axes.contains(&axis)) =>
                {
                    axes
                }
                _ => {
                    return Refusal::setting(
                        "perm",
                        perm,
                        format!("every axis of {} once", map.rank()),
                    );
                }
            }
        }
    };
    Ok(vec![Value::Map(transposed(call, &map, &order, true)?)])
}

fn block(call: &Call<'_, '_>) -> Result<(usize, ChannelOrder), Refusal> {
    let block = call.attributes.int("blocksize", 0);
    let mode = call.attributes.string("mode", "DCR");
    let order = match mode.as_str() {
        "DCR" => ChannelOrder::DepthFirst,
        "CRD" => ChannelOrder::ColumnFirst,
        _ => return Refusal::setting("mode", mode, "DCR or CRD"),
    };
    match usize::try_from(block) {
        Ok(size) if (1..=1 << 16).contains(&size) => Ok((size, order)),
        _ => Refusal::setting("blocksize", block, "at least 1"),
    }
}

pub(super) fn depth_to_space(call: &mut Call<'_, '_>) -> Outcome {
    let (block, mode) = block(call)?;
    let map = call.map(0)?.in_front()?;
    let op = DepthToSpace { block, mode };
    Ok(vec![Value::Map(call.last(op, &[&map], Vec::new(), 0)?)])
}

/// `[C, H · b, W · b]` → `[C, H, b, W, b]` → the blocks' pixels in front of the channels or behind them → `[C · b², H, W]`.
pub(super) fn space_to_depth(call: &mut Call<'_, '_>) -> Outcome {
    let (block, mode) = block(call)?;
    let map = call.map(0)?.in_front()?;
    let &[channels, height, width] = &map.shape[..] else {
        let expected = "[C, H, W]".into();
        return Err(Refusal::Shape { input: 0, shape: map.shape, expected });
    };
    if !height.is_multiple_of(block) || !width.is_multiple_of(block) {
        let expected = format!("height and width that are multiples of {block}");
        return Err(Refusal::Shape { input: 0, shape: map.shape, expected });
    }
    let sizes = |sizes: &[usize]| Reshape {
        shape: sizes.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect(),
    };
    let (rows, columns) = (height / block, width / block);
    let op = sizes(&[channels, rows, block, columns, block]);
    let blocks = call.part("blocks", op, &[&map], Vec::new(), 0)?;
    let axes = match mode {
        ChannelOrder::DepthFirst => vec![2, 4, 0, 1, 3],
        ChannelOrder::ColumnFirst => vec![0, 2, 4, 1, 3],
    };
    let turned = call.part("turned", Transpose { axes }, &[&blocks], Vec::new(), 0)?;
    let op = sizes(&[channels * block * block, rows, columns]);
    Ok(vec![Value::Map(call.last(op, &[&turned], Vec::new(), 0)?)])
}
