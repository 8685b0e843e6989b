//! [`RankPlan`]: which layers to factorize, into which form, at which rank, and why.

pub(crate) mod allocate;
pub(crate) mod budget;
mod equal;
mod knapsack;
mod ladder;
pub(crate) mod profile;
mod rounding;
mod rules;
pub(crate) mod shares;
mod uniform;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::PlanError;

use cp_net::{
    Architecture, Cost, Form, InputShapes, NetError, Op, Rank, Totals, read_text, replacement,
    write_atomic,
};

/// The ranks for a network, as a TOML file holds them:
///
/// ```
/// let plan: cp_plan::RankPlan = r#"
///     [[layer]]
///     name = "features.3"
///     form = "cp3"
///     rank = 154
///     why = "published rank"
///
///     [[dense]]
///     name = "features.0"
///     why = "too small to gain anything"
/// "#.parse()?;
/// assert_eq!(plan.layers[0].rank, 154);
/// let arch = cp_net::arch::by_name("alexnet")?;
/// plan.check(&arch)?;
/// assert!(plan.cost(&arch, arch.input_shapes())?.total.params < arch.param_count());
/// # Ok::<(), cp_plan::PlanError>(())
/// ```
///
/// Layers that a plan does not name stay dense; `dense` entries say so on purpose.
///
/// **Grouped layers.** A rank is that of each group. Published ranks may count all groups of a layer together: the
/// 154 that Astrid & Lee give for conv2 of the grouped AlexNet is 77 for each of its two groups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RankPlan {
    /// The layers to factorize.
    #[serde(default, rename = "layer")]
    pub layers: Vec<PlannedLayer>,
    /// Layers that stay dense on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dense: Vec<DenseLayer>,
}

/// One layer to factorize.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedLayer {
    /// Name of the dense layer.
    pub name: String,
    /// The form to give it.
    pub form: Form,
    /// The rank (of each group).
    pub rank: Rank,
    /// Why this rank.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// One layer left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenseLayer {
    /// Name of the layer.
    pub name: String,
    /// Why it stays dense.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// Something in a plan that is allowed and probably not wanted.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub enum PlanWarning {
    /// The factors have at least as many parameters as the dense layer.
    MoreParams(PlannedCost),
    /// The factors need at least as many multiply-adds as the dense layer.
    MoreMacs(PlannedCost),
}

/// A planned layer that costs no less than the dense one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlannedCost {
    /// The layer.
    pub layer: String,
    /// The rank planned.
    pub rank: Rank,
    /// The rank at which both cost the same, for forms with one number.
    pub breakeven: Option<f64>,
    /// What the factors cost, biases left out.
    pub factors: usize,
    /// What the dense layer costs, biases left out.
    pub dense: usize,
}

impl fmt::Display for PlanWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (PlannedCost { layer, rank, breakeven, factors, dense }, what) = match self {
            PlanWarning::MoreParams(cost) => (cost, "parameters"),
            PlanWarning::MoreMacs(cost) => (cost, "multiply-adds"),
        };
        match breakeven {
            Some(breakeven) => write!(
                f,
                "layer '{layer}': rank {rank} is not below {breakeven:.1}, the break-even rank in {what}"
            ),
            None => write!(
                f,
                "layer '{layer}': rank {rank} needs {factors} {what}, not fewer than the dense layer's {dense}"
            ),
        }
    }
}

