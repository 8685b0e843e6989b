//! Factors into a network and out of it again: the arrays of the rewriting in [`Architecture::factorize`].
//!
//! [`Architecture::factorize`]: crate::Architecture::factorize

use cp_core::{CpTensor, Svd};
use ndarray::{
    Array1, Array2, ArrayD, ArrayView2, ArrayViewD, Axis, CowArray, Ix2, IxDyn, Slice, concatenate,
    s,
};

use crate::error::NetError;
use crate::factorize::{EXPAND, Form, REDUCE, replacement};
use crate::model::Model;
use crate::network::Network;
use crate::op::{Conv, Op};
use crate::rank::Rank;

impl Network {
    /// The tensors that have to be decomposed to write `layer` in `form`: one for each group of a convolution, one for a
    /// linear layer.
    ///
    /// # Shapes
    /// CP-3, Tucker-2, TKD-CPD: `[T/g, S/g, ∏k]`; CP-4: `[T/g, S/g, k₀, …]`; low-rank: `[T/g, S/g]` or `[out, in]`.
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

    /// Replaces the convolution `layer` by the sequence that its CP models give, one model per group. λ is folded in and
    /// the norms are balanced over the factors ([`CpTensor::balance`]); only `expand` has the bias.
    ///
    /// # Shapes
    /// `factors[g]`: a model of the g-th of [`Network::tensors`]; all of one rank.
    ///
    /// # Errors
    /// Unknown or already factorized layer, a form that does not fit it, or factors of another shape. The network is
    /// unchanged then.
    pub fn factorize(
        &mut self,
        layer: &str,
        form: Form,
        factors: &[CpTensor<f32>],
    ) -> Result<(), NetError> {
        if !matches!(form, Form::Cp3 | Form::Cp4) {
            let reason = "CP models make a layer cp3 or cp4; use `Network::factorize_with`";
            return Err(NetError::FormMismatch { layer: layer.into(), form, reason });
        }
        let models: Vec<Model> = factors.iter().cloned().map(Model::Cp).collect();
        self.factorize_with(layer, form, &models)
    }

    /// Replaces `layer` by the sequence of `form` that its models give, one model per group of the layer.
    ///
    /// # Shapes
    /// `models[g]`: a model of the g-th of [`Network::tensors`]; all of one rank.
    ///
    /// # Errors
    /// Unknown or already factorized layer, a form that does not fit it, or models of another kind or shape. The network is
    /// unchanged then.
    pub fn factorize_with(
        &mut self,
        layer: &str,
        form: Form,
        models: &[Model],
    ) -> Result<(), NetError> {
        let tensors = self.tensors(layer, form)?;
        check_count(layer, tensors.len(), models.len())?;
        let rank = models[0].rank();
        let mut residual = 0.0;
        for (tensor, model) in tensors.iter().zip(models) {
            if !model.fits(form) {
                let reason = "the model is of another kind";
                return Err(NetError::FormMismatch { layer: layer.into(), form, reason });
            }
            if model.shape() != tensor.shape() {
                return Err(factors_error(
                    layer,
                    "shape of the model",
                    tensor.shape().to_vec(),
                    model.shape(),
                ));
            }
            if model.rank() != rank {
                return Err(factors_error(
                    layer,
                    "rank of a group",
                    rank.parts().to_vec(),
                    model.rank().parts().to_vec(),
                ));
            }
            residual += (model.rel_error(tensor.view()) * cp_core::norm(tensor.view())).powi(2);
        }
        let rel_error = relative(residual, cp_core::norm(self.kernel(layer)?));
        drop(tensors);
        let parts: Vec<Vec<Array2<f32>>> = models.iter().map(Model::parts).collect();
        self.replace(layer, form, rank, rel_error, &parts)
    }

    /// Replaces the linear layer, or the 1×1 convolution of one group, `layer` by two: W ≈ (U√s)(√s Vᵀ).
    ///
    /// # Errors
    /// As [`Network::factorize`].
    pub fn factorize_linear(&mut self, layer: &str, svd: &Svd<f32>) -> Result<(), NetError> {
        self.factorize_low_rank(layer, std::slice::from_ref(svd))
    }

