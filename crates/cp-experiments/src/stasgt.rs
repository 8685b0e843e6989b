//! StasGT's two networks, trained by the recipe of its notebooks and judged in two ways side by side.
//!
//! The source's habit is no measurement of a network: it evaluates in train mode, so that an image's class depends on the images beside it,
//! and takes the best of all evaluations on the test images. It is repeated here as it is, on copies of the network in training, beside
//! one evaluation of the last weights in eval mode.
//!
//! The steps are the same with and without it. In train mode a batch norm reads the statistics of the batch alone, so that no weight depends
//! on the running ones, which are all that the source's evaluations move; and the networks draw nothing at random.

use std::sync::Arc;

use anyhow::{Result, bail};
use cp_data::{Dataset, Loader, LoaderConfig, Order};
use cp_net::{Network, Op, arch};
use cp_report::{Axis, Block, Card, Cell, Column, Report, Series, Table, XyPlot};
use cp_torch::tch::no_grad;
use cp_torch::{Executor, Mode, array_from_tensor};
use cp_train::{
    Augmentation, CalibrationOptions, EpochMetrics, Key, Observation, Stages, TrainConfig,
    TrainData, TrainError, batch, calibrate,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::context::{Context, sample};
use crate::experiment::{Experiment, Findings};
use crate::figures::{mean_deviation, number};

const NETWORKS: [&str; 2] = ["stasgt-simple", "stasgt-advanced"];

/// `experiments/stasgt.toml`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    networks: Vec<String>,
    dataset: String,
    test_split: String,
    /// Trainings of each network, with the seeds of `train` upward.
    repeats: u64,
    /// Steps between two evaluations of the source's kind, and images of their batches.
    habit_every: usize,
    habit_batch: usize,
    /// Training images that running statistics are measured on where no batch norm is shared.
    calibrate: usize,
    /// Of the training and of the test images; 0 for all.
    train_examples: usize,
    test_examples: usize,
    train: TrainConfig,
    claims: Vec<Claim>,
}

/// A figure of the source.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    network: String,
    top1: f64,
    /// The last training loss that it shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss: Option<f64>,
    r#where: String,
}

pub(crate) struct Stasgt {
    settings: Settings,
    data: TrainData,
    test: Arc<dyn Dataset>,
}

/// Test images of each class, and those of them that are classified right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Hits {
    examples: Vec<usize>,
    right: Vec<usize>,
}

/// One training of one network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    network: String,
    seed: u64,
    params: usize,
    macs: usize,
    /// The last weights, in eval mode.
    sound: Hits,
    /// The same with the shared batch norms apart.
    apart: Hits,
    /// The evaluations of the source's kind, in train mode, with the steps made until then.
    habit: Vec<(usize, Hits)>,
    epochs: Vec<EpochMetrics>,
}

impl Hits {
    /// Share of all images, 0…1.
    fn top1(&self) -> f64 {
        let all: usize = self.examples.iter().sum();
        self.right.iter().sum::<usize>() as f64 / all.max(1) as f64
    }

    /// Share of the images of one class; none where there are none.
    fn of(&self, class: usize) -> Option<f64> {
        let all = self.examples[class];
        (all > 0).then(|| self.right[class] as f64 / all as f64)
    }
}

impl Outcome {
    /// The evaluation that the source would have kept: the first of the best.
    fn kept(&self) -> Option<&(usize, Hits)> {
        let mut kept: Option<&(usize, Hits)> = None;
        for look in &self.habit {
            if kept.is_none_or(|(_, best)| look.1.top1() > best.top1()) {
                kept = Some(look);
            }
        }
        kept
    }
}

/// Classifies all of `set` in batches of `batch_size`, in its order, in `mode`: of equal logits the first counts, as in torch's `max` on a CPU.
fn hits(
    model: &Executor,
    mode: Mode,
    set: &Arc<dyn Dataset>,
    batch_size: usize,
) -> Result<Hits, TrainError> {
    let input = model.architecture().input();
    let loader = Loader::new(
        Arc::clone(set),
        LoaderConfig {
            batch_size,
            order: Order::Sequential,
            transform: batch::fitting_transform(set.as_ref(), input)?,
            workers: 1,
            drop_last: false,
        },
    )?;
    let classes = set.classes().len();
    let mut found = Hits { examples: vec![0; classes], right: vec![0; classes] };
    for batch in loader {
        let batch = batch?;
        let (x, _) = batch::to_tensors(&batch, input, model.device())?;
        let logits = array_from_tensor(&no_grad(|| model.forward(&x, mode))?)?;
        for (row, &label) in logits.outer_iter().zip(&batch.labels) {
            // Labels are checked against the classes where the set is made.
            let label = usize::try_from(label).unwrap_or(0);
            let first = row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (at, &z)| {
                if z > best.1 { (at, z) } else { best }
            });
            found.examples[label] += 1;
            found.right[label] += usize::from(first.0 == label);
        }
    }
    Ok(found)
}

