//! ONNX models through every command: compressed in place, converted, timed and evaluated.

use std::fs;
use std::path::{Path, PathBuf};

use cp_net::Network;
use cp_onnx::Model;

use crate::engine::images;
use crate::support::{fails, json, model, number, polyad, text};

/// The models of other people's beside the workspace, or of `POLYAD_ONNX`.
pub(crate) fn shared(name: &str) -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/datasets/onnx");
    let path = std::env::var_os("POLYAD_ONNX").map_or_else(beside, PathBuf::from).join(name);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no {}", path.display());
    None
}

/// Whether models can be run.
pub(crate) fn runs() -> bool {
    match cp_ort::library() {
        Ok(_) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

/// A small network as an ONNX model.
fn exported(folder: &Path) -> PathBuf {
    let (own, path) = (model(folder, "small-cnn"), folder.join("small.onnx"));
    polyad(&["convert", text(&own), text(&path)]).assert().success();
    path
}

#[test]
fn a_model_comes_back_as_one() {
    let Some(dense) = shared("exported/resnet.legacy.onnx") else { return };
    if !runs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("small.onnx");
    let rest = ["--points", "4", "--max-iters", "5", "--out", text(&out)];
    let report = json(&[&["compress", text(&dense), "--macs-ratio", "0.6"][..], &rest].concat());
    assert!(number(&report, "macs_ratio") <= 0.6, "{report}");
    assert_eq!(report["latency"][0]["engine"], "onnxruntime");
    assert_eq!(report["changes"][0]["output"], "output");
    // What was factorized is recorded in the model, and a part of a layer is not factorized again.
    let (before, after) = (Model::open(&dense).unwrap(), Model::open(&out).unwrap());
    let count = report["layers"].as_array().unwrap().len();
    assert_eq!(after.factorizations().unwrap().len(), count);
    assert_eq!(before.inputs(), after.inputs());
    assert_eq!(before.outputs(), after.outputs());
    let bench = json(&[
        "bench",
        text(&dense),
        text(&out),
        "--batch",
        "1,2",
        "--repeats",
        "3",
        "--threads",
        "1",
    ]);
    assert_eq!((&bench[0]["batch"], &bench[1]["batch"]), (&1.into(), &2.into()));
    assert_eq!(bench[0]["engine"], "onnxruntime");
    fails(
        &["bench", text(&dense), text(&out), "--engine", "torch"],
        1,
        &["ONNX Runtime alone", "--engine"],
    );
    let inspected = json(&["inspect", text(&out)]);
    assert_eq!(inspected["macs"], report["after"]["macs"]);
}

#[test]
fn open_sizes_are_asked_for_where_they_count() {
    let Some(dense) = shared("edge/symbolic_dims.onnx") else { return };
    if !runs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("small.onnx");
    let compress =
        ["compress", text(&dense), "--points", "3", "--max-iters", "3", "--out", text(&out)];
    let params = json(&[&compress[..], &["--params-ratio", "0.7"]].concat());
    assert!(number(&params, "params_ratio") <= 0.7, "{params}");
    Model::open(&out).unwrap();
    let macs = [&compress[..], &["--macs-ratio", "0.7"]].concat();
    fails(&macs, 1, &["--macs-ratio", "--input", "--params-ratio"]);
    let name = &Model::open(&dense).unwrap().inputs()[0].name;
    let wrong = format!("{name}x=3x16x16");
    fails(&[&macs[..], &["--input", &wrong]].concat(), 1, &["--input", name]);
    let back = folder.path().join("back.safetensors");
    for command in [&["inspect", text(&dense)][..], &["convert", text(&dense), text(&back)]] {
        let error = fails(&[command, &["--input", &wrong]].concat(), 1, &["--input", name]);
        assert!(error.contains(&format!("no input '{name}x'")), "{error}");
    }
    fails(&[&macs[..], &["--input", "3x0"]].concat(), 2, &["--input"]);
}

#[test]
fn every_kind_of_layer_in_every_scope() {
    if !runs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        "edge/subgraph_outer_weight.onnx",
        "edge/local_function.onnx",
        "edge/contrib_op.onnx",
        "edge/linear_forms.onnx",
        "edge/weight_constant_node.onnx",
        "exported/audio1d.legacy.onnx",
        "exported/conv3d.dynamo.onnx",
        "exported/resnet.external.onnx",
        "exported/resnet.fp16.onnx",
    ];
    for (index, case) in cases.iter().enumerate() {
        let Some(dense) = shared(case) else { return };
        let out = folder.path().join(format!("{index}.onnx"));
        let rest = ["--points", "3", "--max-iters", "3", "--out", text(&out)];
        let report =
            json(&[&["compress", text(&dense), "--params-ratio", "0.8"][..], &rest].concat());
        assert!(number(&report, "params_ratio") <= 0.8, "{case}: {report}");
        assert!(!Model::open(&out).unwrap().factorizations().unwrap().is_empty(), "{case}");
    }
}

#[test]
fn what_cannot_be_compressed_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let refused = |path: &Path, rest: &[&str], code: i32, words: &[&str]| {
        let args = ["compress", text(path), "--params-ratio", "0.5", "--out"];
        fails(&[&args[..], if rest.is_empty() { &[] } else { rest }].concat(), code, words);
        assert!(!out.exists());
    };
    let own = [text(&out)];
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    refused(&write("zip.onnx", b"PK\x03\x04 nothing"), &own, 1, &["zip.onnx"]);
    refused(&write("empty.onnx", b""), &own, 1, &["empty.onnx"]);
    refused(&folder.path().join("none.onnx"), &own, 1, &["none.onnx"]);
    let small = exported(folder.path());
    let bytes = fs::read(&small).unwrap();
    refused(&write("cut.onnx", &bytes[..bytes.len() / 2]), &own, 1, &["cut.onnx"]);
    refused(&small, &["x.safetensors"], 2, &["--out", ".onnx"]);
    refused(&small, &[own[0], "--arch", "small-cnn"], 2, &["--arch"]);
    refused(&small, &[own[0], "--keep", "nothing"], 1, &["--keep", "conv1"]);
    let safetensors = model(folder.path(), "small-cnn");
    refused(&safetensors, &["y.safetensors", "--input", "1x28x28"], 2, &["--input", "ONNX"]);
    for (name, word) in [
        ("exported/resnet.qdq.onnx", "compress the float model first"),
        ("exported/resnet.qoperator.onnx", "compress the float model first"),
        ("exported/resnet.qdynamic.onnx", "compress the float model first"),
        ("edge/weight_is_input.onnx", "no layer that can be compressed"),
    ] {
        let Some(path) = shared(name) else { return };
        refused(&path, &own, 1, &[word]);
    }
    let Some(path) = shared("exported/resnet.external.onnx") else { return };
    let alone = folder.path().join("alone.onnx");
    fs::copy(path, &alone).unwrap();
    refused(&alone, &own, 1, &["resnet.external.onnx.data"]);
}

