//! Ranks as multiples of a number: [`RankPlan::rounded`].

use cp_net::{Architecture, Rank};

use super::RankPlan;
use super::ladder::Ladder;
use crate::error::PlanError;

impl RankPlan {
    /// The plan with every number of every rank at a multiple of `multiple`, as kernels of linear algebra like them.
    ///
    /// Each number goes to the nearest multiple, and to one at least, where the layer has that many channels. A layer that
    /// has fewer parameters (or multiply-adds, for the network's own input) than dense keeps fewer: where the nearest
    /// multiples are too large, all numbers go down, and those that are below the first multiple stay as they are. Rounding
    /// again changes nothing. The reason of a changed rank says what it was.
    ///
    /// A plan for a budget may end a little above it, or below. [`ProfileOptions::multiple_of`](crate::ProfileOptions::multiple_of) keeps
    /// budgets and multiples at once.
    ///
    /// # Errors
    /// As [`RankPlan::check`]; a multiple of 0.
    ///
    /// ```
    /// use cp_net::{Form, arch};
    /// use cp_plan::RankPlan;
    ///
    /// let arch = arch::by_name("small-cnn")?;
    /// let plan = RankPlan::default().with("conv2", Form::Tucker2, [21, 10], "by hand").rounded(&arch, 8)?;
    /// assert_eq!(plan.rank("conv2"), Some([24, 8].into()));
    /// assert_eq!(plan.layers[0].why, "by hand; 21x10 to multiples of 8");
    /// # Ok::<(), cp_plan::PlanError>(())
    /// ```
    pub fn rounded(
        mut self,
        arch: impl AsRef<Architecture>,
        multiple: usize,
    ) -> Result<Self, PlanError> {
        let arch = arch.as_ref();
        self.check(arch)?;
        if multiple == 0 {
            let (option, expected) = ("multiple", "at least 1");
            return Err(PlanError::PlanOption { option, got: 0.0, expected });
        }
        let shapes = arch.shapes(arch.input_shapes())?;
        for layer in &mut self.layers {
            let Some(ladder) = Ladder::new(arch, &layer.name, layer.form, &shapes)? else {
                continue;
            };
            let multiple = Ladder::multiple(layer.form, multiple);
            if multiple == 1 {
                continue;
            }
            let mut rank = layer.rank;
            // Once a number is at its multiple it stays; those that had to stay below may find room then.
            loop {
                let next = round(&ladder, rank, multiple)?;
                if next == rank {
                    break;
                }
                rank = next;
            }
            if rank != layer.rank {
                let between = if layer.why.is_empty() { "" } else { "; " };
                layer.why += &format!("{between}{} to multiples of {multiple}", layer.rank);
                layer.rank = rank;
            }
        }
        Ok(self)
    }
}

/// All numbers at their nearest multiples, or where that is too large at those below.
fn round(ladder: &Ladder<'_>, rank: Rank, multiple: usize) -> Result<Rank, PlanError> {
    let (dense, before) = (ladder.dense, ladder.cost(rank)?);
    let nearest = each(rank, |mode, number| match ladder.limit(mode) / multiple * multiple {
        0 => number,
        last => ((number + multiple / 2) / multiple * multiple).clamp(multiple, last),
    });
    let will_do = ladder.cost(nearest).is_ok_and(|cost| {
        (cost.params < dense.params || before.params >= dense.params)
            && (cost.macs < dense.macs || before.macs >= dense.macs)
            && (ladder.holds(nearest) || !ladder.holds(rank))
    });
    Ok(if will_do {
        nearest
    } else {
        let down = |number: usize| number / multiple * multiple;
        each(rank, |_, number| if number < multiple { number } else { down(number) })
    })
}

/// Each number of a rank, with its place, as another.
fn each(rank: Rank, to: impl Fn(usize, usize) -> usize) -> Rank {
    match rank {
        Rank::One(rank) => Rank::One(to(0, rank)),
        Rank::Two([out, input]) => Rank::Two([to(0, out), to(1, input)]),
        Rank::Three([out, input, rank]) => Rank::Three([to(0, out), to(1, input), to(2, rank)]),
        Rank::Four([a, b, c, d]) => Rank::Four([to(0, a), to(1, b), to(2, c), to(3, d)]),
    }
}
