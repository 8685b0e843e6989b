//! The page of the study.

use std::collections::BTreeSet;

use anyhow::Result;
use cp_net::Totals;
use cp_plan::LayerReport;
use cp_report::{Axis, BarPlot, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use serde_json::json;

use super::{Made, Row, Study, Timed, weighted_layers};
use crate::experiment::{self, Findings};
use crate::figures::{fewer, quartiles};

impl Row {
    /// Mean steps on the images that all networks know.
    fn common(&self) -> Option<f64> {
        (self.resistance.common.images > 0).then_some(self.resistance.common.mean)
    }

    /// Mean steps on its own images.
    fn own(&self) -> Option<f64> {
        (self.resistance.own.images > 0).then_some(self.resistance.own.mean)
    }
}

impl Study {
    pub(super) fn page(&self, rows: &[Row], made: &[Made]) -> Result<Findings> {
        let (dense, rest) = (&rows[0], &rows[1..]);
        // Shown first by the validation images alone.
        let validated = |row: &Row| row.validation.unwrap_or(0.0);
        let best = rest.iter().max_by(|one, other| validated(one).total_cmp(&validated(other)));
        let (arch, dataset) = (&self.settings.arch, &self.settings.dataset);
        let title = format!("{arch} on {dataset}: the whole procedure");
        let mut report = Report::new(title, verdict(dense, best));
        let top1 = |row: &Row| Cell::percent(row.test.top1, 2).unit("%");
        let mut cards = vec![Card::new("test top-1, dense", top1(dense))];
        if let Some(best) = best {
            let note =
                format!("{}, {} parameters", best.name, fewer(dense.cost.params, best.cost.params));
            cards.push(Card::new("test top-1, best on validation", top1(best)).note(note));
        }
        report.add(Block::cards(cards));
        report.add(self.sensitivities()?);
        let mut factors: Vec<&str> = Vec::new();
        for row in rest {
            if !factors.contains(&row.factor.as_str()) {
                factors.push(&row.factor);
            }
        }
        for factor in factors {
            // Beside what all vary, which is the first.
            let own = rest.iter().enumerate();
            let own = own.filter(|(at, row)| *at == 0 || row.factor == factor).map(|(_, row)| row);
            let of: Vec<&Row> = std::iter::once(dense).chain(own).collect();
            report.add(table(factor, &of));
            let sizes: BTreeSet<usize> = of.iter().map(|row| row.cost.params).collect();
            if sizes.len() == of.len() && of.len() > 3 {
                for plot in plots(factor, &of) {
                    report.add(plot);
                }
            }
        }
        report.add(speed_table(rest));
        if let Some(first) = made.first() {
            report.add(params_plot(&self.settings.variants[first.index].name, &first.layers));
        }
        report.add(Block::text(self.protocol()));
        let readme = best.map(|best| self.readme(dense, best)).into_iter().collect();
        let result = json!({ "networks": rows, "sensitivity": self.sensitivity });
        Ok(Findings { report, result, rows: readme, fault: None })
    }

    /// In the layout of the published table: loss, rank, and what the layer has then.
    fn sensitivities(&self) -> Result<Table> {
        let arch = self.dense.architecture();
        let shapes = arch.shapes(arch.input_shapes())?;
        let mut table = Table::new(
            "What each layer costs alone, at rank 5",
            [
                Column::text("layer"),
                Column::number("parameters, dense"),
                Column::number("parameters at rank 5"),
                Column::number("relative error"),
                Column::number("loss").unit("nats"),
                Column::number("top-1").unit("%"),
                Column::number("ranks, Astrid & Lee").published(),
            ],
        );
        for (layer, rank) in weighted_layers(arch).iter().zip(self.published.ranks) {
            let mut probes = self.sensitivity.probes.iter();
            let Some(probe) = probes.find(|probe| probe.layer == layer.name) else { continue };
            let whole = arch.dense_cost(&layer.name, &shapes)?;
            let small = arch.factors_cost(&layer.name, probe.form, probe.rank, &shapes)?;
            table.row([
                Cell::text(&layer.name),
                Cell::count(whole.params as u64),
                Cell::count(small.params as u64),
                Cell::number(probe.rel_error, 4),
                Cell::number(probe.evaluation.loss, 4),
                Cell::percent(probe.evaluation.top1, 2),
                Cell::count(rank as u64),
            ]);
        }
        table.note(format!(
            "Validation images, no fine-tuning. The dense network has a loss of {:.4} and a top-1 of {:.2} % there. The published ranks are of ImageNet's \
             AlexNet at 224 × 224.",
            self.sensitivity.dense.loss,
            100.0 * self.sensitivity.dense.top1
        ));
        Ok(table)
    }

    fn protocol(&self) -> String {
        let study = &self.settings;
        let data = &self.data.train;
        let weights = if study.weights == "own" {
            format!("trained here for {} epochs", study.train.epochs)
        } else {
            format!("that of {}", study.weights)
        };
        format!(
            "Protocol: {} images to train on, {} for validation, {} for the test, which each network sees once, in eval mode. The dense network is {weights}. \
             Each variant changes one thing of the base recipe, and is fine-tuned alike. A linear layer is a matrix, of which the best CP model of any rank is its \
             truncated SVD (Eckart & Young), so that there are no variants of CP and SVD for it. Resistance: sign-gradient steps of {} in the normalized \
             input, at most {} looks; means over the first {} images that a network classifies correctly, and that all of them do. SqVaD reports 6.35 to 6.91 for \
             compressed AlexNets and 6.84 for the dense one, on ImageNet and each on images of its own. The time of an epoch is that of its fine-tuning, the \
             validation included, and for the dense network of its training.",
            data.train.len(),
            data.validation.as_ref().map_or(0, |set| set.len()),
            self.test.len(),
            study.attack.step,
            study.attack.max_steps,
            study.attacked,
        )
    }

    fn readme(&self, dense: &Row, best: &Row) -> experiment::Row {
        let percent = |row: &Row| format!("{:.2} %", 100.0 * row.test.top1);
        let speed = |timed: &Timed| {
            let ratio = timed.dense.median / timed.timing.median;
            format!("{ratio:.2}× ({}, batch {})", timed.engine, timed.batch)
        };
        experiment::Row {
            network: format!("{}, {}", self.settings.arch, best.name),
            data: format!("{}, {} images", self.settings.dataset, self.test.len()),
            params: fewer(dense.cost.params, best.cost.params),
            macs: fewer(dense.cost.macs, best.cost.macs),
            top1: format!("{} → {}", percent(dense), percent(best)),
            speed: best.times.iter().map(speed).collect::<Vec<_>>().join(", "),
        }
    }
}

fn verdict(dense: &Row, best: Option<&Row>) -> String {
    let percent = |row: &Row| 100.0 * row.test.top1;
    let Some(best) = best else {
        return format!("The dense network has a top-1 of {:.2} %.", percent(dense));
    };
    let resistance = match (dense.common(), best.common()) {
        (Some(before), Some(after)) => format!(
            " On the images that all networks know, {after:.2} steps along the sign of the gradient turn its answers, and {before:.2} those of the dense \
             network."
        ),
        _ => String::new(),
    };
    format!(
        "The dense network has a top-1 of {:.2} % on the test images. Of the compressed ones, '{}' is the best on the validation images: {:.2} % on the test \
         images with {} parameters and {} multiply-accumulates.{resistance}",
        percent(dense),
        best.name,
        percent(best),
        fewer(dense.cost.params, best.cost.params),
        fewer(dense.cost.macs, best.cost.macs),
    )
}

fn table(factor: &str, rows: &[&Row]) -> Table {
    let mut table = Table::new(
        capital(factor),
        [
            Column::text("network"),
            Column::number("parameters"),
            Column::number("fewer"),
            Column::number("MACs").unit("M"),
            Column::number("error of kernels"),
            Column::number("validation, not tuned").unit("%"),
            Column::number("validation").unit("%"),
            Column::number("test top-1").unit("%"),
            Column::number("top-5").unit("%"),
            Column::number("steps, own images"),
            Column::number("steps, common images"),
            Column::number("an epoch").unit("s"),
            Column::text("ranks"),
        ],
    );
    let percent =
        |share: Option<f64>| share.map_or_else(Cell::missing, |share| Cell::percent(share, 2));
    let number = |value: Option<f64>, digits| {
        value.map_or_else(Cell::missing, |value| Cell::number(value, digits))
    };
    for row in rows {
        let ranks: Vec<&str> = row.ranks.iter().map(|(_, rank)| rank.as_str()).collect();
        let factorized = !ranks.is_empty();
        table.row([
            Cell::text(&row.name),
            Cell::count(row.cost.params as u64),
            Cell::ratio(rows[0].cost.params as f64 / row.cost.params as f64, 2),
            Cell::millions(row.cost.macs as u64, 2),
            number(factorized.then_some(row.rel_error), 3),
            percent(row.before),
            percent(row.validation),
            Cell::percent(row.test.top1, 2),
            Cell::percent(row.test.top5, 2),
            number(row.own(), 2),
            number(row.common(), 2),
            number(row.epoch_seconds, 1),
            if factorized { Cell::text(ranks.join(", ")) } else { Cell::missing() },
        ]);
    }
    table
}

/// What changes with the number of parameters.
fn plots(factor: &str, rows: &[&Row]) -> Vec<XyPlot> {
    let of = |value: fn(&Row) -> Option<f64>| -> Vec<(f64, f64)> {
        let point = |row: &&Row| Some((row.cost.params as f64 / 1e6, value(row)?));
        let mut points: Vec<(f64, f64)> = rows.iter().filter_map(point).collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points
    };
    let params = || Axis::number("parameters (M)");
    let zero = |name: &str| Axis::number(name).include(0.0);
    let factor = capital(factor);
    vec![
        XyPlot::new(format!("{factor}: accuracy"), params(), Axis::percent("top-1"))
            .series(Series::both("test", of(|row| Some(row.test.top1))))
            .series(Series::both("validation before fine-tuning", of(|row| row.before))),
        XyPlot::new(format!("{factor}: resistance"), params(), zero("mean steps to flip"))
            .series(Series::both("own images", of(Row::own)))
            .series(Series::both("common images", of(Row::common))),
        XyPlot::new(format!("{factor}: time of an epoch"), params(), zero("seconds"))
            .series(Series::both("fine-tuning", of(|row| row.epoch_seconds))),
    ]
}

fn speed_table(rows: &[Row]) -> Table {
    let mut columns = vec![Column::text("network")];
    for timed in rows.first().map_or(&[][..], |row| &row.times) {
        columns.push(Column::number(format!("{}, batch {}", timed.engine, timed.batch)).unit("ms"));
        columns.push(Column::text("quartiles"));
        columns.push(Column::number("speed-up"));
    }
    let mut table = Table::new("Time beside the dense network", columns);
    for row in rows {
        let mut cells = vec![Cell::text(&row.name)];
        for timed in &row.times {
            cells.push(Cell::millis(timed.timing.median));
            cells.push(Cell::text(quartiles(&timed.timing)));
            cells.push(Cell::ratio(timed.dense.median / timed.timing.median, 2));
        }
        table.row(cells);
    }
    table
}

/// Parameters of every layer before and after.
fn params_plot(name: &str, layers: &[LayerReport]) -> BarPlot {
    let labels: Vec<&str> = layers.iter().map(|layer| layer.layer.as_str()).collect();
    let of = |totals: fn(&LayerReport) -> Totals| {
        layers.iter().map(|layer| totals(layer).params as f64).collect::<Vec<_>>()
    };
    BarPlot::new(format!("Parameters by layer, {name}"), Axis::count("parameters"), 0, labels)
        .series("before", of(|layer| layer.before))
        .series("after", of(|layer| layer.after))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
