//! Alternating least squares on sampled rows: [`SampledAls`].

use std::ops::ControlFlow;

use ndarray::ArrayViewD;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::normal::normalize;
use super::{Als, Decomposition, Solver};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::linalg::{
    add_ridge, gram_into, mat, mat_mut, product, raise_ridge, solve_normal, symmetric_eigen,
};
use crate::measure;
use crate::problem::{Problem, check_option};
use crate::progress::{Progress, StopReason};
use crate::random::{Purpose, generator};
use crate::real::Real;
use crate::scale::Scale;
use crate::threads::{for_each_piece, map, pass};
use crate::tree::Dense;

/// Alternating least squares that looks at a few fibers of the tensor in each step, for tensors too large for exact sweeps.
///
/// The least squares problem of mode n, min ‖X₍ₙ₎ − A⁽ⁿ⁾ Kᵀ‖² with the Khatri–Rao product K = ⊙_{m≠n} A⁽ᵐ⁾, has ∏_{m≠n} Iₘ
/// equations. Of these, S are drawn with probabilities ∏_{m≠n} ℓₘ(iₘ)/Σℓₘ, where ℓₘ are the leverage scores of the rows of A⁽ᵐ⁾,
/// and weighted so that the expected normal equations are the exact ones. Neither K nor its scores are formed.
///
/// # Errors are honest
/// A sampled step ends near its optimum, not at it: over N modes the squared error stays at about (1 + N R/S) times the least
/// one, so noisy tensors keep an excess that no number of epochs removes. Hence, [`exact_sweeps`](Self::exact_sweeps) of [`Als`] over all entries end the
/// run (2 by default), and [`Decomposition::rel_error`] is always computed from all entries of the tensor. The
/// [`trace`](Decomposition::trace), and what the observer sees, is an *estimate* from 65 536 fixed entries after each epoch,
/// good to about a percent of its value (exact for tensors with fewer entries than that), and exact for the exact sweeps. Why
/// the run [stopped](Decomposition::stop) is said of the sampled part: the exact sweeps are of a given number.
///
/// # When
/// Where R ∏ Iₙ is so large that an exact sweep takes seconds, and the start is far from the answer. Not for convolution
/// kernels: an exact sweep on `[256, 384, 3, 3]` costs less than a sampled one. Where S is no smaller than the number of
/// equations, as in modes of small tensors, all of them are taken.
///
/// # Cost
/// Per sweep O(S R (R + Σ Iₙ)) operations and S Σ Iₙ reads scattered over the tensor, which dominate; at the end 2 R ∏ Iₙ
/// operations for the error and 4 R ∏ Iₙ for each exact sweep.
///
/// ```
/// use cp_core::{CpTensor, Init, SampledAls, Solver};
/// use ndarray::Array2;
///
/// let column = |size: usize, k: f64| Array2::from_shape_fn((size, 2), |(i, r)| ((1 + i) as f64 * k + (r * r) as f64).cos());
/// let x = CpTensor::from_factors(vec![column(40, 0.9), column(30, 1.7), column(20, 2.3)])?.reconstruct();
/// let found = SampledAls::new(2).samples(100).init(Init::Random { seed: 1 }).decompose(x.view())?;
/// assert!(found.rel_error < 1e-3);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Larsen & Kolda (2022), "Practical leverage-based sampling for low-rank tensor decomposition", SIAM J. Matrix
/// Anal. Appl. 43, algorithm 4.1 without the deterministic rows; epochs and the estimate of the fit from Battaglino, Ballard
/// & Kolda (2018), "A practical randomized CP tensor decomposition", ibid. 39, §3.3.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct SampledAls {
    rank: usize,
    samples: Option<usize>,
    epochs: usize,
    tol: f64,
    exact_sweeps: usize,
    ridge: Option<f64>,
    seed: u64,
    init: Init,
}

/// Samples for each term, unless [`SampledAls::samples`] says otherwise.
const SAMPLES_PER_TERM: usize = 20;
/// Fewest samples by default.
const FEWEST: usize = 1000;
/// Sampled sweeps between two looks at the error.
const SWEEPS: usize = 5;
/// Epochs without progress that end the sampled part.
const PATIENCE: usize = 3;
/// Entries that the error on the way is estimated from.
const ENTRIES: usize = 1 << 16;

impl SampledAls {
    /// Sampled ALS for `rank` terms: max(20 R, 1000) samples, 20 epochs of 5 sweeps at most, tolerance 1e-4, 2 exact sweeps,
    /// random start with seed 0, samples drawn from seed 0.
    pub fn new(rank: usize) -> Self {
        Self {
            rank,
            samples: None,
            epochs: 20,
            tol: 1e-4,
            exact_sweeps: 2,
            ridge: None,
            seed: 0,
            init: Init::Random { seed: 0 },
        }
    }

