//! Functions of single values, softmax, dropout.

use cp_net::{
    Abs, Clip, Dropout, Elu, Erf, Exp, Floor, Gelu, HardSigmoid, HardSwish, LeakyRelu, Log,
    LogSoftmax, Mish, Neg, Op, PRelu, Reciprocal, Relu, Sigmoid, Silu, Softmax, Softplus, Sqrt,
    Tanh,
};

use crate::program::call::{Call, Fail, because};

/// An operation of one value.
pub(super) fn activation(call: &mut Call<'_, '_>, name: &str) -> Result<(), Fail> {
    let one = |value: Option<f64>| value.is_none_or(|value| (value - 1.0).abs() == 0.0);
    let op: Op = match name {
        "relu" => Relu {}.into(),
        "sigmoid" => Sigmoid {}.into(),
        "tanh" => Tanh {}.into(),
        "silu" => Silu {}.into(),
        "mish" => Mish {}.into(),
        "hardswish" => HardSwish {}.into(),
        "hardsigmoid" => HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }.into(),
        "exp" => Exp {}.into(),
        "log" => Log {}.into(),
        "sqrt" => Sqrt {}.into(),
        "abs" => Abs {}.into(),
        "neg" => Neg {}.into(),
        "erf" => Erf {}.into(),
        "floor" => Floor {}.into(),
        "reciprocal" => Reciprocal {}.into(),
        "relu6" => clip(Some(0.0), Some(6.0))?,
        "hardtanh" => {
            let bounds = (call.float("min_val")?, call.float("max_val")?);
            clip(bounds.0.or(Some(-1.0)), bounds.1.or(Some(1.0)))?
        }
        "clamp" | "clip" => clip(call.float("min")?, call.float("max")?)?,
        "clamp_min" => clip(call.float("min")?, None)?,
        "clamp_max" => clip(None, call.float("max")?)?,
        "gelu" => match call.text("approximate")? {
            None | Some("none") => Gelu { tanh: false }.into(),
            Some("tanh") => Gelu { tanh: true }.into(),
            Some(other) => return because(format!("its approximation '{other}' is not known")),
        },
        "leaky_relu" => LeakyRelu { slope: call.float("negative_slope")?.unwrap_or(0.01) }.into(),
        "elu" => {
            let alpha = call.float("alpha")?.unwrap_or(1.0);
            if !one(call.float("scale")?) || !one(call.float("input_scale")?) {
                return because("its scales are not 1");
            }
            Elu { alpha }.into()
        }
        "softplus" => {
            // Above the threshold, 20, it is x itself, which differs by 2e-9.
            call.ignore(&["threshold"]);
            if !one(call.float("beta")?) {
                return because("its 'beta' is not 1");
            }
            Softplus {}.into()
        }
        "softmax" | "_softmax" | "log_softmax" | "_log_softmax" => return softmax(call, name),
        "prelu" | "_prelu_kernel" => return prelu(call),
        "rsqrt" => {
            let input = call.tensor("self")?;
            let root = call.step(Sqrt {}, vec![input.value]);
            return call.emit(Reciprocal {}, vec![root]);
        }
        _ => return because("is not supported"),
    };
    let input = call.tensor("self")?;
    call.emit(op, vec![input.value])
}

/// A bound that is infinite is none.
fn clip(min: Option<f64>, max: Option<f64>) -> Result<Op, Fail> {
    let finite = |bound: &f64| bound.is_finite();
    match (min.filter(finite), max.filter(finite)) {
        (None, None) => because("it has no bounds"),
        (min, max) => Ok(Clip { min, max }.into()),
    }
}

/// `softmax(self, dim, dtype)`.
fn softmax(call: &mut Call<'_, '_>, name: &str) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let axis = call.axis("dim", -1, &input.shape)?;
    call.ignore(&["dtype", "half_to_float"]);
    if name.contains("log") {
        call.emit(LogSoftmax { axis }, vec![input.value])
    } else {
        call.emit(Softmax { axis }, vec![input.value])
    }
}

/// `prelu(self, weight)`: one slope, or one for each channel.
fn prelu(call: &mut Call<'_, '_>) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let Some(mut weight) = call.weight("weight")? else { return because("it has no weight") };
    let channels = weight.array.len();
    if weight.array.ndim() != 1 {
        // `_prelu_kernel` has it with an axis for each of the input's.
        let flat = weight.array.into_shape_with_order(ndarray::IxDyn(&[channels]));
        let Ok(array) = flat else { return because("its weight is no row of slopes") };
        weight.array = array;
    }
    call.layer(PRelu { channels }, input.value, vec![("weight", weight)])
}

/// `dropout(input, p, train)`: outside training it gives what it gets.
pub(super) fn dropout(call: &mut Call<'_, '_>, name: &str) -> Result<(), Fail> {
    let p = call.float("p")?.unwrap_or(0.5);
    if call.flag("train")? {
        return because("it drops values: export the model in evaluation mode (model.eval())");
    }
    if name != "dropout" || !(0.0..1.0).contains(&p) || p == 0.0 {
        return call.alias("input", false);
    }
    let input = call.tensor("input")?;
    call.share("input");
    call.emit(Dropout { p }, vec![input.value])
}
