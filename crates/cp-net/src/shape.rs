//! Shape inference: what comes out of every node for an input of any size.
//!
//! Shapes are without the batch axis: `[C, H, W]` for feature maps (any number of spatial axes), `[features]` behind
//! [`Op::Flatten`].

use std::collections::BTreeMap;

use crate::check::check_values;
use crate::error::NetError;
use crate::network::{Architecture, INPUT, Network, Node};
use crate::op::{Conv, Op, Pool};

/// Inputs beyond this (16 GiB as f32) are typing errors; products of the sizes behind them might overflow.
const MAX_INPUT_VALUES: usize = 1 << 32;

impl Architecture {
    /// The shape of every node's output, in the order of the nodes, for an input of shape `input`.
    ///
    /// # Shapes
    /// `input`: `[C, H, W]`, without the batch axis; it may differ from the one that the network was built for.
    ///
    /// # Errors
    /// [`NetError::InputShape`] at the first layer that cannot take what it is given.
    pub fn output_shapes(
        &self,
        input: impl AsRef<[usize]>,
    ) -> Result<Vec<(String, Vec<usize>)>, NetError> {
        let input = input.as_ref();
        let values = input.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        if values.is_none_or(|values| values > MAX_INPUT_VALUES) {
            return Err(NetError::InputShape {
                layer: INPUT.into(),
                op: INPUT,
                input: input.to_vec(),
                expected: format!("at most {MAX_INPUT_VALUES} values"),
            });
        }
        let mut known: BTreeMap<&str, Vec<usize>> = BTreeMap::from([(INPUT, input.to_vec())]);
        let mut shapes = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let inputs = node
                .inputs
                .iter()
                .map(|name| {
                    known.get(name.as_str()).map(Vec::as_slice).ok_or_else(|| {
                        NetError::UndefinedInput {
                            layer: node.name.clone(),
                            input: name.clone(),
                            known: known.keys().map(ToString::to_string).collect(),
                        }
                    })
                })
                .collect::<Result<Vec<&[usize]>, _>>()?;
            let shape = node.output_shape(&inputs)?;
            shapes.push((node.name.clone(), shape.clone()));
            known.insert(&node.name, shape);
        }
        Ok(shapes)
    }

    /// The shape of the network's output for an input of shape `input`: `[classes]` for the built-in architectures.
    ///
    /// # Errors
    /// As [`Architecture::output_shapes`]; [`NetError::Empty`] where there are no nodes.
    pub fn output_shape(&self, input: impl AsRef<[usize]>) -> Result<Vec<usize>, NetError> {
        let last = self.output_shapes(input)?.pop();
        last.map(|(_, shape)| shape).ok_or_else(|| NetError::Empty { name: self.name.clone() })
    }
}

impl Network {
    /// See [`Architecture::output_shapes`].
    ///
    /// # Errors
    /// [`NetError::InputShape`] at the first layer that cannot take what it is given.
    pub fn output_shapes(
        &self,
        input: impl AsRef<[usize]>,
    ) -> Result<Vec<(String, Vec<usize>)>, NetError> {
        self.arch.output_shapes(input)
    }
}

impl Node {
    /// The shape of this node's output for inputs of the given shapes.
    ///
    /// # Errors
    /// [`NetError::InputShape`] where the op cannot take them, [`NetError::OpField`] where the op itself is impossible.
    pub fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>, NetError> {
        check_values(&self.name, &self.op)?;
        infer(&self.op, inputs).map_err(|Problem { input, expected }| NetError::InputShape {
            layer: self.name.clone(),
            op: self.op.kind(),
            input,
            expected,
        })
    }
}

/// Why an op cannot take its inputs; the caller knows the layer's name.
struct Problem {
    input: Vec<usize>,
    expected: String,
}

fn problem<T>(input: &[usize], expected: impl Into<String>) -> Result<T, Problem> {
    Err(Problem { input: input.to_vec(), expected: expected.into() })
}

