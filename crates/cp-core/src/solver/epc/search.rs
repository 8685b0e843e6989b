//! The search for the largest μ of a mode that keeps the error bound.

use crate::linalg::{dot, solve_factored, solve_normal};

/// Where the first search for μ starts; the diagonal of Γ is 1.
pub(super) const FIRST: f64 = 1e-4;
/// Below this, Γ + μI is Γ to f64.
const LOWEST: f64 = 1e-15;
/// How far below the goal the residual may end, relatively.
pub(super) const WINDOW: f64 = 1e-8;

/// The search for the largest μ with ‖X − G (Γ + μI)⁻¹ Kᵀ‖² = ‖X‖² − ⟨A, G⟩ − μ‖A‖² ≤ goal.
#[derive(Debug, Default)]
pub(super) struct ShrinkSearch {
    /// Γ, `[R, R]`.
    pub(super) normal: Vec<f64>,
    /// The Cholesky factor of Γ + μI, `[R, R]`.
    factor: Vec<f64>,
    /// A = G (Γ + μI)⁻¹, `[Iₙ, R]`.
    solution: Vec<f64>,
    /// A (Γ + μI)⁻¹, `[Iₙ, R]`.
    derivative: Vec<f64>,
    /// The A of the largest μ so far that keeps the goal, and its residual.
    pub(super) best: Vec<f64>,
    pub(super) square: f64,
}

impl ShrinkSearch {
    /// Newton's method in ln μ between bounds that close in: the residual grows with μ, and is to end between `goal` − `window`
    /// and `goal`; `whole` is ‖X‖². Leaves the solution in `best`. ∞ where the zero model will do, `None` where no μ will.
    pub(super) fn largest_root(
        &mut self,
        g: &[f64],
        rank: usize,
        [whole, goal, window]: [f64; 3],
        guess: f64,
    ) -> Option<f64> {
        if whole <= goal {
            self.best.clear();
            self.best.resize(g.len(), 0.0);
            self.square = whole;
            return Some(f64::INFINITY);
        }
        let (mut low, mut high) = (0.0, f64::INFINITY);
        let mut mu = guess;
        // Newton's method aims at the middle of the window, so that it ends inside, wherever it comes from.
        for _ in 0..100 {
            // Where there is no Cholesky factor, μ is lost in the rounding of Γ.
            let (square, slope) = self.residual(g, rank, whole, mu)?;
            let excess = square - goal;
            if excess > 0.0 {
                high = mu;
            } else {
                low = mu;
                self.square = square;
                std::mem::swap(&mut self.best, &mut self.solution);
                if excess >= -window {
                    break;
                }
            }
            let step = -(excess + 0.5 * window) / slope;
            let newton = mu * step.clamp(-7.0, 7.0).exp();
            mu = if newton > low && newton < high {
                newton
            } else if high == f64::INFINITY {
                16.0 * mu
            } else if low > 0.0 {
                (low * high).sqrt()
            } else {
                high / 16.0
            };
            if mu < LOWEST || high <= low * (1.0 + 1e-12) {
                break;
            }
        }
        (low > 0.0).then_some(low)
    }

