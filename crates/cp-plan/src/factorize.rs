//! [`Factorize`]: decompositions into a network.

use cp_core::{CpTensor, Svd};
use cp_net::{Factors, Form, NetError, Network};

use crate::model::KernelModel;

/// Replaces layers of a network by the sequences that decompositions of their kernels give.
///
/// ```
/// use cp_core::{Als, Init, Solver};
/// use cp_net::{Form, arch};
/// use cp_plan::Factorize;
///
/// let mut net = arch::by_name("small-cnn")?.initialize(1)?;
/// let kernel = &net.tensors("conv2", Form::Cp3)?[0]; //      [64, 32, 9], one per group
/// let cp = Als::new(16).max_iters(20).init(Init::Random { seed: 2 }).decompose(kernel.view())?.cp;
/// net.factorize("conv2", Form::Cp3, &[cp])?; //              conv2.reduce, .spatial, .expand
/// let cost = net.cost([1, 28, 28])?;
/// assert_eq!(cost.layer("conv2").unwrap().cost.params, 16 * (64 + 32 + 9) + 64);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Factorize {
    /// Replaces the convolution `layer`, and every layer that shares its kernel, by the sequence that its CP models give, one
    /// model per group. λ is folded in and the norms are balanced over the factors ([`CpTensor::balance`]); only `expand` has
    /// the bias.
    ///
    /// # Shapes
    /// `factors[g]`: a model of the g-th of [`Network::tensors`]; all of one rank.
    ///
    /// # Errors
    /// Unknown or already factorized layer, a form that does not fit it, or factors of another shape. The network is
    /// unchanged then.
    fn factorize(
        &mut self,
        layer: &str,
        form: Form,
        factors: &[CpTensor<f32>],
    ) -> Result<(), NetError>;

    /// Replaces `layer`, and every layer that shares its kernel, by the sequence of `form` that its models give, one model per
    /// group of the layer.
    ///
    /// # Shapes
    /// `models[g]`: a model of the g-th of [`Network::tensors`]; all of one rank.
    ///
    /// # Errors
    /// Unknown or already factorized layer, a form that does not fit it, or models of another kind or shape. The network is
    /// unchanged then.
    fn factorize_with(
        &mut self,
        layer: &str,
        form: Form,
        models: &[KernelModel],
    ) -> Result<(), NetError>;

    /// Replaces the linear layer, or the 1×1 convolution of one group, `layer` by two: W ≈ (U√s)(√s Vᵀ).
    ///
    /// # Errors
    /// As [`Factorize::factorize`].
    fn factorize_linear(&mut self, layer: &str, svd: &Svd<f32>) -> Result<(), NetError> {
        self.factorize_low_rank(layer, std::slice::from_ref(svd))
    }

    /// As [`Factorize::factorize_linear`], with one decomposition per group.
    ///
    /// # Errors
    /// As [`Factorize::factorize`].
    fn factorize_low_rank(&mut self, layer: &str, svds: &[Svd<f32>]) -> Result<(), NetError> {
        let models: Vec<KernelModel> = svds.iter().cloned().map(KernelModel::LowRank).collect();
        self.factorize_with(layer, Form::LowRank, &models)
    }
}

impl Factorize for Network {
    fn factorize(
        &mut self,
        layer: &str,
        form: Form,
        factors: &[CpTensor<f32>],
    ) -> Result<(), NetError> {
        if !matches!(form, Form::Cp3 | Form::Cp4) {
            let reason = "CP models make a layer cp3 or cp4; use `Factorize::factorize_with`";
            return Err(NetError::FormMismatch { layer: layer.into(), form, reason });
        }
        let models: Vec<KernelModel> = factors.iter().cloned().map(KernelModel::Cp).collect();
        self.factorize_with(layer, form, &models)
    }

    fn factorize_with(
        &mut self,
        layer: &str,
        form: Form,
        models: &[KernelModel],
    ) -> Result<(), NetError> {
        let wrong =
            |what, expected, got| NetError::Factors { layer: layer.into(), what, expected, got };
        let tensors = self.tensors(layer, form)?;
        if tensors.len() != models.len() {
            let what = "number of models (one per group)";
            return Err(wrong(what, vec![tensors.len()], vec![models.len()]));
        }
        let rank = models[0].rank();
        let mut residual = 0.0;
        for (tensor, model) in tensors.iter().zip(models) {
            if !model.fits(form) {
                let reason = "the model is of another kind";
                return Err(NetError::FormMismatch { layer: layer.into(), form, reason });
            }
            if model.shape() != tensor.shape() {
                return Err(wrong("shape of the model", tensor.shape().to_vec(), model.shape()));
            }
            if model.rank() != rank {
                let (expected, got) = (rank.parts().to_vec(), model.rank().parts().to_vec());
                return Err(wrong("rank of a group", expected, got));
            }
            residual += (model.rel_error(tensor.view()) * cp_core::norm(tensor.view())).powi(2);
        }
        let rel_error = relative(residual, cp_core::norm(self.kernel(layer)?));
        drop(tensors);
        let factors: Vec<Factors> = models.iter().map(|model| model.factors(form)).collect();
        self.put_factors(layer, &factors, rel_error)
    }
}

/// √residual / norm, 0 for a kernel of zeros with a model of zeros.
fn relative(residual: f64, norm: f64) -> f64 {
    if residual == 0.0 { 0.0 } else { residual.sqrt() / norm }
}
