//! A model as a network: read for execution.
//!
//! What a network has no op for is refused, all nodes at once; a region without them is imported by naming the values around it.
//!
//! # The batch
//! The first axis of every input is the batch, whether the file fixes its size or not. It is followed through `Shape`, `Gather`, `Concat`
//! and `Reshape`, through transpositions that move it away and back, and has to be in front again at the outputs; what would mix the
//! examples of a batch is refused.
//!
//! # Constants
//! Everything that the inputs have no part in is computed once: shape arithmetic, repacked weights, branches of `If`. A weight that is a
//! tensor of the file up to transpositions and reshapes knows which ([`Imported::sources`]), so that it can be written back
//! ([`Model::update`]).

mod attributes;
mod call;
mod data;
mod error;
mod fold;
mod info;
mod net;
mod op;
mod region;
mod source;
mod update;
mod value;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use cp_net::{Architecture, Identity, InputSpec, Network};
use ndarray::ArrayD;

pub use error::{ImportError, Refusal, RefusedNode};
pub use region::Region;
pub use source::Source;

use crate::error::OnnxError;
use crate::import::info::{Info, info};
use crate::import::value::{Data, Kind, Known, Map, Num, Value};
use crate::import::walk::{Walk, live, reads};
use crate::layers::{Layer, groups, kernel};
use crate::model::Model;
use crate::proto::graph;
use crate::record::Record;
use crate::scopes::{Maker, Scopes};

/// Values that an input is bound to.
#[derive(Debug, Clone, PartialEq)]
pub enum Binding {
    /// Floating-point numbers of any type.
    Floats(ArrayD<f32>),
    /// Whole numbers of any type.
    Ints(ArrayD<i64>),
    /// Truth values.
    Bools(ArrayD<bool>),
}

/// What a model does not say, or what is wanted of it.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    inputs: Vec<(String, Vec<usize>)>,
    bound: BTreeMap<String, Binding>,
    outputs: Vec<String>,
}

impl ImportOptions {
    /// As the file has it.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sizes of an input, without the batch axis. A value that is no input becomes one: what makes it is left out.
    #[must_use]
    pub fn input(mut self, name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        self.inputs.push((name.into(), shape.into()));
        self
    }

    /// Sizes by the names of inputs; under [`cp_net::INPUT`] those of the only one of `model`, whatever its name.
    #[must_use]
    pub fn inputs(mut self, model: &Model, shapes: &BTreeMap<String, Vec<usize>>) -> Self {
        let inputs = model.inputs();
        for (name, shape) in shapes {
            let name = match (&inputs[..], name.as_str()) {
                ([only], cp_net::INPUT) => only.name.clone(),
                _ => name.clone(),
            };
            self = self.input(name, shape.clone());
        }
        self
    }

    /// Values of an input that are the same in every run: a sampling rate, a weight.
    #[must_use]
    pub fn bind(mut self, name: impl Into<String>, values: Binding) -> Self {
        self.bound.insert(name.into(), values);
        self
    }

    /// Values to put out, in this order, in the place of the file's outputs. They may be any values of the main graph.
    #[must_use]
    pub fn outputs(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.outputs = names.into_iter().map(Into::into).collect();
        self
    }
}

/// A model, or a region of it, as a network.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The network. Nodes, values and parameters have the names of the file's. An output that depends on no input has a batch of 1 in
    /// front that it does not have in the file.
    pub network: Network,
    /// By the name of a kernel in the network: the layer of [`Model::layers`] that it is. Kernels that the file holds in another form
    /// than its layer's are not among them.
    pub layers: BTreeMap<String, Layer>,
    /// By the name of a parameter: the tensor of the file that it is. Those that were computed have none.
    pub sources: BTreeMap<String, Source>,
    /// Tensors (scope and value) that went into other constants, too.
    consumed: BTreeSet<(String, String)>,
    /// Nodes (scope and first output) that the network stands for.
    read: BTreeSet<(String, String)>,
}

