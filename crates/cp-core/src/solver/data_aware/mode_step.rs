//! The update of one input mode in ALS-Σ: the coupled least-squares problem of its factor.

use super::algebra::{cholesky, inner, narrow, ridge_solve, symmetrize, widen};
use super::metric::Metric;
use super::{CG_TOL, WeightedModel};
use crate::khatri_rao::flat_khatri_rao;
use crate::linalg::{Singular, gram_into, mat, mat_mut, product, solve_factored};
use crate::real::Real;
use crate::solver::conjugate_gradients::conjugate_gradients;

/// The least-squares problem of one input mode: D ↦ 𝒞(Σ ℰ(D) C) and its right-hand side.
pub(super) struct ModeStep<'a> {
    metric: &'a Metric,
    mode: usize,
    rank: usize,
    /// Khatri–Rao products of the input factors before and after the mode, `[left, R]`, `[right, R]`.
    left: Vec<f64>,
    right: Vec<f64>,
    /// C = A⁽⁰⁾ᵀA⁽⁰⁾, `[R, R]`.
    outputs: Vec<f64>,
    /// C ⊛ (⊛ of AₘᵀΣₘAₘ over the other input modes), `[R, R]`: the operator for a Σ that is a Kronecker product, over Σₙ.
    normal: Vec<f64>,
    /// 𝒞((WΣ)ᵀA⁽⁰⁾), `[Iₙ, R]`.
    goal: Vec<f64>,
    /// A⁽ⁿ⁾ diag(λ), `[Iₙ, R]`.
    start: Vec<f64>,
}

impl<'a> ModeStep<'a> {
    pub(super) fn new(metric: &'a Metric, model: &WeightedModel, mode: usize) -> Self {
        let rank = model.weights.len();
        let left = flat_khatri_rao(&model.factors[1..mode], rank);
        let right = flat_khatri_rao(&model.factors[mode + 1..], rank);
        let mut outputs = vec![0.0; rank * rank];
        gram_into(&mut outputs, &model.factors[0], metric.rows, rank);
        let mut normal = outputs.clone();
        for m in (1..model.factors.len()).filter(|&m| m != mode) {
            let (n, factor) = (metric.shape[m], &model.factors[m]);
            let mut weighted = vec![0.0; n * rank];
            let trace = mat(&metric.traces[m], n, n);
            product(mat_mut(&mut weighted, n, rank), trace, mat(factor, n, rank));
            let gram = inner(factor, &weighted, rank);
            normal.iter_mut().zip(&gram).for_each(|(to, x)| *to *= x);
        }
        symmetrize(&mut normal, rank);
        let scaled = |row: &[f64]| -> Vec<f64> {
            row.iter().zip(&model.weights).map(|(x, w)| x * w).collect()
        };
        let start = model.factors[mode].chunks_exact(rank).flat_map(scaled).collect();
        let mut step =
            Self { metric, mode, rank, left, right, outputs, normal, goal: vec![], start };
        step.goal = step.contract(&metric.transposed_times(&model.factors[0], rank));
        step
    }

    /// ℰ(D), `[P, R]`.
    fn expand(&self, factor: &[f64]) -> Vec<f64> {
        flat_khatri_rao(&[&self.left[..], factor, &self.right], self.rank)
    }

    /// 𝒞(M), `[Iₙ, R]`: Σ over all other indices of M times the product of the other factors.
    fn contract(&self, matrix: &[f64]) -> Vec<f64> {
        let rank = self.rank;
        let size = self.metric.shape[self.mode];
        let mut to = vec![0.0; size * rank];
        let block = self.right.len();
        for (l, slab) in self.left.chunks_exact(rank).zip(matrix.chunks_exact(size * block)) {
            for (to, slab) in to.chunks_exact_mut(rank).zip(slab.chunks_exact(block)) {
                for (q, row) in self.right.chunks_exact(rank).zip(slab.chunks_exact(rank)) {
                    for (((to, x), l), q) in to.iter_mut().zip(row).zip(l).zip(q) {
                        *to += x * l * q;
                    }
                }
            }
        }
        to
    }

    /// The ridge: relative to the mean diagonal entry of the operator (1 for Σₙ, and that of `normal`).
    fn damping(&self, ridge: f64) -> f64 {
        let trace: f64 = self.normal.iter().step_by(self.rank + 1).sum();
        ridge * trace / self.rank as f64
    }

    /// The operator for a factor, with a ridge.
    fn apply(&self, factor: &[f64], damping: f64) -> Vec<f64> {
        let weighted = self.metric.weigh(&self.expand(factor), self.rank);
        self.damped(&self.turned(&weighted, &self.outputs), factor, damping)
    }

