//! Ops that treat every value alike.

use cp_net::{
    Abs, Add, Clip, Div, Dropout, Elu, Erf, Exp, Floor, Gelu, HardSigmoid, HardSwish, LeakyRelu,
    Log, Mish, Mul, Neg, Op, PRelu, Reciprocal, Relu, Sigmoid, Silu, Softplus, Sqrt, Tanh,
};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::op::arithmetic::behind_batch;
use crate::import::value::{Map, Value};

/// Ops without settings.
pub(super) fn plain(call: &mut Call<'_, '_>) -> Outcome {
    let op: Op = match call.op.as_str() {
        "Abs" => Abs {}.into(),
        "Erf" => Erf {}.into(),
        "Exp" => Exp {}.into(),
        "Floor" => Floor {}.into(),
        "HardSwish" => HardSwish {}.into(),
        "Log" => Log {}.into(),
        "Mish" => Mish {}.into(),
        "Neg" => Neg {}.into(),
        "Reciprocal" => Reciprocal {}.into(),
        "Relu" => Relu {}.into(),
        "Sigmoid" => Sigmoid {}.into(),
        "Softplus" => Softplus {}.into(),
        "Sqrt" => Sqrt {}.into(),
        "Tanh" => Tanh {}.into(),
        _ => return Err(Refusal::Op),
    };
    old(call);
    call.simple(op)
}

/// Before opset 6 ops said what they overwrite.
fn old(call: &Call<'_, '_>) {
    call.attributes.take("consumed_inputs");
}

/// −⌊−x⌋.
pub(super) fn ceil(call: &mut Call<'_, '_>) -> Outcome {
    let x = call.float_map(0)?;
    let negative = call.part("negative", Neg {}, &[&x], Vec::new(), x.batch)?;
    let floor = call.part("floor", Floor {}, &[&negative], Vec::new(), x.batch)?;
    Ok(vec![Value::Map(call.last(Neg {}, &[&floor], Vec::new(), x.batch)?)])
}

/// x where it is positive, else α (eˣᐟᵅ − 1): α times ELU of x / α.
pub(super) fn celu(call: &mut Call<'_, '_>) -> Outcome {
    let alpha = call.attributes.float("alpha", 1.0);
    if alpha == 0.0 {
        return Refusal::setting("alpha", alpha, "a number other than 0");
    }
    let x = call.float_map(0)?;
    let by = call.number("inverse", 1.0 / alpha)?;
    let scaled = call.part("scaled", Mul {}, &[&x, &by], Vec::new(), x.batch)?;
    let elu = call.part("elu", Elu { alpha: 1.0 }, &[&scaled], Vec::new(), x.batch)?;
    let by = call.number("alpha", alpha)?;
    Ok(vec![Value::Map(call.last(Mul {}, &[&elu, &by], Vec::new(), x.batch)?)])
}

/// Bounds are attributes before opset 11, inputs from then on.
pub(super) fn clip(call: &mut Call<'_, '_>) -> Outcome {
    old(call);
    let mut bounds = [None; 2];
    for (index, name) in ["min", "max"].into_iter().enumerate() {
        let attribute = call.attributes.float(name, f64::NAN);
        bounds[index] = if attribute.is_nan() {
            call.known(index + 1, name)?.map(|known| known.scalar(name)).transpose()?
        } else {
            Some(attribute)
        };
    }
    // The least and the largest number bound nothing.
    let most = f64::from(f32::MAX);
    let [min, max] = [bounds[0].filter(|min| *min > -most), bounds[1].filter(|max| *max < most)];
    // The upper bound counts where they are exchanged.
    let min = min.map(|min| max.map_or(min, |max| min.min(max)));
    match (bounds[0], max) {
        (Some(least), Some(max)) if least > max => {
            call.simple(Clip { min: Some(max), max: Some(max) })
        }
        _ if min.is_none() && max.is_none() => Ok(vec![Value::Map(call.float_map(0)?)]),
        _ => call.simple(Clip { min, max }),
    }
}

/// Whatever the mask is, it is nothing outside of training.
pub(super) fn dropout(call: &mut Call<'_, '_>) -> Outcome {
    old(call);
    call.attributes.take("seed");
    call.attributes.take("is_test");
    let ratio = call.known(1, "ratio")?.map(|ratio| ratio.scalar("ratio")).transpose()?;
    let p = ratio.unwrap_or(call.attributes.float("ratio", 0.5));
    if call.known(2, "training_mode")?.is_some_and(|mode| mode.scalar("training_mode") != Ok(0.0)) {
        return Refusal::form("training");
    }
    let map = call.map(0)?;
    if p == 0.0 {
        return Ok(vec![Value::Map(map), Value::Unknown]);
    }
    let batch = map.batch;
    let dropped = call.last(Dropout { p }, &[&map], Vec::new(), batch)?;
    Ok(vec![Value::Map(dropped), Value::Unknown])
}

