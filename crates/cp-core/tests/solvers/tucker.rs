//! Tucker models: against TensorLy sweep by sweep (`golden/make_tucker.py` made the numbers), planted ranks, invariants, and
//! tensors that break solvers.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use crate::common::{factors, gaussian, narrow, planted};
use cp_core::{
    Als, CpError, CpTensor, Hooi, Hosvd, Init, Real, Solver, StopReason, TkdCpd, Tucker2,
    TuckerDecomposition, TuckerInit, TuckerSolver, TuckerTensor, gram, mode_product, norm,
    rel_error, unfold,
};
use ndarray::{Array2, ArrayD, ArrayView2, Axis, IxDyn};
use ndarray_npy::{NpzReader, ReadableElement};

fn array<T: ReadableElement>(npz: &mut NpzReader<File>, name: &str) -> ArrayD<T> {
    npz.by_name(&format!("{name}.npy")).unwrap()
}

/// A tensor of multilinear rank `ranks` plus noise of `noise` times its norm.
fn tucker(shape: &[usize], ranks: &[usize], noise: f64, seed: u64) -> ArrayD<f64> {
    let mut signal = gaussian(ranks, seed);
    for (mode, (&size, &rank)) in shape.iter().zip(ranks).enumerate() {
        let factor = factors(&[size], rank, seed + 10 * (mode as u64 + 1)).remove(0);
        signal = mode_product(signal.view(), factor.view(), mode);
    }
    let mut disturbance = gaussian(shape, seed + 1_000_000);
    disturbance *= noise * norm(signal.view()) / norm(disturbance.view());
    signal + disturbance
}

/// Everything that holds for any Tucker model of a tensor.
fn sound<T: Real>(tensor: &ArrayD<T>, found: &TuckerDecomposition<T>) {
    let model = &found.tucker;
    assert_eq!(model.shape(), tensor.shape());
    assert!(TuckerTensor::new(model.core.clone(), model.factors.clone()).is_ok(), "{model:?}");
    for (mode, factor) in model.factors.iter().enumerate() {
        let Some(factor) = factor else { continue };
        let distance = gram(factor.view()) - Array2::<f64>::eye(factor.ncols());
        let worst = distance.iter().fold(0.0_f64, |worst, x| worst.max(x.abs()));
        assert!(worst < 64.0 * T::EPSILON, "mode {mode}: columns are {worst:e} off orthonormal");
    }
    assert!(found.trace.iter().all(|e| e.is_finite() && *e >= 0.0), "{:?}", found.trace);
    let direct = model.rel_error(tensor.view());
    assert!((found.rel_error - direct).abs() < 1e-9, "{} {direct}", found.rel_error);
    let x_hat = model.reconstruct();
    let residual: f64 =
        tensor.iter().zip(&x_hat).map(|(x, y)| (x.widen() - y.widen()).powi(2)).sum();
    let scale = norm(tensor.view());
    if scale > 1e-30 && scale < 1e30 {
        let slow = residual.sqrt() / scale;
        assert!((slow - direct).abs() < 64.0 * T::EPSILON, "{slow} {direct}");
        assert!((model.norm() - norm(model.core.view())).abs() < 64.0 * T::EPSILON * scale);
    }
}

fn never_rises(trace: &[f64], slack: f64) {
    for pair in trace.windows(2) {
        assert!(pair[1] <= pair[0] + slack, "{trace:?}");
    }
}

