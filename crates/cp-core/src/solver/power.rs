//! Greedy rank-one terms: the tensor power method with deflation, [`PowerMethod`].

use std::borrow::Cow;
use std::ops::ControlFlow;

use ndarray::ArrayViewD;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::{Decomposition, Solver};
use crate::error::CpError;
use crate::measure::Survey;
use crate::problem::{Problem, check_option};
use crate::progress::{Progress, StopReason};
use crate::random::{Purpose, generator};
use crate::real::Real;
use crate::tree::{Dense, Workspace, sweep};

/// The tensor power method with deflation: one term after the other, each the best rank-one approximation that power
/// iteration finds of what the earlier ones left.
///
/// A term starts from Gaussian vectors of norm 1. A sweep replaces each vector by the tensor contracted with all others,
/// a⁽ⁿ⁾ ← X ×_{m≠n} a⁽ᵐ⁾ / ‖·‖, and the term is found when no vector moves by [`tol`](Self::tol) or more any longer. Then
/// λ = X ×₀ a⁽⁰⁾ … ×_N₋₁ a⁽ᴺ⁻¹⁾, and λ a⁽⁰⁾ ∘ … ∘ a⁽ᴺ⁻¹⁾ is taken off the residual.
///
/// Terms are never fitted again, so that the result is worse than that of [`Als`](crate::Als) at the same rank except
/// for orthogonal terms, but it cannot diverge: every term lowers ‖residual‖² by λ², and component energies stay at or
/// below 1. The first R terms of a larger model are the model of rank R for the same seed.
///
/// The observer is called once per term, with the number of terms as the iteration. A run that it stops returns a model of
/// just the terms found, so that it can be used to choose the rank by an error target. The run has
/// [converged](StopReason::Converged) if every term has.
///
/// # Cost
/// Two matrix-vector products of 2 ∏ Iₙ operations per sweep of a term and start, 3 ∏ Iₙ per term for the deflation. A copy
/// of the tensor is held.
///
/// # Numbers
/// Products and the residual are in the tensor's own type, norms in f64.
///
/// ```
/// use cp_core::{PowerMethod, Solver};
/// use ndarray::array;
///
/// // A diagonal tensor is a sum of orthogonal terms, which come out largest first given a few starts.
/// let x = array![[[0.0, 0.0], [0.0, 3.0]], [[2.0, 0.0], [0.0, 0.0]]].into_dyn();
/// let found = PowerMethod::new(2).starts(8).tol(1e-9).decompose(x.view())?;
/// assert!((found.cp.weights[0] - 3.0_f64).abs() < 1e-9 && found.rel_error < 1e-9);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: De Lathauwer, De Moor & Vandewalle (2000), "On the best rank-1 and rank-(R₁, …, R_N) approximation of
/// higher-order tensors", §3.3; for convolution kernels Astrid & Lee (2017), "CP-decomposition with tensor power method for
/// convolutional neural networks compression", §III.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct PowerMethod {
    rank: usize,
    max_iters: usize,
    tol: f64,
    starts: usize,
    seed: u64,
    /// Whether terms start from means in the place of Gaussian vectors.
    means: bool,
}

/// Sweeps per term, unless [`PowerMethod::max_iters`] says otherwise.
const MAX_ITERS: usize = 100;
/// Movement of a vector that ends a term, unless [`PowerMethod::tol`] says otherwise: what Astrid & Lee use.
const TOL: f64 = 1e-3;
/// Sweeps per term of [`PowerMethod::greedy`].
const GREEDY_SWEEPS: usize = 64;

impl PowerMethod {
    /// `rank` terms: at most 100 sweeps each, tolerance 1e-3, one start per term, seed 0.
    pub fn new(rank: usize) -> Self {
        Self { rank, max_iters: MAX_ITERS, tol: TOL, starts: 1, seed: 0, means: false }
    }

