//! Distillation of a compressed model from the dense one, on examples without labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cp_net::Network;
use cp_onnx::{Binding, ImportError, ImportOptions, Imported, OnnxError};
use cp_ort::Tensor;
use cp_torch::{Executor, Mode, tch};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::loss::{Scales, relative_error};
use super::teacher::Teacher;
use super::{Distilled, DistilledEpoch, Examples, Host, MOST_COMPARED};
use crate::checkpoint::{Checkpoint, Header};
use crate::config::TrainConfig;
use crate::engine::value_shapes;
use crate::error::TrainError;
use crate::key::{Key, fingerprint};
use crate::optimizer::Optimizer;
use crate::progress;
use crate::schedule::lr_at;
use crate::stages::Stages;
use crate::timing::Stopwatch;

/// Most runs that the scales of the outputs are measured on.
const MOST_MEASURED: usize = 64;

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
    /// The loss is the share of the variance of the outputs that is not explained, by columns (`loss.rs`), and l times the mean of ‖z − ẑ‖² / ‖z‖²
    /// over the factorized layers. Trained is the part of the
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
        let (imported, mut notes) = self.region(compressed)?;
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
        let key = Key::new("distilled", 2)
            .network("network", &student)
            .setting("dense", &fingerprint(&imported.network))
            .setting("outside", &outside)
            .setting("fine_tune", &TrainConfig { workers: 0, ..config.clone() })
            .setting("work", &work.identity()?)
            .setting("held", &held.identity()?);
        let checkpoint = stages.path(&key, "checkpoint")?;
        let (trained, course) = stages.network_and(&key, || {
            let teacher = Teacher::new(
                self,
                &imported,
                &student,
                front.as_ref(),
                layers,
                stages.device().into(),
            )?;
            let fixed = self.model.unwritable(&imported);
            let mut training = Training::new(teacher, config, work, held, &checkpoint)?;
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

    /// The part of the model around the layers of `compressed` that can be trained, and what is to be said of it.
    fn region(&self, compressed: &Network) -> Result<(Imported, Vec<String>), TrainError> {
        let constants =
            self.examples.as_ref().map_or_else(BTreeMap::new, |[work, _]| work.constants());
        let mut options = ImportOptions::new().inputs(&self.model, &self.given);
        for (name, value) in &constants {
            options = options.bind(name.clone(), binding(value));
        }
        let why = match self.model.import(&options) {
            Ok(imported) => return Ok((imported, Vec::new())),
            Err(error @ OnnxError::Import { source: ImportError::Nodes { .. }, .. }) => error,
            Err(error) => return Err(TrainError::NoRegion { why: error.to_string() }),
        };
        let factorized = &compressed.architecture().factorized;
        let counts = |layer: &str| factorized.contains_key(layer);
        let sizes = |values: &[String]| value_shapes(&self.model, values, &self.given, &constants);
        let Some(region) = self.model.trainable_region(&options, &counts, sizes)? else {
            return Err(TrainError::NoRegion { why: why.to_string() });
        };
        let imported = self.model.import(&region.options(&options)).map_err(|error| {
            TrainError::NoRegion { why: format!("no part of it is understood ({error})") }
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

/// An input that is the same for all examples, as what an import takes.
fn binding(value: &Tensor) -> Binding {
    match value {
        Tensor::F32(x) => Binding::Floats(x.clone()),
        Tensor::F64(x) => Binding::Floats(x.mapv(|x| x as f32)),
        Tensor::F16(x) => Binding::Floats(x.mapv(f32::from)),
        Tensor::I64(x) => Binding::Ints(x.clone()),
        Tensor::I32(x) => Binding::Ints(x.mapv(i64::from)),
        Tensor::I8(x) => Binding::Ints(x.mapv(i64::from)),
        Tensor::U8(x) => Binding::Ints(x.mapv(i64::from)),
        Tensor::Bool(x) => Binding::Bools(x.clone()),
    }
}

struct Training<'a> {
    teacher: Teacher,
    scales: Scales,
    config: &'a TrainConfig,
    work: &'a Examples,
    held: &'a Examples,
    checkpoint: &'a Path,
}

impl<'a> Training<'a> {
    fn new(
        mut teacher: Teacher,
        config: &'a TrainConfig,
        work: &'a Examples,
        held: &'a Examples,
        checkpoint: &'a Path,
    ) -> Result<Self, TrainError> {
        let runs = 0..work.runs().min(MOST_MEASURED);
        let scales = Scales::of(runs.map(|run| Ok(teacher.lesson(work, &[run])?.outputs)))?;
        Ok(Self { teacher, scales, config, work, held, checkpoint })
    }

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
                let outputs = self.teacher.taught(&outputs);
                let mut loss = self.scales.error(&outputs, &lesson.outputs)?;
                if !layers.is_empty() {
                    let part = relative_error(&layers, &lesson.layers)?;
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

    /// The root of the loss of the outputs over the examples to look at.
    fn held(&mut self, model: &Executor) -> Result<f64, TrainError> {
        let _guard = tch::no_grad_guard();
        let runs = self.held.runs().min(MOST_COMPARED);
        let mut sum = 0.0;
        for run in 0..runs {
            let lesson = self.teacher.lesson(self.held, &[run])?;
            let inputs: Vec<&tch::Tensor> = lesson.inputs.iter().collect();
            let outputs = self.teacher.taught(&model.forward_all(&inputs, Mode::Eval)?);
            sum += f64::try_from(&self.scales.error(&outputs, &lesson.outputs)?)?;
        }
        Ok((sum / runs.max(1) as f64).sqrt())
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
