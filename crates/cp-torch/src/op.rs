//! The forward function of every op, one file per family. The executor and the stand-alone layers call the same ones.

mod binary;
pub(crate) mod conv;
mod factored;
pub(crate) mod linear;
mod norm;
mod pool;
mod reduce;
mod resize;
mod shape;
#[cfg(test)]
mod tests;
mod unary;

use tch::{TchError, Tensor};

use crate::convert::dims;
use crate::layout::{channels_behind, channels_in_front, is_channels_last};

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

/// What libtorch does for an op.
pub(crate) trait Forward {
    /// One tensor for each output.
    ///
    /// # Shapes
    /// `inputs`: `[B, …]`, where B is 1 for a value that does not depend on the example; `params`: in the order of
    /// [`OpSpec::params`](cp_net::OpSpec::params); results: `[B, …]`.
    ///
    /// # Panics
    /// May do so where there are fewer inputs or parameters than the op has; the network was checked before.
    fn forward(
        &self,
        inputs: &[&Tensor],
        params: &[Tensor],
        run: Run,
    ) -> Result<Vec<Tensor>, TchError>;

    /// Whether the op can write its result over its first input, as [`Run::in_place`] allows it.
    fn in_place(&self) -> bool {
        false
    }

    /// Whether the output is memory of its own that the gradient does not need: the op behind it may write over it.
    fn frees_output(&self) -> bool {
        false
    }
}

macro_rules! forward_of_all {
    ($($file:ident::$name:ident = $kind:literal,)*) => {
        impl Forward for cp_net::Op {
            fn forward(
                &self,
                inputs: &[&Tensor],
                params: &[Tensor],
                run: Run,
            ) -> Result<Vec<Tensor>, TchError> {
                match self { $(cp_net::Op::$name(op) => op.forward(inputs, params, run),)* }
            }

            fn in_place(&self) -> bool {
                match self { $(cp_net::Op::$name(op) => op.in_place(),)* }
            }

            fn frees_output(&self) -> bool {
                match self { $(cp_net::Op::$name(op) => op.frees_output(),)* }
            }
        }
    };
}

cp_net::for_each_op!(forward_of_all);

/// [`Forward`] of ops with one input and one output: `Name: |op, x, params, run| result;`.
macro_rules! simple {
    ($($name:ident: |$op:pat_param, $x:pat_param, $params:pat_param, $run:pat_param| $result:expr;)*) => {
        $(impl super::Forward for cp_net::$name {
            fn forward(
                &self,
                inputs: &[&tch::Tensor],
                params: &[tch::Tensor],
                run: super::Run,
            ) -> Result<Vec<tch::Tensor>, tch::TchError> {
                let ($op, $x, $params, $run) = (self, inputs[0], params, run);
                Ok(vec![$result?])
            }
        })*
    };
}
use simple;

/// The axis of a tensor that is axis `axis` behind the batch axis.
fn dim(axis: usize) -> i64 {
    axis as i64 + 1
}

/// Axis `axis` of `x` with the positions `indices` of it, in the layout of `x` (libtorch's own would always write NCHW).
///
/// # Shapes
/// `x`: `[B, …]`; `axis`: counted with the batch axis; result: as `x`, but `indices.len()` along `axis`.
fn select(x: &Tensor, axis: usize, indices: &[usize]) -> Result<Tensor, TchError> {
    let index = Tensor::f_from_slice(&dims(indices))?.f_to_device(x.device())?;
    if !is_channels_last(x) {
        return x.f_index_select(axis as i64, &index);
    }
    let axis = match axis {
        0 => 0,
        1 => x.dim() - 1,
        spatial => spatial - 1,
    };
    channels_in_front(&channels_behind(x)?.f_index_select(axis as i64, &index)?)
}

/// The list that `f_pad` and `f_constant_pad_nd` take, which starts at the last axis, from the values before and behind each of the
/// last axes (negative ones cut off).
fn pad_list(amounts: impl DoubleEndedIterator<Item = [i64; 2]>) -> Vec<i64> {
    amounts.rev().flatten().collect()
}

/// A tensor of the kind and on the device of `like`, 1 along every axis but `axis`, counted with the batch axis.
///
/// # Shapes
/// result: `[1, …, values.len(), …, 1]`, with as many axes as `like`.
fn along(axis: usize, values: &[f64], like: &Tensor) -> Result<Tensor, TchError> {
    let mut shape = vec![1; like.dim()];
    shape[axis] = values.len() as i64;
    let values = Tensor::f_from_slice(values)?.f_reshape(shape)?;
    values.f_to_kind(like.f_kind()?)?.f_to_device(like.device())
}
