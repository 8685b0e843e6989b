//! Ranks for a backbone: by the published rule, by the late-heavy rule, and by our recipe, all at the size that the published rule gives.

use anyhow::{Context as _, Result};
use cp_net::{Architecture, Form};
use cp_plan::RankPlan;
use cp_train::{Augmentation, CompressConfig, Preset, Recipe, StatisticsOptions, Target};
use serde::{Deserialize, Serialize};

use super::settings::Settings;

/// The form of the published study: 1×1, k×1, 1×k, 1×1.
const PUBLISHED_FORM: Form = Form::Cp4;

/// Rank / break-even rank of the first layer by the late-heavy rule: near full rank.
const NEAR_FULL: f64 = 0.95;

/// How a backbone comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rule {
    /// Nothing is decomposed.
    Dense,
    /// The published protocol: the published ranks, plain ALS.
    Published,
    /// The published ranks, decomposed as we do it.
    PublishedRanks,
    /// [`late_heavy`] ranks, decomposed as we do it.
    LateHeavy,
    /// Our plan.
    Ours,
}

impl Rule {
    /// The compressed ones, in the order of the tables.
    pub(super) const COMPRESSED: [Self; 4] =
        [Self::Published, Self::PublishedRanks, Self::LateHeavy, Self::Ours];

    /// For folders, stages and messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Published => "published",
            Self::PublishedRanks => "published-ranks",
            Self::LateHeavy => "late-heavy",
            Self::Ours => "ours",
        }
    }

    /// For sentences.
    pub(super) fn phrase(self) -> &'static str {
        match self {
            Self::Dense => "the dense backbone",
            Self::Published => "the published protocol",
            Self::PublishedRanks => "the sound protocol with the published ranks",
            Self::LateHeavy => "the sound protocol with late-heavy ranks",
            Self::Ours => "the sound protocol with our plan",
        }
    }

    /// For tables and plots.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Dense => "dense",
            Self::Published => "published protocol",
            Self::PublishedRanks => "sound, published ranks",
            Self::LateHeavy => "sound, late-heavy",
            Self::Ours => "sound, ours",
        }
    }
}

/// Parameters without the head's: what all plans are compared at.
pub(super) fn backbone_params(arch: &Architecture) -> Result<usize> {
    let cost = arch.cost(arch.input_shapes())?;
    let head = arch.head_name()?;
    let head = cost.layer(&head).with_context(|| format!("{head} has no cost"))?;
    Ok(cost.total.params - head.cost.params)
}

/// The published rule: CP-4 at rank ⌊ratio · ⌊E⌋⌋ for every convolution with a spatial extent, where E = kh·kw·S·T / (S + kh + kw + T) is the
/// break-even rank in parameters of the kernel alone; 1×1 convolutions stay dense.
///
/// E is the workspace's own break-even rank of that form. What is the study's own is that E is rounded down *before* the ratio is taken, and
/// that the form is CP-4 whatever our plans choose. Where the study has ranks of 0, the rank is 1.
pub(super) fn published(arch: &Architecture, ratio: f64) -> Result<RankPlan> {
    Ok(RankPlan::at_breakeven_ratio(arch, PUBLISHED_FORM, ratio)?)
}

/// The late-heavy rule: early layers near full rank, late ones squeezed. The ratio of rank to break-even rank falls geometrically with depth,
///
/// rᵢ = 0.95 · q^(i / (L − 1)) for the layers i = 0 … L − 1 of the published rule, in the order in which they run,
///
/// with the largest q ≤ 1 at which the backbone has at most `size` parameters; ranks are ⌊rᵢ · ⌊Eᵢ⌋⌋, and at least 1, in the form of the
/// published rule. `None` where the first layer near full rank leaves too little for rank 1 in the others.
///
/// The study states the idea and no formula: the geometric fall is the one-parameter family taken here.
pub(super) fn late_heavy(arch: &Architecture, size: usize) -> Result<Option<RankPlan>> {
    let full = published(arch, 1.0)?;
    let last = full.layers.len().saturating_sub(1).max(1) as f64;
    let at = |q: f64| {
        let mut plan = full.clone();
        for (depth, layer) in plan.layers.iter_mut().enumerate() {
            let even = layer.rank.one().unwrap_or(1);
            let ratio = NEAR_FULL * q.powf(depth as f64 / last);
            layer.rank = ((ratio * even as f64).floor() as usize).max(1).into();
            layer.why = format!("{ratio:.4} of break-even {even}");
        }
        plan
    };
    let fits =
        |plan: &RankPlan| -> Result<bool> { Ok(backbone_params(&plan.preview(arch)?)? <= size) };
    if !fits(&at(0.0))? {
        return Ok(None);
    }
    if fits(&at(1.0))? {
        return Ok(Some(at(1.0)));
    }
    // The size is a step function of q that never falls; small q matter most, so halves are taken of the logarithm.
    let (mut low, mut high) = (-64.0_f64, 0.0_f64);
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        if fits(&at(middle.exp2()))? { low = middle } else { high = middle }
    }
    let plan = at(low.exp2());
    Ok(Some(if fits(&plan)? { plan } else { at(0.0) }))
}

