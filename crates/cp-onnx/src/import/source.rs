//! Where a parameter of the network comes from in the file.

use ndarray::{ArrayD, IxDyn};

/// The tensor that a parameter is read from, and what was done to it on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The graph or function that holds it, as in [`Layer::scope`](crate::Layer::scope).
    pub scope: String,
    /// The value: an initializer, or the output of a `Constant`.
    pub value: String,
    pub(crate) steps: Vec<Step>,
}

/// What was done to a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Axes in another order.
    Transpose(Vec<usize>),
    /// Another shape; this is the one before.
    Reshape(Vec<usize>),
    /// A product with this number, as its bits.
    Scale(u32),
}

impl Source {
    /// The same tensor after another step; what was done and undone is forgotten.
    pub(crate) fn then(&self, step: Step) -> Self {
        let mut source = self.clone();
        match (source.steps.last_mut(), &step) {
            (Some(Step::Transpose(before)), Step::Transpose(after)) => {
                let both: Vec<usize> = after.iter().map(|&axis| before[axis]).collect();
                if both.iter().copied().eq(0..both.len()) {
                    source.steps.pop();
                } else {
                    *before = both;
                }
            }
            // The first shape is the one to come back to.
            (Some(Step::Reshape(_)), Step::Reshape(_)) => {}
            _ => source.steps.push(step),
        }
        source
    }

    /// What the tensor has to hold so that `param` comes out.
    pub(crate) fn undo(&self, param: &ArrayD<f32>) -> Option<ArrayD<f32>> {
        let mut array = param.clone();
        for step in self.steps.iter().rev() {
            array = match step {
                Step::Transpose(axes) => {
                    let mut back = vec![0; axes.len()];
                    for (to, &from) in axes.iter().enumerate() {
                        *back.get_mut(from)? = to;
                    }
                    if back.len() != array.ndim() {
                        return None;
                    }
                    array.permuted_axes(IxDyn(&back)).as_standard_layout().into_owned()
                }
                Step::Reshape(before) => array.into_shape_with_order(IxDyn(before)).ok()?,
                Step::Scale(bits) => {
                    let factor = f32::from_bits(*bits);
                    if factor == 0.0 {
                        return None;
                    }
                    array / factor
                }
            };
        }
        Some(array)
    }
}
