//! Where the network to compress comes from, and how the compressed one goes back: a file of ours, or an ONNX model that is rewritten
//! in place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use cp_net::Network;
use cp_onnx::{ExportOptions, ImportOptions, Imported, Model};
use cp_train::engine::{Change, Inputs, Subject, changes, value_shapes};
use cp_train::timing::{self, TimingOptions};
use cp_train::{
    CompressData, Distilled, Engine, Examples, Host, Latency, Outcome, Recipe, Stages, Target,
    TrainError, layer_times,
};

use super::options::Args;
use super::outcome::Profiled;
use crate::common::{Usage, shapes_by_name};
use crate::{inputs, model, output};

/// What was given, as the network that plans are made for.
pub(super) struct Source {
    /// The network; of an ONNX model its layers, each for itself.
    pub(super) network: Network,
    /// Layers that cannot be factorized.
    pub(super) fixed: Vec<String>,
    /// Whether the shapes of the layers' inputs are known, and so their multiply-adds.
    pub(super) sized: bool,
    onnx: Option<Onnx>,
}

struct Onnx {
    path: PathBuf,
    model: Model,
    way: Way,
    given: BTreeMap<String, Vec<usize>>,
}

/// What [`Source::compress`] made.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    /// Of an ONNX model that learned from the dense one.
    pub(super) distilled: Option<Distilled>,
}

/// How the network stands for the model.
enum Way {
    /// Each layer for itself.
    Layers(Box<Host>),
    /// As a whole.
    Whole(Box<Imported>),
}

impl Source {
    /// Reads MODEL for these recipes.
    pub(super) fn open(args: &Args, recipes: &[Recipe], seed: u64) -> anyhow::Result<Self> {
        let path = &args.model.path;
        if !model::is_onnx(path) {
            if let Some(inputs) = &args.inputs {
                return Err(Usage(format!(
                    "--inputs {} is for ONNX models; `polyad convert {} model.onnx` makes one, or use --dataset",
                    inputs.display(),
                    path.display()
                ))
                .into());
            }
            if !args.input.is_empty() {
                return Err(Usage(format!(
                    "--input is for ONNX models, and {} is a network that knows the shape of its input",
                    path.display()
                ))
                .into());
            }
            let (network, fixed) = (args.model.load()?, Vec::new());
            return Ok(Self { network, fixed, sized: true, onnx: None });
        }
        if args.model.arch.name.is_some() {
            return Err(Usage(
                "--arch is for weights alone: an ONNX model has its architecture".into(),
            )
            .into());
        }
        let mut given = shapes_by_name(&args.input)?;
        let onnx = model::open_onnx(path)?;
        if args.dataset.is_some() {
            return Self::trained(args, onnx, given);
        }
        let examples = match &args.inputs {
            None if args.model.arch.preprocess.is_some() => {
                let told = "--preprocess is for pictures: add --inputs or --dataset";
                return Err(Usage(told.into()).into());
            }
            None => None,
            Some(from) => {
                let preprocess = args.model.arch.preprocess.as_ref();
                let examples = inputs::open(from, path, &mut given, preprocess, inputs::BATCH)?;
                inputs::note_single(from, &examples);
                Some(examples)
            }
        };
        let values = onnx.layer_inputs()?;
        let needs = recipes.iter().find_map(needs_shapes);
        let constants = examples.as_ref().map_or_else(BTreeMap::new, Examples::constants);
        let shapes = match (value_shapes(&onnx, &values, &given, &constants), needs) {
            (Ok(shapes), _) => Some(shapes),
            (Err(error), Some(option)) => {
                return Err(error).with_context(|| {
                    format!(
                        "{}: {option} counts multiply-adds or time, for which the model has to run once (--params-ratio does not need that)",
                        path.display()
                    )
                });
            }
            (Err(error), None) => {
                output::note(&format!("multiply-adds are not counted: {error}"));
                None
            }
        };
        let mut view = onnx.layer_view(shapes.as_ref());
        let mut sized = shapes.is_some();
        if needs.is_none() && sized {
            // What counts are the weights, also of layers whose inputs have no size that is known; with --never-slower these are timed by the
            // whole model.
            let all = onnx.layer_view(None)?;
            if view.as_ref().map_or(0, |view| view.layers.len()) < all.layers.len() {
                output::note(
                    "multiply-adds are not counted: the sizes of some layers' inputs are not known",
                );
                (view, sized) = (Ok(all), false);
            }
        }
        let view = view?;
        for (layer, why) in &view.left_out {
            output::note(&format!("'{layer}' is left alone: {why}"));
        }
        let fixed = view.fixed.iter().map(|(layer, _)| layer.clone()).collect();
        let network = view.network.clone();
        let mut host = Host::new(path, onnx.clone(), view, given.clone());
        if let Some(examples) = &examples {
            host = host.with_examples(examples, seed);
        }
        let way = Way::Layers(Box::new(host));
        let onnx = Some(Onnx { path: path.clone(), model: onnx, way, given });
        Ok(Self { network, fixed, sized, onnx })
    }

