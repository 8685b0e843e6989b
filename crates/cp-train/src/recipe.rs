//! [`Recipe`]: everything that decides a compression, from the budget to the test, as one value.

use std::path::Path;

use cp_net::{Form, Rank};
use cp_plan::{Budget, RankPlan};
use serde::{Deserialize, Serialize};

use crate::compress::CompressConfig;
use crate::config::{Augmentation, TrainConfig};
use crate::distill::Distillation;
use crate::error::TrainError;
use crate::libtorch;
use crate::multiple::Multiple;
use crate::origin::Origin;
use crate::sensitivity::LossRule;
use crate::statistics::StatisticsOptions;

/// A compression as data: how far to go, how ranks are chosen, how kernels are decomposed and the network repaired.
///
/// [`Recipe::run`] carries it out. Equal recipes, networks, data and numbers of threads give equal plans and networks, whoever asks.
///
/// ```
/// let recipe: cp_train::Recipe = r#"
///     target = { macs-ratio = 0.33 }
///     [plan]
///     forms = ["cp3", "tucker2"]
///     [compress]
///     max_iters = 100
/// "#.parse()?;
/// assert_eq!(recipe.plan.points, 12);
/// # Ok::<(), cp_train::TrainError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// How far to go.
    pub target: Target,
    /// Batch sizes that the finished network is timed at beside the dense one; none for no timing.
    pub timing_batches: Vec<usize>,
    /// How the target becomes ranks.
    pub plan: Planning,
    /// How the plan is carried out.
    pub compress: CompressConfig,
}

/// What the compressed network has to reach. Ratios are compressed / dense.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Parameters.
    ParamsRatio(f64),
    /// Multiply-adds.
    MacsRatio(f64),
    /// Time on this device, by the times of single layers.
    LatencyRatio(f64),
    /// The largest error of any layer.
    ErrorTarget(f64),
    /// The share of the energy (squared singular values) of each layer that its ranks keep.
    Energy(f64),
    /// Ranks of variational Bayes, weakened: from the full rank (0) to the estimate (1).
    Evbmf(f64),
    /// Sums of the ranks of all convolutions and of all linear layers, shared out by losses.
    RankSums {
        /// Of the convolutions.
        conv: usize,
        /// Of the linear layers.
        linear: usize,
    },
    /// Ranks of all layers relative to their break-even ranks.
    BreakevenRatio(f64),
    /// This plan.
    Ranks(RankPlan),
}

/// How a target becomes a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Planning {
    /// Forms that the plan chooses from; where a rule knows one form only, exactly one.
    pub forms: Vec<Form>,
    /// What the ranks are chosen by, for ratios.
    pub by: PlanBy,
    /// Ranks tried for each layer and form.
    pub points: usize,
    /// Most iterations of a solver at each of them: enough to tell them apart.
    pub max_iters: usize,
    /// What every number of a rank is a multiple of.
    pub multiple: Multiple,
    /// Layers that stay dense.
    pub keep: Vec<String>,
    /// Layers whose form and rank are given.
    pub fix: Vec<FixedLayer>,
    /// No layer that is not faster than dense on this device.
    pub never_slower: bool,
    /// Examples of a batch where layers are timed.
    pub timing_batch: usize,
    /// What counts as the loss of a layer for [`Target::RankSums`].
    pub loss: LossRule,
    /// Part of [`Target::RankSums`] that goes by the size of layers in place of their losses, 0 to 1.
    pub size_share: f64,
    /// Seed of the decompositions that the plan is made from.
    pub seed: u64,
}

/// A layer whose form and rank are given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FixedLayer {
    /// The layer.
    pub name: String,
    /// Its form.
    pub form: Form,
    /// Its rank.
    pub rank: Rank,
}

/// What ranks are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlanBy {
    /// The least sum of squared relative errors.
    #[default]
    Errors,
    /// The same, each layer weighted by how much the validation loss rises when it alone is compressed.
    Sensitivity,
    /// The least largest relative error (ALDS).
    MaxError,
    /// One ratio to the break-even rank for all layers; nothing is decomposed to make the plan.
    Uniform,
}

/// Recipes that are known to work, by how long they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Decomposed and repaired, not fine-tuned.
    Quick,
    /// Statistics of 500 images, distillation, and a few epochs.
    #[default]
    Default,
    /// The long form: statistics of 1,000 images and 40 epochs.
    Best,
}

impl Default for Recipe {
    /// Half the multiply-adds, data-free.
    fn default() -> Self {
        Self {
            target: Target::MacsRatio(0.5),
            timing_batches: Vec::new(),
            plan: Planning::default(),
            compress: CompressConfig::default(),
        }
    }
}

