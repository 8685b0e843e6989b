//! Who makes a value and who reads it, in every scope: main graph, branches of `If` and bodies of `Loop`, local functions.
//!
//! A graph inside of a node sees the values of the graphs around it; a function sees its inputs alone.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::proto::{Message, Payload, attribute, graph, model, node, tensor};

/// Name of the scope that every model has.
pub(crate) const MAIN: &str = "main graph";

/// What makes a value; `field` is its place among the fields of the scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    Initializer { field: usize },
    Node { field: usize },
    Input,
}

pub(crate) struct Scope<'a> {
    /// Unique: the way from the main graph, by first outputs of nodes.
    pub(crate) name: String,
    /// Places of fields from the model down to the scope.
    pub(crate) path: Vec<usize>,
    pub(crate) parent: Option<usize>,
    pub(crate) message: &'a Message,
    pub(crate) function: bool,
    pub(crate) opset: i64,
    makers: HashMap<String, Maker>,
    /// Initializers that are listed as inputs too.
    both: HashSet<String>,
    initializers: usize,
}

impl<'a> Scope<'a> {
    fn node_number(&self) -> u32 {
        if self.function { model::function::NODES } else { graph::NODES }
    }

    /// Its nodes, each with its place.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (usize, &'a Message)> + use<'a> {
        self.message.children(self.node_number())
    }

    pub(crate) fn node(&self, field: usize) -> Option<&'a Message> {
        match self.message.fields.get(field).map(|field| &field.payload) {
            Some(Payload::Message(message, _)) => Some(message),
            _ => None,
        }
    }

    /// Whether the initializer `name` is an input, too, whose default it is.
    pub(crate) fn is_default(&self, name: &str) -> bool {
        self.both.contains(name)
    }

    /// Whether it has initializers, all of which are listed as inputs.
    pub(crate) fn lists_initializers(&self) -> bool {
        self.initializers > 0 && self.both.len() == self.initializers
    }

    pub(crate) fn maker(&self, value: &str) -> Option<Maker> {
        self.makers.get(value).copied()
    }
}

/// A node that reads a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) scope: usize,
    pub(crate) field: usize,
    pub(crate) slot: usize,
}

/// A value: the scope that makes it, and its name there.
pub(crate) type Value = (usize, String);

pub(crate) struct Scopes<'a> {
    pub(crate) all: Vec<Scope<'a>>,
    /// Nodes by the value that they read.
    readers: HashMap<Value, Vec<Reader>>,
    outputs: HashSet<Value>,
    /// Version of the file format.
    pub(crate) ir: i64,
}

impl<'a> Scopes<'a> {
    pub(crate) fn of(root: &'a Message) -> Self {
        let ir = root.int(model::IR_VERSION).unwrap_or(0);
        let (readers, outputs) = (HashMap::new(), HashSet::new());
        let mut scopes = Self { all: Vec::new(), readers, outputs, ir };
        for (field, message) in root.children(model::GRAPH) {
            let opset = model::opset(root, model::OPSETS);
            scopes.add(MAIN.into(), vec![field], None, message, Some(opset));
        }
        let mut names = BTreeMap::new();
        for (field, message) in root.children(model::FUNCTIONS) {
            use model::function::{DOMAIN, NAME, OVERLOAD};
            let parts = [DOMAIN, NAME, OVERLOAD].map(|number| message.string(number));
            let name = format!("function {}", parts.join(":").trim_end_matches(':'));
            // No two functions have one name in a valid model.
            let count: &mut usize = names.entry(name.clone()).or_default();
            *count += 1;
            let name = if *count == 1 { name } else { format!("{name} ({count})") };
            scopes.add(name, vec![field], None, message, None);
        }
        scopes.read();
        scopes
    }

