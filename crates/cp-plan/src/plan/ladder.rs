//! [`Ladder`]: the ranks that a form of a layer can have, by one number.

use cp_net::{Architecture, Form, NetError, Rank, Shapes, Totals, replacement, tensor_shape};

use super::plannable;
use crate::error::PlanError;

/// The ranks of one form of a layer as steps 1, 2, …, each of which costs at least as much as the one before.
///
/// For one number R the step is R. Tucker-2 goes up with \[R_out, R_in\] in proportion to \[T/g, S/g\], the larger of which is the
/// last step, and TKD-CPD likewise with R = max(R_out, R_in). A number never goes above what the other allows,
/// R_out ≤ R_in ∏k and R_in ≤ R_out ∏k. Denton's forms keep their [clusters](clusters), and a step is the number of terms of a block, or
/// its ranks, in proportion as those of Tucker-2.
pub(super) struct Ladder<'a> {
    pub(super) layer: &'a str,
    pub(super) form: Form,
    arch: &'a Architecture,
    shapes: &'a Shapes,
    /// What the dense layer costs, without its bias.
    pub(super) dense: Totals,
    /// Channels of a group, `[T/g, S/g]`, and the number of spatial taps.
    channels: [usize; 2],
    taps: usize,
    /// Rows and columns of a kernel over two axes.
    sides: [usize; 2],
    /// Clusters of output and input channels, 1 but for Denton's forms.
    clusters: [usize; 2],
}

impl<'a> Ladder<'a> {
    /// The ladder of `form`; `None` where it does not fit the layer.
    pub(super) fn new(
        arch: &'a Architecture,
        layer: &'a str,
        form: Form,
        shapes: &'a Shapes,
    ) -> Result<Option<Self>, PlanError> {
        let op = plannable(arch, layer)?;
        match replacement(layer, op, form, form.least_rank()) {
            Ok(_) => {}
            Err(NetError::FormMismatch { .. }) => return Ok(None),
            Err(other) => return Err(other.into()),
        }
        let dense = arch.dense_cost(layer, shapes)?;
        let shape = tensor_shape(op, form);
        let channels = [shape[0], shape[1]];
        let taps = shape[2..].iter().product();
        let sides = [2, 3].map(|axis| shape.get(axis).copied().unwrap_or(1));
        let clusters = clusters(form, channels);
        Ok(Some(Self { layer, form, arch, shapes, dense, channels, taps, sides, clusters }))
    }

    /// Number of steps.
    pub(super) fn len(&self) -> usize {
        let [out, input] = self.channels;
        match self.form {
            Form::LowRank => out.min(input),
            Form::Tucker2 | Form::TkdCpd => out.max(input),
            Form::Jaderberg1 => {
                let [rows, columns] = self.sides;
                (out * rows).min(out * columns).min(rows * columns)
            }
            Form::Jaderberg2 => (input * self.sides[0]).min(out * self.sides[1]),
            Form::Decoupled => input.min(self.taps),
            Form::Jaderberg1Shared => {
                let [rows, columns] = self.sides;
                (out * input * rows).min(out * input * columns).min(rows * columns)
            }
            Form::Denton => {
                let [out, input] = self.block();
                (out * input).min(out * self.taps).min(input * self.taps)
            }
            Form::DentonSvd => self.block().into_iter().max().unwrap_or(1),
            Form::Monochromatic => out,
            // A CP form.
            _ => out * input * self.taps,
        }
    }

    /// The rank of a step, from 1.
    pub(super) fn rank(&self, step: usize) -> Rank {
        let [outputs, inputs] = self.clusters;
        match self.form {
            Form::Denton => Rank::Three([outputs, inputs, step]),
            Form::DentonSvd => {
                let [out, input] = self.allowed(in_proportion(step, self.block()));
                Rank::Four([outputs, inputs, out, input])
            }
            _ => {
                let outer = in_proportion(step, self.channels);
                self.of_outer(outer).unwrap_or(Rank::One(step))
            }
        }
    }

    /// Channels of a block, `[T/(g·oc), S/(g·ic)]`.
    fn block(&self) -> [usize; 2] {
        [0, 1].map(|mode| self.channels[mode] / self.clusters[mode])
    }

    /// Two outer ranks, each at most what the other allows.
    fn allowed(&self, [out, input]: [usize; 2]) -> [usize; 2] {
        [out.min(input * self.taps), input.min(out * self.taps)]
    }