pub(super) fn elu(call: &mut Call<'_, '_>) -> Outcome {
    old(call);
    let alpha = call.attributes.float("alpha", 1.0);
    call.simple(Elu { alpha })
}

pub(super) fn gelu(call: &mut Call<'_, '_>) -> Outcome {
    let approximate = call.attributes.string("approximate", "none");
    match approximate.as_str() {
        "none" => call.simple(Gelu { tanh: false }),
        "tanh" => call.simple(Gelu { tanh: true }),
        _ => Refusal::setting("approximate", approximate, "none or tanh"),
    }
}

pub(super) fn hard_sigmoid(call: &mut Call<'_, '_>) -> Outcome {
    old(call);
    let alpha = call.attributes.float("alpha", 0.2);
    let beta = call.attributes.float("beta", 0.5);
    call.simple(HardSigmoid { alpha, beta })
}

pub(super) fn leaky_relu(call: &mut Call<'_, '_>) -> Outcome {
    old(call);
    let slope = call.attributes.float("alpha", 0.01);
    call.simple(LeakyRelu { slope })
}

/// γ times ELU.
pub(super) fn selu(call: &mut Call<'_, '_>) -> Outcome {
    old(call);
    // Before opset 6 the defaults had fewer digits.
    let alpha = call.attributes.float("alpha", 1.673_263_192_176_818_8);
    let gamma = call.attributes.float("gamma", 1.050_701_022_148_132_3);
    let x = call.float_map(0)?;
    let elu = call.part("elu", Elu { alpha }, &[&x], Vec::new(), x.batch)?;
    let by = call.number("gamma", gamma)?;
    Ok(vec![Value::Map(call.last(Mul {}, &[&elu, &by], Vec::new(), x.batch)?)])
}

/// x / (1 + |x|).
pub(super) fn softsign(call: &mut Call<'_, '_>) -> Outcome {
    let x = call.float_map(0)?;
    let size = call.part("abs", Abs {}, &[&x], Vec::new(), x.batch)?;
    let one = call.number("one", 1.0)?;
    let divisor = call.part("divisor", Add {}, &[&size, &one], Vec::new(), x.batch)?;
    Ok(vec![Value::Map(call.last(Div {}, &[&x, &divisor], Vec::new(), x.batch)?)])
}

/// x times the sigmoid of α x.
pub(super) fn swish(call: &mut Call<'_, '_>) -> Outcome {
    let alpha = call.attributes.float("alpha", 1.0);
    if alpha.to_bits() == 1.0_f64.to_bits() {
        return call.simple(Silu {});
    }
    let x = call.float_map(0)?;
    let by = call.number("alpha", alpha)?;
    let scaled = call.part("scaled", Mul {}, &[&x, &by], Vec::new(), x.batch)?;
    let gate = call.part("sigmoid", Sigmoid {}, &[&scaled], Vec::new(), x.batch)?;
    Ok(vec![Value::Map(call.last(Mul {}, &[&x, &gate], Vec::new(), x.batch)?)])
}

/// A slope for each channel or one for all is the network's own op; other shapes are max(x, 0) + slope · min(x, 0).
pub(super) fn prelu(call: &mut Call<'_, '_>) -> Outcome {
    old(call);
    let x = call.float_map(0)?;
    let slope = call.constant(1, "slope")?;
    let count = slope.floats("slope")?.len();
    // Before opset 7 a vector stood for the channels.
    let channels = call.opset < 7 && slope.data.shape().len() == 1;
    let inner =
        if channels { slope.data.shape().to_vec() } else { behind_batch(slope.data.shape(), &x)? };
    let per_channel =
        channels || inner.len() == x.shape.len() && inner.iter().skip(1).all(|size| *size == 1);
    if count == 1 || per_channel && x.shape.first() == Some(&count) {
        let weight = call.reshaped(&slope, &[count])?;
        let op = PRelu { channels: count };
        return Ok(vec![Value::Map(call.last(op, &[&x], vec![("weight", weight)], x.batch)?)]);
    }
    let inner = call.reshaped(&slope, &inner)?;
    let slope: Map = call.net.constant(&inner, x.batch)?;
    let positive = call.part("positive", Relu {}, &[&x], Vec::new(), x.batch)?;
    let below = Clip { min: None, max: Some(0.0) };
    let negative = call.part("negative", below, &[&x], Vec::new(), x.batch)?;
    let scaled = call.part("scaled", Mul {}, &[&negative, &slope], Vec::new(), x.batch)?;
    if scaled.shape != x.shape {
        return Refusal::setting("slope", inner.data.shape(), "a shape that x is not repeated for");
    }
    Ok(vec![Value::Map(call.last(Add {}, &[&positive, &scaled], Vec::new(), x.batch)?)])
}
