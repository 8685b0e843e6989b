//! Where a network runs. The program links against the CPU half of libtorch alone; the CUDA half is opened when a
//! program first asks for a GPU, so that one binary serves both kinds of machine.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;

use tch::Device;

use crate::TorchError;

/// The variable that names the `libtorch_cuda.so` to open.
pub const CUDA_LIBRARY_VARIABLE: &str = "POLYAD_LIBTORCH_CUDA";

/// What the user asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceRequest {
    /// The CPU.
    Cpu,
    /// The first CUDA device; an error where there is none.
    Cuda,
    /// The first CUDA device where there is one, else the CPU.
    #[default]
    Auto,
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Auto => "auto",
        })
    }
}

impl FromStr for DeviceRequest {
    type Err = TorchError;

    fn from_str(name: &str) -> Result<Self, TorchError> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            "auto" => Ok(Self::Auto),
            _ => Err(TorchError::UnknownDevice { name: name.into() }),
        }
    }
}

/// The device to run on.
///
/// Anything but [`DeviceRequest::Cpu`] opens `libtorch_cuda.so`: the file that `$POLYAD_LIBTORCH_CUDA` names, else the
/// one that the loader finds (the program's run path, which holds the folder of `libtorch_cpu.so`; `LD_LIBRARY_PATH`;
/// the system). It must be of the same version as the CPU half, 2.11.0.
///
/// # Errors
/// Where CUDA was asked for and is not there, or `$POLYAD_LIBTORCH_CUDA` names a file that cannot be opened.
///
/// ```
/// use cp_torch::{DeviceRequest, device};
/// assert_eq!(device(DeviceRequest::Cpu)?, tch::Device::Cpu);
/// # Ok::<(), cp_torch::TorchError>(())
/// ```
pub fn device(request: DeviceRequest) -> Result<Device, TorchError> {
    if request == DeviceRequest::Cpu {
        return Ok(Device::Cpu);
    }
    // libtorch caches the answer to the first question, so the library is opened before it, once.
    static OPENED: OnceLock<Result<(), String>> = OnceLock::new();
    let named = std::env::var_os(CUDA_LIBRARY_VARIABLE).map(PathBuf::from);
    let library = named.clone().unwrap_or_else(|| "libtorch_cuda.so".into());
    let opened = OPENED.get_or_init(|| open_cuda_library(&library));

    match (opened, named) {
        (Err(reason), Some(path)) => {
            return Err(TorchError::CudaLibrary { path, reason: reason.clone() });
        }
        (Err(reason), None) if request == DeviceRequest::Cuda => {
            return Err(TorchError::NoCuda {
                reason: format!("libtorch has no CUDA half here ({reason})"),
            });
        }
        _ => {}
    }
    if tch::Cuda::is_available() {
        Ok(Device::Cuda(0))
    } else if request == DeviceRequest::Auto {
        Ok(Device::Cpu)
    } else {
        Err(TorchError::NoCuda { reason: "libtorch sees no GPU (is the driver installed?)".into() })
    }
}

/// Opens the CUDA half of libtorch for the rest of the program's life.
#[cfg(unix)]
#[allow(
    unsafe_code,
    reason = "opening a shared library runs its initializers, which no safe call can vouch for"
)]
fn open_cuda_library(path: &std::path::Path) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: the initializers of libtorch_cuda.so register its kernels with the libtorch_cpu.so that is already loaded,
    // which is what they are made for; the documentation of `device` asks for the same version. The library is never
    // closed, so nothing that it registered can dangle. Its symbols are global because the libraries that it opens
    // itself look some of them up by name.
    match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(not(unix))]
fn open_cuda_library(_path: &std::path::Path) -> Result<(), String> {
    Err("the CUDA half is opened at run time on Unix only".into())
}

/// The version of the libtorch that this process has loaded, such as `2.11.0`; "unknown" where the library does not say.
#[cfg(unix)]
#[allow(
    unsafe_code,
    reason = "a function is looked up by its name, and its type is known from the header alone"
)]
pub fn loaded_version() -> String {
    use libloading::os::unix::Library;
    // SAFETY: `uint64_t aoti_torch_abi_version()` has had this type in libtorch's C interface (shim.h) since it came, takes nothing and
    // changes nothing. The library is loaded already and is not closed by this handle.
    let version = unsafe {
        Library::this()
            .get::<unsafe extern "C" fn() -> u64>(b"aoti_torch_abi_version\0")
            .map(|version| version())
    };
    match version {
        // Major, minor and patch from the highest byte down.
        Ok(packed) => {
            let [major, minor, patch, ..] = packed.to_be_bytes();
            format!("{major}.{minor}.{patch}")
        }
        Err(_) => "unknown".into(),
    }
}

/// As on Unix, where the library is asked.
#[cfg(not(unix))]
pub fn loaded_version() -> String {
    "unknown".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaded_libtorch_says_its_version() {
        // tch 0.24 speaks to no other.
        assert_eq!(loaded_version(), "2.11.0");
    }

    #[test]
    fn names() {
        for request in [DeviceRequest::Cpu, DeviceRequest::Cuda, DeviceRequest::Auto] {
            assert_eq!(request.to_string().parse::<DeviceRequest>().unwrap(), request);
        }
        let message = "gpu".parse::<DeviceRequest>().unwrap_err().to_string();
        assert!(message.contains("'gpu'") && message.contains("cpu, cuda or auto"), "{message}");
    }
}
