//! [`FileKind`]: what a file is, by what stands in it, where it is not what was asked for.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;

/// The kinds of files that are given for a model, a plan or an array by mistake. [`Display`](fmt::Display) names the kind and the way
/// out; nothing of the file's contents is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileKind {
    /// No byte at all.
    Empty,
    /// Nothing but zeros.
    Zeros,
    /// A folder.
    Folder,
    /// A device, a socket or the like.
    Device,
    /// What Git LFS leaves in the place of a file.
    LfsPointer,
    /// What git-annex leaves in the place of a file.
    AnnexPointer,
    /// A safetensors file.
    Safetensors,
    /// What `torch.save` writes: a zip archive with a pickle.
    PyTorchZip,
    /// What `torch.save` wrote before version 1.6, or another pickle.
    Pickle,
    /// A TorchScript module.
    TorchScript,
    /// An exported program of PyTorch: what `torch.export.save` writes.
    ExportedProgram,
    /// An ONNX model.
    Onnx,
    /// A TensorFlow model: saved model, TFLite or Keras.
    TensorFlow,
    /// An HDF5 file: Keras weights, MATLAB 7.3.
    Hdf5,
    /// A GGUF or GGML file.
    Gguf,
    /// An array of NumPy's.
    Npy,
    /// An archive of NumPy's arrays.
    Npz,
    /// A zip archive.
    Zip,
    /// A tar archive.
    Tar,
    /// A file compressed by this program.
    Compressed(&'static str),
    /// A picture.
    Picture,
    /// A PDF.
    Pdf,
    /// A program or a library.
    Program,
    /// A web page.
    WebPage,
    /// XML, as servers send it with an error.
    Xml,
    /// The list of the files that a model is split into.
    ShardIndex,
    /// An architecture without weights.
    Architecture,
    /// A plan of ranks.
    Plan,
    /// An answer of a server that tells of an error.
    ErrorAnswer,
    /// Other JSON.
    Json,
    /// Other text.
    Text,
    /// None of these.
    Unknown,
}

