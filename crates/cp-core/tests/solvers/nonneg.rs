//! Non-negative ALS: the sign of every number, the monotone error, and the conditions of a minimum.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use crate::common::{factors, gaussian, narrow, planted};
use crate::degenerate;
use cp_core::{
    Als, CpError, CpTensor, Decomposition, Init, NonNegAls, Real, Solver, StopReason, congruence,
    gram, mttkrp,
};
use ndarray::{Array2, ArrayD};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn non_negative<T: Real>(found: &Decomposition<T>) -> bool {
    found.cp.factors.iter().flatten().chain(&found.cp.weights).all(|x| *x >= T::zero())
}

/// A tensor of non-negative terms, a third of whose entries are zero.
fn sparse_terms(shape: &[usize], rank: usize, seed: u64) -> (CpTensor, ArrayD<f64>) {
    let mut factors = factors(shape, rank, seed);
    factors.iter_mut().for_each(|f| f.mapv_inplace(|x| (x + 0.4).max(0.0)));
    let truth = CpTensor::from_factors(factors).unwrap();
    let tensor = truth.reconstruct();
    (truth, tensor)
}

/// Finds non-negative terms again.
fn check(shape: &[usize], rank: usize, seed: u64) {
    let (truth, tensor) = sparse_terms(shape, rank, seed);
    let runs = [14_001, 14_002, 14_003].map(|seed| {
        let solver = NonNegAls::new(rank).max_iters(3000).tol(1e-12).init(Init::Random { seed });
        let found = solver.decompose(tensor.view()).unwrap();
        assert!(non_negative(&found));
        found
    });
    let best = runs.iter().min_by(|a, b| a.rel_error.total_cmp(&b.rel_error)).unwrap();
    assert!(best.rel_error < 1e-5, "{shape:?} R={rank}: {:e}", best.rel_error);
    assert!(congruence(&best.cp, &truth).min > 1.0 - 1e-5, "{shape:?} R={rank}");
    let single = NonNegAls::new(rank).max_iters(1000).init(Init::Hosvd { seed: 14_004 });
    let single = single.decompose(narrow(&tensor).view()).unwrap();
    assert!(non_negative(&single) && single.rel_error < 0.05, "{}", single.rel_error);
}

#[test]
fn non_negative_terms_are_found() {
    check(&[7, 6, 5], 1, 1);
    check(&[12, 11, 10], 4, 2);
    check(&[8, 7, 6, 5], 3, 3);
    check(&[5, 4, 5, 4, 3], 3, 4);
    check(&[12, 10, 3], 5, 5);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64, failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::default()
    })]

    #[test]
    fn never_lowers_the_fit(
        shape in prop::collection::vec(1..7usize, 2..5), rank in 1..12usize, seed in 0..1000u64, passes in 0..6usize
    ) {
        let tensor = gaussian(&shape, seed);
        let solver = NonNegAls::new(rank).tol(0.0).max_iters(40).passes(passes).init(Init::Random { seed: seed + 5000 });
        let found = solver.decompose(tensor.view()).unwrap();
        prop_assert!(non_negative(&found));
        for (sweep, pair) in found.trace.windows(2).enumerate() {
            prop_assert!(pair[1] <= pair[0] + 1e-9, "{shape:?} R={rank} seed {seed}, sweep {sweep}: {pair:?}");
        }
        // What cannot be negative cannot cancel.
        prop_assert!(found.component_energy <= 1.0 + 1e-9, "{}", found.component_energy);
        let single = solver.decompose(narrow(&tensor).view()).unwrap();
        prop_assert!(non_negative(&single));
        prop_assert!(single.trace.windows(2).all(|pair| pair[1] <= pair[0] + 1e-3));
    }
}

#[test]
fn the_end_is_a_minimum_in_every_mode() {
    // Karush–Kuhn–Tucker: the slope is zero where an entry is positive, and not downhill where it is zero.
    for (shape, rank) in [(vec![9, 8, 7], 4), (vec![6, 5, 4, 3], 5), (vec![12, 9], 3)] {
        let tensor = gaussian(&shape, 6).mapv(f64::abs) + gaussian(&shape, 7);
        let solver = NonNegAls::new(rank).max_iters(20_000).tol(1e-15);
        let found = solver.init(Init::Random { seed: 14_100 }).decompose(tensor.view()).unwrap();
        let cp = &found.cp;
        let (mut zeros, mut entries) = (0, 0);
        for mode in 0..shape.len() {
            let others = cp.factors.iter().enumerate().filter(|&(m, _)| m != mode);
            let normal = others.fold(Array2::ones((rank, rank)), |p, (_, f)| p * gram(f.view()));
            let weighted = &cp.factors[mode] * &cp.weights;
            let slope = weighted.dot(&normal) - mttkrp(tensor.view(), &cp.factors, mode);
            for (&b, &slope) in weighted.iter().zip(&slope) {
                zeros += usize::from(b == 0.0);
                entries += 1;
                assert!(slope > -1e-4, "{shape:?}, mode {mode}: {b} {slope}");
                assert!(b < 1e-6 || slope.abs() < 1e-4, "{shape:?}, mode {mode}: {b} {slope}");
            }
        }
        assert!(zeros > 0 && zeros < entries, "the constraint binds nowhere or everywhere");
    }
}

