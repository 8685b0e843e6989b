//! ONNX models fed with unlabelled examples (`--inputs`): statistics, distillation, and what is refused.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma};
use ndarray::{Array4, ArrayD};
use ndarray_npy::NpzWriter;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::onnx::shared;
use crate::support::{fails, json, model, number, polyad, text};

/// A small network as an ONNX model; `None` where no model can be run.
fn dense(folder: &Path) -> Option<PathBuf> {
    if let Err(error) = cp_ort::library() {
        println!("skipped: {error}");
        return None;
    }
    let (own, path) = (model(folder, "small-cnn"), folder.join("small.onnx"));
    polyad(&["convert", text(&own), text(&path)]).assert().success();
    Some(path)
}

fn npz(path: &Path, arrays: &[(&str, ArrayD<f32>)]) {
    let mut archive = NpzWriter::new(File::create(path).unwrap());
    for (name, array) in arrays {
        archive.add_array(*name, array).unwrap();
    }
    archive.finish().unwrap();
}

fn drawn(count: usize) -> ArrayD<f32> {
    let mut draw = ChaCha8Rng::seed_from_u64(3);
    Array4::from_shape_simple_fn((count, 1, 28, 28), || draw.random::<f32>()).into_dyn()
}

const REST: [&str; 6] = ["--macs-ratio", "0.5", "--points", "3", "--max-iters", "5"];

#[test]
fn a_model_is_decomposed_for_its_outputs_and_learns_from_the_dense_one() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dense) = dense(folder.path()) else { return };
    let inputs = folder.path().join("inputs.npz");
    npz(&inputs, &[("input", drawn(40)), ("labels", ArrayD::zeros(vec![40]))]);
    let out = folder.path().join("out.onnx");
    let args = ["compress", text(&dense), "--inputs", text(&inputs), "--out", text(&out)];
    let plain = json(&[&args[..], &REST].concat());
    assert!(plain["layers"][0]["weighted_error"].is_number(), "{plain}");
    assert!(plain.get("distilled").is_none(), "{plain}");
    // Decomposed for the kernels alone, there is more to learn.
    let epochs = ["--statistics", "0", "--epochs", "6"];
    let taught = json(&[&args[..], &REST, &epochs].concat());
    let course = &taught["distilled"];
    let found = course["epochs"].as_array().unwrap();
    assert_eq!(found.len(), 6);
    let kept = &found[course["kept"].as_u64().unwrap() as usize];
    assert!(number(kept, "held") < 0.95 * number(course, "before"), "{course}");
    // What was written is nearer to the dense model than without.
    let change = |report: &Value| number(&report["changes"][0], "relative");
    let untaught = folder.path().join("untaught.onnx");
    let other = ["compress", text(&dense), "--inputs", text(&inputs), "--out", text(&untaught)];
    let untaught = json(&[&other[..], &REST, &["--statistics", "0"]].concat());
    assert!(change(&taught) < 0.8 * change(&untaught), "{untaught} {taught}");
    // The work is kept, and goes on.
    let work = folder.path().join("out.work");
    assert!(fs::read_to_string(work.join("report.html")).unwrap().contains("set aside"));
    fails(&[&args[..], &REST, &epochs].concat(), 1, &["--resume"]);
    let again = json(&[&args[..], &REST, &epochs, &["--resume"]].concat());
    assert_eq!(again["distilled"], taught["distilled"]);
    // Several budgets, and a second budget from what is known.
    let two = ["--macs-ratio", "0.6,0.5", "--points", "3", "--max-iters", "5"];
    let report = json(&[&args[..], &two].concat());
    assert_eq!(report["budgets"].as_array().unwrap().len(), 2);
}

#[test]
fn pictures_are_prepared_as_they_are_told_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dense) = dense(folder.path()) else { return };
    let pictures = folder.path().join("pictures");
    fs::create_dir_all(pictures.join("deeper")).unwrap();
    let mut draw = ChaCha8Rng::seed_from_u64(5);
    for at in 0..12 {
        let place = if at % 2 == 0 { pictures.clone() } else { pictures.join("deeper") };
        let picture = GrayImage::from_fn(30, 40, |_, _| Luma([draw.random::<u8>()]));
        picture.save(place.join(format!("{at}.png"))).unwrap();
    }
    let out = folder.path().join("out.onnx");
    let args = ["compress", text(&dense), "--inputs", text(&pictures), "--out", text(&out)];
    let args = [&args[..], &REST].concat();
    let report = json(&[&args[..], &["--preprocess", "unit"]].concat());
    assert!(report["layers"][0]["weighted_error"].is_number(), "{report}");
    fails(&args, 2, &["--preprocess", "imagenet"]);
    fails(&[&args[..], &["--preprocess", "imagenet"]].concat(), 1, &["3 channels"]);
    let told = folder.path().join("p.toml");
    fs::write(&told, "channels = \"gray\"\nscale = 0.00392\nlayout = \"nhwc\"").unwrap();
    fails(&[&args[..], &["--preprocess", text(&told)]].concat(), 1, &["1 channels"]);
    fs::write(&told, "channels = \"gray\"\nscale = 0.00392\nsize = [28, 28]").unwrap();
    json(&[&args[..], &["--preprocess", text(&told)]].concat());
    fs::write(&told, "channels = \"gray\"\nsize = [28, 30]").unwrap();
    fails(&[&args[..], &["--preprocess", text(&told)]].concat(), 1, &["30", "28"]);
    // A picture that is none.
    fs::write(pictures.join("0.png"), b"no picture").unwrap();
    fails(&[&args[..], &["--preprocess", "unit"]].concat(), 1, &["0.png"]);
}

