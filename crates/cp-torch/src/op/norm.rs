//! Normalizations.

use cp_net::{BatchNorm, LayerNorm, Lrn, ScaleShift};
use tch::{TchError, Tensor};

use super::{Forward, Run, simple};
use crate::convert::dims;

simple! {
    InstanceNorm: |op, x, params, _| group_norm(x, params, op.channels, op.eps);
    GroupNorm: |op, x, params, _| group_norm(x, params, op.groups, op.eps);
    LayerNorm: |op, x, params, _| layer_norm(x, params, op);
    Lrn: |op, x, _, _| lrn(x, op);
}

impl Forward for BatchNorm {
    fn forward(
        &self,
        inputs: &[&Tensor],
        params: &[Tensor],
        run: Run,
    ) -> Result<Vec<Tensor>, TchError> {
        Ok(vec![batch_norm(inputs[0], params, self, run)?])
    }

    fn frees_output(&self) -> bool {
        true
    }
}

impl Forward for ScaleShift {
    /// x · weight + bias for each channel.
    ///
    /// # Shapes
    /// `inputs`: `[B, C, …]`; `params`: weight and bias, `[C]`; result: as the input.
    fn forward(
        &self,
        inputs: &[&Tensor],
        params: &[Tensor],
        _: Run,
    ) -> Result<Vec<Tensor>, TchError> {
        let x = inputs[0];
        let mut shape = vec![1; x.dim()];
        shape[1] = -1;
        let (weight, bias) = (params[0].f_reshape(&shape)?, params[1].f_reshape(&shape)?);
        Ok(vec![bias.f_addcmul(x, &weight)?])
    }

    fn frees_output(&self) -> bool {
        true
    }
}

/// Batch normalization over all axes but the channels, (x − μ) / √(σ² + ε) · γ + β.
///
/// In training and calibration, μ and σ² are those of the batch, and the running ones move towards them (in place; the running
/// variance takes the unbiased estimate); else μ and σ² are the running ones.
///
/// # Shapes
/// `x`: `[B, C, …]`; `params`: γ, β, running mean and running variance, each `[C]`; result: as `x`.
fn batch_norm(
    x: &Tensor,
    params: &[Tensor],
    norm: &BatchNorm,
    run: Run,
) -> Result<Tensor, TchError> {
    let batch = run.train || run.calibration.is_some();
    let momentum = run.calibration.unwrap_or(norm.momentum);
    let [gamma, beta, mean, var] = [0, 1, 2, 3].map(|index| params.get(index));
    x.f_batch_norm(gamma, beta, mean, var, batch, momentum, norm.eps, true)
}

/// Normalization of each example over its spatial axes and one of `groups` parts of its channels, (x − μ) / √(σ² + ε) · γ + β; with as
/// many groups as channels it is instance normalization.
///
/// # Shapes
/// `x`: `[B, C, …]`; `params`: γ and β, each `[C]`, or none; result: as `x`.
fn group_norm(x: &Tensor, params: &[Tensor], groups: usize, eps: f64) -> Result<Tensor, TchError> {
    x.f_group_norm(groups as i64, params.first(), params.get(1), eps, true)
}

/// Normalization of the last axes together, (x − μ) / √(σ² + ε) · γ + β.
///
/// # Shapes
/// `x`: `[B, …, n₀, …]`; `params`: γ and β, each `[n₀, …]`, or γ or none; result: as `x`.
fn layer_norm(x: &Tensor, params: &[Tensor], op: &LayerNorm) -> Result<Tensor, TchError> {
    x.f_layer_norm(dims(&op.shape), params.first(), params.get(1), op.eps, true)
}

/// Local response normalization across channels, x · (k + α/n Σ_{c′} x²_{c′})^{−β}, where c′ runs over the n = `size`
/// channels from c − ⌊n/2⌋ to c + ⌊(n−1)/2⌋ that exist.
///
/// The sum is one of shifted views, which works in either layout; `torch.nn.LocalResponseNorm` pools a reshaped tensor,
/// which in channels-last costs two copies of it.
///
/// # Shapes
/// `x`: `[B, C, …]`; result: as `x`.
///
/// Reference: Krizhevsky et al. (2012), §3.3; `torch.nn.LocalResponseNorm` for α/n and for even n.
fn lrn(x: &Tensor, lrn: &Lrn) -> Result<Tensor, TchError> {
    let channels = x.size()[1];
    let (before, after) = (lrn.size / 2, lrn.size.saturating_sub(1) / 2);
    // Zeros in front of and behind the channels: the last pair of a padding list that starts at the last axis.
    let mut padding = vec![0; 2 * x.dim().saturating_sub(2)];
    padding.extend([before as i64, after as i64]);
    let squares = x.f_square()?.f_constant_pad_nd(padding)?;

    let mut sum = squares.f_narrow(1, 0, channels)?;
    for shift in 1..=(before + after) as i64 {
        sum = sum.f_add(&squares.f_narrow(1, shift, channels)?)?;
    }
    let scale = lrn.alpha / lrn.size as f64;
    let divisor = sum.f_mul_scalar(scale)?.f_add_scalar(lrn.k)?.f_pow_tensor_scalar(lrn.beta)?;
    x.f_div(&divisor)
}
