//! What `polyad compress` answers, for one model or several: as text and as JSON here, as a report to look at in [`page`].

mod page;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cp_net::{Form, Network, Rank, Totals};
use cp_plan::{DenseLayer, LayerReport};
use cp_train::engine::{Change, OpTime};
use cp_train::{
    DistilledEpoch, EngineName, EpochMetrics, Evaluation, LayerTime, Origin, Recipe, Stages,
};
use serde::Serialize;

use super::options::Args;
use super::source::{Done, Source};
use crate::output::{Column, Report, Table, count, percent};

/// What a model or a layer costs for one image.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Size {
    parameters: usize,
    macs: usize,
}

impl From<Totals> for Size {
    fn from(cost: Totals) -> Self {
        Self { parameters: cost.params, macs: cost.macs }
    }
}

/// Times of both models in turn, per batch.
#[derive(Clone, Copy, Serialize)]
struct Latency {
    engine: EngineName,
    batch: usize,
    threads: usize,
    dense_ms: f64,
    compressed_ms: f64,
    /// Dense / compressed.
    ratio: f64,
    /// First and third quartile.
    dense_quartiles_ms: [f64; 2],
    compressed_quartiles_ms: [f64; 2],
}

impl From<&cp_train::Latency> for Latency {
    fn from(found: &cp_train::Latency) -> Self {
        let quartiles = |time: cp_train::timing::Timing| [1e3 * time.lower, 1e3 * time.upper];
        Self {
            engine: found.engine,
            batch: found.batch,
            threads: found.threads,
            dense_ms: 1e3 * found.dense.median,
            compressed_ms: 1e3 * found.compressed.median,
            ratio: found.speedup(),
            dense_quartiles_ms: quartiles(found.dense),
            compressed_quartiles_ms: quartiles(found.compressed),
        }
    }
}

/// One state of the network.
#[derive(Serialize)]
struct Stage {
    stage: String,
    #[serde(flatten)]
    size: Size,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<Evaluation>,
    /// Whether the next step went on from here.
    kept: bool,
}

impl Stage {
    fn name(&self) -> String {
        if self.kept { self.stage.clone() } else { format!("{}, not kept", self.stage) }
    }
}

#[derive(Serialize)]
struct LayerRow {
    name: String,
    form: Form,
    rank: Rank,
    /// In parameters; none for forms whose rank is more than one number.
    breakeven: Option<f64>,
    relative_error: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    weighted_error: Option<f64>,
    component_energy: f64,
    iterations: usize,
    stop: Option<&'static str>,
    before: Size,
    after: Size,
}

/// Top-1 and the rest on the test split.
#[derive(Serialize)]
struct Test {
    dense: Evaluation,
    compressed: Evaluation,
}

/// How a model learned from the dense one.
#[derive(Serialize)]
struct Course {
    /// Error of the outputs, of what they vary by, on examples that nothing is trained on, before.
    before: f64,
    epochs: Vec<DistilledEpoch>,
    /// The epoch whose weights were kept; none where all were worse than before.
    kept: Option<usize>,
}

impl Course {
    fn after(&self) -> f64 {
        self.kept.and_then(|kept| Some(self.epochs.get(kept)?.held)).unwrap_or(self.before)
    }
}

/// One compressed model.
#[derive(Serialize)]
pub(super) struct Made {
    #[serde(skip)]
    label: String,
    after: Size,
    params_ratio: f64,
    macs_ratio: f64,
    layers: Vec<LayerRow>,
    dense: Vec<DenseLayer>,
    stages: Vec<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<Test>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    latency: Vec<Latency>,
    /// Of an ONNX model: how far its outputs are from those of the dense one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changes: Vec<Change>,
    #[serde(skip_serializing_if = "Option::is_none")]
    distilled: Option<Course>,
    #[serde(skip)]
    profiled: Option<Profiled>,
    #[serde(skip)]
    epochs: Vec<EpochMetrics>,
    #[serde(skip)]
    out: PathBuf,
}

/// Where the time of a pass goes, for the report.
pub(super) struct Profiled {
    pub(super) engine: EngineName,
    /// In the dense model and in the compressed one.
    pub(super) ops: [Vec<OpTime>; 2],
    /// None where layers are not told apart.
    pub(super) layers: Vec<LayerTime>,
}

