//! Nearly parallel columns: what normal equations lose, and QR does not. `examples/collinear.rs` prints the whole table.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/collinear.rs"]
mod collinear;

use collinear::{RANK, SHAPE, near, problem, sine};
use cp_core::{Als, AlsQr, CpError, CpTensor, Init, Solver};
use ndarray::Array2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Relative errors of ALS by default, without a ridge, by QR and by QR-SVD after this many sweeps from one start.
fn errors(
    tensor: &ndarray::ArrayD<f64>,
    rank: usize,
    sweeps: usize,
    init: &Init,
) -> [Result<f64, CpError>; 4] {
    let als = Als::new(rank).max_iters(sweeps).tol(0.0).init(init.clone());
    let qr = AlsQr::new(rank).max_iters(sweeps).tol(0.0).init(init.clone());
    let svd = AlsQr::svd(rank).max_iters(sweeps).tol(0.0).init(init.clone());
    let solvers: [&dyn Solver<f64>; 4] = [&als, &als.clone().ridge(0.0), &qr, &svd];
    solvers.map(|solver| solver.decompose(tensor.view()).map(|found| found.rel_error))
}

#[test]
fn factors_have_the_congruence_asked_for() {
    for gap in [0.3, 1e-4, 1e-7, 1e-10] {
        let c = collinear::collinear(50, 5, gap, &mut ChaCha8Rng::seed_from_u64(1)).unwrap();
        // Distances keep the digits that inner products lose: ‖cᵣ − cₛ‖² = 2 gap.
        for r in 0..5 {
            assert!((c.column(r).dot(&c.column(r)) - 1.0).abs() < 1e-14);
            for s in 0..r {
                let d = &c.column(r) - &c.column(s);
                assert!((d.dot(&d) / (2.0 * gap) - 1.0).abs() < 1e-5, "{gap}");
            }
        }
        let gram: Array2<f64> = c.t().dot(&c);
        assert!((gram[[1, 3]] - (1.0 - gap)).abs() < 1e-14);
    }
}

/// Congruence 1 − 1e-10, noise 1e-10, random start, 200 sweeps: the last setting of the paper.
#[test]
fn from_a_random_start() {
    for trial in 0..2 {
        let (_, tensor) = problem(1e-10, 1e-10, trial).unwrap();
        let init = Init::Random { seed: 20_000 + trial };
        let [als, bare, qr, svd] = errors(&tensor, RANK, 200, &init);
        assert!(matches!(bare, Err(CpError::SingularNormalMatrix { .. })), "{bare:?}");
        let (als, qr, svd) = (als.unwrap(), qr.unwrap(), svd.unwrap());
        assert!(als > 1.15e-10, "the ridge costs nothing: {als:e}");
        assert!(qr < 1.1e-10 && svd < 1.1e-10, "{qr:e} {svd:e}");
    }
}

/// From a start next to the terms the swamp is left out, and the digits of the solution are all that matters.
#[test]
fn from_a_start_next_to_the_terms() {
    for (gap, factor) in [(1e-7, 2.0), (1e-10, 20.0)] {
        let noise = 1e-12;
        let (truth, tensor) = problem(gap, noise, 3).unwrap();
        let start = Init::Factors(near(&truth, 1e-6, 20_100));
        let [als, _, qr, svd] = errors(&tensor, RANK, 60, &start);
        let (als, qr, svd) = (als.unwrap(), qr.unwrap(), svd.unwrap());
        assert!(als > factor * noise, "gap {gap:e}: {als:e}");
        assert!(qr < 1.1 * noise && svd < 1.1 * noise, "gap {gap:e}: {qr:e} {svd:e}");
    }
}

/// sin(x₁ + … + x_d) has rank d, with terms that cancel each other: the paper's other example.
#[test]
fn sine_of_a_sum() {
    for (order, size) in [(3, 16), (4, 16), (6, 8)] {
        let tensor = sine(order, size);
        for seed in 900..903 {
            let init = Init::Random { seed };
            let [als, _, qr, svd] = errors(&tensor, order, 100, &init);
            let (als, qr, svd) = (als.unwrap(), qr.unwrap(), svd.unwrap());
            assert!(als > 1e-12, "order {order}: {als:e}");
            assert!(qr < 1e-2 * als && svd < 1e-2 * als, "order {order}: {als:e} {qr:e} {svd:e}");
            assert!(qr < 1e-11 && svd < 1e-11, "order {order}: {qr:e} {svd:e}");
        }
    }
}

#[test]
fn shapes_agree() {
    let (truth, tensor): (CpTensor, _) = problem(1e-4, 1e-4, 0).unwrap();
    assert_eq!((truth.shape(), tensor.shape()), (SHAPE.to_vec(), &SHAPE[..]));
}
