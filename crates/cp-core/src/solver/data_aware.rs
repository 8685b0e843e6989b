//! Data-aware alternating least squares, "ALS-Σ": [`DataAwareAls`] and [`weighted_rel_error`].

mod algebra;
mod metric;
mod mode_step;
mod tucker2;

use std::ops::ControlFlow;
use std::sync::Arc;

use ndarray::ArrayViewD;

use self::algebra::{inner, ridge_solve, symmetrize};
use self::metric::Metric;
use self::mode_step::ModeStep;
use super::normal::normalize;
use super::{Decomposition, Solver};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::khatri_rao::flat_khatri_rao;
use crate::linalg::{dot, mat, mat_mut, product};
use crate::measure;
use crate::problem::{Problem, check_option};
use crate::progress::{Progress, StopReason, iterate};
use crate::real::Real;
use crate::scale::{self, Scale};
use crate::statistics::InputStatistics;
use crate::tree::Dense;

pub use tucker2::{DataAwareTucker2, WeightedTucker2};

/// Alternating least squares in the metric of a layer's inputs.
///
/// It minimises ‖(W − Ŵ) Σ^½‖², the expected squared change of the layer's output, for the mode-0 unfolding W `[T, P]` of a
/// kernel (mode 0 is the output; P is the product of the other modes) and Σ = E[x xᵀ] `[P, P]` of its unfolded input. With
/// Σ = I this is [`Als`](super::Als). Where the inputs are correlated, as those of a trained network are, the output changes
/// less at equal rank than after plain ALS, and fine-tuning has less to repair. The plain error is larger.
///
/// With W̃ = WΣ and K = ⊙_{m≥1} A⁽ᵐ⁾ the update of mode 0 is A⁽⁰⁾ = W̃K (KᵀΣK + μI)⁻¹. For the other modes the rows of a
/// factor are coupled: the normal operator is D ↦ 𝒞(Σ ℰ(D) C) with ℰ(D) the Khatri–Rao product with D in the place of A⁽ⁿ⁾,
/// 𝒞 its transpose and C = A⁽⁰⁾ᵀA⁽⁰⁾. Where the system of size Iₙ R is small (at most 1024: spatial modes) it is built and
/// solved; otherwise a few steps of conjugate gradients from the current factor lower the error, preconditioned by the
/// Kronecker product of the partial traces of Σ, which for Σ = I is the inverse itself.
///
/// Where WΣ = 0, the inputs say nothing about the kernel, and Σ = I takes their place.
///
/// The trace and what an observer sees are the weighted errors ‖(W − Ŵ) Σ^½‖ / ‖WΣ^½‖;
/// [`rel_error`](Decomposition::rel_error) of the result is the plain one.
///
/// # Cost
/// Per sweep, 2 P² R operations for mode 0, for each mode that is solved directly and for each step of conjugate gradients,
/// 2 P Iₙ R² + (Iₙ R)³/3 for a direct solve, and O(T P R). Σ takes P² numbers in f64: 24 MB for 192 channels and 3×3, and
/// half as much again in f32, for the steps of conjugate gradients; their residuals and all else are in f64.
///
/// ```
/// use cp_core::{DataAwareAls, Init, InputStatistics, Solver, weighted_rel_error};
/// use ndarray::{Array, Array2};
///
/// let w = Array::from_shape_fn((6, 4, 3), |(t, s, k)| ((t * 7 + s * 5 + k * 3) as f64).sin() + 0.1 * (t * s * k) as f64).into_dyn();
/// // Inputs of which the first entries vary most.
/// let x = Array2::from_shape_fn((200, 12), |(i, p)| ((i * (p + 2)) as f64).cos() / (1.0 + p as f64));
/// let mut statistics = InputStatistics::new(12);
/// statistics.add(x.view())?;
/// let found = DataAwareAls::new(2, statistics.clone()).init(Init::Random { seed: 1 }).decompose(w.view())?;
/// let weighted = weighted_rel_error(w.view(), &found.cp, &statistics)?;
/// assert!(weighted < found.rel_error);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Kalle et al. (2025), arXiv 2511.04494.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct DataAwareAls {
    rank: usize,
    statistics: Arc<InputStatistics>,
    max_iters: usize,
    tol: f64,
    ridge: f64,
    cg_steps: usize,
    init: Init,
}

/// Sweeps, unless [`DataAwareAls::max_iters`] says otherwise.
const MAX_ITERS: usize = 100;
/// Change of the weighted error, unless [`DataAwareAls::tol`] says otherwise.
const TOL: f64 = 1e-8;
/// Relative ridge, unless [`DataAwareAls::ridge`] says otherwise.
const RIDGE: f64 = 1e-12;
/// Steps of conjugate gradients, unless [`DataAwareAls::cg_steps`] says otherwise.
const CG_STEPS: usize = 8;
/// Largest Iₙ R of a direct solve.
const DIRECT: usize = 1024;
/// Part of the first preconditioned residual at which conjugate gradients stop.
const CG_TOL: f64 = 1e-4;

