//! [`InputSpec`]: what a network expects at an input.

use serde::{Deserialize, Serialize};

/// The name of the only input, unless it has one of its own.
pub const INPUT: &str = "input";

/// Order of the colour channels that a network was trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channels {
    /// One grey channel.
    Gray,
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red (Caffe).
    Bgr,
    /// No image: any number of channels from another network's layer, as they are.
    #[default]
    Features,
}

impl Channels {
    /// Number of channels of an image; `None` where any number will do.
    pub fn count(self) -> Option<usize> {
        match self {
            Channels::Gray => Some(1),
            Channels::Rgb | Channels::Bgr => Some(3),
            Channels::Features => None,
        }
    }
}

/// What the network expects at an input, so that data can be prepared without knowing the architecture:
/// x = (pixel · `scale` − `mean`) / `std`, pixels 0…255, channels in the order of `channels`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Name of the value that nodes read; [`INPUT`] where it is left out of a file.
    #[serde(default = "name")]
    pub name: String,
    /// `[channels, height, width]` that the network was built for.
    pub shape: Vec<usize>,
    /// Channel order; features where it is left out of a file.
    #[serde(default)]
    pub channels: Channels,
    /// Multiplier of the pixel value; 1 where it is left out of a file.
    #[serde(default = "scale")]
    pub scale: f64,
    /// Subtracted, per channel in the order of `channels`; 0 where it is left out of a file.
    #[serde(default)]
    pub mean: Vec<f64>,
    /// Divided by, per channel in the order of `channels`; 1 where it is left out of a file.
    #[serde(default)]
    pub std: Vec<f64>,
}

fn name() -> String {
    INPUT.into()
}

fn scale() -> f64 {
    1.0
}

impl InputSpec {
    fn new(shape: Vec<usize>, channels: Channels, scale: f64, mean: &[f64], std: &[f64]) -> Self {
        Self { name: name(), shape, channels, scale, mean: mean.to_vec(), std: std.to_vec() }
    }

    /// The output of another network's layer: any shape without the batch axis, no scaling.
    pub fn features(shape: impl Into<Vec<usize>>) -> Self {
        Self::new(shape.into(), Channels::Features, 1.0, &[], &[])
    }

    /// Square RGB images normalized with ImageNet's statistics, as torchvision's weights expect.
    pub fn imagenet(size: usize) -> Self {
        let (mean, std) = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
        Self::new(vec![3, size, size], Channels::Rgb, 1.0 / 255.0, &mean, &std)
    }

    /// Square BGR images of values 0…255 minus the mean of ImageNet, as Caffe's weights expect.
    pub fn caffe(size: usize) -> Self {
        Self::new(vec![3, size, size], Channels::Bgr, 1.0, &[104.0, 117.0, 123.0], &[1.0; 3])
    }

    /// Square grey images of values 0…1.
    pub fn gray(size: usize) -> Self {
        Self::new(vec![1, size, size], Channels::Gray, 1.0 / 255.0, &[0.0], &[1.0])
    }

    /// The same under another name.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Where means and deviations of an image were left open: 0 and 1.
    pub(crate) fn complete(&mut self) {
        let channels = self.channels.count().unwrap_or(0);
        for (values, value) in [(&mut self.mean, 0.0), (&mut self.std, 1.0)] {
            if values.is_empty() {
                *values = vec![value; channels];
            }
        }
    }
}
