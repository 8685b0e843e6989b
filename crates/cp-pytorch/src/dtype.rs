//! [`Dtype`]: the types of elements that PyTorch has, and which of them are read.

use std::fmt;

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    U8,
    I8,
    I16,
    I32,
    I64,
    U16,
    U32,
    U64,
    Bool,
    F16,
    BF16,
    F32,
    F64,
    /// Known by name and size, but not read: complex, quantized, 8-bit floats.
    Other(&'static str, usize),
}

/// Name of a storage class, name of a dtype, number in the schema of exported programs (-1 where there is none), the type.
const ALL: &[(&str, &str, i64, Dtype)] = &[
    ("ByteStorage", "uint8", 1, Dtype::U8),
    ("CharStorage", "int8", 2, Dtype::I8),
    ("ShortStorage", "int16", 3, Dtype::I16),
    ("IntStorage", "int32", 4, Dtype::I32),
    ("LongStorage", "int64", 5, Dtype::I64),
    ("HalfStorage", "float16", 6, Dtype::F16),
    ("FloatStorage", "float32", 7, Dtype::F32),
    ("DoubleStorage", "float64", 8, Dtype::F64),
    ("", "complex32", 9, Dtype::Other("complex", 4)),
    ("ComplexFloatStorage", "complex64", 10, Dtype::Other("complex", 8)),
    ("ComplexDoubleStorage", "complex128", 11, Dtype::Other("complex", 16)),
    ("BoolStorage", "bool", 12, Dtype::Bool),
    ("BFloat16Storage", "bfloat16", 13, Dtype::BF16),
    ("", "uint16", 28, Dtype::U16),
    ("", "uint32", -1, Dtype::U32),
    ("", "uint64", -1, Dtype::U64),
    ("", "float8_e4m3fn", 29, Dtype::Other("an 8-bit float", 1)),
    ("", "float8_e5m2", 30, Dtype::Other("an 8-bit float", 1)),
    ("QInt8Storage", "qint8", -1, Dtype::Other("quantized", 1)),
    ("QUInt8Storage", "quint8", -1, Dtype::Other("quantized", 1)),
    ("QInt32Storage", "qint32", -1, Dtype::Other("quantized", 4)),
    ("QUInt4x2Storage", "quint4x2", -1, Dtype::Other("quantized", 1)),
    ("QUInt2x4Storage", "quint2x4", -1, Dtype::Other("quantized", 1)),
];

impl Dtype {
    /// Of a storage class such as `FloatStorage`.
    pub(crate) fn of_storage(class: &str) -> Option<Self> {
        ALL.iter().find(|known| !class.is_empty() && known.0 == class).map(|known| known.3)
    }

    /// By its name in Python, such as `float32`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        ALL.iter().find(|known| known.1 == name).map(|known| known.3)
    }

    /// By its number in the schema of exported programs.
    pub(crate) fn numbered(number: i64) -> Option<Self> {
        ALL.iter().find(|known| number >= 0 && known.2 == number).map(|known| known.3)
    }

    /// Bytes of an element.
    pub(crate) fn size(self) -> usize {
        match self {
            Dtype::U8 | Dtype::I8 | Dtype::Bool => 1,
            Dtype::I16 | Dtype::U16 | Dtype::F16 | Dtype::BF16 => 2,
            Dtype::I32 | Dtype::U32 | Dtype::F32 => 4,
            Dtype::I64 | Dtype::U64 | Dtype::F64 => 8,
            Dtype::Other(_, size) => size,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::Other(what, _) => what,
            read => ALL.iter().find(|known| known.3 == *read).map_or("", |known| known.1),
        })
    }
}
