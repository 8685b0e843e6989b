//! What a user should be told about a data set of their own: no errors, but what was taken for what.

use std::fmt;

use crate::printable;

/// Something to tell about a data set, as a value; [`Display`](fmt::Display) gives the words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// The classes, in the order of their labels.
    Classes {
        /// Their names.
        names: Vec<String>,
        /// The list that they were read from, if it is not the folders' own names.
        list: Option<String>,
    },
    /// All images lie below one folder, which was taken for one around the data set.
    Wrapper {
        /// The folder, below the one that was given.
        folder: String,
    },
    /// Which folder was taken for which split.
    Splits {
        /// Pairs of a split and its folder.
        folders: Vec<(&'static str, String)>,
    },
    /// Training and validation data are cut from one folder.
    Cut {
        /// The split that was asked for.
        split: String,
        /// Examples in it.
        examples: usize,
        /// Examples of the whole.
        whole: usize,
        /// The folder.
        folder: String,
    },
    /// Classes without an image in the split at hand.
    WithoutImages {
        /// The split's folder.
        folder: String,
        /// The classes.
        classes: Vec<String>,
    },
    /// Folders beside the splits that belong to none of them.
    OtherFolders {
        /// The folders.
        folders: Vec<String>,
    },
    /// A split's folder without any image.
    EmptySplit {
        /// The folder.
        folder: String,
        /// What lies in it, in words.
        files: String,
    },
    /// A split's folder with images in no class folder.
    Unlabelled {
        /// The folder.
        folder: String,
        /// Images in it.
        images: usize,
    },
    /// Two classes whose names differ in case or spelling alone.
    Similar {
        /// One class.
        one: String,
        /// The other.
        other: String,
    },
    /// The list that tells the classes of images in no class folders.
    Labels {
        /// The folder of the images.
        folder: String,
        /// The files of the list.
        files: Vec<String>,
    },
    /// Images that are damaged in the publisher's own archive.
    Damaged {
        /// Each with what is wrong with it.
        members: Vec<String>,
    },
    /// Files that are no images by their names.
    LeftOut {
        /// How many.
        files: usize,
        /// Their endings with counts, in words.
        endings: String,
    },
}

/// Names that a note spells out, at most; the rest is counted.
const NAMED: usize = 12;

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Classes { names, list } => {
                let noun = if names.len() == 1 { "class" } else { "classes" };
                write!(f, "{} {noun}: {}", names.len(), some(names))?;
                list.as_ref().map_or(Ok(()), |list| write!(f, " (the order of {list})"))
            }
            Note::Wrapper { folder } => {
                write!(
                    f,
                    "all images lie below {folder}/, which is taken for a folder around the data set"
                )
            }
            Note::Splits { folders } => {
                let each: Vec<String> = folders
                    .iter()
                    .map(|(split, folder)| format!("{folder}/ for {split}"))
                    .collect();
                write!(f, "taken: {}", each.join(", "))
            }
            Note::Cut { split, examples, whole, folder } => write!(
                f,
                "there is no folder validation/: {split} is {examples} of the {whole} images of {folder}"
            ),
            Note::WithoutImages { folder, classes } => {
                let noun = if classes.len() == 1 { "class" } else { "classes" };
                write!(f, "{folder} has no image of the {noun} {}", some(classes))
            }
            Note::OtherFolders { folders } => {
                write!(f, "left out, since no split is called so: ")?;
                let folders: Vec<String> =
                    folders.iter().map(|folder| format!("{folder}/")).collect();
                write!(f, "{}", some(&folders))
            }
            Note::EmptySplit { folder, files } => write!(f, "{folder}/ holds no image ({files})"),
            Note::Unlabelled { folder, images } => write!(
                f,
                "left out: {images} images that lie directly in {folder}/, in no class folder"
            ),
            Note::Similar { one, other } => {
                write!(
                    f,
                    "{one} and {other} are two classes, though their names differ in case or spelling alone"
                )
            }
            Note::Labels { folder, files } => {
                write!(f, "the classes of the images in {folder} are those of {}", some(files))
            }
            Note::Damaged { members } => {
                let noun = if members.len() == 1 { "image that is" } else { "images that are" };
                write!(
                    f,
                    "left out: {} {noun} damaged in the publisher's archive: {}",
                    members.len(),
                    some(members)
                )
            }
            Note::LeftOut { files, endings } => {
                let noun =
                    if *files == 1 { "file that is no image" } else { "files that are no images" };
                write!(f, "left out: {files} {noun} by name ({endings})")
            }
        }
    }
}

/// The first of some names, and how many more there are; printable.
pub(crate) fn some(names: &[String]) -> String {
    let mut words = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED {
        words += &format!(" and {} more", names.len() - NAMED);
    }
    printable(&words)
}

/// Endings with counts, most frequent first: `2 .txt, 1 .heic, 1 without an ending`.
pub(crate) fn endings<'a>(paths: impl IntoIterator<Item = &'a String>) -> String {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for path in paths {
        let name = path.rsplit('/').next().unwrap_or(path);
        let ending = match name.rsplit_once('.') {
            Some((_, ending)) => format!(".{}", ending.to_lowercase()),
            None => "without an ending".to_owned(),
        };
        *counts.entry(ending).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let words: Vec<String> =
        counts.into_iter().map(|(ending, count)| format!("{count} {ending}")).collect();
    if words.is_empty() { "no file at all".to_owned() } else { some(&words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let names = |n: usize| (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>();
        let classes = |n| Note::Classes { names: names(n), list: None }.to_string();
        assert_eq!(classes(1), "1 class: c0");
        assert_eq!(classes(3), "3 classes: c0, c1, c2");
        assert!(classes(1000).ends_with("c11 and 988 more"));
        let files = ["a/1.TXT", "a/2.txt", "b/x", "c.heic"].map(str::to_owned);
        assert_eq!(endings(&files), "2 .txt, 1 .heic, 1 without an ending");
        assert_eq!(endings(&[]), "no file at all");
    }
}