fn check_golden(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tucker.npz");
    let mut npz = NpzReader::new(File::open(path).unwrap()).unwrap();
    let single: ArrayD<f32> = array(&mut npz, &format!("{name}.tensor"));
    let tensor = single.mapv(f64::from);
    let start: Vec<Option<Array2<f64>>> = (0..tensor.ndim())
        .map(|mode| {
            let factor: Option<ArrayD<f64>> = npz.by_name(&format!("{name}.start_{mode}.npy")).ok();
            factor.map(|factor| factor.into_dimensionality().unwrap())
        })
        .collect();
    let modes: Vec<usize> = (0..tensor.ndim()).filter(|&mode| start[mode].is_some()).collect();
    let ranks: Vec<usize> = start.iter().flatten().map(Array2::ncols).collect();
    let sizes: Vec<usize> = (0..tensor.ndim())
        .map(|n| start[n].as_ref().map_or(tensor.shape()[n], Array2::ncols))
        .collect();
    let start = TuckerTensor::new(ArrayD::zeros(IxDyn(&sizes)), start).unwrap();
    let errors: ArrayD<f64> = array(&mut npz, &format!("{name}.errors"));
    let last: ArrayD<f64> = array(&mut npz, &format!("{name}.final"));
    let core_norm: ArrayD<f64> = array(&mut npz, &format!("{name}.core_norm"));

    let hooi = Hooi::new(ranks)
        .modes(modes)
        .init(TuckerInit::Factors(start))
        .tol(0.0)
        .max_iters(errors.len());
    let found = hooi.decompose(tensor.view()).unwrap();
    sound(&tensor, &found);
    assert_eq!((found.stop, found.iterations()), (StopReason::MaxIters, errors.len()));
    for (sweep, (ours, theirs)) in found.trace.iter().zip(&errors).enumerate() {
        assert!((ours - theirs).abs() < 1e-9, "{name}, sweep {sweep}: {ours} against {theirs}");
    }
    assert!((found.rel_error - last[[0]]).abs() < 1e-9);
    assert!((found.tucker.norm() - core_norm[[0]]).abs() < 1e-8 * core_norm[[0]]);

    let found = hooi.decompose(single.view()).unwrap();
    sound(&single, &found);
    for (sweep, (ours, theirs)) in found.trace.iter().zip(&errors).enumerate() {
        assert!((ours - theirs).abs() < 1e-5, "{name} f32, sweep {sweep}: {ours} against {theirs}");
    }
}

#[test]
fn golden_full() {
    check_golden("full");
}

#[test]
fn golden_kernel() {
    check_golden("kernel");
}

#[test]
fn golden_order_five() {
    check_golden("order5");
}

#[test]
fn golden_matrix() {
    check_golden("matrix");
}

/// Planted multilinear ranks are found exactly, by rank, by error and by iteration, in both number types.
fn check_recovery(shape: &[usize], ranks: &[usize], seed: u64) {
    let tensor = tucker(shape, ranks, 0.0, seed);
    for found in [
        Hosvd::new(ranks).decompose(tensor.view()).unwrap(),
        Hosvd::within(1e-10).decompose(tensor.view()).unwrap(),
        Hooi::new(ranks).decompose(tensor.view()).unwrap(),
        Hooi::new(ranks)
            .init(TuckerInit::Random { seed: 11_001 })
            .decompose(tensor.view())
            .unwrap(),
    ] {
        sound(&tensor, &found);
        assert!(found.rel_error < 1e-12, "{shape:?} {ranks:?}: {:e}", found.rel_error);
        assert_eq!(found.tucker.ranks(), ranks, "{shape:?}");
    }
    let tensor = narrow(&tensor);
    for found in [
        Hosvd::within(1e-4).decompose(tensor.view()).unwrap(),
        Hooi::new(ranks).decompose(tensor.view()).unwrap(),
    ] {
        sound(&tensor, &found);
        assert!(found.rel_error < 1e-5, "{shape:?} {ranks:?} f32: {:e}", found.rel_error);
        assert_eq!(found.tucker.ranks(), ranks, "{shape:?} f32");
    }
}

#[test]
fn recovers_planted_ranks() {
    check_recovery(&[12, 9], &[3, 3], 1);
    check_recovery(&[10, 9, 8], &[2, 3, 4], 2);
    check_recovery(&[9, 1, 8], &[3, 1, 3], 3);
    check_recovery(&[7, 6, 5, 8], &[2, 2, 3, 2], 4);
    check_recovery(&[4, 5, 3, 4, 6], &[2, 2, 1, 2, 3], 5);
    check_recovery(&[80, 5, 70], &[4, 2, 3], 6);
    check_recovery(&[100, 6], &[4, 4], 7);
}

