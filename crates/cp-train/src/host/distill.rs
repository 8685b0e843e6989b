//! Distillation of a compressed model from the dense one, on examples without labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cp_net::{Network, TemporaryFolder};
use cp_onnx::{ImportError, ImportOptions, Imported, Model, OnnxError};
use cp_ort::{Session, Tensor};
use cp_torch::tch::{self, Kind};
use cp_torch::{Executor, Mode, tensor_from_f32};
use ndarray::ArrayD;
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Examples, Host, MOST_COMPARED};
use crate::checkpoint::{Checkpoint, Header};
use crate::config::TrainConfig;
use crate::engine::{tapped, value_shapes};
use crate::error::TrainError;
use crate::key::{Key, fingerprint};
use crate::optimizer::Optimizer;
use crate::progress;
use crate::schedule::lr_at;
use crate::stages::Stages;
use crate::timing::Stopwatch;

/// Added to ‖z‖²: an output that is zero throughout has no relative error.
const TINY: f64 = 1e-12;

/// Figures of one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DistilledEpoch {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Learning rate of its last step.
    pub lr: f64,
    /// Mean loss over its steps.
    pub loss: f64,
    /// ‖z − ẑ‖ / ‖z‖ on the examples that nothing is trained on, the mean over the outputs of the region.
    pub held: f64,
    /// Seconds of training.
    pub seconds: f64,
}

/// What distillation made.
#[derive(Debug, Clone)]
pub struct Distilled {
    /// The compressed model with trained weights.
    pub model: Model,
    /// As [`DistilledEpoch::held`], before the first epoch.
    pub before: f64,
    /// Figures of every epoch.
    pub epochs: Vec<DistilledEpoch>,
    /// The epoch whose weights the model has; `None` where all were worse than before.
    pub kept: Option<usize>,
    /// What was not trained, and why, in words.
    pub notes: Vec<String>,
}

/// What a finished distillation leaves beside its network.
#[derive(Serialize, Deserialize)]
struct Course {
    before: f64,
    epochs: Vec<DistilledEpoch>,
    kept: Option<usize>,
}

