//! The shape of an op that treats every value alike: [`unary!`](macro@unary) writes all of [`OpSpec`](super::spec::OpSpec) for a
//! struct without settings, from its function; ops with settings call [`each`].

use ndarray::{ArrayD, ArrayViewD};

/// `f` of every value, in f64.
pub(super) fn each(x: &ArrayViewD<'_, f32>, f: impl Fn(f64) -> f64) -> Vec<ArrayD<f32>> {
    vec![x.mapv(|value| f(f64::from(value)) as f32)]
}

/// A struct without settings and its [`OpSpec`](super::spec::OpSpec), from a function of one value; optionally the range of values
/// that tests feed it, and its effect on random weights.
macro_rules! unary {
    ($(#[$doc:meta])* $name:ident = $f:expr $(, values $least:literal..=$largest:literal)? $(, effect $effect:ident)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {}

        impl super::spec::OpSpec for $name {
            fn output(&self, inputs: &[&[usize]]) -> Result<Vec<super::spec::Shape>, super::spec::Mismatch> {
                Ok(vec![inputs[0].to_vec()])
            }

            $(fn effect(&self) -> super::spec::Effect {
                super::spec::Effect::$effect
            })?

            fn eval(
                &self,
                inputs: &[ndarray::ArrayViewD<'_, f32>],
                _params: &[ndarray::ArrayViewD<'_, f32>],
            ) -> Vec<ndarray::ArrayD<f32>> {
                let f: fn(f64) -> f64 = $f;
                super::unary::each(&inputs[0], f)
            }

            fn sample(draw: &mut super::spec::Draw) -> super::spec::Sample<Self> {
                let sample = super::spec::Sample::new(Self {}, vec![draw.shape()]);
                $(let sample = sample.values($least, $largest);)?
                sample
            }
        }
    };
}
pub(super) use unary;
