//! [`Examples`]: what an ONNX model is fed: arrays by the names of its inputs, or pictures.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use cp_data::{Dataset, Loader, LoaderConfig, Order, Transform};
use cp_net::InputSpec;
use cp_ort::{Dim, ElementType, Tensor, ValueInfo};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};

use crate::batch::{fitting_transform, images_to_array};
use crate::engine::Feed;
use crate::error::TrainError;
use crate::key::{data_identity, hex};

/// Where the channels of a picture are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PictureLayout {
    /// `[B, C, H, W]`
    #[default]
    Nchw,
    /// `[B, H, W, C]`
    Nhwc,
}

/// Unlabelled examples as runs of a model: what goes in at once.
///
/// A model with a free batch takes several examples a run, one with a fixed batch as many as that.
#[derive(Clone)]
pub struct Examples(Source);

#[derive(Clone)]
enum Source {
    Arrays(Arrays),
    Pictures(Pictures),
}

/// Sets of arrays, cut into runs.
#[derive(Clone)]
struct Arrays {
    sets: Arc<Vec<Feed>>,
    digest: String,
    runs: Vec<Rows>,
}

/// Rows of the arrays of a set, by the names of its inputs; the arrays that are not named are taken whole.
#[derive(Clone, Debug)]
struct Rows {
    set: usize,
    rows: BTreeMap<String, Range<usize>>,
}

/// Pictures, by their indices in the runs.
#[derive(Clone)]
struct Pictures {
    set: Arc<dyn Dataset>,
    input: String,
    element: ElementType,
    spec: InputSpec,
    layout: PictureLayout,
    runs: Vec<Vec<usize>>,
}

impl Examples {
    /// Sets of arrays, each with what it is called in messages, for a model with these inputs, at most `batch` examples a run.
    ///
    /// Along the first axis of an array are examples. An input without axes, such as a sampling rate, is the same for all examples of its
    /// set. A set with a single array serves a model with a single input, whatever its name.
    ///
    /// # Errors
    /// [`TrainError::Inputs`] for arrays that are missing, of another type or shape, not finite, or of differing numbers of examples.
    pub fn arrays(
        sets: Vec<(String, Feed)>,
        inputs: &[ValueInfo],
        batch: usize,
    ) -> Result<Self, TrainError> {
        let (mut fitted, mut runs) = (Vec::new(), Vec::new());
        for (name, arrays) in sets {
            let wrong = |what: String| TrainError::Inputs { from: name.clone(), what };
            let set = fit(&arrays, inputs).map_err(wrong)?;
            let found = split(&set, inputs, batch).map_err(wrong)?;
            runs.extend(found.into_iter().map(|rows| Rows { set: fitted.len(), rows }));
            fitted.push(set);
        }
        let digest = digest(&fitted);
        Ok(Self(Source::Arrays(Arrays { sets: Arc::new(fitted), digest, runs })))
    }

    /// Pictures for a model with one input that takes them, prepared as `spec` says, whose shape is that of the pictures as
    /// `[channels, height, width]`; `batch` a run where the model does not fix it.
    ///
    /// # Errors
    /// [`TrainError::Inputs`] for a model that takes no pictures of this kind.
    pub fn pictures(
        set: Arc<dyn Dataset>,
        inputs: &[ValueInfo],
        spec: InputSpec,
        layout: PictureLayout,
        batch: usize,
    ) -> Result<Self, TrainError> {
        let wrong = |what: String| TrainError::Inputs { from: set.name().to_owned(), what };
        let [input] = inputs else {
            let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
            return Err(wrong(format!(
                "pictures are for models with one input, and this one has {}: give arrays by these names in .npz files",
                names.join(", ")
            )));
        };
        let &[channels, height, width] = &spec.shape[..] else {
            return Err(wrong(format!(
                "pictures have channels, height and width, and {:?} are asked for",
                spec.shape
            )));
        };
        let shape = match layout {
            PictureLayout::Nchw => [channels, height, width],
            PictureLayout::Nhwc => [height, width, channels],
        };
        let fits = |(dim, size): (&Dim, &usize)| dim.size().is_none_or(|fixed| fixed == *size);
        if input.dims.len() != 4 || !input.dims[1..].iter().zip(&shape).all(fits) {
            return Err(wrong(format!(
                "the model's input '{}' is {input}, which does not take pictures as [batch, {}, {}, {}]",
                input.name, shape[0], shape[1], shape[2]
            )));
        }
        if !matches!(input.ty, ElementType::F32 | ElementType::F64 | ElementType::F16) {
            return Err(wrong(format!(
                "the model's input '{}' takes {}, and pictures are prepared as floating-point numbers: give arrays in .npz files",
                input.name, input.ty
            )));
        }
        let size = input.dims[0].size().unwrap_or(batch).max(1);
        // Models of a fixed batch take no smaller ones.
        let indices: Vec<usize> = (0..set.len()).collect();
        let chunks: Vec<&[usize]> = match input.dims[0] {
            Dim::Fixed(_) => indices.chunks_exact(size).collect(),
            Dim::Free(_) => indices.chunks(size).collect(),
        };
        if chunks.is_empty() {
            return Err(wrong(format!(
                "the model takes {size} pictures at once, and there are {}",
                set.len()
            )));
        }
        let runs = chunks.into_iter().map(<[usize]>::to_vec).collect();
        let (input, element) = (input.name.clone(), input.ty.clone());
        Ok(Self(Source::Pictures(Pictures { set, input, element, spec, layout, runs })))
    }

