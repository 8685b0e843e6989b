//! The options of `polyad compress`, what they ask for, and which do not go together.

use std::path::PathBuf;

use clap::ValueEnum;
use cp_net::Form;
use cp_plan::{MAX_ENERGY, Method};
use cp_train::{
    Augmentation, CompressConfig, CompressSchedule, Distillation, OptimizerConfig, TrainConfig,
};

use crate::common::{Usage, non_negative, positive, ratio};
use crate::model::Model;

const EXAMPLES: &str = "\
Examples:
  polyad compress resnet56.safetensors --arch resnet56 --macs-ratio 0.5 --out half.safetensors
  polyad compress net.safetensors --params-ratio 0.2 --save-plan p.toml --out cp.safetensors
  polyad compress net.safetensors --ranks p.toml --max-iters 500 --out better.safetensors
  polyad compress net.safetensors --latency-ratio 0.6 --timing-batch 32 --out fast.safetensors
  polyad compress net.safetensors --macs-ratio 0.3 --dataset cifar10 --epochs 15 --out s.safetensors
  polyad compress net.safetensors --macs-ratio 0.5,0.3 --dataset cifar10 --out s.safetensors --resume

A plan is TOML, one entry per layer; layers that it does not name stay dense:

  [[layer]]
  name = \"features.3\"
  form = \"cp3\"        # cp3, cp4, tucker2, tkd-cpd, or low-rank for linear layers and 1×1 convolutions
  rank = 154          # tucker2: [out, in]; tkd-cpd: [out, in, inner]

With a ratio, the plan takes the form and the rank of each layer that lose least, by the errors that the decompositions \
would have (--plan-by). Without --dataset nothing else is used: expect a loss of accuracy that fine-tuning would win back.

With --dataset, the network is repaired and fine-tuned, and every stage is evaluated on the validation split; the test \
split, if one is named, is used once. The work is kept in a folder beside OUT: what was killed goes on with --resume, and \
report.html there shows it all. Several ratios, with commas between them, make several models, OUT with the ratio in its \
name, and a plot of what each costs and reaches.

JSON: architecture, method, input, before and after (parameters, macs each), params_ratio, macs_ratio (compressed / dense), \
seconds, layers: a list of name, form, rank, breakeven (rank, in parameters), relative_error, weighted_error, \
component_energy (above about 10 the terms cancel each other), iterations, stop, and before and after again; dense: the \
layers that stay dense, and why; stages: a list of stage, parameters, macs, validation (as `polyad eval`) and kept \
(whether the next step went on from there); test: dense and compressed; latency: as `polyad bench`. Several ratios: budgets, a list of these.";

