//! Folders of image files, one subfolder for each class.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array3;

use crate::decode::decode;
use crate::{DataError, Dataset, Source};

/// Folders below the root that are looked into: `SPLIT/CLASS/…` and one more.
const MAX_DEPTH: usize = 3;

/// File names that are taken for images. Formats that cannot be decoded are here too, since leaving a class's files
/// out without a word would be worse than an error.
const EXTENSIONS: [&str; 10] =
    ["jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm", "avif"];

/// Images in a folder on disk: the class of an image is the name of the folder that it lies in.
///
/// Files are decoded when asked for, so a [`Loader`](crate::Loader)'s threads do the work. They are listed once, in the
/// order of their names; files whose names do not end like an image's, and hidden ones, are left out. There are no
/// checksums of such folders ([`sources`](Dataset::sources) is empty).
#[derive(Debug, Clone)]
pub struct ImageFolder {
    name: String,
    root: PathBuf,
    listing: Listing,
}

impl ImageFolder {
    /// All images below `root`, in class folders, at most three levels down (`root/SPLIT/CLASS/NAME.jpg`).
    ///
    /// # Errors
    /// If the folder cannot be listed, there is no image, or one lies in `root` itself, which is no class.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DataError> {
        let root = root.into();
        let mut files = Vec::new();
        walk(&root, "", MAX_DEPTH, &mut files)?;
        files.sort_unstable();
        let listing = Listing::by_folder(&root, files)?;
        Ok(ImageFolder { name: format!("folder:{}", root.display()), root, listing })
    }

    /// Only the images below the folder `part` of the root; the classes stay those of the whole.
    ///
    /// # Errors
    /// If there are none.
    pub fn part(&self, part: &str) -> Result<Self, DataError> {
        let listing = self.listing.part(&self.root, part)?;
        Ok(ImageFolder { name: format!("{}/{part}", self.name), root: self.root.clone(), listing })
    }

    /// Gives the data set another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

impl Dataset for ImageFolder {
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
        let path = self.root.join(&entry.path);
        decode(&fs::read(&path).map_err(DataError::io(&path))?, &path, None)
    }

    fn sources(&self) -> &[Source] {
        &[]
    }
}

/// Image files with their labels.
#[derive(Debug, Clone)]
pub(crate) struct Listing {
    pub(crate) classes: Arc<[String]>,
    pub(crate) entries: Vec<Entry>,
}

/// One image file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Below the root, with `/` between folders.
    pub(crate) path: String,
    pub(crate) label: usize,
    /// Its place in the list that the listing was made from.
    pub(crate) number: usize,
}

impl Listing {
    /// The class of a file is the folder that it lies in; classes are sorted by name.
    pub(crate) fn by_folder(root: &Path, files: Vec<String>) -> Result<Self, DataError> {
        let class_of = |path: &str| -> Option<String> {
            let (folder, _) = path.rsplit_once('/')?;
            Some(folder.rsplit_once('/').map_or(folder, |(_, class)| class).to_owned())
        };
        let mut named = Vec::with_capacity(files.len());
        for path in files {
            match class_of(&path) {
                Some(class) => named.push((path, class)),
                None => return Err(DataError::NoClass { path: root.to_owned(), entry: path }),
            }
        }
        let classes: BTreeSet<&String> = named.iter().map(|(_, class)| class).collect();
        let classes: Arc<[String]> = classes.into_iter().cloned().collect();
        if classes.is_empty() {
            return Err(DataError::NoImages {
                path: root.to_owned(),
                wanted: "any class".to_owned(),
            });
        }
        let entries = named
            .into_iter()
            .enumerate()
            .map(|(number, (path, class))| {
                let label = classes.binary_search(&class).unwrap_or_default();
                Entry { path, label, number }
            })
            .collect();
        Ok(Listing { classes, entries })
    }

