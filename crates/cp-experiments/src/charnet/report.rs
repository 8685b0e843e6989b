//! What the grid shows: the network that is shown first, plots, and how far it is from what was published.

use std::collections::BTreeMap;

use anyhow::Result;
use cp_net::Network;
use cp_plan::LayerReport;
use cp_report::{Axis, Block, Card, Cell, Report, Series, XyPlot};
use cp_train::engine::{Engine, EngineName, Inputs, Subject};
use cp_train::timing;
use serde::{Deserialize, Serialize};

use super::{Charnet, Found, Settings, State, Times, Way, conv2};
use crate::context::Context;
use crate::experiment::{Findings, Row};
use crate::figures::{accuracy_curves, fewer, layer_table, loss_curves, threads_text};

/// Change of the accuracy below which a network is left out of the plots, in which the others would fall on one line.
const LOWEST: f64 = -0.1;

/// Where the time of a layer goes, dense and in the network shown first, in seconds of a pass.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct LayerTime {
    pub(super) layer: String,
    pub(super) dense: f64,
    pub(super) compressed: f64,
}

/// A row of the grid with its place among the networks that were timed.
#[derive(Clone, Copy)]
pub(super) struct Point<'a> {
    pub(super) state: &'a State,
    pub(super) at: usize,
}

/// Everything that was found.
pub(super) struct Grid<'a> {
    pub(super) settings: &'a Settings,
    pub(super) dense: &'a State,
    pub(super) points: Vec<Point<'a>>,
    pub(super) times: Vec<Times>,
}

pub(super) fn write(all: &Charnet, context: &Context, outcomes: &[Found]) -> Result<Findings> {
    let (networks, places) = distinct(outcomes);
    let batch = all.settings.timing_batch;
    let times = all.times(context, "latency", &networks, batch)?;
    let [dense, others @ ..] = outcomes else { anyhow::bail!("the grid has no dense network") };
    let points = others.iter().zip(&places[1..]);
    let points = points.map(|(found, &at)| Point { state: &found.state, at }).collect();
    let grid = Grid { settings: &all.settings, dense: &dense.state, points, times };
    let first = grid.first();
    let network = first.and_then(|first| {
        others.iter().find(|found| found.state.way == first.state.way).map(|found| &found.network)
    });
    let layers = match network {
        Some(network) => layer_times(all, context, network)?,
        None => Vec::new(),
    };
    let measured = conv2::measure(all, context)?;

    let mut report = Report::new(
        "CharNet at every rank, by every solver, in every form",
        grid.verdict(first, &layers),
    );
    if let Some(first) = first {
        report.add(Block::cards(grid.cards(first)));
    }
    for times in &grid.times {
        report.add(grid.plot(times));
    }
    report.add(grid.sweep_table());
    for layer in &all.settings.layers {
        report.add(grid.error_plot(layer));
    }
    report.add(grid.equal_table()?);
    report.add(
        grid.times_table(&outcomes.iter().map(|found| &found.state).collect::<Vec<_>>(), &places),
    );
    if let Some(first) = first {
        report.add(Block::heading(format!("The network shown first: {}", first.state.name)));
        report.add(layer_table(&first.state.layers));
        report.add(grid.layers_table(&layers));
    }
    conv2::show(&all.settings.conv2, &measured, &mut report);
    report.add(Block::heading("Training of the dense network"));
    let epochs = context.dir().epochs("dense")?;
    report.add(loss_curves("Loss of the dense network", &epochs));
    report.add(accuracy_curves("Accuracy of the dense network", &epochs));
    report.add(Block::text(grid.protocol()));
    let states: Vec<&State> = outcomes.iter().map(|found| &found.state).collect();
    let result = serde_json::json!({
        "networks": states,
        "timed_as": places,
        "times": grid.times,
        "first": first.map(|first| &first.state.name),
        "layers": layers,
        "conv2": measured,
    });
    Ok(Findings { report, result, rows: grid.rows(first), fault: None })
}

