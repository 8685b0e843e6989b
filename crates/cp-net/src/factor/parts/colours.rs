//! Colours, of which every output channel reads one.

use super::{REDUCE, all_axes, check_largest, depthwise, reduce};
use crate::error::NetError;
use crate::factor::order::ASSIGN;
use crate::op::{Conv, Gather, Op};

/// Colours in turn: which output channel reads which is for [`order`](crate::factor::order) to say.
pub(super) fn parts(
    layer: &str,
    conv: &Conv,
    colours: usize,
) -> Result<Vec<(&'static str, Op)>, NetError> {
    let filters = conv.out_channels;
    check_largest(layer, colours, filters)?;
    let indices = (0..filters).map(|filter| filter % colours).collect();
    let spatial = match depthwise(conv, filters, &all_axes(conv)) {
        Op::Conv(spatial) => Op::Conv(Conv { bias: conv.bias, ..spatial }),
        other => other,
    };
    Ok(vec![
        (REDUCE, reduce(conv, colours)),
        (ASSIGN, Op::Gather(Gather { axis: 0, indices })),
        ("spatial", spatial),
    ])
}
