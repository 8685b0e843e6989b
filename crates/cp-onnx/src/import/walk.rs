//! The way through the nodes of a model, in their order: constants are computed, branches whose condition is constant are taken, local
//! functions are inlined, everything else becomes nodes of the network.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use crate::import::attributes::Attributes;
use crate::import::call::{Call, Outcome};
use crate::import::data;
use crate::import::error::{ImportError, Refusal, RefusedNode};
use crate::import::fold::{folder, is_followed};
use crate::import::net::Net;
use crate::import::op::importer;
use crate::import::source::Source;
use crate::import::value::{Data, Known, Value};
use crate::layers::label;
use crate::limits::{MAX_CALLS, MAX_FOLDED, MAX_NODES};
use crate::proto::{Message, attribute, graph, model, node, tensor};
use crate::scopes::{Maker, Scopes};

/// A graph or function while it is read.
struct Frame<'a> {
    scope: usize,
    values: HashMap<String, Value>,
    /// The frame of the graph around; functions have none.
    parent: Option<usize>,
    /// What the caller of the function gave.
    given: Attributes<'a>,
    /// In front of all names of a function's own.
    prefix: String,
}

/// A node of the file: the scope, and its place in it.
pub(crate) type Place = (usize, usize);

/// What is known on the way.
pub(crate) struct Walk<'s, 'a> {
    scopes: &'s Scopes<'a>,
    folder: Option<&'s Path>,
    children: HashMap<Vec<usize>, usize>,
    functions: HashMap<[String; 3], usize>,
    frames: Vec<Frame<'a>>,
    calls: usize,
    nodes: usize,
    budget: usize,
    fixed: Option<i64>,
    pub(crate) net: Net,
    pub(crate) refused: Vec<RefusedNode>,
    /// Where each of the refused nodes stands, if in the main graph.
    pub(crate) refused_at: Vec<Place>,
    /// Kernels, and the nodes of the file that have them.
    pub(crate) kernels: Vec<(String, Place)>,
    /// Every node that was read, by its scope and first output.
    pub(crate) read: BTreeSet<(String, String)>,
    /// Tensors that went into other constants.
    pub(crate) consumed: BTreeSet<(String, String)>,
}

impl<'s, 'a> Walk<'s, 'a> {
    pub(crate) fn new(
        scopes: &'s Scopes<'a>,
        folder: Option<&'s Path>,
        fixed: Option<i64>,
    ) -> Self {
        let mut children = HashMap::new();
        let mut functions = HashMap::new();
        for (index, scope) in scopes.all.iter().enumerate() {
            children.insert(scope.path.clone(), index);
            if scope.function {
                use model::function::{DOMAIN, NAME, OVERLOAD};
                let key = [DOMAIN, NAME, OVERLOAD].map(|number| scope.message.string(number));
                functions.entry(key).or_insert(index);
            }
        }
        Self {
            scopes,
            folder,
            children,
            functions,
            frames: Vec::new(),
            calls: 0,
            nodes: 0,
            budget: MAX_FOLDED,
            fixed,
            net: Net::default(),
            refused: Vec::new(),
            refused_at: Vec::new(),
            kernels: Vec::new(),
            read: BTreeSet::new(),
            consumed: BTreeSet::new(),
        }
    }

    /// Reads the main graph from `values` to the values `wanted`.
    pub(crate) fn main(
        &mut self,
        values: BTreeMap<String, Value>,
        wanted: &[String],
    ) -> Result<Vec<Value>, ImportError> {
        let fixed: HashSet<String> = values.keys().cloned().collect();
        self.frames.push(Frame {
            scope: 0,
            values: values.into_iter().collect(),
            parent: None,
            given: Attributes::default(),
            prefix: String::new(),
        });
        self.scope(0, wanted, &fixed)?;
        wanted.iter().map(|name| Ok(self.resolve(0, name).unwrap_or(Value::Nothing))).collect()
    }

