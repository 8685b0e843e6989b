//! What a data set is: examples by index, with labels, class names and the checksums of the files they came from.

use std::path::PathBuf;
use std::sync::Arc;

use ndarray::{Array3, Array4, ArrayView3, ArrayView4, ArrayViewD, Axis};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use crate::identity::{EntryId, sha256_of};
use crate::seed::{Use, generator};
use crate::{DataError, Note};

/// A file that a data set was read from, for the record of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file as read, relative to the data folder where it lies below one.
    pub file: String,
    /// SHA-256 of the file as it lies there (packed, if it is), in hexadecimal.
    pub sha256: String,
}

/// Labelled images, by index.
pub trait Dataset: Send + Sync {
    /// Data set and split, such as `cifar10/test-1000`.
    fn name(&self) -> &str;

    /// Number of examples.
    fn len(&self) -> usize;

    /// Whether there is no example at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the classes; a label is an index into them.
    fn classes(&self) -> &[String];

    /// The label of an example, below `classes().len()`.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    fn label(&self, index: usize) -> usize;

    /// Reads (and decodes) an image: `[channels, height, width]`, 1 channel for grey and 3 for RGB, values 0–255.
    ///
    /// # Errors
    /// If the file cannot be read or decoded, or `index` is not below [`len`](Self::len).
    fn image(&self, index: usize) -> Result<Array3<u8>, DataError>;

    /// The same image without a copy, where the pixels are in memory.
    fn view(&self, index: usize) -> Option<ArrayView3<'_, u8>> {
        let _ = index;
        None
    }

    /// The example as features that a network computed, in the place of pixels: the same shape for all of them. `None` for pictures.
    fn features(&self, index: usize) -> Option<ArrayViewD<'_, f32>> {
        let _ = index;
        None
    }

    /// The files that this was read from; empty where there are none or too many to check.
    fn sources(&self) -> &[Source];

    /// What the user should be told: the classes and what was taken for what. Nothing for data sets that are known.
    fn notes(&self) -> Vec<Note> {
        Vec::new()
    }

    /// Where an example lies: the same for the same record of the same file, whatever data set shows it. By default the
    /// data set's name and the index.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    fn entry(&self, index: usize) -> EntryId {
        EntryId { file: self.name().to_owned(), record: index.to_string() }
    }

    /// SHA-256 of an image as stored; of its shape and pixels where it is in no file of its own (the default).
    ///
    /// # Errors
    /// As [`image`](Self::image).
    fn content(&self, index: usize) -> Result<[u8; 32], DataError> {
        let image = self.image(index)?;
        let shape = image.shape().iter().flat_map(|&length| (length as u64).to_le_bytes());
        Ok(sha256_of(&shape.chain(image.iter().copied()).collect::<Vec<u8>>()))
    }
}

/// Examples per class, in the order of the classes.
pub fn class_counts(dataset: &dyn Dataset) -> Vec<usize> {
    let mut counts = vec![0; dataset.classes().len()];
    for index in 0..dataset.len() {
        counts[dataset.label(index)] += 1;
    }
    counts
}

/// A data set in memory.
#[derive(Debug, Clone)]
pub struct Images {
    name: String,
    classes: Vec<String>,
    pixels: Array4<u8>,
    labels: Vec<usize>,
    sources: Vec<Source>,
    /// Files with the numbers of their records, in order, where the examples are records of files.
    files: Vec<(String, usize)>,
}

impl Images {
    /// A data set of given pixels.
    ///
    /// # Shapes
    /// `pixels`: `[N, channels, height, width]`; `labels`: `N`, each below `classes.len()`.
    ///
    /// # Errors
    /// If the numbers of images and labels differ, or a label is out of range.
    pub fn new(
        name: impl Into<String>,
        classes: Vec<String>,
        pixels: Array4<u8>,
        labels: Vec<usize>,
    ) -> Result<Self, DataError> {
        let name = name.into();
        check_labels(&name, pixels.len_of(Axis(0)), &labels, classes.len())?;
        // Rows of one image lie together from here on, whatever the caller's order of axes was.
        let pixels = if pixels.is_standard_layout() {
            pixels
        } else {
            pixels.as_standard_layout().into_owned()
        };
        Ok(Images { name, classes, pixels, labels, sources: Vec::new(), files: Vec::new() })
    }

    /// For parts that fit by construction: `pixels` in standard layout, as many labels, each in range.
    pub(crate) fn of_parts(
        name: String,
        classes: Vec<String>,
        pixels: Array4<u8>,
        labels: Vec<usize>,
        sources: Vec<Source>,
    ) -> Self {
        debug_assert!(pixels.is_standard_layout() && pixels.len_of(Axis(0)) == labels.len());
        Images { name, classes, pixels, labels, sources, files: Vec::new() }
    }

