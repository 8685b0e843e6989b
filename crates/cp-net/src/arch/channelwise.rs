//! Channel-wise convolutions: kernels that move along the channels and are shared over space, out of ops that there are.
//!
//! The channels become an axis of a map, `[C, H, W]` → `[1, C, H·W]`, over which a convolution with one column moves. That is the 3-D
//! convolution of the paper with both spatial axes as one: they have one tap, or as many as pixels, so that nothing depends on their number,
//! and engines are at their best over two axes.
//!
//! Reference: Gao, Wang & Ji (NeurIPS 2018).

use super::builder::{Builder, window};
use crate::error::NetError;
use crate::op::{BadField, Conv, Flatten, Gather, Padding, Reshape, Transpose};

/// Channel-wise layers. Nodes in front of and behind `name`, which has the weight, have names that begin with it; the last one makes the
/// current value.
impl Builder {
    /// Group channel-wise convolution: `groups` kernels along the channels, each at every `groups`-th of them, one behind the other.
    ///
    /// y\[k·C/g + j\] = Σ_d K\[k, d\] · x\[g·j + d − before\], with zeros around as TensorFlow's `SAME` puts them.
    ///
    /// # Shapes
    /// `[C, …]` → `[C, …]`; `name.weight`: `[groups, 1, kernel, 1]`.
    ///
    /// # Errors
    /// Reported by [`Builder::build`]: C is no multiple of `groups`, or the kernel is longer than the channels.
    ///
    /// ```
    /// use cp_net::{InputSpec, arch::Builder};
    /// let arch = Builder::new("mixed", InputSpec::features([16, 5, 4])).group_channelwise("mix", 2, 8).build()?;
    /// assert_eq!(arch.param_count(), 2 * 8);
    /// assert_eq!(arch.output_shape([16, 5, 4])?, [16, 5, 4]);
    /// assert_eq!(arch.cost([16, 5, 4])?.total.macs, 8 * 16 * 5 * 4);
    /// # Ok::<(), cp_net::NetError>(())
    /// ```
    pub fn group_channelwise(self, name: &str, groups: usize, kernel: usize) -> Self {
        let shape = self.shape().to_vec();
        let Some(&channels) = shape.first() else { return self.without_channels(name) };
        if groups == 0 || !channels.is_multiple_of(groups) {
            return self.refused(
                name,
                "groups",
                groups,
                format!("a divisor of the {channels} channels"),
            );
        }
        if !(1..=channels).contains(&kernel) {
            return self.refused(name, "kernel", kernel, format!("1 to {channels}, the channels"));
        }
        self.channels_as_axis(name)
            .conv(name, groups, window([kernel, 1]).stride([groups, 1]).same().no_bias())
            .reshape(&format!("{name}.maps"), &shape)
    }

    /// Channel-wise convolution: one kernel along the channels, with (kernel − 1) / 2 zeros before, rounded down, and the rest behind. Behind a
    /// [`depthwise`](Builder::depthwise) convolution it makes the depthwise separable channel-wise convolution.
    ///
    /// # Shapes
    /// `[C, …]` → `[C, …]`; `name.weight`: `[1, 1, kernel, 1]`.
    ///
    /// # Errors
    /// As [`Builder::group_channelwise`].
    pub fn channelwise(self, name: &str, kernel: usize) -> Self {
        self.group_channelwise(name, 1, kernel)
    }

    /// The channel-wise convolution of the paper's released code, where it has a kernel for each pair of positions: a convolution along the
    /// channels whose features are the pixels, padded as [`Builder::channelwise`].
    ///
    /// # Shapes
    /// `[C, …]` with P pixels → `[C, …]`; `name.weight`: `[P, P, kernel]`.
    ///
    /// # Errors
    /// Reported by [`Builder::build`]: the kernel is longer than the channels.
    pub fn channelwise_across_pixels(self, name: &str, kernel: usize) -> Self {
        let shape = self.shape().to_vec();
        let Some(&channels) = shape.first() else { return self.without_channels(name) };
        if !(1..=channels).contains(&kernel) {
            return self.refused(name, "kernel", kernel, format!("1 to {channels}, the channels"));
        }
        let swapped = || Transpose { axes: vec![1, 0] };
        self.op(&format!("{name}.pixels"), Flatten { axis: 1 })
            .op(&format!("{name}.channels_last"), swapped())
            .op(name, {
                let pixels = shape[1..].iter().product();
                let conv = Conv::new(pixels, pixels, [kernel]);
                Conv { padding: Padding::Same, bias: false, ..conv }
            })
            .op(&format!("{name}.channels_first"), swapped())
            .reshape(&format!("{name}.maps"), &shape)
    }

