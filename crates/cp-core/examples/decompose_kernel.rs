//! Decomposes a convolution kernel at several ranks and prints what each would bring.
//!
//! ```text
//! cargo run --release -p cp-core --example decompose_kernel
//! ```
//!
//! The kernel is drawn: 40 terms of decaying size plus 20 % noise, of the shape of AlexNet's second convolution. Expect the
//! relative error to fall from about 0.6 at R = 8 to the noise floor of 0.2 at R = 64, where the observer ends the run.

use std::ops::ControlFlow;

use cp_core::{Als, CpError, CpTensor, Init, Solver, norm};
use ndarray::{Array1, Array2, ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// `[T, S, kh, kw]`: output channels, input channels, height, width.
const SHAPE: [usize; 4] = [192, 64, 5, 5];

/// A kernel of the given shape, norm 1 before noise.
fn kernel(shape: &[usize], terms: usize, noise: f64, seed: u64) -> Result<ArrayD<f32>, CpError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw =
        |size| Array2::from_shape_simple_fn((size, terms), || StandardNormal.sample(&mut rng));
    let factors: Vec<Array2<f64>> = shape.iter().map(|&size| draw(size)).collect();
    let weights = Array1::from_shape_fn(terms, |r| 0.95_f64.powi(r as i32));
    let mut kernel = CpTensor::new(weights, factors)?.reconstruct();
    kernel /= norm(kernel.view());
    let scale = noise / (kernel.len() as f64).sqrt();
    let disturbance: ArrayD<f64> = ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        scale * Distribution::<f64>::sample(&StandardNormal, &mut rng)
    });
    Ok((kernel + disturbance).mapv(|x| x as f32))
}

fn main() -> Result<(), CpError> {
    let kernel = kernel(&SHAPE, 40, 0.2, 1)?;
    let breakeven = kernel.len() / SHAPE.iter().sum::<usize>();
    println!("kernel {SHAPE:?}: {} parameters, break-even rank {breakeven}", kernel.len());
    println!(
        "{:>5} {:>9} {:>8} {:>7} {:>7} {:>10}  stop",
        "R", "params", "smaller", "error", "energy", "max |cos|"
    );
    for rank in [8, 16, 32, 64, 128] {
        // The observer may stop a run: here after 200 sweeps or at an error of 0.201, whichever is first.
        let als = Als::new(rank).max_iters(200).tol(1e-6).init(Init::Random { seed: 2 });
        let found = als.decompose_with(kernel.view(), &mut |progress| {
            if progress.rel_error < 0.201 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let parameters = found.cp.parameters();
        println!(
            "{rank:>5} {parameters:>9} {:>7.1}x {:>7.4} {:>7.2} {:>10.3}  {} after {}",
            kernel.len() as f64 / parameters as f64,
            found.rel_error,
            found.component_energy,
            found.degeneracy,
            found.stop,
            found.iterations(),
        );
    }
    Ok(())
}
