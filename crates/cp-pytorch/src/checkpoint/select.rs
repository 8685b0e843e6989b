//! Which part of a checkpoint is the state dict: all of it, the entry that was asked for, or the only one that looks like one.

use std::collections::HashSet;

use crate::error::CheckpointError;
use crate::pickle::value::{Heap, Object, Tensor, Value};

/// Entries named in a message before the rest is counted.
const SHOWN: usize = 24;

/// What a module may keep beside its tensors (`get_extra_state`); no weights.
const EXTRA_STATE: &str = "_extra_state";

/// The tensors of a state dict.
pub(super) struct Chosen<'a> {
    /// The entry of the checkpoint that it is.
    pub(super) key: Option<String>,
    pub(super) tensors: Vec<(&'a str, &'a Tensor)>,
}

pub(super) fn choose<'a>(
    heap: &'a Heap,
    root: &'a Value,
    key: Option<&str>,
    file: &str,
) -> Result<Chosen<'a>, CheckpointError> {
    let Some(entries) = heap.dict(root) else {
        return Err(match heap.get(root) {
            Some(Object::Opaque(class)) => CheckpointError::WholeModule {
                file: file.into(),
                key: None,
                class: class.to_string(),
            },
            _ => CheckpointError::Choose { fitting: Vec::new(), keys: vec![heap.kind(root)] },
        });
    };
    if let Some(key) = key {
        let Some(value) = descend(heap, root, key) else {
            return Err(CheckpointError::UnknownKey {
                key: key.into(),
                keys: listed(heap, entries),
            });
        };
        return tensors(heap, value, Some(key.into()), file);
    }
    if looks_like(heap, root) {
        return tensors(heap, root, None, file);
    }
    // Entries of the checkpoint; where none of them will do, entries of its entries.
    let mut fitting = candidates(heap, root, "");
    if fitting.is_empty() {
        let mut seen = HashSet::new();
        for (key, value) in entries {
            if let (Value::Text(key), Value::Object(id)) = (key, value)
                && seen.insert(*id)
            {
                fitting.extend(candidates(heap, value, &format!("{key}.")));
            }
        }
    }
    match &fitting[..] {
        [(key, value)] => tensors(heap, value, Some(key.clone()), file),
        [] => Err(no_candidate(heap, entries, file)),
        _ => {
            let fitting = fitting.into_iter().map(|(key, _)| key).collect();
            Err(CheckpointError::Choose { fitting, keys: listed(heap, entries) })
        }
    }
}

/// Why nothing was found: a whole module that stands for the weights, or nothing at all.
fn no_candidate(heap: &Heap, entries: &[(Value, Value)], file: &str) -> CheckpointError {
    let module = entries.iter().find_map(|(key, value)| match (key, heap.get(value)) {
        (Value::Text(key), Some(Object::Opaque(class)))
            if ["model", "ema", "net", "module", "state_dict"].contains(&&**key) =>
        {
            Some((key.to_string(), class.to_string()))
        }
        _ => None,
    });
    match module {
        Some((key, class)) => {
            CheckpointError::WholeModule { file: file.into(), key: Some(key), class }
        }
        None => CheckpointError::Choose { fitting: Vec::new(), keys: listed(heap, entries) },
    }
}

/// The entries of `value` that look like state dicts; the same object under two names counts once.
fn candidates<'a>(heap: &'a Heap, value: &Value, prefix: &str) -> Vec<(String, &'a Value)> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (key, value) in heap.dict(value).unwrap_or_default() {
        if let (Value::Text(key), Value::Object(id)) = (key, value)
            && seen.insert(*id)
            && looks_like(heap, value)
        {
            found.push((format!("{prefix}{key}"), value));
        }
    }
    found
}

/// Whether it is a dict of names and tensors. Where names have dots in them, as those of parameters have, something else may be among
/// the tensors, and is complained of by its name.
fn looks_like(heap: &Heap, value: &Value) -> bool {
    let Some(entries) = heap.dict(value) else { return false };
    let is_tensor =
        |value: &Value| matches!(heap.get(value), Some(Object::Tensor(_) | Object::Refused(..)));
    let (mut tensors, mut others, mut dotted) = (0, 0, false);
    for (key, value) in entries {
        let Value::Text(key) = key else { return false };
        if is_tensor(value) {
            tensors += 1;
            dotted |= key.contains('.');
        } else if !key.ends_with(EXTRA_STATE) {
            others += 1;
        }
    }
    tensors > 0 && (others == 0 || dotted)
}

/// The value at `a.b`: the entry `a.b`, or the entry `b` of the entry `a`.
fn descend<'a>(heap: &'a Heap, value: &'a Value, key: &str) -> Option<&'a Value> {
    let entries = heap.dict(value)?;
    let entry = |name: &str| {
        let is = |key: &Value| matches!(key, Value::Text(key) if &**key == name);
        entries.iter().rev().find(|(key, _)| is(key)).map(|(_, value)| value)
    };
    let split = |(dot, _)| descend(heap, entry(&key[..dot])?, &key[dot + 1..]);
    entry(key).or_else(|| key.match_indices('.').find_map(split))
}

fn tensors<'a>(
    heap: &'a Heap,
    value: &'a Value,
    key: Option<String>,
    file: &str,
) -> Result<Chosen<'a>, CheckpointError> {
    let Some(entries) = heap.dict(value) else {
        let key = key.unwrap_or_default();
        return Err(match heap.get(value) {
            Some(Object::Opaque(class)) => CheckpointError::WholeModule {
                file: file.into(),
                key: Some(key),
                class: class.to_string(),
            },
            _ => CheckpointError::NoStateDict { key, kind: heap.kind(value) },
        });
    };
    let mut found = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let no_tensor = |name: &str| CheckpointError::NoTensor {
            name: name.into(),
            kind: heap.kind(value),
            file: file.into(),
            key: key.clone(),
        };
        let Value::Text(name) = name else { return Err(no_tensor(&format!("{name:?}"))) };
        match heap.get(value) {
            Some(Object::Tensor(tensor)) => found.push((&**name, tensor)),
            Some(Object::Refused(kind, way_out)) => {
                return Err(CheckpointError::Refused { name: name.to_string(), kind, way_out });
            }
            _ if name.ends_with(EXTRA_STATE) => {}
            _ => return Err(no_tensor(name)),
        }
    }
    if found.is_empty() {
        let (key, kind) = (key.unwrap_or_default(), "a dict without tensors".into());
        return Err(CheckpointError::NoStateDict { key, kind });
    }
    Ok(Chosen { key, tensors: found })
}

/// The entries and what they are.
fn listed(heap: &Heap, entries: &[(Value, Value)]) -> Vec<String> {
    let mut listed: Vec<String> = entries
        .iter()
        .take(SHOWN)
        .map(|(key, value)| match key {
            Value::Text(key) => format!("{key} ({})", heap.kind(value)),
            other => format!("{other:?} ({})", heap.kind(value)),
        })
        .collect();
    if entries.len() > SHOWN {
        listed.push(format!("… ({} more)", entries.len() - SHOWN));
    }
    listed
}
