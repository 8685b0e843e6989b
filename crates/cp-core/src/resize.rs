//! Models with another number of terms: [`resize`].

use ndarray::{Array1, Array2, Axis, concatenate, s};

use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::random::{self, Purpose};

/// Norm of a new term relative to the smallest old one: enough to grow from, too little to disturb.
const NEW_TERM: f64 = 1e-3;

/// The model with another number of terms: the ones of largest norm, or all of them and random ones of a thousandth of the
/// smallest norm. Normalised; terms in the order of their norms.
///
/// What [`Init::Resized`](crate::Init::Resized) starts from. [`extend`](crate::extend) finds better new terms where the tensor is at hand.
///
/// # Errors
/// Rank 0.
pub fn resize(cp: &CpTensor<f64>, rank: usize, seed: u64) -> Result<CpTensor<f64>, CpError> {
    if rank == 0 {
        return Err(CpError::RankZero);
    }
    let mut cp = cp.clone();
    cp.normalize();
    cp.sort();
    let kept = rank.min(cp.rank());
    let smallest = cp.weights.iter().copied().filter(|w| *w > 0.0).fold(f64::INFINITY, f64::min);
    let weight = if smallest.is_finite() { NEW_TERM * smallest } else { 1.0 };
    let added = rank - kept;
    let mut new = CpTensor {
        weights: Array1::ones(added),
        factors: random::factors(&cp.shape(), added, seed, Purpose::NewTerms),
    };
    new.normalize();
    new.weights.fill(weight);
    cp.weights = cp.weights.slice(s![..kept]).to_owned();
    for factor in &mut cp.factors {
        *factor = factor.slice(s![.., ..kept]).to_owned();
    }
    Ok(join(&cp, &new))
}

/// The terms of both.
pub(crate) fn join(a: &CpTensor<f64>, b: &CpTensor<f64>) -> CpTensor<f64> {
    let columns = |(a, b): (&Array2<f64>, &Array2<f64>)| {
        concatenate(Axis(1), &[a.view(), b.view()]).expect("models of one shape")
    };
    let weights = concatenate(Axis(0), &[a.weights.view(), b.weights.view()]);
    CpTensor {
        weights: weights.expect("vectors"),
        factors: a.factors.iter().zip(&b.factors).map(columns).collect(),
    }
}
