//! [`Product`]: output channels of some pixels as weighted sums of input channels, which is what all convolutions but depthwise ones come to.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::activation::Clamp;
use super::target::Target;
use super::tile::Tile;
use crate::block::{Block, Blocks, LANES};

/// Input channels of one tap of the window: lanes `first..end` of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Term {
    /// Which block of the input.
    pub(crate) block: u32,
    /// Distance of the tap from the first tap, in blocks.
    pub(crate) offset: u32,
    pub(crate) first: u8,
    pub(crate) end: u8,
}

/// One or two blocks of output channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panel {
    /// The first block.
    pub(crate) first: usize,
    /// How many.
    pub(crate) blocks: usize,
    /// Its terms, a part of [`Packed::terms`].
    pub(crate) terms: Range<usize>,
    /// Its weights, a part of [`Packed::weights`]: `[term, lane, block]`.
    pub(crate) weights: Range<usize>,
}

/// Weights in the order in which tiles read them.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) terms: Vec<Term>,
    pub(crate) panels: Vec<Panel>,
    pub(crate) weights: Blocks,
    /// `[T / 16]`.
    pub(crate) bias: Blocks,
}

/// The pixels that are made, and where each comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pixels<'a> {
    /// Rows of neighbors, `width` in each; a row starts `input` and `output` pixels behind the one before.
    Rows { rows: usize, width: usize, input: usize, output: usize },
    /// Any: positions in the input and in the output.
    Each { inputs: &'a [u32], outputs: &'a [u32] },
}

impl Pixels<'_> {
    /// So many neighbors.
    pub(crate) fn flat(len: usize) -> Self {
        Pixels::Rows { rows: 1, width: len, input: 0, output: 0 }
    }
}

/// What is added to the sums.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Residual<'a> {
    pub(crate) values: &'a [Block],
    pub(crate) start: usize,
    pub(crate) stride: usize,
}

/// What is done to sums before they are stored, and the first pixel that is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sink<'a> {
    pub(crate) start: usize,
    pub(crate) residual: Option<Residual<'a>>,
    pub(crate) clamp: Clamp,
}

/// output = clamp(weights · input + bias + residual) for some pixels and some panels.
///
/// # Shapes
/// Block b of pixel p of the input lies at `input_start + b · input_stride + p`.
pub(crate) struct Product<'a> {
    pub(crate) packed: &'a Packed,
    pub(crate) panels: Range<usize>,
    pub(crate) input: &'a [Block],
    pub(crate) input_start: usize,
    pub(crate) input_stride: usize,
    pub(crate) pixels: Pixels<'a>,
    pub(crate) sink: Sink<'a>,
}

/// A [`Product`] and where it goes.
pub(crate) struct ProductInto<'a, 'b>(pub(crate) &'a Product<'a>, pub(crate) &'a mut Target<'b>);

impl WithSimd for ProductInto<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(product, output) = self;
        for panel in &product.packed.panels[product.panels.clone()] {
            match (S::F32_LANES, panel.blocks) {
                (LANES, 2) => wide::<S, 2>(simd, product, panel, output),
                (LANES, _) => wide::<S, 1>(simd, product, panel, output),
                (8, _) => narrow::<S, 2>(simd, product, panel, output),
                _ => narrow::<S, 4>(simd, product, panel, output),
            }
        }
    }
}

/// Expands to the call with the tile of `$len` pixels, for each length there is: `run`, neighbors; `each`, of any place.
macro_rules! tiles {
    (run $len:expr, [$($size:literal)*], |$g:ident, $c:ident| $call:expr) => {
        match $len { $($size => { const $g: usize = 1; const $c: usize = $size; $call })* _ => too_long() }
    };
    (each $len:expr, [$($size:literal)*], |$g:ident, $c:ident| $call:expr) => {
        match $len { $($size => { const $g: usize = $size; const $c: usize = 1; $call })* _ => too_long() }
    };
}

/// All pixels of a panel by tiles of up to so many pixels.
macro_rules! panel {
    ($name:ident, $most:literal, $sizes:tt) => {
        #[inline(always)]
        fn $name<S: Simd, const V: usize>(
            simd: S,
            product: &Product<'_>,
            panel: &Panel,
            output: &mut Target<'_>,
        ) {
            match product.pixels {
                Pixels::Rows { rows, width, input, output: to } => {
                    let tiles = width.div_ceil($most);
                    for row in 0..rows {
                        for tile in 0..tiles {
                            let part = part(width, tiles, tile);
                            let inputs = &[(row * input + part.start) as u32];
                            let outputs = &[(row * to + part.start) as u32];
                            tiles!(run part.len(), $sizes, |G, C| {
                                let output = &mut *output;
                                simd.vectorize(Tile::<'_, '_, G, C, V> { product, panel, inputs, outputs, output });
                            });
                        }
                    }
                }
                Pixels::Each { inputs, outputs } => {
                    let tiles = inputs.len().div_ceil($most);
                    for tile in 0..tiles {
                        let part = part(inputs.len(), tiles, tile);
                        let (inputs, outputs) = (&inputs[part.clone()], &outputs[part]);
                        tiles!(each inputs.len(), $sizes, |G, C| {
                            let output = &mut *output;
                            simd.vectorize(Tile::<'_, '_, G, C, V> { product, panel, inputs, outputs, output });
                        });
                    }
                }
            }
        }
    };
}

