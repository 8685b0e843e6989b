//! The options of `polyad compress`; `recipe.rs` beside it turns them into recipes.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use cp_net::Form;
use cp_plan::Method;
use cp_train::{LossRule, Multiple, PlanBy, Preset};

use crate::common::{InputShape, count, non_negative, positive, positive_number, ratio, tries};
use crate::model::ModelArgs;

const SHORT: &str = "\
Examples:
  polyad compress net.safetensors --macs-ratio 0.33 --dataset cifar10 --out small.safetensors
  polyad compress model.onnx --macs-ratio 0.5 --input 3x224x224 --out faster.onnx

`polyad compress --help` shows every option, plans, and the JSON.";

const EXAMPLES: &str = "\
Examples:
  polyad compress resnet56.safetensors --arch resnet56 --macs-ratio 0.5 --out half.safetensors
  polyad compress model.onnx --macs-ratio 0.5 --input 3x224x224 --out faster.onnx
  polyad compress net.safetensors --params-ratio 0.2 --save-plan p.toml --out cp.safetensors
  polyad compress net.safetensors --ranks p.toml --max-iters 500 --out better.safetensors
  polyad compress net.safetensors --latency-ratio 0.6 --timing-batch 32 --out fast.safetensors
  polyad compress net.safetensors --macs-ratio 0.3 --dataset cifar10 --epochs 15 --out s.safetensors
  polyad compress net.safetensors --macs-ratio 0.5,0.3 --dataset cifar10 --out s.safetensors --resume
  polyad compress net.onnx --macs-ratio 0.5 --inputs pics/ --preprocess unit --epochs 9 --out s.onnx

A plan is TOML, one entry per layer; layers that it does not name stay dense:

  [[layer]]
  name = \"features.3\"
  form = \"cp3\"        # cp3, cp4, tucker2, tkd-cpd, jaderberg1, jaderberg1-shared, jaderberg2,
                      # decoupled, denton, denton-svd, monochromatic,
                      # or low-rank for linear layers and 1×1 convolutions
  rank = 154          # tucker2: [out, in]; tkd-cpd: [out, in, inner]; denton: [out clusters,
                      # in clusters, terms]; denton-svd: [out clusters, in clusters, out, in]

With a ratio, the plan takes the form and the rank of each layer that lose least, by the errors that the decompositions \
would have (--plan-by). An ONNX model comes back as ONNX, with its names, opsets, metadata and everything that is no replaced \
layer as they were. Without --dataset nothing else is used: expect a loss of accuracy that fine-tuning would win back.

With --inputs, an ONNX model is decomposed for the outputs of its layers on these examples, with --epochs it learns from the dense \
model what it puts out for them, and a fifth of them, set aside, tells how far the outputs have moved. No labels are needed, and \
whatever ops there are.

With --dataset, the network is repaired and fine-tuned, and every stage is evaluated on the validation split; the test \
split, if one is named, is used once. The work is kept in a folder beside OUT: what was killed goes on with --resume, and \
report.html there shows it all. Several ratios, with commas between them, make several models, OUT with the ratio in its \
name, and a plot of what each costs and reaches.

JSON: architecture, method, input, before and after (parameters, macs each), params_ratio, macs_ratio (compressed / dense), \
seconds, layers: a list of name, form, rank, breakeven (rank, in parameters), relative_error, weighted_error, \
component_energy (above about 10 the terms cancel each other), iterations, stop, and before and after again; dense: the \
layers that stay dense, and why; stages: a list of stage, parameters, macs, validation (as `polyad eval`) and kept \
(whether the next step went on from there); test: dense and compressed; latency: for every engine and batch size engine, batch, threads, dense_ms, \
compressed_ms, ratio (dense / compressed) and quartiles; changes: of ONNX models, output, relative and largest; distilled: before, epochs, \
kept. Several ratios: budgets, a list of these.";