    /// Says which files the examples are the records of: their names, with the numbers of records, in order.
    pub(crate) fn of_files(mut self, files: Vec<(String, usize)>) -> Self {
        self.files = files;
        self
    }

    /// Records the files that the pixels came from.
    #[must_use]
    pub fn with_sources(mut self, sources: Vec<Source>) -> Self {
        self.sources = sources;
        self
    }

    /// All pixels, `[N, channels, height, width]`.
    pub fn pixels(&self) -> ArrayView4<'_, u8> {
        self.pixels.view()
    }

    /// All labels.
    pub fn labels(&self) -> &[usize] {
        &self.labels
    }
}

/// That there is a label for each example, and a class for each label.
pub(crate) fn check_labels(
    name: &str,
    examples: usize,
    labels: &[usize],
    classes: usize,
) -> Result<(), DataError> {
    if examples != labels.len() {
        let (name, labels) = (name.to_owned(), labels.len());
        return Err(DataError::Lengths { name, images: examples, labels });
    }
    match labels.iter().enumerate().find(|&(_, &label)| label >= classes) {
        Some((record, &label)) => {
            Err(DataError::Label { path: PathBuf::from(name), record, label, classes })
        }
        None => Ok(()),
    }
}

impl Dataset for Images {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn label(&self, index: usize) -> usize {
        self.labels[index]
    }

    fn image(&self, index: usize) -> Result<Array3<u8>, DataError> {
        match self.view(index) {
            Some(image) => Ok(image.to_owned()),
            None => Err(DataError::Index { dataset: self.name.clone(), index, len: self.len() }),
        }
    }

    fn view(&self, index: usize) -> Option<ArrayView3<'_, u8>> {
        (index < self.len()).then(|| self.pixels.index_axis(Axis(0), index))
    }

    fn sources(&self) -> &[Source] {
        &self.sources
    }

    fn entry(&self, index: usize) -> EntryId {
        let mut record = index;
        for (file, records) in &self.files {
            if record < *records {
                return EntryId { file: file.clone(), record: record.to_string() };
            }
            record -= records;
        }
        EntryId { file: self.name.clone(), record: index.to_string() }
    }
}

/// Some examples of another data set, in an order of their own.
#[derive(Clone)]
pub struct Subset {
    name: String,
    dataset: Arc<dyn Dataset>,
    indices: Vec<usize>,
    notes: Vec<Note>,
}

impl Subset {
    /// The examples of `dataset` with the given indices, in that order.
    ///
    /// # Errors
    /// If an index is not below `dataset.len()`.
    pub fn new(
        name: impl Into<String>,
        dataset: Arc<dyn Dataset>,
        indices: Vec<usize>,
    ) -> Result<Self, DataError> {
        let len = dataset.len();
        if let Some(&index) = indices.iter().find(|&&index| index >= len) {
            return Err(DataError::Index { dataset: dataset.name().to_owned(), index, len });
        }
        Ok(Subset { name: name.into(), dataset, indices, notes: Vec::new() })
    }

    /// Gives the data set another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Adds something to tell to what the whole data set has to tell.
    #[must_use]
    pub fn noted(mut self, note: Note) -> Self {
        self.notes.push(note);
        self
    }

    /// The indices into the whole data set.
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }
}

impl std::fmt::Debug for Subset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Subset({}: {} of {} in {})",
            self.name,
            self.indices.len(),
            self.dataset.len(),
            self.dataset.name()
        )
    }
}

impl Dataset for Subset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn classes(&self) -> &[String] {
        self.dataset.classes()
    }

    fn label(&self, index: usize) -> usize {
        self.dataset.label(self.indices[index])
    }

    fn image(&self, index: usize) -> Result<Array3<u8>, DataError> {
        match self.indices.get(index) {
            Some(&inner) => self.dataset.image(inner),
            None => Err(DataError::Index { dataset: self.name.clone(), index, len: self.len() }),
        }
    }

    fn view(&self, index: usize) -> Option<ArrayView3<'_, u8>> {
        self.indices.get(index).and_then(|&inner| self.dataset.view(inner))
    }

    fn features(&self, index: usize) -> Option<ArrayViewD<'_, f32>> {
        self.indices.get(index).and_then(|&inner| self.dataset.features(inner))
    }

    fn sources(&self) -> &[Source] {
        self.dataset.sources()
    }

    fn notes(&self) -> Vec<Note> {
        [self.dataset.notes(), self.notes.clone()].concat()
    }

    fn entry(&self, index: usize) -> EntryId {
        self.dataset.entry(self.indices[index])
    }

    fn content(&self, index: usize) -> Result<[u8; 32], DataError> {
        match self.indices.get(index) {
            Some(&inner) => self.dataset.content(inner),
            None => Err(DataError::Index { dataset: self.name.clone(), index, len: self.len() }),
        }
    }
}