impl Host {
    /// Trains the model that has the factors of `compressed`, made from the view's network, towards the dense one on the examples to work
    /// with. Of `config` count epochs, batch size, rule, rate and its schedule, norm of gradients, groups, seed, and of
    /// [`TrainConfig::distill`] the part of the layers.
    ///
    /// The loss is the mean over the outputs of ‖z − ẑ‖² / ‖z‖², and l times the same over the factorized layers. Trained is the part of the
    /// model that a network can stand for: what lies before it runs in ONNX Runtime and feeds it, and the loss stands at its end. Batch
    /// normalization keeps its statistics. The weights of the best epoch are kept, by the examples that are for that.
    ///
    /// A killed run goes on from its last epoch, in `stages`.
    ///
    /// # Errors
    /// [`TrainError::NoRegion`] where no compressed layer can be trained, with the ops that stand in the way;
    /// [`TrainError::Diverged`].
    ///
    /// Reference: Hinton, Vinyals & Dean (2015), arXiv 1503.02531; Romero et al. (2015), arXiv 1412.6550 (layers).
    pub fn distill(
        &self,
        compressed: &Network,
        config: &TrainConfig,
        stages: &Stages,
    ) -> Result<Distilled, TrainError> {
        config.check()?;
        let Some([work, held]) = &self.examples else {
            return Err(TrainError::NoRegion { why: "there are no examples to do it on".into() });
        };
        let (imported, mut notes) = self.region()?;
        let (student, outside) = self.student(&imported, compressed)?;
        if !outside.is_empty() {
            notes
                .push(format!("not trained, being outside of what can be: {}", outside.join(", ")));
        }
        let front = match outside.is_empty() {
            true => None,
            false => Some(self.with_factors(self.model.clone(), compressed, &outside)?),
        };
        let layers = config.distill.map_or(0.0, |distill| distill.layers);
        let key = Key::new("distilled", 1)
            .network("network", &student)
            .setting("dense", &fingerprint(&imported.network))
            .setting("outside", &outside)
            .setting("fine_tune", &TrainConfig { workers: 0, ..config.clone() })
            .setting("work", &work.identity()?)
            .setting("held", &held.identity()?);
        let checkpoint = stages.path(&key, "checkpoint")?;
        let (trained, course) = stages.network_and(&key, || {
            let teacher =
                Teacher::new(self, &imported, &student, front.as_ref(), layers, stages.device())?;
            let fixed = self.model.unwritable(&imported);
            let mut training = Training { teacher, config, work, held, checkpoint: &checkpoint };
            training.run(&student, &fixed)
        })?;
        match std::fs::remove_file(&checkpoint) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(TrainError::io(&checkpoint)(error));
            }
            _ => {}
        }
        let mut model = self.model.clone();
        model.rewrite(&imported, &trained)?;
        let model = self.with_factors(model, compressed, &outside)?;
        let Course { before, epochs, kept } = course;
        Ok(Distilled { model, before, epochs, kept, notes })
    }

    /// The part of the model that can be trained, and what is to be said of it.
    fn region(&self) -> Result<(Imported, Vec<String>), TrainError> {
        let options = ImportOptions::new().inputs(&self.model, &self.given);
        let why = match self.model.import(&options) {
            Ok(imported) => return Ok((imported, Vec::new())),
            Err(error @ OnnxError::Import { source: ImportError::Nodes { .. }, .. }) => error,
            Err(error) => return Err(TrainError::NoRegion { why: error.to_string() }),
        };
        let Some(region) = self.model.trainable_region(&options)? else {
            return Err(TrainError::NoRegion { why: why.to_string() });
        };
        let open: Vec<String> = region
            .inputs
            .iter()
            .filter(|(_, shape)| shape.is_none())
            .map(|(name, _)| name.clone())
            .collect();
        let sizes = value_shapes(&self.model, &open, &self.given)?;
        let mut inner = region.options(&options);
        for (name, shape) in sizes {
            inner = inner.input(name, shape);
        }
        let imported = self.model.import(&inner).map_err(|error| TrainError::NoRegion {
            why: format!("no part of it is understood ({error})"),
        })?;
        let ops = |nodes: &[cp_onnx::RefusedNode]| {
            let ops: BTreeSet<&str> = nodes.iter().map(|node| node.op.as_str()).collect();
            ops.into_iter().collect::<Vec<_>>().join(", ")
        };
        let mut notes = Vec::new();
        if !region.before.is_empty() {
            notes.push(format!(
                "what lies before {} is not trained, because of {}",
                region.inputs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", "),
                ops(&region.before)
            ));
        }
        if !region.behind.is_empty() {
            notes.push(format!(
                "the loss stands at {}, because of {} behind",
                region.outputs.join(", "),
                ops(&region.behind)
            ));
        }
        Ok((imported, notes))
    }

    /// The region with the factors of `compressed`, and the compressed layers that are not in it.
    fn student(
        &self,
        imported: &Imported,
        compressed: &Network,
    ) -> Result<(Network, Vec<String>), TrainError> {
        let mut student = imported.network.clone();
        let mut outside = Vec::new();
        for (name, record) in &compressed.architecture().factorized {
            let param = imported.layers.iter().find(|(_, layer)| layer.name == *name);
            let node = param.and_then(|(param, _)| {
                let is =
                    |node: &&cp_net::Node| node.op.has_kernel() && node.param("weight") == *param;
                student.nodes().iter().find(is).map(|node| node.name.clone())
            });
            match node {
                Some(node) => {
                    student.put_factors(&node, &compressed.factors(name)?, record.rel_error)?;
                }
                // Layers that share a kernel have a record each.
                None if self.view.layers.contains_key(name) => outside.push(name.clone()),
                None => {}
            }
        }
        if student.architecture().factorized.is_empty() {
            return Err(TrainError::NoRegion {
                why: format!(
                    "no compressed layer is in the part that can be trained, which ends at {}",
                    imported.network.architecture().outputs.join(", ")
                ),
            });
        }
        Ok((student, outside))
    }
}

