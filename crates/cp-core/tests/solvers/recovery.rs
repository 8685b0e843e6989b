//! Planted factors are found again.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use crate::common;
use crate::common::{gaussian, narrow, planted};
use cp_core::{Als, CpTensor, Init, Solver, StopReason, congruence};

/// Seeds of solvers; those of planted factors are below 1000.
const SOLVER_SEEDS: [u64; 3] = [11_001, 11_002, 11_003];

/// Recovers the terms of an exact tensor from one of a few starts: ALS may end in a local minimum from a given one.
fn check(shape: &[usize], rank: usize, seed: u64) {
    let (truth, tensor) = planted(shape, rank, 0.0, seed);
    let runs = SOLVER_SEEDS.map(|seed| {
        let als = Als::new(rank).max_iters(2000).tol(1e-12).init(Init::Random { seed });
        als.decompose(tensor.view()).unwrap()
    });
    let best = runs.iter().min_by(|a, b| a.rel_error.total_cmp(&b.rel_error)).unwrap();
    assert!(rank == 1 || best.iterations() > 2, "started at the answer");
    assert!(best.rel_error < 1e-6, "{shape:?} R={rank}: error {:e}", best.rel_error);
    let match_ = congruence(&best.cp, &truth);
    assert!(match_.min > 1.0 - 1e-6, "{shape:?} R={rank}: congruence {match_:?}");

    let tensor = narrow(&tensor);
    let runs = SOLVER_SEEDS.map(|seed| {
        let als = Als::new(rank).max_iters(500).init(Init::Random { seed });
        als.decompose(tensor.view()).unwrap()
    });
    let best = runs.iter().min_by(|a, b| a.rel_error.total_cmp(&b.rel_error)).unwrap();
    assert!(best.rel_error < 1e-3, "{shape:?} R={rank} f32: error {:e}", best.rel_error);
    let match_ = congruence(&best.cp, &truth.cast());
    assert!(match_.min > 1.0 - 1e-4, "{shape:?} R={rank} f32: congruence {match_:?}");
}

#[test]
fn rank_one() {
    check(&[5, 4, 3], 1, 1);
}

#[test]
fn order_three() {
    check(&[12, 11, 10], 5, 2);
}

#[test]
fn order_four() {
    check(&[8, 7, 6, 5], 4, 3);
}

#[test]
fn order_five() {
    check(&[5, 4, 5, 4, 3], 3, 4);
}

#[test]
fn convolution_kernel() {
    check(&[16, 12, 3, 3], 6, 5);
}

#[test]
fn rank_above_a_mode() {
    check(&[10, 12, 4], 7, 6);
}

#[test]
fn modes_of_size_one() {
    check(&[9, 1, 8, 7], 4, 7);
}

#[test]
fn noise_is_left_over() {
    let (truth, tensor) = planted(&[15, 14, 13], 4, 0.1, 8);
    let found = Als::new(4).init(Init::Random { seed: 11_004 }).decompose(tensor.view()).unwrap();
    // Of the noise, the share of the degrees of freedom that the model has is explained away.
    let share = (4.0 * (15.0 + 14.0 + 13.0 - 2.0)) / (15.0 * 14.0 * 13.0_f64);
    let expected = 0.1 / 1.01_f64.sqrt() * (1.0 - share).sqrt();
    assert!((found.rel_error - expected).abs() < 0.002, "{} against {expected}", found.rel_error);
    assert!(congruence(&found.cp, &truth).min > 0.95);
}

