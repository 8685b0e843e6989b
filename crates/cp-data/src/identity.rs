//! Which examples a split consists of: for telling whether two splits share any.
//!
//! An example is the same in two ways: it is the same entry (one record of one file), or it has the same content. The
//! first costs nothing; the second reads every image once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::checksum::hex;
use crate::{DataError, Dataset};

/// Where an example lies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The file: an image, an archive or a file of records. For data sets that are in no file, their name.
    pub file: String,
    /// The path in the archive or the number of the record; nothing where the file is the image.
    pub record: String,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.record.is_empty() { Ok(()) } else { write!(f, ": {}", self.record) }
    }
}

/// The entries of two data sets that are the same, sorted; reads no image.
///
/// ```
/// use std::sync::Arc;
/// use cp_data::{Characters, Dataset, Subset, shared_entries};
///
/// let all: Arc<dyn Dataset> = Arc::new(Characters::generate(36, 1));
/// let train = Subset::new("train", all.clone(), (0..30).collect())?;
/// let test = Subset::new("test", all, (28..36).collect())?;
/// let shared = shared_entries(&train, &test);
/// assert_eq!(shared.iter().map(|entry| entry.record.as_str()).collect::<Vec<_>>(), ["28", "29"]);
/// # Ok::<(), cp_data::DataError>(())
/// ```
pub fn shared_entries(one: &dyn Dataset, other: &dyn Dataset) -> Vec<EntryId> {
    let entries =
        |set: &dyn Dataset| (0..set.len()).map(|index| set.entry(index)).collect::<BTreeSet<_>>();
    entries(one).intersection(&entries(other)).cloned().collect()
}

/// One example of an [`Identity`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identified {
    /// Where it lies.
    pub entry: EntryId,
    /// SHA-256 of its bytes as stored, or of its pixels where it is in no file of its own.
    pub content: [u8; 32],
    /// Name of its class.
    pub class: String,
}

/// What a split consists of, example by example.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    name: String,
    /// Sorted by entry.
    examples: Vec<Identified>,
}

impl Identity {
    /// Reads every example once, on all threads of rayon's pool.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn of(dataset: &dyn Dataset) -> Result<Self, DataError> {
        let mut examples = (0..dataset.len())
            .into_par_iter()
            .map(|index| {
                let class = dataset.classes()[dataset.label(index)].clone();
                Ok(Identified {
                    entry: dataset.entry(index),
                    content: dataset.content(index)?,
                    class,
                })
            })
            .collect::<Result<Vec<_>, DataError>>()?;
        examples.par_sort_unstable();
        Ok(Identity { name: dataset.name().to_owned(), examples })
    }

    /// Name of the data set.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The examples, sorted by where they lie.
    pub fn examples(&self) -> &[Identified] {
        &self.examples
    }

    /// One SHA-256 for the split, in hexadecimal: of the sorted pairs of content and class. It does not depend on the order
    /// of the examples, nor on where the files lie and how they are called.
    pub fn digest(&self) -> String {
        let mut pairs: Vec<_> =
            self.examples.iter().map(|example| (&example.content, &example.class)).collect();
        pairs.sort_unstable();
        let mut sum = Sha256::new();
        for (content, class) in pairs {
            sum.update(content);
            sum.update((class.len() as u64).to_le_bytes());
            sum.update(class.as_bytes());
        }
        hex(&sum.finalize())
    }

    /// Examples of this split that have the content of another one of it, before them in the order of the entries.
    pub fn duplicates(&self) -> usize {
        let contents: BTreeSet<_> = self.examples.iter().map(|example| &example.content).collect();
        self.examples.len() - contents.len()
    }

    /// What this split shares with another.
    pub fn overlap(&self, other: &Identity) -> Overlap {
        let mut by_content = BTreeMap::<_, Vec<&Identified>>::new();
        for example in &other.examples {
            by_content.entry(example.content).or_default().push(example);
        }
        let entries: BTreeSet<&EntryId> =
            other.examples.iter().map(|example| &example.entry).collect();
        let mut overlap = Overlap::default();
        for example in &self.examples {
            if entries.contains(&example.entry) {
                overlap.shared.push(example.entry.clone());
            } else if let Some(twins) = by_content.get(&example.content) {
                overlap.equal.push((example.entry.clone(), twins[0].entry.clone()));
                overlap.of_other_class +=
                    usize::from(twins.iter().all(|twin| twin.class != example.class));
            }
        }
        overlap
    }
}

/// What two splits share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overlap {
    /// Entries of both.
    pub shared: Vec<EntryId>,
    /// Other examples of the first with the content of one of the second: both entries.
    pub equal: Vec<(EntryId, EntryId)>,
    /// How many of `equal` have another class there.
    pub of_other_class: usize,
}

impl Overlap {
    /// Whether nothing is shared.
    pub fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.equal.is_empty()
    }
}

