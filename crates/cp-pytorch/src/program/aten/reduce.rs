//! Means and sums along axes.

use cp_net::{GlobalAvgPool, Reduce, Reduction};

use crate::program::call::{Call, Fail, because};

/// `mean(self, dim, keepdim, dtype)`, `sum`, `amax`, `amin`.
pub(super) fn reduce(call: &mut Call<'_, '_>, name: &str) -> Result<(), Fail> {
    let input = call.tensor("self")?;
    let function = match name {
        "mean" => Reduction::Mean,
        "sum" => Reduction::Sum,
        "amax" => Reduction::Max,
        _ => Reduction::Min,
    };
    call.ignore(&["dtype"]);
    let axes = call.axes("dim", &input.shape)?;
    if axes.is_empty() {
        return because("it goes over the batch, too");
    }
    let keep = call.flag("keepdim")?;
    let mut spatial = axes.clone();
    spatial.sort_unstable();
    let is_map = spatial.iter().copied().eq(1..input.shape.len() - 1);
    if keep && is_map && function == Reduction::Mean {
        return call.emit(GlobalAvgPool {}, vec![input.value]);
    }
    call.emit(Reduce { function, axes, keep }, vec![input.value])
}
