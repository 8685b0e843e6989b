//! `polyad attack`: how many small steps along the sign of the gradient turn a model's answers.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cp_data::{DataDir, Dataset};
use cp_net::Network;
use cp_train::{
    AttackOptions, Bounds, EvalOptions, Resistance, Stat, Wanted, check_fit, resistance, timing,
};
use serde::Serialize;

use crate::common::{Common, EngineRequest, Usage, positive, positive_number, tries};
use crate::model::{self, ArchOption};
use crate::output::{self, Column, Report, Table};

const EXAMPLES: &str = "\
Examples:
  polyad attack resnet20.safetensors --arch resnet20 --dataset cifar10 --split test-1000
  polyad attack dense.safetensors small.safetensors --dataset cifar10 --examples 200
  polyad attack small.safetensors --dataset cifar10 --attack pgd --step 0.01 --radius 0.03 --steps 20
  polyad attack small.safetensors --dataset cifar10 --attack library --target 3 --probability 0.9

Each model is attacked on the first images that it classifies correctly, and on the first that all models do: only the latter numbers can be \
compared between models. Lengths are in units of the network's input behind its normalization.

  sign     steps until the answer changes, looked at before each step, without bounds; an image that never flips counts 999 (SqVaD)
  fgsm     one step (Goodfellow et al.)
  pgd      steps within a ball around the image, from a point drawn in it (Madry et al.)
  library  steps until all images of a batch have changed, looked at after each step (SqVaD's library)

All but sign keep pixels within 0…255; so does sign with --clip.

JSON: attack (the settings); models: model, own and common: images, mean, quartiles and steps (of each image), never (that never flip).";

/// How many small steps along the sign of the gradient turn a model's answers.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Models, as in `polyad eval`; several are compared.
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<PathBuf>,
    #[command(flatten)]
    arch: ArchOption,
    /// Data set, as in `polyad eval`.
    #[arg(long, value_name = "NAME")]
    dataset: String,
    /// Part of it.
    #[arg(long, value_name = "SPLIT", default_value = "test")]
    split: String,
    /// The way of the attack.
    #[arg(long, value_name = "WAY", default_value = "sign")]
    attack: Way,
    /// Length of a step [default: 0.001 of sign and library, 0.03 of fgsm, 0.01 of pgd].
    #[arg(long, value_name = "X", value_parser = positive_number)]
    step: Option<f64>,
    /// How far each number may go from where it was, of pgd [default: 0.03].
    #[arg(long, value_name = "X", value_parser = positive_number)]
    radius: Option<f64>,
    /// Looks at the answer at most [default: 1000 of sign and library, 10 of pgd].
    #[arg(long, value_name = "N", value_parser = tries)]
    steps: Option<usize>,
    /// A class that the answers are to become, by number or name; its own images are left out.
    #[arg(long, value_name = "CLASS")]
    target: Option<String>,
    /// Its probability from which on it counts, below 1 [default: where it is the likeliest].
    #[arg(long, value_name = "P", requires = "target", value_parser = probability)]
    probability: Option<f64>,
    /// Keep pixels within 0…255 in sign, too.
    #[arg(long)]
    clip: bool,
    /// Images of each kind.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = positive)]
    examples: usize,
    /// Images that are attacked side by side.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    batch: usize,
}

/// `--attack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    Sign,
    Fgsm,
    Pgd,
    Library,
}

/// From 0 up to, but not, 1.
fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..1.0).contains(&number) => Ok(number),
        _ => Err("not a number from 0 up to, but not, 1".into()),
    }
}

#[derive(Serialize)]
struct Answer {
    attack: AttackOptions,
    models: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    model: String,
    #[serde(flatten)]
    found: Resistance,
}

