//! What must hold for any tensor: kernels against their slow twins, the monotone fit, threads, errors, conventions.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use std::ops::ControlFlow;

use crate::common::{factors, gaussian, narrow, planted};
use cp_core::{
    Als, CpError, CpTensor, Decomposition, Init, Job, Real, Solver, StopReason, component_energy,
    congruence, decompose_all, degeneracy, fold, gram, measure, mttkrp, mttkrp_slow, norm,
    rel_error, sensitivity, truncated_svd, unfold,
};
use ndarray::{Array, Array1, Array2, ArrayD, ArrayViewD, IxDyn, Slice, array};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Views of other layouts: reversed axes, every second entry of each mode, and a reversed mode.
fn layouts(tensor: &ArrayD<f64>) -> Vec<ArrayD<f64>> {
    // Fortran order and strided views keep their layout only as views: build larger arrays and cut the views out.
    let mut reversed_axes: Vec<usize> = (0..tensor.ndim()).collect();
    reversed_axes.reverse();
    vec![
        tensor.clone(),
        tensor.t().as_standard_layout().to_owned().permuted_axes(IxDyn(&reversed_axes)),
    ]
}

/// The tensor as a view with gaps: every second entry of an array twice as large in each mode, backwards in mode 0.
fn with_gapped_view<R>(tensor: &ArrayD<f64>, use_view: impl FnOnce(ArrayViewD<'_, f64>) -> R) -> R {
    let double: Vec<usize> = tensor.shape().iter().map(|size| 2 * size).collect();
    let mut large = ArrayD::from_elem(IxDyn(&double), f64::NAN);
    {
        let mut view = large.slice_each_axis_mut(|_| Slice::new(0, None, 2));
        view.invert_axis(ndarray::Axis(0));
        view.assign(tensor);
    }
    let mut view = large.slice_each_axis(|_| Slice::new(0, None, 2));
    view.invert_axis(ndarray::Axis(0));
    use_view(view)
}

fn close<T: Real>(a: &Array2<T>, b: &Array2<T>, tolerance: f64) -> bool {
    let scale = b.iter().fold(1e-300, |largest, x| x.widen().abs().max(largest));
    a.dim() == b.dim()
        && a.iter().zip(b).all(|(a, b)| (a.widen() - b.widen()).abs() <= tolerance * scale)
}

/// Cases from a fixed seed: a failure is the same on every machine, and proptest prints the smallest case it finds.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn fold_undoes_unfold(shape in prop::collection::vec(1..6usize, 1..6), seed in 0..1000u64) {
        let tensor = gaussian(&shape, seed);
        for view in layouts(&tensor) {
            for mode in 0..shape.len() {
                let unfolded = unfold(view.view(), mode);
                prop_assert_eq!(unfolded.nrows(), shape[mode]);
                prop_assert_eq!(&fold(unfolded.view(), mode, &shape).unwrap(), &tensor);
                // And of a matrix that is itself not row-major.
                let columns = unfolded.t().as_standard_layout().to_owned();
                prop_assert_eq!(&fold(columns.t(), mode, &shape).unwrap(), &tensor);
            }
        }
        with_gapped_view(&tensor, |view| {
            for mode in 0..shape.len() {
                assert_eq!(fold(unfold(view.view(), mode).view(), mode, &shape).unwrap(), tensor);
            }
        });
    }

    #[test]
    fn fast_mttkrp_equals_its_slow_twin(
        shape in prop::collection::vec(1..7usize, 2..6), rank in 1..9usize, seed in 0..1000u64
    ) {
        let tensor = gaussian(&shape, seed);
        let factors = factors(&shape, rank, seed + 1);
        for mode in 0..shape.len() {
            let slow = mttkrp_slow(tensor.view(), &factors, mode);
            for view in layouts(&tensor) {
                prop_assert!(close(&mttkrp(view.view(), &factors, mode), &slow, 1e-12));
            }
            prop_assert!(with_gapped_view(&tensor, |view| close(&mttkrp(view, &factors, mode), &slow, 1e-12)));
            let narrow_factors: Vec<_> = factors.iter().map(|f| f.mapv(|x| x as f32)).collect();
            let fast = mttkrp(narrow(&tensor).view(), &narrow_factors, mode);
            prop_assert!(close(&fast, &slow.mapv(|x| x as f32), 1e-4));
        }
    }

    #[test]
    fn unfolding_of_a_model_is_factor_times_khatri_rao(
        shape in prop::collection::vec(1..6usize, 2..5), rank in 1..6usize, seed in 0..1000u64
    ) {
        let mut cp = CpTensor::from_factors(factors(&shape, rank, seed)).unwrap();
        cp.weights = Array1::from_shape_fn(rank, |r| r as f64 - 1.5);
        let full = cp.reconstruct();
        for mode in 0..shape.len() {
            let others: Vec<_> = cp.factors.iter().enumerate().filter(|&(m, _)| m != mode).map(|(_, f)| f.view()).collect();
            let expected = (&cp.factors[mode] * &cp.weights).dot(&cp_core::khatri_rao(&others).t());
            prop_assert!(close(&unfold(full.view(), mode), &expected, 1e-12));
        }
        prop_assert!((cp.norm() - norm(full.view())).abs() < 1e-9 * cp.norm());
        prop_assert!(rel_error(full.view(), &cp) < 1e-12);
    }

    #[test]
    fn normalize_balance_and_sort_keep_the_tensor(
        shape in prop::collection::vec(1..6usize, 2..5), rank in 1..6usize, seed in 0..1000u64
    ) {
        let mut cp = CpTensor::from_factors(factors(&shape, rank, seed)).unwrap();
        cp.weights = Array1::from_shape_fn(rank, |r| r as f64 - 1.5);
        let full = cp.reconstruct();
        cp.normalize();
        prop_assert!(rel_error(full.view(), &cp) < 1e-12);
        prop_assert!(cp.weights.iter().all(|&w| w >= 0.0));
        for factor in &cp.factors {
            prop_assert!(factor.columns().into_iter().all(|c| (c.dot(&c) - 1.0).abs() < 1e-12));
        }
        cp.sort();
        prop_assert!(rel_error(full.view(), &cp) < 1e-12);
        prop_assert!(cp.weights.windows(2).into_iter().all(|w| w[0] >= w[1]));
        let unbalanced = sensitivity(&CpTensor::from_factors(
            cp.factors.iter().enumerate().map(|(n, f)| if n == 0 { f * &cp.weights } else { f.clone() }).collect(),
        ).unwrap());
        cp.balance();
        prop_assert!(rel_error(full.view(), &cp) < 1e-12);
        prop_assert!(cp.weights.iter().all(|&w| w == 1.0));
        let norms: Vec<_> = cp.factors.iter().map(|f| f.map_axis(ndarray::Axis(0), |c| c.dot(&c).sqrt())).collect();
        prop_assert!(norms.iter().all(|n| n.iter().zip(&norms[0]).all(|(a, b)| (a - b).abs() < 1e-12 * b)));
        // Equal sizes: equal norms are the best that can be done.
        if shape.iter().all(|&size| size == shape[0]) {
            prop_assert!(sensitivity(&cp) <= unbalanced * (1.0 + 1e-12));
        }
    }

    #[test]
    fn als_without_ridge_never_lowers_the_fit(
        shape in prop::collection::vec(2..7usize, 2..5), rank in 1..4usize, seed in 0..1000u64
    ) {
        let tensor = gaussian(&shape, seed);
        let als = Als::new(rank).ridge(0.0).tol(0.0).max_iters(40).init(Init::Random { seed: seed + 5000 });
        // A singular normal matrix is a fair answer without a ridge; a falling fit is not.
        let mut trace = Vec::new();
        let _ = als.decompose_with(tensor.view(), &mut |progress| {
            trace.push(progress.rel_error);
            ControlFlow::Continue(())
        });
        for (sweep, pair) in trace.windows(2).enumerate() {
            prop_assert!(pair[1] <= pair[0] + 1e-9, "seed {seed}, {shape:?}, R={rank}, sweep {sweep}: {pair:?}");
        }
    }

    #[test]
    fn errors_from_grams_equal_direct_ones(
        shape in prop::collection::vec(1..7usize, 2..5), rank in 1..5usize, seed in 0..1000u64
    ) {
        let tensor = gaussian(&shape, seed);
        let mut cp = CpTensor::from_factors(factors(&shape, rank, seed + 1)).unwrap();
        cp.weights.fill(0.3);
        let direct = rel_error(tensor.view(), &cp);
        let slow = norm((&tensor - &cp.reconstruct()).view()) / norm(tensor.view());
        prop_assert!((direct - slow).abs() < 1e-12 * slow.max(1.0));
        for mode in 0..shape.len() {
            let g = mttkrp(tensor.view(), &cp.factors, mode);
            let cheap = measure::rel_error_from_mttkrp(norm(tensor.view()), &cp, g.view(), mode);
            prop_assert!((direct - cheap).abs() < 1e-6 * direct.max(1.0), "{direct} against {cheap}");
        }
    }

    #[test]
    fn truncated_svd_is_orthonormal_and_best(rows in 1..20usize, columns in 1..20usize, rank in 1..20usize, seed in 0..1000u64) {
        let rank = rank.min(rows).min(columns);
        let matrix: Array2<f64> = gaussian(&[rows, columns], seed).into_dimensionality().unwrap();
        let svd = truncated_svd(matrix.view(), rank).unwrap();
        prop_assert!(close(&svd.u.t().dot(&svd.u), &Array2::eye(rank), 1e-12));
        prop_assert!(close(&svd.vt.dot(&svd.vt.t()), &Array2::eye(rank), 1e-12));
        let full = truncated_svd(matrix.view(), rows.min(columns)).unwrap();
        prop_assert!(close(&full.reconstruct(), &matrix, 1e-12));
        // What is left over is what the other singular values hold.
        let left: f64 = full.s.iter().skip(rank).map(|s| s * s).sum::<f64>().sqrt();
        let residual = norm((&matrix - &svd.reconstruct()).into_dyn().view());
        prop_assert!((left - residual).abs() < 1e-10 * norm(matrix.into_dyn().view()));
        let (expand, reduce) = svd.balanced();
        prop_assert!(close(&expand.dot(&reduce), &svd.reconstruct(), 1e-12));
        for r in 0..rank {
            let (column, row) = (expand.column(r), reduce.row(r));
            prop_assert!((column.dot(&column) - row.dot(&row)).abs() < 1e-10 * full.s[0]);
        }
    }
}

