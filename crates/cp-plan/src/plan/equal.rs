//! Plans of another form at equal cost: [`RankPlan::at_equal_macs`].

use cp_net::{Architecture, Form, InputShapes, replacement};

use super::ladder::Ladder;
use super::{PlannedLayer, RankPlan};
use crate::error::PlanError;

impl RankPlan {
    /// This plan with every layer in `form`, at the largest rank that needs no more multiply-adds than the layer does as planned here:
    /// forms compared layer by layer at equal cost. Nothing is decomposed.
    ///
    /// Forms of several numbers go up in proportion to the channels, as in a [`Profile`](crate::Profile). Layers that stay dense do so
    /// in both plans.
    ///
    /// # Shapes
    /// `input`: `[C, H, W]`, without the batch axis.
    ///
    /// # Errors
    /// As [`RankPlan::check`]; [`NetError::FormMismatch`](cp_net::NetError::FormMismatch) for a layer that `form` does not fit, and
    /// [`PlanError::BudgetUnreachable`] for one that it makes dearer at its smallest rank, with the ratios of that layer.
    ///
    /// ```
    /// use cp_net::{Form, arch};
    /// use cp_plan::RankPlan;
    ///
    /// let arch = arch::by_name("small-cnn")?;
    /// let plan = RankPlan::default().with("conv2", Form::Cp3, 30, "by hand");
    /// let other = plan.at_equal_macs(&arch, arch.input_shapes(), Form::Tucker2)?;
    /// let macs = |plan: &RankPlan| plan.cost(&arch, arch.input_shapes()).map(|cost| cost.total.macs);
    /// assert!(macs(&other)? <= macs(&plan)?);
    /// # Ok::<(), cp_plan::PlanError>(())
    /// ```
    pub fn at_equal_macs(
        &self,
        arch: impl AsRef<Architecture>,
        input: impl InputShapes,
        form: Form,
    ) -> Result<Self, PlanError> {
        let arch = arch.as_ref();
        self.check(arch)?;
        let shapes = arch.shapes(&input)?;
        let mut layers = Vec::with_capacity(self.layers.len());
        for planned in &self.layers {
            let name = &planned.name;
            let most = arch.factors_cost(name, planned.form, planned.rank, &shapes)?.macs;
            // Says what does not fit, where there is no ladder.
            replacement(name, &arch.node(name)?.op, form, form.least_rank())?;
            let Some(ladder) = Ladder::new(arch, name, form, &shapes)? else { continue };
            let step = ladder.last(|cost| cost.macs <= most)?;
            if step == 0 {
                let share = |macs: usize| macs as f64 / ladder.dense.macs as f64;
                return Err(PlanError::BudgetUnreachable {
                    quantity: "multiply-adds",
                    asked: share(most),
                    nearest: share(ladder.cost(ladder.rank(1))?.macs),
                });
            }
            layers.push(PlannedLayer {
                name: name.clone(),
                form,
                rank: ladder.rank(step),
                why: format!("the multiply-adds of {} at rank {}", planned.form, planned.rank),
            });
        }
        Ok(Self { layers, dense: self.dense.clone() })
    }
}
