//! Detectors compressed without labels, and taught by the dense model: whether they still find what it finds.

mod finds;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use cp_data::Dataset;
use cp_net::arch::{Builder, window};
use cp_net::{Architecture, Channels, INPUT, InputSpec};
use cp_onnx::Model;
use cp_ort::{Session, SessionOptions};
use cp_report::{Axis, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::engine::{Inputs, Subject, value_shapes};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{Engine, Examples, Host, PictureLayout, Recipe, Target, TrainConfig};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::experiment::{Experiment, Findings, Row, all_known};
use crate::figures::threads_text;
use finds::{Agreement, Finds};

/// `experiments/detectors.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    dataset: String,
    work_split: String,
    test_split: String,
    models: Vec<String>,
    ratio: f64,
    epochs: usize,
    lr: f64,
    seed: u64,
    timing_batch: usize,
    known: BTreeMap<String, Known>,
}

/// A model, its pictures, and what it finds in them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    /// In the data folder; `drawn` for a small one with random weights.
    file: String,
    /// Height and width.
    size: [usize; 2],
    channels: Channels,
    scale: f64,
    mean: Vec<f64>,
    std: Vec<f64>,
    finds: Finds,
}

pub(crate) struct Detectors {
    settings: Settings,
    paths: BTreeMap<String, PathBuf>,
    work: Arc<dyn Dataset>,
    test: Arc<dyn Dataset>,
    threads: usize,
}

/// A compressed model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    model: String,
    layers: usize,
    /// Multiply-adds and parameters of the layers, dense and compressed.
    macs: [usize; 2],
    params: [usize; 2],
    /// Error of the outputs of what was trained, of what they vary by, on pictures set aside: before, and after each epoch.
    held: Vec<f64>,
    /// With the dense model on the test pictures: decomposed, and taught.
    agreement: [Agreement; 2],
    /// Seconds of the training.
    seconds: f64,
    dense: Timing,
    compressed: Timing,
}

