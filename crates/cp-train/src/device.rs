//! [`Device`]: where networks are trained.

/// Where a network is trained, and runs in libtorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA device, by its number.
    Cuda(usize),
}

impl Device {
    /// The first CUDA device.
    ///
    /// # Errors
    /// Where there is none, or the program was built without libtorch.
    #[cfg(feature = "torch")]
    pub fn cuda() -> Result<Self, crate::TrainError> {
        Ok(cp_torch::device(cp_torch::DeviceRequest::Cuda)?.into())
    }

    /// The first CUDA device.
    ///
    /// # Errors
    /// Always: the program was built without libtorch.
    #[cfg(not(feature = "torch"))]
    pub fn cuda() -> Result<Self, crate::TrainError> {
        Err(crate::libtorch::refused(["--device cuda", "leave --device out"]))
    }
}

#[cfg(feature = "torch")]
impl From<cp_torch::tch::Device> for Device {
    fn from(device: cp_torch::tch::Device) -> Self {
        match device {
            cp_torch::tch::Device::Cuda(number) => Self::Cuda(number),
            _ => Self::Cpu,
        }
    }
}

#[cfg(feature = "torch")]
impl From<Device> for cp_torch::tch::Device {
    fn from(device: Device) -> Self {
        match device {
            Device::Cpu => Self::Cpu,
            Device::Cuda(number) => Self::Cuda(number),
        }
    }
}
