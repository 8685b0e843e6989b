//! The metric of a layer's inputs: a kernel, the second moments of its inputs, and products with them.

use std::cell::OnceCell;

use super::WeightedModel;
use super::algebra::{inner, narrow, ridge_solve};
use crate::error::CpError;
use crate::linalg::{dot, gram_into, mat, mat_mut, product};
use crate::measure;
use crate::real::Real;
use crate::statistics::InputStatistics;
use crate::tree::Dense;

/// W, Σ and what follows from them, in f64. Σ is divided by the mean of its diagonal. Where WΣ = 0, so that every model is as
/// good as any, Σ = I takes its place.
pub(super) struct Metric {
    /// `[T, I₁, …]`.
    pub(super) shape: Vec<usize>,
    /// T and P.
    pub(super) rows: usize,
    pub(super) size: usize,
    /// W, `[T, P]`.
    pub(super) x: Vec<f64>,
    /// Σ, `[P, P]`.
    pub(super) sigma: Vec<f64>,
    /// The same in f32, where it was asked for.
    rough: OnceCell<Vec<f32>>,
    /// WΣ, `[T, P]`.
    pub(super) y: Vec<f64>,
    /// ‖WΣ^½‖²; 0 only for W = 0.
    pub(super) whole: f64,
    /// Whether the inputs say nothing about W.
    pub(super) blind: bool,
    /// (Partial trace of Σ over all modes but n)⁻¹, scaled to a mean diagonal of 1 before; `[Iₙ, Iₙ]` for n ≥ 1.
    pub(super) inverses: Vec<Vec<f64>>,
    /// The partial traces themselves.
    pub(super) traces: Vec<Vec<f64>>,
}

impl Metric {
    pub(super) fn new<T: Real>(
        tensor: &Dense<'_, T>,
        statistics: &InputStatistics,
    ) -> Result<Self, CpError> {
        let shape = tensor.shape.clone();
        let rows = shape[0];
        let size: usize = shape[1..].iter().product();
        let mut sigma = statistics.scaled(size)?;
        let x: Vec<f64> = tensor.data.iter().map(|x| x.widen()).collect();
        let mut y = vec![0.0; rows * size];
        product(mat_mut(&mut y, rows, size), mat(&x, rows, size), mat(&sigma, size, size));
        let mut whole = dot(&x, &y).max(0.0);
        let square = dot(&x, &x);
        let blind = whole == 0.0 && square > 0.0;
        if blind {
            sigma.fill(0.0);
            sigma.iter_mut().step_by(size + 1).for_each(|x| *x = 1.0);
            y.copy_from_slice(&x);
            whole = square;
        }
        let mut metric = Self {
            shape,
            rows,
            size,
            x,
            sigma,
            rough: OnceCell::new(),
            y,
            whole,
            blind,
            inverses: vec![],
            traces: vec![],
        };
        for mode in 0..metric.shape.len() {
            let trace = if mode == 0 { vec![1.0] } else { metric.partial_trace(mode) };
            let n = trace.len().isqrt();
            let mut identity = vec![0.0; n * n];
            identity.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
            // A preconditioner: a ridge does no harm, and no inverse will do as well.
            let mut normal = trace.clone();
            if ridge_solve(&mut normal, &mut identity, n, 1e-9).is_err() {
                identity.fill(0.0);
                identity.iter_mut().step_by(n + 1).for_each(|x| *x = 1.0);
            }
            metric.inverses.push(identity);
            metric.traces.push(trace);
        }
        Ok(metric)
    }

    /// Numbers of indices of the input modes before and after `mode`.
    pub(super) fn around(&self, mode: usize) -> [usize; 2] {
        [self.shape[1..mode].iter().product(), self.shape[mode + 1..].iter().product()]
    }

    fn partial_trace(&self, mode: usize) -> Vec<f64> {
        let [left, right] = self.around(mode);
        let n = self.shape[mode];
        let mut trace = vec![0.0; n * n];
        for (i, row) in trace.chunks_exact_mut(n).enumerate() {
            for (j, to) in row.iter_mut().enumerate() {
                for l in 0..left {
                    for q in 0..right {
                        let place = |i: usize| (l * n + i) * right + q;
                        *to += self.sigma[place(i) * self.size + place(j)];
                    }
                }
                *to /= (left * right) as f64;
            }
        }
        trace
    }