    /// A model that is fine-tuned: all of it as a network.
    fn trained(
        args: &Args,
        onnx: Model,
        given: BTreeMap<String, Vec<usize>>,
    ) -> anyhow::Result<Self> {
        let path = args.model.path.clone();
        let imported =
            onnx.import(&ImportOptions::new().inputs(&onnx, &given)).with_context(|| {
                format!(
                    "{}: --dataset trains the model, and for that all of it has to be understood",
                    path.display()
                )
            })?;
        let network = match (&args.model.arch.preprocess, cp_onnx::exported_network(&onnx)?) {
            (Some(preprocess), _) => preprocess.apply(imported.network.clone())?,
            (None, Some(known)) => imported.network.clone().with_input(known.input().clone())?,
            (None, None) => {
                return Err(Usage(format!(
                    "{}: does not say how pictures become its input, and --dataset needs to know: add --preprocess imagenet, unit, caffe or a file",
                    path.display()
                ))
                .into());
            }
        };
        // Layers that the file holds in another form cannot be written back.
        let arch = network.architecture();
        let is_layer = |name: &String| {
            let weight = arch.node(name).map(|node| node.param("weight"));
            weight.is_ok_and(|weight| {
                imported.layers.get(&weight).is_some_and(|layer| layer.left_alone.is_none())
            })
        };
        let fixed = arch.compressible().into_iter().filter(|name| !is_layer(name)).collect();
        let way = Way::Whole(Box::new(imported));
        let onnx = Some(Onnx { path, model: onnx, way, given });
        Ok(Self { network, fixed, sized: true, onnx })
    }

    /// `recipe` as far as it can be carried out on what was given: layers that cannot be factorized stay, and only whole models are
    /// timed.
    pub(super) fn adapt(&self, mut recipe: Recipe) -> Recipe {
        if self.onnx.is_some() {
            recipe.plan.keep.extend(self.fixed.iter().cloned());
            recipe.plan.keep.sort();
            recipe.plan.keep.dedup();
            recipe.timing_batches.clear();
        }
        recipe
    }

    /// What the changes of an ONNX model's outputs are measured on, in words.
    pub(super) fn compared_on(&self) -> String {
        match &self.onnx {
            Some(Onnx { way: Way::Layers(host), .. }) => match host.examples() {
                Some([_, held]) => format!("{} examples", held.examples()),
                None => "drawn inputs".into(),
            },
            _ => "drawn inputs".into(),
        }
    }

    /// Refuses a name of an output file that does not fit what was given.
    pub(super) fn check_out(&self, out: &Path) -> Result<(), Usage> {
        match (&self.onnx, model::is_onnx(out)) {
            (Some(_), false) => Err(Usage(format!(
                "--out {}: an ONNX model comes back as one: give it a name that ends in .onnx",
                out.display()
            ))),
            _ => Ok(()),
        }
    }

    /// Compresses by `recipe`, as [`Recipe::run`] does, fine-tuning included.
    pub(super) fn compress(
        &self,
        recipe: &Recipe,
        data: Option<&CompressData>,
        stages: &Stages,
    ) -> Result<Done, TrainError> {
        let Some(Onnx { way: Way::Layers(host), .. }) = &self.onnx else {
            let outcome = recipe.run(&self.network, data, stages)?;
            return Ok(Done { outcome, distilled: None });
        };
        let outcome = recipe.run_in(host, stages)?;
        let distilled = match &recipe.compress.fine_tune {
            Some(config) if !outcome.plan.layers.is_empty() => {
                Some(host.distill(&outcome.network, config, stages)?)
            }
            _ => None,
        };
        Ok(Done { outcome, distilled })
    }

