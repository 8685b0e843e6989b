//! What the tests of training and of compression share: small images that can be learned in a second.

use std::ops::Range;
use std::sync::Arc;

use cp_data::Images;
use ndarray::Array4;
use rand::{Rng, SeedableRng};

/// Noise with a bright quadrant that gives the class away, 8 × 8 and grey; the same for the same range.
pub(crate) fn images(range: Range<usize>) -> Arc<Images> {
    let count = range.len();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(range.start as u64 + 1);
    let labels: Vec<usize> = range.map(|i| i % 3).collect();
    let pixels = Array4::from_shape_fn((count, 1, 8, 8), |(i, _, row, column)| {
        let bright = (row / 4, column / 4) == [(0, 0), (0, 1), (1, 0)][labels[i]];
        rng.random_range(0..100) + if bright { 120 } else { 0 }
    });
    let classes = ["a", "b", "c"].map(String::from).to_vec();
    Arc::new(Images::new("quadrants", classes, pixels, labels).unwrap())
}
