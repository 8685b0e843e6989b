//! Folders of image files, one subfolder for each class.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ndarray::Array3;

use crate::decode::decode;
use crate::identity::{EntryId, sha256_of};
use crate::layout::{Listing, Pick};
use crate::walk::walk;
use crate::{DataError, Dataset, FileKind, Note, Source, printable_path};

/// Images in folders on disk, as `SPLIT/CLASS/…/IMAGE` or `CLASS/…/IMAGE`: the class of an image is the folder below that
/// of the split, however deep the image lies in it.
///
/// Folders of splits go by their usual names in any case (`train`, `Training`, `test_set`, `val`), and folders around the
/// data set are seen as such ([`notes`](Dataset::notes) say what was taken for what). There is one list of classes, for
/// all splits: the folders of the training data, sorted, or the lines of a file `classes.txt` beside the splits.
///
/// Files are decoded when asked for, so a [`Loader`](crate::Loader)'s threads do the work. They are listed once, in the
/// order of their names; files whose names do not end like an image's are counted in a note, and hidden ones left out.
/// There are no checksums of such folders ([`sources`](Dataset::sources) is empty, but for a list of labels that a published data set has
/// beside its folder).
#[derive(Debug, Clone)]
pub struct ImageFolder {
    name: String,
    /// Without links and `..`, so that the same file is the same entry in two data sets.
    root: PathBuf,
    files: Arc<[PathBuf]>,
    listing: Listing,
    /// The files that tell the labels, where the folders do not.
    sources: Arc<[Source]>,
}

impl ImageFolder {
    /// All images below `root`, at any depth. Links are followed.
    ///
    /// # Errors
    /// If the folder cannot be listed, there is no image, one lies in no class folder, or the folders can be read in
    /// more than one way: a class without a partner in the training data, an empty one, two folders for one split.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DataError> {
        ImageFolder::open_for(root.into(), None)
    }

    /// As [`open`](Self::open), where a folder called `asked` is a split.
    pub(crate) fn open_for(root: PathBuf, asked: Option<&str>) -> Result<Self, DataError> {
        let path = printable_path(&root);
        if root.is_file() {
            let kind = FileKind::of_file(&root)?;
            let way_out = match kind {
                FileKind::Tar | FileKind::Gzip | FileKind::Zstd => {
                    format!("name an archive as tar:{path}")
                }
                kind => kind
                    .way_out(&root)
                    .unwrap_or_else(|| "name the folder that holds it".to_owned()),
            };
            let expected = "a folder of images";
            return Err(DataError::WrongKind {
                path: root,
                packing: None,
                kind,
                expected,
                way_out,
            });
        }
        let (found, files) = walk(&root)?;
        let listing = Listing::of(&root, &found, asked)?;
        let root = fs::canonicalize(&root).map_err(DataError::io(&root))?;
        Ok(ImageFolder {
            name: format!("folder:{path}"),
            root,
            files: files.into(),
            listing,
            sources: Arc::new([]),
        })
    }

    /// The files of a walk through `root`, with the labels that `listing` has for them and the files that these come from.
    pub(crate) fn labelled(
        root: &Path,
        files: Vec<PathBuf>,
        listing: Listing,
        sources: Vec<Source>,
    ) -> Result<Self, DataError> {
        Ok(ImageFolder {
            name: format!("folder:{}", printable_path(root)),
            root: fs::canonicalize(root).map_err(DataError::io(root))?,
            files: files.into(),
            listing,
            sources: sources.into(),
        })
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
        ImageFolder { listing, ..self.clone() }
    }

    /// Gives the data set another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    fn file(&self, index: usize) -> Result<(&Path, Vec<u8>), DataError> {
        let path = &self.files[self.listing.get(index, &self.name)?.number];
        Ok((path, fs::read(path).map_err(DataError::io(path))?))
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
        let (path, bytes) = self.file(index)?;
        decode(&bytes, path, None)
    }

    fn sources(&self) -> &[Source] {
        &self.sources
    }

    fn notes(&self) -> Vec<Note> {
        self.listing.notes.clone()
    }

    fn entry(&self, index: usize) -> EntryId {
        // Where it lies, whatever links lead there: what two of them lead to is one image.
        let entry = &self.listing.entries[index];
        let file = match fs::canonicalize(&self.files[entry.number]) {
            Ok(real) => printable_path(&real),
            Err(_) => format!("{}/{}", printable_path(&self.root), entry.path),
        };
        EntryId { file, record: String::new() }
    }

    fn content(&self, index: usize) -> Result<[u8; 32], DataError> {
        Ok(sha256_of(&self.file(index)?.1))
    }
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
        assert!(matches!(all.part("tes"), Err(DataError::NoSplit { .. })));
        let notes: Vec<String> = test.notes().iter().map(ToString::to_string).collect();
        assert!(notes.contains(&"2 classes: cat, dog".to_owned()), "{notes:?}");
        assert!(notes.contains(&"test/ has no image of the class cat".to_owned()), "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("3 files that are no images")), "{notes:?}");
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
        let error = ImageFolder::open(dir.path().join("x.png")).unwrap_err().to_string();
        assert!(error.contains("is a PNG image; expected a folder of images"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn what_links_lead_to_is_the_same_entry() {
        use std::os::unix::fs::symlink;
        let dir = tree();
        symlink("train", dir.path().join("validation")).unwrap();
        symlink("../../train/dog/2.png", dir.path().join("test/dog/3.png")).unwrap();
        let all = ImageFolder::open(dir.path()).unwrap();
        let part = |name: &str| all.part(name).unwrap();
        let shared = |one: &str, other: &str| crate::shared_entries(&part(one), &part(other)).len();
        assert_eq!((shared("train", "validation"), shared("train", "test")), (4, 1));
        fs::remove_file(dir.path().join("test/dog/3.png")).unwrap();
        let again = ImageFolder::open(dir.path()).unwrap();
        let (train, test) = (again.part("train").unwrap(), again.part("test").unwrap());
        assert_eq!(crate::shared_entries(&train, &test), []);
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_no_utf8_is_read() {
        use std::os::unix::ffi::OsStrExt;
        let dir = tree();
        let name = std::ffi::OsStr::from_bytes(b"train/cat/caf\xe9.png");
        fs::write(dir.path().join(name), file(ImageFormat::Png, false, 99)).unwrap();
        let train = ImageFolder::open(dir.path()).unwrap().part("train").unwrap();
        assert_eq!((train.len(), train.image(2).unwrap()[[0, 0, 0]]), (5, 99));
        assert!(train.entry(2).file.ends_with("train/cat/caf\\xE9.png"), "{}", train.entry(2));
    }
}
