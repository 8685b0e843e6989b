//! [`Forward`] and [`Backward`]: the transforms of Winograd's convolution F(4×4, 3×3).
//!
//! Tiles of 4×4 outputs of a 3×3 window at distance 1 are made of 6×6 inputs by 36 products instead of 144: y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A, here
//! with the points 0, ±1, ±2 and ∞.
//!
//! Reference: Lavin & Gray (2016), §4.3.

use pulp::{Simd, WithSimd};

use super::activation::Clamp;
use super::{load, store};
use crate::block::{Block, LANES};

/// Outputs of a tile along each axis.
pub(crate) const TILE: usize = 4;

/// Inputs of a tile along each axis, of which neighboring tiles share two.
pub(crate) const INPUTS: usize = TILE + 2;

/// Products of a tile.
pub(crate) const POINTS: usize = INPUTS * INPUTS;

/// G, of which the weights are made when they are packed.
pub(crate) const WEIGHTS: [[f64; 3]; INPUTS] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Bᵀ d B of a row of tiles, for one block of channels.
pub(crate) struct Forward<'a> {
    /// Rows with their padding, `[6, pitch]`.
    pub(crate) input: &'a [Block],
    pub(crate) pitch: usize,
    pub(crate) tiles: usize,
    /// Point p of tile t goes to p · `stride` + t.
    pub(crate) output: &'a mut [Block],
    pub(crate) stride: usize,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { input, pitch, tiles, output, stride } = self;
        let zero = simd.splat_f32s(0.0);
        for tile in 0..tiles {
            for v in 0..LANES / S::F32_LANES {
                let mut d = [[zero; INPUTS]; INPUTS];
                for row in 0..INPUTS {
                    let from = &input[row * pitch + tile * TILE..][..INPUTS];
                    for column in 0..INPUTS {
                        d[row][column] = load::<S>(&from[column], v);
                    }
                    d[row] = forward(simd, d[row]);
                }
                for column in 0..INPUTS {
                    let made = forward(simd, [0, 1, 2, 3, 4, 5].map(|row| d[row][column]));
                    for row in 0..INPUTS {
                        let at = (row * INPUTS + column) * stride + tile;
                        store::<S>(&mut output[at], v, made[row]);
                    }
                }
            }
        }
    }
}

/// Bᵀ d.
#[inline(always)]
fn forward<S: Simd>(simd: S, d: [S::f32s; INPUTS]) -> [S::f32s; INPUTS] {
    let add = |a, b| simd.add_f32s(a, b);
    let sub = |a, b| simd.sub_f32s(a, b);
    let times = |factor, a, b| simd.mul_add_e_f32s(simd.splat_f32s(factor), a, b);
    let (a, b) = (times(-4.0, d[2], d[4]), times(-4.0, d[1], d[3]));
    let (c, e) = (sub(d[4], d[2]), sub(d[3], d[1]));
    [
        times(4.0, d[0], times(-5.0, d[2], d[4])),
        add(a, b),
        sub(a, b),
        times(2.0, e, c),
        times(-2.0, e, c),
        times(4.0, d[1], times(-5.0, d[3], d[5])),
    ]
}

/// Aᵀ m A of a row of tiles, for one block of channels; and what is done before values are stored.
pub(crate) struct Backward<'a> {
    /// Point p of tile t lies at p · `stride` + t.
    pub(crate) input: &'a [Block],
    pub(crate) stride: usize,
    pub(crate) tiles: usize,
    pub(crate) bias: &'a Block,
    /// Of the size of the output.
    pub(crate) residual: Option<&'a [Block]>,
    pub(crate) clamp: Clamp,
    /// `[rows, width]`, at most four rows.
    pub(crate) output: &'a mut [Block],
    pub(crate) width: usize,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { input, stride, tiles, bias, residual, clamp, output, width } = self;
        let zero = simd.splat_f32s(0.0);
        let rows = output.len() / width;
        for tile in 0..tiles {
            // The last tile may reach beyond the map.
            let columns = TILE.min(width - tile * TILE);
            for v in 0..LANES / S::F32_LANES {
                let bias = load::<S>(bias, v);
                let mut m = [[zero; TILE]; INPUTS];
                for row in 0..INPUTS {
                    let mut points = [zero; INPUTS];
                    for column in 0..INPUTS {
                        let at = (row * INPUTS + column) * stride + tile;
                        points[column] = load::<S>(&input[at], v);
                    }
                    m[row] = backward(simd, points);
                }
                let mut y = [[zero; TILE]; TILE];
                for column in 0..TILE {
                    y[column] = backward(simd, [0, 1, 2, 3, 4, 5].map(|row| m[row][column]));
                }
                for row in 0..rows.min(TILE) {
                    let start = row * width + tile * TILE;
                    for column in 0..columns {
                        let mut value = simd.add_f32s(y[column][row], bias);
                        if let Some(residual) = residual {
                            value = simd.add_f32s(value, load::<S>(&residual[start + column], v));
                        }
                        let value = clamp.apply(simd, value);
                        store::<S>(&mut output[start + column], v, value);
                    }
                }
            }
        }
    }
}

/// Aᵀ m.
#[inline(always)]
fn backward<S: Simd>(simd: S, m: [S::f32s; INPUTS]) -> [S::f32s; TILE] {
    let add = |a, b| simd.add_f32s(a, b);
    let sub = |a, b| simd.sub_f32s(a, b);
    let times = |factor, a, b| simd.mul_add_e_f32s(simd.splat_f32s(factor), a, b);
    let (p, q) = (add(m[1], m[2]), sub(m[1], m[2]));
    let (r, s) = (add(m[3], m[4]), sub(m[3], m[4]));
    [add(add(m[0], p), r), times(2.0, s, q), times(4.0, r, p), add(times(8.0, s, q), m[5])]
}
