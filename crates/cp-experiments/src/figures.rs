//! Tables, plots and phrases that several experiments show.

use cp_plan::LayerReport;
use cp_report::{Axis, Cell, Column, Series, Table, XyPlot};
use cp_train::timing::Timing;
use cp_train::{EpochMetrics, Latency};

pub(crate) fn threads_text(threads: usize) -> String {
    if threads == 1 { "1 thread".into() } else { format!("{threads} threads") }
}

/// Mean and standard deviation (of the sample; 0 for one value).
pub(crate) fn mean_deviation(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let square: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, if values.len() > 1 { (square / (n - 1.0)).sqrt() } else { 0.0 })
}

/// First and third quartile, in milliseconds.
pub(crate) fn quartiles(time: &Timing) -> String {
    format!("{:.2}–{:.2}", 1e3 * time.lower, 1e3 * time.upper)
}

/// How many times fewer, for the README.
pub(crate) fn fewer(before: usize, after: usize) -> String {
    format!("{:.1}× fewer", before as f64 / after as f64)
}

/// Speed-ups by threads and batch, for the README.
pub(crate) fn speeds(latencies: &[Latency]) -> String {
    let one = |latency: &Latency| {
        format!(
            "{:.2}× ({}, batch {}, {})",
            latency.speedup(),
            latency.engine,
            latency.batch,
            threads_text(latency.threads)
        )
    };
    latencies.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Training and validation loss over the epochs.
pub(crate) fn loss_curves(title: &str, epochs: &[EpochMetrics]) -> XyPlot {
    XyPlot::new(title, Axis::count("epoch"), Axis::number("loss (nats)").include(0.0))
        .series(Series::both("training", epochs.iter().map(|e| (number(e), e.train_loss))))
        .series(Series::both(
            "validation",
            epochs.iter().filter_map(|e| Some((number(e), e.validation?.loss))),
        ))
}

/// Training and validation top-1 over the epochs.
pub(crate) fn accuracy_curves(title: &str, epochs: &[EpochMetrics]) -> XyPlot {
    XyPlot::new(title, Axis::count("epoch"), Axis::percent("top-1"))
        .series(Series::both("training", epochs.iter().map(|e| (number(e), e.train_top1))))
        .series(Series::both(
            "validation",
            epochs.iter().filter_map(|e| Some((number(e), e.validation?.top1))),
        ))
}

/// An epoch's number as people count, from 1.
pub(crate) fn number(epoch: &EpochMetrics) -> f64 {
    (epoch.epoch + 1) as f64
}

/// What became of every decomposed layer.
pub(crate) fn layer_table(layers: &[LayerReport]) -> Table {
    let mut table = Table::new(
        "Layer by layer",
        [
            Column::text("layer"),
            Column::text("form"),
            Column::number("rank"),
            Column::number("relative error"),
            Column::number("component energy"),
            Column::number("parameters, dense"),
            Column::number("parameters"),
            Column::number("MACs, dense").unit("M"),
            Column::number("MACs").unit("M"),
        ],
    );
    for layer in layers {
        table.row([
            Cell::text(&layer.layer),
            Cell::text(layer.form.name()),
            Cell::text(layer.rank.to_string()),
            Cell::number(layer.rel_error, 4),
            Cell::significant(layer.component_energy, 3),
            Cell::count(layer.before.params as u64),
            Cell::count(layer.after.params as u64),
            Cell::millions(layer.before.macs as u64, 3),
            Cell::millions(layer.after.macs as u64, 3),
        ]);
    }
    let sum = |of: fn(&LayerReport) -> usize| layers.iter().map(of).sum::<usize>() as u64;
    table.total([
        Cell::text("all"),
        Cell::text(""),
        Cell::text(""),
        Cell::text(""),
        Cell::text(""),
        Cell::count(sum(|layer| layer.before.params)),
        Cell::count(sum(|layer| layer.after.params)),
        Cell::millions(sum(|layer| layer.before.macs), 3),
        Cell::millions(sum(|layer| layer.after.macs), 3),
    ]);
    table.note(
        "Relative error: ‖K − K̂‖ / ‖K‖ of the kernel before fine-tuning. Component energy: Σ ‖term‖² / ‖K‖²; above about 10 the terms cancel \
         each other and fine-tuning suffers.",
    );
    table
}
