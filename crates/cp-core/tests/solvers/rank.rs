//! Rank estimates on planted data, where the answer is known.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use crate::common::{factors, gaussian, narrow, planted};
use cp_core::rank::{core_consistency, cp_rank_by_evbmf, evbmf, rank_for_error, tucker2_ranks};
use cp_core::{Als, CpError, CpTensor, Decomposition, Init, Real, Solver};
use ndarray::{Array2, ArrayD, ArrayView2, Axis, IxDyn};

/// `signal` + noise of standard deviation `sigma`, where the singular values of the signal are `strength` times the largest
/// one that the noise alone has, σ(√I + √J).
fn matrix(shape: [usize; 2], rank: usize, strength: f64, sigma: f64, seed: u64) -> Array2<f64> {
    let [rows, columns] = shape;
    let left = cp_core::truncated_svd(factors(&[rows], rank.max(1), seed)[0].view(), rank.max(1))
        .unwrap()
        .u;
    let right =
        cp_core::truncated_svd(factors(&[columns], rank.max(1), seed + 1)[0].view(), rank.max(1))
            .unwrap()
            .u;
    let noise = gaussian(&shape, seed + 2).into_dimensionality::<ndarray::Ix2>().unwrap();
    let edge = sigma * ((rows as f64).sqrt() + (columns as f64).sqrt());
    if rank == 0 { noise * sigma } else { left.dot(&right.t()) * strength * edge + noise * sigma }
}

fn check_evbmf(shape: [usize; 2], rank: usize, sigma: f64, seed: u64) {
    let planted = matrix(shape, rank, 3.0, sigma, seed);
    for (v, both) in [(planted.view(), "as it is"), (planted.t(), "transposed")] {
        let found = evbmf(v, None).unwrap();
        assert_eq!(found.rank, rank, "{shape:?} {both}");
        let estimate = found.sigma2.sqrt() / sigma;
        assert!(
            (estimate - 1.0).abs() < 0.12,
            "{shape:?} R={rank} {both}: σ is {estimate} of the true one"
        );
        assert_eq!(found.shrunk.len(), rank);
        for (s, gamma) in found.shrunk.iter().zip(&found.singular_values) {
            assert!(*s < *gamma && *s > 0.0 && *gamma > found.threshold);
        }
        let given = evbmf(v, Some(sigma * sigma)).unwrap();
        assert_eq!((given.rank, given.sigma2), (rank, sigma * sigma), "{shape:?} {both}");
        let single = v.mapv(|x| x as f32);
        let single = evbmf(single.view(), None).unwrap();
        assert_eq!(single.rank, rank, "{shape:?} {both} f32");
        assert!((single.sigma2 / found.sigma2 - 1.0).abs() < 1e-3);
    }
}

#[test]
fn evbmf_finds_planted_ranks() {
    check_evbmf([40, 60], 5, 1.0, 1);
    check_evbmf([60, 60], 10, 0.01, 2);
    check_evbmf([30, 400], 8, 7.0, 3);
    check_evbmf([100, 900], 30, 1.0, 4);
    check_evbmf([20, 25], 1, 1e-20, 5);
    check_evbmf([50, 80], 0, 1e20, 6);
    check_evbmf([150, 160], 30, 1.0, 7);
}

#[test]
fn evbmf_shrinks_towards_the_truth() {
    let signal = matrix([80, 120], 4, 1e9, 1e-9, 8) / 1e9 * 1.2e9;
    let v = &signal + &matrix([80, 120], 0, 0.0, 1.0, 12);
    let found = evbmf(v.view(), None).unwrap();
    assert_eq!(found.rank, 4);
    let mut svd = cp_core::truncated_svd(v.view(), 4).unwrap();
    let distance = |estimate: Array2<f64>| cp_core::norm((estimate - &signal).into_dyn().view());
    let plain = distance(svd.reconstruct());
    svd.s = found.shrunk;
    let shrunk = distance(svd.reconstruct());
    assert!(shrunk < 0.97 * plain, "{shrunk} {plain}");
}

/// The free energy has two minima here, and a local search between the bounds ends in the one that calls all of it noise.
#[test]
fn evbmf_finds_the_deeper_of_two_minima() {
    let found = evbmf(matrix([150, 160], 60, 10.0, 1.0, 13).view(), None).unwrap();
    assert_eq!(found.rank, 60);
    assert!(found.sigma2 < 2.0, "{}", found.sigma2);
}

#[test]
fn evbmf_leaves_out_what_drowns_in_noise() {
    assert_eq!(evbmf(matrix([60, 90], 5, 0.3, 1.0, 9).view(), None).unwrap().rank, 0);
}

