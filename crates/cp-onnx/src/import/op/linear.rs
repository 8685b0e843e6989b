//! Products with matrices.

use cp_net::{Add, Linear, MatMul, Mul, Squeeze};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::op::arithmetic::aligned;
use crate::import::op::layout::transposed;
use crate::import::source::Step;
use crate::import::value::{Data, Known, Map, Value};

/// `x` times a constant weight, over the last axis.
fn linear(
    call: &mut Call<'_, '_>,
    x: &Map,
    weight: Known,
    bias: Option<Known>,
    last: bool,
) -> Result<Map, Refusal> {
    if x.batch + 1 == x.rank() {
        return Refusal::batch("it sums over");
    }
    let shape = weight.floats("weight")?.shape().to_vec();
    let op = Linear { in_features: shape[1], out_features: shape[0], bias: bias.is_some() };
    let mut params = vec![("weight", weight)];
    params.extend(bias.map(|bias| ("bias", bias)));
    let map = match last {
        true => call.last(op, &[x], params, x.batch)?,
        false => call.part("product", op, &[x], params, x.batch)?,
    };
    call.kernel = call.net.nodes.last().map(|node| node.param("weight"));
    Ok(map)
}

fn is_one(number: f64) -> bool {
    number.to_bits() == 1.0_f64.to_bits()
}

/// `known` times a number, where that is not 1.
fn scaled(known: &Known, by: f64) -> Result<Known, Refusal> {
    let by = by as f32;
    if is_one(f64::from(by)) {
        return Ok(known.clone());
    }
    let array = known.floats("constant")?.mapv(|value| value * by).into_shared();
    let source = known.source.as_ref().map(|source| source.then(Step::Scale(by.to_bits())));
    Ok(Known { name: known.name.clone(), data: Data::Floats(array), source })
}

/// α A B + β C, where A and B may be transposed. The weight stays as it is, so that it is the kernel of the file's layer: a product with
/// α is a node of its own.
pub(super) fn gemm(call: &mut Call<'_, '_>) -> Outcome {
    let alpha = call.attributes.float("alpha", 1.0);
    let beta = call.attributes.float("beta", 1.0);
    let [turn_a, turn_b] = ["transA", "transB"].map(|name| call.attributes.flag(name));
    call.attributes.take("broadcast");
    let mut x = call.float_map(0)?;
    if x.rank() != 2 {
        let (shape, expected) = (x.shape.clone(), "one axis behind the batch's".into());
        return Err(Refusal::Shape { input: 0, shape, expected });
    }
    if turn_a {
        x = transposed(call, &x, &[1, 0], false)?;
    }
    let weight = call.constant(1, "weight")?;
    if weight.data.shape().len() != 2 {
        return Refusal::setting("weight", weight.data.shape(), "a matrix");
    }
    let weight = if turn_b { weight } else { call.turned(&weight)? };
    let features = weight.data.shape()[0];
    let bias = if beta == 0.0 { None } else { call.input(2).cloned() };
    let direct = match &bias {
        None => Some(None),
        // One value for each feature, or a row of them.
        Some(Value::Known(known)) if is_one(alpha) => {
            let shape = known.data.shape();
            let row = matches!(shape, [size] | [1, size] if *size == features);
            if row { Some(Some(scaled(&call.reshaped(known, &[features])?, beta)?)) } else { None }
        }
        Some(_) => None,
    };
    if is_one(alpha)
        && let Some(bias) = direct
    {
        return Ok(vec![Value::Map(linear(call, &x, weight, bias, true)?)]);
    }
    let mut y = linear(call, &x, weight, None, false)?;
    if !is_one(alpha) {
        let by = call.number("alpha", alpha)?;
        y = match bias {
            None => {
                return Ok(vec![Value::Map(call.last(Mul {}, &[&y, &by], Vec::new(), y.batch)?)]);
            }
            Some(_) => call.part("scaled", Mul {}, &[&y, &by], Vec::new(), y.batch)?,
        };
    }
    let Some(bias) = bias else { return Ok(vec![Value::Map(y)]) };
    let bias = match bias {
        Value::Known(known) => Value::Known(scaled(&known, beta)?),
        Value::Map(map) if !is_one(beta) => {
            let by = call.number("beta", beta)?;
            Value::Map(call.part("bias", Mul {}, &[&map, &by], Vec::new(), map.batch)?)
        }
        other => other,
    };
    let (maps, batch) = aligned(call, &[Value::Map(y), bias])?;
    Ok(vec![Value::Map(call.last(Add {}, &[&maps[0], &maps[1]], Vec::new(), batch)?)])
}

/// A product with a constant matrix on the right is a linear layer over the last axis; others are products of two values.
pub(super) fn matmul(call: &mut Call<'_, '_>) -> Outcome {
    let [a, b] = match &call.inputs[..] {
        [a, b] => [a.clone(), b.clone()],
        inputs => return Refusal::setting("inputs", inputs.len(), "2"),
    };
    if let (Value::Map(_), Value::Known(weight)) = (&a, &b)
        && weight.data.shape().len() == 2
    {
        let x = call.float_map(0)?;
        let weight = call.turned(weight)?;
        return Ok(vec![Value::Map(linear(call, &x, weight, None, true)?)]);
    }
    if let (Value::Map(_), Value::Known(vector)) = (&a, &b)
        && let &[size] = vector.data.shape()
    {
        // A column, whose axis goes again.
        let x = call.float_map(0)?;
        if x.batch + 2 >= x.rank() {
            return Refusal::batch("one of its matrices lies along");
        }
        let column = call.reshaped(vector, &[size, 1])?;
        let column = call.net.constant(&column, 0)?;
        let product = call.part("product", MatMul {}, &[&x, &column], Vec::new(), x.batch)?;
        let axes = vec![product.shape.len().saturating_sub(1)];
        let map = call.last(Squeeze { axes }, &[&product], Vec::new(), x.batch)?;
        return Ok(vec![Value::Map(map)]);
    }
    let rank = |value: &Value| match value {
        Value::Map(map) => map.rank(),
        Value::Known(known) => known.data.shape().len(),
        _ => 0,
    };
    if rank(&a) < 2 || rank(&b) < 2 {
        return Refusal::form("a product with a vector");
    }
    for value in [&a, &b] {
        if let Value::Map(map) = value
            && map.batch + 2 >= map.rank()
        {
            return Refusal::batch("one of its matrices lies along");
        }
    }
    let (maps, batch) = aligned(call, &[a, b])?;
    Ok(vec![Value::Map(call.last(MatMul {}, &[&maps[0], &maps[1]], Vec::new(), batch)?)])
}