#[test]
fn large_f32_matrices_take_the_short_way_to_the_same_svd() {
    for shape in [[150, 210], [210, 150]] {
        // Singular values from 1 down to 1e-6, and the same matrix in f64 as the reference.
        let left = truncated_svd(matrix(&gaussian(&shape, 51)).view(), 150).unwrap();
        let decay = Array1::from_shape_fn(150, |r| 10f64.powf(-6.0 * r as f64 / 149.0));
        let full = (&left.u * &decay).dot(&left.vt).mapv(|x| x as f32);
        let wide = full.mapv(f64::from);
        for rank in [1, 20, 75] {
            let short = truncated_svd(full.view(), rank).unwrap();
            let exact = truncated_svd(wide.view(), rank).unwrap();
            assert!(close(&short.reconstruct(), &exact.reconstruct().mapv(|x| x as f32), 1e-5));
            assert!(
                short.s.iter().zip(&exact.s).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6 * b),
                "{rank}"
            );
            assert!(close(&short.u.t().dot(&short.u), &Array2::eye(rank), 1e-5));
            assert!(close(&short.vt.dot(&short.vt.t()), &Array2::eye(rank), 1e-5));
        }
    }
}

/// A tensor of order 2 as a matrix.
fn matrix(tensor: &ArrayD<f64>) -> Array2<f64> {
    tensor.clone().into_dimensionality().unwrap()
}

