//! Non-negative decomposition by hierarchical alternating least squares: [`NonNegAls`].

use std::ops::ControlFlow;

use ndarray::ArrayViewD;

use super::normal::{inner_product, normalize, product_of_grams, rel_error};
use super::{Decomposition, Solver};
use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::init::Init;
use crate::linalg::{gram_into, mat, mat_mut, product_on_one};
use crate::problem::{Problem, check_option};
use crate::progress::{Progress, StopReason, iterate};
use crate::real::Real;
use crate::scale::Scale;
use crate::threads::for_each_piece;
use crate::tree::{Workspace, sweep};

/// Non-negative CP by hierarchical alternating least squares (HALS): min ‖X − ⟦λ; A⁽⁰⁾, …, A⁽ᴺ⁻¹⁾⟧‖² with every entry of
/// every factor at least 0.
///
/// Within a mode, the columns of B = A⁽ⁿ⁾ diag(λ) are solved for one at a time, bᵣ ← max(0, bᵣ + (gᵣ − Bγᵣ) / γᵣᵣ), with
/// the MTTKRP G and the normal matrix Γ of [`Als`](crate::Als), in several passes over the columns. Each step is the exact
/// minimum over its column, so that the error never rises, no matrix is inverted, and terms cannot cancel each other: there
/// is no degeneracy and no need of a ridge. Negative entries of X are allowed, and approximated by 0.
///
/// The starting factors of [`Init`] are taken by absolute value. A column that becomes zero keeps its old direction with
/// λ = 0, from where it may come back.
///
/// # Cost
/// As [`Als`](crate::Als): two matrix products of 2 R ∏ Iₙ operations per sweep, and 2 P R² Σ Iₙ for P passes.
///
/// # Numbers
/// The products run in the tensor's own type, Grams, column updates and norms in f64. One seed gives bit-equal results on
/// any number of threads.
///
/// ```
/// use cp_core::{Init, NonNegAls, Solver};
/// use ndarray::Array;
///
/// let x = Array::from_shape_fn((4, 3, 2), |(i, j, k)| (i * j + k) as f64).into_dyn();
/// let found = NonNegAls::new(2).max_iters(500).init(Init::Random { seed: 7 }).decompose(x.view())?;
/// assert!(found.cp.factors.iter().flatten().all(|&x| x >= 0.0));
/// assert!(found.rel_error < 1e-3);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Cichocki & Phan (2009), "Fast local algorithms for large scale nonnegative matrix and tensor
/// factorizations", §4 and algorithm 3; several passes per mode: Gillis & Glineur (2012), "Accelerated multiplicative updates
/// and hierarchical ALS algorithms for nonnegative matrix factorization".
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct NonNegAls {
    rank: usize,
    max_iters: usize,
    tol: f64,
    passes: usize,
    init: Init,
}

/// Sweeps, unless [`NonNegAls::max_iters`] says otherwise.
const MAX_ITERS: usize = 200;
/// Change of the fit that ends a run, unless [`NonNegAls::tol`] says otherwise.
const TOL: f64 = 1e-8;
/// Passes over the columns per mode and sweep, unless [`NonNegAls::passes`] says otherwise.
const PASSES: usize = 5;

impl NonNegAls {
    /// HALS for `rank` terms: 200 sweeps at most, tolerance 1e-8, 5 passes per mode, random start with seed 0.
    pub fn new(rank: usize) -> Self {
        let init = Init::Random { seed: 0 };
        Self { rank, max_iters: MAX_ITERS, tol: TOL, passes: PASSES, init }
    }

    /// Most sweeps; default 200. With 0 the start is returned.
    pub fn max_iters(mut self, sweeps: usize) -> Self {
        self.max_iters = sweeps;
        self
    }

    /// Stops when the fit changes by less than this between two sweeps; default 1e-8. With 0 there are exactly
    /// [`max_iters`](Self::max_iters) sweeps.
    pub fn tol(mut self, tol: f64) -> Self {
        self.tol = tol;
        self
    }

    /// Passes over the columns per mode and sweep; default 5, and 0 counts as 1. They cost little beside the MTTKRP.
    pub fn passes(mut self, passes: usize) -> Self {
        self.passes = passes.max(1);
        self
    }

