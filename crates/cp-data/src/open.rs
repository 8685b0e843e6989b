//! Data sets by name and split.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ndarray::Axis;
use rayon::prelude::*;

use crate::cifar::{self, Labels};
use crate::layout::{Listing, Pick};
use crate::manifest::{ImageChanges, Loaded, Manifest};
use crate::split::Split;
use crate::{
    Characters, DataDir, DataError, Dataset, ImageFolder, ImageTar, Images, Note, Part, Source,
    Subset, checksum, idx, split_validation,
};

/// Share of the training data that `validation` holds, and the seed that chooses it. Fixed, so that `train` and
/// `validation` never overlap between runs.
const VALIDATION_FRACTION: f64 = 0.1;
const VALIDATION_SEED: u64 = 0;

/// Seed and sizes of the data set `characters` as opened by name.
const CHARACTERS_SEED: u64 = 0;
const CHARACTERS_TRAIN: usize = 36_000;
const CHARACTERS_VALIDATION: usize = 3_600;
const CHARACTERS_TEST: usize = 7_200;

/// Splits made of the training and test files.
const USUAL: [&str; 4] = ["train", "validation", "train+validation", "test"];

/// Every data set and its splits.
const CATALOG: [(&str, &[&str]); 7] = [
    ("characters", &["train", "validation", "test"]),
    ("fashion-mnist", &USUAL),
    (
        "cifar10",
        &["train", "validation", "train+validation", "test", "test-1000", "train-1-4", "batch-5"],
    ),
    ("cifar10-holdout", &USUAL),
    ("cifar100", &USUAL),
    ("cats-vs-dogs", &USUAL),
    ("imagenet-sample", &["all", "even", "odd"]),
];

/// Names of the data sets that [`open`] knows, with their splits.
pub fn dataset_names() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    CATALOG.into_iter()
}

/// Opens one split of a data set.
///
/// | name | splits |
/// |---|---|
/// | `characters` | `train` (36,000), `validation` (3,600), `test` (7,200): see [`Characters`] |
/// | `fashion-mnist` | `train`, `validation`, `train+validation` (60,000), `test` (10,000) |
/// | `cifar10` | the same (50,000, 10,000), `test-1000` (the first 1,000 of the test set), `train-1-4`, `batch-5` |
/// | `cifar10-holdout` | `train`, `validation`, `train+validation` (40,000: batches 1 to 4), `test` (10,000: batch 5), for networks that were not trained on batch 5 |
/// | `cifar100` | `train`, `validation`, `train+validation` (50,000), `test` (10,000); fine labels |
/// | `cats-vs-dogs` | `train`, `validation`, `train+validation` (1,600), `test` (800) |
/// | `imagenet-sample` | `all` (1,000, one of each class), and its halves `even` and `odd` by the class number |
/// | `folder:PATH` | `all`, and every folder `PATH/SPLIT` with classes in it, by any of its usual names; without one for validation, `train`, `validation` and `train+validation` are cut from that of training, or from all of `PATH/CLASS` |
/// | `tar:PATH` | the same with an archive |
///
/// `validation` is a tenth of the training data, the same in every run, with all classes in proportion; `train` is the
/// rest. Files are checked against their manifest as they are read. While a split is in use, opening another one that
/// needs the same files reads nothing anew.
///
/// # Errors
/// If the name or split is unknown, a file is missing ([`DataError::Missing`] says what was searched and what to do) or
/// differs from its manifest, or is damaged.
pub fn open(name: &str, split: &str, data: &DataDir) -> Result<Arc<dyn Dataset>, DataError> {
    if let Some(path) = name.strip_prefix("folder:") {
        let folder = ImageFolder::open_for(path.into(), Some(split))?;
        let pick = folder.pick(split)?;
        return own(folder.name(), split, pick, |listing, name| {
            Arc::new(folder.with(listing).named(name))
        });
    }
    if let Some(path) = name.strip_prefix("tar:") {
        let tar = ImageTar::open_for(path.into(), Some(split))?;
        let pick = tar.pick(split)?;
        return own(tar.name(), split, pick, |listing, name| {
            Arc::new(tar.with(listing).named(name))
        });
    }
    let Some((name, splits)) = CATALOG.into_iter().find(|(known, _)| *known == name) else {
        let known = CATALOG.iter().map(|(known, _)| (*known).to_owned()).collect();
        return Err(DataError::UnknownDataset { name: name.to_owned(), known });
    };
    if !splits.contains(&split) {
        let known = splits.iter().map(|&known| known.to_owned()).collect();
        return Err(DataError::UnknownSplit {
            dataset: name.to_owned(),
            split: split.to_owned(),
            known,
        });
    }
    match name {
        "characters" => characters(split),
        "fashion-mnist" => with_validation(name, split, |part| fashion_mnist(part, data)),
        "cifar10" => match split {
            "test-1000" => cifar10_first_1000(data),
            "train-1-4" => cifar10(split, &[1, 2, 3, 4], data),
            "batch-5" => cifar10(split, &[5], data),
            "test" => cifar10_test(data),
            _ => with_validation(name, split, |part| cifar10(part, &[1, 2, 3, 4, 5], data)),
        },
        "cifar10-holdout" => match split {
            "test" => cifar10("batch-5", &[5], data),
            _ => with_validation(name, split, |_| cifar10("train-1-4", &[1, 2, 3, 4], data)),
        },
        "cifar100" => with_validation(name, split, |part| cifar100(part, data)),
        "cats-vs-dogs" => with_validation(name, split, |part| cats_vs_dogs(part, data)),
        _ => imagenet_sample(split, data),
    }
}

