//! Data sets by name and split.

use std::sync::Arc;

use crate::imagenet::imagenet;
use crate::layout::{Listing, Pick};
use crate::manifest::{ImageChanges, Manifest};
use crate::split::Split;
use crate::{
    Characters, DataDir, DataError, Dataset, ImageFolder, ImageTar, Note, Part, in_use, published,
    split_validation,
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
const MOVING_FRAMES: usize = 5;

/// Splits made of the training and test files.
const USUAL: [&str; 4] = ["train", "validation", "train+validation", "test"];

/// Every data set and its splits.
const CATALOG: [(&str, &[&str]); 13] = [
    ("characters", &["train", "validation", "test"]),
    ("moving-characters", &["train", "validation", "test"]),
    ("mnist", &USUAL),
    ("fashion-mnist", &USUAL),
    (
        "cifar10",
        &["train", "validation", "train+validation", "test", "test-1000", "train-1-4", "batch-5"],
    ),
    ("cifar10-holdout", &USUAL),
    ("cifar100", &USUAL),
    ("cats-vs-dogs", &USUAL),
    ("cats-vs-dogs-full", &USUAL),
    ("imagenette", &USUAL),
    ("imagenet", &["train", "validation", "train+validation", "test", "val"]),
    ("imagenet-sample", &["all", "even", "odd"]),
    (
        "magnetic-tile-defects",
        &[
            "train",
            "validation",
            "train+validation",
            "test",
            "all",
            "train-leaking",
            "test-leaking",
        ],
    ),
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
/// | `moving-characters` | `train` (18,000), `validation` (1,800), `test` (3,600), strips of five frames: see [`Characters::moving`] |
/// | `mnist`, `fashion-mnist` | `train`, `validation`, `train+validation` (60,000), `test` (10,000) |
/// | `cifar10` | the same (50,000, 10,000), `test-1000` (the first 1,000 of the test set), `train-1-4`, `batch-5` |
/// | `cifar10-holdout` | `train`, `validation`, `train+validation` (40,000: batches 1 to 4), `test` (10,000: batch 5), for networks that were not trained on batch 5 |
/// | `cifar100` | `train`, `validation`, `train+validation` (50,000), `test` (10,000); fine labels |
/// | `cats-vs-dogs` | `train`, `validation`, `train+validation` (1,600), `test` (800) |
/// | `cats-vs-dogs-full` | the same of the publisher's zip (about 20,000 and 5,000; `test`: file numbers that are multiples of 5) |
/// | `imagenette` | `train`, `validation`, `train+validation` (9,469), `test` (3,925: the publisher's `val`) |
/// | `imagenet` | `train`, `validation`, `train+validation` (1,281,167), `test` (50,000: the folder `val`, since the labels of ImageNet's test images are not public), `val` (the same as `test`; `validation` is cut from the training images), of a copy of one's own: `train/WNID/` and `val/`, sorted into `WNID/` or with a list of labels |
/// | `imagenet-sample` | `all` (1,000, one of each class), and its halves `even` and `odd` by the class number |
/// | `magnetic-tile-defects` | `train` (460), `validation` (103), `test` (100), of every class about 70, 15 and 15 %, all pictures of a tile in one (see [`tiles`](crate::tiles)), `train+validation`, `all` (663); `train-leaking` (564) and `test-leaking` (99), drawn picture by picture, so that **copies of one tile are on both sides**: for comparison with studies that split so |
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
    if let Some(path) = name.strip_prefix("folder:").filter(|path| !path.is_empty()) {
        let folder = ImageFolder::open_for(path.into(), Some(split))?;
        let pick = folder.pick(split)?;
        return own(folder.name(), split, pick, |listing, name| {
            Arc::new(folder.with(listing).named(name))
        });
    }
    if let Some(path) = name.strip_prefix("tar:").filter(|path| !path.is_empty()) {
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
    if name == "characters" || name == "moving-characters" {
        return characters(name, split);
    }
    open_by(&Manifest::builtin(name.strip_suffix("-holdout").unwrap_or(name))?, name, split, data)
}

/// As [`open`], by a manifest of one's own: that of a mirror, or of files made for a test. Its layout is that of the built-in
/// data set of its `name`.
///
/// # Errors
/// As [`open`].
pub fn open_as(
    manifest: &Manifest,
    split: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let name = manifest.name.as_str();
    let Some((_, splits)) = CATALOG.into_iter().find(|(known, _)| *known == name) else {
        let known = CATALOG.iter().map(|(known, _)| (*known).to_owned()).collect();
        return Err(DataError::UnknownDataset { name: name.to_owned(), known });
    };
    if !splits.contains(&split) {
        let known = splits.iter().map(|&known| known.to_owned()).collect();
        let (dataset, split) = (name.to_owned(), split.to_owned());
        return Err(DataError::UnknownSplit { dataset, split, known });
    }
    open_by(manifest, name, split, data)
}

fn open_by(
    manifest: &Manifest,
    name: &str,
    split: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let cifar10 = |part: &str, batches: &[usize]| published::cifar10(manifest, part, batches, data);
    match (name, split) {
        ("cifar10", "test-1000") => published::cifar10_first_1000(manifest, data),
        ("cifar10", "train-1-4") => cifar10(split, &[1, 2, 3, 4]),
        ("cifar10", "batch-5") => cifar10(split, &[5]),
        ("cifar10", "test") => published::cifar10_test(manifest, data),
        ("cifar10", _) => with_validation(name, split, |part| cifar10(part, &[1, 2, 3, 4, 5])),
        ("cifar10-holdout", "test") => cifar10("batch-5", &[5]),
        ("cifar10-holdout", _) => {
            with_validation(name, split, |_| cifar10("train-1-4", &[1, 2, 3, 4]))
        }
        ("magnetic-tile-defects", _) => published::magnetic_tiles(manifest, split, data),
        ("imagenet-sample", _) => published::imagenet_sample(manifest, split, data),
        ("imagenet", "val") => imagenet(manifest, "test", data),
        ("imagenet", _) => with_validation(name, split, |part| imagenet(manifest, part, data)),
        _ => {
            let whole = match name {
                "mnist" | "fashion-mnist" => published::mnist,
                "cifar100" => published::cifar100,
                "cats-vs-dogs" => published::cats_vs_dogs,
                "cats-vs-dogs-full" => published::cats_vs_dogs_full,
                _ => published::imagenette,
            };
            with_validation(name, split, |part| whole(manifest, part, data))
        }
    }
}

/// The random changes to training images that the manifest of the data set `name` allows; none for sets without a manifest.
pub fn augmentation(name: &str) -> ImageChanges {
    let manifest = name.strip_suffix("-holdout").unwrap_or(name);
    Manifest::builtin(manifest).map_or_else(|_| ImageChanges::default(), |found| found.augmentation)
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
            let whole = whole("train+validation")?;
            let examples = whole.len();
            let (train, validation) =
                split_validation(whole, VALIDATION_FRACTION, VALIDATION_SEED)?;
            let part = if split == "validation" { validation } else { train };
            let name = format!("{name}/{split}");
            if part.is_empty() {
                let split = split.to_owned();
                return Err(DataError::EmptyCut { dataset: name, split, examples });
            }
            Ok(Arc::new(part.named(name)))
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

/// Drawn characters, or half as many that move.
fn characters(name: &str, split: &str) -> Result<Arc<dyn Dataset>, DataError> {
    let (part, count) = match split {
        "train" => (Part::Train, CHARACTERS_TRAIN),
        "validation" => (Part::Validation, CHARACTERS_VALIDATION),
        _ => (Part::Test, CHARACTERS_TEST),
    };
    in_use::shared(format!("{name}/{split}"), || {
        Ok(match name {
            "characters" => Characters::part(part, count, CHARACTERS_SEED),
            _ => Characters::moving(part, count / 2, MOVING_FRAMES, CHARACTERS_SEED),
        })
    })
}
