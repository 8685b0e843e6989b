//! `polyad compress`: replaces the layers of a model by factors, without data.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use cp_net::{Budget, Decomposer, Event, Form, LayerReport, Network, Rank, RankPlan, Totals};
use cp_train::progress;
use cp_train::timing::Stopwatch;
use serde::Serialize;

use crate::common::{Common, non_negative, positive, ratio};
use crate::model::Model;
use crate::output::{self, Column, OutFile, Report, Table, count};

const EXAMPLES: &str = "\
Examples:
  polyad compress resnet56.safetensors --arch resnet56 --macs-ratio 0.5 --out half.safetensors
  polyad compress net.safetensors --params-ratio 0.2 --save-plan p.toml --out cp.safetensors
  polyad compress net.safetensors --ranks p.toml --max-iters 500 --out better.safetensors

A plan is TOML, one entry per layer; layers that it does not name stay dense:

  [[layer]]
  name = \"features.3\"
  form = \"cp3\"        # cp3, cp4, or low-rank for linear layers and 1×1 convolutions
  rank = 154

With a ratio, every layer gets the same share of its break-even rank. No data is used: expect a loss of accuracy that \
fine-tuning would win back, and look at it with `polyad eval`.

JSON: architecture, method, input, before and after (parameters, macs each), params_ratio, macs_ratio (compressed / dense), \
seconds, layers: a list of name, form, rank, breakeven (rank, in parameters), relative_error, component_energy (above about \
10 the terms cancel each other), iterations, stop, and before and after again.";

/// Make a model smaller by factorizing its layers.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    model: Model,
    /// File for the compressed model, .safetensors.
    #[arg(long, value_name = "OUT")]
    out: PathBuf,
    #[command(flatten)]
    budget: BudgetOptions,
    /// Form of the factorized convolutions; linear layers and 1×1 convolutions always become low-rank.
    #[arg(long, value_enum, default_value_t = FormName::Auto, conflicts_with = "ranks")]
    form: FormName,
    /// Algorithm.
    #[arg(long, value_enum, default_value_t = Method::Als)]
    method: Method,
    /// Most iterations for each layer.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive)]
    max_iters: usize,
    /// Stop when an iteration changes the fit of a layer by less than this.
    #[arg(long, value_name = "T", default_value = "1e-8", value_parser = non_negative)]
    tol: f64,
    /// Write the ranks used, as a plan for --ranks.
    #[arg(long, value_name = "FILE")]
    save_plan: Option<PathBuf>,
}

/// How far to go: exactly one of these.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct BudgetOptions {
    /// Parameters of the compressed model / parameters of the dense one.
    #[arg(long, value_name = "X", value_parser = ratio)]
    params_ratio: Option<f64>,
    /// Multiply-adds of the compressed model / multiply-adds of the dense one.
    #[arg(long, value_name = "X", value_parser = ratio)]
    macs_ratio: Option<f64>,
    /// Rank of each layer from a plan.
    #[arg(long, value_name = "plan.toml")]
    ranks: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum FormName {
    /// The form with the least loss for its cost: at present cp3.
    Auto,
    /// 1×1, depthwise, 1×1.
    Cp3,
    /// 1×1, depthwise along the columns, depthwise along the rows, 1×1.
    Cp4,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    /// Alternating least squares; truncated SVD for matrices.
    Als,
}

impl From<FormName> for Form {
    fn from(name: FormName) -> Self {
        match name {
            FormName::Auto | FormName::Cp3 => Form::Cp3,
            FormName::Cp4 => Form::Cp4,
        }
    }
}

#[derive(Serialize)]
struct CompressReport {
    architecture: String,
    method: &'static str,
    input: Vec<usize>,
    before: Size,
    after: Size,
    params_ratio: f64,
    macs_ratio: f64,
    seconds: f64,
    layers: Vec<Layer>,
    #[serde(skip)]
    out: PathBuf,
}

/// What a model or a layer costs for one image.
#[derive(Clone, Copy, Serialize)]
struct Size {
    parameters: usize,
    macs: usize,
}

impl From<Totals> for Size {
    fn from(cost: Totals) -> Self {
        Self { parameters: cost.params, macs: cost.macs }
    }
}

#[derive(Serialize)]
struct Layer {
    name: String,
    form: Form,
    rank: Rank,
    /// In parameters; none for forms whose rank is more than one number.
    breakeven: Option<f64>,
    relative_error: f64,
    component_energy: f64,
    iterations: usize,
    stop: Option<&'static str>,
    before: Size,
    after: Size,
}

