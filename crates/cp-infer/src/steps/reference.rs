//! [`Reference`]: an op by its definition in cp-net, for what has no kernel here. It is slow, and allocates.

use cp_net::Op;
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn};

use crate::map::Layout;
use crate::step::{BufferId, Frame, Step};

/// What an op reads.
#[derive(Debug)]
pub(crate) enum Operand {
    /// A plain value of this shape, without the batch axis.
    Value(BufferId, Vec<usize>),
    /// A value that does not depend on the image, `[1, …]`.
    Constant(ArrayD<f32>),
}

/// An op by its definition.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) op: Op,
    pub(crate) params: Vec<ArrayD<f32>>,
    pub(crate) inputs: Vec<Operand>,
    pub(crate) outputs: Vec<BufferId>,
}

impl Step for Reference {
    fn run(&self, frame: &mut Frame<'_>) {
        let view = |operand| match operand {
            &Operand::Value(buffer, ref shape) => {
                let shape = [&[frame.count], &shape[..]].concat();
                ArrayViewD::from_shape(IxDyn(&shape), frame.plain(buffer))
                    .unwrap_or_else(|error| unreachable!("a value has its shape: {error}"))
            }
            Operand::Constant(array) => array.view(),
        };
        let inputs: Vec<ArrayViewD<'_, f32>> = self.inputs.iter().map(view).collect();
        let params: Vec<ArrayViewD<'_, f32>> = self.params.iter().map(ArrayD::view).collect();
        let made = self.op.eval(&inputs, &params);
        for (buffer, array) in self.outputs.iter().zip(made) {
            let Layout::Plain(len) = frame.places[buffer.0].layout else { continue };
            let count = frame.count;
            let mut open = frame.open(*buffer, []);
            let to = open.output.plain();
            for image in 0..count {
                // What does not depend on the image is the same for all.
                let row = array.index_axis(Axis(0), image.min(array.len_of(Axis(0)) - 1));
                for (to, from) in to[image * len..][..len].iter_mut().zip(&row) {
                    *to = *from;
                }
            }
        }
    }
}