    /// The squared residual at μ and its derivative by ln μ, 2μ²⟨A, A (Γ + μI)⁻¹⟩.
    fn residual(&mut self, g: &[f64], rank: usize, whole: f64, mu: f64) -> Option<(f64, f64)> {
        let Self { normal, factor, solution, derivative, .. } = self;
        let rows = g.len() / rank;
        factor.clone_from(normal);
        factor.iter_mut().step_by(rank + 1).for_each(|x| *x += mu);
        solution.clear();
        solution.extend_from_slice(g);
        solve_normal(factor, solution, rows, rank).ok()?;
        derivative.clone_from(solution);
        solve_factored(factor, derivative, rows, rank);
        let inner = dot(solution, g) + mu * dot(solution, solution);
        Some((whole - inner, 2.0 * mu * mu * dot(solution, derivative)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::init::Init;
    use crate::linalg::{mat, symmetric_eigen};
    use crate::tree::Dense;

    /// The residual of one mode as a rational function of μ, by the eigenvalues of Γ: ‖X‖² − Σⱼ ‖hⱼ‖² (γⱼ + 2μ)/(γⱼ + μ)².
    fn slow_residual(values: &[f64], squares: &[f64], whole: f64, mu: f64) -> f64 {
        let term = |(v, h): (&f64, &f64)| h * (v + 2.0 * mu) / (v + mu).powi(2);
        whole - values.iter().zip(squares).map(term).sum::<f64>()
    }

    /// The search against a scan of μ over many decades.
    fn check(rows: usize, rank: usize, share: f64, collinear: f64, seed: u64) {
        let dense = Dense { shape: vec![rows, 40], data: vec![0.0; 40 * rows].into() };
        let draw = Init::Random { seed }.factors(&dense, rank).unwrap();
        // K with columns that lean on the first, of norm 1, and X = A Kᵀ plus noise.
        let mut k = draw.factors[1].clone();
        let first = k.column(0).to_owned();
        k.columns_mut().into_iter().for_each(|mut c| c.scaled_add(collinear, &first));
        k.columns_mut().into_iter().for_each(|mut c| {
            let norm = c.dot(&c).sqrt();
            c /= norm;
        });
        let noise = Init::Random { seed: seed + 1 }.factors(&dense, rows).unwrap();
        let x = draw.factors[0].dot(&k.t()) + 0.1 * noise.factors[0].dot(&noise.factors[1].t());
        let whole = x.iter().map(|x| x * x).sum::<f64>();
        let g: Vec<f64> = x.dot(&k).iter().copied().collect();
        let normal: Vec<f64> = k.t().dot(&k).iter().copied().collect();
        let (values, vectors) = symmetric_eigen(mat(&normal, rank, rank)).unwrap();
        let mut squares = vec![0.0; rank];
        for row in g.chunks_exact(rank) {
            for (j, square) in squares.iter_mut().enumerate() {
                *square += (0..rank).map(|r| row[r] * vectors[(r, j)]).sum::<f64>().powi(2);
            }
        }
        let slow = |mu: f64| slow_residual(&values, &squares, whole, mu);
        let least = slow(0.0);
        let goal = least + share * (whole - least);
        let mut search = ShrinkSearch { normal, ..ShrinkSearch::default() };
        let root = search.largest_root(&g, rank, [whole, goal, WINDOW * goal], FIRST).unwrap();
        assert!(slow(root) <= goal * (1.0 + 1e-12), "{} above {goal}", slow(root));
        assert!((search.square - slow(root)).abs() < 1e-9 * whole);
        // The scan: μ on a grid of a hundredth of a decade and better.
        let grid = (-1500..800).map(|i| 10f64.powf(f64::from(i) / 100.0));
        let scanned = grid.filter(|&mu| slow(mu) <= goal).fold(0.0, f64::max);
        let ratio = root / scanned;
        assert!((1.0 - 1e-6..1.024).contains(&ratio), "found {root:e}, scanned {scanned:e}");
        // And A itself.
        let mut shifted = search.normal.clone();
        shifted.iter_mut().step_by(rank + 1).for_each(|x| *x += root);
        let mut expected = g.clone();
        solve_normal(&mut shifted, &mut expected, rows, rank).unwrap();
        assert!(
            expected.iter().zip(&search.best).all(|(a, b)| (a - b).abs() < 1e-9 * whole.sqrt())
        );
        // Bounds that nothing meets, and that everything does.
        assert!(search.largest_root(&g, rank, [whole, 0.5 * least, 1e-8], FIRST).is_none());
        assert_eq!(search.largest_root(&g, rank, [whole, whole, 1e-8], FIRST), Some(f64::INFINITY));
    }

    #[test]
    fn roots_equal_a_scan() {
        check(5, 3, 0.01, 0.0, 1);
        check(5, 3, 1e-4, 0.0, 2);
        check(20, 8, 0.5, 0.0, 3);
        check(20, 8, 0.95, 0.0, 4);
        check(20, 8, 1e-3, 3.0, 5);
        check(3, 30, 1e-3, 10.0, 6);
        check(1, 1, 0.1, 0.0, 7);
    }
}
