//! How good a model is: fit, relative error, component energy, congruence, degeneracy, sensitivity.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewD};

use crate::assignment;
use crate::cp_tensor::{CpTensor, column_norms};
use crate::khatri_rao::flat_khatri_rao;
use crate::linalg::{gram, mat, mat_mut, product};
use crate::real::Real;
use crate::scale::{self, Scale};
use crate::tree::{self, Dense};

/// Relative error ‖X − X̂‖ / ‖X‖ from the entries themselves, in f64: no digits are lost to cancellation.
///
/// Costs one matrix product of 2 R ∏ Iₙ operations; X̂ is built in blocks. 0 where both tensors are zero, ∞ where only X is.
///
/// # Shapes
/// `tensor`: `[I₀, …, I_N₋₁]`, the shape of `cp`.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn rel_error<T: Real>(tensor: ArrayViewD<'_, T>, cp: &CpTensor<T>) -> f64 {
    assert!(
        tensor.shape() == cp.shape(),
        "a model of shape {:?} for a tensor of {:?}",
        cp.shape(),
        tensor.shape()
    );
    let dense = Dense::new(&tensor);
    let down = Scale::new(-scale::exponent(largest(&dense.data)));
    let factors: Vec<Vec<f64>> =
        cp.factors.iter().map(|f| f.iter().map(|x| x.widen()).collect()).collect();
    let weights: Vec<f64> = cp.weights.iter().map(|x| down.of(x.widen())).collect();
    ratio(residual(&dense, &factors, &weights, down), norm_times(&dense.data, down))
}

/// Fit 1 − ‖X − X̂‖ / ‖X‖: 1 − [`rel_error`].
///
/// # Panics
/// As [`rel_error`].
#[track_caller]
pub fn fit<T: Real>(tensor: ArrayViewD<'_, T>, cp: &CpTensor<T>) -> f64 {
    1.0 - rel_error(tensor, cp)
}

/// Relative error from what a solver has at hand anyway: √(‖X‖² − 2⟨X, X̂⟩ + ‖X̂‖²) / ‖X‖, with ⟨X, X̂⟩ = ⟨G, A⁽ⁿ⁾ diag(λ)⟩.
///
/// Costs O(Iₙ R + R² Σ Iₘ), next to nothing. But it subtracts numbers of the size of ‖X‖² (and of the terms, where these
/// cancel each other): errors below √(ε · max(1, component energy)) are noise, which is 1e-8 in f64 and 3e-4 where `mttkrp`
/// was computed in f32. Use [`rel_error`] there.
///
/// # Shapes
/// `mttkrp`: G = X₍ₙ₎ (⊙_{m≠n} A⁽ᵐ⁾) for n = `mode`, `[Iₙ, R]`; `norm_of_x`: ‖X‖.
///
/// # Panics
/// If `mttkrp` has another shape than the factor of `mode`.
///
/// Reference: Kolda & Bader (2009), §3.4; Phan, Tichavský & Cichocki (2013), §III-C.
#[track_caller]
pub fn rel_error_from_mttkrp<T: Real>(
    norm_of_x: f64,
    cp: &CpTensor<T>,
    mttkrp: ArrayView2<'_, T>,
    mode: usize,
) -> f64 {
    let factor = &cp.factors[mode];
    assert!(
        mttkrp.dim() == factor.dim(),
        "an MTTKRP of shape {:?} for a factor of {:?}",
        mttkrp.dim(),
        factor.dim()
    );
    let mut inner = 0.0;
    for (g, a) in mttkrp.rows().into_iter().zip(factor.rows()) {
        let terms = g.iter().zip(a).zip(&cp.weights);
        inner += terms.map(|((g, a), w)| g.widen() * a.widen() * w.widen()).sum::<f64>();
    }
    let square = norm_of_x * norm_of_x - 2.0 * inner + cp.norm().powi(2);
    ratio(square.max(0.0).sqrt(), norm_of_x)
}

/// Component energy: Σᵣ (norm of term r)² / ‖X‖². See [`CpTensor::component_energy`].
pub fn component_energy<T: Real>(cp: &CpTensor<T>, norm_of_x: f64) -> f64 {
    // Divide before squaring: neither may overflow.
    let energy: f64 = cp
        .term_norms()
        .iter()
        .filter(|&&norm| norm > 0.0)
        .map(|norm| (norm / norm_of_x).powi(2))
        .sum();
    energy
}

