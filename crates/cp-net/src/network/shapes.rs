//! Shape inference: what comes out of every node for inputs of any size.
//!
//! Shapes are without the batch axis: `[C, H, W]` for feature maps (any number of spatial axes), `[features]` behind a flattening.

use std::collections::BTreeMap;

use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;
use crate::network::node::Node;
use crate::op::Shape;

/// Values beyond this (4 TiB as f32) are typing errors; products of the sizes behind them might overflow.
const MAX_VALUES: usize = 1 << 40;

/// The same of an input: 16 GiB as f32.
const MAX_INPUT_VALUES: usize = 1 << 32;

/// The shape of every value of a network: to hold it is to know that the shapes fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shapes(BTreeMap<String, Shape>);

impl Shapes {
    /// The shape of a value, without the batch axis.
    pub fn get(&self, value: &str) -> Option<&[usize]> {
        self.0.get(value).map(Vec::as_slice)
    }

    /// The inputs of a network, as it was built for them.
    pub(crate) fn of_inputs(inputs: &[InputSpec]) -> Self {
        Self(inputs.iter().map(|input| (input.name.clone(), input.shape.clone())).collect())
    }

    /// Adds values.
    pub(crate) fn extend(&mut self, values: impl IntoIterator<Item = (String, Shape)>) {
        self.0.extend(values);
    }

    /// All values and their shapes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.0.iter().map(|(value, shape)| (value.as_str(), shape.as_slice()))
    }

    /// The shapes that `node` reads.
    pub fn inputs_of(&self, node: &Node) -> Vec<&[usize]> {
        node.inputs.iter().filter_map(|value| self.get(value)).collect()
    }

    /// The shapes that `node` makes.
    pub fn outputs_of(&self, node: &Node) -> Vec<Shape> {
        node.outputs.iter().filter_map(|value| self.0.get(value).cloned()).collect()
    }
}

/// Shapes of a network's inputs, without the batch axis: one (`[3, 32, 32]`), or a list of one for each input.
pub trait InputShapes {
    /// One for each input; of a network with several, those that are not given are as it was built for.
    fn shapes(&self) -> Vec<Shape>;
}

impl InputShapes for [usize] {
    fn shapes(&self) -> Vec<Shape> {
        vec![self.to_vec()]
    }
}

impl<const N: usize> InputShapes for [usize; N] {
    fn shapes(&self) -> Vec<Shape> {
        vec![self.to_vec()]
    }
}

impl InputShapes for Vec<usize> {
    fn shapes(&self) -> Vec<Shape> {
        vec![self.clone()]
    }
}

impl InputShapes for Vec<Shape> {
    fn shapes(&self) -> Vec<Shape> {
        self.clone()
    }
}

impl InputShapes for [InputSpec] {
    fn shapes(&self) -> Vec<Shape> {
        self.iter().map(|input| input.shape.clone()).collect()
    }
}

impl<T: InputShapes + ?Sized> InputShapes for &T {
    fn shapes(&self) -> Vec<Shape> {
        T::shapes(self)
    }
}

impl Architecture {
    /// The shapes of the inputs that the network was built for.
    pub fn input_shapes(&self) -> Vec<Shape> {
        self.inputs[..].shapes()
    }

    /// The shape of every value for inputs of these shapes; they may differ from those that the network was built for.
    ///
    /// # Errors
    /// [`NetError::InputShape`] at the first layer that cannot take what it is given.
    pub fn shapes(&self, inputs: impl InputShapes) -> Result<Shapes, NetError> {
        let given = inputs.shapes();
        let mut shapes = Shapes(BTreeMap::new());
        for (index, input) in self.inputs.iter().enumerate() {
            let shape = given.get(index).unwrap_or(&input.shape);
            if !is_at_most(shape, MAX_INPUT_VALUES) {
                return Err(too_large(&input.name, "input", shape, MAX_INPUT_VALUES));
            }
            shapes.0.insert(input.name.clone(), shape.clone());
        }
        for node in &self.nodes {
            let outputs = node.infer(&shapes)?;
            shapes.0.extend(node.outputs.iter().cloned().zip(outputs));
        }
        Ok(shapes)
    }

    /// The shape of the network's first output: `[classes]` for a classifier.
    ///
    /// # Errors
    /// As [`Architecture::shapes`]; [`NetError::Empty`] where there is no output.
    pub fn output_shape(&self, inputs: impl InputShapes) -> Result<Shape, NetError> {
        let shapes = self.shapes(inputs)?;
        let first = self.outputs.first().and_then(|output| shapes.get(output));
        Ok(first.ok_or_else(|| NetError::Empty { name: self.name.clone() })?.to_vec())
    }
}

impl Node {
    /// The shapes of this node's outputs, from the shapes of the values that are known.
    pub(crate) fn infer(&self, known: &Shapes) -> Result<Vec<Shape>, NetError> {
        self.check()?;
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for value in &self.inputs {
            inputs.push(known.get(value).ok_or_else(|| NetError::UndefinedInput {
                layer: self.name.clone(),
                input: value.clone(),
                known: known.0.keys().cloned().collect(),
            })?);
        }
        let outputs = self.op.output(&inputs).map_err(|mismatch| NetError::InputShape {
            layer: self.name.clone(),
            op: self.op.kind(),
            index: mismatch.input,
            inputs: self
                .inputs
                .iter()
                .zip(&inputs)
                .map(|(value, shape)| (value.clone(), shape.to_vec()))
                .collect(),
            expected: mismatch.expected,
        })?;
        match outputs.iter().find(|shape| !is_at_most(shape, MAX_VALUES)) {
            Some(shape) => Err(too_large(&self.name, self.op.kind(), shape, MAX_VALUES)),
            None => Ok(outputs),
        }
    }

    /// Fills in the settings that were left open, from the shapes of the values that are known.
    pub(crate) fn complete(&mut self, known: &Shapes) {
        let inputs = known.inputs_of(self);
        if self.op.arity().contains(&inputs.len()) {
            self.op.complete(&inputs);
        }
    }

    /// Number of inputs and outputs, possible values in every setting, and parameters that a machine could hold.
    pub(crate) fn check(&self) -> Result<(), NetError> {
        let arity = |what, expected: String, got| NetError::Arity {
            layer: self.name.clone(),
            op: self.op.kind(),
            what,
            expected,
            got,
        };
        self.op.check().map_err(|field| self.bad_field(field))?;
        if !self.op.arity().contains(&self.inputs.len()) {
            return Err(arity("inputs", self.op.arity_words(), self.inputs.len()));
        }
        if self.op.output_count() != self.outputs.len() {
            return Err(arity("outputs", self.op.output_count().to_string(), self.outputs.len()));
        }
        for spec in self.op.params() {
            if !is_at_most(&spec.shape, MAX_VALUES) {
                return Err(too_large(&self.name, self.op.kind(), &spec.shape, MAX_VALUES));
            }
        }
        Ok(())
    }

    pub(crate) fn bad_field(&self, field: crate::op::BadField) -> NetError {
        NetError::OpField { layer: self.name.clone(), op: self.op.kind(), field }
    }
}

fn is_at_most(shape: &[usize], most: usize) -> bool {
    let values = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    values.is_some_and(|values| values <= most)
}

fn too_large(layer: &str, op: &'static str, shape: &[usize], most: usize) -> NetError {
    NetError::TooLarge { layer: layer.into(), op, shape: shape.to_vec(), most }
}
