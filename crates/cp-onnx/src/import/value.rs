//! What stands for a value of the graph while it is read: an array that is known, or a value of the network.

use ndarray::{ArcArray, ArrayD, IxDyn};

use crate::import::error::Refusal;
use crate::import::source::Source;

/// Floating-point numbers that are shared, not copied.
pub(crate) type Floats = ArcArray<f32, IxDyn>;

/// A whole number, which may hang on the size of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Num {
    /// A number.
    Is(i64),
    /// So many times the size of the batch.
    Batch(i64),
}

impl Num {
    pub(crate) fn known(self) -> Option<i64> {
        match self {
            Num::Is(number) => Some(number),
            Num::Batch(_) => None,
        }
    }
}

/// The values of a constant.
#[derive(Debug, Clone)]
pub(crate) enum Data {
    Floats(Floats),
    Ints(ArrayD<Num>),
    Bools(ArrayD<bool>),
}

impl Data {
    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Data::Floats(array) => array.shape(),
            Data::Ints(array) => array.shape(),
            Data::Bools(array) => array.shape(),
        }
    }
}

/// A constant.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    /// Its name in the file.
    pub(crate) name: String,
    pub(crate) data: Data,
    /// The tensor that it comes from, if it is one, up to steps that can be taken back.
    pub(crate) source: Option<Source>,
}

impl Known {
    pub(crate) fn ints(name: &str, numbers: impl IntoIterator<Item = Num>) -> Self {
        let numbers: Vec<Num> = numbers.into_iter().collect();
        Self::new(name, Data::Ints(ndarray::Array1::from(numbers).into_dyn()))
    }

    pub(crate) fn new(name: &str, data: Data) -> Self {
        Self { name: name.into(), data, source: None }
    }

    pub(crate) fn floats(&self, what: &str) -> Result<&Floats, Refusal> {
        match &self.data {
            Data::Floats(array) => Ok(array),
            _ => Refusal::setting(what, "whole numbers", "floating-point numbers"),
        }
    }

    /// A single number.
    pub(crate) fn scalar(&self, what: &str) -> Result<f64, Refusal> {
        let number = match &self.data {
            Data::Floats(array) if array.len() == 1 => array.first().copied().map(f64::from),
            Data::Ints(array) if array.len() == 1 => {
                array.first().and_then(|number| number.known()).map(|number| number as f64)
            }
            Data::Bools(array) if array.len() == 1 => {
                array.first().map(|&flag| f64::from(u8::from(flag)))
            }
            _ => None,
        };
        number.map_or_else(|| Refusal::setting(what, self.data.shape(), "a single number"), Ok)
    }

    /// Its numbers in order.
    pub(crate) fn numbers(&self, what: &str) -> Result<Vec<Num>, Refusal> {
        match &self.data {
            Data::Ints(array) => Ok(array.iter().copied().collect()),
            _ => Refusal::setting(what, "other values", "whole numbers"),
        }
    }
}

/// What kind of numbers a value of the network stands for in the file; it holds f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    /// Whole numbers or truth values, which may be moved about and cast, but not calculated with.
    Other,
}

/// A value of the network.
///
/// The network has the batch in front of all axes. The file may have it elsewhere for a while, behind a `Transpose` or `Unsqueeze`;
/// then `batch` says where, and the network's axes stand around it in their order.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    /// Its name in the network.
    pub(crate) name: String,
    /// Sizes without the batch axis.
    pub(crate) shape: Vec<usize>,
    /// Where the file has the batch axis.
    pub(crate) batch: usize,
    pub(crate) kind: Kind,
    /// The value that it is a transposition of, and the order of that one's axes (without the batch).
    pub(crate) turned: Option<(String, Vec<usize>)>,
}

impl Map {
    /// Axes in the file.
    pub(crate) fn rank(&self) -> usize {
        self.shape.len() + 1
    }

    /// The sizes as the file has them.
    pub(crate) fn dims(&self) -> Vec<Num> {
        let mut dims: Vec<Num> = self
            .shape
            .iter()
            .map(|&size| Num::Is(i64::try_from(size).unwrap_or(i64::MAX)))
            .collect();
        dims.insert(self.batch, Num::Batch(1));
        dims
    }

    /// `axis` of the file as one of the network; `None` for the batch axis.
    pub(crate) fn axis(&self, axis: i64) -> Result<Option<usize>, Refusal> {
        let axis = position(axis, self.rank())?;
        Ok(match axis.cmp(&self.batch) {
            std::cmp::Ordering::Less => Some(axis),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(axis - 1),
        })
    }

    /// `axis` of the network as one of the file.
    pub(crate) fn outer(&self, axis: usize) -> usize {
        if axis < self.batch { axis } else { axis + 1 }
    }

    /// An axis that must not be the batch's.
    pub(crate) fn inner(&self, axis: i64, what: &'static str) -> Result<usize, Refusal> {
        self.axis(axis)?.map_or_else(|| Refusal::batch(what), Ok)
    }

    /// The batch in front and channels behind it, as layers have it.
    pub(crate) fn in_front(self) -> Result<Self, Refusal> {
        if self.batch == 0 { Ok(self) } else { Refusal::batch("another axis stands in front of") }
    }
}

/// `axis`, counted from the end where it is negative.
pub(crate) fn position(axis: i64, rank: usize) -> Result<usize, Refusal> {
    let from_end = i64::try_from(rank).unwrap_or(i64::MAX);
    let positive = if axis < 0 { axis.saturating_add(from_end) } else { axis };
    match usize::try_from(positive) {
        Ok(axis) if axis < rank => Ok(axis),
        _ => Refusal::setting("axis", axis, format!("an axis of {rank}")),
    }
}

/// A value of the graph.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// An input that is left out.
    Nothing,
    Known(Known),
    Map(Map),
    /// What a refused node makes.
    Unknown,
}
