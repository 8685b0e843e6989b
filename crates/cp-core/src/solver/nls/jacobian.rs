//! JᵀJ of the CP model as an operator, from the R × R Grams of the factors alone, and its block-diagonal preconditioner.

use std::ops::Range;

use crate::linalg::{
    Cholesky, Singular, add_product, gram_into, mat, mat_mut, product, raise_ridge,
};
use crate::solver::normal::product_of_grams;

/// Where the factors lie in the vector of unknowns θ: one after the other, row-major, `[Iₙ, R]` each.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) rank: usize,
    pub(super) blocks: Vec<Range<usize>>,
}

impl Layout {
    pub(super) fn new(shape: &[usize], rank: usize) -> Self {
        let mut end = 0;
        let block = |&size: &usize| {
            let start = end;
            end += size * rank;
            start..end
        };
        Self { rank, blocks: shape.iter().map(block).collect() }
    }

    /// Number of unknowns, R Σ Iₙ.
    pub(super) fn len(&self) -> usize {
        self.blocks.last().map_or(0, |block| block.end)
    }

    /// Size of a mode.
    pub(super) fn rows(&self, mode: usize) -> usize {
        self.blocks[mode].len() / self.rank
    }
}

/// AₙᵀAₙ of all modes, `[R, R]` each.
pub(super) fn grams(layout: &Layout, theta: &[f64]) -> Vec<Vec<f64>> {
    let rank = layout.rank;
    let gram = |(mode, block): (usize, &Range<usize>)| {
        let mut gram = vec![0.0; rank * rank];
        gram_into(&mut gram, &theta[block.clone()], layout.rows(mode), rank);
        gram
    };
    layout.blocks.iter().enumerate().map(gram).collect()
}

/// JᵀJ at one θ, for the Jacobian J of θ ↦ X̂.
///
/// With W⁽ᵐ⁾ = V⁽ᵐ⁾ᵀA⁽ᵐ⁾, block n of JᵀJ v is V⁽ⁿ⁾ Γ⁽ⁿ⁾ + A⁽ⁿ⁾ Σ_{m≠n} Γ⁽ⁿᵐ⁾ ⊛ W⁽ᵐ⁾, Γ⁽ⁿᵐ⁾ = ⊛_{k≠n,m} A⁽ᵏ⁾ᵀA⁽ᵏ⁾.
///
/// Reference: Sorber, Van Barel & De Lathauwer (2013), §4.1; Phan, Tichavský & Cichocki (2013), theorem 3.
#[derive(Debug)]
pub(super) struct Jacobian<'a> {
    layout: &'a Layout,
    theta: &'a [f64],
    /// Γ⁽ⁿ⁾.
    normals: Vec<Vec<f64>>,
    /// Γ⁽ⁿᵐ⁾ at [`pair`]`(n, m)`.
    pairs: Vec<Vec<f64>>,
    /// Scratch: W⁽ᵐ⁾ of all modes.
    w: Vec<Vec<f64>>,
    /// Scratch: Σ Γ⁽ⁿᵐ⁾ ⊛ W⁽ᵐ⁾.
    sum: Vec<f64>,
}

/// Place of the pair of two different modes in a list of all pairs.
fn pair(n: usize, m: usize) -> usize {
    let (low, high) = (n.min(m), n.max(m));
    high * (high - 1) / 2 + low
}

impl<'a> Jacobian<'a> {
    pub(super) fn new(layout: &'a Layout, theta: &'a [f64], grams: &[Vec<f64>]) -> Self {
        let modes = layout.blocks.len();
        let square = layout.rank * layout.rank;
        let without = |except: &[usize]| {
            let mut product = vec![0.0; square];
            product_of_grams(&mut product, grams, except);
            product
        };
        let normals = (0..modes).map(|n| without(&[n])).collect();
        let pairs = (0..modes).flat_map(|n| (0..n).map(move |m| [m, n]));
        let pairs = pairs.map(|pair| without(&pair)).collect();
        let w = vec![vec![0.0; square]; modes];
        Self { layout, theta, normals, pairs, w, sum: vec![0.0; square] }
    }

    /// Largest diagonal entry of JᵀJ: the size of the largest curvature along one unknown.
    pub(super) fn largest_diagonal(&self) -> f64 {
        let step = self.layout.rank + 1;
        self.normals
            .iter()
            .flat_map(|normal| normal.iter().step_by(step))
            .copied()
            .fold(0.0, f64::max)
    }

