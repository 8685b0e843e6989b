//! AlexNet: the factorized variants of the literature, counted to the digit and timed layer by layer.
//!
//! Counts and times need no data and no weights: they do not depend on values. What does is [`study`].
//! Sources: Astrid & Lee (2017), table of ranks and results; the SqVaD re-implementation's ranks.

mod study;

use anyhow::{Context as _, Result, bail};
use clap::ArgMatches;
use cp_net::{Architecture, Form, INPUT, InputSpec, Node, Op, arch};
use cp_report::{Axis, BarPlot, Block, Card, Cell, Column, Report, Table};
use cp_torch::{Executor, Layout};
use cp_train::engine::{self, Inputs, Subject};
use cp_train::timing::{self, Timing, TimingOptions};
use cp_train::{Engine, EngineName};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::description::Description;
use crate::experiment::{self, Experiment, Findings, Row};
use crate::figures::threads_text;

/// `experiments/reproduce-alexnet.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    batches: Vec<usize>,
    repeats: usize,
    published: Published,
    /// What is done with `--dataset`.
    study: study::StudySettings,
}

/// Counts and times, or with a data set the study on it.
pub(crate) fn run(name: &'static str, about: &Description, args: &ArgMatches) -> Result<()> {
    if args.get_one::<String>("dataset").is_some() {
        return experiment::run::<study::Study>(name, about, args);
    }
    for option in ["arch", "weights", "only"] {
        if args.get_one::<String>(option).is_some() {
            bail!(
                "--{option} is of the study on data: add --dataset cifar10 or --dataset imagenet"
            );
        }
    }
    experiment::run::<Alexnet>(name, about, args)
}

/// Ranks of conv1–5 and fc1–3.
type Ranks = [usize; 8];

/// What the sources say.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    source: String,
    ranks: Ranks,
    reimplemented: Ranks,
    /// Measured for the whole network.
    speedup: f64,
    variant: Vec<Variant>,
    /// Allocations of the re-implementation, by losses and a size share of 0.8.
    sweep: Vec<Allocation>,
}

/// Ranks that a source printed for budgets, and what came of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allocation {
    /// Sums of the ranks of convolutions and of linear layers.
    budgets: (usize, usize),
    ranks: Ranks,
    params: usize,
    /// In percent.
    top1: f64,
}

impl Allocation {
    fn name(&self) -> String {
        format!("rank sweep, {} / {}", self.budgets.0, self.budgets.1)
    }
}

/// A variant of AlexNet, and what its source says of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Variant {
    name: String,
    arch: String,
    /// None for the dense network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<Form>,
    #[serde(default)]
    ranks: Which,
    /// Parameters as published or derived from the published ranks.
    params: usize,
    /// MACs in millions to one digit, where a source gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    macs: Option<f64>,
    /// Top-1 / top-5 in percent that the source reports, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    accuracy: Option<(f64, f64)>,
}

/// Whose ranks.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Which {
    #[default]
    Published,
    Reimplemented,
}

impl Published {
    fn build(&self, variant: &Variant) -> Result<Architecture> {
        let dense = arch::by_name(&variant.arch)?;
        let ranks = match variant.ranks {
            Which::Published => &self.ranks,
            Which::Reimplemented => &self.reimplemented,
        };
        match variant.form {
            Some(form) => factorized(&dense, form, ranks),
            None => Ok(dense),
        }
    }

    /// The sweep as CP-4 of torchvision's network.
    fn swept(&self) -> Result<Vec<Count>> {
        let dense = arch::by_name("alexnet")?;
        let one = |allocation: &Allocation| {
            let cost = factorized(&dense, Form::Cp4, &allocation.ranks)?.cost([3, 224, 224])?.total;
            Ok(Count { name: allocation.name(), params: cost.params, macs: cost.macs })
        };
        self.sweep.iter().map(one).collect()
    }

