//! Fields of `TensorProto`; its values as arrays, and arrays as `TensorProto`.

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use crate::error::TensorError;
use crate::external::Place;
use crate::limits::{MAX_AXES, MAX_VALUES};
use crate::proto::{Field, Kind, Message, Payload};
use crate::wire::Bytes;

const DIMS: u32 = 1;
const DATA_TYPE: u32 = 2;
const SEGMENT: u32 = 3;
const FLOAT_DATA: u32 = 4;
const INT32_DATA: u32 = 5;
const INT64_DATA: u32 = 7;
pub(crate) const NAME: u32 = 8;
const RAW_DATA: u32 = 9;
const DOUBLE_DATA: u32 = 10;
const UINT64_DATA: u32 = 11;
const EXTERNAL_DATA: u32 = 13;
const DATA_LOCATION: u32 = 14;

pub(crate) const INT64: i64 = 7;

/// A type of floating-point numbers in which weights are stored; all are read as f32, and written back in their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Float {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of single precision.
    Bf16,
    /// IEEE double precision; read rounded to single, in which decompositions of networks are made.
    F64,
}

impl Float {
    /// By the number that `TensorProto.DataType` gives it.
    pub(crate) fn by_number(number: i64) -> Option<Self> {
        Some(match number {
            1 => Float::F32,
            10 => Float::F16,
            11 => Float::F64,
            16 => Float::Bf16,
            _ => return None,
        })
    }

    pub(crate) fn number(self) -> i64 {
        match self {
            Float::F32 => 1,
            Float::F16 => 10,
            Float::F64 => 11,
            Float::Bf16 => 16,
        }
    }

    fn size(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::Bf16 => 2,
            Float::F64 => 8,
        }
    }

    /// `value` as a number of this type holds it.
    pub(crate) fn round(self, value: f32) -> f32 {
        match self {
            Float::F32 | Float::F64 => value,
            Float::F16 => f16::from_f32(value).to_f32(),
            Float::Bf16 => bf16::from_f32(value).to_f32(),
        }
    }

    fn put(self, value: f32, out: &mut Vec<u8>) {
        match self {
            Float::F32 => out.extend(value.to_le_bytes()),
            Float::F16 => out.extend(f16::from_f32(value).to_le_bytes()),
            Float::Bf16 => out.extend(bf16::from_f32(value).to_le_bytes()),
            Float::F64 => out.extend(f64::from(value).to_le_bytes()),
        }
    }

    /// Little-endian bytes as numbers.
    fn read(self, bytes: &[u8]) -> Vec<f32> {
        fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|chunk| number(*chunk)).collect()
        }
        match self {
            Float::F32 => each(bytes, f32::from_le_bytes),
            Float::F16 => each(bytes, |chunk| f16::from_le_bytes(chunk).to_f32()),
            Float::Bf16 => each(bytes, |chunk| bf16::from_le_bytes(chunk).to_f32()),
            Float::F64 => each(bytes, |chunk| f64::from_le_bytes(chunk) as f32),
        }
    }
}

impl std::fmt::Display for Float {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Float::F32 => "float32",
            Float::F16 => "float16",
            Float::Bf16 => "bfloat16",
            Float::F64 => "float64",
        })
    }
}

/// Sizes of the axes; their product is within the limits.
pub(crate) fn shape(tensor: &Message) -> Result<Vec<usize>, TensorError> {
    let dims = tensor.ints(DIMS);
    let sizes: Option<Vec<usize>> = dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    // An axis of size 0 does not excuse the others: ndarray multiplies all that are not.
    let count = |sizes: &Vec<usize>| {
        sizes.iter().try_fold(1_usize, |count, &size| {
            count.checked_mul(size.max(1)).filter(|&count| count <= MAX_VALUES)
        })
    };
    match sizes {
        Some(sizes) if sizes.len() <= MAX_AXES && count(&sizes).is_some() => Ok(sizes),
        _ => Err(TensorError::Shape { shape: dims.into_iter().take(MAX_AXES).collect() }),
    }
}

fn data_type(tensor: &Message) -> i64 {
    tensor.int(DATA_TYPE).unwrap_or(0)
}

