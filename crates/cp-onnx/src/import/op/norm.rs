//! Normalizations.

use cp_net::{
    Add, BatchNorm, GroupNorm, InstanceNorm, LayerNorm, Lrn, Mul, Reciprocal, Reduce, Reduction,
    Sqrt, Sub,
};
use ndarray::IxDyn;

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::value::{Data, Known, Value, position};

/// Weight and bias of one value a channel.
fn affine(call: &Call<'_, '_>) -> Result<Vec<(&'static str, Known)>, Refusal> {
    Ok(vec![("weight", call.constant(1, "scale")?), ("bias", call.constant(2, "bias")?)])
}

/// In evaluation, with the running statistics. The file's momentum is the share that the statistics keep.
pub(super) fn batch(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("consumed_inputs");
    call.attributes.take("is_test");
    if call.attributes.flag("training_mode") {
        return Refusal::form("training");
    }
    if call.attributes.int("spatial", 1) != 1 {
        return Refusal::form("statistics for each position (spatial = 0)");
    }
    let eps = call.attributes.float("epsilon", 1e-5);
    let momentum = (1.0 - call.attributes.float("momentum", 0.9)).clamp(0.0, 1.0);
    let x = call.layer_input()?;
    let mut params = affine(call)?;
    params.push(("running_mean", call.constant(3, "mean")?));
    params.push(("running_var", call.constant(4, "variance")?));
    let channels = x.shape.first().copied().unwrap_or(0);
    let map = call.last(BatchNorm { channels, eps, momentum }, &[&x], params, 0)?;
    Ok(vec![Value::Map(map)])
}

pub(super) fn instance(call: &mut Call<'_, '_>) -> Outcome {
    call.attributes.take("consumed_inputs");
    let eps = call.attributes.float("epsilon", 1e-5);
    let x = call.layer_input()?;
    let params = affine(call)?;
    let channels = x.shape.first().copied().unwrap_or(0);
    let op = InstanceNorm { channels, eps, affine: true };
    Ok(vec![Value::Map(call.last(op, &[&x], params, 0)?)])
}

/// Before opset 21 there is one scale for each group.
pub(super) fn group(call: &mut Call<'_, '_>) -> Outcome {
    let eps = call.attributes.float("epsilon", 1e-5);
    call.attributes.take("stash_type");
    let given = call.attributes.int("num_groups", 0);
    let x = call.layer_input()?;
    let channels = x.shape.first().copied().unwrap_or(0);
    let Some(groups) =
        usize::try_from(given).ok().filter(|&groups| groups > 0 && channels.is_multiple_of(groups))
    else {
        return Refusal::setting("num_groups", given, format!("a divisor of {channels} channels"));
    };
    let mut params = affine(call)?;
    for (slot, known) in &mut params {
        let values = known.floats(slot)?;
        if call.opset < 21 && values.len() == groups && groups != channels {
            let members = channels / groups;
            let spread = ndarray::ArrayD::from_shape_fn(IxDyn(&[channels]), |at| {
                values.iter().nth(at[0] / members).copied().unwrap_or(0.0)
            });
            *known = Known::new(&known.name, Data::Floats(spread.into_shared()));
        }
    }
    let op = GroupNorm { groups, channels, eps, affine: true };
    Ok(vec![Value::Map(call.last(op, &[&x], params, 0)?)])
}

/// Over the axes from `axis` on; mean and 1 / √(σ² + ε), which few graphs read, are nodes of their own.
pub(super) fn layer(call: &mut Call<'_, '_>) -> Outcome {
    let eps = call.attributes.float("epsilon", 1e-5);
    call.attributes.take("stash_type");
    let axis = call.attributes.int("axis", -1);
    let x = call.float_map(0)?;
    let first = position(axis, x.rank())?;
    if first <= x.batch {
        return Refusal::batch("it normalizes over");
    }
    let shape = x.shape[first - 1..].to_vec();
    let given = |call: &Call<'_, '_>, slot, what| -> Result<Option<Known>, Refusal> {
        let Some(known) = call.known(slot, what)? else { return Ok(None) };
        let floats = known.floats(what)?;
        if floats.len() == shape.iter().product::<usize>() {
            return call.reshaped(&known, &shape).map(Some);
        }
        match floats.broadcast(IxDyn(&shape)) {
            Some(spread) => {
                Ok(Some(Known::new(&known.name, Data::Floats(spread.to_owned().into_shared()))))
            }
            None => {
                Refusal::setting(what, floats.shape(), format!("a shape that goes with {shape:?}"))
            }
        }
    };
    let (weight, bias) = (given(call, 1, "scale")?, given(call, 2, "bias")?);
    let op =
        LayerNorm { shape: shape.clone(), eps, affine: weight.is_some(), bias: bias.is_some() };
    if bias.is_some() && weight.is_none() {
        return Refusal::form("a bias without a scale");
    }
    let mut params: Vec<(&'static str, Known)> = Vec::new();
    params.extend(weight.map(|weight| ("weight", weight)));
    params.extend(bias.map(|bias| ("bias", bias)));
    let y = call.last(op, &[&x], params, x.batch)?;
    if call.outputs.iter().skip(1).all(String::is_empty) {
        return Ok(vec![Value::Map(y)]);
    }
    let axes: Vec<usize> = (first - 1..x.shape.len()).collect();
    let reduce = Reduce { function: Reduction::Mean, axes, keep: true };
    let mean = call.part("mean", reduce.clone(), &[&x], Vec::new(), x.batch)?;
    let centered = call.part("centered", Sub {}, &[&x, &mean], Vec::new(), x.batch)?;
    let squares = call.part("squares", Mul {}, &[&centered, &centered], Vec::new(), x.batch)?;
    let variance = call.part("variance", reduce, &[&squares], Vec::new(), x.batch)?;
    let eps = call.number("eps", eps)?;
    let sum = call.part("sum", Add {}, &[&variance, &eps], Vec::new(), x.batch)?;
    let deviation = call.part("deviation", Sqrt {}, &[&sum], Vec::new(), x.batch)?;
    let inverse = call.part("inverse", Reciprocal {}, &[&deviation], Vec::new(), x.batch)?;
    Ok(vec![Value::Map(y), Value::Map(mean), Value::Map(inverse)])
}

/// The file's window has its larger half behind the channel, the network's in front: an even one differs.
pub(super) fn local_response(call: &mut Call<'_, '_>) -> Outcome {
    let size = call.attributes.int("size", 0);
    let op = Lrn {
        size: usize::try_from(size).unwrap_or(0),
        alpha: call.attributes.float("alpha", 1e-4),
        beta: call.attributes.float("beta", 0.75),
        k: call.attributes.float("bias", 1.0),
    };
    if size % 2 == 0 {
        return Refusal::form("a window of an even number of channels");
    }
    let x = call.layer_input()?;
    Ok(vec![Value::Map(call.last(op, &[&x], Vec::new(), 0)?)])
}
