//! Batches, read and augmented on worker threads ahead of use.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded};
use ndarray::{Array4, ArrayD, ArrayView3, Axis};
use rand::seq::SliceRandom;

use crate::seed::{Use, generator};
use crate::transform::shape_of;
use crate::{DataError, Dataset, Transform};

/// The order in which examples come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By index. Random transforms draw as in epoch 0 of seed 0.
    #[default]
    Sequential,
    /// A permutation given by seed and epoch, as are the draws of random transforms.
    Shuffled {
        /// Seed of the run.
        seed: u64,
        /// Pass over the data, from 0.
        epoch: u64,
    },
}

/// How to make batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Examples per batch; 64.
    pub batch_size: usize,
    /// Order of the examples; by index.
    pub order: Order,
    /// What happens to each image; nothing.
    pub transform: Transform,
    /// Worker threads; 0 reads in the calling thread. As many as there are CPUs, at most 8.
    pub workers: usize,
    /// Whether to leave out a last batch of fewer examples; no.
    pub drop_last: bool,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        LoaderConfig {
            batch_size: 64,
            order: Order::Sequential,
            transform: Transform::default(),
            workers: thread::available_parallelism().map_or(1, |n| n.get().min(8)),
            drop_last: false,
        }
    }
}

/// Some examples, as one array.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// `[B, channels, height, width]`, values 0–255; without any pixel where there are features.
    pub pixels: Array4<u8>,
    /// `[B, …]`, where the data set holds features and no pictures.
    pub features: Option<ArrayD<f32>>,
    /// `B` labels.
    pub labels: Vec<i64>,
    /// `B` indices into the data set.
    pub indices: Vec<usize>,
}

/// An iterator over the batches of one pass.
///
/// Worker threads make whole batches, at most two each ahead of use; batches come in order, and their content does
/// not depend on the number of workers. An error comes out in place of the batch that it hit, and ends the pass:
/// no example is left out in silence. Dropping the loader ends its threads.
pub struct Loader {
    dataset: Arc<dyn Dataset>,
    transform: Transform,
    key: (u64, u64),
    /// What is left to hand to the workers, with the batch's number.
    ahead: std::iter::Enumerate<std::vec::IntoIter<Vec<usize>>>,
    /// Number of the batch to yield next.
    next: usize,
    batches: usize,
    failed: bool,
    pool: Option<Pool>,
}

struct Pool {
    jobs: Option<Sender<(usize, Vec<usize>)>>,
    results: Receiver<(usize, Result<Batch, DataError>)>,
    /// Batches that arrived before their turn.
    early: BTreeMap<usize, Result<Batch, DataError>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts a pass over `dataset`.
    ///
    /// # Errors
    /// If the batch size is 0 or a thread cannot be started. Whatever is wrong with an example shows when its batch is due.
    pub fn new(dataset: Arc<dyn Dataset>, config: LoaderConfig) -> Result<Self, DataError> {
        let LoaderConfig { batch_size, order, transform, workers, drop_last } = config;
        if batch_size == 0 {
            return Err(DataError::Option {
                option: "batch size",
                value: "0".into(),
                expected: "at least 1",
            });
        }
        let mut indices: Vec<usize> = (0..dataset.len()).collect();
        let key = match order {
            Order::Sequential => (0, 0),
            Order::Shuffled { seed, epoch } => {
                indices.shuffle(&mut generator(seed, Use::Shuffle, epoch, 0));
                (seed, epoch)
            }
        };
        let mut batches: Vec<Vec<usize>> =
            indices.chunks(batch_size).map(<[usize]>::to_vec).collect();
        if drop_last && batches.last().is_some_and(|last| last.len() < batch_size) {
            batches.pop();
        }
        let count = batches.len();
        let mut loader = Loader {
            dataset,
            transform,
            key,
            ahead: batches.into_iter().enumerate(),
            next: 0,
            batches: count,
            failed: false,
            pool: None,
        };
        if workers > 0 && count > 0 {
            loader.pool = Some(loader.start(workers.min(count))?);
            for _ in 0..2 * workers {
                loader.hand_out();
            }
        }
        Ok(loader)
    }

