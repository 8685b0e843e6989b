//! Solvers on AlexNet's layer shapes: time per sweep, and two matrix products of the same size as the floor for it.
//!
//! ```text
//! cargo bench -p cp-core --bench solvers
//! RAYON_NUM_THREADS=1 cargo bench -p cp-core --bench solvers -- R200
//! ```
//!
//! Ids: `als/192x64x5x5/R64/f32` is one run of [`SWEEPS`] sweeps (so that start and final error do not weigh), and
//! `two_gemms/…` the products of as many sweeps. Data: seeded, a model of rank 64 and as much noise.

mod common;

use std::hint::black_box;

use common::{KERNELS, factors, gaussian, label, matrix_product};
use cp_core::{Als, Init, Real, Solver, norm};
use criterion::{Criterion, criterion_group, criterion_main};

/// Sweeps per run.
const SWEEPS: usize = 10;

fn als<T: Real>(c: &mut Criterion)
where
    Als: Solver<T>,
{
    for (shape, rank) in KERNELS {
        let id = label::<T>(shape, rank);
        let signal = factors::<f64>(shape, 64, 1).reconstruct();
        let scale = norm(signal.view()) / (signal.len() as f64).sqrt();
        let tensor = (signal / scale + gaussian::<f64>(shape, 2)).mapv(T::narrow);

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

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(10);
    targets = als::<f32>, als::<f64>
}
criterion_main!(benches);