/// The networks that differ in their layers, the dense one first, and which of them each outcome is: values do not matter to the time.
fn distinct(outcomes: &[Found]) -> (Vec<&Network>, Vec<usize>) {
    let kind = |found: &Found| -> Vec<_> {
        let of = |layer: &LayerReport| (layer.layer.clone(), layer.form, layer.rank);
        found.state.layers.iter().map(of).collect()
    };
    let (mut networks, mut kinds, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for found in outcomes {
        let own = kind(found);
        let at = kinds.iter().position(|known| *known == own).unwrap_or_else(|| {
            kinds.push(own);
            networks.push(&found.network);
            kinds.len() - 1
        });
        places.push(at);
    }
    (networks, places)
}

/// Where the time of a pass in cp-infer goes, in the dense network and in `network`.
fn layer_times(all: &Charnet, context: &Context, network: &Network) -> Result<Vec<LayerTime>> {
    let dense = &all.start.dense;
    let (batch, threads) = (all.settings.timing_batch, all.threads()[0]);
    let names = dense.architecture().compressible();
    let stage = format!("layers-{threads}-threads");
    context.stage(&stage, &batch, &[dense, network], || {
        let inputs = Inputs::one(&dense.input().shape, batch);
        timing::set_threads(threads);
        let of = |network| Engine::Infer.node_times(Subject::Network(network), &inputs, 3, 21);
        let found = [of(dense), of(network)];
        timing::set_threads(all.threads);
        let mut sums: BTreeMap<Option<&String>, [f64; 2]> = BTreeMap::new();
        for (side, nodes) in found.into_iter().enumerate() {
            for node in nodes? {
                // The parts of a factorized layer have its name in front.
                let owner = names.iter().find(|name| {
                    node.node
                        .strip_prefix(name.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                });
                sums.entry(owner).or_default()[side] += node.seconds;
            }
        }
        let of = |layer: Option<&String>| {
            let [dense, compressed] = sums.get(&layer).copied().unwrap_or_default();
            let layer = layer.cloned().unwrap_or_else(|| "all else".into());
            LayerTime { layer, dense, compressed }
        };
        Ok(names.iter().map(Some).chain([None]).map(of).collect())
    })
}

impl Point<'_> {
    pub(super) fn validation_change(&self, dense: &State) -> f64 {
        self.state.after.validation.top1 - dense.after.validation.top1
    }

    pub(super) fn test_change(&self, dense: &State) -> f64 {
        self.state.after.test.top1 - dense.after.test.top1
    }
}

impl<'a> Grid<'a> {
    /// What networks are chosen by: our own engine with the first number of threads.
    pub(super) fn judge(&self) -> Option<&Times> {
        self.times.iter().find(|times| times.engine == EngineName::Infer)
    }

    fn speed(&self, point: &Point<'_>) -> f64 {
        self.judge().map_or(0.0, |times| times.speedup(point.at))
    }

    fn within(&self, point: &Point<'_>) -> bool {
        // A share of whole examples, rounded once.
        point.validation_change(self.dense) >= -self.settings.most_drop - 1e-9
    }

    /// The fastest network whose accuracy on the validation characters is near that of the dense one; of equally fast ones the most
    /// accurate there. Test characters have no say.
    fn first(&self) -> Option<Point<'a>> {
        let near = self.points.iter().copied().filter(|point| self.within(point));
        near.max_by(|a, b| {
            let key = |point: &Point<'_>| (self.speed(point), point.state.after.validation.top1);
            let ((fast, right), (other, wrong)) = (key(a), key(b));
            fast.total_cmp(&other).then(right.total_cmp(&wrong))
        })
    }

    /// Dense seconds in the engine that runs the dense network fastest, with as many threads.
    fn best_dense(&self, threads: usize) -> f64 {
        let same = self.times.iter().filter(|times| times.threads == threads);
        same.map(|times| times.seconds[0].median).fold(f64::INFINITY, f64::min)
    }

    fn verdict(&self, first: Option<Point<'_>>, layers: &[LayerTime]) -> String {
        let Settings { most_drop, published, timing_batch, .. } = self.settings;
        let drop = format!("{:.0} point", 100.0 * most_drop);
        let paper = format!(
            "As published ({}): {:.1}× for the whole network on a CPU, and {:.0} % to {:.0} %.",
            published.source,
            published.speedup,
            100.0 * published.dense_top1,
            100.0 * published.top1
        );
        let (Some(first), Some(judge)) = (first, self.judge()) else {
            let best = self.points.iter().max_by(|a, b| {
                a.validation_change(self.dense).total_cmp(&b.validation_change(self.dense))
            });
            let nearest = best.map_or_else(String::new, |best| {
                format!(
                    "; the nearest is {} with {:+.2} points, {:.1}× faster in cp-infer",
                    best.state.name,
                    100.0 * best.validation_change(self.dense),
                    self.speed(best)
                )
            });
            return format!(
                "No compressed network is within {drop} of the dense one on the validation characters{nearest}. {paper}"
            );
        };
        let faster: Vec<String> = (self.times.iter())
            .map(|times| format!("{:.1}× in {}", times.speedup(first.at), times.place()))
            .collect();
        let against = self.best_dense(judge.threads) / judge.seconds[first.at].median;
        format!(
            "Of {} compressed networks the fastest in cp-infer that is within {drop} of the dense one on the validation characters is {}: {} \
             multiply-accumulates, and with {timing_batch} images per batch {}; in cp-infer it is {against:.1}× faster than the dense network in the engine \
             that runs that fastest with {}. On the test characters it goes from {:.2} % to {:.2} % ({:+.2} points). {paper} {}",
            self.points.len(),
            first.state.name,
            fewer(self.dense.macs, first.state.macs),
            faster.join(", "),
            threads_text(judge.threads),
            100.0 * self.dense.after.test.top1,
            100.0 * first.state.after.test.top1,
            100.0 * first.test_change(self.dense),
            self.reached(&first, layers),
        )
    }

    /// Whether the target was reached, and what is in the way.
    fn reached(&self, first: &Point<'_>, layers: &[LayerTime]) -> String {
        let Settings { most_drop, published, .. } = self.settings;
        let target = format!(
            "{:.1}× at no more than {:.0} point lost in cp-infer",
            published.speedup,
            100.0 * most_drop
        );
        let slow = self.speed(first) < published.speedup;
        let lossy = first.test_change(self.dense) < -most_drop;
        if !slow && !lossy {
            return format!("The target, {target}, is reached.");
        }
        let mut why = Vec::new();
        if slow {
            why.push(self.slow(first, layers));
        }
        if lossy {
            why.push(
                "on the test characters it loses more than on those that it was chosen by".into(),
            );
        }
        format!("The target, {target}, is not reached: {}.", why.join("; "))
    }

    /// Why a network is not fast enough: where its time goes, and what the faster ones lose.
    fn slow(&self, first: &Point<'_>, layers: &[LayerTime]) -> String {
        let whole: f64 = layers.iter().map(|layer| layer.compressed).sum();
        let stays = |layer: &&LayerTime| !self.settings.layers.contains(&layer.layer);
        let dense: f64 = layers.iter().filter(stays).map(|layer| layer.compressed).sum();
        let mut told = format!(
            "of {} multiply-accumulates {:.1}× in time is left, and what is not decomposed takes {:.0} % of it",
            fewer(self.dense.macs, first.state.macs),
            self.speed(first),
            100.0 * dense / whole,
        );
        let fast = |point: &&Point<'_>| self.speed(point) >= self.settings.published.speedup;
        let best = self.points.iter().filter(fast).max_by(|a, b| {
            a.validation_change(self.dense).total_cmp(&b.validation_change(self.dense))
        });
        told.push_str(&match best {
            None => "; no network of the grid is that fast".to_owned(),
            Some(best) => format!(
                "; of those that are that fast the best, {}, has {:+.2} points on the validation characters",
                best.state.name,
                100.0 * best.validation_change(self.dense)
            ),
        });
        told
    }

    fn cards(&self, first: Point<'_>) -> Vec<Card> {
        let paper = &self.settings.published;
        let faster = self.times.iter().map(|times| {
            Card::new(format!("faster, {}", times.place()), Cell::ratio(times.speedup(first.at), 1))
                .note(format!("as published: {:.1}×", paper.speedup))
        });
        let published = Cell::points(paper.top1 - paper.dense_top1, 0);
        let change = Card::new(
            "test accuracy, change",
            Cell::points(first.test_change(self.dense), 2).unit("points"),
        )
        .note(format!("as published: {} point", published.as_str()));
        let macs = self.dense.macs as f64 / first.state.macs as f64;
        faster
            .chain([change, Card::new("fewer multiply-accumulates", Cell::ratio(macs, 1))])
            .collect()
    }

    /// Networks of the sweep that have a form and a solver in common, in the order of the ranks.
    pub(super) fn swept(&self) -> Vec<(String, Vec<(usize, Point<'a>)>)> {
        let mut found: Vec<(String, Vec<(usize, Point<'a>)>)> = Vec::new();
        for point in &self.points {
            let Way::Swept { rank, .. } = point.state.way else { continue };
            let name = point.state.way.label();
            match found.iter_mut().find(|(known, _)| *known == name) {
                Some((_, points)) => points.push((rank, *point)),
                None => found.push((name, vec![(rank, *point)])),
            }
        }
        found
    }

    fn plot(&self, times: &Times) -> XyPlot {
        let paper = &self.settings.published;
        let at = |point: &Point<'_>| {
            let change = point.test_change(self.dense);
            (change >= LOWEST).then(|| (times.speedup(point.at), 100.0 * change))
        };
        let mut plot = XyPlot::new(
            format!("Accuracy against speed, {}", times.place()),
            Axis::ratio("whole network, dense / compressed time").include(1.0),
            Axis::number("change of test top-1 (points)").include(0.0),
        );
        for (name, points) in self.swept() {
            plot =
                plot.series(Series::both(name, points.iter().filter_map(|(_, point)| at(point))));
        }
        for point in &self.points {
            if let Way::Equal { form } = point.state.way {
                plot = plot.series(Series::points(format!("{form}, equal MACs"), at(point)));
            }
        }
        let published = (paper.speedup, 100.0 * (paper.top1 - paper.dense_top1));
        let low = self.points.iter().filter(|point| at(point).is_none()).count();
        let left_out = match low {
            0 => String::new(),
            low => format!(
                " In the tables alone: {low} of {} networks, which lose more than {:.0} points.",
                self.points.len(),
                -100.0 * LOWEST
            ),
        };
        plot.series(Series::points(format!("{}, as published", paper.source), [published]))
            .note(format!(
                "After fine-tuning; up and to the right is better. The published point is of another machine, engine and data set.{left_out}"
            ))
    }

    /// Errors of one layer by rank: what solvers differ in before anything is trained.
    fn error_plot(&self, layer: &str) -> XyPlot {
        let mut plot = XyPlot::new(
            format!("Relative error of {layer}"),
            Axis::count("rank").log(),
            Axis::number("‖K − K̂‖ / ‖K‖").include(0.0),
        );
        for (name, points) in self.swept() {
            let error = |(rank, point): &(usize, Point<'_>)| {
                let found = point.state.layers.iter().find(|one| one.layer == layer)?;
                Some((*rank as f64, found.rel_error))
            };
            plot = plot.series(Series::both(name, points.iter().filter_map(error)));
        }
        plot
    }

    fn protocol(&self) -> String {
        let Settings { train_examples, validation_examples, test_examples, most_drop, .. } =
            self.settings;
        let Settings { train, fine_tune, sweeps, layers, .. } = self.settings;
        format!(
            "Protocol: {train_examples} characters drawn for training, {validation_examples} for validation, {test_examples} for the test, which come from type \
             faces that no training character shows. The dense network was trained for {} epochs at a rate of {}; {} were decomposed with at most {sweeps} \
             iterations of a solver (the power method: of each term), the others stay as they are; every network but the dense one was then fine-tuned for {} epochs at {}. The network \
             shown first is the fastest in cp-infer that loses no more than {:.0} point on the validation characters; every network was tested once in each of \
             its states, in eval mode. Lebedev et al. trained on rendered characters too, with fonts, distortions and backgrounds of their own, so \
             accuracies compare in kind only; their times are of Caffe on another CPU.",
            train.epochs,
            train.lr,
            layers.join(" and "),
            fine_tune.epochs,
            fine_tune.lr,
            100.0 * most_drop,
        )
    }

    fn rows(&self, first: Option<Point<'_>>) -> Vec<Row> {
        let paper = &self.settings.published;
        let Some(first) = first else { return Vec::new() };
        let State { name, params, macs, after, .. } = first.state;
        let batch = self.settings.timing_batch;
        let speeds: Vec<String> = (self.times.iter())
            .map(|times| {
                format!(
                    "{:.2}× ({}, batch {batch}, {})",
                    times.speedup(first.at),
                    times.engine,
                    threads_text(times.threads)
                )
            })
            .collect();
        let own = Row {
            network: format!("CharNet, the fastest of a sweep within a point ({name})"),
            data: "drawn characters".into(),
            params: fewer(self.dense.params, *params),
            macs: fewer(self.dense.macs, *macs),
            top1: format!(
                "{:.2} % → {:.2} %",
                100.0 * self.dense.after.test.top1,
                100.0 * after.test.top1
            ),
            speed: speeds.join(", "),
        };
        let published = Row {
            network: "CharNet, CP-4, as published".into(),
            data: paper.source.clone(),
            top1: format!("{:.0} % → {:.0} %", 100.0 * paper.dense_top1, 100.0 * paper.top1),
            speed: format!("{:.1}×, batch {batch}", paper.speedup),
            ..Row::default()
        };
        vec![own, published]
    }
}
