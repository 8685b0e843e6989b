//! Zip archives of image files, as publishers give them out. Members are read where they lie; nothing is unpacked to disk.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Crc;
use flate2::read::DeflateDecoder;
use ndarray::Array3;
use rayon::prelude::*;
use zip::{CompressionMethod, ZipArchive};

use crate::decode::decode;
use crate::identity::{EntryId, sha256_of};
use crate::kind::open_file;
use crate::printable::printable_bytes;
use crate::{DataError, Dataset, FileKind, Note, Source, printable};

/// No image file of an archive may be larger: a damaged header claims anything.
const MAX_MEMBER: u64 = 256 << 20;

/// Of this many images one may be damaged; an archive with more is another than the publisher's.
const PER_DAMAGED: usize = 10;

/// Images in a zip archive of a publisher, with labels by their paths. Images are read and decoded when asked for.
///
/// Published archives hold files that are no images. Every image is decoded once when the archive is opened; those that cannot
/// be are left out, and [`notes`](Dataset::notes) name them. A member whose bytes differ from the sum that the archive itself
/// has of it is an error: that is damage of this copy.
#[derive(Debug, Clone)]
pub struct ImageZip {
    name: String,
    archive: Arc<Archive>,
    classes: Arc<[String]>,
    sources: Vec<Source>,
    notes: Vec<Note>,
}

#[derive(Debug)]
struct Archive {
    path: PathBuf,
    members: Vec<Member>,
}

/// An image in the archive.
#[derive(Debug)]
struct Member {
    path: String,
    label: usize,
    /// Number in the file's name, for the order.
    number: usize,
    /// Where its data start.
    offset: u64,
    packed: u64,
    bytes: u64,
    crc: u32,
    deflated: bool,
}

impl ImageZip {
    /// The images of an archive for which `label` gives a number and a label; in the order of labels and numbers.
    ///
    /// # Errors
    /// If the archive cannot be read, is none or damaged, has no such image, or more than a tenth of them cannot be decoded.
    pub(crate) fn of_publisher(
        path: PathBuf,
        source: Source,
        classes: Vec<String>,
        label: &dyn Fn(&str) -> Option<(usize, usize)>,
    ) -> Result<Self, DataError> {
        let mut members = members(&path, label)?;
        if members.is_empty() {
            return Err(DataError::NoImages { path, wanted: classes.join(" or ") });
        }
        members.sort_unstable_by_key(|member| (member.label, member.number));
        // What is wrong with each; an error where it is not the publisher's doing.
        let verdicts: Vec<Option<String>> = members
            .par_iter()
            .map_init(
                || File::open(&path),
                |file, member| {
                    let file = file.as_mut().map_err(|error| io::Error::from(error.kind()));
                    let bytes = member.read(file.map_err(DataError::io(&path))?, &path)?;
                    Ok(decode(&bytes, &path, Some(&member.path)).err().map(|error| reason(&error)))
                },
            )
            .collect::<Result<_, DataError>>()?;
        let damaged: Vec<String> = std::iter::zip(&members, &verdicts)
            .filter_map(|(member, why)| Some(format!("{} ({})", member.path, why.as_ref()?)))
            .collect();
        if damaged.len() * PER_DAMAGED > members.len() {
            let first = damaged.into_iter().next().unwrap_or_default();
            let count = verdicts.iter().flatten().count();
            return Err(DataError::TooDamaged {
                path,
                damaged: count,
                images: members.len(),
                first,
            });
        }
        let mut verdicts = verdicts.into_iter();
        members.retain(|_| verdicts.next().is_some_and(|why| why.is_none()));
        let notes =
            if damaged.is_empty() { Vec::new() } else { vec![Note::Damaged { members: damaged }] };
        let name = format!("zip:{}", source.file);
        let archive = Arc::new(Archive { path, members });
        Ok(ImageZip { name, archive, classes: classes.into(), sources: vec![source], notes })
    }

    /// Gives the data set another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    fn read(&self, index: usize) -> Result<(&Member, Vec<u8>), DataError> {
        let Archive { path, members } = &*self.archive;
        let Some(member) = members.get(index) else {
            return Err(DataError::Index { dataset: self.name.clone(), index, len: members.len() });
        };
        let mut file = File::open(path).map_err(DataError::io(path))?;
        Ok((member, member.read(&mut file, path)?))
    }
}