impl Model {
    /// The model as a network.
    ///
    /// # Errors
    /// [`ImportError::Nodes`] with every node that a network has no op for; [`ImportError::OpenShape`] for an input with sizes that
    /// neither the file nor `options` fix; options that name what is not there; [`OnnxError::Quantized`].
    pub fn import(&self, options: &ImportOptions) -> Result<Imported, OnnxError> {
        let (scopes, record) = self.read()?;
        let import = |source| OnnxError::Import { path: self.path.clone(), source };
        let name = self.path.as_ref().and_then(|path| path.file_stem());
        let name = name.map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
        let plan = Plan::new(&scopes, options).map_err(import)?;
        let mut walk = Walk::new(&scopes, self.folder(), plan.fixed);
        for input in &plan.inputs {
            walk.net.reserve(&input.name);
        }
        let found = walk.main(plan.values, &plan.outputs).map_err(import)?;
        let mut outputs = Vec::with_capacity(found.len());
        for (name, value) in plan.outputs.iter().zip(found) {
            match output(&mut walk, name, value).map_err(import)? {
                Some(name) => outputs.push(name),
                None => {
                    let nodes = std::mem::take(&mut walk.refused);
                    return Err(import(ImportError::Nodes { nodes }));
                }
            }
        }
        walk.net.prune(&outputs);
        let (arrays, sources) = walk.net.arrays();
        let nodes = std::mem::take(&mut walk.net.nodes);
        let arch = Architecture {
            name,
            inputs: plan.inputs,
            nodes,
            outputs,
            classes: Vec::new(),
            factorized: BTreeMap::new(),
        };
        let network = Network::new(arch, arrays)?;
        let layers = self.layers_of(&scopes, &record, &walk, &network);
        Ok(Imported { network, layers, sources, consumed: walk.consumed, read: walk.read })
    }

    /// The layers whose kernels the network has as they are.
    fn layers_of(
        &self,
        scopes: &Scopes<'_>,
        record: &Record,
        walk: &Walk<'_, '_>,
        network: &Network,
    ) -> BTreeMap<String, Layer> {
        let mut layers = BTreeMap::new();
        for group in groups(scopes) {
            let user = |place: &walk::Place| {
                group.users.iter().any(|(reader, _)| (reader.scope, reader.field) == *place)
            };
            let params =
                walk.kernels.iter().filter(|(_, place)| user(place)).map(|(param, _)| param);
            let params: BTreeSet<&String> =
                params.filter(|param| network.params().contains_key(*param)).collect();
            if params.is_empty() {
                continue;
            }
            let Some(found) = kernel(scopes, &group, record, self.folder()) else { continue };
            for param in params {
                let same = |array: &ArrayD<f32>| network.params().get(param) == Some(array);
                if found.array.as_ref().is_none_or(same) {
                    layers.insert(param.clone(), found.layer.clone());
                }
            }
        }
        layers
    }
}

/// The name of an output in the network, which is that of the file; `None` where it stands behind a refused node.
fn output(
    walk: &mut Walk<'_, '_>,
    name: &str,
    value: Value,
) -> Result<Option<String>, ImportError> {
    let wrong = |problem| ImportError::Output { output: name.into(), problem };
    let map = match value {
        Value::Nothing => return Err(wrong("is made by nothing")),
        Value::Unknown if walk.refused.is_empty() => {
            return Err(wrong("is none that a network has: the places of maxima, or a mask"));
        }
        Value::Unknown => return Ok(None),
        Value::Map(map) if map.batch == 0 => map,
        Value::Map(_) => {
            return Err(wrong(
                "has another axis in front of the batch's; cut the model in front of what moves it",
            ));
        }
        Value::Known(known) => {
            let numbers = match &known.data {
                Data::Floats(_) => Some(known.data.clone()),
                Data::Bools(flags) => {
                    Some(Data::Floats(flags.mapv(|flag| f32::from(u8::from(flag))).into_shared()))
                }
                Data::Ints(numbers) => numbers
                    .iter()
                    .map(|number| number.known().map(|number| number as f32))
                    .collect::<Option<Vec<f32>>>()
                    .and_then(|values| ArrayD::from_shape_vec(numbers.raw_dim(), values).ok())
                    .map(|array| Data::Floats(array.into_shared())),
            };
            let data = numbers.ok_or_else(|| wrong("is a size of the batch"))?;
            let known = Known { data, ..known };
            let map = walk.net.constant(&known, 0);
            map.map_err(|_| wrong("is a constant without values"))?
        }
    };
    if map.name == name {
        return Ok(Some(map.name));
    }
    let free = walk.net.value(name);
    if free != name {
        return Err(wrong("has the name of another value"));
    }
    let made = walk.net.add(name, Identity {}.into(), &[&map], Vec::new(), vec![free.clone()]);
    made.map(|_| Some(free)).map_err(|_| wrong("is no value"))
}

/// Where a network starts and ends.
struct Plan {
    inputs: Vec<InputSpec>,
    values: BTreeMap<String, Value>,
    outputs: Vec<String>,
    fixed: Option<i64>,
}

