//! Empirical variational Bayes matrix factorization: [`evbmf`].

use faer::Mat;
use ndarray::{Array1, ArrayView2, ArrayViewD};

use crate::error::CpError;
use crate::measure;
use crate::problem::{Problem, check_option};
use crate::real::Real;
use crate::scale::{self, Scale};
use crate::tucker::subspace;
use crate::unfold::unfold;

/// What [`evbmf`] finds in a matrix.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Vbmf {
    /// Singular values above the threshold; 0 where nothing stands out of the noise.
    pub rank: usize,
    /// Variance σ² of the noise on an entry, estimated or as given; at most [`f64::MAX`].
    pub sigma2: f64,
    /// Singular values above this are signal.
    pub threshold: f64,
    /// All singular values of the matrix, `[min(I, J)]`, non-increasing.
    pub singular_values: Array1<f64>,
    /// The singular values of the estimate, shrunk towards 0 by what noise adds to them, `[rank]`.
    pub shrunk: Array1<f64>,
}

/// Empirical variational Bayes matrix factorization: how many singular values of a noisy matrix are signal.
///
/// The model is V = B Aᵀ + noise of variance σ², with Gaussian priors on the columns of A and B whose variances are estimated
/// too; priors of columns that explain nothing shrink to 0. For a fully observed L×M matrix, L ≤ M and α = L/M, the global minimum
/// of the free energy is known in closed form. Singular values γ up to
///
/// > γ̲ = σ √(M (1 + τ̲) (1 + α/τ̲)), with τ̲ the root of Φ(τ) + Φ(τ/α), Φ(z) = ln(1 + z)/z − ½,
///
/// vanish, the others become γ/2 · (1 − (L+M)σ²/γ² + √((1 − (L+M)σ²/γ²)² − 4LMσ⁴/γ⁴)). Where σ² is not given it is the
/// minimum of the free energy, a function of one variable, between bounds that are known too.
///
/// # When
/// For matrices with independent noise of one variance on the entries. Trained weights are not that: take the answer as a
/// robust way to find a knee, and expect it to be strict (it prefers to miss a weak component over inventing one). At most
/// ⌈L/(1 + α)⌉ − 1 components can be told from noise, half of the directions of a square matrix.
///
/// # Cost
/// The singular values of the matrix, O(L² M), and then nothing.
///
/// # Errors
/// NaN or infinite entries, an empty matrix, a given σ² that is negative or not finite.
///
/// ```
/// use ndarray::Array2;
///
/// // Rank 1, and entries disturbed by up to ±0.1 in no order.
/// let noise = |i: usize, j: usize| 0.2 * ((((40 * i + j) as f64 + 1.0) * 12.9898).sin() * 43758.5453).rem_euclid(1.0) - 0.1;
/// let v = Array2::from_shape_fn((30, 40), |(i, j)| (i as f64 - 15.0) * (j as f64 - 3.0) / 30.0 + noise(i, j));
/// let found = cp_core::rank::evbmf(v.view(), None)?;
/// assert_eq!(found.rank, 1);
/// assert!((found.sigma2.sqrt() - 0.1 / 3f64.sqrt()).abs() < 0.01);
/// # Ok::<(), cp_core::CpError>(())
/// ```
///
/// Reference: Nakajima, Sugiyama, Babacan & Tomioka (2013), "Global analytic solution of fully-observed variational Bayesian
/// matrix factorization", JMLR 14; in the simpler form of Nakajima, Tomioka, Sugiyama & Babacan (2015), "Condition for
/// perfect dimensionality recovery by variational Bayesian PCA", JMLR 16.
pub fn evbmf<T: Real>(matrix: ArrayView2<'_, T>, sigma2: Option<f64>) -> Result<Vbmf, CpError> {
    let (rows, columns) = matrix.dim();
    if let Some(mode) = [rows, columns].iter().position(|&size| size == 0) {
        return Err(CpError::EmptyMode { mode, shape: vec![rows, columns] });
    }
    check_option("sigma2", sigma2)?;
    if let Some(((i, j), value)) = matrix.indexed_iter().find(|(_, x)| !x.is_finite()) {
        let (index, value) = (vec![i, j], value.widen());
        return Err(CpError::NotFinite { what: "matrix", index, value });
    }
    // A power of two is exact, and keeps squares inside the range.
    let data: Vec<T> = matrix.iter().copied().collect();
    let exponent = scale::exponent(measure::largest(&data));
    let (down, up) = (Scale::new(-exponent), Scale::new(exponent));
    let data: Vec<f64> = data.iter().map(|x| down.of(x.widen())).collect();
    let none: Option<&mut Mat<f64>> = None;
    let what = "singular value decomposition";
    let values = subspace::values(&data, rows, columns, none).ok_or(CpError::NoConvergence {
        what,
        rows,
        columns,
    })?;

    let (l, m) = (rows.min(columns) as f64, rows.max(columns) as f64);
    let law = Law::new(l, m);
    let given = sigma2.map(|sigma2| down.of(down.of(sigma2)));
    let sigma2 = given.unwrap_or_else(|| law.noise(&values));
    // Zeros come out of the decomposition as rounding noise, which no σ² of 0 should promote.
    let rounding = 8.0 * f64::EPSILON * values[0] * (m / l).sqrt();
    let threshold = (m * sigma2 * law.knee).sqrt().max(rounding);
    let rank = values.iter().take_while(|&&s| s > threshold).count();
    let shrink = |&s: &f64| {
        let (sum, product) = ((l + m) * sigma2 / (s * s), l * m * (sigma2 / (s * s)).powi(2));
        let rest = 1.0 - sum;
        s / 2.0 * (rest + (rest * rest - 4.0 * product).max(0.0).sqrt())
    };
    Ok(Vbmf {
        rank,
        sigma2: up.of(up.of(sigma2)).min(f64::MAX),
        threshold: up.of(threshold),
        shrunk: values[..rank].iter().map(|s| up.of(shrink(s))).collect(),
        singular_values: values.iter().map(|&s| up.of(s)).collect(),
    })
}

