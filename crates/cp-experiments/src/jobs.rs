//! Cells side by side.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, anyhow};
use cp_train::timing;

/// `work` on every item, `jobs` at a time with one libtorch thread each; one job has all threads. Results in order.
///
/// A failure is told at once; what runs beside it is finished, nothing else is begun.
pub(crate) fn in_parallel<I: Sync, O: Send>(
    items: &[I],
    jobs: usize,
    work: impl Fn(&I) -> Result<O> + Sync,
) -> Result<Vec<O>> {
    if jobs <= 1 {
        return items.iter().map(work).collect();
    }
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worker = || -> Result<Vec<(usize, O)>> {
        // The number of threads is one of the calling thread's settings.
        timing::set_threads(1);
        let mut done = Vec::new();
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            match work(item) {
                Ok(outcome) => done.push((index, outcome)),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    eprintln!("a job failed: {error:#}; waiting for those that run beside it");
                    return Err(error);
                }
            }
        }
        Ok(done)
    };
    let mut found: Vec<(usize, O)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.min(items.len())).map(|_| scope.spawn(worker)).collect();
        let mut found = Vec::new();
        for worker in workers {
            found.extend(worker.join().map_err(|_| anyhow!("a job panicked"))??);
        }
        Ok::<_, anyhow::Error>(found)
    })?;
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, outcome)| outcome).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_keep_the_order() {
        let items: Vec<usize> = (0..20).collect();
        for jobs in [1, 3, 50] {
            assert_eq!(in_parallel(&items, jobs, |i| Ok(i * i)).unwrap()[7], 49);
        }
        assert!(in_parallel::<usize, usize>(&[], 2, |i| Ok(*i)).unwrap().is_empty());
    }

    #[test]
    fn nothing_is_begun_after_a_failure() {
        let items: Vec<usize> = (0..1000).collect();
        let begun = AtomicUsize::new(0);
        let failing = |_: &usize| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err::<(), _>(anyhow!("no"))
        };
        assert!(in_parallel(&items, 2, failing).is_err());
        assert!(begun.load(Ordering::Relaxed) <= 2);
    }
}
