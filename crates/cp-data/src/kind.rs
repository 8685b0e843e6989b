//! What a file is by its content, whatever its name says: for messages about a file of another kind than was asked for.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::{DataError, printable_path};

/// A kind of file, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// No bytes at all.
    Empty,
    /// What Git keeps in the place of a large file until `git lfs pull` fetches it.
    LfsPointer,
    /// A web page, such as a sign-in form saved in the place of a download.
    Html,
    /// XML, such as the answer of a storage service that refuses.
    Xml,
    /// JSON text.
    Json,
    /// Other text.
    Text,
    /// A tar archive.
    Tar,
    /// Packed by gzip.
    Gzip,
    /// Packed by zstd.
    Zstd,
    /// Packed by xz.
    Xz,
    /// Packed by bzip2.
    Bzip2,
    /// Packed by LZ4.
    Lz4,
    /// A zip archive.
    Zip,
    /// A zip archive as `torch.save` writes it.
    PyTorch,
    /// A zip archive of NumPy arrays.
    Npz,
    /// A 7-Zip archive.
    SevenZip,
    /// A RAR archive.
    Rar,
    /// A Python pickle, which old versions of `torch.save` wrote too.
    Pickle,
    /// An ONNX model.
    Onnx,
    /// Arrays in the safetensors format.
    Safetensors,
    /// One NumPy array.
    Npy,
    /// HDF5, as Keras and MATLAB write it.
    Hdf5,
    /// An IDX file, the format of MNIST.
    Idx,
    /// A JPEG image.
    Jpeg,
    /// A PNG image.
    Png,
    /// An image in a format that is not read here: its name.
    OtherImage(&'static str),
    /// A PDF document.
    Pdf,
    /// Nothing that is known here.
    Unknown,
}

/// Bytes that [`FileKind::of_bytes`] looks at.
const START: u64 = 4096;

/// Bytes of a block of a tar archive, and so of its first header.
const TAR_HEADER: usize = 512;

/// Opens a file that has an end and can be gone back in: no pipe, whose other end may never come, and no device.
pub(crate) fn open_file(path: &Path) -> Result<File, DataError> {
    let kind = std::fs::metadata(path).map_err(DataError::io(path))?;
    if !kind.is_file() && !kind.is_dir() {
        let told = "is a pipe or a device, not a file; write what comes out of it into a file";
        return Err(DataError::io(path)(std::io::Error::other(told)));
    }
    File::open(path).map_err(DataError::io(path))
}

