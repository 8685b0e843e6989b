//! What error-preserving correction does to the component energy of convolution kernels, as a Markdown table.
//!
//! ```text
//! cargo run --release -p cp-core --example epc_kernels -- --ranks 1.0 --ridge 1e-12 --sweeps 100 kernels/*.npy
//! ```
//!
//! The arguments are f32 kernels `[T, S, kh, kw]` as `.npy` files; with none, drawn kernels of the shapes of AlexNet. `--merge`
//! decomposes them as `[T, S, kh·kw]`; `--ranks` are multiples of the break-even rank, `--rank` an absolute one. Rows are
//! printed where the energy of ALS is above `--above` (default 10), and a summary of all of them at the end.

use std::fmt::Write as _;

use cp_core::{Als, CpTensor, Decomposition, Delta, Epc, Init, Solver, StopReason, norm};
use ndarray::{Array2, ArrayD, IxDyn};
use ndarray_npy::read_npy;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// AlexNet's convolutions, `[T, S, kh, kw]`.
const ALEXNET: [[usize; 4]; 5] =
    [[64, 3, 11, 11], [192, 64, 5, 5], [384, 192, 3, 3], [256, 384, 3, 3], [256, 256, 3, 3]];

type Failure = Box<dyn std::error::Error>;

struct Options {
    ranks: Vec<f64>,
    absolute: Option<usize>,
    ridge: Option<f64>,
    sweeps: usize,
    cycles: usize,
    tol: f64,
    delta: Delta,
    above: f64,
    merge: bool,
    files: Vec<String>,
}

fn options() -> Result<Options, Failure> {
    let mut options = Options {
        ranks: vec![0.5, 1.0],
        absolute: None,
        ridge: None,
        sweeps: 100,
        cycles: 1000,
        tol: 3e-4,
        delta: Delta::Auto,
        above: 10.0,
        merge: false,
        files: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--ranks" => {
                options.ranks = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            "--rank" => options.absolute = Some(value()?.parse()?),
            "--ridge" => options.ridge = Some(value()?.parse()?),
            "--sweeps" => options.sweeps = value()?.parse()?,
            "--cycles" => options.cycles = value()?.parse()?,
            "--tol" => options.tol = value()?.parse()?,
            "--increase" => options.delta = Delta::Increase(value()?.parse()?),
            "--above" => options.above = value()?.parse()?,
            "--merge" => options.merge = true,
            _ => options.files.push(argument),
        }
    }
    Ok(options)
}

/// A model of rank 64 and as much noise, as a stand-in for a kernel.
fn drawn(shape: [usize; 4]) -> Result<ArrayD<f32>, Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut draw =
        |size| Array2::from_shape_simple_fn((size, 64), || StandardNormal.sample(&mut rng));
    let factors: Vec<Array2<f64>> = shape.iter().map(|&size| draw(size)).collect();
    let signal = CpTensor::from_factors(factors)?.reconstruct();
    let scale = norm(signal.view()) / (signal.len() as f64).sqrt();
    let noise: ArrayD<f64> =
        ArrayD::from_shape_simple_fn(IxDyn(&shape), || StandardNormal.sample(&mut rng));
    Ok((signal / scale + noise).mapv(|x| x as f32))
}

/// ALS and its correction.
fn correct(
    kernel: &ArrayD<f32>,
    rank: usize,
    options: &Options,
) -> Result<[Decomposition<f32>; 2], Failure> {
    let mut als = Als::new(rank).max_iters(options.sweeps).init(Init::Random { seed: 2 });
    if let Some(ridge) = options.ridge {
        als = als.ridge(ridge);
    }
    let before = als.decompose(kernel.view())?;
    let epc = Epc::new(rank).delta(options.delta).max_iters(options.cycles).tol(options.tol);
    let after =
        epc.correct(kernel.view(), &before.cp, &mut |_| std::ops::ControlFlow::Continue(()))?;
    Ok([before, after])
}

fn main() -> Result<(), Failure> {
    let options = options()?;
    let mut kernels: Vec<(String, ArrayD<f32>)> = Vec::new();
    for file in &options.files {
        let name = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".npy");
        kernels.push((name.to_owned(), read_npy(file)?));
    }
    if kernels.is_empty() {
        for (i, shape) in ALEXNET.into_iter().enumerate() {
            kernels.push((format!("alexnet-shaped conv{}", i + 1), drawn(shape)?));
        }
    }
    println!(
        "| kernel | shape | R | ALS error | ALS energy | EPC error | EPC energy | fall | more error | cycles | ALS s | EPC s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let (mut all, mut high, mut tenfold, mut within, mut smallest) = (0, 0, 0, 0, f64::INFINITY);
    for (name, kernel) in kernels {
        let shape = kernel.shape().to_vec();
        let kernel = match shape[..] {
            [t, s, h, w] if options.merge => kernel.to_shape((t, s, h * w))?.to_owned().into_dyn(),
            _ => kernel,
        };
        let breakeven = kernel.len() as f64 / kernel.shape().iter().sum::<usize>() as f64;
        let ranks = match options.absolute {
            Some(rank) => vec![rank],
            None => options.ranks.iter().map(|r| ((r * breakeven) as usize).max(1)).collect(),
        };
        for rank in ranks {
            let [before, after] = correct(&kernel, rank, &options)?;
            let fall = before.component_energy / after.component_energy;
            let more = after.rel_error - before.rel_error;
            all += 1;
            if before.component_energy <= options.above {
                continue;
            }
            high += 1;
            tenfold += usize::from(fall >= 10.0);
            within += usize::from(more <= 1e-3);
            smallest = fall.min(smallest);
            let sizes = kernel.shape().iter().fold(String::new(), |mut text, size| {
                let _ = write!(text, "{}{size}", if text.is_empty() { "" } else { "×" });
                text
            });
            println!(
                "| {name} | {sizes} | {rank} | {:.5} | {:.1} | {:.5} | {:.2} | {fall:.1} | {more:.1e} | {}{} | {:.2} | {:.2} |",
                before.rel_error,
                before.component_energy,
                after.rel_error,
                after.component_energy,
                after.iterations(),
                if after.stop == StopReason::MaxIters { " (max)" } else { "" },
                before.seconds,
                after.seconds,
            );
        }
    }
    println!(
        "\n{all} runs; ALS energy above {}: {high}; of these, energy at least 10 times lower: {tenfold}, at most 1e-3 more error: {within}, smallest fall {smallest:.1}",
        options.above
    );
    Ok(())
}
