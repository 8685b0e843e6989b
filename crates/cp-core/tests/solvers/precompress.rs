//! Compression before a decomposition changes the time, not the answer.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use crate::common::{factors, gaussian, narrow, planted};
use cp_core::{
    Als, CpError, CpTensor, Decomposition, Init, Precompressed, Real, Solver, StopReason,
    congruence, mode_product, norm, rel_error,
};
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn};

/// Notes the shape that it is given.
#[derive(Clone)]
struct Spy<S> {
    solver: S,
    shapes: Arc<Mutex<Vec<Vec<usize>>>>,
}

fn spy<S>(solver: S) -> Spy<S> {
    Spy { solver, shapes: Arc::default() }
}

impl<T: Real, S: Solver<T>> Solver<T> for Spy<S> {
    fn decompose_with(
        &self,
        tensor: ArrayViewD<'_, T>,
        observe: &mut dyn FnMut(&cp_core::Progress) -> ControlFlow<()>,
    ) -> Result<Decomposition<T>, CpError> {
        self.shapes.lock().unwrap().push(tensor.shape().to_vec());
        self.solver.decompose_with(tensor, observe)
    }

    fn name(&self) -> &'static str {
        self.solver.name()
    }
}

/// The shape that the solver inside gets, for both number types.
fn check_shape(tensor: &ArrayD<f64>, expect: &[usize]) {
    let inner = spy(Als::new(2).max_iters(3));
    let found = Precompressed::new(inner.clone()).decompose(tensor.view()).unwrap();
    assert_eq!(found.cp.shape(), tensor.shape());
    let single = narrow(tensor);
    let found = Precompressed::new(inner.clone()).decompose(single.view()).unwrap();
    assert_eq!(found.cp.shape(), tensor.shape());
    assert_eq!(*inner.shapes.lock().unwrap(), [expect, expect], "{:?}", tensor.shape());
}

/// A tensor with slices along `mode` that are combinations of `directions` ones.
fn dependent(shape: &[usize], mode: usize, directions: usize, seed: u64) -> ArrayD<f64> {
    let mut small = shape.to_vec();
    small[mode] = directions;
    let mix = factors(&[shape[mode]], directions, seed + 1).remove(0);
    mode_product(gaussian(&small, seed).view(), mix.view(), mode)
}

#[test]
fn acts_where_it_pays_and_only_there() {
    check_shape(&gaussian(&[100, 4, 3], 1), &[12, 4, 3]);
    check_shape(&gaussian(&[2, 60, 2, 3], 2), &[2, 12, 2, 3]);
    check_shape(&gaussian(&[12, 13, 14], 3), &[12, 13, 14]);
    check_shape(&gaussian(&[9, 2, 2], 4), &[9, 2, 2]);
    check_shape(&dependent(&[30, 20, 9], 1, 7, 5), &[30, 7, 9]);
    check_shape(&dependent(&[90, 80, 2], 0, 70, 6), &[70, 80, 2]);
    check_shape(&dependent(&[90, 80, 3], 0, 88, 7), &[90, 80, 3]);
    check_shape(&gaussian(&[1, 50], 8), &[1, 1]);
    check_shape(&ArrayD::zeros(IxDyn(&[50, 2])), &[50, 2]);
    check_shape(&ArrayD::ones(IxDyn(&[50, 20])), &[1, 1]);
}

/// From a start inside of the span both ways take the same steps.
fn check_same_steps(tensor: &ArrayD<f64>, rank: usize) {
    let first = Als::new(rank).max_iters(2).init(Init::Random { seed: 11_001 });
    let first = first.decompose(tensor.view()).unwrap().cp;
    let als = Als::new(rank).max_iters(30).tol(0.0).ridge(0.0);
    let plain = als.clone().init(Init::Factors(first.clone())).decompose(tensor.view()).unwrap();
    let inner = spy(als);
    let shapes = inner.shapes.clone();
    let small = Precompressed::from_factors(first, move |init| Spy {
        solver: inner.solver.clone().init(init),
        shapes: inner.shapes.clone(),
    });
    let small = small.decompose(tensor.view()).unwrap();
    assert_ne!(shapes.lock().unwrap()[0], tensor.shape());
    assert_eq!((small.stop, small.iterations()), (StopReason::MaxIters, 30));
    for (a, b) in small.trace.iter().zip(&plain.trace) {
        assert!((a - b).abs() < 1e-8, "{a} {b}");
    }
    assert!((small.rel_error - plain.rel_error).abs() < 1e-8);
    assert!((small.rel_error - rel_error(tensor.view(), &small.cp)).abs() < 1e-14);
    assert!((small.component_energy / plain.component_energy - 1.0).abs() < 1e-4);
    assert!((small.degeneracy - plain.degeneracy).abs() < 1e-4);
    assert!(congruence(&small.cp, &plain.cp).min > 0.9999);
}