/// The type of the values, where they are floating-point numbers.
pub(crate) fn float(tensor: &Message) -> Result<Float, TensorError> {
    let number = data_type(tensor);
    Float::by_number(number).ok_or(TensorError::Type { number })
}

/// Where the values lie, if not in the model.
pub(crate) fn place(tensor: &Message) -> Result<Option<Place>, TensorError> {
    if tensor.int(DATA_LOCATION) != Some(1) {
        return Ok(None);
    }
    let mut found = Place { location: String::new(), offset: 0, length: None };
    for (_, entry) in tensor.children(EXTERNAL_DATA) {
        let (key, value) = (entry.string(1), entry.string(2));
        let number = || {
            let entry = || TensorError::External { key: key.clone(), value: value.clone() };
            value.parse::<u64>().map_err(|_| entry())
        };
        match key.as_str() {
            "location" => found.location = value,
            "offset" => found.offset = number()?,
            "length" => found.length = Some(number()?),
            // `checksum`, `basepath`: of no use here.
            _ => {}
        }
    }
    Ok(Some(found))
}

/// Bits of a value of a type, by its number; `None` for text and types that this version does not know.
fn bits(number: i64) -> Option<usize> {
    Some(match number {
        // Two values in a byte.
        21..=23 => 4,
        // uint8, int8, bool, and floating-point numbers of eight bits.
        2 | 3 | 9 | 17..=20 => 8,
        4 | 5 | 10 | 16 => 16,
        1 | 6 | 12 => 32,
        7 | 11 | 13 | 14 => 64,
        15 => 128,
        _ => return None,
    })
}

/// Whether `got` bytes are `count` values of a type, where that is known.
fn check_bytes(number: i64, count: usize, got: usize) -> Result<(), TensorError> {
    match bits(number).and_then(|bits| count.checked_mul(bits)).map(|all| all.div_ceil(8)) {
        Some(expected) if expected != got => Err(TensorError::Bytes { expected, got }),
        _ => Ok(()),
    }
}

/// Whether a tensor of any type holds as many values as its shape says. `length` tells the bytes of those that lie elsewhere, where that can
/// be known.
pub(crate) fn check_count(
    tensor: &Message,
    length: impl Fn(&Place) -> Result<Option<u64>, TensorError>,
) -> Result<(), TensorError> {
    let number = data_type(tensor);
    let place = place(tensor)?;
    let stored = match &place {
        Some(place) => length(place)?.map(|bytes| bytes as usize),
        None => raw(tensor).map(|bytes| bytes.len()),
    };
    // The others are read by nobody here.
    if bits(number).is_none() || tensor.has(SEGMENT) {
        return Ok(());
    }
    let dims = tensor.ints(DIMS);
    let count = dims.iter().try_fold(1_usize, |count, &size| {
        usize::try_from(size).ok().and_then(|size| count.checked_mul(size))
    });
    let shape = || TensorError::Shape { shape: dims.iter().take(MAX_AXES).copied().collect() };
    let count = count.ok_or_else(shape)?;
    if let Some(stored) = stored {
        return check_bytes(number, count, stored);
    }
    // Complex numbers are pairs; of numbers of four bits it is not said how fields hold them.
    let (expected, got) = match number {
        _ if place.is_some() || bits(number) == Some(4) => return Ok(()),
        1 => (count, tensor.fixed(FLOAT_DATA).len() / 4),
        14 => (2 * count, tensor.fixed(FLOAT_DATA).len() / 4),
        11 => (count, tensor.fixed(DOUBLE_DATA).len() / 8),
        15 => (2 * count, tensor.fixed(DOUBLE_DATA).len() / 8),
        INT64 => (count, tensor.ints(INT64_DATA).len()),
        12 | 13 => (count, tensor.ints(UINT64_DATA).len()),
        _ => (count, tensor.ints(INT32_DATA).len()),
    };
    if expected == got { Ok(()) } else { Err(TensorError::Count { expected, got }) }
}