    /// The same with its products in f32, see [`Metric::weigh_roughly`]; `outputs`: C in f32.
    fn apply_roughly(&self, factor: &[f64], outputs: &[f32], damping: f64) -> Vec<f64> {
        let weighted = self.metric.weigh_roughly(&self.expand(factor), self.rank);
        self.damped(&widen(&self.turned(&weighted, outputs)), factor, damping)
    }

    /// `weighted` C, `[P, R]`.
    fn turned<T: Real>(&self, weighted: &[T], outputs: &[T]) -> Vec<T> {
        let (size, rank) = (self.metric.size, self.rank);
        let mut turned = vec![T::zero(); size * rank];
        let outputs = mat(outputs, rank, rank);
        product(mat_mut(&mut turned, size, rank), mat(weighted, size, rank), outputs);
        turned
    }

    fn damped(&self, turned: &[f64], factor: &[f64], damping: f64) -> Vec<f64> {
        let mut to = self.contract(turned);
        to.iter_mut().zip(factor).for_each(|(to, x)| *to += damping * x);
        to
    }

    /// The exact update, by the matrix of the operator, `[Iₙ R, Iₙ R]`.
    pub(super) fn direct(&self, ridge: f64) -> Result<Vec<f64>, Singular> {
        let mut matrix = self.matrix();
        let n = self.goal.len();
        let mut solution = self.goal.clone();
        ridge_solve(&mut matrix, &mut solution, n, ridge)?;
        Ok(solution)
    }

    fn matrix(&self) -> Vec<f64> {
        let (metric, rank) = (self.metric, self.rank);
        let [left, right] = metric.around(self.mode);
        let (n, size, rest) = (metric.shape[self.mode], metric.size, left * right);
        let others = flat_khatri_rao(&[&self.left[..], &self.right], rank);
        let mut matrix = vec![0.0; n * rank * n * rank];
        let mut rows = vec![0.0; rest * size];
        let mut weighted = vec![0.0; size * rank];
        let mut slice = vec![0.0; rest * rank];
        let mut gram = vec![0.0; rank * rank];
        for j in 0..n {
            // The rows of Σ with index j in this mode, over all others.
            for (place, row) in rows.chunks_exact_mut(size).enumerate() {
                let at = (place / right * n + j) * right + place % right;
                row.copy_from_slice(&metric.sigma[at * size..][..size]);
            }
            product(
                mat_mut(&mut weighted, size, rank),
                mat(&rows, rest, size).transpose(),
                mat(&others, rest, rank),
            );
            for i in 0..=j {
                for (place, row) in slice.chunks_exact_mut(rank).enumerate() {
                    let at = (place / right * n + i) * right + place % right;
                    row.copy_from_slice(&weighted[at * rank..][..rank]);
                }
                product(
                    mat_mut(&mut gram, rank, rank),
                    mat(&others, rest, rank).transpose(),
                    mat(&slice, rest, rank),
                );
                gram.iter_mut().zip(&self.outputs).for_each(|(x, c)| *x *= c);
                if i == j {
                    symmetrize(&mut gram, rank);
                }
                for r in 0..rank {
                    let above = &mut matrix[(i * rank + r) * n * rank + j * rank..][..rank];
                    above.copy_from_slice(&gram[r * rank..][..rank]);
                    let below = &mut matrix[(j * rank + r) * n * rank + i * rank..][..rank];
                    let column = gram[r..].iter().step_by(rank);
                    below.iter_mut().zip(column).for_each(|(to, x)| *to = *x);
                }
            }
        }
        matrix
    }