impl Default for Planning {
    /// CP-3, CP-4 and Tucker-2 at 12 ranks of 25 iterations each, by the sum of squared errors.
    fn default() -> Self {
        Self {
            forms: vec![Form::Cp3, Form::Cp4, Form::Tucker2],
            by: PlanBy::Errors,
            points: 12,
            max_iters: 25,
            multiple: Multiple::Auto,
            keep: Vec::new(),
            fix: Vec::new(),
            never_slower: false,
            timing_batch: 1,
            loss: LossRule::LossIncrease,
            size_share: 0.0,
            seed: 0,
        }
    }
}

impl Preset {
    /// Epochs of fine-tuning. By default five: on the validation split of the ResNet-20 that was trained without it, one has 0.6 points less and
    /// ten have no more (docs/results/presets.json).
    pub fn epochs(self) -> usize {
        match self {
            Preset::Quick => 0,
            Preset::Default => 5,
            Preset::Best => 40,
        }
    }

    /// Peak learning rate of fine-tuning. Five epochs at 0.002, 0.005 and 0.01 differ there by no more than chance, and the gentler ones break
    /// less in the first; 40 epochs have time for more.
    pub fn lr(self) -> f64 {
        match self {
            Preset::Quick | Preset::Default => 0.005,
            Preset::Best => 0.02,
        }
    }

    /// Images that the inputs of layers are measured on.
    pub fn statistics(self) -> usize {
        match self {
            Preset::Quick | Preset::Default => 500,
            Preset::Best => 1_000,
        }
    }
}

/// Ranks that are tried of a layer at most.
const MOST_POINTS: usize = 10_000;

impl Recipe {
    /// The recipe of a preset where there are training data, augmented as `augmentation` says.
    pub fn with_data(preset: Preset, target: Target, augmentation: Augmentation) -> Self {
        let fine_tune = TrainConfig {
            lr: preset.lr(),
            augmentation,
            distill: Some(Distillation { weight: 0.7, temperature: 4.0, layers: 0.0 }),
            ..TrainConfig::fine_tuning(preset.epochs())
        };
        Self {
            target,
            timing_batches: vec![1, 32],
            plan: Planning {
                forms: vec![Form::Cp3, Form::Tucker2],
                points: 10,
                max_iters: 15,
                ..Planning::default()
            },
            compress: CompressConfig {
                max_iters: 100,
                statistics: Some(StatisticsOptions {
                    images: preset.statistics(),
                    ..StatisticsOptions::default()
                }),
                calibrate: 2_000,
                augmentation,
                fine_tune: (preset.epochs() > 0).then_some(fine_tune),
                ..CompressConfig::default()
            },
        }
    }

    /// Whether this program can carry it out: fine-tuning, calibration and losses are libtorch's.
    fn check_libtorch(&self, data: bool) -> Result<(), TrainError> {
        let refused = |what| Err(libtorch::refused(what));
        match &self.target {
            _ if libtorch::HERE => Ok(()),
            _ if self.compress.fine_tune.is_some() => refused(libtorch::FINE_TUNING),
            Target::RankSums { .. } => refused(libtorch::SENSITIVITY),
            _ if data && self.compress.calibrate > 0 => refused(libtorch::CALIBRATION),
            _ => Ok(()),
        }
    }

    /// Whether losses can be measured on labelled data, where the plan asks for them.
    pub(crate) fn check_losses(&self) -> Result<(), TrainError> {
        match self.plan.by {
            PlanBy::Sensitivity if !libtorch::HERE => Err(libtorch::refused(libtorch::SENSITIVITY)),
            _ => Ok(()),
        }
    }

    /// What is known of the validation images: an epoch is not chosen by images that the dense network was trained on.
    pub fn heed(&mut self, origin: Origin) {
        if let (Origin::Seen, Some(tune)) = (origin, &mut self.compress.fine_tune) {
            tune.keep_best = false;
        }
    }

    /// What is best with examples without labels: [`Recipe::run_in`].
    pub fn with_inputs(target: Target) -> Self {
        let known = Self::with_data(Preset::Quick, target, Augmentation::default());
        let compress = CompressConfig { calibrate: 0, ..known.compress };
        Self { timing_batches: Vec::new(), compress, ..known }
    }

    /// What is best without data.
    pub fn data_free(target: Target) -> Self {
        let compress = CompressConfig { max_iters: 100, calibrate: 0, ..CompressConfig::default() };
        Self { target, timing_batches: Vec::new(), plan: Planning::default(), compress }
    }

