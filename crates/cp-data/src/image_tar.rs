//! Tar archives of image files, plain or packed with gzip or zstd.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array3;

use crate::checksum::{HashingReader, sha256};
use crate::decode::decode;
use crate::identity::{EntryId, sha256_of};
use crate::kind::open_file;
use crate::layout::{Listing, Pick};
use crate::printable::printable_bytes;
use crate::unpack::{Packing, unpack};
use crate::walk::{CLASS_LIST, Found, Walk, is_foreign, is_image};
use crate::{DataError, Dataset, FileKind, Note, Source, printable, printable_path};

/// Images in a tar archive, with the same layout as an [`ImageFolder`](crate::ImageFolder): `SPLIT/CLASS/…/IMAGE` or
/// `CLASS/…/IMAGE`, and folders around. Links to images within the archive are images too.
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
    /// The path without links and `..`, so that the same file is the same entry in two data sets.
    file: String,
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
    /// If the archive cannot be read or unpacked, is none or damaged, or its folders cannot be told, as with
    /// [`ImageFolder::open`](crate::ImageFolder::open).
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, DataError> {
        ImageTar::open_for(path.into(), None)
    }

    /// As [`open`](Self::open), where a folder called `asked` is a split.
    pub(crate) fn open_for(path: PathBuf, asked: Option<&str>) -> Result<Self, DataError> {
        if path.is_dir() {
            return Err(DataError::IsAFolder { path, expected: EXPECTED });
        }
        let mut start = Vec::new();
        let mut file = open_file(&path)?;
        file.by_ref().take(4096).read_to_end(&mut start).map_err(DataError::io(&path))?;
        file.seek(SeekFrom::Start(0)).map_err(DataError::io(&path))?;
        let name = printable_path(&path);
        let packing = Packing::of(&start);
        let (memory, (walk, members), source) = if packing == Packing::Plain {
            check_kind(&path, &start, None)?;
            let mut reader = HashingReader::new(BufReader::with_capacity(1 << 20, file));
            let found = members(&path, &mut reader)?;
            (None, found, Source { file: name.clone(), sha256: reader.finish() })
        } else {
            let mut raw = Vec::new();
            file.read_to_end(&mut raw).map_err(DataError::io(&path))?;
            let source = Source { file: name.clone(), sha256: sha256(&raw) };
            let bytes = unpack(&path, raw)?;
            check_kind(&path, &bytes, Some(packing.name()))?;
            let found = members(&path, &mut bytes.as_slice())?;
            (Some(bytes), found, source)
        };
        let listing = Listing::of(&path, &walk, asked)?;
        let file = printable_path(std::fs::canonicalize(&path).map_err(DataError::io(&path))?);
        let archive = Arc::new(Archive { path, file, memory, members });
        Ok(ImageTar { name: format!("tar:{name}"), archive, listing, sources: vec![source] })
    }

    /// An unpacked archive in memory.
    pub(crate) fn from_memory(
        path: PathBuf,
        bytes: Vec<u8>,
        source: Source,
    ) -> Result<Self, DataError> {
        let (walk, members) = members(&path, &mut bytes.as_slice())?;
        let listing = Listing::of(&path, &walk, None)?;
        Ok(ImageTar::of_memory(path, bytes, members, listing, vec![source]))
    }

    /// An unpacked archive in memory, of which only the images count that a class list names, in its order, with its
    /// labels: pairs of a file name (the last part of its path) and a label. `list` is the list's own file, for messages
    /// and the record.
    pub(crate) fn labelled(
        path: PathBuf,
        bytes: Vec<u8>,
        source: Source,
        (list, list_source): (&Path, Source),
        classes: Vec<String>,
        images: &[(String, usize)],
    ) -> Result<Self, DataError> {
        let (walk, members) = members(&path, &mut bytes.as_slice())?;
        let file_name = |found: &'_ Found| found.path.rsplit('/').next().map(str::to_owned);
        let by_name: HashMap<String, &Found> =
            walk.images.iter().filter_map(|found| Some((file_name(found)?, found))).collect();
        let mut entries = Vec::with_capacity(images.len());
        for (name, label) in images {
            let Some(&found) = by_name.get(name) else {
                let (list, entry) = (list.to_owned(), name.clone());
                return Err(DataError::NotInArchive { path, entry, list });
            };
            entries.push((found.clone(), *label));
        }
        let listing = Listing::of_entries(&path, classes, entries);
        Ok(ImageTar::of_memory(path, bytes, members, listing, vec![source, list_source]))
    }

    /// Gives the classes other names: `names[i]` to the folder `folders[i]`. The folders that there are, if they are others.
    pub(crate) fn with_classes(
        mut self,
        folders: &[String],
        names: &[String],
    ) -> Result<Self, Vec<String>> {
        if *self.listing.classes != *folders || folders.len() != names.len() {
            return Err(self.listing.classes.to_vec());
        }
        self.listing.classes = names.into();
        self.listing.notes.retain(|note| !matches!(note, Note::Classes { .. }));
        Ok(self)
    }

    fn of_memory(
        path: PathBuf,
        bytes: Vec<u8>,
        members: Vec<Member>,
        listing: Listing,
        sources: Vec<Source>,
    ) -> Self {
        let name = format!("tar:{}", printable_path(&path));
        // A file of a published data set is the same wherever it lies: it goes by its name in the record.
        let file = sources.first().map_or_else(|| name.clone(), |source| source.file.clone());
        let archive = Arc::new(Archive { path, file, memory: Some(bytes), members });
        ImageTar { name, archive, listing, sources }
    }

    /// Only the images of the split `part`, by any of its usual names or its folder's own; the classes stay those of the
    /// whole.
    ///
    /// # Errors
    /// If there are none.
    pub fn part(&self, part: &str) -> Result<Self, DataError> {
        Ok(self.with(self.listing.part(part)?).named(format!("{}/{part}", self.name)))
    }

    pub(crate) fn pick(&self, split: &str) -> Result<Pick, DataError> {
        self.listing.pick(split)
    }

    pub(crate) fn with(&self, listing: Listing) -> Self {
        ImageTar { listing, ..self.clone() }
    }

    /// Gives the data set another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Hands the file of an example on, as it is stored.
    fn read<T>(
        &self,
        index: usize,
        then: impl FnOnce(&[u8], &Path, &str) -> Result<T, DataError>,
    ) -> Result<T, DataError> {
        let number = self.listing.get(index, &self.name)?.number;
        let Archive { path, memory, members, .. } = &*self.archive;
        let member = &members[number];
        let truncated = |got: usize| DataError::Truncated {
            path: path.clone(),
            expected: member.offset + member.bytes as u64,
            got: member.offset + got as u64,
        };
        match memory {
            Some(bytes) => {
                let start = member.offset as usize;
                let found = bytes.get(start..start.saturating_add(member.bytes));
                then(found.ok_or_else(|| truncated(0))?, path, &member.path)
            }
            None => {
                let mut file = File::open(path).map_err(DataError::io(path))?;
                file.seek(SeekFrom::Start(member.offset)).map_err(DataError::io(path))?;
                let mut bytes = Vec::new();
                file.take(member.bytes as u64)
                    .read_to_end(&mut bytes)
                    .map_err(DataError::io(path))?;
                if bytes.len() < member.bytes {
                    return Err(truncated(bytes.len()));
                }
                then(&bytes, path, &member.path)
            }
        }
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
        self.read(index, |bytes, path, entry| decode(bytes, path, Some(entry)))
    }

    fn sources(&self) -> &[Source] {
        &self.sources
    }

    fn notes(&self) -> Vec<Note> {
        self.listing.notes.clone()
    }

    fn entry(&self, index: usize) -> EntryId {
        let record = self.listing.entries[index].path.clone();
        EntryId { file: self.archive.file.clone(), record }
    }

    fn content(&self, index: usize) -> Result<[u8; 32], DataError> {
        self.read(index, |bytes, _, _| Ok(sha256_of(bytes)))
    }
}