/// No engine runs such a model, and no layer of it is left alone as if it did.
#[test]
fn weights_that_do_not_have_their_size_are_named_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let whole = fs::read(exported(folder.path())).unwrap();
    let damaged = folder.path().join("damaged.onnx");
    for tensor in ["fc1.weight", "fc1.bias"] {
        // Its numbers (field 2: type 1) are called twice as long (type 11).
        let mut bytes = whole.clone();
        let name = [&[0x42, tensor.len() as u8], tensor.as_bytes()].concat();
        let at = bytes.windows(name.len()).position(|window| window == name).unwrap();
        assert_eq!(bytes[at - 2..at], [0x10, 1]);
        bytes[at - 1] = 11;
        fs::write(&damaged, bytes).unwrap();
        let (path, out) = (text(&damaged), folder.path().join("out.onnx"));
        for command in [
            &["compress", path, "--macs-ratio", "0.5", "--out", text(&out)][..],
            &["convert", path, text(&out)],
            &["inspect", path],
            &["bench", path, path],
        ] {
            fails(command, 1, &["damaged.onnx", tensor, "bytes of values, expected"]);
            assert!(!out.exists(), "{command:?}");
        }
    }
}

#[test]
fn a_budget_below_what_multiples_reach_has_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let (own, out) = (model(folder.path(), "small-cnn"), folder.path().join("out.safetensors"));
    let rest = ["--points", "3", "--max-iters", "3", "--form", "cp3", "--out", text(&out)];
    let at = |ratio: &str, multiple: &str| {
        [&["compress", text(&own), "--macs-ratio", ratio, "--multiple", multiple], &rest[..]]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<String>>()
    };
    let words = at("0.1", "64");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    fails(&words, 1, &["nearest", "multiples of 64", "--multiple 1"]);
    // Left to itself the command goes on with finer ranks, and says so.
    let words = at("0.1", "auto");
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = polyad(&words).assert().success();
    let told = String::from_utf8(done.get_output().stderr.clone()).unwrap();
    assert!(told.contains("note: with ranks in multiples of 16"), "{told}");
    assert!(out.is_file());
}

