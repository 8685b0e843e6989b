//! NLS: recovery to the last digits, collinear factors, tensors that break solvers.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use std::ops::ControlFlow;

use crate::common::{factors, gaussian, narrow, planted};
use cp_core::{
    Als, CpError, CpTensor, Decomposition, Init, Nls, Real, Solver, StopReason, congruence, norm,
    rel_error,
};
use ndarray::{Array2, ArrayD, Axis, IxDyn, concatenate};

/// Seeds of solvers; those of planted factors are below 1000.
const SOLVER_SEEDS: [u64; 3] = [12_001, 12_002, 12_003];

/// Recovers the terms of an exact tensor to the last digits from one of a few starts.
fn check(shape: &[usize], rank: usize, seed: u64) {
    let (truth, tensor) = planted(shape, rank, 0.0, seed);
    let runs = SOLVER_SEEDS.map(|seed| {
        let nls = Nls::new(rank).tol(1e-15).init(Init::Random { seed });
        nls.decompose(tensor.view()).unwrap()
    });
    let best = runs.iter().min_by(|a, b| a.rel_error.total_cmp(&b.rel_error)).unwrap();
    assert!(best.rel_error < 1e-13, "{shape:?} R={rank}: error {:e}", best.rel_error);
    let match_ = congruence(&best.cp, &truth);
    assert!(match_.min > 1.0 - 1e-10, "{shape:?} R={rank}: congruence {match_:?}");

    let tensor = narrow(&tensor);
    let runs = SOLVER_SEEDS.map(|seed| {
        let nls = Nls::new(rank).init(Init::Random { seed });
        nls.decompose(tensor.view()).unwrap()
    });
    let best = runs.iter().min_by(|a, b| a.rel_error.total_cmp(&b.rel_error)).unwrap();
    assert!(best.rel_error < 1e-6, "{shape:?} R={rank} f32: error {:e}", best.rel_error);
    assert!(congruence(&best.cp, &truth.cast()).min > 1.0 - 1e-5, "{shape:?} R={rank} f32");
}

#[test]
fn rank_one() {
    check(&[5, 4, 3], 1, 101);
}

#[test]
fn order_three() {
    check(&[12, 11, 10], 5, 102);
}

#[test]
fn order_four() {
    check(&[8, 7, 6, 5], 4, 103);
}

#[test]
fn order_five() {
    check(&[5, 4, 5, 4, 3], 3, 104);
}

#[test]
fn rank_above_a_mode() {
    check(&[10, 12, 4], 7, 105);
}

#[test]
fn modes_of_size_one() {
    check(&[9, 1, 8, 7], 4, 106);
}

#[test]
fn a_matrix_ends_at_its_truncated_svd() {
    let matrix = gaussian(&[20, 14], 107);
    let found = Nls::new(5).tol(1e-14).init(Init::Random { seed: 12_004 });
    let found = found.decompose(matrix.view()).unwrap();
    let matrix = matrix.into_dimensionality().unwrap();
    let svd = cp_core::truncated_svd(matrix.view(), 5).unwrap();
    let best =
        norm((&matrix - &svd.reconstruct()).into_dyn().view()) / norm(matrix.into_dyn().view());
    assert!((found.rel_error - best).abs() < 1e-9, "{} against {best}", found.rel_error);
}

/// Unit columns of which any two have cosine `congruence`.
fn collinear(size: usize, rank: usize, congruence: f64, seed: u64) -> Array2<f64> {
    let basis = gaussian(&[size, rank + 1], seed).into_dimensionality().unwrap();
    let basis: Array2<f64> = cp_core::truncated_svd(basis.view(), rank + 1).unwrap().u;
    let (own, shared) = basis.view().split_at(Axis(1), rank);
    let shared = concatenate(Axis(1), &vec![shared; rank]).unwrap();
    &own * (1.0 - congruence).sqrt() + shared * congruence.sqrt()
}

