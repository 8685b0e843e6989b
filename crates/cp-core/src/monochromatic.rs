//! Filters that read one colour each: [`monochromatic`].

use ndarray::{Array2, Array3, ArrayD, ArrayView2, ArrayView3, s};
use rand::Rng;

use crate::error::CpError;
use crate::random::{Purpose, generator};
use crate::real::Real;
use crate::svd::truncated_svd;

/// K\[t, s, k\] ≈ u\[a(t), s\] f\[t, k\]: colours, which are mixtures of the input channels, and for every output channel one of these and a
/// spatial filter.
///
/// Source: Denton, Zaremba, Bruna, LeCun & Fergus (2014), §3.1 ("monochromatic convolution approximation"), for a first layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Monochromatic<T = f64> {
    /// u, `[C, S]`; each as long as its filters together.
    pub colours: Array2<T>,
    /// a, `[T]`.
    pub assignment: Vec<usize>,
    /// f, `[T, K]`.
    pub spatial: Array2<T>,
}

/// Starts, of which the one that ends best is kept.
const STARTS: u64 = 16;
/// Most rounds from a start.
const ROUNDS: usize = 100;
/// Gain of a round, relative to ‖K‖², at which a start has come to its end.
const GAIN: f64 = 1e-9;

impl<T: Real> Monochromatic<T> {
    /// The best colours and filters for a known assignment: each colour is the leading left singular vector of its filters side by side.
    ///
    /// # Shapes
    /// `kernel`: `[T, S, K]`; `assignment`: `[T]`, numbers below `colours`, C.
    ///
    /// # Errors
    /// An empty kernel, entries that are not finite, C of 0 or above T, an assignment of another length or to other colours.
    pub fn assigned(
        kernel: ArrayView3<'_, T>,
        colours: usize,
        assignment: &[usize],
    ) -> Result<Self, CpError> {
        let (filters, inputs, taps) = kernel.dim();
        check(kernel, colours)?;
        let most = assignment.iter().max().map_or(0, |most| most + 1);
        if assignment.len() != filters || most > colours {
            return Err(CpError::Colours { colours: most, filters: assignment.len() });
        }
        let mut found = Self {
            colours: Array2::from_elem((colours, inputs), T::zero()),
            assignment: assignment.to_vec(),
            spatial: Array2::from_elem((filters, taps), T::zero()),
        };
        for colour in 0..colours {
            let own: Vec<usize> = (0..filters).filter(|&t| assignment[t] == colour).collect();
            let side_by_side = Array2::from_shape_fn((inputs, own.len() * taps), |(s, at)| {
                kernel[[own[at / taps], s, at % taps]]
            });
            if own.is_empty() {
                continue;
            }
            let (left, right) = truncated_svd(side_by_side.view(), 1)?.balanced();
            found.colours.row_mut(colour).assign(&left.column(0));
            for (place, &t) in own.iter().enumerate() {
                let row = right.row(0);
                let filter = row.slice(s![place * taps..(place + 1) * taps]);
                found.spatial.row_mut(t).assign(&filter);
            }
        }
        Ok(found)
    }

    /// The kernel that they make, `[T, S, K]`.
    pub fn reconstruct(&self) -> ArrayD<T> {
        let shape = (self.spatial.nrows(), self.colours.ncols(), self.spatial.ncols());
        let entry = |(t, s, k)| {
            let colour = self.colours[[self.assignment[t], s]].widen();
            T::narrow(colour * self.spatial[[t, k]].widen())
        };
        Array3::from_shape_fn(shape, entry).into_dyn()
    }
}

/// The kernel in `colours` colours.
///
/// From several starts, colours of filters that are unlike each other, rounds of two steps: every filter takes the colour that keeps most of it,
/// ‖uᵀK_t‖², and every colour turns towards its filters, u ← Σ K_t K_tᵀ u. Squares have no signs, so that u and −u are one colour, as they have
/// to be: the sign of a singular vector says nothing. [`Monochromatic::assigned`] has the last word.
///
/// # Shapes
/// `kernel`: `[T, S, K]`.
///
/// # Errors
/// As [`Monochromatic::assigned`].
pub fn monochromatic<T: Real>(
    kernel: ArrayView3<'_, T>,
    colours: usize,
    seed: u64,
) -> Result<Monochromatic<T>, CpError> {
    check(kernel, colours)?;
    let filters = Filters::new(kernel.mapv(|x| x.widen()))?;
    let mut best: Option<(f64, Vec<usize>)> = None;
    for start in 0..STARTS {
        let (kept, assignment) = filters.climb(colours, seed, start);
        if best.as_ref().is_none_or(|(most, _)| kept > *most) {
            best = Some((kept, assignment));
        }
    }
    let assignment = best.map(|(_, assignment)| assignment).unwrap_or_default();
    Monochromatic::assigned(kernel, colours, &assignment)
}

