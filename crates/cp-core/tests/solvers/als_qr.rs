//! ALS by QR and QR-SVD: the iterates of ALS where these can be had, and a model in all other cases too.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use crate::degenerate;
use std::ops::ControlFlow;

use crate::common::{factors, gaussian, narrow, planted};
use cp_core::{Als, AlsQr, CpError, CpTensor, Init, Solver, StopReason, congruence, rel_error};
use ndarray::{Axis, array};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// The same start and the same sweeps as ALS without a ridge.
fn check(shape: &[usize], rank: usize, seed: u64) {
    let (_, tensor) = planted(shape, rank, 0.3, seed);
    let init = Init::Random { seed: 12_000 + seed };
    let als = Als::new(rank).ridge(0.0).tol(0.0).max_iters(6).init(init.clone());
    let expected = als.decompose(tensor.view()).unwrap();
    for solver in [AlsQr::new(rank), AlsQr::svd(rank)] {
        let solver = solver.tol(0.0).max_iters(6).init(init.clone());
        let name = Solver::<f64>::name(&solver);
        let found = solver.decompose(tensor.view()).unwrap();
        assert_eq!((found.stop, found.iterations()), (StopReason::MaxIters, 6));
        for (ours, theirs) in found.trace.iter().zip(&expected.trace) {
            assert!((ours - theirs).abs() < 1e-10, "{name} {shape:?} R={rank}: {ours} {theirs}");
        }
        assert!((found.rel_error - found.trace[5]).abs() < 1e-12, "{name} {shape:?} R={rank}");
        assert!(congruence(&found.cp, &expected.cp).min > 1.0 - 1e-8, "{name} {shape:?} R={rank}");
    }
}

#[test]
fn equals_als_on_order_two() {
    check(&[9, 7], 3, 1);
    check(&[7, 9], 7, 2);
}

#[test]
fn equals_als_on_order_three() {
    check(&[12, 11, 10], 1, 3);
    check(&[12, 11, 10], 5, 4);
}

#[test]
fn equals_als_on_orders_four_and_five() {
    check(&[8, 7, 6, 5], 4, 5);
    check(&[5, 4, 5, 4, 3], 3, 6);
    check(&[2, 3, 2, 3, 2, 3], 3, 7);
}

#[test]
fn equals_als_on_kernels() {
    check(&[24, 18, 3, 3], 12, 8);
    check(&[3, 3, 18, 24], 12, 9);
}

#[test]
fn equals_als_above_some_modes_and_at_their_size() {
    check(&[10, 12, 4], 7, 10);
    check(&[10, 4, 12], 10, 11);
    check(&[6, 6, 6], 6, 12);
    check(&[4, 3, 9], 12, 13);
}

#[test]
fn equals_als_with_modes_of_size_one() {
    check(&[9, 1, 8, 7], 4, 14);
    check(&[1, 6, 5], 3, 15);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default()
    })]

    /// Least-squares solutions never raise the error, whichever rank; not even where there is no unique one.
    #[test]
    fn never_lowers_the_fit(
        shape in prop::collection::vec(1..7usize, 2..5), rank in 1..20usize, seed in 0..1000u64, svd in any::<bool>()
    ) {
        let tensor = gaussian(&shape, seed);
        let solver = if svd { AlsQr::svd(rank) } else { AlsQr::new(rank) };
        let solver = solver.tol(0.0).max_iters(30).init(Init::Random { seed: seed + 5000 });
        let found = solver.decompose(tensor.view()).unwrap();
        for (sweep, pair) in found.trace.windows(2).enumerate() {
            prop_assert!(pair[1] <= pair[0] + 1e-9, "{shape:?} R={rank} seed {seed}, sweep {sweep}: {pair:?}");
        }
        // The cheap error is the error of the model.
        prop_assert!((found.rel_error - found.trace[29]).abs() < 1e-9, "{} {}", found.rel_error, found.trace[29]);
    }
}

/// Finds the terms of an exact tensor again, in f64 to the last digits.
fn recovers(shape: &[usize], rank: usize, seed: u64) {
    let (truth, tensor) = planted(shape, rank, 0.0, seed);
    for solver in [AlsQr::new(rank), AlsQr::svd(rank)] {
        let runs = [12_101, 12_102, 12_103].map(|seed| {
            let solver = solver.clone().max_iters(2000).tol(1e-14).init(Init::Random { seed });
            (
                solver.decompose(tensor.view()).unwrap(),
                solver.tol(1e-9).decompose(narrow(&tensor).view()).unwrap(),
            )
        });
        let best = runs.iter().min_by(|a, b| a.0.rel_error.total_cmp(&b.0.rel_error)).unwrap();
        assert!(best.0.iterations() > 2 || rank == 1, "started at the answer");
        assert!(best.0.rel_error < 1e-12, "{shape:?} R={rank}: {:e}", best.0.rel_error);
        assert!(congruence(&best.0.cp, &truth).min > 1.0 - 1e-10);
        // Widened f32: nothing but the rounding of the tensor and of the result is left.
        let single = runs.iter().map(|(_, single)| single.rel_error).fold(1.0, f64::min);
        assert!(single < 5e-7, "{shape:?} R={rank} f32: {single:e}");
    }
}

#[test]
fn terms_are_found_to_the_last_digits() {
    recovers(&[5, 4, 3], 1, 21);
    recovers(&[12, 11, 10], 5, 22);
    recovers(&[8, 7, 6, 5], 4, 23);
    recovers(&[5, 4, 5, 4, 3], 3, 24);
    recovers(&[10, 12, 4], 7, 25);
}

