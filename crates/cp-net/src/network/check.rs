//! Whether an architecture hangs together, and whether arrays fit it.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::InputSpec;
use crate::op::Shape;

impl Architecture {
    /// Checks that this is one network: distinct names of nodes and values, every value made before it is read, every node read
    /// or put out by somebody, the number of inputs that each op takes, possible settings in every op, shapes that fit from the
    /// [`InputSpec`]s to the outputs, one shape for each parameter, and records of factorized layers that agree with the nodes.
    ///
    /// # Errors
    /// The first thing wrong, naming the layer.
    pub fn check(&self) -> Result<(), NetError> {
        if self.nodes.is_empty() || self.outputs.is_empty() {
            return Err(NetError::Empty { name: self.name.clone() });
        }
        let name_error = |name: &str, problem| Err(NetError::Name { name: name.into(), problem });
        let mut values = BTreeSet::new();
        for input in &self.inputs {
            check_input(&self.name, input)?;
            if input.name.is_empty() || !values.insert(input.name.as_str()) {
                return name_error(&input.name, "of an input: empty, or used more than once");
            }
        }
        if self.inputs.is_empty() {
            return Err(NetError::InputField {
                name: self.name.clone(),
                field: "inputs",
                got: "[]".into(),
                expected: "at least one".into(),
            });
        }
        let mut names = BTreeSet::new();
        for node in &self.nodes {
            node.check()?;
            if let Some(input) = node.inputs.iter().find(|input| !values.contains(input.as_str())) {
                return Err(NetError::UndefinedInput {
                    layer: node.name.clone(),
                    input: input.clone(),
                    known: values.iter().map(ToString::to_string).collect(),
                });
            }
            if node.name.is_empty() {
                return name_error("", "empty");
            }
            if self.inputs.iter().any(|input| input.name == node.name) {
                return name_error(&node.name, "reserved for the network's input");
            }
            if !names.insert(node.name.as_str()) {
                return name_error(&node.name, "used more than once");
            }
            for output in &node.outputs {
                if output.is_empty() || !values.insert(output) {
                    return name_error(output, "of an output: empty, or used more than once");
                }
            }
        }
        if let Some(output) = self.outputs.iter().find(|output| !values.contains(output.as_str())) {
            return Err(NetError::UnknownValue {
                value: output.clone(),
                known: values.iter().map(ToString::to_string).collect(),
            });
        }
        self.check_used()?;
        let shapes = self.shapes(self.input_shapes())?;
        self.check_shared()?;
        self.check_classes(shapes.get(&self.outputs[0]).unwrap_or_default())?;
        self.check_factorized()
    }

    /// Every node is there for something.
    fn check_used(&self) -> Result<(), NetError> {
        let used: BTreeSet<&str> = self
            .nodes
            .iter()
            .flat_map(|node| &node.inputs)
            .chain(&self.outputs)
            .map(String::as_str)
            .collect();
        let unused =
            |node: &&crate::Node| !node.outputs.iter().any(|output| used.contains(output.as_str()));
        match self.nodes.iter().find(unused) {
            Some(node) => {
                Err(NetError::Unused { layer: node.name.clone(), outputs: self.outputs.clone() })
            }
            None => Ok(()),
        }
    }

    /// Nodes that share a parameter agree on its shape and its role.
    fn check_shared(&self) -> Result<(), NetError> {
        let mut known = BTreeMap::new();
        for (name, spec) in self.nodes.iter().flat_map(crate::Node::param_specs) {
            let shape = spec.shape.clone();
            let (expected, role) = known.entry(name.clone()).or_insert((shape, spec.role));
            if *expected != spec.shape {
                let (expected, got) = (expected.clone(), spec.shape);
                return Err(NetError::ParamShape { name, expected, got });
            }
            if *role != spec.role {
                let (first, second) = (role.name(), spec.role.name());
                return Err(NetError::ParamRole { name, first, second });
            }
        }
        for node in &self.nodes {
            let slots: BTreeSet<&str> = node.op.params().iter().map(|spec| spec.slot).collect();
            if let Some(slot) = node.params.keys().find(|slot| !slots.contains(slot.as_str())) {
                return Err(NetError::UnknownSlot {
                    layer: node.name.clone(),
                    op: node.op.kind(),
                    slot: slot.clone(),
                    known: slots.into_iter().map(String::from).collect(),
                });
            }
        }
        Ok(())
    }

    fn check_classes(&self, output: &[usize]) -> Result<(), NetError> {
        if self.classes.is_empty() || output.contains(&self.classes.len()) {
            return Ok(());
        }
        Err(NetError::InputField {
            name: self.name.clone(),
            field: "classes",
            got: format!("{} names", self.classes.len()),
            expected: format!("as many as the output of shape {output:?} has"),
        })
    }
}

fn check_input(network: &str, input: &InputSpec) -> Result<(), NetError> {
    let wrong = |field, got: String, expected: String| {
        Err(NetError::InputField { name: network.into(), field, got, expected })
    };
    let channels = input.channels.count();
    let first = channels.or(input.shape.first().copied()).unwrap_or(0);
    // One number an example has no axis at all.
    let fits = channels.is_none() || input.shape.first() == Some(&first);
    if !fits || input.shape.contains(&0) {
        let expected = format!("[{first}, …] with no size 0");
        return wrong("shape", format!("{:?}", input.shape), expected);
    }
    let normalized = channels.unwrap_or(0);
    for (field, values) in [("mean", &input.mean), ("std", &input.std)] {
        if values.len() != normalized {
            let expected = format!("{normalized} values, one per channel of an image");
            return wrong(field, format!("{values:?}"), expected);
        }
    }
    if !input.mean.iter().chain([&input.scale]).all(|value| (*value as f32).is_finite()) {
        let got = format!("{:?}, {}", input.mean, input.scale);
        return wrong("mean or scale", got, "finite numbers".into());
    }
    if !input.std.iter().all(|value| (*value as f32).is_normal() && *value > 0.0) {
        return wrong("std", format!("{:?}", input.std), "positive numbers".into());
    }
    Ok(())
}

/// Compares names and shapes with those that `arch` asks for.
pub(crate) fn check_shapes(
    arch: &Architecture,
    given: &BTreeMap<&str, &[usize]>,
) -> Result<(), NetError> {
    let (mut missing, mut misshaped): (Vec<String>, Vec<(String, Shape, Shape)>) =
        Default::default();
    let mut wanted = BTreeSet::new();
    for (name, spec) in arch.params() {
        match given.get(name.as_str()) {
            None => missing.push(name.clone()),
            Some(shape) if **shape != spec.shape => {
                misshaped.push((name.clone(), spec.shape, shape.to_vec()));
            }
            Some(_) => {}
        }
        wanted.insert(name);
    }
    let unexpected: Vec<String> =
        given.keys().filter(|name| !wanted.contains(**name)).map(ToString::to_string).collect();
    if missing.is_empty() && unexpected.is_empty() && misshaped.is_empty() {
        return Ok(());
    }
    Err(NetError::ParamMismatch { name: arch.name.clone(), missing, unexpected, misshaped })
}
