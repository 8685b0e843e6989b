//! `--inputs`: what an ONNX model is fed, from files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use cp_data::{Dataset as _, Pictures};
use cp_ort::ValueInfo;
use cp_train::{Engine, Examples};

use crate::common::Usage;
use crate::preprocess::Preprocess;
use crate::{npy, output};

/// Examples of a run where the model does not fix their number, for all but times.
pub(crate) const BATCH: usize = 8;

/// Says where there is too little to work with and to look at the result on.
pub(crate) fn note_single(path: &Path, examples: &Examples) {
    if examples.runs() == 1 {
        output::note(&format!(
            "--inputs {}: is one run of the model, which is worked with and looked at both; more would tell what is learned by heart",
            path.display()
        ));
    }
}

/// Reads PATH for the model in `model`, `batch` examples a run where it does not fix their number: an `.npz` or `.npy` file, a folder of such files, or a folder of pictures. `given` has the shapes
/// of inputs that the model leaves open; those that it lacks are taken from the examples.
pub(crate) fn open(
    path: &Path,
    model: &Path,
    given: &mut BTreeMap<String, Vec<usize>>,
    preprocess: Option<&Preprocess>,
    batch: usize,
) -> anyhow::Result<Examples> {
    let inputs = Engine::model_inputs(model)?;
    let files = if path.is_dir() { array_files(path)? } else { vec![path.to_owned()] };
    let examples = if files.is_empty() {
        pictures(path, &inputs, given, preprocess, batch)?
    } else {
        if preprocess.is_some() {
            return Err(Usage(format!(
                "--preprocess is for pictures, and --inputs {} holds arrays, which are fed as they are",
                path.display()
            ))
            .into());
        }
        let sets = files
            .iter()
            .map(|file| Ok((format!("--inputs {}", file.display()), npy::arrays(file)?)))
            .collect::<anyhow::Result<Vec<_>>>()
            .context("--inputs")?;
        note_unused(path, &sets, &inputs);
        Examples::arrays(sets, &inputs, batch)?
    };
    // A shape without a name is that of the only input.
    if !given.contains_key(cp_net::INPUT) {
        for (name, shape) in examples.shapes()? {
            given.entry(name).or_insert(shape);
        }
    }
    Ok(examples)
}

/// Says which arrays no input of the model takes. A single array serves a single input, whatever its name.
fn note_unused(path: &Path, sets: &[(String, cp_train::Feed)], inputs: &[ValueInfo]) {
    let mut unused: Vec<&str> = Vec::new();
    for (_, arrays) in sets.iter().filter(|(_, arrays)| arrays.len() > 1 || inputs.len() > 1) {
        for (name, _) in arrays {
            let taken = inputs.iter().any(|input| input.name == *name);
            if !taken && !unused.contains(&name.as_str()) {
                unused.push(name);
            }
        }
    }
    if !unused.is_empty() {
        output::note(&format!(
            "--inputs {}: not used, being no inputs of the model: {}",
            path.display(),
            unused.join(", ")
        ));
    }
}

/// The `.npz` and `.npy` files of a folder, in the order of their names.
fn array_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let named = || format!("--inputs {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(named)? {
        let entry = entry.with_context(named)?;
        // Those are of systems and editors, such as `._inputs.npz`.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        let kind = path.extension().map(|kind| kind.to_string_lossy().to_ascii_lowercase());
        if !matches!(kind.as_deref(), Some("npz" | "npy")) {
            continue;
        }
        let place =
            || format!("--inputs {}: cannot be read; remove it, or the link", path.display());
        if std::fs::metadata(&path).with_context(place)?.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn pictures(
    folder: &Path,
    inputs: &[ValueInfo],
    given: &BTreeMap<String, Vec<usize>>,
    preprocess: Option<&Preprocess>,
    batch: usize,
) -> anyhow::Result<Examples> {
    let set = Pictures::open(folder).context("--inputs")?;
    for note in set.notes() {
        output::note(&note.to_string());
    }
    let Some(preprocess) = preprocess else {
        return Err(Usage(format!(
            "--inputs {} holds pictures, and the model does not say how they become its input: add --preprocess imagenet, unit, caffe or a \
             file",
            folder.display()
        ))
        .into());
    };
    let mut sizes = [None; 3];
    if let [input] = inputs {
        let asked = given.get(&input.name).or_else(|| given.get(cp_net::INPUT));
        for (axis, size) in sizes.iter_mut().enumerate() {
            let fixed = input.dims.get(axis + 1).and_then(cp_ort::Dim::size);
            *size = asked.and_then(|sizes| sizes.get(axis).copied()).or(fixed);
        }
        if input.dims.len() != 4 {
            bail!(
                "--inputs {}: holds pictures, and the model's input '{}' is {input}",
                folder.display(),
                input.name
            );
        }
    }
    let (spec, layout) = preprocess.pictures(sizes)?;
    Ok(Examples::pictures(Arc::new(set), inputs, spec, layout, batch)?)
}
