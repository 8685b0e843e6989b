//! ALS on sampled equations comes near ALS on all of them, and says how near.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use std::ops::ControlFlow;

use crate::common::{gaussian, narrow, planted};
use cp_core::{
    Als, CpError, Init, Real, SampledAls, Solver, StopReason, congruence, norm, rel_error,
};
use ndarray::{ArrayD, Axis, IxDyn};

/// Sampled, with and without exact sweeps, against exact ALS from the same start.
fn check(shape: &[usize], rank: usize, noise: f64, samples: usize, seed: u64) {
    let (truth, tensor) = planted(shape, rank, noise, seed);
    let init = Init::Random { seed: 11_001 };
    let exact = Als::new(rank).max_iters(200).init(init.clone()).decompose(tensor.view()).unwrap();
    let solver = SampledAls::new(rank).samples(samples).seed(11_002).init(init);
    let found = solver.decompose(tensor.view()).unwrap();
    assert!(
        found.rel_error < 1.01 * exact.rel_error,
        "{:?} against {}",
        found.trace,
        exact.rel_error
    );
    assert!((found.rel_error - rel_error(tensor.view(), &found.cp)).abs() < 1e-14);
    assert!(congruence(&found.cp, &truth).min > 0.98);
    // The last two entries of the trace are exact.
    assert!((found.trace.last().unwrap() - found.rel_error).abs() < 1e-9);

    let alone = solver.clone().exact_sweeps(0).decompose(tensor.view()).unwrap();
    // Every mode adds about R/S to the squared error.
    let excess = (1.0 + 1.5 * (shape.len() * rank) as f64 / samples as f64).sqrt();
    assert!(
        alone.rel_error < excess * exact.rel_error,
        "{} against {}",
        alone.rel_error,
        exact.rel_error
    );
    assert!(alone.rel_error >= found.rel_error);
    // The estimate is good to a few percent, and the error returned does not rest on it.
    let estimate = alone.trace.iter().copied().fold(f64::INFINITY, f64::min);
    assert!((estimate / alone.rel_error - 1.0).abs() < 0.03, "{estimate} {}", alone.rel_error);
    assert!((alone.rel_error - rel_error(tensor.view(), &alone.cp)).abs() < 1e-14);

    let single = narrow(&tensor);
    let single = solver.decompose(single.view()).unwrap();
    assert!((single.rel_error - found.rel_error).abs() < 0.01 * found.rel_error);
}

#[test]
fn near_exact_als_on_noisy_tensors() {
    check(&[60, 50, 40], 5, 0.2, 500, 1);
    check(&[60, 50, 40], 5, 1.0, 1000, 2);
    check(&[30, 25, 20, 15], 6, 0.3, 500, 3);
    check(&[12, 11, 10, 9, 8], 4, 0.3, 400, 4);
}

#[test]
fn exact_tensors_are_recovered_by_samples_alone() {
    let (truth, tensor) = planted(&[70, 60, 50], 6, 0.0, 5);
    let solver = SampledAls::new(6).samples(200).epochs(100).tol(0.0).exact_sweeps(0);
    let found = solver.init(Init::Random { seed: 11_003 }).decompose(tensor.view()).unwrap();
    assert!(found.rel_error < 1e-6, "{:e}", found.rel_error);
    assert!(congruence(&found.cp, &truth).min > 1.0 - 1e-6);
}

#[test]
fn terms_that_sit_in_few_rows_are_seen() {
    // One entry per mode holds nearly all of a term: uniform samples would miss it.
    let (mut truth, _) = planted(&[60, 50, 40], 3, 0.0, 6);
    for factor in &mut truth.factors {
        factor.column_mut(0).fill(0.0);
        factor[[7, 0]] = 8.0;
    }
    let tensor = truth.reconstruct() + gaussian(&[60, 50, 40], 7) * 0.1;
    let solver = SampledAls::new(3).samples(150).seed(11_004).exact_sweeps(0);
    let runs = [11_005, 11_006, 11_007]
        .map(|seed| solver.clone().init(Init::Random { seed }).decompose(tensor.view()).unwrap());
    let best = runs.iter().min_by(|a, b| a.rel_error.total_cmp(&b.rel_error)).unwrap();
    assert!(
        congruence(&best.cp, &truth).min > 0.99,
        "{} {:?}",
        best.rel_error,
        congruence(&best.cp, &truth)
    );
}

#[test]
fn takes_all_equations_where_there_are_few() {
    let (_, tensor) = planted(&[9, 8, 7], 3, 0.2, 8);
    let init = Init::Random { seed: 11_008 };
    let solver =
        SampledAls::new(3).samples(100).epochs(4).tol(0.0).exact_sweeps(0).init(init.clone());
    let found = solver.decompose(tensor.view()).unwrap();
    let exact = Als::new(3).max_iters(20).tol(0.0).init(init).decompose(tensor.view()).unwrap();
    // Four epochs of five sweeps, each the same as an exact one.
    for (epoch, error) in found.trace.iter().enumerate() {
        assert!((error - exact.trace[5 * epoch + 4]).abs() < 1e-9);
    }
    assert_eq!((found.stop, found.iterations()), (StopReason::MaxIters, 4));
}

