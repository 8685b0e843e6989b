//! Where a solver starts: [`Init`].

use ndarray::{Array2, ArrayView2};

use crate::cp_tensor::CpTensor;
use crate::error::CpError;
use crate::random::{self, Purpose};
use crate::real::Real;
use crate::resize::resize;
use crate::svd::truncated_svd;
use crate::tree::Dense;
use crate::unfold::unfold;

/// The starting factors of a solver.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// Independent standard normal entries. f32 and f64 start from the same numbers.
    Random {
        /// Seed of the draw.
        seed: u64,
    },
    /// Leading left singular vectors of each unfolding; where a mode is smaller than the rank, the columns that are
    /// missing are drawn as in [`Init::Random`].
    ///
    /// At ranks well above the modes' sizes, as for convolution kernels, most columns are random ones, and a start from
    /// random factors alone tends to end lower.
    Hosvd {
        /// Seed of the random columns.
        seed: u64,
    },
    /// Given factors, for instance an earlier result.
    Factors(CpTensor<f64>),
    /// A model of any rank, brought to the one asked for by [`resize`](crate::resize): its largest terms, or all of them
    /// and small random ones.
    Resized {
        /// The model, of the tensor's shape.
        from: CpTensor<f64>,
        /// Seed of the random terms.
        seed: u64,
    },
}

impl Init {
    /// The factors to start from.
    ///
    /// # Shapes
    /// `tensor`: `[I₀, …, I_N₋₁]`, finite; result: factors `[Iₙ, rank]`, weights `[rank]`.
    ///
    /// # Errors
    /// Given factors that do not fit the tensor or the rank, or hold NaN or infinite entries.
    pub(crate) fn factors<T: Real>(
        &self,
        tensor: &Dense<'_, T>,
        rank: usize,
    ) -> Result<CpTensor<f64>, CpError> {
        match self {
            Init::Random { seed } => {
                CpTensor::from_factors(random::factors(&tensor.shape, rank, *seed, Purpose::Start))
            }
            Init::Hosvd { seed } => CpTensor::from_factors(hosvd(tensor, rank, *seed)?),
            Init::Factors(cp) => {
                let expected = tensor.shape.len();
                if cp.factors.len() != expected {
                    return Err(CpError::FactorCount { expected, got: cp.factors.len() });
                }
                for (mode, (factor, &size)) in cp.factors.iter().zip(&tensor.shape).enumerate() {
                    let (expected, got) = ([size, rank], [factor.nrows(), factor.ncols()]);
                    if got != expected {
                        return Err(CpError::FactorShape { mode, expected, got });
                    }
                }
                CpTensor::new(cp.weights.clone(), cp.factors.clone())
            }
            Init::Resized { from, seed } => {
                // The checks of given factors, at the rank that they have.
                let from = Init::Factors(from.clone()).factors(tensor, from.rank())?;
                resize(&from, rank, *seed)
            }
        }
    }
}

/// Left singular vectors of each unfolding, padded with random columns of expected norm 1.
fn hosvd<T: Real>(
    tensor: &Dense<'_, T>,
    rank: usize,
    seed: u64,
) -> Result<Vec<Array2<f64>>, CpError> {
    let view = ndarray::ArrayViewD::from_shape(tensor.shape.as_slice(), &tensor.data);
    let view = view.expect("a dense tensor has as many entries as its shape says");
    let mut factors = random::factors(&tensor.shape, rank, seed, Purpose::Start);
    for (mode, factor) in factors.iter_mut().enumerate() {
        let unfolded: Array2<T> = unfold(view.view(), mode);
        let (rows, columns) = unfolded.dim();
        let svd = truncated_svd(ArrayView2::from(&unfolded), rank.min(rows).min(columns))?;
        *factor /= (rows as f64).sqrt();
        for (mut column, vector) in factor.columns_mut().into_iter().zip(svd.u.columns()) {
            column.zip_mut_with(&vector, |to, from| *to = from.widen());
        }
    }
    Ok(factors)
}
