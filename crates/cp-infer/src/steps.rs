//! The kinds of [`Step`](crate::step::Step)s, one algorithm a file.

pub(crate) mod across;
pub(crate) mod chain;
pub(crate) mod depthwise;
pub(crate) mod direct;
pub(crate) mod elementwise;
pub(crate) mod first;
pub(crate) mod place;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod reference;
pub(crate) mod reorder;
pub(crate) mod rows;
pub(crate) mod winograd;
pub(crate) mod workers;

use crate::kernels::activation::Clamp;
use crate::kernels::product::{Residual, Sink};
use crate::step::{BufferId, Frame, Input, Open};

/// What a layer reads and makes, and what is done to its sums before they are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) input: BufferId,
    pub(crate) output: BufferId,
    /// A map that is added.
    pub(crate) residual: Option<BufferId>,
    pub(crate) clamp: Clamp,
}

impl Ends {
    /// The input, and the residual or the input again.
    pub(crate) fn open<'a>(&self, frame: &'a mut Frame<'_>) -> Open<'a, 2> {
        frame.open(self.output, [self.input, self.residual.unwrap_or(self.input)])
    }

    /// The sink of sums that are stored from pixel `start` of the chunk on.
    pub(crate) fn sink<'a>(&self, residual: Input<'a>, start: usize) -> Sink<'a> {
        Sink {
            start,
            residual: self.residual.map(|_| Residual {
                values: residual.blocks(),
                start: residual.start + start,
                stride: residual.stride,
            }),
            clamp: self.clamp,
        }
    }
}