    /// A few steps from the current factor; each lowers the error.
    pub(super) fn conjugate_gradients(
        &self,
        ridge: f64,
        steps: usize,
    ) -> Result<Vec<f64>, Singular> {
        let (n, rank) = (self.metric.shape[self.mode], self.rank);
        let mut factor = self.normal.clone();
        cholesky(&mut factor, rank, ridge.max(1e-12))?;
        let inverse = mat(&self.metric.inverses[self.mode], n, n);
        let precondition = |residual: &[f64], to: &mut [f64]| {
            let mut half = residual.to_vec();
            solve_factored(&factor, &mut half, n, rank);
            product(mat_mut(to, n, rank), inverse, mat(&half, n, rank));
        };
        let damping = self.damping(ridge);
        let image = self.apply(&self.start, damping);
        let residual = self.goal.iter().zip(&image).map(|(b, y)| b - y).collect();
        let start = self.start.clone();
        let outputs = narrow(&self.outputs);
        let apply = |factor: &[f64], to: &mut [f64]| {
            to.copy_from_slice(&self.apply_roughly(factor, &outputs, damping));
        };
        Ok(conjugate_gradients(start, residual, apply, precondition, CG_TOL, steps).x)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::algebra::ridge_solve;
    use super::*;
    use crate::init::Init;
    use crate::linalg::{dot, solve_normal};
    use crate::problem::Problem;
    use crate::statistics::InputStatistics;
    use crate::tree::Dense;

    fn draw(shape: &[usize], seed: u64) -> ndarray::ArrayD<f64> {
        let size: usize = shape.iter().product();
        let dense = Dense { shape: vec![size, 1], data: vec![0.0; size].into() };
        let cp = Init::Random { seed }.factors(&dense, 1).unwrap();
        ndarray::ArrayD::from_shape_vec(shape, cp.factors[0].iter().copied().collect()).unwrap()
    }

    /// Dense weighted least squares for one factor: the columns of the design matrix are the models of unit factors.
    fn slow_update(metric: &Metric, model: &WeightedModel, mode: usize) -> Vec<f64> {
        let (rank, size) = (model.weights.len(), metric.size);
        let unknowns = metric.shape[mode] * rank;
        let mut design = Vec::new();
        for unknown in 0..unknowns {
            let mut factors = model.factors.clone();
            factors[mode].fill(0.0);
            factors[mode][unknown] = 1.0;
            design.push(
                flat_khatri_rao(&factors, rank)
                    .chunks_exact(rank)
                    .map(|row| row.iter().sum())
                    .collect::<Vec<f64>>(),
            );
        }
        let weigh = |column: &[f64]| -> Vec<f64> {
            let row = |row: &[f64]| -> Vec<f64> {
                (0..size)
                    .map(|q| (0..size).map(|p| row[p] * metric.sigma[p * size + q]).sum())
                    .collect()
            };
            column.chunks_exact(size).flat_map(row).collect()
        };
        let mut normal = vec![0.0; unknowns * unknowns];
        for (i, a) in design.iter().enumerate() {
            let weighted = weigh(a);
            for (j, b) in design.iter().enumerate() {
                normal[i * unknowns + j] = dot(&weighted, b);
            }
        }
        let mut solution: Vec<f64> = design.iter().map(|a| dot(a, &weigh(&metric.x))).collect();
        solve_normal(&mut normal, &mut solution, 1, unknowns).unwrap();
        solution
    }

    fn check(shape: &[usize], rank: usize) {
        let tensor = draw(shape, 1);
        let size: usize = shape[1..].iter().product();
        let mut statistics = InputStatistics::new(size);
        let inputs = draw(&[3 * size, size], 2).into_dimensionality::<ndarray::Ix2>().unwrap();
        statistics.add(inputs.view()).unwrap();
        let view = tensor.view();
        let problem = Problem::new(&view, rank).unwrap();
        let metric = Metric::new(&problem.tensor, &statistics).unwrap();
        let start = Init::Random { seed: 3 }.factors(&problem.tensor, rank).unwrap();
        let model = WeightedModel::new(start, 0);
        for mode in 1..shape.len() {
            let slow = slow_update(&metric, &model, mode);
            let step = ModeStep::new(&metric, &model, mode);
            let close = |found: &[f64], tolerance: f64, what: &str| {
                let distance =
                    slow.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(distance < tolerance, "{shape:?} mode {mode} {what}: {distance:e}");
            };
            close(&step.direct(0.0).unwrap(), 1e-9, "direct");
            // They stop at 1e-4 of their first residual.
            close(&step.conjugate_gradients(0.0, 400).unwrap(), 3e-3, "conjugate gradients");
            // One step alone lowers the quadratic.
            let value = |x: &[f64]| dot(x, &step.apply(x, 0.0)) - 2.0 * dot(x, &step.goal);
            assert!(value(&step.conjugate_gradients(0.0, 1).unwrap()) < value(&step.start));
        }
        // Mode 0, as in a sweep.
        let slow = slow_update(&metric, &model, 0);
        let mut model = model;
        let inputs = model.take_inputs(&metric);
        let mut normal = inner(&inputs.kr, &inputs.weighted, rank);
        let mut solution = metric.times(&inputs.kr, rank);
        ridge_solve(&mut normal, &mut solution, rank, 0.0).unwrap();
        assert!(slow.iter().zip(&solution).all(|(a, b)| (a - b).abs() < 1e-8), "{shape:?} mode 0");
    }

    #[test]
    fn updates_equal_dense_least_squares() {
        check(&[4, 5], 2);
        check(&[4, 3, 5], 2);
        check(&[5, 3, 2, 3], 3);
        check(&[3, 2, 2, 2, 2], 2);
        check(&[4, 1, 3], 1);
    }
}
