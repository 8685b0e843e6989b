//! The folder of a compression's stages: one command works in it, what is damaged or in its place is named, and what was interrupted goes
//! on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    RGB, fails, files, heeding, json, number, pictures, polyad, refused, text, written,
};

const NODES: &str = r#"{"name": "conv", "op": "conv", "out_channels": 12, "kernel": [3, 3], "inputs": ["input"]},
    {"name": "norm", "op": "batch_norm", "inputs": ["conv"]},
    {"name": "relu", "op": "relu", "inputs": ["norm"]},
    {"name": "pool", "op": "global_avg_pool", "inputs": ["relu"]},
    {"name": "flat", "op": "flatten", "inputs": ["pool"]},
    {"name": "fc", "op": "linear", "out_features": 3, "inputs": ["flat"]}"#;

/// Something to compress in a second, with data.
struct Setting {
    folder: tempfile::TempDir,
    net: PathBuf,
    dataset: String,
    out: PathBuf,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let net = written(folder.path(), "net", RGB, NODES);
        let dataset = pictures(folder.path());
        let out = folder.path().join("out.safetensors");
        Self { folder, net, dataset, out }
    }

    fn args<'a>(&'a self, rest: &[&'a str]) -> Vec<&'a str> {
        let args = ["compress", text(&self.net), "--params-ratio", "0.7", "--form", "cp3"];
        let quick = ["--points", "2", "--max-iters", "3", "--threads", "1", "--engine", "infer"];
        let data = ["--dataset", &self.dataset, "--timing-batch", "1", "--out", text(&self.out)];
        [&args[..], &quick, &data, rest].concat()
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("out.work")
    }

    /// A run without an end, once it is in its epochs.
    fn endless(&self) -> Child {
        let mut child = heeding()
            .args(self.args(&["--epochs", "1000000", "--batch-size", "4"]))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !self.work().join("metrics.jsonl").exists() {
            assert!(child.try_wait().unwrap().is_none(), "it was to run until it is interrupted");
            std::thread::sleep(Duration::from_millis(20));
        }
        child
    }
}

/// Unfinished files anywhere below a folder.
fn unfinished(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(unfinished(&path));
        } else if path.file_name().unwrap().to_string_lossy().starts_with(".polyad") {
            found.push(path);
        }
    }
    found
}

#[cfg(unix)]
#[test]
fn one_command_works_in_a_folder_and_an_interrupted_one_goes_on() {
    let setting = Setting::new();
    let (work, other) = (setting.work(), setting.folder.path().join("other.safetensors"));
    let link = setting.folder.path().join("link");
    std::os::unix::fs::symlink("out.work", &link).unwrap();
    for signal in ["TERM", "INT"] {
        let mut child = setting.endless();
        for (rest, words) in [
            (&["--epochs", "1"][..], &["out.work", "--resume"][..]),
            (&["--epochs", "1", "--resume"], &["out.work", "another process is at work"]),
            (&["--resume", "--seed", "3"], &["out.work", "another process is at work"]),
            (&["--resume", "--work", text(&link)], &["link", "another process is at work"]),
        ] {
            refused(&setting.args(rest), 1, words);
        }
        // Of another network and for another file.
        let args = setting.args(&["--resume", "--work", text(&work)]);
        let args: Vec<&str> = args
            .into_iter()
            .map(|arg| if arg == text(&setting.out) { text(&other) } else { arg })
            .collect();
        refused(&args, 1, &["out.work", "another process is at work"]);
        let pid = child.id().to_string();
        assert!(
            Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(if signal == "INT" { 130 } else { 143 }));
        assert_eq!(unfinished(setting.folder.path()), Vec::<PathBuf>::new());
        assert!(!setting.out.exists() && !other.exists());
        // What was killed without a chance to tidy up holds no lock either.
        json(&setting.args(&["--epochs", "2", "--resume"]));
        let lines = fs::read_to_string(work.join("metrics.jsonl")).unwrap();
        let epochs: Vec<u64> = lines
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["epoch"].as_u64().unwrap())
            .collect();
        assert_eq!(epochs, [0, 1]);
        fs::remove_dir_all(&work).unwrap();
        fs::remove_file(&setting.out).unwrap();
    }
}

