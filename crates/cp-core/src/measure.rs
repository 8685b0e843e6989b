//! How good a model is: fit, relative error, component energy, congruence, degeneracy, sensitivity.

use ndarray::{Array1, Array2, ArrayView2, ArrayViewD};

use crate::assignment;
use crate::cp_tensor::{CpTensor, column_norms};
use crate::khatri_rao::flat_khatri_rao;
use crate::linalg::{gram, mat, mat_mut, product};
use crate::real::Real;
use crate::scale::{self, Scale};
use crate::threads;
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
    Scaled::new(Dense::new(&tensor)).rel_error(cp)
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
    cp.component_energy(norm_of_x)
}

/// Frobenius norm of a tensor, in f64.
pub fn norm<T: Real>(tensor: ArrayViewD<'_, T>) -> f64 {
    let Scaled { norm, exponent, .. } = Scaled::new(Dense::new(&tensor));
    Scale::new(exponent).of(norm)
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
    Survey::of(data).largest
}

/// Entries per partial sum: sums of squares are added up in blocks, which keeps their rounding error small.
const BLOCK: usize = 1024;
/// Sums side by side, so that the compiler may use vector registers.
const LANES: usize = 8;

/// A tensor with its norm, by one look at the entries, and a second one where they are so large or small that they have to be
/// scaled by a power of two before they are squared or multiplied.
#[derive(Debug, Clone)]
pub(crate) struct Scaled<'a, T: Real> {
    /// 2⁻ᵏ X.
    pub(crate) tensor: Dense<'a, T>,
    /// k.
    pub(crate) exponent: i32,
    /// ‖2⁻ᵏ X‖, 0 only for a tensor of zeros; not finite where an entry is not.
    pub(crate) norm: f64,
    /// Largest absolute entry of X.
    pub(crate) largest: f64,
}

impl<'a, T: Real> Scaled<'a, T> {
    pub(crate) fn new(mut tensor: Dense<'a, T>) -> Self {
        let Survey { largest, square } = Survey::of(&tensor.data);
        // Within this range neither f32 sums of products nor f64 squares come near their limits.
        let exponent = if largest.is_finite() { scale::exponent(largest) } else { 0 };
        if exponent.abs() <= 24 {
            return Self { tensor, exponent: 0, norm: square.sqrt(), largest };
        }
        let down = Scale::new(-exponent);
        tensor.data = tensor.data.iter().map(|x| T::narrow(down.of(x.widen()))).collect();
        let norm = Survey::of(&tensor.data).square.sqrt();
        Self { tensor, exponent, norm, largest }
    }

    /// Relative error of a model of X, from the entries in f64.
    pub(crate) fn rel_error(&self, cp: &CpTensor<T>) -> f64 {
        let down = Scale::new(-self.exponent);
        let factors: Vec<Vec<f64>> =
            cp.factors.iter().map(|f| f.iter().map(|x| x.widen()).collect()).collect();
        let weights: Vec<f64> = cp.weights.iter().map(|x| down.of(x.widen())).collect();
        ratio(residual(&self.tensor, &factors, &weights), self.norm)
    }
}

/// What one pass over the entries tells.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Survey {
    /// Largest absolute value; 0 for none. NaN is passed over.
    pub(crate) largest: f64,
    /// Sum of the squares: not finite where an entry is not, or where the squares leave the range of f64.
    pub(crate) square: f64,
}

impl Survey {
    pub(crate) fn of<T: Real>(data: &[T]) -> Self {
        let block = |block: &[T]| {
            let (mut largest, mut squares) = ([T::zero(); LANES], [0.0; LANES]);
            let mut look = |entries: &[T]| {
                for ((largest, square), x) in largest.iter_mut().zip(&mut squares).zip(entries) {
                    *largest = if x.abs() > *largest { x.abs() } else { *largest };
                    *square += x.widen() * x.widen();
                }
            };
            let lanes = block.chunks_exact(LANES);
            look(lanes.remainder());
            lanes.for_each(&mut look);
            let largest = largest.into_iter().fold(0.0, |a: f64, b| a.max(b.widen()));
            (largest, squares.iter().sum::<f64>())
        };
        /// Blocks that one thread looks at.
        const SHARE: usize = 16;
        let blocks =
            threads::map(threads::pass(data.len()), data.len().div_ceil(SHARE * BLOCK), |i| {
                let share = &data[i * SHARE * BLOCK..];
                let share = &share[..share.len().min(SHARE * BLOCK)];
                share
                    .chunks(BLOCK)
                    .map(block)
                    .fold((0.0_f64, 0.0), |a, b| (a.0.max(b.0), a.1 + b.1))
            });
        let (largest, square) =
            blocks.into_iter().fold((0.0_f64, 0.0), |a, b| (a.0.max(b.0), a.1 + b.1));
        Self { largest, square }
    }
}

/// Σ (x − y)², in blocks.
pub(crate) fn distance<T: Real>(data: &[T], model: &[f64]) -> f64 {
    let block = |(data, model): (&[T], &[f64])| {
        let mut squares = [0.0; LANES];
        let (x, y) = (data.chunks_exact(LANES), model.chunks_exact(LANES));
        let mut add = |(x, y): (&[T], &[f64])| {
            for ((square, x), y) in squares.iter_mut().zip(x).zip(y) {
                let distance = x.widen() - y;
                *square += distance * distance;
            }
        };
        add((x.remainder(), y.remainder()));
        x.zip(y).for_each(&mut add);
        squares.iter().sum::<f64>()
    };
    data.chunks(BLOCK).zip(model.chunks(BLOCK)).map(block).sum()
}

/// ‖X − X̂‖ for X̂ = ⟦`weights`; `factors`⟧, from the entries, in f64.
///
/// # Shapes
/// `factors[n]`: `[Iₙ, R]`, row-major; `weights`: `[R]`.
pub(crate) fn residual<T: Real>(
    tensor: &Dense<'_, T>,
    factors: &[Vec<f64>],
    weights: &[f64],
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
            if width == columns {
                square += distance(data, model);
            } else {
                for (data, model) in data.chunks(columns).zip(model.chunks(width)) {
                    square += distance(&data[first..][..width], model);
                }
            }
        }
    }
    square.sqrt()
}
