//! One basis of separable filters for all input channels.

use super::{EXPAND, check_largest, four};
use crate::error::NetError;
use crate::op::{Conv, Op, Padding, Squeeze, Unsqueeze};

/// The S channels as the depth of one, M filters over every slice of it, and a mixture over filters and depth.
pub(super) fn parts(
    layer: &str,
    conv: &Conv,
    rank: usize,
) -> Result<Vec<(&'static str, Op)>, NetError> {
    let [out, inputs, rows, columns] = four(conv);
    // What the CP model of [T·S, k₀, k₁] can need.
    let filters = out * inputs;
    let max = (filters * rows).min(filters * columns).min(rows * columns);
    check_largest(layer, rank, max)?;
    let deep = deep(conv);
    let vertical = deep.along(&[1], [1, rank], 1);
    let horizontal = deep.along(&[2], [rank; 2], rank);
    let expand = Conv { bias: conv.bias, ..Conv::new(rank, out, [inputs, 1, 1]) };
    Ok(vec![
        ("unsqueeze", Op::Unsqueeze(Unsqueeze { axes: vec![0] })),
        ("vertical", Op::Conv(vertical)),
        ("horizontal", Op::Conv(horizontal)),
        (EXPAND, Op::Conv(expand)),
        ("squeeze", Op::Squeeze(Squeeze { axes: vec![1] })),
    ])
}

/// `conv` with an axis of unit geometry in front of its own.
fn deep(conv: &Conv) -> Conv {
    let behind = |values: &[usize]| [&[1], values].concat();
    let padding = match &conv.padding {
        Padding::Each(pairs) => Padding::Each([&[[0; 2]], &pairs[..]].concat()),
        same => same.clone(),
    };
    Conv {
        kernel: behind(&conv.kernel),
        stride: behind(&conv.stride),
        dilation: behind(&conv.dilation),
        padding,
        ..conv.clone()
    }
}