    /// Σ `matrix`, `[P, R]`.
    pub(super) fn weigh(&self, matrix: &[f64], rank: usize) -> Vec<f64> {
        let mut to = vec![0.0; self.size * rank];
        let sigma = mat(&self.sigma, self.size, self.size);
        product(mat_mut(&mut to, self.size, rank), sigma, mat(matrix, self.size, rank));
        to
    }

    /// Σ `matrix`, `[P, R]`, in f32: twice as fast, and good enough for the directions of conjugate gradients, whose right-hand side
    /// is a residual in f64 and which stop at [`CG_TOL`](super::CG_TOL) of it.
    pub(super) fn weigh_roughly(&self, matrix: &[f64], rank: usize) -> Vec<f32> {
        let sigma = self.rough.get_or_init(|| narrow(&self.sigma));
        let mut to = vec![0.0; self.size * rank];
        let (sigma, matrix) = (mat(sigma, self.size, self.size), narrow(matrix));
        product(mat_mut(&mut to, self.size, rank), sigma, mat(&matrix, self.size, rank));
        to
    }

    /// WΣ `matrix`, `[T, R]`.
    pub(super) fn times(&self, matrix: &[f64], rank: usize) -> Vec<f64> {
        let mut to = vec![0.0; self.rows * rank];
        let y = mat(&self.y, self.rows, self.size);
        product(mat_mut(&mut to, self.rows, rank), y, mat(matrix, self.size, rank));
        to
    }

    /// (WΣ)ᵀ `matrix`, `[P, R]`.
    pub(super) fn transposed_times(&self, matrix: &[f64], rank: usize) -> Vec<f64> {
        let mut to = vec![0.0; self.size * rank];
        let y = mat(&self.y, self.rows, self.size).transpose();
        product(mat_mut(&mut to, self.size, rank), y, mat(matrix, self.rows, rank));
        to
    }

    /// The weighted error: the cheap formula where it has digits left, from the entries otherwise. Leaves K and ΣK in the model.
    pub(super) fn rel_error(&self, model: &mut WeightedModel) -> f64 {
        let rank = model.weights.len();
        let inputs = model.take_inputs(self);
        let scale = |row: &[f64]| -> Vec<f64> {
            row.iter().zip(&model.weights).map(|(x, w)| x * w).collect()
        };
        let output: Vec<f64> = model.factors[0].chunks_exact(rank).flat_map(scale).collect();
        let cross = dot(&output, &self.times(&inputs.kr, rank));
        let mut gram = vec![0.0; rank * rank];
        gram_into(&mut gram, &output, self.rows, rank);
        let square = dot(&gram, &inner(&inputs.kr, &inputs.weighted, rank));
        let cheap = (self.whole - 2.0 * cross + square) / self.whole;
        let energy = (model.weights.iter().map(|w| w * w).sum::<f64>() * self.size as f64
            / self.whole)
            .max(1.0);
        let error = measure::cheap_or_direct(cheap, 1e6 * f64::EPSILON * energy, || {
            let mut difference = vec![0.0; self.rows * self.size];
            let k = mat(&inputs.kr, self.size, rank).transpose();
            product(
                mat_mut(&mut difference, self.rows, self.size),
                mat(&output, self.rows, rank),
                k,
            );
            (self.square_of_difference(&difference) / self.whole).sqrt()
        });
        model.inputs = Some(inputs);
        error
    }

    /// ‖(W − Ŵ) Σ^½‖² for Ŵ `[T, P]`.
    pub(super) fn square_of_difference(&self, model: &[f64]) -> f64 {
        let difference: Vec<f64> = self.x.iter().zip(model).map(|(x, y)| x - y).collect();
        let mut weighted = vec![0.0; difference.len()];
        product(
            mat_mut(&mut weighted, self.rows, self.size),
            mat(&difference, self.rows, self.size),
            mat(&self.sigma, self.size, self.size),
        );
        dot(&difference, &weighted).max(0.0)
    }
}
