//! Ops that sum over axes.

use cp_net::{Reduce, Reduction};
use tch::{TchError, Tensor};

use super::{dim, simple};

simple! {
    Softmax: |op, x, _, _| x.f_softmax(dim(op.axis), x.f_kind()?);
    LogSoftmax: |op, x, _, _| x.f_log_softmax(dim(op.axis), x.f_kind()?);
    Reduce: |op, x, _, _| reduce(x, op);
}

/// One number for all values along some of the axes.
///
/// # Shapes
/// `x`: `[B, …]`; result: without these axes, or with size 1 there.
fn reduce(x: &Tensor, op: &Reduce) -> Result<Tensor, TchError> {
    let axes: Vec<i64> = op.axes.iter().map(|&axis| dim(axis)).collect();
    let kind = x.f_kind()?;
    match op.function {
        Reduction::Mean => x.f_mean_dim(&axes[..], op.keep, kind),
        Reduction::Sum => x.f_sum_dim_intlist(&axes[..], op.keep, kind),
        Reduction::Max => x.f_amax(&axes, op.keep),
        Reduction::Min => x.f_amin(&axes, op.keep),
        Reduction::L1 => x.f_abs()?.f_sum_dim_intlist(&axes[..], op.keep, kind),
        Reduction::L2 => x.f_norm_scalaropt_dim(2.0, &axes, op.keep),
        Reduction::Prod => {
            // One axis at a time, from the last, so that the numbers of the others stay.
            let mut axes = axes;
            axes.sort_unstable();
            let mut product = x.shallow_clone();
            for &axis in axes.iter().rev() {
                product = product.f_prod_dim_int(axis, op.keep, kind)?;
            }
            Ok(product)
        }
    }
}
