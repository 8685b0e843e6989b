//! The zoo's page: what the trainings of every network come to, tables, plots, and what a person should choose.

use anyhow::Result;
use cp_report::{Axis, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_train::engine::EngineName;
use cp_train::timing;
use serde::Serialize;

use super::{Settings, Timed, Trained, Zoo};
use crate::figures::{mean_deviation, threads_text};

/// The trainings of one network.
#[derive(Debug, Clone, Serialize)]
pub(super) struct RowOf {
    name: String,
    own_size: bool,
    params: usize,
    macs: usize,
    seconds: f64,
    epochs: usize,
    /// By seed.
    validation: Vec<f64>,
    top1s: Vec<f64>,
    losses: Vec<f64>,
    times: Vec<Timed>,
}

impl RowOf {
    /// Mean and deviation, in percent.
    fn top1(&self) -> String {
        let (mean, deviation) = mean_deviation(&self.top1s);
        match self.top1s.len() {
            1 => format!("{:.2}", 100.0 * mean),
            n => format!("{:.2} ± {:.2} (n = {n})", 100.0 * mean, 100.0 * deviation),
        }
    }

    fn validated(&self) -> f64 {
        mean_deviation(&self.validation).0
    }

    fn milliseconds(&self, engine: EngineName, batch: usize) -> Option<f64> {
        let own = self.times.iter().find(|time| time.engine == engine && time.batch == batch);
        own.and_then(|time| Some(1e3 * time.timing?.median / batch as f64))
    }

    /// Images a second in the fastest engine at the largest batch.
    fn fastest(&self) -> Option<f64> {
        let batch = self.times.iter().map(|time| time.batch).max()?;
        let times = self.times.iter().filter(|time| time.batch == batch);
        let seconds = times.filter_map(|time| Some(time.timing?.median / batch as f64));
        seconds.min_by(f64::total_cmp).map(|seconds| 1.0 / seconds)
    }
}

impl Zoo {
    /// The best on the validation images first.
    pub(super) fn rows(&self, trained: &[Trained], times: &[Vec<Timed>]) -> Result<Vec<RowOf>> {
        let mut rows = Vec::new();
        for (first, times) in self.firsts(trained).into_iter().zip(times) {
            let own: Vec<&Trained> = trained.iter().filter(|one| one.name == first.name).collect();
            let entry = self.settings.networks.iter().find(|entry| entry.name == first.name);
            let cost = first.network.cost(&first.network.input().shape)?.total;
            rows.push(RowOf {
                name: first.name.clone(),
                own_size: entry.is_some_and(|entry| entry.own_size),
                params: cost.params,
                macs: cost.macs,
                seconds: own.iter().map(|one| one.seconds).sum::<f64>() / own.len() as f64,
                epochs: first.epochs,
                validation: own.iter().map(|one| one.validation).collect(),
                top1s: own.iter().map(|one| one.test.top1).collect(),
                losses: own.iter().map(|one| one.test.loss).collect(),
                times: times.clone(),
            });
        }
        rows.sort_by(|a, b| b.validated().total_cmp(&a.validated()));
        Ok(rows)
    }

    pub(super) fn page(&self, trained: &[Trained], rows: &[RowOf]) -> Result<Report> {
        let mut report = Report::new(
            format!("The zoo: kinds of layers on {}", self.settings.dataset),
            self.verdict(rows),
        );
        let card = |row: &RowOf| {
            Card::new(&row.name, Cell::text(row.top1()).unit("%"))
                .note(format!("{:.1} M multiply-adds", row.macs as f64 / 1e6))
        };
        report.add(Block::cards(rows.iter().take(3).map(card).collect::<Vec<_>>()));
        report.add(self.table(rows));
        report.add(self.times_table(rows));
        report.add(plot(rows));
        report.add(sparsity(&self.firsts(trained))?);
        report.add(Block::text(advice(rows)));
        report.add(Block::text(self.protocol()));
        Ok(report)
    }

    fn verdict(&self, rows: &[RowOf]) -> String {
        let Some(best) = rows.first() else { return "No network was trained.".to_owned() };
        let dense = rows.iter().find(|row| row.name == "dense");
        let beside = match dense {
            Some(dense) if dense.name != best.name => {
                format!(", {} % the dense one", dense.top1())
            }
            _ => String::new(),
        };
        format!(
            "At about {} parameters the network that is best on the validation images ({}) has {} % of {} test images right{beside}.",
            self.settings.params,
            best.name,
            best.top1(),
            self.test.len()
        )
    }

    fn table(&self, rows: &[RowOf]) -> Table {
        let mut table = Table::new(
            "One task, one recipe, one number of parameters",
            [
                Column::text("network"),
                Column::number("parameters"),
                Column::number("MACs").unit("M"),
                Column::number("epochs"),
                Column::number("training").unit("s"),
                Column::number("validation").unit("%"),
                Column::text("test top-1").unit("%"),
                Column::number("test loss").unit("nats"),
            ],
        );
        for row in rows {
            table.row([
                Cell::text(&row.name),
                Cell::count(row.params as u64),
                Cell::millions(row.macs as u64, 1),
                Cell::count(row.epochs as u64),
                Cell::number(row.seconds, 0),
                Cell::percent(row.validated(), 2),
                Cell::text(row.top1()).strong(),
                Cell::number(mean_deviation(&row.losses).0, 3),
            ]);
        }
        let size = self.test.len().max(1) as f64;
        let top1 = rows.first().map_or(0.0, |row| mean_deviation(&row.top1s).0);
        let own: Vec<&str> =
            rows.iter().filter(|row| row.own_size).map(|row| row.name.as_str()).collect();
        let own = match own.is_empty() {
            true => String::new(),
            false => format!(" Of their source's size: {}.", own.join(", ")),
        };
        table.note(format!(
            "In the order of the validation accuracy. One standard deviation of a sample of {} test images is {:.2} points.{own}",
            self.test.len(),
            100.0 * (top1 * (1.0 - top1) / size).sqrt()
        ));
        table
    }

    fn times_table(&self, rows: &[RowOf]) -> Table {
        let mut columns = vec![Column::text("network")];
        let places: Vec<(EngineName, usize)> = rows
            .first()
            .map(|row| row.times.iter().map(|time| (time.engine, time.batch)).collect())
            .unwrap_or_default();
        for (engine, batch) in &places {
            columns.push(Column::number(format!("{engine}, batch {batch}")).unit("ms an image"));
        }
        let mut table = Table::new("Time of a pass", columns);
        for row in rows {
            let times = places.iter().map(|&(engine, batch)| {
                row.milliseconds(engine, batch).map(|ms| Cell::number(ms, 3)).into()
            });
            table.row(std::iter::once(Cell::text(&row.name)).chain(times).collect::<Vec<Cell>>());
        }
        table.note(format!(
            "Medians, {}, all networks in turn within an engine and a batch.",
            threads_text(timing::set_threads(0))
        ));
        table
    }

    fn protocol(&self) -> String {
        let Settings { train, params, within, .. } = &self.settings;
        format!(
            "Protocol: {} training images, {} for validation, {} test images; {} epochs in batches of {} for every network, the best epoch on the \
             validation images, tested once. All but StasGT's are the same plain network of six 3×3 convolutions behind a stem, whose width \
             brings it within {:.0} % of {params} parameters. A network \"from dense\" is a wider dense one, trained for \
             half of the epochs, compressed to that number by the preset `default` of `polyad compress` in CP-3, and fine-tuned for the other half; its \
             multiply-adds and times are those of what is left.",
            self.data.train.len(),
            self.validation.len(),
            self.test.len(),
            train.epochs,
            train.batch_size,
            100.0 * within,
        )
    }
}

fn plot(rows: &[RowOf]) -> XyPlot {
    let mut plot = XyPlot::new(
        "Accuracy against speed",
        Axis::number("images a second, fastest engine, largest batch").log(),
        Axis::percent("test top-1"),
    );
    for row in rows {
        let (mean, deviation) = mean_deviation(&row.top1s);
        let point = row.fastest().map(|speed| (speed, mean, deviation));
        plot = plot.series(Series::points(&row.name, point));
    }
    plot.note("Up and to the right is better. Error bars: one standard deviation, where there are several trainings.")
}

/// How many weights of the linear layers at the ends, behind the poolings, are near zero: ChannelNets' reason for a classifier with fewer
/// (Gao, Wang & Ji, NeurIPS 2018). Those in factors have no such weights.
fn sparsity(trained: &[&Trained]) -> Result<XyPlot> {
    let mut plot = XyPlot::new(
        "Weights of the last linear layer",
        Axis::percent("threshold / largest weight").log(),
        Axis::percent("weights not above it").include(0.0).include(1.0),
    );
    // Ten to a decade.
    let thresholds: Vec<f64> = (0..=30).map(|n| 10_f64.powf(f64::from(n) / 10.0 - 3.0)).collect();
    for Trained { name, network, .. } in trained {
        let is_linear =
            |layer: &str| network.node(layer).is_ok_and(|node| node.op.kind() == "linear");
        let last = network.architecture().compressible().pop();
        let Some(last) = last.filter(|last| is_linear(last)) else { continue };
        let shares = network.sparsity(&last, &thresholds)?;
        plot = plot.series(Series::line(name, thresholds.iter().copied().zip(shares)));
    }
    Ok(plot.note("Networks that end in a linear layer; the first training of each."))
}

/// What a person should choose, said by the validation accuracies and the times.
fn advice(rows: &[RowOf]) -> String {
    let Some(best) = rows.first() else { return String::new() };
    let by = |better: fn(f64, f64) -> bool, value: fn(&RowOf) -> Option<f64>| {
        let mut found: Option<(&RowOf, f64)> = None;
        for row in rows {
            if let Some(value) = value(row)
                && found.is_none_or(|(_, other)| better(value, other))
            {
                found = Some((row, value));
            }
        }
        found
    };
    let fastest = by(|a, b| a > b, RowOf::fastest);
    // The fastest of those that are within a point of the best.
    let near = rows
        .iter()
        .filter(|row| row.validated() > best.validated() - 0.01)
        .filter_map(|row| Some((row, row.fastest()?)))
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let mut said =
        vec![format!("What to choose: for accuracy at this size the network \"{}\".", best.name)];
    if let Some((row, speed)) = near.filter(|(row, _)| row.name != best.name) {
        said.push(format!(
            "Of those within a point of it on the validation images, \"{}\" is the fastest ({speed:.0} images a second).",
            row.name
        ));
    }
    if let Some((row, speed)) = fastest {
        said.push(format!("The fastest of all is \"{}\" ({speed:.0} images a second).", row.name));
    }
    said.join(" ")
}

#[cfg(test)]
mod tests {
    use cp_train::timing::Timing;

    use super::*;

    #[test]
    fn the_best_on_validation_comes_first_and_is_advised() {
        let row = |name: &str, validation: f64, top1: f64, ms: f64| RowOf {
            name: name.into(),
            own_size: false,
            params: 1,
            macs: 1,
            seconds: 1.0,
            epochs: 1,
            validation: vec![validation],
            top1s: vec![top1],
            losses: vec![1.0],
            times: vec![Timed {
                engine: EngineName::Infer,
                batch: 2,
                timing: Some(Timing::of(vec![ms / 1e3])),
            }],
        };
        // The one that tests best is not the one that was chosen.
        let rows = [row("a", 0.9, 0.7, 4.0), row("b", 0.895, 0.8, 2.0), row("c", 0.5, 0.9, 1.0)];
        let said = advice(&rows);
        assert!(said.contains("the network \"a\"."), "{said}");
        assert!(said.contains("\"b\" is the fastest (1000 images"), "{said}");
        assert!(said.contains("fastest of all is \"c\" (2000"), "{said}");
    }
}
