//! What the solvers of the normal equations share: products of Grams, the solve, and normalised columns.

use crate::linalg::{Singular, add_ridge, raise_ridge, solve_normal};
use crate::measure;
use crate::problem::Problem;
use crate::real::Real;

/// ⊛ of all Grams AₘᵀAₘ but those of the modes in `except`, `[R, R]`.
pub(super) fn product_of_grams(to: &mut [f64], grams: &[Vec<f64>], except: &[usize]) {
    multiply_grams(to, grams, except, |_| 0);
}

/// [`product_of_grams`] in the upper half of `[R, R]`, columns ≥ row; the lower one holds anything.
pub(super) fn upper_product_of_grams(to: &mut [f64], grams: &[Vec<f64>], except: &[usize]) {
    multiply_grams(to, grams, except, |row| row);
}

/// [`product_of_grams`] in each row from the column `first(row)` on.
fn multiply_grams(
    to: &mut [f64],
    grams: &[Vec<f64>],
    except: &[usize],
    first: impl Fn(usize) -> usize,
) {
    let rank = to.len().isqrt();
    let mut others =
        grams.iter().enumerate().filter(|(mode, _)| !except.contains(mode)).map(|(_, gram)| gram);
    match others.next() {
        Some(gram) => to.copy_from_slice(gram),
        None => to.fill(1.0),
    }
    for gram in others {
        let rows = to.chunks_exact_mut(rank).zip(gram.chunks_exact(rank));
        for (r, (to, x)) in rows.enumerate() {
            let first = first(r);
            to[first..].iter_mut().zip(&x[first..]).for_each(|(to, x)| *to *= x);
        }
    }
}

/// `solution` = G (Γ + μI)⁻¹, in f64, with μ = `ridge` · mean diagonal entry of Γ, more where Γ has no Cholesky factor.
///
/// # Shapes
/// `g`: `[Iₙ, R]`; `grams`: upper halves; `normal`: scratch, `[R, R]`.
pub(super) fn solve<T: Real>(
    solution: &mut Vec<f64>,
    normal: &mut [f64],
    g: &[T],
    grams: &[Vec<f64>],
    mode: usize,
    ridge: f64,
) -> Result<(), Singular> {
    let rank = normal.len().isqrt();
    raise_ridge(ridge, None, |relative| {
        upper_product_of_grams(normal, grams, &[mode]);
        add_ridge(normal, rank, relative);
        solution.clear();
        solution.extend(g.iter().map(|x| x.widen()));
        solve_normal(normal, solution, g.len() / rank, rank)
    })
}

/// ‖X − X̂‖ / ‖X‖ by √(‖X‖² − 2⟨X, X̂⟩ + ‖X̂‖²) where that has digits left, from the entries otherwise.
///
/// # Shapes
/// `factors`: `[Iₙ, R]` each, columns of norm 1; `grams`: theirs, of which the upper halves are read; `weights`: λ, `[R]`;
/// `normal`: scratch, `[R, R]`; `inner`: ⟨X, X̂⟩.
pub(super) fn rel_error<T: Real>(
    problem: &Problem<'_, T>,
    factors: &[Vec<T>],
    grams: &[Vec<f64>],
    weights: &[f64],
    normal: &mut [f64],
    inner: f64,
) -> f64 {
    let rank = weights.len();
    upper_product_of_grams(normal, grams, &[]);
    let mut model = 0.0;
    for (r, (row, &w)) in normal.chunks_exact(rank).zip(weights).enumerate() {
        let right: f64 = row[r + 1..].iter().zip(&weights[r + 1..]).map(|(g, v)| g * v).sum();
        model += w * (row[r] * w + 2.0 * right);
    }
    let whole = problem.norm * problem.norm;
    let cheap = (whole - 2.0 * inner + model) / whole;
    // Rounding of the products, as large as the terms that cancel each other; the factor was found by comparison with the
    // direct residual on convolution kernels and on exact low-rank tensors.
    let energy = weights.iter().map(|&w| w * w).sum::<f64>() / whole;
    measure::cheap_or_direct(cheap, 256.0 * T::EPSILON * energy.max(1.0), || {
        let widen = |factor: &Vec<T>| factor.iter().map(|x| x.widen()).collect();
        let wide: Vec<Vec<f64>> = factors.iter().map(widen).collect();
        measure::residual(&problem.tensor, &wide, weights) / problem.norm
    })
}

/// Scales the columns of `solution` to norm 1, rounds them into `factor`, and puts the norms into `weights`. A column that
/// has become zero keeps its old direction with weight 0, from where it may come back.
pub(super) fn normalize<T: Real>(
    weights: &mut [f64],
    factor: &mut [T],
    solution: &mut [f64],
    rank: usize,
) {
    weights.fill(0.0);
    for row in solution.chunks_exact(rank) {
        weights.iter_mut().zip(row).for_each(|(square, x)| *square += x * x);
    }
    // Reciprocals of the norms; 0 marks a column without one.
    let mut whole = true;
    let scales: Vec<f64> = weights
        .iter_mut()
        .map(|w| {
            *w = w.sqrt();
            let scale = w.recip();
            if scale.is_finite() && scale > 0.0 {
                scale
            } else {
                *w = 0.0;
                whole = false;
                0.0
            }
        })
        .collect();
    if whole {
        for (factor, row) in factor.chunks_exact_mut(rank).zip(solution.chunks_exact_mut(rank)) {
            for ((to, x), &scale) in factor.iter_mut().zip(row).zip(&scales) {
                *to = T::narrow(*x * scale);
                // What was rounded is what the Gram has to be made of.
                *x = to.widen();
            }
        }
        return;
    }
    for (factor, row) in factor.chunks_exact_mut(rank).zip(solution.chunks_exact_mut(rank)) {
        for ((to, x), &scale) in factor.iter_mut().zip(row).zip(&scales) {
            if scale != 0.0 {
                *to = T::narrow(*x * scale);
            }
            *x = to.widen();
        }
    }
}

/// ⟨G, A diag(λ)⟩.
pub(super) fn inner_product<T: Real>(g: &[T], factor: &[f64], weights: &[f64]) -> f64 {
    let rank = weights.len();
    let rows = g.chunks_exact(rank).zip(factor.chunks_exact(rank));
    rows.map(|(g, a)| {
        g.iter().zip(a).zip(weights).map(|((g, a), w)| g.widen() * a * w).sum::<f64>()
    })
    .sum()
}