    /// Runs of the model.
    pub fn runs(&self) -> usize {
        match &self.0 {
            Source::Arrays(arrays) => arrays.runs.len(),
            Source::Pictures(pictures) => pictures.runs.len(),
        }
    }

    /// Examples in them.
    pub fn examples(&self) -> usize {
        (0..self.runs()).map(|run| self.size_of(run)).sum()
    }

    /// Examples of a run.
    pub fn size_of(&self, run: usize) -> usize {
        match &self.0 {
            Source::Arrays(Arrays { runs, .. }) => {
                runs[run].rows.values().map(Range::len).max().unwrap_or(1)
            }
            Source::Pictures(pictures) => pictures.runs[run].len(),
        }
    }

    /// The shapes of the inputs in the first run, without the batch axis, by their names; not those of inputs without axes.
    ///
    /// # Errors
    /// Pictures that cannot be read.
    pub fn shapes(&self) -> Result<BTreeMap<String, Vec<usize>>, TrainError> {
        let shape = |(name, array): (String, Tensor)| match array.shape() {
            [] => None,
            [_, inner @ ..] => Some((name, inner.to_vec())),
        };
        Ok(self.run(0)?.into_iter().filter_map(shape).collect())
    }

    /// The inputs without axes that are the same in all sets, by their names: a sampling rate, say.
    pub fn constants(&self) -> BTreeMap<String, Tensor> {
        let Source::Arrays(Arrays { sets, .. }) = &self.0 else { return BTreeMap::new() };
        let Some((first, others)) = sets.split_first() else { return BTreeMap::new() };
        let same = |(name, array): &&(String, Tensor)| {
            let equal = |set: &Feed| set.iter().any(|(other, x)| other == name && x == array);
            array.shape().is_empty() && others.iter().all(equal)
        };
        first.iter().filter(same).cloned().collect()
    }

    /// What these examples are, for keys of results: equal for equal contents.
    ///
    /// # Errors
    /// Pictures that cannot be read.
    pub(crate) fn identity(&self) -> Result<String, TrainError> {
        let (contents, runs) = match &self.0 {
            Source::Arrays(Arrays { digest, runs, .. }) => (digest.clone(), format!("{runs:?}")),
            Source::Pictures(Pictures { set, spec, layout, runs, .. }) => {
                let contents = format!("{} as {spec:?} {layout:?}", data_identity(&**set)?);
                (contents, format!("{runs:?}"))
            }
        };
        Ok(format!("{contents} in {}", hex(Sha256::new().chain_update(runs))))
    }

