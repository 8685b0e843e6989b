//! Tensors that break solvers, for any solver: [`never_breaks`].
#![allow(dead_code, reason = "each test binary uses a part of it")]

use cp_core::{CpError, Decomposition, Real, Solver, StopReason, rel_error};
use ndarray::{ArrayD, Axis, IxDyn};

use super::common::gaussian;

/// Shapes with modes of size 1, small and long ones, of orders 2 to 5.
const SHAPES: [&[usize]; 7] =
    [&[1, 1], &[4, 3], &[1, 5, 1], &[3, 2, 2], &[9, 1, 4], &[2, 3, 2, 3], &[2, 1, 3, 2, 2]];

/// Tensors of a shape, with what their relative error may be at any rank.
fn tensors(shape: &[usize]) -> Vec<(&'static str, ArrayD<f64>)> {
    let random = gaussian(shape, 5);
    let mut one_entry = ArrayD::zeros(IxDyn(shape));
    one_entry[IxDyn(&vec![0; shape.len()])] = -2.5;
    let mut wide_range = ArrayD::from_elem(IxDyn(shape), 1e-30);
    wide_range[IxDyn(&vec![0; shape.len()])] = 1e30;
    vec![
        ("constant", ArrayD::from_elem(IxDyn(shape), 3.0)),
        ("one entry", one_entry),
        ("duplicate slices", ndarray::concatenate![Axis(0), random, random, random]),
        ("huge", &random * 1e30),
        ("tiny", &random * 1e-40),
        ("denormal in f32", &random * 1e-44),
        ("wide range", wide_range),
        ("random", random),
    ]
}

/// Decomposes and checks everything about the result that does not depend on the method.
fn check<T: Real>(name: &str, tensor: &ArrayD<f64>, rank: usize, solver: &dyn Solver<T>) {
    let tensor = tensor.mapv(T::narrow);
    let context = format!("{name} {:?} R={rank} {}", tensor.shape(), solver.name());
    let found: Decomposition<T> =
        solver.decompose(tensor.view()).unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!((found.cp.shape(), found.cp.rank()), (tensor.shape().to_vec(), rank), "{context}");
    let finite =
        found.cp.weights.iter().chain(found.cp.factors.iter().flatten()).all(|x| x.is_finite());
    assert!(finite, "{context}: {found:?}");
    assert!(found.cp.weights.iter().all(|w| *w >= T::zero()), "{context}");
    for norm in found.cp.factors.iter().flat_map(|f| f.columns().into_iter().map(|c| c.dot(&c))) {
        assert!((norm.widen() - 1.0).abs() < 8.0 * T::EPSILON, "{context}: {norm}");
    }
    assert!(found.trace.iter().all(|e| e.is_finite() && *e >= 0.0), "{context}: {:?}", found.trace);
    assert!(found.rel_error <= 1.0 + 1e-6, "{context}: {}", found.rel_error);
    assert!((found.rel_error - rel_error(tensor.view(), &found.cp)).abs() < 1e-12, "{context}");
    // Weights below the normal range have few digits, which the solver's error does not know.
    let smallest =
        found.cp.weights.iter().filter(|w| **w > T::zero()).fold(f64::MAX, |s, w| s.min(w.widen()));
    if let Some(last) = found.trace.last().filter(|_| smallest > 1e-37) {
        let slack = 4.0 * (found.component_energy.sqrt() + 1.0) * T::EPSILON.max(1e-9);
        assert!((found.rel_error - last).abs() < slack, "{context}: {} {last}", found.rel_error);
    }
}

/// Runs the solver that `make` gives for a rank on everything that has ever broken one, in both number types.
pub(crate) fn never_breaks<S: Solver<f32> + Solver<f64>>(make: impl Fn(usize) -> S) {
    for shape in SHAPES {
        for rank in [1, 2, 5, 14] {
            let solver = make(rank);
            for (name, tensor) in tensors(shape) {
                check::<f64>(name, &tensor, rank, &solver);
                check::<f32>(name, &tensor, rank, &solver);
            }
            let zero = ArrayD::<f64>::zeros(IxDyn(shape));
            let found = solver.decompose(zero.view()).unwrap();
            assert_eq!((found.rel_error, found.stop), (0.0, StopReason::Converged), "{shape:?}");
            assert!(found.trace.is_empty() && found.cp.weights.iter().all(|&w| w == 0.0));
            for bad in [f64::NAN, f64::INFINITY] {
                let mut tensor = gaussian(shape, 1);
                *tensor.iter_mut().last().unwrap() = bad;
                let failed = solver.decompose(tensor.view());
                assert!(matches!(failed, Err(CpError::NotFinite { what: "tensor", .. })));
            }
        }
    }
    let small = gaussian(&[3, 2, 2], 1);
    assert_eq!(make(0).decompose(small.view()).unwrap_err(), CpError::RankZero);
    let absurd: Result<Decomposition<f64>, _> = make(1 << 40).decompose(small.view());
    assert!(matches!(absurd, Err(CpError::OutOfMemory { .. })), "{absurd:?}");
    let flat = gaussian(&[3], 1);
    assert_eq!(make(1).decompose(flat.view()).unwrap_err(), CpError::Order { order: 1 });
    let empty = ArrayD::<f64>::zeros(IxDyn(&[3, 0]));
    assert!(matches!(make(1).decompose(empty.view()), Err(CpError::EmptyMode { mode: 1, .. })));
}