impl FileKind {
    /// The kind of a file that starts with these bytes; 4,096 are enough, and fewer mean a file of just these.
    ///
    /// ```
    /// use cp_data::FileKind;
    ///
    /// assert_eq!(FileKind::of_bytes(b"<!DOCTYPE html><title>Sign in</title>"), FileKind::Html);
    /// assert_eq!(FileKind::of_bytes(b"\xfd7zXZ\0\0\x04").to_string(), "an xz file");
    /// ```
    pub fn of_bytes(start: &[u8]) -> Self {
        match start {
            [] => FileKind::Empty,
            [0x1f, 0x8b, ..] => FileKind::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => FileKind::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => FileKind::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => FileKind::Bzip2,
            [0x04, 0x22, 0x4d, 0x18, ..] => FileKind::Lz4,
            [b'P', b'K', 3 | 5, 4 | 6, ..] => zip(start),
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => FileKind::SevenZip,
            [b'R', b'a', b'r', b'!', 0x1a, 7, ..] => FileKind::Rar,
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => FileKind::Npy,
            [0x89, b'H', b'D', b'F', b'\r', b'\n', 0x1a, b'\n', ..] => FileKind::Hdf5,
            [0xff, 0xd8, 0xff, ..] => FileKind::Jpeg,
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => FileKind::Png,
            [b'%', b'P', b'D', b'F', b'-', ..] => FileKind::Pdf,
            [b'G', b'I', b'F', b'8', ..] => FileKind::OtherImage("GIF"),
            [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => FileKind::OtherImage("BMP"),
            [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => FileKind::OtherImage("TIFF"),
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
                FileKind::OtherImage("WebP")
            }
            [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', ..] => {
                FileKind::OtherImage("AVIF")
            }
            [_, _, _, _, b'f', b't', b'y', b'p', b'h' | b'm', b'e' | b'i', b'i' | b'f', ..] => {
                FileKind::OtherImage("HEIC")
            }
            [0xff, 0x0a, ..] | [0, 0, 0, 0x0c, b'J', b'X', b'L', b' ', ..] => {
                FileKind::OtherImage("JPEG XL")
            }
            [0, 0, 0, 0x0c, b'j', b'P', b' ', b' ', ..] => FileKind::OtherImage("JPEG 2000"),
            [0, 0, 8 | 9 | 11..=14, 1..=8, ..] => FileKind::Idx,
            _ if is_tar(start) => FileKind::Tar,
            _ if is_safetensors(start) => FileKind::Safetensors,
            [0x80, 2..=5, ..] => FileKind::Pickle,
            _ if is_onnx(start) => FileKind::Onnx,
            _ => text(start),
        }
    }

    /// The kind of a file on disk.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: impl AsRef<Path>) -> Result<Self, DataError> {
        let path = path.as_ref();
        let mut start = Vec::new();
        let file = open_file(path)?;
        file.take(START).read_to_end(&mut start).map_err(DataError::io(path))?;
        Ok(FileKind::of_bytes(&start))
    }

    /// What to do to get at what is wanted from a file of this kind, where that is known: unpack it, fetch it again.
    /// `path` is the file, for the command.
    pub fn way_out(self, path: &Path) -> Option<String> {
        let path = printable_path(path);
        let unpack = |command: &str| Some(format!("unpack it with `{command}`"));
        match self {
            FileKind::Empty => Some("fetch or write it again".to_owned()),
            FileKind::LfsPointer => {
                Some("run `git lfs pull` in its repository to fetch the file itself".to_owned())
            }
            FileKind::Html | FileKind::Xml | FileKind::Json => Some(
                "download it again, signed in where the site asks for it, from the link of the file itself".to_owned(),
            ),
            FileKind::Gzip => unpack(&format!("gzip -dk '{path}'")),
            FileKind::Zstd => unpack(&format!("zstd -d '{path}'")),
            FileKind::Xz => unpack(&format!("xz -dk '{path}'")),
            FileKind::Bzip2 => unpack(&format!("bzip2 -dk '{path}'")),
            FileKind::Lz4 => unpack(&format!("lz4 -dk '{path}'")),
            FileKind::Zip => unpack(&format!("unzip '{path}' -d FOLDER")),
            FileKind::SevenZip => unpack(&format!("7z x '{path}' -oFOLDER")),
            FileKind::Rar => unpack(&format!("unrar x '{path}' FOLDER/")),
            FileKind::OtherImage(_) => Some("convert it to JPEG or PNG".to_owned()),
            _ => None,
        }
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Empty => "an empty file",
            FileKind::LfsPointer => {
                "a Git LFS pointer, which stands for a file that was not fetched"
            }
            FileKind::Html => "a web page (HTML)",
            FileKind::Xml => "an XML text",
            FileKind::Json => "a JSON text",
            FileKind::Text => "a text",
            FileKind::Tar => "a tar archive",
            FileKind::Gzip => "a gzip file",
            FileKind::Zstd => "a zstd file",
            FileKind::Xz => "an xz file",
            FileKind::Bzip2 => "a bzip2 file",
            FileKind::Lz4 => "an LZ4 file",
            FileKind::Zip => "a zip archive",
            FileKind::PyTorch => "a PyTorch file (zip)",
            FileKind::Npz => "a NumPy archive (npz)",
            FileKind::SevenZip => "a 7-Zip archive",
            FileKind::Rar => "a RAR archive",
            FileKind::Pickle => "a Python pickle",
            FileKind::Onnx => "an ONNX model",
            FileKind::Safetensors => "a safetensors file",
            FileKind::Npy => "a NumPy array (npy)",
            FileKind::Hdf5 => "an HDF5 file",
            FileKind::Idx => "an IDX file",
            FileKind::Jpeg => "a JPEG image",
            FileKind::Png => "a PNG image",
            FileKind::OtherImage(format) => return write!(f, "an image in the format {format}"),
            FileKind::Pdf => "a PDF document",
            FileKind::Unknown => "a file of an unknown kind",
        })
    }
}