    fn count(&self) -> Result<Vec<Count>> {
        let one = |variant: &Variant| {
            let cost = self.build(variant)?.cost([3, 224, 224])?.total;
            Ok(Count { name: variant.name.clone(), params: cost.params, macs: cost.macs })
        };
        self.variant.iter().map(one).collect()
    }

    /// Variants and allocations whose counts differ from those of their source.
    fn wrong<'a>(&'a self, counts: &[Count], swept: &'a [Count]) -> Vec<&'a str> {
        let digits = |macs: f64| format!("{macs:.1}");
        let other = (swept.iter().zip(&self.sweep))
            .filter(|(count, allocation)| count.params != allocation.params)
            .map(|(count, _)| count.name.as_str());
        (counts.iter().zip(&self.variant))
            .filter(|(count, variant)| {
                let macs = digits(count.macs as f64 / 1e6);
                count.params != variant.params
                    || variant.macs.is_some_and(|published| macs != digits(published))
            })
            .map(|(_, variant)| variant.name.as_str())
            .chain(other)
            .collect()
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
pub(crate) struct Measurement {
    threads: usize,
    batch: usize,
    /// In libtorch: the whole torchvision AlexNet first, then with its first layer left dense, then its layers.
    rows: Vec<Times>,
    /// Whole networks in the engine that runs them fastest: at the published ranks, with the first layer dense, and so with ranks rounded
    /// down to multiples of 16.
    whole: Vec<Times>,
    engine: EngineName,
}

/// Parameters and MACs of a variant.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Count {
    name: String,
    params: usize,
    macs: usize,
}

pub(crate) struct Alexnet {
    settings: Settings,
}

impl Experiment for Alexnet {
    type Settings = Settings;
    /// Threads and images.
    type Cell = (usize, usize);
    type Outcome = Measurement;

    fn check(settings: &Settings) -> Result<()> {
        settings.published.count()?;
        settings.study.check()
    }

    fn prepare(_context: &mut Context, settings: Settings) -> Result<Self> {
        Ok(Self { settings })
    }

    fn cells(&self) -> Vec<(usize, usize)> {
        let all = timing::set_threads(0);
        let threads = if all > 1 { vec![1, all] } else { vec![1] };
        let batches = &self.settings.batches;
        let of = |threads| batches.iter().map(move |&batch| (threads, batch));
        threads.into_iter().flat_map(of).collect()
    }

    fn name((threads, batch): &(usize, usize)) -> String {
        format!("batch {batch} on {}", threads_text(*threads))
    }

    fn run(&self, context: &Context, &(threads, batch): &(usize, usize)) -> Result<Measurement> {
        let stage = format!("times-{threads}-threads-batch-{batch}");
        let all = timing::set_threads(threads);
        let engine = context.stages.engine().name();
        let settings = (batch, self.settings.repeats, self.settings.published.ranks, engine);
        let found = context.stage(&stage, &settings, &[], || self.measure(context, threads, batch));
        timing::set_threads(all);
        found
    }