impl Experiment for Detectors {
    type Settings = Settings;
    type Cell = String;
    type Outcome = Outcome;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        all_known("--models", &settings.models, &settings.known)?;
        Ok(recipe(settings).check(true)?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let work = context.dataset(&settings.dataset, &settings.work_split)?;
        let test = context.dataset(&settings.dataset, &settings.test_split)?;
        let mut paths = BTreeMap::new();
        for name in &settings.models {
            let known = &settings.known[name];
            paths.insert(name.clone(), context.model(&known.file, || drawn(known))?);
        }
        Ok(Self { settings, paths, work, test, threads: timing::set_threads(0) })
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

fn recipe(settings: &Settings) -> Recipe {
    Recipe::with_inputs(Target::MacsRatio(settings.ratio)).seeded(settings.seed)
}

/// A model of two convolutions with random weights.
fn drawn(known: &Known) -> Result<Architecture> {
    let [height, width] = known.size;
    let input = InputSpec::features([3, height, width]);
    Ok(Builder::new("drawn", input)
        .conv("a", 32, window(3).pad(1))
        .relu("r")
        .conv("b", 16, window(3).pad(1))
        .relu("s")
        .conv("c", 1, window(1))
        .sigmoid("p")
        .build()?)
}

impl Known {
    fn spec(&self) -> InputSpec {
        let [height, width] = self.size;
        InputSpec {
            name: INPUT.into(),
            shape: vec![3, height, width],
            channels: self.channels,
            scale: self.scale,
            mean: self.mean.clone(),
            std: self.std.clone(),
        }
    }

    fn pictures(&self, set: &Arc<dyn Dataset>, model: &Path) -> Result<Examples> {
        let inputs = Engine::model_inputs(model)?;
        Ok(Examples::pictures(set.clone(), &inputs, self.spec(), PictureLayout::Nchw, 1)?)
    }
}

impl Detectors {
    fn one(&self, context: &Context, name: &str) -> Result<Outcome> {
        let (config, path) = (&self.settings, &self.paths[name]);
        let known = &config.known[name];
        let stages = context.stages.within(&format!("models/{name}"))?;
        let [height, width] = known.size;
        let given = BTreeMap::from([(INPUT.to_owned(), vec![3, height, width])]);
        let model = Model::open(path)?;
        let shapes = value_shapes(&model, &model.layer_inputs()?, &given, &BTreeMap::new())?;
        let view = model.layer_view(Some(&shapes))?;
        let fixed: Vec<String> = view.fixed.iter().map(|(layer, _)| layer.clone()).collect();
        let host = Host::new(path, model, view, given.clone())
            .with_examples(&known.pictures(&self.work, path)?, config.seed);
        let mut recipe = recipe(config);
        recipe.plan.keep.extend(fixed);
        let done = recipe.run_in(&host, &stages)?;
        let decomposed = stages.dir().file("decomposed.onnx");
        host.rewritten(&done.network)?.save(&decomposed)?;
        let tune = TrainConfig {
            lr: config.lr,
            seed: config.seed,
            ..TrainConfig::distilling(config.epochs)
        };
        let taught = host.distill(&done.network, &tune, &stages)?;
        for note in &taught.notes {
            eprintln!("note: {name}: {note}");
        }
        let out = stages.dir().file("compressed.onnx");
        taught.model.save(&out)?;

        let before = self.agreement(known, path, &decomposed)?;
        let after = self.agreement(known, path, &out)?;
        let inputs =
            Inputs { shapes: Engine::model_shapes(path, &given)?, batch: config.timing_batch };
        let subjects = [Subject::Model(path), Subject::Model(&out)];
        let times = Engine::OnnxRuntime.latency(&subjects, &inputs, &TimingOptions::default())?;
        let [dense, compressed] = done.cost;
        let mut held = vec![taught.before];
        held.extend(taught.epochs.iter().map(|epoch| epoch.held));
        Ok(Outcome {
            model: name.into(),
            layers: done.plan.layers.len(),
            macs: [dense.macs, compressed.macs],
            params: [dense.params, compressed.params],
            held,
            agreement: [before, after],
            seconds: taught.epochs.iter().map(|epoch| epoch.seconds).sum(),
            dense: times[0],
            compressed: times[1],
        })
    }

    /// What two models find in the test pictures.
    fn agreement(&self, known: &Known, dense: &Path, compressed: &Path) -> Result<Agreement> {
        let options = SessionOptions { threads: self.threads, ..SessionOptions::default() };
        let mut sessions = [Session::new(dense, &options)?, Session::new(compressed, &options)?];
        let pictures = known.pictures(&self.test, dense)?;
        let mut agreement = Agreement::default();
        for run in 0..pictures.runs() {
            let feed = cp_ort::Inputs::new(pictures.run(run)?)?;
            let mut found = Vec::with_capacity(2);
            for session in &mut sessions {
                let outputs = session.run_prepared(&feed)?.to_tensors()?;
                found.push(known.finds.read(&outputs, known.size).context("the outputs")?);
            }
            agreement.add(&found[0], &found[1]);
        }
        Ok(agreement)
    }

    fn write_report(&self, outcomes: &[Outcome]) -> Findings {
        let config = &self.settings;
        let told: Vec<String> = outcomes
            .iter()
            .map(|one| {
                let [before, after] = one.agreement;
                format!("{} {:.1} → {:.1} %", one.model, 100.0 * before.value, 100.0 * after.value)
            })
            .collect();
        let verdict = format!(
            "Agreement with the dense model at about {:.1}× fewer multiply-adds, decomposed → after {} epochs without labels: {}.",
            1.0 / config.ratio,
            config.epochs,
            told.join("; ")
        );
        let mut report = Report::new("Detectors without labels", verdict);
        let mut table = Table::new(
            "Compressed beside dense",
            [
                Column::text("model"),
                Column::number("fewer multiply-adds"),
                Column::number("fewer parameters"),
                Column::text("agreement is"),
                Column::number("found by the dense model"),
                Column::number("decomposed").unit("%"),
                Column::number("taught").unit("%"),
                Column::number("outputs off, decomposed").unit("%"),
                Column::number("taught").unit("%"),
                Column::number("trained").unit("s"),
                Column::number("dense").unit("ms"),
                Column::number("compressed").unit("ms"),
                Column::number("faster"),
            ],
        );
        for one in outcomes {
            let ratio = |[dense, small]: [usize; 2]| dense as f64 / small as f64;
            let [before, after] = one.agreement;
            let least = one.held.iter().copied().fold(f64::INFINITY, f64::min);
            table.row([
                Cell::text(&one.model),
                Cell::ratio(ratio(one.macs), 2),
                Cell::ratio(ratio(one.params), 2),
                Cell::text(config.known[&one.model].finds.measure()),
                Cell::count(before.found() as u64),
                Cell::percent(before.value, 1),
                Cell::percent(after.value, 1).strong(),
                Cell::percent(one.held[0], 1),
                Cell::percent(least, 1),
                Cell::number(one.seconds, 0),
                Cell::millis(one.dense.median),
                Cell::millis(one.compressed.median),
                Cell::ratio(one.dense.median / one.compressed.median, 2),
            ]);
        }
        table.note(format!(
            "Worked with on {} pictures ({}), a fifth of them set aside to choose the epoch by; agreement on {} others ({}), once. Boxes are \
             matched at an intersection over union of 0.5, both models with the model's own score threshold and suppression; maps are cut at \
             the model's own threshold. Times of ONNX Runtime, batch {}, {}.",
            self.work.len(),
            self.work.name(),
            self.test.len(),
            self.test.name(),
            config.timing_batch,
            threads_text(self.threads)
        ));
        report.add(table);
        let mut plot = XyPlot::new(
            "Learning from the dense model",
            Axis::count("epoch"),
            Axis::percent("error of the outputs, of what they vary by, pictures set aside")
                .include(0.0),
        );
        for one in outcomes {
            let points = one.held.iter().enumerate().map(|(epoch, held)| (epoch as f64, *held));
            plot = plot.series(Series::both(&one.model, points));
        }
        report.add(plot);
        let row = |one: &Outcome| Row {
            network: format!("{}, from its ONNX file, taught without labels", one.model),
            data: format!("{}, {} unlabelled pictures", config.dataset, self.work.len()),
            params: format!("{:.1}× fewer", one.params[0] as f64 / one.params[1] as f64),
            macs: format!("{:.1}× fewer", one.macs[0] as f64 / one.macs[1] as f64),
            top1: format!(
                "{}: {:.0} %",
                config.known[&one.model].finds.measure(),
                100.0 * one.agreement[1].value
            ),
            speed: format!(
                "{:.2}× (batch {}, {})",
                one.dense.median / one.compressed.median,
                config.timing_batch,
                threads_text(self.threads)
            ),
        };
        let rows = outcomes.iter().map(row).collect();
        let result = serde_json::json!({ "outcomes": outcomes });
        Findings { report, result, rows, fault: None }
    }
}