/// `network` with a batch norm for every place that shares one, of the same scale and shift, and running statistics measured on images of `data`.
///
/// A shared one has one pair of running statistics for two layers and moves it towards either in turn, so that it fits neither.
fn apart(
    network: &Network,
    data: &Arc<dyn Dataset>,
    images: usize,
    seed: u64,
    stages: &Stages,
) -> Result<Executor> {
    let mut own = network.clone();
    for node in &network.architecture().nodes {
        if matches!(node.op, Op::BatchNorm(_)) {
            own.unshare(&node.name)?;
        }
    }
    let mut model = stages.executor(&own)?;
    let augmentation = Augmentation::default();
    calibrate(&mut model, data, &CalibrationOptions { images, augmentation, seed, workers: 1 })?;
    Ok(model)
}

impl Experiment for Stasgt {
    type Settings = Settings;
    /// A network and the seed of its training.
    type Cell = (String, u64);
    type Outcome = Outcome;

    fn seed(settings: &mut Settings, seed: u64) {
        settings.train.seed = seed;
    }

    fn check(settings: &Settings) -> Result<()> {
        if settings.networks.is_empty() {
            bail!(
                "the settings name no networks: at least one of {} is needed",
                NETWORKS.join(", ")
            );
        }
        if let Some(name) = settings.networks.iter().find(|name| !NETWORKS.contains(&name.as_str()))
        {
            bail!("--networks: {name} is none of {}", NETWORKS.join(", "));
        }
        for (name, value) in [
            ("repeats", settings.repeats),
            ("habit_every", settings.habit_every as u64),
            ("habit_batch", settings.habit_batch as u64),
            ("calibrate", settings.calibrate as u64),
            ("train.epochs", settings.train.epochs as u64),
        ] {
            if value == 0 {
                bail!("{name} = 0 in the settings: at least 1 is needed");
            }
        }
        Ok(settings.train.check()?)
    }

    fn prepare(context: &mut Context, settings: Settings) -> Result<Self> {
        let mut open = |split: &str, count: usize| {
            let set = context.dataset(&settings.dataset, split)?;
            if count == 0 { Ok(set) } else { sample(set, count, context.seed) }
        };
        // Nothing is chosen on the way, so that no image has to be kept from training.
        let train = open("train+validation", settings.train_examples)?;
        let test = open(&settings.test_split, settings.test_examples)?;
        Ok(Self { settings, data: TrainData { train, validation: None }, test })
    }

    fn cells(&self) -> Vec<(String, u64)> {
        let Settings { networks, repeats, train, .. } = &self.settings;
        let seeds = (0..*repeats).map(|n| train.seed.wrapping_add(n));
        let of = |name: &String| seeds.clone().map(|seed| (name.clone(), seed)).collect::<Vec<_>>();
        networks.iter().flat_map(of).collect()
    }

    fn name((network, seed): &(String, u64)) -> String {
        format!("{network}, seed {seed}")
    }