/// HOOI from HOSVD ends at least as low as it starts, and never rises.
fn check_invariants(shape: &[usize], ranks: &[usize], seed: u64) {
    for noise in [0.3, 3.0] {
        let tensor = tucker(shape, ranks, noise, seed);
        let start = Hosvd::new(ranks).decompose(tensor.view()).unwrap();
        let found = Hooi::new(ranks).tol(0.0).max_iters(15).decompose(tensor.view()).unwrap();
        sound(&tensor, &start);
        sound(&tensor, &found);
        never_rises(&found.trace, 1e-12);
        assert!(found.rel_error <= start.rel_error + 1e-12);
        assert!((found.trace[14] - found.rel_error).abs() < 1e-10);
        // √N of the best, which is at most that of HOOI.
        assert!(start.rel_error <= (shape.len() as f64).sqrt() * found.rel_error);
        let random = Hooi::new(ranks).init(TuckerInit::Random { seed: 11_002 }).tol(0.0);
        let random = random.max_iters(15).decompose(tensor.view()).unwrap();
        never_rises(&random.trace, 1e-12);

        let single = narrow(&tensor);
        let f32s = Hooi::new(ranks).decompose(single.view()).unwrap();
        sound(&single, &f32s);
        never_rises(&f32s.trace, 1e-6);
        assert!((f32s.rel_error - found.rel_error).abs() < 1e-3);
    }
}

#[test]
fn iteration_improves_on_the_start() {
    check_invariants(&[14, 11], &[3, 3], 11);
    check_invariants(&[10, 9, 8], &[2, 3, 4], 12);
    check_invariants(&[70, 5, 66], &[4, 2, 3], 13);
    check_invariants(&[7, 6, 1, 8], &[2, 2, 1, 2], 14);
    check_invariants(&[4, 5, 3, 4, 6], &[2, 2, 1, 2, 3], 15);
}

#[test]
fn iteration_gains_where_the_noise_is_strong() {
    let tensor = tucker(&[15, 15, 15], &[2, 2, 2], 2.0, 16);
    let start = Hosvd::new([2, 2, 2]).decompose(tensor.view()).unwrap();
    let found = Hooi::new([2, 2, 2]).decompose(tensor.view()).unwrap();
    assert!(found.rel_error < start.rel_error - 1e-5, "{} {}", found.rel_error, start.rel_error);
    assert_eq!(found.stop, StopReason::Converged);
}

#[test]
fn full_ranks_reproduce_the_tensor() {
    let tensor = gaussian(&[5, 4, 3, 2], 17);
    for found in [
        Hosvd::new([5, 4, 3, 2]).decompose(tensor.view()).unwrap(),
        Hooi::new([5, 4, 3, 2]).decompose(tensor.view()).unwrap(),
        Hosvd::within(0.0).decompose(tensor.view()).unwrap(),
    ] {
        sound(&tensor, &found);
        assert!(found.rel_error < 1e-13, "{:e}", found.rel_error);
    }
}

#[test]
fn hosvd_keeps_within_the_error() {
    let tensor = tucker(&[12, 11, 10], &[4, 4, 4], 0.2, 18);
    let mut parameters = usize::MAX;
    for error in [0.2, 0.3, 0.5, 0.9] {
        let found = Hosvd::within(error).decompose(tensor.view()).unwrap();
        assert!(
            found.rel_error <= error && found.rel_error > error / 9.0,
            "{error}: {}",
            found.rel_error
        );
        assert!(found.tucker.parameters() <= parameters);
        parameters = found.tucker.parameters();
        let found = Hosvd::within(error).modes([0, 2]).decompose(tensor.view()).unwrap();
        assert!(found.rel_error <= error && found.tucker.factors[1].is_none());
    }
}

