//! `report.html` and `summary.md` of `polyad compress`: every model beside the dense network, stage by stage and layer by layer.

use cp_report::{Axis, BarPlot, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::engine::OpTime;
use cp_train::{LayerTime, Origin, Provenance, RunDir};

use super::{Answer, LayerRow, Made, Profiled};
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
            page.add(self.cards(one));
        } else {
            page.add(models_table(self.outcomes()));
        }
        if self.outcomes().iter().any(|one| reached(one).is_some()) {
            page.add(self.pareto());
        }
        for one in self.outcomes() {
            page.add(Block::heading(one.out.file_name().unwrap_or_default().to_string_lossy()));
            if let Some(warning) = one.warning() {
                page.add(Block::text(format!("This network is {warning}.")));
            }
            if let Some(plot) = stage_bars(one) {
                page.add(plot);
            }
            if let Some(plot) = training_curves(one) {
                page.add(plot);
            }
            if let Some(plot) = distillation_curve(one) {
                page.add(plot);
            }
            page.add(stage_table(one));
            if !one.changes.is_empty() {
                page.add(self.change_table(one));
            }
            if let Some(table) = latency_table(one) {
                page.add(table);
            }
            if let Some(table) = op_table(one) {
                page.add(table);
            }
            if !one.layers.is_empty() {
                page.add(layer_bars(one));
                if let Some(bars) = time_bars(one) {
                    page.add(bars);
                }
                page.add(error_bars(one));
            }
            page.add(layer_table(one));
            if !one.dense.is_empty() {
                page.add(dense_table(one));
            }
        }
        page.add(Block::text(self.protocol(args)));
        page.add(Block::text(format!("What to try next: `{}`", self.command)));
        page.add(Block::provenance(provenance.rows()));
        page.write(dir.path())?;
        Ok(())
    }

    /// The numbers that matter first; a network that is slower is called so.
    fn cards(&self, one: &Made) -> Block {
        let mut cards = vec![
            Card::new("fewer parameters", Cell::ratio(1.0 / one.params_ratio, 2)),
            Card::new("fewer multiply-adds", Cell::ratio(1.0 / one.macs_ratio, 2)),
        ];
        for latency in one.times() {
            let (what, times) = if latency.ratio >= 1.0 {
                ("faster", latency.ratio)
            } else {
                ("slower", 1.0 / latency.ratio)
            };
            let title = format!("{what} at batch {}, {}", latency.batch, latency.engine);
            cards.push(Card::new(title, Cell::ratio(times, 2)));
        }
        if let Some(test) = &one.test {
            let change = Cell::points(test.compressed.top1 - test.dense.top1, 2);
            cards.push(Card::new("test top-1, change", change.unit("points")));
        } else if let Some((first, last)) = one.validations() {
            let change = Cell::points(last.top1 - first.top1, 2);
            cards.push(Card::new("validation top-1, change", change.unit("points")));
        }
        Block::cards(cards)
    }

    /// What happened, in a sentence.
    fn verdict(&self, one: &Made) -> String {
        let mut text = format!(
            "{:.2}× fewer parameters and {:.2}× fewer multiply-adds",
            1.0 / one.params_ratio,
            1.0 / one.macs_ratio
        );
        for latency in one.times() {
            text += &if latency.ratio >= 1.0 {
                format!(", {:.2}× faster at batch {}", latency.ratio, latency.batch)
            } else {
                format!(", {:.2}× slower at batch {}", 1.0 / latency.ratio, latency.batch)
            };
        }
        if let Some(first) = one.latency.first() {
            text += &format!(" in {}", first.engine);
        }
        if let Some((first, last)) = one.validations() {
            let seen = match self.origin {
                Some(Origin::Seen) => " (images that the dense weights were trained on)",
                Some(Origin::Unknown) => {
                    " (whether the dense weights were trained on these images is not known)"
                }
                _ => "",
            };
            text += &format!(
                "; validation top-1 {:.2} → {:.2} %{seen}",
                100.0 * first.top1,
                100.0 * last.top1
            );
        }
        if let Some(test) = &one.test {
            text += &format!(
                "; test top-1 {:.2} → {:.2} % of {} images",
                100.0 * test.dense.top1,
                100.0 * test.compressed.top1,
                test.dense.examples
            );
        }
        text + "."
    }

    /// How the numbers came about.
    fn protocol(&self, args: &Args) -> String {
        let Some(dataset) = &args.dataset else {
            return self.unlabelled(args);
        };
        let epochs = self.outcomes().iter().map(|one| one.epochs.len()).max().unwrap_or_default();
        let chosen = match self.origin {
            Some(Origin::Seen) => format!(
                "the last epoch kept, for the dense weights were trained on images of `{}`",
                args.validation_split
            ),
            _ => format!("the best by `{}`", args.validation_split),
        };
        let tuned = match epochs {
            0 => format!("not fine-tuned, {chosen}"),
            _ => format!("{epochs} epochs of fine-tuning on `{}`, {chosen}", args.train_split),
        };
        let test = args.test_split.as_deref().map_or_else(
            || "not tested: `--test-split` names images for that".into(),
            |split| format!("tested once on `{split}`, in eval mode"),
        );
        format!("Protocol: {dataset}; {tuned}; {test}.")
    }

    /// The same without labels.
    fn unlabelled(&self, args: &Args) -> String {
        let Some(inputs) = &args.inputs else {
            return "Protocol: no data were used.".into();
        };
        let epochs = self
            .outcomes()
            .iter()
            .filter_map(|one| Some(one.distilled.as_ref()?.epochs.len()))
            .max();
        let tuned = match epochs {
            None => "not fine-tuned".to_owned(),
            Some(epochs) => {
                format!("{epochs} epochs of learning from the dense model, the best kept")
            }
        };
        format!(
            "Protocol: unlabelled examples of {}, {tuned}; the changes of the outputs are of {} that nothing was trained on, and the best \
             epoch was chosen by them.",
            inputs.display(),
            self.compared_on
        )
    }

    /// How far the outputs of the model are from those of the dense one.
    fn change_table(&self, one: &Made) -> Table {
        let mut table = Table::new(
            format!("Outputs, on {}", self.compared_on),
            [
                Column::text("output"),
                Column::number("‖y − ŷ‖ / ‖y‖").unit("%"),
                Column::number("largest difference / largest value").unit("%"),
                Column::number("same class in front").unit("%"),
            ],
        );
        for change in &one.changes {
            table.row([
                Cell::text(&change.output),
                Cell::percent(change.relative, 2),
                Cell::percent(change.largest, 2),
                change.agreement.map_or_else(Cell::missing, |share| Cell::percent(share, 1)),
            ]);
        }
        table
    }

    /// What each model costs and reaches, the dense network among them.
    fn pareto(&self) -> XyPlot {
        let mut points: Vec<(f64, f64)> = self
            .outcomes()
            .iter()
            .filter_map(|one| Some((one.after.macs as f64 / 1e6, reached(one)?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let first = self.outcomes().first();
        let dense = first.and_then(|one| match &one.test {
            Some(test) => Some(test.dense.top1),
            None => one.validations().map(|(first, _)| first.top1),
        });
        let tested = first.is_some_and(|one| one.test.is_some());
        let axis = if tested { "test top-1" } else { "validation top-1" };
        let mut plot = XyPlot::new(
            "Accuracy against multiply-adds",
            Axis::number("multiply-adds (M)").include(0.0),
            // A difference of one image in a thousand is to look like one.
            dense.iter().fold(Axis::percent(axis), |axis, dense| {
                axis.include(dense - 0.02).include((dense + 0.01).min(1.0))
            }),
        )
        .series(Series::both("compressed", points));
        if let Some(dense) = dense {
            plot = plot
                .series(Series::points("dense network", [(self.before.macs as f64 / 1e6, dense)]))
                .reference("dense", dense);
        }
        plot
    }
}

/// The accuracy that a model is shown with.
fn reached(one: &Made) -> Option<f64> {
    match &one.test {
        Some(test) => Some(test.compressed.top1),
        None => one.validations().map(|(_, last)| last.top1),
    }
}

/// What each model costs and reaches, one a row.
fn models_table(outcomes: &[Made]) -> Table {
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
            one.latency.first().map_or_else(Cell::missing, |latency| Cell::ratio(latency.ratio, 2)),
            percent(one.validations().map(|(_, last)| last.top1)),
            percent(test.map(|test| test.compressed.top1)),
            test.map_or_else(Cell::missing, |test| {
                Cell::points(test.compressed.top1 - test.dense.top1, 2)
            }),
        ]);
    }
    table
}