/// Frobenius norm of a tensor, in f64.
pub fn norm<T: Real>(tensor: ArrayViewD<'_, T>) -> f64 {
    let dense = Dense::new(&tensor);
    let exponent = scale::exponent(largest(&dense.data));
    Scale::new(exponent).of(norm_times(&dense.data, Scale::new(-exponent)))
}

/// How alike two models are, up to the order of the terms, their signs and the scaling of the factors.
#[derive(Debug, Clone, PartialEq)]
pub struct Congruence {
    /// Mean of the congruences of the matched terms, 0…1.
    pub mean: f64,
    /// Smallest congruence of a matched pair, 0…1.
    pub min: f64,
    /// `matches[r]`: the term of the second model that term r of the first is matched with.
    pub matches: Vec<usize>,
}

/// Congruence of two models of one shape: ∏ₙ |cos(a⁽ⁿ⁾ᵣ, b⁽ⁿ⁾ₛ)| for the pairing of terms that makes the sum largest.
///
/// The model with fewer terms must come first; the other's surplus terms stay unmatched.
///
/// # Panics
/// If the shapes differ, or the first model has more terms.
///
/// Reference: Tomasi & Bro (2006), §4; "factor match score" of Acar, Dunlavy & Kolda (2011) without its penalty for weights.
#[track_caller]
pub fn congruence<T: Real>(a: &CpTensor<T>, b: &CpTensor<T>) -> Congruence {
    assert!(a.shape() == b.shape(), "models of shapes {:?} and {:?}", a.shape(), b.shape());
    assert!(
        a.rank() <= b.rank(),
        "the first model has {} terms, the second only {}",
        a.rank(),
        b.rank()
    );
    let mut cosines = Array2::<f64>::ones((a.rank(), b.rank()));
    for (a, b) in a.factors.iter().zip(&b.factors) {
        cosines *= &unit(a.view()).t().dot(&unit(b.view())).mapv(f64::abs);
    }
    let matches = assignment::largest_sum(&cosines);
    let matched: Vec<f64> =
        matches.iter().enumerate().map(|(r, &s)| cosines[[r, s]].min(1.0)).collect();
    let mean = matched.iter().sum::<f64>() / matched.len() as f64;
    let min = matched.iter().copied().fold(1.0, f64::min);
    Congruence { mean, min, matches }
}

/// Degeneracy: the largest |cos| of the angle between two terms, 0…1; 0 for a single term.
///
/// Near 1, two terms are nearly the same or nearly opposite, and the latter cancel each other ("two-factor degeneracy").
///
/// Reference: Mitchell & Burdick (1994); Kruskal, Harshman & Lundy (1989).
pub fn degeneracy<T: Real>(cp: &CpTensor<T>) -> f64 {
    let rank = cp.rank();
    let mut cosines = Array2::<f64>::ones((rank, rank));
    for factor in &cp.factors {
        cosines *= &gram(unit(factor.view()).view());
    }
    let pairs = cosines.indexed_iter().filter(|&((r, s), _)| r < s);
    pairs.fold(0.0, |largest, (_, cosine)| cosine.abs().max(largest)).min(1.0)
}

/// Sensitivity: the expected ‖change of X̂‖² per unit variance of independent noise on the entries of the factors,
/// Σₙ Iₙ Σᵣ λᵣ² ∏_{m≠n} ‖a⁽ᵐ⁾ᵣ‖².
///
/// For three modes and λ = 1 that is I tr(BᵀB ⊛ CᵀC) + J tr(AᵀA ⊛ CᵀC) + K tr(AᵀA ⊛ BᵀB). It depends on how norms are
/// spread over the factors: call [`CpTensor::balance`] first for what a layer will have.
///
/// Reference: Phan et al. (2020), arXiv 2008.05441, definition 1, extended to any order.
pub fn sensitivity<T: Real>(cp: &CpTensor<T>) -> f64 {
    let norms: Vec<Array1<f64>> = cp.factors.iter().map(|f| column_norms(f.view())).collect();
    let mut total = 0.0;
    for (n, factor) in cp.factors.iter().enumerate() {
        for r in 0..cp.rank() {
            let others =
                norms.iter().enumerate().filter(|&(m, _)| m != n).map(|(_, norms)| norms[r]);
            total += factor.nrows() as f64
                * others.fold(cp.weights[r].widen(), |x, norm| x * norm).powi(2);
        }
    }
    total
}

