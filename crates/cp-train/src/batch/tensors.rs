//! Images as tensors, and as training changes them.

use cp_data::{Batch, Crop, Dataset, Transform};
use cp_net::{Channels, InputSpec};
use cp_torch::tch::{Device, Kind, Tensor};
use cp_torch::{tensor_from_f32, tensor_from_i64, tensor_from_u8};
use ndarray::Array4;

use super::{fitting_transform, picture, scaling};
use crate::config::Augmentation;
use crate::error::TrainError;

/// [`fitting_transform`] with the random changes of training.
///
/// # Errors
/// As [`fitting_transform`].
pub(crate) fn training_transform(
    data: &dyn Dataset,
    input: &InputSpec,
    augmentation: Augmentation,
) -> Result<Transform, TrainError> {
    let mut transform = fitting_transform(data, input)?;
    if data.features(0).is_some() {
        // There are no pixels to change.
        return Ok(transform);
    }
    transform.flip = augmentation.flip;
    let padding = augmentation.crop_padding;
    if padding > 0 {
        let [_, height, width] = picture(data, input)?;
        transform.crop = Crop::Random { height, width, padding };
    }
    Ok(transform)
}

/// A batch as the network's input `[B, C, H, W]` and labels `[B]` on `device`: channels put in the network's order, pixels
/// scaled and normalized; features as they are.
///
/// # Errors
/// Where libtorch has no memory for it.
pub fn to_tensors(
    batch: &Batch,
    input: &InputSpec,
    device: Device,
) -> Result<(Tensor, Tensor), TrainError> {
    let labels = tensor_from_i64(&batch.labels)?.f_to_device(device)?;
    Ok((input_to_tensor(batch, input, device)?, labels))
}

/// [`to_array`](super::to_array) on `device`, which does the work.
///
/// # Errors
/// Where libtorch has no memory for it.
pub(crate) fn input_to_tensor(
    batch: &Batch,
    input: &InputSpec,
    device: Device,
) -> Result<Tensor, TrainError> {
    match &batch.features {
        Some(features) => Ok(tensor_from_f32(features.view())?.f_to_device(device)?),
        None => images_to_tensor(&batch.pixels, input, device),
    }
}

/// [`images_to_array`](super::images_to_array) on `device`, which does the work.
///
/// # Errors
/// Where libtorch has no memory for it.
pub fn images_to_tensor(
    pixels: &Array4<u8>,
    input: &InputSpec,
    device: Device,
) -> Result<Tensor, TrainError> {
    let mut x = tensor_from_u8(pixels.view().into_dyn())?.f_to_device(device)?;
    if input.channels == Channels::Bgr {
        x = x.f_flip([1])?;
    }
    let x = x.f_to_kind(Kind::Float)?;
    let per_channel = |values: Vec<f32>| -> Result<Tensor, TrainError> {
        Ok(Tensor::f_from_slice(&values)?.f_reshape([1, -1, 1, 1])?.f_to_device(device)?)
    };
    // Two passes over the pixels.
    let (gain, offset) = scaling(input);
    Ok(x.f_mul(&per_channel(gain)?)?.f_sub_(&per_channel(offset)?)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::super::images_to_array;
    use super::*;

    #[test]
    fn arrays_and_tensors_are_equal_to_the_bit() {
        let pixels = Array4::from_shape_fn((2, 3, 5, 4), |(i, c, y, x)| {
            (97 * i + 61 * c + 13 * y + 7 * x) as u8
        });
        for channels in [Channels::Rgb, Channels::Bgr] {
            let input = InputSpec { channels, ..InputSpec::imagenet(8) };
            let tensor = images_to_tensor(&pixels, &input, Device::Cpu).unwrap();
            let array = cp_torch::array_from_tensor(&tensor).unwrap();
            assert_eq!(images_to_array(&pixels, &input), array);
        }
    }
}
