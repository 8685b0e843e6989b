//! [`Host`]: an ONNX model that holds the layers to compress, and runs in ONNX Runtime where a network of ours would run in libtorch.
//!
//! A plan needs of it the sizes of its layers' inputs alone; with [`Examples`] there are statistics of these inputs too, distillation on
//! them, and the change of the outputs. Ops that no network has are no obstacle but to distillation, and there only between the
//! first compressed layer and the loss.

#[cfg(feature = "torch")]
mod distill;
mod distilled;
mod examples;
#[cfg(feature = "torch")]
mod loss;
mod probe;
mod statistics;
#[cfg(feature = "torch")]
mod teacher;
mod whole;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cp_net::Network;
use cp_onnx::{LayerView, Model, OnnxError, Parts};
use cp_plan::LayerStatistics;

pub use distilled::{Distilled, DistilledEpoch};
pub use examples::{Examples, PictureLayout};

use crate::engine::{Change, Engine, Inputs, Subject, changes, changes_on};
use crate::error::TrainError;
use crate::statistics::StatisticsOptions;
use crate::timing::TimingOptions;

/// The share of the examples that a result is looked at on, and nothing else.
const HELD_OUT: f64 = 0.2;

/// Most runs that outputs are compared on.
const MOST_COMPARED: usize = 64;

/// A model, its layers as a network, and what it is fed.
#[derive(Clone)]
pub struct Host {
    path: PathBuf,
    model: Model,
    view: LayerView,
    given: BTreeMap<String, Vec<usize>>,
    /// To work with, and to look at the result on.
    examples: Option<[Examples; 2]>,
}

impl Host {
    /// The model that was read from `path`, with this view of its layers. `given`: the shapes of inputs that it leaves open, without the
    /// batch axis, by their names.
    pub fn new(
        path: &Path,
        model: Model,
        view: LayerView,
        given: BTreeMap<String, Vec<usize>>,
    ) -> Self {
        Self { path: path.into(), model, view, given, examples: None }
    }

    /// The same with examples, of which a fifth, drawn from `seed`, is only looked at the result on.
    #[must_use]
    pub fn with_examples(self, examples: &Examples, seed: u64) -> Self {
        Self { examples: Some(examples.split(HELD_OUT, seed)), ..self }
    }

    /// The model as it was read.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Its layers.
    pub fn view(&self) -> &LayerView {
        &self.view
    }

    /// Examples to work with, and those to look at the result on.
    pub fn examples(&self) -> Option<&[Examples; 2]> {
        self.examples.as_ref()
    }

    /// What the work is done with, for keys.
    pub(crate) fn identity(&self) -> Result<Option<String>, TrainError> {
        self.examples.as_ref().map(|[work, _]| work.identity()).transpose()
    }

    /// Second moments of the inputs of `layers`; none without examples.
    pub(crate) fn statistics(
        &self,
        layers: &[String],
        options: &StatisticsOptions,
    ) -> Result<LayerStatistics, TrainError> {
        let Some([work, _]) = &self.examples else { return Ok(LayerStatistics::new()) };
        let (found, left) = statistics::statistics(self, work, layers, options)?;
        for (layer, why) in left {
            eprintln!(
                "note: '{layer}' is decomposed for its kernel, not for its output: of its inputs, {why}"
            );
        }
        Ok(found)
    }

    /// Seconds of a pass of the whole model, batches of `batch` where it does not fix their size.
    pub(crate) fn seconds(&self, batch: usize, options: &TimingOptions) -> Result<f64, TrainError> {
        let shapes = Engine::model_shapes(&self.path, &self.given)?;
        let inputs = |batch| Inputs { shapes: shapes.clone(), batch };
        let time = |batch| {
            Engine::OnnxRuntime.latency(&[Subject::Model(&self.path)], &inputs(batch), options)
        };
        let found = match time(batch) {
            Err(TrainError::FixedBatch { .. }) => time(1),
            found => found,
        };
        Ok(found?[0].median)
    }

    /// The model with the factors of every layer that was factorized in `compressed`, which was made from the view's network.
    ///
    /// # Errors
    /// As [`Model::replace_all`].
    pub fn rewritten(&self, compressed: &Network) -> Result<Model, TrainError> {
        let mut model = self.model.clone();
        self.view.write(compressed, &mut model)?;
        Ok(model)
    }