/// Make a model smaller by factorizing its layers.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(super) model: Model,
    /// File for the compressed model, .safetensors.
    #[arg(long, value_name = "OUT")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) budget: BudgetOptions,
    /// Form of the factorized convolutions; linear layers and 1×1 convolutions always become low-rank.
    #[arg(long, value_enum, default_value_t = FormName::Auto, conflicts_with = "ranks", help_heading = "Plan")]
    pub(super) form: FormName,
    /// What the ranks are chosen by, for budgets.
    #[arg(long, value_enum, default_value_t = PlanBy::Errors, conflicts_with = "ranks", help_heading = "Plan")]
    pub(super) plan_by: PlanBy,
    /// What counts as the loss of a layer for --rank-sums.
    #[arg(long, value_enum, default_value_t = LossName::LossIncrease, requires = "rank_sums", help_heading = "Plan")]
    pub(super) loss: LossName,
    /// Part of --rank-sums that goes by the size of layers in place of their losses, 0 to 1.
    #[arg(
        long,
        value_name = "λ",
        default_value_t = 0.0,
        requires = "rank_sums",
        help_heading = "Plan"
    )]
    pub(super) size_share: f64,
    /// Ranks that the plan tries for each layer and form.
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = positive, help_heading = "Plan")]
    pub(super) points: usize,
    /// Round ranks to a multiple of this.
    #[arg(long, value_name = "M", default_value_t = 1, value_parser = positive, help_heading = "Plan")]
    pub(super) multiple: usize,
    /// Layers that stay dense.
    #[arg(long, value_name = "LAYER,…", value_delimiter = ',', help_heading = "Plan")]
    pub(super) keep: Vec<String>,
    /// Forms and ranks that single layers have to get, whatever the budget: a plan with their entries.
    #[arg(long, value_name = "plan.toml", conflicts_with = "ranks", help_heading = "Plan")]
    pub(super) fix: Option<PathBuf>,
    /// Time every layer in every form on this device, and take none that is no faster than the dense layer; always so with
    /// --latency-ratio.
    #[arg(long, conflicts_with = "ranks", help_heading = "Plan")]
    pub(super) never_slower: bool,
    /// Write the ranks used, as a plan for --ranks.
    #[arg(long, value_name = "FILE", help_heading = "Plan")]
    pub(super) save_plan: Option<PathBuf>,
    /// Images per batch where time is measured.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive, help_heading = "Plan")]
    pub(super) timing_batch: usize,
    /// Algorithm of the CP decompositions.
    #[arg(long, value_parser = clap::value_parser!(MethodName), default_value = "als", help_heading = "Decomposition")]
    pub(super) method: MethodName,
    /// Most iterations for each layer.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = positive, help_heading = "Decomposition")]
    pub(super) max_iters: usize,
    /// Stop when an iteration changes the fit of a layer by less than this.
    #[arg(long, value_name = "T", default_value = "1e-8", value_parser = non_negative, help_heading = "Decomposition")]
    pub(super) tol: f64,
    /// Component energy above which terms are made smaller by error-preserving correction; `inf` for never.
    #[arg(long, value_name = "E", default_value_t = MAX_ENERGY, help_heading = "Decomposition")]
    pub(super) max_energy: f64,
    /// Data set to repair, fine-tune and choose on: a name that `polyad eval` takes.
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub(super) dataset: Option<String>,
    /// Its part to train on.
    #[arg(
        long,
        value_name = "SPLIT",
        default_value = "train",
        requires = "dataset",
        help_heading = "Data"
    )]
    pub(super) train_split: String,
    /// Its part to choose by.
    #[arg(
        long,
        value_name = "SPLIT",
        default_value = "validation",
        requires = "dataset",
        help_heading = "Data"
    )]
    pub(super) validation_split: String,
    /// Its part to test on, once, before and after.
    #[arg(long, value_name = "SPLIT", requires = "dataset", help_heading = "Data")]
    pub(super) test_split: Option<String>,
    /// Decompose for the outputs of layers (ALS-Σ), from the inputs that they get for this many training images, such as 500: far
    /// more accurate, and slower.
    #[arg(long, value_name = "N", requires = "dataset", value_parser = positive, help_heading = "Data")]
    pub(super) statistics: Option<usize>,
    /// Training images for batch normalization to measure its statistics on after decomposing; 0 for none.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2000,
        requires = "dataset",
        help_heading = "Fine-tuning"
    )]
    pub(super) calibrate: usize,
    /// Passes over the training data at the end; 0 for none.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 5,
        requires = "dataset",
        help_heading = "Fine-tuning"
    )]
    pub(super) epochs: usize,
    /// All layers at once, one after the other, or all several times at falling ranks.
    #[arg(long, value_enum, default_value_t = ScheduleName::AtOnce, requires = "dataset", help_heading = "Fine-tuning")]
    pub(super) schedule: ScheduleName,
    /// Epochs between the steps of a schedule.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        requires = "dataset",
        help_heading = "Fine-tuning"
    )]
    pub(super) step_epochs: usize,
    /// Decompositions of each layer with --schedule passes.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = positive, requires = "dataset", help_heading = "Fine-tuning")]
    pub(super) passes: usize,
    /// Peak learning rate.
    #[arg(
        long,
        value_name = "X",
        default_value_t = 0.02,
        requires = "dataset",
        help_heading = "Fine-tuning"
    )]
    pub(super) lr: f64,
    /// Learning rate of the factors relative to that of the rest.
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        requires = "dataset",
        help_heading = "Fine-tuning"
    )]
    pub(super) factor_lr: f64,
    /// Images per step.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive, requires = "dataset", help_heading = "Fine-tuning")]
    pub(super) batch_size: usize,
    /// λ of the penalty on weights.
    #[arg(
        long,
        value_name = "X",
        default_value_t = 5e-4,
        requires = "dataset",
        help_heading = "Fine-tuning"
    )]
    pub(super) weight_decay: f64,
    /// Flip and shift training images at random, for fine-tuning and for batch normalization: for networks that were trained so.
    /// Not for digits and letters.
    #[arg(long, requires = "dataset", help_heading = "Fine-tuning")]
    pub(super) augment: bool,
    /// Share of the loss that comes from the dense network's logits in place of the labels, 0 to 1.
    #[arg(
        long,
        value_name = "W",
        default_value_t = 0.0,
        requires = "dataset",
        help_heading = "Fine-tuning"
    )]
    pub(super) distill: f64,
    /// Part of the outputs of the dense network's layers in the loss.
    #[arg(
        long,
        value_name = "L",
        default_value_t = 0.0,
        requires = "dataset",
        help_heading = "Fine-tuning"
    )]
    pub(super) distill_layers: f64,
    /// Parts of factorized layers that are not trained, such as reduce,expand.
    #[arg(
        long,
        value_name = "PART,…",
        value_delimiter = ',',
        requires = "dataset",
        help_heading = "Fine-tuning"
    )]
    pub(super) freeze: Vec<String>,
    /// Stop after so many epochs without a better validation accuracy.
    #[arg(long, value_name = "N", value_parser = positive, requires = "dataset", help_heading = "Fine-tuning")]
    pub(super) patience: Option<usize>,
    /// Folder for the stages and the report [default with --dataset: OUT with .work for .safetensors].
    #[arg(long, value_name = "DIR")]
    pub(super) work: Option<PathBuf>,
    /// Go on with the work that a killed command left there.
    #[arg(long)]
    pub(super) resume: bool,
}

