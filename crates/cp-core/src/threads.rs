//! Threads: how many a kernel may use here, and the one place that hands work to them.
//!
//! Work is cut into pieces by its size alone, never by the number of threads, so that no result depends on that number.

use std::cell::Cell;

use rayon::prelude::*;

/// Multiply-adds below which a second thread costs more than it brings: about 50 µs of work on one core.
const SHARED_FROM: f64 = 2e6;

/// Multiply-adds that take as long as an elementwise pass over so many numbers, which is bound by memory: about 1 ns a number.
pub(crate) fn pass(numbers: usize) -> f64 {
    16.0 * numbers as f64
}

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Threads that a kernel may use here.
pub(crate) fn threads() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

/// Whether so many multiply-adds should be shared between the threads.
pub(crate) fn pays(work: f64) -> bool {
    work >= SHARED_FROM && threads() > 1
}

/// Calls `task` with the number of each piece of `len` entries of `to` (the last may be shorter) and the piece, on the threads
/// of the pool where `work` multiply-adds pay; returns what it answers, in the order of the pieces.
pub(crate) fn map_pieces<T: Send, R: Send>(
    work: f64,
    to: &mut [T],
    len: usize,
    task: impl Fn(usize, &mut [T]) -> R + Sync,
) -> Vec<R> {
    if pays(work) {
        to.par_chunks_mut(len).enumerate().map(|(i, piece)| task(i, piece)).collect()
    } else {
        to.chunks_mut(len).enumerate().map(|(i, piece)| task(i, piece)).collect()
    }
}

/// [`map_pieces`] for a task without an answer.
pub(crate) fn for_each_piece<T: Send>(
    work: f64,
    to: &mut [T],
    len: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    if pays(work) {
        to.par_chunks_mut(len).enumerate().for_each(|(i, piece)| task(i, piece));
    } else {
        to.chunks_mut(len).enumerate().for_each(|(i, piece)| task(i, piece));
    }
}

/// `task` of 0, 1, …, `count` − 1, in their order; shared as in [`map_pieces`].
pub(crate) fn map<R: Send>(
    work: f64,
    count: usize,
    task: impl Fn(usize) -> R + Sync + Send,
) -> Vec<R> {
    if pays(work) {
        (0..count).into_par_iter().map(task).collect()
    } else {
        (0..count).map(task).collect()
    }
}

/// `task` of all items, in their order: side by side, begun in this order, and each on one thread.
pub(crate) fn each_on_one<A: Sync, R: Send>(items: &[A], task: impl Fn(&A) -> R + Sync) -> Vec<R> {
    if threads() == 1 {
        return items.iter().map(task).collect();
    }
    items.par_iter().with_max_len(1).map(|item| on_one_thread(|| task(item))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is called inside of a task that has one thread stays there.
    #[test]
    fn one_thread_is_one_thread() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let strays: Vec<usize> = pool.install(|| {
            each_on_one(&[(); 8], |()| {
                let here = rayon::current_thread_index();
                let elsewhere = |_| usize::from(rayon::current_thread_index() != here);
                let mut data = [0; 64];
                let pieces = map_pieces(1e12, &mut data, 1, |i, _| elsewhere(i));
                let all = map(1e12, 64, elsewhere);
                let nested = each_on_one(&[(); 64], |()| elsewhere(0));
                assert!(!pays(1e12) && threads() == 1);
                pieces.into_iter().chain(all).chain(nested).sum()
            })
        });
        assert_eq!(strays, [0; 8]);
        pool.install(|| assert_eq!((threads(), pays(1e12), pays(10.0)), (4, true, false)));
    }

    #[test]
    fn pieces_come_in_order() {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut data: Vec<usize> = (0..10).collect();
                assert_eq!(
                    map_pieces(1e12, &mut data, 4, |i, piece| (i, piece.len())),
                    [(0, 4), (1, 4), (2, 2)]
                );
                for_each_piece(1e12, &mut data, 4, |i, piece| piece.fill(i));
                assert_eq!(data, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]);
                assert_eq!(map(1e12, 5, |i| 2 * i), [0, 2, 4, 6, 8]);
            });
        }
    }
}