    /// `model`, made from this one, with the factors of these layers, by their names.
    fn with_factors(
        &self,
        mut model: Model,
        compressed: &Network,
        names: &[String],
    ) -> Result<Model, TrainError> {
        let layers = model.layers()?;
        let mut all = Vec::new();
        for name in names {
            let layer = layers.iter().find(|layer| layer.name == *name).ok_or_else(|| {
                OnnxError::UnknownLayer {
                    layer: name.clone(),
                    weight: String::new(),
                    scope: String::new(),
                }
            })?;
            all.push((layer.clone(), Parts::new(layer, &compressed.factors(name)?)?));
        }
        model.replace_all(&all)?;
        Ok(model)
    }

    /// How far the outputs of the model in `after` are from this one's: on the examples that are for that, else on a drawn one.
    ///
    /// # Errors
    /// Where one of them does not run.
    pub fn changes(&self, after: &Path) -> Result<Vec<Change>, TrainError> {
        let (before, after) = (Subject::Model(&self.path), Subject::Model(after));
        match &self.examples {
            None => changes(before, after, &self.given),
            Some([_, held]) => {
                let runs = (0..held.runs().min(MOST_COMPARED)).map(|run| held.run(run));
                changes_on(before, after, runs)
            }
        }
    }
}

#[cfg(all(test, feature = "torch"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use crate::Device;
    use cp_data::{Dataset, Images};
    use cp_net::arch::{Builder, window};
    use cp_net::{InputSpec, Network};
    use cp_onnx::{ExportOptions, export};
    use cp_ort::{Session, SessionOptions, Tensor};
    use ndarray::Array4;
    use rand::{Rng as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{Recipe, RunDir, Stages, Target, TrainConfig};

    /// A small network, the model that it is written as, and random pixels for it.
    struct Setting {
        network: Network,
        folder: tempfile::TempDir,
        pixels: Array4<u8>,
    }

    impl Setting {
        fn path(&self) -> PathBuf {
            self.folder.path().join("dense.onnx")
        }

        fn host(&self, given: &[(&str, &[usize])]) -> Host {
            let model = Model::open(self.path()).unwrap();
            let given =
                given.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
            let values = model.layer_inputs().unwrap();
            let shapes =
                crate::engine::value_shapes(&model, &values, &given, &BTreeMap::new()).unwrap();
            let view = model.layer_view(Some(&shapes)).unwrap();
            Host::new(&self.path(), model, view, given)
        }

        /// [`DistilledEpoch::held`] of the model in the file `compressed`, all of whose outputs are those of the region.
        fn error(&self, host: &Host, compressed: &Path) -> f64 {
            let [work, held] = host.examples().unwrap();
            let open = |path: &Path| Session::new(path, &SessionOptions::default()).unwrap();
            let (mut dense, mut compressed) = (open(&self.path()), open(compressed));
            let outputs = |session: &mut Session, set: &Examples, run| {
                let feed = cp_ort::Inputs::new(set.run(run).unwrap()).unwrap();
                let found = session.run_prepared(&feed).unwrap().to_tensors().unwrap();
                let tensor = |(_, x): (String, Tensor)| match x {
                    Tensor::F32(x) => cp_torch::tensor_from_f32(x.view()).unwrap(),
                    other => panic!("{:?}", other.element_type()),
                };
                found.into_iter().map(tensor).collect::<Vec<_>>()
            };
            let runs = (0..work.runs()).map(|run| Ok(outputs(&mut dense, work, run)));
            let scales = loss::Scales::of(runs).unwrap();
            let errors = (0..held.runs()).map(|run| {
                let (theirs, ours) =
                    (outputs(&mut dense, held, run), outputs(&mut compressed, held, run));
                f64::try_from(&scales.error(&ours, &theirs).unwrap()).unwrap()
            });
            (errors.sum::<f64>() / held.runs() as f64).sqrt()
        }

        fn examples(&self) -> Examples {
            let input = &self.network.input().name;
            let x = self.pixels.mapv(|pixel| f32::from(pixel) / 255.0).into_dyn();
            let inputs = Engine::model_inputs(&self.path()).unwrap();
            let set = vec![(input.clone(), Tensor::F32(x))];
            Examples::arrays(vec![("test".into(), set)], &inputs, 4).unwrap()
        }

        /// The same as pictures, of which `reads` can be read.
        fn pictures(&self, reads: usize) -> Examples {
            let images = Images::new("x", vec!["c".into()], self.pixels.clone(), vec![0; 40]);
            let set = Worn { images: images.unwrap(), left: AtomicUsize::new(reads) };
            let inputs = Engine::model_inputs(&self.path()).unwrap();
            let spec = self.network.input().clone();
            Examples::pictures(Arc::new(set), &inputs, spec, PictureLayout::Nchw, 4).unwrap()
        }
    }

    /// Images that can be read so many times.
    struct Worn {
        images: Images,
        left: AtomicUsize,
    }

    impl Dataset for Worn {
        fn name(&self) -> &str {
            self.images.name()
        }

        fn len(&self) -> usize {
            self.images.len()
        }

        fn classes(&self) -> &[String] {
            self.images.classes()
        }

        fn label(&self, index: usize) -> usize {
            self.images.label(index)
        }

        fn image(&self, index: usize) -> Result<ndarray::Array3<u8>, cp_data::DataError> {
            match self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)) {
                Ok(_) => self.images.image(index),
                Err(_) => self.images.image(usize::MAX),
            }
        }

        fn sources(&self) -> &[cp_data::Source] {
            &[]
        }

        fn content(&self, index: usize) -> Result<[u8; 32], cp_data::DataError> {
            self.images.content(index)
        }
    }

    /// Whether models can be run; a line says where not.
    fn runs() -> bool {
        let found = cp_ort::library();
        found.as_ref().err().iter().for_each(|error| println!("skipped: {error}"));
        found.is_ok()
    }

    /// `None` where models cannot be run.
    fn setting() -> Option<Setting> {
        if !runs() {
            return None;
        }
        let unit = InputSpec {
            scale: 1.0 / 255.0,
            mean: vec![0.0; 3],
            std: vec![1.0; 3],
            ..InputSpec::imagenet(8)
        };
        let input = InputSpec { shape: vec![3, 8, 10], ..unit };
        let network = Builder::new("net", input)
            .conv("a", 8, window(3).pad(1).stride(2))
            .relu("r")
            .conv("b", 12, window([3, 1]).groups(2))
            .batch_norm("n")
            .relu("s")
            .global_avg_pool("p")
            .flatten("f")
            .linear("l", 5)
            .build()
            .unwrap()
            .initialize(3)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dense.onnx");
        export(&network, &ExportOptions::default()).unwrap().save(&path).unwrap();
        let mut draw = ChaCha8Rng::seed_from_u64(5);
        let pixels = Array4::from_shape_simple_fn((40, 3, 8, 10), || draw.random());
        Some(Setting { network, folder, pixels })
    }

    /// A batch that the file fixes is no axis of an example, and a layer that stays is counted.
    #[test]
    fn layers_of_a_fixed_batch_and_transposed_ones_are_counted() {
        if !runs() {
            return;
        }
        let network = Builder::new("net", InputSpec::features([4, 9]))
            .conv("a", 8, window([3]).pad(1))
            .relu("r")
            .conv_transpose("u", 6, window([2]).stride(2))
            .conv("b", 5, window([3]))
            .build()
            .unwrap()
            .initialize(3)
            .unwrap();
        for batch in [cp_onnx::Dim::Size(2), ExportOptions::default().batch] {
            let folder = tempfile::tempdir().unwrap();
            let options = ExportOptions { batch, ..ExportOptions::default() };
            let path = folder.path().join("dense.onnx");
            export(&network, &options).unwrap().save(&path).unwrap();
            let model = Model::open(&path).unwrap();
            let values = model.layer_inputs().unwrap();
            let shapes =
                crate::engine::value_shapes(&model, &values, &BTreeMap::new(), &BTreeMap::new())
                    .unwrap();
            for view in [model.layer_view(Some(&shapes)), model.layer_view(None)] {
                let view = view.unwrap();
                assert!(view.left_out.is_empty(), "{:?}", view.left_out);
                assert_eq!((view.layers.len(), view.fixed.len()), (3, 1));
            }
            let view = model.layer_view(Some(&shapes)).unwrap();
            let inputs = |net: &Network| net.architecture().input_shapes();
            let macs = |net: &Network| net.cost(inputs(net)).unwrap().total.macs;
            assert_eq!(macs(&view.network), macs(&network));
        }
    }

    fn stages(folder: &Path) -> Stages {
        Stages::new(RunDir::at(&folder.join("work")).unwrap(), Device::Cpu)
    }

    #[test]
    fn statistics_are_those_of_the_network_itself() {
        let Some(setting) = setting() else { return };
        let all = StatisticsOptions {
            images: usize::MAX,
            positions: usize::MAX,
            ..StatisticsOptions::default()
        };
        let host = setting.host(&[]);
        let host = Host { examples: Some([setting.examples(), setting.examples()]), ..host };
        let layers: Vec<String> = ["a", "b", "l"].map(String::from).into();
        let found = host.statistics(&layers, &all).unwrap();
        let images = Images::new("x", vec!["c".into()], setting.pixels.clone(), vec![0; 40]);
        let images: Arc<dyn Dataset> = Arc::new(images.unwrap());
        let model = cp_torch::Executor::new(&setting.network, Device::Cpu.into()).unwrap();
        let known = crate::input_statistics(&model, &layers, &images, &all, 1).unwrap();
        for layer in &layers {
            let (found, known) = (&found[layer], &known[layer]);
            assert_eq!(found.len(), known.len(), "{layer}");
            for (found, known) in found.iter().zip(known) {
                assert_eq!(found.examples(), known.examples(), "{layer}");
                let (a, b) = (found.moments().unwrap(), known.moments().unwrap());
                let largest = b.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
                for (a, b) in a.iter().zip(&b) {
                    assert!((a - b).abs() < 1e-5 * largest, "{layer}: {a} and {b}");
                }
            }
        }
    }

    #[test]
    fn a_model_learns_from_the_dense_one_and_goes_on_after_a_kill() {
        let Some(setting) = setting() else { return };
        let fed = |reads| setting.host(&[]).with_examples(&setting.pictures(reads), 0);
        let host = fed(usize::MAX);
        let mut recipe = Recipe::with_inputs(Target::MacsRatio(0.6));
        recipe.plan.multiple = crate::Multiple::Of(1);
        recipe.plan.points = 4;
        let done = recipe.run_in(&host, &stages(setting.folder.path())).unwrap();
        assert!(!done.plan.layers.is_empty());
        let config = TrainConfig { lr: 0.01, ..TrainConfig::distilling(6) };
        let learn = |host: &Host, folder: &str| {
            host.distill(&done.network, &config, &stages(&setting.folder.path().join(folder)))
        };
        let whole = learn(&host, "whole").unwrap();
        let last = whole.epochs[whole.kept.unwrap()].held;
        assert!(last < 0.95 * whole.before, "{} → {last}", whole.before);
        // What is written is as far from the dense model as what was trained, and what was decomposed as what it began with.
        let path = setting.folder.path().join("learned.onnx");
        whole.model.save(&path).unwrap();
        approx::assert_relative_eq!(setting.error(&host, &path), last, max_relative = 1e-3);
        host.rewritten(&done.network).unwrap().save(&path).unwrap();
        approx::assert_relative_eq!(setting.error(&host, &path), whole.before, max_relative = 1e-3);
        // The 32 to work with tell the scales, eight are looked at, then in each epoch 32 are worked with and eight looked at: this ends in the
        // third.
        let error = learn(&fed(32 + 8 + 2 * 40 + 20), "killed").unwrap_err();
        assert!(matches!(error, TrainError::Data(_)), "{error}");
        let resumed = learn(&host, "killed").unwrap();
        let figures = |found: &Distilled| -> Vec<(f64, f64)> {
            found.epochs.iter().map(|epoch| (epoch.loss, epoch.held)).collect()
        };
        assert_eq!(figures(&resumed), figures(&whole));
        assert_eq!(resumed.model.encode(), whole.model.encode());
    }

    #[test]
    fn a_model_with_foreign_ops_around_is_trained_between_them() {
        let Some(setting) = setting() else { return };
        // The first activation as one that no network has; the length of its name is the same.
        let mut bytes = std::fs::read(setting.path()).unwrap();
        let at = bytes.windows(4).position(|part| part == b"Relu").unwrap();
        bytes[at..at + 4].copy_from_slice(b"Atan");
        std::fs::write(setting.path(), bytes).unwrap();
        let host = setting.host(&[]).with_examples(&setting.examples(), 0);
        let mut recipe = Recipe::with_inputs(Target::ParamsRatio(0.7));
        recipe.plan.points = 4;
        let done = recipe.run_in(&host, &stages(setting.folder.path())).unwrap();
        let found = host.distill(
            &done.network,
            &TrainConfig { lr: 0.01, ..TrainConfig::distilling(3) },
            &stages(setting.folder.path()),
        );
        let found = found.unwrap();
        assert!(found.notes.iter().any(|note| note.contains("Atan")), "{:?}", found.notes);
        let path = setting.folder.path().join("learned.onnx");
        found.model.save(&path).unwrap();
        let error = setting.error(&host, &path);
        assert!(error <= found.before, "{error} after {}", found.before);
    }
}