fn stage_table(one: &Made) -> Table {
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

/// Where the time goes in the engine that counts, by the kind of node, before and after.
fn op_table(one: &Made) -> Option<Table> {
    let Profiled { engine, ops: [dense, compressed], .. } = one.profiled.as_ref()?;
    let mut table = Table::new(
        format!("Where the time goes: nodes as {engine} runs them, batch 1"),
        [
            Column::text("op"),
            Column::number("nodes, dense"),
            Column::number("dense").unit("ms"),
            Column::number("nodes"),
            Column::number("compressed").unit("ms"),
        ],
    );
    let find = |ops: &[OpTime], name: &str| ops.iter().find(|op| op.op == name).cloned();
    let mut names: Vec<&String> = dense.iter().chain(compressed).map(|op| &op.op).collect();
    let most = |name: &str| {
        let of = |ops: &[OpTime]| find(ops, name).map_or(0.0, |op| op.seconds);
        of(dense).max(of(compressed))
    };
    names.sort_by(|one, other| most(other).total_cmp(&most(one)).then(one.cmp(other)));
    names.dedup();
    for name in names.into_iter().take(12) {
        let cells = [find(dense, name), find(compressed, name)].map(|op| match op {
            Some(op) => [Cell::count(op.nodes as u64), Cell::millis(op.seconds)],
            None => [Cell::missing(), Cell::missing()],
        });
        let [[a, b], [c, d]] = cells;
        table.row([Cell::text(name), a, b, c, d]);
    }
    table.note("Of profiled passes, which take a little longer than those above; the twelve kinds that take the longest.");
    Some(table)
}

fn latency_table(one: &Made) -> Option<Table> {
    let first = one.latency.first()?;
    let mut table = Table::new(
        format!("Latency, {}", threads(first.threads)),
        [
            Column::text("engine"),
            Column::number("batch"),
            Column::number("dense").unit("ms"),
            Column::text("quartiles"),
            Column::number("compressed").unit("ms"),
            Column::text("quartiles"),
            Column::number("speed-up"),
        ],
    );
    let quartiles = |[lower, upper]: [f64; 2]| {
        let (lower, upper) = (Cell::millis(lower / 1e3), Cell::millis(upper / 1e3));
        Cell::text(format!("{} – {}", lower.as_str(), upper.as_str()))
    };
    for latency in &one.latency {
        table.row([
            Cell::text(latency.engine.to_string()),
            Cell::count(latency.batch as u64),
            Cell::millis(latency.dense_ms / 1e3),
            quartiles(latency.dense_quartiles_ms),
            Cell::millis(latency.compressed_ms / 1e3),
            quartiles(latency.compressed_quartiles_ms),
            Cell::ratio(latency.ratio, 2),
        ]);
    }
    table.note("Forward passes in eval mode, batch norms folded, both networks in turn; medians.");
    Some(table)
}

fn threads(count: usize) -> String {
    if count == 1 { "1 thread".into() } else { format!("{count} threads") }
}

/// Multiply-adds of every factorized layer before and after.
fn layer_bars(one: &Made) -> BarPlot {
    let millions = |of: fn(&LayerRow) -> usize| -> Vec<f64> {
        one.layers.iter().map(|layer| of(layer) as f64 / 1e6).collect()
    };
    BarPlot::new(
        "Multiply-adds by layer",
        Axis::number("multiply-adds (M)"),
        2,
        one.layers.iter().map(|layer| layer.name.clone()),
    )
    .series("dense", millions(|layer| layer.before.macs))
    .series("compressed", millions(|layer| layer.after.macs))
}

/// Time of every factorized layer before and after.
fn time_bars(one: &Made) -> Option<BarPlot> {
    let Profiled { engine, layers, .. } = one.profiled.as_ref()?;
    let micros = |of: fn(&LayerTime) -> f64| -> Vec<f64> {
        layers.iter().map(|layer| 1e6 * of(layer)).collect()
    };
    let title = format!("Time by layer in {engine}, batch 1");
    let names = layers.iter().map(|layer| layer.layer.clone());
    (!layers.is_empty()).then(|| {
        BarPlot::new(title, Axis::number("time (µs)"), 2, names)
            .series("dense", micros(|layer| layer.dense))
            .series("compressed", micros(|layer| layer.factorized))
    })
}

/// Relative error of every factorized layer: of its output where that was measured.
fn error_bars(one: &Made) -> BarPlot {
    let aware = one.layers.iter().any(|layer| layer.weighted_error.is_some());
    let what = if aware {
        "Relative error of the output by layer"
    } else {
        "Relative error of the kernel by layer"
    };
    let errors: Vec<f64> = one
        .layers
        .iter()
        .map(|layer| layer.weighted_error.unwrap_or(layer.relative_error))
        .collect();
    BarPlot::new(
        what,
        Axis::percent("relative error"),
        1,
        one.layers.iter().map(|layer| layer.name.clone()),
    )
    .series("before fine-tuning", errors)
}

/// The validation accuracy from stage to stage.
fn stage_bars(one: &Made) -> Option<BarPlot> {
    let known: Vec<(String, f64)> = one
        .stages
        .iter()
        .filter_map(|stage| Some((stage.name(), stage.validation?.top1)))
        .collect();
    if known.is_empty() {
        return None;
    }
    let (names, values): (Vec<String>, Vec<f64>) = known.into_iter().unzip();
    Some(
        BarPlot::new("From stage to stage", Axis::percent("validation top-1"), 1, names)
            .series("validation", values),
    )
}

/// Training and validation accuracy over the epochs.
fn training_curves(one: &Made) -> Option<XyPlot> {
    if one.epochs.is_empty() {
        return None;
    }
    let at = |epoch: &cp_train::EpochMetrics| (epoch.epoch + 1) as f64;
    let validation =
        one.epochs.iter().filter_map(|epoch| Some((at(epoch), epoch.validation?.top1)));
    Some(
        XyPlot::new("Fine-tuning", Axis::count("epoch"), Axis::percent("top-1"))
            .series(Series::both(
                "training",
                one.epochs.iter().map(|epoch| (at(epoch), epoch.train_top1)),
            ))
            .series(Series::both("validation", validation)),
    )
}

/// How the outputs came closer to those of the dense model.
fn distillation_curve(one: &Made) -> Option<XyPlot> {
    let course = one.distilled.as_ref()?;
    let start = [(0.0, course.before)];
    let after = course.epochs.iter().map(|epoch| ((epoch.epoch + 1) as f64, epoch.held));
    let plot = XyPlot::new(
        "Learning from the dense model",
        Axis::count("epoch"),
        Axis::percent("error of the outputs, of what they vary by").include(0.0),
    );
    Some(plot.series(Series::both("examples set aside", start.into_iter().chain(after))))
}

fn layer_table(one: &Made) -> Table {
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

fn dense_table(one: &Made) -> Table {
    let mut table =
        Table::new("Layers that stay dense", [Column::text("layer"), Column::text("why")]);
    for layer in &one.dense {
        table.row([Cell::text(&layer.name), Cell::text(&layer.why)]);
    }
    table
}
