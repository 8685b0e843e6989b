//! The forward function of every op, one file per family. The executor and the stand-alone layers call the same ones.

pub(crate) mod conv;
pub(crate) mod elementwise;
pub(crate) mod norm;
pub(crate) mod pool;
pub(crate) mod shape;

use cp_net::Op;
use tch::{TchError, Tensor};

/// How a node runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Whether the node trains: batch statistics, dropout.
    pub(crate) train: bool,
    /// Whether batch normalization measures its statistics anew, and the weight of this batch in them.
    pub(crate) calibration: Option<f64>,
    /// Whether the node may write its result over its first input.
    pub(crate) in_place: bool,
}

/// The output of `op` for `inputs` (each `[B, C, …]`) and `params` (in the order of [`Op::params`]).
///
/// # Panics
/// Where there are fewer inputs or parameters than the op has; the architecture was checked before.
pub(crate) fn forward(
    op: &Op,
    inputs: &[&Tensor],
    params: &[Tensor],
    run: Run,
) -> Result<Tensor, TchError> {
    let x = inputs[0];
    match op {
        Op::Conv(conv) => conv::conv(x, &params[0], params.get(1), &conv.geometry),
        Op::Linear(_) => conv::linear(x, &params[0], params.get(1)),
        Op::BatchNorm(norm) => norm::batch_norm(x, params, norm, run),
        Op::Lrn(lrn) => norm::lrn(x, lrn),
        Op::MaxPool(pool) => pool::max_pool(x, pool),
        Op::AvgPool(pool) => pool::avg_pool(x, pool),
        Op::AdaptiveAvgPool { output } => pool::adaptive_avg_pool(x, output),
        Op::Relu => elementwise::relu(x, run.in_place),
        Op::Add => elementwise::add(inputs, run.in_place),
        Op::Dropout { p } => x.f_dropout(*p, run.train),
        Op::Softmax => x.f_softmax(1, x.f_kind()?),
        Op::Maxout { pieces } => elementwise::maxout(x, *pieces),
        Op::Concat => Tensor::f_cat(inputs, 1),
        Op::Flatten => x.f_flatten(1, -1),
        Op::PadShortcut { stride, before, after } => {
            shape::pad_shortcut(x, *stride, *before, *after)
        }
        other => Err(TchError::Torch(format!("no forward function for {other:?}"))),
    }
}
