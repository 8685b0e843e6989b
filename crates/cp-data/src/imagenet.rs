//! ImageNet (ILSVRC-2012): a copy that the user has, since it cannot be fetched from here.
//!
//! Known are the layouts that its files are kept in: `train/WNID/*.JPEG`; `val/WNID/*.JPEG`, or the 50,000 validation images in one
//! folder, as they are published, with a list of their classes ([`labels`]). Both may lie in Kaggle's folders, `ILSVRC/Data/CLS-LOC/`.
//!
//! The labels of the competition's test images were never given out, so that the published accuracies are those on its validation images: these
//! are the split `test` here, and `validation` is cut from the training images, as in the other data sets.
//!
//! Classes are WordNet ids, sorted, which is the order of the weights of torchvision and Caffe: the folders in `train`, or without it those
//! of the labels. Where there are fewer than 1,000, these are the classes.

mod labels;
mod meta;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use labels::Labels;

use crate::in_use::{key, shared_folder};
use crate::layout::Listing;
use crate::note::endings;
use crate::printable::printable_bytes;
use crate::walk::{Found, Walk, is_foreign, walk};
use crate::{DataDir, DataError, Dataset, ImageFolder, Manifest, Note, printable_path};

/// Names of the folder of training images: the usual one, and that of the publisher's archive.
const TRAIN: [&str; 2] = ["train", "ILSVRC2012_img_train"];

/// Names of the folder of validation images.
const VAL: [&str; 3] = ["val", "validation", "ILSVRC2012_img_val"];

/// Where Kaggle's archive has these folders; its lists lie above.
const KAGGLE: &str = "ILSVRC/Data/CLS-LOC";

/// `train+validation` or `test`, of the copy in the first place that has one: the folder `imagenet` there, or the place itself.
pub(crate) fn imagenet(
    manifest: &Manifest,
    part: &str,
    data: &DataDir,
) -> Result<Arc<dyn Dataset>, DataError> {
    let whole = shared_folder(key(manifest, part, data), || {
        let tree = Tree::find(manifest, data)?;
        let images = if part == "test" { tree.test(data)? } else { tree.train()? };
        Ok(images.named(format!("{}/{part}", manifest.name)))
    })?;
    Ok(whole)
}