impl Plan {
    fn new(scopes: &Scopes<'_>, options: &ImportOptions) -> Result<Self, ImportError> {
        let main = &scopes.all[0];
        let infos: Vec<(String, Option<Info>)> = main
            .message
            .children(graph::INPUTS)
            .map(|(_, input)| (input.string(1), info(input)))
            .collect();
        let known = |name: &str| main.maker(name).is_some();
        let option = |what, name: &str, problem: &str| ImportError::Option {
            what,
            name: name.into(),
            problem: format!(
                "{problem}; its inputs are {}",
                infos.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join(", ")
            ),
        };
        for (name, shape) in &options.inputs {
            if !known(name) {
                return Err(option("input", name, "the model has no such value"));
            }
            if shape.contains(&0) {
                return Err(option("input", name, "a size is 0"));
            }
        }
        let mut values = BTreeMap::new();
        for (name, binding) in &options.bound {
            if !known(name) {
                return Err(option("input", name, "the model has no such value"));
            }
            let data = match binding {
                Binding::Floats(array) => Data::Floats(array.to_shared()),
                Binding::Ints(array) => Data::Ints(array.mapv(Num::Is)),
                Binding::Bools(array) => Data::Bools(array.clone()),
            };
            values.insert(name.clone(), Value::Known(Known::new(name, data)));
        }
        let outputs: Vec<String> = match options.outputs.is_empty() {
            true => {
                main.message.children(graph::OUTPUTS).map(|(_, output)| output.string(1)).collect()
            }
            false => options.outputs.clone(),
        };
        if let Some(name) = options.outputs.iter().find(|name| !known(name)) {
            return Err(option("output", name, "the model has no such value"));
        }
        let nodes: Vec<_> = main.nodes().collect();
        let cut = values.keys().cloned().chain(options.inputs.iter().map(|(name, _)| name.clone()));
        let live = live(&nodes, &outputs, &cut.collect());
        let mut read: Vec<String> = outputs.clone();
        for (_, node) in nodes.iter().filter(|(field, _)| live.contains(field)) {
            reads(node, &mut read);
        }
        let read: BTreeSet<String> = read.into_iter().collect();
        let mut inputs = Vec::new();
        let mut batch: Option<(String, usize)> = None;
        let given = |name: &str| {
            options
                .inputs
                .iter()
                .rev()
                .find(|(given, _)| given == name)
                .map(|(_, shape)| shape.clone())
        };
        for (name, info) in &infos {
            let constant = matches!(main.maker(name), Some(Maker::Initializer { .. }));
            if values.contains_key(name)
                || !read.contains(name)
                || constant && given(name).is_none()
            {
                continue;
            }
            let wrong =
                |problem: &str| ImportError::Input { input: name.clone(), problem: problem.into() };
            let info = info.as_ref().ok_or_else(|| wrong("is no tensor"))?;
            let inner = info.inner();
            if info.sizes.as_ref().is_some_and(Vec::is_empty) {
                return Err(wrong("is a single number"));
            }
            let shape = match (given(name), inner) {
                (Some(shape), None) => shape,
                (Some(shape), Some(inner)) => {
                    let fits = |(size, fixed): (&usize, &Option<usize>)| {
                        fixed.is_none_or(|fixed| fixed == *size)
                    };
                    if shape.len() != inner.len() || !shape.iter().zip(&inner).all(fits) {
                        let problem =
                            format!("is given {shape:?}, but the file has {}", info.text());
                        return Err(option("input", name, &problem));
                    }
                    shape
                }
                (None, inner) => {
                    let sizes = inner.unwrap_or_default();
                    let found = info.text();
                    let open = || ImportError::OpenShape {
                        input: name.clone(),
                        found: found.clone(),
                        sizes: sizes.clone(),
                    };
                    if info.sizes.is_none() {
                        return Err(open());
                    }
                    sizes.iter().copied().collect::<Option<Vec<usize>>>().ok_or_else(open)?
                }
            };
            if let Some(size) = info.batch() {
                match &batch {
                    Some((other, before)) if *before != size => {
                        let problem =
                            format!("has {size} along its first axis, and '{other}' has {before}");
                        return Err(wrong(&problem));
                    }
                    _ => batch = Some((name.clone(), size)),
                }
            }
            inputs.push((name.clone(), shape, info.kind));
        }
        for (name, shape) in &options.inputs {
            let is_input = infos.iter().any(|(input, _)| input == name);
            if !is_input && read.contains(name) && !inputs.iter().any(|(known, ..)| known == name) {
                inputs.push((name.clone(), shape.clone(), Kind::Float));
            }
        }
        let mut specs = Vec::new();
        for (name, shape, kind) in inputs {
            let map =
                Map { name: name.clone(), shape: shape.clone(), batch: 0, kind, turned: None };
            values.insert(name.clone(), Value::Map(map));
            specs.push(InputSpec::features(shape).named(name));
        }
        let fixed = batch.and_then(|(_, size)| i64::try_from(size).ok());
        Ok(Self { inputs: specs, values, outputs, fixed })
    }
}