impl DataAwareAls {
    /// ALS-Σ for `rank` terms: 100 sweeps at most, tolerance 1e-8, ridge 1e-12, random start with seed 0. Takes the statistics
    /// or an [`Arc`] of them.
    pub fn new(rank: usize, statistics: impl Into<Arc<InputStatistics>>) -> Self {
        Self {
            rank,
            statistics: statistics.into(),
            max_iters: MAX_ITERS,
            tol: TOL,
            ridge: RIDGE,
            cg_steps: CG_STEPS,
            init: Init::Random { seed: 0 },
        }
    }

    /// Most sweeps; default 100. With 0 the start is returned.
    pub fn max_iters(mut self, sweeps: usize) -> Self {
        self.max_iters = sweeps;
        self
    }

    /// Stops when the weighted error changes by less than this between two sweeps; default 1e-8.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Ridge relative to the mean diagonal entry of the normal matrix, as [`Als::ridge`](super::Als::ridge); default 1e-12.
    /// Where the matrix is singular it is raised tenfold until it is not, from 1e-15 where it is 0.
    pub fn ridge(mut self, ridge: f64) -> Self {
        self.ridge = ridge;
        self
    }

    /// Most steps of conjugate gradients for a mode; default 8. More cost more and bring each update nearer to the exact one.
    pub fn cg_steps(mut self, steps: usize) -> Self {
        self.cg_steps = steps;
        self
    }

    /// Where to start; default [`Init::Random`] with seed 0. A few sweeps of plain ALS cost little beside those of ALS-Σ and
    /// are a good start: [`Init::Factors`].
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    fn check(&self) -> Result<(), CpError> {
        check_option("tol", self.tol)?;
        check_option("ridge", self.ridge)
    }
}

impl<T: Real> Solver<T> for DataAwareAls {
    fn name(&self) -> &'static str {
        "als-sigma"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        self.check()?;
        let problem = Problem::new(&tensor, self.rank)?;
        let metric = Metric::new(&problem.tensor, &self.statistics)?;
        let start = self.init.factors(&problem.tensor, self.rank)?;
        let mut model = WeightedModel::new(start, problem.exponent);
        let (trace, stop) = if metric.whole == 0.0 {
            model.weights.fill(0.0);
            (Vec::new(), StopReason::Converged)
        } else {
            iterate(self.max_iters, self.tol, observe, &mut |iteration| {
                self.sweep(&metric, &mut model, iteration).map(Into::into)
            })?
        };
        let factors = model.factors.iter().map(|f| f.iter().map(|&x| T::narrow(x)).collect());
        problem.finish(factors.collect(), &model.weights, trace, stop)
    }
}

impl DataAwareAls {
    /// One sweep over all modes; returns the weighted error after it.
    fn sweep(
        &self,
        metric: &Metric,
        model: &mut WeightedModel,
        iter: usize,
    ) -> Result<f64, CpError> {
        for mode in 0..metric.shape.len() {
            let mut solution = if mode == 0 {
                let k = model.take_inputs(metric);
                let Inputs { kr, weighted } = &k;
                let mut normal = inner(kr, weighted, self.rank);
                symmetrize(&mut normal, self.rank);
                let mut solution = metric.times(kr, self.rank);
                ridge_solve(&mut normal, &mut solution, self.rank, self.ridge)
                    .map_err(|_| CpError::SingularNormalMatrix { mode, iter })?;
                model.inputs = Some(k);
                solution
            } else {
                let step = ModeStep::new(metric, model, mode);
                let size = metric.shape[mode] * self.rank;
                let found = if size <= DIRECT {
                    step.direct(self.ridge)
                } else {
                    step.conjugate_gradients(self.ridge, self.cg_steps)
                };
                model.inputs = None;
                found.map_err(|_| CpError::SingularNormalMatrix { mode, iter })?
            };
            normalize(&mut model.weights, &mut model.factors[mode], &mut solution, self.rank);
        }
        Ok(metric.rel_error(model))
    }
}

/// K = ⊙_{m≥1} A⁽ᵐ⁾ and ΣK, `[P, R]`.
struct Inputs {
    kr: Vec<f64>,
    weighted: Vec<f64>,
}

/// Normalised factors and λ, in units of the scaled tensor.
struct WeightedModel {
    factors: Vec<Vec<f64>>,
    weights: Vec<f64>,
    /// For the factors as they are, where it is known.
    inputs: Option<Inputs>,
}