/// The random changes to training images that the manifest of the data set `name` allows; none for sets without a manifest.
pub fn augmentation(name: &str) -> ImageChanges {
    let manifest = name.strip_suffix("-holdout").unwrap_or(name);
    Manifest::builtin(manifest).map_or_else(|_| ImageChanges::default(), |found| found.augmentation)
}

/// What the weights in a file with this SHA-256 were trained on, as `DATASET/SPLIT`; `None` where that is not known.
pub fn trained_on(sha256: &str) -> Option<Vec<String>> {
    /// A file of datasets/models/models.toml.
    #[derive(serde::Deserialize)]
    struct Own {
        sha256: String,
        trained_on: Vec<String>,
    }
    #[derive(serde::Deserialize)]
    struct Models {
        file: Vec<Own>,
    }
    let own: Models = toml::from_str(include_str!("../../../datasets/models/models.toml")).ok()?;
    let own = own.file.into_iter().map(|file| (Some(file.sha256), file.trained_on));
    let published = Manifest::builtin("pretrained").ok()?.files.into_iter();
    let published = published.map(|file| (file.sha256, file.trained_on));
    let (_, found) = own.chain(published).find(|(sum, _)| sum.as_deref() == Some(sha256))?;
    (!found.is_empty()).then_some(found)
}

/// Finds and checks a file of published weights, such as `resnet20-cifar10`: its path, and what to write into the
/// record.
///
/// # Errors
/// If the manifest lists no such file, it is missing, or its checksum differs.
pub fn pretrained(name: &str, data: &DataDir) -> Result<(PathBuf, Source), DataError> {
    let manifest = Manifest::builtin("pretrained")?;
    let stem = name.strip_suffix(".safetensors").unwrap_or(name);
    let Some(file) = manifest.file(&format!("{stem}.safetensors")) else {
        let known = manifest
            .files
            .iter()
            .map(|file| file.path.trim_end_matches(".safetensors").to_owned())
            .collect();
        return Err(DataError::UnknownDataset { name: name.to_owned(), known });
    };
    let path = manifest.find(file, data)?;
    let sum = checksum::sha256_file(&path)?;
    if let Some(expected) = file.sha256.as_ref().filter(|expected| **expected != sum) {
        return Err(DataError::Checksum {
            dataset: manifest.name.clone(),
            expected: format!("sha256:{expected}"),
            got: format!("sha256:{sum}"),
            bytes: std::fs::metadata(&path).map_err(DataError::io(&path))?.len(),
            path,
        });
    }
    let source = Source { file: data.relative(&path), sha256: sum };
    Ok((path, source))
}

