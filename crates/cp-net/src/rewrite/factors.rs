//! Arrays into a factorized layer and out of it again: [`Factors`].

use ndarray::{
    Array2, ArrayD, ArrayView2, ArrayViewD, Axis, CowArray, Ix2, IxDyn, Slice, concatenate, s,
};

use crate::error::NetError;
use crate::factor::form::Form;
use crate::factor::order;
use crate::factor::parts::replacement;
use crate::factor::rank::Rank;
use crate::network::Network;
use crate::op::Op;
use crate::rewrite::bias_order::{inverse, outputs_of};
use crate::rewrite::factorize::groups;
use crate::rewrite::kernels::kernel;

/// The weights of the parts of a factorized layer, for one group of it: what a decomposition of the kernel comes to.
///
/// # Shapes
/// `parts[i]` has a row for every output channel that part i has in this group and a column for every weight of it: of CP-3, `reduce`
/// `[R, S]`, `spatial` `[R, kh·kw]`, `expand` `[T, R]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// The form.
    pub form: Form,
    /// The rank.
    pub rank: Rank,
    /// The weights, in the order in which the parts that have one run.
    pub parts: Vec<Array2<f32>>,
    /// Which channel goes where, for each gather of the form that the rank leaves open: the positions that it takes, within this
    /// group. Of [`Form::Denton`] and [`Form::DentonSvd`] the input channels, cluster after cluster, `[S]`, and for every output channel its
    /// place, cluster after cluster, `[T]`; of [`Form::Monochromatic`] the colour of every output channel, `[T]`; else none.
    pub order: Vec<Vec<usize>>,
}

impl Factors {
    /// Of a form that leaves no order open.
    pub fn new(form: Form, rank: impl Into<Rank>, parts: Vec<Array2<f32>>) -> Self {
        Self { form, rank: rank.into(), parts, order: Vec::new() }
    }

    /// The same with these [orders](Factors::order) of channels.
    #[must_use]
    pub fn with_order(self, order: Vec<Vec<usize>>) -> Self {
        Self { order, ..self }
    }
}

