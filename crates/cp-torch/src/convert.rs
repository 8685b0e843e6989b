//! The only crossing between arrays and tensors: values are copied, in row-major order.

use ndarray::{ArrayD, ArrayViewD, IxDyn};
use tch::kind::Element;
use tch::{Device, Kind, TchError, Tensor};

use crate::TorchError;

/// A copy of `array` as a tensor of kind `Float` on the CPU, in the same shape.
///
/// # Errors
/// Where libtorch has no memory for it.
pub fn tensor_from_f32(array: ArrayViewD<'_, f32>) -> Result<Tensor, TorchError> {
    from_array(array)
}

/// A copy of `array` as a tensor of kind `Uint8` on the CPU, in the same shape (images).
///
/// # Errors
/// Where libtorch has no memory for it.
pub fn tensor_from_u8(array: ArrayViewD<'_, u8>) -> Result<Tensor, TorchError> {
    from_array(array)
}

/// A copy of `values` as a tensor `[len]` of kind `Int64` on the CPU (labels, indices).
///
/// # Errors
/// Where libtorch has no memory for it.
pub fn tensor_from_i64(values: &[i64]) -> Result<Tensor, TorchError> {
    Ok(Tensor::f_from_slice(values)?)
}

fn from_array<T: Element + Clone>(array: ArrayViewD<'_, T>) -> Result<Tensor, TorchError> {
    let shape = dims(array.shape());
    // Borrows a row-major view, copies a transposed or sliced one.
    let array = array.as_standard_layout();
    let values = array.as_slice().unwrap_or_default();
    Ok(Tensor::f_from_slice(values)?.f_reshape(shape)?)
}

/// A copy of `tensor`, from any device and of any kind and layout, as a row-major array of f32 in the same shape.
///
/// # Errors
/// Where the tensor's values cannot be read, as those of an undefined gradient.
///
/// ```
/// # fn main() -> Result<(), cp_torch::TorchError> {
/// let array = ndarray::array![[1.0, 2.0], [3.0, 4.0]].into_dyn();
/// let tensor = cp_torch::tensor_from_f32(array.t())?;
/// assert_eq!(cp_torch::array_from_tensor(&tensor.tr())?, array);
/// # Ok(())
/// # }
/// ```
pub fn array_from_tensor(tensor: &Tensor) -> Result<ArrayD<f32>, TorchError> {
    let tensor =
        tensor.f_detach()?.f_to_kind(Kind::Float)?.f_to_device(Device::Cpu)?.f_contiguous()?;
    let mut values = vec![0.0_f32; tensor.numel()];
    let count = values.len();
    tensor.f_copy_data(&mut values, count)?;
    Ok(ArrayD::from_shape_vec(IxDyn(&shape_of(&tensor)), values).map_err(TchError::from)?)
}

/// A shape or geometry as libtorch takes it.
pub(crate) fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&size| size as i64).collect()
}

/// The shape of a tensor as arrays have it.
pub(crate) fn shape_of(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&size| size as usize).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, IxDyn, s};

    use super::*;

    #[test]
    fn arrays_cross_both_ways_whatever_their_strides() {
        let array = Array::from_iter((0..24).map(|value| value as f32))
            .into_shape_with_order((2, 3, 4))
            .unwrap();
        let views = [
            array.view().into_dyn(),
            array.view().reversed_axes().into_dyn(),
            array.slice(s![.., 1.., ..;2]).into_dyn(),
            array.slice(s![.., ..0, ..]).into_dyn(),
        ];
        for view in views {
            assert_eq!(array_from_tensor(&tensor_from_f32(view.view()).unwrap()).unwrap(), view);
        }
        let scalar = ArrayD::from_elem(IxDyn(&[]), 3.0);
        assert_eq!(array_from_tensor(&tensor_from_f32(scalar.view()).unwrap()).unwrap(), scalar);
    }

    #[test]
    fn other_kinds() {
        let bytes = Array::from_shape_vec((2, 2), vec![0_u8, 127, 128, 255]).unwrap().into_dyn();
        let tensor = tensor_from_u8(bytes.view()).unwrap();
        assert_eq!(tensor.kind(), Kind::Uint8);
        assert_eq!(array_from_tensor(&tensor).unwrap(), bytes.mapv(f32::from));
        assert_eq!(Vec::<i64>::try_from(tensor_from_i64(&[3, -1]).unwrap()).unwrap(), [3, -1]);
    }
}
