//! CP decomposition (CANDECOMP/PARAFAC) of dense tensors on the CPU, in f32 and f64.
//!
//! A tensor X of order N is written as a sum of R rank-one terms,
//!
//! > X ≈ X̂ = ⟦λ; A⁽⁰⁾, …, A⁽ᴺ⁻¹⁾⟧ = Σᵣ λᵣ a⁽⁰⁾ᵣ ∘ a⁽¹⁾ᵣ ∘ … ∘ a⁽ᴺ⁻¹⁾ᵣ,
//!
//! a [`CpTensor`]. A [`Solver`] finds the terms; [`Auto`] and [`Als`] are the ones to start with. The crate knows no network and reads no
//! file; the clock is read for [`Decomposition::seconds`] alone.
//!
//! ```
//! use cp_core::{Als, CpTensor, Init, Solver, congruence, rel_error};
//! use ndarray::Array2;
//!
//! // A 6×5×4 tensor of rank 2 …
//! let column = |size: usize, r: usize, k: f64| Array2::from_shape_fn((size, r), |(i, r)| (i as f64 * k + r as f64).cos());
//! let truth = CpTensor::from_factors(vec![column(6, 2, 0.9), column(5, 2, 1.7), column(4, 2, 2.3)])?;
//! let x = truth.reconstruct();
//!
//! // … and its terms again, up to their order, signs and scaling.
//! let found = Als::new(2).max_iters(500).tol(1e-12).init(Init::Random { seed: 1 }).decompose(x.view())?;
//! assert!(found.rel_error < 1e-6);
//! assert!(congruence(&found.cp, &truth).min > 0.999);
//!
//! // The model: 2 (6 + 5 + 4) numbers in place of 120.
//! assert_eq!(found.cp.shape(), [6, 5, 4]);
//! assert_eq!(found.cp.parameters(), 30);
//! assert!(rel_error(x.view(), &found.cp) < 1e-6);
//! # Ok::<(), cp_core::CpError>(())
//! ```
//!
//! # Which solver?
//!
//! | you have | take |
//! |---|---|
//! | no idea | [`Auto`] |
//! | a convolution kernel | [`Als`], [extrapolated](Als::extrapolate) |
//! | terms that cancel each other | [`Epc`] |
//! | the layer's inputs | [`DataAwareAls`], [`DataAwareTucker2`] |
//! | nearly collinear terms | [`Nls`]; to the last digits [`AlsQr`] |
//! | terms that must not be negative | [`NonNegAls`] |
//! | terms one after another | [`PowerMethod`] |
//! | a tensor too large for exact sweeps | [`SampledAls`] |
//! | a very long mode | [`Precompressed`] |
//! | a core instead of terms | [`Hosvd`], [`Hooi`], [`Tucker2`]; both: [`TkdCpd`] |
//! | channels that are alike in clusters | [`Biclusters`], for each block [`PowerMethod::greedy`] or [`block_svd`] |
//! | filters that read one mixture of channels each | [`monochromatic`] |
//! | several starts, ranks, tensors | [`Restarts`], [`rank_path`], [`decompose_all`] |
//! | no rank | the module [`rank`] |
//!
//! # Notation
//!
//! | symbol | name | meaning |
//! |---|---|---|
//! | N, Iₙ | order, size | number of modes; entries along mode n. Modes count from 0 |
//! | R | rank | number of rank-one terms |
//! | λ | [`weights`](CpTensor::weights) | `[R]`; ≥ 0 after [`normalize`](CpTensor::normalize) |
//! | A⁽ⁿ⁾ | [`factors`](CpTensor::factors) | `[Iₙ, R]`; column r belongs to term r |
//! | X₍ₙ₎ | [`unfold`] | `[Iₙ, ∏_{m≠n} Iₘ]` |
//! | ⊙ | [`khatri_rao`] | column-wise Kronecker product |
//! | ⊛ | | entrywise product |
//! | G | [`mttkrp`] | X₍ₙ₎ (⊙_{m≠n} A⁽ᵐ⁾), `[Iₙ, R]` |
//! | Γ | | normal matrix ⊛_{m≠n} A⁽ᵐ⁾ᵀA⁽ᵐ⁾ ([`gram`]), `[R, R]` |
//! | ‖X − X̂‖ / ‖X‖ | [`rel_error`] | [`fit`] is 1 − this; norms are Frobenius norms |
//!
//! # Conventions
//!
//! Arrays are row-major. In unfoldings and Khatri–Rao products the last of the remaining modes varies fastest, so that
//! X̂₍ₙ₎ = A⁽ⁿ⁾ diag(λ) (A⁽⁰⁾ ⊙ … skipping n … ⊙ A⁽ᴺ⁻¹⁾)ᵀ. This is the order of TensorLy; Kolda & Bader (2009) and pyttb run
//! the other way, so their equations are cited with that remark.
//!
//! Tensors come in as views of any layout, and are copied only where they are not row-major. Large products run in the
//! tensor's own type, Grams, small solves, norms and errors in f64 (see [`Real`]).
//!
//! Every random draw takes a seed. Work is shared between the threads of the current rayon pool, cut by its size alone:
//! one seed gives bit-equal results on any number of threads. With a pool of one thread nothing is spawned.
//!
//! Bad tensors and options are a [`CpError`]. Not converging is a [`StopReason`]. Kernels ([`unfold`], [`mttkrp`], …)
//! panic where shapes do not fit together.
//!
//! # Which rank?
//!
//! A CP model of a convolution kernel `[T, S, kh, kw]` pays below R = T·S·kh·kw / (T + S + kh + kw). Ranks above the size
//! of a mode are fine. Look at [`Decomposition::component_energy`] too: above about 10, the terms cancel each other, and a
//! network made of them is hard to fine-tune; a larger [`Als::ridge`] lowers it at little cost in error.
//!
//! # References
//!
//! * T. G. Kolda & B. W. Bader, "Tensor decompositions and applications", SIAM Review 51 (2009).
//! * A.-H. Phan, P. Tichavský & A. Cichocki, "Fast alternating LS algorithms for high order CANDECOMP/PARAFAC tensor
//!   factorizations", IEEE Trans. Signal Processing 61 (2013).
//! * A.-H. Phan et al., "Stable low-rank tensor decomposition for compression of convolutional neural network",
//!   ECCV 2020, arXiv 2008.05441.

