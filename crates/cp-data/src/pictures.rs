//! Image files without labels.

use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array3;

use crate::decode::decode;
use crate::identity::{EntryId, sha256_of};
use crate::kind::open_file;
use crate::note::endings;
use crate::walk::walk;
use crate::{DataError, Dataset, Note, Source, printable_path};

/// All image files below a folder, at any depth, in the order of their paths. What the folders are called means nothing: there is one
/// class, `image`.
///
/// For what needs no labels: statistics of layers' inputs, distillation, agreement of two models.
#[derive(Debug, Clone)]
pub struct Pictures {
    name: String,
    /// Without links and `..`, so that the same file is the same entry in two data sets.
    root: PathBuf,
    /// As shown, and as read.
    files: Vec<(String, PathBuf)>,
    classes: Vec<String>,
    notes: Vec<Note>,
}

impl Pictures {
    /// The images below `root`. Links are followed; hidden files are left out.
    ///
    /// # Errors
    /// If the folder cannot be listed, or there is no image in it.
    pub fn open(root: &Path) -> Result<Self, DataError> {
        let (found, paths) = walk(root)?;
        if found.images.is_empty() {
            return Err(DataError::NoPictures { path: root.into() });
        }
        let name = format!("pictures:{}", printable_path(root));
        let root = fs::canonicalize(root).map_err(DataError::io(root))?;
        let files = found.images.into_iter().map(|image| (image.path, paths[image.number].clone()));
        let notes = match &found.others[..] {
            [] => Vec::new(),
            _ => vec![Note::LeftOut { files: found.others.len(), endings: endings(&found.others) }],
        };
        Ok(Self { name, root, files: files.collect(), classes: vec!["image".into()], notes })
    }

    /// These image files, in their order.
    ///
    /// # Errors
    /// Where one of them is not there, or is none.
    pub fn of_files(paths: &[PathBuf]) -> Result<Self, DataError> {
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            // Not read yet, but no pipe or device, which may have no end.
            drop(open_file(path)?);
            let real = fs::canonicalize(path).map_err(DataError::io(path))?;
            files.push((printable_path(path), real));
        }
        let (name, root) = ("pictures".to_owned(), PathBuf::new());
        Ok(Self { name, root, files, classes: vec!["image".into()], notes: Vec::new() })
    }

    /// What each is called.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(name, _)| name.as_str())
    }

    fn bytes(&self, index: usize) -> Result<(&Path, Vec<u8>), DataError> {
        let Some((_, path)) = self.files.get(index) else {
            return Err(DataError::Index {
                dataset: self.name.clone(),
                index,
                len: self.files.len(),
            });
        };
        Ok((path, fs::read(path).map_err(DataError::io(path))?))
    }
}

impl Dataset for Pictures {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        assert!(index < self.files.len(), "no picture {index} of {}", self.files.len());
        0
    }

    fn image(&self, index: usize) -> Result<Array3<u8>, DataError> {
        let (path, bytes) = self.bytes(index)?;
        decode(&bytes, path, None)
    }

    fn sources(&self) -> &[Source] {
        &[]
    }

    fn notes(&self) -> Vec<Note> {
        self.notes.clone()
    }

    fn entry(&self, index: usize) -> EntryId {
        let path = &self.files[index].0;
        EntryId { file: format!("{}/{path}", printable_path(&self.root)), record: String::new() }
    }

    fn content(&self, index: usize) -> Result<[u8; 32], DataError> {
        Ok(sha256_of(&self.bytes(index)?.1))
    }
}

#[cfg(test)]
mod tests {
    use image::ImageFormat;

    use super::*;
    use crate::decode::tests::file;

    #[test]
    fn images_at_any_depth_are_found_and_the_rest_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("2.png"), file(ImageFormat::Png, false, 7)).unwrap();
        fs::write(dir.path().join("a/b/1.JPG"), file(ImageFormat::Jpeg, true, 200)).unwrap();
        fs::write(dir.path().join("a/labels.csv"), b"1,2").unwrap();
        let set = Pictures::open(dir.path()).unwrap();
        assert_eq!((set.len(), set.classes().len(), set.label(1)), (2, 1, 0));
        assert!(set.entry(0).file.ends_with("/2.png") && set.entry(1).file.ends_with("/a/b/1.JPG"));
        assert_eq!(set.image(0).unwrap()[[0, 0, 0]], 7);
        assert_ne!(set.content(0).unwrap(), set.content(1).unwrap());
        assert!(set.notes()[0].to_string().contains("csv"), "{:?}", set.notes());
        assert!(matches!(set.image(2), Err(DataError::Index { .. })));
    }

    #[test]
    fn a_folder_without_images_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x.txt"), b"").unwrap();
        let error = Pictures::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no image"), "{error}");
        assert!(matches!(Pictures::open(&dir.path().join("none")), Err(DataError::Io { .. })));
    }
}