    /// What the model takes in a run.
    ///
    /// # Errors
    /// Pictures that cannot be read.
    ///
    /// # Panics
    /// If `run` is not below [`runs`](Self::runs).
    pub fn run(&self, run: usize) -> Result<Feed, TrainError> {
        match &self.0 {
            Source::Arrays(Arrays { sets, runs, .. }) => {
                let Rows { set, rows } = &runs[run];
                let cut = |(name, array): &(String, Tensor)| match rows.get(name) {
                    Some(rows) => (name.clone(), array.rows(rows.clone())),
                    None => (name.clone(), array.clone()),
                };
                Ok(sets[*set].iter().map(cut).collect())
            }
            Source::Pictures(Pictures { set, input, element, spec, layout, runs }) => {
                let transform = fitting_transform(set.as_ref(), spec)?;
                let pixels = pixels(set, &runs[run], transform)?;
                let x = images_to_array(&pixels, spec);
                let x = match layout {
                    PictureLayout::Nchw => x,
                    PictureLayout::Nhwc => {
                        x.permuted_axes(vec![0, 2, 3, 1]).as_standard_layout().into_owned()
                    }
                };
                let x = Tensor::F32(x);
                let x = x.cast(element).unwrap_or(x);
                Ok(vec![(input.clone(), x)])
            }
        }
    }

    /// Two parts, in an order drawn from `seed`: one to work with, and the given share of the runs, at least one, to look at the result on.
    /// A single run is both.
    #[must_use]
    pub fn split(&self, share: f64, seed: u64) -> [Self; 2] {
        if self.runs() < 2 {
            return [self.clone(), self.clone()];
        }
        let mut order: Vec<usize> = (0..self.runs()).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let held = ((order.len() as f64 * share).round() as usize).clamp(1, order.len() - 1);
        let (held, work) = order.split_at(held);
        [work, held].map(|part| {
            Self(match self.0.clone() {
                Source::Arrays(all) => {
                    let runs = part.iter().map(|&run| all.runs[run].clone()).collect();
                    Source::Arrays(Arrays { runs, ..all })
                }
                Source::Pictures(all) => {
                    let runs = part.iter().map(|&run| all.runs[run].clone()).collect();
                    Source::Pictures(Pictures { runs, ..all })
                }
            })
        })
    }
}

/// The pictures `indices` of a set, `[B, C, H, W]`.
fn pixels(
    set: &Arc<dyn Dataset>,
    indices: &[usize],
    transform: Transform,
) -> Result<ndarray::Array4<u8>, TrainError> {
    let part = cp_data::Subset::new(set.name(), set.clone(), indices.to_vec())?;
    let config = LoaderConfig {
        batch_size: indices.len(),
        order: Order::Sequential,
        transform,
        workers: 0,
        drop_last: false,
    };
    let mut loader = Loader::new(Arc::new(part), config)?;
    match loader.next() {
        Some(batch) => Ok(batch?.pixels),
        None => Err(TrainError::Inputs { from: set.name().to_owned(), what: "no picture".into() }),
    }
}

/// The arrays for all inputs of a model, in its types.
fn fit(arrays: &[(String, Tensor)], inputs: &[ValueInfo]) -> Result<Feed, String> {
    let mut fitted = Vec::with_capacity(inputs.len());
    for input in inputs {
        let named = arrays.iter().find(|(name, _)| *name == input.name);
        let array = match (named, arrays, inputs) {
            (Some((_, array)), ..) => array,
            (None, [(_, only)], [_]) => only,
            _ => {
                let known: Vec<&str> = arrays.iter().map(|(name, _)| name.as_str()).collect();
                return Err(format!(
                    "there is no array '{}' ({input}); there are: {}",
                    input.name,
                    known.join(", ")
                ));
            }
        };
        let found = || format!("'{}' is {} {:?}", input.name, array.element_type(), array.shape());
        let Some(cast) = array.cast(&input.ty) else {
            return Err(format!("{}, and the model takes {input}", found()));
        };
        if !array.is_finite() {
            return Err(format!("'{}' holds values that are NaN or infinite", input.name));
        }
        if !cast.is_finite() {
            return Err(format!(
                "'{}' holds values that are too large for {}, which the model takes",
                input.name, input.ty
            ));
        }
        let shape = array.shape();
        let inner = |(dim, size): (&Dim, &usize)| dim.size().is_none_or(|fixed| fixed == *size);
        let fits = input.dims.is_empty()
            || input.dims.len() == shape.len()
                && input.dims.iter().zip(shape).skip(1).all(inner)
                && input.dims[0].size().is_none_or(|batch| batch > 0 && shape[0] % batch == 0);
        if !fits || shape.contains(&0) {
            return Err(format!(
                "{}, and the model takes {input}: examples lie along the first axis",
                found()
            ));
        }
        fitted.push((input.name.clone(), cast));
    }
    Ok(fitted)
}