impl FileKind {
    /// The kind of a file, by its contents.
    ///
    /// ```
    /// use cp_net::FileKind;
    ///
    /// assert_eq!(FileKind::of(b"version https://git-lfs.github.com/spec/v1\noid sha256:00"), FileKind::LfsPointer);
    /// assert_eq!(FileKind::of(b"<!DOCTYPE html><html></html>"), FileKind::WebPage);
    /// ```
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            return Self::Empty;
        }
        // The header's length, and the brace that opens it.
        if bytes.len() > 8 && bytes[8] == b'{' && bytes[5..8] == [0; 3] {
            return Self::Safetensors;
        }
        // A pickle of protocol 2 to 5 begins with its number, and an opcode behind it.
        if let [0x80, 2..=5, ..] = bytes {
            return Self::Pickle;
        }
        let starts = |magic: &[u8]| bytes.starts_with(magic);
        for (magic, kind) in MAGIC {
            if starts(magic) {
                return *kind;
            }
        }
        if starts(b"PK\x03\x04") || starts(b"PK\x05\x06") {
            return zip(bytes);
        }
        if bytes.get(257..262) == Some(b"ustar") {
            return Self::Tar;
        }
        if bytes.get(4..8) == Some(b"TFL3") {
            return Self::TensorFlow;
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Self::Zeros;
        }
        // The beginning of that length, and no letters of two bytes.
        let is_cut = (4..=8).contains(&bytes.len()) && bytes[0] > 0 && bytes.ends_with(&[0]);
        if is_cut && !starts(b"\xff\xfe") && !starts(b"\xfe\xff") {
            return Self::Safetensors;
        }
        // A page is one whatever stands in it.
        let front = bytes.trim_ascii_start();
        let opens =
            |tag: &[u8]| front.get(..tag.len()).is_some_and(|f| f.eq_ignore_ascii_case(tag));
        if opens(b"<html") || opens(b"<!doctype html") {
            return Self::WebPage;
        }
        if let Some(text) = text(bytes) {
            return of_text(&text);
        }
        protobuf(bytes).unwrap_or(Self::Unknown)
    }

    /// What it is, in a few words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "an empty file",
            Self::Zeros => "a file of nothing but zeros",
            Self::Folder => "a folder",
            Self::Device => "no ordinary file",
            Self::LfsPointer => "a pointer of Git LFS, not the file itself",
            Self::AnnexPointer => "a pointer of git-annex, not the file itself",
            Self::Safetensors => "a safetensors file",
            Self::PyTorchZip => "a PyTorch checkpoint (a pickle in a zip archive)",
            Self::Pickle => "a Python pickle, as PyTorch's old checkpoints are",
            Self::TorchScript => "a TorchScript archive of PyTorch",
            Self::ExportedProgram => "an exported program of PyTorch (.pt2)",
            Self::Onnx => "an ONNX model",
            Self::TensorFlow => "a TensorFlow or Keras model",
            Self::Hdf5 => "an HDF5 file, as Keras weights are",
            Self::Gguf => "a GGUF or GGML file",
            Self::Npy => "an array of NumPy (.npy)",
            Self::Npz => "an archive of NumPy arrays (.npz)",
            Self::Zip => "a zip archive",
            Self::Tar => "a tar archive",
            Self::Compressed(by) => by,
            Self::Picture => "a picture",
            Self::Pdf => "a PDF document",
            Self::Program => "a program or library",
            Self::WebPage => "a web page (HTML)",
            Self::Xml => "an XML document",
            Self::ShardIndex => "the index (JSON) of a model that is split into shards",
            Self::Architecture => "an architecture (JSON) without weights",
            Self::Plan => "a plan of ranks",
            Self::ErrorAnswer => "a server's answer (JSON) that tells of an error",
            Self::Json => "a JSON file",
            Self::Text => "a text file",
            Self::Unknown => "of a kind that is not known here",
        }
    }

    /// What to do about it, where weights were expected.
    pub fn way_out(self) -> &'static str {
        match self {
            Self::Empty | Self::Zeros => "the download or copy failed: fetch it again",
            Self::Folder => "name the .safetensors file in it",
            Self::Device => "name a .safetensors file",
            Self::LfsPointer => "fetch the file with `git lfs pull`",
            Self::AnnexPointer => "fetch the file with `git annex get`",
            Self::Safetensors => "it can be given as a model",
            Self::PyTorchZip | Self::Pickle => {
                "it can be given as a model, with its architecture in --arch"
            }
            Self::TorchScript => {
                "write its weights in Python with torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth'), and name the \
                 architecture with --arch"
            }
            Self::ExportedProgram | Self::Onnx => "it can be given as a model",
            Self::TensorFlow | Self::Hdf5 | Self::Gguf => {
                "take the weights from the training program as safetensors, and name the architecture with --arch"
            }
            Self::Npy | Self::Npz => {
                "write the arrays with safetensors.numpy.save_file in Python, and name the architecture with --arch; \
                 `polyad decompose` takes a single .npy"
            }
            Self::Zip | Self::Tar | Self::Compressed(_) => {
                "unpack it, and name the .safetensors file in it"
            }
            Self::WebPage | Self::Xml | Self::ErrorAnswer => {
                "the address led to a page, not to the file: download the file itself"
            }
            Self::ShardIndex => "join the shards into one .safetensors file, and name that",
            Self::Architecture => "give it with --arch, beside the weights",
            Self::Plan => "give it with --ranks or --fix, beside the weights",
            Self::Picture | Self::Pdf | Self::Program | Self::Json | Self::Text | Self::Unknown => {
                "name a .safetensors file"
            }
        }
    }

    /// What to do about it, where an architecture was expected.
    pub(super) fn way_out_of_arch(self) -> &'static str {
        match self {
            Self::Empty | Self::Zeros => "the download or copy failed: fetch it again",
            Self::LfsPointer | Self::AnnexPointer | Self::WebPage | Self::ErrorAnswer => {
                self.way_out()
            }
            Self::Safetensors => {
                "give it as the model, and a net.json (docs/network.md) with --arch"
            }
            Self::Plan => {
                "give it with --ranks or --fix, and a net.json (docs/network.md) with --arch"
            }
            _ => {
                "--arch takes a name, of which `polyad inspect --help` has the list, or a net.json (docs/network.md)"
            }
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// First bytes that say it all.
const MAGIC: &[(&[u8], FileKind)] = &[
    (b"version https://git-lfs.github.com/", FileKind::LfsPointer),
    (b"/annex/objects/", FileKind::AnnexPointer),
    (b"\x93NUMPY", FileKind::Npy),
    (b"\x89HDF\r\n\x1a\n", FileKind::Hdf5),
    (b"MATLAB 7.3", FileKind::Hdf5),
    (b"GGUF", FileKind::Gguf),
    (b"lmgg", FileKind::Gguf),
    (b"tjgg", FileKind::Gguf),
    (b"\x1f\x8b", FileKind::Compressed("compressed by gzip")),
    (b"\x1f\x9d", FileKind::Compressed("compressed by compress (.Z)")),
    (b"BZh", FileKind::Compressed("compressed by bzip2")),
    (b"\xfd7zXZ\0", FileKind::Compressed("compressed by xz")),
    (b"\x5d\0\0", FileKind::Compressed("compressed by lzma")),
    (b"\x28\xb5\x2f\xfd", FileKind::Compressed("compressed by zstd")),
    (b"\x04\x22\x4d\x18", FileKind::Compressed("compressed by lz4")),
    (b"7z\xbc\xaf\x27\x1c", FileKind::Compressed("an archive of 7-Zip")),
    (b"Rar!\x1a\x07", FileKind::Compressed("a RAR archive")),
    (b"\x89PNG\r\n\x1a\n", FileKind::Picture),
    (b"\xff\xd8\xff", FileKind::Picture),
    (b"GIF8", FileKind::Picture),
    (b"%PDF-", FileKind::Pdf),
    (b"\x7fELF", FileKind::Program),
    (b"MZ\x90\0", FileKind::Program),
    (b"\xcf\xfa\xed\xfe", FileKind::Program),
];

/// Whose archive it is, by the names in it.
fn zip(bytes: &[u8]) -> FileKind {
    // Names stand at the beginning, before each file, and in the list at the end.
    const LOOKED_AT: usize = 1 << 16;
    let (front, back) =
        (&bytes[..bytes.len().min(LOOKED_AT)], &bytes[bytes.len().saturating_sub(LOOKED_AT)..]);
    let has = |name: &[u8]| {
        [front, back].iter().any(|part| part.windows(name.len()).any(|window| window == name))
    };
    if has(b"serialized_exported_program") || has(b"/models/model.json") {
        FileKind::ExportedProgram
    } else if has(b"constants.pkl") || has(b"/code/") {
        FileKind::TorchScript
    } else if has(b"data.pkl") {
        FileKind::PyTorchZip
    } else if has(b"model.weights.h5") || has(b"saved_model.pb") {
        FileKind::TensorFlow
    } else if has(b".npy") {
        FileKind::Npz
    } else {
        FileKind::Zip
    }
}

/// Bytes looked at to tell text from the rest.
const TEXT: usize = 4096;

/// The beginning as text, where it is text: UTF-8, UTF-16 with its mark, or Latin-1 without control characters.
fn text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let front = &bytes[..bytes.len().min(TEXT)];
    if front.starts_with(b"\xff\xfe") || front.starts_with(b"\xfe\xff") {
        let little = front[0] == 0xff;
        let units =
            front[2..].as_chunks().0.iter().map(|pair| {
                if little { u16::from_le_bytes(*pair) } else { u16::from_be_bytes(*pair) }
            });
        let text: String = char::decode_utf16(units).map_while(Result::ok).collect();
        return Some(Cow::Owned(text));
    }
    let front = front.strip_prefix(b"\xef\xbb\xbf").unwrap_or(front);
    let is_control = |byte: &u8| *byte < 32 && !b"\t\n\r\x0c\x1b".contains(byte) || *byte == 127;
    if front.iter().any(is_control) {
        return None;
    }
    match std::str::from_utf8(front) {
        Ok(text) => Some(Cow::Borrowed(text)),
        // A letter cut through at the end of what is looked at.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&front[..error.valid_up_to()]).ok().map(Cow::Borrowed)
        }
        Err(_) => Some(String::from_utf8_lossy(front)),
    }
}

