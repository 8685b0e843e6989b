//! From images of any data set to the input of any network.

#[cfg(feature = "torch")]
mod tensors;

use cp_data::{Batch, Crop, Dataset, Resize, Transform};
use cp_net::{Channels, InputSpec};
use ndarray::{Array4, ArrayD, Axis};

use crate::error::TrainError;
use crate::fit::check_pictures;
#[cfg(feature = "torch")]
pub(crate) use tensors::input_to_tensor;
#[cfg(feature = "torch")]
pub(crate) use tensors::training_transform;
#[cfg(feature = "torch")]
pub use tensors::{images_to_tensor, to_tensors};

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
    if data.features(0).is_some() {
        return Ok(Transform::default());
    }
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

/// A batch as the network's input: its features as they are, pixels by [`images_to_array`].
pub fn to_array(batch: &Batch, input: &InputSpec) -> ArrayD<f32> {
    batch.features.clone().unwrap_or_else(|| images_to_array(&batch.pixels, input))
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
        let of = |values: &[f32]| values.get(channel).or(values.first()).copied();
        let gain = of(&gain).unwrap_or(input.scale as f32);
        let offset = of(&offset).unwrap_or(0.0);
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
