//! Against TensorLy: the kernels, and ALS sweep by sweep from the same start. `golden/make_golden.py` made the numbers.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use std::fs::File;
use std::path::Path;

use crate::golden_files::{GoldenFile, check as check_array};
use cp_core::{Als, CpTensor, Init, Solver, StopReason, khatri_rao, mttkrp, unfold};
use ndarray::{Array1, Array2, ArrayD};
use ndarray_npy::{NpzReader, ReadableElement};

fn open() -> NpzReader<File> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/golden.npz");
    NpzReader::new(File::open(path).unwrap()).unwrap()
}

fn array<T: ReadableElement>(npz: &mut NpzReader<File>, name: &str) -> ArrayD<T> {
    npz.by_name(&format!("{name}.npy")).unwrap()
}

fn wide(array: &ArrayD<f32>) -> ArrayD<f64> {
    array.mapv(f64::from)
}

/// Tensor, starting factors and TensorLy's errors after each sweep and at the end.
fn case(name: &str) -> (ArrayD<f32>, Vec<Array2<f64>>, Array1<f64>, f64) {
    let mut npz = open();
    let tensor: ArrayD<f32> = array(&mut npz, &format!("{name}.tensor"));
    let start = (0..tensor.ndim())
        .map(|mode| {
            wide(&array(&mut npz, &format!("{name}.start_{mode}"))).into_dimensionality().unwrap()
        })
        .collect();
    let errors: ArrayD<f64> = array(&mut npz, &format!("{name}.errors"));
    let last: ArrayD<f64> = array(&mut npz, &format!("{name}.final"));
    (tensor, start, errors.into_dimensionality().unwrap(), last[[0]])
}

fn check(name: &str) {
    let (tensor, start, errors, last) = case(name);
    let rank = start[0].ncols();
    let start = CpTensor::from_factors(start).unwrap();
    let als = Als::new(rank).init(Init::Factors(start)).tol(0.0).max_iters(errors.len());

    let found = als.clone().ridge(0.0).decompose(wide(&tensor).view()).unwrap();
    assert_eq!(found.stop, StopReason::MaxIters);
    assert_eq!(found.iterations(), errors.len());
    // Without a ridge the iterates are the same, up to rounding.
    for (sweep, (ours, theirs)) in found.trace.iter().zip(&errors).enumerate() {
        assert!((ours - theirs).abs() < 1e-7, "{name}, sweep {sweep}: {ours} against {theirs}");
    }
    assert!((found.rel_error - last).abs() < 1e-7, "{name}: {} against {last}", found.rel_error);

    let found = als.decompose(wide(&tensor).view()).unwrap();
    assert!(
        (found.rel_error - last).abs() < 1e-4,
        "{name} f64: {} against {last}",
        found.rel_error
    );

    let found = als.decompose(tensor.view()).unwrap();
    assert!(
        (found.rel_error - last).abs() < 1e-3,
        "{name} f32: {} against {last}",
        found.rel_error
    );
    for (sweep, (ours, theirs)) in found.trace.iter().zip(&errors).enumerate() {
        assert!((ours - theirs).abs() < 1e-3, "{name} f32, sweep {sweep}: {ours} against {theirs}");
    }
}

#[test]
fn matrix() {
    check("matrix");
}

#[test]
fn small() {
    check("small");
}

#[test]
fn merged_kernel() {
    check("merged");
}

#[test]
fn kernel_at_a_rank_above_all_but_one_mode() {
    check("kernel");
}

#[test]
fn order_five() {
    check("order5");
}

/// Plain ALS from a given start, after 1, 2, 5, 20 and 100 sweeps: errors and reconstructions of `shared/golden`.
#[test]
fn given_start() {
    let Some(golden) = GoldenFile::load("cp-als-given-start") else { return };
    let factor = |mode| golden.array(&format!("init{mode}")).into_dimensionality().unwrap();
    let start = CpTensor::from_factors((0..4).map(factor).collect()).unwrap();
    let tensor = golden.array("tensor");
    for row in golden.array("sweeps_and_relative_error").outer_iter() {
        let (sweeps, error) = (row[[0]], row[[1]]);
        let als = Als::new(4).init(Init::Factors(start.clone())).tol(0.0).ridge(0.0);
        let found = als.max_iters(sweeps as usize).decompose(tensor.view()).unwrap();
        assert!((found.rel_error - error).abs() < 1e-6, "{sweeps}: {} ≠ {error}", found.rel_error);
        let name = format!("reconstruction_after{sweeps}");
        check_array(&found.cp.reconstruct(), &golden.array(&name), &name);
    }
}

#[test]
fn kernels() {
    let mut npz = open();
    for name in ["matrix", "small", "merged", "kernel", "order5"] {
        let (tensor, start, ..) = case(name);
        for mode in 0..tensor.ndim() {
            let expected: ArrayD<f64> = array(&mut npz, &format!("{name}.mttkrp_{mode}"));
            let difference = mttkrp(wide(&tensor).view(), &start, mode).into_dyn() - &expected;
            let scale = expected.fold(0.0_f64, |largest, x| largest.max(x.abs()));
            assert!(difference.iter().all(|d| d.abs() < 1e-12 * scale), "{name}, mode {mode}");
        }
    }
    let (tensor, start, ..) = case("small");
    for mode in 0..3 {
        let expected: ArrayD<f64> = array(&mut npz, &format!("small.unfold_{mode}"));
        assert_eq!(unfold(wide(&tensor).view(), mode).into_dyn(), expected);
    }
    let views: Vec<_> = start.iter().map(|f| f.view()).collect();
    let expected: ArrayD<f64> = array(&mut npz, "small.khatri_rao");
    let difference = khatri_rao(&views).into_dyn() - &expected;
    assert!(difference.iter().all(|d| d.abs() < 1e-14));
}