#[test]
fn the_constraint_costs_error_and_nothing_where_it_does_not_bind() {
    let (_, tensor) = planted(&[9, 8, 7], 3, 0.1, 8);
    let init = Init::Random { seed: 14_101 };
    let free = Als::new(3).max_iters(500).init(init.clone()).decompose(tensor.view()).unwrap();
    let found = NonNegAls::new(3).init(init).decompose(tensor.view()).unwrap();
    assert!(found.rel_error > free.rel_error + 0.1);
    // All entries positive: of rank one, the best term is positive by itself (Perron & Frobenius).
    let tensor = gaussian(&[9, 8, 7], 9).mapv(|x| x.abs() + 0.1);
    let one = Als::new(1).tol(1e-14).decompose(tensor.view()).unwrap();
    let found = NonNegAls::new(1).tol(1e-14).decompose(tensor.view()).unwrap();
    assert!((one.rel_error - found.rel_error).abs() < 1e-9);
}

#[test]
fn what_is_negative_is_zero_in_the_model() {
    let tensor = -gaussian(&[5, 4, 3], 10).mapv(f64::abs);
    let found = NonNegAls::new(3).decompose(tensor.view()).unwrap();
    assert_eq!(found.cp.weights, ndarray::Array1::<f64>::zeros(3));
    assert_eq!((found.rel_error, found.stop), (1.0, StopReason::Converged));
}

#[test]
fn starts_are_taken_by_absolute_value() {
    let (truth, tensor) = sparse_terms(&[9, 8, 7], 3, 11);
    let mut turned = truth.clone();
    turned.factors[0].mapv_inplace(|x| -x);
    turned.weights.mapv_inplace(|w| -w);
    for start in [truth.clone(), turned] {
        let solver = NonNegAls::new(3).max_iters(3).init(Init::Factors(start));
        assert!(solver.decompose(tensor.view()).unwrap().rel_error < 1e-12);
    }
    // A zero column has no direction to come back from; the others go on.
    let mut start = truth;
    start.factors[1].column_mut(2).fill(0.0);
    let found = NonNegAls::new(3).init(Init::Factors(start)).decompose(tensor.view()).unwrap();
    assert!(non_negative(&found) && found.rel_error < 1.0);
    assert!(found.cp.factors.iter().flatten().all(|x| x.is_finite()));
}

#[test]
fn more_passes_need_fewer_sweeps() {
    let (_, tensor) = sparse_terms(&[12, 11, 10], 4, 12);
    let sweeps = |passes| {
        let solver =
            NonNegAls::new(4).passes(passes).max_iters(2000).init(Init::Random { seed: 14_102 });
        solver.decompose(tensor.view()).unwrap().iterations()
    };
    assert!(sweeps(5) < sweeps(1), "{} against {}", sweeps(5), sweeps(1));
}

#[test]
fn options_are_checked() {
    let tensor = gaussian(&[5, 4, 3], 13);
    for bad in [-1.0, f64::NAN] {
        let error = NonNegAls::new(2).tol(bad).decompose(tensor.view()).unwrap_err();
        assert!(matches!(error, CpError::InvalidOption { option: "tol", .. }));
    }
    let found = NonNegAls::new(2).max_iters(0).decompose(tensor.view()).unwrap();
    assert!(found.trace.is_empty() && non_negative(&found));
    assert_eq!(Solver::<f32>::name(&NonNegAls::new(1)), "nonneg");
}

#[test]
fn repeats_bit_by_bit() {
    let (_, tensor) = sparse_terms(&[48, 40, 5, 5], 20, 14);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let solver = NonNegAls::new(60).max_iters(3).init(Init::Random { seed: 14_103 });
        let found = pool.install(|| solver.decompose(tensor.view()).unwrap());
        (found.cp, found.trace)
    };
    assert_eq!(run(1), run(1));
    assert_eq!(run(3), run(3));
}

#[test]
fn degenerate_tensors() {
    degenerate::never_breaks(|rank| NonNegAls::new(rank).max_iters(20));
    degenerate::never_breaks(|rank| {
        NonNegAls::new(rank).max_iters(20).init(Init::Hosvd { seed: 3 })
    });
}
