//! What an op says of itself: [`OpSpec`], and the words it says it in. Every file of this folder implements it for one op.

use std::ops::RangeInclusive;

use ndarray::{ArrayD, ArrayViewD};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The shape of a value for one example: without the batch axis.
pub type Shape = Vec<usize>;

/// An operation of a [`Network`](crate::Network): plain data that knows no names, no graph and no arrays.
///
/// Adding one is a file with its struct and this trait, and a line of the list in `op.rs`; each engine then asks for its
/// forward function. Shapes are without the batch axis and axes count from 0 behind it: of `[C, H, W]`, axis 0 are the channels.
pub trait OpSpec: Sized {
    /// How many inputs it takes.
    fn arity(&self) -> RangeInclusive<usize> {
        1..=1
    }

    /// How many outputs it has.
    fn output_count(&self) -> usize {
        1
    }

    /// Its parameters, in the order weight, bias, statistics.
    fn params(&self) -> Vec<ParamSpec> {
        Vec::new()
    }

    /// Whether its settings are possible; what else is asked of an op may divide and index by them.
    ///
    /// # Errors
    /// The field, its value and what would do.
    fn check(&self) -> Result<(), BadField> {
        Ok(())
    }

    /// Fills in settings that were left open (0 channels, an empty list of strides) from the shapes of the inputs. What cannot be
    /// known stays open, and [`OpSpec::check`] refuses it.
    fn complete(&mut self, _inputs: &[&[usize]]) {}

    /// The shapes of its outputs for inputs of these shapes. The settings are checked and the number of inputs is right.
    ///
    /// # Errors
    /// The input that does not fit, and what was expected.
    fn output(&self, inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch>;

    /// Multiply-adds for one example, of inputs and outputs of these shapes. Only sums of products count.
    fn macs(&self, _inputs: &[&[usize]], _outputs: &[Shape]) -> usize {
        0
    }

    /// What it does to values around zero, which the variance of random weights in front of it depends on.
    fn effect(&self) -> Effect {
        Effect::Other
    }

    /// Its outputs by the definition, in evaluation mode: slow, and what the engines are held to.
    ///
    /// # Shapes
    /// `inputs`: `[B, …]`, where B is 1 for a value that does not depend on the example ([`Constant`](super::Constant));
    /// `params`: as [`OpSpec::params`] says; results: `[B, …]`.
    fn eval(
        &self,
        inputs: &[ArrayViewD<'_, f32>],
        params: &[ArrayViewD<'_, f32>],
    ) -> Vec<ArrayD<f32>>;

    /// Random settings with inputs that fit them, for the tests of this crate and of every engine.
    fn sample(draw: &mut Draw) -> Sample<Self>;
}

/// What a parameter is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamRole {
    /// Multiplies the input; weight decay applies.
    Weight,
    /// Is added, or scales a normalization; trained without weight decay by convention.
    Bias,
    /// Running statistics and constants: saved, not trained, not counted as parameters.
    Buffer,
}

impl ParamRole {
    /// In messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ParamRole::Weight => "weight",
            ParamRole::Bias => "bias or scale",
            ParamRole::Buffer => "statistic or constant, which is not trained,",
        }
    }
}

/// Where training starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// Gaussian with variance g / `fan_in` (He et al. 2015, equation (10)); the gain g depends on what comes behind.
    Gaussian {
        /// Inputs that each output sums over.
        fan_in: usize,
    },
    /// Gaussian with this standard deviation.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// The same value everywhere.
    Constant(f32),
}

/// Of factors whose products, summed over `terms`, are the entries of a kernel: these have a standard deviation σ of 0.02 then.
///
/// (σ / √terms)^(1/factors), as the authors' `FactorizedConv` starts (Kossaifi et al., arXiv 1906.06196).
pub(super) fn product_start(terms: usize, factors: usize) -> Start {
    let std = (0.02 / (terms.max(1) as f64).sqrt()).powf(1.0 / factors as f64);
    Start::Normal { std }
}

/// One parameter of an op.
#[derive(Debug, Clone, PartialEq)]
pub struct ParamSpec {
    /// What the op calls it; by default a parameter's name is the node's name, a dot and the slot.
    pub slot: &'static str,
    /// Shape of the array.
    pub shape: Shape,
    /// What it is for.
    pub role: ParamRole,
    /// Where training starts.
    pub start: Start,
}

impl ParamSpec {
    /// `weight`, which multiplies the input; its first axis are the outputs, all others are summed over.
    pub fn weight(shape: Shape) -> Self {
        // What no memory could hold is refused where the shape is looked at.
        let fan_in = shape.iter().skip(1).fold(1, |taps: usize, &size| taps.saturating_mul(size));
        Self { slot: "weight", shape, role: ParamRole::Weight, start: Start::Gaussian { fan_in } }
    }

    /// `bias`, `[channels]`, 0 at the start.
    pub fn bias(channels: usize) -> Self {
        Self::vector("bias", channels, ParamRole::Bias, 0.0)
    }

    /// Values that count as parameters: all but those of buffers.
    pub fn count(&self) -> usize {
        if self.role == ParamRole::Buffer { 0 } else { self.shape.iter().product() }
    }

    /// A vector with one value at the start.
    pub fn vector(slot: &'static str, len: usize, role: ParamRole, start: f32) -> Self {
        Self { slot, shape: vec![len], role, start: Start::Constant(start) }
    }
}

/// What an op does to values around zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Drops about half of them, as ReLU does.
    Rectifies,
    /// Leaves them to the op behind it, as a normalization or a sum does.
    Passes,
    /// Anything else.
    Other,
}