/// Make a model smaller by factorizing its layers.
#[derive(clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = SHORT)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// File for the compressed model: .safetensors, or .onnx.
    #[arg(long, value_name = "OUT")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) budget: BudgetOptions,
    /// How long to work on it, with --dataset.
    #[arg(long, value_enum, default_value_t = PresetName::Default, requires = "dataset")]
    pub(super) preset: PresetName,
    /// A recipe in place of the preset; options change it.
    #[arg(long, value_name = "FILE", conflicts_with = "preset")]
    pub(super) recipe: Option<PathBuf>,
    /// Write the recipe that was used, for --recipe.
    #[arg(long, value_name = "FILE")]
    pub(super) save_recipe: Option<PathBuf>,
    /// Layers that stay dense.
    #[arg(
        long,
        value_name = "LAYER,…",
        value_delimiter = ',',
        conflicts_with = "ranks",
        help_heading = "Plan"
    )]
    pub(super) keep: Vec<String>,
    /// Take no layer that is not faster than dense on this device; always so with --latency-ratio.
    #[arg(long, conflicts_with = "ranks", help_heading = "Plan")]
    pub(super) never_slower: bool,
    /// Form of the factorized convolutions; linear layers and 1×1 convolutions always become low-rank [default: for each layer
    /// the one that loses least; cp3 for rules that know one form].
    #[arg(
        long,
        value_enum,
        conflicts_with = "ranks",
        hide_short_help = true,
        help_heading = "Plan"
    )]
    pub(super) form: Option<FormName>,
    /// What the ranks are chosen by, for ratios [default: errors].
    #[arg(
        long,
        value_enum,
        conflicts_with = "ranks",
        hide_short_help = true,
        help_heading = "Plan"
    )]
    pub(super) plan_by: Option<PlanName>,
    /// What counts as the loss of a layer for --rank-sums [default: loss-increase].
    #[arg(long, value_enum, requires = "rank_sums", hide_short_help = true, help_heading = "Plan")]
    pub(super) loss: Option<LossName>,
    /// Part of --rank-sums that goes by the size of layers in place of their losses, 0 to 1 [default: 0].
    #[arg(
        long,
        value_name = "λ",
        value_parser = share,
        requires = "rank_sums",
        hide_short_help = true,
        help_heading = "Plan"
    )]
    pub(super) size_share: Option<f64>,
    /// Sizes of one example of an ONNX model that leaves them open, such as 3x224x224.
    #[arg(long, value_name = "[NAME=]DIMS", help_heading = "Plan")]
    pub(super) input: Vec<InputShape>,
    /// Ranks that the plan tries for each layer and form [default: 10 with a data set, else 12].
    #[arg(long, value_name = "N", value_parser = tries, conflicts_with = "ranks", hide_short_help = true, help_heading = "Plan")]
    pub(super) points: Option<usize>,
    /// Ranks are multiples of this: a number, or auto: 16 for --macs-ratio, 8 where layers are timed, else 1 [default: auto].
    #[arg(
        long,
        value_name = "M",
        conflicts_with = "ranks",
        hide_short_help = true,
        help_heading = "Plan"
    )]
    pub(super) multiple: Option<Multiple>,
    /// Forms and ranks that single layers have to get, whatever the budget: a plan with their entries.
    #[arg(
        long,
        value_name = "plan.toml",
        conflicts_with = "ranks",
        hide_short_help = true,
        help_heading = "Plan"
    )]
    pub(super) fix: Option<PathBuf>,
    /// Write the ranks used, as a plan for --ranks.
    #[arg(long, value_name = "FILE", hide_short_help = true, help_heading = "Plan")]
    pub(super) save_plan: Option<PathBuf>,
    /// Images per batch where the networks are timed; the first is that of a plan from time [default: 1,32; without a data set and
    /// a plan from time nothing is timed].
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = positive, hide_short_help = true, help_heading = "Plan")]
    pub(super) timing_batch: Vec<usize>,
    /// Algorithm of the CP decompositions [default: als].
    #[arg(long, value_parser = method(), hide_short_help = true, help_heading = "Decomposition")]
    pub(super) method: Option<Method>,
    /// Most iterations for each layer [default: 100].
    #[arg(long, value_name = "N", value_parser = positive, hide_short_help = true, help_heading = "Decomposition")]
    pub(super) max_iters: Option<usize>,
    /// Stop when an iteration changes the fit of a layer by less than this [default: 1e-8].
    #[arg(long, value_name = "T", value_parser = non_negative, hide_short_help = true, help_heading = "Decomposition")]
    pub(super) tol: Option<f64>,
    /// Component energy above which terms are made smaller by error-preserving correction; `inf` for never [default: 10].
    #[arg(long, value_name = "E", value_parser = energy, hide_short_help = true, help_heading = "Decomposition")]
    pub(super) max_energy: Option<f64>,
    /// Data set to repair, fine-tune and choose on, as of `polyad eval`.
    #[arg(long, value_name = "NAME", group = "material", help_heading = "Data")]
    pub(super) dataset: Option<String>,
    /// Unlabelled examples for an ONNX model: .npz arrays, or a folder.
    ///
    /// An .npz file has an array for each input, under its name, examples along the first axis; a folder holds such files, or pictures
    /// at any depth, for which --preprocess says how they become the input.
    #[arg(long, value_name = "PATH", group = "material", help_heading = "Data")]
    pub(super) inputs: Option<PathBuf>,
    /// Its part to test on, once, before and after.
    #[arg(long, value_name = "SPLIT", requires = "dataset", help_heading = "Data")]
    pub(super) test_split: Option<String>,
    /// Its part to train on.
    #[arg(
        long,
        value_name = "SPLIT",
        default_value = "train",
        requires = "dataset",
        hide_short_help = true,
        help_heading = "Data"
    )]
    pub(super) train_split: String,
    /// Its part to choose by.
    #[arg(
        long,
        value_name = "SPLIT",
        default_value = "validation",
        requires = "dataset",
        hide_short_help = true,
        help_heading = "Data"
    )]
    pub(super) validation_split: String,
    /// Examples that the inputs of layers are measured on, to decompose for the outputs of layers (ALS-Σ); 0 to decompose for the
    /// kernels [default: the preset's; 500 with --inputs].
    #[arg(
        long,
        value_name = "N", value_parser = count,
        requires = "material",
        hide_short_help = true,
        help_heading = "Data"
    )]
    pub(super) statistics: Option<usize>,
    /// Training images for batch normalization to measure its statistics on after decomposing; 0 for none [default: 2000].
    #[arg(
        long,
        value_name = "N", value_parser = count,
        requires = "dataset",
        hide_short_help = true,
        help_heading = "Fine-tuning"
    )]
    pub(super) calibrate: Option<usize>,
    /// Passes over the data at the end [default: the preset's; 0 with --inputs].
    #[arg(long, value_name = "N", value_parser = count, requires = "material", help_heading = "Fine-tuning")]
    pub(super) epochs: Option<usize>,
    /// All layers at once, one after the other, or all several times at falling ranks [default: at-once].
    #[arg(
        long,
        value_enum,
        requires = "dataset",
        hide_short_help = true,
        help_heading = "Fine-tuning"
    )]
    pub(super) schedule: Option<ScheduleName>,
    /// Epochs between the steps of a schedule [default: 1].
    #[arg(
        long,
        value_name = "N", value_parser = count,
        requires = "schedule",
        hide_short_help = true,
        help_heading = "Fine-tuning"
    )]
    pub(super) step_epochs: Option<usize>,
    /// Decompositions of each layer with --schedule passes [default: 2].
    #[arg(long, value_name = "N", value_parser = tries, requires = "schedule", hide_short_help = true, help_heading = "Fine-tuning")]
    pub(super) passes: Option<usize>,
    /// Peak learning rate [default: the preset's: 0.005, or 0.02 with best; 0.001 with --inputs].
    #[arg(
        long,
        value_name = "X", value_parser = positive_number,
        requires = "material",
        hide_short_help = true,
        help_heading = "Fine-tuning"
    )]
    pub(super) lr: Option<f64>,
    /// Learning rate of the factors relative to that of the rest [default: 1].
    #[arg(long, value_name = "X", value_parser = non_negative, requires = "dataset", hide_short_help = true, help_heading = "Fine-tuning")]
    pub(super) factor_lr: Option<f64>,
    /// Examples per step [default: 128; 8 with --inputs].
    #[arg(long, value_name = "N", value_parser = positive, requires = "material", hide_short_help = true, help_heading = "Fine-tuning")]
    pub(super) batch_size: Option<usize>,
    /// λ of the penalty on weights [default: 5e-4; 0 with --inputs].
    #[arg(long, value_name = "X", value_parser = non_negative, requires = "material", hide_short_help = true, help_heading = "Fine-tuning")]
    pub(super) weight_decay: Option<f64>,
    /// Flip and shift training images at random, or not [default: as the data set's manifest says].
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        default_missing_value = "true",
        requires = "dataset",
        hide_short_help = true,
        help_heading = "Fine-tuning"
    )]
    pub(super) augment: Option<bool>,
    /// Share of the loss that comes from the dense network's logits in place of the labels, 0 to 1 [default: 0.7].
    #[arg(long, value_name = "W", value_parser = share, requires = "dataset", hide_short_help = true, help_heading = "Fine-tuning")]
    pub(super) distill: Option<f64>,
    /// Part of the outputs of the dense network's layers in the loss [default: 0; 1 with --inputs].
    #[arg(long, value_name = "L", value_parser = non_negative, requires = "material", hide_short_help = true, help_heading = "Fine-tuning")]
    pub(super) distill_layers: Option<f64>,
    /// Parts of factorized layers that are not trained, such as reduce,expand.
    #[arg(
        long,
        value_name = "PART,…",
        value_delimiter = ',',
        requires = "dataset",
        hide_short_help = true,
        help_heading = "Fine-tuning"
    )]
    pub(super) freeze: Vec<String>,
    /// Stop after so many epochs without a better validation accuracy.
    #[arg(long, value_name = "N", value_parser = positive, requires = "dataset", hide_short_help = true, help_heading = "Fine-tuning")]
    pub(super) patience: Option<usize>,
    /// Folder for the stages and the report [default with --dataset, and with --inputs and --epochs: OUT with .work for
    /// its ending].
    #[arg(long, value_name = "DIR")]
    pub(super) work: Option<PathBuf>,
    /// Go on with the work that is there; what an option has changed is computed anew.
    #[arg(long)]
    pub(super) resume: bool,
}