#[test]
fn there_and_back_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let own = model(folder.path(), "small-cnn");
    let (there, back, half) = (path("there.onnx"), path("back.safetensors"), path("half.onnx"));
    let report = json(&["convert", text(&own), text(&there), "--opset", "13"]);
    assert_eq!(report["opset"], 13);
    if runs() {
        assert_eq!(report["changes"][0]["output"], "fc2");
        assert!(number(&report["changes"][0], "largest") < 1e-6, "{report}");
    }
    json(&["convert", text(&there), text(&back)]);
    assert_eq!(Network::load(&back).unwrap(), Network::load(&own).unwrap());
    // A name that no input has is no shape of another one.
    for path in [&own, &there] {
        fails(&["inspect", text(path), "--input", "y=1x32x32"], 1, &["'y'"]);
        fails(&["bench", text(&own), text(path), "--input", "y=1x32x32"], 1, &["'y'"]);
    }
    if runs() {
        // One of ours beside a model in its file.
        json(&["bench", text(&own), text(&there), "--repeats", "2", "--threads", "1"]);
    }
    json(&["convert", text(&own), text(&half), "--fp16"]);
    let size = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(3 * size(&half) < 2 * size(&there), "{} {}", size(&half), size(&there));
    // A compressed network keeps its records.
    let small = path("small.safetensors");
    let rest = ["--points", "3", "--max-iters", "3", "--out", text(&small)];
    json(&[&["compress", text(&own), "--macs-ratio", "0.5"][..], &rest].concat());
    json(&["convert", text(&small), text(&there)]);
    json(&["convert", text(&there), text(&back)]);
    assert_eq!(Network::load(&back).unwrap(), Network::load(&small).unwrap());

    let out = text(&there);
    fails(&["convert", text(&own), "x.pth"], 2, &["x.pth", ".onnx"]);
    fails(&["convert", text(&own), out, "--opset", "99"], 2, &["--opset", "22"]);
    fails(&["convert", text(&own), text(&back), "--fp16"], 2, &["--fp16", ".onnx"]);
    fails(&["convert", text(&own), text(&own)], 1, &["safetensors"]);
    fails(&["convert", text(&folder.path().join("none")), out], 1, &["none"]);
}

#[test]
fn pytorchs_files_are_models() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.onnx");
    let Some(program) = shared("pytorch/resnet.exported.pt2") else { return };
    json(&["convert", text(&program), text(&out)]);
    let Some(weights) = shared("pytorch/resnet.state.pth") else { return };
    fails(&["inspect", text(&weights)], 1, &["--arch"]);
    fails(
        &["inspect", text(&weights), "--arch", "small-cnn"],
        1,
        &["small-cnn", "resnet.state.pth"],
    );
    let Some(module) = shared("pytorch/resnet.whole-module.pt") else { return };
    fails(&["inspect", text(&module), "--arch", "small-cnn"], 1, &["torch.save"]);
    let Some(script) = shared("pytorch/resnet.torchscript.pt") else { return };
    fails(&["inspect", text(&script)], 1, &["torch.jit.load"]);
}

#[test]
fn a_model_is_fine_tuned_and_written_back() {
    if !runs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dense = exported(folder.path());
    let data = images(folder.path());
    let out = folder.path().join("tuned.onnx");
    let splits = ["--train-split", "train", "--validation-split", "test"];
    let rest = [
        "--dataset",
        &data,
        "--epochs",
        "1",
        "--statistics",
        "0",
        "--calibrate",
        "0",
        "--form",
        "cp3",
        "--points",
        "3",
        "--max-iters",
        "3",
        "--out",
        text(&out),
    ];
    let report =
        json(&[&["compress", text(&dense), "--macs-ratio", "0.5"][..], &splits, &rest].concat());
    let tuned = report["stages"].as_array().unwrap().last().unwrap().clone();
    let eval = |model: &Path, rest: &[&str]| {
        let args = ["eval", text(model), "--dataset", &data, "--split", "test"];
        json(&[&args[..], rest].concat())
    };
    // What is written is what was validated, in another engine.
    let written = eval(&out, &["--preprocess", "unit"]);
    assert!(
        (number(&written, "loss") - number(&tuned["validation"], "loss")).abs() < 1e-3,
        "{written} {tuned}"
    );
    let args = ["eval", text(&out), "--dataset", &data, "--split", "test"];
    fails(&args, 1, &["--preprocess"]);
    fails(&[&args[..], &["--preprocess", "imagenet"]].concat(), 1, &["3 channels"]);
    fails(&[&args[..], &["--preprocess", "guess"]].concat(), 2, &["--preprocess", "imagenet"]);
    // The engines agree.
    let torch = eval(&dense, &["--engine", "torch"]);
    let onnx = eval(&dense, &["--engine", "onnxruntime"]);
    assert!((number(&torch, "loss") - number(&onnx, "loss")).abs() < 1e-4, "{torch} {onnx}");
}
