//! The function that NLS minimises, with its gradient: cheap formulas in the tensor's own type, and the residual tensor in
//! f64 where these have no digits left.

use std::borrow::Cow;
use std::ops::Range;

use super::jacobian::{Layout, grams};
use crate::khatri_rao::flat_khatri_rao;
use crate::linalg::{dot, mat, mat_mut, product};
use crate::problem::Problem;
use crate::real::Real;
use crate::solver::normal::product_of_grams;
use crate::threads::{map_pieces, pass};
use crate::tree::{self, Dense, Workspace, sweep};

/// θ with everything that is known there.
pub(super) struct Point {
    pub(super) theta: Vec<f64>,
    pub(super) grams: Vec<Vec<f64>>,
    /// ‖X − X̂‖² / ‖X‖².
    pub(super) square: f64,
    /// Gradient of `square` / 2.
    pub(super) gradient: Vec<f64>,
    /// `square` / 2 with the penalty.
    pub(super) objective: f64,
}

/// The function to be minimised, in units of ‖X‖ = 1.
pub(super) struct Objective<'p, 'a, T: Real> {
    problem: &'p Problem<'a, T>,
    pub(super) layout: &'p Layout,
    penalty: f64,
    /// Whether residuals are built from the entries, in f64.
    pub(super) exact: bool,
    space: Workspace<T>,
    wide_space: Workspace<f64>,
    /// Scratch: X / ‖X‖ − X̂.
    residual: Vec<f64>,
}

/// What ends a sweep before its end: the objective is above the limit.
struct Above;

/// Relative errors of squares and gains from the cheap formulas, in units of the rounding error of T.
const NOISE: f64 = 1024.0;

impl<'p, 'a, T: Real> Objective<'p, 'a, T> {
    pub(super) fn new(problem: &'p Problem<'a, T>, layout: &'p Layout, penalty: f64) -> Self {
        let (space, wide_space) = (Workspace::new(), Workspace::new());
        Self { problem, layout, penalty, exact: false, space, wide_space, residual: Vec::new() }
    }

    /// The objective and its gradient at θ; `None` where the objective is not below `limit` (or not a number).
    pub(super) fn at(&mut self, theta: Vec<f64>, limit: f64) -> Option<Point> {
        let grams = grams(self.layout, &theta);
        let penalty = 0.5 * self.penalty * dot(&theta, &theta);
        let mut point =
            Point { theta, grams, square: f64::NAN, gradient: Vec::new(), objective: f64::NAN };
        point.gradient.resize(self.layout.len(), 0.0);
        if !self.exact {
            let whole = self.cheap(&mut point, limit - penalty).is_ok();
            if point.square < self.noise(&point) {
                self.exact = true;
            } else if !whole {
                return None;
            }
        }
        if self.exact {
            self.direct(&mut point, limit - penalty).ok()?;
        }
        point.objective = 0.5 * point.square + penalty;
        (point.objective < limit).then_some(point)
    }

    /// Below which squares and gains from the cheap formulas mean nothing: rounding, as large as the terms that cancel.
    fn noise(&self, point: &Point) -> f64 {
        let rank = self.layout.rank;
        let square =
            |r: usize| point.grams.iter().map(|gram| gram[r * (rank + 1)]).product::<f64>();
        let energy: f64 = (0..rank).map(square).sum();
        NOISE * T::EPSILON * energy.max(1.0)
    }

    /// Goes over to the residual tensor where `gain` is too small for the cheap formulas; `true` if it did.
    pub(super) fn sharpen(&mut self, point: &Point, gain: f64) -> bool {
        let now = !self.exact && gain < self.noise(point);
        self.exact |= now;
        now
    }

    /// ‖X − X̂‖² = ‖X‖² − 2⟨X, X̂⟩ + ‖X̂‖² and the gradient A Γ − G, by two products in T; the second is left out where
    /// the first shows that the limit is passed.
    fn cheap(&mut self, point: &mut Point, limit: f64) -> Result<(), Above> {
        let Self { problem, layout, space, .. } = self;
        let rank = layout.rank;
        let model = squared_norm(&point.grams);
        let Point { theta, grams, square, gradient, .. } = point;
        let narrow =
            |block: &Range<usize>| theta[block.clone()].iter().map(|&x| T::narrow(x)).collect();
        let mut factors: Vec<Vec<T>> = layout.blocks.iter().map(narrow).collect();
        let mut normal = vec![0.0; rank * rank];
        let scale = problem.norm.recip();
        sweep(&problem.tensor, &mut factors, rank, space, &mut |mode, g, _| {
            let block = layout.blocks[mode].clone();
            let (a, to) = (&theta[block.clone()], &mut gradient[block]);
            to.iter_mut().zip(g).for_each(|(to, g)| *to = scale * g.widen());
            if mode == 0 {
                *square = 1.0 - 2.0 * dot(to, a) + model;
                if square.is_nan() || 0.5 * *square >= limit {
                    return Err(Above);
                }
            }
            product_of_grams(&mut normal, grams, &[mode]);
            let rows = layout.rows(mode);
            let mut normal_part = vec![0.0; to.len()];
            product(
                mat_mut(&mut normal_part, rows, rank),
                mat(a, rows, rank),
                mat(&normal, rank, rank),
            );
            to.iter_mut().zip(&normal_part).for_each(|(to, x)| *to = x - *to);
            Ok(())
        })
    }

