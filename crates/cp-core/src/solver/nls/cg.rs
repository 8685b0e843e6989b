//! Truncated preconditioned conjugate gradients.

/// What [`solve`] found.
#[derive(Debug)]
pub(super) struct Found {
    /// The approximate solution x of H x = b.
    pub(super) x: Vec<f64>,
    /// b − H x, as the recursion has it.
    pub(super) residual: Vec<f64>,
    /// Products with H.
    pub(super) iterations: usize,
}

/// Approximates the solution of H x = b for a symmetric positive (semi)definite H, from x = 0, until the residual in the
/// norm of M⁻¹ has fallen to `forcing` times its start, or after `most` products with H.
///
/// Every iterate x ≠ 0 has bᵀx > 0 and decreases ½xᵀHx − bᵀx, so that stopping early still gives a descent direction.
/// Where rounding makes the curvature along a direction non-positive, the iteration ends before that direction.
///
/// # Shapes
/// `b`: `[n]`; `apply(v, to)` sets `to` = H v, `precondition(r, to)` sets `to` = M⁻¹ r.
///
/// Reference: Nocedal & Wright (2006), algorithms 5.3 and 7.1.
pub(super) fn solve(
    b: &[f64],
    mut apply: impl FnMut(&[f64], &mut [f64]),
    precondition: impl Fn(&[f64], &mut [f64]),
    forcing: f64,
    most: usize,
) -> Found {
    let n = b.len();
    let mut found = Found { x: vec![0.0; n], residual: b.to_vec(), iterations: 0 };
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

/// Entries per partial sum, see [`dot`].
const BLOCK: usize = 1024;

/// aᵀb, added up in blocks, which keeps the rounding error small.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    /// Sums side by side, so that the compiler may use vector registers.
    const LANES: usize = 8;
    let block = |(a, b): (&[f64], &[f64])| {
        let (mut sums, mut rest) = ([0.0; LANES], 0.0);
        let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
        rest += a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum::<f64>();
        for (a, b) in a.zip(b) {
            sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
        }
        sums.iter().sum::<f64>() + rest
    };
    a.chunks(BLOCK).zip(b.chunks(BLOCK)).map(block).sum()
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
        let found = solve(&b, times, by_diagonal, 1e-14, 10);
        assert!(found.x.iter().all(|x| (x - 1.0).abs() < 1e-12), "{:?}", found.x);
        assert!(found.iterations <= 3);
        // One step only: still a descent direction.
        let short = solve(&b, times, by_diagonal, 1e-14, 1);
        assert!(short.iterations == 1 && dot(&short.x, &b) > 0.0);
        // Nothing to do.
        assert_eq!(solve(&[0.0; 3], times, by_diagonal, 1e-14, 10).iterations, 0);
    }
}