/// What follows from the shape of the matrix alone.
struct Law {
    /// L ≤ M.
    l: f64,
    m: f64,
    /// L / M.
    alpha: f64,
    /// x̲ = (1 + τ̲)(1 + α/τ̲): values with γ² ≤ M σ² x̲ are noise.
    knee: f64,
}

impl Law {
    fn new(l: f64, m: f64) -> Self {
        let alpha = l / m;
        // Φ falls from ½ at 0 to −½ at ∞, and so does the sum of two of them; the root is near 2.51 √α.
        let phi = |z: f64| z.ln_1p() / z - 0.5;
        let (mut low, mut high) = (1e-3 * alpha, 10.0);
        for _ in 0..200 {
            let tau = 0.5 * (low + high);
            if phi(tau) + phi(tau / alpha) > 0.0 {
                low = tau;
            } else {
                high = tau;
            }
        }
        let tau = 0.5 * (low + high);
        Self { l, m, alpha, knee: (1.0 + tau) * (1.0 + alpha / tau) }
    }

    /// L times the free energy as a function of σ², up to constants: Σ ψ(γ²/(Mσ²)), ψ(x) = x − ln x, and for x > x̲ also
    /// + ln(τ + 1) + α ln(τ/α + 1) − τ with τ = τ(x).
    fn free_energy(&self, squares: &[f64], sigma2: f64) -> f64 {
        let psi = |&square: &f64| {
            let x = square / (self.m * sigma2);
            let noise = x - x.ln();
            if x <= self.knee {
                return noise;
            }
            let b = x - (1.0 + self.alpha);
            let tau = 0.5 * (b + (b * b - 4.0 * self.alpha).max(0.0).sqrt());
            noise + tau.ln_1p() + self.alpha * (tau / self.alpha).ln_1p() - tau
        };
        squares.iter().map(psi).sum()
    }