fn of_text(text: &str) -> FileKind {
    let text = text.trim_start();
    let lower = text[..text.floor_char_boundary(1024)].to_lowercase();
    if lower.starts_with('<') {
        let is_page = lower.contains("<html") || lower.contains("<!doctype html");
        return if is_page { FileKind::WebPage } else { FileKind::Xml };
    }
    let is_list = text.starts_with('[') && serde_json::from_str::<Value>(text).is_ok();
    if text.starts_with('{') || is_list {
        return json(text);
    }
    if lower.starts_with("[[layer]]") || lower.contains("\n[[layer]]") {
        return FileKind::Plan;
    }
    FileKind::Text
}

/// What JSON is about, by its keys; the text may be cut off.
fn json(text: &str) -> FileKind {
    let keys = match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(fields)) => fields.keys().cloned().collect(),
        Ok(_) => Vec::new(),
        // Cut off: every name with a colon behind it.
        Err(_) => text
            .split('"')
            .zip(text.split('"').skip(1))
            .filter(|(_, behind)| behind.trim_start().starts_with(':'))
            .map(|(name, _)| name.to_owned())
            .collect::<Vec<_>>(),
    };
    let has = |name: &str| keys.iter().any(|key| key == name);
    if has("weight_map") {
        FileKind::ShardIndex
    } else if has("nodes") && (has("inputs") || has("input")) {
        FileKind::Architecture
    } else if ["error", "errors", "message"].into_iter().any(has) {
        FileKind::ErrorAnswer
    } else {
        FileKind::Json
    }
}

