//! Ops that move values without changing them.

use tch::{TchError, Tensor};

/// Every `stride`-th pixel along each spatial axis, between `before` and `after` channels of zeros: the shortcut that
/// has no parameters.
///
/// # Shapes
/// `x`: `[B, C, H, W]`; result: `[B, before + C + after, ⌈H / stride⌉, ⌈W / stride⌉]`.
///
/// Reference: He et al. (2016), §4.2, option A.
pub(crate) fn pad_shortcut(
    x: &Tensor,
    stride: usize,
    before: usize,
    after: usize,
) -> Result<Tensor, TchError> {
    let axes = x.dim();
    let mut picked = x.shallow_clone();
    for axis in 2..axes {
        picked = picked.f_slice(axis as i64, None, None, stride as i64)?;
    }
    let mut padding = vec![0; 2 * axes.saturating_sub(2)];
    padding.extend([before as i64, after as i64]);
    picked.f_constant_pad_nd(padding)
}

#[cfg(test)]
mod tests {
    use ndarray::ArrayD;

    use super::*;
    use crate::layout::is_channels_last;
    use crate::testing::{assert_close, both_layouts, random};

    #[test]
    fn pad_shortcut_is_its_definition() {
        for (height, width, stride, before, after) in
            [(6, 6, 2, 2, 2), (5, 4, 2, 1, 3), (3, 3, 1, 0, 2)]
        {
            let array = random(&[2, 3, height, width], 2);
            let shape =
                vec![2, 3 + before + after, height.div_ceil(stride), width.div_ceil(stride)];
            let expected = ArrayD::from_shape_fn(shape, |at| match at[1].checked_sub(before) {
                Some(channel) if channel < 3 => {
                    array[[at[0], channel, at[2] * stride, at[3] * stride]]
                }
                _ => 0.0,
            });
            for x in both_layouts(&array) {
                assert_close(&pad_shortcut(&x, stride, before, after).unwrap(), &expected, 0.0);
            }
        }
    }

    #[test]
    fn pad_shortcut_keeps_channels_last() {
        let [_, x] = both_layouts(&random(&[2, 4, 6, 6], 1));
        assert!(is_channels_last(&pad_shortcut(&x, 2, 2, 2).unwrap()));
    }
}