#[test]
fn stops_when_samples_bring_nothing_more() {
    let (_, tensor) = planted(&[40, 40, 40], 3, 0.5, 9);
    let solver = SampledAls::new(3).samples(300).epochs(1000).init(Init::Random { seed: 11_009 });
    let found = solver.decompose(tensor.view()).unwrap();
    assert_eq!(found.stop, StopReason::Converged);
    assert!(found.iterations() < 100);
    let mut seen = Vec::new();
    let stopped = solver.decompose_with(tensor.view(), &mut |progress| {
        assert_eq!(progress.iteration, seen.len() + 1);
        seen.push(progress.rel_error);
        if seen.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let stopped = stopped.unwrap();
    assert_eq!((stopped.stop, stopped.trace), (StopReason::Observer, seen));
    // In the exact sweeps too.
    let mut count = 0;
    let last = found.iterations() - 1;
    let stopped = solver.decompose_with(tensor.view(), &mut |_| {
        count += 1;
        if count == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap().iterations(), last);
}

#[test]
fn the_same_seeds_give_the_same_bits() {
    let (_, tensor) = planted(&[50, 45, 40], 4, 0.3, 10);
    let run = |seed| {
        SampledAls::new(4).samples(200).epochs(3).seed(seed).decompose(tensor.view()).unwrap().cp
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn degenerate_tensors() {
    fn survives<T: Real>(tensor: &ArrayD<T>) -> f64 {
        let mut worst = 0.0_f64;
        for (rank, samples) in [(1, 1), (3, 4), (30, 2)] {
            for exact in [0, 2] {
                let solver = SampledAls::new(rank).samples(samples).epochs(3).exact_sweeps(exact);
                let found = solver.decompose(tensor.view()).unwrap();
                assert!(
                    found
                        .cp
                        .weights
                        .iter()
                        .chain(found.cp.factors.iter().flatten())
                        .all(|x| x.is_finite())
                );
                assert!(found.rel_error.is_finite() && found.trace.iter().all(|e| e.is_finite()));
                worst = worst.max(found.rel_error);
            }
        }
        worst
    }
    for shape in [&[3, 2][..], &[1, 1], &[5, 1, 4], &[1, 1, 1, 1], &[4, 3, 2, 3], &[2, 1, 3, 2, 2]]
    {
        let part = gaussian(shape, 11);
        let mut single = ArrayD::zeros(IxDyn(shape));
        assert_eq!(survives(&single), 0.0);
        *single.iter_mut().last().unwrap() = 2.0;
        let copies =
            ndarray::concatenate(Axis(0), &[part.view(), part.view(), part.view()]).unwrap();
        for tensor in [
            single,
            copies,
            &part * 1e30,
            &part * 1e35,
            &part * 1e-30,
            &part * 1e-37,
            ArrayD::from_elem(IxDyn(shape), -1.0),
            part,
        ] {
            survives(&tensor);
            survives(&narrow(&tensor));
        }
        let failed = SampledAls::new(2).decompose(ArrayD::from_elem(IxDyn(shape), f64::NAN).view());
        assert!(matches!(failed, Err(CpError::NotFinite { .. })));
    }
}

/// The error that runs on large tensors end with is built in blocks of rows and of columns.
#[test]
fn the_error_of_a_tensor_with_long_rows() {
    for shape in [[100, 100, 100], [1, 1, 20_000], [2, 150, 140]] {
        let (cp, tensor) = planted(&shape, 3, 0.5, 13);
        let slow = norm((&tensor - &cp.reconstruct()).view()) / norm(tensor.view());
        let fast = rel_error(tensor.view(), &cp);
        assert!((fast - slow).abs() < 1e-12, "{shape:?}: {fast} {slow}");
    }
}

#[test]
fn bad_options_are_refused() {
    let tensor = gaussian(&[4, 3, 2], 12);
    let refused = |solver: SampledAls| solver.decompose(tensor.view()).unwrap_err();
    assert!(matches!(
        refused(SampledAls::new(2).tol(-1.0)),
        CpError::InvalidOption { option: "tol", .. }
    ));
    assert!(matches!(
        refused(SampledAls::new(2).ridge(f64::NAN)),
        CpError::InvalidOption { option: "ridge", .. }
    ));
    assert!(matches!(
        refused(SampledAls::new(2).samples(0)),
        CpError::InvalidOption { option: "samples", .. }
    ));
    assert_eq!(refused(SampledAls::new(0)), CpError::RankZero);
    assert_eq!(<SampledAls as Solver<f64>>::name(&SampledAls::new(1)), "sampled-als");
}
