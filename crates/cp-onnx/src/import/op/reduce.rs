//! Reductions of axes.

use cp_net::{Log, Mul, Reduce, Reduction};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::value::Value;

/// The axes are an attribute before opset 13 (sums) or 18 (others), an input from then on; all of them where there are none.
pub(super) fn reduce(call: &mut Call<'_, '_>) -> Outcome {
    let keep = call.attributes.int("keepdims", 1) != 0;
    let nothing = call.attributes.flag("noop_with_empty_axes");
    let axes = call.ints(1, "axes")?.filter(|axes| !axes.is_empty());
    let x = call.float_map(0)?;
    let Some(axes) = axes else {
        return match nothing {
            true => Ok(vec![Value::Map(x)]),
            false => Refusal::batch("it reduces"),
        };
    };
    let mut inner = Vec::new();
    for axis in axes {
        let axis = x.inner(axis, "it reduces")?;
        if !inner.contains(&axis) {
            inner.push(axis);
        }
    }
    let gone = inner.iter().filter(|&&axis| x.outer(axis) < x.batch).count();
    let batch = if keep { x.batch } else { x.batch - gone };
    let function = match call.op.as_str() {
        "ReduceMean" => Reduction::Mean,
        "ReduceMax" => Reduction::Max,
        "ReduceMin" => Reduction::Min,
        "ReduceProd" => Reduction::Prod,
        "ReduceL1" => Reduction::L1,
        "ReduceL2" => Reduction::L2,
        _ => Reduction::Sum,
    };
    let op = Reduce { function, axes: inner, keep };
    let map = match call.op.as_str() {
        "ReduceSumSquare" => {
            let squares = call.part("squares", Mul {}, &[&x, &x], Vec::new(), x.batch)?;
            call.last(op, &[&squares], Vec::new(), batch)?
        }
        "ReduceLogSum" => {
            let sum = call.part("sum", op, &[&x], Vec::new(), batch)?;
            call.last(Log {}, &[&sum], Vec::new(), batch)?
        }
        _ => call.last(op, &[&x], Vec::new(), batch)?,
    };
    Ok(vec![Value::Map(map)])
}