/// The dense model in ONNX Runtime, which says what goes in and what should come out.
struct Teacher {
    dense: Session,
    /// Where layers before the region are compressed: what feeds it.
    front: Option<Session>,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// Outputs of factorized layers, as values of the model.
    layers: Vec<String>,
    /// How much these count.
    weight: f64,
    /// Where the student is.
    device: tch::Device,
    _folders: Vec<TemporaryFolder>,
}

/// What a step learns from.
struct Lesson {
    inputs: Vec<tch::Tensor>,
    outputs: Vec<tch::Tensor>,
    layers: Vec<tch::Tensor>,
}

impl Teacher {
    fn new(
        host: &Host,
        imported: &Imported,
        student: &Network,
        front: Option<&Model>,
        weight: f64,
        device: tch::Device,
    ) -> Result<Self, TrainError> {
        let arch = imported.network.architecture();
        let inputs: Vec<String> = arch.inputs.iter().map(|input| input.name.clone()).collect();
        let outputs = arch.outputs.clone();
        let mut layers = Vec::new();
        if weight > 0.0 {
            let parts = student.architecture().factorized.values();
            let last =
                parts.filter_map(|record| student.architecture().node(record.parts.last()?).ok());
            // Values that the import made up are not in the file.
            let known = |value: &String| host.model.taps(&[value]).is_ok();
            layers = last.map(|node| node.output().to_owned()).filter(known).collect();
        }
        let mut names: Vec<&str> = outputs.iter().chain(&layers).map(String::as_str).collect();
        let mut folders = Vec::new();
        let mut open = |model: &Model, names: &[&str]| -> Result<Session, TrainError> {
            let (session, folder) = tapped(model, names)?;
            folders.push(folder);
            Ok(session)
        };
        let own: Vec<&str> = inputs.iter().map(String::as_str).collect();
        let front = front.map(|front| open(front, &own)).transpose()?;
        if front.is_none() {
            names.extend(&own);
        }
        let dense = open(&host.model, &names)?;
        Ok(Self { dense, front, inputs, outputs, layers, weight, device, _folders: folders })
    }

    /// The lesson of several runs, one behind the other.
    fn lesson(&mut self, examples: &Examples, runs: &[usize]) -> Result<Lesson, TrainError> {
        let mut all: [Vec<Vec<tch::Tensor>>; 3] = Default::default();
        for &run in runs {
            let feed: BTreeMap<String, Tensor> = examples.run(run)?.into_iter().collect();
            let given =
                cp_ort::Inputs::new(feed.iter().map(|(name, x)| (name.clone(), x.clone())))?;
            let dense = self.dense.run_prepared(&given)?;
            let value =
                |outputs: &cp_ort::Outputs<'_>, name: &String| -> Result<tch::Tensor, TrainError> {
                    let x = match feed.get(name) {
                        Some(x) => x.clone(),
                        None => outputs.tensor(name)?,
                    };
                    Ok(tensor_from_f32(as_f32(name, &x)?.view())?)
                };
            let values = |outputs: &cp_ort::Outputs<'_>,
                          names: &[String]|
             -> Result<Vec<tch::Tensor>, TrainError> {
                names.iter().map(|name| value(outputs, name)).collect()
            };
            all[1].push(values(&dense, &self.outputs)?);
            all[2].push(values(&dense, &self.layers)?);
            all[0].push(match &mut self.front {
                None => values(&dense, &self.inputs)?,
                Some(front) => values(&front.run_prepared(&given)?, &self.inputs)?,
            });
        }
        let [inputs, outputs, layers] = all.map(|runs| joined(runs, self.device));
        Ok(Lesson { inputs: inputs?, outputs: outputs?, layers: layers? })
    }
}

/// The runs' tensors one behind the other along the batch.
fn joined(
    runs: Vec<Vec<tch::Tensor>>,
    device: tch::Device,
) -> Result<Vec<tch::Tensor>, TrainError> {
    let values = runs.first().map_or(0, Vec::len);
    (0..values)
        .map(|at| {
            let parts: Vec<&tch::Tensor> = runs.iter().map(|run| &run[at]).collect();
            Ok(tch::Tensor::f_cat(&parts, 0)?.f_to_device(device)?)
        })
        .collect()
}