/// In a pool of its own, so that the number of threads is known.
fn on_threads<R: Send>(threads: usize, body: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(body)
}

/// Bit-equal but for the time they took.
fn same<T: Real>(a: &Decomposition<T>, b: &Decomposition<T>) -> bool {
    a.cp == b.cp && a.trace == b.trace && a.rel_error.to_bits() == b.rel_error.to_bits()
}

#[test]
fn parallel_equals_serial_and_repeats_bit_by_bit() {
    // Large enough for the parallel paths of all kernels.
    let (_, tensor) = planted(&[64, 48, 5, 5], 40, 0.3, 21);
    let start = factors(&[64, 48, 5, 5], 60, 22);
    let als = Als::new(60).tol(0.0).max_iters(5).init(Init::Random { seed: 11_010 });
    let serial = on_threads(1, || als.decompose(tensor.view()).unwrap());
    let tensor32 = narrow(&tensor);
    let serial32 = on_threads(1, || als.decompose(tensor32.view()).unwrap());
    for threads in [1, 2, 4] {
        let (first, again) = on_threads(threads, || {
            (als.decompose(tensor.view()).unwrap(), als.decompose(tensor.view()).unwrap())
        });
        assert!(same(&first, &again), "{threads} threads");
        assert!((first.rel_error - serial.rel_error).abs() < 1e-10, "{threads} threads");
        let (first, again) = on_threads(threads, || {
            (als.decompose(tensor32.view()).unwrap(), als.decompose(tensor32.view()).unwrap())
        });
        assert!(same(&first, &again), "{threads} threads, f32");
        assert!((first.rel_error - serial32.rel_error).abs() < 1e-4, "{threads} threads, f32");
        for mode in 0..4 {
            let parallel = on_threads(threads, || mttkrp(tensor.view(), &start, mode));
            assert!(close(&parallel, &mttkrp_slow(tensor.view(), &start, mode), 1e-12));
        }
    }
}

