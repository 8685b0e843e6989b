//! Ranks by a rule for each layer by itself: an error, a share of the energy, or what stands out of the noise.

use cp_core::rank::{cp_rank_by_evbmf, evbmf, rank_for_energy, rank_for_error, tucker2_ranks};
use cp_core::{CpError, Tucker2, TuckerSolver};
use cp_net::{Form, Network, Rank};
use ndarray::{CowArray, IxDyn};
use rayon::prelude::*;

use super::ladder::Ladder;
use super::profile::{CpPath, Errors, Kernels, Pairs, check_finite, decomposed, tails};
use super::{DenseLayer, PlannedLayer, RankPlan};
use crate::decompose::{Decomposer, LayerStatistics, in_parts};
use crate::error::PlanError;

/// What a rule says of a layer: a rank and why, or why it stays dense.
type Verdict = Result<(Rank, String), String>;

impl RankPlan {
    /// The smallest rank of each layer whose relative error is at most `target`.
    ///
    /// - **CP-3, CP-4**: [`rank_for_error`] (1, 2, 4, … until the target is reached, then the gap is halved), each rank from the model
    ///   of a lower one. [`compress`](crate::compress) starts from random factors: with few sweeps it may end above the target.
    ///   Where `decomposer` has statistics of the layer's inputs, the weighted error counts.
    /// - **low-rank**: the singular values that are left over; with statistics the weighted error of the pairs.
    /// - **Tucker-2**: as the higher-order SVD chooses: the unfoldings of output and input channels may each drop singular values
    ///   with half of the squares that the target allows. The error is then at most the target, and mostly below it. Of the kernel,
    ///   statistics or not.
    /// - **TKD-CPD**: \[R_out, R_in\] as Tucker-2 for target / √2, then R as CP of the core for what the target leaves.
    /// - Jaderberg's forms, the decoupled one and Denton's: by decompositions, the gap halved; of Denton's, clusters stay as they are.
    ///
    /// Convolutions with a spatial extent take `form`, linear layers and 1×1 convolutions become low-rank. One rank serves all
    /// groups of a layer. A layer that no rank with fewer parameters brings to the target stays dense, and the plan says why.
    ///
    /// # Errors
    /// A target that is negative or NaN; [`NetError::NotFinite`](cp_net::NetError::NotFinite) for NaN or infinity in a kernel; [`PlanError::Decompose`] where a solver
    /// gives up.
    ///
    /// ```
    /// use cp_net::{Form, arch};
    /// use cp_plan::{Decomposer, RankPlan};
    ///
    /// let net = arch::by_name("small-cnn")?.initialize(1)?;
    /// let plan = RankPlan::by_error(&net, Form::Tucker2, 0.9, &Decomposer::als(10, 2))?;
    /// assert!(plan.rank("conv2").is_some());
    /// # Ok::<(), cp_plan::PlanError>(())
    /// ```
    ///
    /// Reference: for Tucker-2 De Lathauwer, De Moor & Vandewalle (2000), "A multilinear singular value decomposition", property 10.
    pub fn by_error(
        net: &Network,
        form: Form,
        target: f64,
        decomposer: &Decomposer,
    ) -> Result<Self, PlanError> {
        if target.is_nan() || target < 0.0 {
            let expected = "a number, at least 0";
            return Err(PlanError::PlanOption { option: "target", got: target, expected });
        }
        by_rule(net, form, |ladder, kernels, most| match ladder.form {
            Form::LowRank => low_rank_by_error(ladder, kernels, most, target, decomposer),
            Form::Tucker2 => {
                let rank = outer_by_error(ladder, kernels, target)?;
                let rank = ladder.of_outer(rank).unwrap_or_else(|| ladder.form.least_rank());
                Ok(Ok((rank, format!("error at most {target}"))))
            }
            Form::TkdCpd => tkd_cpd_by_error(ladder, kernels, target, decomposer),
            form if in_parts(form) => parts_by_error(ladder, kernels, most, target, decomposer),
            _ => cp_by_error(ladder, kernels, most, target, decomposer),
        })
    }