    fn run(&self, context: &Context, (network, seed): &(String, u64)) -> Result<Outcome> {
        let Self { settings, data, test } = self;
        let stages = context.stages.within(&format!("{network}-seed{seed}"))?;
        let start =
            arch::by_name(network)?.with_classes(test.classes().len())?.initialize(*seed)?;
        let config = TrainConfig { seed: *seed, ..settings.train.clone() };
        let observation = Observation {
            every: settings.habit_every,
            of: &|key: Key| {
                key.setting("habit_batch", &settings.habit_batch).data("habit", test.as_ref())
            },
            // On a copy, whose running statistics move as those of the source's network do, and go with it.
            look: &mut |model: &Executor| {
                let copy = Executor::new(&model.network()?, model.device())?;
                hits(&copy, Mode::Train, test, settings.habit_batch)
            },
        };
        let model = stages.executor(&start)?;
        let (trained, habit) =
            stages.train_observed("trained", model, data, &config, observation)?;
        let key = Key::new("sound", 1).network("network", &trained).data("data", test.as_ref())?;
        let sound = stages.result(&key, || {
            hits(&stages.executor(&trained)?, Mode::Eval, test, settings.habit_batch)
        })?;
        let key = Key::new("apart", 1)
            .network("network", &trained)
            .data("data", test.as_ref())?
            .data("calibrate", data.train.as_ref())?
            .setting("images", &settings.calibrate)
            .setting("seed", seed);
        let apart = stages.result(&key, || {
            let model = apart(&trained, &data.train, settings.calibrate, *seed, &stages)?;
            Ok::<_, anyhow::Error>(hits(&model, Mode::Eval, test, settings.habit_batch)?)
        })?;
        let cost = trained.cost(&trained.input().shape)?.total;
        Ok(Outcome {
            network: network.clone(),
            seed: *seed,
            params: cost.params,
            macs: cost.macs,
            sound,
            apart,
            habit,
            epochs: stages.dir().epochs("trained")?,
        })
    }

    fn report(&self, _context: &Context, outcomes: Vec<Outcome>) -> Result<Findings> {
        let Self { settings, data, test } = self;
        let (train, epochs) = (data.train.len(), settings.train.epochs);
        let verdict: Vec<String> = (settings.networks.iter())
            .map(|name| {
                let sound = spread(&outcomes, name, |one| Some(one.sound.top1()));
                let habit = spread(&outcomes, name, |one| Some(one.kept()?.1.top1()));
                format!(
                    "{name}: {sound} % soundly, {habit} % by the source's habit, which is not sound"
                )
            })
            .collect();
        let mut report = Report::new(
            format!("StasGT's networks on {}", settings.dataset),
            format!(
                "After {epochs} {} on {train} images, top-1 of {} test images: {}.",
                if epochs == 1 { "epoch" } else { "epochs" },
                test.len(),
                verdict.join("; ")
            ),
        );
        let card = |name: &String| {
            let sound = spread(&outcomes, name, |one| Some(one.sound.top1()));
            Card::new(format!("{name}, test top-1"), Cell::text(sound).unit("%"))
                .note("last weights, eval mode, tested once")
        };
        report.add(Block::cards(settings.networks.iter().map(card).collect::<Vec<_>>()));
        report.add(self.judged(&outcomes));
        report.add(habit_plot(&outcomes));
        report.add(loss_plot(&outcomes));
        report.add(class_plot(&outcomes, test.classes().len()));
        report.add(self.classes(&outcomes));
        report.add(Block::text(format!(
            "The source's habit, which is not sound: every {} steps, all test images in train mode, in batches of {} in their order; the best of \
             these evaluations is what it keeps and reports. In train mode a batch norm takes mean and variance from the batch of test images, so \
             that a class depends on the images beside; and the best of many looks at the test images is chosen by them. The source runs these \
             evaluations through the network in training itself, whose running statistics move with the test images; here a copy is evaluated and \
             thrown away. The figures of the habit are the same either way, since in train mode nothing reads the running statistics, and so are \
             the weights; what differs is the running statistics of the network that is left, which here come from training images alone.",
            settings.habit_every, settings.habit_batch
        )));
        report.add(Block::text(format!(
            "Why the modes differ: these networks share a batch norm between layers. In train mode each place is normalized by its own batch; in eval \
             mode all places of a shared norm have one pair of running statistics, which every step moves towards each of them in turn, so that it \
             fits none. For the column \"shared norms apart\" the same weights have a norm for every place, of the same scale and shift, with \
             statistics measured on {} training images: an eval mode that needs nothing of the test images, of a network that is not the source's.",
            settings.calibrate.min(train)
        )));
        report.add(Block::text(format!(
            "Protocol of the sound column: the source's recipe on all {train} training images, nothing chosen on the way, the last weights tested \
             once in eval mode. Beside the source: the start is He's normal initialization with biases of 0 (there PyTorch's uniform one), and the \
             last batch of an epoch that is not full is left out (there it is taken)."
        )));
        let outcomes: Vec<Value> = outcomes.iter().map(told).collect();
        let result = json!({ "classes": test.classes(), "outcomes": outcomes });
        Ok(Findings { report, result, rows: Vec::new(), fault: None })
    }
}

