//! Why a model, or one of its nodes, cannot be run as a network.

use crate::error::TensorError;

/// Nodes that a message lists one by one.
const LISTED: usize = 8;

/// Why a model cannot be read as a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// Nodes that a network has no op for; all of them at once.
    #[error("{}", listed(nodes))]
    Nodes {
        /// The nodes, in the order of the file.
        nodes: Vec<RefusedNode>,
    },
    /// An input with sizes that neither the file nor the options fix.
    #[error(
        "input '{input}' has shape {found} in the file; fix its sizes with --input {input}={} (the batch is left out)",
        suggested(sizes)
    )]
    OpenShape {
        /// The input.
        input: String,
        /// Its shape in the file.
        found: String,
        /// Its sizes without the batch axis, as far as they are known.
        sizes: Vec<Option<usize>>,
    },
    /// An input without a batch axis in front.
    #[error(
        "input '{input}' {problem}; every input of a network has the batch as its first axis: bind the input to a constant, or cut \
         the model behind it"
    )]
    Input {
        /// The input.
        input: String,
        /// What is wrong.
        problem: String,
    },
    /// An option that names something that the model does not have, or does not fit it.
    #[error("{what} '{name}': {problem}")]
    Option {
        /// What it is about, such as `input`.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong, and what there is.
        problem: String,
    },
    /// An output that is no value of a network.
    #[error("output '{output}' {problem}")]
    Output {
        /// The output.
        output: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// More nodes than a model can sensibly have, once its functions are inlined.
    #[error("more than {most} nodes with all functions inlined; do its functions call each other?")]
    TooManyNodes {
        /// The limit.
        most: usize,
    },
    /// Trained values that cannot be written back.
    #[error("parameter '{param}' changed in training, but {problem}")]
    WriteBack {
        /// The parameter of the network.
        param: String,
        /// Why not.
        problem: String,
    },
}

/// A node that cannot be part of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedNode {
    /// Its name, or its first output.
    pub name: String,
    /// Its op.
    pub op: String,
    /// The op's domain; empty for ONNX's own.
    pub domain: String,
    /// Why.
    pub refusal: Refusal,
}

impl std::fmt::Display for RefusedNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dot = if self.domain.is_empty() { "" } else { "." };
        write!(f, "'{}' ({}{dot}{}): {}", self.name, self.domain, self.op, self.refusal)
    }
}

/// Why a node cannot be part of a network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// An op that is not known.
    #[error("the op is not known")]
    Op,
    /// A kind of the op that is not known.
    #[error("{what} is not supported")]
    Form {
        /// The kind.
        what: String,
    },
    /// An attribute that the op does not have, or has in no version known.
    #[error("attribute '{name}' is not known")]
    Attribute {
        /// The attribute.
        name: String,
    },
    /// A value of an attribute or of a constant input that cannot be.
    #[error("{name} is {got}, expected {expected}")]
    Setting {
        /// The attribute or input.
        name: String,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// An input that has to be constant and is not.
    #[error("its {what} is computed from the model's inputs, expected a constant")]
    NotConstant {
        /// The input.
        what: &'static str,
    },
    /// An input that is left out, or that nothing makes.
    #[error("its input '{value}' is missing: nothing before it makes such a value")]
    Missing {
        /// The input.
        value: String,
    },
    /// Values of several examples would meet.
    #[error("{what} the batch axis, so that the examples of a batch would not be treated alike")]
    Batch {
        /// How.
        what: &'static str,
    },
    /// An input of another shape than the op takes.
    #[error("input {input} has shape {shape:?} behind the batch axis, expected {expected}")]
    Shape {
        /// Which, from 0.
        input: usize,
        /// Its shape.
        shape: Vec<usize>,
        /// What would do.
        expected: String,
    },
    /// A constant that cannot be read.
    #[error("tensor '{tensor}': {problem}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        problem: String,
    },
    /// Constants that would take more memory than they should.
    #[error("its constants hold more than {most} values")]
    Limit {
        /// The limit.
        most: usize,
    },
    /// Functions inside of each other.
    #[error("functions call each other more than {most} deep")]
    Depth {
        /// The limit.
        most: usize,
    },
}

impl Refusal {
    pub(crate) fn form<T>(what: impl Into<String>) -> Result<T, Self> {
        Err(Self::Form { what: what.into() })
    }

    pub(crate) fn batch<T>(what: &'static str) -> Result<T, Self> {
        Err(Self::Batch { what })
    }

    pub(crate) fn setting<T>(
        name: &str,
        got: impl std::fmt::Debug,
        expected: impl Into<String>,
    ) -> Result<T, Self> {
        let (name, got, expected) = (name.into(), format!("{got:?}"), expected.into());
        Err(Self::Setting { name, got, expected })
    }

    pub(crate) fn tensor(tensor: &str, source: &TensorError) -> Self {
        Self::Tensor { tensor: tensor.into(), problem: source.to_string() }
    }
}

fn listed(nodes: &[RefusedNode]) -> String {
    let count = nodes.len();
    let (nodes_are, rest) =
        (if count == 1 { "node is" } else { "nodes are" }, count.saturating_sub(LISTED));
    let mut text = format!("{count} {nodes_are} no part of a network:");
    for node in nodes.iter().take(LISTED) {
        text += &format!("\n  {node}");
    }
    if rest > 0 {
        text += &format!("\n  and {rest} more");
    }
    text + "\ncut the model in front of them or behind them, at values that both sides know"
}

fn suggested(sizes: &[Option<usize>]) -> String {
    // What images usually have, where nothing is said.
    let size = |size: &Option<usize>| size.unwrap_or(224).to_string();
    if sizes.is_empty() {
        "3x224x224".into()
    } else {
        sizes.iter().map(size).collect::<Vec<_>>().join("x")
    }
}
