//! The tables of a data set's page.

use cp_report::{Cell, Column, Table};
use cp_train::Evaluation;

use super::plans::Rule;
use super::report::{Findable, Size, top1};
use super::settings::Settings;
use super::{Outcome, Transfer};

impl Transfer {
    pub(super) fn head_table(&self, sizes: &[Size<'_>], dense: &Outcome) -> Table {
        let settings = &self.settings;
        let accuracy = |rule: Rule| Column::number(rule.label()).unit("%");
        let mut table = Table::new(
            format!(
                "{} on {}: test top-1 with a new head on the frozen backbone",
                settings.arch, settings.dataset
            ),
            [
                Column::text("ratio"),
                Column::number("backbone"),
                Column::number("late-heavy"),
                Column::number("ours"),
                accuracy(Rule::Published),
                accuracy(Rule::PublishedRanks),
                accuracy(Rule::LateHeavy),
                accuracy(Rule::Ours),
                Column::number("ours − protocol").unit("points"),
                Column::number("ours − ranks").unit("points"),
                Column::number(format!(
                    "{}, {}",
                    settings.published.source, settings.published.arch
                ))
                .unit("%")
                .published(),
            ],
        );
        let published = |ratio| {
            let found = settings.published_at(ratio);
            found.map_or_else(Cell::missing, |top1| Cell::percent(top1, 1))
        };
        let [by_study, sound] = [&dense.published_heads, &dense.heads];
        table.row([
            Cell::text("dense"),
            Cell::count(dense.backbone as u64),
            Cell::missing(),
            Cell::missing(),
            spread_cell(top1(by_study), by_study.len()),
            spread_cell(top1(sound), sound.len()),
            Cell::missing(),
            Cell::missing(),
            Cell::missing(),
            Cell::missing(),
            published(None),
        ]);
        for size in sizes {
            let params = |rule| {
                let found = size.of(rule);
                found.map_or_else(Cell::missing, |found| Cell::count(found.backbone as u64))
            };
            let top1 = |rule| {
                let heads = |found: &Outcome| found.heads.len().max(found.published_heads.len());
                let cell = |found: &Outcome| spread_cell(found.head_top1(), heads(found));
                size.of(rule).map_or_else(Cell::missing, cell)
            };
            let gain = |other| {
                let gain = size.gain(Rule::Ours, other);
                gain.map_or_else(Cell::missing, |gain| Cell::points(gain, 2))
            };
            table.row([
                Cell::text(size.ratio.to_string()),
                params(Rule::Published),
                params(Rule::LateHeavy),
                params(Rule::Ours),
                top1(Rule::Published),
                top1(Rule::PublishedRanks),
                top1(Rule::LateHeavy),
                top1(Rule::Ours),
                gain(Rule::Published),
                gain(Rule::PublishedRanks),
                published(Some(size.ratio)),
            ]);
        }
        let deviation = dense.heads.first().map_or(0.0, |head| sample_deviation(&head.test));
        table.note(format!(
            "Mean ± standard deviation of {} heads, each with a seed of its own, on one backbone. Backbone: parameters without the head's by the \
             published rule; the other two plans have at most as many. Protocol and ranks: the published ones. One standard deviation of the test sample is about {:.1} points. \
             Of the dense backbone, the sound protocol stands in the column of the published ranks. {}: another backbone, read off its figures.",
            self.settings.seeds,
            100.0 * deviation,
            settings.published.source,
        ));
        table
    }

    /// The networks that were trained whole, with their times.
    pub(super) fn whole_table(&self, found: &Findable, sizes: &[Size<'_>]) -> Table {
        let Settings { arch, dataset, .. } = &self.settings;
        let mut columns = vec![
            Column::text("ratio"),
            Column::text("plan"),
            Column::number("parameters"),
            Column::number("MACs").unit("M"),
            Column::number("fewer MACs"),
        ];
        for (engine, _) in &found.latencies {
            columns.push(Column::number(engine.to_string()).unit("ms"));
            columns.push(Column::number("speed-up"));
        }
        columns.extend([
            Column::number("mean relative error"),
            Column::number("top-1, head only").unit("%"),
            Column::number("top-1, whole").unit("%"),
            Column::number("whole − published protocol").unit("points"),
        ]);
        let mut table = Table::new(format!("{arch} on {dataset}"), columns);
        let whole = found.whole();
        let dense = whole.first().map(|(_, dense, _)| *dense);
        for (at, outcome, trained) in &whole {
            let mut row = vec![
                Cell::text(outcome.ratio_text()),
                Cell::text(outcome.rule.label()),
                Cell::count(outcome.params as u64),
                Cell::millions(outcome.macs as u64, 2),
                dense.map_or_else(Cell::missing, |dense| {
                    Cell::ratio(dense.macs as f64 / outcome.macs as f64, 2)
                }),
            ];
            for (_, times) in &found.latencies {
                row.push(Cell::millis(times[*at].median));
                row.push(Cell::ratio(times[0].median / times[*at].median, 2));
            }
            let size = sizes.iter().find(|size| Some(size.ratio) == outcome.ratio);
            let published = size.and_then(|size| size.of(Rule::Published));
            let error = outcome.mean_rel_error;
            row.extend([
                error.map_or_else(Cell::missing, |error| Cell::number(error, 3)),
                outcome.heads.first().map_or_else(Cell::missing, |h| Cell::percent(h.test.top1, 2)),
                Cell::percent(trained.test.top1, 2),
                published.map_or_else(Cell::missing, |published| {
                    Cell::points(trained.test.top1 - published.head_top1().0, 2)
                }),
            ]);
            table.row(row);
        }
        let deviation = whole.first().map_or(0.0, |(_, _, whole)| sample_deviation(&whole.test));
        table.note(format!(
            "Test accuracy, one seed; the head only is that which the training of the whole network starts from. Ratio: the one whose size by the \
             published rule the backbone has. One standard deviation of the test sample is about {:.1} points.",
            100.0 * deviation
        ));
        table
    }
}

/// A mean and its spread in percent; the mean alone where there is one value.
fn spread_cell((mean, deviation): (f64, f64), heads: usize) -> Cell {
    match heads {
        0 => Cell::missing(),
        1 => Cell::percent(mean, 2),
        _ => Cell::text(format!("{:.2} ± {:.2}", 100.0 * mean, 100.0 * deviation)),
    }
}

/// Standard deviation of an accuracy measured on so many examples.
fn sample_deviation(result: &Evaluation) -> f64 {
    (result.top1 * (1.0 - result.top1) / result.examples.max(1) as f64).sqrt()
}
