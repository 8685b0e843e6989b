//! ONNX models of other people compressed without data: whether they run, how much faster, and how far their outputs move.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cp_net::arch::{Builder, window};
use cp_net::{Architecture, InputSpec, Totals};
use cp_onnx::Model;
use cp_plan::PlanError;
use cp_report::{Cell, Column, Report, Table};
use cp_train::engine::{Change, Inputs, Subject, value_shapes};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{Engine, Host, Recipe, Target, TrainError};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::experiment::{Experiment, Findings, all_known};
use crate::figures::threads_text;

/// `experiments/third-party.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    models: Vec<String>,
    ratio: f64,
    batches: Vec<usize>,
    repeats: usize,
    seed: u64,
    known: BTreeMap<String, Known>,
}

/// A model.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// In the data folder; `drawn` for a small one with random weights.
    file: String,
    about: String,
    #[serde(default)]
    inputs: BTreeMap<String, Vec<usize>>,
    #[serde(default)]
    counts: Counts,
}

/// What the ratio is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Counts {
    #[default]
    MultiplyAdds,
    Parameters,
}

pub(crate) struct ThirdParty {
    settings: Settings,
    paths: BTreeMap<String, PathBuf>,
    threads: usize,
}

/// What became of a model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    model: String,
    done: Result<Compressed, Unreachable>,
}

/// A compressed model.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Compressed {
    /// Layers that were factorized, and all that could be.
    layers: [usize; 2],
    /// Of the layers, dense and compressed.
    params: [usize; 2],
    /// The same, where it is known.
    macs: Option<[usize; 2]>,
    /// Of the output that moved most, on a drawn example: ‖y − ŷ‖ / ‖y‖.
    moved: f64,
    times: Vec<Times>,
}

/// Times of a batch, in turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Times {
    batch: usize,
    dense: Timing,
    compressed: Timing,
}

/// The nearest ratio that ranks give.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Unreachable {
    nearest: f64,
}

impl Experiment for ThirdParty {
    type Settings = Settings;
    type Cell = String;
    type Outcome = Outcome;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        all_known("--models", &settings.models, &settings.known)?;
        Ok(recipe(settings, Counts::MultiplyAdds).check(false)?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let mut paths = BTreeMap::new();
        for name in &settings.models {
            paths.insert(name.clone(), context.model(&settings.known[name].file, drawn)?);
        }
        Ok(Self { settings, paths, threads: timing::set_threads(0) })
    }

    fn cells(&self) -> Vec<String> {
        self.settings.models.clone()
    }

    fn name(model: &String) -> String {
        model.clone()
    }

    fn run(&self, context: &Context, name: &String) -> Result<Outcome> {
        let sum = cp_data::sha256_file(&self.paths[name])?;
        let settings = (&self.settings, self.threads, sum);
        context.stage(name, &settings, &[], || self.one(context, name))
    }

    fn report(&self, _context: &Context, outcomes: Vec<Outcome>) -> Result<Findings> {
        Ok(self.write_report(&outcomes))
    }
}

fn recipe(settings: &Settings, counts: Counts) -> Recipe {
    let target = match counts {
        Counts::MultiplyAdds => Target::MacsRatio(settings.ratio),
        Counts::Parameters => Target::ParamsRatio(settings.ratio),
    };
    let mut recipe = Recipe::data_free(target).seeded(settings.seed);
    recipe.plan.never_slower = true;
    recipe
}

/// Two convolutions.
fn drawn() -> Result<Architecture> {
    Ok(Builder::new("drawn", InputSpec::features([3, 16, 16]))
        .conv("a", 32, window(3).pad(1))
        .relu("r")
        .conv("b", 32, window(3).pad(1))
        .build()?)
}

impl ThirdParty {
    fn one(&self, context: &Context, name: &str) -> Result<Outcome> {
        let (config, path) = (&self.settings, &self.paths[name]);
        let known = &config.known[name];
        let stages = context.stages.within(&format!("models/{name}"))?;
        let model = Model::open(path)?;
        let shapes = match known.counts {
            Counts::MultiplyAdds => {
                Some(value_shapes(&model, &model.layer_inputs()?, &known.inputs, &BTreeMap::new())?)
            }
            Counts::Parameters => None,
        };
        let view = model.layer_view(shapes.as_ref())?;
        let all = view.layers.len();
        let mut recipe = recipe(config, known.counts);
        recipe.plan.keep.extend(view.fixed.iter().map(|(layer, _)| layer.clone()));
        let host = Host::new(path, model, view, known.inputs.clone());
        let done = match recipe.run_in(&host, &stages) {
            Err(TrainError::Plan(error)) => match *error {
                PlanError::BudgetUnreachable { nearest, .. } => {
                    return Ok(Outcome { model: name.into(), done: Err(Unreachable { nearest }) });
                }
                error => return Err(error.into()),
            },
            done => done?,
        };
        let out = stages.dir().file("compressed.onnx");
        host.rewritten(&done.network)?.save(&out)?;
        let changes = host.changes(&out)?;
        let moved = changes.iter().map(|Change { relative, .. }| *relative).fold(0.0, f64::max);
        let [dense, compressed] = done.cost;
        let pair = |of: fn(&Totals) -> usize| [of(&dense), of(&compressed)];
        let compressed = Compressed {
            layers: [done.plan.layers.len(), all],
            params: pair(|cost| cost.params),
            macs: (known.counts == Counts::MultiplyAdds).then(|| pair(|cost| cost.macs)),
            moved,
            times: self.times(path, &out, &known.inputs)?,
        };
        Ok(Outcome { model: name.into(), done: Ok(compressed) })
    }