/// A setting with an impossible value. The graph adds the node's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {got}, expected {expected}")]
pub struct BadField {
    /// The setting.
    pub field: &'static str,
    /// Its value.
    pub got: String,
    /// What would do.
    pub expected: String,
}

/// An input that does not fit. The graph adds the node's name, what made the input, and all shapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Which input, from 0.
    pub input: usize,
    /// What would do.
    pub expected: String,
}

/// `Err` with a [`Mismatch`].
pub(super) fn mismatch<T>(input: usize, expected: impl Into<String>) -> Result<T, Mismatch> {
    Err(Mismatch { input, expected: expected.into() })
}

/// `Err` unless `holds`.
pub(super) fn demand(
    holds: bool,
    field: &'static str,
    got: impl std::fmt::Debug,
    expected: impl Into<String>,
) -> Result<(), BadField> {
    if holds {
        Ok(())
    } else {
        Err(BadField { field, got: format!("{got:?}"), expected: expected.into() })
    }
}

/// `Err` where `value` is below `least`.
pub(super) fn at_least(field: &'static str, value: usize, least: usize) -> Result<(), BadField> {
    demand(value >= least, field, value, format!("at least {least}"))
}

/// `Err` unless `values` are `axes` numbers, of at least 1 where `positive`.
pub(super) fn per_axis(
    field: &'static str,
    values: &[usize],
    axes: usize,
    positive: bool,
) -> Result<(), BadField> {
    let what = if positive { "positive value" } else { "value" };
    let fits = values.len() == axes && !(positive && values.contains(&0));
    demand(fits, field, values, format!("{axes} {what}s, one per spatial axis"))
}

/// `Err` unless the value is a finite number.
pub(super) fn finite(field: &'static str, value: f64) -> Result<(), BadField> {
    demand(value.is_finite(), field, value, "a finite number")
}

/// `Err` unless `axes` are distinct axes of `input`.
pub(super) fn axes_of(axes: &[usize], input: &[usize], index: usize) -> Result<(), Mismatch> {
    match axes.iter().find(|axis| **axis >= input.len()) {
        Some(axis) => mismatch(index, format!("an axis {axis} behind the batch axis")),
        None => Ok(()),
    }
}

/// `Err` unless no axis occurs twice.
pub(super) fn distinct(field: &'static str, axes: &[usize]) -> Result<(), BadField> {
    let fits = axes.iter().enumerate().all(|(i, axis)| !axes[..i].contains(axis));
    demand(fits, field, axes, "every axis once")
}

/// Number of values of a shape, or `None` where one of its sizes is 0 or no memory could hold so many.
pub(super) fn value_count(shape: &[usize]) -> Option<usize> {
    let count = shape.iter().try_fold(1, |count: usize, &size| count.checked_mul(size))?;
    (1..=isize::MAX.unsigned_abs()).contains(&count).then_some(count)
}

/// `Err` unless `input` is channels and `axes` spatial axes, none of size 0.
pub(super) fn spatial(input: &[usize], axes: usize) -> Result<(), Mismatch> {
    if input.len() == axes + 1 && !input.contains(&0) {
        return match value_count(input) {
            Some(_) => Ok(()),
            None => mismatch(0, "fewer values: the input has 2⁶³ or more"),
        };
    }
    let expected = match axes {
        1 => "[C, L]".into(),
        2 => "[C, H, W]".into(),
        _ => format!("channels and {axes} spatial axes"),
    };
    mismatch(0, expected + " (without a batch axis, no size 0)")
}

/// Settings of an op, and inputs that fit them.
#[derive(Debug, Clone)]
pub struct Sample<T> {
    /// The op.
    pub op: T,
    /// Shapes of its inputs, without the batch axis.
    pub inputs: Vec<Shape>,
    /// The least and the largest value that inputs (and parameters) should have: above 0 for a logarithm.
    pub values: (f32, f32),
}

impl<T> Sample<T> {
    /// With values from −1 to 1.
    pub fn new(op: T, inputs: Vec<Shape>) -> Self {
        Self { op, inputs, values: (-1.0, 1.0) }
    }

    /// With other values.
    pub fn values(self, least: f32, largest: f32) -> Self {
        Self { values: (least, largest), ..self }
    }

    /// Another type of op.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Sample<U> {
        Sample { op: change(self.op), inputs: self.inputs, values: self.values }
    }
}

/// Seeded draws of settings and shapes.
#[derive(Debug)]
pub struct Draw(ChaCha8Rng);

impl Draw {
    /// The draws of a seed.
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A whole number.
    pub fn size(&mut self, range: RangeInclusive<usize>) -> usize {
        self.0.random_range(range)
    }

    /// `count` whole numbers.
    pub fn sizes(&mut self, count: usize, range: RangeInclusive<usize>) -> Vec<usize> {
        (0..count).map(|_| self.size(range.clone())).collect()
    }

    /// A real number.
    pub fn real(&mut self, range: RangeInclusive<f64>) -> f64 {
        self.0.random_range(range)
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.0.random()
    }

    /// One of several; the first of an empty list does not exist, so the list must not be empty.
    ///
    /// # Panics
    /// If `of` is empty.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.size(0..=of.len() - 1)].clone()
    }

    /// A shape of one to four axes, each of 1 to 5.
    pub fn shape(&mut self) -> Shape {
        let axes = self.size(1..=4);
        self.sizes(axes, 1..=5)
    }

    /// An array of values in a range.
    pub fn array(&mut self, shape: &[usize], (least, largest): (f32, f32)) -> ArrayD<f32> {
        ArrayD::from_shape_simple_fn(shape, || self.0.random_range(least..=largest))
    }
}