    /// `rank` terms as Denton et al. find them: each starts from the means of what is left over all other modes, and has 64 sweeps.
    /// Nothing is drawn, so that seed and number of starts change nothing.
    ///
    /// ```
    /// use cp_core::{PowerMethod, Solver};
    /// use ndarray::array;
    ///
    /// let x = array![[[2.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 1.0]]].into_dyn();
    /// let found = PowerMethod::greedy(2).decompose(x.view())?;
    /// assert!((found.cp.weights[0] - 2.0_f64).abs() < 1e-9 && found.rel_error < 1e-9);
    /// # Ok::<(), cp_core::CpError>(())
    /// ```
    ///
    /// Source: Denton, Zaremba, Bruna, LeCun & Fergus (2014), "Exploiting linear structure within convolutional networks for
    /// efficient evaluation", §3.2.
    pub fn greedy(rank: usize) -> Self {
        Self { max_iters: GREEDY_SWEEPS, tol: 0.0, means: true, ..Self::new(rank) }
    }

    /// Most sweeps per term and start; default 100.
    pub fn max_iters(mut self, sweeps: usize) -> Self {
        self.max_iters = sweeps;
        self
    }

    /// A term is found when each of its vectors (of norm 1) moves by less than this in a sweep; default 1e-3. With 0 there
    /// are exactly [`max_iters`](Self::max_iters) sweeps.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Starts per term, of which the one with the largest |λ| is kept; default 1, and 0 counts as 1.
    ///
    /// Power iteration ends in a local maximum of |λ|, which one depends on the start.
    pub fn starts(mut self, starts: usize) -> Self {
        self.starts = starts.max(1);
        self
    }

    /// Seed of the starts; default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The best of the starts on what is left of the tensor.
    fn term<T: Real>(
        &self,
        residual: &Dense<'_, T>,
        term: usize,
        space: &mut Workspace<T>,
    ) -> Term<T> {
        let start = |which| {
            if self.means {
                return Term::means(residual);
            }
            // A stream of its own for each term and start: the numbers do not depend on how many there are.
            let place = ((term as u64) << 32) + which as u64;
            Term::start(&residual.shape, &mut generator(self.seed, Purpose::Start, place))
        };
        let mut found = |which| {
            let mut term = start(which);
            term.iterate(residual, self.max_iters, self.tol, space);
            term
        };
        let mut best = found(0);
        // The means are the same at every start.
        let starts = if self.means { 1 } else { self.starts };
        for which in 1..starts {
            let next = found(which);
            if next.weight > best.weight {
                best = next;
            }
        }
        best
    }
}

impl<T: Real> Solver<T> for PowerMethod {
    fn name(&self) -> &'static str {
        "power"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        check_option("tol", self.tol)?;
        let problem = Problem::new(&tensor, self.rank)?;
        let shape = &problem.tensor.shape;
        let mut residual =
            Dense { shape: shape.clone(), data: Cow::Owned(problem.tensor.data.to_vec()) };
        let mut space = Workspace::new();
        let mut found = Vec::new();
        let mut trace = Vec::new();
        let mut stop = StopReason::Converged;
        for iteration in 1..=self.rank {
            let term = self.term(&residual, iteration - 1, &mut space);
            term.deflate(&mut residual);
            if !term.settled && stop == StopReason::Converged {
                stop = StopReason::MaxIters;
            }
            found.push(term);
            if problem.norm == 0.0 {
                continue;
            }
            let rel_error = Survey::of(&residual.data).square.sqrt() / problem.norm;
            trace.push(rel_error);
            if observe(&Progress { iteration, rel_error }).is_break() {
                stop = StopReason::Observer;
                break;
            }
        }
        let rank = found.len();
        let mut factors: Vec<Vec<T>> = shape.iter().map(|&n| vec![T::zero(); n * rank]).collect();
        for (r, term) in found.iter().enumerate() {
            for (factor, vector) in factors.iter_mut().zip(&term.vectors) {
                factor[r..].iter_mut().step_by(rank).zip(vector).for_each(|(to, &x)| *to = x);
            }
        }
        let weights: Vec<f64> = found.iter().map(|term| term.weight).collect();
        problem.finish(factors, &weights, trace, stop)
    }
}

/// λ a⁽⁰⁾ ∘ … ∘ a⁽ᴺ⁻¹⁾ with vectors of norm 1 and λ ≥ 0.
struct Term<T> {
    vectors: Vec<Vec<T>>,
    weight: f64,
    /// Whether the vectors came to rest.
    settled: bool,
}