impl Network {
    /// The tensors that have to be decomposed to write `layer` in `form`: one for each group of a convolution, one for a
    /// linear layer.
    ///
    /// # Shapes
    /// CP-3, Tucker-2, TKD-CPD, decoupled, Denton's: `[T/g, S/g, ∏k]`; CP-4, Jaderberg's: `[T/g, S/g, k₀, …]`; low-rank: `[T/g, S/g]` or
    /// `[out, in]`.
    ///
    /// # Errors
    /// Unknown or already factorized layer, or a form that does not fit it.
    pub fn tensors(
        &self,
        layer: &str,
        form: Form,
    ) -> Result<Vec<CowArray<'_, f32, IxDyn>>, NetError> {
        let op = &self.node(layer)?.op;
        replacement(layer, op, form, form.least_rank())?;
        let weight = self.kernel(layer)?;
        let groups = groups(op);
        let shape = tensor_shape(op, form);
        let rows = weight.len_of(Axis(0)) / groups;
        (0..groups)
            .map(|group| {
                let range = Slice::from(group * rows..(group + 1) * rows);
                reshaped(weight.clone().slice_axis_move(Axis(0), range), &shape)
                    .map_err(|got| factors_error(layer, "kernel", shape.clone(), got))
            })
            .collect()
    }

    /// Replaces `layer`, and every layer that shares its kernel, by the sequence that `factors` give, one for each group. Only the last
    /// part with a weight has the bias.
    ///
    /// `rel_error` is ‖K − K̂‖ / ‖K‖, which is kept in the record.
    ///
    /// # Shapes
    /// `factors[g]`: of the g-th of [`Network::tensors`]; all of one form and rank.
    ///
    /// # Errors
    /// Unknown or already factorized layer, a form that does not fit it, factors of another shape, orders of channels that are none, or
    /// values that are not finite. The network is unchanged then.
    pub fn put_factors(
        &mut self,
        layer: &str,
        factors: &[Factors],
        rel_error: f64,
    ) -> Result<(), NetError> {
        let groups = groups(&self.node(layer)?.op);
        check_count(layer, groups, factors.len())?;
        let (form, rank) = (factors[0].form, factors[0].rank);
        if let Some(other) = factors.iter().find(|other| (other.form, other.rank) != (form, rank)) {
            let (expected, got) = (rank.parts().to_vec(), other.rank.parts().to_vec());
            return Err(factors_error(layer, "rank of a group", expected, got));
        }
        let values = factors.iter().flat_map(|factors| &factors.parts).flatten();
        let count = values.filter(|value| !value.is_finite()).count();
        if count > 0 || !rel_error.is_finite() {
            return Err(NetError::NotFinite { layer: layer.into(), count: count.max(1) });
        }
        let mut arch = self.arch.clone();
        let orders: Vec<&[Vec<usize>]> = factors.iter().map(|group| &group.order[..]).collect();
        let renamed = arch.factorize_kernel(layer, form, rank, &orders)?;
        let users = arch.sharing(layer)?;
        for user in &users {
            if let Some(record) = arch.factorized.get_mut(user) {
                record.rel_error = rel_error;
            }
        }
        let parts = arch.weighted_parts(layer)?;
        let mut arrays = Vec::with_capacity(parts.len());
        for (index, node) in parts.iter().enumerate() {
            let shape = node.op.params().remove(0).shape;
            let rows = factors.iter().map(|group| group.parts.get(index).map(Array2::view));
            let Some(rows) = rows.collect::<Option<Vec<ArrayView2<'_, f32>>>>() else {
                let got = vec![factors[0].parts.len()];
                return Err(factors_error(layer, "number of parts", vec![parts.len()], got));
            };
            let stacked = concatenate(Axis(0), &rows).map_err(|_| {
                factors_error(layer, "factors of the groups", shape.clone(), Vec::new())
            })?;
            let got = stacked.shape().to_vec();
            let weight = if got[0] == shape[0] {
                stacked.into_shape_with_order(IxDyn(&shape)).ok()
            } else {
                None
            };
            let weight = weight.ok_or_else(|| factors_error(layer, "factor", shape, got))?;
            arrays.push((node.param("weight"), weight));
        }
        let (lasts, restore) = outputs_of(&arch, &users)?;
        self.arch = arch;
        self.rename_params(renamed);
        self.params.extend(arrays);
        // The channels that a bias is added to are in their places only behind it.
        self.select_biases(&lasts, &inverse(&restore));
        self.drop_unused();
        Ok(())
    }

    /// The factors of `layer` as they are now (they may have been trained), one for each group: what [`Network::put_factors`] took.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`], [`NetError::UnknownLayer`].
    pub fn factors(&self, layer: &str) -> Result<Vec<Factors>, NetError> {
        let record = self.arch.factorization(layer)?;
        let groups = groups(&record.dense);
        // Every part's weight as a matrix with a row per output channel.
        let parts = self.arch.weighted_parts(layer)?;
        let mut matrices = Vec::with_capacity(parts.len());
        for part in parts {
            let weight = self.array(part, "weight")?;
            let shape = [weight.len_of(Axis(0)), weight.len() / weight.len_of(Axis(0))];
            let wrong = |got| factors_error(layer, "part", shape.to_vec(), got);
            let matrix = reshaped(weight, &shape).map_err(wrong)?;
            let matrix = matrix.into_dimensionality::<Ix2>();
            matrices.push(matrix.map_err(|_| factors_error(layer, "part", vec![2], Vec::new()))?);
        }
        let mut open = Vec::new();
        for part in &record.parts {
            let suffix = part.rsplit('.').next().unwrap_or(part);
            if let Op::Gather(gather) = &self.node(part)?.op
                && order::is_open(record.form, suffix)
            {
                open.push(gather);
            }
        }
        let of_group = |group: usize| {
            let rows = |matrix: &CowArray<'_, f32, Ix2>| {
                let rows = matrix.nrows() / groups;
                matrix.slice(s![group * rows..(group + 1) * rows, ..]).to_owned()
            };
            Factors {
                form: record.form,
                rank: record.rank,
                parts: matrices.iter().map(rows).collect(),
                order: open.iter().map(|open| order::of_group(open, groups, group)).collect(),
            }
        };
        Ok((0..groups).map(of_group).collect())
    }

    /// The dense kernel that the factors of `layer` stand for now (they may have been trained).
    ///
    /// # Shapes
    /// `[T, S/g, k₀, …]` or `[out, in]`, as the dense layer's weight.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`], [`NetError::UnknownLayer`].
    pub fn reconstructed(&self, layer: &str) -> Result<ArrayD<f32>, NetError> {
        let record = self.arch.factorization(layer)?;
        let shape = tensor_shape(&record.dense, record.form);
        let form = (record.form, record.rank);
        let groups = self.factors(layer)?;
        let kernels: Vec<Array2<f32>> =
            groups.iter().map(|group| kernel(form, &group.parts, &group.order, &shape)).collect();
        let views: Vec<ArrayView2<'_, f32>> = kernels.iter().map(Array2::view).collect();
        let shape = record.dense.params().remove(0).shape;
        let whole = concatenate(Axis(0), &views)
            .map_err(|_| factors_error(layer, "parts of the groups", shape.clone(), Vec::new()))?;
        let got = whole.shape().to_vec();
        whole
            .into_shape_with_order(IxDyn(&shape))
            .map_err(|_| factors_error(layer, "kernel", shape, got))
    }

    /// Puts the dense layer that the factors of `layer` stand for in their place (and in that of every layer that shares them), for
    /// a second compression at another rank.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`], [`NetError::UnknownLayer`].
    pub fn densify(&mut self, layer: &str) -> Result<(), NetError> {
        let kernel = self.reconstructed(layer)?;
        let weight = self.arch.factorization(layer)?.weight.clone();
        let users = self.arch.sharing(layer)?;
        let (_, restore) = outputs_of(&self.arch, &users)?;
        let renamed = self.arch.densify_kernel(layer)?;
        self.rename_params(renamed);
        self.params.insert(weight, kernel);
        self.select_biases(&users, &restore);
        self.drop_unused();
        Ok(())
    }

    fn rename_params(&mut self, renamed: Vec<(String, String)>) {
        for (old, new) in renamed {
            if let Some(array) = self.params.remove(&old) {
                self.params.insert(new, array);
            }
        }
    }

    /// Drops the arrays that no node uses.
    pub(super) fn drop_unused(&mut self) {
        let used: std::collections::BTreeSet<String> =
            self.arch.params().map(|(name, _)| name).collect();
        self.params.retain(|name, _| used.contains(name));
    }
}

