//! From images of any data set to the input of any network.

#[cfg(feature = "torch")]
use cp_data::Batch;
use cp_data::{Crop, Dataset, Resize, Transform};
use cp_net::{Channels, InputSpec};
#[cfg(feature = "torch")]
use cp_torch::tch::{Device, Kind, Tensor};
use ndarray::{Array4, ArrayD, Axis};

#[cfg(feature = "torch")]
use crate::config::Augmentation;
use crate::error::TrainError;
use crate::fit::check_pictures;

/// How images of `data` are brought to the size and number of channels that a network expects, without any randomness: each
/// by itself, whatever the others are.
///
/// Images of the right size stay as they are; smaller ones are enlarged until they cover it, and of larger ones the middle is
/// cut out, after shrinking those that are more than a quarter too large ([`Resize::Cover`]). Grey is repeated over three channels, and
/// color becomes grey where the network has one.
///
/// # Errors
/// Where the set is empty, or the network takes no pictures ([`check_fit`](crate::check_fit())).
pub fn fitting_transform(data: &dyn Dataset, input: &InputSpec) -> Result<Transform, TrainError> {
    let [channels, height, width] = picture(data, input)?;
    Ok(Transform {
        resize: Some(Resize::Cover { height, width }),
        crop: Crop::Center { height, width },
        channels: Some(channels),
        ..Transform::default()
    })
}

/// The shape of the pictures that the input takes.
fn picture(data: &dyn Dataset, input: &InputSpec) -> Result<[usize; 3], TrainError> {
    check_pictures(&input.name, input, data)?;
    let mut sizes = [1; 3];
    sizes.iter_mut().zip(&input.shape).for_each(|(size, given)| *size = *given);
    Ok(sizes)
}

/// [`fitting_transform`] with the random changes of training.
///
/// # Errors
/// As [`fitting_transform`].
#[cfg(feature = "torch")]
pub(crate) fn training_transform(
    data: &dyn Dataset,
    input: &InputSpec,
    augmentation: Augmentation,
) -> Result<Transform, TrainError> {
    let mut transform = fitting_transform(data, input)?;
    transform.flip = augmentation.flip;
    let padding = augmentation.crop_padding;
    if padding > 0 {
        let [_, height, width] = picture(data, input)?;
        transform.crop = Crop::Random { height, width, padding };
    }
    Ok(transform)
}

/// Pixels `[B, C, H, W]`, 0…255, as the network's input: channels in its order, x = (pixel · scale − mean) / std.
pub fn images_to_array(pixels: &Array4<u8>, input: &InputSpec) -> ArrayD<f32> {
    let mut x = pixels.mapv(f32::from);
    if input.channels == Channels::Bgr {
        x.invert_axis(Axis(1));
    }
    let (gain, offset) = scaling(input);
    for (channel, mut plane) in x.axis_iter_mut(Axis(1)).enumerate() {
        // One value serves all channels where there is one.
        let of = |values: &[f32]| values[channel.min(values.len() - 1)];
        let (gain, offset) = (of(&gain), of(&offset));
        plane.mapv_inplace(|pixel| pixel * gain - offset);
    }
    x.as_standard_layout().into_owned().into_dyn()
}

/// (p·s − m)/d = p·(s/d) − m/d, channel by channel.
fn scaling(input: &InputSpec) -> (Vec<f32>, Vec<f32>) {
    let gain = input.std.iter().map(|d| (input.scale / d) as f32).collect();
    let offset = input.mean.iter().zip(&input.std).map(|(m, d)| (m / d) as f32).collect();
    (gain, offset)
}

/// A batch as the network's input `[B, C, H, W]` and labels `[B]` on `device`: channels put in the network's order, pixels
/// scaled and normalized.
///
/// # Errors
/// Where libtorch has no memory for it.
#[cfg(feature = "torch")]
pub fn to_tensors(
    batch: &Batch,
    input: &InputSpec,
    device: Device,
) -> Result<(Tensor, Tensor), TrainError> {
    let labels = cp_torch::tensor_from_i64(&batch.labels)?.f_to_device(device)?;
    Ok((images_to_tensor(&batch.pixels, input, device)?, labels))
}

/// [`images_to_array`] on `device`, which does the work.
///
/// # Errors
/// Where libtorch has no memory for it.
#[cfg(feature = "torch")]
pub fn images_to_tensor(
    pixels: &Array4<u8>,
    input: &InputSpec,
    device: Device,
) -> Result<Tensor, TrainError> {
    let mut x = cp_torch::tensor_from_u8(pixels.view().into_dyn())?.f_to_device(device)?;
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

#[cfg(all(test, feature = "torch"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
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
