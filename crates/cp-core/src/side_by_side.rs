//! Many tensors at once: [`decompose_all`].

use std::cell::Cell;

use ndarray::ArrayViewD;
use rayon::prelude::*;

use crate::error::CpError;
use crate::real::Real;
use crate::solver::{Decomposition, Solver};

/// A tensor and the solver for it.
#[derive(Clone)]
pub struct Job<'a, T: Real> {
    /// `[I₀, …, I_N₋₁]`.
    pub tensor: ArrayViewD<'a, T>,
    /// What decomposes it.
    pub solver: &'a dyn Solver<T>,
    /// Its share of the work, in any unit; for most solvers R ∏ Iₙ.
    pub work: f64,
}

/// Decomposes many tensors, for instance all layers of a network, on the threads of the current rayon pool. Results come in
/// the order of the jobs, one for each.
///
/// Small products gain little from a second thread, so that tensors are decomposed side by side, each on one thread and the
/// largest first, unless one of them would keep the others waiting; then they come one after another, on all threads. The
/// choice depends on the work and the number of threads alone.
///
/// # Errors
/// In the place of each job that fails, what [`Solver::decompose`] says.
pub fn decompose_all<T: Real>(jobs: &[Job<'_, T>]) -> Vec<Result<Decomposition<T>, CpError>> {
    let run = |job: &Job<'_, T>| job.solver.decompose(job.tensor.view());
    let work: Vec<f64> = jobs.iter().map(|job| job.work).collect();
    let threads = rayon::current_num_threads();
    if !pays(&work, threads) {
        return jobs.iter().map(run).collect();
    }
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by(|&a, &b| work[b].total_cmp(&work[a]));
    let mut found: Vec<_> = order
        .par_iter()
        .with_max_len(1)
        .map(|&place| (place, on_one_thread(|| run(&jobs[place]))))
        .collect();
    found.sort_by_key(|&(place, _)| place);
    found.into_iter().map(|(_, result)| result).collect()
}

/// Whether tensors with this much work should be decomposed side by side.
fn pays(work: &[f64], threads: usize) -> bool {
    if threads <= 1 || work.len() <= 1 {
        return false;
    }
    // The longest of the threads, when each takes the largest job that is left.
    let mut sorted = work.to_vec();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let mut busy = vec![0.0; threads];
    for work in sorted {
        if let Some(least) = busy.iter_mut().min_by(|a, b| f64::total_cmp(a, b)) {
            *least += work;
        }
    }
    let longest = busy.into_iter().fold(0.0, f64::max);
    longest < work.iter().sum::<f64>() / shared_speedup(threads)
}

/// What `threads` threads bring within one decomposition: for 256×384×3×3 at R = 200 in f32, 1.3 times the speed on 2 of
/// them and 2.0 times on 4 were measured; less for smaller kernels.
fn shared_speedup(threads: usize) -> f64 {
    (threads as f64).sqrt()
}

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` without handing work to other threads. Nothing in it waits for another task, so no other task can come to
/// see the mark.
fn on_one_thread<R>(body: impl FnOnce() -> R) -> R {
    /// Takes the mark away, also where `body` panics.
    struct Mark(bool);
    impl Drop for Mark {
        fn drop(&mut self) {
            ALONE.set(self.0);
        }
    }
    let _mark = Mark(ALONE.replace(true));
    body()
}

/// Threads that a kernel may use here.
pub(crate) fn threads() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_tensor_is_shared_and_equal_ones_are_not() {
        assert!(pays(&[1.0; 8], 4));
        assert!(!pays(&[1.0; 8], 1));
        assert!(!pays(&[100.0, 1.0, 1.0], 4));
        assert!(!pays(&[1.0], 4));
        assert!(!pays(&[], 4));
    }
}
