//! The dimension tree: all MTTKRPs of a sweep with partial products shared between the modes.
//!
//! The modes are split into a left group and a right group, and the tensor is seen as the matrix X of shape
//! `[∏ left, ∏ right]`. Then X · (⊙ right factors) serves all modes of the left group, and Xᵀ · (⊙ left factors) all modes
//! of the right one: two large matrix products per sweep, whatever the order. What remains of a partial product is
//! contracted with one half of its group at a time, down to single modes.
//!
//! Since the groups are contiguous and the right product is taken after the left modes were updated, the modes come in
//! the order 0, 1, …, N−1 and each sees the newest factors: iterates equal those of the plain algorithm.
//!
//! # Cost per sweep
//! 4 R ∏ Iₙ operations in the two products, then O(R(∏ left + ∏ right)) in the contractions, and as much memory.
//!
//! Reference: Phan, Tichavský & Cichocki (2013), "Fast alternating LS algorithms for high order CANDECOMP/PARAFAC tensor
//! factorizations", §III; Kaya & Uçar (2018), "Parallel CP decomposition of sparse tensors using dimension trees".

use std::borrow::Cow;

use ndarray::ArrayViewD;

use crate::linalg::{mat, mat_mut, product};
use crate::real::Real;
use crate::threads::{for_each_piece, pass, threads};

/// A tensor in row-major order.
#[derive(Debug, Clone)]
pub(crate) struct Dense<'a, T: Real> {
    /// `[I₀, …, I_N₋₁]`.
    pub(crate) shape: Vec<usize>,
    /// The entries, the last mode fastest.
    pub(crate) data: Cow<'a, [T]>,
}

impl<'a, T: Real> Dense<'a, T> {
    /// Borrows where `tensor` is row-major, copies otherwise.
    pub(crate) fn new(tensor: &'a ArrayViewD<'_, T>) -> Self {
        let data =
            tensor.as_slice().map_or_else(|| tensor.iter().copied().collect(), Cow::Borrowed);
        Self { shape: tensor.shape().to_vec(), data }
    }
}

/// Where to split a list of at least two modes into two groups: the number of modes in the left one, chosen so that
/// ∏ left + ∏ right is smallest (the first such split).
pub(crate) fn split(shape: &[usize]) -> usize {
    let cost = |&p: &usize| {
        let (left, right) = shape.split_at(p);
        left.iter().product::<usize>().saturating_add(right.iter().product::<usize>())
    };
    (1..shape.len()).min_by_key(cost).unwrap_or(1)
}

/// Buffers kept between sweeps, so that large temporaries are not mapped and cleared anew each time.
#[derive(Debug)]
pub(crate) struct Workspace<T> {
    free: Vec<Vec<T>>,
}

impl<T: Real> Workspace<T> {
    pub(crate) fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// A buffer of `len` entries with arbitrary content.
    fn take(&mut self, len: usize) -> Vec<T> {
        // The smallest buffer that is large enough, or else the largest.
        let best = (0..self.free.len()).min_by_key(|&i| {
            let capacity = self.free[i].capacity();
            (capacity < len, capacity.abs_diff(len))
        });
        let mut buffer = best.map_or_else(Vec::new, |i| self.free.swap_remove(i));
        buffer.resize(len, T::zero());
        buffer
    }

    fn give(&mut self, buffer: Vec<T>) {
        self.free.push(buffer);
    }
}

/// What a solver does with the MTTKRP of a mode: `(mode, G = X₍ₙ₎ (⊙_{m≠n} A⁽ᵐ⁾) as [Iₙ, R], all factors)`.
pub(crate) type Update<'u, T, E> = dyn FnMut(usize, &[T], &mut [Vec<T>]) -> Result<(), E> + 'u;

/// Visits the modes in order and hands each its MTTKRP with the factors as they are at that moment.
///
/// # Shapes
/// `factors[n]`: `[Iₙ, R]`, row-major.
pub(crate) fn sweep<T: Real, E>(
    tensor: &Dense<'_, T>,
    factors: &mut [Vec<T>],
    rank: usize,
    space: &mut Workspace<T>,
    update: &mut Update<'_, T, E>,
) -> Result<(), E> {
    let modes = tensor.shape.len();
    let p = split(&tensor.shape);
    let rows: usize = tensor.shape[..p].iter().product();
    let columns: usize = tensor.shape[p..].iter().product();
    let x = mat(&tensor.data, rows, columns);

    let mut partial = space.take(rows * rank);
    with_khatri_rao(&factors[p..], rank, space, |right| {
        product(mat_mut(&mut partial, rows, rank), x, mat(right, columns, rank));
    });
    let left = descend(&tensor.shape, 0..p, &partial, factors, rank, space, update);
    space.give(partial);
    left?;

    let mut partial = space.take(columns * rank);
    with_khatri_rao(&factors[..p], rank, space, |left| {
        product(mat_mut(&mut partial, columns, rank), x.transpose(), mat(left, rows, rank));
    });
    let right = descend(&tensor.shape, p..modes, &partial, factors, rank, space, update);
    space.give(partial);
    right
}