impl<T: Real> Term<T> {
    /// Gaussian vectors of norm 1, λ = 0.
    fn start(shape: &[usize], rng: &mut ChaCha8Rng) -> Self {
        let mut draw = |size: usize| {
            let mut vector: Vec<f64> = (0..size).map(|_| StandardNormal.sample(rng)).collect();
            if unit(&mut vector) == 0.0 {
                vector[0] = 1.0;
            }
            vector.into_iter().map(T::narrow).collect()
        };
        let vectors = shape.iter().map(|&size| draw(size)).collect();
        Self { vectors, weight: 0.0, settled: false }
    }

    /// The means over all other modes, of norm 1; where one vanishes, the fibres through the largest entry.
    fn means(tensor: &Dense<'_, T>) -> Self {
        let mut sums: Vec<Vec<f64>> = tensor.shape.iter().map(|&size| vec![0.0; size]).collect();
        let (mut largest, mut place) = (-1.0, 0);
        for (at, x) in tensor.data.iter().enumerate() {
            let x = x.widen();
            if x.abs() > largest {
                (largest, place) = (x.abs(), at);
            }
            let mut rest = at;
            for (sum, &size) in sums.iter_mut().zip(&tensor.shape).rev() {
                sum[rest % size] += x;
                rest /= size;
            }
        }
        let vanishes = |sum: &mut Vec<f64>| unit(sum) == 0.0;
        if sums.iter_mut().filter_map(|sum| vanishes(sum).then_some(())).count() > 0 {
            let mut stride = tensor.data.len();
            for (sum, &size) in sums.iter_mut().zip(&tensor.shape) {
                let step = stride / size;
                let first = place - place % stride + place % step;
                *sum = (0..size).map(|i| tensor.data[first + i * step].widen()).collect();
                if unit(sum) == 0.0 {
                    sum[0] = 1.0;
                }
                stride = step;
            }
        }
        let vectors = sums.into_iter().map(|sum| sum.into_iter().map(T::narrow).collect());
        Self { vectors: vectors.collect(), weight: 0.0, settled: false }
    }

    /// Power iteration on `tensor`. Where it is zero to the last digit around the vectors, λ = 0 and they stay.
    fn iterate(
        &mut self,
        tensor: &Dense<'_, T>,
        max_iters: usize,
        tol: f64,
        space: &mut Workspace<T>,
    ) {
        let Self { vectors, weight, settled } = self;
        for _ in 0..max_iters {
            let mut moved = 0.0_f64;
            let done = sweep(tensor, vectors, 1, space, &mut |mode, g, vectors| {
                let mut next: Vec<f64> = g.iter().map(|x| x.widen()).collect();
                *weight = unit(&mut next);
                if *weight == 0.0 {
                    return Err(());
                }
                let mut square = 0.0;
                for (old, new) in vectors[mode].iter_mut().zip(next) {
                    square += (new - old.widen()).powi(2);
                    *old = T::narrow(new);
                }
                moved = moved.max(square.sqrt());
                Ok(())
            });
            if done.is_err() || moved < tol {
                *settled = true;
                break;
            }
        }
    }

    /// Takes the term, λ included, off `tensor`.
    fn deflate(&self, tensor: &mut Dense<'_, T>) {
        let Some((last, others)) = self.vectors.split_last() else { return };
        if self.weight == 0.0 {
            return;
        }
        // λ times the outer product of all vectors but the last: one number for each row of the tensor's last mode.
        let mut scales = vec![self.weight];
        for vector in others {
            scales =
                scales.iter().flat_map(|s| vector.iter().map(move |x| s * x.widen())).collect();
        }
        for (row, scale) in tensor.data.to_mut().chunks_exact_mut(last.len()).zip(scales) {
            let scale = T::narrow(scale);
            row.iter_mut().zip(last).for_each(|(x, &v)| *x -= scale * v);
        }
    }
}

/// Scales `vector` to norm 1 and returns the norm it had; 0 if that is too small to divide by.
fn unit(vector: &mut [f64]) -> f64 {
    // What is left of an exact tensor gets 1e-16 times smaller with each term: its squares would vanish.
    let largest = vector.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    if !largest.recip().is_finite() {
        return 0.0;
    }
    vector.iter_mut().for_each(|x| *x /= largest);
    let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter_mut().for_each(|x| *x /= norm);
    largest * norm
}