#[test]
fn takes_the_steps_of_the_solver_inside() {
    check_same_steps(&planted(&[120, 5, 4], 4, 0.2, 11).1, 4);
    check_same_steps(&dependent(&[30, 12, 10], 0, 8, 12), 4);
    check_same_steps(&dependent(&[6, 40, 3, 5], 1, 9, 13), 3);
}

#[test]
fn finds_planted_terms() {
    let (truth, tensor) = planted(&[200, 6, 5], 4, 0.0, 14);
    let als = Als::new(4).max_iters(2000).tol(1e-13).init(Init::Random { seed: 11_002 });
    let found = Precompressed::new(als.clone()).decompose(tensor.view()).unwrap();
    assert!(
        found.rel_error < 1e-6 && congruence(&found.cp, &truth).min > 1.0 - 1e-6,
        "{:e}",
        found.rel_error
    );
    let found = Precompressed::new(als).decompose(narrow(&tensor).view()).unwrap();
    assert!(found.rel_error < 1e-4, "{:e}", found.rel_error);
}

#[test]
fn a_tolerance_is_kept_and_counted() {
    let mut tensor = dependent(&[30, 20, 9], 0, 5, 15);
    let noise = gaussian(&[30, 20, 9], 16);
    tensor.scaled_add(0.01 * norm(tensor.view()) / norm(noise.view()), &noise);
    let inner = spy(Als::new(3).max_iters(50));
    let found = Precompressed::new(inner.clone()).tol(0.02).decompose(tensor.view()).unwrap();
    assert_eq!(inner.shapes.lock().unwrap()[0][0], 5);
    assert!((found.trace.last().unwrap() - found.rel_error).abs() < 1e-6);
    let plain = Als::new(3).max_iters(50).decompose(tensor.view()).unwrap();
    assert!(found.rel_error < plain.rel_error + 0.05);
    let failed = Precompressed::new(Als::new(3)).tol(1.0).decompose(tensor.view());
    assert!(matches!(failed, Err(CpError::InvalidOption { option: "tol", .. })));
}

#[test]
fn a_given_start_of_another_shape_is_refused() {
    let tensor = gaussian(&[50, 3, 2], 17);
    let start = CpTensor::from_factors(factors(&[50, 4, 2], 2, 18)).unwrap();
    let solver = Precompressed::from_factors(start, |init| Als::new(2).init(init));
    assert!(matches!(solver.decompose(tensor.view()), Err(CpError::FactorShape { mode: 1, .. })));
    let start = CpTensor::from_factors(factors(&[50, 3], 2, 18)).unwrap();
    let solver = Precompressed::from_factors(start, |init| Als::new(2).init(init));
    assert!(matches!(solver.decompose(tensor.view()), Err(CpError::FactorCount { .. })));
}

#[test]
fn the_observer_and_the_name_are_passed_on() {
    let tensor = gaussian(&[50, 3, 2], 19);
    let solver = Precompressed::new(Als::new(4).tol(0.0));
    let mut seen = 0;
    let found = solver.decompose_with(tensor.view(), &mut |_| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(found.unwrap().stop, StopReason::Observer);
    assert_eq!(<Precompressed<Als> as Solver<f32>>::name(&solver), "als");
}

#[test]
fn degenerate_tensors() {
    fn survives<T: Real>(tensor: &ArrayD<T>) {
        for rank in [1, 3, 15] {
            let found =
                Precompressed::new(Als::new(rank).max_iters(5)).decompose(tensor.view()).unwrap();
            assert_eq!(found.cp.shape(), tensor.shape());
            assert!(
                found
                    .cp
                    .weights
                    .iter()
                    .chain(found.cp.factors.iter().flatten())
                    .all(|x| x.is_finite())
            );
            assert!(found.rel_error <= 1.0 + 1e-6, "{:?} {}", tensor.shape(), found.rel_error);
        }
    }
    for shape in [&[20, 2][..], &[1, 1], &[1, 15, 1], &[30, 2, 2], &[2, 2, 25, 3]] {
        let part = gaussian(shape, 20);
        let mut single = ArrayD::zeros(IxDyn(shape));
        survives(&single);
        *single.iter_mut().last().unwrap() = 2.0;
        let copies =
            ndarray::concatenate(Axis(0), &[part.view(), part.view(), part.view()]).unwrap();
        for tensor in [
            single,
            copies,
            &part * 1e30,
            &part * 1e-30,
            &part * 1e-37,
            ArrayD::from_elem(IxDyn(shape), -1.0),
            part,
        ] {
            survives(&tensor);
            survives(&narrow(&tensor));
        }
        let failed = Precompressed::new(Als::new(2))
            .decompose(ArrayD::from_elem(IxDyn(shape), f64::NAN).view());
        assert!(matches!(failed, Err(CpError::NotFinite { .. })));
    }
}