/// Whether a word has the form of a WordNet id of a noun: `n01440764`.
fn is_wnid(word: &str) -> bool {
    let digits = word.strip_prefix('n');
    digits
        .is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// A copy of ImageNet.
struct Tree {
    /// The folder that holds those of the images.
    images: PathBuf,
    train: Option<PathBuf>,
    val: Option<PathBuf>,
}

impl Tree {
    fn find(manifest: &Manifest, data: &DataDir) -> Result<Self, DataError> {
        let own = Path::new(&manifest.folder);
        let candidates: Vec<PathBuf> = [own.to_owned(), own.join(KAGGLE), "".into(), KAGGLE.into()]
            .iter()
            .flat_map(|folder| TRAIN.iter().chain(&VAL).map(|name| folder.join(name)))
            .collect();
        let found = data.find(&candidates)?;
        let Some(images) = found.as_deref().and_then(Path::parent).map(Path::to_owned) else {
            let folder = printable_path(own);
            return Err(DataError::Missing {
                dataset: manifest.name.clone(),
                file: format!("train/ or val/, {folder}/train/ or {folder}/val/"),
                searched: data.searched(""),
                way_out: manifest.obtain.clone(),
            });
        };
        let (train, val) = (one_of(&images, &TRAIN)?, one_of(&images, &VAL)?);
        Ok(Tree { images, train, val })
    }

    fn train(&self) -> Result<ImageFolder, DataError> {
        let folder = self.folder(self.train.as_deref(), &TRAIN, "training images")?;
        let classes = class_folders(folder)?;
        let (walk, files) = walk(folder)?;
        if let Some(stray) = walk.images.iter().find(|image| !image.path.contains('/')) {
            return Err(DataError::NoClass { path: folder.to_owned(), entry: stray.path.clone() });
        }
        Labelled { folder, walk, files, classes, labels: None }.dataset("train")
    }

    /// `val`: the labels of the competition's test images are not public.
    fn test(&self, data: &DataDir) -> Result<ImageFolder, DataError> {
        let folder =
            self.folder(self.val.as_deref(), &VAL, "validation images, which are the split test")?;
        let (walk, files) = walk(folder)?;
        let trained = self.train.as_deref().map_or(Ok(Vec::new()), class_folders)?;
        let in_classes = walk.images.iter().find(|image| image.path.contains('/'));
        let loose = walk.images.iter().find(|image| !image.path.contains('/'));
        let (classes, labels) = match (loose, in_classes) {
            (Some(loose), Some(other)) => {
                return Err(DataError::ImageNet {
                    path: folder.to_owned(),
                    what: format!(
                        "{} lies in it directly, and {} in a folder",
                        loose.path, other.path
                    ),
                    way_out: "sort all images into class folders, or none".to_owned(),
                });
            }
            (None, _) => (class_folders(folder)?, None),
            (Some(_), None) => {
                let labels = Labels::find(&self.list_folders(), folder, data)?;
                one_to_one(folder, &walk.images, &labels)?;
                let classes: BTreeSet<&String> = labels.wnids.values().collect();
                (classes.into_iter().cloned().collect(), Some(labels))
            }
        };
        // An empty `train` tells no classes.
        let classes = match &self.train {
            Some(train) if !trained.is_empty() => {
                self.check_classes(&trained, train, &classes, folder, labels.as_ref())?;
                trained
            }
            _ => classes,
        };
        Labelled { folder, walk, files, classes, labels }.dataset("test")
    }

    /// Where lists are searched: beside the folders of the images, and above those of Kaggle's archive.
    fn list_folders(&self) -> Vec<&Path> {
        let levels = Path::new(KAGGLE).components().count();
        let above = self.images.ancestors().nth(levels).filter(|_| self.images.ends_with(KAGGLE));
        std::iter::once(self.images.as_path()).chain(above).collect()
    }

    fn folder<'a>(
        &self,
        found: Option<&'a Path>,
        names: &[&str],
        what: &str,
    ) -> Result<&'a Path, DataError> {
        found.ok_or_else(|| DataError::ImageNet {
            path: self.images.clone(),
            what: format!("has no folder {}/, for the {what}", names.join("/ or ")),
            way_out: format!("put {}/ there, or ask for another split", names[0]),
        })
    }

    fn check_classes(
        &self,
        trained: &[String],
        train: &Path,
        classes: &[String],
        val: &Path,
        labels: Option<&Labels>,
    ) -> Result<(), DataError> {
        let Some(strange) = classes.iter().find(|class| trained.binary_search(class).is_err())
        else {
            return Ok(());
        };
        let of_class = |labels: &Labels| {
            let (image, _) = labels.wnids.iter().find(|(_, wnid)| *wnid == strange)?;
            Some(format!(
                "the class {strange} of the image {image} (by {})",
                printable_path(&labels.list)
            ))
        };
        let class =
            labels.and_then(of_class).unwrap_or_else(|| format!("the class folder {strange}/"));
        Err(DataError::ImageNet {
            path: val.to_owned(),
            what: format!("{class} is none of the {} classes in {}", trained.len(), printable_path(train)),
            way_out: "bring the class's training images, or leave its images out; or move the folder of the training images away, so that \
                      the classes are those of the labels"
                .to_owned(),
        })
    }
}

/// Images with what tells their classes: their folders, or a list.
struct Labelled<'a> {
    folder: &'a Path,
    walk: Walk,
    files: Vec<PathBuf>,
    classes: Vec<String>,
    labels: Option<Labels>,
}

impl Labelled<'_> {
    fn dataset(self, split: &str) -> Result<ImageFolder, DataError> {
        let Labelled { folder, walk, files, classes, labels } = self;
        if walk.images.is_empty() {
            let wanted = format!("the split {split:?} ({})", endings(&walk.others));
            return Err(DataError::NoImages { path: folder.to_owned(), wanted });
        }
        let mut counts = vec![0_usize; classes.len()];
        let mut images = Vec::with_capacity(walk.images.len());
        for image in walk.images {
            let wnid = match &labels {
                Some(labels) => labels.wnids.get(stem(&image.path)).map(String::as_str),
                None => image.path.split_once('/').map(|(class, _)| class),
            };
            // That every image has one of the classes was checked.
            let label = wnid
                .and_then(|wnid| classes.binary_search_by(|class| class.as_str().cmp(wnid)).ok());
            let Some(label) = label else {
                return Err(DataError::NoClass { path: folder.to_owned(), entry: image.path });
            };
            counts[label] += 1;
            images.push((image, label));
        }
        let mut notes = vec![Note::Classes { names: classes.clone(), list: None }];
        let (list, sources) =
            labels.map_or((None, Vec::new()), |labels| (Some(labels.list), labels.sources));
        let name = format!("{}/", printable_path(folder));
        if list.is_some() {
            let files = sources.iter().map(|source| source.file.clone()).collect();
            notes.push(Note::Labels { folder: name.clone(), files });
        }
        let without: Vec<String> = std::iter::zip(&classes, counts)
            .filter(|&(_, count)| count == 0)
            .map(|(class, _)| class.clone())
            .collect();
        if !without.is_empty() {
            notes.push(Note::WithoutImages { folder: name, classes: without });
        }
        if !walk.others.is_empty() {
            notes.push(Note::LeftOut { files: walk.others.len(), endings: endings(&walk.others) });
        }
        let mut listing = Listing::of_entries(folder, classes, images);
        listing.notes = notes;
        ImageFolder::labelled(folder, files, listing, sources)
    }
}