/// ONNX and TensorFlow models are messages of protocol buffers: fields of a number and a kind, one behind the other.
fn protobuf(bytes: &[u8]) -> Option<FileKind> {
    let mut rest = bytes;
    let mut numbers = Vec::new();
    let mut producer = None;
    while !rest.is_empty() && numbers.len() < 32 {
        let Some(tag) = varint(&mut rest) else { break };
        let (number, kind) = (tag >> 3, tag & 7);
        match kind {
            0 => {
                varint(&mut rest)?;
            }
            2 => {
                let Some(length) = varint(&mut rest) else { break };
                let held = usize::try_from(length).ok()?.min(rest.len());
                if number == 2 && numbers == [1] {
                    producer = std::str::from_utf8(&rest[..held]).ok().filter(|name| {
                        name.len() < 200 && name.chars().all(|letter| !letter.is_control())
                    });
                }
                rest = &rest[held..];
            }
            _ => return None,
        }
        numbers.push(number);
    }
    // `ir_version`, then names, the graph and the sets of operators.
    let onnx = [1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26];
    let is_onnx = numbers.first() == Some(&1)
        && numbers.len() > 1
        && numbers.iter().all(|number| onnx.contains(number));
    if is_onnx && (numbers[1] != 2 || producer.is_some()) {
        return Some(FileKind::Onnx);
    }
    // The version of the schema, then graphs.
    let is_saved = bytes.starts_with(&[8, 1, 18]) && numbers.iter().all(|number| *number <= 2);
    is_saved.then_some(FileKind::TensorFlow)
}