    /// The same with every seed `seed`.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.plan.seed = seed;
        self.compress.seed = seed;
        if let Some(statistics) = &mut self.compress.statistics {
            statistics.seed = seed;
        }
        if let Some(fine_tune) = &mut self.compress.fine_tune {
            fine_tune.seed = seed;
        }
        self
    }

    /// Reads a recipe from a TOML file.
    ///
    /// # Errors
    /// A file that cannot be read, or is no recipe: with the place in it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TrainError> {
        let path = path.as_ref();
        let way_out = "--save-recipe writes one";
        let text = cp_net::read_text(path, "a recipe as TOML", way_out)?;
        if text.trim().is_empty() {
            let what = format!("is empty; {way_out}");
            return Err(TrainError::Recipe { path: Some(path.into()), what });
        }
        text.parse().map_err(|error| match error {
            TrainError::Recipe { what, .. } => TrainError::Recipe { path: Some(path.into()), what },
            other => other,
        })
    }

    /// Writes the recipe as a TOML file, atomically.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TrainError> {
        let path = path.as_ref();
        let text = toml::to_string_pretty(self).map_err(|error| TrainError::Recipe {
            path: Some(path.into()),
            what: error.to_string(),
        })?;
        crate::record::write_atomic(path, text.as_bytes())
    }

    /// Whether it makes sense, with or without data.
    ///
    /// # Errors
    /// [`TrainError::Config`] for the first setting that is out of its range, or that the target does not read.
    pub fn check(&self, data: bool) -> Result<(), TrainError> {
        self.check_libtorch(data)?;
        let Planning { forms, by, points, timing_batch, size_share, fix, keep, .. } = &self.plan;
        let wrong =
            |option, got: String, expected| Err(TrainError::Config { option, got, expected });
        let share = |x: f64| x.is_finite() && x > 0.0 && x < 1.0;
        match self.target {
            Target::ParamsRatio(x) | Target::MacsRatio(x) | Target::LatencyRatio(x)
                if !share(x) =>
            {
                return wrong("target", x.to_string(), "a ratio above 0 and below 1");
            }
            Target::ErrorTarget(x) | Target::Energy(x) if !share(x) => {
                return wrong("target", x.to_string(), "a share above 0 and below 1");
            }
            Target::Evbmf(x) if !(0.0..=1.0).contains(&x) => {
                return wrong("target", x.to_string(), "a number from 0 to 1");
            }
            Target::BreakevenRatio(x) if !(x > 0.0 && x <= 1.0) => {
                return wrong("target", x.to_string(), "a ratio above 0, at most 1");
            }
            _ => {}
        }
        for (option, got) in [
            ("plan.points", *points),
            ("plan.max_iters", self.plan.max_iters),
            ("plan.multiple", self.multiple()),
            ("plan.timing_batch", *timing_batch),
        ] {
            if got == 0 {
                return wrong(option, "0".into(), "at least 1");
            }
        }
        if *points > MOST_POINTS {
            return wrong("plan.points", points.to_string(), "at most 10000 ranks to try");
        }
        if !(0.0..=1.0).contains(size_share) {
            return wrong("plan.size_share", size_share.to_string(), "a number from 0 to 1");
        }
        if self.timing_batches.contains(&0) {
            return wrong("timing_batches", "0".into(), "at least 1");
        }
        if forms.is_empty() {
            return wrong("plan.forms", "none".into(), "at least one form");
        }
        if !self.chooses_forms() && !matches!(self.target, Target::Ranks(_)) && forms.len() > 1 {
            let got = forms.iter().map(Form::to_string).collect::<Vec<_>>().join(", ");
            return wrong("plan.forms", got, "one form: this rule does not choose among several");
        }
        if *by != PlanBy::Errors && !self.target.is_ratio() {
            return wrong("plan.by", format!("{by:?}"), "errors: other ways are for ratios");
        }
        if *by == PlanBy::Uniform {
            if matches!(self.target, Target::LatencyRatio(_)) {
                return wrong("plan.by", "uniform".into(), "errors: time needs measured layers");
            }
            if !fix.is_empty() {
                return wrong("plan.fix", "with uniform".into(), "a plan by errors");
            }
        }
        if self.plan.never_slower && !self.chooses_forms() {
            let expected = "a ratio or an error target, by errors";
            return wrong("plan.never_slower", "true".into(), expected);
        }
        if let Some(both) = fix.iter().find(|layer| keep.contains(&layer.name)) {
            return wrong("plan.fix", both.name.clone(), "a layer that is not to stay dense");
        }
        let measures = *by == PlanBy::Sensitivity || matches!(self.target, Target::RankSums { .. });
        if measures && !data {
            return wrong("plan.by", "no data".into(), "training data to measure losses on");
        }
        self.compress.check(data)
    }

    /// Whether the plan comes from a profile of all layers, and may choose among forms.
    pub fn chooses_forms(&self) -> bool {
        (self.target.is_ratio() && self.plan.by != PlanBy::Uniform)
            || matches!(self.target, Target::ErrorTarget(_))
    }

    /// What ranks are multiples of ([`Planning::multiple`]).
    pub fn multiple(&self) -> usize {
        let macs = matches!(self.target, Target::MacsRatio(_)) && self.plan.by != PlanBy::Uniform;
        self.plan.multiple.number(self.times_layers(), macs)
    }

    /// Whether layers are timed.
    pub fn times_layers(&self) -> bool {
        self.plan.never_slower || matches!(self.target, Target::LatencyRatio(_))
    }
}