    /// The same from the residual tensor E = X − X̂ in f64: the gradient is −E₍ₙ₎ (⊙_{m≠n} A⁽ᵐ⁾). Three products.
    fn direct(&mut self, point: &mut Point, limit: f64) -> Result<(), Above> {
        let rank = self.layout.rank;
        let Point { theta, square, gradient, .. } = point;
        *square = self.build_residual(theta);
        if square.is_nan() || 0.5 * *square >= limit {
            return Err(Above);
        }
        let factors = self.layout.blocks.iter().map(|block| theta[block.clone()].to_vec());
        let mut factors: Vec<Vec<f64>> = factors.collect();
        let data = Cow::Borrowed(self.residual.as_slice());
        let tensor = Dense { shape: self.problem.tensor.shape.clone(), data };
        sweep(&tensor, &mut factors, rank, &mut self.wide_space, &mut |mode, g, _| {
            let to = &mut gradient[self.layout.blocks[mode].clone()];
            to.iter_mut().zip(g).for_each(|(to, g)| *to = -g);
            Ok(())
        })
    }

    /// Fills `residual` and returns its square.
    fn build_residual(&mut self, theta: &[f64]) -> f64 {
        let Self { problem, layout, residual, .. } = self;
        let rank = layout.rank;
        let shape = &problem.tensor.shape;
        let group = |modes: Range<usize>| {
            let factor = |block: &Range<usize>| &theta[block.clone()];
            let factors: Vec<&[f64]> = layout.blocks[modes].iter().map(factor).collect();
            flat_khatri_rao(&factors, rank)
        };
        let middle = tree::split(shape);
        let (left, right) = (group(0..middle), group(middle..shape.len()));
        let (rows, columns) = (left.len() / rank, right.len() / rank);
        residual.resize(rows * columns, 0.0);
        product(
            mat_mut(residual, rows, columns),
            mat(&left, rows, rank),
            mat(&right, columns, rank).transpose(),
        );
        /// Entries that are taken from X at a time; fixed, so that the sum of squares does not depend on the threads.
        const BLOCK: usize = 1 << 14;
        let scale = problem.norm.recip();
        let data = &problem.tensor.data;
        let squares = map_pieces(pass(data.len()), residual, BLOCK, |i, e| {
            let x = &data[i * BLOCK..][..e.len()];
            e.iter_mut().zip(x).for_each(|(e, x)| *e = scale * x.widen() - *e);
            dot(e, e)
        });
        squares.iter().sum()
    }

    /// Scales θ to the best multiple of the model; a given one only where it is worse than no model.
    pub(super) fn rescale(&mut self, theta: &mut [f64], given: bool) {
        let Some(point) = self.at(theta.to_vec(), f64::INFINITY) else { return };
        if given && point.square <= 1.0 {
            return;
        }
        let model = squared_norm(&point.grams);
        let inner = 0.5 * (1.0 + model - point.square);
        // Where X and the model are (nearly) orthogonal, small steps in any direction help: do not start at zero.
        let multiple = (inner / model).abs().max(1e-3 / model.sqrt());
        if !multiple.is_finite() {
            return;
        }
        let scale = multiple.powf((self.layout.blocks.len() as f64).recip());
        theta.iter_mut().for_each(|x| *x *= scale);
        if inner < 0.0 {
            theta[self.layout.blocks[0].clone()].iter_mut().for_each(|x| *x = -*x);
        }
    }

    /// Gives the columns of each term the same norm in all modes. X̂ stays as it is, the penalty becomes smallest, and the
    /// unknowns are of one size, as μI takes them to be.
    pub(super) fn balance(&self, point: &mut Point) {
        let Self { layout, .. } = self;
        let rank = layout.rank;
        let order = layout.blocks.len() as f64;
        let diagonal = |gram: &Vec<f64>, r: usize| gram[r * (rank + 1)].sqrt();
        let logs: Vec<f64> = (0..rank)
            .map(|r| point.grams.iter().map(|gram| diagonal(gram, r).ln()).sum::<f64>() / order)
            .collect();
        for (mode, block) in layout.blocks.iter().enumerate() {
            let scales: Vec<f64> = (0..rank)
                .map(|r| {
                    let scale = (logs[r] - diagonal(&point.grams[mode], r).ln()).exp();
                    // A term of norm zero keeps its directions.
                    if scale.is_normal() && logs[r].is_finite() { scale } else { 1.0 }
                })
                .collect();
            for row in point.theta[block.clone()].chunks_exact_mut(rank) {
                row.iter_mut().zip(&scales).for_each(|(x, scale)| *x *= scale);
            }
            for row in point.gradient[block.clone()].chunks_exact_mut(rank) {
                row.iter_mut().zip(&scales).for_each(|(g, scale)| *g /= scale);
            }
            for (row, left) in point.grams[mode].chunks_exact_mut(rank).zip(&scales) {
                row.iter_mut().zip(&scales).for_each(|(x, right)| *x *= left * right);
            }
        }
        point.objective = 0.5 * point.square + 0.5 * self.penalty * dot(&point.theta, &point.theta);
    }
}

/// ‖X̂‖² from the Grams of the factors.
fn squared_norm(grams: &[Vec<f64>]) -> f64 {
    let mut product = vec![0.0; grams[0].len()];
    product_of_grams(&mut product, grams, &[]);
    product.iter().sum()
}
