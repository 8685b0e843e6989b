//! Ops that treat every pixel alike.

use tch::{TchError, Tensor};

use crate::layout::{channels_behind, channels_in_front, is_channels_last};

/// max(x, 0), written over `x` with `in_place`.
pub(crate) fn relu(x: &Tensor, in_place: bool) -> Result<Tensor, TchError> {
    if in_place { x.shallow_clone().f_relu_() } else { x.f_relu() }
}

/// Sum of tensors of one shape, written over the first with `in_place`.
pub(crate) fn add(inputs: &[&Tensor], in_place: bool) -> Result<Tensor, TchError> {
    let (first, rest) = (inputs[0], &inputs[1..]);
    // Broadcasting would hide a mistake in the architecture.
    if let Some(other) = rest.iter().find(|other| other.size() != first.size()) {
        return Err(TchError::Shape(format!(
            "cannot add {:?} to {:?}",
            other.size(),
            first.size()
        )));
    }
    let mut sum = first.shallow_clone();
    for (index, term) in rest.iter().enumerate() {
        sum = if in_place || index > 0 { sum.f_add_(term)? } else { sum.f_add(term)? };
    }
    Ok(sum)
}

/// Maximum over groups of `pieces` neighbouring channels.
///
/// The pieces are views and the maximum is taken pairwise, which keeps the layout; a reduction (`amax`) over an axis of its
/// own would always write NCHW.
///
/// # Shapes
/// `x`: `[B, C, …]`; result: `[B, C / pieces, …]`.
///
/// Reference: Goodfellow et al. (2013), eq. (3).
pub(crate) fn maxout(x: &Tensor, pieces: usize) -> Result<Tensor, TchError> {
    let size = x.size();
    let pieces = pieces as i64;
    if pieces == 0 || size[1] % pieces != 0 {
        return Err(TchError::Shape(format!(
            "{} channels are no multiple of {pieces} pieces",
            size[1]
        )));
    }
    // Channels-last goes by its axes as they lie in memory, so that the gradient comes back in the same layout.
    let channels_last = is_channels_last(x);
    let x = if channels_last { channels_behind(x)? } else { x.shallow_clone() };
    let axis = if channels_last { size.len() - 1 } else { 1 };
    let mut split = x.size();
    split.splice(axis..=axis, [size[1] / pieces, pieces]);
    let maximum = x
        .f_reshape(split)?
        .f_unbind(axis as i64 + 1)?
        .into_iter()
        .map(Ok)
        .reduce(|a, b| a?.f_maximum(&b?))
        .unwrap_or_else(|| Ok(x.shallow_clone()))?;
    if channels_last { channels_in_front(&maximum) } else { Ok(maximum) }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, Axis};

    use super::*;
    use crate::testing::{assert_close, both_layouts, random};

    fn maxout_slow(x: &ArrayD<f32>, pieces: usize) -> ArrayD<f32> {
        let mut shape = x.shape().to_vec();
        shape[1] /= pieces;
        let mut y = ArrayD::from_elem(shape, f32::NEG_INFINITY);
        for (channel, map) in x.axis_iter(Axis(1)).enumerate() {
            y.index_axis_mut(Axis(1), channel / pieces).zip_mut_with(&map, |y, &x| *y = y.max(x));
        }
        y
    }

    #[track_caller]
    fn check_maxout(shape: &[usize], pieces: usize) {
        let array = random(shape, 11);
        for x in both_layouts(&array) {
            assert_close(&maxout(&x, pieces).unwrap(), &maxout_slow(&array, pieces), 0.0);
            let x = x.set_requires_grad(true);
            assert_close(&maxout(&x, pieces).unwrap(), &maxout_slow(&array, pieces), 0.0);
        }
    }

    #[test]
    fn maxout_is_its_definition() {
        check_maxout(&[2, 6, 3, 4], 2);
        check_maxout(&[2, 6, 3, 4], 3);
        check_maxout(&[1, 4, 1, 1], 4);
        check_maxout(&[2, 4, 5], 1);
        check_maxout(&[2, 8], 4);
        check_maxout(&[1, 4, 2, 3, 2], 2);
    }

    #[test]
    fn maxout_sends_the_gradient_to_the_winner() {
        let array = random(&[2, 6, 2, 2], 3);
        for x in both_layouts(&array) {
            let x = x.set_requires_grad(true);
            maxout(&x, 3).unwrap().sum(tch::Kind::Float).backward();
            let winners = maxout_slow(&array, 3);
            let expected = ArrayD::from_shape_fn(array.raw_dim(), |at| {
                if array[&at] < winners[[at[0], at[1] / 3, at[2], at[3]]] { 0.0 } else { 1.0 }
            });
            assert_close(&x.grad(), &expected, 0.0);
            assert_eq!(x.grad().stride(), x.stride());
        }
    }

    #[test]
    fn maxout_keeps_channels_last() {
        let [_, x] = both_layouts(&random(&[2, 8, 3, 3], 1));
        assert!(is_channels_last(&maxout(&x, 2).unwrap()));
    }

    #[test]
    fn maxout_of_a_remainder_is_an_error() {
        let [x, _] = both_layouts(&random(&[1, 5, 2, 2], 1));
        assert!(maxout(&x, 2).unwrap_err().to_string().contains("5 channels"));
        assert!(maxout(&x, 0).is_err());
    }

    #[test]
    fn add_takes_any_number_of_terms_and_spares_its_inputs() {
        let terms = [1, 2, 3].map(|seed| random(&[1, 2, 3, 3], seed));
        let expected = &terms[0] + &terms[1] + &terms[2];
        let tensors = terms.each_ref().map(both_layouts);
        for layout in [0, 1] {
            let inputs: Vec<&Tensor> = tensors.iter().map(|pair| &pair[layout]).collect();
            assert_close(&add(&inputs, false).unwrap(), &expected, 1e-6);
            assert_close(inputs[0], &terms[0], 0.0);
            assert_close(&add(&inputs[..1], false).unwrap(), &terms[0], 0.0);
        }
        let [short, _] = both_layouts(&random(&[1, 1, 3, 3], 1));
        assert!(
            add(&[&tensors[0][0], &short], false).unwrap_err().to_string().contains("[1, 1, 3, 3]")
        );
    }
}