impl Target {
    /// As a budget, where it is one.
    pub fn budget(&self) -> Option<Budget> {
        match *self {
            Target::ParamsRatio(ratio) => Some(Budget::Params(ratio)),
            Target::MacsRatio(ratio) => Some(Budget::Macs(ratio)),
            Target::LatencyRatio(ratio) => Some(Budget::Latency(ratio)),
            _ => None,
        }
    }

    fn is_ratio(&self) -> bool {
        self.budget().is_some()
    }

    /// A name for files and tables: the number asked for.
    pub fn label(&self) -> String {
        match self {
            Target::ParamsRatio(x)
            | Target::MacsRatio(x)
            | Target::LatencyRatio(x)
            | Target::ErrorTarget(x)
            | Target::Energy(x)
            | Target::Evbmf(x)
            | Target::BreakevenRatio(x) => x.to_string(),
            Target::RankSums { conv, linear } => format!("{conv}-{linear}"),
            Target::Ranks(_) => "plan".into(),
        }
    }
}

impl std::str::FromStr for Recipe {
    type Err = TrainError;

    fn from_str(text: &str) -> Result<Self, TrainError> {
        toml::from_str(text)
            .map_err(|error| TrainError::Recipe { path: None, what: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_sound_and_survive_toml() {
        for preset in [Preset::Quick, Preset::Default, Preset::Best] {
            let recipe = Recipe::with_data(preset, Target::MacsRatio(0.3), Augmentation::default());
            recipe.check(true).unwrap();
            let text = toml::to_string_pretty(&recipe).unwrap();
            assert_eq!(text.parse::<Recipe>().unwrap(), recipe, "{text}");
            assert_eq!(recipe.compress.fine_tune.is_some(), preset != Preset::Quick);
        }
        let free = Recipe::data_free(Target::Ranks(RankPlan::default().with(
            "conv1",
            Form::Tucker2,
            [3, 4],
            "by hand",
        )));
        free.check(false).unwrap();
        let text = toml::to_string_pretty(&free).unwrap();
        assert_eq!(text.parse::<Recipe>().unwrap(), free, "{text}");
    }

    #[test]
    fn seeds_reach_everything_that_draws() {
        let recipe =
            Recipe::with_data(Preset::Default, Target::MacsRatio(0.3), Augmentation::default());
        let seeded = recipe.clone().seeded(7);
        let numbers = |recipe: &Recipe| {
            let compress = &recipe.compress;
            [
                recipe.plan.seed,
                compress.seed,
                compress.statistics.unwrap().seed,
                compress.fine_tune.as_ref().unwrap().seed,
            ]
        };
        assert_eq!((numbers(&recipe), numbers(&seeded)), ([0; 4], [7; 4]));
    }

    #[test]
    fn what_a_target_does_not_read_is_refused() {
        let check = |change: &dyn Fn(&mut Recipe), expected: &str| {
            let mut recipe = Recipe::data_free(Target::MacsRatio(0.3));
            change(&mut recipe);
            let error = recipe.check(false).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&|r| r.target = Target::Energy(0.9), "plan.forms = cp3, cp4, tucker2");
        check(&|r| r.target = Target::Evbmf(1.0), "plan.forms");
        check(&|r| r.plan.by = PlanBy::Uniform, "plan.forms");
        check(
            &|r| {
                r.target = Target::ErrorTarget(0.1);
                r.plan.by = PlanBy::MaxError;
            },
            "plan.by",
        );
        check(&|r| r.target = Target::MacsRatio(1.5), "target = 1.5");
        check(&|r| r.target = Target::MacsRatio(f64::NAN), "target = NaN");
        check(&|r| r.plan.points = 0, "plan.points = 0");
        check(&|r| r.plan.by = PlanBy::Sensitivity, "training data");
        check(
            &|r| {
                r.target = Target::Energy(0.9);
                r.plan.forms = vec![Form::Cp3];
                r.plan.never_slower = true;
            },
            "plan.never_slower",
        );
        check(&|r| r.timing_batches = vec![1, 0], "timing_batches = 0");
    }
}
