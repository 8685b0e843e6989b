//! AlexNet: the factorized variants of the literature, counted to the digit and timed layer by layer.
//!
//! Needs no data and no weights: neither counts nor times depend on values.
//! Sources: Astrid & Lee (2017), table of ranks and results; the SqVaD re-implementation's ranks.

use anyhow::{Context, Result};
use clap::Args;
use cp_net::{Architecture, Form, INPUT, InputSpec, Node, Op, arch};
use cp_report::{Axis, BarPlot, Block, Card, Cell, Column, Report, Table};
use cp_torch::{Executor, Layout};
use cp_train::timing::{self, Timing, TimingOptions};
use serde::{Deserialize, Serialize};

use crate::figures::threads_text;
use crate::run::{Run, RunArgs};

/// `reproduce-alexnet`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask reproduce-alexnet\n  cargo xtask reproduce-alexnet --smoke --threads 1\n  cargo xtask reproduce-alexnet --batches 1,32 --json"
)]
pub(crate) struct AlexnetArgs {
    /// Images per forward pass of the timings
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [1, 32])]
    batches: Vec<u16>,
    /// Timed samples of each network and layer
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..))]
    repeats: u16,
    /// Only see that everything works: batch 1, three samples
    #[arg(long)]
    smoke: bool,
    #[command(flatten)]
    common: RunArgs,
}

/// What decides the result, as written to the run's folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Config {
    batches: Vec<usize>,
    repeats: usize,
}

/// Ranks of conv1–5 and fc1–3.
type Ranks = [usize; 8];

/// Published table (Astrid & Lee 2017): sums 750 over the convolutions, 900 over the linear layers.
const PUBLISHED: Ranks = [69, 154, 153, 178, 196, 365, 275, 260];
/// Ranks that the SqVaD re-implementation chose by its own losses.
const REIMPLEMENTED: Ranks = [164, 147, 169, 140, 130, 318, 321, 261];
/// Measured speed-up that Astrid & Lee report for the whole network.
const PUBLISHED_SPEEDUP: f64 = 3.53;

/// A variant of AlexNet, and what its source says of it.
struct Variant {
    name: &'static str,
    arch: &'static str,
    form: Option<(Form, Ranks)>,
    /// Parameters as published or derived from the published ranks.
    params: usize,
    /// MACs in millions to one digit, where a source gives them.
    macs: Option<f64>,
    /// Top-1 / top-5 in percent that the source reports, where it does.
    accuracy: Option<(f64, f64)>,
}

const VARIANTS: [Variant; 6] = [
    Variant {
        name: "torchvision AlexNet, dense",
        arch: "alexnet",
        form: None,
        params: 61_100_840,
        macs: Some(714.2),
        accuracy: Some((56.52, 79.07)),
    },
    Variant {
        name: "re-implementation, its own ranks, CP-4",
        arch: "alexnet",
        form: Some((Form::Cp4, REIMPLEMENTED)),
        params: 8_513_084,
        macs: Some(164.1),
        accuracy: Some((39.46, 67.88)),
    },
    Variant {
        name: "published ranks, CP-4",
        arch: "alexnet",
        form: Some((Form::Cp4, PUBLISHED)),
        params: 8_799_651,
        macs: Some(125.3),
        accuracy: Some((40.49, 69.40)),
    },
    Variant {
        name: "published ranks, CP-3",
        arch: "alexnet",
        form: Some((Form::Cp3, PUBLISHED)),
        params: 8_810_373,
        macs: Some(140.9),
        accuracy: None,
    },
    Variant {
        name: "grouped Caffe AlexNet, dense",
        arch: "alexnet-caffe",
        form: None,
        params: 60_965_224,
        macs: None,
        accuracy: None,
    },
    Variant {
        name: "grouped Caffe AlexNet, published ranks, CP-3",
        arch: "alexnet-caffe",
        form: Some((Form::Cp3, PUBLISHED)),
        params: 8_727_077,
        macs: None,
        accuracy: Some((54.98, 78.53)),
    },
];

impl Variant {
    fn build(&self) -> Result<Architecture> {
        let dense = arch::by_name(self.arch)?;
        match self.form {
            Some((form, ranks)) => factorized(&dense, form, &ranks),
            None => Ok(dense),
        }
    }
}

