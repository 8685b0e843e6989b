//! What can be wrong with a network, a plan or a model file.

use std::path::PathBuf;

use crate::factorize::Form;

/// The error of this crate. Variants hold data; the messages say what was found, what was expected and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// An architecture has no node at all.
    #[error("architecture '{name}' has no layers; the last layer would be its output")]
    Empty {
        /// Name of the architecture.
        name: String,
    },
    /// Two nodes have one name, or a node has no name or the reserved one.
    #[error(
        "layer name '{name}' is {problem}; every layer needs a name of its own, other than '' and '{}'",
        crate::INPUT
    )]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A node takes the output of one that does not stand before it.
    #[error(
        "layer '{layer}' takes its input from '{input}', which is not defined before it; a layer reads '{}' or an \
         earlier layer{}",
        crate::INPUT,
        closest(input, known)
    )]
    UndefinedInput {
        /// The node.
        layer: String,
        /// The name it refers to.
        input: String,
        /// The names that are defined there.
        known: Vec<String>,
    },
    /// A node has the wrong number of inputs.
    #[error("layer '{layer}' ({op}) has {got} inputs, expected {expected}")]
    Arity {
        /// The node.
        layer: String,
        /// Its op.
        op: &'static str,
        /// How many inputs the op takes.
        expected: &'static str,
        /// How many the node names.
        got: usize,
    },
    /// A node's output is not used, and it is not the last one.
    #[error(
        "nothing reads the output of layer '{layer}'; a network has one output, its last layer '{output}'"
    )]
    Unused {
        /// The node.
        layer: String,
        /// The last node.
        output: String,
    },
    /// A field of an op has an impossible value.
    #[error("layer '{layer}' ({op}): {field} is {got}, expected {expected}")]
    OpField {
        /// The node.
        layer: String,
        /// Its op.
        op: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// The description of the input is inconsistent.
    #[error("input of '{name}': {field} is {got}, expected {expected}")]
    InputField {
        /// Name of the architecture.
        name: String,
        /// The field.
        field: &'static str,
        /// Its value.
        got: String,
        /// What would do.
        expected: String,
    },
    /// An op cannot take an input of this shape.
    #[error("layer '{layer}' ({op}) cannot take an input of shape {input:?}: expected {expected}")]
    InputShape {
        /// The node.
        layer: String,
        /// Its op.
        op: &'static str,
        /// Shape of the (first offending) input, without the batch axis.
        input: Vec<usize>,
        /// What the op takes.
        expected: String,
    },
    /// Another input size changes the shape of the output, so the network is not made for it.
    #[error(
        "with an input of shape {input:?} the output '{layer}' has shape {got:?} instead of {expected:?}; this network is \
         tied to its input size"
    )]
    OutputShape {
        /// The last node.
        layer: String,
        /// The new input shape.
        input: Vec<usize>,
        /// Output shape before.
        expected: Vec<usize>,
        /// Output shape now.
        got: Vec<usize>,
    },
    /// No node of that name.
    #[error("no layer named '{name}'{}", closest(name, known))]
    UnknownLayer {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// The layer has been replaced by factors.
    #[error(
        "layer '{layer}' is factorized ({}): use those names, or `Network::densify` it first", parts.join(", ")
    )]
    AlreadyFactorized {
        /// Name of the dense layer.
        layer: String,
        /// The nodes that took its place.
        parts: Vec<String>,
    },
    /// The layer has not been replaced by factors.
    #[error("layer '{layer}' is not factorized{}", if factorized.is_empty() {
        "; no layer of this network is".to_string()
    } else {
        format!("; these are: {}", factorized.join(", "))
    })]
    NotFactorized {
        /// The name asked for.
        layer: String,
        /// The layers that are.
        factorized: Vec<String>,
    },
    /// The layer has another op than the one asked for.
    #[error("layer '{layer}' is {got}, expected {expected}")]
    WrongOp {
        /// The node.
        layer: String,
        /// What was wanted.
        expected: &'static str,
        /// What it is.
        got: &'static str,
    },
    /// A layer cannot have that form.
    #[error("layer '{layer}' cannot be written as {form}: {reason}")]
    FormMismatch {
        /// The layer.
        layer: String,
        /// The form.
        form: Form,
        /// Why not, and which form would do.
        reason: &'static str,
    },
    /// A rank with another count of numbers than the form has.
    #[error("layer '{layer}': the rank of {form} is {expected}, got {got} ({})", .got.kind())]
    RankKind {
        /// The layer.
        layer: String,
        /// The form.
        form: Form,
        /// What its rank looks like.
        expected: &'static str,
        /// The rank given.
        got: crate::Rank,
    },
    /// A rank of 0.
    #[error(
        "rank of layer '{layer}' is 0; the smallest rank is 1 (leave the layer out to keep it dense)"
    )]
    ZeroRank {
        /// The layer.
        layer: String,
    },
    /// A rank that no kernel of the layer's shape can need.
    #[error("rank {rank} of layer '{layer}' is above {max}, the largest that its kernel can need")]
    RankTooLarge {
        /// The layer.
        layer: String,
        /// The rank asked for.
        rank: usize,
        /// The largest one.
        max: usize,
    },
    /// Decompositions that do not belong to the layer.
    #[error("factors for layer '{layer}': {what} is {got:?}, expected {expected:?}")]
    Factors {
        /// The layer.
        layer: String,
        /// What of the factors.
        what: &'static str,
        /// As the layer asks for.
        expected: Vec<usize>,
        /// As given.
        got: Vec<usize>,
    },
    /// The record of a factorized layer does not agree with the nodes.
    #[error(
        "the record of factorized layer '{layer}' does not agree with the network at '{part}': {problem}; the model file \
         was changed by hand or written by another version"
    )]
    FactorizationRecord {
        /// The layer.
        layer: String,
        /// The part.
        part: String,
        /// What disagrees.
        problem: &'static str,
    },
    /// A weight array holds NaN or infinity.
    #[error(
        "the weights of layer '{layer}' hold {count} values that are NaN or infinite; they cannot be decomposed"
    )]
    NotFinite {
        /// The layer.
        layer: String,
        /// How many.
        count: usize,
    },
    /// A decomposition failed.
    #[error("layer '{layer}': {source}")]
    Decompose {
        /// The layer.
        layer: String,
        /// What cp-core said.
        source: cp_core::CpError,
    },
    /// No array of that name.
    #[error("no parameter named '{name}'{}", closest(name, known))]
    UnknownParam {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// An array has another shape than its op asks for.
    #[error("parameter '{name}' has shape {got:?}, expected {expected:?}")]
    ParamShape {
        /// Its name.
        name: String,
        /// The shape that the op asks for.
        expected: Vec<usize>,
        /// The shape given.
        got: Vec<usize>,
    },
    /// The arrays are not those of the architecture.
    #[error(
        "the weights do not fit architecture '{name}':{}",
        mismatch(missing, unexpected, misshaped)
    )]
    ParamMismatch {
        /// Name of the architecture.
        name: String,
        /// Arrays that the architecture has and the weights have not.
        missing: Vec<String>,
        /// Arrays that the weights have and the architecture has not.
        unexpected: Vec<String>,
        /// Name, expected shape and shape found.
        misshaped: Vec<(String, Vec<usize>, Vec<usize>)>,
    },
    /// There is no built-in architecture of that name.
    #[error("no architecture named '{name}'{}", closest(name, known))]
    UnknownArchitecture {
        /// The name asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// The head of a network cannot be replaced.
    #[error("the head of '{name}' cannot be replaced for {classes} classes: {reason}")]
    Head {
        /// Name of the architecture.
        name: String,
        /// The classes asked for.
        classes: usize,
        /// Why not.
        reason: &'static str,
    },
    /// A plan names a layer twice.
    #[error("the plan names layer '{layer}' more than once")]
    PlanDuplicate {
        /// The layer.
        layer: String,
    },
    /// A plan names a layer that has no kernel to decompose.
    #[error(
        "the plan names layer '{layer}', which is {op}; only convolutions and linear layers are factorized"
    )]
    PlanLayer {
        /// The layer.
        layer: String,
        /// Its op.
        op: &'static str,
    },
    /// A plan is no valid TOML of a plan.
    #[error("rank plan: {0}")]
    PlanSyntax(#[from] toml::de::Error),
    /// A plan cannot be written as TOML.
    #[error("rank plan: {0}")]
    PlanWrite(#[from] toml::ser::Error),
    /// No ratio to break-even meets the budget.
    #[error(
        "{quantity} cannot be brought to {asked:.4} of the dense network with these layers and forms; the nearest that \
         can be reached is {nearest:.4}"
    )]
    BudgetUnreachable {
        /// `parameters`, `multiply-adds` or `seconds`.
        quantity: &'static str,
        /// compressed / dense asked for.
        asked: f64,
        /// The nearest compressed / dense that ranks of at least 1 give.
        nearest: f64,
    },
    /// A budget that is no ratio.
    #[error("a budget of {got} for compressed / dense; expected a number above 0 and at most 1")]
    BudgetRange {
        /// As given.
        got: f64,
    },
    /// A budget in seconds for a plan that knows none.
    #[error(
        "a budget in seconds needs a profile in which the network was timed: `Profile::measure`, then seconds for the network, its \
         layers and its choices, then `Profile::plan`"
    )]
    BudgetUnmeasured,
    /// A profile without seconds where they count.
    #[error(
        "the profile has no seconds for {what}; time it, or ask for parameters or multiply-adds"
    )]
    SecondsMissing {
        /// The network, a layer, or one choice of a layer.
        what: String,
    },
    /// A rank that a profile does not hold and cannot be taken from its neighbours.
    #[error(
        "layer '{layer}': {form} R={rank} is not in the profile{}",
        if measured.is_empty() { ", nor is any other rank of that form".into() } else { format!("; measured: {}", list(measured)) }
    )]
    NotMeasured {
        /// The layer.
        layer: String,
        /// The form asked for.
        form: Form,
        /// The rank asked for.
        rank: crate::Rank,
        /// The ranks of this form that were measured.
        measured: Vec<crate::Rank>,
    },
    /// A sum of ranks that does not go round.
    #[error(
        "a rank budget of {budget} for the {layers}: with 1 for each layer and the ranks that are fixed, {least} are needed"
    )]
    RankBudget {
        /// `convolutions` or `linear layers`.
        layers: &'static str,
        /// As given.
        budget: usize,
        /// The least that will do.
        least: usize,
    },
    /// An option of a plan is out of its range.
    #[error("{option} is {got}, expected {expected}")]
    PlanOption {
        /// The option.
        option: &'static str,
        /// Its value.
        got: f64,
        /// What would do.
        expected: &'static str,
    },
    /// A number given for a layer is out of its range.
    #[error("{option} of layer '{layer}' is {got}, expected {expected}")]
    LayerOption {
        /// The layer.
        layer: String,
        /// What the number is.
        option: &'static str,
        /// Its value.
        got: f64,
        /// What would do.
        expected: &'static str,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not what its name promises.
    #[error("{}: no valid safetensors file ({source}); it may be truncated: fetch or write it again", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: safetensors::SafeTensorError,
    },
    /// A model file without an architecture in its metadata.
    #[error(
        "{}: holds weights but no architecture; name one of: {}", path.display(), crate::arch::names().join(", ")
    )]
    NoArchitecture {
        /// The file.
        path: PathBuf,
    },
    /// A model file whose architecture cannot be understood.
    #[error("{}: its architecture (metadata 'polyad') cannot be read: {source}", path.display())]
    BadArchitecture {
        /// The file.
        path: PathBuf,
        /// What the JSON reader said.
        source: serde_json::Error,
    },
    /// A model file of a later version.
    #[error("{}: written in format {version}, this version reads up to {supported}; update polyad", path.display())]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Its format.
        version: u32,
        /// The newest format known.
        supported: u32,
    },
    /// An array of a type that cannot be converted to f32.
    #[error("{}: '{name}' is of type {dtype}; F32, F64, F16 and BF16 can be read", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The array.
        name: String,
        /// Its type.
        dtype: String,
    },
    /// A file is fine by itself, but not for this network.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<NetError>,
    },
}