    /// Equations S drawn for each step; default max(20 R, 1000). Raised to R where it is smaller.
    pub fn samples(mut self, samples: usize) -> Self {
        self.samples = Some(samples);
        self
    }

    /// Most epochs of 5 sampled sweeps; default 20. With 0 only the exact sweeps are made.
    pub fn epochs(mut self, epochs: usize) -> Self {
        self.epochs = epochs;
        self
    }

    /// Ends the sampled part when 3 epochs in a row have not lowered the estimate of the relative error by more than this;
    /// default 1e-4. With 0 any progress counts.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Sweeps of [`Als`] over all entries at the end; default 2. With 0 the model of the best epoch is returned.
    pub fn exact_sweeps(mut self, sweeps: usize) -> Self {
        self.exact_sweeps = sweeps;
        self
    }

    /// Ridge relative to the mean diagonal entry of the normal matrix, as [`Als::ridge`]; default 1e-12 in f64, 1e-7 in f32.
    pub fn ridge(mut self, ridge: f64) -> Self {
        self.ridge = Some(ridge);
        self
    }

    /// Seed of the samples; default 0. The seed of the start is in [`SampledAls::init`].
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Where to start; default [`Init::Random`] with seed 0.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }

    fn check(&self) -> Result<(), CpError> {
        check_option("tol", self.tol)?;
        check_option("ridge", self.ridge)?;
        if self.samples == Some(0) {
            let expected = "at least 1";
            return Err(CpError::InvalidOption { option: "samples", value: 0.0, expected });
        }
        Ok(())
    }
}

impl<T: Real> Solver<T> for SampledAls {
    fn name(&self) -> &'static str {
        "sampled-als"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        self.check()?;
        let problem = Problem::new(&tensor, self.rank)?;
        let start = self.init.factors(&problem.tensor, self.rank)?;
        let mut model = SampledModel::new(&problem, start)?;
        let mut trace = Vec::new();
        if problem.norm == 0.0 {
            model.weights.fill(0.0);
            return problem.finish(model.factors, &model.weights, trace, StopReason::Converged);
        }
        let samples =
            self.samples.unwrap_or(FEWEST.max(SAMPLES_PER_TERM * self.rank)).max(self.rank);
        let ridge = self.ridge.unwrap_or(T::DEFAULT_RIDGE);
        let mut rng = generator(self.seed, Purpose::Samples, 0);
        let estimate = Estimate::new(&problem, self.seed);
        let mut best: Option<(f64, Vec<Vec<T>>, Vec<f64>)> = None;
        let mut stale = 0;
        let mut stop = StopReason::MaxIters;
        for epoch in 1..=self.epochs {
            for _ in 0..SWEEPS {
                for mode in 0..problem.tensor.shape.len() {
                    model.update(&problem.tensor, mode, samples, ridge, epoch, &mut rng)?;
                }
            }
            let rel_error = estimate.rel_error(&problem, &model);
            trace.push(rel_error);
            let lowest = best.as_ref().map_or(f64::INFINITY, |best| best.0);
            stale = if rel_error < lowest - self.tol { 0 } else { stale + 1 };
            if rel_error < lowest {
                best = Some((rel_error, model.factors.clone(), model.weights.clone()));
            }
            if observe(&Progress { iteration: epoch, rel_error }).is_break() {
                stop = StopReason::Observer;
                break;
            }
            if stale >= PATIENCE {
                stop = StopReason::Converged;
                break;
            }
        }
        let (factors, weights) =
            best.map_or((model.factors, model.weights), |(_, factors, weights)| (factors, weights));
        if stop == StopReason::Observer || self.exact_sweeps == 0 {
            return problem.finish(factors, &weights, trace, stop);
        }
        let watch = problem.started;
        let sampled = problem.model(factors, &weights)?;
        let epochs = trace.len();
        let exact = Als::new(self.rank)
            .max_iters(self.exact_sweeps)
            .tol(0.0)
            .ridge(ridge)
            .init(Init::Factors(sampled.cast()));
        let mut found = exact.decompose_with(tensor, &mut |progress| {
            observe(&Progress { iteration: epochs + progress.iteration, ..*progress })
        })?;
        if found.stop != StopReason::Observer {
            found.stop = stop;
        }
        trace.append(&mut found.trace);
        found.trace = trace;
        found.seconds = watch.seconds();
        Ok(found)
    }
}

