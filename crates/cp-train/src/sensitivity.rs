//! [`sensitivity`]: how much a network suffers when one layer alone is compressed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use cp_net::{Form, Network, Rank};
use cp_plan::{Decomposer, PlannedLayer, RankPlan, compress};
use cp_torch::Executor;
use cp_torch::tch::Device;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::checkpoint::write_atomic;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::evaluate::{EvalOptions, Evaluation, evaluate};
use crate::key::{data_identity, fingerprint, hex};
use crate::progress;
use crate::record::NoRecord;
use crate::train::{TrainData, train};

/// How layers are probed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensitivityOptions {
    /// Form of convolutions with a spatial extent; 1×1 convolutions and linear layers become low-rank.
    pub form: Form,
    /// The ranks that every layer is probed at; one that a layer has no room for is the largest that it has.
    pub ranks: Vec<ProbeRank>,
    /// Iterations of the solver.
    pub max_iters: usize,
    /// A short fine-tuning of the whole network after each decomposition, as Astrid & Lee (2017) do; none for SqVaD.
    #[serde(default)]
    pub fine_tune: Option<TrainConfig>,
    /// Seed of the decompositions.
    pub seed: u64,
}

impl Default for SensitivityOptions {
    /// CP-3 at rank 5, 50 iterations, no fine-tuning, seed 0.
    fn default() -> Self {
        Self {
            form: Form::Cp3,
            ranks: vec![ProbeRank::Rank(5)],
            max_iters: 50,
            fine_tune: None,
            seed: 0,
        }
    }
}

/// A rank to probe a layer at.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeRank {
    /// This one; 5 in the publications.
    Rank(usize),
    /// This share of the break-even rank in parameters.
    Share(f64),
}

/// The network with one layer compressed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The layer.
    pub layer: String,
    /// The form it was given.
    pub form: Form,
    /// The rank it was given.
    pub rank: Rank,
    /// Relative error of its kernel.
    pub rel_error: f64,
    /// The network on the validation data.
    pub evaluation: Evaluation,
}

/// What probing all layers found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    /// The dense network on the validation data.
    pub dense: Evaluation,
    /// Layer after layer, the ranks of each in the order asked for.
    pub probes: Vec<Probe>,
}

/// What counts as the loss of a layer when ranks are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossRule {
    /// The fall of the accuracy, in points: Astrid & Lee (2017), §4.1, who measure it after fine-tuning.
    AccuracyDrop,
    /// The cross-entropy itself: SqVaD.
    CrossEntropy,
    /// The rise of the cross-entropy over that of the dense network.
    LossIncrease,
}

impl Sensitivity {
    /// The loss of every layer: the mean over its probes.
    pub fn losses(&self, rule: LossRule) -> BTreeMap<String, f64> {
        self.means(|probe| match rule {
            LossRule::AccuracyDrop => 100.0 * (self.dense.top1 - probe.evaluation.top1),
            LossRule::CrossEntropy => probe.evaluation.loss,
            LossRule::LossIncrease => probe.evaluation.loss - self.dense.loss,
        })
    }

    /// The rise of the cross-entropy per squared relative error of a layer's kernel, at least 0: weights for
    /// [`Objective::SumOfSquares`](cp_plan::Objective).
    pub fn weights(&self) -> BTreeMap<String, f64> {
        self.means(|probe| {
            let rise = (probe.evaluation.loss - self.dense.loss).max(0.0);
            rise / probe.rel_error.powi(2).max(1e-6)
        })
    }

    fn means(&self, of: impl Fn(&Probe) -> f64) -> BTreeMap<String, f64> {
        let mut sums: BTreeMap<String, (f64, usize)> = BTreeMap::new();
        for probe in &self.probes {
            let (sum, count) = sums.entry(probe.layer.clone()).or_default();
            *sum += of(probe);
            *count += 1;
        }
        sums.into_iter().map(|(layer, (sum, count))| (layer, sum / count as f64)).collect()
    }
}

