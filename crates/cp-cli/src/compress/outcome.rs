//! What `polyad compress` answers: for one model or several, as text, as JSON and as a report to look at.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cp_net::{DenseLayer, Form, LayerReport, Network, Rank, RankPlan, Totals};
use cp_report::{Axis, Block, Card, Cell, Column as ReportColumn, Report as Page, Series, XyPlot};
use cp_train::{Compressed, Evaluation, Provenance, RunDir};
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
struct Layer {
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
    layers: Vec<Layer>,
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

fn layer(dense: &Network, report: LayerReport) -> anyhow::Result<Layer> {
    let input = &dense.input().shape;
    let breakeven = match report.rank {
        Rank::One(_) => Some(dense.breakeven(&report.layer, report.form, input)?.params),
        _ => None,
    };
    Ok(Layer {
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

    /// Writes `summary.md`, `report.html` and the plots into `dir`.
    pub(super) fn write_report(
        &self,
        args: &Args,
        dir: &RunDir,
        provenance: &Provenance,
    ) -> anyhow::Result<()> {
        let verdict = match self.outcomes() {
            [one] => self.verdict(one),
            several => format!("{} models; each is beside the others in table 1.", several.len()),
        };
        let mut page = Page::new(format!("{} compressed", self.architecture), verdict);
        if let [one] = self.outcomes() {
            let mut cards = vec![
                Card::new("fewer parameters", Cell::ratio(1.0 / one.params_ratio, 2)),
                Card::new("fewer multiply-adds", Cell::ratio(1.0 / one.macs_ratio, 2)),
            ];
            if let Some(latency) = one.latency {
                cards.push(Card::new("faster", Cell::ratio(latency.ratio, 2)));
            }
            if let Some(test) = &one.test {
                let change = Cell::points(test.compressed.top1 - test.dense.top1, 2);
                cards.push(Card::new("test top-1, change", change.unit("points")));
            }
            page.add(Block::cards(cards));
        } else {
            page.add(self.pareto());
            page.add(models_table(self.outcomes()));
        }
        for one in self.outcomes() {
            page.add(Block::heading(one.out.display().to_string()));
            page.add(stage_table(one));
            if let Some(table) = latency_table(one) {
                page.add(table);
            }
            page.add(layer_table(one));
            if !one.dense.is_empty() {
                page.add(dense_table(one));
            }
        }
        page.add(Block::text(match &args.dataset {
            None => "Protocol: no data were used.".into(),
            Some(dataset) => format!(
                "Protocol: {dataset}; {} epochs of fine-tuning on `{}`, the best by `{}`; tested once on {}, in eval mode.",
                args.epochs,
                args.train_split,
                args.validation_split,
                args.test_split
                    .as_deref()
                    .map_or_else(|| "nothing".into(), |split| format!("`{split}`")),
            ),
        }));
        page.add(Block::provenance(provenance.rows()));
        page.write(dir.path())?;
        Ok(())
    }

    fn verdict(&self, one: &Outcome) -> String {
        let mut text = format!(
            "{:.2}× fewer parameters and {:.2}× fewer multiply-adds",
            1.0 / one.params_ratio,
            1.0 / one.macs_ratio
        );
        if let Some(latency) = one.latency {
            text += &format!(", {:.2}× the speed at batch {}", latency.ratio, latency.batch);
        }
        if let Some((first, last)) = one.validations() {
            text += &format!(
                "; validation top-1 {:.2} → {:.2} %",
                100.0 * first.top1,
                100.0 * last.top1
            );
        }
        if let Some(test) = &one.test {
            text += &format!(
                "; test top-1 {:.2} → {:.2} %",
                100.0 * test.dense.top1,
                100.0 * test.compressed.top1
            );
        }
        text + "."
    }

    /// What each model costs and reaches.
    fn pareto(&self) -> XyPlot {
        let reached = |one: &Outcome| {
            one.test
                .as_ref()
                .map(|test| test.compressed)
                .or_else(|| one.validations().map(|(_, last)| last))
        };
        let mut points: Vec<(f64, f64)> = self
            .outcomes()
            .iter()
            .filter_map(|one| Some((one.after.macs as f64 / 1e6, reached(one)?.top1)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let first = self.outcomes().first();
        let dense = first.and_then(|one| match &one.test {
            Some(test) => Some(test.dense.top1),
            None => one.validations().map(|(first, _)| first.top1),
        });
        let mut plot = XyPlot::new(
            "Accuracy against multiply-adds",
            Axis::number("multiply-adds (M)"),
            Axis::percent("top-1"),
        )
        .series(Series::both("compressed", points));
        if let Some(dense) = dense {
            plot = plot.reference("dense", dense);
        }
        plot
    }
}

/// What each model costs and reaches, one a row.
fn models_table(outcomes: &[Outcome]) -> cp_report::Table {
    let mut table = cp_report::Table::new(
        "Every model",
        [
            ReportColumn::text("file"),
            ReportColumn::number("fewer parameters"),
            ReportColumn::number("fewer MACs"),
            ReportColumn::number("speed-up"),
            ReportColumn::number("validation top-1").unit("%"),
            ReportColumn::number("test top-1").unit("%"),
            ReportColumn::number("change").unit("points"),
        ],
    );
    let percent = |found: Option<f64>| found.map_or_else(Cell::missing, |x| Cell::percent(x, 2));
    for one in outcomes {
        let name = one.out.file_name().unwrap_or(one.out.as_os_str()).to_string_lossy();
        let test = one.test.as_ref();
        table.row([
            Cell::text(name),
            Cell::ratio(1.0 / one.params_ratio, 2),
            Cell::ratio(1.0 / one.macs_ratio, 2),
            one.latency.map_or_else(Cell::missing, |latency| Cell::ratio(latency.ratio, 2)),
            percent(one.validations().map(|(_, last)| last.top1)),
            percent(test.map(|test| test.compressed.top1)),
            test.map_or_else(Cell::missing, |test| {
                Cell::points(test.compressed.top1 - test.dense.top1, 2)
            }),
        ]);
    }
    table
}

fn stage_table(one: &Outcome) -> cp_report::Table {
    let mut table = cp_report::Table::new(
        "Before, on the way and after",
        [
            ReportColumn::text("stage"),
            ReportColumn::number("parameters"),
            ReportColumn::number("MACs").unit("M"),
            ReportColumn::number("validation top-1").unit("%"),
            ReportColumn::number("validation loss").unit("nats"),
            ReportColumn::number("test top-1").unit("%"),
        ],
    );
    let last = one.stages.iter().rposition(|stage| stage.kept).unwrap_or_default();
    for (index, stage) in one.stages.iter().enumerate() {
        let test = one.test.as_ref().and_then(|test| match index {
            0 => Some(test.dense),
            index if index == last => Some(test.compressed),
            _ => None,
        });
        table.row([
            Cell::text(stage.name()),
            Cell::count(stage.size.parameters as u64),
            Cell::millions(stage.size.macs as u64, 2),
            stage.validation.map_or_else(Cell::missing, |found| Cell::percent(found.top1, 2)),
            stage.validation.map_or_else(Cell::missing, |found| Cell::number(found.loss, 4)),
            test.map_or_else(Cell::missing, |found| Cell::percent(found.top1, 2)),
        ]);
    }
    table
}

fn latency_table(one: &Outcome) -> Option<cp_report::Table> {
    let latency = one.latency?;
    let mut table = cp_report::Table::new(
        format!("Latency of a batch of {}", latency.batch),
        [
            ReportColumn::text("threads"),
            ReportColumn::number("dense").unit("ms"),
            ReportColumn::number("compressed").unit("ms"),
            ReportColumn::number("speed-up"),
        ],
    );
    table.row([
        Cell::text(latency.threads.to_string()),
        Cell::millis(latency.dense_ms / 1e3),
        Cell::millis(latency.compressed_ms / 1e3),
        Cell::ratio(latency.ratio, 2),
    ]);
    table.note("Medians of forward passes in eval mode, both networks in turn.");
    Some(table)
}

fn layer_table(one: &Outcome) -> cp_report::Table {
    let mut table = cp_report::Table::new(
        "Factorized layers",
        [
            ReportColumn::text("layer"),
            ReportColumn::text("form"),
            ReportColumn::text("rank"),
            ReportColumn::number("relative error"),
            ReportColumn::number("error of the output"),
            ReportColumn::number("component energy"),
            ReportColumn::number("parameters, dense"),
            ReportColumn::number("parameters"),
            ReportColumn::number("MACs, dense").unit("M"),
            ReportColumn::number("MACs").unit("M"),
        ],
    );
    for layer in &one.layers {
        table.row([
            Cell::text(&layer.name),
            Cell::text(layer.form.name()),
            Cell::text(layer.rank.to_string()),
            Cell::number(layer.relative_error, 4),
            layer.weighted_error.map_or_else(Cell::missing, |error| Cell::number(error, 4)),
            Cell::significant(layer.component_energy, 3),
            Cell::count(layer.before.parameters as u64),
            Cell::count(layer.after.parameters as u64),
            Cell::millions(layer.before.macs as u64, 3),
            Cell::millions(layer.after.macs as u64, 3),
        ]);
    }
    table
}

fn dense_table(one: &Outcome) -> cp_report::Table {
    let mut table = cp_report::Table::new(
        "Layers that stay dense",
        [ReportColumn::text("layer"), ReportColumn::text("why")],
    );
    for layer in &one.dense {
        table.row([Cell::text(&layer.name), Cell::text(&layer.why)]);
    }
    table
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
