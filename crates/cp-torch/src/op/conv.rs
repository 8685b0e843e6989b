//! Convolutions over any number of axes.

use cp_net::{Conv, ConvTranspose, Padding};
use tch::{TchError, Tensor};

use super::{Forward, Run, pad_list};
use crate::convert::dims;

/// Convolution over 1 to 3 spatial axes.
///
/// # Shapes
/// `x`: `[B, S, H₀, …]`; `weight`: `[T, S / groups, k₀, …]`; `bias`: `[T]`; result: `[B, T, H′₀, …]`.
pub(crate) fn conv(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &Conv,
) -> Result<Tensor, TchError> {
    let axes = conv.kernel.len();
    let size = x.size();
    if size.len() != axes + 2 {
        return Err(TchError::Shape(format!("{axes} spatial axes, got {size:?}")));
    }
    let pairs: Vec<[usize; 2]> =
        (0..axes).map(|axis| conv.padding(axis, size[axis + 2] as usize)).collect();
    let mut x = x.shallow_clone();
    let padding = match symmetric(&pairs) {
        Some(padding) => padding,
        None => {
            let amounts = pairs.iter().map(|&pair| pair.map(|amount| amount as i64));
            x = x.f_constant_pad_nd(pad_list(amounts))?;
            vec![0; axes]
        }
    };
    let (stride, dilation) = (dims(&conv.stride), dims(&conv.dilation));
    x.f_convolution(
        weight,
        bias,
        stride,
        padding,
        dilation,
        false,
        vec![0; axes],
        conv.groups as i64,
    )
}

/// The padding of each axis where it is the same before and behind.
pub(super) fn symmetric(pairs: &[[usize; 2]]) -> Option<Vec<i64>> {
    pairs.iter().map(|[before, behind]| (before == behind).then_some(*before as i64)).collect()
}

impl Forward for Conv {
    fn forward(
        &self,
        inputs: &[&Tensor],
        params: &[Tensor],
        _: Run,
    ) -> Result<Vec<Tensor>, TchError> {
        Ok(vec![conv(inputs[0], &params[0], params.get(1), self)?])
    }

    fn frees_output(&self) -> bool {
        true
    }
}

impl Forward for ConvTranspose {
    fn forward(
        &self,
        inputs: &[&Tensor],
        params: &[Tensor],
        _: Run,
    ) -> Result<Vec<Tensor>, TchError> {
        Ok(vec![conv_transpose(inputs[0], &params[0], params.get(1), self)?])
    }

    fn frees_output(&self) -> bool {
        true
    }
}

/// Transposed convolution over 1 to 3 spatial axes.
///
/// # Shapes
/// `x`: `[B, S, H₀, …]`; `weight`: `[S, T / groups, k₀, …]`; `bias`: `[T]`; result: `[B, T, H′₀, …]`.
fn conv_transpose(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    conv: &ConvTranspose,
) -> Result<Tensor, TchError> {
    let Padding::Each(pairs) = &conv.padding else {
        return Err(TchError::Shape("the padding must be written out".into()));
    };
    let convolve = |padding: Vec<i64>, output_padding: Vec<i64>| {
        x.f_convolution(
            weight,
            bias,
            dims(&conv.stride),
            padding,
            dims(&conv.dilation),
            true,
            output_padding,
            conv.groups as i64,
        )
    };
    if let Some(padding) = symmetric(pairs) {
        return convolve(padding, dims(&conv.output_padding));
    }
    // The whole, and what the paddings cut off; output padding first gives back what was cut off behind.
    let extra = |(pair, added): (&[usize; 2], &usize)| added.saturating_sub(pair[1]) as i64;
    let mut y = convolve(
        vec![0; pairs.len()],
        pairs.iter().zip(&conv.output_padding).map(extra).collect(),
    )?;
    for (axis, ([before, behind], added)) in pairs.iter().zip(&conv.output_padding).enumerate() {
        let cut = before + behind.saturating_sub(*added);
        let left = y.size()[axis + 2] - cut as i64;
        y = y.f_narrow(axis as i64 + 2, *before as i64, left)?;
    }
    Ok(y)
}