/// The part of the tree below one partial product, which covers `modes` and has shape `[∏ modes, R]`.
fn descend<T: Real, E>(
    shape: &[usize],
    modes: std::ops::Range<usize>,
    partial: &[T],
    factors: &mut [Vec<T>],
    rank: usize,
    space: &mut Workspace<T>,
    update: &mut Update<'_, T, E>,
) -> Result<(), E> {
    if modes.len() == 1 {
        return update(modes.start, partial, factors);
    }
    let middle = modes.start + split(&shape[modes.clone()]);
    let rows: usize = shape[modes.start..middle].iter().product();
    let columns: usize = shape[middle..modes.end].iter().product();

    let mut child = space.take(rows * rank);
    with_khatri_rao(&factors[middle..modes.end], rank, space, |w| {
        contract_right(&mut child, partial, w, rank)
    });
    let left = descend(shape, modes.start..middle, &child, factors, rank, space, update);
    space.give(child);
    left?;

    let mut child = space.take(columns * rank);
    with_khatri_rao(&factors[modes.start..middle], rank, space, |w| {
        contract_left(&mut child, partial, w, rank)
    });
    let right = descend(shape, middle..modes.end, &child, factors, rank, space, update);
    space.give(child);
    right
}

/// MTTKRP of one mode only: the path of the tree that leads to it.
pub(crate) fn single<T: Real>(
    tensor: &Dense<'_, T>,
    factors: &[Vec<T>],
    rank: usize,
    mode: usize,
) -> Vec<T> {
    let mut space = Workspace::new();
    let shape = &tensor.shape;
    let mut modes = 0..shape.len();
    let p = split(shape);
    let rows: usize = shape[..p].iter().product();
    let columns: usize = shape[p..].iter().product();
    let x = mat(&tensor.data, rows, columns);
    let mut partial;
    if mode < p {
        partial = vec![T::zero(); rows * rank];
        with_khatri_rao(&factors[p..], rank, &mut space, |right| {
            product(mat_mut(&mut partial, rows, rank), x, mat(right, columns, rank));
        });
        modes.end = p;
    } else {
        partial = vec![T::zero(); columns * rank];
        with_khatri_rao(&factors[..p], rank, &mut space, |left| {
            product(mat_mut(&mut partial, columns, rank), x.transpose(), mat(left, rows, rank));
        });
        modes.start = p;
    }
    while modes.len() > 1 {
        let middle = modes.start + split(&shape[modes.clone()]);
        let (kept, summed) = if mode < middle {
            (modes.start..middle, middle..modes.end)
        } else {
            (middle..modes.end, modes.start..middle)
        };
        let mut child = vec![T::zero(); shape[kept.clone()].iter().product::<usize>() * rank];
        with_khatri_rao(&factors[summed], rank, &mut space, |w| {
            if mode < middle {
                contract_right(&mut child, &partial, w, rank);
            } else {
                contract_left(&mut child, &partial, w, rank);
            }
        });
        partial = child;
        modes = kept;
    }
    partial
}

/// Hands the Khatri–Rao product of `factors` to `body`; a single factor is passed on as it is.
fn with_khatri_rao<T: Real>(
    factors: &[Vec<T>],
    rank: usize,
    space: &mut Workspace<T>,
    body: impl FnOnce(&[T]),
) {
    let Some((first, rest)) = factors.split_first() else { return };
    let Some((second, rest)) = rest.split_first() else { return body(first) };
    let mut product = space.take(first.len() / rank * second.len());
    khatri_rao_into(&mut product, first, second, rank);
    for factor in rest {
        let mut longer = space.take(product.len() / rank * factor.len());
        khatri_rao_into(&mut longer, &product, factor, rank);
        space.give(std::mem::replace(&mut product, longer));
    }
    body(&product);
    space.give(product);
}

/// `to` = `upper` ⊙ `lower`, the rows of `lower` fastest.
fn khatri_rao_into<T: Real>(to: &mut [T], upper: &[T], lower: &[T], rank: usize) {
    for_each_piece(pass(to.len()), to, lower.len(), |i, to| {
        let upper = &upper[i * rank..][..rank];
        for (to, lower) in to.chunks_exact_mut(rank).zip(lower.chunks_exact(rank)) {
            for ((to, &x), &y) in to.iter_mut().zip(upper).zip(lower) {
                *to = x * y;
            }
        }
    });
}

/// `to[p, r]` = Σ_q `partial[p, q, r]` · `w[q, r]`.
fn contract_right<T: Real>(to: &mut [T], partial: &[T], w: &[T], rank: usize) {
    for_each_piece(pass(partial.len()), to, rank, |i, to| {
        let block = &partial[i * w.len()..][..w.len()];
        to.fill(T::zero());
        for (t, w) in block.chunks_exact(rank).zip(w.chunks_exact(rank)) {
            multiply_add(to, t, w);
        }
    });
}

/// `to[q, r]` = Σ_p `partial[p, q, r]` · `w[p, r]`.
fn contract_left<T: Real>(to: &mut [T], partial: &[T], w: &[T], rank: usize) {
    let block = to.len();
    // Each thread owns some rows q and sums over all p in the same order, so the result does not depend on the split.
    let work = pass(partial.len());
    let share = (block / rank).div_ceil(threads()).max(1);
    for_each_piece(work, to, share * rank, |i, to| {
        to.fill(T::zero());
        for (partial, w) in partial.chunks_exact(block).zip(w.chunks_exact(rank)) {
            let partial = &partial[i * share * rank..][..to.len()];
            for (to, t) in to.chunks_exact_mut(rank).zip(partial.chunks_exact(rank)) {
                multiply_add(to, t, w);
            }
        }
    });
}

#[inline(always)]
fn multiply_add<T: Real>(to: &mut [T], t: &[T], w: &[T]) {
    for ((to, &t), &w) in to.iter_mut().zip(t).zip(w) {
        *to += t * w;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_balance_the_groups() {
        assert_eq!(split(&[256, 384, 3, 3]), 1);
        assert_eq!(split(&[64, 3, 11, 11]), 2);
        assert_eq!(split(&[2, 2, 2, 2]), 2);
        assert_eq!(split(&[3, 3, 100]), 2);
        assert_eq!(split(&[7, 5]), 1);
    }
}