    fn report(&self, _context: &Context, measurements: Vec<Measurement>) -> Result<Findings> {
        let counts = self.settings.published.count()?;
        let swept = self.settings.published.swept()?;
        self.write_report(&counts, &swept, &measurements)
    }
}

impl Alexnet {
    /// Times the whole network and every layer: dense, CP-3 and CP-4 in turn. Dense runs in both memory layouts, and the faster one
    /// counts: the comparison is with the best that a user of the dense network can have.
    fn measure(&self, context: &Context, threads: usize, batch: usize) -> Result<Measurement> {
        let (repeats, ranks) = (self.settings.repeats, &self.settings.published.ranks);
        let dense = arch::by_name("alexnet")?;
        let layers = weighted_layers(&dense);
        let forms = |form| factorized(&dense, form, ranks);
        let but_first = |form| -> Result<Architecture> {
            let mut small = forms(form)?;
            small.densify(&layers[0].name)?;
            Ok(small)
        };
        let whole = [
            ("whole network".to_owned(), [forms(Form::Cp3)?, forms(Form::Cp4)?]),
            (
                "whole network, first layer dense".into(),
                [but_first(Form::Cp3)?, but_first(Form::Cp4)?],
            ),
        ];
        let mut rows = times(context, &dense, &whole, Input::AsGiven, batch, repeats)?;
        for (layer, rank) in layers.iter().zip(*ranks) {
            let single = alone(&dense, layer)?;
            let small = [
                factorized(&single, Form::Cp3, &[rank; 8])?,
                factorized(&single, Form::Cp4, &[rank; 8])?,
            ];
            let small = [(layer.name.clone(), small)];
            rows.extend(times(context, &single, &small, Input::InLayout, batch, repeats)?);
        }
        let [all, but_first_rows] = whole;
        let sixteens = ranks.map(|rank| rank / 16 * 16);
        let rounded = |form| -> Result<Architecture> {
            let mut small = factorized(&dense, form, &sixteens)?;
            small.densify(&layers[0].name)?;
            Ok(small)
        };
        let rounded = (
            "first layer dense, ranks rounded down to multiples of 16".to_owned(),
            [rounded(Form::Cp3)?, rounded(Form::Cp4)?],
        );
        let whole = [all, but_first_rows, rounded];
        let engine = context.stages.engine();
        let whole = times_in(engine, context.seed, &dense, &whole, batch, repeats)?;
        Ok(Measurement { threads, batch, rows, whole, engine: engine.name() })
    }
}

/// Times `dense` and all of `small` in turn in `engine`.
fn times_in(
    engine: Engine,
    seed: u64,
    dense: &Architecture,
    small: &[(String, [Architecture; 2])],
    batch: usize,
    repeats: usize,
) -> Result<Vec<Times>> {
    eprintln!("timing whole networks in {}, batch {batch}", engine.name());
    let mut networks = vec![dense.initialize(seed)?];
    for (_, forms) in small {
        for form in forms {
            networks.push(form.initialize(seed)?);
        }
    }
    let subjects: Vec<Subject<'_>> = networks.iter().map(Subject::Network).collect();
    let inputs = Inputs::one(&dense.input().shape, batch);
    let options = TimingOptions { repeats, ..TimingOptions::default() };
    let found = engine.latency(&subjects, &inputs, &options)?;
    let row = |((what, _), pair): (&(String, _), &[Timing])| Times {
        what: what.clone(),
        dense: found[0],
        cp3: pair[0],
        cp4: pair[1],
    };
    Ok(small.iter().zip(found[1..].chunks(2)).map(row).collect())
}

/// How the input lies in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    /// Channels first, as a user has it: a network that runs in another layout converts it.
    AsGiven,
    /// As the network wants it, and as a layer inside a network gets it from the one before.
    InLayout,
}

/// Times `dense` and all of `small` in turn: rows that are compared with one dense network have one time of it.
fn times(
    context: &Context,
    dense: &Architecture,
    small: &[(String, [Architecture; 2])],
    input: Input,
    batch: usize,
    repeats: usize,
) -> Result<Vec<Times>> {
    eprintln!("timing {}, batch {batch}", small[0].0);
    let executor = |arch: &Architecture, layout| -> Result<Executor> {
        let device = context.stages.device().into();
        Ok(Executor::with_layout(&arch.initialize(context.seed)?, device, layout)?)
    };
    let mut models = vec![executor(dense, Layout::Nchw)?, executor(dense, Layout::ChannelsLast)?];
    for (_, forms) in small {
        for form in forms {
            models.push(executor(form, Layout::Auto)?);
        }
    }
    let models: Vec<&Executor> = models.iter().collect();
    let options = TimingOptions { repeats, ..TimingOptions::default() };
    let shape = &dense.input().shape;
    let found = match input {
        Input::AsGiven => engine::latency(&models, shape, batch, &options)?,
        Input::InLayout => engine::latency_in_layout(&models, shape, batch, &options)?,
    };
    let dense = if found[0].median <= found[1].median { found[0] } else { found[1] };
    let row = |((what, _), pair): (&(String, _), &[Timing])| Times {
        what: what.clone(),
        dense,
        cp3: pair[0],
        cp4: pair[1],
    };
    Ok(small.iter().zip(found[2..].chunks(2)).map(row).collect())
}

