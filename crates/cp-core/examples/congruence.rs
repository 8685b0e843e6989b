//! Two problems that ALS finds hard and two that it does not, as Markdown tables.
//!
//! ```text
//! cargo run --release -p cp-core --example congruence [-- seeds [threads]]
//! ```
//!
//! 1. 60×60×60, R = 10, all columns of a factor at a congruence (cosine) of 0.9, noise of 1e-3: the setting that swamps are
//!    made of. The planted model has error 1.0e-3, the optimum lies a little below.
//! 2. 100×100×100, R = 16, Gaussian factors, 10 % noise: easy but for local minima. Again the planted model bounds the optimum.
//!
//! 3. Convolution kernels (drawn: 40 terms of decaying size, 30 % noise) of AlexNet's first two shapes at published ranks,
//!    where more than ALS earns next to nothing.
//!
//! Errors are relative to the planted model's error: below 1 is the optimum (in 1 and 2).

use std::time::Instant;

use cp_core::{Als, Auto, CpTensor, Init, Nls, Solver, norm, rel_error};
use ndarray::{Array1, Array2, ArrayD, IxDyn, concatenate};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

type Error = Box<dyn std::error::Error>;

/// Independent standard normal entries.
fn gaussian(rng: &mut ChaCha8Rng, rows: usize, columns: usize) -> Array2<f64> {
    Array2::from_shape_simple_fn((rows, columns), || StandardNormal.sample(rng))
}

/// Unit columns of which any two have cosine `congruence`: √c u + √(1−c) eᵣ for orthonormal u, e₁, …, e_R.
fn collinear(
    rng: &mut ChaCha8Rng,
    size: usize,
    rank: usize,
    congruence: f64,
) -> Result<Array2<f64>, Error> {
    let basis = cp_core::truncated_svd(gaussian(rng, size, rank + 1).view(), rank + 1)?.u;
    let (own, shared) = basis.view().split_at(ndarray::Axis(1), rank);
    let shared = concatenate(ndarray::Axis(1), &vec![shared; rank])?;
    Ok(&own * (1.0 - congruence).sqrt() + shared * congruence.sqrt())
}

/// The model's tensor plus Gaussian noise of `noise` times its norm.
fn disturbed(rng: &mut ChaCha8Rng, model: &CpTensor, noise: f64) -> ArrayD<f64> {
    let signal = model.reconstruct();
    let entries = || Distribution::<f64>::sample(&StandardNormal, rng);
    let disturbance = ArrayD::from_shape_simple_fn(IxDyn(signal.shape()), entries);
    let scale = noise * norm(signal.view()) / norm(disturbance.view());
    signal + disturbance * scale
}

/// Prints a row per seed: error relative to the planted model's, seconds, iterations.
fn table(
    title: &str,
    seeds: u64,
    problem: impl Fn(&mut ChaCha8Rng) -> Result<(CpTensor, f64), Error>,
    solvers: impl Fn(u64) -> Vec<Box<dyn Solver<f64>>>,
) -> Result<(), Error> {
    println!("\n### {title}\n");
    let names: Vec<_> = solvers(0).iter().map(|s| s.name()).collect();
    print!("| seed | planted error |");
    names.iter().for_each(|name| print!(" {name}: error / planted | s | iterations |"));
    print!("\n|---|---|");
    names.iter().for_each(|_| print!("---|---|---|"));
    println!();
    for seed in 0..seeds {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (model, noise) = problem(&mut rng)?;
        let tensor = disturbed(&mut rng, &model, noise);
        let planted = rel_error(tensor.view(), &model);
        print!("| {seed} | {planted:.6} |");
        // Solvers start from seeds that no planted model has.
        for solver in solvers(seed + 10_000) {
            #[expect(clippy::disallowed_methods, reason = "the time is part of the table")]
            let start = Instant::now();
            let found = solver.decompose(tensor.view())?;
            let seconds = start.elapsed().as_secs_f64();
            print!(" {:.4} | {seconds:.3} | {} |", found.rel_error / planted, found.iterations());
        }
        println!();
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let seeds = arguments.next().map_or(Ok(10), |text| text.parse())?;
    let threads = arguments.next().map_or(Ok(1), |text| text.parse())?;
    println!("threads: {threads}");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    pool.install(|| -> Result<(), String> { run(seeds).map_err(|error| error.to_string()) })?;
    Ok(())
}

fn run(seeds: u64) -> Result<(), Error> {
    table(
        "Congruence 0.9: 60×60×60, R = 10, noise 1e-3",
        seeds,
        |rng| {
            let factors = (0..3).map(|_| collinear(rng, 60, 10, 0.9)).collect::<Result<_, _>>()?;
            Ok((CpTensor::from_factors(factors)?, 1e-3))
        },
        |seed| {
            let init = Init::Random { seed };
            vec![
                Box::new(Als::new(10).max_iters(400).tol(0.0).init(init.clone())),
                Box::new(Nls::new(10).init(init.clone())),
                Box::new(Auto::new(10).init(init)),
            ]
        },
    )?;
    table(
        "Random factors: 100×100×100, R = 16, noise 0.1",
        seeds,
        |rng| {
            let factors = (0..3).map(|_| gaussian(rng, 100, 16)).collect();
            Ok((CpTensor::from_factors(factors)?, 0.1))
        },
        |seed| {
            let init = Init::Random { seed };
            vec![
                Box::new(Als::new(16).init(init.clone())),
                Box::new(Nls::new(16).init(init.clone())),
                Box::new(Auto::new(16).init(init)),
            ]
        },
    )?;
    for (shape, rank) in [([64, 3, 11, 11], 69), ([192, 64, 5, 5], 154)] {
        table(
            &format!("Convolution kernel {shape:?}, R = {rank}"),
            seeds.min(3),
            |rng| {
                let factors = shape.map(|size| gaussian(rng, size, 40)).to_vec();
                let weights = Array1::from_shape_fn(40, |r| 0.95_f64.powi(r as i32));
                Ok((CpTensor::new(weights, factors)?, 0.3))
            },
            |seed| {
                let init = Init::Random { seed };
                vec![
                    Box::new(Als::new(rank).init(init.clone())),
                    Box::new(Nls::new(rank).max_iters(20).cg_iters(20).init(init.clone())),
                    Box::new(Auto::new(rank).init(init)),
                ]
            },
        )?;
    }
    Ok(())
}