    /// Reads those nodes of a frame that `wanted` comes from.
    fn scope(
        &mut self,
        frame: usize,
        wanted: &[String],
        fixed: &HashSet<String>,
    ) -> Result<(), ImportError> {
        let scope = self.frames[frame].scope;
        let nodes: Vec<(usize, &'a Message)> = self.scopes.all[scope].nodes().collect();
        let live = live(&nodes, wanted, fixed);
        for (field, node) in nodes {
            if live.contains(&field) {
                self.node(frame, field, node, fixed)?;
            }
        }
        Ok(())
    }

    /// What `name` is in a frame: computed before, or a tensor of the file.
    fn resolve(&mut self, frame: usize, name: &str) -> Option<Value> {
        let mut at = Some(frame);
        while let Some(index) = at {
            if let Some(value) = self.frames[index].values.get(name) {
                return Some(value.clone());
            }
            let scope = &self.scopes.all[self.frames[index].scope];
            if let Some(Maker::Initializer { field }) = scope.maker(name)
                && let Some(tensor) = scope.node(field)
            {
                let value = match self.tensor(self.frames[index].scope, name, tensor) {
                    Ok(known) => Value::Known(known),
                    Err(refusal) => {
                        self.refuse("Initializer", "", name, refusal, (usize::MAX, field));
                        Value::Unknown
                    }
                };
                self.frames[index].values.insert(name.into(), value.clone());
                return Some(value);
            }
            at = self.frames[index].parent;
        }
        None
    }

    fn tensor(&self, scope: usize, name: &str, message: &Message) -> Result<Known, Refusal> {
        let data = data::read(message, self.folder)
            .map_err(|source| Refusal::tensor(&message.string(tensor::NAME), &source))?;
        let scope = self.scopes.all[scope].name.clone();
        let source = matches!(data, Data::Floats(_)).then(|| Source {
            scope,
            value: name.into(),
            steps: Vec::new(),
        });
        Ok(Known { name: name.into(), data, source })
    }

    fn refuse(&mut self, op: &str, domain: &str, name: &str, refusal: Refusal, place: Place) {
        let (name, op) = (name.into(), op.into());
        self.refused.push(RefusedNode { name, op, domain: domain.into(), refusal });
        self.refused_at.push(place);
    }

    fn node(
        &mut self,
        frame: usize,
        field: usize,
        node: &'a Message,
        fixed: &HashSet<String>,
    ) -> Result<(), ImportError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(ImportError::TooManyNodes { most: MAX_NODES });
        }
        let scope = self.frames[frame].scope;
        let outputs = node.strings(node::OUTPUTS);
        self.read.insert((
            self.scopes.all[scope].name.clone(),
            outputs.first().cloned().unwrap_or_default(),
        ));
        let mut made = match self.outcome(frame, field, node, &outputs)? {
            Ok(made) => made,
            Err(None) => Vec::new(),
            Err(Some(refusal)) => {
                let (op, domain) = (node.string(node::OP), node.string(node::DOMAIN));
                let domain = if model::is_onnx_domain(&domain) { "" } else { domain.as_str() };
                self.refuse(&op, domain, &label(node), refusal, (scope, field));
                Vec::new()
            }
        };
        made.resize(outputs.len().max(made.len()), Value::Unknown);
        for (name, value) in outputs.into_iter().zip(made) {
            // What the caller cut is not overwritten.
            let cut = frame == 0 && fixed.contains(&name);
            if !name.is_empty() && !cut {
                self.frames[frame].values.insert(name, value);
            }
        }
        Ok(())
    }

    /// What a node makes, or why it is refused; `None` where it stands behind a refused one.
    #[allow(
        clippy::type_complexity,
        reason = "two kinds of failure: one of the node, one of the model"
    )]
    fn outcome(
        &mut self,
        frame: usize,
        field: usize,
        node: &'a Message,
        outputs: &[String],
    ) -> Result<Result<Vec<Value>, Option<Refusal>>, ImportError> {
        let scope = self.frames[frame].scope;
        let mut inputs = Vec::new();
        for name in node.strings(node::INPUTS) {
            if name.is_empty() {
                inputs.push(Value::Nothing);
                continue;
            }
            match self.resolve(frame, &name) {
                Some(Value::Unknown) => return Ok(Err(None)),
                Some(value) => inputs.push(value),
                None => return Ok(Err(Some(Refusal::Missing { value: name }))),
            }
        }
        while let Some(Value::Nothing) = inputs.last() {
            inputs.pop();
        }
        let attributes = Attributes::of(node, &self.frames[frame].given);
        let (op, domain) = (node.string(node::OP), node.string(node::DOMAIN));
        let key = [domain.clone(), op.clone(), node.string(node::OVERLOAD)];
        if let Some(&function) = self.functions.get(&key) {
            return self.function(frame, function, attributes, inputs, &label(node));
        }
        if !model::is_onnx_domain(&domain) {
            return Ok(Err(Some(Refusal::Op)));
        }
        if op == "If" {
            return self.branch(frame, field, node, inputs.first());
        }
        if op == "Constant"
            && let Some(message) = attributes.take("value")
        {
            let held = message.children(attribute::TENSOR).last().map(|(_, tensor)| tensor);
            let name = outputs.first().cloned().unwrap_or_default();
            return Ok(match held.map(|tensor| self.tensor(scope, &name, tensor)) {
                Some(Ok(known)) => Ok(vec![Value::Known(known)]),
                Some(Err(refusal)) => Err(Some(refusal)),
                None => Err(Some(Refusal::Form { what: "a constant that is no tensor".into() })),
            });
        }
        let constant = inputs.iter().all(|value| matches!(value, Value::Known(_) | Value::Nothing));
        let read = match (constant, folder(&op), importer(&op)) {
            (true, Some(fold), _) => fold,
            (_, _, Some(importer)) => importer,
            _ => return Ok(Err(Some(Refusal::Op))),
        };
        if constant && !is_followed(&op) || !constant && op == "Where" {
            self.consume(&inputs);
        }
        let prefix = &self.frames[frame].prefix;
        let called = |name: &String| match name.is_empty() {
            true => String::new(),
            false => format!("{prefix}{name}"),
        };
        let mut call = Call {
            net: &mut self.net,
            label: called(&label(node)),
            op,
            opset: self.scopes.all[scope].opset,
            attributes,
            inputs,
            outputs: outputs.iter().map(called).collect(),
            fixed: self.fixed,
            budget: &mut self.budget,
            kernel: None,
        };
        let outcome: Outcome = read(&mut call);
        let finished = call.attributes.finish();
        let kernel = call.kernel.take();
        let outcome = outcome.and_then(|made| finished.map(|()| made));
        if let (Ok(_), Some(kernel)) = (&outcome, kernel) {
            self.kernels.push((kernel, (scope, field)));
        }
        Ok(outcome.map_err(Some))
    }

    fn consume(&mut self, inputs: &[Value]) {
        for value in inputs {
            if let Value::Known(Known { source: Some(source), .. }) = value {
                self.consumed.insert((source.scope.clone(), source.value.clone()));
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "as `outcome`")]
    fn branch(
        &mut self,
        frame: usize,
        field: usize,
        node: &'a Message,
        condition: Option<&Value>,
    ) -> Result<Result<Vec<Value>, Option<Refusal>>, ImportError> {
        let Some(Value::Known(condition)) = condition else {
            return Ok(Err(Some(Refusal::NotConstant { what: "condition" })));
        };
        let taken = match condition.scalar("condition") {
            Ok(number) if number != 0.0 => "then_branch",
            Ok(_) => "else_branch",
            Err(refusal) => return Ok(Err(Some(refusal))),
        };
        let mut path = self.scopes.all[self.frames[frame].scope].path.clone();
        let found = node.children(node::ATTRIBUTES).find_map(|(place, message)| {
            let (inner, _) = message.children(attribute::GRAPH).last()?;
            (message.string(attribute::NAME) == taken).then_some([field, place, inner])
        });
        path.extend(found.into_iter().flatten());
        let Some(&scope) = self.children.get(&path).filter(|_| found.is_some()) else {
            return Ok(Err(Some(Refusal::Attribute { name: taken.into() })));
        };
        let message = self.scopes.all[scope].message;
        let wanted: Vec<String> =
            message.children(graph::OUTPUTS).map(|(_, output)| output.string(1)).collect();
        let inner = self.frames.len();
        let (given, prefix) = (self.frames[frame].given.clone(), self.frames[frame].prefix.clone());
        self.frames.push(Frame {
            scope,
            values: HashMap::new(),
            parent: Some(frame),
            given,
            prefix,
        });
        self.scope(inner, &wanted, &HashSet::new())?;
        let made = self.results(inner, &wanted);
        self.frames.truncate(inner);
        Ok(made)
    }

    /// The outputs of a frame, which are values of the frame around from then on.
    fn results(&mut self, frame: usize, wanted: &[String]) -> Result<Vec<Value>, Option<Refusal>> {
        wanted
            .iter()
            .map(|name| {
                self.resolve(frame, name)
                    .ok_or_else(|| Some(Refusal::Missing { value: name.clone() }))
            })
            .collect()
    }

    #[allow(clippy::type_complexity, reason = "as `outcome`")]
    fn function(
        &mut self,
        frame: usize,
        scope: usize,
        attributes: Attributes<'a>,
        inputs: Vec<Value>,
        label: &str,
    ) -> Result<Result<Vec<Value>, Option<Refusal>>, ImportError> {
        if self.calls >= MAX_CALLS {
            return Ok(Err(Some(Refusal::Depth { most: MAX_CALLS })));
        }
        let message: &'a Message = self.scopes.all[scope].message;
        let names = message.strings(model::function::INPUTS);
        if inputs.len() > names.len() {
            let (got, expected) = (inputs.len().to_string(), format!("at most {}", names.len()));
            return Ok(Err(Some(Refusal::Setting { name: "inputs".into(), got, expected })));
        }
        let mut values: HashMap<String, Value> =
            names.iter().map(|name| (name.clone(), Value::Nothing)).collect();
        values.extend(names.into_iter().zip(inputs));
        let wanted = message.strings(model::function::OUTPUTS);
        let defaults = message.children(model::function::DEFAULTS).map(|(_, message)| message);
        let given = attributes.or_defaults(defaults);
        let prefix = format!("{}{label}/", self.frames[frame].prefix);
        let inner = self.frames.len();
        self.frames.push(Frame { scope, values, parent: None, given, prefix });
        self.calls += 1;
        let done = self.scope(inner, &wanted, &HashSet::new());
        self.calls -= 1;
        done?;
        let made = self.results(inner, &wanted);
        self.frames.truncate(inner);
        Ok(made)
    }
}

