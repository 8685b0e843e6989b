//! Auto, restarts and rank paths: the best is kept, nothing depends on scheduling, tensors that break solvers do no harm.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use crate::common;
use std::ops::ControlFlow;

use crate::common::{factors, gaussian, planted};
use cp_core::{
    Als, Auto, CpError, CpTensor, Decomposition, Init, Nls, Real, Restarts, Solver, StopReason,
    best_of, congruence, extend, norm, rank_path, rel_error, resize,
};
use ndarray::{ArrayD, ArrayViewD, IxDyn};

fn als(rank: usize, seed: u64) -> Box<dyn Solver<f64>> {
    Box::new(Als::new(rank).max_iters(20).init(Init::Random { seed }))
}

/// On a pool of this many threads.
fn on<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(run)
}

#[test]
fn the_best_of_several_is_kept() {
    let tensor = gaussian(&[7, 6, 5], 301);
    let errors = [1, 2, 3, 4].map(|seed| als(3, seed).decompose(tensor.view()).unwrap().rel_error);
    let lowest = errors.iter().copied().fold(f64::INFINITY, f64::min);
    let solvers: Vec<_> = (1..5).map(|seed| als(3, seed)).collect();
    let mut seen = Vec::new();
    let found = best_of(tensor.view(), &solvers, &mut |progress| {
        seen.push((progress.iteration, progress.rel_error));
        ControlFlow::Continue(())
    });
    let found = found.unwrap();
    assert_eq!(found.rel_error, lowest);
    let so_far = |n: usize| (n, errors[..n].iter().copied().fold(f64::INFINITY, f64::min));
    assert_eq!(seen, [so_far(1), so_far(2), so_far(3), so_far(4)]);
    // Of equal runs the first.
    let winner = errors.iter().position(|&error| error == lowest).unwrap();
    let alone = solvers[winner].decompose(tensor.view()).unwrap();
    assert_eq!((&found.cp, &found.trace), (&alone.cp, &alone.trace));
    // The observer ends the search.
    let stopped = best_of(tensor.view(), &solvers, &mut |_| ControlFlow::Break(())).unwrap();
    assert_eq!((stopped.rel_error, stopped.stop), (errors[0], StopReason::Observer));
}

#[test]
fn restarts_do_not_depend_on_scheduling() {
    let tensor = gaussian(&[9, 8, 7], 302);
    let restarts = Restarts::new(7, |start| als(5, 13_000 + start));
    for threads in [1, 2, 3] {
        let runs = [0, 1, 2].map(|_| on(threads, || restarts.decompose(tensor.view()).unwrap()));
        assert_eq!(runs[0].cp, runs[1].cp);
        assert_eq!(runs[0].cp, runs[2].cp);
    }
}

#[test]
fn a_search_fails_only_where_all_fail() {
    let tensor = gaussian(&[4, 3, 2], 303);
    let bad = || -> Box<dyn Solver<f64>> { Box::new(Als::new(2).tol(-1.0)) };
    let go = &mut |_: &cp_core::Progress| ControlFlow::Continue(());
    assert!(best_of(tensor.view(), &[bad(), als(2, 1)], go).is_ok());
    assert!(matches!(
        best_of(tensor.view(), &[bad(), bad()], go),
        Err(CpError::InvalidOption { .. })
    ));
    assert_eq!(best_of::<f64>(tensor.view(), &[], go).unwrap_err(), CpError::NoSolver);
}

#[test]
fn auto_bounds_the_energy() {
    // At rank 30, just below the 36 that is exact for any tensor of this shape, terms cancel each other.
    let x = common::gaussian(&[12, 3, 20], 5);
    let auto = Auto::new(30).max_iters(300).tol(1e-7).init(Init::Random { seed: 8 });
    let free = auto.clone().max_energy(f64::INFINITY).decompose(x.view()).unwrap();
    let bound = auto.max_energy(3.0).decompose(x.view()).unwrap();
    assert!(free.component_energy > 3.0, "nothing to bound: {}", free.component_energy);
    assert!(bound.component_energy < 0.7 * free.component_energy, "{}", bound.component_energy);
    assert!(bound.rel_error <= free.rel_error + 1e-3, "{}", bound.rel_error);
    assert!(Auto::new(2).max_energy(f64::NAN).decompose(x.view()).is_err());
}

#[test]
fn auto_leaves_local_minima() {
    for seed in 0..6 {
        let (truth, tensor) = planted(&[30, 30, 30], 8, 0.1, 310 + seed);
        let bound = rel_error(tensor.view(), &truth);
        let auto = Auto::new(8).init(Init::Random { seed: 13_100 + seed });
        let found = auto.decompose(tensor.view()).unwrap();
        assert!(found.rel_error < bound, "seed {seed}: {} above {bound}", found.rel_error);
        assert!(found.trace.windows(2).all(|pair| pair[1] <= pair[0]));
    }
}

