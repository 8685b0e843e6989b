//! The Python of docs/deploy.md, as it stands there, on a model that `polyad` compressed; where `cargo xtask` could install its packages.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cp_data::{DataDir, Loader, LoaderConfig, Order};
use cp_net::Network;
use cp_torch::array_from_tensor;
use cp_torch::tch::Device;
use cp_train::batch::{fitting_transform, images_to_tensor};

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
    let said = python(&site, folder.path(), &(document(&root) + AFTER));
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

/// Quantizes the two models with images of the training set, and compares all four on others.
const MEASURE: &str = r#"
import time
times = {}
sessions = {}
for path in ["dense.onnx", "faster.onnx"]:
    short = path[:-5] + "-int8.onnx"
    quantize_static(path, short, Images(name, np.load("train.npy")[:, None]), weight_type=QuantType.QInt8, per_channel=True)
    for path in [path, short]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        sessions[path] = onnxruntime.InferenceSession(path, options)
        times[path] = []
x = np.load("test.npy")
for _ in range(15):
    for path, session in sessions.items():
        start = time.perf_counter()
        for _ in range(10):
            session.run(None, {name: x[:8]})
        times[path].append((time.perf_counter() - start) / 10)
best = {path: session.run(None, {name: x})[0].argmax(axis=1) for path, session in sessions.items()}
for path in sessions:
    agreement = (best[path] == best["dense.onnx"]).mean()
    print(path, os.path.getsize(path), f"{1e3 * np.median(times[path]):.3f} ms", f"{100 * agreement:.1f}")
"#;

/// Figures for the page: `cargo xtask test quantization_composes` prints them.
#[test]
fn quantization_composes_on_real_images() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let site = root.join(".python/site");
    let Some(data) = std::env::var_os("POLYAD_DATA").map(PathBuf::from) else {
        println!("skipped: POLYAD_DATA not set");
        return;
    };
    let weights = data.join("pretrained/resnet56-cifar10.safetensors");
    if !site.is_dir() || !weights.is_file() {
        println!("skipped: no {} or no {}", site.display(), weights.display());
        return;
    }
    if !runs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let half = at("half.safetensors");
    let from = [text(&weights), "--arch", "resnet56"];
    json(&[&["compress"], &from[..], &["--macs-ratio", "0.5", "--out", text(&half)]].concat());
    json(&[&["convert"], &from[..1], &[text(&at("dense.onnx"))], &from[1..]].concat());
    json(&["convert", text(&half), text(&at("faster.onnx"))]);
    let network = Network::load(&half).unwrap();
    for (split, count) in [("train", 64), ("test-1000", 1000)] {
        let set = cp_data::open("cifar10", split, &DataDir::locate(Some(data.clone()))).unwrap();
        let spec = network.architecture().input();
        let config = LoaderConfig {
            batch_size: count,
            order: Order::Sequential,
            transform: fitting_transform(set.as_ref(), spec).unwrap(),
            workers: 1,
            drop_last: false,
        };
        let batch = Loader::new(set, config).unwrap().next().unwrap().unwrap();
        let x = images_to_tensor(&batch.pixels, spec, Device::Cpu).unwrap();
        let name = if split == "train" { "train.npy" } else { "test.npy" };
        ndarray_npy::write_npy(at(name), &array_from_tensor(&x).unwrap()).unwrap();
    }
    let blocks = document(&root);
    let class = &blocks[blocks.find("from onnxruntime.quantization").unwrap()..];
    let class = class.split_once("\nname = ").unwrap().0;
    let head = "import os\nimport onnxruntime\nname = onnxruntime.InferenceSession('dense.onnx').get_inputs()[0].name\n";
    let said = python(&site, folder.path(), &[head, class, "\n", MEASURE].concat());
    println!("{said}");
    let agreement = |file: &str| -> f64 {
        let line = said.lines().find(|line| line.starts_with(file)).unwrap();
        line.split_whitespace().last().unwrap().parse().unwrap()
    };
    assert!(agreement("faster-int8.onnx ") > agreement("faster.onnx ") - 5.0, "{said}");
}

fn python(site: &Path, folder: &Path, program: &str) -> String {
    let run = Command::new("python3")
        .args(["-c", program])
        .current_dir(folder)
        .env("PYTHONPATH", site)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).unwrap()
}

/// The blocks of Python in docs/deploy.md, in order.
fn document(root: &Path) -> String {
    let document = fs::read_to_string(root.join("docs/deploy.md")).unwrap();
    let blocks = document.split("```python\n").skip(1);
    blocks.filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect()
}
