//! [`Call`]: a node that is being read, with what it reads.

use cp_net::Op;
use ndarray::IxDyn;

use crate::import::attributes::Attributes;
use crate::import::error::Refusal;
use crate::import::net::Net;
use crate::import::source::Step;
use crate::import::value::{Data, Floats, Kind, Known, Map, Num, Value};
use crate::limits::{MAX_AXES, MAX_FOLDED};

/// What a node makes: one value for each of its outputs, or for the first of them.
pub(crate) type Outcome = Result<Vec<Value>, Refusal>;

/// A node that is being read.
pub(crate) struct Call<'a, 'n> {
    pub(crate) net: &'n mut Net,
    /// Its name, or its first output.
    pub(crate) label: String,
    pub(crate) op: String,
    pub(crate) opset: i64,
    pub(crate) attributes: Attributes<'a>,
    pub(crate) inputs: Vec<Value>,
    /// Names in the file; empty where one is left out.
    pub(crate) outputs: Vec<String>,
    /// The size of the batch, where the file fixes it.
    pub(crate) fixed: Option<i64>,
    /// How many values may still be computed.
    pub(crate) budget: &'n mut usize,
    /// The parameter that is the node's kernel, if it has one.
    pub(crate) kernel: Option<String>,
}

impl Call<'_, '_> {
    /// The input in a slot, if there is one.
    pub(crate) fn input(&self, slot: usize) -> Option<&Value> {
        self.inputs.get(slot).filter(|value| !matches!(value, Value::Nothing))
    }

    fn missing(&self, slot: usize) -> Refusal {
        Refusal::Setting {
            name: "inputs".into(),
            got: self.inputs.len().to_string(),
            expected: format!("at least {}", slot + 1),
        }
    }

    /// The input in a slot as a value of the network.
    pub(crate) fn map(&self, slot: usize) -> Result<Map, Refusal> {
        match self.input(slot) {
            Some(Value::Map(map)) => Ok(map.clone()),
            Some(Value::Known(_)) => {
                Refusal::form("this op on a constant, which is not computed beforehand")
            }
            _ => Err(self.missing(slot)),
        }
    }

    /// The same, of floating-point numbers.
    pub(crate) fn float_map(&self, slot: usize) -> Result<Map, Refusal> {
        let map = self.map(slot)?;
        match map.kind {
            Kind::Float => Ok(map),
            Kind::Other => Refusal::form("arithmetic of whole numbers or truth values"),
        }
    }

    /// The same, with the batch in front.
    pub(crate) fn layer_input(&self) -> Result<Map, Refusal> {
        self.float_map(0)?.in_front()
    }

    /// A constant input that may be left out.
    pub(crate) fn known(&self, slot: usize, what: &'static str) -> Result<Option<Known>, Refusal> {
        match self.input(slot) {
            None => Ok(None),
            Some(Value::Known(known)) => Ok(Some(known.clone())),
            Some(_) => Err(Refusal::NotConstant { what }),
        }
    }

    /// A constant input.
    pub(crate) fn constant(&self, slot: usize, what: &'static str) -> Result<Known, Refusal> {
        self.known(slot, what)?.ok_or_else(|| self.missing(slot))
    }

    /// Whole numbers that are an input, or an attribute in older versions.
    pub(crate) fn nums(
        &self,
        slot: usize,
        name: &'static str,
    ) -> Result<Option<Vec<Num>>, Refusal> {
        if let Some(numbers) = self.attributes.ints(name) {
            return Ok(Some(numbers.into_iter().map(Num::Is).collect()));
        }
        self.known(slot, name)?.map(|known| known.numbers(name)).transpose()
    }

    /// The same, none of which hangs on the batch.
    pub(crate) fn ints(
        &self,
        slot: usize,
        name: &'static str,
    ) -> Result<Option<Vec<i64>>, Refusal> {
        let numbers = self.nums(slot, name)?;
        let known = |numbers: Vec<Num>| numbers.into_iter().map(Num::known).collect();
        match numbers {
            None => Ok(None),
            Some(numbers) => match known(numbers) {
                Some(numbers) => Ok(Some(numbers)),
                None => Refusal::batch("it takes sizes from"),
            },
        }
    }