impl Member {
    /// Its content, unpacked, with the size and the sum that the archive says.
    fn read(&self, file: &mut File, path: &Path) -> Result<Vec<u8>, DataError> {
        let mut bytes = Vec::new();
        let mut read = || {
            file.seek(SeekFrom::Start(self.offset))?;
            let packed = file.take(self.packed);
            // One byte more shows that there is too much.
            let limit = self.bytes + 1;
            if self.deflated {
                DeflateDecoder::new(BufReader::new(packed)).take(limit).read_to_end(&mut bytes)
            } else {
                packed.take(limit).read_to_end(&mut bytes)
            }
        };
        let found = read().map_err(|source| self.failed(path, source))?;
        let mut crc = Crc::new();
        crc.update(&bytes);
        if found as u64 != self.bytes || crc.sum() != self.crc {
            let words = "its bytes are not those that the archive was made of (CRC-32)";
            return Err(self.failed(path, io::Error::new(io::ErrorKind::InvalidData, words)));
        }
        Ok(bytes)
    }

    fn failed(&self, path: &Path, source: io::Error) -> DataError {
        DataError::Zip { path: path.to_owned(), entry: Some(self.path.clone()), source }
    }
}

/// Why an image cannot be decoded, in a few words.
fn reason(error: &DataError) -> String {
    match error {
        DataError::NoImage { kind, .. } => kind.to_string(),
        DataError::TruncatedJpeg { .. } => "cut off".to_owned(),
        DataError::Decode { source, .. } => printable(&source.to_string()),
        error => error.to_string(),
    }
}

/// The images in the archive's directory.
fn members(
    path: &Path,
    label: &dyn Fn(&str) -> Option<(usize, usize)>,
) -> Result<Vec<Member>, DataError> {
    let kind = FileKind::of_file(path)?;
    if !matches!(kind, FileKind::Zip) {
        return Err(DataError::WrongKind {
            path: path.to_owned(),
            packing: None,
            kind,
            expected: "a zip archive",
            way_out: "delete it and fetch it again".to_owned(),
        });
    }
    let failed = |entry: Option<String>, source: io::Error| DataError::Zip {
        path: path.to_owned(),
        entry,
        source: io::Error::new(source.kind(), printable(&source.to_string())),
    };
    let file = BufReader::new(open_file(path)?);
    let mut archive = ZipArchive::new(file).map_err(|error| failed(None, error.into()))?;
    let mut members = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| failed(None, error.into()))?;
        let name = printable_bytes(entry.name_raw());
        let Some((number, label)) = label(&name).filter(|_| entry.is_file()) else { continue };
        let odd = |words: &str| {
            failed(Some(name.clone()), io::Error::new(io::ErrorKind::InvalidData, words))
        };
        let method = entry.compression();
        // The constant has the right value whether or not another crate turns the reader's own inflate on.
        let deflated = method == CompressionMethod::DEFLATE;
        if !deflated && method != CompressionMethod::Stored {
            return Err(odd("packed in another way than by deflate"));
        }
        if entry.encrypted() {
            return Err(odd("encrypted"));
        }
        if entry.size().max(entry.compressed_size()) > MAX_MEMBER {
            return Err(odd("claims to be larger than 256 MiB"));
        }
        members.push(Member {
            label,
            number,
            offset: entry.data_start(),
            packed: entry.compressed_size(),
            bytes: entry.size(),
            crc: entry.crc32(),
            deflated,
            path: name,
        });
    }
    Ok(members)
}

impl Dataset for ImageZip {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.archive.members.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        self.archive.members[index].label
    }

    fn image(&self, index: usize) -> Result<Array3<u8>, DataError> {
        let (member, bytes) = self.read(index)?;
        decode(&bytes, &self.archive.path, Some(&member.path))
    }

    fn sources(&self) -> &[Source] {
        &self.sources
    }

    fn notes(&self) -> Vec<Note> {
        self.notes.clone()
    }

    fn entry(&self, index: usize) -> EntryId {
        let file = self.sources.first().map_or_else(|| self.name.clone(), |s| s.file.clone());
        EntryId { file, record: self.archive.members[index].path.clone() }
    }

    fn content(&self, index: usize) -> Result<[u8; 32], DataError> {
        Ok(sha256_of(&self.read(index)?.1))
    }
}