#[test]
fn hosvd_start_needs_fewer_sweeps_on_orthogonal_terms() {
    // Orthogonal factors are the singular vectors of the unfoldings.
    let mut truth = CpTensor::from_factors(common::factors(&[12, 11, 10], 4, 9)).unwrap();
    for factor in &mut truth.factors {
        *factor = cp_core::truncated_svd(factor.view(), 4).unwrap().u;
    }
    truth.weights = ndarray::array![4.0, 3.0, 2.0, 1.0];
    let tensor = truth.reconstruct();
    let found = Als::new(4).init(Init::Hosvd { seed: 0 }).decompose(tensor.view()).unwrap();
    assert!(found.iterations() <= 3 && found.rel_error < 1e-8, "{:?}", found.trace);
    assert!((found.component_energy - 1.0).abs() < 1e-6);
    assert!(found.degeneracy < 1e-6);
}

#[test]
fn hosvd_pads_modes_smaller_than_the_rank() {
    let (_, tensor) = planted(&[10, 12, 3], 7, 0.0, 10);
    let als = Als::new(7).max_iters(2000).tol(1e-10).init(Init::Hosvd { seed: 11_005 });
    let found = als.decompose(tensor.view()).unwrap();
    assert!(found.rel_error < 1e-3, "{}", found.rel_error);
    assert!(found.cp.factors[2].iter().all(|x| x.is_finite()));
}

#[test]
fn a_matrix_ends_at_its_truncated_svd() {
    let matrix = gaussian(&[20, 14], 11);
    let found = Als::new(5).max_iters(3000).tol(1e-13).init(Init::Random { seed: 11_006 });
    let found = found.decompose(matrix.view()).unwrap();
    let matrix = matrix.into_dimensionality().unwrap();
    let svd = cp_core::truncated_svd(matrix.view(), 5).unwrap();
    let best = cp_core::norm((&matrix - &svd.reconstruct()).into_dyn().view())
        / cp_core::norm(matrix.into_dyn().view());
    assert!(found.rel_error >= best - 1e-12, "{} below the optimum {best}", found.rel_error);
    assert!(found.rel_error < best + 1e-5, "{} against {best}", found.rel_error);
}

#[test]
fn a_warm_start_goes_on_where_the_first_run_ended() {
    let (_, tensor) = planted(&[9, 8, 7], 6, 0.2, 12);
    let als = Als::new(4).tol(0.0).init(Init::Random { seed: 11_007 });
    let whole = als.clone().max_iters(20).decompose(tensor.view()).unwrap();
    let half = als.clone().max_iters(10).decompose(tensor.view()).unwrap();
    let rest = als.max_iters(10).init(Init::Factors(half.cp)).decompose(tensor.view()).unwrap();
    assert_eq!(rest.stop, StopReason::MaxIters);
    for (ours, whole) in rest.trace.iter().zip(&whole.trace[10..]) {
        assert!((ours - whole).abs() < 1e-9);
    }
}

/// Sweeps with extrapolation until the error that 50 plain ones reach, from the same start.
fn sweeps_to_plain_fifty(shape: &[usize], rank: usize) -> usize {
    let (_, x) = planted(shape, rank, 1.0, 11);
    let als = Als::new(rank).max_iters(50).tol(0.0).init(Init::Random { seed: 12 });
    let plain = als.clone().decompose(x.view()).unwrap();
    let ahead = als.extrapolate(true).decompose(x.view()).unwrap();
    let trace = &ahead.trace;
    assert!(trace.windows(2).all(|pair| pair[1] <= pair[0]), "the error rises: {trace:?}");
    assert!((trace[49] - ahead.rel_error).abs() < 1e-9, "the model returned is not the one kept");
    1 + trace.iter().position(|&error| error <= plain.rel_error).unwrap_or(usize::MAX - 1)
}

#[test]
fn extrapolation_saves_two_sweeps_in_five() {
    for (shape, rank) in
        [(&[64, 48, 3, 3][..], 40), (&[48, 3, 7, 7], 30), (&[40, 30, 9], 50), (&[24, 36, 5, 5], 60)]
    {
        let sweeps = sweeps_to_plain_fifty(shape, rank);
        assert!(sweeps <= 30, "{shape:?} at rank {rank}: {sweeps} sweeps");
    }
}