impl Made {
    pub(super) fn new(
        recipe: &Recipe,
        dense: &Network,
        done: Done,
        (changes, profiled): (Vec<Change>, Option<Profiled>),
        stages: &Stages,
        out: &Path,
    ) -> anyhow::Result<Self> {
        let Done { outcome: done, distilled } = done;
        let distilled = distilled.map(|found| Course {
            before: found.before,
            epochs: found.epochs,
            kept: found.kept,
        });
        let [before, after] = done.cost;
        let layers = done
            .layers
            .into_iter()
            .map(|report| layer(dense, report))
            .collect::<anyhow::Result<_>>()?;
        let reports = done.stages.iter().map(|report| Stage {
            stage: report.stage.clone(),
            size: report.cost.into(),
            validation: report.validation,
            kept: report.kept,
        });
        let epochs = match recipe.compress.fine_tune {
            Some(_) if done.stages.iter().any(|stage| stage.stage == "fine-tuned") => {
                stages.dir().epochs("fine-tuned")?
            }
            _ => Vec::new(),
        };
        Ok(Self {
            label: recipe.target.label(),
            after: after.into(),
            params_ratio: after.params as f64 / before.params as f64,
            macs_ratio: after.macs as f64 / before.macs as f64,
            layers,
            dense: done.plan.dense,
            stages: reports.collect(),
            test: done.test.map(|[dense, compressed]| Test { dense, compressed }),
            latency: done.latency.iter().map(Latency::from).collect(),
            changes,
            profiled,
            distilled,
            epochs,
            out: out.to_owned(),
        })
    }

    /// The validation of the dense network and of the one that was written.
    fn validations(&self) -> Option<(Evaluation, Evaluation)> {
        let last = self.stages.iter().rfind(|stage| stage.kept)?;
        Some((self.stages.first()?.validation?, last.validation?))
    }

    /// The times in the engine that counts, which comes first.
    fn times(&self) -> impl Iterator<Item = &Latency> {
        let engine = self.latency.first().map(|latency| latency.engine);
        self.latency.iter().filter(move |latency| Some(latency.engine) == engine)
    }

    /// Batch sizes at which the compressed network is not faster.
    fn slower(&self) -> Vec<&Latency> {
        self.times().filter(|latency| latency.ratio <= 1.0).collect()
    }

    /// That it is slower than dense, and the way out.
    fn warning(&self) -> Option<String> {
        let slower = self.slower();
        let times: Vec<String> = slower
            .iter()
            .map(|latency| {
                format!(
                    "{:.2}x as fast in {} at batch {}",
                    latency.ratio, latency.engine, latency.batch
                )
            })
            .collect();
        (!times.is_empty()).then(|| {
            format!(
                "slower than the dense network on this machine: {}; --latency-ratio plans for time, --never-slower leaves layers \
                 dense that would not be faster",
                times.join(", ")
            )
        })
    }
}

fn layer(dense: &Network, report: LayerReport) -> anyhow::Result<LayerRow> {
    let input = dense.architecture().input_shapes();
    let breakeven = match report.rank {
        Rank::One(_) => Some(dense.breakeven(&report.layer, report.form, input)?.params),
        _ => None,
    };
    Ok(LayerRow {
        name: report.layer,
        form: report.form,
        rank: report.rank,
        breakeven,
        relative_error: report.rel_error,
        weighted_error: report.weighted_error,
        component_energy: report.component_energy,
        iterations: report.iterations,
        stop: report.stop.map(cp_core::StopReason::name),
        before: report.before.into(),
        after: report.after.into(),
    })
}

/// The answer of the command.
#[derive(Serialize)]
pub(super) struct Answer {
    architecture: String,
    method: &'static str,
    /// Of the only input.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Vec<usize>>,
    /// Whether multiply-adds are known.
    sized: bool,
    /// What changes of outputs are measured on.
    #[serde(skip)]
    compared_on: String,
    before: Size,
    seconds: f64,
    #[serde(skip)]
    origin: Option<Origin>,
    #[serde(skip)]
    command: String,
    #[serde(flatten)]
    models: Models,
}

/// One model has its fields in the answer itself.
#[derive(Serialize)]
#[serde(untagged)]
enum Models {
    One(Box<Made>),
    Several { budgets: Vec<Made> },
}

impl Answer {
    pub(super) fn new(
        args: &Args,
        recipes: &[Recipe],
        source: &Source,
        origin: Option<Origin>,
        seconds: f64,
        made: Vec<Made>,
    ) -> anyhow::Result<Self> {
        let dense = &source.network;
        let models = match <[Made; 1]>::try_from(made) {
            Ok([one]) => Models::One(Box::new(one)),
            Err(budgets) => Models::Several { budgets },
        };
        let method = recipes.first().map_or("als", |recipe| recipe.compress.method.name());
        Ok(Self {
            architecture: dense.architecture().name.clone(),
            method,
            input: match &dense.architecture().inputs[..] {
                [input] => Some(input.shape.clone()),
                _ => None,
            },
            sized: source.sized,
            compared_on: source.compared_on(),
            before: dense.cost(dense.architecture().input_shapes())?.total.into(),
            seconds,
            origin,
            command: next_command(args),
            models,
        })
    }