#[test]
fn dependent_terms_share_the_load() {
    let (_, tensor) = planted(&[6, 5, 4], 3, 0.1, 26);
    let column = factors(&[6, 5, 4], 1, 27);
    let twice = column.iter().map(|f| ndarray::concatenate![Axis(1), *f, *f]).collect();
    let start = Init::Factors(CpTensor::from_factors(twice).unwrap());
    // Normal equations without a ridge give up here.
    let als = Als::new(2).ridge(0.0).init(start.clone());
    assert!(matches!(als.decompose(tensor.view()), Err(CpError::SingularNormalMatrix { .. })));
    let once = AlsQr::new(1).init(Init::Factors(CpTensor::from_factors(column).unwrap()));
    let once = once.tol(0.0).max_iters(5).decompose(tensor.view()).unwrap();
    for solver in [AlsQr::new(2), AlsQr::svd(2)] {
        let found = solver.tol(0.0).max_iters(5).init(start.clone());
        let found = found.decompose(tensor.view()).unwrap();
        assert!((found.rel_error - once.rel_error).abs() < 1e-12);
        assert!(found.cp.weights.iter().all(|w| (w - once.cp.weights[0] / 2.0).abs() < 1e-9));
    }
}

#[test]
fn a_zero_column_is_left_out() {
    let (_, tensor) = planted(&[6, 5, 4], 3, 0.1, 28);
    for mode in 0..3 {
        let mut start = factors(&[6, 5, 4], 2, 29);
        start[mode].column_mut(1).fill(0.0);
        let start = Init::Factors(CpTensor::from_factors(start).unwrap());
        for solver in [AlsQr::new(2), AlsQr::svd(2)] {
            let found = solver.init(start.clone()).decompose(tensor.view()).unwrap();
            assert!(found.rel_error < 0.9, "{}", found.rel_error);
            assert!(found.cp.factors.iter().flatten().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn truncation_drops_what_only_cancelling_terms_can_reach() {
    // A tensor of border rank 2 and rank 3: two terms of every sequence towards it grow without bound.
    let [a, b] = [factors(&[6, 5, 4], 1, 30), factors(&[6, 5, 4], 1, 31)];
    let term = |pick: [&[ndarray::Array2<f64>]; 3]| {
        let factors = pick.iter().enumerate().map(|(n, of)| of[n].clone()).collect();
        CpTensor::from_factors(factors).unwrap().reconstruct()
    };
    let tensor = term([&a, &a, &b]) + term([&a, &b, &a]) + term([&b, &a, &a]);
    let solver = AlsQr::svd(2).tol(0.0).max_iters(1000).init(Init::Random { seed: 12_104 });
    let free = solver.clone().decompose(tensor.view()).unwrap();
    let held = solver.pinv_tol(0.2).decompose(tensor.view()).unwrap();
    assert!(free.rel_error < 0.02 && free.component_energy > 10.0, "{free:?}");
    assert!(held.rel_error > free.rel_error && held.component_energy < 1.0, "{held:?}");
}

#[test]
fn options_and_starts_are_checked() {
    let (_, tensor) = planted(&[6, 5, 4], 3, 0.1, 32);
    let run = |solver: AlsQr| solver.decompose(tensor.view());
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        for (option, solver) in
            [("tol", AlsQr::new(2).tol(bad)), ("pinv_tol", AlsQr::svd(2).pinv_tol(bad))]
        {
            let error = run(solver).unwrap_err();
            assert!(matches!(error, CpError::InvalidOption { option: o, .. } if o == option));
        }
    }
    let start = CpTensor::from_factors(factors(&[6, 5, 4], 3, 33)).unwrap();
    let error = run(AlsQr::new(2).init(Init::Factors(start.clone()))).unwrap_err();
    assert_eq!(error, CpError::FactorShape { mode: 0, expected: [6, 2], got: [6, 3] });
    let found = run(AlsQr::new(3).max_iters(0).init(Init::Factors(start.clone()))).unwrap();
    assert!((found.rel_error - rel_error(tensor.view(), &start)).abs() < 1e-12);
    let solver = AlsQr::svd(3).tol(0.0).init(Init::Factors(start));
    let found = solver.decompose_with(tensor.view(), &mut |progress| {
        if progress.iteration == 4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let found = found.unwrap();
    assert_eq!((found.stop, found.iterations()), (StopReason::Observer, 4));
    let names = [AlsQr::new(1), AlsQr::svd(1)].map(|s| Solver::<f64>::name(&s));
    assert_eq!(names, ["als-qr", "als-qr-svd"]);
    let matrix = array![[2.0, 0.0], [0.0, 1.0]].into_dyn();
    assert!(AlsQr::new(1).decompose(matrix.view()).unwrap().rel_error < 0.5);
}

#[test]
fn repeats_bit_by_bit() {
    // Large enough for several threads in products and decompositions.
    let (_, tensor) = planted(&[40, 36, 5, 5], 20, 0.3, 34);
    let solver = AlsQr::new(20).tol(0.0).max_iters(3).init(Init::Random { seed: 12_105 });
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| solver.decompose(tensor.view()).unwrap())
    };
    let serial = run(1);
    for threads in [1, 3] {
        let (first, again) = (run(threads), run(threads));
        assert_eq!((&first.cp, &first.trace), (&again.cp, &again.trace), "{threads} threads");
        assert!((first.rel_error - serial.rel_error).abs() < 1e-10);
    }
}

#[test]
fn degenerate_tensors() {
    degenerate::never_breaks(|rank| AlsQr::new(rank).max_iters(20));
    degenerate::never_breaks(|rank| AlsQr::svd(rank).max_iters(20).init(Init::Hosvd { seed: 3 }));
}
