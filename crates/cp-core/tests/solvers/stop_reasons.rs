//! A stop reason says what happened, for every solver; and nothing is made up where there is nothing to say.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::{factors, gaussian, planted};
use cp_core::{
    Als, AlsQr, CpError, CpTensor, DataAwareAls, DataAwareTucker2, Delta, Epc, Hooi, Init,
    InputStatistics, Nls, NonNegAls, Precompressed, Solver, StopReason, TkdCpd, Tucker2,
    TuckerSolver,
};
use ndarray::{Array2, ArrayD, IxDyn};

/// `settled`: changes below the tolerance in a row that count as convergence. Where that is two, steps may be refused: their
/// errors are those before them, and say nothing.
fn check(what: &str, [max_iters, settled]: [usize; 2], tol: f64, trace: &[f64], stop: StopReason) {
    let mut changes: Vec<f64> = trace.windows(2).map(|pair| (pair[0] - pair[1]).abs()).collect();
    if settled == 2 {
        changes.retain(|&change| change > 0.0);
    }
    let calm = changes.len() >= settled && changes.iter().rev().take(settled).all(|c| *c < tol);
    match stop {
        StopReason::Converged => assert!(calm, "{what} has converged: {trace:?}"),
        StopReason::MaxIters => {
            let calm = calm && settled == 1;
            assert!(trace.len() == max_iters && !calm, "{what} had more iterations: {trace:?}");
        }
        StopReason::Stalled => {
            let last = &trace[trace.len().saturating_sub(2)..];
            let still = last.windows(2).all(|pair| pair[1] >= pair[0]);
            assert!(trace.len() <= max_iters && still, "{what} has stalled: {trace:?}");
        }
        StopReason::Breakdown => assert!(trace.last().is_none_or(|e| !e.is_finite()), "{what}"),
        stop => panic!("{what}: {stop}"),
    }
}

/// Border rank 2 and rank 3: two terms grow against each other.
fn degenerate(seed: u64) -> ArrayD<f64> {
    let [a, b] = [seed, seed + 1].map(|seed| factors(&[6, 5, 4], 1, seed));
    let term = |pick: [usize; 3]| {
        let columns = (0..3).map(|n| if pick[n] == 0 { a[n].clone() } else { b[n].clone() });
        CpTensor::from_factors(columns.collect()).unwrap().reconstruct()
    };
    term([0, 0, 1]) + term([0, 1, 0]) + term([1, 0, 0])
}

#[test]
fn reasons_are_what_happened() {
    let mut inputs = InputStatistics::new(20);
    inputs
        .add(gaussian(&[60, 20], 80).into_dimensionality::<ndarray::Ix2>().unwrap().view())
        .unwrap();
    let inputs = Arc::new(inputs);
    let tensors = [
        planted(&[6, 5, 4], 2, 0.0, 81).1,
        planted(&[6, 5, 4], 3, 0.2, 82).1,
        gaussian(&[6, 5, 4], 83),
        degenerate(84),
        ArrayD::from_elem(IxDyn(&[6, 5, 4]), 1e-30),
    ];
    for (t, tensor) in tensors.iter().enumerate() {
        for max_iters in [1, 3, 40, 3000] {
            for tol in [0.0, 1e-13, 1e-4] {
                for rank in [2, 5] {
                    let init = || Init::Random { seed: 13_001 };
                    let m = max_iters;
                    let solvers: [(Box<dyn Solver<f64>>, usize); 6] = [
                        (Box::new(Als::new(rank).max_iters(m).tol(tol).init(init())), 1),
                        (Box::new(AlsQr::new(rank).max_iters(m).tol(tol).init(init())), 1),
                        (Box::new(AlsQr::svd(rank).max_iters(m).tol(tol).init(init())), 1),
                        (Box::new(NonNegAls::new(rank).max_iters(m).tol(tol).init(init())), 1),
                        (
                            Box::new(
                                DataAwareAls::new(rank, Arc::clone(&inputs))
                                    .max_iters(m)
                                    .tol(tol)
                                    .init(init()),
                            ),
                            1,
                        ),
                        (Box::new(Nls::new(rank).warm_up(0).max_iters(m).tol(tol).init(init())), 2),
                    ];
                    for (solver, settled) in &solvers {
                        if max_iters == 3000 && (*settled == 1 || tol > 0.0) {
                            continue;
                        }
                        let found = solver.decompose(tensor.view()).unwrap();
                        let what = format!("{} R={rank} {m} {tol:e} {t}", solver.name());
                        check(&what, [max_iters, *settled], tol, &found.trace, found.stop);
                    }
                }
                let hooi = Hooi::new([2, 2, 2]).max_iters(max_iters).tol(tol);
                let found = hooi.decompose(tensor.view()).unwrap();
                check(&format!("hooi {t}"), [max_iters, 1], tol, &found.trace, found.stop);
            }
        }
    }
}

