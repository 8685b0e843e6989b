//! The tensor power method: terms of orthogonal tensors, deflation with λ, and what greed guarantees.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use crate::degenerate;
use std::ops::ControlFlow;

use crate::common::{factors, gaussian, narrow, planted};
use cp_core::{Als, CpError, CpTensor, Init, PowerMethod, Solver, StopReason, congruence, norm};
use ndarray::Array1;

/// A tensor with orthonormal factors and the weights R, R − 1, …, 1.
fn orthogonal(shape: &[usize], rank: usize, seed: u64) -> CpTensor {
    let mut cp = CpTensor::from_factors(factors(shape, rank, seed)).unwrap();
    for factor in &mut cp.factors {
        *factor = cp_core::truncated_svd(factor.view(), rank).unwrap().u;
    }
    cp.weights = Array1::from_shape_fn(rank, |r| (rank - r) as f64);
    cp
}

/// Finds the terms of an orthogonal tensor, whatever the order it finds them in.
fn check(shape: &[usize], rank: usize, seed: u64) {
    let truth = orthogonal(shape, rank, seed);
    let tensor = truth.reconstruct();
    let solver = PowerMethod::new(rank).tol(1e-12).max_iters(1000).seed(13_000 + seed);
    let found = solver.decompose(tensor.view()).unwrap();
    assert_eq!((found.stop, found.iterations()), (StopReason::Converged, rank));
    assert!(found.rel_error < 1e-10, "{shape:?}: {:e}", found.rel_error);
    assert!(congruence(&found.cp, &truth).min > 1.0 - 1e-10, "{shape:?}");
    let mut sorted = found.cp.clone();
    sorted.sort();
    assert!((&sorted.weights - &truth.weights).iter().all(|d| d.abs() < 1e-9), "{shape:?}");

    let single = PowerMethod::new(rank).tol(1e-5).seed(13_000 + seed);
    let single = single.decompose(narrow(&tensor).view()).unwrap();
    assert!(single.rel_error < 1e-4, "{shape:?} f32: {:e}", single.rel_error);
}

#[test]
fn orthogonal_terms_are_found() {
    check(&[9, 8], 3, 1);
    check(&[9, 8, 7], 4, 2);
    check(&[6, 5, 5, 4], 3, 3);
    check(&[4, 5, 3, 4, 3], 3, 4);
    check(&[5, 4, 3], 1, 5);
}

#[test]
fn several_starts_find_the_largest_term_first() {
    let truth = orthogonal(&[9, 8, 7], 5, 6);
    let solver = PowerMethod::new(5).tol(1e-12).max_iters(1000).starts(40).seed(13_100);
    let found = solver.decompose(truth.reconstruct().view()).unwrap();
    assert!((&found.cp.weights - &truth.weights).iter().all(|d| d.abs() < 1e-9), "{found:?}");
    // One start of its own does not, or the test above would prove nothing.
    let greedy = |seed| {
        let solver = PowerMethod::new(1).seed(seed).tol(1e-6);
        solver.decompose(truth.reconstruct().view()).unwrap().cp.weights[0]
    };
    assert!((13_101..13_121).map(greedy).any(|weight| weight < 4.5));
}

#[test]
fn deflation_takes_off_the_weight_too() {
    // Terms that are not orthogonal, and weights far from 1: ‖residual‖² falls by λ² each time, to the last digit, only if
    // λ a ∘ b ∘ c is what is taken off.
    let (_, tensor) = planted(&[9, 8, 7], 4, 0.2, 7);
    let whole = norm(tensor.view()).powi(2);
    let found = PowerMethod::new(8).seed(13_200).decompose(tensor.view()).unwrap();
    let mut left = whole;
    for (r, (weight, error)) in found.cp.weights.iter().zip(&found.trace).enumerate() {
        left -= weight * weight;
        assert!((error - (left / whole).sqrt()).abs() < 1e-10, "term {r}");
    }
    assert!((found.rel_error - found.trace[7]).abs() < 1e-10);
    assert!(found.trace.windows(2).all(|pair| pair[1] < pair[0]));
    assert!(found.component_energy <= 1.0);
}

