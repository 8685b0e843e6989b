//! Plain ALS, ALS-Σ and Tucker-2 in the metric of a layer's inputs, on one kernel.
//!
//! ```text
//! cargo run --release -p cp-core --example data_aware_kernel
//! ```
//!
//! Kernel and inputs are drawn: the inputs are smooth patches, whose neighbouring pixels agree and whose channels are mixtures
//! of a few, as those of a trained network are. Expect the weighted error, which is the relative change of the layer's output,
//! to fall well below that of plain ALS at equal rank, and the plain error to rise.

use cp_core::{
    Als, DataAwareAls, DataAwareTucker2, Decomposition, Init, InputStatistics, Solver,
    weighted_rel_error,
};
use ndarray::{Array2, ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// `[T, S, kh, kw]`.
const SHAPE: [usize; 4] = [96, 64, 3, 3];
const RANK: usize = 96;
/// Patches, and the mixtures their channels are made of.
const PATCHES: usize = 4000;
const SOURCES: usize = 24;

type Failure = Box<dyn std::error::Error>;

/// Patches `[PATCHES, S · kh · kw]`.
fn patches(rng: &mut ChaCha8Rng) -> Array2<f32> {
    let [_, channels, height, width] = SHAPE;
    let mixing: Array2<f32> =
        Array2::from_shape_simple_fn((channels, SOURCES), || StandardNormal.sample(rng));
    let mut patches = Array2::zeros((PATCHES, channels * height * width));
    for mut patch in patches.rows_mut() {
        // Each source is a level and a slope in both directions.
        let sources: Array2<f32> =
            Array2::from_shape_simple_fn((SOURCES, 3), || StandardNormal.sample(rng));
        let levels = mixing.dot(&sources);
        for (at, value) in patch.iter_mut().enumerate() {
            let [s, i, j] = [at / (height * width), at / width % height, at % width];
            let noise: f32 = StandardNormal.sample(rng);
            let slope = (i as f32 - 1.0) * levels[[s, 1]] + (j as f32 - 1.0) * levels[[s, 2]];
            *value = levels[[s, 0]] + 0.3 * slope + 0.5 * noise;
        }
    }
    patches
}

fn main() -> Result<(), Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut statistics = InputStatistics::new(SHAPE[1..].iter().product());
    statistics.add(patches(&mut rng).view())?;
    let kernel: ArrayD<f32> =
        ArrayD::from_shape_simple_fn(IxDyn(&SHAPE), || StandardNormal.sample(&mut rng));
    let init = Init::Random { seed: 2 };

    println!("| method | weighted error | plain error | sweeps | seconds |");
    println!("|---|---|---|---|---|");
    let row = |name: &str, found: &Decomposition<f32>| -> Result<(), Failure> {
        let weighted = weighted_rel_error(kernel.view(), &found.cp, &statistics)?;
        let (error, sweeps, seconds) = (found.rel_error, found.iterations(), found.seconds);
        println!("| {name} | {weighted:.4} | {error:.4} | {sweeps} | {seconds:.2} |");
        Ok(())
    };
    let plain = Als::new(RANK).init(init.clone()).decompose(kernel.view())?;
    row("als", &plain)?;
    let aware = DataAwareAls::new(RANK, statistics.clone()).tol(1e-5);
    row("als-sigma", &aware.clone().init(init).decompose(kernel.view())?)?;
    let start = Init::Factors(plain.cp.cast());
    row("als-sigma after als", &aware.init(start).decompose(kernel.view())?)?;
    let tucker = DataAwareTucker2::new([48, 32], statistics).tol(1e-5).decompose(kernel.view())?;
    let (weighted, error) = (tucker.weighted_error, tucker.rel_error);
    println!("| Tucker-2 (48, 32) | {weighted:.4} | {error:.4} | {} | |", tucker.trace.len());
    Ok(())
}