/// The values of a tensor of floating-point numbers; `external` reads those that lie elsewhere.
pub(crate) fn array(
    tensor: &Message,
    external: impl Fn(&Place) -> Result<Vec<u8>, TensorError>,
) -> Result<ArrayD<f32>, TensorError> {
    let (shape, float) = (shape(tensor)?, float(tensor)?);
    if tensor.has(SEGMENT) {
        return Err(TensorError::Segment);
    }
    let count: usize = shape.iter().product();
    let sized = |bytes: &[u8]| check_bytes(float.number(), count, bytes.len());
    let values = if let Some(place) = place(tensor)? {
        let bytes = external(&place)?;
        sized(&bytes)?;
        float.read(&bytes)
    } else if let Some(bytes) = tensor.all_bytes(RAW_DATA).last() {
        sized(bytes)?;
        float.read(bytes)
    } else {
        match float {
            Float::F32 => Float::F32.read(&tensor.fixed(FLOAT_DATA)),
            Float::F64 => Float::F64.read(&tensor.fixed(DOUBLE_DATA)),
            Float::F16 | Float::Bf16 => {
                let bits = tensor.ints(INT32_DATA).into_iter();
                float.read(&bits.flat_map(|bits| (bits as u16).to_le_bytes()).collect::<Vec<u8>>())
            }
        }
    };
    let got = values.len();
    ArrayD::from_shape_vec(IxDyn(&shape), values)
        .map_err(|_| TensorError::Count { expected: count, got })
}

/// The values of a tensor of 64-bit integers, as shapes are.
pub(crate) fn integers(tensor: &Message) -> Result<Vec<i64>, TensorError> {
    let number = data_type(tensor);
    if number != INT64 {
        return Err(TensorError::Type { number });
    }
    Ok(match tensor.all_bytes(RAW_DATA).last() {
        Some(bytes) => bytes.as_chunks().0.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect(),
        None => tensor.ints(INT64_DATA),
    })
}

/// The type of the values, as `TensorProto.DataType` numbers it.
pub(crate) fn number(tensor: &Message) -> i64 {
    data_type(tensor)
}

/// The values of a tensor of whole numbers or truth values; unsigned ones of 64 bits beyond those with a sign are none.
pub(crate) fn whole(
    tensor: &Message,
    external: impl Fn(&Place) -> Result<Vec<u8>, TensorError>,
) -> Result<ArrayD<i64>, TensorError> {
    fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> i64) -> Vec<i64> {
        bytes.as_chunks().0.iter().map(|chunk| number(*chunk)).collect()
    }
    let (shape, number) = (shape(tensor)?, data_type(tensor));
    if tensor.has(SEGMENT) {
        return Err(TensorError::Segment);
    }
    if !matches!(number, 2..=6 | INT64 | 9 | 12 | 13) {
        return Err(TensorError::Type { number });
    }
    let raw = match place(tensor)? {
        Some(place) => Some(external(&place)?),
        None => tensor.all_bytes(RAW_DATA).last().map(|bytes| bytes.to_vec()),
    };
    let count: usize = shape.iter().product();
    let values = match raw {
        Some(bytes) => {
            check_bytes(number, count, bytes.len())?;
            match number {
                2 | 9 => each(&bytes, |[byte]| i64::from(byte)),
                3 => each(&bytes, |byte| i64::from(i8::from_le_bytes(byte))),
                4 => each(&bytes, |two| i64::from(u16::from_le_bytes(two))),
                5 => each(&bytes, |two| i64::from(i16::from_le_bytes(two))),
                6 => each(&bytes, |four| i64::from(i32::from_le_bytes(four))),
                12 => each(&bytes, |four| i64::from(u32::from_le_bytes(four))),
                _ => each(&bytes, i64::from_le_bytes),
            }
        }
        None => match number {
            INT64 => tensor.ints(INT64_DATA),
            12 | 13 => tensor.ints(UINT64_DATA),
            _ => tensor.ints(INT32_DATA),
        },
    };
    if number == 13 && values.iter().any(|&value| value < 0) {
        return Err(TensorError::Type { number });
    }
    let got = values.len();
    ArrayD::from_shape_vec(IxDyn(&shape), values)
        .map_err(|_| TensorError::Count { expected: count, got })
}

