//! `report.html` and `summary.md` of `polyad compress`: every model beside the dense network, stage by stage and layer by layer.

use cp_report::{Axis, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::{Provenance, RunDir};

use super::{Answer, Outcome};
use crate::compress::options::Args;

impl Answer {
    /// Writes `summary.md`, `report.html` and the plots into `dir`.
    pub(in crate::compress) fn write_report(
        &self,
        args: &Args,
        dir: &RunDir,
        provenance: &Provenance,
    ) -> anyhow::Result<()> {
        let verdict = match self.outcomes() {
            [one] => self.verdict(one),
            several => format!("{} models; each is beside the others in table 1.", several.len()),
        };
        let mut page = Report::new(format!("{} compressed", self.architecture), verdict);
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
fn models_table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::new(
        "Every model",
        [
            Column::text("file"),
            Column::number("fewer parameters"),
            Column::number("fewer MACs"),
            Column::number("speed-up"),
            Column::number("validation top-1").unit("%"),
            Column::number("test top-1").unit("%"),
            Column::number("change").unit("points"),
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

fn stage_table(one: &Outcome) -> Table {
    let mut table = Table::new(
        "Before, on the way and after",
        [
            Column::text("stage"),
            Column::number("parameters"),
            Column::number("MACs").unit("M"),
            Column::number("validation top-1").unit("%"),
            Column::number("validation loss").unit("nats"),
            Column::number("test top-1").unit("%"),
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

fn latency_table(one: &Outcome) -> Option<Table> {
    let latency = one.latency?;
    let mut table = Table::new(
        format!("Latency of a batch of {}", latency.batch),
        [
            Column::text("threads"),
            Column::number("dense").unit("ms"),
            Column::number("compressed").unit("ms"),
            Column::number("speed-up"),
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

fn layer_table(one: &Outcome) -> Table {
    let mut table = Table::new(
        "Factorized layers",
        [
            Column::text("layer"),
            Column::text("form"),
            Column::text("rank"),
            Column::number("relative error"),
            Column::number("error of the output"),
            Column::number("component energy"),
            Column::number("parameters, dense"),
            Column::number("parameters"),
            Column::number("MACs, dense").unit("M"),
            Column::number("MACs").unit("M"),
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

fn dense_table(one: &Outcome) -> Table {
    let mut table =
        Table::new("Layers that stay dense", [Column::text("layer"), Column::text("why")]);
    for layer in &one.dense {
        table.row([Cell::text(&layer.name), Cell::text(&layer.why)]);
    }
    table
}