#[test]
fn records_that_are_damaged_or_gone() {
    let setting = Setting::new();
    let work = setting.work();
    let resumed = setting.args(&["--epochs", "1", "--resume"]);
    json(&resumed[..resumed.len() - 1]);
    for (file, depends) in [
        ("config.toml", false),
        ("provenance.json", true),
        ("metrics.jsonl", true),
        ("plan.toml", false),
    ] {
        let path = work.join(file);
        let whole = fs::read(&path).unwrap();
        for wrong in [&whole[..whole.len() - 5], &[0xff; 64], b"\x1b[2J"] {
            fs::write(&path, wrong).unwrap();
            if depends {
                let error = fails(&resumed, 1, &[file, "is damaged", "delete the file"]);
                assert!(!error.contains('\u{1b}'), "{error:?}");
            } else {
                json(&resumed);
            }
        }
        // The way out is one.
        if depends {
            fs::remove_file(&path).unwrap();
            json(&resumed);
        }
        fs::write(&path, whole).unwrap();
    }
    json(&resumed);
}

#[cfg(unix)]
#[test]
fn what_lies_in_the_place_of_a_work_folder() {
    let setting = Setting::new();
    let place = setting.work();
    fs::write(&place, "mine").unwrap();
    let words = ["out.work", "--work"];
    refused(&setting.args(&["--epochs", "1"]), 1, &words);
    assert_eq!(fs::read_to_string(&place).unwrap(), "mine");
    fs::remove_file(&place).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", &place).unwrap();
    refused(&setting.args(&["--epochs", "1"]), 1, &words);
    fs::remove_file(&place).unwrap();
    refused(&setting.args(&["--work", "/proc/polyad"]), 1, &["/proc/polyad", "--work"]);
    refused(&setting.args(&["--work", "/dev/null"]), 1, &["/dev/null", "--work"]);
    fs::create_dir(&place).unwrap();
    refused(&setting.args(&["--resume"]), 1, &["--resume", "out.work"]);
    assert!(!setting.out.exists());
    // Files of the user's stay.
    fs::write(place.join("notes.txt"), "mine").unwrap();
    json(&setting.args(&["--epochs", "1"]));
    assert!(files(&place).contains(&"notes.txt".to_owned()));
}

/// What is another is computed again, and said; what is the same is kept.
#[test]
fn other_data_and_other_options_are_named() {
    let setting = Setting::new();
    json(&setting.args(&["--epochs", "1"]));
    let resumed = |rest: &[&str], words: &[&str]| {
        let args = setting.args(&[rest, &["--resume"]].concat());
        let output = polyad(&args).arg("--json").assert().success().get_output().clone();
        let said = String::from_utf8(output.stderr).unwrap();
        words.iter().for_each(|word| assert!(said.contains(word), "'{word}' in {said}"));
    };
    resumed(&["--epochs", "1", "--seed", "3"], &["seed is 3, was 0"]);
    resumed(
        &["--epochs", "1", "--weight-decay", "0.01"],
        &["0.01", "'fine-tuned' is computed again"],
    );
    resumed(
        &["--epochs", "1", "--keep", "fc"],
        &["keep is [\"fc\"], was []", "'profile' is computed again"],
    );
    resumed(&["--epochs", "1", "--test-split", "test"], &["test"]);
    // A picture was painted over.
    let picture = setting.folder.path().join("pictures/train/red/3.png");
    image::RgbImage::new(8, 8).save(picture).unwrap();
    resumed(&["--epochs", "1"], &["is computed again"]);
}

/// A step that destroys the network is not kept, whichever option makes it.
#[test]
fn training_that_destroys_a_network_is_not_kept() {
    let setting = Setting::new();
    for option in [
        &["--lr", "1e300"][..],
        &["--weight-decay", "1e30"],
        &["--factor-lr", "1e30"],
        &["--lr", "1e12", "--schedule", "layerwise"],
        &["--lr", "1e15", "--distill", "0"],
    ] {
        let output = polyad(&setting.args(&[&["--epochs", "1"], option].concat()))
            .arg("--json")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            let stages = report["stages"].as_array().unwrap();
            let kept = stages.iter().rev().find(|stage| stage["kept"] == true).unwrap();
            assert!(number(&kept["validation"], "loss") < 100.0, "{option:?}: {report}");
            let eval = ["eval", text(&setting.out), "--dataset", &setting.dataset];
            assert!(number(&json(&eval), "loss") < 100.0, "{option:?}");
        } else {
            assert!(said.contains("error: ") && said.contains("lr = "), "{option:?}: {said}");
            assert!(!said.contains("panicked"), "{said}");
        }
        drop(fs::remove_dir_all(setting.work()));
    }
}