/// Puts `array`, of the tensor's own shape, in the place of its values, in its own type; `None` where that cannot hold one of them.
pub(crate) fn set(tensor: &mut Message, array: &ArrayD<f32>) -> Result<Option<()>, TensorError> {
    let float = float(tensor)?;
    let mut raw = Vec::with_capacity(array.len() * float.size());
    for &value in array {
        if !float.round(value).is_finite() {
            return Ok(None);
        }
        float.put(value, &mut raw);
    }
    let field = Field::bytes(RAW_DATA, raw);
    tensor.fields.retain(|field| {
        !matches!(
            field.number,
            FLOAT_DATA | INT32_DATA | DOUBLE_DATA | EXTERNAL_DATA | DATA_LOCATION
        )
    });
    match tensor.fields.iter().position(|field| field.number == RAW_DATA) {
        Some(index) => tensor.fields[index] = field,
        None => tensor.fields.push(field),
    }
    Ok(Some(()))
}

/// `array` as a tensor of type `float`.
pub(crate) fn make(name: &str, array: &ArrayD<f32>, float: Float) -> Message {
    let mut raw = Vec::with_capacity(array.len() * float.size());
    for &value in array {
        float.put(value, &mut raw);
    }
    let dims = array.shape().iter();
    let mut fields: Vec<Field> =
        dims.map(|&size| Field::int(DIMS, i64::try_from(size).unwrap_or(i64::MAX))).collect();
    fields.push(Field::int(DATA_TYPE, float.number()));
    fields.push(Field::string(NAME, name));
    fields.push(Field::bytes(RAW_DATA, raw));
    Message::new(Kind::Tensor, fields)
}

/// Whole numbers of 64 bits along one axis.
pub(crate) fn make_integers(name: &str, values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let fields = vec![
        Field::int(DIMS, i64::try_from(values.len()).unwrap_or(i64::MAX)),
        Field::int(DATA_TYPE, INT64),
        Field::string(NAME, name),
        Field::bytes(RAW_DATA, raw),
    ];
    Message::new(Kind::Tensor, fields)
}

/// All fields but those that say where the values lie and those that hold raw ones.
pub(crate) fn head(tensor: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in &tensor.fields {
        if !matches!(field.number, EXTERNAL_DATA | DATA_LOCATION | RAW_DATA) {
            field.write(&mut bytes);
        }
    }
    bytes
}

/// The values as they are stored in the model itself.
pub(crate) fn raw(tensor: &Message) -> Option<&Bytes> {
    tensor.all_bytes(RAW_DATA).last()
}

/// Puts values that lay elsewhere into the tensor.
pub(crate) fn inline(tensor: &mut Message, bytes: Vec<u8>) {
    tensor.fields.retain(|field| !matches!(field.number, EXTERNAL_DATA | DATA_LOCATION | RAW_DATA));
    tensor.fields.push(Field::bytes(RAW_DATA, bytes));
}

/// Says of a tensor's values that they lie at `place`.
pub(crate) fn relocate(tensor: &mut Message, place: &Place, length: u64) {
    tensor.fields.retain(|field| !matches!(field.number, EXTERNAL_DATA | DATA_LOCATION | RAW_DATA));
    tensor.fields.push(Field::int(DATA_LOCATION, 1));
    let entries = [
        ("location", place.location.clone()),
        ("offset", place.offset.to_string()),
        ("length", length.to_string()),
    ];
    for (key, value) in entries {
        tensor.fields.push(crate::proto::model::entry(EXTERNAL_DATA, key, &value));
    }
}

/// Every tensor below `message`, in the order of the file.
pub(crate) fn each<E>(
    message: &Message,
    then: &mut impl FnMut(&Message) -> Result<(), E>,
) -> Result<(), E> {
    if message.kind == Kind::Tensor {
        return then(message);
    }
    for field in &message.fields {
        if let Payload::Message(child, _) = &field.payload {
            each(child, then)?;
        }
    }
    Ok(())
}

