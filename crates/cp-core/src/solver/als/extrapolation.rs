//! Nesterov extrapolation between sweeps, with restarts.
//!
//! After an accepted sweep the next one starts from Â = A + β (A − A_previous) in place of A, with Nesterov's sequence
//! t ← (1 + √(1 + 4t²)) / 2, β = (t − 1) / t'. A sweep that ends with a larger error than the last accepted one is thrown
//! away: the sequence starts anew from the accepted model, from where a plain sweep cannot raise the error. So the model
//! that is kept never gets worse, and the cost over plain ALS is a pass over the factors and their Grams.
//!
//! The factors come with columns of norm 1 and signs that a least-squares update keeps, so differences of successive ones
//! make sense; λ is not extrapolated, as no update reads it. Neither is mode 0, which a sweep solves for first.
//!
//! Reference: Mitchell, Ye & De Sterck (2020), "Nesterov acceleration of alternating least squares for canonical tensor
//! decomposition: Momentum step size and restart mechanisms", §3 (function restart, Nesterov's step).

use std::cmp::Ordering;

use super::AlsState;
use crate::linalg::gram_upper;
use crate::progress::Swept;
use crate::real::Real;
use crate::solver::normal::normalize;

/// The last accepted model and where the sequence stands.
#[derive(Debug)]
pub(super) struct Extrapolation<T> {
    /// Factors and λ of the last accepted sweep.
    accepted: Option<(Vec<Vec<T>>, Vec<f64>)>,
    /// Its relative error.
    rel_error: f64,
    /// Whether the accepted model is the start of a sequence, with no difference to extrapolate by.
    fresh: bool,
    t: f64,
}

impl<T: Real> Extrapolation<T> {
    pub(super) fn new() -> Self {
        Self { accepted: None, rel_error: f64::INFINITY, fresh: true, t: 1.0 }
    }

    /// Takes the state after a sweep, puts the start of the next one into it, and returns what the sweep came to.
    pub(super) fn step(&mut self, state: &mut AlsState<T>, rel_error: f64) -> Swept {
        if let Some((factors, weights)) = &self.accepted
            && !self.fresh
            && rel_error.partial_cmp(&self.rel_error).is_none_or(Ordering::is_gt)
        {
            for (to, from) in state.factors.iter_mut().zip(factors) {
                to.copy_from_slice(from);
            }
            state.weights.copy_from_slice(weights);
            for mode in 1..state.factors.len() {
                state.measure(mode);
            }
            (self.fresh, self.t) = (true, 1.0);
            return Swept { rel_error: self.rel_error, kept: false };
        }
        let latest = (state.factors.clone(), state.weights.clone());
        let before = self.accepted.replace(latest);
        if let Some((before, _)) = before.filter(|_| !self.fresh) {
            let t = 0.5 * (1.0 + (1.0 + 4.0 * self.t * self.t).sqrt());
            let beta = (self.t - 1.0) / t;
            self.t = t;
            if beta > 0.0 {
                for (mode, before) in before.iter().enumerate().skip(1) {
                    state.extrapolate(mode, before, beta);
                }
            }
        }
        self.fresh = false;
        self.rel_error = rel_error;
        rel_error.into()
    }

    /// Puts the model kept into the state.
    pub(super) fn finish(self, state: &mut AlsState<T>) {
        if let Some((factors, weights)) = self.accepted {
            (state.factors, state.weights) = (factors, weights);
        }
    }
}

impl<T: Real> AlsState<T> {
    /// A ← A + β (A − `before`) with columns scaled to norm 1, and its Gram.
    fn extrapolate(&mut self, mode: usize, before: &[T], beta: f64) {
        let Self { rank, factors, grams, solution, .. } = self;
        let factor = &mut factors[mode];
        let step = |(&now, &before): (&T, &T)| now.widen() + beta * (now.widen() - before.widen());
        solution.clear();
        solution.extend(factor.iter().zip(before).map(step));
        normalize(&mut vec![0.0; *rank], factor, solution, *rank);
        gram_upper(&mut grams[mode], solution, factor.len() / *rank, *rank);
    }

    /// The Gram of a factor.
    fn measure(&mut self, mode: usize) {
        let Self { rank, factors, grams, solution, .. } = self;
        solution.clear();
        solution.extend(factors[mode].iter().map(|x| x.widen()));
        gram_upper(&mut grams[mode], solution, factors[mode].len() / *rank, *rank);
    }
}
