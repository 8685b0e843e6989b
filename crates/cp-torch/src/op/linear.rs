//! Products of matrices.

use tch::{TchError, Tensor};

use super::binary::aligned;
use super::{Forward, Run};

/// x Wᵀ + b over the last axis.
///
/// # Shapes
/// `x`: `[B, …, in]`; `weight`: `[out, in]`; `bias`: `[out]`; result: `[B, …, out]`.
pub(crate) fn linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    x.f_linear(weight, bias)
}

impl Forward for cp_net::Linear {
    fn forward(
        &self,
        inputs: &[&Tensor],
        params: &[Tensor],
        _: Run,
    ) -> Result<Vec<Tensor>, TchError> {
        Ok(vec![linear(inputs[0], &params[0], params.get(1))?])
    }

    fn frees_output(&self) -> bool {
        true
    }
}

impl Forward for cp_net::MatMul {
    /// # Shapes
    /// `inputs`: `[B, …, M, K]` and `[B, …, K, N]`; result: `[B, …, M, N]`.
    fn forward(&self, inputs: &[&Tensor], _: &[Tensor], _: Run) -> Result<Vec<Tensor>, TchError> {
        let inputs = aligned(inputs)?;
        Ok(vec![inputs[0].f_matmul(&inputs[1])?])
    }
}