/// The one folder of these names in `folder`, if there is one.
fn one_of(folder: &Path, names: &[&str]) -> Result<Option<PathBuf>, DataError> {
    let mut found: Vec<&&str> = names.iter().filter(|name| folder.join(name).exists()).collect();
    if found.len() > 1 {
        let found: Vec<String> = found.iter().map(|name| format!("{name}/")).collect();
        return Err(DataError::ImageNet {
            path: folder.to_owned(),
            what: format!("{} stand for the same images", found.join(" and ")),
            way_out: "leave one of them".to_owned(),
        });
    }
    Ok(found.pop().map(|name| folder.join(name)))
}

/// The class folders in a folder, sorted, with images in them or not: names alone, without a look at a million files.
fn class_folders(folder: &Path) -> Result<Vec<String>, DataError> {
    let (mut classes, mut packed) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        let (name, path) = (printable_bytes(entry.file_name().as_encoded_bytes()), entry.path());
        if is_foreign(&name) {
            continue;
        }
        // A dead link in the place of a class would move the labels of those behind it.
        let kind = match fs::metadata(&path) {
            Ok(kind) => kind,
            Err(_) if is_wnid(&name) && path.is_symlink() => {
                let target = fs::read_link(&path).map_err(DataError::io(&path))?;
                return Err(DataError::DeadLink { path, entry: None, target });
            }
            Err(_) => continue,
        };
        if kind.is_dir() && !is_wnid(&name) {
            return Err(DataError::ImageNet {
                path: folder.to_owned(),
                what: format!("the folder {name}/ is called by no WordNet id, such as n01440764"),
                way_out: "name class folders by their WordNet ids and move others away; `folder:PATH` reads any class folders".to_owned(),
            });
        }
        match name.strip_suffix(".tar").filter(|class| is_wnid(class)) {
            Some(class) => packed.push(class.to_owned()),
            None if kind.is_dir() => classes.push(name),
            None => {}
        }
    }
    classes.sort_unstable();
    packed.sort_unstable();
    if let Some(class) = packed.iter().find(|class| classes.binary_search(class).is_err()) {
        return Err(DataError::ImageNet {
            path: folder.to_owned(),
            what: format!("{class}.tar is not unpacked: there is no folder {class}/"),
            way_out: "unpack each archive into a folder of its name: `for f in n*.tar; do mkdir -p ${f%.tar}; tar -xf $f -C ${f%.tar}; done`"
                .to_owned(),
        });
    }
    Ok(classes)
}

/// Checks that each image has a label, and each label an image.
fn one_to_one(folder: &Path, images: &[Found], labels: &Labels) -> Result<(), DataError> {
    let mut by_name = BTreeMap::new();
    for image in images {
        if let Some(other) = by_name.insert(stem(&image.path), &image.path) {
            return Err(DataError::ImageNet {
                path: folder.to_owned(),
                what: format!("{other} and {} have the same name", image.path),
                way_out: "leave one of them".to_owned(),
            });
        }
    }
    let unlabelled: Vec<String> = by_name
        .iter()
        .filter(|(name, _)| !labels.wnids.contains_key(**name))
        .map(|(_, path)| (*path).clone())
        .collect();
    let imageless: Vec<String> =
        labels.wnids.keys().filter(|name| !by_name.contains_key(name.as_str())).cloned().collect();
    if unlabelled.is_empty() && imageless.is_empty() {
        return Ok(());
    }
    Err(DataError::LabelledImages {
        list: labels.list.clone(),
        labels: labels.wnids.len(),
        folder: folder.to_owned(),
        images: images.len(),
        unlabelled,
        imageless,
    })
}

/// The name of an image that lies directly in its folder, without its ending.
fn stem(path: &str) -> &str {
    path.rsplit_once('.').map_or(path, |(stem, _)| stem)
}
