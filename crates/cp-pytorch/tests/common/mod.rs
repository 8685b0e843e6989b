//! Bytes of pickles and archives, put together by hand.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]
#![allow(unreachable_pub, reason = "it is a module of each test file")]
#![allow(dead_code, reason = "every test file takes what it needs")]

use std::io::Write;
use std::path::{Path, PathBuf};

use cp_pytorch::{PyTorchError, StateDict, StateDictOptions, state_dict};
use flate2::Compression;
use flate2::Crc;
use flate2::write::DeflateEncoder;

/// The folder of the shared ONNX and PyTorch files beside the workspace, or `POLYAD_ONNX`.
pub fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/datasets/onnx");
    let folder = std::env::var_os("POLYAD_ONNX").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no PyTorch files at {}", folder.display());
    None
}

/// The state dict in a file of these bytes.
pub fn read(bytes: &[u8], key: Option<&str>) -> Result<StateDict, PyTorchError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    std::fs::write(&path, bytes).unwrap();
    state_dict(&path, &StateDictOptions { key: key.map(String::from) })
}

/// What is wrong with a file of these bytes.
#[track_caller]
pub fn refused(bytes: &[u8], key: Option<&str>, expected: &str) {
    let error = read(bytes, key).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}\n  lacks: {expected}");
}

/// A member of an archive.
pub struct Member {
    pub name: String,
    pub data: Vec<u8>,
    pub deflated: bool,
}

pub fn member(name: &str, data: impl Into<Vec<u8>>) -> Member {
    Member { name: name.into(), data: data.into(), deflated: false }
}

/// An archive as PyTorch writes it.
pub fn zip(members: &[Member]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for Member { name, data, deflated } in members {
        let at = u32::try_from(file.len()).unwrap();
        let packed = if *deflated {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(data).unwrap();
            encoder.finish().unwrap()
        } else {
            data.clone()
        };
        let mut crc = Crc::new();
        crc.update(data);
        let mut shared = vec![20, 0, 0, 8];
        shared.extend([if *deflated { 8 } else { 0 }, 0, 0, 0, 0, 0]);
        shared.extend(crc.sum().to_le_bytes());
        shared.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        shared.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        shared.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&shared);
        file.extend([0, 0]);
        file.extend(name.as_bytes());
        file.extend(packed);
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&shared);
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = u32::try_from(file.len()).unwrap();
    let count = u16::try_from(members.len()).unwrap().to_le_bytes();
    file.extend(&directory);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend([count, count].concat());
    file.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// An archive with this pickle, and storages `0`, `1`, ….
pub fn saved(pickle: &[u8], storages: &[&[u8]]) -> Vec<u8> {
    let mut members = vec![member("w/data.pkl", pickle), member("w/byteorder", *b"little")];
    for (index, storage) in storages.iter().enumerate() {
        members.push(member(&format!("w/data/{index}"), *storage));
    }
    zip(&members)
}

/// The bytes of numbers.
pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Opcodes that make a text.
pub fn text(text: &str) -> Vec<u8> {
    [b"X", &u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
}

/// Opcodes that make a whole number.
pub fn int(number: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &number.to_le_bytes()].concat()
}

/// Opcodes that make a tuple of numbers.
pub fn ints(numbers: &[i64]) -> Vec<u8> {
    [b"(".to_vec(), numbers.iter().flat_map(|number| int(*number)).collect(), b"t".to_vec()]
        .concat()
}

/// Opcodes that name a global.
pub fn global(name: &str) -> Vec<u8> {
    let (module, name) = name.rsplit_once('.').unwrap();
    format!("c{module}\n{name}\n").into_bytes()
}

/// Opcodes that call a global on what the opcodes make.
pub fn call(name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    [global(name), b"(".to_vec(), arguments.concat(), b"tR".to_vec()].concat()
}

/// Opcodes that make a storage.
pub fn storage(class: &str, key: &str, count: i64) -> Vec<u8> {
    let parts = [text("storage"), global(class), text(key), text("cpu"), int(count)];
    [b"(".to_vec(), parts.concat(), b"tQ".to_vec()].concat()
}

/// Opcodes that make a tensor.
pub fn tensor(storage: Vec<u8>, offset: i64, sizes: &[i64], strides: &[i64]) -> Vec<u8> {
    let hooks = call("collections.OrderedDict", &[]);
    let parts = [storage, int(offset), ints(sizes), ints(strides), b"\x89".to_vec(), hooks];
    call("torch._utils._rebuild_tensor_v2", &parts)
}

/// Opcodes that make the tensor of all `count` numbers of storage `0`.
pub fn vector(count: i64) -> Vec<u8> {
    tensor(storage("torch.FloatStorage", "0", count), 0, &[count], &[1])
}

/// Opcodes that make a dict.
pub fn dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(key, value)| [text(key), value.clone()].concat());
    [b"}(".to_vec(), entries.collect(), b"u".to_vec()].concat()
}

/// A pickle of what these opcodes make.
pub fn pickle(opcodes: &[u8]) -> Vec<u8> {
    [b"\x80\x02", opcodes, b"."].concat()
}

/// A file of what these opcodes make, with storage `0` of these numbers.
pub fn file(opcodes: &[u8], values: &[f32]) -> Vec<u8> {
    saved(&pickle(opcodes), &[&floats(values)])
}

/// The same in the format before 1.6.
pub fn old_file(opcodes: &[u8], values: &[f32]) -> Vec<u8> {
    let magic = [&[0x8a, 10][..], b"l\xfc\x9cF\xf9 j\xa8P\x19"].concat();
    let machine = [b"}".to_vec(), text("little_endian"), b"\x88s".to_vec()].concat();
    let key = if values.is_empty() { Vec::new() } else { [text("0"), b"a".to_vec()].concat() };
    let keys = [b"]".to_vec(), key].concat();
    let pickles = [magic, int(1001), machine, opcodes.to_vec(), keys].map(|part| pickle(&part));
    let count = (values.len() as u64).to_le_bytes().to_vec();
    if values.is_empty() {
        return pickles.concat();
    }
    [pickles.concat(), count, floats(values)].concat()
}