impl Alexnet {
    fn write_report(
        &self,
        counts: &[Count],
        swept: &[Count],
        measurements: &[Measurement],
    ) -> Result<Findings> {
        let published = &self.settings.published;
        let speedup = published.speedup;
        let wrong = published.wrong(counts, swept);
        let agreement = if wrong.is_empty() {
            "Parameters and MACs of all variants agree with their sources to the digit.".to_owned()
        } else {
            format!("Parameters or MACs do not agree with the source for: {}.", wrong.join("; "))
        };
        let whole: Vec<(&Measurement, [f64; 2])> =
            measurements.iter().map(|m| (m, m.whole[1].speedups())).collect();
        let engine = measurements.first().map_or(EngineName::default(), |m| m.engine);
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
            "{agreement} At the published ranks, with the first layer left dense, the whole network runs faster than the dense one in {engine} by {}; \
             Astrid & Lee report {speedup}×.",
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
                    .note(format!("{engine}, first layer dense, the better of CP-3 and CP-4; paper: {speedup}×"))
                })
                .collect::<Vec<_>>(),
        ));
        report.add(Block::heading("Parameters and multiply-accumulates"));
        report.add(count_table(counts, &published.variant));
        report.add(sweep_table(counts, swept, &published.sweep));
        report.add(Block::heading("Measured speed"));
        for measurement in measurements {
            report.add(whole_table(measurement, speedup));
        }
        report.add(Block::heading("Layer by layer in libtorch"));
        report.add(Block::text(
        "Random weights, 224 × 224 input, eval mode without gradients; all forms run in turn, medians. Dense is timed in both memory \
         layouts (channels first and channels last) and the faster one counts. Whole networks convert their input where they run in \
         another layout; single layers get theirs as it lies inside a network. Ranks are the published ones for the torchvision variant.",
    ));
        for measurement in measurements {
            report.add(time_table(measurement, speedup));
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
        let result =
            serde_json::json!({ "counts": counts, "sweep": swept, "measurements": measurements });
        let fault = (!wrong.is_empty()).then_some(agreement);
        Ok(Findings { report, result, rows: rows(counts, measurements, speedup), fault })
    }
}

