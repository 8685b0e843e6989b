//! [`KernelModel`]: the decomposition of one kernel, as the arrays of a factorized layer are made of it.

use cp_core::{CpTensor, Svd, TuckerTensor};
use cp_net::{Factors, Form, Rank};
use ndarray::{Array2, ArrayD, ArrayViewD, Axis};

/// The decomposition of the kernel of a layer, or of one group of it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum KernelModel {
    /// For [`Form::Cp3`] and [`Form::Cp4`].
    Cp(CpTensor<f32>),
    /// For [`Form::LowRank`].
    LowRank(Svd<f32>),
    /// For [`Form::Tucker2`]: factors of modes 0 and 1 of `[T, S, ∏k]`.
    Tucker2(TuckerTensor<f32>),
    /// For [`Form::TkdCpd`].
    TkdCpd {
        /// Tucker-2 of the kernel; of its core only the shape counts.
        tucker: TuckerTensor<f32>,
        /// CP model of the core, `[R_out, R_in, ∏k]`.
        core: CpTensor<f32>,
    },
    /// For the forms with their solutions in parts: Jaderberg's, the decoupled one, Denton's.
    Parts {
        /// Which of them.
        form: Form,
        /// The rank.
        rank: Rank,
        /// The weights of the parts, with a row for every output channel of the group.
        parts: Vec<Array2<f32>>,
        /// Which channel goes where, as [`Factors::order`] has it.
        order: Vec<Vec<usize>>,
        /// The tensor that they make.
        kernel: ArrayD<f32>,
    },
}

impl KernelModel {
    /// The rank, as the form counts it.
    pub fn rank(&self) -> Rank {
        match self {
            KernelModel::Cp(cp) => Rank::One(cp.rank()),
            KernelModel::LowRank(svd) => Rank::One(svd.rank()),
            KernelModel::Tucker2(tucker) => Rank::Two(outer_ranks(tucker)),
            KernelModel::TkdCpd { tucker, core } => {
                let [out, input] = outer_ranks(tucker);
                Rank::Three([out, input, core.rank()])
            }
            KernelModel::Parts { rank, .. } => *rank,
        }
    }

    /// Shape of the tensor that this is a model of.
    pub fn shape(&self) -> Vec<usize> {
        match self {
            KernelModel::Cp(cp) => cp.shape(),
            KernelModel::LowRank(svd) => vec![svd.u.nrows(), svd.vt.ncols()],
            KernelModel::Tucker2(tucker) | KernelModel::TkdCpd { tucker, .. } => tucker.shape(),
            KernelModel::Parts { kernel, .. } => kernel.shape().to_vec(),
        }
    }

    /// ‖K − K̂‖ / ‖K‖ for the tensor K that this is a model of.
    ///
    /// # Panics
    /// If `tensor` has another shape.
    pub fn rel_error(&self, tensor: ArrayViewD<'_, f32>) -> f64 {
        match self {
            KernelModel::Cp(cp) => cp_core::rel_error(tensor, cp),
            KernelModel::LowRank(svd) => {
                let norm = cp_core::norm(tensor.view());
                let residual = cp_core::norm((&svd.reconstruct().into_dyn() - &tensor).view());
                if residual == 0.0 { 0.0 } else { residual / norm }
            }
            KernelModel::Tucker2(tucker) => tucker.rel_error(tensor),
            KernelModel::TkdCpd { tucker, core } => match tucker.expand(core) {
                Ok(cp) => cp_core::rel_error(tensor, &cp),
                // A core of another shape.
                Err(_) => f64::NAN,
            },
            KernelModel::Parts { kernel, .. } => {
                let residual = cp_core::norm((kernel - &tensor).view());
                if residual == 0.0 { 0.0 } else { residual / cp_core::norm(tensor) }
            }
        }
    }

    /// Whether a layer in `form` is made of models of this kind.
    pub(crate) fn fits(&self, form: Form) -> bool {
        match self {
            KernelModel::Cp(_) => matches!(form, Form::Cp3 | Form::Cp4),
            KernelModel::LowRank(_) => form == Form::LowRank,
            KernelModel::Tucker2(_) => form == Form::Tucker2,
            KernelModel::TkdCpd { .. } => form == Form::TkdCpd,
            KernelModel::Parts { form: own, .. } => form == *own,
        }
    }

    /// The factors of a layer in `form` that this is a model of a group of.
    pub(crate) fn factors(&self, form: Form) -> Factors {
        let order = match self {
            KernelModel::Parts { order, .. } => order.clone(),
            _ => Vec::new(),
        };
        Factors::new(form, self.rank(), self.parts()).with_order(order)
    }

    /// The weights of the parts in order, each as a matrix with a row for every output channel of this group.
    ///
    /// λ is folded in and the norms of CP factors are balanced ([`CpTensor::balance`]).
    fn parts(&self) -> Vec<Array2<f32>> {
        match self {
            KernelModel::Cp(cp) => {
                let [first, inner @ ..] = &balanced(cp).factors[..] else { return Vec::new() };
                let mut parts: Vec<Array2<f32>> = inner.iter().map(|f| f.t().to_owned()).collect();
                parts.push(first.clone());
                parts
            }
            KernelModel::LowRank(svd) => {
                let (expand, reduce) = svd.balanced();
                vec![reduce, expand]
            }
            KernelModel::Tucker2(tucker) => {
                let (expand, reduce) = outer_factors(tucker);
                let rows = tucker.core.len_of(Axis(0));
                let columns = tucker.core.len() / rows.max(1);
                let core = Array2::from_shape_fn((rows, columns), |_| 0.0);
                let core =
                    tucker.core.to_shape((rows, columns)).map_or(core, |matrix| matrix.to_owned());
                vec![reduce, core, expand]
            }
            KernelModel::TkdCpd { tucker, core } => {
                let (expand, reduce) = outer_factors(tucker);
                let [out, inner @ ..] = &balanced(core).factors[..] else { return Vec::new() };
                let mut parts = vec![reduce];
                parts.extend(inner.iter().map(|f| f.t().to_owned()));
                parts.push(out.clone());
                parts.push(expand);
                parts
            }
            KernelModel::Parts { parts, .. } => parts.clone(),
        }
    }
}

fn balanced(cp: &CpTensor<f32>) -> CpTensor<f32> {
    let mut cp = cp.clone();
    cp.balance();
    cp
}

/// R_out and R_in.
fn outer_ranks(tucker: &TuckerTensor<f32>) -> [usize; 2] {
    [0, 1].map(|mode| tucker.core.shape().get(mode).copied().unwrap_or(0))
}

/// `expand`, `[T, R_out]`, and `reduce`, `[R_in, S]`; a mode without a factor has the identity.
fn outer_factors(tucker: &TuckerTensor<f32>) -> (Array2<f32>, Array2<f32>) {
    let [out, input] = [0, 1].map(|mode| match tucker.factors.get(mode) {
        Some(Some(factor)) => factor.clone(),
        _ => Array2::eye(outer_ranks(tucker)[mode]),
    });
    (out, input.reversed_axes())
}