    /// A function where `opset` is not that of a graph around.
    fn add(
        &mut self,
        name: String,
        path: Vec<usize>,
        parent: Option<usize>,
        message: &'a Message,
        graph_opset: Option<i64>,
    ) {
        let function = graph_opset.is_none();
        let opset = graph_opset.unwrap_or_else(|| model::opset(message, model::function::OPSETS));
        let mut makers = HashMap::new();
        let (mut both, mut initializers) = (HashSet::new(), 0);
        if function {
            let inputs = message.strings(model::function::INPUTS);
            makers.extend(inputs.into_iter().map(|name| (name, Maker::Input)));
        } else {
            let inputs = message.children(graph::INPUTS).map(|(_, input)| input.string(1));
            makers.extend(inputs.map(|name| (name, Maker::Input)));
            for (field, tensor) in message.children(graph::INITIALIZERS) {
                let name = tensor.string(tensor::NAME);
                let before = makers.insert(name.clone(), Maker::Initializer { field });
                if before == Some(Maker::Input) {
                    both.insert(name);
                }
                initializers += 1;
            }
        }
        let index = self.all.len();
        let scope =
            Scope { name, path, parent, message, function, opset, makers, both, initializers };
        let nodes: Vec<_> = scope.nodes().collect();
        self.all.push(scope);
        for (field, node) in nodes {
            let outputs = node.strings(node::OUTPUTS);
            for (place, attribute) in node.children(node::ATTRIBUTES) {
                let graphs = attribute
                    .children(attribute::GRAPH)
                    .chain(attribute.children(attribute::GRAPHS));
                for (count, (inner, message)) in graphs.enumerate() {
                    let around = &self.all[index];
                    let label = attribute.string(attribute::NAME);
                    let count = if count == 0 { String::new() } else { format!("[{count}]") };
                    let first = outputs.first().map_or("", String::as_str);
                    let name = format!("{}/{first}.{label}{count}", around.name);
                    let path = [&around.path[..], &[field, place, inner]].concat();
                    self.add(name, path, Some(index), message, Some(opset));
                }
            }
            for output in outputs.into_iter().filter(|output| !output.is_empty()) {
                self.all[index].makers.insert(output, Maker::Node { field });
            }
        }
    }

    fn read(&mut self) {
        for (scope, around) in self.all.iter().enumerate() {
            for (field, node) in around.nodes() {
                for (slot, name) in node.strings(node::INPUTS).into_iter().enumerate() {
                    if let Some(value) = self.resolve(scope, &name) {
                        let reader = Reader { scope, field, slot };
                        self.readers.entry(value).or_default().push(reader);
                    }
                }
            }
            let outputs = if around.function {
                around.message.strings(model::function::OUTPUTS)
            } else {
                let outputs = around.message.children(graph::OUTPUTS);
                outputs.map(|(_, output)| output.string(1)).collect()
            };
            let read: Vec<Value> =
                outputs.iter().filter_map(|name| self.resolve(scope, name)).collect();
            self.outputs.extend(read);
        }
    }

    /// The value that `name` means in `scope`.
    pub(crate) fn resolve(&self, scope: usize, name: &str) -> Option<Value> {
        let mut at = Some(scope);
        while let Some(index) = at {
            let scope = self.all.get(index)?;
            if scope.makers.contains_key(name) && !name.is_empty() {
                return Some((index, name.into()));
            }
            at = scope.parent;
        }
        None
    }

    pub(crate) fn readers(&self, value: &Value) -> &[Reader] {
        self.readers.get(value).map_or(&[], Vec::as_slice)
    }

    /// Whether a graph or function gives `value`.
    pub(crate) fn is_output(&self, value: &Value) -> bool {
        self.outputs.contains(value)
    }

    pub(crate) fn by_name(&self, name: &str) -> Option<usize> {
        self.all.iter().position(|scope| scope.name == name)
    }

    /// Every name that stands anywhere: a new one must differ from all, since a graph inside may not hide what is around it.
    pub(crate) fn names(&self) -> HashSet<String> {
        let mut names = HashSet::new();
        for scope in &self.all {
            names.extend(scope.makers.keys().cloned());
            for (_, node) in scope.nodes() {
                names.insert(node.string(node::NAME));
                names.extend(node.strings(node::INPUTS));
            }
        }
        names
    }
}
