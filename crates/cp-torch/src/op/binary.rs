//! Ops of several values that are broadcast against each other.

use tch::{TchError, Tensor};

use super::{Forward, Run};

/// The inputs with as many axes each, so that libtorch, which aligns shapes at their last axis, keeps the batch axes together: axes of
/// size 1 go right behind the batch axis.
///
/// # Shapes
/// `inputs`: `[B, …]`; results: `[B, 1, …, 1, …]`.
pub(super) fn aligned(inputs: &[&Tensor]) -> Result<Vec<Tensor>, TchError> {
    let axes = inputs.iter().map(|input| input.dim()).max().unwrap_or(1);
    let align = |input: &&Tensor| {
        let mut input = input.shallow_clone();
        while input.dim() < axes {
            input = input.f_unsqueeze(1)?;
        }
        Ok(input)
    };
    inputs.iter().map(align).collect()
}

/// `f` over all inputs, from the first on.
fn fold(
    inputs: &[&Tensor],
    f: impl Fn(&Tensor, &Tensor) -> Result<Tensor, TchError>,
) -> Result<Vec<Tensor>, TchError> {
    let inputs = aligned(inputs)?;
    let mut all = inputs[0].shallow_clone();
    for input in &inputs[1..] {
        all = f(&all, input)?;
    }
    Ok(vec![all])
}

macro_rules! binary {
    ($($name:ident = $f:ident,)*) => {
        $(impl Forward for cp_net::$name {
            fn forward(&self, inputs: &[&Tensor], _: &[Tensor], _: Run) -> Result<Vec<Tensor>, TchError> {
                fold(inputs, Tensor::$f)
            }
        })*
    };
}

binary! {
    Sub = f_sub,
    Mul = f_mul,
    Div = f_div,
    Pow = f_pow,
    Min = f_minimum,
    Max = f_maximum,
}

impl Forward for cp_net::Add {
    fn forward(&self, inputs: &[&Tensor], _: &[Tensor], run: Run) -> Result<Vec<Tensor>, TchError> {
        let terms = aligned(inputs)?;
        // Whether a term leaves a sum of this size as it is.
        let fits = |term: &Tensor, sum: &[i64]| {
            term.size().iter().zip(sum).all(|(term, sum)| *term == 1 || term == sum)
        };
        let first = terms[0].size();
        let mut own = run.in_place && terms.iter().all(|term| fits(term, &first));
        let mut sum = terms[0].shallow_clone();
        for term in &terms[1..] {
            sum = if own && fits(term, &sum.size()) { sum.f_add_(term)? } else { sum.f_add(term)? };
            own = true;
        }
        Ok(vec![sum])
    }

    fn in_place(&self) -> bool {
        true
    }

    fn frees_output(&self) -> bool {
        true
    }
}