impl Report for CompressReport {
    fn text(&self, to: &mut dyn Write) -> io::Result<()> {
        let mut table = Table::new([
            Column::Left("layer"),
            Column::Left("form"),
            Column::Right("rank"),
            Column::Right("break-even"),
            Column::Right("relative error"),
            Column::Right("parameters"),
            Column::Left(""),
            Column::Right("multiply-adds"),
            Column::Left(""),
        ]);
        for layer in &self.layers {
            table.row([
                layer.name.clone(),
                layer.form.to_string(),
                layer.rank.to_string(),
                layer.breakeven.map_or_else(String::new, |rank| format!("{rank:.1}")),
                format!("{:.4}", layer.relative_error),
                count(layer.before.parameters),
                format!("→ {}", count(layer.after.parameters)),
                count(layer.before.macs),
                format!("→ {}", count(layer.after.macs)),
            ]);
        }
        table.write(to)?;
        let line = |to: &mut dyn Write, what: &str, before: usize, after: usize| {
            let times = before as f64 / after as f64;
            writeln!(to, "{what}  {} → {}  ({times:.2} × fewer)", count(before), count(after))
        };
        writeln!(to)?;
        line(to, "parameters   ", self.before.parameters, self.after.parameters)?;
        line(to, "multiply-adds", self.before.macs, self.after.macs)?;
        writeln!(to, "wrote {} after {:.1} s", self.out.display(), self.seconds)
    }
}

pub(crate) fn run(args: &Args, common: &Common) -> anyhow::Result<()> {
    // Where nothing can be written, nothing is computed.
    output::refuse_same_file(&args.model.path, &args.out)?;
    drop(OutFile::new(&args.out)?);
    if let Some(plan) = &args.save_plan {
        if *plan == args.out {
            bail!("--save-plan and --out name the same file, {}", plan.display());
        }
        output::refuse_same_file(&args.model.path, plan)?;
        drop(OutFile::new(plan)?);
    }
    let mut net = args.model.load()?;
    let input = net.input().shape.clone();
    let before = net.cost(&input)?.total;
    let plan = plan(args, &net)?;
    for warning in plan.warnings(net.architecture(), &input)? {
        output::warn(&warning.to_string());
    }
    let breakeven = plan
        .layers
        .iter()
        .map(|layer| match layer.rank {
            Rank::One(_) => Ok(Some(net.breakeven(&layer.name, layer.form, &input)?.params)),
            _ => Ok(None),
        })
        .collect::<anyhow::Result<Vec<Option<f64>>>>()?;

    let watch = Stopwatch::start();
    let bar = progress::bar(plan.layers.len() as u64, "decompose");
    let layers =
        cp_net::compress(&mut net, &plan, &decomposer(args, common), &|event| match event {
            Event::Iteration { layer, rel_error, .. } => {
                bar.set_message(format!("{layer}: relative error {rel_error:.4}"))
            }
            Event::Finished { .. } => bar.inc(1),
            _ => {}
        })?;
    let seconds = watch.seconds();
    bar.finish_and_clear();

    // The plan first: with it, a model that could not be written is soon made again.
    if let Some(path) = &args.save_plan {
        plan.save(path)?;
    }
    net.save(&args.out)?;
    let after = net.cost(&input)?.total;
    let report = CompressReport {
        architecture: net.architecture().name.clone(),
        method: decomposer(args, common).method.name(),
        input,
        before: before.into(),
        after: after.into(),
        params_ratio: after.params as f64 / before.params as f64,
        macs_ratio: after.macs as f64 / before.macs as f64,
        seconds,
        layers: layers.into_iter().zip(breakeven).map(layer).collect(),
        out: args.out.clone(),
    };
    output::print(&report, common.json)
}

/// The ranks asked for.
fn plan(args: &Args, net: &Network) -> anyhow::Result<RankPlan> {
    let budget = match &args.budget {
        BudgetOptions { ranks: Some(path), .. } => {
            let plan = RankPlan::load(path)?;
            plan.check(net.architecture()).with_context(|| path.display().to_string())?;
            if plan.layers.is_empty() {
                bail!(
                    "{}: names no layer to factorize; add entries like those of `polyad compress --help`",
                    path.display()
                );
            }
            return Ok(plan);
        }
        BudgetOptions { params_ratio: Some(ratio), .. } => Budget::Params(*ratio),
        BudgetOptions { macs_ratio, .. } => Budget::Macs(macs_ratio.unwrap_or(1.0)),
    };
    Ok(RankPlan::uniform(net.architecture(), &net.input().shape, budget, args.form.into())?)
}

/// How the options have kernels decomposed.
fn decomposer(args: &Args, common: &Common) -> Decomposer {
    let Method::Als = args.method;
    Decomposer { tol: args.tol, ..Decomposer::als(args.max_iters, common.seed) }
}

fn layer((report, breakeven): (LayerReport, Option<f64>)) -> Layer {
    Layer {
        name: report.layer,
        form: report.form,
        rank: report.rank,
        breakeven,
        relative_error: report.rel_error,
        component_energy: report.component_energy,
        iterations: report.iterations,
        stop: report.stop.map(cp_core::StopReason::name),
        before: report.before.into(),
        after: report.after.into(),
    }
}