#[test]
fn what_a_model_cannot_be_fed_with_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dense) = dense(folder.path()) else { return };
    let (path, out) = (folder.path().join("in.npz"), folder.path().join("out.onnx"));
    let args = |inputs: &str| -> Vec<String> {
        let args = ["compress", text(&dense), "--inputs", inputs, "--out", text(&out)];
        [&args[..], &REST].concat().into_iter().map(String::from).collect()
    };
    let refused = |inputs: &Path, code: i32, words: &[&str]| {
        let args = args(text(inputs));
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), code, words);
    };
    refused(&path, 1, &["in.npz", "No such file"]);
    fs::write(&path, b"").unwrap();
    refused(&path, 1, &["in.npz", "numpy.savez"]);
    npz(&path, &[("x", drawn(2)), ("y", drawn(2))]);
    refused(&path, 1, &["in.npz", "'input'", "x, y"]);
    npz(&path, &[("input", ArrayD::zeros(vec![2, 1, 28, 27]))]);
    refused(&path, 1, &["in.npz", "27"]);
    npz(&path, &[("input", ArrayD::from_elem(vec![2, 1, 28, 28], f32::NAN))]);
    refused(&path, 1, &["in.npz", "NaN"]);
    for value in [f32::INFINITY, f32::NEG_INFINITY] {
        npz(&path, &[("input", ArrayD::from_elem(vec![2, 1, 28, 28], value))]);
        refused(&path, 1, &["in.npz", "infinite"]);
    }
    let mut wide = NpzWriter::new(File::create(&path).unwrap());
    wide.add_array("input", &ArrayD::<f64>::from_elem(vec![2, 1, 28, 28], 1e300)).unwrap();
    wide.finish().unwrap();
    refused(&path, 1, &["in.npz", "'input'", "too large for"]);
    refused(folder.path().join("none").as_path(), 1, &["none"]);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    refused(&empty, 1, &["empty", "no image"]);
    // A folder of files is as good as one file.
    npz(&empty.join("a.npz"), &[("input", drawn(8))]);
    npz(&empty.join("b.npz"), &[("input", drawn(8))]);
    let all = args(text(&empty));
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    // What systems and editors leave beside is no array; a link that leads nowhere is one that is missing.
    fs::write(empty.join("._a.npz"), b"\0\x05\x16\x07").unwrap();
    fs::write(empty.join("notes.txt"), b"").unwrap();
    json(&all);
    #[cfg(unix)]
    for (link, to) in [("c.npz", "/nowhere/c.npz"), ("d.NPY", "d.NPY")] {
        std::os::unix::fs::symlink(to, empty.join(link)).unwrap();
        fails(&all, 1, &["--inputs", link, "remove it"]);
        fs::remove_file(empty.join(link)).unwrap();
    }
    fails(&[&all[..], &["--preprocess", "unit"]].concat(), 2, &["--preprocess", "arrays"]);
    fails(&[&all[..], &["--dataset", "cifar10"]].concat(), 2, &["--inputs", "--dataset"]);
    fails(&[&all[..], &["--lr", "0.1"]].concat(), 2, &["--lr", "--epochs"]);
    let own = model(folder.path(), "small-cnn");
    let args = ["compress", text(&own), "--inputs", text(&empty), "--out", "o.safetensors"];
    fails(&[&args[..], &REST].concat(), 2, &["--inputs", "polyad convert"]);
}

/// Without labels a layer counts by how far the outputs move without it.
#[test]
fn plans_go_by_the_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dense) = dense(folder.path()) else { return };
    let (inputs, out) = (folder.path().join("inputs.npz"), folder.path().join("out.onnx"));
    npz(&inputs, &[("input", drawn(24))]);
    let args = ["compress", text(&dense), "--inputs", text(&inputs), "--out", text(&out)];
    let by = ["--plan-by", "sensitivity"];
    let by_outputs = json(&[&args[..], &REST, &by].concat());
    assert!(!by_outputs["layers"].as_array().unwrap().is_empty(), "{by_outputs}");
    // Scores: how often the same class is in front.
    let same = number(&by_outputs["changes"][0], "agreement");
    assert!((0.0..=1.0).contains(&same) && (same * 5.0).fract() < 1e-9, "{same} of a fifth of 24");
    let none = ["compress", text(&dense), "--out", text(&out)];
    fails(&[&none[..], &REST, &by].concat(), 2, &["--plan-by", "--inputs"]);
}