    fn start(&self, workers: usize) -> Result<Pool, DataError> {
        // Never more than 2·workers jobs are under way, so neither channel ever blocks a sender.
        let (jobs, todo) = bounded::<(usize, Vec<usize>)>(2 * workers);
        let (done, results) = bounded(2 * workers);
        let stop = Arc::new(AtomicBool::new(false));
        let mut pool =
            Pool { jobs: Some(jobs), results, early: BTreeMap::new(), stop, threads: Vec::new() };
        for n in 0..workers {
            let (dataset, transform, key) = (self.dataset.clone(), self.transform, self.key);
            let (todo, done, stop) = (todo.clone(), done.clone(), pool.stop.clone());
            let work = move || {
                for (number, indices) in todo {
                    let Some(batch) =
                        make_batch(&*dataset, &transform, key, indices, &stop).transpose()
                    else {
                        return;
                    };
                    if done.send((number, batch)).is_err() {
                        return;
                    }
                }
            };
            let thread = thread::Builder::new()
                .name(format!("loader-{n}"))
                .spawn(work)
                .map_err(DataError::Thread)?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    fn hand_out(&mut self) {
        if let Some(jobs) = self.pool.as_ref().and_then(|pool| pool.jobs.as_ref())
            && let Some(job) = self.ahead.next()
        {
            // Cannot fail: the workers hold on to the channel for as long as the pool lives.
            let _ = jobs.send(job);
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.next == self.batches {
            return None;
        }
        let batch = match &mut self.pool {
            None => {
                let (_, indices) = self.ahead.next()?;
                make_batch(
                    &*self.dataset,
                    &self.transform,
                    self.key,
                    indices,
                    &AtomicBool::new(false),
                )
                .transpose()?
            }
            Some(pool) => loop {
                if let Some(batch) = pool.early.remove(&self.next) {
                    break batch;
                }
                // All workers gone with batches outstanding: an end here would pass for that of the data.
                let Ok((number, batch)) = pool.results.recv() else {
                    break Err(DataError::WorkersGone { dataset: self.dataset.name().to_owned() });
                };
                pool.early.insert(number, batch);
            },
        };
        self.hand_out();
        self.next += 1;
        if batch.is_err() {
            self.failed = true;
            self.pool = None;
        }
        Some(batch)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = if self.failed { 0 } else { self.batches - self.next };
        (0, Some(left))
    }
}

impl Loader {
    /// Batches of the whole pass.
    pub fn batches(&self) -> usize {
        self.batches
    }
}

impl std::fmt::Debug for Loader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loader({}: batch {} of {})", self.dataset.name(), self.next, self.batches)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic while reading was caught and handed on as an error.
            let _ = thread.join();
        }
    }
}

/// Reads and transforms the examples of one batch; `None` if told to stop.
fn make_batch(
    dataset: &dyn Dataset,
    transform: &Transform,
    (seed, epoch): (u64, u64),
    indices: Vec<usize>,
    stop: &AtomicBool,
) -> Result<Option<Batch>, DataError> {
    let mut pixels: Option<Array4<u8>> = None;
    if indices.first().is_some_and(|&index| dataset.features(index).is_some()) {
        return featured(dataset, indices).map(Some);
    }
    let mut labels = Vec::with_capacity(indices.len());
    for (position, &index) in indices.iter().enumerate() {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // What does not fit is said of the image, by its name.
        let of_example = |source| DataError::Example {
            entry: Box::new(dataset.entry(index)),
            source: Box::new(source),
        };
        let mut place = |image: ArrayView3<'_, u8>| {
            let shape = transform.output_shape(shape_of(&image)).map_err(of_example)?;
            let pixels = pixels.get_or_insert_with(|| {
                Array4::zeros((indices.len(), shape[0], shape[1], shape[2]))
            });
            let expected = [1, 2, 3].map(|axis| pixels.len_of(Axis(axis)));
            if shape != expected {
                return Err(DataError::BatchShape {
                    dataset: dataset.name().to_owned(),
                    index,
                    entry: Box::new(dataset.entry(index)),
                    expected,
                    got: shape,
                });
            }
            let mut rng = generator(seed, Use::Augment, epoch, index as u64);
            transform
                .apply_into(image, &mut rng, pixels.index_axis_mut(Axis(0), position))
                .map_err(of_example)
        };
        // A decoder's panic on a malformed image must not leave the reader waiting for a batch that never comes.
        catch_unwind(AssertUnwindSafe(|| {
            match dataset.view(index) {
                Some(image) => place(image)?,
                None => place(dataset.image(index)?.view())?,
            }
            labels.push(dataset.label(index) as i64);
            Ok(())
        }))
        .unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().cloned();
            let message =
                message.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            let message = message.unwrap_or_else(|| "unknown panic".to_owned());
            Err(DataError::Panic { dataset: dataset.name().to_owned(), index, message })
        })?;
    }
    match pixels {
        Some(pixels) => Ok(Some(Batch { pixels, features: None, labels, indices })),
        None => Err(DataError::Option {
            option: "batch size",
            value: "0".into(),
            expected: "at least 1",
        }),
    }
}