mod assignment;
mod biclusters;
mod block_svd;
mod clusters;
mod cp_tensor;
mod decoupled;
mod error;
mod init;
mod khatri_rao;
mod linalg;
pub mod measure;
mod monochromatic;
mod mttkrp;
mod precompress;
mod problem;
mod progress;
mod random;
pub mod rank;
mod real;
mod resize;
mod scale;
mod separable;
mod side_by_side;
mod solver;
mod statistics;
mod svd;
mod tensor_train;
mod threads;
mod tree;
mod tucker;
mod unfold;

pub use biclusters::Biclusters;
pub use block_svd::{BlockSvd, RightFactor, block_svd};
pub use clusters::{Likeness, cluster_energy, equal_clusters};
pub use cp_tensor::CpTensor;
pub use decoupled::{Decoupled, decoupled};
pub use error::CpError;
pub use init::Init;
pub use khatri_rao::khatri_rao;
pub use linalg::gram;
pub use measure::{
    Congruence, component_energy, congruence, degeneracy, fit, norm, rel_error, sensitivity,
};
pub use monochromatic::{Monochromatic, monochromatic};
pub use mttkrp::{mttkrp, mttkrp_slow};
pub use precompress::Precompressed;
pub use progress::{Progress, StopReason};
pub use real::Real;
pub use resize::resize;
pub use separable::{Separable, separable};
pub use side_by_side::{Job, decompose_all};
pub use solver::{
    Als, AlsQr, Auto, DataAwareAls, DataAwareTucker2, Decomposition, Delta, Epc, Nls, NonNegAls,
    PowerMethod, Restarts, SampledAls, Solver, TkdCpd, TkdCpdDecomposition, WeightedTucker2,
    best_of, extend, rank_path, weighted_distance, weighted_rel_error,
};
pub use statistics::InputStatistics;
pub use svd::{Svd, WeightedSvd, truncated_svd, weighted_svd};
pub use tensor_train::{TensorTrain, tensor_train};
pub use tucker::{
    Hooi, Hosvd, Tucker2, TuckerDecomposition, TuckerInit, TuckerSolver, TuckerTensor, mode_product,
};
pub use unfold::{fold, unfold};