#[test]
fn a_matrix_ends_at_its_truncated_svd() {
    let matrix = gaussian(&[20, 14], 19);
    let found = Hooi::new([5, 5]).decompose(matrix.view()).unwrap();
    let matrix = matrix.into_dimensionality().unwrap();
    let svd = cp_core::truncated_svd(matrix.view(), 5).unwrap();
    let best =
        norm((&matrix - &svd.reconstruct()).into_dyn().view()) / norm(matrix.into_dyn().view());
    assert!((found.rel_error - best).abs() < 1e-12, "{} {best}", found.rel_error);
}

#[test]
fn tucker2_leaves_the_window_alone() {
    let kernel = tucker(&[20, 15, 3, 3], &[4, 3, 3, 3], 0.2, 20);
    let found = Tucker2::new([4, 3]).decompose(kernel.view()).unwrap();
    sound(&kernel, &found);
    assert_eq!(found.tucker.ranks(), [4, 3, 3, 3]);
    assert_eq!(found.tucker.parameters(), 20 * 4 + 15 * 3 + 4 * 3 * 9);
    assert!(found.tucker.factors[0].is_some() && found.tucker.factors[1].is_some());
    assert!(found.tucker.factors[2].is_none() && found.tucker.factors[3].is_none());
    assert!(found.rel_error < 0.2);
    // The same as HOOI on a kernel with the window merged.
    let merged = kernel.clone().into_shape_with_order(IxDyn(&[20, 15, 9])).unwrap();
    let same = Hooi::new([4, 3, 9]).decompose(merged.view()).unwrap();
    assert!((found.rel_error - same.rel_error).abs() < 1e-9);
    assert_eq!(<Tucker2 as TuckerSolver<f64>>::name(&Tucker2::new([1, 1])), "tucker2");
}

#[test]
fn ranks_that_the_others_do_not_allow_are_lowered() {
    let tensor = gaussian(&[9, 8, 7], 21);
    let found = Hooi::new([2, 3, 7]).decompose(tensor.view()).unwrap();
    assert_eq!(found.tucker.ranks(), [2, 3, 6]);
    sound(&tensor, &found);
    let found = Hosvd::new([9, 1, 1]).decompose(tensor.view()).unwrap();
    assert_eq!(found.tucker.ranks(), [1, 1, 1]);
}

#[test]
fn bad_ranks_and_options_are_refused() {
    let tensor = gaussian(&[4, 3, 2], 22);
    let refused = |hooi: Hooi| hooi.decompose(tensor.view()).unwrap_err();
    assert_eq!(refused(Hooi::new([4, 3])), CpError::RankCount { expected: 3, got: 2 });
    assert_eq!(refused(Hooi::new([4, 3, 0])), CpError::RankZero);
    assert_eq!(refused(Hooi::new([4, 5, 1])), CpError::RankAboveMode { mode: 1, rank: 5, size: 3 });
    assert_eq!(refused(Hooi::new([2, 2]).modes([0, 3])), CpError::Mode { mode: 3, order: 3 });
    assert!(matches!(
        refused(Hooi::new([2, 2]).modes([1, 1])),
        CpError::InvalidOption { option: "modes", .. }
    ));
    assert!(matches!(
        refused(Hooi::new([2, 2, 2]).tol(f64::NAN)),
        CpError::InvalidOption { option: "tol", .. }
    ));
    let other = TuckerTensor::new(
        gaussian(&[2, 2, 2], 1),
        factors(&[4, 3, 3], 2, 2).into_iter().map(Some).collect(),
    );
    let start = TuckerInit::Factors(other.unwrap());
    assert!(matches!(
        refused(Hooi::new([2, 2, 2]).init(start)),
        CpError::FactorShape { mode: 2, .. }
    ));
    let failed = Hosvd::within(1.0).decompose(tensor.view());
    assert!(matches!(failed, Err(CpError::InvalidOption { option: "rel_error", .. })));
    let failed = Hosvd::new([1]).decompose(gaussian(&[5], 1).view());
    assert_eq!(failed, Err(CpError::Order { order: 1 }));
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let core = gaussian(&[2, 3], 1);
    let [a, b] = [factors(&[5], 2, 2).remove(0), factors(&[6], 3, 3).remove(0)];
    assert!(TuckerTensor::new(core.clone(), vec![Some(a.clone()), Some(b.clone())]).is_ok());
    assert!(matches!(
        TuckerTensor::new(core.clone(), vec![None]),
        Err(CpError::FactorCount { expected: 2, got: 1 })
    ));
    let swapped = TuckerTensor::new(core.clone(), vec![Some(b), Some(a.clone())]);
    assert!(matches!(swapped, Err(CpError::FactorShape { mode: 0, .. })));
    let mut bad = core.clone();
    bad[[1, 2]] = f64::NAN;
    let bad = TuckerTensor::new(bad, vec![Some(a), None]);
    assert!(matches!(bad, Err(CpError::NotFinite { what: "core", .. })));
    assert!(matches!(
        TuckerTensor::new(gaussian(&[2], 1), vec![None]),
        Err(CpError::Order { order: 1 })
    ));
}