    /// `to` = (JᵀJ + μI) v: 6 R² Σ Iₙ + N² R² operations.
    pub(super) fn apply(&mut self, v: &[f64], mu: f64, to: &mut [f64]) {
        self.project(v);
        let Self { layout, theta, normals, pairs, w, sum } = self;
        let rank = layout.rank;
        for (n, block) in layout.blocks.iter().enumerate() {
            let rows = layout.rows(n);
            sum.fill(0.0);
            for (m, w) in w.iter().enumerate().filter(|&(m, _)| m != n) {
                for ((sum, w), gamma) in sum.iter_mut().zip(w).zip(&pairs[pair(n, m)]) {
                    *sum += w * gamma;
                }
            }
            let (v, a) = (&v[block.clone()], mat(&theta[block.clone()], rows, rank));
            let to = &mut to[block.clone()];
            product(mat_mut(to, rows, rank), mat(v, rows, rank), mat(&normals[n], rank, rank));
            add_product(mat_mut(to, rows, rank), a, mat(sum, rank, rank));
            to.iter_mut().zip(v).for_each(|(to, v)| *to += mu * v);
        }
    }

    /// `to` = Jᵀ q(v) for the part q(v) of X̂(θ + v) that is quadratic in v: how the model bends along v. 6 R² Σ Iₙ + 5 N² R²
    /// operations.
    ///
    /// With e₁ and e₂ the coefficients of t and t² in ⊛_{k≠n} (A⁽ᵏ⁾ᵀA⁽ᵏ⁾ + t W⁽ᵏ⁾), block n is V⁽ⁿ⁾ e₁ + A⁽ⁿ⁾ e₂.
    pub(super) fn bend(&mut self, v: &[f64], grams: &[Vec<f64>], to: &mut [f64]) {
        self.project(v);
        let Self { layout, theta, w, sum, .. } = self;
        let rank = layout.rank;
        let (mut zeroth, mut first) = (sum.clone(), sum.clone());
        for (n, block) in layout.blocks.iter().enumerate() {
            let rows = layout.rows(n);
            zeroth.fill(1.0);
            first.fill(0.0);
            sum.fill(0.0);
            for (_, (gram, w)) in grams.iter().zip(&*w).enumerate().filter(|&(k, _)| k != n) {
                let e = zeroth.iter_mut().zip(&mut first).zip(&mut *sum);
                for (((e0, e1), e2), (g, w)) in e.zip(gram.iter().zip(w)) {
                    *e2 = *e2 * g + *e1 * w;
                    *e1 = *e1 * g + *e0 * w;
                    *e0 *= g;
                }
            }
            let [v, a] = [v, theta].map(|x| mat(&x[block.clone()], rows, rank));
            let to = &mut to[block.clone()];
            product(mat_mut(to, rows, rank), v, mat(&first, rank, rank));
            add_product(mat_mut(to, rows, rank), a, mat(sum, rank, rank));
        }
    }

    /// W⁽ᵐ⁾ = V⁽ᵐ⁾ᵀA⁽ᵐ⁾ for all modes.
    fn project(&mut self, v: &[f64]) {
        let rank = self.layout.rank;
        for (m, block) in self.layout.blocks.iter().enumerate() {
            let rows = self.layout.rows(m);
            let [v, a] = [v, self.theta].map(|x| mat(&x[block.clone()], rows, rank));
            product(mat_mut(&mut self.w[m], rank, rank), v.transpose(), a);
        }
    }

    /// The diagonal blocks (Γ⁽ⁿ⁾ + μI) ⊗ I, factorized: N R³ / 3 operations.
    pub(super) fn preconditioner(&self, mu: f64) -> Result<Preconditioner<'a>, Singular> {
        let rank = self.layout.rank;
        let factor = |normal: &Vec<f64>| {
            let trace: f64 = normal.iter().step_by(rank + 1).sum();
            // Rounding may leave Γ + μI indefinite. A larger diagonal is a weaker preconditioner, not a wrong one.
            raise_ridge(mu.max(f64::EPSILON * trace), Some(f64::MIN_POSITIVE), |lift| {
                let mut shifted = normal.clone();
                shifted.iter_mut().step_by(rank + 1).for_each(|x| *x += lift);
                Cholesky::new(shifted, rank)
            })
        };
        let factors = self.normals.iter().map(factor).collect::<Result<_, _>>()?;
        Ok(Preconditioner { layout: self.layout, factors })
    }
}

/// The block-diagonal part of JᵀJ + μI, which a system is solved with for each mode on its own, as in a sweep of ALS.
#[derive(Debug)]
pub(super) struct Preconditioner<'a> {
    layout: &'a Layout,
    factors: Vec<Cholesky>,
}

impl Preconditioner<'_> {
    /// `to` = M⁻¹ r: 2 R² Σ Iₙ operations.
    pub(super) fn apply(&self, r: &[f64], to: &mut [f64]) {
        to.copy_from_slice(r);
        for (n, block) in self.layout.blocks.iter().enumerate() {
            self.factors[n].solve(&mut to[block.clone()], self.layout.rows(n));
        }
    }
}
