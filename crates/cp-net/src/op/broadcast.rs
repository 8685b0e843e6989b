//! Broadcasting, and the shape of an op of two values: [`binary!`](macro@binary).
//!
//! Shapes are aligned at their last axis, behind the batch axis, and an axis of size 1 (or none) is repeated: `[C, H, W]` and `[W]`
//! go together, and so do `[C, H, W]` and `[C, 1, 1]`. A value that does not depend on the example has a batch of 1.

use ndarray::{ArrayD, ArrayViewD};

use super::spec::{Draw, Mismatch, Shape, mismatch, value_count};

/// The one shape that all inputs are repeated to.
pub(super) fn broadcast(inputs: &[&[usize]]) -> Result<Vec<Shape>, Mismatch> {
    let mut shape = inputs[0].to_vec();
    for (index, input) in inputs.iter().enumerate().skip(1) {
        let axes = shape.len().max(input.len());
        let of = |shape: &[usize], axis: usize| {
            (axis + shape.len()).checked_sub(axes).map_or(1, |at| shape[at])
        };
        let joined: Option<Shape> = (0..axes)
            .map(|axis| match (of(&shape, axis), of(input, axis)) {
                (a, b) if a == b || b == 1 => Some(a),
                (1, b) => Some(b),
                _ => None,
            })
            .collect();
        let Some(joined) = joined else {
            return mismatch(index, format!("{shape:?}, or a size of 1 where it differs"));
        };
        // Where one has no values, the result has none either.
        if value_count(&joined).is_none() && !joined.contains(&0) {
            return mismatch(index, "fewer values: the result has 2⁶³ or more");
        }
        shape = joined;
    }
    Ok(vec![shape])
}

/// `f` over all inputs, from the first on.
pub(super) fn fold(
    inputs: &[ArrayViewD<'_, f32>],
    f: impl Fn(f64, f64) -> f64,
) -> Vec<ArrayD<f32>> {
    let axes = inputs.iter().map(ArrayViewD::ndim).max().unwrap_or(1);
    let aligned: Vec<ArrayViewD<'_, f32>> = inputs
        .iter()
        .map(|input| {
            let mut input = input.view();
            while input.ndim() < axes {
                input = input.insert_axis(ndarray::Axis(1));
            }
            input
        })
        .collect();
    let shape: Vec<usize> = (0..axes)
        .map(|axis| {
            let sizes = aligned.iter().map(|input| input.shape()[axis]);
            sizes.fold(1, |all, size| if size == 1 { all } else { size })
        })
        .collect();
    vec![ArrayD::from_shape_fn(shape, |at| {
        let value = |input: &ArrayViewD<'_, f32>| {
            let at: Vec<usize> =
                (0..axes).map(|axis| if input.shape()[axis] == 1 { 0 } else { at[axis] }).collect();
            f64::from(input[at.as_slice()])
        };
        aligned.iter().map(value).reduce(&f).unwrap_or(0.0) as f32
    })]
}

/// `count` shapes that go together.
pub(super) fn sample_shapes(draw: &mut Draw, count: usize) -> Vec<Shape> {
    let whole = draw.shape();
    (0..count)
        .map(|_| {
            let from = draw.size(0..=whole.len() - 1);
            whole[from..].iter().map(|&size| if draw.size(0..=3) == 0 { 1 } else { size }).collect()
        })
        .collect()
}

/// A struct without settings and its [`OpSpec`](super::spec::OpSpec), from a function of two values that are broadcast against each
/// other; optionally the range of values that tests feed it, and how many inputs it takes where that is not two.
macro_rules! binary {
    (@inputs) => { 2..=2 };
    (@inputs $inputs:expr) => { $inputs };
    ($(#[$doc:meta])* $name:ident = $f:expr $(, values $least:literal..=$largest:literal)? $(, inputs $inputs:expr)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {}

        impl super::spec::OpSpec for $name {
            fn arity(&self) -> std::ops::RangeInclusive<usize> {
                super::broadcast::binary!(@inputs $($inputs)?)
            }

            fn output(&self, inputs: &[&[usize]]) -> Result<Vec<super::spec::Shape>, super::spec::Mismatch> {
                super::broadcast::broadcast(inputs)
            }

            fn eval(
                &self,
                inputs: &[ndarray::ArrayViewD<'_, f32>],
                _params: &[ndarray::ArrayViewD<'_, f32>],
            ) -> Vec<ndarray::ArrayD<f32>> {
                let f: fn(f64, f64) -> f64 = $f;
                super::broadcast::fold(inputs, f)
            }

            fn sample(draw: &mut super::spec::Draw) -> super::spec::Sample<Self> {
                let count = draw.size(2..=4).min(*Self {}.arity().end());
                let inputs = super::broadcast::sample_shapes(draw, count);
                let sample = super::spec::Sample::new(Self {}, inputs);
                $(let sample = sample.values($least, $largest);)?
                sample
            }
        }
    };
}
pub(super) use binary;
