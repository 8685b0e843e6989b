//! When does sampled ALS pay? Exact and sampled ALS on a cube of planted terms with noise, from the same start.
//!
//! ```text
//! cargo run --release -p cp-core --example sampled_als -- [size] [rank]
//! ```
//!
//! One thread. Each line is one decomposition: seconds with the final error included, the error from all entries, and what
//! the run thought it was after each step.

use cp_core::{Als, CpError, CpTensor, Decomposition, Init, SampledAls, Solver, norm};
use ndarray::{Array2, ArrayD};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// `rank` terms with standard normal factors and 30 % noise.
fn cube(size: usize, rank: usize, seed: u64) -> Result<ArrayD<f32>, CpError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw =
        || Array2::from_shape_simple_fn((size, rank), || StandardNormal.sample(&mut rng));
    let mut tensor = CpTensor::from_factors(vec![draw(), draw(), draw()])?.reconstruct();
    let scale = 0.3 * norm(tensor.view()) / (tensor.len() as f64).sqrt();
    for x in &mut tensor {
        let noise: f32 = StandardNormal.sample(&mut rng);
        *x += scale as f32 * noise;
    }
    Ok(tensor)
}

fn print(name: &str, found: &Decomposition<f32>) {
    let trace: Vec<String> = found.trace.iter().map(|e| format!("{e:.3}")).collect();
    println!(
        "{name:<22} {:>7.2} s  error {:.4}  {}",
        found.seconds,
        found.rel_error,
        trace.join(" ")
    );
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let size = arguments.next().map_or(Ok(300), |a| a.parse())?;
    let rank = arguments.next().map_or(Ok(50), |a| a.parse())?;
    let tensor = cube(size, rank, 1)?;
    println!("{size}×{size}×{size} f32, R = {rank}");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    pool.install(|| {
        for seed in [77, 78, 79] {
            let init = Init::Random { seed };
            println!("start {seed}");
            let als = Als::new(rank).tol(1e-4).init(init.clone());
            print("als, tolerance 1e-4", &als.decompose(tensor.view())?);
            for per_term in [5, 20, 40] {
                let sampled = SampledAls::new(rank).samples(per_term * rank).init(init.clone());
                print(&format!("sampled, S = {per_term} R"), &sampled.decompose(tensor.view())?);
            }
            let sampled = SampledAls::new(rank).exact_sweeps(0).init(init);
            print("sampled, none exact", &sampled.decompose(tensor.view())?);
        }
        Ok::<(), CpError>(())
    })?;
    Ok(())
}
