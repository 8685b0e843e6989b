//! Many tensors at once: [`decompose_all`].

use ndarray::ArrayViewD;

use crate::error::CpError;
use crate::real::Real;
use crate::solver::{Decomposition, Solver};
use crate::threads::{each_on_one, threads};

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
/// largest first, unless one of them would keep the others waiting; then they come one after another, on all threads. Either
/// way each result is, bit for bit, what its solver gives alone.
///
/// # Errors
/// In the place of each job that fails, what [`Solver::decompose`] says.
pub fn decompose_all<T: Real>(jobs: &[Job<'_, T>]) -> Vec<Result<Decomposition<T>, CpError>> {
    let run = |job: &Job<'_, T>| job.solver.decompose(job.tensor.view());
    let work: Vec<f64> = jobs.iter().map(|job| job.work).collect();
    if !pays(&work, threads()) {
        return jobs.iter().map(run).collect();
    }
    let mut order: Vec<usize> = (0..jobs.len()).collect();
    order.sort_by(|&a, &b| work[b].total_cmp(&work[a]));
    let mut found = each_on_one(&order, |&place| (place, run(&jobs[place])));
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