    /// The rank of a form with two outer ranks that has these; `None` for the others.
    pub(super) fn of_outer(&self, outer: [usize; 2]) -> Option<Rank> {
        let [out, input] = self.allowed(outer);
        match self.form {
            Form::Tucker2 => Some(Rank::Two([out, input])),
            Form::TkdCpd => Some(Rank::Three([out, input, out.max(input)])),
            _ => None,
        }
    }

    /// The most directions that the unfoldings of output and input channels can have.
    pub(super) fn full(&self) -> [usize; 2] {
        self.allowed(self.channels)
    }

    /// The largest that the number at this place of a rank can be.
    pub(super) fn limit(&self, place: usize) -> usize {
        match (self.form, place) {
            (Form::Tucker2 | Form::TkdCpd | Form::Denton | Form::DentonSvd, 0 | 1) => {
                self.channels[place]
            }
            (Form::TkdCpd, _) => self.channels.iter().product::<usize>() * self.taps,
            _ => self.len(),
        }
    }

    /// Whether neither of two outer ranks is above what the other allows.
    pub(super) fn holds(&self, rank: Rank) -> bool {
        match (self.form, rank) {
            (Form::Tucker2, Rank::Two([out, input]))
            | (Form::TkdCpd, Rank::Three([out, input, _])) => {
                out <= input * self.taps && input <= out * self.taps
            }
            _ => true,
        }
    }

    /// What the factors cost, without the bias.
    pub(super) fn cost(&self, rank: Rank) -> Result<Totals, PlanError> {
        Ok(self.arch.factors_cost(self.layer, self.form, rank, self.shapes)?)
    }

    /// The last step whose cost will do, 0 for none; `fits` says no from some cost on.
    pub(super) fn last(&self, fits: impl Fn(&Totals) -> bool) -> Result<usize, PlanError> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = high - (high - low) / 2;
            if fits(&self.cost(self.rank(middle))?) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }

    /// The number that ranks of this form should be multiples of where `multiple` is asked for: 1 where a rank counts maps for every
    /// channel or every block, so that there are enough of them at any.
    pub(super) fn multiple(form: Form, multiple: usize) -> usize {
        match form {
            Form::Jaderberg1
            | Form::Jaderberg1Shared
            | Form::Decoupled
            | Form::Denton
            | Form::DentonSvd => 1,
            _ => multiple,
        }
    }

    /// `rank` with each number at the nearest multiple that is at least one and that the layer has; numbers of modes that are
    /// smaller than one multiple stay. `largest` bounds the number of a CP form.
    pub(super) fn to_multiple(&self, rank: Rank, multiple: usize, largest: usize) -> Rank {
        let near = |number: usize, limit: usize| {
            if limit < multiple {
                return number;
            }
            let nearest = (number + multiple / 2) / multiple * multiple;
            nearest.clamp(multiple, limit / multiple * multiple)
        };
        let [out, input] = self.channels;
        match rank {
            Rank::One(rank) => Rank::One(near(rank, largest)),
            // Of blocks, whose multiple is 1.
            Rank::Four(_) => rank,
            Rank::Two(ranks) | Rank::Three([ranks @ .., _]) => {
                let nearest = self.of_outer([near(ranks[0], out), near(ranks[1], input)]);
                // Where one number does not allow the other its multiple, that goes to the one below.
                let below = |number: usize| match number / multiple * multiple {
                    0 => number,
                    below => below,
                };
                let allowed = nearest.and_then(|nearest| match nearest {
                    Rank::Two(ranks) | Rank::Three([ranks @ .., _]) => {
                        self.of_outer(ranks.map(below))
                    }
                    Rank::One(_) | Rank::Four(_) => None,
                });
                allowed.unwrap_or(rank)
            }
        }
    }
}

/// Each of two sizes times the same share, which is `step` of the larger one, rounded, and at least 1.
fn in_proportion(step: usize, sizes: [usize; 2]) -> [usize; 2] {
    let largest = sizes.into_iter().max().unwrap_or(1);
    sizes.map(|size| ((step * size + largest / 2) / largest).clamp(1, size))
}

/// Clusters of \[T/g, S/g\] channels: those of Denton et al. (2014), two of the output channels and pairs of input channels, or two of both for blocks
/// by singular values; where the channels cannot be split like that, the next that they can.
fn clusters(form: Form, [out, input]: [usize; 2]) -> [usize; 2] {
    let divisor = |size: usize| (2..=size).find(|part| size.is_multiple_of(*part)).unwrap_or(1);
    match form {
        // A cluster of the least size above 1.
        Form::Denton => [divisor(out), input / divisor(input)],
        Form::DentonSvd => [divisor(out), divisor(input)],
        _ => [1; 2],
    }
}