    /// The σ² of least free energy.
    fn noise(&self, values: &[f64]) -> f64 {
        let Some(&largest) = values.first().filter(|&&s| s > 0.0) else { return 0.0 };
        // Values of 0 would make the free energy infinite at every σ²; they are noise whatever they are.
        let floor = (f64::EPSILON * largest).powi(2);
        let squares: Vec<f64> = values.iter().map(|s| (s * s).max(floor)).collect();
        let total: f64 = squares.iter().sum();
        let upper = total / (self.l * self.m);
        // No more components than this can be told from noise.
        let most = ((self.l / (1.0 + self.alpha)).ceil() as usize).saturating_sub(1);
        let tail = &squares[most.min(squares.len() - 1)..];
        let mean = tail.iter().sum::<f64>() / (self.m * tail.len() as f64);
        let lower = (tail[0] / (self.m * self.knee)).max(mean).min(upper);

        // The free energy has a kink at each γ² / (M x̲) and may have several minima: a scan finds the deepest valley, the
        // golden section its bottom.
        const STEPS: usize = 256;
        let span = (upper / lower).ln();
        let at = |t: f64| lower * (span * t / STEPS as f64).exp();
        let energy = |t: f64| self.free_energy(&squares, at(t));
        let best = (0..=STEPS)
            .map(|k| k as f64)
            .min_by(|&a, &b| energy(a).total_cmp(&energy(b)))
            .expect("a scan has steps");
        let (mut low, mut high) = ((best - 1.0).max(0.0), (best + 1.0).min(STEPS as f64));
        let section = (5.0_f64.sqrt() - 1.0) / 2.0;
        for _ in 0..60 {
            let (a, b) = (high - section * (high - low), low + section * (high - low));
            if energy(a) <= energy(b) {
                high = b;
            } else {
                low = a;
            }
        }
        let bottom = 0.5 * (low + high);
        at(if energy(bottom) <= energy(best) { bottom } else { best })
    }
}

/// Tucker-2 ranks `[R₀, R₁]` of a convolution kernel: [`evbmf`] of the unfoldings of modes 0 and 1, at least 1 each.
///
/// # Shapes
/// `kernel`: `[T, S, …]`, order ≥ 2.
///
/// # Errors
/// Entries or shapes that [`Solver`](crate::Solver)s refuse too.
///
/// Reference: Kim et al. (2016), arXiv 1511.06530, §3.2.
pub fn tucker2_ranks<T: Real>(kernel: ArrayViewD<'_, T>) -> Result<[usize; 2], CpError> {
    // For its checks.
    drop(Problem::new(&kernel, 1)?);
    let rank = |mode| {
        let unfolded = unfold(kernel.view(), mode);
        Ok::<usize, CpError>(evbmf(unfolded.view(), None)?.rank.max(1))
    };
    Ok([rank(0)?, rank(1)?])
}

/// A CP rank of a convolution kernel: the larger of its [`tucker2_ranks`].
///
/// A CP model needs at least as many terms as each of its unfoldings has directions, so this is a lower bound in spirit; at 3×3
/// kernels the rank for the same error is often several times larger. Use [`rank_for_error`](super::rank_for_error) for that.
///
/// # Errors
/// As [`tucker2_ranks`].
pub fn cp_rank_by_evbmf<T: Real>(kernel: ArrayViewD<'_, T>) -> Result<usize, CpError> {
    let [output, input] = tucker2_ranks(kernel)?;
    Ok(output.max(input))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_near_its_known_approximation() {
        // Exact at 1, and the better the nearer.
        for alpha in [0.05, 0.1, 0.5, 1.0] {
            let law = Law::new(1000.0 * alpha, 1000.0);
            let tau = 2.5129 * alpha.sqrt();
            let approximate = (1.0 + tau) * (1.0 + alpha / tau);
            assert!(
                (law.knee / approximate - 1.0).abs() < 0.02 * (1.0 - alpha) + 1e-4,
                "{alpha}: {} {approximate}",
                law.knee
            );
        }
    }
}