/// How far to go: exactly one of these.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct BudgetOptions {
    /// Parameters of the compressed model / parameters of the dense one.
    #[arg(long, value_name = "X,…", value_parser = ratio, value_delimiter = ',')]
    params_ratio: Vec<f64>,
    /// Multiply-adds of the compressed model / multiply-adds of the dense one.
    #[arg(long, value_name = "X,…", value_parser = ratio, value_delimiter = ',')]
    macs_ratio: Vec<f64>,
    /// Time of the compressed model / time of the dense one, by the times of single layers on this device.
    #[arg(long, value_name = "X,…", value_parser = ratio, value_delimiter = ',')]
    latency_ratio: Vec<f64>,
    /// Largest relative error of any layer.
    #[arg(long, value_name = "E,…", value_parser = ratio, value_delimiter = ',')]
    error_target: Vec<f64>,
    /// Share of the energy (squared singular values) of each layer that its ranks keep.
    #[arg(long, value_name = "S,…", value_parser = ratio, value_delimiter = ',')]
    energy: Vec<f64>,
    /// Ranks of variational Bayes (EVBMF), weakened: W from the full rank to the estimate, 0 to 1.
    #[arg(long, value_name = "W", num_args = 0..=1, default_missing_value = "1")]
    evbmf: Option<f64>,
    /// Sums of the ranks of all convolutions and of all linear layers, shared out by the losses that layers cause when they
    /// are compressed alone; needs --dataset.
    #[arg(long, value_name = "CONV,LINEAR", value_parser = rank_sums)]
    rank_sums: Option<(usize, usize)>,
    /// Rank of each layer from a plan.
    #[arg(long, value_name = "plan.toml")]
    ranks: Option<PathBuf>,
}

/// What one model has to reach.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Goal {
    Params(f64),
    Macs(f64),
    Latency(f64),
    Error(f64),
    Energy(f64),
    Evbmf(f64),
    RankSums(usize, usize),
    Ranks(PathBuf),
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

impl Goal {
    /// A name for files and tables.
    pub(super) fn label(&self) -> String {
        match self {
            Goal::Params(x)
            | Goal::Macs(x)
            | Goal::Latency(x)
            | Goal::Error(x)
            | Goal::Energy(x)
            | Goal::Evbmf(x) => x.to_string(),
            Goal::RankSums(conv, linear) => format!("{conv}-{linear}"),
            Goal::Ranks(_) => "plan".into(),
        }
    }

    pub(super) fn is_latency(&self) -> bool {
        matches!(self, Goal::Latency(_))
    }

