//! The Kruskal tensor ⟦λ; A⁽⁰⁾, …, A⁽ᴺ⁻¹⁾⟧: [`CpTensor`].

use ndarray::{Array1, Array2, ArrayD, ArrayView2, IxDyn};

use crate::error::CpError;
use crate::khatri_rao::khatri_rao;
use crate::linalg::{gram, mat, mat_mut, product};
use crate::real::Real;

/// A tensor as a sum of R rank-one terms, X̂ = Σᵣ λᵣ a⁽⁰⁾ᵣ ∘ … ∘ a⁽ᴺ⁻¹⁾ᵣ.
///
/// # Shapes
/// `weights`: λ, `[R]`; `factors[n]`: A⁽ⁿ⁾, `[Iₙ, R]`.
///
/// Methods panic where the fields do not fit together; [`CpTensor::new`] checks that.
#[derive(Debug, Clone, PartialEq)]
pub struct CpTensor<T = f64> {
    /// λ, one number per term, `[R]`.
    pub weights: Array1<T>,
    /// One factor matrix per mode, `[Iₙ, R]`.
    pub factors: Vec<Array2<T>>,
}

impl<T: Real> CpTensor<T> {
    /// Checks that the parts fit together.
    ///
    /// # Errors
    /// Fewer than two factors, an empty one, rank 0, different ranks, entries that are not finite.
    pub fn new(weights: Array1<T>, factors: Vec<Array2<T>>) -> Result<Self, CpError> {
        let order = factors.len();
        if order < 2 {
            return Err(CpError::Order { order });
        }
        let rank = factors[0].ncols();
        if rank == 0 {
            return Err(CpError::RankZero);
        }
        let shape: Vec<usize> = factors.iter().map(|f| f.nrows()).collect();
        if let Some(mode) = shape.iter().position(|&size| size == 0) {
            return Err(CpError::EmptyMode { mode, shape });
        }
        for (mode, factor) in factors.iter().enumerate() {
            let got = [factor.nrows(), factor.ncols()];
            if got[1] != rank {
                return Err(CpError::FactorShape { mode, expected: [got[0], rank], got });
            }
            if let Some(((i, r), value)) = factor.indexed_iter().find(|(_, x)| !x.is_finite()) {
                return Err(CpError::NotFinite {
                    what: "factor",
                    index: vec![mode, i, r],
                    value: value.widen(),
                });
            }
        }
        if weights.len() != rank {
            return Err(CpError::WeightCount { expected: rank, got: weights.len() });
        }
        if let Some((r, value)) = weights.indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(CpError::NotFinite {
                what: "weights",
                index: vec![r],
                value: value.widen(),
            });
        }
        Ok(Self { weights, factors })
    }

    /// A model with all weights 1.
    ///
    /// # Errors
    /// As [`CpTensor::new`].
    pub fn from_factors(factors: Vec<Array2<T>>) -> Result<Self, CpError> {
        let rank = factors.first().map_or(0, |f| f.ncols());
        Self::new(Array1::ones(rank), factors)
    }

    /// Number of terms R.
    pub fn rank(&self) -> usize {
        self.weights.len()
    }

    /// Number of modes N.
    pub fn order(&self) -> usize {
        self.factors.len()
    }

    /// Shape of the tensor, `[I₀, …, I_N₋₁]`.
    pub fn shape(&self) -> Vec<usize> {
        self.factors.iter().map(|f| f.nrows()).collect()
    }

    /// Number of entries of the factors, R Σₙ Iₙ: what a layer in this form stores (λ is folded in).
    pub fn parameters(&self) -> usize {
        self.rank() * self.shape().iter().sum::<usize>()
    }

    /// The full tensor X̂, `[I₀, …, I_N₋₁]`.
    ///
    /// # Panics
    /// If the fields do not fit together.
    #[track_caller]
    pub fn reconstruct(&self) -> ArrayD<T> {
        let shape = self.shape();
        let split = crate::tree::split(&shape);
        let views: Vec<_> = self.factors.iter().map(|f| f.view()).collect();
        let left = khatri_rao(&views[..split]) * &self.weights;
        let right = khatri_rao(&views[split..]);
        let (rows, columns, rank) = (left.nrows(), right.nrows(), self.rank());
        let mut data = vec![T::zero(); rows * columns];
        let (left, right) = (standard(&left), standard(&right));
        product(
            mat_mut(&mut data, rows, columns),
            mat(&left, rows, rank),
            mat(&right, columns, rank).transpose(),
        );
        ArrayD::from_shape_vec(IxDyn(&shape), data)
            .expect("the product of the sizes is the number of entries")
    }

    /// ‖X̂‖, from the Grams of the factors: √(λᵀ(⊛ₙ AₙᵀAₙ)λ).
    ///
    /// Loses digits where large terms cancel each other; `self.reconstruct()` does not.
    pub fn norm(&self) -> f64 {
        let weights: Array1<f64> = self.weights.mapv(T::widen);
        let gram = self.gram();
        weights.dot(&gram.dot(&weights)).max(0.0).sqrt()
    }

    /// ⊛ₙ AₙᵀAₙ, the inner products of the terms without their weights, `[R, R]`.
    pub fn gram(&self) -> Array2<f64> {
        let rank = self.rank();
        self.factors.iter().fold(Array2::ones((rank, rank)), |product, f| product * gram(f.view()))
    }

    /// Norm of each rank-one term, |λᵣ| ∏ₙ ‖a⁽ⁿ⁾ᵣ‖, `[R]`.
    pub fn term_norms(&self) -> Array1<f64> {
        let norms: Vec<_> = self.factors.iter().map(|f| column_norms(f.view())).collect();
        Array1::from_shape_fn(self.rank(), |r| {
            norms.iter().fold(self.weights[r].widen().abs(), |product, norms| product * norms[r])
        })
    }

    /// Component energy: Σᵣ (norm of term r)² / ‖X‖², for the norm of the tensor that this is a model of.
    ///
    /// 1 for orthogonal terms that explain all of X; above about 10 the terms cancel each other, and fine-tuning suffers.
    /// 0 where both model and tensor are zero.
    pub fn component_energy(&self, norm_of_x: f64) -> f64 {
        // Divide before squaring: neither may overflow.
        let norms = self.term_norms();
        norms.iter().filter(|&&norm| norm > 0.0).map(|norm| (norm / norm_of_x).powi(2)).sum()
    }

    /// Scales every column of every factor to unit 2-norm and moves the norms and signs into the weights' place:
    /// afterwards all λ ≥ 0 (a negative sign goes to the column of mode 0). The tensor stays the same.
    ///
    /// A term with a zero column gets λ = 0 and keeps that column.
    pub fn normalize(&mut self) {
        let scales = self.unit_columns();
        for (r, &(magnitude, negative)) in scales.iter().enumerate() {
            self.weights[r] = T::narrow(magnitude);
            if negative {
                self.factors[0].column_mut(r).mapv_inplace(|x| -x);
            }
        }
    }

    /// Folds λ into the factors: all weights become 1, and the columns of a term get the same norm in every mode, the
    /// N-th root of the norm of the term. The tensor stays the same.
    ///
    /// This is the one place where λ is folded. Equal norms minimise the sensitivity of the tensor to noise on the
    /// factors, and let the layers made of them train at one pace. A negative λ goes to the column of mode 0.
    pub fn balance(&mut self) {
        let order = self.order() as f64;
        let scales = self.unit_columns();
        for (r, &(magnitude, negative)) in scales.iter().enumerate() {
            let norm = magnitude.powf(order.recip());
            for (mode, factor) in self.factors.iter_mut().enumerate() {
                let scale = T::narrow(if negative && mode == 0 { -norm } else { norm });
                factor.column_mut(r).mapv_inplace(|x| x * scale);
            }
            self.weights[r] = T::one();
        }
    }

    /// Sorts the terms by their norm, largest first.
    pub fn sort(&mut self) {
        let norms = self.term_norms();
        let mut order: Vec<usize> = (0..self.rank()).collect();
        order.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]));
        self.weights = order.iter().map(|&r| self.weights[r]).collect();
        for factor in &mut self.factors {
            *factor = factor.select(ndarray::Axis(1), &order);
        }
    }

    /// The same model in another number type (rounded to nearest when narrowing).
    pub fn cast<U: Real>(&self) -> CpTensor<U> {
        CpTensor {
            weights: self.weights.mapv(|x| U::narrow(x.widen())),
            factors: self.factors.iter().map(|f| f.mapv(|x| U::narrow(x.widen()))).collect(),
        }
    }

    /// Makes all columns unit vectors (zero columns stay) and returns the norm and the sign that each term loses by it.
    fn unit_columns(&mut self) -> Vec<(f64, bool)> {
        let norms: Vec<_> = self.factors.iter().map(|f| column_norms(f.view())).collect();
        for (factor, norms) in self.factors.iter_mut().zip(&norms) {
            for (mut column, &norm) in factor.columns_mut().into_iter().zip(norms) {
                if norm > 0.0 {
                    column.mapv_inplace(|x| T::narrow(x.widen() / norm));
                }
            }
        }
        let scale = |(r, weight): (usize, &T)| {
            let norm = norms.iter().fold(weight.widen().abs(), |product, norms| product * norms[r]);
            (norm, *weight < T::zero())
        };
        self.weights.iter().enumerate().map(scale).collect()
    }
}

/// 2-norm of every column, in f64; safe against overflow and underflow. `matrix`: `[I, R]`; result: `[R]`.
pub(crate) fn column_norms<T: Real>(matrix: ArrayView2<'_, T>) -> Array1<f64> {
    let mut largest = Array1::<f64>::zeros(matrix.ncols());
    for row in matrix.rows() {
        largest.zip_mut_with(&row, |largest, x| *largest = largest.max(x.widen().abs()));
    }
    let mut squares = Array1::<f64>::zeros(matrix.ncols());
    for row in matrix.rows() {
        ndarray::Zip::from(&mut squares).and(&row).and(&largest).for_each(|square, x, &largest| {
            if largest > 0.0 {
                let x = x.widen() / largest;
                *square += x * x;
            }
        });
    }
    squares.zip_mut_with(&largest, |square, &largest| *square = square.sqrt() * largest);
    squares
}

/// The entries in row-major order.
fn standard<T: Real>(matrix: &Array2<T>) -> std::borrow::Cow<'_, [T]> {
    matrix.as_slice().map_or_else(|| matrix.iter().copied().collect(), std::borrow::Cow::Borrowed)
}