/// The numbers of any array as f32.
fn as_f32(name: &str, x: &Tensor) -> Result<ArrayD<f32>, TrainError> {
    let array = match x {
        Tensor::F32(x) => x.clone(),
        Tensor::F64(x) => x.mapv(|x| x as f32),
        Tensor::F16(x) => x.mapv(f32::from),
        Tensor::I64(x) => x.mapv(|x| x as f32),
        Tensor::I32(x) => x.mapv(|x| x as f32),
        Tensor::I8(x) => x.mapv(f32::from),
        Tensor::U8(x) => x.mapv(f32::from),
        Tensor::Bool(x) => x.mapv(|x| f32::from(u8::from(x))),
    };
    match array.iter().all(|x| x.is_finite()) {
        true => Ok(array),
        false => Err(TrainError::Inputs {
            from: "the examples".into(),
            what: format!("in the dense model the value '{name}' becomes NaN or infinite"),
        }),
    }
}

struct Training<'a> {
    teacher: Teacher,
    config: &'a TrainConfig,
    work: &'a Examples,
    held: &'a Examples,
    checkpoint: &'a Path,
}

impl Training<'_> {
    fn run(
        &mut self,
        student: &Network,
        fixed: &BTreeSet<String>,
    ) -> Result<(Network, Course), TrainError> {
        let config = self.config;
        let mut model = Executor::new(student, self.teacher.device)?;
        // What cannot be written back must not change.
        let frozen: BTreeSet<String> = student
            .nodes()
            .iter()
            .filter(|node| node.param_specs().any(|(param, _)| fixed.contains(&param)))
            .map(|node| node.name.clone())
            .collect();
        model.freeze(|node| frozen.contains(node));
        let mut optimizer = Optimizer::new(&model, config);
        let taps: Vec<String> = self.teacher.layers.clone();
        let mut best: Option<Network> = None;
        let (before, mut history) = match self.resume(&mut model, &mut optimizer, &mut best)? {
            Some(done) => done,
            None => (self.held(&model)?, Vec::new()),
        };
        let mut least = best_of(&history).map_or(before, |(_, held)| held.min(before));

        let size = self.work.size_of(0).max(1);
        let group = config.batch_size.div_ceil(size).max(1);
        let steps = self.work.runs().div_ceil(group);
        for epoch in history.len()..config.epochs {
            let watch = Stopwatch::start();
            let mut order: Vec<usize> = (0..self.work.runs()).collect();
            let mut draw = ChaCha8Rng::seed_from_u64(config.seed);
            draw.set_stream(epoch as u64 + 1);
            order.shuffle(&mut draw);
            let bar = progress::bar(steps as u64, format!("epoch {}/{}", epoch + 1, config.epochs));
            let (mut sum, mut lr) = (0.0, 0.0);
            for (step, runs) in order.chunks(group).enumerate() {
                lr = lr_at(config, epoch * steps + step, steps);
                let lesson = self.teacher.lesson(self.work, runs)?;
                let inputs: Vec<&tch::Tensor> = lesson.inputs.iter().collect();
                let (outputs, layers) = model.forward_all_tapped(&inputs, Mode::Eval, &taps)?;
                let mut loss = mean_error(&outputs, &lesson.outputs)?;
                if !layers.is_empty() {
                    let part = mean_error(&layers, &lesson.layers)?;
                    loss = loss.f_add(&part.f_mul_scalar(self.teacher.weight)?)?;
                }
                optimizer.zero_grad();
                loss.f_backward()?;
                optimizer.step(lr);
                let loss = f64::try_from(&loss)?;
                if !loss.is_finite() {
                    return Err(TrainError::Diverged { epoch, step, loss, lr });
                }
                sum += loss;
                bar.set_message(format!("loss {loss:.4}"));
                bar.inc(1);
            }
            bar.finish_and_clear();
            let seconds = watch.seconds();
            let held = self.held(&model)?;
            history.push(DistilledEpoch {
                epoch,
                lr,
                loss: sum / steps.max(1) as f64,
                held,
                seconds,
            });
            if held < least {
                least = held;
                best = Some(model.network()?);
            }
            self.save(before, &model, &optimizer, &history, best.as_ref())?;
        }
        let kept = best_of(&history).filter(|(_, held)| *held < before).map(|(epoch, _)| epoch);
        let network = best.unwrap_or_else(|| student.clone());
        Ok((network, Course { before, epochs: history, kept }))
    }

    /// ‖z − ẑ‖ / ‖z‖ over the examples to look at, the mean over the outputs.
    fn held(&mut self, model: &Executor) -> Result<f64, TrainError> {
        let _guard = tch::no_grad_guard();
        let count = self.teacher.outputs.len();
        let (mut off, mut whole) = (vec![0.0; count], vec![0.0; count]);
        for run in 0..self.held.runs().min(MOST_COMPARED) {
            let lesson = self.teacher.lesson(self.held, &[run])?;
            let inputs: Vec<&tch::Tensor> = lesson.inputs.iter().collect();
            let outputs = model.forward_all(&inputs, Mode::Eval)?;
            for (at, (ours, theirs)) in outputs.iter().zip(&lesson.outputs).enumerate() {
                off[at] += square(&ours.f_sub(theirs)?)?;
                whole[at] += square(theirs)?;
            }
        }
        let errors = off.iter().zip(&whole).map(|(off, whole)| (off / (whole + TINY)).sqrt());
        Ok(errors.sum::<f64>() / count.max(1) as f64)
    }

    fn save(
        &self,
        before: f64,
        model: &Executor,
        optimizer: &Optimizer,
        history: &[DistilledEpoch],
        best: Option<&Network>,
    ) -> Result<(), TrainError> {
        let history = history.iter().map(|&epoch| Figures { before, epoch }).collect();
        // The key of the stage, which is in the name of the file, tells the data.
        let header = Header::new(self.config, String::new(), model, optimizer, history);
        Checkpoint::of(header, model, optimizer, best)?.save(self.checkpoint)
    }

    /// Takes up a run that was stopped: what was before it, and its epochs.
    fn resume(
        &self,
        model: &mut Executor,
        optimizer: &mut Optimizer,
        best: &mut Option<Network>,
    ) -> Result<Option<(f64, Vec<DistilledEpoch>)>, TrainError> {
        let path = self.checkpoint;
        if !path.exists() {
            return Ok(None);
        }
        let saved: Checkpoint<Figures> = Checkpoint::load(path)?;
        let mut network = model.network()?;
        saved.restore_network(&mut network, path)?;
        model.load(&network)?;
        if !saved.best.is_empty() {
            saved.restore_best(&mut network, path)?;
            *best = Some(network);
        }
        let reject = |what: String| TrainError::Checkpoint { path: path.into(), what };
        optimizer.restore(saved.optimizer, saved.header.steps).map_err(reject)?;
        let before = saved.header.history.first().map_or(f64::INFINITY, |figures| figures.before);
        let history = saved.header.history.iter().map(|figures| figures.epoch).collect();
        Ok(Some((before, history)))
    }
}

/// An epoch in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Figures {
    before: f64,
    epoch: DistilledEpoch,
}

/// The epoch of the least change.
fn best_of(history: &[DistilledEpoch]) -> Option<(usize, f64)> {
    let least = |a: &&DistilledEpoch, b: &&DistilledEpoch| a.held.total_cmp(&b.held);
    history.iter().min_by(least).map(|found| (found.epoch, found.held))
}

/// The mean over pairs of ‖ours − theirs‖² / ‖theirs‖².
fn mean_error(ours: &[tch::Tensor], theirs: &[tch::Tensor]) -> Result<tch::Tensor, TrainError> {
    let mut parts = Vec::with_capacity(ours.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        let off = ours.f_sub(theirs)?.f_square()?.f_sum(Kind::Float)?;
        let whole = theirs.f_square()?.f_sum(Kind::Float)?.f_add_scalar(TINY)?;
        parts.push(off.f_div(&whole)?);
    }
    Ok(tch::Tensor::f_stack(&parts, 0)?.f_mean(Kind::Float)?)
}

fn square(x: &tch::Tensor) -> Result<f64, TrainError> {
    Ok(f64::try_from(x.f_square()?.f_sum(Kind::Double)?)?)
}
