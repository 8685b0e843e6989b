//! The forms whose solutions come in parts: Jaderberg's, the decoupled one, and Denton's.

use std::sync::Arc;

use cp_core::{CpError, Init, InputStatistics};
use cp_net::{Form, Rank};
use ndarray::{Array2, ArrayD, ArrayViewD, Axis, s};

use super::{Decomposed, Decomposer, kept};
use crate::model::KernelModel;

/// Whether a form's models are [`KernelModel::Parts`].
pub(crate) fn in_parts(form: Form) -> bool {
    matches!(
        form,
        Form::Jaderberg1
            | Form::Jaderberg1Shared
            | Form::Jaderberg2
            | Form::Decoupled
            | Form::Denton
            | Form::DentonSvd
            | Form::Monochromatic
    )
}

impl Decomposer {
    /// The model of `tensor` in a form that comes in parts.
    pub(super) fn in_parts(
        &self,
        tensor: ArrayViewD<'_, f32>,
        form: Form,
        rank: Rank,
        statistics: Option<&Arc<InputStatistics>>,
    ) -> Result<Decomposed, CpError> {
        let model = self.parts(tensor.view(), form, rank)?;
        let rel_error = model.rel_error(tensor.view());
        let weighted_error = match (statistics, &model) {
            (Some(statistics), KernelModel::Parts { kernel, .. }) => {
                Some(cp_core::weighted_distance(tensor, kernel.view(), statistics)?)
            }
            _ => None,
        };
        Ok(Decomposed {
            model,
            rel_error,
            weighted_error,
            component_energy: kept(rel_error),
            iterations: 0,
            stop: None,
        })
    }

    fn parts(
        &self,
        tensor: ArrayViewD<'_, f32>,
        form: Form,
        rank: Rank,
    ) -> Result<KernelModel, CpError> {
        match (form, rank) {
            (Form::Jaderberg1, Rank::One(count)) => self.per_channel(tensor, count),
            (Form::Jaderberg1Shared, Rank::One(count)) => self.shared_basis(tensor, count),
            (Form::Jaderberg2, Rank::One(count)) => {
                let found = cp_core::separable(tensor, count)?;
                let kernel = found.reconstruct();
                Ok(model(form, rank, vec![found.vertical, found.horizontal], kernel))
            }
            (Form::Decoupled, Rank::One(count)) => {
                let found = cp_core::decoupled(tensor, count)?;
                let kernel = found.reconstruct();
                Ok(model(form, rank, vec![found.channels, found.spatial], kernel))
            }
            (Form::Denton, Rank::Three(ranks)) => self.terms_of_blocks(tensor, ranks),
            (Form::DentonSvd, Rank::Four(ranks)) => self.cores_of_blocks(tensor, ranks),
            (Form::Monochromatic, Rank::One(colours)) => self.colours(tensor, colours),
            (form, rank) => {
                let expected = form.least_rank().parts().len();
                Err(CpError::RankCount { expected, got: rank.parts().len() })
            }
        }
    }

    /// A basis of `rank` separable filters for every input channel: the CP model of each `[T, kh, kw]` by the CP method.
    ///
    /// Source: Jaderberg, Vedaldi & Zisserman (2014), §3, scheme 1, fitted to the kernel.
    fn per_channel(
        &self,
        tensor: ArrayViewD<'_, f32>,
        rank: usize,
    ) -> Result<KernelModel, CpError> {
        let [out, inputs, rows, columns] = four(&tensor)?;
        let maps = inputs * rank;
        let mut parts = [(maps, rows), (maps, columns), (out, maps)].map(Array2::<f32>::zeros);
        let mut kernel = ArrayD::zeros(tensor.shape());
        for input in 0..inputs {
            let slice = tensor.index_axis(Axis(1), input);
            let mut place = kernel.index_axis_mut(Axis(1), input);
            // Of a slice of zeros, such as an unused channel's, the filters are 0.
            if slice.iter().all(|value| *value == 0.0) {
                continue;
            }
            let start = Init::Random { seed: self.seed };
            let mut cp = self.solver(rank, start).decompose(slice.into_dyn())?.cp;
            cp.balance();
            place.assign(&cp.reconstruct());
            let range = input * rank..(input + 1) * rank;
            parts[0].slice_mut(s![range.clone(), ..]).assign(&cp.factors[1].t());
            parts[1].slice_mut(s![range.clone(), ..]).assign(&cp.factors[2].t());
            parts[2].slice_mut(s![.., range]).assign(&cp.factors[0]);
        }
        Ok(model(Form::Jaderberg1, Rank::One(rank), parts.into(), kernel))
    }

    /// One basis of `rank` separable filters for all input channels: the CP model of `[T·S, kh, kw]` by the CP method, corrected where
    /// its terms cancel each other.
    ///
    /// Source: Jaderberg, Vedaldi & Zisserman (2014), §3, scheme 1, fitted to the kernel.
    fn shared_basis(
        &self,
        tensor: ArrayViewD<'_, f32>,
        rank: usize,
    ) -> Result<KernelModel, CpError> {
        let [out, inputs, rows, columns] = four(&tensor)?;
        let filters = ArrayD::from_shape_fn(vec![out * inputs, rows, columns], |at| {
            tensor[[at[0] / inputs, at[0] % inputs, at[1], at[2]]]
        });
        let start = Init::Random { seed: self.seed };
        let found = self.solver(rank, start).decompose(filters.view())?;
        let mut cp = self.corrected(filters.view(), found)?.cp;
        cp.balance();
        let made = cp.reconstruct();
        let kernel = ArrayD::from_shape_fn(tensor.shape(), |at| {
            made[[at[0] * inputs + at[1], at[2], at[3]]]
        });
        // Behind the filters of the basis the channels lie as the depth of each.
        let mix = &cp.factors[0];
        let expand = Array2::from_shape_fn((out, rank * inputs), |(t, at)| {
            mix[[t * inputs + at % inputs, at / inputs]]
        });
        let filters = [1, 2].map(|mode| cp.factors[mode].t().to_owned());
        let [vertical, horizontal] = filters;
        let parts = vec![vertical, horizontal, expand];
        Ok(model(Form::Jaderberg1Shared, Rank::One(rank), parts, kernel))
    }
}

/// A model of a form that leaves no order of channels open.
fn model(form: Form, rank: Rank, parts: Vec<Array2<f32>>, kernel: ArrayD<f32>) -> KernelModel {
    KernelModel::Parts { form, rank, parts, order: Vec::new(), kernel }
}

/// `[T, S, kh, kw]`.
fn four(tensor: &ArrayViewD<'_, f32>) -> Result<[usize; 4], CpError> {
    let shape = tensor.shape();
    shape.try_into().map_err(|_| CpError::FactorCount { expected: 4, got: shape.len() })
}
