//! [`Depthwise`]: one row of a convolution of every channel by itself.

use pulp::{Simd, WithSimd};

use super::activation::Clamp;
use super::{load, store};
use crate::block::{Block, LANES};

/// The window of a depthwise convolution, for one block of channels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// `[kh · kw]`.
    pub(crate) weights: &'a [Block],
    pub(crate) bias: &'a Block,
    /// Taps along a row, kw.
    pub(crate) taps: usize,
    /// Distance of the windows along a row, in pixels.
    pub(crate) stride: usize,
    /// Distance of the taps along a row, in pixels.
    pub(crate) dilation: usize,
    pub(crate) clamp: Clamp,
}

/// Rows of output, each from kh rows of input that lie anywhere.
///
/// A tile of columns keeps its sums in registers; with 3 or 5 taps at distance 1, the compiler also keeps the pixels that neighboring windows
/// share.
pub(crate) struct Depthwise<'a> {
    pub(crate) window: Window<'a>,
    /// Rows with their padding.
    pub(crate) input: &'a [Block],
    /// Where the rows of each window start, `[rows · kh]`.
    pub(crate) starts: &'a [u32],
    /// `[rows, pitch]`, of which the first `width` of each row are made.
    pub(crate) output: &'a mut [Block],
    pub(crate) pitch: usize,
    pub(crate) width: usize,
}

impl WithSimd for Depthwise<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.window.taps, self.window.stride, self.window.dilation) {
            (3, 1, 1) => rows::<S, 3, 1>(simd, self),
            (3, 2, 1) => rows::<S, 3, 2>(simd, self),
            (5, 1, 1) => rows::<S, 5, 1>(simd, self),
            (_, 1, _) => rows::<S, 0, 1>(simd, self),
            _ => rows::<S, 0, 0>(simd, self),
        }
    }
}

/// With `K` taps at distance 1, or any at any for 0, and windows at distance `STEP`, or any for 0.
#[inline(always)]
fn rows<S: Simd, const K: usize, const STEP: usize>(simd: S, kernel: Depthwise<'_>) {
    let Depthwise { window, input, starts, output, pitch, width } = kernel;
    let height = window.weights.len() / window.taps;
    for (row, starts) in starts.chunks_exact(height).enumerate() {
        let made = &mut output[row * pitch..][..width];
        match S::F32_LANES {
            LANES => columns::<S, K, STEP, 8, 1>(simd, window, input, starts, made),
            8 => columns::<S, K, STEP, 4, 2>(simd, window, input, starts, made),
            _ => columns::<S, K, STEP, 2, 4>(simd, window, input, starts, made),
        }
    }
}

/// One row by tiles of `C` columns, then one by one.
#[inline(always)]
fn columns<S: Simd, const K: usize, const STEP: usize, const C: usize, const V: usize>(
    simd: S,
    window: Window<'_>,
    input: &[Block],
    starts: &[u32],
    output: &mut [Block],
) {
    let mut x = 0;
    while x + C <= output.len() {
        tile::<S, K, STEP, C, V>(simd, window, input, starts, x, &mut output[x..][..C]);
        x += C;
    }
    if C > 4 && x + 4 <= output.len() {
        tile::<S, K, STEP, 4, V>(simd, window, input, starts, x, &mut output[x..][..4]);
        x += 4;
    }
    while x < output.len() {
        tile::<S, K, STEP, 1, V>(simd, window, input, starts, x, &mut output[x..][..1]);
        x += 1;
    }
}

#[inline(always)]
fn tile<S: Simd, const K: usize, const STEP: usize, const C: usize, const V: usize>(
    simd: S,
    window: Window<'_>,
    input: &[Block],
    starts: &[u32],
    x: usize,
    output: &mut [Block],
) {
    let (taps, dilation) = if K == 0 { (window.taps, window.dilation) } else { (K, 1) };
    let stride = if STEP == 0 { window.stride } else { STEP };
    let mut sums = [[simd.splat_f32s(0.0); V]; C];
    for v in 0..V {
        let bias = load::<S>(window.bias, v);
        for sum in &mut sums {
            sum[v] = bias;
        }
    }
    let reach = (C - 1) * stride + (taps - 1) * dilation + 1;
    for (&start, weights) in starts.iter().zip(window.weights.chunks_exact(taps)) {
        let row = &input[start as usize + x * stride..][..reach];
        for k in 0..taps {
            let pixels = &row[k * dilation..][..(C - 1) * stride + 1];
            for v in 0..V {
                let w = load::<S>(&weights[k], v);
                for c in 0..C {
                    let pixel = load::<S>(&pixels[c * stride], v);
                    sums[c][v] = simd.mul_add_e_f32s(pixel, w, sums[c][v]);
                }
            }
        }
    }
    for c in 0..C {
        for v in 0..V {
            store::<S>(&mut output[c], v, window.clamp.apply(simd, sums[c][v]));
        }
    }
}
