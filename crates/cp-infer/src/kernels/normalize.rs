//! [`Normalize`]: local response normalization across channels.

use pulp::{Simd, WithSimd};

use super::{load, store};
use crate::block::{Block, LANES};

/// Pixels at a time: their squares are stored before they are read at other lanes, which a load right behind its store would wait for.
const PIXELS: usize = 16;

/// x · (k + α/n Σ x²)^−β over the n channels around each, for one block of channels.
pub(crate) struct Normalize<'a> {
    /// Channels of the sum, n, at most [`Normalize::MOST`].
    pub(crate) size: usize,
    /// α / n.
    pub(crate) alpha: f32,
    /// β, or `None` for 3/4, which all published networks have and which roots make.
    pub(crate) beta: Option<f32>,
    pub(crate) k: f32,
    /// The block in front, the block itself and the block behind, `[pixels]` each and no pixels where there is none; and how many channels
    /// each has.
    pub(crate) inputs: [&'a [Block]; 3],
    pub(crate) channels: [usize; 3],
    /// `[pixels]`.
    pub(crate) output: &'a mut [Block],
}

impl Normalize<'_> {
    /// So many channels reach no further than the blocks beside.
    pub(crate) const MOST: usize = 2 * LANES;
}

impl WithSimd for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { size, alpha, beta, k, inputs, channels, output } = self;
        let vectors = LANES / S::F32_LANES;
        let (alpha, k) = (simd.splat_f32s(alpha), simd.splat_f32s(k));
        let mut start = 0;
        for made in output.chunks_mut(PIXELS) {
            let mut squares = [[[0.0_f32; LANES]; 3]; PIXELS];
            for place in 0..3 {
                let input = inputs[place].get(start..).unwrap_or_default();
                for (x, squares) in input.iter().zip(&mut squares) {
                    let squares = &mut squares[place];
                    for v in 0..vectors {
                        let x = load::<S>(x, v);
                        store::<S>(squares, v, simd.mul_f32s(x, x));
                    }
                    // Lanes behind the last channel may hold anything.
                    squares[channels[place]..].fill(0.0);
                }
            }
            let first = LANES - size / 2;
            for (index, y) in made.iter_mut().enumerate() {
                let x = &inputs[1][start + index];
                for v in 0..vectors {
                    let squares = &squares[index].as_flattened()[first + v * S::F32_LANES..];
                    let mut sum = simd.splat_f32s(0.0);
                    for offset in 0..size {
                        sum = simd.add_f32s(sum, S::as_simd_f32s(&squares[offset..]).0[0]);
                    }
                    let base = simd.mul_add_e_f32s(alpha, sum, k);
                    if beta.is_some() {
                        store::<S>(y, v, base);
                    } else {
                        let root = simd.sqrt_f32s(base);
                        let power = simd.mul_f32s(root, simd.sqrt_f32s(root));
                        store::<S>(y, v, simd.div_f32s(load::<S>(x, v), power));
                    }
                }
                if let Some(beta) = beta {
                    for lane in 0..LANES {
                        y[lane] = x[lane] / y[lane].powf(beta);
                    }
                }
            }
            start += PIXELS;
        }
    }
}