/// Mean and, of several trainings, standard deviation of a share, in percent.
fn spread(outcomes: &[Outcome], network: &str, share: impl Fn(&Outcome) -> Option<f64>) -> String {
    let own = outcomes.iter().filter(|one| one.network == network);
    let values: Vec<f64> = own.filter_map(|one| Some(100.0 * share(one)?)).collect();
    let (mean, deviation) = mean_deviation(&values);
    match values.len() {
        0 => "–".to_owned(),
        1 => format!("{mean:.2}"),
        n => format!("{mean:.2} ± {deviation:.2} (n = {n})"),
    }
}

impl Stasgt {
    /// The two ways side by side, with what the source claims.
    fn judged(&self, outcomes: &[Outcome]) -> Table {
        let Settings { claims, habit_every, .. } = &self.settings;
        let mut table = Table::new(
            "One training, judged in two ways",
            [
                Column::text("network"),
                Column::number("seed"),
                Column::number("parameters"),
                Column::number("MACs").unit("M"),
                Column::number("sound: last weights, eval mode").unit("%"),
                Column::number("sound, shared norms apart").unit("%"),
                Column::number("habit, not sound: best of all looks, train mode").unit("%"),
                Column::number("at step"),
                Column::number("habit: last look, train mode").unit("%"),
                Column::text("claimed").unit("%").published(),
                Column::number("training loss, last epoch").unit("nats"),
                Column::text("last loss shown").unit("nats").published(),
            ],
        );
        for one in outcomes {
            let own = claims.iter().filter(|claim| claim.network == one.network);
            let claimed: Vec<String> = own
                .clone()
                .map(|claim| format!("{:.2} ({})", 100.0 * claim.top1, claim.r#where))
                .collect();
            let losses: Vec<String> =
                own.filter_map(|claim| Some(format!("{:.3}", claim.loss?))).collect();
            let text = |parts: Vec<String>| match parts.is_empty() {
                true => Cell::missing(),
                false => Cell::text(parts.join("; ")),
            };
            let (kept, last) = (one.kept(), one.habit.last());
            table.row([
                Cell::text(&one.network),
                Cell::text(one.seed.to_string()),
                Cell::count(one.params as u64),
                Cell::millions(one.macs as u64, 1),
                Cell::percent(one.sound.top1(), 2).strong(),
                Cell::percent(one.apart.top1(), 2),
                kept.map(|(_, found)| Cell::percent(found.top1(), 2)).into(),
                kept.map(|(step, _)| Cell::count(*step as u64)).into(),
                last.map(|(_, found)| Cell::percent(found.top1(), 2)).into(),
                text(claimed),
                one.epochs.last().map(|epoch| Cell::number(epoch.train_loss, 3)).into(),
                text(losses),
            ]);
        }
        let looks = outcomes.first().map_or(0, |one| one.habit.len());
        let source = if claims.is_empty() {
            "The source's figures are of CIFAR-100 and of 100 classes: none belongs beside these."
        } else {
            "The claims are means over the classes, which is top-1 where all have as many test images; their loss is of the last steps, ours the mean \
             of the last epoch."
        };
        let size = self.test.len().max(1) as f64;
        let top1 = outcomes.first().map_or(0.0, |one| one.sound.top1());
        table.note(format!(
            "The habit looks {looks} times, every {habit_every} steps. Between the last look and the sound column lie the mode and fewer than \
             {habit_every} steps; between the last and the best look lies the choice by the test images. One standard deviation of a sample of {} \
             test images is {:.2} points. {source}",
            self.test.len(),
            100.0 * (top1 * (1.0 - top1) / size).sqrt(),
        ));
        table
    }

    /// Every class, means over the trainings of a network.
    fn classes(&self, outcomes: &[Outcome]) -> Table {
        let Self { settings, test, .. } = self;
        let mut columns = vec![Column::text("class"), Column::number("test images")];
        for name in &settings.networks {
            columns.push(Column::number(format!("{name}, sound")).unit("%"));
            columns.push(Column::number(format!("{name}, habit")).unit("%"));
        }
        let mut table = Table::new("Accuracy class by class", columns);
        for (class, name) in test.classes().iter().enumerate() {
            let count = outcomes.first().map_or(0, |one| one.sound.examples[class]);
            let mut row = vec![Cell::text(name), Cell::count(count as u64)];
            for network in &settings.networks {
                let own: Vec<&Outcome> =
                    outcomes.iter().filter(|one| one.network == *network).collect();
                let sound = own.iter().filter_map(|one| one.sound.of(class)).collect();
                let habit = own.iter().filter_map(|one| one.kept()?.1.of(class)).collect();
                row.push(mean(sound).map(|share| Cell::percent(share, 1)).into());
                row.push(mean(habit).map(|share| Cell::percent(share, 1)).into());
            }
            table.row(row);
        }
        table.note(
            "A ReLU behind the last layer leaves no logit below 0: a class whose logit is 0 for every image is never chosen, and an image with no \
             logit above 0 falls to the first class.",
        );
        table
    }
}

fn mean(values: Vec<f64>) -> Option<f64> {
    (!values.is_empty()).then(|| mean_deviation(&values).0)
}

/// An outcome for programs; of the looks that were not kept, what they found as a whole.
fn told(one: &Outcome) -> Value {
    let Outcome { network, seed, params, macs, sound, apart, habit, epochs } = one;
    let looks: Vec<Value> = (habit.iter())
        .map(|(steps, found)| json!({ "steps": steps, "top1": found.top1() }))
        .collect();
    let kept = one.kept().map(
        |(steps, found)| json!({ "steps": steps, "top1": found.top1(), "right": found.right }),
    );
    json!({
        "network": network, "seed": seed, "params": params, "macs": macs, "epochs": epochs, "examples": sound.examples,
        "sound": { "top1": sound.top1(), "right": sound.right }, "apart": { "top1": apart.top1(), "right": apart.right }, "habit": { "kept": kept, "looks": looks },
    })
}

/// What a curve is called.
fn label(outcomes: &[Outcome], one: &Outcome) -> String {
    match outcomes.iter().filter(|other| other.network == one.network).count() {
        1 => one.network.clone(),
        _ => format!("{}, seed {}", one.network, one.seed),
    }
}

fn habit_plot(outcomes: &[Outcome]) -> XyPlot {
    let mut plot = XyPlot::new(
        "The source's habit: test images in train mode",
        Axis::count("steps"),
        Axis::percent("top-1"),
    );
    for one in outcomes {
        let name = label(outcomes, one);
        plot = plot
            .series(Series::both(
                &name,
                one.habit.iter().map(|(step, found)| (*step as f64, found.top1())),
            ))
            .reference(format!("{name}, sound"), one.sound.top1());
    }
    plot.note("Dashed: the last weights in eval mode. The curves choose nothing here.")
}

fn loss_plot(outcomes: &[Outcome]) -> XyPlot {
    let mut plot = XyPlot::new(
        "Training loss",
        Axis::count("epoch"),
        Axis::number("loss (nats)").include(0.0),
    );
    for one in outcomes {
        let points = one.epochs.iter().map(|epoch| (number(epoch), epoch.train_loss));
        plot = plot.series(Series::both(label(outcomes, one), points));
    }
    plot
}

/// The accuracies of the classes in their order of size, which shows 100 classes as well as 10.
fn class_plot(outcomes: &[Outcome], classes: usize) -> XyPlot {
    let mut plot = XyPlot::new(
        "Accuracy of the classes, the worst first",
        Axis::count("classes"),
        Axis::percent("accuracy").include(0.0),
    );
    let sorted = |found: &Hits| {
        let mut shares: Vec<f64> = (0..classes).filter_map(|class| found.of(class)).collect();
        shares.sort_by(f64::total_cmp);
        shares
            .into_iter()
            .enumerate()
            .map(|(at, share)| ((at + 1) as f64, share))
            .collect::<Vec<_>>()
    };
    for one in outcomes {
        let name = label(outcomes, one);
        plot = plot.series(Series::both(format!("{name}, sound"), sorted(&one.sound)));
        if let Some((_, kept)) = one.kept() {
            plot = plot.series(Series::both(format!("{name}, habit"), sorted(kept)));
        }
    }
    plot
}

#[cfg(test)]
mod tests {
    use cp_data::Images;
    use cp_torch::tch;
    use ndarray::Array4;

    use super::*;

    fn outcome(looks: &[(usize, usize)]) -> Outcome {
        let hits = |right: usize| Hits { examples: vec![4, 0], right: vec![right, 0] };
        Outcome {
            network: "stasgt-simple".into(),
            seed: 1,
            params: 0,
            macs: 0,
            sound: hits(1),
            apart: hits(2),
            habit: looks.iter().map(|&(step, right)| (step, hits(right))).collect(),
            epochs: Vec::new(),
        }
    }

    #[test]
    fn the_first_of_the_best_looks_is_kept() {
        let one = outcome(&[(100, 1), (200, 3), (300, 3), (400, 2)]);
        assert_eq!(one.kept().unwrap().0, 200);
        assert!(outcome(&[]).kept().is_none());
        assert_eq!((one.sound.of(0), one.sound.of(1)), (Some(0.25), None));
        assert!((one.kept().unwrap().1.top1() - 0.75).abs() < 1e-12);
    }

    /// Every norm has statistics of its own place then, and the weights are those of before.
    #[test]
    fn shared_norms_are_taken_apart() {
        let classes = (0..4).map(|class| class.to_string()).collect();
        let pixels = Array4::from_shape_fn((12, 3, 32, 32), |(i, c, y, x)| {
            (i * 13 + c * 70 + y * (i + 3) + x * 5) as u8
        });
        let set: Arc<dyn Dataset> = Arc::new(
            Images::new("drawn", classes, pixels, (0..12).map(|i| i % 4).collect()).unwrap(),
        );
        let folder = tempfile::tempdir().unwrap();
        let dir = cp_train::RunDir::at(folder.path()).unwrap();
        let stages = Stages::new(dir, cp_train::Device::Cpu);
        let start = arch::by_name("stasgt-simple").unwrap().with_classes(4).unwrap();
        let start = start.initialize(3).unwrap();
        let model = apart(&start, &set, 12, 1, &stages).unwrap();
        let own = model.network().unwrap();
        assert_eq!(own.params().len(), start.params().len() + 2 * 4);
        let mean = |node: &str| {
            let name = own.architecture().node(node).unwrap().param("running_mean");
            own.params()[&name].clone()
        };
        for (one, other) in [("bn", "bn.conv2"), ("bn2n", "bn2n.conv3")] {
            assert_ne!(mean(one), mean(other), "{one}");
        }
        for (name, array) in start.params().iter().filter(|(name, _)| !name.contains("running_")) {
            assert_eq!(array, &own.params()[name], "{name}");
        }
        // All in one batch: eval mode and train mode see the same statistics, up to the variance's n / (n − 1).
        let eval = hits(&model, Mode::Eval, &set, 12).unwrap();
        assert_eq!(eval, hits(&model, Mode::Train, &set, 12).unwrap());
    }

    /// In train mode what an image is taken for depends on its neighbors, and a copy leaves the network as it was.
    #[test]
    fn a_look_leaves_the_network_as_it_is() {
        let pixels = Array4::from_shape_fn((12, 3, 32, 32), |(i, c, y, x)| {
            (i * i * 31 + c * 7 + y * (i + 3) + x * (c + 2)) as u8
        });
        let classes = (0..4).map(|class| class.to_string()).collect();
        let set: Arc<dyn Dataset> = Arc::new(
            Images::new("drawn", classes, pixels, (0..12).map(|i| i % 4).collect()).unwrap(),
        );
        let start = arch::by_name("stasgt-simple").unwrap().with_classes(4).unwrap();
        let model = Executor::new(&start.initialize(3).unwrap(), tch::Device::Cpu).unwrap();
        let before = model.network().unwrap();
        let eval = hits(&model, Mode::Eval, &set, 5).unwrap();
        assert_eq!(eval.examples, [3; 4]);
        assert_eq!(eval, hits(&model, Mode::Eval, &set, 12).unwrap());
        assert!(model.network().unwrap() == before);

        let copy = Executor::new(&before, tch::Device::Cpu).unwrap();
        hits(&copy, Mode::Train, &set, 12).unwrap();
        assert!(model.network().unwrap() == before);
        let after = copy.network().unwrap();
        assert!(after != before, "the running statistics of the copy have moved");
        for (name, array) in after.params() {
            let moved = array != before.params()[name];
            assert_eq!(moved, name.contains("running_"), "{name}");
        }
        // As the running statistics are all that moved, a second look sees the same.
        let first = Executor::new(&before, tch::Device::Cpu).unwrap();
        let first = hits(&first, Mode::Train, &set, 12).unwrap();
        assert_eq!(hits(&copy, Mode::Train, &set, 12).unwrap(), first);
    }
}
