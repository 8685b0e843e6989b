//! Denton's forms: channels in clusters of equal size, and each block of the kernel for itself.
//!
//! Output channels come in oc clusters and input channels in ic (of each group of the dense layer), the block of clusters o and i is
//! `[T/(g·oc), S/(g·ic), ∏k]`. Maps between the parts are numbered by group, then by input cluster, output cluster and term, as `reduce` makes
//! them, and behind `shuffle` by group, output cluster, input cluster and term, as `expand` reads them. `arrange` puts the channels of a cluster side by side,
//! and `restore` puts the output channels back into their places: these are for [`order`](crate::factor::order) to say.

use super::{EXPAND, REDUCE, all_axes, check_largest};
use crate::error::NetError;
use crate::factor::order::{ARRANGE, RESTORE};
use crate::op::{Conv, Gather, Op};

/// k rank-one terms for every block.
pub(super) fn terms(
    layer: &str,
    conv: &Conv,
    [outputs, inputs, rank]: [usize; 3],
) -> Result<Vec<(&'static str, Op)>, NetError> {
    let [out, input, taps] = block(layer, conv, [outputs, inputs])?;
    // Every [a, b, c] is a sum of so many terms.
    check_largest(layer, rank, (out * input).min(out * taps).min(input * taps))?;
    let clusters = Clusters { conv, outputs, inputs };
    let maps = conv.groups * outputs * inputs * rank;
    let spatial = conv.along(&all_axes(conv), [maps; 2], maps);
    Ok(clusters.around(("spatial", spatial), [rank; 2]))
}

/// R_in → R_out channels for every block.
pub(super) fn cores(
    layer: &str,
    conv: &Conv,
    [outputs, inputs, out_rank, in_rank]: [usize; 4],
) -> Result<Vec<(&'static str, Op)>, NetError> {
    let [out, input, taps] = block(layer, conv, [outputs, inputs])?;
    // Numbers of columns of orthonormal matrices.
    check_largest(layer, out_rank, out.min(input * taps))?;
    check_largest(layer, in_rank, input.min(out_rank * taps))?;
    let clusters = Clusters { conv, outputs, inputs };
    let blocks = conv.groups * outputs * inputs;
    let channels = [blocks * in_rank, blocks * out_rank];
    let core = conv.along(&all_axes(conv), channels, blocks);
    Ok(clusters.around(("core", core), [out_rank, in_rank]))
}

/// Shape of a block, for clusters that are of equal size.
fn block(layer: &str, conv: &Conv, clusters: [usize; 2]) -> Result<[usize; 3], NetError> {
    let shape = conv.group_shape();
    let taps = conv.kernel.iter().product();
    for (mode, what) in ["output", "input"].into_iter().enumerate() {
        let (clusters, channels) = (clusters[mode], shape[mode]);
        if !channels.is_multiple_of(clusters) {
            return Err(NetError::Clusters { layer: layer.into(), what, clusters, channels });
        }
    }
    Ok([shape[0] / clusters[0], shape[1] / clusters[1], taps])
}

struct Clusters<'a> {
    conv: &'a Conv,
    /// oc and ic.
    outputs: usize,
    inputs: usize,
}

impl Clusters<'_> {
    /// The parts around that of the middle, which makes maps of R_out a block from R_in.
    fn around(
        &self,
        (suffix, middle): (&'static str, Conv),
        [out_rank, in_rank]: [usize; 2],
    ) -> Vec<(&'static str, Op)> {
        let Self { conv, outputs, inputs } = *self;
        let gather = |indices| Op::Gather(Gather { axis: 0, indices });
        let pointwise = |channels, clusters, bias| {
            Op::Conv(Conv { bias, ..conv.along(&[], channels, conv.groups * clusters) })
        };
        let blocks = conv.groups * outputs * inputs;
        vec![
            (ARRANGE, gather((0..conv.in_channels).collect())),
            (REDUCE, pointwise([conv.in_channels, blocks * in_rank], inputs, false)),
            (suffix, Op::Conv(middle)),
            ("shuffle", gather(self.shuffle(out_rank))),
            (EXPAND, pointwise([blocks * out_rank, conv.out_channels], outputs, conv.bias)),
            (RESTORE, gather((0..conv.out_channels).collect())),
        ]
    }

    /// From (group, input cluster, output cluster, term) to (group, output cluster, input cluster, term).
    fn shuffle(&self, rank: usize) -> Vec<usize> {
        let Self { conv, outputs, inputs } = *self;
        let mut indices = Vec::with_capacity(conv.groups * outputs * inputs * rank);
        for group in 0..conv.groups {
            for output in 0..outputs {
                for input in 0..inputs {
                    let first = ((group * inputs + input) * outputs + output) * rank;
                    indices.extend(first..first + rank);
                }
            }
        }
        indices
    }
}
