//! [`Tile`]: the sums of a few pixels times a few vectors of output channels, in registers from the bias to the store.

use pulp::{Simd, WithSimd};

use super::product::{Panel, Product};
use super::{load, store};
use crate::block::{Block, LANES};

/// G × C pixels times V vectors of output channels.
///
/// Every input channel costs V loads of weights and a broadcast for each pixel. The pixels come in G runs of C neighbors; the address of a
/// run is a register, so that C is as large as a map is wide, or 1 where pixels lie anywhere.
pub(super) struct Tile<'a, const G: usize, const C: usize, const V: usize> {
    pub(super) product: &'a Product<'a>,
    pub(super) panel: &'a Panel,
    /// Where the runs start in the input, `[G]`.
    pub(super) inputs: &'a [u32],
    /// Where they start in the output, `[G]`.
    pub(super) outputs: &'a [u32],
    pub(super) output: &'a mut [Block],
}

impl<const G: usize, const C: usize, const V: usize> WithSimd for Tile<'_, G, C, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { product, panel, inputs, outputs, output } = self;
        let packed = product.packed;
        let vectors = LANES / S::F32_LANES;
        let blocks = V / vectors;

        let bias = &packed.bias[panel.first..][..blocks];
        let mut sums = [[[simd.splat_f32s(0.0); V]; C]; G];
        for v in 0..V {
            let start = load::<S>(&bias[v / vectors], v % vectors);
            for run in &mut sums {
                for pixel in run {
                    pixel[v] = start;
                }
            }
        }

        let starts: &[u32] = &inputs[..G];
        let mut weights = &packed.weights[panel.weights.clone()];
        for term in &packed.terms[panel.terms.clone()] {
            let at = product.input_start
                + term.block as usize * product.input_stride
                + term.offset as usize;
            let mut runs: [&[Block; C]; G] = [&[[0.0; LANES]; C]; G];
            for g in 0..G {
                // The slice has the length that it is made for; the compiler sees it and leaves the panic out.
                if let Ok(run) = product.input[at + starts[g] as usize..][..C].try_into() {
                    runs[g] = run;
                }
            }
            let (first, end) = (usize::from(term.first), usize::from(term.end).min(LANES));
            let (now, rest) = weights.split_at((end - first) * blocks);
            weights = rest;
            for (channel, weight) in (first..end).zip(now.chunks_exact(blocks)) {
                let mut w = [simd.splat_f32s(0.0); V];
                for v in 0..V {
                    w[v] = load::<S>(&weight[v / vectors], v % vectors);
                }
                for g in 0..G {
                    for c in 0..C {
                        let x = simd.splat_f32s(runs[g][c][channel]);
                        for v in 0..V {
                            sums[g][c][v] = simd.mul_add_e_f32s(x, w[v], sums[g][c][v]);
                        }
                    }
                }
            }
        }

        for block in 0..blocks {
            let map = product.output_start + (panel.first + block) * product.output_stride;
            for g in 0..G {
                let at = map + outputs[g] as usize;
                let made = &mut output[at..][..C];
                if let Some(residual) = product.residual {
                    let added = &residual.values[residual.start
                        + (panel.first + block) * residual.stride
                        + outputs[g] as usize..][..C];
                    for c in 0..C {
                        for v in 0..vectors {
                            let sum = &mut sums[g][c][block * vectors + v];
                            *sum = simd.add_f32s(*sum, load::<S>(&added[c], v));
                        }
                    }
                }
                for c in 0..C {
                    for v in 0..vectors {
                        let sum = sums[g][c][block * vectors + v];
                        store::<S>(&mut made[c], v, product.clamp.apply(simd, sum));
                    }
                }
            }
        }
    }
}
