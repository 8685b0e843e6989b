//! What a model takes and gives, and the check of what it is given.

use std::fmt;

use ort::value::{Outlet, ValueType};

use crate::{ElementType, OrtError};

/// The size along an axis of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// Always this.
    Fixed(usize),
    /// Any; the model may have a name for it.
    Free(Option<String>),
}

impl Dim {
    /// The size, if the model fixes it.
    pub fn size(&self) -> Option<usize> {
        match self {
            Dim::Fixed(size) => Some(*size),
            Dim::Free(_) => None,
        }
    }

    /// The model's name for a size that it does not fix.
    pub fn symbol(&self) -> Option<&str> {
        match self {
            Dim::Free(symbol) => symbol.as_deref(),
            Dim::Fixed(_) => None,
        }
    }
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub ty: ElementType,
    /// Its axes. Without any it is a number, or the model does not say how many axes it has: the library makes no difference.
    pub dims: Vec<Dim>,
}

/// `float32 [batch, 3, ?, 224]`.
impl fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.ty, self.shape())
    }
}

impl ValueInfo {
    pub(crate) fn new(outlet: &Outlet) -> Self {
        let mut dims = Vec::new();
        if let ValueType::Tensor { shape, dimension_symbols, .. } = outlet.dtype() {
            for (axis, &size) in shape.iter().enumerate() {
                let symbol = || dimension_symbols.get(axis).filter(|name| !name.is_empty());
                let fixed = usize::try_from(size).ok().map(Dim::Fixed);
                dims.push(fixed.unwrap_or_else(|| Dim::Free(symbol().cloned())));
            }
        }
        ValueInfo { name: outlet.name().to_owned(), ty: ElementType::of(outlet.dtype()), dims }
    }

    /// `[batch, 3, ?, 224]`.
    fn shape(&self) -> String {
        let sizes = self.dims.iter().map(|dim| match dim {
            Dim::Fixed(size) => size.to_string(),
            Dim::Free(symbol) => symbol.clone().unwrap_or_else(|| "?".into()),
        });
        format!("[{}]", sizes.collect::<Vec<_>>().join(", "))
    }

    fn fits(&self, shape: &[usize]) -> bool {
        let fits = |(dim, size): (&Dim, &usize)| dim.size().is_none_or(|wanted| wanted == *size);
        self.dims.is_empty()
            || self.dims.len() == shape.len() && self.dims.iter().zip(shape).all(fits)
    }
}

/// Whether all inputs are there, once, and of the type and shape that the model wants.
pub(crate) fn check<'a>(
    model: &str,
    inputs: &[ValueInfo],
    given: impl Iterator<Item = (&'a str, ElementType, Vec<usize>)>,
) -> Result<(), OrtError> {
    let model = || model.to_owned();
    let mut seen = vec![false; inputs.len()];
    for (name, got, shape) in given {
        let Some(at) = inputs.iter().position(|input| input.name == name) else {
            let known = inputs.iter().map(|input| format!("'{}' {input}", input.name));
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(OrtError::UnknownInput { model: model(), name: name.into(), known });
        };
        let (input, name) = (&inputs[at], name.to_owned());
        if std::mem::replace(&mut seen[at], true) {
            return Err(OrtError::RepeatedInput { model: model(), name });
        }
        if matches!(input.ty, ElementType::Other(_)) {
            return Err(OrtError::Unsupported { model: model(), name, ty: input.ty.clone() });
        }
        if got != input.ty {
            let expected = input.ty.clone();
            return Err(OrtError::InputType { model: model(), name, got, expected });
        }
        if !input.fits(&shape) {
            let expected = input.shape();
            return Err(OrtError::InputShape { model: model(), name, got: shape, expected });
        }
    }
    match inputs.iter().zip(seen).find(|(_, seen)| !seen) {
        Some((input, _)) if matches!(input.ty, ElementType::Other(_)) => {
            Err(OrtError::Unsupported {
                model: model(),
                name: input.name.clone(),
                ty: input.ty.clone(),
            })
        }
        Some((input, _)) => Err(OrtError::MissingInput {
            model: model(),
            name: input.name.clone(),
            expected: input.to_string(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    fn inputs() -> Vec<ValueInfo> {
        let free = |name: &str| Dim::Free(Some(name.into()));
        let value = |name: &str, ty, dims| ValueInfo { name: name.into(), ty, dims };
        vec![
            value("x", ElementType::F32, vec![free("batch"), Dim::Fixed(3), Dim::Free(None)]),
            value("n", ElementType::I64, vec![]),
        ]
    }

    fn message(given: &[(&str, ElementType, &[usize])]) -> String {
        let given = given.iter().map(|(name, ty, shape)| (*name, ty.clone(), shape.to_vec()));
        check("m.onnx", &inputs(), given).map_or_else(|error| error.to_string(), |()| "ok".into())
    }

    #[test]
    fn what_is_given_is_checked() {
        let n = ("n", ElementType::I64, &[][..]);
        let x = ("x", ElementType::F32, &[2, 3, 8][..]);
        assert_eq!(message(&[x.clone(), n.clone()]), "ok");
        assert_eq!(message(&[n.clone(), x.clone()]), "ok");
        // Without axes, the model may not have said how many there are.
        assert_eq!(message(&[x.clone(), ("n", ElementType::I64, &[1])]), "ok");
        let check = |given: &[(&str, ElementType, &[usize])], expected: &str| {
            assert_eq!(message(given), format!("m.onnx: {expected}"));
        };
        check(
            &[("image", ElementType::F32, &[1])],
            "there is no input 'image'; its inputs: 'x' float32 [batch, 3, ?], 'n' int64 []",
        );
        check(slice::from_ref(&x), "input 'n' is missing; expected int64 []");
        check(slice::from_ref(&n), "input 'x' is missing; expected float32 [batch, 3, ?]");
        check(&[x.clone(), x], "input 'x' is given twice");
        check(&[("x", ElementType::U8, &[2, 3, 8])], "input 'x' is uint8, expected float32");
        for wrong in [&[2, 4, 8][..], &[2, 3], &[3], &[]] {
            let text = format!("input 'x' has shape {wrong:?}, expected [batch, 3, ?]");
            check(&[("x", ElementType::F32, wrong)], &text);
        }
    }

    #[test]
    fn unsupported_types_are_named() {
        let ty = ElementType::Other("string".into());
        let inputs = [ValueInfo { name: "s".into(), ty, dims: vec![Dim::Fixed(1)] }];
        for given in [vec![], vec![("s", ElementType::U8, vec![1])]] {
            let error = check("m", &inputs, given.into_iter()).unwrap_err().to_string();
            assert!(error.contains("'s' is string, which is not supported"), "{error}");
        }
    }
}
