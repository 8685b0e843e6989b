//! Arrays that go in and come out.

use std::fmt;
use std::ops::Range;

use half::f16;
use ndarray::{ArrayD, Axis, IxDyn, Slice};
use ort::session::SessionInputValue;
use ort::value::{
    DynValue, PrimitiveTensorElementType, Tensor as Owned, TensorElementType, TensorRef, ValueType,
};

/// The type of the elements of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElementType {
    /// float32
    F32,
    /// float64
    F64,
    /// float16
    F16,
    /// int64
    I64,
    /// int32
    I32,
    /// int8
    I8,
    /// uint8
    U8,
    /// bool
    Bool,
    /// Any other, which no [`Tensor`] holds, as ONNX calls it: `string`, `uint16`, `sequence`, …
    Other(String),
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::F16 => "float16",
            Self::I64 => "int64",
            Self::I32 => "int32",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::Bool => "bool",
            Self::Other(name) => name,
        })
    }
}

impl ElementType {
    pub(crate) fn of(ty: &ValueType) -> Self {
        let other = |name: &str| Self::Other(name.into());
        match ty {
            ValueType::Tensor { ty, .. } => match ty {
                TensorElementType::Float32 => Self::F32,
                TensorElementType::Float64 => Self::F64,
                TensorElementType::Float16 => Self::F16,
                TensorElementType::Int64 => Self::I64,
                TensorElementType::Int32 => Self::I32,
                TensorElementType::Int8 => Self::I8,
                TensorElementType::Uint8 => Self::U8,
                TensorElementType::Bool => Self::Bool,
                TensorElementType::Bfloat16 => other("bfloat16"),
                TensorElementType::Int16 => other("int16"),
                TensorElementType::Uint16 => other("uint16"),
                TensorElementType::Uint32 => other("uint32"),
                TensorElementType::Uint64 => other("uint64"),
                TensorElementType::String => other("string"),
                ty => Self::Other(ty.to_string()),
            },
            ValueType::Sequence(_) => other("sequence"),
            ValueType::Map { .. } => other("map"),
            ValueType::Optional(_) => other("optional"),
        }
    }
}

/// An array of one of the types that can be passed to and from a model.
#[derive(Debug, Clone, PartialEq)]
pub enum Tensor {
    /// float32
    F32(ArrayD<f32>),
    /// float64
    F64(ArrayD<f64>),
    /// float16
    F16(ArrayD<f16>),
    /// int64
    I64(ArrayD<i64>),
    /// int32
    I32(ArrayD<i32>),
    /// int8
    I8(ArrayD<i8>),
    /// uint8
    U8(ArrayD<u8>),
    /// bool
    Bool(ArrayD<bool>),
}

/// Does the same with the array of any variant.
macro_rules! with_array {
    ($tensor:expr, $array:ident => $what:expr) => {
        match $tensor {
            Tensor::F32($array) => $what,
            Tensor::F64($array) => $what,
            Tensor::F16($array) => $what,
            Tensor::I64($array) => $what,
            Tensor::I32($array) => $what,
            Tensor::I8($array) => $what,
            Tensor::U8($array) => $what,
            Tensor::Bool($array) => $what,
        }
    };
}

/// `From` an array, and back by reference.
macro_rules! conversions {
    ($($variant:ident $element:ty, $as:ident;)+) => { $(
        impl From<ArrayD<$element>> for Tensor {
            fn from(array: ArrayD<$element>) -> Self {
                Tensor::$variant(array)
            }
        }

        impl Tensor {
            #[doc = concat!("The array, if its elements are `", stringify!($element), "`.")]
            pub fn $as(&self) -> Option<&ArrayD<$element>> {
                match self {
                    Tensor::$variant(array) => Some(array),
                    _ => None,
                }
            }
        }
    )+ };
}

conversions! {
    F32 f32, as_f32;
    F64 f64, as_f64;
    F16 f16, as_f16;
    I64 i64, as_i64;
    I32 i32, as_i32;
    I8 i8, as_i8;
    U8 u8, as_u8;
    Bool bool, as_bool;
}

impl Tensor {
    /// Sizes along the axes.
    pub fn shape(&self) -> &[usize] {
        with_array!(self, array => array.shape())
    }

    /// The type of its elements.
    pub fn element_type(&self) -> ElementType {
        match self {
            Tensor::F32(_) => ElementType::F32,
            Tensor::F64(_) => ElementType::F64,
            Tensor::F16(_) => ElementType::F16,
            Tensor::I64(_) => ElementType::I64,
            Tensor::I32(_) => ElementType::I32,
            Tensor::I8(_) => ElementType::I8,
            Tensor::U8(_) => ElementType::U8,
            Tensor::Bool(_) => ElementType::Bool,
        }
    }

    /// A copy of these places along the first axis.
    ///
    /// # Panics
    /// For a number, which has no axis, and places that there are not.
    pub fn rows(&self, rows: Range<usize>) -> Self {
        with_array!(self, array => {
            Tensor::from(array.slice_axis(Axis(0), Slice::from(rows)).to_owned())
        })
    }