/// A number of seven bits a byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_by_their_contents() {
        let check = |bytes: &[u8], expected: FileKind| {
            assert_eq!(FileKind::of(bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        };
        check(b"", FileKind::Empty);
        check(&[0; 500], FileKind::Zeros);
        check(b"version https://git-lfs.github.com/spec/v1\noid sha256:0", FileKind::LfsPointer);
        check(b"/annex/objects/SHA256E-s1--0.safetensors\n", FileKind::AnnexPointer);
        check(b"\x02\0\0\0\0\0\0\0{}", FileKind::Safetensors);
        check(b"\x80\x02}q\0.", FileKind::Pickle);
        check(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", FileKind::Pickle);
        check(b"\x80\x04\x95\0\0\0\0", FileKind::Pickle);
        check(b"PK\x03\x04 model/data.pkl", FileKind::PyTorchZip);
        check(b"PK\x03\x04 m/code/__torch__.py m/data.pkl m/constants.pkl", FileKind::TorchScript);
        check(b"PK\x03\x04 m/data/weights/weight_0 m/models/model.json", FileKind::ExportedProgram);
        check(b"PK\x03\x04 weights.npy", FileKind::Npz);
        check(b"PK\x03\x04 notes.txt", FileKind::Zip);
        check(b"PK\x05\x06\0\0", FileKind::Zip);
        check(b"\x89HDF\r\n\x1a\n\0", FileKind::Hdf5);
        check(b"\x93NUMPY\x01\0", FileKind::Npy);
        check(b"\x1f\x8b\x08\0", FileKind::Compressed("compressed by gzip"));
        check(b"\xfd7zXZ\0\0", FileKind::Compressed("compressed by xz"));
        check(b"\xff\xd8\xff\xe0", FileKind::Picture);
        check(b"GGUF\x03\0", FileKind::Gguf);
        check(b"\x1c\0\0\0TFL3", FileKind::TensorFlow);
        check(b"\n<!DOCTYPE html><html>", FileKind::WebPage);
        check(b"\xef\xbb\xbf<html>", FileKind::WebPage);
        check(b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", FileKind::Xml);
        check(br#"{"metadata": {}, "weight_map": {"a": "b"}}"#, FileKind::ShardIndex);
        check(br#"{"error": "Repository not found"}"#, FileKind::ErrorAnswer);
        check(br#"{"name": "n", "inputs": [], "nodes": []}"#, FileKind::Architecture);
        check(br#"{"model_type": "resnet"}"#, FileKind::Json);
        check(b"[[layer]]\nname = \"conv1\"\n", FileKind::Plan);
        check(b"Entry not found", FileKind::Text);
        check(b"[package]\nname = \"x\"", FileKind::Text);
        check(b"\x98\x05\0\0\0", FileKind::Safetensors);
        check(b"caf\xe9", FileKind::Text);
        check(b"\xff\xfeh\0i\0", FileKind::Text);
        check(b"\x01\x02\xff\x07", FileKind::Unknown);
        let mut tar = vec![b'a'; 257];
        tar.extend(b"ustar\0");
        check(&tar, FileKind::Tar);
        // JSON longer than what is looked at.
        let long =
            format!(r#"{{"metadata": {{}}, "weight_map": {{{}"#, r#""a": "b", "#.repeat(999));
        check(long.as_bytes(), FileKind::ShardIndex);
    }

    #[test]
    fn messages_of_protocol_buffers() {
        let check = |bytes: &[u8], expected: FileKind| assert_eq!(FileKind::of(bytes), expected);
        check(b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x90\x01\x0a", FileKind::Onnx);
        // Without a producer; the graph comes first.
        check(b"\x08\x0a\x3a\x02\x0a\x00\x42\x02\x10\x11", FileKind::Onnx);
        check(b"\x08\x01\x12\x04\x0a\x02\x08\x01", FileKind::TensorFlow);
        // A field of another kind than messages have.
        check(b"\x08\x07\x13\x07", FileKind::Unknown);
    }
}