#[test]
fn side_by_side_equals_one_after_another() {
    let tensors: Vec<_> =
        (0..9u64).map(|k| planted(&[20 + k as usize, 16, 3, 3], 8, 0.3, 50 + k).1).collect();
    let solver = Als::new(10).max_iters(20).tol(0.0).init(Init::Random { seed: 3 });
    let bad = ndarray::ArrayD::from_elem(ndarray::IxDyn(&[2, 2]), f64::NAN);
    let jobs: Vec<Job<'_, f64>> = tensors
        .iter()
        .chain([&bad])
        .map(|x| Job { tensor: x.view(), solver: &solver, work: x.len() as f64 })
        .collect();
    let serial = on_threads(1, || decompose_all(&jobs));
    let parallel = on_threads(3, || decompose_all(&jobs));
    for (place, (a, b)) in serial.iter().zip(&parallel).enumerate() {
        match (a, b) {
            (Ok(a), Ok(b)) => assert_eq!(a.cp, b.cp, "tensor {place}"),
            (Err(a), Err(b)) => assert_eq!((place, a.to_string()), (9, b.to_string())),
            _ => panic!("tensor {place} fails on one number of threads alone"),
        }
    }
}

#[test]
fn f32_follows_f64() {
    let (_, tensor) = planted(&[20, 18, 3, 3], 30, 0.3, 23);
    let als = Als::new(25).tol(0.0).max_iters(30).init(Init::Random { seed: 11_011 });
    let wide = als.decompose(tensor.view()).unwrap();
    let single = als.decompose(narrow(&tensor).view()).unwrap();
    for (a, b) in wide.trace.iter().zip(&single.trace) {
        assert!((a - b).abs() < 1e-3, "{a} against {b}");
    }
}

#[test]
fn memory_layout_does_not_matter() {
    let (_, tensor) = planted(&[7, 6, 5], 3, 0.1, 24);
    let als = Als::new(3).max_iters(10).init(Init::Random { seed: 11_012 });
    let expected = als.decompose(tensor.view()).unwrap();
    for view in layouts(&tensor) {
        assert!(same(&als.decompose(view.view()).unwrap(), &expected));
    }
    with_gapped_view(&tensor, |view| assert!(same(&als.decompose(view).unwrap(), &expected)));
}

