//! Tensors that break solvers: whatever comes in, out comes a finite model or an error, in both number types.
#![allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking, and exact values are meant"
)]

use crate::common;
use crate::common::{factors, gaussian, planted};
use cp_core::{
    Als, CpError, CpTensor, Decomposition, Init, Real, Solver, StopReason, norm, rel_error,
};
use ndarray::{ArrayD, Axis, IxDyn};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// Decomposes in `T` and checks everything about the result that does not depend on the tensor.
fn decompose<T: Real>(tensor: &ArrayD<f64>, als: &Als) -> Decomposition<T>
where
    Als: Solver<T>,
{
    let tensor = tensor.mapv(T::narrow);
    let found: Decomposition<T> = als.decompose(tensor.view()).unwrap();
    assert_eq!(found.cp.shape(), tensor.shape());
    let finite =
        found.cp.weights.iter().chain(found.cp.factors.iter().flatten()).all(|x| x.is_finite());
    assert!(finite, "{found:?}");
    assert!(found.trace.iter().all(|e| e.is_finite() && *e >= 0.0), "{:?}", found.trace);
    assert!(found.rel_error.is_finite() && found.component_energy.is_finite());
    assert!((0.0..=1.0).contains(&found.degeneracy));
    assert!((found.rel_error - rel_error(tensor.view(), &found.cp)).abs() < 1e-12);
    found
}

fn both(tensor: &ArrayD<f64>, als: &Als) -> [f64; 2] {
    [decompose::<f64>(tensor, als).rel_error, decompose::<f32>(tensor, als).rel_error]
}

/// Terms that any tensor of this shape can be written with.
fn exact_rank_bound(shape: &[usize]) -> usize {
    shape.iter().product::<usize>() / shape.iter().max().copied().unwrap_or(1)
}

fn init() -> impl Strategy<Value = Init> {
    (0..1000u64, any::<bool>()).prop_map(|(seed, random)| {
        if random { Init::Random { seed } } else { Init::Hosvd { seed } }
    })
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
    #![proptest_config(config(48))]

    #[test]
    fn zero(shape in prop::collection::vec(1..5usize, 2..5), rank in 1..8usize, init in init()) {
        let als = Als::new(rank).tol(0.0).init(init);
        let found = decompose::<f64>(&ArrayD::zeros(IxDyn(&shape)), &als);
        prop_assert_eq!((found.rel_error, found.component_energy, found.stop), (0.0, 0.0, StopReason::Converged));
        prop_assert!(found.cp.weights.iter().all(|&w| w == 0.0));
        prop_assert_eq!(decompose::<f32>(&ArrayD::zeros(IxDyn(&shape)), &als).rel_error, 0.0);
    }

    #[test]
    fn constant(shape in prop::collection::vec(1..6usize, 2..5), share in 0.0..1.5f64, init in init(), value in -10.0..10.0f64) {
        prop_assume!(value.abs() > 1e-3);
        let rank = ((exact_rank_bound(&shape) as f64 * share) as usize).max(1);
        let tensor = ArrayD::from_elem(IxDyn(&shape), value);
        let [wide, single] = both(&tensor, &Als::new(rank).max_iters(30).init(init));
        prop_assert!(wide < 1e-6 && single < 1e-3, "{shape:?} R={rank}: {wide:e}, {single:e}");
    }

    #[test]
    fn any_shape_and_rank(
        shape in prop::collection::vec(1..6usize, 2..5), share in 0.0..1.5f64, init in init(), seed in 0..1000u64
    ) {
        let rank = ((exact_rank_bound(&shape) as f64 * share).ceil() as usize).max(1);
        let als = Als::new(rank).max_iters(30).init(init);
        let errors = both(&gaussian(&shape, seed), &als);
        prop_assert!(errors.iter().all(|&e| e <= 1.0 + 1e-6), "{shape:?} R={rank}: {errors:?}");
    }

    #[test]
    fn duplicate_slices(
        shape in prop::collection::vec(1..6usize, 2..5), rank in 1..12usize, init in init(), seed in 0..1000u64
    ) {
        let part = gaussian(&shape, seed);
        let tensor = ndarray::concatenate(Axis(0), &[part.view(), part.view(), part.view()]).unwrap();
        let errors = both(&tensor, &Als::new(rank).max_iters(30).init(init));
        prop_assert!(errors.iter().all(|&e| e <= 1.0 + 1e-6), "{shape:?} R={rank}: {errors:?}");
    }

    #[test]
    fn huge_and_tiny(
        shape in prop::collection::vec(1..6usize, 2..5), rank in 1..12usize, init in init(), seed in 0..1000u64,
        scale in prop::sample::select(vec![1e30, 1e35, 1e-30, 1e-37, 1e-40])
    ) {
        let tensor = gaussian(&shape, seed) * scale;
        let als = Als::new(rank).max_iters(20).tol(0.0).init(init);
        let reference = decompose::<f64>(&(&tensor / scale), &als);
        let [wide, single] = both(&tensor, &als);
        prop_assert!((wide - reference.rel_error).abs() < 1e-6, "{wide} against {}", reference.rel_error);
        prop_assert!(single <= 1.0 + 1e-6, "{single}");
    }

    #[test]
    fn one_entry(shape in prop::collection::vec(1..6usize, 2..5), rank in 1..6usize, init in init(), place in any::<prop::sample::Index>()) {
        let mut tensor = ArrayD::zeros(IxDyn(&shape));
        let place = place.index(tensor.len());
        tensor.as_slice_mut().unwrap()[place] = -2.5;
        let [wide, single] = both(&tensor, &Als::new(rank).max_iters(30).init(init));
        prop_assert!(wide < 1e-6 && single < 1e-3, "{shape:?} R={rank}: {wide:e}, {single:e}");
    }

    #[test]
    fn nan_anywhere(shape in prop::collection::vec(1..6usize, 2..5), place in any::<prop::sample::Index>(), bad in prop::sample::select(vec![f64::NAN, f64::INFINITY])) {
        let mut tensor = gaussian(&shape, 1);
        let place = place.index(tensor.len());
        tensor.as_slice_mut().unwrap()[place] = bad;
        let failed = Als::new(2).decompose(tensor.view());
        prop_assert!(matches!(failed, Err(CpError::NotFinite { what: "tensor", .. })), "{:?}", failed);
        let failed = Als::new(2).decompose(common::narrow(&tensor).view());
        prop_assert!(matches!(failed, Err(CpError::NotFinite { what: "tensor", .. })), "{:?}", failed);
    }
}

