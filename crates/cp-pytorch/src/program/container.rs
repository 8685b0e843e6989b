//! The archive around a program, in its two layouts: PyTorch's package of 2.8 and later (`models/model.json`, `data/weights/`), and the four
//! files of before (`serialized_exported_program.json`, `serialized_state_dict.json`, …, of which those with tensors are pickles).

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use super::ProgramError;
use super::schema::{Program, Version, Weights};
use crate::archive::Archive;
use crate::checkpoint::{self, StateDict, check_order};
use crate::dtype::Dtype;
use crate::error::CheckpointError;
use crate::limits::{Budget, MAX_JSON};
use crate::tensor::{Decoded, Layout, TensorError};

/// The major version of the schema that is read.
const MAJOR: i64 = 8;

/// `torch.strided` in the schema.
const STRIDED: i64 = 7;

const OLD_PROGRAM: &str = "serialized_exported_program.json";

/// A program and its arrays.
pub(super) struct Contents {
    pub(super) program: Program,
    pub(super) arrays: BTreeMap<String, Decoded>,
}

/// Whether the archive holds an exported program.
pub(crate) fn is_program(archive: &Archive<'_>) -> bool {
    archive.names().any(|name| name.ends_with(OLD_PROGRAM) || model_name(name).is_some())
}

/// `("folder/", "model")` of `folder/models/model.json`.
fn model_name(name: &str) -> Option<(&str, &str)> {
    let (folder, model) = name.strip_suffix(".json")?.rsplit_once("models/")?;
    ((folder.is_empty() || folder.ends_with('/')) && !model.contains('/'))
        .then_some((folder, model))
}

/// The program and its arrays; `None` where there is none.
pub(super) fn read(
    archive: &Archive<'_>,
    budget: &Budget,
) -> Result<Option<Contents>, ProgramError> {
    if let Some(old) = archive.names().find(|name| name.ends_with(OLD_PROGRAM)) {
        let folder = old.strip_suffix(OLD_PROGRAM).unwrap_or_default();
        let program = program(archive, old, budget)?;
        let mut arrays = BTreeMap::new();
        for stem in ["serialized_state_dict", "serialized_constants"] {
            let names = [".json", ".pt"].map(|end| format!("{folder}{stem}{end}"));
            if let Some(name) = names.iter().find(|name| archive.has(name)) {
                arrays.extend(pickled(archive, name, budget)?);
            }
        }
        return Ok(Some(Contents { program, arrays }));
    }
    let models: Vec<(&str, &str)> = archive.names().filter_map(model_name).collect();
    let (folder, model) = match models[..] {
        [] => return Ok(None),
        [model] => model,
        _ => {
            return Err(ProgramError::Several(
                models.iter().map(|(_, name)| name.to_string()).collect(),
            ));
        }
    };
    check_order(archive, folder, budget)?;
    let program = program(archive, &format!("{folder}models/{model}.json"), budget)?;
    let mut arrays = BTreeMap::new();
    for kind in ["weights", "constants"] {
        let place = format!("{folder}data/{kind}/");
        let config = format!("{place}{model}_{kind}_config.json");
        let old = format!("{place}{model}.pt");
        if archive.has(&config) {
            let weights: Weights = json(archive, &config, budget)?;
            arrays.extend(raw(archive, &place, weights, budget)?);
        } else if archive.has(&old) {
            arrays.extend(pickled(archive, &old, budget)?);
        }
    }
    Ok(Some(Contents { program, arrays }))
}

fn json<T: DeserializeOwned>(
    archive: &Archive<'_>,
    part: &str,
    budget: &Budget,
) -> Result<T, ProgramError> {
    let bytes = archive.read(part, budget)?;
    if bytes.len() > MAX_JSON {
        let (part, bytes) = (part.into(), bytes.len());
        return Err(ProgramError::LargeJson { part, bytes, most: MAX_JSON });
    }
    serde_json::from_slice(&bytes)
        .map_err(|source| ProgramError::Json { part: part.into(), source })
}

/// The program, once its version is known to be one that is read.
fn program(archive: &Archive<'_>, part: &str, budget: &Budget) -> Result<Program, ProgramError> {
    let version: Version = json(archive, part, budget)?;
    let number = |name: &str| version.schema_version.get(name).and_then(serde_json::Value::as_i64);
    match (number("major"), number("minor")) {
        (Some(MAJOR), _) => json(archive, part, budget),
        (Some(major), minor) => {
            let minor = minor.map_or(String::new(), |minor| format!(".{minor}"));
            Err(ProgramError::Schema { got: format!("{major}{minor}"), expected: MAJOR })
        }
        (None, _) => {
            let got = version.schema_version.to_string();
            Err(ProgramError::Schema { got, expected: MAJOR })
        }
    }
}

/// Weights as they lie in memory, each a member of the archive.
fn raw(
    archive: &Archive<'_>,
    place: &str,
    weights: Weights,
    budget: &Budget,
) -> Result<BTreeMap<String, Decoded>, ProgramError> {
    let mut arrays = BTreeMap::new();
    for (name, weight) in weights.config {
        let wrong = |source| ProgramError::Tensor { name: name.clone(), source };
        let refused = |kind: &str, way_out| wrong(TensorError::Type { kind: kind.into(), way_out });
        if weight.use_pickle {
            return Err(refused("pickled", "export the model again without tensor subclasses"));
        }
        let meta = &weight.tensor_meta;
        if meta.layout != STRIDED {
            return Err(refused("no dense tensor", "make it dense before the export"));
        }
        let Some(dtype) = Dtype::numbered(meta.dtype) else {
            let kind = format!("of type {} of the schema", meta.dtype);
            return Err(refused(&kind, "export the model in float32"));
        };
        let numbers = |sizes: &[super::schema::Size]| -> Vec<i64> {
            sizes.iter().map(|size| size.hint().unwrap_or(-1)).collect()
        };
        let offset = meta.storage_offset.hint().unwrap_or(-1);
        let layout =
            Layout::new(offset, &numbers(&meta.sizes), &numbers(&meta.strides)).map_err(wrong)?;
        let bytes = archive.read(&format!("{place}{}", weight.path_name), budget)?;
        let array = layout.read(&bytes, dtype, budget).map_err(wrong)?;
        arrays.insert(name, array);
    }
    Ok(arrays)
}

/// Weights as `torch.save` writes them.
fn pickled(
    archive: &Archive<'_>,
    name: &str,
    budget: &Budget,
) -> Result<BTreeMap<String, Decoded>, ProgramError> {
    let bytes = archive.read(name, budget)?;
    let StateDict { arrays, integers, .. } = match checkpoint::of_bytes(&bytes, None, name) {
        // An empty dict.
        Err(CheckpointError::Choose { keys, .. }) if keys.is_empty() => StateDict::default(),
        read => read?,
    };
    let floats = arrays.into_iter().map(|(name, array)| (name, Decoded::Float(array)));
    let integers = integers.into_iter().map(|(name, array)| (name, Decoded::Integer(array)));
    Ok(floats.chain(integers).collect())
}