/// What `tar:PATH` takes.
const EXPECTED: &str = "a tar archive, plain or packed with gzip or zstd";

/// That a file, or what is packed in it, is a tar archive by its first bytes.
fn check_kind(path: &Path, start: &[u8], packing: Option<&'static str>) -> Result<(), DataError> {
    let kind = FileKind::of_bytes(&start[..start.len().min(4096)]);
    let block = start.get(..BLOCK as usize);
    // An archive of nothing is all zeros.
    if kind == FileKind::Tar || block.is_some_and(|block| block.iter().all(|&byte| byte == 0)) {
        return Ok(());
    }
    let way_out = match (kind.way_out(path), kind) {
        (Some(way_out), FileKind::Zip | FileKind::SevenZip | FileKind::Rar) => {
            format!("{way_out} and name that folder as folder:FOLDER")
        }
        (Some(way_out), FileKind::Xz | FileKind::Bzip2 | FileKind::Lz4) => {
            format!("{way_out} and name the archive in it as tar:PATH")
        }
        (Some(way_out), _) => way_out,
        (None, _) => "name an archive, or fetch or write it again if it should be one".to_owned(),
    };
    let path = path.to_owned();
    Err(DataError::WrongKind { path, packing, kind, expected: EXPECTED, way_out })
}