    /// Writes what was made from [`Source::network`].
    pub(super) fn save(&self, done: &Done, out: &Path) -> anyhow::Result<()> {
        let compressed = &done.outcome.network;
        match &self.onnx {
            Some(onnx) => match (&onnx.way, &done.distilled) {
                (_, Some(distilled)) => distilled.model.save(out)?,
                (Way::Layers(host), None) => host.rewritten(compressed)?.save(out)?,
                (Way::Whole(imported), None) => {
                    let mut model = onnx.model.clone();
                    model.rewrite(imported, compressed)?;
                    model.save(out)?;
                }
            },
            None if model::is_onnx(out) => {
                cp_onnx::export(compressed, &ExportOptions::default())?.save(out)?;
            }
            None => compressed.save(out)?,
        }
        Ok(())
    }

    /// What is timed.
    pub(super) fn subject(&self) -> Subject<'_> {
        match &self.onnx {
            Some(onnx) => Subject::Model(&onnx.path),
            None => Subject::Network(&self.network),
        }
    }

    /// The times of an ONNX model and the one written at `out`, and how far their outputs are apart; nothing where there is no ONNX
    /// Runtime, or for networks of ours, which the recipe times.
    pub(super) fn compare(
        &self,
        out: &Path,
        batches: &[usize],
    ) -> anyhow::Result<(Vec<Latency>, Vec<Change>)> {
        let nothing = (Vec::new(), Vec::new());
        let Some(onnx) = &self.onnx else { return Ok(nothing) };
        // Without ONNX Runtime, or where sizes stay open, there is nothing to compare.
        let Ok(shapes) = Engine::model_shapes(&onnx.path, &onnx.given) else { return Ok(nothing) };
        let moved = match &onnx.way {
            Way::Layers(host) => host.changes(out)?,
            Way::Whole(_) => changes(Subject::Model(&onnx.path), Subject::Model(out), &onnx.given)?,
        };
        let subjects = [Subject::Model(&onnx.path), Subject::Model(out)];
        let threads = timing::set_threads(0);
        let mut times = Vec::new();
        for &batch in batches {
            let inputs = Inputs { shapes: shapes.clone(), batch };
            let engine = Engine::OnnxRuntime;
            let found = match engine.latency(&subjects, &inputs, &TimingOptions::default()) {
                // A model may be made for one example at a time.
                Err(cp_train::TrainError::FixedBatch { .. }) if batches.len() > 1 => continue,
                found => found?,
            };
            if let Some(told) = timing::too_noisy(&found) {
                output::note(&told);
            }
            let (dense, compressed) = (found[0], found[1]);
            times.push(Latency { engine: engine.name(), batch, threads, dense, compressed });
        }
        if times.is_empty() && !batches.is_empty() {
            bail!("{}: takes none of the batches of --timing-batch", onnx.path.display());
        }
        Ok((times, moved))
    }
}

impl Source {
    /// Where the time goes in `engine`, in the dense model and in the one written at `out`; `None` where it does not tell, or sizes stay open.
    pub(super) fn profiled(
        &self,
        engine: Engine,
        done: &Done,
        out: &Path,
    ) -> anyhow::Result<Option<Profiled>> {
        let compressed = &done.outcome.network;
        let (subjects, shapes) = match &self.onnx {
            None => {
                let networks = [&self.network, compressed];
                let shapes =
                    Inputs::of(&self.network, self.network.architecture().input_shapes(), 1);
                (networks.map(Subject::Network), shapes.shapes)
            }
            Some(onnx) => match Engine::model_shapes(&onnx.path, &onnx.given) {
                Ok(shapes) => ([Subject::Model(&onnx.path), Subject::Model(out)], shapes),
                Err(_) => return Ok(None),
            },
        };
        let inputs = Inputs { shapes, batch: 1 };
        let [before, after] = subjects.map(|subject| engine.op_times(subject, &inputs));
        let ops = match (before, after) {
            (Err(TrainError::FixedBatch { .. }), _) => return Ok(None),
            (before, after) => [before?, after?],
        };
        if ops[0].is_empty() {
            return Ok(None);
        }
        let layers = match &self.onnx {
            None => layer_times(&self.network, compressed, engine)?,
            Some(_) => Vec::new(),
        };
        Ok(Some(Profiled { engine: engine.name(), ops, layers }))
    }
}

/// The option by which `recipe` needs the shapes of maps.
fn needs_shapes(recipe: &Recipe) -> Option<&'static str> {
    match recipe.target {
        Target::MacsRatio(_) => Some("--macs-ratio"),
        Target::LatencyRatio(_) => Some("--latency-ratio"),
        Target::RankSums { .. } => Some("--rank-sums"),
        _ => None,
    }
}