/// The nodes that `wanted` comes from; nothing in front of a value that is `fixed`.
pub(crate) fn live(
    nodes: &[(usize, &Message)],
    wanted: &[String],
    fixed: &HashSet<String>,
) -> HashSet<usize> {
    let mut needed: HashSet<String> =
        wanted.iter().filter(|name| !fixed.contains(*name)).cloned().collect();
    let mut live = HashSet::new();
    for (field, node) in nodes.iter().rev() {
        if node.strings(node::OUTPUTS).iter().any(|output| needed.contains(output)) {
            live.insert(*field);
            let mut read = Vec::new();
            reads(node, &mut read);
            needed.extend(read.into_iter().filter(|name| !fixed.contains(name)));
        }
    }
    live
}

/// Every name that a node reads, those of the graphs inside of it included.
pub(crate) fn reads(node: &Message, found: &mut Vec<String>) {
    found.extend(node.strings(node::INPUTS).into_iter().filter(|name| !name.is_empty()));
    for (_, message) in node.children(node::ATTRIBUTES) {
        let graphs = message.children(attribute::GRAPH).chain(message.children(attribute::GRAPHS));
        for (_, inner) in graphs {
            for (_, node) in inner.children(graph::NODES) {
                reads(node, found);
            }
            found.extend(inner.children(graph::OUTPUTS).map(|(_, output)| output.string(1)));
        }
    }
}