/// By the name of the first file in the archive, which stands at byte 30 (its length at 26).
fn zip(start: &[u8]) -> FileKind {
    let length =
        start.get(26..28).map_or(0, |length| usize::from(length[0]) | usize::from(length[1]) << 8);
    let name = start.get(30..30 + length).unwrap_or(&[]);
    if name.ends_with(b"/data.pkl") || name.ends_with(b"/version") || name.ends_with(b"/byteorder")
    {
        FileKind::PyTorch
    } else if name.ends_with(b".npy") {
        FileKind::Npz
    } else {
        FileKind::Zip
    }
}

/// Whether the first header has the sum of its bytes that it claims (with the sum's own eight bytes as blanks), or the
/// magic word of POSIX.
fn is_tar(start: &[u8]) -> bool {
    if start.get(257..262) == Some(b"ustar") {
        return true;
    }
    let Some(header) = start.get(..TAR_HEADER) else { return false };
    let field = &header[148..156];
    let digits: Vec<u8> = field.iter().copied().filter(u8::is_ascii_digit).collect();
    let claimed = std::str::from_utf8(&digits).ok().and_then(|d| u64::from_str_radix(d, 8).ok());
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    header[0] != 0 && claimed == Some(sum(&header[..148]) + 8 * 32 + sum(&header[156..]))
}

/// Eight bytes of the header's length, then the header, which is JSON.
fn is_safetensors(start: &[u8]) -> bool {
    match start.split_first_chunk::<8>() {
        Some((length, rest)) => {
            let length = u64::from_le_bytes(*length);
            (2..1 << 30).contains(&length) && rest.first() == Some(&b'{') && rest.len() > 1
        }
        None => false,
    }
}

/// `ModelProto` as exporters write it: field 1, the format's version, then a string: the producer (2), its version
/// (3), the domain (4), or already the graph (7) or the operator set (8).
fn is_onnx(start: &[u8]) -> bool {
    matches!(start, [0x08, 1..=30, 0x12 | 0x1a | 0x22 | 0x3a | 0x42, _, ..])
}