impl RankPlan {
    /// Reads a plan from a TOML file.
    ///
    /// # Errors
    /// [`PlanError::Net`] for a file that cannot be read or is of another kind, or [`PlanError::PlanSyntax`] with the place in the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, PlanError> {
        let path = path.as_ref();
        let text = read_text(path, "a plan as TOML", "`polyad compress --help` shows one")?;
        text.parse()
            .map_err(|error| PlanError::InFile { path: path.into(), source: Box::new(error) })
    }

    /// Writes the plan as a TOML file, atomically.
    ///
    /// # Errors
    /// [`PlanError::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), PlanError> {
        let path = path.as_ref();
        write_atomic(path, self.to_toml()?.as_bytes())
            .map_err(|source| PlanError::Io { path: path.into(), source })
    }

    /// The plan as TOML.
    ///
    /// # Errors
    /// [`PlanError::PlanWrite`]; no plan is known to cause it.
    pub fn to_toml(&self) -> Result<String, PlanError> {
        Ok(toml::to_string(self)?)
    }

    /// Checks that the plan can be applied to `arch`: every layer exists, is dense and has a kernel, no kernel is named
    /// twice (layers that share one are factorized together), every form fits its layer, and every rank is at least 1.
    ///
    /// # Errors
    /// The first entry that is wrong, naming the layer.
    pub fn check(&self, arch: impl AsRef<Architecture>) -> Result<(), PlanError> {
        let arch = arch.as_ref();
        let mut seen = BTreeSet::new();
        for name in self
            .layers
            .iter()
            .map(|layer| &layer.name)
            .chain(self.dense.iter().map(|layer| &layer.name))
        {
            plannable(arch, name)?;
            if !seen.insert(arch.layer_of(arch.node(name)?)) {
                return Err(PlanError::PlanDuplicate { layer: name.clone() });
            }
        }
        for PlannedLayer { name, form, rank, .. } in &self.layers {
            let op = &arch.node(name)?.op;
            if !op.has_kernel() {
                return Err(PlanError::PlanLayer { layer: name.clone(), op: op.kind() });
            }
            replacement(name, op, *form, *rank)?;
        }
        Ok(())
    }

    /// What is allowed and probably not wanted: factors that cost no less than the dense layer.
    ///
    /// # Errors
    /// As [`RankPlan::check`], and where the network cannot take the input shape.
    pub fn warnings(
        &self,
        arch: impl AsRef<Architecture>,
        input: impl InputShapes,
    ) -> Result<Vec<PlanWarning>, PlanError> {
        let arch = arch.as_ref();
        self.check(arch)?;
        let mut warnings = Vec::new();
        let shapes = arch.shapes(&input)?;
        for PlannedLayer { name, form, rank, .. } in &self.layers {
            let dense = arch.dense_cost(name, &shapes)?;
            let factors = arch.factors_cost(name, *form, *rank, &shapes)?;
            let even = match rank {
                Rank::One(_) => Some(arch.breakeven(name, *form, &input)?),
                _ => None,
            };
            let cost = |of: fn(&Totals) -> usize, breakeven| PlannedCost {
                layer: name.clone(),
                rank: *rank,
                breakeven,
                factors: of(&factors),
                dense: of(&dense),
            };
            if factors.params >= dense.params {
                let cost = cost(|totals| totals.params, even.map(|even| even.params));
                warnings.push(PlanWarning::MoreParams(cost));
            }
            if factors.macs >= dense.macs {
                let cost = cost(|totals| totals.macs, even.map(|even| even.macs));
                warnings.push(PlanWarning::MoreMacs(cost));
            }
        }
        Ok(warnings)
    }

    /// The architecture that this plan leads to: the rewriting alone, without decomposing anything.
    ///
    /// # Errors
    /// As [`RankPlan::check`].
    pub fn preview(&self, arch: impl AsRef<Architecture>) -> Result<Architecture, PlanError> {
        let mut arch = arch.as_ref().clone();
        self.check(&arch)?;
        for PlannedLayer { name, form, rank, .. } in &self.layers {
            arch.factorize(name, *form, *rank)?;
        }
        Ok(arch)
    }

    /// What the network will cost once this plan is applied.
    ///
    /// # Errors
    /// As [`RankPlan::check`], and where the network cannot take the input shape.
    pub fn cost(
        &self,
        arch: impl AsRef<Architecture>,
        input: impl InputShapes,
    ) -> Result<Cost, PlanError> {
        Ok(self.preview(arch)?.cost(input)?)
    }

    /// The planned rank of `layer`, if the plan factorizes it.
    pub fn rank(&self, layer: &str) -> Option<Rank> {
        self.layers.iter().find(|planned| planned.name == layer).map(|planned| planned.rank)
    }

    /// Adds a layer to factorize.
    #[must_use]
    pub fn with(mut self, name: &str, form: Form, rank: impl Into<Rank>, why: &str) -> Self {
        let rank = rank.into();
        self.layers.push(PlannedLayer { name: name.into(), form, rank, why: why.into() });
        self
    }

    /// Ranks by layer, in the order of the plan, with the form that `form` becomes on each layer (linear layers and 1×1
    /// convolutions become low-rank).
    ///
    /// # Errors
    /// As [`RankPlan::check`].
    pub fn from_ranks<'a>(
        arch: impl AsRef<Architecture>,
        form: Form,
        ranks: impl IntoIterator<Item = (&'a str, usize)>,
        why: &str,
    ) -> Result<Self, PlanError> {
        let arch = arch.as_ref();
        let mut plan = Self::default();
        for (name, rank) in ranks {
            let suited = match arch.node(name) {
                Ok(node) => form.suited_to(&node.op).unwrap_or(form),
                Err(_) => form, // `check` says it better
            };
            plan = plan.with(name, suited, rank, why);
        }
        plan.check(arch)?;
        Ok(plan)
    }
}

/// The op of the layer `name`; an unknown name is answered with those that a plan can name, for pools and activations would only
/// be in the way of finding the right one.
fn plannable<'a>(arch: &'a Architecture, name: &str) -> Result<&'a Op, PlanError> {
    match arch.node(name) {
        Ok(node) => Ok(&node.op),
        Err(NetError::UnknownLayer { name, .. }) => {
            Err(NetError::UnknownLayer { name, known: arch.compressible() }.into())
        }
        Err(other) => Err(other.into()),
    }
}

impl std::str::FromStr for RankPlan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        Ok(toml::from_str(text)?)
    }
}