#[test]
fn evbmf_of_exact_matrices() {
    for rank in [1, 3, 7] {
        let [a, b] = [factors(&[30], rank, 10).remove(0), factors(&[50], rank, 11).remove(0)];
        let v = a.dot(&b.t());
        for (v, what) in [(v.view(), "as it is"), (v.t(), "transposed")] {
            let found = evbmf(v, None).unwrap();
            assert_eq!(found.rank, rank, "{what}");
            for (s, gamma) in found.shrunk.iter().zip(&found.singular_values) {
                assert!((s / gamma - 1.0).abs() < 1e-6);
            }
            assert_eq!(evbmf(v, Some(0.0)).unwrap().rank, rank, "{what}");
        }
    }
}

#[test]
fn evbmf_of_odd_matrices() {
    fn finite<T: Real>(v: ArrayView2<'_, T>) -> usize {
        let found = evbmf(v, None).unwrap();
        assert!(found.sigma2.is_finite() && found.threshold.is_finite() && found.sigma2 >= 0.0);
        assert!(found.singular_values.iter().chain(&found.shrunk).all(|s| s.is_finite()));
        found.rank
    }
    assert_eq!(finite(Array2::<f64>::zeros((4, 7)).view()), 0);
    assert_eq!(finite(Array2::<f32>::zeros((1, 1)).view()), 0);
    assert_eq!(finite(Array2::<f64>::ones((20, 7)).view()), 1);
    finite(Array2::<f64>::ones((1, 1)).view());
    finite(Array2::<f64>::ones((1, 9)).view());
    finite(Array2::<f64>::eye(8).view());
    finite(Array2::from_elem((6, 5), f64::MAX / 64.0).view());
    finite(Array2::from_elem((6, 5), 5e-324).view());
    finite(Array2::from_elem((6, 5), 1e-40_f32).view());
    let v = matrix([40, 60], 5, 3.0, 1.0, 1);
    assert_eq!(finite((&v * 1e120).view()), 5);
    assert_eq!(finite((&v * 1e-120).view()), 5);
    let mut bad = v;
    bad[[3, 4]] = f64::NAN;
    assert!(matches!(evbmf(bad.view(), None), Err(CpError::NotFinite { what: "matrix", .. })));
    assert!(matches!(
        evbmf(Array2::<f64>::zeros((0, 3)).view(), None),
        Err(CpError::EmptyMode { mode: 0, .. })
    ));
    for sigma2 in [-1.0, f64::NAN, f64::INFINITY] {
        let failed = evbmf(Array2::<f64>::eye(3).view(), Some(sigma2));
        assert!(matches!(failed, Err(CpError::InvalidOption { option: "sigma2", .. })));
    }
}

#[test]
fn ranks_of_a_kernel() {
    // Twelve directions of the output channels, seven of the input ones.
    let core = gaussian(&[12, 7, 3, 3], 12);
    let core = cp_core::mode_product(core.view(), factors(&[48], 12, 13)[0].view(), 0);
    let signal = cp_core::mode_product(core.view(), factors(&[32], 7, 14)[0].view(), 1);
    let kernel = &signal + &(gaussian(&[48, 32, 3, 3], 15) * 3.0);
    assert_eq!(tucker2_ranks(kernel.view()).unwrap(), [12, 7]);
    assert_eq!(cp_rank_by_evbmf(kernel.view()).unwrap(), 12);
    assert_eq!(tucker2_ranks(narrow(&kernel).view()).unwrap(), [12, 7]);
    assert_eq!(tucker2_ranks(ArrayD::<f64>::zeros(IxDyn(&[4, 3, 3, 3])).view()).unwrap(), [1, 1]);
    assert!(matches!(tucker2_ranks(gaussian(&[4], 1).view()), Err(CpError::Order { order: 1 })));
}

fn als(tensor: &ArrayD<f64>, rank: usize, seed: u64) -> Decomposition {
    let als = Als::new(rank).max_iters(1000).tol(1e-10).init(Init::Random { seed });
    als.decompose(tensor.view()).unwrap()
}

#[test]
fn the_rank_for_an_error() {
    let (_, tensor) = planted(&[12, 11, 10], 5, 0.0, 16);
    let found = rank_for_error(1e-3, 30, |rank| Ok(als(&tensor, rank, 11_001))).unwrap();
    assert!(found.reached);
    assert_eq!(found.rank(), 5, "{:?}", found.tried);
    assert!(found.best.rel_error <= 1e-3);
    // 1, 2, 4, 8, then 6 and 5.
    let ranks: Vec<usize> = found.tried.iter().map(|t| t.0).collect();
    assert_eq!(ranks, [1, 2, 4, 5, 6, 8]);
    let all = rank_for_error(1.0, 30, |rank| Ok(als(&tensor, rank, 11_001))).unwrap();
    assert_eq!((all.rank(), all.tried.len()), (1, 1));
}

