//! What the tests of the binary share: running it, small inputs, its answers as JSON.

use std::fs;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use cp_net::{Architecture, Network, arch};
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

/// A network of three classes from JSON of its input and nodes, with random weights.
pub(crate) fn written(folder: &Path, name: &str, input: &str, nodes: &str) -> PathBuf {
    let text = format!(r#"{{"name": "{name}", "inputs": [{input}], "nodes": [{nodes}]}}"#);
    let path = folder.join(format!("{name}.safetensors"));
    Architecture::from_json(&text).unwrap().initialize(1).unwrap().save(&path).unwrap();
    path
}

pub(crate) const RGB: &str =
    r#"{"shape": [3, 8, 8], "channels": "rgb", "scale": 0.00392156862745098}"#;
pub(crate) const HEAD: &str = r#"{"name": "pool", "op": "global_avg_pool", "inputs": ["input"]},
    {"name": "flat", "op": "flatten", "inputs": ["pool"]},
    {"name": "fc", "op": "linear", "out_features": 3, "inputs": ["flat"]}"#;
/// Pictures of three classes, a red, a green and a blue one, as `folder:`.
pub(crate) fn pictures(folder: &Path) -> String {
    for (class, name) in ["red", "green", "blue"].into_iter().enumerate() {
        for split in ["train", "test"] {
            let place = folder.join(format!("pictures/{split}/{name}"));
            fs::create_dir_all(&place).unwrap();
            for copy in 0..8_u8 {
                let mut pixel = [20 + copy; 3];
                pixel[class] = 220;
                let picture = image::RgbImage::from_pixel(8, 8, image::Rgb(pixel));
                picture.save(place.join(format!("{copy}.png"))).unwrap();
            }
        }
    }
    format!("folder:{}", text(&folder.join("pictures")))
}

/// Fails as it should, in few words, and shows nothing raw.
pub(crate) fn refused(args: &[&str], code: i32, words: &[&str]) -> String {
    let error = fails(args, code, words);
    assert!(error.len() < 900, "{} characters: {error}", error.len());
    for raw in ["frame #", "stack backtrace", "Exception raised"] {
        assert!(!error.contains(raw), "{error}");
    }
    assert!(!error.chars().any(|letter| letter.is_control() && letter != '\n'), "{error:?}");
    error
}

/// `polyad` that heeds Ctrl-C and its like, also where the tests were started to ignore them, as by `nohup` or a shell's `&`: what a process
/// ignores, those that it starts ignore, too.
#[cfg(unix)]
pub(crate) fn heeding() -> std::process::Command {
    use std::process::Command;
    let polyad = env!("CARGO_BIN_EXE_polyad");
    let own = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = own.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap_or("0").trim();
    // SIGHUP, SIGINT and SIGTERM: 1, 2 and 15.
    if u64::from_str_radix(mask, 16).unwrap() & 0x4003 == 0 {
        return Command::new(polyad);
    }
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP,INT,TERM", polyad]);
    command
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