#[test]
fn scaling_the_tensor_scales_the_weights() {
    let (_, tensor) = planted(&[7, 6, 5], 3, 0.1, 25);
    let als = Als::new(3).tol(0.0).max_iters(10).init(Init::Random { seed: 11_013 });
    let expected = als.decompose(tensor.view()).unwrap();
    for power in [-900, -60, 60, 900] {
        let scale = 2f64.powi(power);
        let found = als.decompose((&tensor * scale).view()).unwrap();
        assert!((found.rel_error - expected.rel_error).abs() < 1e-12, "2^{power}");
        for (a, b) in found.cp.weights.iter().zip(&expected.cp.weights) {
            assert!((a / scale - b).abs() < 1e-9 * b, "2^{power}");
        }
    }
}

#[test]
fn a_run_stops_when_told_to() {
    let (_, tensor) = planted(&[7, 6, 5], 4, 0.2, 26);
    let als = Als::new(2).init(Init::Random { seed: 11_014 });
    let mut seen = Vec::new();
    let found = als
        .clone()
        .tol(0.0)
        .decompose_with(tensor.view(), &mut |progress| {
            seen.push((progress.iteration, progress.rel_error));
            if progress.iteration == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(found.stop, StopReason::Observer);
    assert_eq!(
        seen,
        found.trace.iter().copied().enumerate().map(|(i, e)| (i + 1, e)).collect::<Vec<_>>()
    );

    let found = als.clone().tol(0.0).max_iters(37).decompose(tensor.view()).unwrap();
    assert_eq!((found.stop, found.iterations()), (StopReason::MaxIters, 37));
    assert!((found.rel_error - found.trace[36]).abs() < 1e-10);

    let found = als.clone().tol(1e-3).decompose(tensor.view()).unwrap();
    assert_eq!(found.stop, StopReason::Converged);
    assert!(found.iterations() < 37);

    let start = CpTensor::from_factors(factors(&[7, 6, 5], 2, 27)).unwrap();
    let found =
        als.max_iters(0).init(Init::Factors(start.clone())).decompose(tensor.view()).unwrap();
    assert_eq!((found.stop, found.iterations()), (StopReason::MaxIters, 0));
    assert!((found.rel_error - rel_error(tensor.view(), &start)).abs() < 1e-12);
}

#[test]
fn solvers_are_objects() {
    let solvers: Vec<Box<dyn Solver<f32>>> = vec![Box::new(Als::new(2)), Box::new(Als::new(3))];
    let tensor = narrow(&gaussian(&[4, 3, 2], 28));
    for solver in &solvers {
        assert_eq!(solver.name(), "als");
        assert!(solver.decompose(tensor.view()).unwrap().rel_error < 1.0);
    }
}

#[test]
fn bad_input_is_an_error() {
    let good = gaussian(&[4, 3, 2], 29);
    let run = |als: Als, tensor: &ArrayD<f64>| als.decompose(tensor.view()).unwrap_err();

    assert_eq!(run(Als::new(0), &good), CpError::RankZero);
    assert_eq!(run(Als::new(1), &gaussian(&[4], 1)), CpError::Order { order: 1 });
    assert_eq!(run(Als::new(1), &gaussian(&[], 1)), CpError::Order { order: 0 });
    assert_eq!(
        run(Als::new(1), &ArrayD::zeros(IxDyn(&[3, 0, 2]))),
        CpError::EmptyMode { mode: 1, shape: vec![3, 0, 2] }
    );
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut tensor = good.clone();
        tensor[[2, 1, 0]] = bad;
        let CpError::NotFinite { what: "tensor", index, value } = run(Als::new(1), &tensor) else {
            panic!()
        };
        assert_eq!(index, [2, 1, 0]);
        assert_eq!(value.to_bits(), bad.to_bits());
        assert!(Solver::<f32>::decompose(&Als::new(1), narrow(&tensor).view()).is_err());
        assert!(truncated_svd(unfold(tensor.view(), 0).view(), 1).is_err());
    }
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            run(Als::new(1).ridge(bad), &good),
            CpError::InvalidOption { option: "ridge", .. }
        ));
        assert!(matches!(
            run(Als::new(1).tol(bad), &good),
            CpError::InvalidOption { option: "tol", .. }
        ));
    }
    for rank in [usize::MAX, 1 << 40, 1 << 24] {
        assert!(matches!(run(Als::new(rank), &good), CpError::OutOfMemory { .. }), "{rank}");
    }

    let start = |shape: &[usize], rank| {
        Init::Factors(CpTensor::from_factors(factors(shape, rank, 30)).unwrap())
    };
    assert_eq!(
        run(Als::new(2).init(start(&[4, 3], 2)), &good),
        CpError::FactorCount { expected: 3, got: 2 }
    );
    assert_eq!(
        run(Als::new(2).init(start(&[4, 2, 3], 2)), &good),
        CpError::FactorShape { mode: 1, expected: [3, 2], got: [2, 2] }
    );
    assert_eq!(
        run(Als::new(2).init(start(&[4, 3, 2], 3)), &good),
        CpError::FactorShape { mode: 0, expected: [4, 2], got: [4, 3] }
    );
    let mut cp = CpTensor::from_factors(factors(&[4, 3, 2], 2, 30)).unwrap();
    cp.factors[1][[2, 1]] = f64::NAN;
    assert!(matches!(
        run(Als::new(2).init(Init::Factors(cp)), &good),
        CpError::NotFinite { what: "factor", .. }
    ));

    // Two equal columns in every mode: no solution without a ridge, one with it.
    let column = factors(&[4, 3, 2], 1, 31);
    let twice = column.iter().map(|f| ndarray::concatenate![ndarray::Axis(1), *f, *f]).collect();
    let start = Init::Factors(CpTensor::from_factors(twice).unwrap());
    let als = Als::new(2).init(start);
    assert_eq!(
        run(als.clone().ridge(0.0), &good),
        CpError::SingularNormalMatrix { mode: 0, iter: 1 }
    );
    assert!(als.decompose(good.view()).unwrap().rel_error < 1.0);

    // A term of norm above the largest f32.
    let huge = ArrayD::from_elem(IxDyn(&[30, 30, 30]), f32::MAX);
    assert!(matches!(Als::new(1).decompose(huge.view()), Err(CpError::Range { .. })));

    assert_eq!(
        fold(array![[1.0, 2.0]].view(), 3, &[1, 2]).unwrap_err(),
        CpError::Mode { mode: 3, order: 2 }
    );
    assert!(matches!(
        fold(array![[1.0, 2.0]].view(), 1, &[1, 2]).unwrap_err(),
        CpError::FoldShape { .. }
    ));
    let matrix = array![[1.0, 2.0]];
    assert_eq!(truncated_svd(matrix.view(), 0).unwrap_err(), CpError::RankZero);
    assert_eq!(
        truncated_svd(matrix.view(), 2).unwrap_err(),
        CpError::RankAboveMatrix { rank: 2, rows: 1, columns: 2 }
    );
    assert!(truncated_svd(Array2::<f32>::zeros((0, 3)).view(), 1).is_err());
    assert!(CpTensor::new(array![1.0], factors(&[3, 2], 2, 32)).is_err());
    assert!(
        CpTensor::from_factors(vec![Array2::<f64>::zeros((3, 2)), Array2::zeros((3, 1))]).is_err()
    );
    assert!(CpTensor::<f64>::from_factors(vec![]).is_err());
}

