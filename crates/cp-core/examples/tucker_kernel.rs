//! Tucker-2, TKD-CPD and compression on a drawn convolution kernel beside plain ALS.
//!
//! ```text
//! cargo run --release -p cp-core --example tucker_kernel
//! ```
//!
//! One thread, best of three runs. The kernel has 60 terms of slowly decaying size and 30 % noise.

use cp_core::rank::tucker2_ranks;
use cp_core::{
    Als, CpError, CpTensor, Hosvd, Init, Precompressed, SampledAls, Solver, TkdCpd, Tucker2,
    TuckerSolver, norm,
};
use ndarray::{Array1, Array2, ArrayD};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Terms of the kernel: size of term r is 0.97ʳ.
const TERMS: usize = 60;

fn planted(shape: &[usize], terms: usize, noise: f64, seed: u64) -> Result<ArrayD<f32>, CpError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |&size: &usize| {
        Array2::from_shape_simple_fn((size, terms), || StandardNormal.sample(&mut rng))
    };
    let factors = shape.iter().map(&mut draw).collect();
    let weights = Array1::from_shape_fn(terms, |r| 0.97_f32.powi(r as i32));
    let mut tensor = CpTensor::new(weights, factors)?.reconstruct();
    let scale = noise * norm(tensor.view()) / (tensor.len() as f64).sqrt();
    for x in &mut tensor {
        let draw: f32 = StandardNormal.sample(&mut rng);
        *x += scale as f32 * draw;
    }
    Ok(tensor)
}

/// The fastest of three runs; `solve` returns seconds, error and parameters.
fn line(
    name: &str,
    mut solve: impl FnMut() -> Result<(f64, f64, usize), CpError>,
) -> Result<(), CpError> {
    let mut best = f64::INFINITY;
    let (mut error, mut parameters) = (0.0, 0);
    for _ in 0..3 {
        let seconds;
        (seconds, error, parameters) = solve()?;
        best = best.min(seconds);
    }
    println!("  {name:<34} {:>8.1} ms  error {error:.4}  {parameters:>7} parameters", best * 1e3);
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(kernels)?;
    Ok(())
}

fn kernels() -> Result<(), CpError> {
    for shape in [[256, 384, 3, 3], [192, 64, 5, 5]] {
        let x = planted(&shape, TERMS, 0.3, 1)?;
        println!("{shape:?} f32, EVBMF proposes Tucker-2 ranks {:?}", tucker2_ranks(x.view())?);
        let (hosvd, tucker2) = (Hosvd::new([64, 48]).modes([0, 1]), Tucker2::new([64, 48]));
        line("hosvd, ranks 64, 48", || {
            let found = hosvd.decompose(x.view())?;
            Ok((found.seconds, found.rel_error, found.tucker.parameters()))
        })?;
        line("tucker2, ranks 64, 48, 5 sweeps", || {
            let found = tucker2.clone().max_iters(5).tol(0.0).decompose(x.view())?;
            Ok((found.seconds, found.rel_error, found.tucker.parameters()))
        })?;
        for rank in [60, 200] {
            let als = Als::new(rank).tol(0.0).init(Init::Random { seed: 2 });
            line(&format!("als, R = {rank}, 100 sweeps"), || {
                let found = als.decompose(x.view())?;
                Ok((found.seconds, found.rel_error, found.cp.parameters()))
            })?;
            let tkd = TkdCpd::new([64, 48], als.clone()).tucker(tucker2.clone().max_iters(5));
            line(&format!("tkd-cpd, R = {rank}, 100 sweeps"), || {
                let found = tkd.decompose_parts(x.view())?;
                let combined = &found.combined;
                Ok((combined.seconds, combined.rel_error, found.parameters()))
            })?;
            for exact in [0, 2] {
                let sampled =
                    SampledAls::new(rank).exact_sweeps(exact).init(Init::Random { seed: 2 });
                line(&format!("sampled-als, R = {rank}, {exact} exact"), || {
                    let found = sampled.decompose(x.view())?;
                    Ok((found.seconds, found.rel_error, found.cp.parameters()))
                })?;
            }
            let compressed = Precompressed::new(als);
            line(&format!("als precompressed, R = {rank}"), || {
                let found = compressed.decompose(x.view())?;
                Ok((found.seconds, found.rel_error, found.cp.parameters()))
            })?;
        }
    }
    for shape in [[4096, 8, 8], [20_000, 6, 5]] {
        let x = planted(&shape, 16, 0.2, 1)?;
        println!("{shape:?} f32");
        let als = Als::new(16).tol(0.0).init(Init::Random { seed: 2 });
        line("als, R = 16, 100 sweeps", || {
            let found = als.decompose(x.view())?;
            Ok((found.seconds, found.rel_error, found.cp.parameters()))
        })?;
        let compressed = Precompressed::new(als);
        line("als precompressed, R = 16", || {
            let found = compressed.decompose(x.view())?;
            Ok((found.seconds, found.rel_error, found.cp.parameters()))
        })?;
    }
    Ok(())
}