    /// The ranks whose singular values hold `share` of the energy, Σ s² ([`rank_for_energy`]).
    ///
    /// Low-rank layers by their own singular values; Tucker-2 by those of the unfoldings of output and input channels; a CP form
    /// takes the larger of these two, which is a lower bound in spirit: a CP model needs at least as many terms as an
    /// unfolding has directions, and for the error that Tucker-2 has it needs more. TKD-CPD takes the ranks of Tucker-2, and the
    /// larger for its core.
    ///
    /// Forms, groups (the largest rank of any) and layers that stay dense as for [`RankPlan::by_error`].
    ///
    /// # Errors
    /// A share outside 0…1; [`NetError::NotFinite`](cp_net::NetError::NotFinite) for NaN or infinity in a kernel.
    ///
    /// Reference: Liebenwein et al. (2021), arXiv 2107.11442, compares with plans of this kind ("SVD-Energy").
    pub fn by_energy(net: &Network, form: Form, share: f64) -> Result<Self, PlanError> {
        if !(0.0..=1.0).contains(&share) {
            let expected = "a number from 0 to 1";
            return Err(PlanError::PlanOption { option: "share", got: share, expected });
        }
        refuse_parts("the energy of singular values", form)?;
        by_rule(net, form, |ladder, kernels, _| {
            let of_mode = |mode| {
                let groups = tails(kernels, mode)?.groups;
                let ranks = groups.iter().map(|values| rank_for_energy(values, share));
                ranks.collect::<Result<Vec<_>, _>>().map(largest)
            };
            let outer = match ladder.form {
                Form::LowRank => [of_mode(0)?; 2],
                _ => [of_mode(0)?, of_mode(1)?],
            };
            Ok(Ok((of_two(ladder, outer), format!("{share} of the energy"))))
        })
    }

    /// The ranks that stand out of the noise, weakened: R = R₀ − w (R₀ − R_VBMF), rounded, and at least 1.
    ///
    /// R_VBMF is that of empirical variational Bayes matrix factorization: [`evbmf`] of a low-rank layer, [`tucker2_ranks`] for
    /// Tucker-2, the larger of these for a CP form ([`cp_rank_by_evbmf`]) and for the core of TKD-CPD. R₀ is the full rank:
    /// of a matrix its smaller side, of Tucker-2 those of the unfoldings, of a CP form the larger of these. With `weaken`, w, of 1 R is
    /// R_VBMF; MUSCO takes 0.8, fine-tunes, and compresses again.
    ///
    /// Forms, groups (the largest rank of any) and layers that stay dense as for [`RankPlan::by_error`]. A layer that is factorized
    /// already is left alone: [`Network::densify`] it for a second round.
    ///
    /// # Errors
    /// `weaken` outside 0…1; [`NetError::NotFinite`](cp_net::NetError::NotFinite) for NaN or infinity in a kernel.
    ///
    /// Reference: Nakajima, Sugiyama, Babacan & Tomioka (2013), JMLR 14 (EVBMF); Kim et al. (2016), arXiv 1511.06530, §3.2 (for
    /// Tucker-2); Gusak et al. (2019), arXiv 1903.09973 (MUSCO, the weakened rank).
    pub fn by_evbmf(net: &Network, form: Form, weaken: f64) -> Result<Self, PlanError> {
        if !(0.0..=1.0).contains(&weaken) {
            let expected = "a number from 0 to 1";
            return Err(PlanError::PlanOption { option: "weaken", got: weaken, expected });
        }
        refuse_parts("EVBMF", form)?;
        by_rule(net, form, |ladder, kernels, _| {
            let of_group = |kernel: &CowArray<'_, f32, IxDyn>| match ladder.form {
                Form::LowRank => {
                    let matrix = cp_core::unfold(kernel.view(), 0);
                    Ok([evbmf(matrix.view(), None)?.rank.max(1); 2])
                }
                Form::Tucker2 | Form::TkdCpd => tucker2_ranks(kernel.view()),
                _ => Ok([cp_rank_by_evbmf(kernel.view())?; 2]),
            };
            let groups = kernels.iter().map(of_group).collect::<Result<Vec<_>, CpError>>()?;
            let found = [0, 1].map(|mode| largest(groups.iter().map(|rank| rank[mode])));
            let full = match ladder.form {
                Form::LowRank => [ladder.len(); 2],
                Form::Tucker2 | Form::TkdCpd => ladder.full(),
                _ => [largest(ladder.full()); 2],
            };
            let weakened = [0, 1].map(|mode| {
                let (full, found) = (full[mode] as f64, found[mode] as f64);
                ((full - weaken * (full - found)).round() as usize).max(1)
            });
            let (found, full) = (of_two(ladder, found), of_two(ladder, full));
            let why = if found == of_two(ladder, weakened) {
                format!("EVBMF finds R={found}")
            } else {
                format!("EVBMF finds R={found}, weakened to {weaken} of the way from {full}")
            };
            Ok(Ok((of_two(ladder, weakened), why)))
        })
    }
}