#[test]
fn terms_do_not_depend_on_their_number() {
    let tensor = gaussian(&[7, 6, 5, 2], 8);
    let solver = |rank| PowerMethod::new(rank).starts(3).seed(13_300);
    let few = solver(3).decompose(tensor.view()).unwrap();
    let many = solver(9).decompose(tensor.view()).unwrap();
    assert_eq!(few.cp.weights, many.cp.weights.slice(ndarray::s![..3]));
    assert_eq!(few.trace, many.trace[..3]);
    // More starts never make the first term smaller.
    let first = |starts| {
        PowerMethod::new(1).starts(starts).tol(1e-9).decompose(tensor.view()).unwrap().cp.weights[0]
    };
    assert!(first(1) <= first(5) && first(5) <= first(20));
    assert_eq!(first(0), first(1));
}

#[test]
fn a_run_that_is_stopped_has_the_terms_found() {
    let (_, tensor) = planted(&[9, 8, 7], 6, 0.0, 9);
    let found = PowerMethod::new(50).seed(13_400).decompose_with(tensor.view(), &mut |progress| {
        if progress.rel_error < 0.3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let found = found.unwrap();
    assert_eq!(found.stop, StopReason::Observer);
    assert!(found.cp.rank() < 50 && found.cp.rank() == found.trace.len());
    assert!(found.rel_error < 0.3 && found.trace[found.trace.len() - 2] >= 0.3);
}

#[test]
fn a_matrix_gives_its_singular_values() {
    let matrix = gaussian(&[8, 6], 10);
    let found = PowerMethod::new(6).tol(1e-13).max_iters(20_000).seed(13_500);
    let mut found = found.decompose(matrix.view()).unwrap();
    found.cp.sort();
    let svd = cp_core::truncated_svd(matrix.into_dimensionality().unwrap().view(), 6).unwrap();
    assert!((&found.cp.weights - &svd.s).iter().all(|d| d.abs() < 1e-9), "{found:?}");
}

#[test]
fn greed_has_its_price() {
    let (_, tensor) = planted(&[12, 11, 10], 6, 0.01, 11);
    let power = PowerMethod::new(6).seed(13_600).decompose(tensor.view()).unwrap();
    let als = Als::new(6).max_iters(500).init(Init::Random { seed: 13_601 });
    assert!(als.decompose(tensor.view()).unwrap().rel_error < power.rel_error);
}

#[test]
fn too_few_iterations_show() {
    let tensor = gaussian(&[9, 8, 7], 12);
    let found = PowerMethod::new(3).max_iters(1).decompose(tensor.view()).unwrap();
    assert_eq!((found.stop, found.iterations()), (StopReason::MaxIters, 3));
    let found = PowerMethod::new(3).tol(0.0).max_iters(7).decompose(tensor.view()).unwrap();
    assert_eq!(found.stop, StopReason::MaxIters);
    let none = PowerMethod::new(3).max_iters(0).decompose(tensor.view()).unwrap();
    assert!(none.cp.weights.iter().all(|&w| w == 0.0) && none.rel_error == 1.0);
    for bad in [-1.0, f64::NAN] {
        let error = PowerMethod::new(2).tol(bad).decompose(tensor.view()).unwrap_err();
        assert!(matches!(error, CpError::InvalidOption { option: "tol", .. }));
    }
    assert_eq!(Solver::<f32>::name(&PowerMethod::new(1)), "power");
}

#[test]
fn repeats_bit_by_bit() {
    let tensor = gaussian(&[64, 40, 5, 5], 13);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let found = pool.install(|| PowerMethod::new(3).decompose(tensor.view()).unwrap());
        (found.cp, found.trace)
    };
    assert_eq!(run(1), run(1));
    assert_eq!(run(3), run(3));
}

#[test]
fn degenerate_tensors() {
    degenerate::never_breaks(PowerMethod::new);
    degenerate::never_breaks(|rank| PowerMethod::new(rank).starts(3).tol(1e-10));
}
