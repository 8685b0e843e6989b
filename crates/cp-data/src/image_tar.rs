//! Tar archives of image files, plain or packed with gzip or zstd.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array3;

use crate::checksum::{HashingReader, sha256};
use crate::decode::decode;
use crate::image_folder::{Entry, Listing, is_image};
use crate::unpack::{Packing, unpack};
use crate::{DataError, Dataset, Source};

/// Images in a tar archive: the class of an image is the name of the folder that it lies in (`SPLIT/CLASS/NAME.jpg`).
///
/// A packed archive is unpacked into memory; of a plain one only the list of files is kept, and images are read from
/// disk, so that archives larger than memory work. Images are decoded when asked for.
#[derive(Debug, Clone)]
pub struct ImageTar {
    name: String,
    archive: Arc<Archive>,
    listing: Listing,
    sources: Vec<Source>,
}

#[derive(Debug)]
struct Archive {
    path: PathBuf,
    /// The unpacked archive, if it is in memory.
    memory: Option<Vec<u8>>,
    members: Vec<Member>,
}

/// An image in the archive.
#[derive(Debug, Clone)]
struct Member {
    path: String,
    offset: u64,
    bytes: usize,
}

impl ImageTar {
    /// All images of an archive.
    ///
    /// # Errors
    /// If the archive cannot be read or unpacked, is damaged, has no image, or one that lies in no folder.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataError> {
        let path = path.into();
        let mut start = Vec::new();
        let mut file = File::open(&path).map_err(DataError::io(&path))?;
        file.by_ref().take(4).read_to_end(&mut start).map_err(DataError::io(&path))?;
        file.seek(SeekFrom::Start(0)).map_err(DataError::io(&path))?;
        let name = path.display().to_string();
        let (archive, source) = if Packing::of(&start) == Packing::Plain {
            let mut reader = HashingReader::new(BufReader::with_capacity(1 << 20, file));
            let members = members(&path, &mut reader)?;
            let source = Source { file: name, sha256: reader.finish() };
            (Archive { path, memory: None, members }, source)
        } else {
            let mut raw = Vec::new();
            file.read_to_end(&mut raw).map_err(DataError::io(&path))?;
            let source = Source { file: name, sha256: sha256(&raw) };
            let bytes = unpack(&path, raw)?;
            (
                Archive {
                    members: members(&path, &mut bytes.as_slice())?,
                    path,
                    memory: Some(bytes),
                },
                source,
            )
        };
        ImageTar::by_folder(archive, source)
    }

    /// An unpacked archive in memory.
    pub(crate) fn from_memory(
        path: PathBuf,
        bytes: Vec<u8>,
        source: Source,
    ) -> Result<Self, DataError> {
        let members = members(&path, &mut bytes.as_slice())?;
        ImageTar::by_folder(Archive { path, memory: Some(bytes), members }, source)
    }

    fn by_folder(archive: Archive, source: Source) -> Result<Self, DataError> {
        let files = archive.members.iter().map(|member| member.path.clone()).collect();
        let listing = Listing::by_folder(&archive.path, files)?;
        let name = format!("tar:{}", archive.path.display());
        Ok(ImageTar { name, archive: Arc::new(archive), listing, sources: vec![source] })
    }

    /// Only the images below the folder `part`; the classes stay those of the whole.
    ///
    /// # Errors
    /// If there are none.
    pub fn part(&self, part: &str) -> Result<Self, DataError> {
        let listing = self.listing.part(&self.archive.path, part)?;
        Ok(ImageTar { name: format!("{}/{part}", self.name), listing, ..self.clone() })
    }

    /// The images that a class list names, in its order, with its labels: pairs of a file name (the last part of its
    /// path) and a label. `list` is the list's own file, for messages and the record.
    pub(crate) fn with_labels(
        mut self,
        list: &Path,
        list_source: Source,
        classes: Vec<String>,
        images: &[(String, usize)],
    ) -> Result<Self, DataError> {
        let by_name: HashMap<&str, (usize, &Member)> = self
            .archive
            .members
            .iter()
            .enumerate()
            .map(|(number, member)| {
                (member.path.rsplit('/').next().unwrap_or(&member.path), (number, member))
            })
            .collect();
        let mut entries = Vec::with_capacity(images.len());
        for (name, label) in images {
            let Some(&(number, member)) = by_name.get(name.as_str()) else {
                return Err(DataError::NotInArchive {
                    path: self.archive.path.clone(),
                    entry: name.clone(),
                    list: list.to_owned(),
                });
            };
            entries.push(Entry { path: member.path.clone(), label: *label, number });
        }
        self.listing = Listing { classes: classes.into(), entries };
        self.sources.push(list_source);
        Ok(self)
    }

    /// Gives the data set another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

