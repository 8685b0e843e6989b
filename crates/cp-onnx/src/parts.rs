//! [`Parts`]: the kernels that stand for one, and which of them moves along which axis.

use cp_net::{Conv, Factors, Form, NetError, Op, Padding, Rank, replacement};
use ndarray::{Array2, ArrayD, ArrayView2, Axis, IxDyn, concatenate};

use crate::error::OnnxError;
use crate::layers::{Layer, LayerKind};

/// A kernel in the place of another.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Suffix of its names, as cp-net's: `reduce`, `spatial`, `vertical`, `horizontal`, `core`, `expand`, …
    pub suffix: String,
    /// Of convolutions `[out, in / groups, k₀, …]`, of linear layers `[out, in]`.
    pub kernel: ArrayD<f32>,
    /// Groups of a convolution; 1 for linear layers.
    pub groups: usize,
    /// The spatial axes whose stride, padding and dilation it has. Each belongs to one part.
    pub axes: Vec<usize>,
}

/// What a layer is replaced by: its parts in the order in which they run. The last one has the layer's bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// The form, for the record.
    pub form: Form,
    /// The ranks, for the record.
    pub rank: Rank,
    /// The kernels.
    pub parts: Vec<Part>,
}

impl Parts {
    /// From the factors of `layer`, one for each of its groups, as cp-plan makes them.
    ///
    /// # Errors
    /// A form that does not fit the layer, or factors of other shapes than the form has.
    pub fn new(layer: &Layer, factors: &[Factors]) -> Result<Self, OnnxError> {
        let name = &layer.name;
        let part_error = |part: &str, got: Vec<usize>, expected: String| OnnxError::Part {
            layer: name.clone(),
            part: part.into(),
            got,
            expected,
        };
        let unknown = || part_error("", layer.shape.clone(), "the shape of a layer".into());
        let mut op = layer.op().ok_or_else(unknown)?;
        let first = factors.first().filter(|_| factors.len() == layer.groups);
        let Some(&Factors { form, rank, .. }) = first else {
            let expected = format!("factors for each of {} groups", layer.groups);
            return Err(part_error("", vec![factors.len()], expected));
        };
        if factors.iter().any(|other| (other.form, other.rank) != (form, rank)) {
            return Err(part_error("", Vec::new(), "one form and rank for all groups".into()));
        }
        // cp-net says which part carries which axis: the one that inherits the dense layer's stride.
        const MARK: usize = 2;
        if let Op::Conv(conv) = &mut op {
            let axes = conv.kernel.len();
            *conv = Conv { stride: vec![MARK; axes], padding: Padding::none(axes), ..conv.clone() };
        }
        let parts = replacement(name, &op, form, rank)?;
        let whole = parts.into_iter().enumerate().map(|(index, (suffix, op))| {
            let (shape, groups, axes) = match &op {
                Op::Conv(conv) => {
                    let moving = |&axis: &usize| conv.stride[axis] == MARK;
                    let axes = (0..conv.kernel.len()).filter(moving).collect();
                    (conv.weight_shape(), conv.groups, axes)
                }
                Op::Linear(linear) => {
                    (vec![linear.out_features, linear.in_features], 1, Vec::new())
                }
                _ => {
                    return Err(NetError::FormMismatch {
                        layer: name.clone(),
                        form,
                        reason: "it has parts that are no convolutions",
                    }
                    .into());
                }
            };
            let rows = factors.iter().map(|group| group.parts.get(index).map(Array2::view));
            let rows: Option<Vec<ArrayView2<'_, f32>>> = rows.collect();
            let stacked = rows.and_then(|rows| concatenate(Axis(0), &rows).ok());
            let got = stacked.as_ref().map_or(Vec::new(), |stacked| stacked.shape().to_vec());
            let fits = stacked.filter(|stacked| stacked.nrows() == shape[0]);
            let kernel = fits.and_then(|stacked| {
                stacked.as_standard_layout().into_owned().into_shape_with_order(IxDyn(&shape)).ok()
            });
            let kernel = kernel.ok_or_else(|| part_error(suffix, got, format!("{shape:?}")))?;
            Ok(Part { suffix: suffix.into(), kernel, groups, axes })
        });
        Ok(Self { form, rank, parts: whole.collect::<Result<_, OnnxError>>()? })
    }

    /// Whether the parts can stand for `layer`: channels that follow each other, every axis with one part.
    pub(crate) fn check(&self, layer: &Layer) -> Result<(), OnnxError> {
        let conv = layer.kind == LayerKind::Conv;
        let error = |part: &str, got: &[usize], expected: String| {
            let (layer, part) = (layer.name.clone(), part.into());
            Err(OnnxError::Part { layer, part, got: got.to_vec(), expected })
        };
        let &[out, inputs, ref taps @ ..] = &layer.shape[..] else {
            return error("", &layer.shape, "the shape of a layer".into());
        };
        let mut channels = inputs * layer.groups;
        let mut free = vec![true; taps.len()];
        for Part { suffix, kernel, groups, axes } in &self.parts {
            let mut expected = taps.to_vec();
            for (axis, size) in expected.iter_mut().enumerate() {
                if !axes.contains(&axis) {
                    *size = 1;
                }
            }
            for &axis in axes {
                match free.get_mut(axis) {
                    Some(free) if *free => *free = false,
                    _ => {
                        let expected = format!("one part for axis {axis}");
                        return error(suffix, kernel.shape(), expected);
                    }
                }
            }
            let fits = match kernel.shape() {
                [rows, columns, own @ ..] => {
                    *rows > 0
                        && *groups > 0
                        && (conv || *groups == 1)
                        && rows.is_multiple_of(*groups)
                        && columns.checked_mul(*groups) == Some(channels)
                        && own == &expected[..]
                }
                _ => false,
            };
            if !fits {
                let expected = format!("{channels} channels in and {expected:?} taps");
                return error(suffix, kernel.shape(), expected);
            }
            channels = kernel.shape()[0];
        }
        if channels != out || free.contains(&true) || self.parts.is_empty() {
            let expected = format!("{out} channels at the end, and a part for every axis");
            return error("", &layer.shape, expected);
        }
        Ok(())
    }
}
