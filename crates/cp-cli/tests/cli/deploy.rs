//! The Python of docs/deploy.md, as it stands there, on a model that `polyad` compressed; where `cargo xtask` could install its packages.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::onnx::runs;
use crate::support::{json, model, text};

/// Behind the blocks of the document: what they leave is looked at.
const AFTER: &str = r#"
import os
float_outputs, int8_outputs = [], []
for path, into in [("faster.onnx", float_outputs), ("faster-int8.onnx", int8_outputs)]:
    session = onnxruntime.InferenceSession(path)
    for batch in images:
        into.append(session.run(None, {name: batch})[0])
y, q = np.concatenate(float_outputs), np.concatenate(int8_outputs)
print("off", float(np.linalg.norm(y - q) / np.linalg.norm(y)))
print("same", float((y.argmax(axis=1) == q.argmax(axis=1)).mean()))
print("bytes", os.path.getsize("faster.onnx"), os.path.getsize("faster-int8.onnx"))
"#;

#[test]
fn the_python_of_the_document_runs_and_quantizes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let site = root.join(".python/site");
    if !site.is_dir() {
        println!("skipped: the packages of docs/requirements.txt are not in .python/");
        return;
    }
    if !runs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let own = model(folder.path(), "small-cnn");
    json(&["convert", text(&own), text(&at("dense.onnx"))]);
    json(&[
        "compress",
        text(&at("dense.onnx")),
        "--params-ratio",
        "0.5",
        "--points",
        "4",
        "--out",
        text(&at("faster.onnx")),
    ]);
    let run = Command::new("python3")
        .args(["-c", &(document(&root) + AFTER)])
        .current_dir(folder.path())
        .env("PYTHONPATH", &site)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{told}");
    let said = String::from_utf8(run.stdout).unwrap();
    let number = |key: &str, at: usize| -> f64 {
        let line = said.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.split_whitespace().nth(at).unwrap().parse().unwrap()
    };
    println!("{said}");
    assert!(number("off ", 0) < 0.1 && number("same ", 0) > 0.8, "{said}");
    assert!(2.0 * number("bytes ", 1) < number("bytes ", 0), "{said}");
    // What is quantized is no model to compress.
    crate::support::fails(
        &[
            "compress",
            text(&at("faster-int8.onnx")),
            "--params-ratio",
            "0.5",
            "--out",
            text(&at("x.onnx")),
        ],
        1,
        &["compress the float model first"],
    );
}

/// The blocks of Python in docs/deploy.md, in order.
fn document(root: &Path) -> String {
    let document = fs::read_to_string(root.join("docs/deploy.md")).unwrap();
    let blocks = document.split("```python\n").skip(1);
    blocks.filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect()
}