/// Ranks, one after the other.
fn list(ranks: &[crate::Rank]) -> String {
    ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Names shown before the rest of a long list is counted.
const SHOWN: usize = 8;

/// "; did you mean …? It has …" for a name that is not among `known`.
fn closest(name: &str, known: &[String]) -> String {
    if known.is_empty() {
        return "; there are none".into();
    }
    let mut ranked: Vec<(usize, usize, &String)> = known
        .iter()
        .enumerate()
        .map(|(position, other)| (strsim::damerau_levenshtein(name, other), position, other))
        .collect();
    ranked.sort();
    // A third of the letters wrong is no longer a slip of the pen.
    let meant: Vec<&str> = ranked
        .iter()
        .filter(|(distance, ..)| *distance <= name.chars().count().div_ceil(3))
        .take(3)
        .map(|(.., other)| other.as_str())
        .collect();
    let question = if meant.is_empty() {
        String::new()
    } else {
        format!("; did you mean '{}'?", meant.join("', '"))
    };
    let list = if known.len() <= 2 * SHOWN {
        known.join(", ")
    } else {
        format!("{}, … ({} more)", known[..SHOWN].join(", "), known.len() - SHOWN)
    };
    if question.is_empty() {
        format!("; there are: {list}")
    } else {
        format!("{question} There are: {list}")
    }
}

/// All differences between the arrays given and those expected, a kind per line.
fn mismatch(
    missing: &[String],
    unexpected: &[String],
    misshaped: &[(String, Vec<usize>, Vec<usize>)],
) -> String {
    let mut text = String::new();
    for (what, names) in [("missing", missing), ("unexpected", unexpected)] {
        if !names.is_empty() {
            text += &format!("\n  {what} ({}): {}", names.len(), names.join(", "));
        }
    }
    if !misshaped.is_empty() {
        let list: Vec<String> = misshaped
            .iter()
            .map(|(name, expected, got)| format!("{name} is {got:?}, expected {expected:?}"))
            .collect();
        text += &format!("\n  mis-shaped ({}): {}", misshaped.len(), list.join("; "));
    }
    text
}