    /// Where to start, by absolute value; default [`Init::Random`] with seed 0.
    pub fn init(mut self, init: Init) -> Self {
        self.init = init;
        self
    }
}

impl<T: Real> Solver<T> for NonNegAls {
    fn name(&self) -> &'static str {
        "nonneg"
    }

    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        check_option("tol", self.tol)?;
        let problem = Problem::new(&tensor, self.rank)?;
        let start = self.init.factors(&problem.tensor, self.rank)?;
        let mut state = NonNegState::new(&problem, start);
        let (trace, stop) = if problem.norm == 0.0 {
            state.weights.fill(0.0);
            (Vec::new(), StopReason::Converged)
        } else {
            let mut space = Workspace::new();
            iterate(self.max_iters, self.tol, observe, &mut |_| {
                Ok(state.sweep(&problem, self.passes, &mut space).into())
            })?
        };
        problem.finish(state.factors, &state.weights, trace, stop)
    }
}

/// The model while it is being improved: normalised non-negative factors with their Grams, and λ.
struct NonNegState<T> {
    rank: usize,
    /// `[Iₙ, R]` each, columns of norm 1.
    factors: Vec<Vec<T>>,
    /// AₙᵀAₙ, `[R, R]` each.
    grams: Vec<Vec<f64>>,
    /// λ, `[R]`.
    weights: Vec<f64>,
    /// Scratch: Γ, `[R, R]`.
    normal: Vec<f64>,
}

impl<T: Real> NonNegState<T> {
    fn new(problem: &Problem<'_, T>, mut start: CpTensor<f64>) -> Self {
        let rank = start.rank();
        start.factors.iter_mut().for_each(|factor| factor.mapv_inplace(f64::abs));
        start.weights.mapv_inplace(f64::abs);
        start.normalize();
        let down = Scale::new(-problem.exponent);
        let weights = start.weights.iter().map(|&w| down.of(w)).collect();
        let factors: Vec<Vec<T>> =
            start.factors.iter().map(|f| f.iter().map(|&x| T::narrow(x)).collect()).collect();
        let gram = |factor: &Vec<T>| {
            let wide: Vec<f64> = factor.iter().map(|x| x.widen()).collect();
            let mut gram = vec![0.0; rank * rank];
            gram_into(&mut gram, &wide, wide.len() / rank, rank);
            gram
        };
        let grams = factors.iter().map(gram).collect();
        Self { rank, factors, grams, weights, normal: vec![0.0; rank * rank] }
    }

    /// One sweep over all modes; returns the relative error after it.
    fn sweep(&mut self, problem: &Problem<'_, T>, passes: usize, space: &mut Workspace<T>) -> f64 {
        let Self { rank, factors, grams, weights, normal } = self;
        let (rank, last) = (*rank, factors.len() - 1);
        // ⟨X, X̂⟩, known once the last mode is solved for.
        let mut inner = 0.0;
        let done: Result<(), std::convert::Infallible> =
            sweep(&problem.tensor, factors, rank, space, &mut |mode, g, factors| {
                product_of_grams(normal, grams, &[mode]);
                let factor = &mut factors[mode];
                let weighted = factor
                    .chunks_exact(rank)
                    .flat_map(|row| row.iter().zip(weights.iter()).map(|(a, w)| a.widen() * w));
                let mut solution: Vec<f64> = weighted.collect();
                improve(&mut solution, g, normal, rank, passes);
                normalize(weights, factor, &mut solution, rank);
                gram_into(&mut grams[mode], &solution, g.len() / rank, rank);
                if mode == last {
                    inner = inner_product(g, &solution, weights);
                }
                Ok(())
            });
        let Ok(()) = done;
        rel_error(problem, factors, grams, weights, normal, inner)
    }
}

/// Columns whose slopes are computed at a time.
const COLUMNS: usize = 32;
/// Rows that one thread goes through at a time.
const ROWS: usize = 64;