    /// Whether it is reached by a profile of errors and costs, and not by a rule.
    fn is_profiled(&self) -> bool {
        matches!(self, Goal::Params(_) | Goal::Macs(_) | Goal::Latency(_) | Goal::Error(_))
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
}

impl FormName {
    pub(super) fn forms(self) -> Vec<Form> {
        match self {
            FormName::Auto => vec![Form::Cp3, Form::Cp4, Form::Tucker2, Form::TkdCpd],
            FormName::Cp3 => vec![Form::Cp3],
            FormName::Cp4 => vec![Form::Cp4],
            FormName::Tucker2 => vec![Form::Tucker2],
            FormName::TkdCpd => vec![Form::TkdCpd],
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PlanBy {
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

/// A method by its name.
#[derive(Clone, Copy)]
pub(super) struct MethodName(pub(super) Method);

impl ValueEnum for MethodName {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [MethodName; 8] = {
            let [a, b, c, d, e, f, g, h] = Method::ALL;
            [
                MethodName(a),
                MethodName(b),
                MethodName(c),
                MethodName(d),
                MethodName(e),
                MethodName(f),
                MethodName(g),
                MethodName(h),
            ]
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.name()))
    }
}

impl Args {
    /// Refuses what does not go together.
    pub(super) fn check(&self) -> Result<(), Usage> {
        let usage = |what: &str| Err(Usage(what.into()));
        if self.plan_by == PlanBy::Sensitivity && self.dataset.is_none() {
            return usage("--plan-by sensitivity needs --dataset to measure on");
        }
        if self.budget.rank_sums.is_some() && self.dataset.is_none() {
            return usage("--rank-sums needs --dataset to measure losses on");
        }
        if self.plan_by == PlanBy::Uniform {
            if !matches!(self.form, FormName::Cp3 | FormName::Cp4) {
                return usage("--plan-by uniform needs --form cp3 or --form cp4");
            }
            if !self.budget.latency_ratio.is_empty() || !self.budget.error_target.is_empty() {
                return usage("--plan-by uniform is for --params-ratio and --macs-ratio");
            }
            if self.fix.is_some() {
                return usage("--fix needs a plan by errors, not --plan-by uniform");
            }
        }
        if self.never_slower
            && (self.plan_by == PlanBy::Uniform || !self.goals().iter().all(Goal::is_profiled))
        {
            return usage("--never-slower is for ratios and --error-target, by errors");
        }
        let goals = self.goals();
        let twice = (1..goals.len()).find(|&at| goals[..at].contains(&goals[at]));
        if let Some(at) = twice {
            return Err(Usage(format!("{} is asked for twice", goals[at].label())));
        }
        if self.max_energy.is_nan() || self.max_energy <= 0.0 {
            return usage("--max-energy must be above 0; `inf` for no correction");
        }
        if !(0.0..=1.0).contains(&self.distill) {
            return usage("--distill must be from 0 to 1");
        }
        if self.resume && self.work_folder(self.dataset.is_some()).is_none() {
            return usage("--resume needs --work or --dataset: without them nothing is kept");
        }
        Ok(())
    }

    /// Whether layers are timed for the plan.
    pub(super) fn times_layers(&self, goal: &Goal) -> bool {
        goal.is_latency() || self.never_slower
    }

    /// The models to make.
    pub(super) fn goals(&self) -> Vec<Goal> {
        let budget = &self.budget;
        if let Some(path) = &budget.ranks {
            return vec![Goal::Ranks(path.clone())];
        }
        if let Some((conv, linear)) = budget.rank_sums {
            return vec![Goal::RankSums(conv, linear)];
        }
        if let Some(weaken) = budget.evbmf {
            return vec![Goal::Evbmf(weaken)];
        }
        let of = |values: &[f64], goal: fn(f64) -> Goal| -> Vec<Goal> {
            values.iter().copied().map(goal).collect()
        };
        [
            of(&budget.params_ratio, Goal::Params),
            of(&budget.macs_ratio, Goal::Macs),
            of(&budget.latency_ratio, Goal::Latency),
            of(&budget.error_target, Goal::Error),
            of(&budget.energy, Goal::Energy),
        ]
        .concat()
    }

    /// The file of one of `goals` models.
    pub(super) fn out_of(&self, goal: &Goal, goals: usize) -> PathBuf {
        if goals == 1 {
            return self.out.clone();
        }
        let stem = self.out.file_stem().unwrap_or_default().to_string_lossy();
        let kind = self.out.extension().unwrap_or("safetensors".as_ref()).to_string_lossy();
        self.out.with_file_name(format!("{stem}-{}.{kind}", goal.label()))
    }

    /// Where work is kept, if it is.
    pub(super) fn work_folder(&self, data: bool) -> Option<PathBuf> {
        match &self.work {
            Some(path) => Some(path.clone()),
            None => data.then(|| self.out.with_extension("work")),
        }
    }

    /// How a plan is carried out.
    pub(super) fn config(&self, seed: u64) -> CompressConfig {
        let steps = self.step_epochs;
        let schedule = match self.schedule {
            ScheduleName::AtOnce => CompressSchedule::AtOnce,
            ScheduleName::Layerwise => {
                CompressSchedule::Layerwise { epochs: steps, freeze_done: false }
            }
            ScheduleName::Passes => CompressSchedule::Passes { passes: self.passes, epochs: steps },
        };
        let augmentation = if self.augment {
            Augmentation { flip: true, crop_padding: 4 }
        } else {
            Augmentation::default()
        };
        let distilled = self.distill > 0.0 || self.distill_layers > 0.0;
        let tune = TrainConfig {
            batch_size: self.batch_size,
            optimizer: OptimizerConfig::sgd(self.weight_decay),
            lr: self.lr,
            augmentation,
            distill: distilled.then_some(Distillation {
                weight: self.distill,
                temperature: 4.0,
                layers: self.distill_layers,
            }),
            patience: self.patience,
            seed,
            ..TrainConfig::fine_tuning(self.epochs)
        };
        CompressConfig {
            method: self.method.0,
            max_iters: self.max_iters,
            tol: self.tol,
            max_energy: self.max_energy.is_finite().then_some(self.max_energy),
            statistics: super::statistics(self, seed),
            calibrate: self.calibrate,
            augmentation,
            schedule,
            fine_tune: (self.dataset.is_some() && self.epochs > 0).then_some(tune),
            factor_lr: self.factor_lr,
            frozen_parts: self.freeze.clone(),
            seed,
        }
    }
}
