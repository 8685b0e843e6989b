//! Which channel goes where in a factorized layer: the indices of its gathers that form and rank leave open.
//!
//! | form | part | what its indices are, within a group of the dense layer |
//! |---|---|---|
//! | [`Form::Denton`], [`Form::DentonSvd`] | `arrange` | the input channels, cluster after cluster |
//! | | `restore` | for every output channel its place, cluster after cluster |
//! | [`Form::Monochromatic`] | `assign` | for every output channel its colour |

use crate::error::NetError;
use crate::factor::form::Form;
use crate::op::{Conv, Gather, Op};

/// Suffix of the part that puts the input channels of a cluster side by side.
pub(crate) const ARRANGE: &str = "arrange";
/// Suffix of the part that puts output channels back into their places.
pub(crate) const RESTORE: &str = "restore";
/// Suffix of the part that gives each output channel its colour.
pub(crate) const ASSIGN: &str = "assign";

/// Whether form and rank leave the indices of a part open.
pub(crate) fn is_open(form: Form, suffix: &str) -> bool {
    match form {
        Form::Denton | Form::DentonSvd => suffix == ARRANGE || suffix == RESTORE,
        Form::Monochromatic => suffix == ASSIGN,
        _ => false,
    }
}

/// Puts the orders of the groups into `parts`, which are as [`replacement`](crate::replacement) gives them.
///
/// # Shapes
/// `orders[g]`: of group g one for each open part, in the order of the parts.
///
/// # Errors
/// Another number of orders, or of their entries; entries that are out of range, or not all different where each has to come once.
pub(crate) fn put(
    layer: &str,
    form: Form,
    parts: &mut [(&'static str, Op)],
    orders: &[&[Vec<usize>]],
) -> Result<(), NetError> {
    let open = |(suffix, _): &(&str, Op)| is_open(form, suffix);
    let expected = parts.iter().filter(|part| open(part)).count();
    if let Some(other) = orders.iter().find(|orders| orders.len() != expected) {
        let (layer, what) = (layer.into(), "number of orders of channels");
        let (expected, got) = (vec![expected], vec![other.len()]);
        return Err(NetError::Factors { layer, what, expected, got });
    }
    let mut place = 0;
    for at in 0..parts.len() {
        let colours = at.checked_sub(1).and_then(|before| channels(&parts[before].1));
        let (suffix, Op::Gather(gather)) = &mut parts[at] else { continue };
        if !is_open(form, suffix) {
            continue;
        }
        let size = gather.indices.len() / orders.len();
        let range = if *suffix == ASSIGN { colours.unwrap_or(size) } else { size };
        let mut indices = Vec::with_capacity(gather.indices.len());
        for (group, orders) in orders.iter().enumerate() {
            let order = &orders[place];
            check(order, size, range, *suffix != ASSIGN).map_err(|problem| NetError::Order {
                layer: layer.into(),
                part: suffix,
                problem,
            })?;
            indices.extend(order.iter().map(|index| group * range + index));
        }
        gather.indices = indices;
        place += 1;
    }
    Ok(())
}

/// The order of one group.
pub(crate) fn of_group(gather: &Gather, groups: usize, group: usize) -> Vec<usize> {
    let size = gather.indices.len() / groups;
    let own = gather.indices.iter().skip(group * size).take(size);
    // Only permutations have several groups.
    own.map(|index| index.saturating_sub(group * size)).collect()
}

/// Whether a part is the one that form and rank give, but for what they leave open. `before` is the part in front of it.
pub(crate) fn agrees(
    form: Form,
    groups: usize,
    (suffix, expected): &(&str, Op),
    before: Option<&Op>,
    found: &Op,
) -> bool {
    let (Op::Gather(expected), Op::Gather(found)) = (expected, found) else {
        return expected == found;
    };
    if !is_open(form, suffix) || found.axis != expected.axis {
        return expected == found;
    }
    let (size, len) = (expected.indices.len() / groups, found.indices.len());
    if len != expected.indices.len() {
        return false;
    }
    if *suffix == ASSIGN {
        let colours = before.and_then(channels).unwrap_or(size);
        return check(&found.indices, size, colours, false).is_ok();
    }
    // A channel of another group leaves a gap in its own.
    let in_group = |(at, &index): (usize, &usize)| index / size == at / size;
    found.indices.iter().enumerate().all(in_group) && check(&found.indices, len, len, true).is_ok()
}

/// Output channels of a convolution.
fn channels(op: &Op) -> Option<usize> {
    if let Op::Conv(Conv { out_channels, .. }) = op { Some(*out_channels) } else { None }
}

/// Whether an order has `size` entries below `range`, all different where each has to come once.
fn check(order: &[usize], size: usize, range: usize, once: bool) -> Result<(), String> {
    if order.len() != size {
        return Err(format!("has {} entries, expected {size}", order.len()));
    }
    if let Some(index) = order.iter().find(|&&index| index >= range) {
        return Err(format!(
            "holds {index}, expected numbers from 0 to {}",
            range.saturating_sub(1)
        ));
    }
    let mut seen = vec![false; range];
    let twice = |&&index: &&usize| std::mem::replace(&mut seen[index], true);
    match order.iter().find(twice) {
        Some(index) if once => {
            Err(format!("holds {index} more than once, expected each number once"))
        }
        _ => Ok(()),
    }
}