#[test]
fn models_are_timed_on_examples() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dense) = dense(folder.path()) else { return };
    let inputs = folder.path().join("inputs.npz");
    npz(&inputs, &[("input", drawn(6))]);
    let bench = ["bench", text(&dense), text(&dense), "--inputs", text(&inputs), "--repeats", "3"];
    let report = json(&[&bench[..], &["--batch", "1,4"]].concat());
    let rows = report.as_array().unwrap();
    assert_eq!(rows.len(), 2, "{report}");
    for row in rows {
        assert!(number(row, "dense_ms") > 0.0, "{row}");
        assert_eq!(row["input"]["input"], serde_json::json!([1, 28, 28]));
    }
    fails(&[&bench[..], &["--batch", "9"]].concat(), 1, &["--batch 9", "6 examples"]);
    fails(&[&bench[..], &["--input", "1x28x28"]].concat(), 2, &["--input", "--inputs"]);
    fails(&[&bench[..], &["--engine", "infer"]].concat(), 2, &["--inputs", "--engine"]);
    let own = model(folder.path(), "small-cnn");
    let mixed = ["bench", text(&dense), text(&own), "--inputs", text(&inputs)];
    fails(&mixed, 2, &["--inputs", "polyad convert"]);
    npz(&inputs, &[("input", ArrayD::zeros(vec![2, 1, 28, 27]))]);
    fails(&bench, 1, &["inputs.npz", "27"]);
}

/// Layers in branches have no inputs whose size is known: the whole model is timed with each.
#[test]
fn layers_in_branches_are_never_slower_either() {
    let Some(path) = shared("edge/subgraph_outer_weight.onnx") else { return };
    let folder = tempfile::tempdir().unwrap();
    if dense(folder.path()).is_none() {
        return;
    }
    let out = folder.path().join("out.onnx");
    let args = ["compress", text(&path), "--params-ratio", "0.8", "--multiple", "1"];
    let rest = ["--points", "3", "--max-iters", "5", "--out", text(&out)];
    let all = json(&[&args[..], &rest].concat());
    let timed = json(&[&args[..], &rest, &["--never-slower"]].concat());
    let count = |report: &Value, key: &str| report[key].as_array().unwrap().len();
    let (before, after) = (count(&all, "layers"), count(&timed, "layers"));
    assert!(before > 0 && after <= before, "{timed}");
    // What was left dense says why.
    let why = |layer: &Value| layer["why"].as_str().unwrap_or_default().contains("whole model");
    let left = timed["dense"].as_array().unwrap().iter().filter(|layer| why(layer)).count();
    assert_eq!(before - after, left, "{timed}");
}

/// Exports of other programs with what they were recorded with: sequences, volumes, two inputs, half precision, a fixed batch, transposed
/// convolutions, sizes that the file leaves open.
#[test]
fn models_of_every_kind_are_fed() {
    let folder = tempfile::tempdir().unwrap();
    if dense(folder.path()).is_none() {
        return;
    }
    let out = folder.path().join("out.onnx");
    for (model, inputs, budget) in [
        ("exported/audio1d.legacy.onnx", "exported/audio1d.npz", "--macs-ratio"),
        ("exported/conv3d.legacy.onnx", "exported/conv3d.npz", "--macs-ratio"),
        ("exported/shared.legacy.onnx", "exported/shared.npz", "--macs-ratio"),
        ("exported/resnet.fp16.onnx", "exported/resnet.npz", "--macs-ratio"),
        ("exported/unet.dynamo.onnx", "exported/unet.npz", "--macs-ratio"),
        ("edge/symbolic_dims.onnx", "edge/symbolic_dims.npz", "--macs-ratio"),
        ("edge/subgraph_outer_weight.onnx", "edge/subgraph_outer_weight.npz", "--params-ratio"),
    ] {
        let (Some(path), Some(inputs)) = (shared(model), shared(inputs)) else { return };
        let args = ["compress", text(&path), "--inputs", text(&inputs), budget, "0.8"];
        let rest = ["--multiple", "1", "--points", "3", "--max-iters", "5", "--out", text(&out)];
        let report = json(&[&args[..], &rest].concat());
        assert!(!report["layers"].as_array().unwrap().is_empty(), "{model}: {report}");
        assert!(!report["changes"].as_array().unwrap().is_empty(), "{model}: {report}");
    }
}
