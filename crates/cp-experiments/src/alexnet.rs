//! AlexNet: the factorized variants of the literature, counted to the digit and timed layer by layer.
//!
//! Counts and times need no data and no weights: they do not depend on values. What does is [`study`].
//! Sources: Astrid & Lee (2017), table of ranks and results; the SqVaD re-implementation's ranks.

mod counts;
mod speed;
mod study;

use anyhow::{Result, bail};
use clap::ArgMatches;
use cp_report::{Axis, BarPlot, Block, Card, Cell, Report};
use cp_train::EngineName;
use cp_train::timing;
use serde::{Deserialize, Serialize};

use self::counts::{Count, Published, count_table, sweep_table};
use self::speed::{Measurement, measure, time_table, whole_table};
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
        let found = context.stage(&stage, &settings, &[], || {
            let Settings { published, repeats, .. } = &self.settings;
            measure(context, &published.ranks, *repeats, threads, batch)
        });
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
