//! The kernels on AlexNet's layer shapes, each beside a matrix product of the same size.
//!
//! ```text
//! cargo bench -p cp-core --bench kernels
//! RAYON_NUM_THREADS=1 cargo bench -p cp-core --bench kernels -- mttkrp
//! ```
//!
//! Ids: `mttkrp/mode0/192x64x5x5/R64/f32`, `gemm/192x64x5x5/R64/f32`, … The product has as many multiply-adds as one MTTKRP:
//! `[I₀, ∏ others] · [∏ others, R]`. Data: seeded, standard normal.

mod common;

use std::hint::black_box;

use common::{KERNELS, factors, gaussian, label, matrix_product};
use cp_core::{Real, gram, khatri_rao, mttkrp, rel_error, truncated_svd, unfold};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

fn kernels<T: Real>(c: &mut Criterion) {
    for (shape, rank) in KERNELS {
        let id = label::<T>(shape, rank);
        let tensor = gaussian::<T>(shape, 1);
        let model = factors::<T>(shape, rank, 2);

        let mut group = c.benchmark_group("gemm");
        let mut product = matrix_product::<T>(shape, rank);
        group.bench_function(&id, |b| b.iter(&mut product));
        group.finish();

        let mut group = c.benchmark_group("mttkrp");
        for mode in 0..shape.len() {
            group.bench_function(BenchmarkId::new(format!("mode{mode}"), &id), |b| {
                b.iter(|| mttkrp(black_box(tensor.view()), &model.factors, mode));
            });
        }
        group.finish();

        let mut group = c.benchmark_group("rel_error");
        group.bench_function(&id, |b| b.iter(|| rel_error(black_box(tensor.view()), &model)));
        group.finish();

        let mut group = c.benchmark_group("small");
        group.bench_function(BenchmarkId::new("gram", &id), |b| {
            b.iter(|| gram(black_box(model.factors[0].view())))
        });
        group.bench_function(BenchmarkId::new("khatri_rao", &id), |b| {
            let views: Vec<_> = model.factors[1..].iter().map(|f| f.view()).collect();
            b.iter(|| khatri_rao(black_box(&views)));
        });
        group.bench_function(BenchmarkId::new("unfold", &id), |b| {
            b.iter(|| unfold(black_box(tensor.view()), 1))
        });
        group.finish();
    }
}

/// The last linear layer of AlexNet at the published rank.
fn svd(c: &mut Criterion) {
    let mut group = c.benchmark_group("truncated_svd");
    group.sample_size(10);
    let matrix = unfold(gaussian::<f32>(&[1000, 4096], 3).view(), 0);
    group.bench_function("1000x4096/R260/f32", |b| {
        b.iter(|| truncated_svd(black_box(matrix.view()), 260))
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = kernels::<f32>, kernels::<f64>, svd
}
criterion_main!(benches);