/// Columns scaled to norm 1 in f64; zero columns stay.
fn unit<T: Real>(matrix: ArrayView2<'_, T>) -> Array2<f64> {
    let norms = column_norms(matrix);
    let mut unit = matrix.mapv(T::widen);
    for (mut column, &norm) in unit.columns_mut().into_iter().zip(&norms) {
        if norm > 0.0 {
            column.mapv_inplace(|x| x / norm);
        }
    }
    unit
}

/// A relative error from its square by a formula that subtracts, where that is above the `noise` of the subtraction; from the
/// entries, by `direct`, otherwise.
pub(crate) fn cheap_or_direct(square: f64, noise: f64, direct: impl FnOnce() -> f64) -> f64 {
    if square > noise { square.sqrt() } else { direct() }
}

/// `part / whole`, with 0/0 = 0 and x/0 = ∞.
pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if part == 0.0 { 0.0 } else { part / whole }
}

/// Largest absolute value; 0 for none.
pub(crate) fn largest<T: Real>(data: &[T]) -> f64 {
    data.iter()
        .fold(T::zero(), |largest, x| if x.abs() > largest { x.abs() } else { largest })
        .widen()
}

/// Entries per partial sum: sums of squares are added up in blocks, which keeps their rounding error small.
const BLOCK: usize = 1024;

/// 2ᵏ ‖data‖ for the scale 2ᵏ.
pub(crate) fn norm_times<T: Real>(data: &[T], scale: Scale) -> f64 {
    let square = |x: &T| scale.of(x.widen()).powi(2);
    let blocks = data.chunks(BLOCK).map(|block| block.iter().map(square).sum::<f64>());
    blocks.sum::<f64>().sqrt()
}

/// ‖2ᵏ X − X̂‖ for the scale 2ᵏ and X̂ = ⟦`weights`; `factors`⟧, from the entries, in f64.
///
/// # Shapes
/// `factors[n]`: `[Iₙ, R]`, row-major; `weights`: `[R]`.
pub(crate) fn residual<T: Real>(
    tensor: &Dense<'_, T>,
    factors: &[Vec<f64>],
    weights: &[f64],
    scale: Scale,
) -> f64 {
    /// Entries of X̂ that are built at a time: 4 MB.
    const ENTRIES: usize = 1 << 19;
    /// Longest part of a row that is built at a time.
    const WIDTH: usize = 1 << 13;
    let rank = weights.len();
    let split = tree::split(&tensor.shape);
    let mut left = flat_khatri_rao(&factors[..split], rank);
    let right = flat_khatri_rao(&factors[split..], rank);
    for row in left.chunks_exact_mut(rank) {
        row.iter_mut().zip(weights).for_each(|(x, w)| *x *= w);
    }
    let columns = right.len() / rank;
    // Where rows are long, blocks of columns too: few rows at a time would read all of `right` again for each of them.
    let width = columns.min(WIDTH);
    let rows = (ENTRIES / width).max(1);
    let mut model = vec![0.0; (rows * width).min(tensor.data.len())];
    let mut square = 0.0;
    for (block, right) in right.chunks(width * rank).enumerate() {
        let (first, width) = (block * WIDTH, right.len() / rank);
        let right = mat(right, width, rank).transpose();
        for (left, data) in left.chunks(rows * rank).zip(tensor.data.chunks(rows * columns)) {
            let rows = left.len() / rank;
            let model = &mut model[..rows * width];
            product(mat_mut(model, rows, width), mat(left, rows, rank), right);
            let mut add = |data: &[T], model: &[f64]| {
                for (data, model) in data.chunks(BLOCK).zip(model.chunks(BLOCK)) {
                    let distance = |(x, y): (&T, &f64)| (scale.of(x.widen()) - y).powi(2);
                    square += data.iter().zip(model).map(distance).sum::<f64>();
                }
            };
            if width == columns {
                add(data, model);
            } else {
                for (data, model) in data.chunks(columns).zip(model.chunks(width)) {
                    add(&data[first..][..width], model);
                }
            }
        }
    }
    square.sqrt()
}
