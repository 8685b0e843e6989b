//! What can go wrong: [`CpError`].

/// Why a decomposition was refused or could not go on.
///
/// Not converging is no error: it is a [`StopReason`](crate::StopReason).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CpError {
    /// The tensor has fewer than two modes, or a kernel was given fewer than it needs.
    #[error("the tensor has order {order}, expected at least 2 modes")]
    Order {
        /// Number of modes given.
        order: usize,
    },
    /// A mode of the tensor has size 0.
    #[error("mode {mode} of the tensor of shape {shape:?} is empty")]
    EmptyMode {
        /// The first empty mode, from 0.
        mode: usize,
        /// Shape of the tensor.
        shape: Vec<usize>,
    },
    /// An entry is NaN or infinite.
    #[error("the {what} holds {value} at {index:?}, expected finite numbers")]
    NotFinite {
        /// Which array: `"tensor"`, `"matrix"`, `"weights"`, `"factor"`, `"core"`.
        what: &'static str,
        /// Index of the first such entry, in row-major order.
        index: Vec<usize>,
        /// The entry: NaN, +∞ or −∞.
        value: f64,
    },
    /// The rank is 0.
    #[error("rank 0 was asked for, expected at least 1")]
    RankZero,
    /// The rank of a matrix decomposition is larger than the smaller side of the matrix.
    #[error("rank {rank} was asked of a {rows}×{columns} matrix, expected at most {}", rows.min(columns))]
    RankAboveMatrix {
        /// Rank asked for.
        rank: usize,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// The work space for this rank cannot be had.
    #[error(
        "rank {rank} on shape {shape:?} needs about {bytes} bytes of work space, which cannot be allocated; lower the rank"
    )]
    OutOfMemory {
        /// Rank asked for.
        rank: usize,
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// Estimated work space in bytes ([`u128::MAX`] where the estimate overflows).
        bytes: u128,
    },
    /// A factor matrix has the wrong shape.
    #[error("the factor of mode {mode} has shape {got:?}, expected {expected:?}")]
    FactorShape {
        /// The mode, from 0.
        mode: usize,
        /// `[Iₙ, R]`.
        expected: [usize; 2],
        /// Shape given.
        got: [usize; 2],
    },
    /// The number of factor matrices differs from the number of modes.
    #[error("{got} factors were given for a tensor of order {expected}")]
    FactorCount {
        /// Order of the tensor.
        expected: usize,
        /// Number of factors given.
        got: usize,
    },
    /// The number of weights differs from the rank.
    #[error("{got} weights were given for factors of rank {expected}")]
    WeightCount {
        /// Rank of the factors.
        expected: usize,
        /// Number of weights given.
        got: usize,
    },
    /// A matrix cannot be folded into the shape.
    #[error("a matrix of shape {got:?} cannot be folded along mode {mode} into {shape:?}")]
    FoldShape {
        /// The mode that the rows belong to.
        mode: usize,
        /// Shape asked for.
        shape: Vec<usize>,
        /// Shape of the matrix.
        got: [usize; 2],
    },
    /// A mode that the tensor does not have.
    #[error("mode {mode} of a tensor of order {order}; modes count from 0")]
    Mode {
        /// The mode asked for.
        mode: usize,
        /// Order of the tensor.
        order: usize,
    },
    /// An option of a solver has an impossible value.
    #[error("option {option} is {value}, expected {expected}")]
    InvalidOption {
        /// Name of the setter.
        option: &'static str,
        /// Value given.
        value: f64,
        /// What would do.
        expected: &'static str,
    },
    /// The normal matrix of a mode is singular: the terms are linearly dependent there.
    #[error(
        "the normal matrix of mode {mode} is singular in iteration {iter}; set a ridge above 0 (`Als::ridge`) or lower the rank"
    )]
    SingularNormalMatrix {
        /// The mode whose factor was being solved for, from 0.
        mode: usize,
        /// The sweep, from 1.
        iter: usize,
    },
    /// The entries are so large that the weights of the model leave the range of the number type.
    #[error(
        "the entries reach {largest:e}: the weights of the model do not fit the number type; scale the tensor down"
    )]
    Range {
        /// Largest absolute entry of the tensor.
        largest: f64,
    },
    /// A search over solvers was given none.
    #[error("a search for the best of no solvers, expected at least 1")]
    NoSolver,
    /// A dense factorization (singular value or eigenvalue decomposition) did not converge.
    #[error("the {what} of a {rows}×{columns} matrix did not converge")]
    NoConvergence {
        /// The factorization.
        what: &'static str,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        columns: usize,
    },
    /// Input statistics of another size than the tensor has input entries, or a batch of another width.
    #[error("input statistics for {got} entries were given where {expected} are needed")]
    StatisticsSize {
        /// Entries of an unfolded input: the product of all modes of the tensor but the first.
        expected: usize,
        /// Size given.
        got: usize,
    },
    /// A matrix of second moments is not symmetric.
    #[error(
        "the second moments hold {values:?} at {index:?} and its mirror image, expected equal numbers"
    )]
    NotSymmetric {
        /// Row and column.
        index: [usize; 2],
        /// The entry and the one across the diagonal.
        values: [f64; 2],
    },
    /// A matrix of second moments has a negative eigenvalue.
    #[error("the second moments, a matrix of {size}×{size}, have a negative eigenvalue")]
    NotPositive {
        /// Rows of the matrix.
        size: usize,
    },
    /// Input statistics without any input.
    #[error("the input statistics hold no example; call `InputStatistics::add` first")]
    NoExamples,
    /// The rank of a mode is larger than its size, where a basis of that mode is wanted.
    #[error(
        "rank {rank} was asked of mode {mode}, which has size {size}, expected at most {size}; lower the rank or leave the mode out"
    )]
    RankAboveMode {
        /// The mode, from 0.
        mode: usize,
        /// Rank asked for.
        rank: usize,
        /// Size of the mode.
        size: usize,
    },
    /// The number of ranks differs from the number of modes to compress.
    #[error("{got} ranks were given for {expected} modes")]
    RankCount {
        /// Modes to compress.
        expected: usize,
        /// Number of ranks given.
        got: usize,
    },
    /// Clusters of equal size that the rows cannot be split into, or labels of clusters that are not of one size.
    #[error(
        "{clusters} clusters of {rows} {what} are not of equal size; choose a divisor of {rows}, and as many rows for each"
    )]
    UnequalClusters {
        /// What is clustered: `"rows"`, `"output channels"`, `"input channels"`.
        what: &'static str,
        /// Clusters asked for.
        clusters: usize,
        /// How many there are to be clustered.
        rows: usize,
    },
    /// More colours than filters, or an assignment that does not fit them.
    #[error(
        "{colours} colours were given for {filters} filters, expected 1 to {filters}, and one for each filter"
    )]
    Colours {
        /// Colours asked for, or one more than the largest that is assigned.
        colours: usize,
        /// Filters of the kernel.
        filters: usize,
    },
}