/// `train`, `validation`, `train+validation` and `test` from the whole training set and the test set.
fn with_validation(
    name: &str,
    split: &str,
    whole: impl Fn(&str) -> Result<Arc<dyn Dataset>, DataError>,
) -> Result<Arc<dyn Dataset>, DataError> {
    match split {
        "test" => whole("test"),
        "train+validation" => whole("train+validation"),
        _ => {
            let (train, validation) =
                split_validation(whole("train+validation")?, VALIDATION_FRACTION, VALIDATION_SEED)?;
            let part = if split == "validation" { validation } else { train };
            Ok(Arc::new(part.named(format!("{name}/{split}"))))
        }
    }
}

/// A split of a folder or archive of the user's own: a folder that goes by its name, or, where there is none for
/// validation, training and validation data cut from those of training (or from everything, without splits).
fn own(
    name: &str,
    split: &str,
    pick: Pick,
    with: impl Fn(Listing, String) -> Arc<dyn Dataset>,
) -> Result<Arc<dyn Dataset>, DataError> {
    let canonical = match Split::of(split) {
        Some(known) => known.name(),
        None => split,
    };
    let name = format!("{name}/{canonical}");
    let (whole, folder) = match pick {
        Pick::Whole(listing) => return Ok(with(listing, name)),
        Pick::Cut { whole, folder } => (with(whole, name.clone()), folder),
    };
    if split == "train+validation" {
        return Ok(whole);
    }
    let examples = whole.len();
    let (train, validation) = split_validation(whole, VALIDATION_FRACTION, VALIDATION_SEED)?;
    let part = if canonical == "validation" { validation } else { train };
    if part.is_empty() {
        return Err(DataError::EmptyCut { dataset: name, split: canonical.to_owned(), examples });
    }
    let note =
        Note::Cut { split: canonical.to_owned(), examples: part.len(), whole: examples, folder };
    Ok(Arc::new(part.named(name).noted(note)))
}

fn characters(split: &str) -> Result<Arc<dyn Dataset>, DataError> {
    let (part, count) = match split {
        "train" => (Part::Train, CHARACTERS_TRAIN),
        "validation" => (Part::Validation, CHARACTERS_VALIDATION),
        _ => (Part::Test, CHARACTERS_TEST),
    };
    shared(format!("characters/{split}"), || Ok(Characters::part(part, count, CHARACTERS_SEED)))
}

fn fashion_mnist(part: &str, data: &DataDir) -> Result<Arc<dyn Dataset>, DataError> {
    let stem = if part == "test" { "t10k" } else { "train" };
    shared(key("fashion-mnist", part, data), || {
        let manifest = Manifest::builtin("fashion-mnist")?;
        let images = load(&manifest, &format!("{stem}-images-idx3-ubyte"), data)?;
        let labels = load(&manifest, &format!("{stem}-labels-idx1-ubyte"), data)?;
        let pixels = idx::images(&images.path, idx::parse(&images.path, &images.bytes)?)?;
        let numbers = idx::labels(&labels.path, idx::parse(&labels.path, &labels.bytes)?)?;
        if pixels.len_of(Axis(0)) != numbers.len() {
            return Err(DataError::Counts {
                image_file: images.path,
                images: pixels.len_of(Axis(0)),
                label_file: labels.path,
                labels: numbers.len(),
            });
        }
        let numbers = in_range(
            &labels.path,
            numbers.iter().map(|&label| label.into()),
            manifest.classes.len(),
        )?;
        let images_of = Images::new(
            format!("fashion-mnist/{part}"),
            manifest.classes,
            pixels.insert_axis(Axis(1)),
            numbers,
        )?;
        let files = vec![(images.source.file.clone(), images_of.len())];
        Ok(images_of.of_files(files).with_sources(vec![images.source, labels.source]))
    })
}

fn cifar10(part: &str, batches: &[usize], data: &DataDir) -> Result<Arc<dyn Dataset>, DataError> {
    let files: Vec<String> = batches.iter().map(|n| format!("data_batch_{n}.bin")).collect();
    cifar_files("cifar10", part, &files, Labels::Cifar10, data)
}

