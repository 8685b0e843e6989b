//! `polyad` as it is built without its feature `torch`: what it does, and what it refuses with the way out.
//!
//! `cargo xtask test` runs these by `cargo test --no-default-features` of the crates that need no libtorch.
#![cfg(not(feature = "torch"))]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

#[path = "cli/support.rs"]
#[allow(dead_code, reason = "what the tests of the whole program use of it, too")]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{GrayImage, Luma};

use support::{fails, json, model, network, number, polyad, text};

/// Whether models can be run; a line says where not.
fn runs() -> bool {
    let found = cp_ort::library();
    found.as_ref().err().iter().for_each(|error| println!("skipped: {error}"));
    found.is_ok()
}

/// A folder of drawn pictures in ten classes, as a data set.
fn pictures(folder: &Path) -> String {
    let root = folder.join("digits");
    for (split, count) in [("train", 6), ("validation", 2), ("test", 2)] {
        for class in 0..10_u8 {
            let place = root.join(split).join(format!("class{class}"));
            fs::create_dir_all(&place).unwrap();
            for index in 0..count {
                let shade = |x: u32, y: u32| {
                    Luma([(x * u32::from(class + 1) * 9 + y * 5 + 40 * index) as u8])
                };
                let picture = GrayImage::from_fn(28, 28, shade);
                picture.save(place.join(format!("{split}{index}.png"))).unwrap();
            }
        }
    }
    format!("folder:{}", root.display())
}

fn out(folder: &Path, name: &str) -> PathBuf {
    folder.join(name)
}

#[test]
fn libtorch_is_no_dependency() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "-p", "cp-cli", "--no-default-features", "-e", "normal,build"])
        .args(["--prefix", "none"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("cp-infer "), "{tree}");
    for crate_ in ["tch ", "torch-sys ", "cp-torch "] {
        assert!(!tree.lines().any(|line| line.starts_with(crate_)), "{tree}");
    }
}

#[test]
fn networks_are_inspected_compressed_converted_and_timed() {
    let folder = tempfile::tempdir().unwrap();
    let (dense, small) =
        (model(folder.path(), "small-cnn"), out(folder.path(), "small.safetensors"));
    polyad(&["inspect", text(&dense)]).assert().success();
    let args =
        ["compress", text(&dense), "--macs-ratio", "0.5", "--points", "3", "--max-iters", "5"];
    let done = json(&[&args[..], &["--out", text(&small)]].concat());
    assert!(done["layers"].as_array().is_some_and(|layers| !layers.is_empty()), "{done}");
    let times = json(&["bench", text(&dense), text(&small), "--engine", "infer", "--repeats", "3"]);
    assert!(number(&times, "ratio") > 0.0, "{times}");
    let written = out(folder.path(), "small.onnx");
    polyad(&["convert", text(&small), text(&written)]).assert().success();
    polyad(&["inspect", text(&written)]).assert().success();
}

/// With labelled data there are statistics, evaluations and a test; the engines agree.
#[test]
fn data_sets_are_used_as_far_as_nothing_is_trained() {
    if !runs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (dense, small) =
        (model(folder.path(), "small-cnn"), out(folder.path(), "small.safetensors"));
    let data = pictures(folder.path());
    let args =
        ["compress", text(&dense), "--dataset", &data, "--macs-ratio", "0.5", "--points", "3"];
    let rest = ["--max-iters", "5", "--out", text(&small), "--test-split", "test"];
    let args = [&args[..], &rest].concat();
    let told = fails(&args, 1, &["fine-tuning", "libtorch", "--preset quick --calibrate 0"]);
    assert!(!small.exists(), "{told}");
    fails(&[&args[..], &["--preset", "quick"]].concat(), 1, &["--calibrate 0"]);
    let plain = ["--preset", "quick", "--calibrate", "0"];
    let done = json(&[&args[..], &plain].concat());
    assert!(done["layers"][0]["weighted_error"].is_number(), "{done}");
    let eval = |engine: &str| {
        json(&["eval", text(&small), "--dataset", &data, "--split", "test", "--engine", engine])
    };
    let [one, other] = ["onnxruntime", "infer"].map(eval);
    assert!((number(&one, "loss") - number(&other, "loss")).abs() < 1e-4, "{one} {other}");
    assert_eq!(number(&one, "top1"), number(&other, "top1"));
}

#[test]
fn models_are_decomposed_for_their_outputs() {
    if !runs() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dense = out(folder.path(), "dense.onnx");
    let net = network("small-cnn");
    cp_onnx::export(&net, &cp_onnx::ExportOptions::default()).unwrap().save(&dense).unwrap();
    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    for index in 0..12_u32 {
        let shade = |x: u32, y: u32| Luma([(x * 7 * index + y * 11) as u8]);
        GrayImage::from_fn(28, 28, shade).save(pictures.join(format!("{index}.png"))).unwrap();
    }
    let small = out(folder.path(), "small.onnx");
    let args = ["compress", text(&dense), "--inputs", text(&pictures), "--preprocess", "unit"];
    let rest = ["--macs-ratio", "0.5", "--points", "3", "--max-iters", "5", "--out", text(&small)];
    let args = [&args[..], &rest].concat();
    fails(&[&args[..], &["--epochs", "2"]].concat(), 1, &["libtorch", "--epochs"]);
    assert!(!small.exists());
    let done = json(&args);
    assert!(done["layers"][0]["weighted_error"].is_number(), "{done}");
    let times = json(&["bench", text(&dense), text(&small), "--repeats", "3"]);
    assert_eq!(times["engine"], "onnxruntime", "{times}");
}

#[test]
fn what_libtorch_alone_does_is_refused_by_its_option() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let data = pictures(folder.path());
    let bench = ["bench", text(&dense), text(&dense)];
    for (options, words) in [
        (["--engine", "torch"], ["--engine torch", "onnxruntime or infer"]),
        (["--device", "cuda"], ["--device cuda", "leave --device out"]),
    ] {
        fails(&[&bench[..], &options].concat(), 1, &[words[0], words[1], "feature `torch`"]);
    }
    let small = out(folder.path(), "small.safetensors");
    let compress = ["compress", text(&dense), "--dataset", &data, "--out", text(&small)];
    let quick = ["--preset", "quick", "--calibrate", "0"];
    for options in
        [&["--rank-sums", "40,20"][..], &["--macs-ratio", "0.5", "--plan-by", "sensitivity"]]
    {
        let args = [&compress[..], &quick, options].concat();
        fails(&args, 1, &["--plan-by sensitivity", "plan by errors"]);
    }
    assert!(!small.exists());
    let three = model(folder.path(), "small-cnn(classes=3)");
    fails(&["attack", text(&three), "--dataset", &data], 1, &["polyad attack", "feature `torch`"]);
}
