//! `polyad run`: classes of single pictures.

use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma};
use serde_json::Value;

use crate::support::{fails, json, model, number, polyad, text};

fn pictures(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.join("pictures");
    fs::create_dir(&folder).unwrap();
    let paint = |index: u32| {
        let path = folder.join(format!("{index}.png"));
        // One of them is of another size.
        let size = 28 + 13 * (index % 2);
        let shade = |x: u32, y: u32| Luma([(x * 9 * (index + 1) + y * 5) as u8]);
        GrayImage::from_fn(size, size, shade).save(&path).unwrap();
        path
    };
    (0..3).map(paint).collect()
}

fn classes(picture: &Value) -> Vec<(u64, f64)> {
    let class = |class: &Value| (class["class"].as_u64().unwrap(), number(class, "probability"));
    picture["classes"].as_array().unwrap().iter().map(class).collect()
}

#[test]
fn every_engine_says_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (net, files) = (model(folder.path(), "small-cnn"), pictures(folder.path()));
    let run = |engine: &str, top: &str| {
        let mut args = vec!["run", text(&net), "--engine", engine, "--top", top];
        args.extend(files.iter().map(|path| text(path)));
        json(&args)["pictures"].as_array().unwrap().clone()
    };
    let all = run("torch", "99");
    assert_eq!(all.len(), 3);
    for picture in &all {
        let found = classes(picture);
        assert_eq!(found.len(), 10);
        assert!((found.iter().map(|(_, share)| share).sum::<f64>() - 1.0).abs() < 1e-6);
        assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1), "{found:?}");
    }
    let mut engines = vec!["infer"];
    if cp_ort::library().is_ok() {
        engines.push("onnxruntime");
    }
    for engine in engines {
        for (one, other) in run(engine, "2").iter().zip(&all) {
            assert_eq!(one["picture"], other["picture"]);
            assert_eq!(classes(one).len(), 2);
            for (one, other) in classes(one).iter().zip(classes(other)) {
                assert!((one.1 - other.1).abs() < 1e-4, "{engine}: {one:?} {other:?}");
            }
        }
    }
    // A folder of pictures is all of them.
    let args = ["run", text(&net), text(files[0].parent().unwrap()), "--engine", "infer"];
    assert_eq!(json(&args)["pictures"].as_array().unwrap().len(), 3);
}

#[test]
fn classes_have_the_names_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (net, files) = (model(folder.path(), "small-cnn"), pictures(folder.path()));
    let names = folder.path().join("names.txt");
    let lines: Vec<String> = (0..10).map(|class| format!("thing {class}")).collect();
    fs::write(&names, lines.join("\n")).unwrap();
    let args = ["run", text(&net), text(&files[0]), "--names", text(&names), "--engine", "infer"];
    let found = json(&args);
    for class in found["pictures"][0]["classes"].as_array().unwrap() {
        assert_eq!(class["name"], format!("thing {}", class["class"]));
    }
    let said = polyad(&args).assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(said).unwrap().contains("thing "));
    fs::write(&names, lines[1..].join("\n")).unwrap();
    fails(&args, 2, &["--names", "9 lines", "10 classes"]);
}

#[test]
fn what_cannot_be_shown_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (net, files) = (model(folder.path(), "small-cnn"), pictures(folder.path()));
    let none = folder.path().join("none.png");
    fails(&["run", text(&net), text(&none)], 1, &["none.png"]);
    let torn = folder.path().join("torn.png");
    fs::write(&torn, &fs::read(&files[0]).unwrap()[..40]).unwrap();
    fails(&["run", text(&net), text(&torn)], 1, &["torn.png"]);
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fails(&["run", text(&net), text(&empty)], 1, &["empty"]);
    fails(&["run", text(&net), text(&files[0]), "--top", "0"], 2, &["--top"]);
    let maps = r#"{"name": "maps", "inputs": [{"shape": [1, 28, 28], "channels": "gray"}], "nodes": [
        {"name": "conv", "op": "conv", "in_channels": 1, "out_channels": 2, "kernel": [3, 3], "inputs": ["input"]}]}"#;
    let path = folder.path().join("maps.safetensors");
    let arch = cp_net::Architecture::from_json(maps).unwrap();
    arch.initialize(1).unwrap().save(&path).unwrap();
    fails(&["run", text(&path), text(&files[0])], 1, &["maps.safetensors", "list of scores"]);
}