fn cifar100(part: &str, data: &DataDir) -> Result<Arc<dyn Dataset>, DataError> {
    let file = if part == "test" { "test.bin" } else { "train.bin" };
    cifar_files("cifar100", part, &[file.to_owned()], Labels::Cifar100Fine, data)
}

/// The whole test batch; where there is only its beginning, the error says so.
fn cifar10_test(data: &DataDir) -> Result<Arc<dyn Dataset>, DataError> {
    let manifest = Manifest::builtin("cifar10")?;
    cifar_files("cifar10", "test", &["test_batch.bin".to_owned()], Labels::Cifar10, data).map_err(
        |error| match error {
            DataError::Missing { dataset, file, searched, way_out } => {
                let first_1000 =
                    manifest.file(FIRST_1000).and_then(|first| manifest.find(first, data).ok());
                let way_out = match first_1000 {
                    Some(path) => {
                        format!("{way_out}; the split `test-1000` ({}) is here", path.display())
                    }
                    None => way_out,
                };
                DataError::Missing { dataset, file, searched, way_out }
            }
            error => error,
        },
    )
}

const FIRST_1000: &str = "test_batch_first1000.bin";

/// The first 1,000 test images: from the file that holds just these, or from the whole test batch.
fn cifar10_first_1000(data: &DataDir) -> Result<Arc<dyn Dataset>, DataError> {
    match cifar_files("cifar10", "test-1000", &[FIRST_1000.to_owned()], Labels::Cifar10, data) {
        Err(DataError::Missing { .. }) => {
            let first = Subset::new("cifar10/test-1000", cifar10_test(data)?, (0..1000).collect())?;
            Ok(Arc::new(first))
        }
        found => found,
    }
}

fn cifar_files(
    name: &str,
    part: &str,
    files: &[String],
    labels: Labels,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    shared(key(name, part, data), || {
        let manifest = Manifest::builtin(name)?;
        let read: Vec<_> = files
            .par_iter()
            .map(|file| {
                let loaded = load(&manifest, file, data)?;
                let mut pixels = Vec::new();
                let labels = cifar::parse_into(&loaded.path, &loaded.bytes, labels, &mut pixels)?;
                check_count(&manifest, file, &loaded.path, labels.len())?;
                Ok((pixels, labels, loaded.source))
            })
            .collect::<Result<_, DataError>>()?;
        let (mut pixels, mut numbers, mut sources) = (Vec::new(), Vec::new(), Vec::new());
        let mut files = Vec::new();
        for (more_pixels, more_labels, source) in read {
            files.push((source.file.clone(), more_labels.len()));
            pixels.extend(more_pixels);
            numbers.extend(more_labels);
            sources.push(source);
        }
        let images = Images::new(
            format!("{name}/{part}"),
            manifest.classes,
            cifar::to_array(pixels)?,
            numbers,
        )?;
        Ok(images.of_files(files).with_sources(sources))
    })
}

fn cats_vs_dogs(part: &str, data: &DataDir) -> Result<Arc<dyn Dataset>, DataError> {
    let folder = if part == "test" { "test" } else { "train" };
    let whole = shared_tar(key("cats-vs-dogs", "tar", data), || {
        let manifest = Manifest::builtin("cats-vs-dogs")?;
        let loaded = load(&manifest, "cats-vs-dogs-128.tar", data)?;
        ImageTar::from_memory(loaded.path, loaded.bytes, loaded.source)
    })?;
    Ok(Arc::new(whole.part(folder)?.named(format!("cats-vs-dogs/{part}"))))
}

