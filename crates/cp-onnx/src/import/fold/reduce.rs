//! Reductions of constants: one number of all values along some axes.

use ndarray::{Axis, IxDyn};

use crate::import::call::{Call, Outcome};
use crate::import::error::Refusal;
use crate::import::fold::elementwise::known;
use crate::import::fold::made;
use crate::import::value::{Data, Num, position};

pub(super) fn reduce(call: &mut Call<'_, '_>) -> Outcome {
    let keep = call.attributes.int("keepdims", 1) != 0;
    let nothing = call.attributes.flag("noop_with_empty_axes");
    let axes = call.ints(1, "axes")?.filter(|axes| !axes.is_empty());
    let data = known(call, 0)?.data.clone();
    let rank = data.shape().len();
    let mut axes = match axes {
        Some(axes) => {
            axes.into_iter().map(|axis| position(axis, rank)).collect::<Result<Vec<usize>, _>>()?
        }
        None if nothing => return made(call, data),
        None => (0..rank).collect(),
    };
    axes.sort_unstable();
    axes.dedup();
    call.allow(data.shape())?;
    let op = call.op.clone();
    let count: usize = axes.iter().map(|&axis| data.shape()[axis]).product();
    let shape: Vec<usize> = data.shape().to_vec();
    let data = match data {
        Data::Floats(array) => {
            let mut array = array.mapv(f64::from).into_owned();
            for &axis in axes.iter().rev() {
                array = array.fold_axis(Axis(axis), start(&op), |&all, &value| match op.as_str() {
                    "ReduceMax" => f64::max(all, value),
                    "ReduceMin" => f64::min(all, value),
                    "ReduceProd" => all * value,
                    _ => all + value,
                });
            }
            let by = if op == "ReduceMean" { count as f64 } else { 1.0 };
            Data::Floats(array.mapv(|value| (value / by) as f32).into_shared())
        }
        Data::Ints(array) => {
            let mut array = array.mapv(Some);
            for &axis in axes.iter().rev() {
                if array.shape()[axis] == 0 {
                    return Refusal::form("a reduction of nothing");
                }
                let first = array.index_axis(Axis(axis), 0).to_owned();
                let rest = array.slice_axis(Axis(axis), (1..).into());
                let mut all = first;
                for next in rest.axis_iter(Axis(axis)) {
                    all.zip_mut_with(&next, |all, next| {
                        *all = all.zip(*next).and_then(|(a, b)| joined(&op, a, b));
                    });
                }
                array = all;
            }
            let values: Option<Vec<Num>> = array.iter().copied().collect();
            match values
                .and_then(|values| ndarray::ArrayD::from_shape_vec(array.raw_dim(), values).ok())
            {
                Some(array) => Data::Ints(array),
                None => return Refusal::form("this reduction of sizes that hang on the batch"),
            }
        }
        Data::Bools(_) => return Refusal::form("a reduction of truth values"),
    };
    if !keep {
        return made(call, data);
    }
    let kept: Vec<usize> =
        (0..rank).map(|axis| if axes.contains(&axis) { 1 } else { shape[axis] }).collect();
    let kept = IxDyn(&kept);
    let data = match data {
        Data::Floats(array) => array
            .into_owned()
            .into_shape_with_order(kept)
            .ok()
            .map(|array| Data::Floats(array.into_shared())),
        Data::Ints(array) => array.into_shape_with_order(kept).ok().map(Data::Ints),
        Data::Bools(array) => Some(Data::Bools(array)),
    };
    match data {
        Some(data) => made(call, data),
        None => Refusal::form("this reduction"),
    }
}

fn start(op: &str) -> f64 {
    match op {
        "ReduceMax" => f64::NEG_INFINITY,
        "ReduceMin" => f64::INFINITY,
        "ReduceProd" => 1.0,
        _ => 0.0,
    }
}

fn joined(op: &str, a: Num, b: Num) -> Option<Num> {
    use Num::{Batch, Is};
    match (op, a, b) {
        ("ReduceSum", Is(a), Is(b)) => a.checked_add(b).map(Is),
        ("ReduceProd", Is(a), Is(b)) => a.checked_mul(b).map(Is),
        ("ReduceProd", Batch(a), Is(b)) | ("ReduceProd", Is(a), Batch(b)) => {
            a.checked_mul(b).map(Batch)
        }
        ("ReduceMax", Is(a), Is(b)) => Some(Is(a.max(b))),
        ("ReduceMin", Is(a), Is(b)) => Some(Is(a.min(b))),
        _ => None,
    }
}
