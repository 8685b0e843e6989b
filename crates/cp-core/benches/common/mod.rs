//! Shapes and data that the benches share.
#![allow(dead_code, reason = "each bench uses a part of it")]

use cp_core::{CpTensor, Real};
use faer::{Accum, Mat, Par};
use ndarray::{Array2, ArrayD, IxDyn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// AlexNet's kernels as torchvision has them, with the ranks that Astrid & Lee (2017) publish; the second and third also at
/// R = 200, where the figures of other libraries were taken.
pub(crate) const KERNELS: [(&[usize], usize); 8] = [
    (&[64, 3, 11, 11], 69),
    (&[192, 64, 5, 5], 154),
    (&[192, 64, 5, 5], 200),
    (&[384, 192, 3, 3], 153),
    (&[256, 384, 3, 3], 178),
    (&[256, 384, 3, 3], 200),
    (&[256, 256, 3, 3], 196),
    (&[256, 384, 9], 200),
];

/// `192x64x5x5/R64/f32`.
pub(crate) fn label<T: Real>(shape: &[usize], rank: usize) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("{}/R{rank}/{}", sizes.join("x"), std::any::type_name::<T>())
}

/// Independent standard normal entries.
pub(crate) fn gaussian<T: Real>(shape: &[usize], seed: u64) -> ArrayD<T> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || T::narrow(StandardNormal.sample(&mut rng)))
}

/// A model with standard normal factors.
pub(crate) fn factors<T: Real>(shape: &[usize], rank: usize, seed: u64) -> CpTensor<T> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |&size: &usize| {
        Array2::from_shape_simple_fn((size, rank), || T::narrow(StandardNormal.sample(&mut rng)))
    };
    CpTensor::from_factors(shape.iter().map(&mut draw).collect())
        .expect("sizes and rank are positive")
}

/// A product of as many multiply-adds as one MTTKRP, on the threads of the current pool.
pub(crate) fn matrix_product<T: Real>(shape: &[usize], rank: usize) -> impl FnMut() + use<T> {
    let (rows, inner) = (shape[0], shape[1..].iter().product());
    let left: Mat<T> =
        Mat::from_fn(rows, inner, |i, j| T::narrow(((i * 7 + j * 13) % 17) as f64 - 8.0));
    let right: Mat<T> =
        Mat::from_fn(inner, rank, |i, j| T::narrow(((i * 5 + j * 11) % 19) as f64 - 9.0));
    let mut to = Mat::<T>::zeros(rows, rank);
    let par = if rayon::current_num_threads() == 1 { Par::Seq } else { Par::rayon(0) };
    move || {
        faer::linalg::matmul::matmul(
            to.as_mut(),
            Accum::Replace,
            left.as_ref(),
            right.as_ref(),
            T::one(),
            par,
        )
    }
}
