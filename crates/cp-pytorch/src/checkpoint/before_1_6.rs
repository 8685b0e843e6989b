//! The format before PyTorch 1.6: five pickles one behind the other (a magic number, the version of the protocol, what the machine was
//! like, the object, the keys of its storages), then the storages in the order of the keys, each behind its number of elements.
//!
//! Reference: `_legacy_save` in torch/serialization.py.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::{StateDict, arrays, unpickled};
use crate::error::CheckpointError;
use crate::limits::Budget;
use crate::pickle::value::{Heap, Value};

/// 0x1950a86a20f9469cfc6c, the lowest byte first.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

const PROTOCOL: i64 = 1001;

pub(super) fn read(
    bytes: &[u8],
    key: Option<&str>,
    file: &str,
) -> Result<StateDict, CheckpointError> {
    let mut at = 0;
    let mut next = |part: &str| -> Result<(Heap, Value), CheckpointError> {
        let rest = &bytes[at..];
        // The storages behind the pickles are none of the pickles' bytes.
        let (heap, value, length) =
            unpickled(&rest[..rest.len().min(crate::limits::MAX_PICKLE)], part)?;
        at += length;
        Ok((heap, value))
    };
    match next("magic number") {
        Ok((_, Value::Long(magic))) if *magic == MAGIC => {}
        // A pickle with what it needs in itself, or one that only begins like that.
        Ok(_) => return Err(CheckpointError::OtherPickle),
        Err(error) if MAGIC.starts_with(bytes.get(4..14.min(bytes.len())).unwrap_or_default()) => {
            return Err(error);
        }
        Err(_) => return Err(CheckpointError::OtherPickle),
    }
    match next("protocol version")? {
        (_, Value::Int(PROTOCOL)) => {}
        (_, other) => {
            let version = format!("{other:?}");
            return Err(CheckpointError::Version { version, expected: "1001" });
        }
    }
    let (machine, about) = next("machine")?;
    let order = machine.dict(&about).unwrap_or_default().iter();
    if order.clone().any(|(key, value)| {
        matches!(key, Value::Text(key) if &**key == "little_endian") && *value == Value::Bool(false)
    }) {
        return Err(CheckpointError::BigEndian);
    }
    let (heap, root) = next("object")?;
    let (keys, list) = next("keys of the storages")?;
    let keys = keys.items(&list).unwrap_or_default();
    let places = places(bytes, at, &heap, keys)?;
    arrays(&heap, &root, key, file, &Budget::of(bytes.len()), |storage| {
        let place = places.get(&*storage.key).cloned();
        let part = place.and_then(|place| bytes.get(place));
        part.map(Cow::Borrowed)
            .ok_or_else(|| CheckpointError::Storage { key: storage.key.to_string() })
    })
}

/// Where each storage lies, the first one at `at`.
fn places<'a>(
    bytes: &[u8],
    mut at: usize,
    heap: &Heap,
    keys: &'a [Value],
) -> Result<HashMap<&'a str, Range<usize>>, CheckpointError> {
    let mut known = HashMap::new();
    for storage in &heap.storages {
        let size = storage.dtype.map_or(1, crate::dtype::Dtype::size);
        if *known.entry(&*storage.key).or_insert((size, storage.count)) != (size, storage.count) {
            return Err(CheckpointError::StorageClash { key: storage.key.to_string() });
        }
    }
    let mut places = HashMap::new();
    for key in keys {
        let Value::Text(key) = key else { continue };
        let cut = || CheckpointError::Storage { key: key.to_string() };
        let clash = || CheckpointError::StorageClash { key: key.to_string() };
        let (size, expected) = *known.get(&**key).ok_or_else(clash)?;
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk()).ok_or_else(cut)?;
        let count = u64::from_le_bytes(*count);
        if count != expected {
            return Err(clash());
        }
        let start = at + 8;
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        let end = length.and_then(|length| start.checked_add(length));
        at = end.filter(|end| *end <= bytes.len()).ok_or_else(cut)?;
        if places.insert(&**key, start..at).is_some() {
            return Err(clash());
        }
    }
    Ok(places)
}