    /// Both models in turn, at every batch size that they take.
    fn times(
        &self,
        dense: &Path,
        compressed: &Path,
        given: &BTreeMap<String, Vec<usize>>,
    ) -> Result<Vec<Times>> {
        let shapes = Engine::model_shapes(dense, given)?;
        let subjects = [Subject::Model(dense), Subject::Model(compressed)];
        let options = TimingOptions { repeats: self.settings.repeats, ..TimingOptions::default() };
        let mut times = Vec::new();
        for &batch in &self.settings.batches {
            let inputs = Inputs { shapes: shapes.clone(), batch };
            match Engine::OnnxRuntime.latency(&subjects, &inputs, &options) {
                Err(TrainError::FixedBatch { .. }) => {}
                found => {
                    let found = found?;
                    times.push(Times { batch, dense: found[0], compressed: found[1] });
                }
            }
        }
        Ok(times)
    }

    fn write_report(&self, outcomes: &[Outcome]) -> Findings {
        let config = &self.settings;
        let done = outcomes.iter().filter_map(|one| Some((one, one.done.as_ref().ok()?)));
        let faster = done
            .clone()
            .filter(|(_, one)| {
                one.times.iter().all(|times| times.dense.median >= times.compressed.median)
            })
            .count();
        let verdict = format!(
            "{} of {} models of other people were brought to {} of their multiply-adds, without data; {faster} of them are at least as fast as \
             before at every batch size.",
            done.clone().count(),
            outcomes.len(),
            config.ratio
        );
        let mut columns = vec![
            Column::text("model"),
            Column::text("finds"),
            Column::text("layers factorized"),
            Column::number("fewer parameters"),
            Column::number("fewer multiply-adds"),
            Column::number("outputs moved").unit("%"),
        ];
        for batch in &config.batches {
            columns.push(Column::number(format!("batch {batch}, dense")).unit("ms"));
            columns.push(Column::number("compressed").unit("ms"));
            columns.push(Column::number("faster"));
        }
        let mut table = Table::new("Compressed beside dense", columns);
        for one in outcomes {
            let about = &config.known[&one.model].about;
            let mut row = vec![Cell::text(&one.model), Cell::text(about)];
            let ratio = |[dense, small]: [usize; 2]| Cell::ratio(dense as f64 / small as f64, 2);
            match &one.done {
                Err(Unreachable { nearest }) => {
                    row.push(Cell::text(format!("none: the nearest ratio is {nearest:.3}")));
                }
                Ok(done) => {
                    row.push(Cell::text(format!("{} of {}", done.layers[0], done.layers[1])));
                    row.push(ratio(done.params));
                    row.push(done.macs.map_or_else(Cell::missing, ratio));
                    row.push(Cell::percent(done.moved, 1));
                    for batch in &config.batches {
                        match done.times.iter().find(|times| times.batch == *batch) {
                            None => row.extend([Cell::missing(), Cell::missing(), Cell::missing()]),
                            Some(Times { dense, compressed, .. }) => row.extend([
                                Cell::millis(dense.median),
                                Cell::millis(compressed.median),
                                Cell::ratio(dense.median / compressed.median, 2),
                            ]),
                        }
                    }
                }
            }
            row.resize_with(6 + 3 * config.batches.len(), Cell::missing);
            table.row(row);
        }
        table.note(format!(
            "Parameters and multiply-adds are those of the layers. Outputs moved: ‖y − ŷ‖ / ‖y‖ of the output that moved most, on one example of \
             drawn numbers. Times of ONNX Runtime, {}, of both models in turn; no batch where the file fixes another one. No layer was factorized \
             that is slower than dense; where only parameters are counted, each was timed by the whole model with it alone.",
            threads_text(self.threads)
        ));
        let mut report = Report::new("ONNX models of other people", verdict);
        report.add(table);
        let result = serde_json::json!({ "outcomes": outcomes });
        Findings { report, result, rows: Vec::new(), fault: None }
    }
}
