//! The order of the values in memory: NCHW or channels-last.

use cp_net::Architecture;
use tch::{Device, TchError, Tensor};

/// The order in memory of the maps and kernels of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Chosen by a rule for the network and the device, see [`Layout::resolve`].
    #[default]
    Auto,
    /// Map after map, as PyTorch does by default.
    Nchw,
    /// Pixel after pixel, all channels of a pixel together (NHWC, NDHWC). Networks over one spatial axis have no such layout
    /// in libtorch and run as [`Layout::Nchw`].
    ChannelsLast,
}

impl Layout {
    /// [`Layout::Nchw`] or [`Layout::ChannelsLast`].
    ///
    /// [`Layout::Auto`] is channels-last on the CPU for networks over two or three spatial axes, dense or factorized, to run
    /// or to train; NCHW on CUDA (not measured: cuDNN's channels-last kernels are made for half precision, and this crate
    /// computes in f32); NCHW over one axis. It is a rule and no measurement at run time, so that a run can be repeated.
    ///
    /// Measured on a shared 4-core Xeon (AVX-512), one thread, libtorch 2.11.0, fastest of interleaved calls, in ms, with
    /// `cargo run -p cp-torch --example layouts -- 1`; CP layers at a quarter of their break-even rank. c-l is
    /// channels-last, × what NCHW takes longer:
    ///
    /// | network | form | batch | evaluation c-l | NCHW | × | training c-l | NCHW | × |
    /// |---|---|---|---|---|---|---|---|---|
    /// | resnet20 | dense | 1 | 1.6 | 1.8 | 1.11 | 6.8 | 8.7 | 1.29 |
    /// | resnet20 | dense | 32 | 28.4 | 33.4 | 1.18 | 109 | 134 | 1.23 |
    /// | resnet20 | cp3 | 1 | 1.9 | 2.4 | 1.22 | 9.2 | 10.5 | 1.15 |
    /// | resnet20 | cp3 | 32 | 22.4 | 43.6 | 1.95 | 94.0 | 155 | 1.65 |
    /// | resnet20 | cp4 | 1 | 2.9 | 3.9 | 1.36 | 11.8 | 14.3 | 1.21 |
    /// | resnet20 | cp4 | 32 | 26.1 | 55.2 | 2.12 | 113 | 203 | 1.80 |
    /// | charnet | dense | 1 | 2.8 | 3.4 | 1.20 | 16.5 | 14.5 | 0.88 |
    /// | charnet | dense | 32 | 25.6 | 30.3 | 1.18 | 136 | 122 | 0.90 |
    /// | charnet | cp3 | 1 | 1.2 | 1.2 | 1.00 | 29.1 | 13.1 | 0.45 |
    /// | charnet | cp3 | 32 | 35.0 | 44.0 | 1.26 | 185 | 248 | 1.34 |
    /// | charnet | cp4 | 1 | 1.2 | 1.4 | 1.15 | 8.2 | 7.4 | 0.91 |
    /// | charnet | cp4 | 32 | 34.9 | 49.3 | 1.41 | 112 | 182 | 1.63 |
    /// | alexnet | dense | 1 | 26.3 | 30.1 | 1.14 | 127 | 129 | 1.02 |
    /// | alexnet | dense | 32 | 418 | 524 | 1.26 | 1212 | 1313 | 1.08 |
    /// | alexnet | cp3 | 1 | 21.2 | 25.2 | 1.18 | 125 | 133 | 1.07 |
    /// | alexnet | cp3 | 32 | 273 | 511 | 1.87 | 1185 | 1808 | 1.53 |
    /// | alexnet | cp4 | 1 | 24.5 | 31.3 | 1.28 | 150 | 144 | 0.96 |
    /// | alexnet | cp4 | 32 | 346 | 819 | 2.36 | 1846 | 2260 | 1.22 |
    /// | squeezenet1_1 | dense | 1 | 12.0 | 26.9 | 2.24 | 42.0 | 55.5 | 1.32 |
    /// | squeezenet1_1 | dense | 32 | 363 | 883 | 2.43 | 1252 | 1878 | 1.50 |
    /// | squeezenet1_1 | cp3 | 1 | 13.8 | 33.2 | 2.40 | 49.6 | 71.7 | 1.45 |
    /// | squeezenet1_1 | cp3 | 32 | 339 | 1086 | 3.20 | 1026 | 2085 | 2.03 |
    /// | squeezenet1_1 | cp4 | 1 | 11.1 | 25.2 | 2.27 | 53.6 | 66.2 | 1.23 |
    /// | squeezenet1_1 | cp4 | 32 | 307 | 967 | 3.15 | 958 | 1761 | 1.84 |
    /// | googlenet | dense | 1 | 47.5 | 85.1 | 1.79 | 156 | 190 | 1.22 |
    /// | googlenet | dense | 32 | 1390 | 2880 | 2.07 | 4818 | 6097 | 1.27 |
    /// | googlenet | cp3 | 1 | 40.2 | 85.6 | 2.13 | 144 | 202 | 1.40 |
    /// | googlenet | cp3 | 32 | 1272 | 5139 | 4.04 | 7011 | 11075 | 1.58 |
    /// | googlenet | cp4 | 1 | 95.8 | 216 | 2.26 | 254 | 353 | 1.39 |
    /// | googlenet | cp4 | 32 | 1070 | 2842 | 2.66 | 7119 | 12755 | 1.79 |
    ///
    /// Evaluation is never slower in channels-last, and gains most with factorized layers at batch 32 (1.3 to 4.0), whose
    /// depthwise convolutions then work on whole vectors of channels. Training gains in all but five rows: CharNet loses up to
    /// 12 % dense and 9 % in CP-4 at batch 1, AlexNet 4 % in CP-4 at batch 1, and CharNet in CP-3 at batch 1 half its speed
    /// (the gradient of 8×8 depthwise kernels over 819 channels; at batch 32 it gains).
    ///
    /// At batch 1 small maps cost about 45 µs a convolution in either layout, which oneDNN takes to set up. Weights packed
    /// beforehand (`mkldnn_reorder_conv2d_weight`) and depthwise kernels as sums of shifted products were slower still.
    pub fn resolve(self, arch: &Architecture, device: Device) -> Self {
        match self {
            // The channels and at least two spatial axes.
            Layout::Auto
                if device == Device::Cpu
                    && arch.inputs.iter().any(|input| input.shape.len() >= 3) =>
            {
                Layout::ChannelsLast
            }
            Layout::Auto => Layout::Nchw,
            chosen => chosen,
        }
    }

