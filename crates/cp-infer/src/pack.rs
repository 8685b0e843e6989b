//! Weights into the order in which kernels read them.

use crate::block::{Block, Blocks, LANES, ZERO, blocks_of};
use crate::kernels::product::{Packed, Panel, Term};
use crate::kernels::winograd;

/// The weights of a convolution.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
    pub(crate) groups: usize,
    /// kh and kw.
    pub(crate) kernel: [usize; 2],
    /// `[outputs, inputs / groups, kh, kw]`.
    pub(crate) values: Vec<f32>,
    /// `[outputs]`, or empty.
    pub(crate) bias: Vec<f32>,
}

impl Weights {
    fn at(&self, output: usize, input: usize, tap: usize) -> f32 {
        let taps = self.kernel[0] * self.kernel[1];
        if self.groups == 1 {
            // The usual case by itself: there are as many calls as weights, and the divisions below are slow.
            return self.values[(output * self.inputs + input) * taps + tap];
        }
        let columns = self.inputs / self.groups;
        let group = output / (self.outputs / self.groups);
        match input.checked_sub(group * columns).filter(|column| *column < columns) {
            Some(column) => self.values[(output * columns + column) * taps + tap],
            None => 0.0,
        }
    }

    fn bias(&self, output: usize) -> f32 {
        self.bias.get(output).copied().unwrap_or(0.0)
    }

    /// Output channels in another order; `None` is a channel of zeros.
    pub(crate) fn permuted(&self, order: &[Option<usize>]) -> Weights {
        let row = self.values.len() / self.outputs;
        let mut values = Vec::with_capacity(order.len() * row);
        for output in order {
            match output {
                Some(output) => values.extend(&self.values[output * row..][..row]),
                None => values.resize(values.len() + row, 0.0),
            }
        }
        let bias = order.iter().map(|output| output.map_or(0.0, |output| self.bias(output)));
        Weights { outputs: order.len(), values, bias: bias.collect(), ..self.clone() }
    }

    /// For products, in panels of up to `most` blocks; `offset` is the distance of a tap from the first, in blocks.
    pub(crate) fn packed(&self, most: usize, offset: impl Fn(usize, usize) -> usize) -> Packed {
        let blocks = blocks_of(self.outputs);
        let mut packed = Packed {
            terms: Vec::new(),
            panels: Vec::new(),
            weights: Blocks::default(),
            bias: self.bias_blocks(),
        };
        let mut weights: Vec<Block> = Vec::new();
        let mut first = 0;
        while first < blocks {
            // Blocks of one panel read the same channels.
            let channels = self.channels_of(first);
            let count = (1..most.min(blocks - first))
                .take_while(|next| self.channels_of(first + next) == channels)
                .count()
                + 1;
            let mut terms = Vec::new();
            let start = weights.len();
            for block in channels.start / LANES..blocks_of(channels.end) {
                let from = channels.start.max(block * LANES) - block * LANES;
                let end = channels.end.min((block + 1) * LANES) - block * LANES;
                for (tap, [row, column]) in taps(self.kernel).enumerate() {
                    let offset = offset(row, column) as u32;
                    terms.push(Term {
                        block: block as u32,
                        offset,
                        first: from as u8,
                        end: end as u8,
                    });
                    for lane in from..end {
                        for output in first..first + count {
                            weights.push(self.block(output, block * LANES + lane, tap));
                        }
                    }
                }
            }
            let known = packed.panels.last().map(|panel| panel.terms.clone());
            let known = known.filter(|last| packed.terms[last.clone()] == terms[..]);
            let terms = known.unwrap_or_else(|| {
                let start = packed.terms.len();
                packed.terms.extend(terms);
                start..packed.terms.len()
            });
            packed.panels.push(Panel {
                first,
                blocks: count,
                terms,
                weights: start..weights.len(),
            });
            first += count;
        }
        packed.weights = Blocks::of(&weights);
        packed
    }

    /// For plain products, of one group: a term for each row, channel and tap; `offset` of the three is its distance from the first.
    pub(crate) fn packed_plain(
        &self,
        most: usize,
        offset: impl Fn(usize, usize, usize) -> usize,
    ) -> Packed {
        let [height, width] = self.kernel;
        let mut at = Vec::new();
        for row in 0..height {
            for channel in 0..self.inputs {
                at.extend((0..width).map(|tap| [channel, row, tap]));
            }
        }
        let term = |&[channel, row, tap]: &[usize; 3]| Term {
            block: 0,
            offset: offset(channel, row, tap) as u32,
            first: 0,
            end: 1,
        };
        let (mut panels, mut weights) = (Vec::new(), Vec::new());
        for first in (0..blocks_of(self.outputs)).step_by(most) {
            let blocks = most.min(blocks_of(self.outputs) - first);
            let start = weights.len();
            for &[channel, row, tap] in &at {
                weights.extend(
                    (first..first + blocks)
                        .map(|block| self.block(block, channel, row * width + tap)),
                );
            }
            panels.push(Panel { first, blocks, terms: 0..at.len(), weights: start..weights.len() });
        }
        let terms = at.iter().map(term).collect();
        Packed { terms, panels, weights: Blocks::of(&weights), bias: self.bias_blocks() }
    }

    /// Of a 3×3 window, those of one point of Winograd's products, G g Gᵀ, as a 1×1 window without a bias.
    pub(crate) fn at_point(&self, point: usize) -> Weights {
        let (row, column) = (
            winograd::WEIGHTS[point / winograd::INPUTS],
            winograd::WEIGHTS[point % winograd::INPUTS],
        );
        let value = |g: &[f32]| {
            let mut sum = 0.0;
            for y in 0..3 {
                for x in 0..3 {
                    sum += row[y] * column[x] * f64::from(g[y * 3 + x]);
                }
            }
            sum as f32
        };
        let values = self.values.chunks_exact(9).map(value).collect();
        Weights { kernel: [1; 2], values, bias: Vec::new(), ..self.clone() }
    }

    /// For depthwise kernels: `[blocks, kh · kw]`, and the biases `[blocks]`.
    pub(crate) fn depthwise(&self) -> (Blocks, Blocks) {
        let taps = self.kernel[0] * self.kernel[1];
        let mut weights = Blocks::zeros(blocks_of(self.outputs) * taps);
        for output in 0..self.outputs {
            for tap in 0..taps {
                weights[output / LANES * taps + tap][output % LANES] =
                    self.values[output * taps + tap];
            }
        }
        (weights, self.bias_blocks())
    }

    /// Of one input channel and one tap to a block of output channels.
    fn block(&self, block: usize, input: usize, tap: usize) -> Block {
        let mut weights = ZERO;
        for (lane, weight) in weights.iter_mut().enumerate() {
            if block * LANES + lane < self.outputs {
                *weight = self.at(block * LANES + lane, input, tap);
            }
        }
        weights
    }

    /// The biases, `[blocks]`.
    pub(crate) fn bias_blocks(&self) -> Blocks {
        let mut blocks = Blocks::zeros(blocks_of(self.outputs));
        for output in 0..self.outputs {
            blocks[output / LANES][output % LANES] = self.bias(output);
        }
        blocks
    }

    /// The input channels that a block of output channels reads: those of its groups.
    fn channels_of(&self, block: usize) -> std::ops::Range<usize> {
        let (rows, columns) = (self.outputs / self.groups, self.inputs / self.groups);
        let last = ((block + 1) * LANES).min(self.outputs) - 1;
        block * LANES / rows * columns..(last / rows + 1) * columns
    }
}

fn taps([height, width]: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    (0..height).flat_map(move |row| (0..width).map(move |column| [row, column]))
}