/// Asks the rule for every dense layer, in parallel. It is told the last step of the ladder with fewer parameters than dense.
fn by_rule(
    net: &Network,
    form: Form,
    rule: impl Fn(&Ladder<'_>, &Kernels<'_>, usize) -> Result<Verdict, CpError> + Sync,
) -> Result<RankPlan, PlanError> {
    let arch = net.architecture();
    let shapes = arch.shapes(arch.input_shapes())?;
    let names = arch.compressible();
    for layer in &names {
        check_finite(net, layer)?;
    }
    let verdict = |layer: &String| -> Result<(Form, Verdict), PlanError> {
        let op = &arch.node(layer)?.op;
        let suited = form.suited_to(op);
        let ladder = match suited {
            Some(form) => Ladder::new(arch, layer, form, &shapes)?,
            None => None,
        };
        let Some(ladder) = ladder else {
            return Ok((form, Err(format!("a {form} form does not fit it"))));
        };
        let form = ladder.form;
        let most = ladder.last(|cost| cost.params < ladder.dense.params)?;
        if most == 0 {
            return Ok((form, Err("no rank makes it smaller".into())));
        }
        let kernels = net.tensors(layer, form)?;
        let found = rule(&ladder, &kernels, most)
            .map_err(|source| PlanError::Decompose { layer: layer.clone(), source })?;
        Ok(match found {
            Ok((rank, why)) if ladder.cost(rank)?.params >= ladder.dense.params => {
                (form, Err(format!("no smaller than dense at R={rank} ({why})")))
            }
            found => (form, found),
        })
    };
    // Collected before looking for errors, so that the first layer's is reported, whichever thread was faster.
    let found: Vec<Result<(Form, Verdict), PlanError>> = names.par_iter().map(verdict).collect();
    let mut plan = RankPlan::default();
    for (name, found) in names.into_iter().zip(found) {
        match found? {
            (form, Ok((rank, why))) => plan.layers.push(PlannedLayer { name, form, rank, why }),
            (_, Err(why)) => plan.dense.push(DenseLayer { name, why }),
        }
    }
    Ok(plan)
}

fn largest(ranks: impl IntoIterator<Item = usize>) -> usize {
    ranks.into_iter().max().unwrap_or(1)
}

/// The rank of any form from the ranks of the two unfoldings: both, or the larger.
fn of_two(ladder: &Ladder<'_>, outer: [usize; 2]) -> Rank {
    ladder.of_outer(outer).unwrap_or_else(|| Rank::One(largest(outer)))
}

fn reached(error: f64) -> String {
    format!("error {error:.3}")
}

fn missed(error: f64, target: f64, most: Rank) -> String {
    format!(
        "error {error:.3} at R={most}, the largest rank that makes it smaller; {target} asked for"
    )
}

fn cp_by_error(
    ladder: &Ladder<'_>,
    kernels: &Kernels<'_>,
    most: usize,
    target: f64,
    decomposer: &Decomposer,
) -> Result<Verdict, CpError> {
    let mut path = CpPath::new(ladder.layer, kernels, decomposer);
    let found = rank_for_error(target, most, |rank| {
        let (errors, mut found) = path.at(rank)?;
        found.rel_error = errors.counted(); // of all groups
        Ok(found)
    })?;
    let error = found.best.rel_error;
    Ok(if found.reached {
        Ok((Rank::One(found.rank()), reached(error)))
    } else {
        Err(missed(error, target, Rank::One(most)))
    })
}

fn low_rank_by_error(
    ladder: &Ladder<'_>,
    kernels: &Kernels<'_>,
    most: usize,
    target: f64,
    decomposer: &Decomposer,
) -> Result<Verdict, CpError> {
    let pairs = Pairs::new(ladder.layer, kernels, decomposer)?;
    let error = |rank: usize| pairs.errors(rank).counted();
    let last = error(most);
    if last > target {
        return Ok(Err(missed(last, target, Rank::One(most))));
    }
    // Errors of the best pairs never rise with the rank.
    let (mut low, mut high, mut least) = (1, most, last);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = error(middle);
        if found <= target {
            (high, least) = (middle, found);
        } else {
            low = middle + 1;
        }
    }
    Ok(Ok((Rank::One(high), reached(least))))
}

