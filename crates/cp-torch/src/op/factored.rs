//! Convolutions whose parameters are factors of their kernels.

use cp_net::{CpConv, Factored, TtConv, TuckerConv, Way};
use tch::{TchError, Tensor};

use super::conv::conv;
use super::{Forward, Run};
use crate::convert::dims;

/// The convolutions of the cheapest way for this batch one after the other, with the kernels that the factors make.
///
/// # Shapes
/// `x`: `[B, S, H₀, …]`; `params`: as `op` has them; result: `[B, T, H′₀, …]`.
fn factored(op: &impl Factored, x: &Tensor, params: &[Tensor]) -> Result<Tensor, TchError> {
    let slots: Vec<&str> = op.params().iter().map(|spec| spec.slot).collect();
    let find = |slot: &str| {
        let index = slots.iter().position(|known| *known == slot);
        index.and_then(|index| params.get(index))
    };
    let size: Vec<usize> = x.size().iter().map(|&size| size as usize).collect();
    let [batch, example @ ..] = &size[..] else {
        return Err(TchError::Shape("a convolution of a number".into()));
    };
    let shape = |slot: &str| -> Vec<usize> {
        let size = find(slot).map(Tensor::size).unwrap_or_default();
        size.iter().map(|&size| size as usize).collect()
    };
    let ways = op.ways();
    let cost = |way: &&Way| way.cost(example, *batch, shape);
    let Some(way) = ways.iter().min_by_key(cost) else {
        return Err(TchError::Shape("an op without convolutions".into()));
    };
    let mut y = x.shallow_clone();
    for part in &way.parts {
        let factors: Vec<&Tensor> =
            part.kernel.slots.iter().filter_map(|slot| find(slot)).collect();
        let kernel = Tensor::f_einsum(&part.kernel.equation(), &factors, None::<&[i64]>)?;
        let kernel = kernel.f_reshape(dims(&part.conv.weight_shape()))?;
        let bias = if part.conv.bias { find("bias") } else { None };
        y = conv(&y, &kernel, bias, &part.conv)?;
    }
    Ok(y)
}

macro_rules! forward {
    ($($name:ident)*) => {
        $(impl Forward for $name {
            fn forward(
                &self,
                inputs: &[&Tensor],
                params: &[Tensor],
                _: Run,
            ) -> Result<Vec<Tensor>, TchError> {
                Ok(vec![factored(self, inputs[0], params)?])
            }

            fn frees_output(&self) -> bool {
                true
            }
        })*
    };
}

forward!(CpConv TtConv TuckerConv);