#[test]
fn a_target_out_of_reach() {
    let (_, tensor) = planted(&[12, 11, 10], 5, 0.0, 17);
    let found = rank_for_error(1e-3, 3, |rank| Ok(als(&tensor, rank, 11_002))).unwrap();
    assert!(!found.reached);
    assert_eq!((found.rank(), found.tried.len()), (3, 3));
    // An error that rises with the rank: the best one is kept.
    let found = rank_for_error(1e-9, 2, |rank| Ok(als(&tensor, 3 - rank, 11_002))).unwrap();
    assert_eq!((found.reached, found.rank()), (false, 2));
    let failed = rank_for_error::<f64>(0.1, 4, |_| Err(CpError::RankZero));
    assert_eq!(failed, Err(CpError::RankZero));
    assert_eq!(rank_for_error(0.1, 0, |rank| Ok(als(&tensor, rank, 1))), Err(CpError::RankZero));
    let failed = rank_for_error(f64::NAN, 4, |rank| Ok(als(&tensor, rank, 1)));
    assert!(matches!(failed, Err(CpError::InvalidOption { option: "target", .. })));
}

/// The core from its definition, with inverses by the normal equations.
fn slow_consistency(tensor: &ArrayD<f64>, cp: &CpTensor) -> f64 {
    let mut cp = cp.clone();
    cp.balance();
    let mut core = tensor.clone();
    for (mode, factor) in cp.factors.iter().enumerate() {
        let rank = factor.ncols();
        let gram = factor.t().dot(factor);
        // Gauss–Jordan.
        let mut system = ndarray::concatenate(Axis(1), &[gram.view(), factor.t()]).unwrap();
        for k in 0..rank {
            let pivot = system.row(k).to_owned() / system[[k, k]];
            for r in 0..rank {
                let share = system[[r, k]];
                if r != k {
                    system.row_mut(r).scaled_add(-share, &pivot);
                }
            }
            system.row_mut(k).assign(&pivot);
        }
        let inverse = system.slice(ndarray::s![.., rank..]).to_owned();
        core = cp_core::mode_product(core.view(), inverse.view(), mode);
    }
    let square: f64 = core
        .indexed_iter()
        .map(|(i, g)| {
            let i = ndarray::Dimension::slice(&i);
            (g - f64::from(i.iter().all(|&k| k == i[0]))).powi(2)
        })
        .sum();
    100.0 * (1.0 - square / cp.rank() as f64)
}

#[test]
fn consistency_tells_the_planted_rank() {
    for (shape, seed) in [(&[12, 11, 10][..], 18), (&[8, 7, 9, 6], 19)] {
        let (truth, tensor) = planted(shape, 3, 0.05, seed);
        let best = |rank| {
            let runs = [11_003, 11_004, 11_005].map(|seed| als(&tensor, rank, seed));
            runs.into_iter().min_by(|a, b| a.rel_error.total_cmp(&b.rel_error)).unwrap().cp
        };
        let at = |rank| core_consistency(tensor.view(), &best(rank)).unwrap();
        assert!(at(1) > 99.9 && at(2) > 80.0, "{} {}", at(1), at(2));
        assert!(at(3) > 95.0, "{}", at(3));
        assert!(at(5) < 50.0, "{}", at(5));
        for cp in [&best(3), &best(4), &truth] {
            let (fast, slow) =
                (core_consistency(tensor.view(), cp).unwrap(), slow_consistency(&tensor, cp));
            assert!((fast - slow).abs() < 1e-6 * (1.0 + slow.abs()), "{fast} {slow}");
            let single = core_consistency(narrow(&tensor).view(), &cp.cast()).unwrap();
            assert!((fast - single).abs() < 1e-2 * (1.0 + fast.abs()), "{fast} {single}");
        }
        let scaled = core_consistency(
            (&tensor * 1e30).view(),
            &CpTensor::new(truth.weights.clone() * 1e30, truth.factors.clone()).unwrap(),
        );
        assert!((scaled.unwrap() - core_consistency(tensor.view(), &truth).unwrap()).abs() < 1e-6);
    }
}

#[test]
fn consistency_that_is_not_there() {
    let (truth, tensor) = planted(&[9, 8, 3], 4, 0.0, 20);
    let failed = core_consistency(tensor.view(), &truth);
    assert_eq!(failed, Err(CpError::RankAboveMode { mode: 2, rank: 4, size: 3 }));
    let other = CpTensor::from_factors(factors(&[9, 7, 3], 2, 21)).unwrap();
    assert!(matches!(
        core_consistency(tensor.view(), &other),
        Err(CpError::FactorShape { mode: 1, .. })
    ));
    let other = CpTensor::from_factors(factors(&[9, 8], 2, 21)).unwrap();
    assert!(matches!(core_consistency(tensor.view(), &other), Err(CpError::FactorCount { .. })));
    // Zeros and copies: finite, and no praise.
    let mut twice = CpTensor::from_factors(factors(&[9, 8, 3], 2, 22)).unwrap();
    for factor in &mut twice.factors {
        let first = factor.column(0).to_owned();
        factor.column_mut(1).assign(&first);
    }
    let value = core_consistency(twice.reconstruct().view(), &twice).unwrap();
    assert!(value.is_finite() && value < 90.0, "{value}");
    twice.weights.fill(0.0);
    let value = core_consistency(ArrayD::zeros(IxDyn(&[9, 8, 3])).view(), &twice).unwrap();
    assert!(value.is_finite());
}