#[test]
fn auto_is_at_least_as_good_as_als() {
    let cases: [(&[usize], usize, f64); 4] = [
        (&[16, 8, 5, 5], 30, 0.5),
        (&[12, 11, 10], 4, 0.0),
        (&[9, 1, 8], 3, 0.2),
        (&[20, 15], 4, 0.3),
    ];
    for (k, (shape, rank, noise)) in cases.into_iter().enumerate() {
        let (_, tensor) = planted(shape, rank, noise, 320 + k as u64);
        let init = Init::Random { seed: 13_200 };
        let als = Als::new(rank).init(init.clone()).decompose(tensor.view()).unwrap();
        let auto = Auto::new(rank).init(init);
        let found = auto.decompose(tensor.view()).unwrap();
        assert!(
            found.rel_error <= als.rel_error,
            "{shape:?}: {} {}",
            found.rel_error,
            als.rel_error
        );
        assert!((found.rel_error - rel_error(tensor.view(), &found.cp)).abs() < 1e-12);
        assert_eq!(
            auto.decompose(tensor.view()).unwrap().cp,
            found.cp,
            "{shape:?}: not the same bits"
        );
    }
}

#[test]
fn auto_obeys_the_observer() {
    let (_, tensor) = planted(&[12, 11, 10], 3, 0.1, 330);
    let whole = Auto::new(3).decompose(tensor.view()).unwrap();
    for stop_at in [1, 5, whole.iterations() - 1] {
        let mut seen = Vec::new();
        let stopped = Auto::new(3).decompose_with(tensor.view(), &mut |progress| {
            seen.push(progress.rel_error);
            if seen.len() == stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let stopped = stopped.unwrap();
        assert_eq!((stopped.stop, &stopped.trace), (StopReason::Observer, &seen));
        assert_eq!(seen, whole.trace[..stop_at]);
    }
    assert!(matches!(
        Auto::new(3).tol(f64::NAN).decompose(tensor.view()),
        Err(CpError::InvalidOption { .. })
    ));
    assert_eq!(Auto::new(0).decompose(tensor.view()).unwrap_err(), CpError::RankZero);
}

#[test]
fn resizing_keeps_the_large_terms() {
    let mut cp = CpTensor::from_factors(factors(&[6, 5, 4], 4, 340)).unwrap();
    cp.normalize();
    cp.weights = ndarray::array![3.0, 1.0, 4.0, 2.0];
    let smaller = resize(&cp, 2, 0).unwrap();
    assert!(smaller.weights.iter().zip([4.0, 3.0]).all(|(w, v)| (w - v).abs() < 1e-12));
    assert!(congruence(&smaller, &cp).min > 1.0 - 1e-12);
    let larger = resize(&cp, 7, 0).unwrap();
    assert_eq!(larger.rank(), 7);
    assert!(congruence(&cp, &larger).min > 1.0 - 1e-12);
    let change = norm((larger.reconstruct() - cp.reconstruct()).view());
    assert!(change > 0.0 && change < 0.01, "{change}");
    assert_eq!(resize(&cp, 7, 0).unwrap(), larger);
    assert_ne!(resize(&cp, 7, 1).unwrap(), larger);
    assert_eq!(resize(&cp, 0, 0).unwrap_err(), CpError::RankZero);
    // A model of zeros may grow too.
    let zero = CpTensor { weights: ndarray::Array1::zeros(4), factors: cp.factors.clone() };
    assert!(resize(&zero, 6, 0).unwrap().reconstruct().iter().all(|x| x.is_finite()));
}

#[test]
fn a_start_at_another_rank_beats_a_random_one() {
    let tensor = gaussian(&[10, 9, 8], 341);
    let from = als(6, 13_300).decompose(tensor.view()).unwrap();
    for rank in [4, 6, 9] {
        let init = Init::Resized { from: from.cp.clone(), seed: 13_301 };
        for solver in [
            Box::new(Als::new(rank).max_iters(1).init(init.clone())) as Box<dyn Solver<f64>>,
            Box::new(Nls::new(rank).warm_up(0).max_iters(2).init(init)),
        ] {
            let warm = solver.decompose(tensor.view()).unwrap();
            let cold = Als::new(rank).max_iters(2).init(Init::Random { seed: 13_302 });
            let cold = cold.decompose(tensor.view()).unwrap();
            assert!(
                warm.rel_error < cold.rel_error,
                "{rank}: {} {}",
                warm.rel_error,
                cold.rel_error
            );
            assert!(rank < 6 || warm.rel_error <= from.rel_error + 1e-9, "{rank}");
        }
    }
    let wrong = Init::Resized { from: from.cp, seed: 0 };
    let failed = Als::new(3).init(wrong).decompose(gaussian(&[10, 9, 7], 342).view());
    assert!(matches!(failed, Err(CpError::FactorShape { mode: 2, .. })), "{failed:?}");
}

#[test]
fn a_path_goes_on_from_rank_to_rank() {
    let tensor = gaussian(&[10, 9, 8], 343);
    let path = |ranks: &[usize]| {
        rank_path(tensor.view(), ranks, 13_400, |rank, init| {
            Box::new(Als::new(rank).max_iters(15).tol(0.0).init(init))
        })
    };
    let up = path(&[2, 4, 8, 12]).unwrap();
    assert!(up.windows(2).all(|pair| pair[1].rel_error < pair[0].rel_error));
    // Each first sweep is already below what the rank before ended with.
    assert!(up.windows(2).all(|pair| pair[1].trace[0] < pair[0].rel_error));
    let down = path(&[12, 8, 4]).unwrap();
    assert_eq!(down.iter().map(|found| found.cp.rank()).collect::<Vec<_>>(), [12, 8, 4]);
    assert!(path(&[]).unwrap().is_empty());
    assert_eq!(path(&[2, 0]).unwrap_err(), CpError::RankZero);
    // New terms from the residual are better than random ones.
    let small = &up[0].cp;
    let step = |init: Init| {
        Als::new(6).max_iters(1).init(init).decompose(tensor.view()).unwrap().rel_error
    };
    let residual = step(Init::Factors(extend(tensor.view(), small, 6, 13_401).unwrap()));
    let random = step(Init::Resized { from: small.clone(), seed: 13_401 });
    assert!(residual < random, "{residual} {random}");
    let other = gaussian(&[10, 9], 344);
    assert!(matches!(extend(other.view(), small, 6, 0), Err(CpError::FactorCount { .. })));
    let other = gaussian(&[10, 8, 8], 345);
    assert!(matches!(extend(other.view(), small, 6, 0), Err(CpError::FactorShape { mode: 1, .. })));
}

fn survives<T: Real>(tensor: &ArrayD<f64>, solve: impl Fn(ArrayViewD<'_, T>) -> Decomposition<T>) {
    let tensor = tensor.mapv(T::narrow);
    let found = solve(tensor.view());
    let mut numbers = found.cp.weights.iter().chain(found.cp.factors.iter().flatten());
    assert!(numbers.all(|x| x.is_finite()), "{found:?}");
    assert!(found.trace.iter().all(|e| e.is_finite() && *e >= 0.0), "{:?}", found.trace);
    assert!(found.rel_error <= 1.0 + 1e-6, "{}", found.rel_error);
}

#[test]
fn degenerate_tensors() {
    let shapes: [&[usize]; 6] =
        [&[1, 1], &[30, 1], &[6, 6, 6], &[2, 1, 3], &[3, 2, 4], &[2, 3, 1, 2, 2]];
    for (k, shape) in shapes.into_iter().enumerate() {
        let bound = shape.iter().product::<usize>() / shape.iter().max().unwrap();
        for rank in [1, 2, bound + bound.div_ceil(2)] {
            let tensor = gaussian(shape, 350 + k as u64);
            let mut lone = ArrayD::zeros(IxDyn(shape));
            lone[vec![0; shape.len()].as_slice()] = 2.0;
            let cases = [
                &ArrayD::zeros(IxDyn(shape)),
                &ArrayD::from_elem(IxDyn(shape), -3.5),
                &lone,
                &tensor,
                &(&tensor * 1e35),
                &(&tensor * 1e-40),
            ];
            for case in cases {
                let auto = Auto::new(rank).max_iters(20).starts(3);
                survives::<f64>(case, |x| auto.decompose(x).unwrap());
                survives::<f32>(case, |x| auto.decompose(x).unwrap());
                let path = |x: ArrayViewD<'_, f64>| {
                    let als = |rank, init| -> Box<dyn Solver<f64>> {
                        Box::new(Als::new(rank).max_iters(5).init(init))
                    };
                    rank_path(x, &[1, rank, rank + 2], 13_500, als).unwrap().remove(2)
                };
                survives::<f64>(case, path);
            }
            let mut bad = tensor.clone();
            bad[vec![0; shape.len()].as_slice()] = f64::NAN;
            assert!(matches!(
                Auto::new(rank).decompose(bad.view()),
                Err(CpError::NotFinite { .. })
            ));
        }
    }
}