fn infer(op: &Op, inputs: &[&[usize]]) -> Result<Vec<usize>, Problem> {
    let Some(&first) = inputs.first() else {
        return problem(&[], "at least one input");
    };
    match op {
        Op::Conv(conv) => convolved(conv, first),
        Op::Linear(linear) => match first {
            [features] if *features == linear.in_features => Ok(vec![linear.out_features]),
            _ => problem(first, format!("[{}]", linear.in_features)),
        },
        Op::BatchNorm(norm) => match first.first() {
            Some(&channels) if channels == norm.channels => Ok(first.to_vec()),
            _ => problem(first, format!("[{}, …]", norm.channels)),
        },
        Op::MaxPool(pool) | Op::AvgPool(pool) => pooled(pool, first),
        Op::AdaptiveAvgPool { output } => {
            spatial(first, output.len())?;
            Ok(std::iter::once(first[0]).chain(output.iter().copied()).collect())
        }
        Op::Add => match inputs.iter().find(|shape| **shape != first) {
            Some(other) => problem(other, format!("{first:?}, as its first input has")),
            None => Ok(first.to_vec()),
        },
        Op::Concat => {
            let Some((_, rest)) = first.split_first() else {
                return problem(first, "[C, …]");
            };
            if let Some(other) = inputs.iter().find(|shape| shape.get(1..) != Some(rest)) {
                return problem(
                    other,
                    format!("the sizes {rest:?} behind the channels, as its first input has"),
                );
            }
            let channels = inputs.iter().map(|shape| shape[0]).sum();
            Ok(std::iter::once(channels).chain(rest.iter().copied()).collect())
        }
        Op::Maxout { pieces } => match first.split_first() {
            Some((channels, rest)) if channels % pieces == 0 => {
                Ok(std::iter::once(channels / pieces).chain(rest.iter().copied()).collect())
            }
            _ => problem(first, format!("a multiple of {pieces} channels")),
        },
        Op::Flatten => Ok(vec![first.iter().product()]),
        Op::PadShortcut { stride, before, after } => {
            let [channels, height, width] = first else {
                return problem(first, "[C, H, W]");
            };
            Ok(vec![before + channels + after, height.div_ceil(*stride), width.div_ceil(*stride)])
        }
        Op::Lrn(_) | Op::Relu | Op::Dropout { .. } | Op::Softmax => Ok(first.to_vec()),
    }
}

/// Checks for `axes` non-empty spatial axes behind the channels.
fn spatial(input: &[usize], axes: usize) -> Result<(), Problem> {
    if input.len() == axes + 1 && !input.contains(&0) {
        return Ok(());
    }
    let expected = match axes {
        1 => "[C, L]".into(),
        2 => "[C, H, W]".into(),
        _ => format!("channels and {axes} spatial axes"),
    };
    problem(input, expected + " (without a batch axis, no size 0)")
}

fn convolved(conv: &Conv, input: &[usize]) -> Result<Vec<usize>, Problem> {
    spatial(input, conv.kernel.len())?;
    if input[0] != conv.in_channels {
        return problem(input, format!("{} channels", conv.in_channels));
    }
    let mut output = vec![conv.out_channels];
    for (axis, (&size, &kernel)) in input[1..].iter().zip(&conv.kernel).enumerate() {
        let Some(size) = conv.geometry.output_size(axis, size, kernel) else {
            let reach = conv.geometry.dilation[axis] * (kernel - 1) + 1;
            let least = reach.saturating_sub(2 * conv.geometry.padding[axis]);
            return problem(input, format!("at least {least} pixels along spatial axis {axis}"));
        };
        output.push(size);
    }
    Ok(output)
}