/// The published protocol's decomposition: ALS of the kernels alone, from a random start, nothing repaired.
pub(super) fn published_recipe(settings: &Settings, plan: RankPlan, seed: u64) -> Recipe {
    Recipe {
        target: Target::Ranks(plan),
        compress: CompressConfig {
            max_iters: settings.decompose.published_sweeps,
            max_energy: None,
            calibrate: 0,
            seed,
            ..CompressConfig::default()
        },
        ..Recipe::default()
    }
}

/// Our recipe up to the fine-tuning, which is the training on the target: ALS-Σ for the inputs that layers get on training images of the
/// target, batch normalizations measured on these anew, and ranks of a given plan, or chosen by errors for a `target`.
pub(super) fn our_recipe(
    settings: &Settings,
    target: Target,
    keep: Vec<String>,
    seed: u64,
) -> Recipe {
    let decompose = &settings.decompose;
    let mut recipe = Recipe::with_data(Preset::Quick, target, Augmentation::default()).seeded(seed);
    recipe.timing_batches.clear();
    recipe.plan.points = decompose.points;
    recipe.plan.max_iters = decompose.point_sweeps;
    recipe.plan.keep = keep;
    recipe.compress.max_iters = decompose.sweeps;
    recipe.compress.calibrate = decompose.calibrate;
    let images = decompose.statistics;
    recipe.compress.statistics =
        (images > 0).then_some(StatisticsOptions { images, seed, ..StatisticsOptions::default() });
    recipe
}

#[cfg(test)]
mod tests {
    use cp_net::arch;

    use super::*;

    /// Ratios and parameters of the backbone as published, without `fc`.
    const SIZES: [(f64, usize); 12] = [
        (0.01, 286_723),
        (0.03, 507_283),
        (0.05, 727_115),
        (0.1, 1_278_447),
        (0.2, 2_377_823),
        (0.3, 3_476_966),
        (0.4, 4_576_342),
        (0.5, 5_676_940),
        (0.6, 6_774_291),
        (0.7, 7_873_131),
        (0.8, 8_972_810),
        (0.9, 10_071_650),
    ];

    fn size(arch: &Architecture, plan: &RankPlan) -> usize {
        backbone_params(&plan.preview(arch).unwrap()).unwrap()
    }

    #[test]
    fn resnet18_has_the_published_sizes() {
        let arch = arch::by_name("resnet18").unwrap();
        assert_eq!(backbone_params(&arch).unwrap(), 11_176_512);
        for (ratio, expected) in SIZES {
            assert_eq!(size(&arch, &published(&arch, ratio).unwrap()), expected, "ratio {ratio}");
        }
        // The classes are no part of the backbone.
        let ten = arch.with_classes(10).unwrap();
        assert_eq!(size(&ten, &published(&ten, 0.1).unwrap()), 1_278_447);
    }

    #[test]
    fn late_heavy_plans_fall_with_depth_at_the_published_size() {
        for name in ["resnet18", "squeezenet1_1", "googlenet"] {
            let arch = arch::by_name(name).unwrap();
            let full = published(&arch, 1.0).unwrap();
            for (ratio, _) in SIZES {
                let asked = size(&arch, &published(&arch, ratio).unwrap());
                let plan = late_heavy(&arch, asked).unwrap().unwrap();
                let found = size(&arch, &plan);
                assert!(found <= asked, "{name} at {ratio}: {found} > {asked}");
                assert!(found as f64 > 0.97 * asked as f64, "{name} at {ratio}: {found}, {asked}");
                let of = |at: usize, plan: &RankPlan| plan.layers[at].rank.one().unwrap() as f64;
                let share = |at: usize| of(at, &plan) / of(at, &full);
                let last = plan.layers.len() - 1;
                assert!(share(0) > 0.9, "{name} at {ratio}");
                assert!(ratio >= 0.9 || share(last) < ratio, "{name} at {ratio}: {}", share(last));
            }
            assert_eq!(late_heavy(&arch, 0).unwrap(), None);
        }
    }
}