fn collinear_tensor(
    size: usize,
    rank: usize,
    congruence: f64,
    noise: f64,
    seed: u64,
) -> (CpTensor, ArrayD<f64>) {
    let factors = (0..3).map(|mode| collinear(size, rank, congruence, 10 * seed + mode)).collect();
    let truth = CpTensor::from_factors(factors).unwrap();
    let signal = truth.reconstruct();
    let mut disturbance = gaussian(signal.shape(), seed + 1_000_000);
    disturbance *= noise * norm(signal.view()) / norm(disturbance.view());
    (truth, signal + disturbance)
}

/// A congruence of 0.9 is a swamp for ALS. The planted model bounds the optimum.
#[test]
fn reaches_the_optimum_where_als_swamps() {
    for seed in 0..4 {
        let (truth, tensor) = collinear_tensor(30, 6, 0.9, 1e-3, 20 + seed);
        let bound = rel_error(tensor.view(), &truth);
        let init = Init::Random { seed: 12_010 + seed };
        let found = Nls::new(6).init(init.clone()).decompose(tensor.view()).unwrap();
        assert!(found.rel_error < bound, "seed {seed}: {:e} above {bound:e}", found.rel_error);
        let als = Als::new(6).max_iters(400).tol(0.0).init(init).decompose(tensor.view()).unwrap();
        assert!(als.rel_error > 1.01 * bound, "seed {seed}: no swamp, {:e}", als.rel_error);
    }
}

/// Columns that agree in all but 10⁻⁴ … 10⁻¹⁰, noise as small: beyond what normal equations resolve. A random start has
/// all terms alike and spends its time on telling them apart; singular vectors are apart from the first step.
///
/// Reference: Minster, Viviano, Liu & Ballard, arXiv 2112.10855, §5.2.
#[test]
fn nearly_equal_columns() {
    for (distance, noise, factor) in [
        (1e-4, 1e-4, 1.0),
        (1e-4, 1e-10, 2000.0),
        (1e-7, 1e-7, 1.0),
        (1e-7, 1e-10, 10.0),
        (1e-10, 1e-10, 1.0),
    ] {
        let (truth, tensor) = collinear_tensor(20, 5, 1.0 - distance, noise, 30);
        let bound = factor * rel_error(tensor.view(), &truth);
        let init = Init::Hosvd { seed: 12_020 };
        let found =
            Nls::new(5).warm_up(0).tol(0.0).init(init.clone()).decompose(tensor.view()).unwrap();
        assert!(found.rel_error < bound, "{distance:e} {noise:e}: {:e}", found.rel_error);
        let als = Als::new(5).tol(0.0).max_iters(200).init(init).decompose(tensor.view()).unwrap();
        assert!(als.rel_error > found.rel_error, "{distance:e} {noise:e}: {:e}", als.rel_error);
    }
}

#[test]
fn finds_the_optimum_of_random_tensors() {
    let (truth, tensor) = planted(&[40, 40, 40], 8, 0.1, 108);
    let bound = rel_error(tensor.view(), &truth);
    for seed in 0..5 {
        let found = Nls::new(8).init(Init::Random { seed: 12_030 + seed });
        let found = found.decompose(tensor.view()).unwrap();
        assert!(found.rel_error < bound, "{seed}: {} above {bound}", found.rel_error);
        assert_eq!(found.stop, StopReason::Converged);
    }
}

