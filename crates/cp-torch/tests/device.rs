//! Requests for devices on a machine that may or may not have a GPU. One test: the answer is found once per process.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

use cp_torch::tch::Device;
use cp_torch::{CUDA_LIBRARY_VARIABLE, DeviceRequest, TorchError, device};

#[test]
fn cuda_is_used_where_it_is_and_an_error_names_the_way_out_where_it_is_not() {
    assert_eq!(device(DeviceRequest::Cpu).unwrap(), Device::Cpu);
    match device(DeviceRequest::Cuda) {
        Ok(found) => {
            assert_eq!(found, Device::Cuda(0));
            assert_eq!(device(DeviceRequest::Auto).unwrap(), found);
        }
        Err(TorchError::CudaLibrary { path, .. }) => {
            // The environment names a library that does not open: no silent way back to the CPU.
            assert_eq!(std::env::var_os(CUDA_LIBRARY_VARIABLE).unwrap(), path.into_os_string());
            assert!(device(DeviceRequest::Auto).is_err());
        }
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.contains("--device cpu") && message.contains(CUDA_LIBRARY_VARIABLE),
                "{message}"
            );
            assert_eq!(device(DeviceRequest::Auto).unwrap(), Device::Cpu);
        }
    }
}
