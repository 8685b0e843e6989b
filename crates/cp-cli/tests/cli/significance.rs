//! `polyad significance`: the terms of CP layers; and the forms of `polyad compress` that are no CP models.

use std::fs;

use serde_json::Value;

use crate::support::{fails, json, model, network, number, text};

#[test]
fn terms_in_order_and_accuracy_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let net = model(folder.path(), "cpac(layers=2,rank=3,resolution=24,classes=36)");
    let page = folder.path().join("page");
    let found = json(&[
        "significance",
        text(&net),
        "--dataset",
        "characters",
        "--examples",
        "72",
        "--out",
        text(&page),
        "--pictures",
        "2",
    ]);
    assert_eq!(found["examples"], 72);
    let layers = found["layers"].as_array().unwrap();
    let names: Vec<&Value> = layers.iter().map(|layer| &layer["layer"]).collect();
    assert_eq!(names, ["conv1", "conv2"]);
    for layer in layers {
        let terms = layer["terms"].as_array().unwrap();
        assert_eq!(terms.len(), 3);
        assert!(
            terms.windows(2).all(|pair| number(&pair[0], "lambda") >= number(&pair[1], "lambda"))
        );
        let ends = ["least_first", "most_first"].map(|curve| {
            let curve = layer[curve].as_array().unwrap();
            let dropped: Vec<&Value> = curve.iter().map(|at| &at["terms"]).collect();
            assert_eq!(dropped, [0, 1, 2, 3]);
            (number(&curve[0], "top1"), number(&curve[3], "top1"))
        });
        // Nothing left out and everything left out are the same from either end.
        assert_eq!(ends[0], ends[1]);
    }
    let html = fs::read_to_string(page.join("report.html")).unwrap();
    assert!(html.contains("Kernels of the terms of conv1") && html.contains("picture 2"));
    assert!(html.contains("Provenance") && html.contains("polyad significance"));
    assert!(page.join("plots/maps-of-the-terms-of-conv2.svg").exists());

    let args = ["significance", text(&net), "--dataset", "characters", "--layer", "conv9"];
    fails(&args, 2, &["conv9", "conv1, conv2"]);
    let dense = model(folder.path(), "small-cnn(classes=36)");
    let args = ["significance", text(&dense), "--dataset", "characters"];
    fails(&args, 1, &["no layer", "polyad compress"]);

    // Weights that are numbers, and outputs that are none.
    let mut large = network("cpac(layers=1,rank=2,resolution=24,classes=36)");
    let weight = large.params()["fc1.weight"].mapv(|_| 3e38);
    large.set_param("fc1.weight", weight).unwrap();
    let path = folder.path().join("large.safetensors");
    large.save(&path).unwrap();
    let args = ["significance", text(&path), "--dataset", "characters", "--examples", "9"];
    fails(&args, 1, &["large.safetensors", "NaN or infinity"]);
}

#[test]
fn forms_that_are_no_cp_models() {
    let folder = tempfile::tempdir().unwrap();
    let net = model(folder.path(), "resnet20");
    for form in
        ["jaderberg1", "jaderberg1-shared", "jaderberg2", "decoupled", "denton", "denton-svd"]
    {
        let out = folder.path().join(format!("{form}.safetensors"));
        let args =
            ["compress", text(&net), "--form", form, "--macs-ratio", "0.6", "--out", text(&out)];
        let found = json(&args);
        let layers = found["layers"].as_array().unwrap();
        assert!(layers.iter().any(|layer| layer["form"] == form), "{found}");
        let ratio = number(&found, "macs_ratio");
        assert!((0.3..=0.6).contains(&ratio), "{form}: {ratio}");
        // The file holds what the answer says.
        let macs = |path| number(&json(&["inspect", text(path)]), "macs");
        assert!((macs(&out) / macs(&net) - ratio).abs() < 1e-3, "{form}");
    }
    let args = [
        "compress",
        text(&net),
        "--form",
        "decoupled",
        "--energy",
        "0.9",
        "--out",
        "x.safetensors",
    ];
    fails(&args, 1, &["energy", "decoupled", "tucker2"]);
}