#[test]
fn measures_by_hand() {
    // Two orthogonal terms of norms 3 and 4, and a third that is the first turned round.
    let e = |i: usize| Array1::from_shape_fn(3, |j| f64::from(u8::from(i == j)));
    let columns = |list: [Array1<f64>; 3]| {
        ndarray::stack(ndarray::Axis(1), &list.each_ref().map(|c| c.view())).unwrap()
    };
    let a = columns([e(0), e(1), -e(0)]);
    let b = columns([e(0), e(1), e(0)]);
    let cp = CpTensor::new(array![3.0, 4.0, 0.5], vec![a, b.clone(), b]).unwrap();
    assert!((cp.norm() - (2.5_f64.powi(2) + 16.0).sqrt()).abs() < 1e-14);
    assert!((component_energy(&cp, 5.0) - (9.0 + 16.0 + 0.25) / 25.0).abs() < 1e-14);
    assert!((cp.component_energy(5.0) - component_energy(&cp, 5.0)).abs() < 1e-15);
    assert!((degeneracy(&cp) - 1.0).abs() < 1e-14);
    assert_eq!(cp.term_norms(), array![3.0, 4.0, 0.5]);
    assert_eq!(cp.parameters(), 27);
    // Three modes of size 3 and unit columns: 3 · 3 · Σ λ².
    assert!((sensitivity(&cp) - 9.0 * 25.25).abs() < 1e-12);

    let pair = CpTensor::new(
        array![1.0, 2.0],
        cp.factors.iter().map(|f| f.select(ndarray::Axis(1), &[0, 1])).collect(),
    );
    let pair = pair.unwrap();
    assert!(degeneracy(&pair) < 1e-15);
    // Order, signs and scale do not matter; a turned vector does.
    let mut other = pair.clone();
    for f in &mut other.factors {
        *f = f.select(ndarray::Axis(1), &[1, 0]) * -2.0;
    }
    let same = congruence(&pair, &other);
    assert_eq!(same.matches, [1, 0]);
    assert!((same.min - 1.0).abs() < 1e-14 && (same.mean - 1.0).abs() < 1e-14);
    other.factors[0].column_mut(0).assign(&array![0.0, 1.0, 1.0]);
    let turned = congruence(&pair, &other);
    assert!((turned.min - 0.5_f64.sqrt()).abs() < 1e-14);
    assert!((turned.mean - (1.0 + 0.5_f64.sqrt()) / 2.0).abs() < 1e-14);

    // The definition of the sensitivity, by finite differences: X̂ is linear in each factor.
    let cp = CpTensor::new(array![2.0, -0.5], factors(&[4, 3, 2, 2], 2, 33)).unwrap();
    let full = cp.reconstruct();
    let mut expected = 0.0;
    for n in 0..4 {
        for index in 0..cp.factors[n].len() {
            let mut moved = cp.clone();
            moved.factors[n].as_slice_mut().unwrap()[index] += 1.0;
            expected += norm((moved.reconstruct() - &full).view()).powi(2);
        }
    }
    assert!((sensitivity(&cp) - expected).abs() < 1e-9 * expected);
}

#[test]
fn gram_of_f32_is_accurate() {
    let matrix =
        Array::from_shape_fn((1000, 3), |(i, j)| 1.0 + ((i * 7 + j * 13) % 11) as f32 * 1e-4);
    let wide = matrix.mapv(f64::from);
    let expected = wide.t().dot(&wide);
    assert!(gram(matrix.view()).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9));
    // Of a transposed view too.
    let turned = matrix.t().as_standard_layout().to_owned();
    assert_eq!(gram(turned.t()), gram(matrix.view()));
}

#[test]
fn direct_error_is_not_fooled_by_cancellation() {
    // A model that is off by 1e-10: the difference of squares would have to resolve 1e-20 of ‖X‖².
    let cp = CpTensor::from_factors(factors(&[6, 5, 4], 3, 34)).unwrap();
    let mut tensor = cp.reconstruct();
    let size = norm(tensor.view());
    tensor[[1, 2, 3]] += 1e-10 * size;
    let error = rel_error(tensor.view(), &cp);
    assert!((error - 1e-10).abs() < 1e-13, "{error:e}");
    let zero = ArrayD::<f64>::zeros(IxDyn(&[6, 5, 4]));
    assert_eq!(rel_error(zero.view(), &cp), f64::INFINITY);
}