/// Shape of one group's tensor in `form`.
pub fn tensor_shape(op: &Op, form: Form) -> Vec<usize> {
    match op {
        Op::Conv(conv) => {
            let [out, inputs, ref kernel @ ..] = conv.group_shape()[..] else { return Vec::new() };
            match form {
                Form::Cp3 | Form::Tucker2 | Form::TkdCpd => {
                    vec![out, inputs, kernel.iter().product()]
                }
                Form::Decoupled | Form::Denton | Form::DentonSvd | Form::Monochromatic => {
                    vec![out, inputs, kernel.iter().product()]
                }
                Form::Cp4 | Form::Jaderberg1 | Form::Jaderberg2 | Form::Jaderberg1Shared => {
                    conv.group_shape()
                }
                Form::LowRank => vec![out, inputs],
            }
        }
        Op::Linear(linear) => vec![linear.out_features, linear.in_features],
        _ => Vec::new(),
    }
}

/// A view in another shape, copied where its memory is not row-major; the old shape where the sizes differ.
fn reshaped<'a>(
    view: ArrayViewD<'a, f32>,
    shape: &[usize],
) -> Result<CowArray<'a, f32, IxDyn>, Vec<usize>> {
    let got = view.shape().to_vec();
    if view.is_standard_layout() {
        return view.into_shape_with_order(IxDyn(shape)).map(CowArray::from).map_err(|_| got);
    }
    let copied = view.as_standard_layout().into_owned();
    copied.into_shape_with_order(IxDyn(shape)).map(CowArray::from).map_err(|_| got)
}

fn check_count(layer: &str, groups: usize, given: usize) -> Result<(), NetError> {
    if groups == given {
        return Ok(());
    }
    Err(factors_error(layer, "number of models (one per group)", vec![groups], vec![given]))
}

fn factors_error(
    layer: &str,
    what: &'static str,
    expected: Vec<usize>,
    got: Vec<usize>,
) -> NetError {
    NetError::Factors { layer: layer.into(), what, expected, got }
}