/// The model while it is being improved.
struct SampledModel<T> {
    rank: usize,
    /// `[Iₙ, R]` each, columns of norm 1.
    factors: Vec<Vec<T>>,
    /// λ, `[R]`.
    weights: Vec<f64>,
    /// Sums of the leverage scores of the rows up to each, divided by their total, `[Iₙ]` each.
    scores: Vec<Vec<f64>>,
}

impl<T: Real> SampledModel<T> {
    fn new(problem: &Problem<'_, T>, mut start: CpTensor<f64>) -> Result<Self, CpError> {
        start.normalize();
        let rank = start.rank();
        let narrow = |f: &ndarray::Array2<f64>| f.iter().map(|&x| T::narrow(x)).collect();
        let factors: Vec<Vec<T>> = start.factors.iter().map(narrow).collect();
        let down = Scale::new(-problem.exponent);
        let weights = start.weights.iter().map(|&w| down.of(w)).collect();
        let scores: Result<_, _> = factors.iter().map(|f| leverage(f, rank)).collect();
        Ok(Self { rank, factors, weights, scores: scores? })
    }

    /// Solves for the factor of one mode on sampled equations.
    fn update(
        &mut self,
        tensor: &Dense<'_, T>,
        mode: usize,
        samples: usize,
        ridge: f64,
        iter: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<(), CpError> {
        let rank = self.rank;
        let size = tensor.shape[mode];
        let DrawnRows { places, rows } = self.sample(tensor, mode, samples, rng);
        let count = places.len();
        // The fibers of the tensor, weighted like the rows: [S, Iₙ].
        let stride: usize = tensor.shape[mode + 1..].iter().product();
        let mut fibers = vec![T::zero(); count * size];
        for_each_piece(pass(fibers.len()), &mut fibers, size, |i, to| {
            let (place, weight) = places[i];
            let from = tensor.data[place..].iter().step_by(stride);
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = weight * x);
        });
        let mut g = vec![T::zero(); size * rank];
        let right = mat(&rows, count, rank);
        product(mat_mut(&mut g, size, rank), mat(&fibers, count, size).transpose(), right);
        let wide: Vec<f64> = rows.iter().map(|x| x.widen()).collect();
        let mut normal = vec![0.0; rank * rank];
        gram_into(&mut normal, &wide, count, rank);
        let mut solution = raise_ridge(ridge, None, |relative| {
            let mut normal = normal.clone();
            add_ridge(&mut normal, rank, relative);
            let mut solution: Vec<f64> = g.iter().map(|x| x.widen()).collect();
            solve_normal(&mut normal, &mut solution, size, rank).map(|()| solution)
        })
        .map_err(|_| CpError::SingularNormalMatrix { mode, iter })?;
        normalize(&mut self.weights, &mut self.factors[mode], &mut solution, rank);
        self.scores[mode] = leverage(&self.factors[mode], rank)?;
        Ok(())
    }

    /// Draws the equations of a mode, or takes all of them where there are no more than `samples`.
    fn sample(
        &self,
        tensor: &Dense<'_, T>,
        mode: usize,
        samples: usize,
        rng: &mut ChaCha8Rng,
    ) -> DrawnRows<T> {
        let (rank, shape) = (self.rank, &tensor.shape);
        let others: Vec<usize> = (0..shape.len()).filter(|&m| m != mode).collect();
        let stride = |m: usize| shape[m + 1..].iter().product::<usize>();
        let all: usize = others.iter().map(|&m| shape[m]).product();
        let count = samples.min(all);
        let mut places = Vec::with_capacity(count);
        let mut rows = vec![T::zero(); count * rank];
        for (k, row) in rows.chunks_exact_mut(rank).enumerate() {
            let mut place = 0;
            let mut probability = 1.0;
            let mut rest = k;
            row.fill(T::one());
            for &m in others.iter().rev() {
                let index = if samples >= all {
                    let index = rest % shape[m];
                    rest /= shape[m];
                    index
                } else {
                    let (index, share) = draw(&self.scores[m], rng);
                    probability *= share;
                    index
                };
                place += index * stride(m);
                let factor = &self.factors[m][index * rank..][..rank];
                row.iter_mut().zip(factor).for_each(|(to, &x)| *to *= x);
            }
            let weight = if samples >= all {
                T::one()
            } else {
                T::narrow((probability * count as f64).sqrt().recip())
            };
            row.iter_mut().for_each(|x| *x *= weight);
            places.push((place, weight));
        }
        DrawnRows { places, rows }
    }
}