/// The published ranks, the whole network with and without its first layer.
fn rows(counts: &[Count], measurements: &[Measurement], published: f64) -> Vec<Row> {
    let speed = |index: usize| {
        let one = |m: &Measurement| {
            let [cp3, _] = m.whole[index].speedups();
            format!("{cp3:.2}× ({}, batch {}, {})", m.engine, m.batch, threads_text(m.threads))
        };
        measurements.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let millions = |count: usize| format!("{:.1} M", count as f64 / 1e6);
    let (dense, cp3) = (&counts[0], &counts[3]);
    vec![
        Row {
            network: "AlexNet, CP-3, published ranks".into(),
            data: "random weights, 224×224".into(),
            params: format!("{} → {}", millions(dense.params), millions(cp3.params)),
            macs: format!("{} → {}", millions(dense.macs), millions(cp3.macs)),
            speed: format!("{}; Astrid & Lee report {published}×", speed(0)),
            ..Row::default()
        },
        Row {
            network: "the same with the first layer left dense".into(),
            speed: speed(1),
            ..Row::default()
        },
        Row {
            network: "and with ranks rounded down to multiples of 16".into(),
            speed: speed(2),
            ..Row::default()
        },
    ]
}

fn count_table(counts: &[Count], variants: &[Variant]) -> Table {
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
    for (count, variant) in counts.iter().zip(variants) {
        let dense =
            counts.iter().zip(variants).find(|(_, v)| v.arch == variant.arch && v.form.is_none());
        let ratio = dense.map_or(1.0, |(dense, _)| dense.params as f64 / count.params as f64);
        table.row([
            Cell::text(&variant.name),
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

/// Ranks by losses and sizes at six budgets.
fn sweep_table(counts: &[Count], swept: &[Count], sweep: &[Allocation]) -> Table {
    let mut table = Table::new(
        "Rank sweep of the re-implementation",
        [
            Column::text("sums of ranks, convolutions / linear layers"),
            Column::text("ranks"),
            Column::number("parameters"),
            Column::number("parameters, source").published(),
            Column::number("compression"),
            Column::number("MACs").unit("M"),
            Column::number("top-1, source").unit("%").published(),
        ],
    );
    for (count, allocation) in swept.iter().zip(sweep) {
        let ranks: Vec<String> = allocation.ranks.iter().map(ToString::to_string).collect();
        table.row([
            Cell::text(format!("{} / {}", allocation.budgets.0, allocation.budgets.1)),
            Cell::text(ranks.join(", ")),
            Cell::count(count.params as u64),
            Cell::count(allocation.params as u64),
            Cell::ratio(counts[0].params as f64 / count.params as f64, 2),
            Cell::millions(count.macs as u64, 1),
            Cell::number(allocation.top1, 2),
        ]);
    }
    table.note(
        "CP-4 of torchvision's AlexNet with the ranks that SqVaD printed: shares of the loss at rank 5, four fifths by size (`polyad compress --rank-sums … \
         --loss cross-entropy --size-share 0.8`).",
    );
    table
}

/// Whole networks in the fastest engine.
fn whole_table(measurement: &Measurement, published: f64) -> Table {
    let Measurement { engine, batch, threads, whole, .. } = measurement;
    let mut table = Table::new(
        format!("Whole network in {engine}, batch {batch}, {}", threads_text(*threads)),
        [
            Column::text("network"),
            Column::number("dense").unit("ms"),
            Column::number("CP-3").unit("ms"),
            Column::text("quartiles"),
            Column::number("CP-4").unit("ms"),
            Column::text("quartiles"),
            Column::number("speed-up, CP-3"),
            Column::number("speed-up, CP-4"),
            Column::number("paper").published(),
        ],
    );
    let quartiles = |time: &Timing| format!("{:.2}–{:.2}", 1e3 * time.lower, 1e3 * time.upper);
    for row in whole {
        let [cp3, cp4] = row.speedups();
        table.row([
            Cell::text(&row.what),
            Cell::millis(row.dense.median),
            Cell::millis(row.cp3.median),
            Cell::text(quartiles(&row.cp3)),
            Cell::millis(row.cp4.median),
            Cell::text(quartiles(&row.cp4)),
            Cell::ratio(cp3, 2),
            Cell::ratio(cp4, 2),
            Cell::ratio(published, 2),
        ]);
    }
    table
}

fn time_table(measurement: &Measurement, published: f64) -> Table {
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
            if index == 0 { Cell::ratio(published, 2) } else { Cell::missing() },
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Published {
        let text: toml::Table =
            include_str!("../experiments/reproduce-alexnet.toml").parse().unwrap();
        text["settings"]["published"].clone().try_into().unwrap()
    }

    #[test]
    fn every_variant_counts_as_its_source_says() {
        let published = published();
        let swept = published.swept().unwrap();
        assert_eq!(swept.len(), 6);
        assert_eq!(published.wrong(&published.count().unwrap(), &swept), Vec::<&str>::new());
        let mut other = published.clone();
        other.variant[2].params += 1;
        other.variant[3].macs = Some(140.8);
        let found = published.count().unwrap();
        other.sweep[1].params -= 1;
        assert_eq!(
            other.wrong(&found, &swept),
            [&*published.variant[2].name, &published.variant[3].name, &swept[1].name]
        );
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