    /// As [`Network::factorize_linear`], with one decomposition per group.
    ///
    /// # Errors
    /// As [`Network::factorize`].
    pub fn factorize_low_rank(&mut self, layer: &str, svds: &[Svd<f32>]) -> Result<(), NetError> {
        let models: Vec<Model> = svds.iter().cloned().map(Model::LowRank).collect();
        self.factorize_with(layer, Form::LowRank, &models)
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
        let groups = groups(&record.dense);
        // Every part's weight as a matrix with a row per output channel.
        let matrices = record
            .parts
            .iter()
            .map(|part| {
                let weight = self.array(part, "weight")?;
                let shape = [weight.len_of(Axis(0)), weight.len() / weight.len_of(Axis(0))];
                reshaped(weight, &shape)
                    .map_err(|got| factors_error(layer, "part", shape.to_vec(), got))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let mut kernels = Vec::with_capacity(groups);
        for group in 0..groups {
            let mut factors = matrices
                .iter()
                .map(|matrix| {
                    let matrix = matrix
                        .view()
                        .into_dimensionality::<Ix2>()
                        .map_err(|_| factors_error(layer, "part", vec![2], vec![matrix.ndim()]))?;
                    let rows = matrix.nrows() / groups;
                    Ok(matrix.slice_move(s![group * rows..(group + 1) * rows, ..]))
                })
                .collect::<Result<Vec<ArrayView2<'_, f32>>, NetError>>()?;
            let expand = factors.pop().map(|f| f.to_owned()).unwrap_or_default();
            let kernel = match (record.form, &factors[..]) {
                (Form::LowRank, [reduce]) => expand.dot(reduce).into_dyn(),
                (Form::Tucker2, [reduce, core]) => tucker_kernel(&expand, core, reduce),
                (Form::TkdCpd, [reduce, core_reduce, spatial, core_expand]) => {
                    let (out, input) = (expand.dot(core_expand), core_reduce.dot(reduce));
                    cp_kernel(vec![out, input.t().to_owned(), spatial.t().to_owned()])
                }
                _ => {
                    let inner = factors.iter().map(|f| f.t().to_owned());
                    cp_kernel(std::iter::once(expand).chain(inner).collect())
                }
            };
            kernels.push(kernel);
        }
        let views: Vec<ArrayViewD<'_, f32>> = kernels.iter().map(ArrayD::view).collect();
        let shape = record.dense.params().remove(0).shape;
        let whole = concatenate(Axis(0), &views)
            .map_err(|_| factors_error(layer, "parts of the groups", shape.clone(), Vec::new()))?;
        let got = whole.shape().to_vec();
        whole
            .into_shape_with_order(shape.clone())
            .map_err(|_| factors_error(layer, "kernel", shape, got))
    }

    /// Puts the dense layer that the factors of `layer` stand for in their place, for a second compression at another rank.
    ///
    /// # Errors
    /// [`NetError::NotFactorized`], [`NetError::UnknownLayer`].
    pub fn densify(&mut self, layer: &str) -> Result<(), NetError> {
        let kernel = self.reconstructed(layer)?;
        let parts = self.arch.factorization(layer)?.parts.clone();
        self.arch.densify(layer)?;
        self.params.insert(format!("{layer}.weight"), kernel);
        for part in &parts {
            self.params.remove(&format!("{part}.weight"));
            // Only the last part may have one.
            if let Some(bias) = self.params.remove(&format!("{part}.bias")) {
                self.params.insert(format!("{layer}.bias"), bias);
            }
        }
        Ok(())
    }

    /// Rewrites the graph and puts in the arrays: `parts[group][part]` are the rows of that group in the part's weight.
    fn replace(
        &mut self,
        layer: &str,
        form: Form,
        rank: Rank,
        rel_error: f64,
        parts: &[Vec<Array2<f32>>],
    ) -> Result<(), NetError> {
        let count = parts.iter().flatten().flatten().filter(|value| !value.is_finite()).count();
        if count > 0 || !rel_error.is_finite() {
            return Err(NetError::NotFinite { layer: layer.into(), count: count.max(1) });
        }
        let mut arch = self.arch.clone();
        arch.factorize(layer, form, rank)?;
        let mut weights = Vec::new();
        if let Some(record) = arch.factorized.get_mut(layer) {
            record.rel_error = rel_error;
            weights.extend(record.parts.iter().cloned());
        }
        let mut arrays = Vec::with_capacity(weights.len());
        for (index, name) in weights.iter().enumerate() {
            let views: Vec<ArrayView2<'_, f32>> =
                parts.iter().map(|group| group[index].view()).collect();
            let shape = arch.node(name)?.op.params().remove(0).shape;
            let stacked = concatenate(Axis(0), &views).map_err(|_| {
                factors_error(layer, "factors of the groups", shape.clone(), Vec::new())
            })?;
            let got = stacked.shape().to_vec();
            let weight = stacked
                .into_shape_with_order(IxDyn(&shape))
                .map_err(|_| factors_error(layer, "factor", shape, got))?;
            arrays.push((format!("{name}.weight"), weight));
        }
        self.arch = arch;
        self.params.remove(&format!("{layer}.weight"));
        if let Some(bias) = self.params.remove(&format!("{layer}.bias")) {
            self.params.insert(format!("{layer}.{EXPAND}.bias"), bias);
        }
        self.params.extend(arrays);
        debug_assert!(self.params.contains_key(&format!("{layer}.{REDUCE}.weight")));
        Ok(())
    }
}

/// Σ expand[t, o] core[o, i, k] reduce[i, s], `[T, S, ∏k]`; the core comes as `[R_out, R_in·∏k]`.
fn tucker_kernel(
    expand: &Array2<f32>,
    core: &ArrayView2<'_, f32>,
    reduce: &ArrayView2<'_, f32>,
) -> ArrayD<f32> {
    let inputs = reduce.nrows();
    let taps = core.ncols() / inputs;
    let wide = expand.dot(core); // [T, R_in·∏k]
    let mut kernel = ndarray::Array3::zeros([expand.nrows(), reduce.ncols(), taps]);
    for (row, mut slice) in wide.outer_iter().zip(kernel.outer_iter_mut()) {
        for tap in 0..taps {
            let column = row.slice(s![tap..; taps]); // [R_in]
            slice.column_mut(tap).assign(&column.dot(reduce));
        }
    }
    kernel.into_dyn()
}

fn cp_kernel(factors: Vec<Array2<f32>>) -> ArrayD<f32> {
    let rank = factors.first().map_or(0, Array2::ncols);
    CpTensor { weights: Array1::ones(rank), factors }.reconstruct()
}

fn groups(op: &Op) -> usize {
    if let Op::Conv(conv) = op { conv.geometry.groups } else { 1 }
}

/// Shape of one group's tensor in `form`.
pub(crate) fn tensor_shape(op: &Op, form: Form) -> Vec<usize> {
    match op {
        Op::Conv(conv) => {
            let [out, inputs, ref kernel @ ..] = conv.group_shape()[..] else { return Vec::new() };
            match form {
                Form::Cp3 | Form::Tucker2 | Form::TkdCpd => {
                    vec![out, inputs, kernel.iter().product()]
                }
                Form::Cp4 => conv.group_shape(),
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

/// √residual / norm, 0 for a kernel of zeros with a model of zeros.
fn relative(residual: f64, norm: f64) -> f64 {
    if residual == 0.0 { 0.0 } else { residual.sqrt() / norm }
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

impl Conv {
    /// Shape of one group's kernel, `[T/g, S/g, k₀, …]`.
    pub fn group_shape(&self) -> Vec<usize> {
        let mut shape = self.weight_shape();
        shape[0] /= self.geometry.groups.max(1);
        shape
    }
}
