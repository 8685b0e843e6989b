//! [`Features`]: what a network makes of a data set, as a data set for what comes behind it.

use ndarray::{Array3, ArrayD, ArrayViewD, Axis};

use crate::dataset::check_labels;
use crate::identity::sha256_of;
use crate::{DataError, Dataset, Source};

/// Features of examples in memory, with the labels and classes of the examples: what a frozen network puts out is computed once, and whatever
/// learns from it reads it from here.
///
/// ```
/// use cp_data::{Dataset, Features};
/// use ndarray::ArrayD;
///
/// let values = ArrayD::from_shape_fn(vec![2, 3], |at| (10 * at[0] + at[1]) as f32);
/// let features = Features::new("two", vec!["a".into(), "b".into()], values, vec![0, 1])?;
/// assert_eq!(features.features(1).unwrap().as_slice(), Some(&[10.0, 11.0, 12.0][..]));
/// assert!(features.image(1).is_err());
/// # Ok::<(), cp_data::DataError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Features {
    name: String,
    classes: Vec<String>,
    values: ArrayD<f32>,
    labels: Vec<usize>,
}

impl Features {
    /// # Shapes
    /// `values`: `[N, …]`; `labels`: `N`, each below `classes.len()`.
    ///
    /// # Errors
    /// If the numbers of examples and labels differ, or a label is out of range.
    pub fn new(
        name: impl Into<String>,
        classes: Vec<String>,
        values: ArrayD<f32>,
        labels: Vec<usize>,
    ) -> Result<Self, DataError> {
        let name = name.into();
        let examples = values.shape().first().copied().unwrap_or_default();
        check_labels(&name, examples, &labels, classes.len())?;
        Ok(Self { name, classes, values, labels })
    }
}

impl Dataset for Features {
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

    fn image(&self, _index: usize) -> Result<Array3<u8>, DataError> {
        Err(DataError::NoPixels { dataset: self.name.clone() })
    }

    fn features(&self, index: usize) -> Option<ArrayViewD<'_, f32>> {
        (index < self.len()).then(|| self.values.index_axis(Axis(0), index))
    }

    fn sources(&self) -> &[Source] {
        &[]
    }

    fn content(&self, index: usize) -> Result<[u8; 32], DataError> {
        let Some(values) = self.features(index) else {
            return Err(DataError::Index { dataset: self.name.clone(), index, len: self.len() });
        };
        let shape = values.shape().iter().flat_map(|&length| (length as u64).to_le_bytes());
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        Ok(sha256_of(&shape.chain(bytes).collect::<Vec<u8>>()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Loader, LoaderConfig, Order, Subset};

    fn numbers(count: usize) -> Arc<dyn Dataset> {
        let values = ArrayD::from_shape_fn(vec![count, 2], |at| (10 * at[0] + at[1]) as f32);
        let labels = (0..count).map(|index| index % 2).collect();
        let classes = vec!["even".into(), "odd".into()];
        Arc::new(Features::new("numbers", classes, values, labels).unwrap())
    }

    #[test]
    fn batches_hold_the_features_of_their_indices() {
        let all = numbers(7);
        let part = Subset::new("part", all.clone(), vec![6, 1, 3, 0]).unwrap();
        for (set, workers) in [(all, 0), (Arc::new(part) as Arc<dyn Dataset>, 2)] {
            let config = LoaderConfig {
                batch_size: 3,
                order: Order::Shuffled { seed: 5, epoch: 1 },
                workers,
                ..LoaderConfig::default()
            };
            for batch in Loader::new(set.clone(), config).unwrap() {
                let batch = batch.unwrap();
                let values = batch.features.unwrap();
                assert_eq!(values.shape(), [batch.indices.len(), 2]);
                for (row, &index) in values.outer_iter().zip(&batch.indices) {
                    assert_eq!(Some(row), set.features(index));
                }
            }
        }
    }

    #[test]
    fn what_differs_has_another_content() {
        let set = numbers(2);
        assert_ne!(set.content(0).unwrap(), set.content(1).unwrap());
        assert_eq!(set.content(1).unwrap(), numbers(3).content(1).unwrap());
    }

    #[test]
    fn lengths_and_labels_are_checked() {
        let make = |labels| Features::new("x", vec!["a".into()], ArrayD::zeros(vec![2, 1]), labels);
        assert!(matches!(make(vec![0]), Err(DataError::Lengths { images: 2, labels: 1, .. })));
        assert!(matches!(make(vec![0, 1]), Err(DataError::Label { record: 1, .. })));
    }
}
