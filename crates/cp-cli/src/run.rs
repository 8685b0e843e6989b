//! `polyad run`: what a classifier says of single pictures.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cp_data::{Dataset, Pictures};
use cp_net::Network;
use cp_train::engine::Subject;
use cp_train::{EngineName, EvalOptions, logits_in, timing};
use serde::Serialize;

use crate::common::{Common, InputShape, Usage, positive, shapes_by_name};
use crate::model::{self, ModelArgs};
use crate::output::{self, Report, percent};

const EXAMPLES: &str = "\
Examples:
  polyad run small.safetensors cat.png dog.jpg
  polyad run model.onnx photo.jpg --preprocess imagenet --names imagenet-classes.txt
  polyad run model.onnx pictures/ --preprocess unit --top 1 --engine infer --json

Pictures are brought to the size that the model takes as for `polyad eval`. The names of the classes are the lines of --names; without it \
classes are numbered from 0.

JSON: engine; pictures: picture, classes: class (number), name (with --names), probability.";

/// Show the likeliest classes of pictures.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Image files, or one folder of them.
    #[arg(value_name = "PICTURE", required = true)]
    pictures: Vec<PathBuf>,
    /// Classes to show of each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = positive)]
    top: usize,
    /// A text file with the name of a class in each line.
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Sizes of one example of an ONNX model, such as 3x224x224, where the model leaves them open.
    #[arg(long, value_name = "[NAME=]DIMS")]
    input: Vec<InputShape>,
}

#[derive(Serialize)]
struct Answer {
    engine: EngineName,
    pictures: Vec<Picture>,
}

#[derive(Serialize)]
struct Picture {
    picture: String,
    classes: Vec<Class>,
}

#[derive(Serialize)]
struct Class {
    class: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    probability: f64,
}

impl Report for Answer {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        for Picture { picture, classes } in &self.pictures {
            writeln!(to, "{picture}")?;
            for Class { class, name, probability } in classes {
                let name = name.as_ref().map_or_else(|| format!("class {class}"), Clone::clone);
                writeln!(to, "  {:>7}  {}", percent(*probability), output::printable(&name))?;
            }
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    let pictures = match &args.pictures[..] {
        [folder] if folder.is_dir() => Pictures::open(folder)?,
        files => Pictures::of_files(files)?,
    };
    pictures.notes().iter().for_each(|note| output::note(&note.to_string()));
    let names: Vec<String> = pictures.names().map(str::to_owned).collect();
    let shapes = shapes_by_name(&args.input)?;
    let net = model::load_at(&args.model.path, &args.model.arch, &shapes)?;
    let named = || args.model.path.display().to_string();
    let count = classes_of(&net).with_context(named)?;
    let classes = class_names(args, count)?;
    timing::set_threads(common.threads.unwrap_or(0));
    let engine = common.engine.engine(common.device.device()?, [Subject::Network(&net)])?;
    let pictures: Arc<dyn Dataset> = Arc::new(pictures);
    let logits = logits_in(engine, &net, &pictures, &EvalOptions::default()).with_context(named)?;
    if logits.iter().any(|z| !z.is_finite()) {
        bail!("{}: the network puts out NaN or infinity for these pictures", named());
    }
    let shown = |(picture, row): (String, ndarray::ArrayView1<'_, f32>)| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let shares: Vec<f64> = row.iter().map(|z| f64::from(z - most).exp()).collect();
        let sum: f64 = shares.iter().sum();
        let mut order: Vec<usize> = (0..shares.len()).collect();
        // Stable: of equal ones the first.
        order.sort_by(|&one, &other| shares[other].total_cmp(&shares[one]));
        let class = |&class: &usize| Class {
            class,
            name: classes.as_ref().map(|names| names[class].clone()),
            probability: shares[class] / sum,
        };
        Picture { picture, classes: order.iter().take(args.top).map(class).collect() }
    };
    let pictures = names.into_iter().zip(logits.rows()).map(shown).collect();
    output::print(&Answer { engine: engine.name(), pictures }, common.json)
}

/// The number of classes of a network that gives one score for each.
fn classes_of(net: &Network) -> anyhow::Result<usize> {
    let arch = net.architecture();
    let shapes = arch.shapes(arch.input_shapes())?;
    let shape = arch.outputs.first().and_then(|output| shapes.get(output)).unwrap_or_default();
    let count: usize = shape.iter().product();
    if arch.outputs.len() != 1 || shape.iter().filter(|&&size| size > 1).count() != 1 {
        bail!(
            "`polyad run` shows the classes of classifiers, and this model puts out {}: a list of scores is needed",
            arch.outputs
                .iter()
                .map(|output| format!("'{output}' {:?}", shapes.get(output).unwrap_or_default()))
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    Ok(count)
}

/// The names of so many classes.
fn class_names(args: &Args, count: usize) -> anyhow::Result<Option<Vec<String>>> {
    let Some(path) = &args.names else { return Ok(None) };
    let expected = "a text file with the name of a class in each line";
    let text = cp_net::read_text(path, expected, "see --help").context("--names")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let names: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
    if names.len() != count {
        let told = format!(
            "--names {}: has {} lines, and the model has {count} classes",
            path.display(),
            names.len()
        );
        return Err(Usage(told).into());
    }
    Ok(Some(names))
}