/// `dense` with its eight layers factorized: the convolutions in `form`, the linear layers as low-rank pairs.
fn factorized(dense: &Architecture, form: Form, ranks: &Ranks) -> Result<Architecture> {
    let mut small = dense.clone();
    for (layer, &rank) in weighted_layers(dense).iter().zip(ranks) {
        let form = form.suited_to(&layer.op).context("a layer with weights has a form")?;
        // A published rank counts the groups of a layer together.
        let groups = if let Op::Conv(conv) = &layer.op { conv.groups } else { 1 };
        small.factorize(&layer.name, form, rank / groups)?;
    }
    Ok(small)
}

/// The convolutions and linear layers in order.
fn weighted_layers(arch: &Architecture) -> Vec<Node> {
    arch.nodes.iter().filter(|node| node.op.has_kernel()).cloned().collect()
}

/// The layer `layer` of `arch` as a network of its own, on the input that it has in `arch`.
fn alone(arch: &Architecture, layer: &Node) -> Result<Architecture> {
    let shapes = arch.shapes(arch.input_shapes())?;
    let shape = shapes.get(&layer.inputs[0]).context("a layer reads a value of its network")?;
    let node = Node::new(&layer.name, layer.op.clone(), [INPUT]);
    let name = format!("{} of {}", layer.name, arch.name);
    Ok(Architecture::new(name, InputSpec::features(shape), vec![node]))
}

/// Times of one thing that is run dense, as CP-3 and as CP-4; medians and quartiles in seconds per batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Times {
    what: String,
    dense: Timing,
    cp3: Timing,
    cp4: Timing,
}

impl Times {
    fn speedups(&self) -> [f64; 2] {
        [self.dense.median / self.cp3.median, self.dense.median / self.cp4.median]
    }
}

/// All times at one number of threads and images.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Measurement {
    threads: usize,
    batch: usize,
    /// The whole torchvision AlexNet first, then with its first layer left dense, then its layers.
    rows: Vec<Times>,
}

/// Parameters and MACs of a variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Count {
    name: String,
    params: usize,
    macs: usize,
}

pub(crate) fn run(args: &AlexnetArgs) -> Result<()> {
    let config = if args.smoke {
        Config { batches: vec![1], repeats: 3 }
    } else {
        Config {
            batches: args.batches.iter().map(|&batch| usize::from(batch)).collect(),
            repeats: args.repeats.into(),
        }
    };
    let run = Run::open(&args.common, "reproduce-alexnet", &config)?;

    let counts = VARIANTS
        .iter()
        .map(|variant| {
            let cost = variant.build()?.cost([3, 224, 224])?.total;
            Ok(Count { name: variant.name.into(), params: cost.params, macs: cost.macs })
        })
        .collect::<Result<Vec<_>>>()?;

    let all = timing::set_threads(0);
    let mut measurements = Vec::new();
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        for &batch in &config.batches {
            let stage = format!("times-{threads}-threads-batch-{batch}");
            measurements.push(
                run.stage(&stage, &config, &[], || measure(&run, threads, batch, config.repeats))?,
            );
        }
    }
    timing::set_threads(all);
    write_report(&run, &config, &counts, &measurements)
}

/// Times the whole network and every layer: dense, CP-3 and CP-4 in turn. Dense runs in both memory layouts, and the faster one
/// counts: the comparison is with the best that a user of the dense network can have.
fn measure(run: &Run, threads: usize, batch: usize, repeats: usize) -> Result<Measurement> {
    timing::set_threads(threads);
    let dense = arch::by_name("alexnet")?;
    let layers = weighted_layers(&dense);
    let forms = |form| factorized(&dense, form, &PUBLISHED);
    let mut rows = vec![measure_one(
        run,
        "whole network",
        &dense,
        [forms(Form::Cp3)?, forms(Form::Cp4)?],
        batch,
        repeats,
    )?];
    let but_first = |form| -> Result<Architecture> {
        let mut small = forms(form)?;
        small.densify(&layers[0].name)?;
        Ok(small)
    };
    let small = [but_first(Form::Cp3)?, but_first(Form::Cp4)?];
    rows.push(measure_one(run, "whole network, first layer dense", &dense, small, batch, repeats)?);
    for (layer, rank) in layers.iter().zip(PUBLISHED) {
        let single = alone(&dense, layer)?;
        let small = [
            factorized(&single, Form::Cp3, &[rank; 8])?,
            factorized(&single, Form::Cp4, &[rank; 8])?,
        ];
        rows.push(measure_one(run, &layer.name, &single, small, batch, repeats)?);
    }
    Ok(Measurement { threads, batch, rows })
}

