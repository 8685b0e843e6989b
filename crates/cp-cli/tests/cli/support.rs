//! What the tests of the binary share: running it, small inputs, its answers as JSON.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use cp_net::{Network, arch};
use serde_json::Value;

/// `polyad` with nothing of this machine's settings that could change the outcome.
pub(crate) fn polyad(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("polyad").unwrap();
    command.args(args).env_remove("POLYAD_DATA");
    command
}

/// Runs `polyad` with `--json` and gives its one line.
pub(crate) fn json(args: &[&str]) -> Value {
    let output = polyad(args).arg("--json").assert().success().get_output().clone();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "one line of JSON: {text}");
    serde_json::from_str(&text).unwrap()
}

/// Runs `polyad`, which must fail with `code`, print nothing, and name every one of `words` in its error. Gives the error.
pub(crate) fn fails(args: &[&str], code: i32, words: &[&str]) -> String {
    let output = polyad(args).assert().code(code).get_output().clone();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    // What a user is told on the way stands before it.
    let said = error.lines().find(|line| !line.starts_with("note: ")).unwrap_or_default();
    assert!(said.starts_with("error: ") && !error.contains("panicked"), "{error}");
    for word in words {
        assert!(error.contains(word), "'{word}' is missing in: {error}");
    }
    error
}

/// Checks that a JSON object has these keys and no others.
pub(crate) fn assert_keys(value: &Value, expected: &[&str]) {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = expected.to_vec();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
}

/// A number in a JSON object.
pub(crate) fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is no number in {value}"))
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A network with random weights in a file of polyad's own.
pub(crate) fn model(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(format!("{name}.safetensors"));
    network(name).save(&path).unwrap();
    path
}

/// A network with random weights.
pub(crate) fn network(name: &str) -> Network {
    arch::by_name(name).unwrap().initialize(1).unwrap()
}

/// The same weights without the metadata: what other programs write.
pub(crate) fn foreign(model: &Path) -> PathBuf {
    let bytes = fs::read(model).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    header.as_object_mut().unwrap().remove("__metadata__").unwrap();
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let path = model.with_extension("foreign.safetensors");
    let mut foreign = (header.len() as u64).to_le_bytes().to_vec();
    foreign.extend(header);
    foreign.extend(&bytes[8 + length..]);
    fs::write(&path, foreign).unwrap();
    path
}

/// The files of a folder, sorted: for showing that nothing half-written is left.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A folder in which nobody can make a file: a read-only one, or for root, whom permissions do not stop, one of /proc.
pub(crate) fn read_only(folder: &Path) -> Option<PathBuf> {
    let path = folder.join("read-only");
    fs::create_dir(&path).unwrap();
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    [path, PathBuf::from("/proc/self")]
        .into_iter()
        .find(|path| path.is_dir() && fs::write(path.join("x"), "").is_err())
}
