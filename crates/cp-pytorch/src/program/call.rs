//! One operation of a program's graph while it is converted: its arguments, each taken once, and what it makes.

mod settings;

use std::collections::BTreeSet;

use cp_net::Op;
use ndarray::{ArrayD, IxDyn};
use serde_json::Value;

use super::build::{Builder, Kind, Slot};
use super::schema::{Argument, Node};

/// Why an operation was not converted.
#[derive(Debug)]
pub(super) enum Fail {
    /// Another one that it depends on was not: nothing more to say.
    Silent,
    /// For a message.
    Because(String),
}

/// `Err` with a reason.
pub(super) fn because<T>(reason: impl Into<String>) -> Result<T, Fail> {
    Err(Fail::Because(reason.into()))
}

/// A value that depends on the input.
#[derive(Debug, Clone)]
pub(super) struct Tensor {
    /// Its name in the network.
    pub(super) value: String,
    /// With the batch axis.
    pub(super) shape: Vec<usize>,
}

/// A weight.
#[derive(Debug, Clone)]
pub(super) struct Weight {
    /// Its name in PyTorch; `None` where the array is no longer as it was there.
    pub(super) name: Option<String>,
    pub(super) array: ArrayD<f32>,
}

/// What a binary operation works on.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Tensor(Tensor),
    Weight(Weight),
    Number(f64),
}

pub(super) struct Call<'a, 'b> {
    builder: &'a mut Builder<'b>,
    node: &'a Node,
    taken: BTreeSet<&'a str>,
}

impl<'a, 'b> Call<'a, 'b> {
    pub(super) fn new(builder: &'a mut Builder<'b>, node: &'a Node) -> Self {
        Self { builder, node, taken: BTreeSet::new() }
    }

    /// `conv2d` and `default` of `torch.ops.aten.conv2d.default`; `None` of what is no operation of ATen.
    pub(super) fn target(&self) -> Option<(&'a str, &'a str)> {
        self.node.target.strip_prefix("torch.ops.aten.")?.split_once('.')
    }

