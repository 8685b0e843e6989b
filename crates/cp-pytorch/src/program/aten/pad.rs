//! Padding.

use cp_net::{Pad, PadMode};

use crate::program::call::{Call, Fail, because};

/// `constant_pad_nd(self, pad, value)`, `pad(self, pad, mode, value)`, `reflection_pad2d(self, padding)`, `replication_pad2d(self, padding)`.
/// The amounts come in pairs from the last axis on.
pub(super) fn pad(call: &mut Call<'_, '_>, name: &str) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let mode = match (name, call.text("mode")?) {
        ("constant_pad_nd", _) | ("pad", None | Some("constant")) => PadMode::Constant,
        ("pad", Some("reflect")) => PadMode::Reflect,
        ("pad", Some("replicate")) => PadMode::Edge,
        ("pad", Some(other)) => return because(format!("its mode '{other}' is not supported")),
        (name, _) if name.starts_with("reflection") => PadMode::Reflect,
        _ => PadMode::Edge,
    };
    let amounts = match call.ints("pad")? {
        Some(amounts) => amounts,
        None => call.ints("padding")?.unwrap_or_default(),
    };
    let value = call.float("value")?.unwrap_or(0.0);
    let axes = input.shape.len() - 1;
    let (mut before, mut behind) = (vec![0; axes], vec![0; axes]);
    let (pairs, rest) = amounts.as_chunks::<2>();
    if !rest.is_empty() || pairs.len() > axes + 1 {
        return because("its amounts are no pairs, or more than there are axes");
    }
    for (distance, pair) in pairs.iter().enumerate() {
        let [Ok(first), Ok(last)] = pair.map(usize::try_from) else {
            return because("it cuts off: its amounts are negative");
        };
        match axes.checked_sub(distance + 1) {
            Some(axis) => (before[axis], behind[axis]) = (first, last),
            None if (first, last) == (0, 0) => {}
            None => return because("it pads the batch axis"),
        }
    }
    call.emit(Pad { before, behind, mode, value }, vec![input.value])
}
