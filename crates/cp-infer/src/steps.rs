//! The kinds of [`Step`](crate::step::Step)s, one algorithm a file.

pub(crate) mod chain;
pub(crate) mod depthwise;
pub(crate) mod direct;
pub(crate) mod elementwise;
pub(crate) mod lanes;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod reference;
pub(crate) mod reorder;
pub(crate) mod rows;

use crate::kernels::activation::Clamp;
use crate::kernels::product::Residual;
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

    /// What is added from pixel `start` of the chunk on.
    pub(crate) fn residual<'a>(&self, opened: Input<'a>, start: usize) -> Option<Residual<'a>> {
        self.residual.map(|_| Residual {
            values: opened.blocks(),
            start: opened.start + start,
            stride: opened.stride,
        })
    }
}