/// How far to go: exactly one of these.
#[derive(clap::Args)]
#[group(id = "goal", multiple = false)]
pub(super) struct BudgetOptions {
    /// Parameters of the compressed model / parameters of the dense one.
    #[arg(long, value_name = "X,…", value_parser = ratio, value_delimiter = ',')]
    pub(super) params_ratio: Vec<f64>,
    /// Multiply-adds of the compressed model / multiply-adds of the dense one.
    #[arg(long, value_name = "X,…", value_parser = ratio, value_delimiter = ',')]
    pub(super) macs_ratio: Vec<f64>,
    /// Time of the compressed model / time of the dense one, by the times of single layers on this device.
    #[arg(long, value_name = "X,…", value_parser = ratio, value_delimiter = ',')]
    pub(super) latency_ratio: Vec<f64>,
    /// Largest relative error of any layer.
    #[arg(long, value_name = "E,…", value_parser = ratio, value_delimiter = ',')]
    pub(super) error_target: Vec<f64>,
    /// Share of the energy (squared singular values) of each layer that its ranks keep.
    #[arg(long, value_name = "S,…", value_parser = ratio, value_delimiter = ',', hide_short_help = true)]
    pub(super) energy: Vec<f64>,
    /// Ranks of variational Bayes (EVBMF), weakened: W from the full rank to the estimate, 0 to 1.
    #[arg(long, value_name = "W", num_args = 0..=1, default_missing_value = "1", value_parser = share, hide_short_help = true)]
    pub(super) evbmf: Option<f64>,
    /// Sums of the ranks of all convolutions and of all linear layers, shared out by the losses that layers cause when they
    /// are compressed alone; needs --dataset.
    #[arg(long, value_name = "CONV,LINEAR", value_parser = rank_sums, hide_short_help = true)]
    pub(super) rank_sums: Option<(usize, usize)>,
    /// Rank of each layer from a plan.
    #[arg(long, value_name = "plan.toml")]
    pub(super) ranks: Option<PathBuf>,
}