fn imagenet_sample(split: &str, data: &DataDir) -> Result<Arc<dyn Dataset>, DataError> {
    let tar = shared_tar(key("imagenet-sample", "tar", data), || {
        let manifest = Manifest::builtin("imagenet-sample")?;
        let list = load(&manifest, "classes.tsv", data)?;
        let (classes, images) = class_list(&list.path, &list.bytes)?;
        let loaded = load(&manifest, "imagenet-sample-1000.tar", data)?;
        let Loaded { path, bytes, source } = loaded;
        ImageTar::labelled(path, bytes, source, (&list.path, list.source), classes, &images)
    })?;
    let all = tar.as_ref().clone().named("imagenet-sample/all");
    let parity = match split {
        "even" => 0,
        "odd" => 1,
        _ => return Ok(Arc::new(all)),
    };
    let half = (0..all.len()).filter(|&index| all.label(index) % 2 == parity).collect();
    Ok(Arc::new(Subset::new(format!("imagenet-sample/{split}"), Arc::new(all), half)?))
}

/// File names with their labels.
type LabelledFiles = Vec<(String, usize)>;

/// `index TAB WordNet id TAB file name TAB class words`, with the indices 0, 1, 2, … in order: the class words, and
/// the images with their labels.
fn class_list(path: &Path, bytes: &[u8]) -> Result<(Vec<String>, LabelledFiles), DataError> {
    let expected = "expected: index, WordNet id, file name and class words, with tabs between; indices 0, 1, 2, ...";
    let text = std::str::from_utf8(bytes).map_err(|error| DataError::ClassList {
        path: path.to_owned(),
        line: 1 + bytes[..error.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count(),
        expected: "expected UTF-8",
    })?;
    let (mut classes, mut images) = (Vec::new(), Vec::new());
    for (number, line) in text.lines().enumerate() {
        let fields: Vec<&str> = line.split('\t').collect();
        match fields[..] {
            [index, _, file, words]
                if index.parse() == Ok(number) && !file.is_empty() && !words.is_empty() =>
            {
                images.push((file.to_owned(), number));
                classes.push(words.to_owned());
            }
            _ => {
                return Err(DataError::ClassList {
                    path: path.to_owned(),
                    line: number + 1,
                    expected,
                });
            }
        }
    }
    Ok((classes, images))
}

/// Loads the file that the manifest calls `path`.
fn load(manifest: &Manifest, path: &str, data: &DataDir) -> Result<Loaded, DataError> {
    match manifest.file(path) {
        Some(file) => manifest.load(file, data),
        None => Err(manifest.missing(path, data)),
    }
}

fn check_count(manifest: &Manifest, file: &str, path: &Path, got: usize) -> Result<(), DataError> {
    match manifest.file(file).and_then(|file| file.examples) {
        Some(expected) if expected != got => {
            Err(DataError::Examples { path: path.to_owned(), expected, got })
        }
        _ => Ok(()),
    }
}

fn in_range(
    path: &Path,
    labels: impl Iterator<Item = usize>,
    classes: usize,
) -> Result<Vec<usize>, DataError> {
    labels
        .enumerate()
        .map(|(record, label)| {
            if label < classes {
                Ok(label)
            } else {
                Err(DataError::Label { path: path.to_owned(), record, label, classes })
            }
        })
        .collect()
}

/// What is in use, so that `train` and `validation` share their pixels and files are read and checked once.
static IN_USE: Mutex<BTreeMap<String, Weak<dyn Dataset>>> = Mutex::new(BTreeMap::new());
static TARS_IN_USE: Mutex<BTreeMap<String, Weak<ImageTar>>> = Mutex::new(BTreeMap::new());

fn key(name: &str, part: &str, data: &DataDir) -> String {
    format!("{name}/{part} in {:?}", data.places())
}

fn shared(
    key: String,
    make: impl FnOnce() -> Result<Images, DataError>,
) -> Result<Arc<dyn Dataset>, DataError> {
    let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = in_use.get(&key).and_then(Weak::upgrade) {
        return Ok(found);
    }
    let made: Arc<dyn Dataset> = Arc::new(make()?);
    in_use.insert(key, Arc::downgrade(&made));
    Ok(made)
}

fn shared_tar(
    key: String,
    make: impl FnOnce() -> Result<ImageTar, DataError>,
) -> Result<Arc<ImageTar>, DataError> {
    let mut in_use = TARS_IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = in_use.get(&key).and_then(Weak::upgrade) {
        return Ok(found);
    }
    let made = Arc::new(make()?);
    in_use.insert(key, Arc::downgrade(&made));
    Ok(made)
}