    pub(crate) fn part(&self, root: &Path, part: &str) -> Result<Self, DataError> {
        let prefix = format!("{}/", part.trim_end_matches('/'));
        let entries: Vec<Entry> =
            self.entries.iter().filter(|entry| entry.path.starts_with(&prefix)).cloned().collect();
        if entries.is_empty() {
            return Err(DataError::NoImages { path: root.to_owned(), wanted: part.to_owned() });
        }
        Ok(Listing { classes: self.classes.clone(), entries })
    }

    pub(crate) fn get(&self, index: usize, name: &str) -> Result<&Entry, DataError> {
        let len = self.entries.len();
        self.entries.get(index).ok_or_else(|| DataError::Index {
            dataset: name.to_owned(),
            index,
            len,
        })
    }
}

/// Whether a path is that of an image by its name.
pub(crate) fn is_image(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension.to_ascii_lowercase());
    !name.starts_with('.')
        && extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}

fn walk(
    folder: &Path,
    below: &str,
    depth: usize,
    files: &mut Vec<String>,
) -> Result<(), DataError> {
    for entry in fs::read_dir(folder).map_err(DataError::io(folder))? {
        let entry = entry.map_err(DataError::io(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        // Links are followed; the depth bounds those that lead back up.
        let kind = fs::metadata(entry.path()).map_err(DataError::io(entry.path()))?;
        if kind.is_dir() && depth > 0 && !name.starts_with('.') {
            walk(&entry.path(), &path, depth - 1, files)?;
        } else if kind.is_file() && is_image(&path) {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;
    use crate::decode::tests::file;

    /// `root/{train,test}/{cat,dog}/N.png`, and things that are no images.
    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (n, place) in ["train/cat", "train/dog", "test/dog"].into_iter().enumerate() {
            let folder = dir.path().join(place);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("2.png"), file(ImageFormat::Png, false, n as u8)).unwrap();
            fs::write(folder.join("1.JPG"), file(ImageFormat::Jpeg, false, 200)).unwrap();
            fs::write(folder.join("Thumbs.db"), b"no image").unwrap();
            fs::write(folder.join("._2.png"), b"no image").unwrap();
        }
        dir
    }

    #[test]
    fn classes_are_folders_and_keep_their_labels_in_every_part() {
        let dir = tree();
        let all = ImageFolder::open(dir.path()).unwrap();
        assert_eq!(all.classes(), ["cat", "dog"]);
        assert_eq!(all.len(), 6);
        let test = all.part("test").unwrap();
        assert_eq!((test.len(), test.label(0), test.label(1)), (2, 1, 1));
        assert_eq!(test.image(1).unwrap()[[0, 0, 0]], 2);
        assert!(matches!(all.part("tes"), Err(DataError::NoImages { .. })));
    }

    #[test]
    fn broken_and_missing_files_are_errors() {
        let dir = tree();
        fs::write(dir.path().join("train/cat/0.webp"), b"RIFF").unwrap();
        fs::write(dir.path().join("train/cat/1.JPG"), &file(ImageFormat::Jpeg, false, 1)[..300])
            .unwrap();
        let all = ImageFolder::open(dir.path()).unwrap().part("train").unwrap();
        let messages: Vec<String> = (0..2).map(|i| all.image(i).unwrap_err().to_string()).collect();
        assert!(messages[0].contains("0.webp"), "{messages:?}");
        assert!(messages[1].contains("1.JPG"), "{messages:?}");
        fs::remove_file(dir.path().join("train/cat/2.png")).unwrap();
        assert!(matches!(all.image(2), Err(DataError::Io { .. })));
        assert!(matches!(all.image(99), Err(DataError::Index { .. })));
    }

    #[test]
    fn folders_without_images_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(ImageFolder::open(dir.path()), Err(DataError::NoImages { .. })));
        assert!(matches!(ImageFolder::open(dir.path().join("none")), Err(DataError::Io { .. })));
        fs::write(dir.path().join("x.png"), file(ImageFormat::Png, true, 0)).unwrap();
        assert!(matches!(ImageFolder::open(dir.path()), Err(DataError::NoClass { .. })));
    }
}