/// Equations of one mode.
struct DrawnRows<T> {
    /// Where the fiber of an equation begins in the tensor, and the root of its weight, `[S]`.
    places: Vec<(usize, T)>,
    /// Rows of the Khatri–Rao product times the roots of the weights, `[S, R]`.
    rows: Vec<T>,
}

/// An index with the probability it was drawn with.
fn draw(sums: &[f64], rng: &mut ChaCha8Rng) -> (usize, f64) {
    let at: f64 = rng.random();
    let index = sums.partition_point(|&sum| sum <= at).min(sums.len() - 1);
    let before = if index == 0 { 0.0 } else { sums[index - 1] };
    (index, (sums[index] - before).max(f64::MIN_POSITIVE))
}

/// Running sums of the leverage scores of the rows of A, aᵢ (AᵀA)⁺ aᵢᵀ, divided by their total; `[I]`.
fn leverage<T: Real>(factor: &[T], rank: usize) -> Result<Vec<f64>, CpError> {
    let rows = factor.len() / rank;
    let wide: Vec<f64> = factor.iter().map(|x| x.widen()).collect();
    let mut gram = vec![0.0; rank * rank];
    gram_into(&mut gram, &wide, rows, rank);
    let failed =
        CpError::NoConvergence { what: "eigenvalue decomposition", rows: rank, columns: rank };
    let (values, vectors) = symmetric_eigen(mat(&gram, rank, rank)).ok_or(failed)?;
    // Eigenvalues come in non-decreasing order.
    let noise = values[rank - 1] * T::EPSILON * rank as f64;
    let mut turned = vec![0.0; rows * rank];
    product(mat_mut(&mut turned, rows, rank), mat(&wide, rows, rank), vectors.as_ref());
    let mut sum = 0.0;
    let mut sums: Vec<f64> = turned
        .chunks_exact(rank)
        .map(|row| {
            let kept = row.iter().zip(&values).filter(|(_, v)| **v > noise);
            sum += kept.map(|(x, v)| x * x / v).sum::<f64>();
            sum
        })
        .collect();
    if sum > 0.0 {
        sums.iter_mut().for_each(|s| *s /= sum);
    } else {
        sums.iter_mut().enumerate().for_each(|(i, s)| *s = (i + 1) as f64 / rows as f64);
    }
    Ok(sums)
}

/// Fixed entries that the relative error is estimated from.
struct Estimate {
    /// Places in the tensor; empty where all entries are looked at.
    places: Vec<usize>,
}

impl Estimate {
    fn new<T: Real>(problem: &Problem<'_, T>, seed: u64) -> Self {
        let entries = problem.tensor.data.len();
        if entries <= ENTRIES {
            return Self { places: Vec::new() };
        }
        let mut rng = generator(seed, Purpose::ErrorEstimate, 0);
        let mut places: Vec<usize> = (0..ENTRIES).map(|_| rng.random_range(0..entries)).collect();
        // In the order of memory.
        places.sort_unstable();
        Self { places }
    }

    fn rel_error<T: Real>(&self, problem: &Problem<'_, T>, model: &SampledModel<T>) -> f64 {
        let tensor = &problem.tensor;
        if self.places.is_empty() {
            let wide: Vec<Vec<f64>> =
                model.factors.iter().map(|f| f.iter().map(|x| x.widen()).collect()).collect();
            return measure::residual(tensor, &wide, &model.weights) / problem.norm;
        }
        let rank = model.rank;
        let squares = |places: &[usize]| -> f64 {
            let mut row = vec![0.0; rank];
            let mut total = 0.0;
            for &place in places {
                row.copy_from_slice(&model.weights);
                let mut rest = place;
                for (factor, &size) in model.factors.iter().zip(&tensor.shape).rev() {
                    let values = &factor[rest % size * rank..][..rank];
                    row.iter_mut().zip(values).for_each(|(to, x)| *to *= x.widen());
                    rest /= size;
                }
                total += (tensor.data[place].widen() - row.iter().sum::<f64>()).powi(2);
            }
            total
        };
        /// Places whose squares are added up by one thread.
        const BLOCK: usize = 1024;
        let blocks: Vec<&[usize]> = self.places.chunks(BLOCK).collect();
        let work = self.places.len() as f64 * (rank * model.factors.len()) as f64;
        let blocks = map(work, blocks.len(), |i| squares(blocks[i]));
        let scale = tensor.data.len() as f64 / self.places.len() as f64;
        (scale * blocks.iter().sum::<f64>()).sqrt() / problem.norm
    }
}
