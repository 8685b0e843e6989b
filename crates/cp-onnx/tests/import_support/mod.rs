//! What the tests of the importer share: arrays of NumPy's files, and comparison with a reference.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "each test uses a part; a panic is how a test fails, in its helpers too"
)]

pub(crate) mod cases;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use cp_onnx::Binding;
use ndarray::{ArrayD, IxDyn, OwnedRepr};
use ndarray_npy::{NpzReader, ReadableElement};

/// The folder of models, or a line that says that there is none.
pub(crate) fn folder() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/datasets/onnx");
    let folder = std::env::var_os("POLYAD_ONNX").map_or_else(beside, PathBuf::from);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: no ONNX models at {}", folder.display());
    None
}

/// The cases that are skipped, and why: `tests/import.toml`, by section.
pub(crate) fn skipped(section: &str) -> BTreeMap<String, String> {
    let text = include_str!("../import.toml");
    let mut all: BTreeMap<String, BTreeMap<String, String>> = toml::from_str(text).unwrap();
    all.remove(section).unwrap()
}

/// Holds what happened to every case against the list of those that are skipped: each has to be equal, or listed and refused.
pub(crate) fn check(section: &str, found: BTreeMap<String, Result<(), String>>) {
    let skipped = skipped(section);
    let mut wrong = Vec::new();
    for name in skipped.keys().filter(|name| !found.contains_key(*name)) {
        wrong.push(format!("{name}: is listed, but there is no such case"));
    }
    for (name, outcome) in &found {
        match (outcome, skipped.get(name)) {
            (Ok(()), None) => {}
            (Ok(()), Some(reason)) => {
                wrong.push(format!("{name}: passes, but is listed: {reason}"))
            }
            (Err(error), None) => wrong.push(format!("{name}: {error}")),
            (Err(error), Some(_)) if error.starts_with("differs") => {
                wrong.push(format!("{name}: a wrong result is no reason to be skipped: {error}"));
            }
            (Err(_), Some(_)) => {}
        }
    }
    let passed = found.values().filter(|outcome| outcome.is_ok()).count();
    println!("{section}: {passed} of {} equal, {} listed as skipped", found.len(), skipped.len());
    assert!(wrong.is_empty(), "{}\n{} wrong", wrong.join("\n"), wrong.len());
}

/// All arrays of an `.npz`.
pub(crate) fn arrays(path: &Path) -> BTreeMap<String, Binding> {
    let mut file = NpzReader::new(File::open(path).unwrap()).unwrap();
    let names = file.names().unwrap();
    names
        .into_iter()
        .map(|name| (name.trim_end_matches(".npy").to_string(), array(&mut file, &name)))
        .collect()
}

fn array(file: &mut NpzReader<File>, name: &str) -> Binding {
    fn read<T: ReadableElement>(file: &mut NpzReader<File>, name: &str) -> Option<ArrayD<T>> {
        file.by_name::<OwnedRepr<T>, IxDyn>(name).ok()
    }
    macro_rules! integers {
        ($($kind:ty)*) => {
            $(if let Some(array) = read::<$kind>(file, name) {
                return Binding::Ints(array.mapv(|value| value as i64));
            })*
        };
    }
    if let Some(array) = read::<f32>(file, name) {
        return Binding::Floats(array);
    }
    if let Some(array) = read::<f64>(file, name) {
        return Binding::Floats(array.mapv(|value| value as f32));
    }
    if let Some(array) = read::<bool>(file, name) {
        return Binding::Bools(array);
    }
    integers!(i64 i32 i16 i8 u8 u16 u32 u64);
    panic!("{name}: an array of another type");
}

/// Any numbers as f32.
pub(crate) fn floats(binding: &Binding) -> ArrayD<f32> {
    match binding {
        Binding::Floats(array) => array.clone(),
        Binding::Ints(array) => array.mapv(|value| value as f32),
        Binding::Bools(array) => array.mapv(|flag| f32::from(u8::from(flag))),
    }
}

/// `Err` where an output differs from the reference by more than `most` of its largest value.
pub(crate) fn compare(
    name: &str,
    got: &ArrayD<f32>,
    expected: &ArrayD<f32>,
    most: f32,
) -> Result<(), String> {
    if got.shape() != expected.shape() {
        return Err(format!(
            "differs: {name} has shape {:?}, expected {:?}",
            got.shape(),
            expected.shape()
        ));
    }
    let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let worst = got.iter().zip(expected).fold(0.0_f32, |worst, (got, expected)| {
        let difference = (got - expected).abs();
        // Neither is a number: equal. One of them is not: as wrong as can be.
        let alike = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
        if alike {
            worst
        } else if difference.is_nan() {
            f32::INFINITY
        } else {
            worst.max(difference)
        }
    });
    if worst <= most * largest {
        return Ok(());
    }
    Err(format!("differs: {name} by {worst:.2e}, its largest value is {largest:.2e}"))
}
