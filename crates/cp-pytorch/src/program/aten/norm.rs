//! Normalizations, as they are in evaluation mode.

use cp_net::{BatchNorm, GroupNorm, InstanceNorm, LayerNorm};
use ndarray::{ArrayD, IxDyn};

use crate::program::call::{Call, Fail, Weight, because};

const TRAINING: &str = "it computes with the statistics of the batch: export the model in evaluation mode (model.eval())";

/// The weight, or `value` everywhere where there is none.
fn or_filled(weight: Option<Weight>, channels: usize, value: f32) -> Weight {
    let filled = || Weight { name: None, array: ArrayD::from_elem(IxDyn(&[channels]), value) };
    weight.unwrap_or_else(filled)
}

/// `batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps, …)`.
pub(super) fn batch_norm(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("input")?;
    let (weight, bias) = (call.weight("weight")?, call.weight("bias")?);
    call.ignore(&["cudnn_enabled"]);
    let training = call.flag("training")?;
    let (Some(mean), Some(var), false) =
        (call.weight("running_mean")?, call.weight("running_var")?, training)
    else {
        return because(TRAINING);
    };
    let channels = mean.array.len();
    let norm = BatchNorm {
        channels,
        eps: call.float("eps")?.unwrap_or(1e-5),
        momentum: call.float("momentum")?.unwrap_or(0.1),
    };
    let params = vec![
        ("weight", or_filled(weight, channels, 1.0)),
        ("bias", or_filled(bias, channels, 0.0)),
        ("running_mean", mean),
        ("running_var", var),
    ];
    call.layer(norm, input.value, params)
}

/// `layer_norm(input, normalized_shape, weight, bias, eps, …)`.
pub(super) fn layer_norm(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("input")?;
    let shape = call.sizes("normalized_shape")?;
    call.ignore(&["cudnn_enable"]);
    if shape.len() >= input.shape.len() {
        return because("it normalizes the batch axis");
    }
    let eps = call.float("eps")?.unwrap_or(1e-5);
    let (weight, bias) = (call.weight("weight")?, call.weight("bias")?);
    let weight = match (weight, &bias) {
        (None, Some(_)) => Some(Weight { name: None, array: ArrayD::ones(IxDyn(&shape)) }),
        (weight, _) => weight,
    };
    let norm = LayerNorm { shape, eps, affine: weight.is_some(), bias: bias.is_some() };
    let params = [weight.map(|weight| ("weight", weight)), bias.map(|bias| ("bias", bias))];
    call.layer(norm, input.value, params.into_iter().flatten().collect())
}

/// `group_norm(input, num_groups, weight, bias, eps, …)`, or `native_group_norm(input, weight, bias, N, C, HxW, group, eps)`.
pub(super) fn group_norm(call: &mut Call<'_, '_>, groups: &str) -> Result<(), Fail> {
    let input = call.tensor("input")?;
    // Sizes of the input, of which N is dynamic.
    call.ignore(&["N", "C", "HxW", "cudnn_enabled"]);
    let channels = input.shape.get(1).copied().unwrap_or(0);
    let Some(groups) = call.int(groups)?.and_then(|groups| usize::try_from(groups).ok()) else {
        return because("it has no number of groups");
    };
    let eps = call.float("eps")?.unwrap_or(1e-5);
    let params = affine(call, channels)?;
    let norm = GroupNorm { groups, channels, eps, affine: !params.is_empty() };
    call.layer(norm, input.value, params)
}

/// `instance_norm(input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, …)`.
pub(super) fn instance_norm(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("input")?;
    call.ignore(&["momentum", "cudnn_enabled", "running_mean", "running_var"]);
    if !call.flag("use_input_stats")? {
        return because("it normalizes by running statistics, which only batch norms do here");
    }
    let channels = input.shape.get(1).copied().unwrap_or(0);
    let eps = call.float("eps")?.unwrap_or(1e-5);
    let params = affine(call, channels)?;
    let norm = InstanceNorm { channels, eps, affine: !params.is_empty() };
    call.layer(norm, input.value, params)
}

/// Scale and shift of every channel: both or none.
fn affine(call: &mut Call<'_, '_>, channels: usize) -> Result<Vec<(&'static str, Weight)>, Fail> {
    Ok(match (call.weight("weight")?, call.weight("bias")?) {
        (None, None) => Vec::new(),
        (weight, bias) => vec![
            ("weight", or_filled(weight, channels, 1.0)),
            ("bias", or_filled(bias, channels, 0.0)),
        ],
    })
}
