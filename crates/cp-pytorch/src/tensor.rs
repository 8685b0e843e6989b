//! Tensors out of storages: an array is a storage, a first element, sizes and strides, and may be a view of any kind.

use std::borrow::Cow;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use crate::dtype::Dtype;
use crate::limits::{Budget, MAX_AXES, OverBudget};

/// Why a tensor cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// A type of element that networks here do not have.
    #[error("is {kind}, which is not read; {way_out}")]
    Type {
        /// What it is.
        kind: String,
        /// What to do about it in Python.
        way_out: &'static str,
    },
    /// Sizes or strides that no tensor has.
    #[error(
        "has sizes {sizes:?} and strides {strides:?}: not as many of one as of the other, negative, or too many"
    )]
    Layout {
        /// Size of each axis.
        sizes: Vec<i64>,
        /// Distance of neighbors along each axis.
        strides: Vec<i64>,
    },
    /// A view that reaches out of what it is a view of.
    #[error(
        "reaches out of its storage of {elements} elements (sizes {sizes:?}, strides {strides:?}, first element {offset}); the file is damaged"
    )]
    OutOfStorage {
        /// Elements of the storage.
        elements: usize,
        /// Size of each axis.
        sizes: Vec<usize>,
        /// Distance of neighbors along each axis.
        strides: Vec<usize>,
        /// Position of the first element.
        offset: usize,
    },
    /// A storage of another length than it claims.
    #[error("has a storage of {got} bytes instead of {expected}; the file is damaged")]
    Length {
        /// As the file says.
        expected: u64,
        /// As it is.
        got: usize,
    },
    /// Numbers that f32 or i64 does not have.
    #[error(
        "holds {count} values that are too {size} for {kind}; scale the weights before they are written"
    )]
    Conversion {
        /// How many.
        count: usize,
        /// `large` or `small`.
        size: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// Arrays that take more memory than the file may ask for.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// Which elements of a storage a tensor consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) offset: usize,
    pub(crate) sizes: Vec<usize>,
    pub(crate) strides: Vec<usize>,
}

/// The elements as numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decoded {
    Float(ArrayD<f32>),
    Integer(ArrayD<i64>),
}

impl Layout {
    /// Checks numbers as they stand in a file.
    pub(crate) fn new(offset: i64, sizes: &[i64], strides: &[i64]) -> Result<Self, TensorError> {
        let wrong = || TensorError::Layout { sizes: sizes.to_vec(), strides: strides.to_vec() };
        if sizes.len() != strides.len() || sizes.len() > MAX_AXES {
            return Err(wrong());
        }
        let natural = |numbers: &[i64]| -> Option<Vec<usize>> {
            numbers.iter().map(|number| usize::try_from(*number).ok()).collect()
        };
        let sizes_of = natural(sizes).ok_or_else(wrong)?;
        let strides_of = natural(strides).ok_or_else(wrong)?;
        let offset = usize::try_from(offset).map_err(|_| wrong())?;
        Ok(Self { offset, sizes: sizes_of, strides: strides_of })
    }

    /// Number of elements; `None` where no machine holds them.
    fn count(&self) -> Option<usize> {
        self.sizes.iter().try_fold(1_usize, |count, size| count.checked_mul(*size))
    }

    /// One more than the position of the last element; 0 where there is none.
    fn end(&self) -> Option<usize> {
        if self.sizes.contains(&0) {
            return Some(0);
        }
        let mut axes = self.sizes.iter().zip(&self.strides);
        let last = axes.try_fold(self.offset, |last, (size, stride)| {
            last.checked_add((size - 1).checked_mul(*stride)?)
        });
        last?.checked_add(1)
    }

    /// Whether the elements lie one behind the other in the order of the axes.
    fn is_contiguous(&self) -> bool {
        let mut expected = 1_usize;
        self.sizes.iter().zip(&self.strides).rev().all(|(size, stride)| {
            let fits = *size == 1 || *stride == expected;
            expected = expected.saturating_mul(*size);
            fits
        })
    }