#[test]
fn the_extremes_of_the_number_types() {
    let als = Als::new(2).max_iters(20);
    for value in [f64::MAX / 64.0, f64::MIN_POSITIVE, 5e-324, 1e-310] {
        let tensor = ArrayD::from_elem(IxDyn(&[3, 2, 2]), value);
        let found = als.decompose(tensor.view()).unwrap();
        assert!(found.cp.weights.iter().all(|w| w.is_finite()), "{value:e}: {found:?}");
        assert!(found.rel_error < 1.0, "{value:e}: {}", found.rel_error);
    }
    for value in [f32::MAX / 64.0, f32::MIN_POSITIVE, 1e-45, 1e-40] {
        let tensor = ArrayD::from_elem(IxDyn(&[3, 2, 2]), value);
        let found = als.decompose(tensor.view()).unwrap();
        assert!(found.cp.weights.iter().all(|w| w.is_finite()), "{value:e}: {found:?}");
        assert!(found.rel_error < 1.0, "{value:e}: {}", found.rel_error);
    }
    // Entries that differ by more than the squares of f64 can hold.
    let mut tensor = ArrayD::from_elem(IxDyn(&[3, 2, 2]), 1e-200);
    tensor[[0, 0, 0]] = 1e200;
    assert!(als.decompose(tensor.view()).unwrap().rel_error < 1e-6);
}

/// AlexNet's conv1 as a 3-way kernel, just above its exact-rank bound of 192: TensorLy ends in NaN in f32 and at component
/// energies of 10⁴ and more otherwise.
#[test]
fn above_the_exact_rank_bound() {
    let (_, tensor) = planted(&[64, 3, 121], 64, 0.3, 41);
    let rank = exact_rank_bound(tensor.shape()) + 8;
    let als = Als::new(rank).max_iters(300).init(Init::Random { seed: 11_020 });
    let wide = decompose::<f64>(&tensor, &als);
    assert!(
        wide.rel_error < 1e-3 && wide.component_energy < 50.0,
        "{} {}",
        wide.rel_error,
        wide.component_energy
    );
    let single = decompose::<f32>(&tensor, &als);
    assert!(
        single.rel_error < 1e-3 && single.component_energy < 50.0,
        "{} {}",
        single.rel_error,
        single.component_energy
    );
}

/// A tensor of border rank 2 and rank 3: it has no best rank-2 approximation, and two terms of every sequence towards it
/// grow without bound. The ridge keeps them in check (de Silva & Lim 2008).
#[test]
fn no_best_approximation() {
    let [a, b]: [Vec<ndarray::Array2<f64>>; 2] =
        [factors(&[5, 4, 3], 1, 42), factors(&[5, 4, 3], 1, 43)];
    let column = |i: usize, j: usize, k: usize| {
        let pick = |n: usize, which: usize| if which == 0 { a[n].clone() } else { b[n].clone() };
        CpTensor::from_factors(vec![pick(0, i), pick(1, j), pick(2, k)]).unwrap().reconstruct()
    };
    let tensor = column(0, 0, 1) + column(0, 1, 0) + column(1, 0, 0);
    let als = Als::new(2).max_iters(2000).tol(0.0).init(Init::Random { seed: 11_021 });
    for found in
        [decompose::<f64>(&tensor, &als).rel_error, decompose::<f32>(&tensor, &als).rel_error]
    {
        assert!(found < 0.1, "{found}");
    }
    let found = decompose::<f64>(&tensor, &als);
    assert!(found.degeneracy > 0.9 && found.component_energy > 2.0, "degeneracy must show");
    assert!(norm(found.cp.reconstruct().view()).is_finite());
}