/// Splits a data set into training and validation examples, class by class (stratified).
///
/// Of a class with n examples, round(`fraction`·n) go to the validation set, chosen by `seed`; both parts keep the
/// order of the whole. The names are those of the whole with `-train` and `-validation` appended.
///
/// # Errors
/// If `fraction` is not between 0 and 1.
pub fn split_validation(
    dataset: Arc<dyn Dataset>,
    fraction: f64,
    seed: u64,
) -> Result<(Subset, Subset), DataError> {
    if !(0.0..=1.0).contains(&fraction) {
        return Err(DataError::Option {
            option: "validation fraction",
            value: fraction.to_string(),
            expected: "a number from 0 to 1",
        });
    }
    let mut by_class = vec![Vec::new(); dataset.classes().len()];
    for index in 0..dataset.len() {
        by_class[dataset.label(index)].push(index);
    }
    let (mut train, mut validation) = (Vec::new(), Vec::new());
    for (class, mut members) in by_class.into_iter().enumerate() {
        members.shuffle(&mut generator(seed, Use::Split, 0, class as u64));
        let held_out = (fraction * members.len() as f64).round() as usize;
        validation.extend_from_slice(&members[..held_out]);
        train.extend_from_slice(&members[held_out..]);
    }
    train.sort_unstable();
    validation.sort_unstable();
    let name = dataset.name().to_owned();
    let part = |split, indices| Subset {
        name: format!("{name}-{split}"),
        dataset: dataset.clone(),
        indices,
        notes: Vec::new(),
    };
    Ok((part("train", train), part("validation", validation)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(labels: Vec<usize>) -> Images {
        let pixels = Array4::from_shape_fn((labels.len(), 1, 2, 2), |(n, _, _, _)| n as u8);
        Images::new("numbers", vec!["even".into(), "odd".into()], pixels, labels).unwrap()
    }

    #[test]
    fn lengths_and_labels_are_checked() {
        let classes = vec!["a".to_owned()];
        let error =
            Images::new("x", classes.clone(), Array4::zeros((2, 1, 1, 1)), vec![0]).unwrap_err();
        assert!(matches!(error, DataError::Lengths { images: 2, labels: 1, .. }), "{error}");
        let error = Images::new("x", classes, Array4::zeros((2, 1, 1, 1)), vec![0, 1]).unwrap_err();
        assert!(
            matches!(error, DataError::Label { record: 1, label: 1, classes: 1, .. }),
            "{error}"
        );
    }

    #[test]
    fn an_index_out_of_range_is_an_error() {
        assert!(matches!(
            numbers(vec![0, 1]).image(2),
            Err(DataError::Index { index: 2, len: 2, .. })
        ));
        let all: Arc<dyn Dataset> = Arc::new(numbers(vec![0, 1]));
        assert!(matches!(
            Subset::new("s", all.clone(), vec![0, 2]),
            Err(DataError::Index { index: 2, .. })
        ));
        assert!(Subset::new("s", all, vec![1]).unwrap().image(1).is_err());
    }

    #[test]
    fn the_split_is_stratified_disjoint_and_complete() {
        let labels: Vec<usize> = (0..100).map(|i| usize::from(i % 5 == 0)).collect(); // 80 of class 0, 20 of class 1
        let all: Arc<dyn Dataset> = Arc::new(numbers(labels));
        let (train, validation) = split_validation(all.clone(), 0.1, 3).unwrap();
        assert_eq!(class_counts(&train), [72, 18]);
        assert_eq!(class_counts(&validation), [8, 2]);
        let mut together = [train.indices(), validation.indices()].concat();
        together.sort_unstable();
        assert_eq!(together, (0..100).collect::<Vec<_>>());

        assert_eq!(
            split_validation(all.clone(), 0.1, 3).unwrap().1.indices(),
            validation.indices()
        );
        assert_ne!(
            split_validation(all.clone(), 0.1, 4).unwrap().1.indices(),
            validation.indices()
        );
        assert!(split_validation(all, 1.5, 3).is_err());
    }

    #[test]
    fn a_subset_reads_through() {
        let all: Arc<dyn Dataset> = Arc::new(numbers(vec![0, 1, 0]));
        let subset = Subset::new("s", all, vec![2, 1]).unwrap();
        assert_eq!((subset.label(0), subset.label(1)), (0, 1));
        assert_eq!(subset.image(0).unwrap()[[0, 0, 0]], 2);
        assert_eq!(subset.view(1).unwrap()[[0, 0, 0]], 1);
    }
}