#[test]
fn measures_of_factors_that_are_not_orthonormal() {
    let core = gaussian(&[2, 3, 4], 23);
    let parts =
        vec![Some(factors(&[6], 2, 24).remove(0)), None, Some(factors(&[5], 4, 25).remove(0))];
    let model = TuckerTensor::new(core, parts).unwrap();
    let full = model.reconstruct();
    assert_eq!(full.shape(), [6, 3, 5]);
    assert!((model.norm() / norm(full.view()) - 1.0).abs() < 1e-12);
    let tensor = &full + &gaussian(&[6, 3, 5], 26);
    let direct = norm((&tensor - &full).view()) / norm(tensor.view());
    assert!((model.rel_error(tensor.view()) - direct).abs() < 1e-12);
    assert!((model.cast::<f32>().rel_error(narrow(&tensor).view()) - direct).abs() < 1e-5);
}

fn check_mode_product(shape: &[usize], rows: usize) {
    let tensor = gaussian(shape, 27);
    for mode in 0..shape.len() {
        let matrix: Array2<f64> = factors(&[rows], shape[mode], 28).remove(0);
        let product = mode_product(tensor.view(), matrix.view(), mode);
        let slow = matrix.dot(&unfold(tensor.view(), mode));
        let difference = unfold(product.view(), mode) - slow;
        assert!(difference.iter().all(|d| d.abs() < 1e-11), "{shape:?}, mode {mode}");
    }
}

#[test]
fn mode_products_equal_products_of_unfoldings() {
    check_mode_product(&[4, 3], 2);
    check_mode_product(&[5, 1, 4], 7);
    check_mode_product(&[40, 30, 50], 60);
    check_mode_product(&[2, 3, 4, 5], 3);
    check_mode_product(&[1, 1, 1, 2, 1], 2);
    let transposed = gaussian(&[4, 5], 29).reversed_axes();
    let matrix: Array2<f64> = factors(&[3], 5, 30).remove(0);
    let product = mode_product(transposed.view(), matrix.view(), 0);
    let two: ArrayView2<'_, f64> = transposed.view().into_dimensionality().unwrap();
    assert!(
        (product.into_dimensionality::<ndarray::Ix2>().unwrap() - matrix.dot(&two))
            .iter()
            .all(|d| d.abs() < 1e-12)
    );
}