impl Dataset for ImageTar {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.listing.entries.len()
    }

    fn classes(&self) -> &[String] {
        &self.listing.classes
    }

    fn label(&self, index: usize) -> usize {
        self.listing.entries[index].label
    }

    fn image(&self, index: usize) -> Result<Array3<u8>, DataError> {
        let entry = self.listing.get(index, &self.name)?;
        let Archive { path, memory, members } = &*self.archive;
        let member = &members[entry.number];
        let truncated = || DataError::Truncated {
            path: path.clone(),
            expected: member.offset + member.bytes as u64,
            got: 0,
        };
        match memory {
            Some(bytes) => {
                let start = member.offset as usize;
                let bytes =
                    bytes.get(start..start.saturating_add(member.bytes)).ok_or_else(truncated)?;
                decode(bytes, path, Some(&member.path))
            }
            None => {
                let mut file = File::open(path).map_err(DataError::io(path))?;
                file.seek(SeekFrom::Start(member.offset)).map_err(DataError::io(path))?;
                let mut bytes = Vec::new();
                file.take(member.bytes as u64)
                    .read_to_end(&mut bytes)
                    .map_err(DataError::io(path))?;
                decode(&bytes, path, Some(&member.path))
            }
        }
    }

    fn sources(&self) -> &[Source] {
        &self.sources
    }
}

/// The images of an archive, in its order. Reads it to the end, so that a cut in the last file is found here.
fn members(path: &Path, reader: &mut dyn Read) -> Result<Vec<Member>, DataError> {
    let mut members = Vec::new();
    let mut number = 0;
    let failed = |entry| move |source| DataError::Tar { path: path.to_owned(), entry, source };
    let mut counted = Counted { inner: reader, bytes: 0 };
    let mut archive = tar::Archive::new(&mut counted);
    let mut end = 0;
    for entry in archive.entries().map_err(failed(0))? {
        let mut entry = entry.map_err(failed(number))?;
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        let (offset, bytes) = (entry.raw_file_position(), entry.size());
        let read = std::io::copy(&mut entry, &mut std::io::sink()).map_err(failed(number))?;
        if read != bytes {
            return Err(failed(number)(std::io::ErrorKind::UnexpectedEof.into()));
        }
        if entry.header().entry_type().is_file() && is_image(&name) {
            members.push(Member { path: name, offset, bytes: bytes as usize });
        }
        end = (offset + bytes).next_multiple_of(BLOCK);
        number += 1;
    }
    // What follows the end mark counts for the checksum only.
    std::io::copy(&mut counted, &mut std::io::sink()).map_err(failed(number))?;
    // An archive cut off between two files looks whole to the reader, but for the block of zeros at the end.
    if counted.bytes < end + BLOCK {
        return Err(failed(number)(std::io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(members)
}

/// Bytes of a block of a tar archive.
const BLOCK: u64 = 512;

/// Counts what is read.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    bytes: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.bytes += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use image::ImageFormat;

    use super::*;
    use crate::decode::tests::file;

    pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn small() -> Vec<u8> {
        tar(&[
            ("train/dog/1.png", &file(ImageFormat::Png, false, 10)),
            ("train/cat/1.jpg", &file(ImageFormat::Jpeg, false, 20)),
            ("README.txt", b"no image"),
            ("test/dog/2.png", &file(ImageFormat::Png, true, 30)),
        ])
    }

    fn open(bytes: &[u8]) -> Result<ImageTar, DataError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tar");
        std::fs::write(&path, bytes).unwrap();
        let tar = ImageTar::open(&path)?;
        // A plain archive is read when asked for: read it while it is there.
        for index in 0..tar.len() {
            tar.image(index)?;
        }
        Ok(tar)
    }

    #[test]
    fn plain_and_packed_archives_hold_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let plain = small();
        for (name, bytes) in [
            ("x.tar", plain.clone()),
            ("x.tar.zst", zstd::encode_all(plain.as_slice(), 3).unwrap()),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, &bytes).unwrap();
            let tar = ImageTar::open(&path).unwrap();
            assert_eq!(tar.classes(), ["cat", "dog"]);
            assert_eq!((0..3).map(|i| tar.label(i)).collect::<Vec<_>>(), [1, 0, 1]);
            assert_eq!(tar.image(0).unwrap()[[0, 0, 0]], 10);
            let test = tar.part("test").unwrap();
            assert_eq!((test.len(), test.label(0), test.image(0).unwrap()[[0, 0, 0]]), (1, 1, 30));
            assert_eq!(tar.sources()[0].sha256, sha256(&bytes));
        }
    }

    #[test]
    fn every_cut_is_an_error() {
        let bytes = small();
        let end = bytes.len() - 1024; // the end mark: two blocks of zeros
        for cut in (1..end).step_by(97) {
            assert!(
                matches!(open(&bytes[..cut]), Err(DataError::Tar { .. })),
                "cut at {cut} of {}",
                bytes.len()
            );
        }
        for cut in (0..=end).step_by(512) {
            assert!(
                matches!(open(&bytes[..cut]), Err(DataError::Tar { .. })),
                "cut at {cut} of {}",
                bytes.len()
            );
        }
        let error = open(&bytes[..700]).unwrap_err();
        assert!(matches!(error, DataError::Tar { entry: 0, .. }), "{error}");
        assert!(matches!(open(&tar(&[("x.txt", b"")])), Err(DataError::NoImages { .. })));
    }

    #[test]
    fn flipped_bytes_never_panic() {
        let good = small();
        for at in (0..good.len()).step_by(11) {
            let mut bytes = good.clone();
            bytes[at] ^= 0x55;
            let _ = open(&bytes);
        }
    }
}
