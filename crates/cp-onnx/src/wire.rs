//! Protocol buffers as bytes: varints, and a message as its list of fields.
//!
//! Source: <https://protobuf.dev/programming-guides/encoding/>. Groups (wire types 3 and 4) have been deprecated since before ONNX was,
//! and no exporter writes them; they are errors.

use std::ops::{Deref, Range};
use std::sync::Arc;

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The file ends inside of a field.
    #[error("byte {offset}: the message ends inside of a field")]
    Truncated {
        /// Byte from the start of the file.
        offset: usize,
    },
    /// A number of more than 64 bits.
    #[error("byte {offset}: a number of more than 64 bits")]
    Varint {
        /// Byte from the start of the file.
        offset: usize,
    },
    /// A field longer than the message that holds it.
    #[error(
        "byte {offset}: field {number} has {length} bytes, but its message has only {left} left"
    )]
    Length {
        /// Byte from the start of the file.
        offset: usize,
        /// Number of the field.
        number: u32,
        /// How long it says that it is.
        length: u64,
        /// How much there is.
        left: usize,
    },
    /// A number or kind of field that there is not.
    #[error("byte {offset}: no field has the tag {tag}")]
    Tag {
        /// Byte from the start of the file.
        offset: usize,
        /// The tag.
        tag: u64,
    },
    /// A field of a known number and another kind than it has.
    #[error("byte {offset}: field {number} of {message} is no {expected}")]
    Kind {
        /// Byte from the start of the file.
        offset: usize,
        /// Number of the field.
        number: u32,
        /// The message.
        message: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// More of something than [`limits`](crate::limits) allow.
    #[error("byte {offset}: more than {most} {what}")]
    Limit {
        /// Byte from the start of the file.
        offset: usize,
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        most: usize,
    },
}

/// A piece of a file that is kept whole: all pieces share it, so that what is not changed is never copied.
#[derive(Clone)]
pub struct Bytes {
    whole: Arc<Vec<u8>>,
    range: Range<usize>,
}

impl Bytes {
    /// Byte of the file (or of what was made here) at which the piece starts.
    pub fn offset(&self) -> usize {
        self.range.start
    }

    fn slice(&self, range: Range<usize>) -> Self {
        let start = self.range.start;
        Self { whole: Arc::clone(&self.whole), range: start + range.start..start + range.end }
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { whole: Arc::new(bytes), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.whole[self.range.clone()]
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes at {}", self.len(), self.offset())
    }
}

/// The kind of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireType {
    /// A varint.
    Varint,
    /// Eight bytes.
    Fixed64,
    /// A length and as many bytes.
    Bytes,
    /// Four bytes.
    Fixed32,
}

/// A field as it stands in the file.
#[derive(Debug, Clone)]
pub struct RawField {
    /// Its number.
    pub number: u32,
    /// Its kind.
    pub wire: WireType,
    /// Tag and length as they were written, which may be longer than need be.
    pub head: Bytes,
    /// What is behind them.
    pub payload: Bytes,
}

/// A number of seven bits a byte, the lowest first; and how many bytes it takes.
///
/// # Errors
/// [`WireError::Truncated`], [`WireError::Varint`], with `base` added to the byte.
pub fn varint(bytes: &[u8], base: usize) -> Result<(u64, usize), WireError> {
    let mut value = 0_u64;
    for (index, &byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 127);
        // The tenth byte has room for one bit.
        if index == 9 && byte > 1 {
            return Err(WireError::Varint { offset: base });
        }
        value |= bits << (7 * index);
        if byte & 128 == 0 {
            return Ok((value, index + 1));
        }
    }
    Err(WireError::Truncated { offset: base + bytes.len() })
}

/// Appends `value` in the shortest form.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 128 {
        out.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The fields of a message, in the order in which they stand. `left` is how many there may be, and is counted down.
///
/// # Errors
/// Whatever makes `bytes` no message; each field is a piece of `bytes` and cannot outgrow it.
pub fn fields(bytes: &Bytes, left: &mut usize) -> Result<Vec<RawField>, WireError> {
    let mut at = 0;
    let mut found = Vec::new();
    while at < bytes.len() {
        let start = at;
        let offset = bytes.offset() + at;
        *left = left.checked_sub(1).ok_or(WireError::Limit {
            offset,
            what: "fields",
            most: crate::limits::MAX_FIELDS,
        })?;
        let (tag, taken) = varint(&bytes[at..], offset)?;
        at += taken;
        let number = u32::try_from(tag >> 3).ok().filter(|&number| number > 0 && number < 1 << 29);
        let number = number.ok_or(WireError::Tag { offset, tag })?;
        let (wire, length) = match tag & 7 {
            0 => (WireType::Varint, varint(&bytes[at..], offset)?.1 as u64),
            1 => (WireType::Fixed64, 8),
            5 => (WireType::Fixed32, 4),
            2 => {
                let (length, taken) = varint(&bytes[at..], offset)?;
                at += taken;
                (WireType::Bytes, length)
            }
            _ => return Err(WireError::Tag { offset, tag }),
        };
        let rest = bytes.len() - at;
        let length = match usize::try_from(length) {
            Ok(length) if length <= rest => length,
            _ => return Err(WireError::Length { offset, number, length, left: rest }),
        };
        found.push(RawField {
            number,
            wire,
            head: bytes.slice(start..at),
            payload: bytes.slice(at..at + length),
        });
        at += length;
    }
    Ok(found)
}

/// Tag and, for bytes, length of a field that is made here.
pub(crate) fn head(number: u32, wire: WireType, length: usize) -> Vec<u8> {
    let code = match wire {
        WireType::Varint => 0,
        WireType::Fixed64 => 1,
        WireType::Bytes => 2,
        WireType::Fixed32 => 5,
    };
    let mut out = Vec::new();
    put_varint(&mut out, u64::from(number) << 3 | code);
    if wire == WireType::Bytes {
        put_varint(&mut out, length as u64);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> Result<Vec<RawField>, WireError> {
        fields(&Bytes::from(bytes.to_vec()), &mut 100)
    }

    #[test]
    fn varints_there_and_back() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(varint(&out, 0), Ok((value, out.len())));
        }
        assert_eq!(varint(&[255; 11], 3), Err(WireError::Varint { offset: 3 }));
        let two = [255, 255, 255, 255, 255, 255, 255, 255, 255, 2];
        assert_eq!(varint(&two, 0), Err(WireError::Varint { offset: 0 }));
        assert_eq!(varint(&[128], 0), Err(WireError::Truncated { offset: 1 }));
        // Longer than need be, which is allowed.
        assert_eq!(varint(&[129, 0], 0), Ok((1, 2)));
    }

    #[test]
    fn what_is_no_message() {
        let check = |bytes: &[u8], expected: WireError| assert_eq!(of(bytes).err(), Some(expected));
        check(&[0x0a, 3, 1, 2], WireError::Length { offset: 0, number: 1, length: 3, left: 2 });
        check(&[8, 1, 0x0d, 0], WireError::Length { offset: 2, number: 1, length: 4, left: 1 });
        check(&[0x0b], WireError::Tag { offset: 0, tag: 0x0b });
        check(&[2, 0], WireError::Tag { offset: 0, tag: 2 });
        check(&[8], WireError::Truncated { offset: 0 });
        let many = [8, 1].repeat(101);
        check(&many, WireError::Limit { offset: 200, what: "fields", most: 1 << 22 });
    }
}