/// A batch of features: as they are, since transforms are for pictures.
fn featured(dataset: &dyn Dataset, indices: Vec<usize>) -> Result<Batch, DataError> {
    let missing = || DataError::NoFeatures { dataset: dataset.name().to_owned() };
    let rows: Option<Vec<_>> = indices.iter().map(|&index| dataset.features(index)).collect();
    let features = ndarray::stack(Axis(0), &rows.ok_or_else(missing)?).map_err(|_| missing())?;
    let labels = indices.iter().map(|&index| dataset.label(index) as i64).collect();
    Ok(Batch { pixels: Array4::zeros([0; 4]), features: Some(features), labels, indices })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use ndarray::Array3;

    use super::*;
    use crate::{Crop, Source};

    /// Example n is a 4×4 image full of n; slow at times, and broken or panicking where told to be.
    struct Numbers {
        classes: Vec<String>,
        len: usize,
        broken: Option<usize>,
        panics: Option<usize>,
        reads: AtomicUsize,
    }

    fn numbers(len: usize) -> Numbers {
        Numbers {
            classes: vec!["all".into()],
            len,
            broken: None,
            panics: None,
            reads: AtomicUsize::new(0),
        }
    }

    impl Dataset for Numbers {
        fn name(&self) -> &str {
            "numbers"
        }
        fn len(&self) -> usize {
            self.len
        }
        fn classes(&self) -> &[String] {
            &self.classes
        }
        fn label(&self, _: usize) -> usize {
            0
        }
        fn image(&self, index: usize) -> Result<Array3<u8>, DataError> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            assert!(self.panics != Some(index), "a decoder's bug");
            if self.broken == Some(index) {
                return Err(DataError::Truncated {
                    path: format!("{index}.jpg").into(),
                    expected: 2,
                    got: 1,
                });
            }
            // Early batches take longer, so that later ones overtake them.
            thread::sleep(Duration::from_micros(if index.is_multiple_of(7) { 500 } else { 0 }));
            Ok(Array3::from_elem((1, 4, 4), (index % 251) as u8))
        }
        fn sources(&self) -> &[Source] {
            &[]
        }
    }

    fn all(dataset: Numbers, config: LoaderConfig) -> Vec<Batch> {
        Loader::new(Arc::new(dataset), config).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn config(batch_size: usize, workers: usize) -> LoaderConfig {
        LoaderConfig { batch_size, workers, ..LoaderConfig::default() }
    }

    #[test]
    fn batches_are_the_same_for_any_number_of_workers() {
        let transform = Transform {
            crop: Crop::Random { height: 4, width: 4, padding: 2 },
            flip: true,
            ..Transform::default()
        };
        let order = Order::Shuffled { seed: 3, epoch: 2 };
        let with =
            |workers| all(numbers(203), LoaderConfig { order, transform, ..config(8, workers) });
        let expected = with(0);
        assert_eq!(expected.len(), 26);
        for workers in [1, 2, 5, 64] {
            assert_eq!(with(workers), expected, "{workers} workers");
        }
    }

    #[test]
    fn a_pass_has_every_example_once() {
        for order in [Order::Sequential, Order::Shuffled { seed: 1, epoch: 0 }] {
            let batches = all(numbers(50), LoaderConfig { order, ..config(8, 3) });
            let mut indices: Vec<usize> =
                batches.iter().flat_map(|batch| batch.indices.clone()).collect();
            for batch in &batches {
                for (&index, image) in batch.indices.iter().zip(batch.pixels.outer_iter()) {
                    assert!(image.iter().all(|&value| usize::from(value) == index));
                }
            }
            assert_eq!(indices.is_sorted(), order == Order::Sequential);
            indices.sort_unstable();
            assert_eq!(indices, (0..50).collect::<Vec<_>>());
            assert_eq!(batches.last().unwrap().labels.len(), 2);
        }
        assert_eq!(all(numbers(50), LoaderConfig { drop_last: true, ..config(8, 3) }).len(), 6);
        assert_eq!(all(numbers(0), config(8, 3)).len(), 0);
    }

    #[test]
    fn epochs_and_seeds_differ_in_order_and_augmentation() {
        let transform = Transform {
            crop: Crop::Random { height: 1, width: 1, padding: 2 },
            ..Transform::default()
        };
        let with = |seed, epoch| {
            let order = Order::Shuffled { seed, epoch };
            let batch =
                all(numbers(200), LoaderConfig { order, transform, ..config(200, 1) }).remove(0);
            let black: Vec<usize> = batch
                .indices
                .iter()
                .zip(&batch.pixels)
                .filter(|&(_, &v)| v == 0)
                .map(|(&index, _)| index)
                .collect();
            let black: std::collections::BTreeSet<usize> = black.into_iter().collect();
            (batch.indices, black)
        };
        let first = with(1, 0);
        assert_eq!(with(1, 0), first);
        for other in [with(1, 1), with(2, 0)] {
            assert_ne!(other.0, first.0);
            assert_ne!(other.1, first.1);
        }
    }

    #[test]
    fn an_error_comes_in_place_of_its_batch_and_ends_the_pass() {
        for workers in [0, 1, 4] {
            let dataset = Numbers { broken: Some(21), ..numbers(80) };
            let mut loader = Loader::new(Arc::new(dataset), config(8, workers)).unwrap();
            assert!(loader.next().unwrap().is_ok() && loader.next().unwrap().is_ok());
            let error = loader.next().unwrap().unwrap_err();
            assert!(error.to_string().starts_with("21.jpg: cut off"), "{error}");
            assert!(loader.next().is_none());
        }
    }

    #[test]
    fn a_panic_is_an_error_that_names_the_example() {
        for workers in [0, 2] {
            let dataset = Numbers { panics: Some(3), ..numbers(80) };
            let error = Loader::new(Arc::new(dataset), config(8, workers))
                .unwrap()
                .next()
                .unwrap()
                .unwrap_err();
            assert!(matches!(error, DataError::Panic { index: 3, .. }), "{error}");
            assert!(error.to_string().ends_with("a decoder's bug"), "{error}");
        }
    }

    #[test]
    fn look_ahead_is_bounded_and_dropping_ends_the_threads() {
        let dataset = Arc::new(numbers(10_000));
        let mut loader = Loader::new(dataset.clone(), config(10, 3)).unwrap();
        loader.next().unwrap().unwrap();
        thread::sleep(Duration::from_millis(50));
        // One batch taken and at most two ahead for each worker.
        assert!(dataset.reads.load(Ordering::Relaxed) <= 10 * (1 + 2 * 3));
        drop(loader);
        assert_eq!(Arc::strong_count(&dataset), 1, "a thread still holds the data set");
    }

    #[test]
    fn images_of_one_batch_have_one_shape() {
        struct Growing(Numbers);
        impl Dataset for Growing {
            fn name(&self) -> &str {
                "growing"
            }
            fn len(&self) -> usize {
                4
            }
            fn classes(&self) -> &[String] {
                self.0.classes()
            }
            fn label(&self, _: usize) -> usize {
                0
            }
            fn image(&self, index: usize) -> Result<Array3<u8>, DataError> {
                Ok(Array3::zeros((1 + 2 * (index % 2), 4 + index, 4)))
            }
            fn sources(&self) -> &[Source] {
                &[]
            }
        }
        let growing = Arc::new(Growing(numbers(0)));
        let error =
            Loader::new(growing.clone(), config(4, 1)).unwrap().next().unwrap().unwrap_err();
        assert!(
            matches!(
                error,
                DataError::BatchShape { index: 1, expected: [1, 4, 4], got: [3, 5, 4], .. }
            ),
            "{error}"
        );
        let crop = Crop::Center { height: 6, width: 4 };
        let transform = Transform { crop, ..Transform::default() };
        let error = Loader::new(growing.clone(), LoaderConfig { transform, ..config(4, 1) })
            .unwrap()
            .next()
            .unwrap()
            .unwrap_err();
        assert!(error.to_string().starts_with("growing: 0: a crop of 6x4"), "{error}");
        let crop = Crop::Center { height: 4, width: 4 };
        let transform = Transform { crop, channels: Some(3), ..Transform::default() };
        let batch = Loader::new(growing, LoaderConfig { transform, ..config(4, 1) })
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        assert_eq!(batch.pixels.shape(), [4, 3, 4, 4]);
    }

    #[test]
    fn a_batch_size_of_zero_is_an_error() {
        assert!(matches!(
            Loader::new(Arc::new(numbers(1)), config(0, 1)),
            Err(DataError::Option { .. })
        ));
    }
}