/// Rules that look at unfoldings say nothing of forms that are no models of these.
fn refuse_parts(rule: &'static str, form: Form) -> Result<(), PlanError> {
    if in_parts(form) { Err(PlanError::RuleForm { rule, form }) } else { Ok(()) }
}

/// The least rank at which the parts are near enough; errors never rise with it but by the luck of a CP start.
fn parts_by_error(
    ladder: &Ladder<'_>,
    kernels: &Kernels<'_>,
    most: usize,
    target: f64,
    decomposer: &Decomposer,
) -> Result<Verdict, CpError> {
    let error = |step: usize| {
        let rank = ladder.rank(step);
        Ok::<_, CpError>(
            decomposed(ladder.layer, kernels, ladder.form, rank, decomposer)?.counted(),
        )
    };
    let last = error(most)?;
    if last > target {
        return Ok(Err(missed(last, target, ladder.rank(most))));
    }
    let (mut low, mut high, mut least) = (1, most, last);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = error(middle)?;
        if found <= target {
            (high, least) = (middle, found);
        } else {
            low = middle + 1;
        }
    }
    Ok(Ok((ladder.rank(high), reached(least))))
}

/// \[R_out, R_in\] for which each unfolding drops at most half of `target`² ‖K‖², over all groups together.
fn outer_by_error(
    ladder: &Ladder<'_>,
    kernels: &Kernels<'_>,
    target: f64,
) -> Result<[usize; 2], CpError> {
    let mut ranks = ladder.full();
    for (mode, rank) in ranks.iter_mut().enumerate() {
        let values = tails(kernels, mode)?;
        let allowed = target / 2.0_f64.sqrt();
        while *rank > 1 && values.errors(*rank - 1).rel_error() <= allowed {
            *rank -= 1;
        }
    }
    Ok(ranks)
}

fn tkd_cpd_by_error(
    ladder: &Ladder<'_>,
    kernels: &Kernels<'_>,
    target: f64,
    decomposer: &Decomposer,
) -> Result<Verdict, CpError> {
    let outer = outer_by_error(ladder, kernels, target / 2.0_f64.sqrt())?;
    let Some(Rank::Three([out, input, _])) = ladder.of_outer(outer) else {
        return Ok(Err("it has no core".into()));
    };
    let (mut total, mut outside) = (0.0, 0.0);
    let mut cores: Vec<CowArray<'_, f32, IxDyn>> = Vec::with_capacity(kernels.len());
    for kernel in kernels {
        let found = Tucker2::new([out, input]).decompose(kernel.view())?;
        let square = cp_core::norm(kernel.view()).powi(2);
        total += square;
        outside += found.rel_error.powi(2) * square;
        cores.push(found.tucker.core.into());
    }
    let inside: f64 = cores.iter().map(|core| cp_core::norm(core.view()).powi(2)).sum();
    // The outer factors are orthonormal, so squares add up.
    let both = |errors: &Errors| {
        let residual = outside + errors.rel_error().powi(2) * inside;
        if residual == 0.0 { 0.0 } else { (residual / total).sqrt() }
    };
    // The statistics are those of the kernel's inputs, not of the core's.
    let plain = Decomposer { statistics: LayerStatistics::new(), ..decomposer.clone() };
    let rank = |core: usize| Rank::Three([out, input, core]);
    let smaller =
        |core: &usize| ladder.cost(rank(*core)).is_ok_and(|cost| cost.params < ladder.dense.params);
    // The cost rises with R: the first that is no smaller is found by doubling and halving.
    let mut above = 1;
    while smaller(&above) {
        above *= 2;
    }
    let (mut most, mut end) = (above / 2, above);
    while end - most > 1 {
        let middle = most + (end - most) / 2;
        if smaller(&middle) { most = middle } else { end = middle }
    }
    if most == 0 {
        let why = format!("no smaller than dense at R={} (error at most {target})", rank(1));
        return Ok(Err(why));
    }
    let mut path = CpPath::new(ladder.layer, &cores, &plain);
    let found = rank_for_error(target, most, |rank| {
        let (errors, mut found) = path.at(rank)?;
        found.rel_error = both(&errors);
        Ok(found)
    })?;
    let error = found.best.rel_error;
    Ok(if found.reached {
        Ok((rank(found.rank()), reached(error)))
    } else {
        Err(missed(error, target, rank(most)))
    })
}