fn text(start: &[u8]) -> FileKind {
    let body = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let begins = |word: &str| {
        body.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word.as_bytes()))
    };
    if start
        .iter()
        .any(|&byte| byte < 0x20 && !byte.is_ascii_whitespace() && byte != 0x0c && byte != 0x1b)
    {
        return FileKind::Unknown;
    }
    if begins("version https://git-lfs") || begins("version https://hawser") {
        FileKind::LfsPointer
    } else if ["<!doctype html", "<html", "<head", "<body", "<script", "<title"]
        .into_iter()
        .any(begins)
    {
        FileKind::Html
    } else if begins("<?xml") {
        if body.to_ascii_lowercase().windows(5).any(|five| five == b"<html") {
            FileKind::Html
        } else {
            FileKind::Xml
        }
    } else if begins("<!--") && body.to_ascii_lowercase().windows(5).any(|five| five == b"<html") {
        FileKind::Html
    } else if matches!(body.first(), Some(b'{' | b'[')) {
        FileKind::Json
    } else if std::str::from_utf8(start).map_or_else(|error| error.error_len().is_none(), |_| true)
    {
        FileKind::Text
    } else {
        FileKind::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_tar::tests::tar;

    #[track_caller]
    fn check(start: &[u8], expected: FileKind) {
        assert_eq!(FileKind::of_bytes(start), expected);
    }

    fn zip_of(name: &str) -> Vec<u8> {
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.resize(26, 0);
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(name.as_bytes());
        bytes
    }

    #[test]
    fn packed_files() {
        check(b"\x1f\x8b\x08", FileKind::Gzip);
        check(&zstd::encode_all(&b"abc"[..], 1).unwrap(), FileKind::Zstd);
        check(b"\xfd7zXZ\0\0\x04\xe6", FileKind::Xz);
        check(b"BZh91AY&SY", FileKind::Bzip2);
        check(&zip_of("test/a_red/0.png"), FileKind::Zip);
        check(b"PK\x05\x06\0\0", FileKind::Zip);
        check(&zip_of("archive/data.pkl"), FileKind::PyTorch);
        check(&zip_of("arr_0.npy"), FileKind::Npz);
    }

    #[test]
    fn archives_old_and_new() {
        check(&tar(&[("a/1.png", b"x")]), FileKind::Tar);
        let mut old = tar(&[("a/1.png", b"x")]);
        old[257..265].fill(0); // a header of before POSIX: no magic word
        let sum: u32 =
            old[..148].iter().chain(&old[156..512]).map(|&b| u32::from(b)).sum::<u32>() + 256;
        old[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        check(&old, FileKind::Tar);
        old[0] ^= 1;
        assert_ne!(FileKind::of_bytes(&old), FileKind::Tar);
        check(&[0; 1024], FileKind::Unknown);
    }

    #[test]
    fn models_and_arrays() {
        check(b"\x80\x02}q\0", FileKind::Pickle);
        check(b"\x80\x04\x95", FileKind::Pickle);
        check(b"\x08\x07\x12\x07pytorch\x1a\x05", FileKind::Onnx);
        check(b"\x08\x08:\xf4\x01", FileKind::Onnx);
        check(b"\x0b\0\0\0\0\0\0\0{\"a\":1}", FileKind::Safetensors);
        check(b"\x93NUMPY\x01\0", FileKind::Npy);
        check(b"\x89HDF\r\n\x1a\n", FileKind::Hdf5);
    }

    #[test]
    fn texts() {
        check(b"", FileKind::Empty);
        check(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 5\n",
            FileKind::LfsPointer,
        );
        check(b"\xef\xbb\xbf\r\n <HTML lang=en>", FileKind::Html);
        check(b"<?xml version='1.0'?><!DOCTYPE html PUBLIC><html>", FileKind::Html);
        check(b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", FileKind::Xml);
        check(b"{\"error\": \"not found\"}", FileKind::Json);
        check("Käfer\n".as_bytes(), FileKind::Text);
        check(b"K\xe4fer\n", FileKind::Unknown);
        check(b"a\0b", FileKind::Unknown);
    }

    #[test]
    fn images() {
        use crate::decode::tests::file;
        check(&file(image::ImageFormat::Jpeg, true, 1), FileKind::Jpeg);
        check(&file(image::ImageFormat::Png, false, 1), FileKind::Png);
        check(b"RIFF\0\0\0\0WEBPVP8 ", FileKind::OtherImage("WebP"));
        check(b"\0\0\0\x18ftypheic", FileKind::OtherImage("HEIC"));
        check(b"\0\0\0\x18ftypmif1", FileKind::OtherImage("HEIC"));
    }

    #[test]
    fn words_and_ways_out() {
        let path = Path::new("dir/x.tar.xz");
        assert_eq!(FileKind::Xz.way_out(path).unwrap(), "unpack it with `xz -dk 'dir/x.tar.xz'`");
        assert!(FileKind::Html.to_string().contains("web page"));
        assert_eq!(FileKind::Unknown.way_out(path), None);
    }

    #[test]
    fn a_file_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("x"), b"BZh9").unwrap();
        assert_eq!(FileKind::of_file(dir.path().join("x")).unwrap(), FileKind::Bzip2);
        assert!(FileKind::of_file(dir.path().join("none")).is_err());
    }
}