    /// The same numbers in another floating-point type, or in another type of whole numbers; `None` from one kind into the other, and where
    /// a whole number does not fit.
    pub fn cast(&self, to: &ElementType) -> Option<Self> {
        if self.element_type() == *to {
            return Some(self.clone());
        }
        let floats = match self {
            Tensor::F32(x) => Some(x.mapv(f64::from)),
            Tensor::F64(x) => Some(x.clone()),
            Tensor::F16(x) => Some(x.mapv(f64::from)),
            _ => None,
        };
        let whole = || -> Option<ArrayD<i64>> {
            Some(match self {
                Tensor::I64(x) => x.clone(),
                Tensor::I32(x) => x.mapv(i64::from),
                Tensor::I8(x) => x.mapv(i64::from),
                Tensor::U8(x) => x.mapv(i64::from),
                _ => return None,
            })
        };
        Some(match to {
            ElementType::F32 => floats?.mapv(|x| x as f32).into(),
            ElementType::F64 => floats?.into(),
            ElementType::F16 => floats?.mapv(f16::from_f64).into(),
            ElementType::I64 => whole()?.into(),
            ElementType::I32 => narrowed::<i32>(&whole()?)?.into(),
            ElementType::I8 => narrowed::<i8>(&whole()?)?.into(),
            ElementType::U8 => narrowed::<u8>(&whole()?)?.into(),
            ElementType::Bool | ElementType::Other(_) => return None,
        })
    }

    /// Whether no element is NaN or infinite.
    pub fn is_finite(&self) -> bool {
        match self {
            Tensor::F32(x) => x.iter().all(|x| x.is_finite()),
            Tensor::F64(x) => x.iter().all(|x| x.is_finite()),
            Tensor::F16(x) => x.iter().all(|x| x.is_finite()),
            _ => true,
        }
    }

    /// A value of the library's that reads the array where it lies; a copy where it is not in the order of rows.
    pub(crate) fn view(&self) -> ort::Result<SessionInputValue<'_>> {
        with_array!(self, array => view(array))
    }

    /// A value of the library's that owns the array; nothing is copied where it is in the order of rows.
    pub(crate) fn into_value(self) -> ort::Result<DynValue> {
        with_array!(self, array => into_value(array))
    }

    /// A copy of a value of the library's; `None` of a type that is not held here.
    pub(crate) fn copy_of(value: &DynValue) -> ort::Result<Option<Self>> {
        Ok(Some(match ElementType::of(value.dtype()) {
            ElementType::F32 => Tensor::F32(copy(value)?),
            ElementType::F64 => Tensor::F64(copy(value)?),
            ElementType::F16 => Tensor::F16(copy(value)?),
            ElementType::I64 => Tensor::I64(copy(value)?),
            ElementType::I32 => Tensor::I32(copy(value)?),
            ElementType::I8 => Tensor::I8(copy(value)?),
            ElementType::U8 => Tensor::U8(copy(value)?),
            ElementType::Bool => Tensor::Bool(copy(value)?),
            ElementType::Other(_) => return Ok(None),
        }))
    }
}

/// Whole numbers in a smaller type, where all of them fit.
fn narrowed<T: TryFrom<i64>>(array: &ArrayD<i64>) -> Option<ArrayD<T>> {
    let numbers: Option<Vec<T>> = array.iter().map(|&x| T::try_from(x).ok()).collect();
    ArrayD::from_shape_vec(array.raw_dim(), numbers?).ok()
}

fn view<T>(array: &ArrayD<T>) -> ort::Result<SessionInputValue<'_>>
where
    T: PrimitiveTensorElementType + Clone + fmt::Debug + 'static,
{
    let shape = array.shape().to_vec();
    match array.as_slice() {
        Some(slice) => Ok(TensorRef::from_array_view((shape, slice))?.into()),
        None => Ok(Owned::from_array((shape, array.iter().cloned().collect::<Vec<T>>()))?.into()),
    }
}

fn into_value<T>(array: ArrayD<T>) -> ort::Result<DynValue>
where
    T: PrimitiveTensorElementType + Clone + fmt::Debug + 'static,
{
    let shape = array.shape().to_vec();
    let count = array.len();
    let elements = if array.is_standard_layout() {
        let (mut elements, offset) = array.into_raw_vec_and_offset();
        elements.truncate(offset.unwrap_or(0) + count);
        elements.drain(..offset.unwrap_or(0));
        elements
    } else {
        array.iter().cloned().collect()
    };
    Ok(Owned::from_array((shape, elements))?.into_dyn())
}

fn copy<T: PrimitiveTensorElementType + Clone>(value: &DynValue) -> ort::Result<ArrayD<T>> {
    let (shape, elements) = value.try_extract_tensor::<T>()?;
    let sizes = shape.iter().map(|&size| usize::try_from(size).map_err(ort::Error::wrap));
    let sizes: Vec<usize> = sizes.collect::<ort::Result<_>>()?;
    ArrayD::from_shape_vec(IxDyn(&sizes), elements.to_vec()).map_err(ort::Error::wrap)
}

#[cfg(test)]
mod tests {
    use ndarray::arr2;

    use super::*;

    #[test]
    fn types_change_where_no_number_does() {
        let x = Tensor::from(arr2(&[[1.5_f32, -2.0], [0.0, 3.0]]).into_dyn());
        assert_eq!(x.cast(&ElementType::F64).unwrap().cast(&ElementType::F32), Some(x.clone()));
        assert_eq!(x.cast(&ElementType::F16).unwrap().element_type(), ElementType::F16);
        assert_eq!(x.cast(&ElementType::I64), None);
        let n = Tensor::from(arr2(&[[1_i64, 300]]).into_dyn());
        assert_eq!(n.cast(&ElementType::I32), Some(arr2(&[[1_i32, 300]]).into_dyn().into()));
        assert_eq!((n.cast(&ElementType::U8), n.cast(&ElementType::F32)), (None, None));
    }

    #[test]
    fn rows_are_copied() {
        let x = Tensor::from(arr2(&[[1_u8, 2], [3, 4], [5, 6]]).into_dyn());
        assert_eq!(x.rows(1..3), arr2(&[[3_u8, 4], [5, 6]]).into_dyn().into());
        assert!(!Tensor::from(arr2(&[[f32::NAN]]).into_dyn()).is_finite());
    }
}