#[test]
fn the_observer_ends_a_run() {
    let tensor = gaussian(&[8, 7, 6], 31);
    let mut seen = Vec::new();
    let found = Hooi::new([2, 2, 2])
        .tol(0.0)
        .decompose_with(tensor.view(), &mut |progress| {
            seen.push(progress.rel_error);
            if seen.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!((found.stop, found.iterations()), (StopReason::Observer, 3));
    assert_eq!(found.trace, seen);
    sound(&tensor, &found);
    let none = Hooi::new([2, 2, 2]).max_iters(0).decompose(tensor.view()).unwrap();
    let start = Hosvd::new([2, 2, 2]).decompose(tensor.view()).unwrap();
    assert!((none.rel_error - start.rel_error).abs() < 1e-12);
    let nothing = Hooi::new([]).modes([]).decompose(tensor.view()).unwrap();
    assert_eq!((nothing.rel_error, nothing.stop), (0.0, StopReason::Converged));
}

/// Whatever comes in, out comes a finite model.
fn survives(tensor: &ArrayD<f64>) -> [f64; 4] {
    fn run<T: Real>(tensor: &ArrayD<T>) -> [f64; 2] {
        let small: Vec<usize> = tensor.shape().iter().map(|&size| size.min(2)).collect();
        let found = Hooi::new(small.clone()).decompose(tensor.view()).unwrap();
        sound(tensor, &found);
        let start = Hosvd::new(small).decompose(tensor.view()).unwrap();
        sound(tensor, &start);
        sound(tensor, &Hosvd::within(0.1).decompose(tensor.view()).unwrap());
        sound(tensor, &Tucker2::new([1, 1]).decompose(tensor.view()).unwrap());
        let random = Hooi::new(vec![1; tensor.ndim()]).init(TuckerInit::Random { seed: 11_003 });
        sound(tensor, &random.decompose(tensor.view()).unwrap());
        let cp = TkdCpd::new([1, 1], Als::new(3).max_iters(10)).decompose(tensor.view()).unwrap();
        assert!(cp.cp.weights.iter().chain(cp.cp.factors.iter().flatten()).all(|x| x.is_finite()));
        assert!((cp.rel_error - rel_error(tensor.view(), &cp.cp)).abs() < 1e-12);
        [found.rel_error, start.rel_error]
    }
    let [a, b] = run(tensor);
    let [c, d] = run(&narrow(tensor));
    [a, b, c, d]
}

#[test]
fn degenerate_tensors() {
    for shape in [
        &[3, 2][..],
        &[1, 1],
        &[5, 1, 4],
        &[1, 1, 1, 1],
        &[4, 3, 2, 3],
        &[2, 1, 3, 2, 2],
        &[70, 2, 1],
    ] {
        let zero = ArrayD::zeros(IxDyn(shape));
        assert_eq!(survives(&zero), [0.0; 4], "{shape:?}");
        assert!(
            survives(&ArrayD::from_elem(IxDyn(shape), -2.5)).iter().all(|&e| e < 1e-6),
            "{shape:?}"
        );
        let mut single = zero;
        *single.iter_mut().last().unwrap() = 3.0;
        assert!(survives(&single).iter().all(|&e| e < 1e-6), "{shape:?}");
        let part = gaussian(shape, 32);
        survives(&part);
        survives(&ndarray::concatenate(Axis(0), &[part.view(), part.view(), part.view()]).unwrap());
        let reference = survives(&part);
        for scale in [1e30, 1e35, 1e-30, 1e-37] {
            let errors = survives(&(&part * scale));
            assert!((errors[0] - reference[0]).abs() < 1e-6, "{shape:?} {scale:e}");
        }
        survives(&(part * 1e-40));
        for bad in [f64::NAN, f64::INFINITY] {
            let mut tensor = ArrayD::ones(IxDyn(shape));
            *tensor.iter_mut().last().unwrap() = bad;
            let failed = Hooi::new(vec![1; shape.len()]).decompose(tensor.view());
            assert!(matches!(failed, Err(CpError::NotFinite { what: "tensor", .. })));
            let failed = Hosvd::within(0.1).decompose(narrow(&tensor).view());
            assert!(matches!(failed, Err(CpError::NotFinite { what: "tensor", .. })));
        }
    }
    // The norm of the core leaves the range of f32.
    let huge = ArrayD::from_elem(IxDyn(&[30, 30, 30]), f32::MAX / 4.0);
    let failed = Hooi::new([1, 1, 1]).decompose(huge.view());
    assert!(matches!(failed, Err(CpError::Range { .. })), "{failed:?}");
}

#[test]
fn tkd_cpd_adds_errors_by_squares() {
    let (_, kernel) = planted(&[24, 16, 3, 3], 5, 0.3, 33);
    let als = Als::new(5).max_iters(60).init(Init::Random { seed: 11_004 });
    let solver = TkdCpd::new([6, 6], als.clone());
    let mut seen = Vec::new();
    let found = solver.decompose_parts(kernel.view()).unwrap();
    let again = solver
        .decompose_with(kernel.view(), &mut |progress| {
            seen.push(progress.rel_error);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(again.cp, found.combined.cp);
    assert_eq!(again.trace, seen);
    let (outside, inside) = (found.tucker.rel_error, found.core.rel_error);
    let sum = (outside * outside + (1.0 - outside * outside) * inside * inside).sqrt();
    assert!((found.combined.rel_error - sum).abs() < 1e-9, "{} {sum}", found.combined.rel_error);
    assert!((found.combined.trace.last().unwrap() - found.combined.rel_error).abs() < 1e-6);
    assert!((found.combined.degeneracy - found.core.degeneracy).abs() < 1e-9);
    assert_eq!(found.parameters(), 24 * 6 + 16 * 6 + 5 * (6 + 6 + 3 + 3));
    assert_eq!(<TkdCpd<Als> as Solver<f64>>::name(&solver), "tkd-cpd");
}

#[test]
fn tkd_cpd_costs_little_error() {
    let (_, kernel) = planted(&[24, 16, 3, 3], 5, 0.3, 33);
    let best = |solve: &dyn Fn(Als) -> f64| {
        let runs = [11_004, 11_007, 11_008]
            .map(|seed| solve(Als::new(5).max_iters(300).init(Init::Random { seed })));
        runs.into_iter().fold(f64::INFINITY, f64::min)
    };
    let plain = best(&|als| als.decompose(kernel.view()).unwrap().rel_error);
    let tkd = best(&|als| TkdCpd::new([6, 6], als).decompose(kernel.view()).unwrap().rel_error);
    assert!(tkd > plain - 1e-6 && tkd < plain + 0.01, "{tkd} {plain}");
}

#[test]
fn tkd_cpd_of_an_exact_kernel() {
    let (truth, kernel) = planted(&[20, 15, 3, 3], 4, 0.0, 34);
    let als = Als::new(4).max_iters(2000).tol(1e-13).init(Init::Random { seed: 11_005 });
    let found = TkdCpd::new([4, 4], als).decompose(kernel.view()).unwrap();
    assert!(found.rel_error < 1e-6, "{:e}", found.rel_error);
    assert!(cp_core::congruence(&found.cp, &truth).min > 1.0 - 1e-6);
}

#[test]
fn a_model_of_another_core_is_refused() {
    let kernel = gaussian(&[6, 5, 3, 3], 35);
    let tucker = Tucker2::new([3, 2]).decompose(kernel.view()).unwrap().tucker;
    let other = CpTensor::from_factors(factors(&[3, 3, 3, 3], 2, 36)).unwrap();
    assert!(matches!(tucker.expand(&other), Err(CpError::FactorShape { mode: 1, .. })));
    let other = CpTensor::from_factors(factors(&[3, 2, 3], 2, 36)).unwrap();
    assert!(matches!(tucker.expand(&other), Err(CpError::FactorCount { expected: 4, got: 3 })));
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let tensor = narrow(&gaussian(&[70, 40, 9], 37));
    let run = || {
        Hooi::new([10, 10, 5])
            .init(TuckerInit::Random { seed: 11_006 })
            .max_iters(5)
            .decompose(tensor.view())
            .unwrap()
    };
    assert_eq!(run().tucker, run().tucker);
}
