//! The published data sets, each by the layout of its files.

use std::path::Path;
use std::sync::Arc;

use ndarray::Axis;
use rayon::prelude::*;

use crate::cifar::{self, Labels};
use crate::in_use::{key, shared, shared_tar, shared_zip};
use crate::manifest::{Loaded, Manifest};
use crate::same_tile::{split_leaking, split_tiles, tiles};
use crate::unpack::unpack;
use crate::{DataDir, DataError, Dataset, ImageTar, ImageZip, Images, Subset, idx};

/// MNIST and what has its layout: four IDX files.
pub(crate) fn mnist(
    manifest: &Manifest,
    part: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let stem = if part == "test" { "t10k" } else { "train" };
    shared(key(manifest, part, data), || {
        let images = load(manifest, &format!("{stem}-images-idx3-ubyte"), data)?;
        let labels = load(manifest, &format!("{stem}-labels-idx1-ubyte"), data)?;
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
            format!("{}/{part}", manifest.name),
            manifest.classes.clone(),
            pixels.insert_axis(Axis(1)),
            numbers,
        )?;
        let files = vec![(images.source.file.clone(), images_of.len())];
        Ok(images_of.of_files(files).with_sources(vec![images.source, labels.source]))
    })
}

pub(crate) fn cifar10(
    manifest: &Manifest,
    part: &str,
    batches: &[usize],
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let files: Vec<String> = batches.iter().map(|n| format!("data_batch_{n}.bin")).collect();
    cifar_files(manifest, part, &files, Labels::Cifar10, data)
}

pub(crate) fn cifar100(
    manifest: &Manifest,
    part: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let file = if part == "test" { "test.bin" } else { "train.bin" };
    cifar_files(manifest, part, &[file.to_owned()], Labels::Cifar100Fine, data)
}