fn check<T: Real>(kernel: ArrayView3<'_, T>, colours: usize) -> Result<(), CpError> {
    if let Some(mode) = kernel.shape().iter().position(|&size| size == 0) {
        return Err(CpError::EmptyMode { mode, shape: kernel.shape().to_vec() });
    }
    if let Some(((t, s, k), value)) = kernel.indexed_iter().find(|(_, x)| !x.is_finite()) {
        let (index, value) = (vec![t, s, k], value.widen());
        return Err(CpError::NotFinite { what: "tensor", index, value });
    }
    if colours == 0 {
        return Err(CpError::RankZero);
    }
    let filters = kernel.dim().0;
    if colours > filters { Err(CpError::Colours { colours, filters }) } else { Ok(()) }
}

/// A kernel, and what each of its filters would have alone.
struct Filters {
    /// `[T, S, K]`.
    kernel: Array3<f64>,
    /// The leading left singular vector of each filter, `[T, S]`.
    own: Array2<f64>,
    /// The square of its singular value: the most that a colour keeps of the filter.
    most: Vec<f64>,
}

impl Filters {
    fn new(kernel: Array3<f64>) -> Result<Self, CpError> {
        let (filters, inputs, _) = kernel.dim();
        let mut own = Array2::zeros((filters, inputs));
        let mut most = Vec::with_capacity(filters);
        for (mut own, filter) in own.outer_iter_mut().zip(kernel.outer_iter()) {
            let svd = truncated_svd(filter, 1)?;
            own.assign(&svd.u.column(0));
            most.push(svd.s[0].powi(2));
        }
        Ok(Self { kernel, own, most })
    }

    /// What an assignment keeps of ‖K‖², and the assignment.
    fn climb(&self, colours: usize, seed: u64, start: u64) -> (f64, Vec<usize>) {
        let least = GAIN * self.kernel.iter().map(|x| x * x).sum::<f64>();
        let mut mixtures = self.unlike(colours, seed, start);
        let mut found = self.assign(mixtures.view());
        for _ in 0..ROUNDS {
            self.fill(&mut mixtures, &mut found);
            self.turn(&mut mixtures, &found.colours);
            let next = self.assign(mixtures.view());
            let gain = next.kept() - found.kept();
            found = next;
            if gain <= least {
                break;
            }
        }
        (found.kept(), found.colours)
    }

    /// The colours of `colours` filters: a random one, then always the one that lacks most with those before.
    fn unlike(&self, colours: usize, seed: u64, start: u64) -> Array2<f64> {
        let mut rng = generator(seed, Purpose::Clusters, start);
        let mut mixtures = Array2::zeros((colours, self.own.ncols()));
        let mut filter = rng.random_range(0..self.most.len());
        for colour in 0..colours {
            mixtures.row_mut(colour).assign(&self.own.row(filter));
            let found = self.assign(mixtures.slice(s![..=colour, ..]));
            filter = self.poorest(&found.squares);
        }
        mixtures
    }

    /// The colour that keeps most of each filter.
    fn assign(&self, mixtures: ArrayView2<'_, f64>) -> Assignment {
        let mut found = Assignment { colours: Vec::new(), squares: Vec::new() };
        for filter in self.kernel.outer_iter() {
            let through = mixtures.dot(&filter); // [C, K]
            let squares = through.outer_iter().map(|row| row.dot(&row)).enumerate();
            let best = squares.max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)));
            let (colour, square) = best.unwrap_or_default();
            found.colours.push(colour);
            found.squares.push(square);
        }
        found
    }

    /// The filter that lacks most of what a colour of its own would keep.
    fn poorest(&self, squares: &[f64]) -> usize {
        let lacks = |t: usize| self.most[t] - squares[t];
        (0..squares.len()).max_by(|&a, &b| lacks(a).total_cmp(&lacks(b))).unwrap_or(0)
    }

    /// Gives the colours that no filter has to the filters that lack most.
    fn fill(&self, mixtures: &mut Array2<f64>, found: &mut Assignment) {
        for colour in 0..mixtures.nrows() {
            if found.colours.contains(&colour) {
                continue;
            }
            let filter = self.poorest(&found.squares);
            mixtures.row_mut(colour).assign(&self.own.row(filter));
            (found.colours[filter], found.squares[filter]) = (colour, self.most[filter]);
        }
    }

    /// One step of the power iteration of every colour on its filters; no step keeps less.
    fn turn(&self, mixtures: &mut Array2<f64>, assignment: &[usize]) {
        let mut next = Array2::<f64>::zeros(mixtures.dim());
        for (filter, &colour) in self.kernel.outer_iter().zip(assignment) {
            let turned = filter.dot(&mixtures.row(colour).dot(&filter));
            let mut sum = next.row_mut(colour);
            sum += &turned;
        }
        for (mut mixture, next) in mixtures.outer_iter_mut().zip(next.outer_iter()) {
            let norm = next.dot(&next).sqrt();
            if norm > 0.0 {
                mixture.assign(&next.mapv(|x| x / norm));
            }
        }
    }
}

/// For every filter its colour, and ‖uᵀK_t‖² of that.
struct Assignment {
    colours: Vec<usize>,
    squares: Vec<f64>,
}

impl Assignment {
    fn kept(&self) -> f64 {
        self.squares.iter().sum()
    }
}