/// The runs of a set of arrays: rows by input.
fn split(
    set: &Feed,
    inputs: &[ValueInfo],
    batch: usize,
) -> Result<Vec<BTreeMap<String, Range<usize>>>, String> {
    // Of each input with axes: its examples a run where the model fixes them, and all of its rows.
    let with_axes: Vec<(&str, Option<usize>, usize)> = set
        .iter()
        .zip(inputs)
        .filter(|(_, input)| !input.dims.is_empty())
        .map(|((name, array), input)| (name.as_str(), input.dims[0].size(), array.shape()[0]))
        .collect();
    let count = |fixed: bool| {
        let counts = with_axes.iter().filter(move |(_, size, _)| size.is_some() == fixed);
        counts.map(|&(name, size, rows)| (name, rows / size.unwrap_or(1)))
    };
    let differ = |(one, a): (&str, usize), (other, b): (&str, usize), what: &str| {
        format!("'{one}' holds {a} {what}, and '{other}' holds {b}")
    };
    let mut fixed: Option<(&str, usize)> = None;
    for found in count(true) {
        match fixed {
            Some(before) if before.1 != found.1 => return Err(differ(before, found, "runs")),
            _ => fixed = Some(found),
        }
    }
    let mut free: Option<(&str, usize)> = None;
    for found in count(false) {
        match free {
            Some(before) if before.1 != found.1 => return Err(differ(before, found, "examples")),
            _ => free = Some(found),
        }
    }
    let runs = match (fixed, free) {
        (Some((_, runs)), None) => runs,
        // Inputs with a first axis of a fixed size beside a batch are states and the like: all of it is one run.
        (Some((_, 1)), Some(_)) => 1,
        (Some((name, runs)), Some(_)) => {
            return Err(format!(
                "'{name}' holds {runs} runs beside inputs with a free batch: put each run into a file"
            ));
        }
        (None, Some((_, rows))) => rows.div_ceil(batch.max(1)),
        (None, None) => 1,
    };
    let cut = |run: usize| {
        let rows = with_axes.iter().map(|&(name, size, rows)| {
            let range = match size {
                Some(size) => run * size..(run + 1) * size,
                None if fixed.is_some() => 0..rows,
                None => run * batch.max(1)..((run + 1) * batch.max(1)).min(rows),
            };
            (name.to_owned(), range)
        });
        rows.collect()
    };
    Ok((0..runs).map(cut).collect())
}

fn digest(sets: &[Feed]) -> String {
    let mut sum = Sha256::new();
    for (name, array) in sets.iter().flatten() {
        sum.update(format!("{name} {} {:?}", array.element_type(), array.shape()));
        match array {
            Tensor::F32(x) => x.iter().for_each(|x| sum.update(x.to_le_bytes())),
            Tensor::F64(x) => x.iter().for_each(|x| sum.update(x.to_le_bytes())),
            Tensor::F16(x) => x.iter().for_each(|x| sum.update(x.to_le_bytes())),
            Tensor::I64(x) => x.iter().for_each(|x| sum.update(x.to_le_bytes())),
            Tensor::I32(x) => x.iter().for_each(|x| sum.update(x.to_le_bytes())),
            Tensor::I8(x) => x.iter().for_each(|x| sum.update(x.to_le_bytes())),
            Tensor::U8(x) => x.iter().for_each(|x| sum.update(x.to_le_bytes())),
            Tensor::Bool(x) => x.iter().for_each(|x| sum.update([u8::from(*x)])),
        }
    }
    hex(sum)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::float_cmp,
    reason = "a test fails by panicking; the numbers are copies"
)]
mod tests {
    use ndarray::ArrayD;

    use super::*;

    fn info(name: &str, ty: ElementType, dims: &[Option<usize>]) -> ValueInfo {
        let dims = dims.iter().map(|size| size.map_or(Dim::Free(None), Dim::Fixed)).collect();
        ValueInfo { name: name.into(), ty, dims }
    }

    fn floats(name: &str, shape: &[usize]) -> (String, Tensor) {
        (name.into(), ArrayD::<f32>::from_shape_fn(shape, |at| at[0] as f32).into())
    }

    fn shapes(examples: &Examples) -> Vec<Vec<Vec<usize>>> {
        let run = |index| {
            let feed = examples.run(index).unwrap();
            feed.iter().map(|(_, x)| x.shape().to_vec()).collect()
        };
        (0..examples.runs()).map(run).collect()
    }

