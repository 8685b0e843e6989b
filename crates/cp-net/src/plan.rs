//! [`RankPlan`]: which layers to factorize, into which form, at which rank, and why.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::cost::Cost;
use crate::error::NetError;
use crate::factorize::{Form, replacement};
use crate::network::Architecture;
use crate::op::Op;
use crate::weights::write_atomic;

/// The ranks for a network, as a TOML file holds them:
///
/// ```
/// let plan: cp_net::RankPlan = r#"
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
/// assert!(plan.cost(&arch, &arch.input.shape)?.total.params < arch.param_count());
/// # Ok::<(), cp_net::NetError>(())
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
    /// The rank R (of each group).
    pub rank: usize,
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
    MoreParams {
        /// The layer.
        layer: String,
        /// The rank planned.
        rank: usize,
        /// The rank at which both have the same number.
        breakeven: f64,
    },
    /// The factors need at least as many multiply-adds as the dense layer.
    MoreMacs {
        /// The layer.
        layer: String,
        /// The rank planned.
        rank: usize,
        /// The rank at which both need the same number.
        breakeven: f64,
    },
}

impl fmt::Display for PlanWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (layer, rank, breakeven, what) = match self {
            PlanWarning::MoreParams { layer, rank, breakeven } => {
                (layer, rank, breakeven, "parameters")
            }
            PlanWarning::MoreMacs { layer, rank, breakeven } => {
                (layer, rank, breakeven, "multiply-adds")
            }
        };
        write!(
            f,
            "layer '{layer}': rank {rank} is not below {breakeven:.1}, the break-even rank in {what}"
        )
    }
}

impl RankPlan {
    /// Reads a plan from a TOML file.
    ///
    /// # Errors
    /// [`NetError::Io`], or [`NetError::PlanSyntax`] with the place in the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, NetError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path)
            .map_err(|source| NetError::Io { path: path.into(), source })?;
        text.parse()
            .map_err(|error| NetError::InFile { path: path.into(), source: Box::new(error) })
    }

    /// Writes the plan as a TOML file, atomically.
    ///
    /// # Errors
    /// [`NetError::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), NetError> {
        write_atomic(path.as_ref(), self.to_toml()?.as_bytes())
    }

    /// The plan as TOML.
    ///
    /// # Errors
    /// [`NetError::PlanWrite`]; no plan is known to cause it.
    pub fn to_toml(&self) -> Result<String, NetError> {
        Ok(toml::to_string(self)?)
    }

    /// Checks that the plan can be applied to `arch`: every layer exists, is dense and has a kernel, no layer is named
    /// twice, every form fits its layer, and every rank is at least 1.
    ///
    /// # Errors
    /// The first entry that is wrong, naming the layer.
    pub fn check(&self, arch: impl AsRef<Architecture>) -> Result<(), NetError> {
        let arch = arch.as_ref();
        let mut seen = BTreeSet::new();
        for name in self
            .layers
            .iter()
            .map(|layer| &layer.name)
            .chain(self.dense.iter().map(|layer| &layer.name))
        {
            arch.node(name).map_err(|error| match error {
                // Pools and activations would only be in the way of finding the right name.
                NetError::UnknownLayer { name, .. } => {
                    NetError::UnknownLayer { name, known: arch.compressible() }
                }
                other => other,
            })?;
            if !seen.insert(name) {
                return Err(NetError::PlanDuplicate { layer: name.clone() });
            }
        }
        for PlannedLayer { name, form, rank, .. } in &self.layers {
            let op = &arch.node(name)?.op;
            if !op.has_kernel() {
                return Err(NetError::PlanLayer { layer: name.clone(), op: op.kind() });
            }
            replacement(name, op, *form, *rank)?;
        }
        Ok(())
    }

    /// What is allowed and probably not wanted: ranks at or above break-even.
    ///
    /// # Errors
    /// As [`RankPlan::check`], and where the network cannot take the input shape.
    pub fn warnings(
        &self,
        arch: impl AsRef<Architecture>,
        input: impl AsRef<[usize]>,
    ) -> Result<Vec<PlanWarning>, NetError> {
        let arch = arch.as_ref();
        self.check(arch)?;
        let input = input.as_ref();
        let mut warnings = Vec::new();
        for PlannedLayer { name, form, rank, .. } in &self.layers {
            let even = arch.breakeven(name, *form, input)?;
            let (layer, rank) = (name.clone(), *rank);
            if rank as f64 >= even.params {
                warnings.push(PlanWarning::MoreParams {
                    layer: layer.clone(),
                    rank,
                    breakeven: even.params,
                });
            }
            if rank as f64 >= even.macs {
                warnings.push(PlanWarning::MoreMacs { layer, rank, breakeven: even.macs });
            }
        }
        Ok(warnings)
    }

    /// The architecture that this plan leads to: the rewriting alone, without decomposing anything.
    ///
    /// # Errors
    /// As [`RankPlan::check`].
    pub fn preview(&self, arch: impl AsRef<Architecture>) -> Result<Architecture, NetError> {
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
        input: impl AsRef<[usize]>,
    ) -> Result<Cost, NetError> {
        self.preview(arch)?.cost(input)
    }

    /// The planned rank of `layer`, if the plan factorizes it.
    pub fn rank(&self, layer: &str) -> Option<usize> {
        self.layers.iter().find(|planned| planned.name == layer).map(|planned| planned.rank)
    }

    /// Adds a layer to factorize.
    #[must_use]
    pub fn with(mut self, name: &str, form: Form, rank: usize, why: &str) -> Self {
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
    ) -> Result<Self, NetError> {
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

impl std::str::FromStr for RankPlan {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        Ok(toml::from_str(text)?)
    }
}

impl Architecture {
    /// Names of the dense convolutions and linear layers, in the order in which they run.
    pub fn compressible(&self) -> Vec<String> {
        let parts: BTreeSet<&String> =
            self.factorized.values().flat_map(|record| &record.parts).collect();
        self.nodes
            .iter()
            .filter(|node| node.op.has_kernel() && !parts.contains(&node.name))
            .map(|node| node.name.clone())
            .collect()
    }
}

impl Op {
    /// Whether the op has a kernel that can be decomposed: convolutions and linear layers.
    pub fn has_kernel(&self) -> bool {
        matches!(self, Op::Conv(_) | Op::Linear(_))
    }
}