/// A path in an archive in the form of [`Walk`], or nothing for what is hidden or of a system.
fn clean(name: &[u8]) -> Option<String> {
    let name = printable_bytes(name);
    let parts: Vec<&str> = name.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let wanted = !parts.is_empty() && !parts.iter().any(|part| is_foreign(part));
    wanted.then(|| parts.join("/"))
}

/// The path that a link leads to: of a hard link from the root, of a symbolic one from its folder.
fn target(link: &str, to: &[u8], symbolic: bool) -> Option<String> {
    let to = printable_bytes(to);
    let mut parts: Vec<&str> = Vec::new();
    if symbolic {
        if to.starts_with('/') {
            return None;
        }
        parts.extend(link.split('/'));
        parts.pop();
    }
    for part in to.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// What lies in an archive, and where its images do. Reads it to the end, so that a cut in the last file is found here.
fn members(path: &Path, reader: &mut dyn Read) -> Result<(Walk, Vec<Member>), DataError> {
    let mut walk = Walk::default();
    let mut members: Vec<Member> = Vec::new();
    let mut links = Vec::new();
    // A file that is in the archive twice was written anew: the last counts, as when unpacking.
    let mut places = HashMap::<String, usize>::new();
    let (mut number, mut after) = (0, None::<String>);
    let mut counted = Counted { inner: reader, bytes: 0 };
    let mut archive = tar::Archive::new(&mut counted);
    let mut end = 0;
    let failed = |entry, after: &Option<String>, source: io::Error| DataError::Tar {
        path: path.to_owned(),
        entry,
        after: after.clone(),
        // The reader's words quote the bytes that it did not understand.
        source: io::Error::new(
            source.kind(),
            printable(&source.to_string().replace('\u{fffd}', "?")),
        ),
    };
    for entry in archive.entries().map_err(|error| failed(0, &None, error))? {
        let mut entry = entry.map_err(|error| failed(number, &after, error))?;
        let raw = entry.path_bytes().into_owned();
        let (offset, bytes) = (entry.raw_file_position(), entry.size());
        let kind = entry.header().entry_type();
        let name = clean(&raw);
        let mut content = Vec::new();
        let list = name.as_ref().is_some_and(|name| name.rsplit('/').next() == Some(CLASS_LIST));
        let read = if list && kind.is_file() {
            entry.read_to_end(&mut content).map(|read| read as u64)
        } else {
            io::copy(&mut entry, &mut io::sink())
        };
        if read.map_err(|error| failed(number, &after, error))? != bytes {
            return Err(failed(number, &after, io::ErrorKind::UnexpectedEof.into()));
        }
        if let Some(name) = name {
            let parents = name.match_indices('/').map(|(at, _)| name[..at].to_owned());
            walk.folders.extend(parents);
            if kind.is_dir() {
                walk.folders.insert(name);
            } else if kind.is_symlink() || kind.is_hard_link() {
                let to = entry.link_name_bytes().map(|to| to.into_owned()).unwrap_or_default();
                links.push((name, to, kind.is_symlink()));
            } else if kind.is_file() && is_image(&name) {
                let member = Member { path: name.clone(), offset, bytes: bytes as usize };
                match places.get(&name) {
                    Some(&place) => members[place] = member,
                    None => {
                        places.insert(name, members.len());
                        members.push(member);
                    }
                }
            } else if kind.is_file() && list {
                walk.lists.retain(|(path, _)| *path != name);
                walk.lists.push((name, content));
            } else {
                walk.others.push(name);
            }
        }
        after = Some(printable_bytes(&raw));
        end = (offset + bytes).next_multiple_of(BLOCK);
        number += 1;
    }
    // What follows the end mark counts for the checksum only.
    io::copy(&mut counted, &mut io::sink()).map_err(|error| failed(number, &after, error))?;
    // An archive cut off between two files looks whole to the reader, but for the block of zeros at the end.
    if counted.bytes < end + BLOCK {
        return Err(failed(number, &after, io::ErrorKind::UnexpectedEof.into()));
    }
    follow(path, links, &places, &mut members, &mut walk)?;
    walk.images = members
        .iter()
        .enumerate()
        .map(|(number, member)| Found { path: member.path.clone(), number })
        .collect();
    Ok((walk, members))
}

/// Makes links to images images of their own; a link by the name of an image that leads to none is an error.
fn follow(
    path: &Path,
    links: Vec<(String, Vec<u8>, bool)>,
    places: &HashMap<String, usize>,
    members: &mut Vec<Member>,
    walk: &mut Walk,
) -> Result<(), DataError> {
    let leads: HashMap<&str, Option<String>> = links
        .iter()
        .map(|(link, to, symbolic)| (link.as_str(), target(link, to, *symbolic)))
        .collect();
    for (link, to, _) in &links {
        let mut place = None;
        let mut here = leads[link.as_str()].as_deref();
        // A chain of links is no longer than there are links, unless it leads back to itself.
        for _ in 0..=links.len() {
            let Some(name) = here else { break };
            place = places.get(name).copied();
            here = leads.get(name).and_then(|next| next.as_deref());
            if place.is_some() {
                break;
            }
        }
        match place {
            Some(place) if is_image(link) => {
                members.push(Member { path: link.clone(), ..members[place].clone() });
            }
            None if is_image(link) => {
                return Err(DataError::DeadLink {
                    path: path.to_owned(),
                    entry: Some(link.clone()),
                    target: PathBuf::from(printable_bytes(to)),
                });
            }
            // As on disk: what has no ending may stand for the folder of a class.
            _ if !link.rsplit('/').next().unwrap_or(link).contains('.') => {
                walk.folders.insert(link.clone());
            }
            _ => walk.others.push(link.clone()),
        }
    }
    Ok(())
}

/// Bytes of a block of a tar archive.
const BLOCK: u64 = 512;

/// Counts what is read.
struct Counted<'a> {
    inner: &'a mut dyn Read,
    bytes: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
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
        for cut in (0..end).step_by(97).chain((0..=end).step_by(512)) {
            let error = open(&bytes[..cut]).unwrap_err();
            // Of less than its first header, an archive is not yet known as one.
            let known = matches!(error, DataError::Tar { .. });
            assert!(
                known || (cut < 512 && matches!(error, DataError::WrongKind { .. })),
                "{cut}: {error}"
            );
        }
        let error = open(&bytes[..700]).unwrap_err();
        assert!(matches!(error, DataError::Tar { entry: 0, .. }), "{error}");
        assert!(matches!(open(&tar(&[("x.txt", b"")])), Err(DataError::NoImages { .. })));
    }

    /// Adds an entry of any type and name, as bytes.
    fn entry(
        builder: &mut tar::Builder<Vec<u8>>,
        kind: tar::EntryType,
        name: &[u8],
        to: &[u8],
        bytes: &[u8],
    ) {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name);
        old.linkname[..to.len()].copy_from_slice(to);
        header.set_cksum();
        builder.append(&header, bytes).unwrap();
    }

    #[test]
    fn links_are_images_too() {
        let good = file(ImageFormat::Png, false, 10);
        let make = |links: &[(tar::EntryType, &str, &str)]| {
            let mut builder = tar::Builder::new(Vec::new());
            for (kind, name, to) in links {
                entry(&mut builder, *kind, name.as_bytes(), to.as_bytes(), b"");
            }
            entry(&mut builder, tar::EntryType::Regular, b"./set/cat/1.png", b"", &good);
            entry(&mut builder, tar::EntryType::Regular, b"set/dog/1.png", b"", &good);
            open(&builder.into_inner().unwrap())
        };
        let (hard, soft) = (tar::EntryType::Link, tar::EntryType::Symlink);
        let linked = make(&[
            (hard, "set/cat/2.png", "set/cat/1.png"),
            (soft, "set/dog/3.png", "../cat/2.png"),
            (soft, "set/dog/.#1.png", "nobody@host"),
            (soft, "set/dog/notes.txt", "/nowhere"),
        ]);
        assert_eq!(linked.unwrap().len(), 4);
        for (kind, to) in
            [(soft, "4.png"), (hard, "1.png"), (soft, "/set/cat/1.png"), (soft, "5.png")]
        {
            let error = make(&[(kind, "set/cat/5.png", to)]).unwrap_err().to_string();
            assert!(error.contains("set/cat/5.png: a link that leads nowhere"), "{error}");
        }
    }

    #[test]
    fn names_of_any_bytes_and_files_written_anew() {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, shade) in [
            (&b"cat/caf\xe9.PNG"[..], 1),
            (b"cat/x\x1b[2J.png", 2),
            (b"cat/1.png", 3),
            (b"cat/1.png", 4),
            (b"__MACOSX/cat/1.png", 5),
            (b"cat/._1.png", 6),
            (b"dog/deep/er/1.jfif", 7),
        ] {
            entry(
                &mut builder,
                tar::EntryType::Regular,
                name,
                b"",
                &file(ImageFormat::Png, false, shade),
            );
        }
        let tar = open(&builder.into_inner().unwrap()).unwrap();
        let entries: Vec<String> = (0..tar.len()).map(|i| tar.entry(i).record).collect();
        assert_eq!(
            entries,
            ["cat/caf\\xE9.PNG", "cat/x\\u{1b}[2J.png", "cat/1.png", "dog/deep/er/1.jfif"]
        );
        assert_eq!(tar.classes(), ["cat", "dog"]);
    }

    #[test]
    fn archives_of_other_kinds_are_called_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let gzip = |bytes: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, bytes).unwrap();
            encoder.finish().unwrap()
        };
        let html = b"<!DOCTYPE html><title>\x1b[31mSign in</title>".to_vec();
        for (name, bytes, words) in [
            (
                "x.tar.xz",
                b"\xfd7zXZ\0\0\x04\xe6\xd6".to_vec(),
                "is an xz file; expected a tar archive",
            ),
            ("x.tar.bz2", b"BZh91AY&SY\x1b\x9b".to_vec(), "bzip2 -dk"),
            ("x.zip", b"PK\x03\x04\x14\0\0\0\x08\0".to_vec(), "name that folder as folder:FOLDER"),
            ("x.tar.gz", html.clone(), "a web page (HTML)"),
            ("y.tar.gz", gzip(&html), "packed by gzip, and inside of it a web page"),
            ("z.tar", b"version https://git-lfs.github.com/spec/v1\noid".to_vec(), "git lfs pull"),
            ("e.tar", Vec::new(), "an empty file"),
            ("n.tar.zst", zstd::encode_all(&b"\x93NUMPY"[..], 1).unwrap(), "a NumPy array"),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let error = ImageTar::open(&path).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("way out: "), "{name}: {error}");
            assert!(error.chars().all(|c| !c.is_control() || c == '\n'), "{name}: {error:?}");
        }
        let error = ImageTar::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("is a folder") && error.contains("folder:PATH"), "{error}");
    }

    #[test]
    fn a_damaged_header_names_the_last_good_entry_and_shows_no_bytes() {
        let mut bytes = small();
        let at = 512 + file(ImageFormat::Png, false, 10).len().next_multiple_of(512);
        bytes[at + 148..at + 156].copy_from_slice(b"\x1b[2J\xff\xfe\x9b9");
        let error = open(&bytes).unwrap_err().to_string();
        assert!(error.contains("entry 1 of the archive (after train/dog/1.png)"), "{error}");
        assert!(
            error.chars().all(|c| (!c.is_control() || c == '\n') && c != '\u{fffd}'),
            "{error:?}"
        );
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