    #[test]
    fn a_free_batch_takes_several_examples_a_run() {
        let inputs =
            [info("x", ElementType::F32, &[None, Some(3)]), info("rate", ElementType::I64, &[])];
        let rate = ("rate".to_owned(), ArrayD::from_elem(vec![], 16_000_i64).into());
        let set = vec![floats("x", &[5, 3]), rate];
        let found = Examples::arrays(vec![("a.npz".into(), set)], &inputs, 2).unwrap();
        assert_eq!((found.runs(), found.examples()), (3, 5));
        assert_eq!(
            shapes(&found),
            [[vec![2, 3], vec![]], [vec![2, 3], vec![]], [vec![1, 3], vec![]]]
        );
        assert_eq!(found.run(1).unwrap()[0].1.as_f32().unwrap()[[0, 0]], 2.0);
    }

    #[test]
    fn a_fixed_batch_takes_that_many() {
        let inputs = [
            info("x", ElementType::F32, &[Some(1), Some(4)]),
            info("h", ElementType::F32, &[Some(2), Some(1), Some(8)]),
        ];
        let set = vec![floats("x", &[3, 4]), floats("h", &[6, 1, 8])];
        let found = Examples::arrays(vec![("a".into(), set)], &inputs, 8).unwrap();
        assert_eq!(shapes(&found)[2], [vec![1, 4], vec![2, 1, 8]]);
        let uneven = vec![floats("x", &[3, 4]), floats("h", &[4, 1, 8])];
        let error = Examples::arrays(vec![("a".into(), uneven)], &inputs, 8).err().unwrap();
        assert!(error.to_string().contains("'x' holds 3 runs, and 'h' holds 2"), "{error}");
    }

    #[test]
    fn an_only_array_serves_an_only_input_and_types_are_brought_over() {
        let inputs = [info("x", ElementType::F64, &[None, Some(2)])];
        let set = vec![floats("arr_0", &[2, 2])];
        let found = Examples::arrays(vec![("a".into(), set)], &inputs, 8).unwrap();
        let feed = found.run(0).unwrap();
        assert_eq!((feed[0].0.as_str(), feed[0].1.element_type()), ("x", ElementType::F64));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let inputs =
            [info("x", ElementType::F32, &[None, Some(2)]), info("y", ElementType::I64, &[None])];
        let check = |set: Feed, expected: &str| {
            let error = Examples::arrays(vec![("in.npz".into(), set)], &inputs, 8).err().unwrap();
            let error = error.to_string();
            assert!(error.contains(expected) && error.contains("in.npz"), "{error}");
        };
        let y = || ("y".to_owned(), ArrayD::from_elem(vec![2], 1_i64).into());
        check(vec![floats("z", &[2, 2]), y()], "no array 'x' (float32 [?, 2]); there are: z, y");
        check(vec![floats("x", &[2, 3]), y()], "'x' is float32 [2, 3]");
        check(vec![floats("x", &[2, 2]), floats("y", &[2])], "'y' is float32 [2]");
        check(vec![floats("x", &[3, 2]), y()], "'x' holds 3 examples, and 'y' holds 2");
        let nan = ("x".to_owned(), ArrayD::from_elem(vec![2, 2], f32::NAN).into());
        check(vec![nan, y()], "NaN");
    }

    #[test]
    fn parts_have_all_runs_between_them() {
        let inputs = [info("x", ElementType::F32, &[None, Some(1)])];
        let all = Examples::arrays(vec![("a".into(), vec![floats("x", &[10, 1])])], &inputs, 1);
        let all = all.unwrap();
        let [work, held] = all.split(0.2, 3);
        let values = |part: &Examples| -> Vec<usize> {
            let value = |index| part.run(index).unwrap()[0].1.as_f32().unwrap()[[0, 0]] as usize;
            (0..part.runs()).map(value).collect()
        };
        let (mut both, two) = (values(&work), values(&held));
        assert_eq!((both.len(), two.len(), held.examples()), (8, 2, 2));
        both.extend(two);
        both.sort_unstable();
        assert_eq!(both, (0..10).collect::<Vec<_>>());
        let one = Examples::arrays(vec![("a".into(), vec![floats("x", &[3, 1])])], &inputs, 8);
        let [work, held] = one.unwrap().split(0.2, 0);
        assert_eq!((work.examples(), held.examples()), (3, 3));
    }
}
