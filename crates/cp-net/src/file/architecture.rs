//! An architecture as JSON: in the metadata of a model file, and as a file of its own (docs/network.md).

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::error::NetError;
use crate::file::format1;
use crate::file::kind::FileKind;
use crate::file::read::{foreign, read_file};
use crate::network::architecture::Architecture;
use crate::network::shapes::Shapes;

/// The format of model files that [`Network::save`](crate::Network::save) writes; files of a later one are refused.
pub(super) const FORMAT: u32 = 2;

/// What stands in front of an architecture in a model file.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// The architecture in the metadata of a model file, of this format or the one before.
pub(super) fn from_header(path: &Path, json: &str) -> Result<Architecture, NetError> {
    let bad = |source| NetError::BadArchitecture { path: path.into(), source };
    // The format first: a later one may hold what this version cannot read.
    let Version { format } = serde_json::from_str(json).map_err(bad)?;
    if format > FORMAT {
        let (path, version, supported) = (path.into(), format, FORMAT);
        return Err(NetError::FormatVersion { path, version, supported });
    }
    let mut header: Value = serde_json::from_str(json).map_err(bad)?;
    let mut arch = header["architecture"].take();
    if format == 1 {
        arch = format1::upgraded(arch);
    }
    let arch: Architecture = serde_json::from_value(arch).map_err(bad)?;
    arch.check().map_err(|error| in_file(path, error))?;
    Ok(arch)
}

pub(super) fn in_file(path: &Path, source: NetError) -> NetError {
    NetError::InFile { path: path.into(), source: Box::new(source) }
}

impl Architecture {
    /// Reads an architecture from a JSON file, as docs/network.md describes it.
    ///
    /// # Errors
    /// [`NetError::Io`], [`NetError::ForeignFile`], [`NetError::BadArchitecture`] with line and column, and what [`Architecture::check`] finds; all name the file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, NetError> {
        let path = path.as_ref();
        const EXPECTED: &str = "an architecture as JSON";
        let bytes = read_file(path, EXPECTED)?;
        let arch: Self = serde_json::from_slice(&bytes).map_err(|source| {
            match (FileKind::of(&bytes), std::str::from_utf8(&bytes)) {
                // JSON with a mistake, whose place the reader names.
                (FileKind::Json | FileKind::Architecture, Ok(_)) => {
                    NetError::BadArchitecture { path: path.into(), source }
                }
                (FileKind::Text, Ok(_)) => NetError::BadArchitecture { path: path.into(), source },
                (kind, _) => foreign(path, kind, EXPECTED, kind.way_out_of_arch()),
            }
        })?;
        arch.completed().map_err(|error| in_file(path, error))
    }

    /// An architecture from JSON text. What can be known from the shapes of inputs may be left out: channels of inputs, strides of 1.
    ///
    /// ```
    /// let arch = cp_net::Architecture::from_json(r#"{
    ///     "name": "tiny",
    ///     "inputs": [{"shape": [1, 28, 28], "channels": "gray", "scale": 0.00392156862745098}],
    ///     "nodes": [
    ///         {"name": "conv", "op": "conv", "out_channels": 8, "kernel": [3, 3], "padding": [1, 1], "inputs": ["input"]},
    ///         {"name": "relu", "op": "relu", "inputs": ["conv"]},
    ///         {"name": "flat", "op": "flatten", "inputs": ["relu"]},
    ///         {"name": "fc", "op": "linear", "out_features": 10, "inputs": ["flat"]}
    ///     ]
    /// }"#)?;
    /// assert_eq!(arch.param_count(), 8 * 9 + 8 + 10 * 8 * 28 * 28 + 10);
    /// # Ok::<(), cp_net::NetError>(())
    /// ```
    ///
    /// # Errors
    /// [`NetError::Json`] with line and column, and what [`Architecture::check`] finds.
    pub fn from_json(text: &str) -> Result<Self, NetError> {
        serde_json::from_str::<Self>(text)?.completed()
    }

    /// The architecture as JSON, with all settings written out; [`Architecture::from_json`] reads it.
    ///
    /// # Errors
    /// [`NetError::Json`] for numbers that JSON does not have.
    pub fn to_json(&self) -> Result<String, NetError> {
        Ok(serde_json::to_string_pretty(self)?)
    }

    /// Fills in what was left open, from the shapes of the inputs; checked.
    fn completed(mut self) -> Result<Self, NetError> {
        for input in &mut self.inputs {
            input.complete();
        }
        if self.outputs.is_empty() {
            self.outputs = self.nodes.last().map(|node| node.outputs.clone()).unwrap_or_default();
        }
        let mut known = Shapes::of_inputs(&self.inputs);
        for node in &mut self.nodes {
            node.complete(&known);
            let outputs = node.infer(&known)?;
            known.extend(node.outputs.iter().cloned().zip(outputs));
        }
        self.check()?;
        Ok(self)
    }
}
