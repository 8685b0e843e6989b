//! What can be wrong with a network or a model file.

use std::path::PathBuf;

use crate::factor::form::Form;
use crate::factor::rank::Rank;
use crate::file::kind::FileKind;
use crate::op::BadField;

/// The error of this crate. Variants hold data; the messages say what was found, what was expected and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// An architecture has no node at all.
    #[error("architecture '{name}' has no layers or no outputs")]
    Empty {
        /// Name of the architecture.
        name: String,
    },
    /// Two nodes have one name, or a node has no name or the reserved one.
    #[error(
        "layer name '{name}' is {problem}; every layer, input and value needs a name of its own"
    )]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A node takes the output of one that does not stand before it.
    #[error(
        "layer '{layer}' takes its input from '{input}', which is not defined before it; a layer reads an input of the network or \
         what an earlier layer makes{}",
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
    /// A node has the wrong number of inputs or outputs.
    #[error("layer '{layer}' ({op}) has {got} {what}, expected {expected}")]
    Arity {
        /// The node.
        layer: String,
        /// Its op.
        op: &'static str,
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many the op has.
        expected: String,
        /// How many the node names.
        got: usize,
    },
    /// Nothing reads what a node makes, and the network does not put it out.
    #[error(
        "nothing reads the output of layer '{layer}', and it is none of the network's outputs ({})", outputs.join(", ")
    )]
    Unused {
        /// The node.
        layer: String,
        /// The network's outputs.
        outputs: Vec<String>,
    },
    /// The network puts out a value that nothing makes.
    #[error("the network has no value '{value}' to put out{}", closest(value, known))]
    UnknownValue {
        /// The name asked for.
        value: String,
        /// The values that there are.
        known: Vec<String>,
    },
    /// Inputs that the network cannot be run on.
    #[error("network '{name}' was given inputs of shapes {got:?}, expected {expected}")]
    EvalInput {
        /// The network.
        name: String,
        /// What would do.
        expected: String,
        /// Shapes of the inputs, with the batch axis.
        got: Vec<Vec<usize>>,
    },
    /// A node names a parameter for a slot that its op does not have.
    #[error("layer '{layer}' ({op}) has no parameter '{slot}'{}", closest(slot, known))]
    UnknownSlot {
        /// The node.
        layer: String,
        /// Its op.
        op: &'static str,
        /// The slot.
        slot: String,
        /// The slots that its op has.
        known: Vec<String>,
    },
    /// A field of an op has an impossible value.
    #[error("layer '{layer}' ({op}): {field}")]
    OpField {
        /// The node.
        layer: String,
        /// Its op.
        op: &'static str,
        /// The field, its value, and what would do.
        #[source]
        field: BadField,
    },
    /// A value or a parameter that no machine holds.
    #[error(
        "layer '{layer}' ({op}): an array of shape {shape:?} is too large, expected at most {most} values"
    )]
    TooLarge {
        /// The node, or the input.
        layer: String,
        /// Its op.
        op: &'static str,
        /// The shape, without the batch axis.
        shape: Vec<usize>,
        /// The largest number of values.
        most: usize,
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
    /// An op cannot take inputs of these shapes.
    #[error("layer '{layer}' ({op}) cannot take {}: expected {expected}", misfit(*index, inputs))]
    InputShape {
        /// The node.
        layer: String,
        /// Its op.
        op: &'static str,
        /// Which input does not fit, from 0.
        index: usize,
        /// All inputs: the value and its shape, without the batch axis.
        inputs: Vec<(String, Vec<usize>)>,
        /// What the op takes.
        expected: String,
    },
    /// The shape of an output changes with that of the input, or with an edit, where it must not.
    #[error(
        "with an input of shape {input:?} the output '{output}' has shape {got:?} instead of {expected:?}; this network is \
         tied to its input size"
    )]
    OutputShape {
        /// The value.
        output: String,
        /// The input shape.
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
        got: Rank,
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
    /// Clusters of equal size that the channels cannot be split into.
    #[error(
        "layer '{layer}': {clusters} clusters of its {channels} {what} channels (of each group) are not of equal size; choose a \
         divisor of {channels}"
    )]
    Clusters {
        /// The layer.
        layer: String,
        /// `output` or `input`.
        what: &'static str,
        /// Clusters asked for.
        clusters: usize,
        /// Channels of a group.
        channels: usize,
    },
    /// An order of channels that is none.
    #[error("layer '{layer}': the order of '{part}' {problem}")]
    Order {
        /// The layer.
        layer: String,
        /// Suffix of the part.
        part: &'static str,
        /// What is wrong with it.
        problem: String,
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
        "the weights of layer '{layer}' hold {count} values that are NaN or infinite: find where they come from"
    )]
    NotFinite {
        /// The layer.
        layer: String,
        /// How many.
        count: usize,
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
    /// One parameter is to be trained in one place and kept in another.
    #[error(
        "parameter '{name}' is a {first} of one node and a {second} of another: give one of them a parameter of its own"
    )]
    ParamRole {
        /// Its name.
        name: String,
        /// What the first node takes it for.
        first: &'static str,
        /// What another node takes it for.
        second: &'static str,
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
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of another kind than the one asked for.
    #[error("{}: is {kind}, not {expected}; {way_out}", path.display())]
    ForeignFile {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
        /// What was asked for, such as `a safetensors file`.
        expected: &'static str,
        /// What to do about it.
        way_out: &'static str,
    },
    /// A safetensors file that is damaged.
    #[error("{}: no valid safetensors file ({source}); it may be truncated: fetch or write it again", path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: safetensors::SafeTensorError,
    },
    /// A model file without an architecture in its metadata.
    #[error(
        "{}: holds weights but no architecture; `--arch` takes the path of a net.json or one of: {}", path.display(), known.join(", ")
    )]
    NoArchitecture {
        /// The file.
        path: PathBuf,
        /// The architectures that there are.
        known: Vec<&'static str>,
    },
    /// A model file whose architecture cannot be understood.
    #[error("{}: its architecture cannot be read: {source}", path.display())]
    BadArchitecture {
        /// The file.
        path: PathBuf,
        /// What the JSON reader said.
        source: serde_json::Error,
    },
    /// Text that is no architecture.
    #[error("no architecture: {0}")]
    Json(#[from] serde_json::Error),
    /// A setting of an architecture that it does not have, or that it cannot have.
    #[error("architecture '{name}': {problem}")]
    Setting {
        /// Name of the architecture.
        name: String,
        /// What is wrong, and what would do.
        problem: String,
    },
    /// Weights that are no numbers, or a negative variance.
    #[error(
        "array '{name}' holds {count} values that are {what}; the weights are damaged, or come from a training that diverged"
    )]
    BadValues {
        /// The array.
        name: String,
        /// How many.
        count: usize,
        /// `NaN or infinite`, or `negative variances`.
        what: &'static str,
    },
    /// Numbers of f64 that f32 does not have.
    #[error(
        "array '{name}' holds {count} values that are too {size} for f32, in which networks run; scale the weights before they are written"
    )]
    Conversion {
        /// The array.
        name: String,
        /// How many.
        count: usize,
        /// `large` or `small`.
        size: &'static str,
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

/// "an input 'conv1' of shape [8]", with the others where there are more.
fn misfit(index: usize, inputs: &[(String, Vec<usize>)]) -> String {
    let Some((value, shape)) = inputs.get(index) else { return "these inputs".into() };
    let all: Vec<String> =
        inputs.iter().map(|(value, shape)| format!("'{value}' {shape:?}")).collect();
    let of =
        if all.len() > 1 { format!(" (its inputs are {})", all.join(", ")) } else { String::new() };
    format!("an input of shape {shape:?}, '{value}'{of}")
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

/// Names of each kind shown where weights do not fit.
const FEW: usize = 4;

/// What differs between the arrays given and those expected, a kind per line, and the way out.
fn mismatch(
    missing: &[String],
    unexpected: &[String],
    misshaped: &[(String, Vec<usize>, Vec<usize>)],
) -> String {
    let misshaped: Vec<String> = misshaped
        .iter()
        .map(|(name, expected, got)| format!("{name} is {got:?}, expected {expected:?}"))
        .collect();
    let mut text = String::new();
    for (what, names) in
        [("missing", missing), ("unexpected", unexpected), ("mis-shaped", &misshaped)]
    {
        if !names.is_empty() {
            let rest = names.len().saturating_sub(FEW);
            let more = if rest > 0 { format!(", … ({rest} more)") } else { String::new() };
            let shown = names[..names.len().min(FEW)].join(", ");
            text += &format!("\n  {what} ({}): {shown}{more}", names.len());
        }
    }
    text + "\n  Name the architecture that the weights were trained with: `--arch NAME`, `--arch 'NAME(setting=…)'` or `--arch net.json`."
}