/// As [`each`], to change them.
pub(crate) fn each_mut<E>(
    message: &mut Message,
    then: &mut impl FnMut(&mut Message) -> Result<(), E>,
) -> Result<(), E> {
    if message.kind == Kind::Tensor {
        return then(message);
    }
    for field in &mut message.fields {
        if let Payload::Message(child, _) = &mut field.payload {
            each_mut(child, then)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a tensor of type `number` and shape [2, 3] with these values is whole.
    fn check(number: i64, values: Field) -> Result<(), TensorError> {
        let fields = vec![Field::int(DIMS, 2), Field::int(DIMS, 3), Field::int(DATA_TYPE, number)];
        let tensor = Message::new(Kind::Tensor, fields.into_iter().chain([values]).collect());
        check_count(&tensor, |_| Ok(None))
    }

    #[test]
    fn bytes_are_as_many_as_shape_and_type_say() {
        let sizes = [(1, 4), (2, 1), (3, 1), (4, 2), (5, 2), (6, 4), (7, 8), (9, 1), (10, 2)];
        let more = [(11, 8), (12, 4), (13, 8), (14, 8), (15, 16), (16, 2), (17, 1), (20, 1)];
        for (number, size) in sizes.into_iter().chain(more) {
            check(number, Field::bytes(RAW_DATA, vec![0; 6 * size])).unwrap();
            for wrong in [0, 6 * size - 1, 6 * size + 1, 7 * size] {
                let error = check(number, Field::bytes(RAW_DATA, vec![0; wrong])).unwrap_err();
                let TensorError::Bytes { expected, got } = error else { panic!("{error}") };
                assert_eq!((expected, got), (6 * size, wrong), "type {number}");
            }
        }
        // Six values of four bits.
        check(22, Field::bytes(RAW_DATA, vec![0; 3])).unwrap();
        check(22, Field::bytes(RAW_DATA, vec![0; 6])).unwrap_err();
        // Text, and types to come.
        for unknown in [0, 8, 99] {
            check(unknown, Field::bytes(RAW_DATA, vec![0])).unwrap();
        }
    }

    #[test]
    fn numbers_are_as_many_as_the_shape_says() {
        // Type, numbers, their field, and the bytes of each: a varint of 1 is one.
        let kinds = [
            (1, 6, FLOAT_DATA, 4),
            (11, 6, DOUBLE_DATA, 8),
            (14, 12, FLOAT_DATA, 4),
            (7, 6, INT64_DATA, 1),
            (13, 6, UINT64_DATA, 1),
            (3, 6, INT32_DATA, 1),
            (9, 6, INT32_DATA, 1),
            (10, 6, INT32_DATA, 1),
        ];
        for (number, count, field, size) in kinds {
            let values = |count: usize| Field::bytes(field, vec![1; count * size]);
            check(number, values(count)).unwrap();
            for wrong in [0, count - 1, count + 1] {
                let error = check(number, values(wrong)).unwrap_err();
                assert!(matches!(error, TensorError::Count { .. }), "type {number}: {error}");
            }
        }
    }

    #[test]
    fn bytes_that_lie_elsewhere_are_counted_where_they_can_be() {
        let fields =
            vec![Field::int(DIMS, 6), Field::int(DATA_TYPE, 1), Field::int(DATA_LOCATION, 1)];
        let tensor = Message::new(Kind::Tensor, fields);
        check_count(&tensor, |_| Ok(None)).unwrap();
        check_count(&tensor, |_| Ok(Some(24))).unwrap();
        check_count(&tensor, |_| Ok(Some(20))).unwrap_err();
    }

    #[test]
    fn sizes_that_are_none() {
        let shaped = |dims: &[i64], bytes| {
            let mut fields: Vec<Field> = dims.iter().map(|&dim| Field::int(DIMS, dim)).collect();
            fields.extend([Field::int(DATA_TYPE, 1), Field::bytes(RAW_DATA, vec![0; bytes])]);
            check_count(&Message::new(Kind::Tensor, fields), |_| Ok(None))
        };
        shaped(&[], 4).unwrap();
        shaped(&[3, 0], 0).unwrap();
        shaped(&[-1, 3], 12).unwrap_err();
        shaped(&[i64::MAX, i64::MAX], 12).unwrap_err();
    }
}
