//! From images of any data set to the input of any network.

use cp_data::{Batch, Crop, Dataset, Resize, Transform};
use cp_net::{Channels, InputSpec};
use cp_torch::tch::{Device, Kind, Tensor};
use cp_torch::{tensor_from_i64, tensor_from_u8};
use ndarray::Array4;

use crate::config::Augmentation;
use crate::error::TrainError;
use crate::fit::check_pictures;

/// Photographs are brought to 8/7 of the network's size before the middle is cut out: 256 for 224 pixels, the convention
/// of ImageNet evaluation since Krizhevsky et al. (2012).
const MARGIN: (usize, usize) = (8, 7);

/// How images of `data` are brought to the size and number of channels that a network expects, without any randomness.
///
/// Images of the right size stay as they are; smaller ones are enlarged; of larger ones the middle is cut out, after shrinking
/// those whose shorter side is more than a quarter too long.
///
/// # Errors
/// Where the first image cannot be read, the set is empty, or the network takes no pictures ([`check_fit`](crate::check_fit())).
pub fn fitting_transform(data: &dyn Dataset, input: &InputSpec) -> Result<Transform, TrainError> {
    let [channels, rows, columns] = picture(data, input)?;
    let (image_channels, height, width) = data.image(0)?.dim();
    let mut transform = Transform {
        channels: (image_channels != channels).then_some(channels),
        ..Transform::default()
    };
    if (height, width) == (rows, columns) {
        return Ok(transform);
    }
    let short = height.min(width);
    let target = rows.max(columns);
    if short < target {
        transform.resize = Some(Resize::Exact { height: rows, width: columns });
        return Ok(transform);
    }
    if 4 * short > 5 * target {
        transform.resize = Some(Resize::ShorterSide(target * MARGIN.0 / MARGIN.1));
    }
    transform.crop = Crop::Center { height: rows, width: columns };
    Ok(transform)
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

/// A batch as the network's input `[B, C, H, W]` and labels `[B]` on `device`: channels put in the network's order, pixels
/// scaled and normalized.
///
/// # Errors
/// Where libtorch has no memory for it.
pub fn to_tensors(
    batch: &Batch,
    input: &InputSpec,
    device: Device,
) -> Result<(Tensor, Tensor), TrainError> {
    let labels = tensor_from_i64(&batch.labels)?.f_to_device(device)?;
    Ok((images_to_tensor(&batch.pixels, input, device)?, labels))
}

/// Pixels `[B, C, H, W]`, 0…255, as the network's input: x = (pixel · scale − mean) / std.
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
    // (p·s − m)/d = p·(s/d) − m/d, with two passes over the pixels.
    let gain = input.std.iter().map(|d| (input.scale / d) as f32).collect();
    let offset = input.mean.iter().zip(&input.std).map(|(m, d)| (m / d) as f32).collect();
    Ok(x.f_mul(&per_channel(gain)?)?.f_sub_(&per_channel(offset)?)?)
}