impl Report for Answer {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new([
            Column::Left("model"),
            Column::Left("images"),
            Column::Right("number"),
            Column::Right("mean steps"),
            Column::Right("median"),
            Column::Right("quartiles"),
            Column::Right("never flip"),
        ]);
        for Row { model, found } in &self.models {
            // Of one model they are the same.
            let kinds = if self.models.len() > 1 { 2 } else { 1 };
            let stats = [("its own", &found.own), ("known to all", &found.common)];
            for (kind, stat) in stats.into_iter().take(kinds) {
                let Stat { images, mean, quartiles: [lower, median, upper], never, .. } = stat;
                let number = |text: String| if *images > 0 { text } else { "–".into() };
                table.row([
                    model.clone(),
                    kind.into(),
                    output::count(*images),
                    number(format!("{mean:.2}")),
                    number(median.to_string()),
                    number(format!("{lower} to {upper}")),
                    output::count(*never),
                ]);
            }
        }
        table.write(to)
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    if let EngineRequest::OnnxRuntime | EngineRequest::Infer = common.engine {
        return Err(Usage(
            "--engine: an attack needs gradients, which libtorch alone has; leave it out".into(),
        )
        .into());
    }
    let data = DataDir::locate(common.data.clone());
    let dataset = cp_data::open(&args.dataset, &args.split, &data)?;
    dataset.notes().iter().for_each(|note| output::note(&note.to_string()));
    let attack = options(args, common.seed, &*dataset)?;
    let mut networks: Vec<Network> = Vec::new();
    for path in &args.models {
        let network = model::load(path, &args.arch)?;
        check_fit(network.architecture(), &*dataset).with_context(|| path.display().to_string())?;
        networks.push(network);
    }
    timing::set_threads(common.threads.unwrap_or(0));
    let device = common.device.device()?;
    let options = EvalOptions { batch_size: args.batch, ..EvalOptions::default() };
    let dataset: Arc<dyn Dataset> = dataset;
    let networks: Vec<&Network> = networks.iter().collect();
    let found = resistance(&networks, &dataset, args.examples, &attack, &options, device)?;
    let mut models = Vec::new();
    for (path, found) in args.models.iter().zip(found) {
        let model = path.display().to_string();
        if found.own.images == 0 {
            let but = args
                .target
                .as_ref()
                .map_or(String::new(), |class| format!(" that are not of class {class}"));
            bail!(
                "{model}: classifies none of the {} images{but} correctly, and there is nothing to attack",
                dataset.len()
            );
        }
        models.push(Row { model, found });
    }
    if let Some(images) = models.iter().map(|row| row.found.own.images).min()
        && images < args.examples
    {
        output::note(&format!(
            "--examples {}: there are no more than {images} that a model classifies correctly",
            args.examples
        ));
    }
    output::print(&Answer { attack, models }, common.json)
}

/// The settings of the attack; an option that its way does not read is refused.
fn options(args: &Args, seed: u64, dataset: &dyn Dataset) -> anyhow::Result<AttackOptions> {
    let way = args.attack;
    // Options that only some ways read: the others say so, and do not pass over them.
    for (given, option, read) in [
        (args.radius.is_some(), "--radius", way == Way::Pgd),
        (args.steps.is_some(), "--steps", way != Way::Fgsm),
        (args.clip, "--clip", way == Way::Sign),
    ] {
        if given && !read {
            let name = way.name();
            let told =
                format!("{option} does not go with --attack {name}; see --help for what it does");
            return Err(Usage(told).into());
        }
    }
    let step = |default: f64| args.step.unwrap_or(default);
    let mut options = match way {
        Way::Sign => AttackOptions::sign_steps(step(1e-3)),
        Way::Library => AttackOptions::until_all(step(1e-3)),
        Way::Fgsm => AttackOptions::fgsm(step(0.03)),
        Way::Pgd => AttackOptions::pgd(step(0.01), args.radius.unwrap_or(0.03), 10),
    };
    if args.clip || way == Way::Library {
        options.bounds = Bounds::Pixels;
    }
    options.max_steps = args.steps.unwrap_or(options.max_steps);
    options.seed = seed;
    if let Some(name) = &args.target {
        let class = class_of(name, dataset.classes())?;
        options.target = Some(Wanted { class, probability: args.probability.unwrap_or(0.0) });
    }
    Ok(options)
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Fgsm => "fgsm",
            Self::Pgd => "pgd",
            Self::Library => "library",
        }
    }
}

/// The number of a class that is named, or numbered from 0 on.
fn class_of(name: &str, classes: &[String]) -> anyhow::Result<usize> {
    let named = classes.iter().position(|class| class == name);
    let numbered = || name.parse().ok().filter(|class: &usize| *class < classes.len());
    named.or_else(numbered).ok_or_else(|| {
        let few = classes.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if classes.len() > 10 { ", …" } else { "" };
        Usage(format!(
            "--target: there is no class '{name}'; there are {} ({few}{more}), numbered from 0",
            classes.len()
        ))
        .into()
    })
}
