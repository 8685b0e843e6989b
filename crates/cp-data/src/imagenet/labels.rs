//! Which class each image of a flat `val` is of: the lists that tell it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{is_wnid, meta};
use crate::checksum::sha256;
use crate::kind::open_file;
use crate::printable::printable_bytes;
use crate::{DataDir, DataError, Source, printable_path};

/// Kaggle's list: a line for each image, with its name, its class and boxes.
const KAGGLE: &str = "LOC_val_solution.csv";
/// A line for each image in order: its WordNet id.
const WNIDS: &str = "imagenet_2012_validation_synset_labels.txt";
/// A line for each image in order: the ILSVRC2012_ID of its class, which [`META`] explains.
const NUMBERS: &str = "ILSVRC2012_validation_ground_truth.txt";
const META: &str = "meta.mat";

/// Where the lists may lie, below the folders that are searched: the devkit has its two files in `data/`.
const PLACES: [&str; 5] =
    ["", "devkit", "devkit/data", "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12/data"];

/// Bytes of a list (Kaggle's has about 4 MiB), and lines (50,000).
const LIST_MAX: u64 = 32 << 20;
const LINES_MAX: usize = 1_000_000;
/// Bytes of `meta.mat`, which has less than 1 MiB.
const META_MAX: u64 = 16 << 20;
/// Classes of ILSVRC-2012: those with higher numbers are groups of them.
const CLASSES: u32 = 1000;
/// Bytes of a bad line that a message shows.
const SHOWN: usize = 60;

/// The classes of the images of a folder.
pub(super) struct Labels {
    /// The list.
    pub(super) list: PathBuf,
    /// WordNet ids by the names of the images, without ending.
    pub(super) wnids: BTreeMap<String, String>,
    /// The list, and what explains it.
    pub(super) sources: Vec<Source>,
}

impl Labels {
    /// The best of the lists that lie in `folders` or in the devkit's folder there, for the images in `val`.
    pub(super) fn find(folders: &[&Path], val: &Path, data: &DataDir) -> Result<Self, DataError> {
        let find = |name: &str| {
            let places = folders.iter().flat_map(|folder| PLACES.map(|place| folder.join(place)));
            places.map(|place| place.join(name)).find(|path| path.is_file())
        };
        let (list, form) = if let Some(list) = find(KAGGLE) {
            (list, Form::Named)
        } else if let Some(list) = find(WNIDS) {
            (list, Form::InOrder)
        } else if let Some(list) = find(NUMBERS) {
            (list, Form::Numbers)
        } else {
            return Err(DataError::ImageNet {
                path: val.to_owned(),
                what: "its images lie in no class folders, and no list tells their classes"
                    .to_owned(),
                way_out: format!(
                    "put {KAGGLE} (of Kaggle's ILSVRC), {WNIDS}, or {NUMBERS} with {META} (of ILSVRC2012_devkit_t12.tar.gz, unpacked) \
                     into {}, or sort the images into folders WNID/",
                    printable_path(folders.last().unwrap_or(&val))
                ),
            });
        };
        let (bytes, source) = read(&list, LIST_MAX, "a list of labels", data)?;
        let mut sources = vec![source];
        let meta = match form {
            Form::Numbers => {
                let beside = Some(list.with_file_name(META)).filter(|path| path.is_file());
                let Some(path) = beside.or_else(|| find(META)) else {
                    return Err(DataError::ImageNet {
                        what: format!(
                            "gives the numbers of classes, and {META}, which tells their WordNet ids, is missing"
                        ),
                        way_out: format!(
                            "put {META} of the same devkit beside it, or {KAGGLE} or {WNIDS} in its place"
                        ),
                        path: list,
                    });
                };
                let (bytes, source) = read(&path, META_MAX, "ImageNet's meta.mat", data)?;
                sources.push(source);
                meta::wnids(&bytes).map_err(|what| DataError::MetaMat { path, what })?
            }
            Form::Named | Form::InOrder => BTreeMap::new(),
        };
        let wnids = parse(&list, &bytes, form, &meta)?;
        Ok(Labels { list, wnids, sources })
    }
}

/// What a line of a list holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// An image's name, a comma, a WordNet id and more.
    Named,
    /// A WordNet id.
    InOrder,
    /// The number of a class.
    Numbers,
}

/// A file that is no larger than any of its kind.
fn read(
    path: &Path,
    limit: u64,
    expected: &'static str,
    data: &DataDir,
) -> Result<(Vec<u8>, Source), DataError> {
    let mut bytes = Vec::new();
    open_file(path)?.take(limit + 1).read_to_end(&mut bytes).map_err(DataError::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(DataError::TooLarge { path: path.to_owned(), limit, expected });
    }
    let source = Source { file: data.relative(path), sha256: sha256(&bytes) };
    Ok((bytes, source))
}

fn parse(
    path: &Path,
    bytes: &[u8],
    form: Form,
    meta: &BTreeMap<u32, String>,
) -> Result<BTreeMap<String, String>, DataError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_end();
    let mut wnids = BTreeMap::new();
    for (before, line) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        let wrong = |expected: String| DataError::LabelLine {
            path: path.to_owned(),
            line: before + 1,
            got: printable_bytes(&line[..line.len().min(SHOWN)]),
            expected,
        };
        if before >= LINES_MAX {
            return Err(wrong(format!("at most {LINES_MAX} lines")));
        }
        // What is no text is no label either.
        let text = std::str::from_utf8(line).unwrap_or_default();
        // The official validation images are numbered from 1.
        let numbered = || format!("ILSVRC2012_val_{:08}", before + 1);
        let (image, wnid) = match form {
            Form::Named if before == 0 && text.starts_with("ImageId,") => continue,
            Form::Named => {
                let found = text.split_once(',').and_then(|(image, boxes)| {
                    Some((image.trim(), boxes.split_whitespace().next()?))
                });
                let (image, wnid) = found
                    .filter(|(image, wnid)| !image.is_empty() && is_wnid(wnid))
                    .ok_or_else(|| {
                        wrong(
                            "an image's name, a comma and a WordNet id such as n01440764"
                                .to_owned(),
                        )
                    })?;
                (image.to_owned(), wnid)
            }
            Form::InOrder if is_wnid(text) => (numbered(), text),
            Form::InOrder => return Err(wrong("a WordNet id such as n01440764".to_owned())),
            Form::Numbers => {
                let id = text.parse().ok().filter(|id| (1..=CLASSES).contains(id));
                let id =
                    id.ok_or_else(|| wrong(format!("the number of a class, from 1 to {CLASSES}")))?;
                let wnid =
                    meta.get(&id).ok_or_else(|| wrong(format!("a number that {META} has")))?;
                (numbered(), wnid.as_str())
            }
        };
        if wnids.insert(image, wnid.to_owned()).is_some() {
            return Err(wrong("an image that no line above has".to_owned()));
        }
    }
    Ok(wnids)
}