    /// `tensor` in this layout (which must be resolved), copied where it has another.
    pub(crate) fn apply(self, tensor: &Tensor) -> Result<Tensor, TchError> {
        match self {
            Layout::ChannelsLast if matches!(tensor.dim(), 4 | 5) => channels_last(tensor),
            _ => tensor.f_contiguous(),
        }
    }
}

/// `tensor` of shape `[N, C, H, W]` or `[N, C, D, H, W]` with the strides of a channels-last tensor.
///
/// tch's `contiguous` takes no memory format; the same strides come from a row-major copy of the permuted tensor. Where
/// C = 1 or all spatial axes are 1 that copy is none, and libtorch, which recognizes the layout by its strides, takes the
/// tensor for NCHW: such a tensor's strides are written out.
fn channels_last(tensor: &Tensor) -> Result<Tensor, TchError> {
    let size = tensor.size();
    let strides = channels_last_strides(&size);
    if tensor.stride() == strides {
        return Ok(tensor.shallow_clone());
    }
    let copy = channels_in_front(&channels_behind(tensor)?.f_contiguous()?)?;
    if copy.stride() == strides { Ok(copy) } else { copy.f_as_strided(size, strides, None) }
}

/// Whether the values of `tensor` (`[N, C, …]`) lie pixel after pixel.
pub(crate) fn is_channels_last(tensor: &Tensor) -> bool {
    let size = tensor.size();
    matches!(size.len(), 4 | 5) && tensor.stride() == channels_last_strides(&size)
}

/// The view `[N, …, C]` of `[N, C, …]`.
pub(crate) fn channels_behind(tensor: &Tensor) -> Result<Tensor, TchError> {
    let axes = tensor.dim() as i64;
    tensor.f_permute([0].into_iter().chain(2..axes).chain([1]).collect::<Vec<_>>())
}

/// The view `[N, C, …]` of `[N, …, C]`.
pub(crate) fn channels_in_front(tensor: &Tensor) -> Result<Tensor, TchError> {
    let axes = tensor.dim() as i64;
    tensor.f_permute([0, axes - 1].into_iter().chain(1..axes - 1).collect::<Vec<_>>())
}

/// Strides of a dense channels-last tensor of shape `size` (`[N, C, …]`), in values.
fn channels_last_strides(size: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; size.len()];
    let mut step = size[1];
    for axis in (2..size.len()).rev() {
        strides[axis] = step;
        step *= size[axis];
    }
    strides[0] = step;
    strides
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, random};

    #[test]
    fn strides_are_those_of_channels_last_also_where_they_are_ambiguous() {
        for shape in [[2, 3, 4, 5], [2, 1, 4, 5], [2, 3, 1, 1], [1, 1, 1, 1], [0, 3, 2, 2]] {
            let array = random(&shape, 1);
            let tensor = crate::tensor_from_f32(array.view()).unwrap();
            let moved = channels_last(&tensor).unwrap();
            assert_eq!(moved.stride(), channels_last_strides(&tensor.size()), "{shape:?}");
            assert_close(&moved, &array, 0.0);
            // Applying it again copies nothing.
            assert_eq!(channels_last(&moved).unwrap().data_ptr(), moved.data_ptr());
            assert_close(&Layout::Nchw.apply(&moved).unwrap(), &array, 0.0);
        }
        assert_eq!(channels_last_strides(&[2, 3, 4, 5]), [60, 1, 15, 3]);
        assert_eq!(channels_last_strides(&[2, 3, 4, 5, 6]), [360, 1, 90, 18, 3]);
    }

    #[test]
    fn auto_is_channels_last_for_images_on_the_cpu() {
        let mut arch = cp_net::arch::by_name("small-cnn").unwrap();
        assert_eq!(Layout::Auto.resolve(&arch, Device::Cpu), Layout::ChannelsLast);
        assert_eq!(Layout::Auto.resolve(&arch, Device::Cuda(0)), Layout::Nchw);
        assert_eq!(Layout::Nchw.resolve(&arch, Device::Cpu), Layout::Nchw);
        arch.inputs[0].shape.pop();
        assert_eq!(Layout::Auto.resolve(&arch, Device::Cpu), Layout::Nchw);
    }

    #[test]
    fn the_gradient_passes() {
        for shape in [[2, 3, 4, 5], [2, 1, 4, 5]] {
            let array = random(&shape, 1);
            let x = crate::tensor_from_f32(array.view()).unwrap().set_requires_grad(true);
            let y = channels_last(&x).unwrap();
            (&y * &y).sum(tch::Kind::Float).backward();
            assert_close(&x.grad(), &(array * 2.0), 1e-6);
        }
    }
}
