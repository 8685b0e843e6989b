//! The arguments of an operation that are no tensors: numbers, words, axes.

use serde_json::Value;

use super::{Call, Fail, because, number};

impl<'a> Call<'a, '_> {
    pub(in crate::program) fn int(&mut self, name: &str) -> Result<Option<i64>, Fail> {
        let Some((kind, value)) = self.take(name) else { return Ok(None) };
        let number = match kind {
            "as_int" => value.as_i64(),
            "as_sym_int" => value.get("as_int").and_then(Value::as_i64),
            _ => None,
        };
        match number {
            Some(number) => Ok(Some(number)),
            None => because(format!("its argument '{name}' is no fixed whole number")),
        }
    }

    pub(in crate::program) fn float(&mut self, name: &str) -> Result<Option<f64>, Fail> {
        let Some((kind, value)) = self.take(name) else { return Ok(None) };
        match number(kind, value) {
            Some(number) => Ok(Some(number)),
            None => because(format!("its argument '{name}' is no number")),
        }
    }

    pub(in crate::program) fn flag(&mut self, name: &str) -> Result<bool, Fail> {
        match self.take(name) {
            None => Ok(false),
            Some(("as_bool", Value::Bool(flag))) => Ok(*flag),
            Some(_) => because(format!("its argument '{name}' is neither true nor false")),
        }
    }

    /// As [`Call::flag`]; `default` where it is left out.
    pub(in crate::program) fn flag_or(&mut self, name: &str, default: bool) -> Result<bool, Fail> {
        if self.node.inputs.iter().any(|input| input.name == name) {
            self.flag(name)
        } else {
            Ok(default)
        }
    }

    pub(in crate::program) fn text(&mut self, name: &str) -> Result<Option<&'a str>, Fail> {
        match self.take(name) {
            None => Ok(None),
            Some(("as_string", Value::String(text))) => Ok(Some(text)),
            Some(_) => because(format!("its argument '{name}' is no text")),
        }
    }

    pub(in crate::program) fn ints(&mut self, name: &str) -> Result<Option<Vec<i64>>, Fail> {
        let Some((kind, value)) = self.take(name) else { return Ok(None) };
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let numbers: Option<Vec<i64>> = match kind {
            "as_int" => value.as_i64().map(|number| vec![number]),
            "as_ints" => items.iter().map(Value::as_i64).collect(),
            "as_sym_ints" => items.iter().map(|item| item.get("as_int")?.as_i64()).collect(),
            _ => None,
        };
        match numbers {
            Some(numbers) => Ok(Some(numbers)),
            None => because(format!("its argument '{name}' is no list of fixed whole numbers")),
        }
    }

    pub(in crate::program) fn floats(&mut self, name: &str) -> Result<Option<Vec<f64>>, Fail> {
        let Some((kind, value)) = self.take(name) else { return Ok(None) };
        let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
        let numbers: Option<Vec<f64>> = match kind {
            "as_floats" | "as_ints" => items.iter().map(|item| number("as_float", item)).collect(),
            _ => None,
        };
        match numbers {
            Some(numbers) => Ok(Some(numbers)),
            None => because(format!("its argument '{name}' is no list of numbers")),
        }
    }

    /// One number for each of `axes` spatial axes, from as many or from one; `default` where it is left out or empty.
    pub(in crate::program) fn per_axis(
        &mut self,
        name: &str,
        axes: usize,
        default: &[usize],
    ) -> Result<Vec<usize>, Fail> {
        let numbers = self.ints(name)?.unwrap_or_default();
        let natural: Option<Vec<usize>> =
            numbers.iter().map(|number| usize::try_from(*number).ok()).collect();
        match natural.as_deref() {
            Some([]) => Ok(default.to_vec()),
            Some([all]) => Ok(vec![*all; axes]),
            Some(each) if each.len() == axes => Ok(each.to_vec()),
            _ => because(format!("its argument '{name}' is {numbers:?}, expected {axes} sizes")),
        }
    }

    /// Sizes, however many.
    pub(in crate::program) fn sizes(&mut self, name: &str) -> Result<Vec<usize>, Fail> {
        let numbers = self.ints(name)?.unwrap_or_default();
        let natural = numbers.iter().map(|number| usize::try_from(*number).ok()).collect();
        match natural {
            Some(sizes) => Ok(sizes),
            None => because(format!("its argument '{name}' is {numbers:?}, expected sizes")),
        }
    }

    /// An axis of `shape`, counted from the end where it is negative; the batch axis is refused.
    pub(in crate::program) fn axis(
        &mut self,
        name: &str,
        default: i64,
        shape: &[usize],
    ) -> Result<usize, Fail> {
        let axis = self.int(name)?.unwrap_or(default);
        behind_batch(axis, shape.len())
    }

    /// Axes of `shape`, as [`Call::axis`].
    pub(in crate::program) fn axes(
        &mut self,
        name: &str,
        shape: &[usize],
    ) -> Result<Vec<usize>, Fail> {
        let axes = self.ints(name)?.unwrap_or_default();
        axes.into_iter().map(|axis| behind_batch(axis, shape.len())).collect()
    }
}

fn behind_batch(axis: i64, axes: usize) -> Result<usize, Fail> {
    let counted = if axis < 0 { axis + axes as i64 } else { axis };
    match usize::try_from(counted) {
        Ok(0) => because("it works along the first axis, the batch"),
        Ok(at) if at < axes => Ok(at - 1),
        _ => because(format!("it works along axis {axis} of {axes}")),
    }
}
