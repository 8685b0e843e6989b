//! Ops that move values without changing them, and those that choose among them.

use cp_net::{ChannelOrder, DepthToSpace, Maxout, OpSpec, Pad, PadMode, Split};
use tch::{TchError, Tensor};

use super::{Forward, Run, dim, pad_list, select, simple};
use crate::convert::{dims, shape_of};
use crate::layout::{channels_behind, channels_in_front, is_channels_last};

simple! {
    DepthToSpace: |op, x, _, _| depth_to_space(x, op);
    Dropout: |op, x, _, run| x.f_dropout(op.p, run.train);
    Flatten: |op, x, _, _| reshaped(x, op);
    Gather: |op, x, _, _| select(x, op.axis + 1, &op.indices);
    Identity: |_, x, _, _| Ok::<_, TchError>(x.shallow_clone());
    Maxout: |op, x, _, _| maxout(x, op);
    Pad: |op, x, _, _| pad(x, op);
    Reshape: |op, x, _, _| reshaped(x, op);
    Slice: |op, x, _, _| slice(x, op);
    Squeeze: |op, x, _, _| reshaped(x, op);
    Transpose: |op, x, _, _| {
        x.f_permute([0].into_iter().chain(op.axes.iter().map(|&axis| dim(axis))).collect::<Vec<_>>())
    };
    Unsqueeze: |op, x, _, _| reshaped(x, op);
}

impl Forward for cp_net::Constant {
    /// # Shapes
    /// `params`: `[…]`; result: `[1, …]`.
    fn forward(&self, _: &[&Tensor], params: &[Tensor], _: Run) -> Result<Vec<Tensor>, TchError> {
        Ok(vec![params[0].f_unsqueeze(0)?])
    }
}

impl Forward for cp_net::Concat {
    fn forward(&self, inputs: &[&Tensor], _: &[Tensor], _: Run) -> Result<Vec<Tensor>, TchError> {
        let batch = inputs.iter().map(|input| input.size()[0]).find(|&batch| batch != 1);
        let repeated = |input: &&Tensor| {
            let mut size = input.size();
            size[0] = batch.unwrap_or(1);
            input.f_expand(size, false)
        };
        let inputs = inputs.iter().map(repeated).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![Tensor::f_cat(&inputs, dim(self.axis))?])
    }
}

impl Forward for Split {
    fn forward(&self, inputs: &[&Tensor], _: &[Tensor], _: Run) -> Result<Vec<Tensor>, TchError> {
        inputs[0].f_split_with_sizes(dims(&self.sizes), dim(self.axis))
    }
}

/// The same values in the shape of the op's output.
///
/// # Shapes
/// `x` and result: `[B, …]`.
fn reshaped(x: &Tensor, op: &impl OpSpec) -> Result<Tensor, TchError> {
    let shape = shape_of(x);
    let output = op.output(&[&shape[1..]]).map_err(|mismatch| {
        TchError::Shape(format!("expected {}, got {:?}", mismatch.expected, &shape[1..]))
    })?;
    x.f_reshape([dims(&shape[..1]), dims(&output[0])].concat())
}

/// Every `step`-th position of a range along an axis; a view.
fn slice(x: &Tensor, op: &cp_net::Slice) -> Result<Tensor, TchError> {
    let range = op.range(x.size()[op.axis + 1] as usize);
    let step = i64::try_from(op.step).unwrap_or(i64::MAX);
    x.f_slice(dim(op.axis), range.start as i64, range.end as i64, step)
}

/// Values around the input, along any of its axes.
///
/// # Shapes
/// `x`: `[B, n₀, …]`; result: `[B, before₀ + n₀ + behind₀, …]`.
fn pad(x: &Tensor, op: &Pad) -> Result<Tensor, TchError> {
    let size = shape_of(x);
    let amounts = || op.before.iter().zip(&op.behind);
    if op.mode == PadMode::Constant {
        let list = pad_list(amounts().map(|(&before, &behind)| [before as i64, behind as i64]));
        return x.f_pad(list, "constant", op.value);
    }
    let mut padded = x.shallow_clone();
    for (axis, (before, behind)) in amounts().enumerate() {
        if before + behind > 0 {
            let new = before + size[axis + 1] + behind;
            let sources: Vec<usize> =
                (0..new).filter_map(|at| op.source(axis, size[axis + 1], at)).collect();
            padded = select(&padded, axis + 1, &sources)?;
        }
    }
    Ok(padded)
}

/// Every block² channels as a block of pixels.
///
/// # Shapes
/// `x`: `[B, C · block², H, W]`; result: `[B, C, H · block, W · block]`.
fn depth_to_space(x: &Tensor, op: &DepthToSpace) -> Result<Tensor, TchError> {
    let block = op.block as i64;
    if op.mode == ChannelOrder::ColumnFirst {
        return x.f_pixel_shuffle(block);
    }
    let (batch, channels, height, width) = x.size4()?;
    let channels = channels / (block * block);
    x.f_reshape([batch, block, block, channels, height, width])?
        .f_permute([0, 3, 4, 1, 5, 2])?
        .f_reshape([batch, channels, height * block, width * block])
}

/// Maximum over groups of neighboring channels.
///
/// The pieces are views and the maximum is taken pairwise, which keeps the layout; a reduction (`amax`) over an axis of its
/// own would always write NCHW.
///
/// # Shapes
/// `x`: `[B, C, …]`; result: `[B, C / pieces, …]`.
///
/// Reference: Goodfellow et al. (2013), eq. (3).
fn maxout(x: &Tensor, op: &Maxout) -> Result<Tensor, TchError> {
    let size = x.size();
    let pieces = op.pieces as i64;
    if pieces == 0 || size[1] % pieces != 0 {
        return Err(TchError::Shape(format!(
            "{} channels are no multiple of {pieces} pieces",
            size[1]
        )));
    }
    // Channels-last goes by its axes as they lie in memory, so that the gradient comes back in the same layout.
    let channels_last = is_channels_last(x);
    let x = if channels_last { channels_behind(x)? } else { x.shallow_clone() };
    let axis = if channels_last { size.len() - 1 } else { 1 };
    let mut split = x.size();
    split.splice(axis..=axis, [size[1] / pieces, pieces]);
    let maximum = x
        .f_reshape(split)?
        .f_unbind(axis as i64 + 1)?
        .into_iter()
        .map(Ok)
        .reduce(|a, b| a?.f_maximum(&b?))
        .unwrap_or_else(|| Ok(x.shallow_clone()))?;
    if channels_last { channels_in_front(&maximum) } else { Ok(maximum) }
}
