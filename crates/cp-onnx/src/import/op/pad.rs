//! Padding.

use cp_net::{Pad, PadMode, Slice};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::value::Value;

/// Amounts and value are attributes before opset 11, inputs from then on; some of the axes alone since opset 18. Negative amounts cut
/// off, before anything is put around.
pub(super) fn pad(call: &mut Call<'_, '_>) -> Outcome {
    let map = call.map(0)?;
    let mode = call.attributes.string("mode", "constant");
    let mode = match mode.as_str() {
        "" | "constant" => PadMode::Constant,
        "reflect" => PadMode::Reflect,
        "edge" => PadMode::Edge,
        _ => return Refusal::form(format!("padding of mode '{mode}'")),
    };
    // Before opset 2 they were called paddings.
    let pads = match call.attributes.ints("paddings") {
        Some(pads) => pads,
        None => call.ints(1, "pads")?.unwrap_or_default(),
    };
    let value = match call.attributes.take("value") {
        Some(_) => call.attributes.float("value", 0.0),
        None => call.known(2, "value")?.map_or(Ok(0.0), |value| value.scalar("value"))?,
    };
    let axes: Vec<i64> = match call.known(3, "axes")? {
        Some(axes) => axes.numbers("axes")?.into_iter().filter_map(|axis| axis.known()).collect(),
        None => (0..map.rank() as i64).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Refusal::setting("pads", pads, format!("two for each of {} axes", axes.len()));
    }
    let inner = map.shape.len();
    let (mut before, mut behind) = (vec![0_i64; inner], vec![0_i64; inner]);
    for (index, &axis) in axes.iter().enumerate() {
        let amounts = [pads[index], pads[axes.len() + index]];
        match map.axis(axis)? {
            Some(axis) => (before[axis], behind[axis]) = (amounts[0], amounts[1]),
            None if amounts == [0, 0] => {}
            None => return Refusal::batch("it pads"),
        }
    }
    let mut map = map;
    let none = |amounts: &[i64]| amounts.iter().all(|&amount| amount <= 0);
    let last_is_slice = none(&before) && none(&behind);
    let cut: Vec<usize> = (0..inner).filter(|&axis| before[axis] < 0 || behind[axis] < 0).collect();
    for (count, &axis) in cut.iter().enumerate() {
        let start = before[axis].min(0).saturating_neg();
        let end = behind[axis].min(0);
        let op = Slice { axis, start, end: (end < 0).then_some(end), step: 1 };
        map = if last_is_slice && count + 1 == cut.len() {
            call.last(op, &[&map], Vec::new(), map.batch)?
        } else {
            call.part(&format!("cut{axis}"), op, &[&map], Vec::new(), map.batch)?
        };
    }
    if last_is_slice {
        return Ok(vec![Value::Map(map)]);
    }
    let sizes = |amounts: &[i64]| -> Vec<usize> {
        amounts.iter().map(|&amount| usize::try_from(amount).unwrap_or(0)).collect()
    };
    let op = Pad { before: sizes(&before), behind: sizes(&behind), mode, value };
    Ok(vec![Value::Map(call.last(op, &[&map], Vec::new(), map.batch)?)])
}