    /// The array of these elements of `storage`, little-endian numbers of type `dtype`.
    pub(crate) fn read(
        &self,
        storage: &[u8],
        dtype: Dtype,
        budget: &Budget,
    ) -> Result<Decoded, TensorError> {
        if let Dtype::Other(what, _) = dtype {
            let way_out = match what {
                "quantized" => "save it dequantized (tensor.dequantize())",
                "complex" => "networks here are real",
                _ => "save it as float32 (tensor.float())",
            };
            return Err(TensorError::Type { kind: what.into(), way_out });
        }
        let elements = storage.len() / dtype.size();
        let out = || TensorError::OutOfStorage {
            elements,
            sizes: self.sizes.clone(),
            strides: self.strides.clone(),
            offset: self.offset,
        };
        self.end().filter(|end| *end <= elements).ok_or_else(out)?;
        let count = self.count().ok_or_else(out)?;
        budget.take(count.saturating_mul(8))?;
        let bytes = self.gathered(storage, dtype.size(), count).ok_or_else(out)?;
        let shape = IxDyn(&self.sizes);
        let integers = |values: Vec<i64>| ArrayD::from_shape_vec(shape.clone(), values);
        let floats = |values: Vec<f32>| ArrayD::from_shape_vec(shape.clone(), values);
        macro_rules! each {
            ($type:ty, $to:expr) => {
                bytes.as_chunks().0.iter().map(|b| $to(<$type>::from_le_bytes(*b))).collect()
            };
        }
        let decoded = match dtype {
            Dtype::F32 => floats(each!(f32, |x| x)).map(Decoded::Float),
            Dtype::F16 => floats(each!(f16, f16::to_f32)).map(Decoded::Float),
            Dtype::BF16 => floats(each!(bf16, bf16::to_f32)).map(Decoded::Float),
            Dtype::F64 => floats(narrowed(bytes.as_chunks().0)?).map(Decoded::Float),
            Dtype::U8 => integers(each!(u8, i64::from)).map(Decoded::Integer),
            Dtype::Bool => integers(each!(u8, |x| i64::from(x != 0))).map(Decoded::Integer),
            Dtype::I8 => integers(each!(i8, i64::from)).map(Decoded::Integer),
            Dtype::I16 => integers(each!(i16, i64::from)).map(Decoded::Integer),
            Dtype::I32 => integers(each!(i32, i64::from)).map(Decoded::Integer),
            Dtype::I64 => integers(each!(i64, |x| x)).map(Decoded::Integer),
            Dtype::U16 => integers(each!(u16, i64::from)).map(Decoded::Integer),
            Dtype::U32 => integers(each!(u32, i64::from)).map(Decoded::Integer),
            Dtype::U64 => {
                let values: Vec<Result<i64, u64>> = each!(u64, |x| i64::try_from(x).map_err(|_| x));
                let large = values.iter().filter(|value| value.is_err()).count();
                if large > 0 {
                    return Err(TensorError::Conversion {
                        count: large,
                        size: "large",
                        kind: "i64",
                    });
                }
                integers(values.into_iter().flatten().collect()).map(Decoded::Integer)
            }
            Dtype::Other(..) => return Err(out()),
        };
        decoded.map_err(|_| out())
    }

    /// The bytes of the elements in the order of the axes, the last one fastest; the bounds are checked.
    fn gathered<'a>(&self, storage: &'a [u8], size: usize, count: usize) -> Option<Cow<'a, [u8]>> {
        if count == 0 {
            return Some(Cow::Borrowed(&[]));
        }
        let element = |position: usize| storage.get(position * size..(position + 1) * size);
        if self.is_contiguous() {
            let (first, end) = (self.offset * size, (self.offset + count) * size);
            return storage.get(first..end).map(Cow::Borrowed);
        }
        let mut bytes = Vec::with_capacity(count * size);
        let mut at = vec![0_usize; self.sizes.len()];
        for _ in 0..count {
            let steps = at.iter().zip(&self.strides).map(|(index, stride)| index * stride);
            bytes.extend_from_slice(element(self.offset + steps.sum::<usize>())?);
            for axis in (0..at.len()).rev() {
                at[axis] += 1;
                if at[axis] < self.sizes[axis] {
                    break;
                }
                at[axis] = 0;
            }
        }
        Some(Cow::Owned(bytes))
    }
}