/// The whole test batch; where there is only its beginning, the error says so.
pub(crate) fn cifar10_test(
    manifest: &Manifest,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    cifar_files(manifest, "test", &["test_batch.bin".to_owned()], Labels::Cifar10, data).map_err(
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
pub(crate) fn cifar10_first_1000(
    manifest: &Manifest,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    match cifar_files(manifest, "test-1000", &[FIRST_1000.to_owned()], Labels::Cifar10, data) {
        Err(DataError::Missing { .. }) => {
            let first = Subset::new(
                "cifar10/test-1000",
                cifar10_test(manifest, data)?,
                (0..1000).collect(),
            )?;
            Ok(Arc::new(first))
        }
        found => found,
    }
}

fn cifar_files(
    manifest: &Manifest,
    part: &str,
    files: &[String],
    labels: Labels,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    shared(key(manifest, part, data), || {
        let read: Vec<_> = files
            .par_iter()
            .map(|file| {
                let loaded = load(manifest, file, data)?;
                let mut pixels = Vec::new();
                let labels = cifar::parse_into(&loaded.path, &loaded.bytes, labels, &mut pixels)?;
                check_count(manifest, file, &loaded.path, labels.len())?;
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
            format!("{}/{part}", manifest.name),
            manifest.classes.clone(),
            cifar::to_array(pixels)?,
            numbers,
        )?;
        Ok(images.of_files(files).with_sources(sources))
    })
}

pub(crate) fn cats_vs_dogs(
    manifest: &Manifest,
    part: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let folder = if part == "test" { "test" } else { "train" };
    let whole = shared_tar(key(manifest, "tar", data), || {
        let loaded = load(manifest, "cats-vs-dogs-128.tar", data)?;
        ImageTar::from_memory(loaded.path, loaded.bytes, loaded.source)
    })?;
    Ok(Arc::new(whole.part(folder)?.named(format!("cats-vs-dogs/{part}"))))
}

pub(crate) fn imagenet_sample(
    manifest: &Manifest,
    split: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let tar = shared_tar(key(manifest, "tar", data), || {
        let list = load(manifest, "classes.tsv", data)?;
        let (classes, images) = class_list(&list.path, &list.bytes)?;
        let loaded = load(manifest, "imagenet-sample-1000.tar", data)?;
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

/// Imagenette: the publisher's archive, whose `train` is training and validation data, and whose `val` is the test set.
pub(crate) fn imagenette(
    manifest: &Manifest,
    part: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let whole = shared_tar(key(manifest, "tar", data), || {
        let file = manifest.only_file()?;
        let (path, source) = manifest.checked(file, data)?;
        let raw = std::fs::read(&path).map_err(DataError::io(&path))?;
        let bytes = unpack(&path, raw)?;
        ImageTar::from_memory(path.clone(), bytes, source)?
            .with_classes(&manifest.folders, &manifest.classes)
            .map_err(|found| DataError::ClassFolders {
                path,
                expected: manifest.folders.clone(),
                found,
            })
    })?;
    let folder = if part == "test" { "val" } else { "train" };
    Ok(Arc::new(whole.part(folder)?.named(format!("{}/{part}", manifest.name))))
}

/// Share of the magnetic tiles that is for the test, and for validation, and the seed that chooses it.
const TILES_SHARE: f64 = 0.15;
const TILES_SEED: u64 = 0;

/// The marks of defects on magnetic tiles, in splits that keep the pictures of a tile together, or in the leaking ones of the CPAC-Conv study.
pub(crate) fn magnetic_tiles(
    manifest: &Manifest,
    split: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let whole = shared_tar(key(manifest, "tar", data), || {
        let Loaded { path, bytes, source } = manifest.load(manifest.only_file()?, data)?;
        ImageTar::from_memory(path.clone(), bytes, source)?
            .with_classes(&manifest.folders, &manifest.classes)
            .map_err(|found| DataError::ClassFolders {
                path,
                expected: manifest.folders.clone(),
                found,
            })
    })?;
    let name = format!("{}/{split}", manifest.name);
    let all = whole.as_ref().clone().named(format!("{}/all", manifest.name));
    let [train, test] = match split {
        "all" => return Ok(Arc::new(all)),
        "train-leaking" | "test-leaking" => split_leaking(all.len(), TILES_SHARE, TILES_SEED),
        _ => {
            let [train, validation, test] =
                split_tiles(&all, &tiles(&all)?, TILES_SHARE, TILES_SEED);
            match split {
                "validation" => [train, validation],
                "train+validation" => {
                    let mut both = [train, validation].concat();
                    both.sort_unstable();
                    [both, test]
                }
                _ => [train, test],
            }
        }
    };
    let indices = if split.starts_with("train") { train } else { test };
    Ok(Arc::new(Subset::new(name, Arc::new(all), indices)?))
}

/// Cats-vs-Dogs as Microsoft publishes it: a zip with one folder a class and no splits; which images are for testing, their
/// numbers say.
pub(crate) fn cats_vs_dogs_full(
    manifest: &Manifest,
    part: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let every = manifest.test_every.filter(|&every| every > 1);
    let Some(every) = every.filter(|_| manifest.folders.len() == manifest.classes.len()) else {
        return Err(DataError::ManifestField {
            name: manifest.name.clone(),
            what: "needs `test_every` above 1, and as many `folders` as `classes`",
        });
    };
    let test = part == "test";
    let whole = shared_zip(key(manifest, if test { "test" } else { "train" }, data), || {
        let file = manifest.only_file()?;
        let (path, source) = manifest.checked(file, data)?;
        let label = |member: &str| {
            let (folder, name) = member.rsplit_once('/')?;
            let label = manifest.folders.iter().position(|known| known == folder)?;
            let (number, ending) = name.split_once('.')?;
            let number: usize = number.parse().ok()?;
            (ending == "jpg" && number.is_multiple_of(every) == test).then_some((number, label))
        };
        ImageZip::of_publisher(path, source, manifest.classes.clone(), &label)
    })?;
    Ok(Arc::new(whole.as_ref().clone().named(format!("{}/{part}", manifest.name))))
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
