//! Truncated preconditioned conjugate gradients.

use crate::linalg::dot;

/// What [`conjugate_gradients`] found.
#[derive(Debug)]
pub(super) struct CgSolution {
    /// The approximate solution x of H x = b.
    pub(super) x: Vec<f64>,
    /// b − H x, as the recursion has it.
    pub(super) residual: Vec<f64>,
    /// Products with H.
    pub(super) iterations: usize,
}

/// Approximates the solution of H x = b for a symmetric positive (semi)definite H, from a given x, until the residual in
/// the norm of M⁻¹ has fallen to `forcing` times its start, or after `most` products with H.
///
/// Every step decreases ½xᵀHx − bᵀx. From x = 0, every further iterate has bᵀx > 0, so that stopping early still gives a
/// descent direction. Where rounding makes the curvature along a direction non-positive, the iteration ends before that
/// direction.
///
/// # Shapes
/// `x`: `[n]`; `residual`: b − H x for this x, which is b itself for x = 0, `[n]`; `apply(v, to)` sets `to` = H v,
/// `precondition(r, to)` sets `to` = M⁻¹ r.
///
/// Reference: Nocedal & Wright (2006), algorithms 5.3 and 7.1.
pub(super) fn conjugate_gradients(
    x: Vec<f64>,
    residual: Vec<f64>,
    mut apply: impl FnMut(&[f64], &mut [f64]),
    precondition: impl Fn(&[f64], &mut [f64]),
    forcing: f64,
    most: usize,
) -> CgSolution {
    let n = x.len();
    let mut found = CgSolution { x, residual, iterations: 0 };
    let (mut z, mut hp) = (vec![0.0; n], vec![0.0; n]);
    precondition(&found.residual, &mut z);
    let mut direction = z.clone();
    let mut rz = dot(&found.residual, &z);
    let enough = forcing * forcing * rz;
    while found.iterations < most && rz > 0.0 && rz > enough {
        apply(&direction, &mut hp);
        let curvature = dot(&direction, &hp);
        let step = rz / curvature;
        if !(curvature > 0.0 && step.is_finite()) {
            break;
        }
        found.iterations += 1;
        add(&mut found.x, step, &direction);
        add(&mut found.residual, -step, &hp);
        precondition(&found.residual, &mut z);
        let before = rz;
        rz = dot(&found.residual, &z);
        let turn = rz / before;
        direction.iter_mut().zip(&z).for_each(|(d, z)| *d = z + turn * *d);
    }
    found
}

/// `to += scale · v`.
fn add(to: &mut [f64], scale: f64, v: &[f64]) {
    to.iter_mut().zip(v).for_each(|(to, v)| *to += scale * v);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H = diag(1, 4, 9) + a rank-one part, solved by hand.
    #[test]
    fn solves_a_small_system() {
        let h = [[2.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 10.0]];
        let times = |v: &[f64], to: &mut [f64]| {
            for (to, row) in to.iter_mut().zip(&h) {
                *to = dot(row, v);
            }
        };
        let b = [4.0, 7.0, 12.0];
        let by_diagonal = |r: &[f64], to: &mut [f64]| {
            for i in 0..3 {
                to[i] = r[i] / h[i][i];
            }
        };
        let solve = |b: [f64; 3], from: [f64; 3], most: usize| {
            let mut residual = [0.0; 3];
            times(&from, &mut residual);
            residual.iter_mut().zip(b).for_each(|(r, b)| *r = b - *r);
            conjugate_gradients(from.to_vec(), residual.to_vec(), times, by_diagonal, 1e-14, most)
        };
        let found = solve(b, [0.0; 3], 10);
        assert!(found.x.iter().all(|x| (x - 1.0).abs() < 1e-12), "{:?}", found.x);
        assert!(found.iterations <= 3);
        // One step only: still a descent direction.
        let short = solve(b, [0.0; 3], 1);
        assert!(short.iterations == 1 && dot(&short.x, &b) > 0.0);
        // Nothing to do.
        assert_eq!(solve([0.0; 3], [0.0; 3], 10).iterations, 0);
        assert_eq!(solve(b, [1.0; 3], 10).iterations, 0);
        // From another start.
        let found = solve(b, [1.0, 3.0, -2.0], 10);
        assert!(found.x.iter().all(|x| (x - 1.0).abs() < 1e-12), "{:?}", found.x);
    }
}
