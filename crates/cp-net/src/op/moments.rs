//! Mean and variance over parts of an array: what instance, layer and group normalization share.

use ndarray::{ArrayD, ArrayViewD};
use std::collections::BTreeMap;

/// (x − μ) / √(σ² + ε) · γ + β, with mean and (biased) variance over all values whose `part` is the same; `affine` gives γ and β of
/// a position.
pub(super) fn normalized(
    x: &ArrayViewD<'_, f32>,
    eps: f64,
    part: impl Fn(&[usize]) -> Vec<usize>,
    affine: impl Fn(&[usize]) -> (f64, f64),
) -> ArrayD<f32> {
    // Count, sum and sum of squares around the mean.
    let mut moments: BTreeMap<Vec<usize>, (f64, f64, f64)> = BTreeMap::new();
    for (at, value) in x.indexed_iter() {
        let moment = moments.entry(part(ndarray::Dimension::slice(&at))).or_default();
        moment.0 += 1.0;
        moment.1 += f64::from(*value);
    }
    for (at, value) in x.indexed_iter() {
        let moment = moments.entry(part(ndarray::Dimension::slice(&at))).or_default();
        moment.2 += (f64::from(*value) - moment.1 / moment.0).powi(2);
    }
    ArrayD::from_shape_fn(x.raw_dim(), |at| {
        let position = ndarray::Dimension::slice(&at);
        let (count, sum, squares) = moments.get(&part(position)).copied().unwrap_or_default();
        let (gamma, beta) = affine(position);
        ((f64::from(x[&at]) - sum / count) / (squares / count + eps).sqrt() * gamma + beta) as f32
    })
}