/// Passes of coordinate descent on ½⟨B, BΓ⟩ − ⟨G, B⟩ over B ≥ 0, column by column.
///
/// An entry depends on its own row alone, so the rows are independent. What a block of columns has of BΓ is one matrix product;
/// each entry of the block that changes corrects the ones after it in its row.
///
/// # Shapes
/// `solution`: B, `[I, R]`; `g`: G, `[I, R]`; `normal`: Γ, `[R, R]`.
fn improve<T: Real>(solution: &mut [f64], g: &[T], normal: &[f64], rank: usize, passes: usize) {
    let work = (passes * rank) as f64 * solution.len() as f64;
    let gamma = mat(normal, rank, rank);
    for_each_piece(work, solution, ROWS * rank, |piece, b| {
        let rows = b.len() / rank;
        let g = &g[piece * ROWS * rank..][..b.len()];
        let mut space = vec![0.0; rows * COLUMNS];
        for _ in 0..passes {
            let mut changed = false;
            for first in (0..rank).step_by(COLUMNS) {
                let width = COLUMNS.min(rank - first);
                let sums = &mut space[..rows * width];
                let (left, right) = (mat(b, rows, rank), gamma.subcols(first, width));
                product_on_one(mat_mut(sums, rows, width), left, right);
                for (row, sums) in sums.chunks_exact_mut(width).enumerate() {
                    let at = row * rank + first;
                    changed |= improve_row(&mut b[at..][..width], &g[at..][..width], sums, |r| {
                        &normal[(first + r) * rank + first..][..width]
                    });
                }
            }
            if !changed {
                break;
            }
        }
    });
}

/// One pass over a block of a row; whether anything changed. `sums`: the row of BΓ in these columns; `gamma(r)`: row r of the
/// block of Γ.
fn improve_row<'a, T: Real>(
    b: &mut [f64],
    g: &[T],
    sums: &mut [f64],
    gamma: impl Fn(usize) -> &'a [f64],
) -> bool {
    let mut changed = false;
    for r in 0..b.len() {
        let gamma = gamma(r);
        let slope = g[r].widen() - sums[r];
        // A diagonal entry of 0: the term is zero in another mode, and nothing depends on this entry.
        let next = if gamma[r] > 0.0 { (b[r] + slope / gamma[r]).max(0.0) } else { 0.0 };
        let change = next - b[r];
        if change.abs() > 0.0 {
            b[r] = next;
            changed = true;
            let after = sums[r + 1..].iter_mut().zip(&gamma[r + 1..]);
            after.for_each(|(sum, x)| *sum += change * x);
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, factors};

    /// One entry after the other, as the formula says.
    fn slow_improve<T: Real>(b: &mut [f64], g: &[T], normal: &[f64], rank: usize, passes: usize) {
        for (b, g) in b.chunks_exact_mut(rank).zip(g.chunks_exact(rank)) {
            for _ in 0..passes {
                for (r, gamma) in normal.chunks_exact(rank).enumerate() {
                    let slope = g[r].widen() - b.iter().zip(gamma).map(|(b, x)| b * x).sum::<f64>();
                    b[r] = if gamma[r] > 0.0 { (b[r] + slope / gamma[r]).max(0.0) } else { 0.0 };
                }
            }
        }
    }

    #[test]
    fn blocks_of_columns_equal_single_entries() {
        for (rows, rank) in [(1, 1), (3, 31), (65, 32), (130, 33), (40, 100), (7, 200)] {
            let drawn =
                factors(&[rows, rows, rank + 5], rank, 15_000 + rank as u64, Purpose::Start);
            let flat = |n: usize| -> Vec<f64> { drawn[n].iter().copied().collect() };
            let mut normal = vec![0.0; rank * rank];
            gram_into(&mut normal, &flat(2), rank + 5, rank);
            if rank > 3 {
                // A term that is zero elsewhere.
                (0..rank).for_each(|r| (normal[3 * rank + r], normal[r * rank + 3]) = (0.0, 0.0));
            }
            let start: Vec<f64> = flat(0).iter().map(|x| x.abs()).collect();
            let g = flat(1);
            let (mut fast, mut slow) = (start.clone(), start);
            improve(&mut fast, &g, &normal, rank, 5);
            slow_improve(&mut slow, &g, &normal, rank, 5);
            assert!(slow.contains(&0.0) || rank == 1);
            for (a, b) in fast.iter().zip(&slow) {
                assert!((a - b).abs() < 1e-11, "{rows}x{rank}: {a} {b}");
            }
        }
    }
}
