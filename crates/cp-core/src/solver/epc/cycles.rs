//! The cycles of the correction: one update of each mode under the error bound, and the momentum between them.

use super::EpcModel;
use super::search::{FIRST, ShrinkSearch, WINDOW};
use crate::error::CpError;
use crate::linalg::gram_into;
use crate::solver::normal::{normalize, product_of_grams};
use crate::tree::{Dense, Workspace, sweep};

/// What one cycle came to.
pub(super) struct CycleStep {
    pub(super) rel_error: f64,
    /// Whether every mode could keep the bound.
    pub(super) feasible: bool,
    /// Whether any could: where not, the model is as it was.
    pub(super) moved: bool,
}

/// What the cycles keep from one to the next.
pub(super) struct Cycles<'a> {
    tensor: &'a Dense<'a, f64>,
    norm: f64,
    space: Workspace<f64>,
    /// The root μ of each mode in the last cycle, where the next search starts.
    roots: Vec<f64>,
    search: ShrinkSearch,
}

impl<'a> Cycles<'a> {
    pub(super) fn new(tensor: &'a Dense<'a, f64>, norm: f64) -> Self {
        let roots = vec![FIRST; tensor.shape.len()];
        Self { tensor, norm, space: Workspace::new(), roots, search: ShrinkSearch::default() }
    }

    /// One update of each mode under the bound.
    pub(super) fn next(&mut self, model: &mut EpcModel, bound: f64) -> Result<CycleStep, CpError> {
        let Self { tensor, norm, space, roots, search } = self;
        let EpcModel { factors, grams, weights, .. } = model;
        let rank = weights.len();
        let whole = *norm * *norm;
        let mut square = None;
        let mut feasible = true;
        let done: Result<(), CpError> =
            sweep(tensor, factors, rank, space, &mut |mode, g, factors| {
                // Rounding of the sums in `ShrinkSearch::residual`, which are as large as the terms.
                let energy: f64 = weights.iter().map(|w| w * w).sum();
                let noise = 64.0 * f64::EPSILON * energy.max(whole);
                let goal = bound * bound * whole - noise;
                search.normal.resize(rank * rank, 0.0);
                product_of_grams(&mut search.normal, grams, &[mode]);
                // With no room left by rounding the factor stays, and with it the error.
                let Some(root) =
                    search.largest_root(g, rank, [whole, goal, WINDOW * goal + noise], roots[mode])
                else {
                    feasible = false;
                    return Ok(());
                };
                if root.is_finite() {
                    roots[mode] = root;
                }
                square = Some(search.square);
                let solution = &mut search.best;
                normalize(weights, &mut factors[mode], solution, rank);
                gram_into(&mut grams[mode], solution, solution.len() / rank, rank);
                Ok(())
            });
        done?;
        let rel_error = match square {
            Some(square) => (square.max(0.0) / whole).sqrt(),
            None => model.error::<f64>(tensor, *norm),
        };
        Ok(CycleStep { rel_error, feasible, moved: square.is_some() })
    }
}

/// Extrapolation of the factors along their last change, as far as it pays: β grows while the energy falls, and shrinks where
/// it does not.
///
/// Reference: Ang, Cohen, Gillis & Le (2021), "Accelerating block coordinate descent for nonnegative tensor factorization".
pub(super) struct Momentum {
    /// The model before the last one.
    pub(super) last: Option<EpcModel>,
    beta: f64,
    ceiling: f64,
}

impl Momentum {
    pub(super) fn new() -> Self {
        Self { last: None, beta: 0.5, ceiling: 1.0 }
    }

    /// Moves the factors of `model` on, columns of norm 1 again; mode 0 is solved for before it is used. False where there is
    /// nothing to go by.
    pub(super) fn extrapolate(&self, model: &mut EpcModel) -> bool {
        let Some(last) = &self.last else { return false };
        let rank = model.weights.len();
        for mode in 1..model.factors.len() {
            let mut moved: Vec<f64> = model.factors[mode]
                .iter()
                .zip(&last.factors[mode])
                .map(|(now, before)| now + self.beta * (now - before))
                .collect();
            let mut norms = vec![0.0; rank];
            normalize(&mut norms, &mut model.factors[mode], &mut moved, rank);
            gram_into(&mut model.grams[mode], &moved, model.shape[mode], rank);
        }
        true
    }

    pub(super) fn judge(&mut self, taken: bool) {
        if taken {
            self.beta = (1.05 * self.beta).min(self.ceiling);
            self.ceiling = (1.01 * self.ceiling).min(1.0);
        } else {
            self.ceiling = self.beta;
            self.beta /= 1.5;
            self.last = None;
        }
    }
}
