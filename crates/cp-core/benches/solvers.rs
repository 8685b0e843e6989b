//! Solvers on AlexNet's layer shapes: time per sweep, and two matrix products of the same size as the floor for it.
//!
//! ```text
//! cargo bench -p cp-core --bench solvers
//! RAYON_NUM_THREADS=1 cargo bench -p cp-core --bench solvers -- R200
//! ```
//!
//! Ids: `als/192x64x5x5/R64/f32` is one run of [`SWEEPS`] sweeps (so that start and final error do not weigh), and
//! `two_gemms/…` the products of as many sweeps. `nls/…` and the like are [`STEPS`] iterations of the other methods, on the
//! first two layers. Data: seeded, a model of rank 64 and as much noise.

mod common;

use std::hint::black_box;

use common::{KERNELS, factors, gaussian, label, matrix_product};
use cp_core::{Als, AlsQr, Epc, Init, Nls, NonNegAls, PowerMethod, Real, Solver, norm};
use criterion::{Criterion, criterion_group, criterion_main};
use ndarray::ArrayD;

/// Sweeps per run.
const SWEEPS: usize = 10;
/// Iterations of the slower methods per run.
const STEPS: usize = 3;

/// A model of rank 64 and as much noise.
fn kernel<T: Real>(shape: &[usize]) -> ArrayD<T> {
    let signal = factors::<f64>(shape, 64, 1).reconstruct();
    let scale = norm(signal.view()) / (signal.len() as f64).sqrt();
    (signal / scale + gaussian::<f64>(shape, 2)).mapv(T::narrow)
}

fn als<T: Real>(c: &mut Criterion) {
    for (shape, rank) in KERNELS {
        let id = label::<T>(shape, rank);
        let tensor = kernel::<T>(shape);
        let mut group = c.benchmark_group("als");
        let solver = Als::new(rank).tol(0.0).max_iters(SWEEPS).init(Init::Random { seed: 3 });
        group.bench_function(&id, |b| b.iter(|| solver.decompose(black_box(tensor.view()))));
        group.finish();

        let mut group = c.benchmark_group("two_gemms");
        let mut product = matrix_product::<T>(shape, rank);
        group.bench_function(&id, |b| {
            b.iter(|| {
                for _ in 0..2 * SWEEPS {
                    product();
                }
            });
        });
        group.finish();
    }
}

fn others<T: Real>(c: &mut Criterion) {
    let init = || Init::Random { seed: 3 };
    for (shape, rank) in &KERNELS[..2] {
        let (tensor, rank) = (kernel::<T>(shape), *rank);
        let solvers: [Box<dyn Solver<T>>; 6] = [
            Box::new(Als::new(rank).tol(0.0).max_iters(STEPS).extrapolate(true).init(init())),
            Box::new(AlsQr::new(rank).tol(0.0).max_iters(STEPS).init(init())),
            Box::new(Nls::new(rank).tol(0.0).max_iters(STEPS).init(init())),
            Box::new(Epc::new(rank).als_sweeps(STEPS).max_iters(STEPS).init(init())),
            Box::new(NonNegAls::new(rank).tol(0.0).max_iters(STEPS).init(init())),
            // All terms: it has no other unit.
            Box::new(PowerMethod::new(rank).max_iters(STEPS)),
        ];
        for (place, solver) in solvers.iter().enumerate() {
            let name = if place == 0 { "als_extrapolated" } else { solver.name() };
            let mut group = c.benchmark_group(name);
            group.bench_function(label::<T>(shape, rank), |b| {
                b.iter(|| solver.decompose(black_box(tensor.view())));
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = als::<f32>, als::<f64>, others::<f32>, others::<f64>
}
criterion_main!(benches);