fn measure_one(
    run: &Run,
    what: &str,
    dense: &Architecture,
    [cp3, cp4]: [Architecture; 2],
    batch: usize,
    repeats: usize,
) -> Result<Times> {
    eprintln!("timing {what}, batch {batch}");
    let executor = |arch: &Architecture, layout| -> Result<Executor> {
        Ok(Executor::with_layout(&arch.initialize(run.seed)?, run.stages.device(), layout)?)
    };
    let models = [
        executor(dense, Layout::Nchw)?,
        executor(dense, Layout::ChannelsLast)?,
        executor(&cp3, Layout::Auto)?,
        executor(&cp4, Layout::Auto)?,
    ];
    let options = TimingOptions { repeats, ..TimingOptions::default() };
    let times = timing::latency(&models.each_ref(), &dense.input().shape, batch, &options)?;
    let dense = if times[0].median <= times[1].median { times[0] } else { times[1] };
    Ok(Times { what: what.into(), dense, cp3: times[2], cp4: times[3] })
}

fn write_report(
    run: &Run,
    config: &Config,
    counts: &[Count],
    measurements: &[Measurement],
) -> Result<()> {
    let wrong: Vec<&str> = counts
        .iter()
        .zip(&VARIANTS)
        .filter(|(count, variant)| {
            count.params != variant.params
                || variant.macs.is_some_and(|macs| {
                    format!("{:.1}", count.macs as f64 / 1e6) != format!("{macs:.1}")
                })
        })
        .map(|(_, variant)| variant.name)
        .collect();
    let agreement = if wrong.is_empty() {
        "Parameters and MACs of all variants agree with their sources to the digit.".to_owned()
    } else {
        format!("Parameters or MACs do not agree with the source for: {}.", wrong.join("; "))
    };
    let whole: Vec<(&Measurement, [f64; 2])> =
        measurements.iter().map(|m| (m, m.rows[0].speedups())).collect();
    let speeds: Vec<String> = whole
        .iter()
        .map(|(m, [cp3, cp4])| {
            format!(
                "{cp3:.2}× (CP-3) and {cp4:.2}× (CP-4) with batch {} on {}",
                m.batch,
                threads_text(m.threads)
            )
        })
        .collect();
    let verdict = format!(
        "{agreement} At the published ranks the whole network runs faster than the dense one by {}; Astrid & Lee report {PUBLISHED_SPEEDUP}×.",
        speeds.join(", ")
    );

    let mut report = Report::new("AlexNet, factorized: counts and speed", verdict);
    report.add(Block::cards(
        whole
            .iter()
            .map(|(m, [cp3, cp4])| {
                Card::new(
                    format!("speed-up, batch {}, {}", m.batch, threads_text(m.threads)),
                    Cell::ratio(cp3.max(*cp4), 2),
                )
                .note(format!("the better of CP-3 and CP-4; paper: {PUBLISHED_SPEEDUP}×"))
            })
            .collect::<Vec<_>>(),
    ));
    report.add(Block::heading("Parameters and multiply-accumulates"));
    report.add(count_table(counts));
    report.add(Block::heading("Measured speed"));
    report.add(Block::text(
        "Random weights, 224 × 224 input, eval mode without gradients; all forms run in turn, medians. Dense is timed in both memory \
         layouts (channels first and channels last) and the faster one counts. Ranks are the published ones for the torchvision variant.",
    ));
    for measurement in measurements {
        report.add(time_table(measurement));
        let labels: Vec<&str> = measurement.rows.iter().map(|row| row.what.as_str()).collect();
        let column = |index: usize| {
            measurement.rows.iter().map(|row| row.speedups()[index]).collect::<Vec<_>>()
        };
        report.add(
            BarPlot::new(
                format!(
                    "Speed-up by layer, batch {}, {}",
                    measurement.batch,
                    threads_text(measurement.threads)
                ),
                Axis::ratio("dense time / factorized time"),
                2,
                labels,
            )
            .series("CP-3", column(0))
            .series("CP-4", column(1))
            .note("Below 1× the factorized layer is the slower one, and is better left dense."),
        );
    }
    run.finish(report, config, &serde_json::json!({ "counts": counts, "measurements": measurements, "published_speedup": PUBLISHED_SPEEDUP }))?;
    anyhow::ensure!(wrong.is_empty(), "{agreement}");
    Ok(())
}

