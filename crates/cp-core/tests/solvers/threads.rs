//! No result depends on the number of threads, bit for bit: alone on 1, 2 and 4 of them, and beside other tensors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common;
use std::fmt::Debug;
use std::sync::Arc;

use crate::common::{gaussian, narrow, planted};
use cp_core::{
    Als, AlsQr, Auto, DataAwareAls, DataAwareTucker2, Delta, Epc, Hooi, Hosvd, Init,
    InputStatistics, Job, Nls, NonNegAls, PowerMethod, Precompressed, Real, Restarts, SampledAls,
    Solver, TkdCpd, TuckerSolver, decompose_all, extend, gram, mttkrp, truncated_svd, weighted_svd,
};
use ndarray::{ArrayD, ArrayViewD, Ix2};

/// In a pool of its own, so that the number of threads is known.
fn on<R: Send>(threads: usize, body: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(body)
}

/// What `body` returns on one thread, after a comparison with what it returns on others.
fn same<R: Send + PartialEq + Debug>(what: &str, body: impl Fn() -> R + Sync) -> R {
    let one = on(1, &body);
    for threads in [2, 4] {
        assert!(on(threads, &body) == one, "{what} on {threads} threads");
    }
    one
}

fn statistics(size: usize) -> Arc<InputStatistics> {
    let mut statistics = InputStatistics::new(size);
    let inputs = gaussian(&[2 * size, size], 71).into_dimensionality::<Ix2>().unwrap();
    statistics.add(inputs.view()).unwrap();
    Arc::new(statistics)
}

/// Every solver that takes a rank above the sizes of the modes.
fn solvers<T: Real>(rank: usize, size: usize) -> Vec<Box<dyn Solver<T>>> {
    let init = || Init::Random { seed: 12_001 };
    let als = move || Als::new(rank).max_iters(2).init(Init::Random { seed: 12_001 });
    vec![
        Box::new(als()),
        Box::new(als().extrapolate(true).max_iters(3)),
        Box::new(als().init(Init::Hosvd { seed: 12_002 })),
        Box::new(AlsQr::new(rank).max_iters(1).init(init())),
        Box::new(AlsQr::svd(rank).max_iters(1).init(init())),
        Box::new(Nls::new(rank).max_iters(2).cg_iters(3).init(init())),
        Box::new(
            Epc::new(rank).als_sweeps(1).max_iters(2).delta(Delta::Relative(0.5)).init(init()),
        ),
        Box::new(NonNegAls::new(rank).max_iters(2).init(init())),
        Box::new(SampledAls::new(rank).epochs(1).exact_sweeps(1).init(init())),
        Box::new(DataAwareAls::new(rank, statistics(size)).max_iters(1).cg_steps(2).init(init())),
        Box::new(Auto::new(rank).max_iters(2).starts(1).init(init())),
        Box::new(Restarts::<T>::new(2, move |seed| {
            Box::new(Als::new(rank).max_iters(1).init(Init::Random { seed }))
        })),
        Box::new(TkdCpd::new([18, 9], als())),
        Box::new(Precompressed::new(als())),
    ]
}

fn check<T: Real>(tensor: &ArrayD<T>, rank: usize) {
    let size = tensor.len() / tensor.shape()[0];
    for (place, solver) in solvers::<T>(rank, size).iter().enumerate() {
        let what = format!("{} (number {place}) at rank {rank}", solver.name());
        let run = || {
            let found = solver.decompose(tensor.view()).unwrap();
            (found.cp, found.trace, found.rel_error.to_bits())
        };
        let alone = same(&what, run);
        let job = || Job { tensor: tensor.view(), solver: solver.as_ref(), work: 1.0 };
        for found in on(2, || decompose_all(&[job(), job()])) {
            let found = found.unwrap();
            let beside = (found.cp, found.trace, found.rel_error.to_bits());
            assert!(beside == alone, "{what} beside others");
        }
    }
}

#[test]
fn solvers_at_rank_300() {
    let (_, tensor) = planted(&[36, 16, 14], 30, 0.3, 72);
    check(&tensor, 300);
    check(&narrow(&tensor), 300);
}

#[test]
fn solvers_at_rank_500() {
    let (_, tensor) = planted(&[36, 16, 14], 30, 0.3, 73);
    check(&narrow(&tensor), 500);
}

#[test]
fn greedy_terms_and_terms_of_a_residual() {
    let (_, tensor) = planted(&[60, 50, 40], 30, 0.3, 74);
    let power = PowerMethod::new(3).starts(2);
    same("power", || power.decompose(tensor.view()).unwrap().cp);
    let small = on(1, || Als::new(10).max_iters(2).decompose(tensor.view()).unwrap().cp);
    same("extend", || extend(tensor.view(), &small, 300, 12_003).unwrap());
}

#[test]
fn long_modes() {
    let (_, tensor) = planted(&[320, 40, 9], 30, 0.3, 75);
    same("hosvd", || Hosvd::within(0.2).decompose(tensor.view()).unwrap().tucker);
    let hooi = Hooi::new([40, 20, 5]).max_iters(1);
    same("hooi", || hooi.decompose(tensor.view()).unwrap().tucker);
    same("hooi in f32", || hooi.decompose(narrow(&tensor).view()).unwrap().tucker);
    let aware = DataAwareTucker2::new([200, 38], statistics(360)).max_iters(1);
    same("tucker2-sigma", || aware.decompose(tensor.view()).unwrap().tucker);
    same("als-qr at a long mode", || {
        AlsQr::new(12).max_iters(2).decompose(tensor.view()).unwrap().cp
    });
}

#[test]
fn matrices_and_kernels() {
    let matrix = |view: ArrayViewD<'_, f64>| view.to_owned().into_dimensionality::<Ix2>().unwrap();
    let wide = matrix(gaussian(&[310, 500], 76).view());
    same("svd", || truncated_svd(wide.view(), 300).unwrap());
    let single = wide.mapv(|x| x as f32);
    same("svd in f32", || truncated_svd(single.view(), 120).unwrap());
    let statistics = statistics(500);
    same("weighted svd", || weighted_svd(wide.view(), 150, &statistics).unwrap());
    for size in [229, 300, 500] {
        same("gram", || gram(matrix(gaussian(&[411, size], 77).view()).view()));
    }
    // Every number of rows and columns has other edges in a product.
    for rank in (180..=520).step_by(17) {
        let (_, tensor) = planted(&[70, 60, 19], 3, 0.0, 78);
        let factors = common::factors(&[70, 60, 19], rank, 79);
        for mode in 0..3 {
            same("mttkrp", || mttkrp(tensor.view(), &factors, mode));
        }
    }
}