/// Compresses every layer alone, fine-tunes shortly where asked to, and evaluates the network on the validation data.
///
/// With a `cache` file, every probe is kept as it is done: a killed run goes on behind the last one, and a second run with the
/// same network, data and options reads the file. A file of other ones is not touched, and an error.
///
/// # Errors
/// No validation data; what decomposition, training and evaluation refuse; a cache of another run.
pub fn sensitivity(
    network: &Network,
    data: &TrainData,
    options: &SensitivityOptions,
    device: Device,
    cache: Option<&Path>,
) -> Result<Sensitivity, TrainError> {
    let Some(validation) = &data.validation else {
        return Err(TrainError::Config {
            option: "sensitivity",
            got: "no validation data".into(),
            expected: "validation data to measure on",
        });
    };
    let planned = probes(network, options)?;
    let mut cache = Cache::open(cache, network, data, options)?;
    let score = |network: &Network| -> Result<Evaluation, TrainError> {
        evaluate(&Executor::new(network, device)?, validation, &EvalOptions::default())
    };
    let dense = match cache.dense {
        Some(dense) => dense,
        None => {
            let dense = score(network)?;
            cache.write(&Line::Dense(dense))?;
            dense
        }
    };
    let decomposer =
        Decomposer { max_iters: options.max_iters, seed: options.seed, ..Decomposer::default() };
    let bar = progress::bar(planned.len() as u64, "probe layers");
    let mut probes = std::mem::take(&mut cache.probes);
    probes.truncate(planned.len());
    bar.inc(probes.len() as u64);
    for planned in planned.into_iter().skip(probes.len()) {
        bar.set_message(planned.name.clone());
        let PlannedLayer { name, form, rank, .. } = planned.clone();
        let mut probed = network.clone();
        let plan = RankPlan { layers: vec![planned], dense: Vec::new() };
        let reports = compress(&mut probed, &plan, &decomposer, &|_| {})?;
        if let Some(config) = &options.fine_tune {
            let mut model = Executor::new(&probed, device)?;
            let unwatched = TrainData { train: data.train.clone(), validation: None };
            train(&mut model, &unwatched, config, &mut NoRecord, None)?;
            probed = model.network()?;
        }
        let evaluation = Evaluation { seconds: 0.0, ..score(&probed)? };
        let rel_error = reports.first().map_or(0.0, |report| report.rel_error);
        let probe = Probe { layer: name, form, rank, rel_error, evaluation };
        cache.write(&Line::Probe(probe.clone()))?;
        probes.push(probe);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Sensitivity { dense: Evaluation { seconds: 0.0, ..dense }, probes })
}

/// The layers to probe and their ranks.
fn probes(
    network: &Network,
    options: &SensitivityOptions,
) -> Result<Vec<PlannedLayer>, TrainError> {
    let arch = network.architecture();
    let mut planned = Vec::new();
    for name in arch.compressible() {
        let Some(form) = options.form.suited_to(&arch.node(&name)?.op) else { continue };
        if !matches!(form.least_rank(), Rank::One(_)) {
            return Err(TrainError::Config {
                option: "form",
                got: form.to_string(),
                expected: "a form with one rank to probe with: cp3 or cp4",
            });
        }
        let even = arch.breakeven(&name, form, arch.input_shapes())?.params;
        // The largest rank below break-even.
        let most = (even.ceil() as usize).saturating_sub(1);
        if most == 0 {
            continue;
        }
        for rank in &options.ranks {
            let rank = match *rank {
                ProbeRank::Rank(rank) => rank,
                ProbeRank::Share(share) => (share * even).floor() as usize,
            };
            let rank = Rank::One(rank.clamp(1, most));
            planned.push(PlannedLayer { name: name.clone(), form, rank, why: String::new() });
        }
    }
    Ok(planned)
}

/// The probes done so far, as lines of JSON behind one that says what they belong to.
struct Cache {
    path: Option<PathBuf>,
    dense: Option<Evaluation>,
    probes: Vec<Probe>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// SHA-256 of network, data and options.
    Of(String),
    Dense(Evaluation),
    Probe(Probe),
}

impl Cache {
    fn open(
        path: Option<&Path>,
        network: &Network,
        data: &TrainData,
        options: &SensitivityOptions,
    ) -> Result<Self, TrainError> {
        let mut cache = Self { path: path.map(Path::to_owned), dense: None, probes: Vec::new() };
        let Some(path) = path else { return Ok(cache) };
        let of = inputs(network, data, options)?;
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write_atomic(path, line(&Line::Of(of)).as_bytes())?;
                return Ok(cache);
            }
            Err(error) => return Err(TrainError::io(path)(error)),
        };
        let mut lines = text.lines().map(serde_json::from_str::<Line>);
        match lines.next() {
            Some(Ok(Line::Of(found))) if found == of => {}
            _ => {
                return Err(TrainError::Checkpoint {
                    path: path.into(),
                    what: "it holds probes of another network, other data or other options".into(),
                });
            }
        }
        // What a kill cut off, and everything behind it, is computed again.
        for line in lines.map_while(Result::ok) {
            match line {
                Line::Dense(dense) => cache.dense = Some(dense),
                Line::Probe(probe) => cache.probes.push(probe),
                Line::Of(_) => break,
            }
        }
        let mut whole = line(&Line::Of(of));
        whole.extend(cache.dense.iter().map(|dense| line(&Line::Dense(*dense))));
        whole.extend(cache.probes.iter().map(|probe| line(&Line::Probe(probe.clone()))));
        write_atomic(path, whole.as_bytes())?;
        Ok(cache)
    }

    fn write(&mut self, what: &Line) -> Result<(), TrainError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut file =
            std::fs::OpenOptions::new().append(true).open(path).map_err(TrainError::io(path))?;
        file.write_all(line(what).as_bytes()).map_err(TrainError::io(path))
    }
}

fn line(what: &Line) -> String {
    // Strings and numbers always have a JSON form.
    serde_json::to_string(what).unwrap_or_default() + "\n"
}

/// SHA-256 of everything that decides the probes.
fn inputs(
    network: &Network,
    data: &TrainData,
    options: &SensitivityOptions,
) -> Result<String, TrainError> {
    let mut hash = Sha256::new();
    hash.update(fingerprint(network));
    for set in std::iter::once(&data.train).chain(&data.validation) {
        hash.update(data_identity(&**set)?);
    }
    hash.update(serde_json::to_string(options).unwrap_or_default());
    Ok(hex(hash))
}