fn count_table(counts: &[Count]) -> Table {
    let mut table = Table::new(
        "Ours beside the sources",
        [
            Column::text("variant"),
            Column::number("parameters"),
            Column::number("parameters, source").published(),
            Column::number("compression"),
            Column::number("MACs").unit("M"),
            Column::number("MACs, source").unit("M").published(),
            Column::number("top-1 / top-5, source").unit("%").published(),
        ],
    );
    for (count, variant) in counts.iter().zip(&VARIANTS) {
        let dense =
            counts.iter().zip(&VARIANTS).find(|(_, v)| v.arch == variant.arch && v.form.is_none());
        let ratio = dense.map_or(1.0, |(dense, _)| dense.params as f64 / count.params as f64);
        table.row([
            Cell::text(variant.name),
            Cell::count(count.params as u64),
            Cell::count(variant.params as u64),
            Cell::ratio(ratio, 2),
            Cell::millions(count.macs as u64, 1),
            variant.macs.map_or_else(Cell::missing, |macs| Cell::number(macs, 1)),
            variant.accuracy.map_or_else(Cell::missing, |(top1, top5)| {
                Cell::text(format!("{top1:.2} / {top5:.2}"))
            }),
        ]);
    }
    table.note(
        "Input 3 × 224 × 224. MACs are multiply-accumulates of convolutions and linear layers. The accuracies of the re-implementation and of the \
         paper differ by protocol: the former fine-tuned on validation images for 100 steps a layer, the latter on the training set.",
    );
    table
}

fn time_table(measurement: &Measurement) -> Table {
    let mut table = Table::new(
        format!("Time per batch of {}, {}", measurement.batch, threads_text(measurement.threads)),
        [
            Column::text("layer"),
            Column::number("dense").unit("ms"),
            Column::number("CP-3").unit("ms"),
            Column::number("CP-4").unit("ms"),
            Column::number("speed-up, CP-3"),
            Column::number("speed-up, CP-4"),
            Column::number("paper").published(),
        ],
    );
    for (index, row) in measurement.rows.iter().enumerate() {
        let [cp3, cp4] = row.speedups();
        table.row([
            Cell::text(&row.what),
            Cell::millis(row.dense.median),
            Cell::millis(row.cp3.median),
            Cell::millis(row.cp4.median),
            Cell::ratio(cp3, 2),
            Cell::ratio(cp4, 2),
            if index == 0 { Cell::ratio(PUBLISHED_SPEEDUP, 2) } else { Cell::missing() },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_counts_as_its_source_says() {
        for variant in &VARIANTS {
            let total = variant.build().unwrap().cost([3, 224, 224]).unwrap().total;
            assert_eq!(total.params, variant.params, "{}", variant.name);
            if let Some(macs) = variant.macs {
                assert_eq!(
                    format!("{:.1}", total.macs as f64 / 1e6),
                    format!("{macs:.1}"),
                    "{}",
                    variant.name
                );
            }
        }
    }

    #[test]
    fn a_layer_alone_costs_what_it_costs_in_the_network() {
        let dense = arch::by_name("alexnet").unwrap();
        let whole = dense.cost(&dense.input().shape).unwrap().total.macs;
        let parts: usize = weighted_layers(&dense)
            .iter()
            .map(|layer| {
                let single = alone(&dense, layer).unwrap();
                single.cost(&single.input().shape).unwrap().total.macs
            })
            .sum();
        assert_eq!(whole, parts);
    }
}