pub(crate) fn sha256_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use ndarray::Array4;

    use super::*;
    use crate::{ImageFolder, ImageTar, Images, Subset};

    fn write(root: &Path, file: &str, shade: u8) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, crate::decode::tests::file(image::ImageFormat::Png, false, shade)).unwrap();
    }

    fn folder(root: &Path, split: &str) -> ImageFolder {
        ImageFolder::open(root).unwrap().part(split).unwrap()
    }

    #[test]
    fn entries_and_contents_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..4 {
            write(dir.path(), &format!("train/cat/{n}.png"), n);
            write(dir.path(), &format!("train/dog/{n}.png"), 50 + n);
            write(dir.path(), &format!("test/cat/{n}.png"), 100 + n);
        }
        write(dir.path(), "test/cat/again.png", 2); // a training image, renamed
        write(dir.path(), "test/cat/dog.png", 51); // one of another class
        let [train, test] = ["train", "test"].map(|split| folder(dir.path(), split));
        assert_eq!(shared_entries(&train, &test), []);
        let [train, test] = [train, test].map(|set| Identity::of(&set).unwrap());
        let overlap = test.overlap(&train);
        assert_eq!((overlap.shared.len(), overlap.equal.len(), overlap.of_other_class), (0, 2, 1));
        assert!(overlap.equal[0].0.file.ends_with("test/cat/again.png"));
        assert!(overlap.equal[0].1.file.ends_with("train/cat/2.png"));
        assert_eq!((train.duplicates(), test.duplicates()), (0, 0));
        let all = Identity::of(&ImageFolder::open(dir.path()).unwrap()).unwrap();
        assert_eq!((all.duplicates(), all.overlap(&train).shared.len()), (2, 8));
    }

    #[test]
    fn the_same_folder_by_two_names_has_the_same_entries() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "cat/1.png", 1);
        write(dir.path(), "dog/1.png", 2);
        let again = dir.path().join("cat/..");
        let sets = [dir.path().to_owned(), again].map(|path| ImageFolder::open(path).unwrap());
        assert_eq!(shared_entries(&sets[0], &sets[1]).len(), 2);
    }

    #[test]
    fn a_digest_is_of_the_content_wherever_it_lies_and_in_any_order() {
        let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (n, place) in ["cat/1.png", "cat/2.png", "dog/1.png"].into_iter().enumerate() {
            write(dir.path(), place, n as u8);
        }
        write(copy.path(), "around/cat/x.png", 1);
        write(copy.path(), "around/cat/y.png", 0);
        write(copy.path(), "around/dog/z.png", 2);
        let digest = |set: &dyn Dataset| Identity::of(set).unwrap().digest();
        let first: Arc<dyn Dataset> = Arc::new(ImageFolder::open(dir.path()).unwrap());
        assert_eq!(digest(&*first), digest(&ImageFolder::open(copy.path()).unwrap()));
        let turned = Subset::new("turned", first.clone(), vec![2, 0, 1]).unwrap();
        assert_eq!(digest(&*first), digest(&turned));

        let mut archive = tar::Builder::new(Vec::new());
        archive.append_dir_all(".", dir.path()).unwrap();
        fs::write(copy.path().join("x.tar"), archive.into_inner().unwrap()).unwrap();
        let archive = ImageTar::open(copy.path().join("x.tar")).unwrap();
        assert_eq!(digest(&*first), digest(&archive));
        assert_eq!(
            Identity::of(&archive).unwrap().overlap(&Identity::of(&*first).unwrap()).equal.len(),
            3
        );

        // One image more, another, another class: another digest.
        let fewer = Subset::new("fewer", first.clone(), vec![0, 1]).unwrap();
        let twice = Subset::new("twice", first.clone(), vec![0, 1, 2, 2]).unwrap();
        fs::rename(copy.path().join("around/cat"), copy.path().join("around/cow")).unwrap();
        let cow = ImageFolder::open(copy.path()).unwrap();
        for other in [digest(&fewer), digest(&twice), digest(&cow)] {
            assert_ne!(digest(&*first), other);
        }
    }

    #[test]
    fn records_of_files_in_memory() {
        let pixels = Array4::from_shape_fn((4, 1, 2, 2), |(n, ..)| [1, 2, 1, 3][n]);
        let images = Images::new("numbers", vec!["all".into()], pixels, vec![0; 4]).unwrap();
        let identity = Identity::of(&images).unwrap();
        assert_eq!(identity.duplicates(), 1);
        assert_eq!(images.entry(3).to_string(), "numbers: 3");
        // The same bytes in another shape are another image.
        let flat = Array4::from_shape_fn((1, 1, 1, 4), |_| 1);
        let flat = Images::new("flat", vec!["all".into()], flat, vec![0]).unwrap();
        assert!(identity.overlap(&Identity::of(&flat).unwrap()).is_empty());
    }
}
