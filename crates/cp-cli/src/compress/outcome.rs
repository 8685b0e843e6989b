//! What `polyad compress` answers, for one model or several: as text and as JSON here, as a report to look at in [`page`].

mod page;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cp_net::{Form, Network, Rank, Totals};
use cp_plan::{DenseLayer, LayerReport, RankPlan};
use cp_train::{Compressed, Evaluation};
use serde::{Deserialize, Serialize};

use super::options::{Args, Goal};
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
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Latency {
    pub(super) batch: usize,
    pub(super) threads: usize,
    pub(super) dense_ms: f64,
    pub(super) compressed_ms: f64,
    pub(super) ratio: f64,
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

/// One compressed model.
#[derive(Serialize)]
pub(super) struct Outcome {
    #[serde(skip)]
    label: String,
    after: Size,
    params_ratio: f64,
    macs_ratio: f64,
    layers: Vec<LayerRow>,
    dense: Vec<DenseLayer>,
    stages: Vec<Stage>,
    #[serde(skip)]
    tested: Option<Evaluation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<Test>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Latency>,
    #[serde(skip)]
    out: PathBuf,
}

impl Outcome {
    pub(super) fn new(
        goal: &Goal,
        dense: &Network,
        plan: &RankPlan,
        done: Compressed,
        tested: Option<Evaluation>,
        latency: Option<Latency>,
        out: &Path,
    ) -> anyhow::Result<Self> {
        let input = &dense.input().shape;
        let before = dense.cost(input)?.total;
        let after = done.network.cost(input)?.total;
        let layers = done
            .layers
            .into_iter()
            .map(|report| layer(dense, report))
            .collect::<anyhow::Result<_>>()?;
        let stages = done.stages.into_iter().map(|report| Stage {
            stage: report.stage,
            size: report.cost.into(),
            validation: report.validation,
            kept: report.kept,
        });
        Ok(Self {
            label: goal.label(),
            after: after.into(),
            params_ratio: after.params as f64 / before.params as f64,
            macs_ratio: after.macs as f64 / before.macs as f64,
            layers,
            dense: plan.dense.clone(),
            stages: stages.collect(),
            tested,
            test: None,
            latency,
            out: out.to_owned(),
        })
    }

    /// The validation of the dense network and of the one that was written.
    fn validations(&self) -> Option<(Evaluation, Evaluation)> {
        let last = self.stages.iter().rfind(|stage| stage.kept)?;
        Some((self.stages.first()?.validation?, last.validation?))
    }
}

fn layer(dense: &Network, report: LayerReport) -> anyhow::Result<LayerRow> {
    let input = &dense.input().shape;
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
    input: Vec<usize>,
    before: Size,
    seconds: f64,
    #[serde(flatten)]
    models: Models,
}

/// One model has its fields in the answer itself.
#[derive(Serialize)]
#[serde(untagged)]
enum Models {
    One(Box<Outcome>),
    Several { budgets: Vec<Outcome> },
}

impl Answer {
    pub(super) fn new(
        args: &Args,
        dense: &Network,
        dense_test: Option<Evaluation>,
        seconds: f64,
        mut outcomes: Vec<Outcome>,
    ) -> anyhow::Result<Self> {
        for outcome in &mut outcomes {
            outcome.test = match (dense_test, outcome.tested) {
                (Some(dense), Some(compressed)) => Some(Test { dense, compressed }),
                _ => None,
            };
        }
        let models = match <[Outcome; 1]>::try_from(outcomes) {
            Ok([one]) => Models::One(Box::new(one)),
            Err(budgets) => Models::Several { budgets },
        };
        Ok(Self {
            architecture: dense.architecture().name.clone(),
            method: args.method.0.name(),
            input: dense.input().shape.clone(),
            before: dense.cost(&dense.input().shape)?.total.into(),
            seconds,
            models,
        })
    }

    fn outcomes(&self) -> &[Outcome] {
        match &self.models {
            Models::One(one) => std::slice::from_ref(one),
            Models::Several { budgets } => budgets,
        }
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
    fn outcome_text(&self, one: &Outcome, to: &mut dyn Write) -> io::Result<()> {
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
        if let Some(latency) = one.latency {
            writeln!(
                to,
                "{:<24}{:.2} → {:.2} ms  ({:.2} ×)",
                format!("batch of {}", latency.batch),
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
        line(to, "multiply-adds", self.before.macs, one.after.macs)?;
        writeln!(to, "wrote {}", one.out.display())
    }
}