    /// Adds a node whose output is the first of this one.
    pub(crate) fn last(
        &mut self,
        op: impl Into<Op>,
        inputs: &[&Map],
        params: Vec<(&'static str, Known)>,
        batch: usize,
    ) -> Result<Map, Refusal> {
        let (label, output) =
            (self.label.clone(), self.outputs.first().cloned().unwrap_or_default());
        self.node(&label, &output, op.into(), inputs, params, batch)
    }

    /// Adds a node in front of the last one, or behind it for another output.
    pub(crate) fn part(
        &mut self,
        suffix: &str,
        op: impl Into<Op>,
        inputs: &[&Map],
        params: Vec<(&'static str, Known)>,
        batch: usize,
    ) -> Result<Map, Refusal> {
        let name = format!("{}.{suffix}", self.label);
        self.node(&name, &name, op.into(), inputs, params, batch)
    }

    fn node(
        &mut self,
        name: &str,
        output: &str,
        op: Op,
        inputs: &[&Map],
        params: Vec<(&'static str, Known)>,
        batch: usize,
    ) -> Result<Map, Refusal> {
        let kind = inputs.first().map_or(Kind::Float, |map| map.kind);
        let output = self.net.value(output);
        let mut shapes = self.net.add(name, op, inputs, params, vec![output.clone()])?;
        let shape = shapes.pop().unwrap_or_default();
        Ok(Map { name: output, shape, batch, kind, turned: None })
    }

    /// One op that treats the examples alike and moves no axis.
    pub(crate) fn simple(&mut self, op: impl Into<Op>) -> Outcome {
        let map = self.float_map(0)?;
        let batch = map.batch;
        Ok(vec![Value::Map(self.last(op, &[&map], Vec::new(), batch)?)])
    }

    /// One number as a value of the network.
    pub(crate) fn number(&mut self, suffix: &str, number: f64) -> Result<Map, Refusal> {
        let array = Floats::from_elem(IxDyn(&[]), number as f32);
        let known = Known::new(&format!("{}.{suffix}", self.label), Data::Floats(array));
        self.net.constant(&known, 0)
    }

    /// `known` in another shape of as many values.
    pub(crate) fn reshaped(&self, known: &Known, shape: &[usize]) -> Result<Known, Refusal> {
        let floats = known.floats("constant")?;
        if floats.shape() == shape {
            return Ok(known.clone());
        }
        let before = floats.shape().to_vec();
        let array = floats.as_standard_layout().into_owned().into_shape_with_order(IxDyn(shape));
        let Ok(array) = array else {
            return Refusal::setting("constant", before, format!("as many values as {shape:?}"));
        };
        let source = known.source.as_ref().map(|source| source.then(Step::Reshape(before)));
        Ok(Known { name: known.name.clone(), data: Data::Floats(array.into_shared()), source })
    }

    /// `known` with its two axes exchanged.
    pub(crate) fn turned(&self, known: &Known) -> Result<Known, Refusal> {
        let floats = known.floats("constant")?;
        let turned = floats.t().as_standard_layout().into_owned().into_shared();
        let source = known.source.as_ref().map(|source| source.then(Step::Transpose(vec![1, 0])));
        Ok(Known { name: known.name.clone(), data: Data::Floats(turned), source })
    }

    /// `Err` unless a constant of this shape may be computed; counts it.
    pub(crate) fn allow(&mut self, shape: &[usize]) -> Result<(), Refusal> {
        // An axis of size 0 does not excuse the others: ndarray multiplies all that are not.
        let count = shape.iter().try_fold(1_usize, |count, &size| {
            count.checked_mul(size.max(1)).filter(|&count| count <= MAX_FOLDED)
        });
        let left = count
            .filter(|_| shape.len() <= MAX_AXES)
            .and_then(|count| self.budget.checked_sub(count));
        match left {
            Some(left) => {
                *self.budget = left;
                Ok(())
            }
            None => Err(Refusal::Limit { most: MAX_FOLDED }),
        }
    }

    /// The first output's name in the file.
    pub(crate) fn output(&self) -> &str {
        self.outputs.first().map_or("", String::as_str)
    }
}