    /// Convolutional classification layer: one kernel over the whole map and C − classes + 1 of its channels, which moves along these and gives a score at
    /// each place, in the place of pooling and a linear layer.
    ///
    /// # Shapes
    /// `[C, …]` with P pixels → `[classes]`; `name.weight`: `[1, 1, C − classes + 1, P]`.
    ///
    /// # Errors
    /// Reported by [`Builder::build`]: there are more classes than channels.
    pub fn convolutional_classifier(self, name: &str, classes: usize) -> Self {
        let Some(kernel) = self.classifier_kernel(classes) else {
            return self.too_many_classes(name, classes);
        };
        let pixels = self.shape()[1..].iter().product();
        self.channels_as_axis(name)
            .conv(name, 1, window([kernel, pixels]).no_bias())
            .flatten(&format!("{name}.scores"))
    }

    /// The classification layer with a kernel of its own for each class, behind a global pooling: what a linear layer is whose weights are zero but for a
    /// band of C − classes + 1 channels.
    ///
    /// # Shapes
    /// `[C, …]` → `[classes]`; `name.weight`: `[classes, 1, C − classes + 1]`.
    ///
    /// # Errors
    /// As [`Builder::convolutional_classifier`].
    pub fn unshared_classifier(self, name: &str, classes: usize) -> Self {
        let Some(kernel) = self.classifier_kernel(classes) else {
            return self.too_many_classes(name, classes);
        };
        let indices = (0..classes).flat_map(|class| class..class + kernel).collect();
        self.global_avg_pool(&format!("{name}.pool"))
            .flatten(&format!("{name}.means"))
            .op(&format!("{name}.windows"), Gather { axis: 0, indices })
            .reshape(&format!("{name}.by_class"), &[classes, kernel])
            .depthwise(name, window([kernel]).no_bias())
            .flatten(&format!("{name}.scores"))
    }

    /// `[C, …]` → `[1, C, P]`.
    fn channels_as_axis(self, name: &str) -> Self {
        let shape = self.shape();
        let pixels = shape.iter().skip(1).product();
        let axes = [1, self.channels(), pixels];
        self.reshape(&format!("{name}.channels"), &axes)
    }

    fn reshape(self, name: &str, shape: &[usize]) -> Self {
        // No value has 2⁶³ of them.
        let shape = shape.iter().map(|&size| size as i64).collect();
        self.op(name, Reshape { shape })
    }

    /// Channels under the kernel; `None` where there are no classes, or more than channels.
    fn classifier_kernel(&self, classes: usize) -> Option<usize> {
        (classes > 0)
            .then(|| (self.channels() + 1).checked_sub(classes))
            .flatten()
            .filter(|&kernel| kernel > 0)
    }

    fn too_many_classes(self, name: &str, classes: usize) -> Self {
        match self.channels() {
            0 => self.without_channels(name),
            channels => {
                self.refused(name, "classes", classes, format!("1 to {channels}, the channels"))
            }
        }
    }

    /// What a convolution says of a value that is no map, or that there is not.
    fn without_channels(self, name: &str) -> Self {
        self.conv(name, 1, window([1, 1]))
    }

    fn refused(self, name: &str, field: &'static str, got: usize, expected: String) -> Self {
        let field = BadField { field, got: got.to_string(), expected };
        self.refuse(NetError::OpField { layer: name.into(), op: "conv", field })
    }
}
