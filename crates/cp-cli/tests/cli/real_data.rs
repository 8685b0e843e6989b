//! Published weights on real images, where `POLYAD_DATA` names a folder that has them.

use std::path::PathBuf;

use crate::support::{json, number, text};

/// The data folder and the published ResNet-56, or `None` with a note where they are not there.
fn resnet56() -> Option<(PathBuf, PathBuf)> {
    let Some(data) = std::env::var_os("POLYAD_DATA").map(PathBuf::from) else {
        println!("skipped: POLYAD_DATA not set");
        return None;
    };
    let weights = data.join("pretrained/resnet56-cifar10.safetensors");
    if weights.is_file() {
        return Some((data, weights));
    }
    println!("skipped: no {}", weights.display());
    None
}

/// Half the multiply-adds, data-free: what `polyad` is for.
#[test]
fn resnet56_at_half_the_multiply_adds() {
    let Some((data, dense)) = resnet56() else { return };
    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("half.safetensors");
    let report = json(&[
        "compress",
        text(&dense),
        "--arch",
        "resnet56",
        "--macs-ratio",
        "0.5",
        "--out",
        text(&half),
    ]);
    let ratio = number(&report["after"], "macs") / number(&report["before"], "macs");
    assert!((0.45..=0.5).contains(&ratio), "{ratio}");

    let eval = |model: &[&str]| {
        let rest = [
            "--dataset",
            "cifar10",
            "--split",
            "test-1000",
            "--data",
            text(&data),
            "--threads",
            "2",
        ];
        json(&[&["eval"], model, &rest].concat())
    };
    let before = eval(&[text(&dense), "--arch", "resnet56"]);
    let after = eval(&[text(&half)]);
    assert_eq!((&before["examples"], &after["examples"]), (&1000.into(), &1000.into()));
    // The README of the data folder measured 92.6 % on these images.
    assert!((number(&before, "top1") - 0.926).abs() < 0.0015, "{before}");
    // Without fine-tuning: 90.8 % when this was written.
    assert!(number(&after, "top1") > 0.88, "{after}");
    println!("top-1 {} → {} at {ratio:.3} of the multiply-adds", before["top1"], after["top1"]);

    let bench = json(&[
        "bench",
        text(&dense),
        text(&half),
        "--arch",
        "resnet56",
        "--batch",
        "16",
        "--repeats",
        "7",
    ]);
    // With half the multiply-adds, slower by half would be a fault in the engine; how much faster is the machine's.
    assert!(number(&bench, "ratio") > 0.67, "{bench}");
    println!("dense / compressed = {:.2} at batch 16 on one thread", number(&bench, "ratio"));
}