#[test]
fn a_penalty_lowers_the_energy() {
    // Border rank 2: without a penalty two terms grow without bound.
    let [a, b] = [201, 202].map(|seed| factors(&[5, 4, 3], 1, seed));
    let term = |pick: [usize; 3]| {
        let columns = (0..3).map(|n| if pick[n] == 0 { a[n].clone() } else { b[n].clone() });
        CpTensor::from_factors(columns.collect()).unwrap().reconstruct()
    };
    let tensor = term([0, 0, 1]) + term([0, 1, 0]) + term([1, 0, 0]);
    let run = |penalty: f64| {
        let nls = Nls::new(2).penalty(penalty).init(Init::Random { seed: 12_040 });
        nls.decompose(tensor.view()).unwrap()
    };
    let (free, bounded) = (run(0.0), run(1e-3));
    assert!(
        free.component_energy > 100.0 && free.rel_error < 0.02,
        "{} {}",
        free.rel_error,
        free.component_energy
    );
    assert!(
        bounded.component_energy < 20.0 && bounded.rel_error < 0.2,
        "{} {}",
        bounded.rel_error,
        bounded.component_energy
    );
    assert!(bounded.rel_error > free.rel_error);
}

#[test]
fn errors_never_rise_and_the_observer_sees_them() {
    let (_, tensor) = planted(&[9, 8, 7], 6, 0.2, 109);
    let nls = Nls::new(4).warm_up(3).tol(0.0).max_iters(20).init(Init::Random { seed: 12_050 });
    let mut seen = Vec::new();
    let found = nls
        .decompose_with(tensor.view(), &mut |progress| {
            assert_eq!(progress.iteration, seen.len() + 1);
            seen.push(progress.rel_error);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, found.trace);
    assert!(seen.windows(2).all(|pair| pair[1] <= pair[0] + 1e-12), "{seen:?}");
    assert!((found.rel_error - seen[seen.len() - 1]).abs() < 1e-10);
    for stop_at in [2, 6] {
        let stopped = nls.decompose_with(tensor.view(), &mut |progress| {
            if progress.iteration == stop_at {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        let stopped = stopped.unwrap();
        assert_eq!((stopped.stop, stopped.iterations()), (StopReason::Observer, stop_at));
        assert_eq!(stopped.trace, seen[..stop_at]);
    }
    // The same seed, the same bits.
    assert_eq!(nls.decompose(tensor.view()).unwrap().cp, found.cp);
    // Without steps and warm-up the start comes back.
    let nls = Nls::new(4).warm_up(0).max_iters(0).init(Init::Factors(found.cp.clone()));
    let same = nls.decompose(tensor.view()).unwrap();
    assert!(same.trace.is_empty() && same.stop == StopReason::MaxIters);
    let distance = norm((same.cp.reconstruct() - found.cp.reconstruct()).view());
    assert!(distance < 1e-12 * found.cp.norm(), "{distance:e}");
}

#[test]
fn wrong_options() {
    let tensor = gaussian(&[4, 3, 2], 111);
    let refused = |nls: Nls, option: &str| {
        let error = Solver::<f64>::decompose(&nls, tensor.view()).unwrap_err();
        assert!(
            matches!(error, CpError::InvalidOption { option: o, .. } if o == option),
            "{error}"
        );
    };
    refused(Nls::new(2).tol(-1.0), "tol");
    refused(Nls::new(2).tol(f64::NAN), "tol");
    refused(Nls::new(2).penalty(f64::INFINITY), "penalty");
    refused(Nls::new(2).cg_iters(0), "cg_iters");
    assert_eq!(Nls::new(0).decompose(tensor.view()).unwrap_err(), CpError::RankZero);
    let start = CpTensor::from_factors(factors(&[4, 3, 2], 3, 112)).unwrap();
    let nls = Nls::new(2).warm_up(0).init(Init::Factors(start));
    assert!(matches!(nls.decompose(tensor.view()), Err(CpError::FactorShape { .. })));
}

/// Decomposes in `T` and checks what holds for any tensor.
fn survives<T: Real>(tensor: &ArrayD<f64>, nls: &Nls) -> Decomposition<T> {
    let tensor = tensor.mapv(T::narrow);
    let found: Decomposition<T> = nls.decompose(tensor.view()).unwrap();
    let finite =
        found.cp.weights.iter().chain(found.cp.factors.iter().flatten()).all(|x| x.is_finite());
    assert!(finite, "{found:?}");
    assert!(found.trace.iter().all(|e| e.is_finite() && *e >= 0.0), "{:?}", found.trace);
    assert!(found.rel_error <= 1.0 + 1e-6, "{}", found.rel_error);
    found
}

#[test]
fn degenerate_tensors() {
    let shapes: [&[usize]; 6] =
        [&[1, 1], &[4, 1], &[3, 3], &[2, 1, 3], &[3, 2, 4], &[2, 3, 1, 2, 2]];
    for (k, shape) in shapes.into_iter().enumerate() {
        let bound = shape.iter().product::<usize>() / shape.iter().max().unwrap();
        for rank in [1, 2, bound, bound + bound.div_ceil(2)] {
            for warm_up in [0, 1] {
                let seed = 12_100 + k as u64;
                let nls = Nls::new(rank).max_iters(40).warm_up(warm_up).init(Init::Random { seed });
                let zero = ArrayD::zeros(IxDyn(shape));
                let found = survives::<f64>(&zero, &nls);
                assert_eq!((found.rel_error, found.stop), (0.0, StopReason::Converged));
                assert!(found.cp.weights.iter().all(|&w| w == 0.0));
                let tensor = gaussian(shape, 120 + k as u64);
                let twice = concatenate(Axis(0), &[tensor.view(), tensor.view()]).unwrap();
                let constant = ArrayD::from_elem(IxDyn(shape), -3.5);
                let mut lone = zero.clone();
                lone[vec![0; shape.len()].as_slice()] = 2.0;
                let huge = &tensor * 1e35;
                let tiny = &tensor * 1e-40;
                for case in [&tensor, &twice, &constant, &lone, &huge, &tiny] {
                    survives::<f64>(case, &nls);
                    survives::<f32>(case, &nls);
                }
                let [wide, single] = [
                    survives::<f64>(&constant, &nls).rel_error,
                    survives::<f32>(&constant, &nls).rel_error,
                ];
                assert!(wide < 1e-6 && single < 1e-4, "{shape:?} R={rank}: {wide:e} {single:e}");
                let [plain, scaled] =
                    [&tensor, &huge].map(|case| survives::<f64>(case, &nls).rel_error);
                assert!((plain - scaled).abs() < 1e-6, "{shape:?} R={rank}: {plain} {scaled}");
                let mut bad = tensor.clone();
                bad[vec![0; shape.len()].as_slice()] = f64::NAN;
                assert!(matches!(nls.decompose(bad.view()), Err(CpError::NotFinite { .. })));
            }
        }
    }
}

#[test]
fn the_extremes_of_the_number_types() {
    for value in [f64::MAX / 64.0, f64::MIN_POSITIVE, 5e-324] {
        let tensor = ArrayD::from_elem(IxDyn(&[3, 2, 2]), value);
        assert!(Nls::new(2).decompose(tensor.view()).unwrap().rel_error < 1.0, "{value:e}");
    }
    for value in [f32::MAX / 64.0, f32::MIN_POSITIVE, 1e-45] {
        let tensor = ArrayD::from_elem(IxDyn(&[3, 2, 2]), value);
        assert!(Nls::new(2).decompose(tensor.view()).unwrap().rel_error < 1.0, "{value:e}");
    }
    let mut tensor = ArrayD::from_elem(IxDyn(&[3, 2, 2]), 1e-200);
    tensor[[0, 0, 0]] = 1e200;
    assert!(Nls::new(2).decompose(tensor.view()).unwrap().rel_error < 1e-6);
}

#[test]
fn above_the_exact_rank_bound() {
    let (_, tensor) = planted(&[16, 3, 25], 16, 0.3, 130);
    let nls = Nls::new(52).init(Init::Random { seed: 12_200 });
    assert!(survives::<f64>(&tensor, &nls).rel_error < 1e-9);
    assert!(survives::<f32>(&tensor, &nls).rel_error < 1e-5);
}
