//! The regression test of ALS by QR: tensors with nearly parallel columns in every mode, and very little noise.
//!
//! Reference: Minster, Viviano, Liu & Ballard (2023), arXiv 2112.10855, §5 (collinear factor matrices).
#![allow(dead_code, reason = "the example and the test use a part each")]

use cp_core::{CpError, CpTensor, norm, truncated_svd};
use ndarray::{Array2, ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// Sizes of the tensor.
pub(crate) const SHAPE: [usize; 3] = [50, 50, 50];
/// Terms, of the tensor and of its models.
pub(crate) const RANK: usize = 5;
/// 1 − congruence of the columns.
pub(crate) const GAPS: [f64; 3] = [1e-4, 1e-7, 1e-10];
/// Norm of the noise relative to that of the exact tensor.
pub(crate) const NOISES: [f64; 3] = [1e-4, 1e-7, 1e-10];

/// A random matrix C `[size, rank]` whose columns have norm 1 and inner products 1 − `gap` with each other.
///
/// C = Q S with random orthonormal columns Q and S = √(CᵀC) = a I + b 11ᵀ. `gap` and not the congruence is the argument,
/// because 1 − (1 − 1e-10) has few digits.
pub(crate) fn collinear(
    size: usize,
    rank: usize,
    gap: f64,
    rng: &mut ChaCha8Rng,
) -> Result<Array2<f64>, CpError> {
    let draw = Array2::from_shape_simple_fn((size, rank), || StandardNormal.sample(rng));
    let q = truncated_svd(draw.view(), rank)?.u;
    let count = rank as f64;
    let a = gap.sqrt();
    let b = ((count - (count - 1.0) * gap).sqrt() - a) / count;
    Ok(q.dot(&(Array2::<f64>::eye(rank) * a + b)))
}

/// Terms of this congruence in every mode, and their sum plus noise of `noise` times its norm.
pub(crate) fn problem(gap: f64, noise: f64, seed: u64) -> Result<(CpTensor, ArrayD<f64>), CpError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let factors = SHAPE.iter().map(|&size| collinear(size, RANK, gap, &mut rng));
    let truth = CpTensor::from_factors(factors.collect::<Result<_, _>>()?)?;
    let exact = truth.reconstruct();
    let mut disturbance: ArrayD<f64> =
        ArrayD::from_shape_simple_fn(IxDyn(&SHAPE), || StandardNormal.sample(&mut rng));
    disturbance *= noise * norm(exact.view()) / norm(disturbance.view());
    Ok((truth, exact + disturbance))
}

/// `cp` with independent normal numbers of standard deviation `distance` added to the entries of the factors.
pub(crate) fn near(cp: &CpTensor, distance: f64, seed: u64) -> CpTensor {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut moved = cp.clone();
    for x in moved.factors.iter_mut().flatten() {
        let step: f64 = StandardNormal.sample(&mut rng);
        *x += distance * step;
    }
    moved
}

/// sin(x₁ + … + x_d) on a grid of `size` points from 0 to 2π in each of `order` directions: rank d exactly.
///
/// Reference: Beylkin & Mohlenkamp (2005), "Algorithms for numerical analysis in high dimensions", §2.
pub(crate) fn sine(order: usize, size: usize) -> ArrayD<f64> {
    let step = 2.0 * std::f64::consts::PI / (size as f64 - 1.0);
    ArrayD::from_shape_fn(IxDyn(&vec![size; order]), |index| {
        (0..order).map(|n| step * index[n] as f64).sum::<f64>().sin()
    })
}