    /// The names that PyTorch's graph has for what the operation makes.
    pub(super) fn output_names(&self) -> Vec<&'a str> {
        self.node.outputs.iter().flat_map(Argument::tensors).collect()
    }

    /// Makes the names stand for nothing, so that what reads them fails silently.
    pub(super) fn give_up(&mut self) {
        for name in self.output_names() {
            let slot = Slot { kind: Kind::Nothing, shape: Vec::new(), is_shared: false };
            self.builder.bind(name, slot);
        }
    }

    /// `Err` where an argument was not looked at.
    pub(super) fn finish(&self) -> Result<(), Fail> {
        let left = |input: &&super::schema::NamedArgument| {
            !self.taken.contains(input.name.as_str()) && input.arg.parts().0 != "as_none"
        };
        match self.node.inputs.iter().find(left) {
            Some(input) => because(format!("its argument '{}' is not known", input.name)),
            None => Ok(()),
        }
    }

    /// The argument `name`; `None` where it is left out or None.
    fn take(&mut self, name: &str) -> Option<(&'a str, &'a Value)> {
        let node = self.node;
        let input = node.inputs.iter().find(|input| input.name == name)?;
        self.taken.insert(&input.name);
        Some(input.arg.parts()).filter(|(kind, _)| *kind != "as_none")
    }

    /// Takes arguments that make no difference.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// The tensor `name`, which depends on the input.
    pub(super) fn tensor(&mut self, name: &str) -> Result<Tensor, Fail> {
        match self.operand(name)? {
            Some(Operand::Tensor(tensor)) => Ok(tensor),
            Some(_) => because(format!("its argument '{name}' does not depend on the input")),
            None => because(format!("it has no argument '{name}'")),
        }
    }

    /// The tensors of a list.
    pub(super) fn tensors(&mut self, name: &str) -> Result<Vec<Tensor>, Fail> {
        let Some(("as_tensors", list)) = self.take(name) else {
            return because(format!("its argument '{name}' is no list of tensors"));
        };
        let names = list.as_array().into_iter().flatten().filter_map(|item| item["name"].as_str());
        let mut tensors = Vec::new();
        for one in names {
            match self.named(one)? {
                Operand::Tensor(tensor) => tensors.push(tensor),
                _ => return because(format!("of '{name}', '{one}' does not depend on the input")),
            }
        }
        Ok(tensors)
    }

    /// The weight `name`; `None` where it is left out.
    pub(super) fn weight(&mut self, name: &str) -> Result<Option<Weight>, Fail> {
        match self.operand(name)? {
            Some(Operand::Weight(weight)) => Ok(Some(weight)),
            None => Ok(None),
            _ => because(format!("its argument '{name}' is no weight but computed from the input")),
        }
    }

    /// The argument `name`, whatever it is.
    pub(super) fn operand(&mut self, name: &str) -> Result<Option<Operand>, Fail> {
        let Some((kind, value)) = self.take(name) else { return Ok(None) };
        if let Some(number) = number(kind, value) {
            return Ok(Some(Operand::Number(number)));
        }
        match (kind, value["name"].as_str()) {
            ("as_tensor", Some(name)) => self.named(name).map(Some),
            _ => because(format!("its argument '{name}' is neither a tensor nor a number")),
        }
    }

    fn named(&self, name: &str) -> Result<Operand, Fail> {
        let slot = self.builder.slot(name);
        match slot.map(|slot| &slot.kind) {
            None => because(format!("it reads '{name}', which is not made before")),
            Some(Kind::Nothing) => Err(Fail::Silent),
            Some(Kind::Value(value)) => {
                let shape = slot.map(|slot| slot.shape.clone()).unwrap_or_default();
                Ok(Operand::Tensor(Tensor { value: value.clone(), shape }))
            }
            Some(Kind::Array { name, transposed }) => {
                let Some(array) = self.builder.array(name) else {
                    return because(format!("it reads '{name}', a weight of whole numbers"));
                };
                let own = (!transposed).then(|| name.clone());
                let array = if *transposed {
                    let mut view = array.view();
                    view.swap_axes(array.ndim() - 2, array.ndim() - 1);
                    view.as_standard_layout().into_owned()
                } else {
                    array.clone()
                };
                Ok(Operand::Weight(Weight { name: own, array }))
            }
        }
    }

    /// The weight `name` with its last two axes exchanged, under its own name where it lies in the file like that.
    pub(super) fn turned(&mut self, name: &str) -> Result<Option<Weight>, Fail> {
        let Some(("as_tensor", value)) = self.take(name) else { return Ok(None) };
        let slot = self.builder.slot(value["name"].as_str().unwrap_or_default());
        let Some(Slot { kind: Kind::Array { name, transposed }, .. }) = slot else {
            return Ok(None);
        };
        let Some(array) = self.builder.array(name).filter(|array| array.ndim() == 2) else {
            return Ok(None);
        };
        Ok(Some(if *transposed {
            Weight { name: Some(name.clone()), array: array.clone() }
        } else {
            Weight { name: None, array: array.t().as_standard_layout().into_owned() }
        }))
    }

    /// The shape of the first thing that the operation makes, with the batch axis.
    pub(super) fn output_shape(&self) -> Result<Vec<usize>, Fail> {
        let name = self.output_names().first().copied().unwrap_or_default();
        match self.builder.meta(name) {
            Some((shape, true)) => Ok(shape),
            Some((_, false)) => because("it makes no floating-point numbers"),
            None => because("the file does not say what shape it makes"),
        }
    }

    /// Size along `axis`, the batch axis counted, of each thing that the operation makes.
    pub(super) fn output_sizes(&self, axis: usize) -> Result<Vec<usize>, Fail> {
        let size = |name: &str| self.builder.meta(name)?.0.get(axis).copied();
        let sizes: Option<Vec<usize>> = self.output_names().into_iter().map(size).collect();
        match sizes {
            Some(sizes) => Ok(sizes),
            None => because("the file does not say what shapes it makes"),
        }
    }

    /// Adds the operation: `op` of `inputs`, whose first output is the first that PyTorch's has, called like it.
    pub(super) fn emit(&mut self, op: impl Into<Op>, inputs: Vec<String>) -> Result<(), Fail> {
        let value = self.step(op, inputs);
        self.done(value)
    }

    /// An operation on the way to what is made.
    pub(super) fn step(&mut self, op: impl Into<Op>, inputs: Vec<String>) -> String {
        let name = self.output_names().first().copied().unwrap_or_default();
        self.builder.push(name, op.into(), inputs, Vec::new()).swap_remove(0)
    }

    /// Adds a layer with weights, called like the module whose they are.
    pub(super) fn layer(
        &mut self,
        op: impl Into<Op>,
        input: String,
        params: Vec<(&'static str, Weight)>,
    ) -> Result<(), Fail> {
        let module = params.iter().find_map(|(slot, weight)| {
            weight.name.as_deref()?.strip_suffix(slot)?.strip_suffix('.').map(str::to_owned)
        });
        let own = self.output_names().first().copied().unwrap_or_default();
        let name = module.unwrap_or_else(|| own.into());
        let params = params.into_iter().map(|(slot, weight)| (slot, weight.name, weight.array));
        let value = self.builder.push(&name, op.into(), vec![input], params.collect());
        self.done(value.into_iter().next().unwrap_or_default())
    }

    /// Adds an operation that makes several values, in PyTorch's order.
    pub(super) fn emit_many(&mut self, op: impl Into<Op>, input: String) -> Result<(), Fail> {
        let names = self.output_names();
        let own = names.first().copied().unwrap_or_default();
        let values = self.builder.push(own, op.into(), vec![input], Vec::new());
        for (name, value) in names.into_iter().zip(values) {
            self.bind(name, value, true)?;
        }
        Ok(())
    }

    /// A value that does not depend on the input, from a weight without a batch axis or from a number.
    pub(super) fn constant(&mut self, operand: Operand) -> String {
        let own = self.output_names().first().copied().unwrap_or_default();
        match operand {
            Operand::Tensor(tensor) => tensor.value,
            Operand::Weight(Weight { name, array }) => {
                let node = name.clone().unwrap_or_else(|| format!("{own}.constant"));
                self.builder.constant(&node, name, array, false)
            }
            Operand::Number(number) => {
                let array = ArrayD::from_elem(IxDyn(&[]), number as f32);
                self.builder.constant(&format!("{own}.constant"), None, array, false)
            }
        }
    }

    /// Says that `value` is what the operation makes; what else PyTorch's makes is not known here.
    pub(super) fn done(&mut self, value: String) -> Result<(), Fail> {
        self.output_shape()?;
        self.bind_first(value, false)
    }

    /// The same, of a view of another's memory.
    pub(super) fn view(
        &mut self,
        of: &str,
        op: impl Into<Op>,
        inputs: Vec<String>,
    ) -> Result<(), Fail> {
        self.share(of);
        let value = self.step(op, inputs);
        self.output_shape()?;
        self.bind_first(value, true)
    }

    /// Marks the memory of the argument `name` as seen by several.
    pub(super) fn share(&mut self, name: &str) {
        let argument = self.node.inputs.iter().find(|input| input.name == name);
        for tensor in argument.iter().flat_map(|input| input.arg.tensors()) {
            if let Some(slot) = self.builder.slot_mut(tensor) {
                slot.is_shared = true;
            }
        }
    }

    fn bind_first(&mut self, value: String, is_view: bool) -> Result<(), Fail> {
        let names = self.output_names();
        let Some((first, others)) = names.split_first() else { return Ok(()) };
        self.bind(first, value, is_view)?;
        for name in others {
            let slot = Slot { kind: Kind::Nothing, shape: Vec::new(), is_shared: false };
            self.builder.bind(name, slot);
        }
        Ok(())
    }

    fn bind(&mut self, name: &str, value: String, is_shared: bool) -> Result<(), Fail> {
        let Some((shape, true)) = self.builder.meta(name) else {
            return because("it makes no floating-point numbers");
        };
        self.builder.bind(name, Slot { kind: Kind::Value(value), shape, is_shared });
        Ok(())
    }

    /// The operation gives the argument `name` as it is: the same memory, or a copy of it.
    pub(super) fn alias(&mut self, name: &str, is_copy: bool) -> Result<(), Fail> {
        let Some(("as_tensor", value)) = self.take(name) else {
            return because(format!("it has no argument '{name}'"));
        };
        let input = value["name"].as_str().unwrap_or_default();
        self.named(input)?;
        let Some(output) = self.output_names().first().copied() else { return Ok(()) };
        if is_copy {
            let Some(slot) = self.builder.slot(input).cloned() else { return Err(Fail::Silent) };
            self.builder.bind(output, Slot { is_shared: false, ..slot });
        } else {
            self.builder.bind_alike(output, input);
        }
        Ok(())
    }

    /// A weight with its last two axes exchanged, if the argument `name` is one of two axes; whether it was.
    pub(super) fn turn_weight(&mut self, name: &str) -> bool {
        let argument = self.node.inputs.iter().find(|input| input.name == name);
        let Some(input) = argument.and_then(|input| input.arg.tensors().first().copied()) else {
            return false;
        };
        let Some(slot) = self.builder.slot(input).cloned() else { return false };
        let Kind::Array { name: own, transposed } = slot.kind else { return false };
        let &[rows, columns] = &slot.shape[..] else { return false };
        self.take(name);
        if let Some(output) = self.output_names().first().copied() {
            let kind = Kind::Array { name: own, transposed: !transposed };
            self.builder.bind(output, Slot { kind, shape: vec![columns, rows], is_shared: true });
        }
        true
    }

    /// After an operation in place: what was its first argument is now what it made.
    pub(super) fn in_place(&mut self, is_allowed: bool) -> Result<(), Fail> {
        let first = self.node.inputs.first().and_then(|input| input.arg.tensors().first().copied());
        let (Some(input), Some(output)) = (first, self.output_names().first().copied()) else {
            return Ok(());
        };
        if !is_allowed {
            return because(
                "it works in place on memory that is seen elsewhere; write it without the underscore",
            );
        }
        if let (Some(made), Some(slot)) =
            (self.builder.slot(output).cloned(), self.builder.slot_mut(input))
        {
            *slot = made;
        }
        self.builder.bind_alike(output, input);
        Ok(())
    }

    /// Whether the memory of the first argument is nobody else's.
    pub(super) fn owns_first(&self) -> bool {
        let first = self.node.inputs.first().and_then(|input| input.arg.tensors().first().copied());
        first.and_then(|input| self.builder.slot(input)).is_some_and(|slot| !slot.is_shared)
    }
}

/// A number, which JSON may have to write as a text.
fn number(kind: &str, value: &Value) -> Option<f64> {
    match (kind, value) {
        ("as_int" | "as_float", Value::Number(number)) => number.as_f64(),
        ("as_float", Value::String(text)) => match text.as_str() {
            "Infinity" | "inf" => Some(f64::INFINITY),
            "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        ("as_sym_int", value) => value.get("as_int")?.as_f64(),
        _ => None,
    }
}