/// Two counts with a comma between them.
fn rank_sums(text: &str) -> Result<(usize, usize), String> {
    let parts: Vec<Result<usize, _>> = text.split(',').map(str::parse).collect();
    match parts[..] {
        [Ok(conv), Ok(linear)] => Ok((conv, linear)),
        _ => {
            Err("write the sum for convolutions and the one for linear layers like 750,900".into())
        }
    }
}

/// A share, 0 to 1.
fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("not a number from 0 to 1".into()),
    }
}

/// A bound of the component energy.
fn energy(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 => Ok(number),
        _ => Err("not a number above 0, or `inf` for no correction".into()),
    }
}

/// How long to work on a model.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PresetName {
    /// Decompose and repair; no fine-tuning.
    Quick,
    /// Statistics of 500 images and a few epochs from the dense network and the labels.
    Default,
    /// The long form: 40 epochs.
    Best,
}

impl PresetName {
    pub(super) fn preset(self) -> Preset {
        match self {
            PresetName::Quick => Preset::Quick,
            PresetName::Default => Preset::Default,
            PresetName::Best => Preset::Best,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum FormName {
    /// For each layer the one that loses least for its cost.
    Auto,
    /// 1×1, depthwise, 1×1.
    Cp3,
    /// 1×1, depthwise along the columns, depthwise along the rows, 1×1.
    Cp4,
    /// 1×1, a small convolution, 1×1.
    Tucker2,
    /// Tucker-2 with a CP core.
    TkdCpd,
    /// Filters along the columns and along the rows for every input channel, mixed (Jaderberg, scheme 1).
    Jaderberg1,
    /// Filters along the columns and along the rows that all input channels share, mixed (Jaderberg, scheme 1).
    Jaderberg1Shared,
    /// A convolution along the columns, then one along the rows (Jaderberg, scheme 2).
    Jaderberg2,
    /// 1×1, then filters of every output channel apart.
    Decoupled,
    /// Clusters of channels, and terms one after the other for each of their blocks (Denton).
    Denton,
    /// Clusters of channels, and a small convolution for each of their blocks (Denton).
    DentonSvd,
    /// 1×1 to a few colours, of which every output channel reads one (Denton, for a first layer).
    Monochromatic,
}

impl FormName {
    pub(super) fn forms(self) -> Vec<Form> {
        match self {
            FormName::Auto => vec![Form::Cp3, Form::Cp4, Form::Tucker2, Form::TkdCpd],
            FormName::Cp3 => vec![Form::Cp3],
            FormName::Cp4 => vec![Form::Cp4],
            FormName::Tucker2 => vec![Form::Tucker2],
            FormName::TkdCpd => vec![Form::TkdCpd],
            FormName::Jaderberg1 => vec![Form::Jaderberg1],
            FormName::Jaderberg1Shared => vec![Form::Jaderberg1Shared],
            FormName::Jaderberg2 => vec![Form::Jaderberg2],
            FormName::Decoupled => vec![Form::Decoupled],
            FormName::Denton => vec![Form::Denton],
            FormName::DentonSvd => vec![Form::DentonSvd],
            FormName::Monochromatic => vec![Form::Monochromatic],
        }
    }
}

/// What counts as the loss of a layer.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LossName {
    /// The fall of the validation accuracy after an epoch of fine-tuning (Astrid & Lee).
    AccuracyDrop,
    /// The validation cross-entropy, without fine-tuning (SqVaD).
    CrossEntropy,
    /// Its rise over that of the dense network.
    LossIncrease,
}

/// What ranks are chosen by.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PlanName {
    /// The least sum of squared relative errors.
    Errors,
    /// The same, each layer weighted by how much the validation loss rises when it alone is compressed.
    Sensitivity,
    /// The least largest relative error (ALDS).
    MaxError,
    /// One ratio to the break-even rank for all layers; nothing is decomposed to make the plan.
    Uniform,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ScheduleName {
    AtOnce,
    Layerwise,
    Passes,
}

/// The CP solvers by their names.
fn method() -> impl TypedValueParser<Value = Method> {
    PossibleValuesParser::new(Method::ALL.map(Method::name)).try_map(|name| name.parse::<Method>())
}

impl From<PlanName> for PlanBy {
    fn from(name: PlanName) -> Self {
        match name {
            PlanName::Errors => PlanBy::Errors,
            PlanName::Sensitivity => PlanBy::Sensitivity,
            PlanName::MaxError => PlanBy::MaxError,
            PlanName::Uniform => PlanBy::Uniform,
        }
    }
}

impl From<LossName> for LossRule {
    fn from(name: LossName) -> Self {
        match name {
            LossName::AccuracyDrop => LossRule::AccuracyDrop,
            LossName::CrossEntropy => LossRule::CrossEntropy,
            LossName::LossIncrease => LossRule::LossIncrease,
        }
    }
}