fn pooled(pool: &Pool, input: &[usize]) -> Result<Vec<usize>, Problem> {
    spatial(input, pool.kernel.len())?;
    let mut output = vec![input[0]];
    for (axis, &size) in input[1..].iter().enumerate() {
        match pool.output_size(axis, size) {
            Some(size) => output.push(size),
            None => {
                let least = pool.kernel[axis].saturating_sub(2 * pool.padding[axis]);
                return problem(
                    input,
                    format!("at least {least} pixels along spatial axis {axis}"),
                );
            }
        }
    }
    Ok(output)
}

impl Pool {
    /// Output size of axis `axis` for an input of `size` pixels, or `None` where the window does not fit.
    ///
    /// With `ceil` the size is rounded up, and a last window that would start beyond the image and its leading padding is
    /// dropped: the rule of torch (`pooling_output_shape`) and of Caffe (`pooling_layer.cpp`).
    pub fn output_size(&self, axis: usize, size: usize) -> Option<usize> {
        let (kernel, stride, padding) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
        // room = size + 2·padding − kernel, and with `ceil` + stride − 1, which may save a window larger than the image.
        let room =
            (size + 2 * padding + if self.ceil { stride - 1 } else { 0 }).checked_sub(kernel)?;
        let windows = room / stride + 1;
        let beyond = self.ceil && (windows - 1) * stride >= size + padding;
        Some(if beyond { windows - 1 } else { windows }).filter(|&windows| windows > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(kernel: usize, stride: usize, padding: usize, ceil: bool) -> Pool {
        Pool { kernel: vec![kernel], stride: vec![stride], padding: vec![padding], ceil }
    }

    /// Values of `torch.nn.functional.max_pool2d` (2.11), which raises an error where this gives `None`.
    #[test]
    fn pooling_sizes_are_those_of_torch() {
        let check = |size, kernel, stride, padding, ceil, expected| {
            assert_eq!(
                pool(kernel, stride, padding, ceil).output_size(0, size),
                expected,
                "{size} {kernel} {stride}"
            );
        };
        check(55, 3, 2, 0, false, Some(27));
        check(112, 3, 2, 0, false, Some(55));
        check(112, 3, 2, 0, true, Some(56));
        check(112, 3, 2, 1, false, Some(56));
        check(14, 3, 1, 1, true, Some(14));
        // The window that would start at 6 ≥ 5 + 1, in the right padding, is dropped.
        check(5, 2, 2, 1, true, Some(3));
        check(6, 2, 3, 1, true, Some(3));
        check(4, 1, 3, 0, true, Some(2));
        check(3, 1, 3, 0, true, Some(1));
        check(1, 2, 2, 0, true, Some(1));
        check(1, 2, 2, 0, false, None);
        check(1, 4, 2, 0, true, None);
    }

    #[test]
    fn shapes_of_single_ops() {
        let node = |op| Node { name: "x".into(), op, inputs: Vec::new() };
        let check = |op, inputs: &[&[usize]], expected: &[usize]| {
            assert_eq!(node(op).output_shape(inputs).unwrap(), expected);
        };
        check(Op::Concat, &[&[2, 5, 6], &[3, 5, 6]], &[5, 5, 6]);
        check(Op::Add, &[&[2, 5], &[2, 5]], &[2, 5]);
        check(Op::Maxout { pieces: 4 }, &[&[8, 3, 3]], &[2, 3, 3]);
        check(Op::Flatten, &[&[8, 3, 3]], &[72]);
        check(Op::PadShortcut { stride: 2, before: 1, after: 2 }, &[&[4, 5, 6]], &[7, 3, 3]);
        check(Op::AdaptiveAvgPool { output: vec![6, 6] }, &[&[4, 5, 9]], &[4, 6, 6]);
        let error = node(Op::Concat).output_shape(&[&[2, 5, 6], &[3, 5, 7]]).unwrap_err();
        assert!(error.to_string().contains("[3, 5, 7]"), "{error}");
        let error = node(Op::Maxout { pieces: 4 }).output_shape(&[&[6, 3, 3]]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "layer 'x' (maxout) cannot take an input of shape [6, 3, 3]: expected a multiple of 4 channels"
        );
    }
}