// As many as leave registers for a vector of weights each and a pixel: 14 × 2 sums of 32 registers, 6 × 2 of 16. Without AVX, six pixels of four
// vectors each are more than the 16 registers hold, and still faster than fewer: the weights are read less often.
panel!(wide, 14, [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
panel!(narrow, 6, [1 2 3 4 5 6]);

pub(super) use tiles;

#[cold]
pub(super) fn too_long() {
    unreachable!("a run is no longer than a tile")
}

/// Part `index` of `len` things in `parts` parts that differ by one at most.
pub(crate) fn part(len: usize, parts: usize, index: usize) -> Range<usize> {
    len * index / parts..len * (index + 1) / parts
}

#[cfg(test)]
mod tests {
    #![allow(clippy::float_cmp, reason = "sums of small whole numbers are exact")]

    use super::*;
    use crate::level::Level;
    use crate::pack::Weights;

    /// Weights of whole numbers from 1 × 1 windows.
    fn weights(inputs: usize, outputs: usize) -> Weights {
        Weights {
            outputs,
            inputs,
            groups: 1,
            kernel: [1; 2],
            values: (0..inputs * outputs).map(|index| (index % 5) as f32 - 2.0).collect(),
            bias: (0..outputs).map(|index| (index % 3) as f32).collect(),
        }
    }

    fn value(pixel: usize, channel: usize) -> f32 {
        ((pixel * 7 + channel * 3) % 9) as f32 - 4.0
    }

    /// A map of `pixels`, NaN where there is no channel.
    fn map(pixels: usize, channels: usize) -> Vec<Block> {
        let blocks = channels.div_ceil(LANES);
        let block = |index: usize| {
            std::array::from_fn(|lane| match index / pixels * LANES + lane {
                channel if channel < channels => value(index % pixels, channel),
                _ => f32::NAN,
            })
        };
        (0..blocks * pixels).map(block).collect()
    }

    /// `pixels` of one map into another at a distance from its start, as neighbors or each by itself, between NaN that must stay.
    fn check(level: Level, [inputs, outputs]: [usize; 2], pixels: usize, each: bool) {
        let weights = weights(inputs, outputs);
        let packed = weights.packed(level.panel_blocks(), |_, _| 0);
        let input = map(pixels, inputs);
        let (start, stride) = (3, pixels + 5);
        let blocks = outputs.div_ceil(LANES);
        let added = vec![[1.0; LANES]; blocks * stride + start];
        let mut output = vec![[f32::NAN; LANES]; blocks * stride + start];
        // Read backwards, written forwards.
        let from: Vec<u32> = (0..pixels as u32).rev().collect();
        let to: Vec<u32> = (0..pixels as u32).collect();
        let product = Product {
            packed: &packed,
            panels: 0..packed.panels.len(),
            input: &input,
            input_start: 0,
            input_stride: pixels,
            pixels: if each {
                Pixels::Each { inputs: &from, outputs: &to }
            } else {
                Pixels::flat(pixels)
            },
            sink: Sink {
                start: 0,
                residual: Some(Residual { values: &added, start, stride }),
                clamp: Clamp::Between(-20.0, 30.0),
            },
        };
        level.run(ProductInto(&product, &mut Target::whole(&mut output, start, stride)));
        for (index, block) in output.iter().enumerate() {
            let (panel, place) = (index / stride, index % stride);
            let Some(pixel) = place.checked_sub(start).filter(|pixel| *pixel < pixels) else {
                assert!(
                    block.iter().all(|value| value.is_nan()),
                    "{level} {pixels}: wrote at {index}"
                );
                continue;
            };
            let source = if each { pixels - 1 - pixel } else { pixel };
            for (lane, &found) in block.iter().enumerate() {
                let channel = panel * LANES + lane;
                let sum: f32 = (0..inputs)
                    .filter(|_| channel < outputs)
                    .map(|k| value(source, k) * weights.values[channel * inputs + k])
                    .sum();
                let bias = if channel < outputs { weights.bias[channel] } else { 0.0 };
                let expected = (sum + bias + 1.0).clamp(-20.0, 30.0);
                assert_eq!(found, expected, "{level} {inputs}→{outputs}, {pixels} pixels");
            }
        }
    }

    #[test]
    fn every_size_of_a_tile_at_every_level() {
        for level in Level::all() {
            for pixels in (1..=15).chain([28, 29]) {
                for channels in [[1, 1], [15, 16], [16, 17], [17, 32], [33, 40]] {
                    for each in [false, true] {
                        check(level, channels, pixels, each);
                    }
                }
            }
        }
    }

    #[test]
    fn parts_differ_by_one_at_most() {
        for len in 0..40 {
            for parts in 1..9 {
                let sizes: Vec<usize> =
                    (0..parts).map(|index| part(len, parts, index).len()).collect();
                assert_eq!(sizes.iter().sum::<usize>(), len);
                assert!(
                    sizes.iter().all(|size| (len / parts..=len.div_ceil(parts)).contains(size))
                );
            }
        }
    }
}