#[test]
fn a_breakdown_is_no_convergence() {
    // Squares of the factors are in range, products of their Grams are not.
    let tensor = gaussian(&[5, 4, 3], 85);
    let mut start = CpTensor::from_factors(factors(&[5, 4, 3], 2, 86)).unwrap();
    start.weights.fill(1e200);
    let nls = Nls::new(2).warm_up(0).init(Init::Factors(start));
    let found = nls.decompose(tensor.view()).unwrap();
    assert_eq!((found.stop, found.iterations()), (StopReason::Breakdown, 0));
}

#[test]
fn a_run_that_gains_nothing_has_stalled() {
    // Exact to the last digit, and no tolerance: in the end no step lowers the error.
    let (_, tensor) = planted(&[7, 6, 5], 2, 0.0, 87);
    let nls = Nls::new(2).tol(0.0).max_iters(1000).init(Init::Random { seed: 13_002 });
    let found = nls.decompose(tensor.view()).unwrap();
    assert!(found.rel_error < 1e-12, "{:e}", found.rel_error);
    assert_eq!(found.stop, StopReason::Stalled);
    // A correction without any room.
    let (truth, tensor) = planted(&[9, 8, 7], 4, 0.0, 88);
    let epc = Epc::new(4).delta(Delta::Increase(0.0));
    let found = epc.correct(tensor.view(), &truth, &mut |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(found.stop, StopReason::Stalled);
}

#[test]
fn two_stages_have_converged_only_together() {
    let tensor = gaussian(&[9, 8, 7], 89);
    let parts = |sweeps| {
        let tucker = Tucker2::new([4, 4]).max_iters(sweeps).tol(1e-6);
        let als = Als::new(2).max_iters(5000).tol(1e-6);
        TkdCpd::new([4, 4], als).tucker(tucker).decompose_parts(tensor.view()).unwrap()
    };
    let found = parts(1);
    assert_eq!(found.core.stop, StopReason::Converged);
    assert_eq!(found.combined.stop, StopReason::MaxIters);
    assert_eq!(parts(5000).combined.stop, StopReason::Converged);
}

#[test]
fn a_core_out_of_range_names_the_largest_entry() {
    // Every entry fits an f32, the norm of a fiber does not.
    let tensor = ArrayD::<f32>::from_elem(IxDyn(&[60, 3, 2]), 3e38);
    let refused = Precompressed::new(Als::new(1)).decompose(tensor.view()).unwrap_err();
    let largest = f64::from(3e38_f32);
    assert_eq!(refused, CpError::Range { largest });
    let refused = Hooi::new([1, 1, 1]).decompose(tensor.view()).unwrap_err();
    assert_eq!(refused, CpError::Range { largest });
    assert_eq!(Als::new(1).decompose(tensor.view()).unwrap_err(), CpError::Range { largest });
}

#[test]
fn inputs_that_say_nothing_make_no_model_of_zeros() {
    let tensor = gaussian(&[6, 4, 3], 90);
    let mut silent = InputStatistics::new(12);
    silent.add(Array2::<f64>::zeros((5, 12)).view()).unwrap();
    let plain = InputStatistics::from_moments(Array2::eye(12).view()).unwrap();
    let als = |inputs: &InputStatistics| {
        DataAwareAls::new(3, inputs.clone()).max_iters(5).decompose(tensor.view()).unwrap()
    };
    let (found, expected) = (als(&silent), als(&plain));
    assert_eq!((found.cp, found.trace), (expected.cp, expected.trace));
    let tucker = |inputs: &InputStatistics| {
        DataAwareTucker2::new([3, 2], inputs.clone()).decompose(tensor.view()).unwrap()
    };
    let (found, expected) = (tucker(&silent), tucker(&plain));
    assert_eq!(found.tucker, expected.tucker);
    assert!(found.rel_error < 1.0 && found.weighted_error == 0.0);
}