impl WeightedModel {
    fn new(mut cp: CpTensor<f64>, exponent: i32) -> Self {
        cp.normalize();
        let down = Scale::new(-exponent);
        let factors = cp.factors.iter().map(|f| f.iter().copied().collect()).collect();
        let weights = cp.weights.iter().map(|&w| down.of(w)).collect();
        Self { factors, weights, inputs: None }
    }

    fn take_inputs(&mut self, metric: &Metric) -> Inputs {
        let rank = self.weights.len();
        self.inputs.take().unwrap_or_else(|| {
            let kr = flat_khatri_rao(&self.factors[1..], rank);
            let weighted = metric.weigh(&kr, rank);
            Inputs { kr, weighted }
        })
    }
}

/// Relative error of a model in the metric of the inputs, ‖(W − Ŵ) Σ^½‖ / ‖WΣ^½‖, from the entries in f64; 0 where both are 0.
///
/// Costs 2 T P² + 2 T P R operations.
///
/// # Shapes
/// `tensor`: `[T, I₁, …]`, the shape of `cp`; `statistics`: for P = ∏_{n≥1} Iₙ entries.
///
/// # Errors
/// Statistics of another size or without examples.
///
/// # Panics
/// If the shapes of tensor and model differ.
#[track_caller]
pub fn weighted_rel_error<T: Real>(
    tensor: ArrayViewD<'_, T>,
    cp: &CpTensor<T>,
    statistics: &InputStatistics,
) -> Result<f64, CpError> {
    assert!(
        tensor.shape() == cp.shape(),
        "a model of shape {:?} for a tensor of {:?}",
        cp.shape(),
        tensor.shape()
    );
    let dense = Dense::new(&tensor);
    // A power of two keeps the squares in range.
    let down = Scale::new(-scale::exponent(measure::largest(&dense.data)));
    let size: usize = dense.shape[1..].iter().product();
    let sigma = statistics.scaled(size)?;
    let rows = dense.shape[0];
    let rank = cp.rank();
    let factors: Vec<Vec<f64>> =
        cp.factors.iter().map(|f| f.iter().map(|x| x.widen()).collect()).collect();
    let kr = flat_khatri_rao(&factors[1..], rank);
    let weights: Vec<f64> = cp.weights.iter().map(|w| down.of(w.widen())).collect();
    let scaled =
        |row: &[f64]| -> Vec<f64> { row.iter().zip(&weights).map(|(x, w)| x * w).collect() };
    let output: Vec<f64> = factors[0].chunks_exact(rank).flat_map(scaled).collect();
    let mut model = vec![0.0; rows * size];
    product(
        mat_mut(&mut model, rows, size),
        mat(&output, rows, rank),
        mat(&kr, size, rank).transpose(),
    );
    let x: Vec<f64> = dense.data.iter().map(|x| down.of(x.widen())).collect();
    Ok(weighted_ratio(&x, &model, &sigma, rows))
}

/// [`weighted_rel_error`] of a model of any kind, by the tensor that it makes.
///
/// # Shapes
/// `tensor`, `model`: `[T, I₁, …]`; `statistics`: for P = ∏_{n≥1} Iₙ entries.
///
/// # Errors
/// Statistics of another size or without examples.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn weighted_distance<T: Real>(
    tensor: ArrayViewD<'_, T>,
    model: ArrayViewD<'_, T>,
    statistics: &InputStatistics,
) -> Result<f64, CpError> {
    assert!(
        tensor.shape() == model.shape(),
        "a model of shape {:?} for a tensor of {:?}",
        model.shape(),
        tensor.shape()
    );
    let (dense, model) = (Dense::new(&tensor), Dense::new(&model));
    let down = Scale::new(-scale::exponent(measure::largest(&dense.data)));
    let scaled = |data: &[T]| -> Vec<f64> { data.iter().map(|x| down.of(x.widen())).collect() };
    let sigma = statistics.scaled(dense.shape[1..].iter().product())?;
    Ok(weighted_ratio(&scaled(&dense.data), &scaled(&model.data), &sigma, dense.shape[0]))
}

/// ‖(X − Y) Σ^½‖ / ‖XΣ^½‖ of matrices with `rows` rows; 0 where both are 0.
fn weighted_ratio(x: &[f64], y: &[f64], sigma: &[f64], rows: usize) -> f64 {
    let size = x.len() / rows.max(1);
    let square = |matrix: &[f64]| {
        let mut weighted = vec![0.0; matrix.len()];
        let (x, sigma) = (mat(matrix, rows, size), mat(sigma, size, size));
        product(mat_mut(&mut weighted, rows, size), x, sigma);
        dot(matrix, &weighted).max(0.0)
    };
    let difference: Vec<f64> = x.iter().zip(y).map(|(x, y)| x - y).collect();
    measure::ratio(square(&difference).sqrt(), square(x).sqrt())
}
