//! `polyad attack`: models side by side, and options that do not go together.

use serde_json::Value;

use crate::engine::images;
use crate::support::{fails, json, model, number, text};

#[test]
fn models_are_attacked_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let dataset = images(folder.path());
    let other = folder.path().join("half.safetensors");
    json(&[
        "compress",
        text(&dense),
        "--params-ratio",
        "0.5",
        "--multiple",
        "1",
        "--out",
        text(&other),
    ]);
    let args = ["attack", text(&dense), text(&other), "--dataset", &dataset, "--split", "test"];
    let with = |more: &[&str]| json(&[&args[..], more].concat());
    let found = with(&["--examples", "5", "--step", "0.01"]);
    assert_eq!(found["attack"]["step"], 0.01);
    let models = found["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    for found in models {
        let own = &found["own"];
        let steps: Vec<f64> =
            own["steps"].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect();
        assert_eq!(Some(steps.len() as u64), own["images"].as_u64());
        let mean = steps.iter().sum::<f64>() / steps.len() as f64;
        assert!((mean - number(own, "mean")).abs() < 1e-9);
        assert!(steps.iter().all(|&steps| steps >= 1.0));
    }
    let common = |found: &Value| found["common"]["images"].clone();
    assert_eq!(common(&models[0]), common(&models[1]));
    // Longer steps need no more of them.
    let longer = with(&["--examples", "5", "--step", "0.1"]);
    assert!(number(&longer["models"][0]["own"], "mean") <= number(&models[0]["own"], "mean"));
    for (way, step) in [("fgsm", "0.1"), ("pgd", "0.02"), ("library", "0.05")] {
        let found = with(&["--attack", way, "--examples", "3", "--step", step]);
        assert!(number(&found["models"][0]["own"], "images") > 0.0, "{way}");
    }
    // Images of the class that is wanted are left out.
    let target = ["--target", "class4", "--probability", "0.6", "--step", "0.01", "--steps", "50"];
    let found = with(&target);
    assert_eq!(found["attack"]["target"]["probability"], 0.6);
    assert!(number(&found["models"][0]["own"], "images") > 0.0);
}

#[test]
fn options_that_do_not_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let dataset = images(folder.path());
    let args = ["attack", text(&dense), "--dataset", &dataset];
    let wrong = |more: &[&str], words: &[&str]| fails(&[&args[..], more].concat(), 2, words);
    wrong(&["--radius", "0.1"], &["--radius", "--attack sign"]);
    wrong(&["--attack", "fgsm", "--steps", "3"], &["--steps", "--attack fgsm"]);
    wrong(&["--attack", "pgd", "--clip"], &["--clip", "--attack pgd"]);
    wrong(&["--probability", "0.5"], &["--target"]);
    wrong(&["--target", "unicorn"], &["--target", "unicorn", "numbered from 0"]);
    wrong(&["--target", "0", "--probability", "1"], &["--probability", "not, 1"]);
    wrong(&["--step", "0"], &["--step"]);
    wrong(&["--step", "nan"], &["--step"]);
    wrong(&["--attack", "pgd", "--radius", "-1"], &["--radius"]);
    wrong(&["--engine", "infer"], &["--engine", "gradients"]);
    wrong(&["--batch", "0"], &["--batch"]);
    let other = model(folder.path(), "small-cnn(classes=7)");
    fails(&["attack", text(&other), "--dataset", &dataset], 1, &["7 outputs"]);
}