    fn outcomes(&self) -> &[Made] {
        match &self.models {
            Models::One(one) => std::slice::from_ref(one),
            Models::Several { budgets } => budgets,
        }
    }
}

/// A command that is worth trying next.
fn next_command(args: &Args) -> String {
    let model = args.model.path.display();
    let arch =
        args.model.arch.name.as_ref().map_or(String::new(), |name| format!(" --arch {name}"));
    let out = args.out.display();
    match (&args.dataset, &args.inputs) {
        (None, Some(inputs)) => format!(
            "polyad compress {model} --macs-ratio 0.5,0.33,0.25 --inputs {} --epochs 20 --out {out}",
            inputs.display()
        ),
        (None, None) => {
            format!("polyad compress {model}{arch} --macs-ratio 0.33 --dataset NAME --out {out}")
        }
        (Some(name), _) => format!(
            "polyad compress {model}{arch} --macs-ratio 0.5,0.33,0.25 --dataset {name} --preset best --out {out}"
        ),
    }
}

impl Report for Answer {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        for (index, one) in self.outcomes().iter().enumerate() {
            if index > 0 {
                writeln!(to)?;
            }
            self.outcome_text(one, to)?;
        }
        writeln!(to, "after {:.1} s", self.seconds)
    }
}

impl Answer {
    fn outcome_text(&self, one: &Made, to: &mut dyn Write) -> io::Result<()> {
        if let Models::Several { .. } = self.models {
            writeln!(to, "budget {}\n", one.label)?;
        }
        let mut table = Table::new([
            Column::Left("layer"),
            Column::Left("form"),
            Column::Right("rank"),
            Column::Right("break-even"),
            Column::Right("relative error"),
            Column::Right("parameters"),
            Column::Left(""),
            Column::Right("multiply-adds"),
            Column::Left(""),
        ]);
        for layer in &one.layers {
            table.row([
                layer.name.clone(),
                layer.form.to_string(),
                layer.rank.to_string(),
                layer.breakeven.map_or_else(String::new, |rank| format!("{rank:.1}")),
                format!("{:.4}", layer.relative_error),
                count(layer.before.parameters),
                format!("→ {}", count(layer.after.parameters)),
                count(layer.before.macs),
                format!("→ {}", count(layer.after.macs)),
            ]);
        }
        table.write(to)?;
        for layer in &one.dense {
            writeln!(to, "dense: {}: {}", layer.name, layer.why)?;
        }
        writeln!(to)?;
        if one.stages.iter().any(|stage| stage.validation.is_some()) {
            for stage in &one.stages {
                let found = stage.validation.map_or_else(String::new, |found| {
                    format!("top-1 {}, loss {:.4} nats", percent(found.top1), found.loss)
                });
                writeln!(to, "{:<24}validation {found}", stage.name())?;
            }
        }
        if let Some(test) = &one.test {
            let (dense, small) = (percent(test.dense.top1), percent(test.compressed.top1));
            writeln!(to, "{:<24}top-1 {dense} → {small}", "test")?;
        }
        for latency in &one.latency {
            writeln!(
                to,
                "{:<24}{:.2} → {:.2} ms  ({:.2} × as fast)",
                format!("{}, batch {}", latency.engine, latency.batch),
                latency.dense_ms,
                latency.compressed_ms,
                latency.ratio
            )?;
        }
        let line = |to: &mut dyn Write, what: &str, before: usize, after: usize| {
            let times = before as f64 / after as f64;
            writeln!(to, "{what}  {} → {}  ({times:.2} × fewer)", count(before), count(after))
        };
        line(to, "parameters   ", self.before.parameters, one.after.parameters)?;
        if self.sized {
            line(to, "multiply-adds", self.before.macs, one.after.macs)?;
        }
        if let Some(course) = &one.distilled {
            writeln!(
                to,
                "learned from the dense model for {} epochs: outputs off by {} → {} of what they vary by",
                course.epochs.len(),
                percent(course.before),
                percent(course.after())
            )?;
        }
        for Change { output, relative, largest, agreement } in &one.changes {
            let same = agreement.map_or_else(String::new, |share| {
                format!("; the same class in front in {}", percent(share))
            });
            writeln!(
                to,
                "output '{output}' moved by {} on {} (largest difference {} of the largest value){same}",
                percent(*relative),
                self.compared_on,
                percent(*largest)
            )?;
        }
        writeln!(to, "wrote {}", one.out.display())?;
        match one.warning() {
            Some(warning) => writeln!(to, "{warning}"),
            None => Ok(()),
        }
    }
}