/// f64 as f32, where that keeps the numbers: single small ones become 0 without harm, an array of nothing else is gone.
fn narrowed(bytes: &[[u8; 8]]) -> Result<Vec<f32>, TensorError> {
    let wide = || bytes.iter().map(|bytes| f64::from_le_bytes(*bytes));
    let bad = |count, size| TensorError::Conversion { count, size, kind: "f32" };
    let large = wide().filter(|x| x.is_finite() && (*x as f32).is_infinite()).count();
    if large > 0 {
        return Err(bad(large, "large"));
    }
    let values: Vec<f32> = wide().map(|x| x as f32).collect();
    let written = wide().filter(|x| *x != 0.0).count();
    if written > 0 && !values.iter().any(|x| x.is_normal() || !x.is_finite()) {
        return Err(bad(written, "small"));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the storage 0, 1, …, 11.
    fn check(offset: i64, sizes: &[i64], strides: &[i64], expected: &[f32]) {
        let storage: Vec<u8> = (0..12).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let layout = Layout::new(offset, sizes, strides).unwrap();
        let Ok(Decoded::Float(array)) = layout.read(&storage, Dtype::F32, &Budget::of(100)) else {
            panic!("{layout:?}");
        };
        let shape: Vec<i64> = array.shape().iter().map(|size| *size as i64).collect();
        assert_eq!((shape.as_slice(), array.as_slice()), (sizes, Some(expected)));
    }

    #[test]
    fn views() {
        check(0, &[2, 3], &[3, 1], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        check(4, &[2, 3], &[3, 1], &[4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        // Transposed, every other one, expanded, of one axis that is not walked, none, a single number.
        check(0, &[3, 2], &[1, 3], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        check(1, &[2, 2], &[6, 2], &[1.0, 3.0, 7.0, 9.0]);
        check(5, &[2, 2], &[0, 1], &[5.0, 6.0, 5.0, 6.0]);
        check(5, &[1, 2], &[999, 1], &[5.0, 6.0]);
        check(5, &[0, 2], &[2, 1], &[]);
        check(11, &[], &[], &[11.0]);
    }

    fn check_refused(offset: i64, sizes: &[i64], strides: &[i64], expected: &str) {
        let read = Layout::new(offset, sizes, strides)
            .and_then(|layout| layout.read(&[0; 48], Dtype::F32, &Budget::of(0)));
        let error = read.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn refusals() {
        check_refused(12, &[1], &[1], "out of its storage of 12 elements");
        check_refused(0, &[13], &[1], "out of its storage");
        check_refused(0, &[2, 2], &[11, 1], "out of its storage");
        check_refused(i64::MAX, &[2], &[i64::MAX], "out of its storage");
        check_refused(0, &[i64::MAX; 3], &[0; 3], "out of its storage");
        check_refused(0, &[1 << 31], &[0], "more than 67108864 bytes");
        check_refused(-1, &[1], &[1], "negative");
        check_refused(0, &[-1], &[1], "negative");
        check_refused(0, &[1], &[-1], "negative");
        check_refused(0, &[1, 2], &[1], "not as many");
        check_refused(0, &[1; 65], &[1; 65], "too many");
    }

    #[test]
    fn types() {
        let check = |dtype: Dtype, bytes: &[u8], expected: &str| {
            let count = (bytes.len() / dtype.size()) as i64;
            let layout = Layout::new(0, &[count], &[1]).unwrap();
            let text = match layout.read(bytes, dtype, &Budget::of(0)) {
                Ok(Decoded::Float(array)) => format!("{array:?}"),
                Ok(Decoded::Integer(array)) => format!("{array:?}"),
                Err(error) => error.to_string(),
            };
            assert!(text.starts_with(expected), "{dtype:?}: {text}");
        };
        check(Dtype::F16, &[0, 0x3c, 0, 0xc0], "[1.0, -2.0]");
        check(Dtype::BF16, &[0x80, 0x3f, 0, 0xc0], "[1.0, -2.0]");
        check(Dtype::F64, &1.5_f64.to_le_bytes(), "[1.5]");
        check(Dtype::F64, &1e300_f64.to_le_bytes(), "holds 1 values that are too large for f32");
        check(Dtype::F64, &1e-300_f64.to_le_bytes(), "holds 1 values that are too small for f32");
        check(Dtype::I64, &(-3_i64).to_le_bytes(), "[-3]");
        check(Dtype::I8, &[0xff, 1], "[-1, 1]");
        check(Dtype::U8, &[0xff, 1], "[255, 1]");
        check(Dtype::Bool, &[0, 7], "[0, 1]");
        check(Dtype::U64, &[0xff; 8], "holds 1 values that are too large for i64");
        check(Dtype::Other("complex", 8), &[0; 8], "is complex");
        check(
            Dtype::Other("quantized", 1),
            &[0; 8],
            "is quantized, which is not read; save it deq",
        );
    }
}
