//! Every experiment from its start to its report, on tiny settings and drawn data, killed once and resumed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

/// The writer of PyTorch's files.
#[path = "../../cp-pytorch/tests/common/mod.rs"]
mod pytorch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

fn program(args: &[&str], results: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cp-experiments"));
    command
        .args(args)
        .args(["--smoke", "--run", "smoke", "--threads", "1", "--results"])
        .arg(results)
        .env_remove("POLYAD_DATA")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The finished stages below `folder`, and when they were written.
fn stages(folder: &Path) -> BTreeMap<PathBuf, SystemTime> {
    let mut found = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(stages(&path));
        } else if path.parent().unwrap().ends_with("stages")
            && path.extension().is_some_and(|kind| kind == "json")
            && let Ok(written) = path.metadata().and_then(|found| found.modified())
        {
            found.insert(path, written);
        }
    }
    found
}

fn killed_and_resumed(args: &[&str], folder: &str) {
    let results = tempfile::tempdir().unwrap();
    let run = results.path().join(folder).join("smoke");
    let mut child = program(args, results.path()).spawn().unwrap();
    // Killed as soon as something is finished; a fast machine may finish all of it first, and then nothing is to be computed again.
    while child.try_wait().unwrap().is_none() && stages(&run).is_empty() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let first = child.wait_with_output().unwrap();
    let done = stages(&run);
    assert!(!done.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&first.stderr));

    let second =
        program(&[args, &["--resume", "--json"]].concat(), results.path()).output().unwrap();
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.success(), "{args:?}: {told}");
    let after = stages(&run);
    for (path, written) in &done {
        assert_eq!(after.get(path), Some(written), "{} was computed again", path.display());
    }
    let result: serde_json::Value = serde_json::from_slice(&second.stdout).unwrap();
    assert_eq!(result["experiment"], folder);
    assert!(result["provenance"]["command"].as_str().unwrap().starts_with("cargo xtask "));
    for file in ["summary.md", "report.html", "result.json", "config.toml", "provenance.json"] {
        assert!(run.join(file).is_file(), "{args:?}: {file} is missing");
    }
    // The same once more: nothing is computed, and the result is the same.
    let third =
        program(&[args, &["--resume", "--json"]].concat(), results.path()).output().unwrap();
    assert!(third.status.success(), "{args:?}: {}", String::from_utf8_lossy(&third.stderr));
    let again: serde_json::Value = serde_json::from_slice(&third.stdout).unwrap();
    assert_eq!(again["result"], result["result"], "{args:?}");
    assert_eq!(stages(&run), after, "{args:?}");
}

#[test]
fn demo() {
    killed_and_resumed(&["demo"], "demo");
}

#[test]
fn charnet() {
    killed_and_resumed(&["charnet"], "charnet");
}

#[test]
fn reproduce_alexnet() {
    killed_and_resumed(&["reproduce-alexnet"], "reproduce-alexnet");
}

#[test]
fn reproduce_alexnet_on_data() {
    killed_and_resumed(&["reproduce-alexnet", "--dataset", "cifar10"], "reproduce-alexnet-cifar10");
}

#[test]
fn agreement() {
    killed_and_resumed(&["agreement"], "agreement");
}

#[test]
fn latency() {
    killed_and_resumed(&["latency"], "latency");
}

#[test]
fn speed() {
    killed_and_resumed(&["speed"], "speed");
}

#[test]
fn detectors() {
    killed_and_resumed(&["detectors"], "detectors");
}

#[test]
fn third_party() {
    killed_and_resumed(&["third-party"], "third-party");
}

#[test]
fn curve() {
    killed_and_resumed(&["curve", "--network", "resnet20"], "curve-resnet20");
}

#[test]
fn train_resnet() {
    killed_and_resumed(&["train-resnet"], "train-resnet");
}

#[test]
fn cpac() {
    killed_and_resumed(&["cpac", "--dataset", "mnist"], "cpac-mnist");
}

#[test]
fn stasgt() {
    killed_and_resumed(&["stasgt", "--dataset", "cifar100"], "stasgt-cifar100");
}

#[test]
fn transduction() {
    killed_and_resumed(&["transduction"], "transduction");
}

#[test]
fn transfer() {
    let args = ["transfer", "--dataset", "cifar10", "--backbone", "own"];
    killed_and_resumed(&args, "transfer-cifar10");
}

/// The configuration of the published study, on random weights and small pictures; statistics of 4,608 inputs would take minutes.
#[test]
fn transfer_resnet18() {
    let args = ["transfer", "--dataset", "cats-vs-dogs", "--arch", "resnet18", "--statistics", "0"];
    killed_and_resumed(&args, "transfer-cats-vs-dogs");
}

#[test]
fn zoo() {
    killed_and_resumed(&["zoo", "--dataset", "cifar10"], "zoo-cifar10");
}

/// What is wrong is said before a folder is made.
#[test]
fn wrong_options_are_refused_before_anything_is_made() {
    for (args, told) in [
        (&["latency", "--networks", "resnet21"][..], "resnet21"),
        (&["charnet", "--ranks", "0"], "--ranks: 0 is not at least 1"),
        (&["charnet", "--methods", "svd"], "--methods: no method named 'svd'"),
        (&["latency", "--ratios", "1.5"], "--ratios: 1.5 is not above 0 and below 1"),
        (&["latency", "--batch", "0"], "--batch: 0 is not at least 1"),
        (&["speed", "--networks", "resnet21"], "resnet21"),
        (&["detectors", "--models", "yolo"], "--models: yolo is none of"),
        (&["curve", "--network", "resnet20", "--budgets", "0.3,x"], "--budgets: 'x' is no number"),
        (&["curve", "--network", "resnet20", "--jobs", "2"], "--threads does not go with --jobs"),
        (&["agreement", "--networks", "vgg16"], "--networks: vgg16 is none of"),
        (&["transfer", "--dataset", "cifar10", "--ratios", "0"], "--ratios: 0 is not above 0"),
        (&["stasgt", "--dataset", "cifar10", "--networks", "resnet20"], "resnet20 is none of"),
        (&["stasgt", "--dataset", "cifar10", "--repeats", "0"], "--repeats: 0 is not at least 1"),
        (&["stasgt", "--dataset", "mnist"], "mnist"),
        (&["curve"], "--network <NAME>"),
        (&["mnist"], "unrecognized subcommand"),
    ] {
        let results = tempfile::tempdir().unwrap();
        let found = program(args, results.path()).output().unwrap();
        let message = String::from_utf8_lossy(&found.stderr);
        assert!(!found.status.success(), "{args:?}");
        assert!(message.contains(told), "{args:?}: {message}");
        assert_eq!(std::fs::read_dir(results.path()).unwrap().count(), 0, "{args:?}");
    }
}

/// A copy of ImageNet with three classes, the validation images in one folder with a list of their classes.
fn imagenet(folder: &Path) {
    let classes = ["n01440764", "n01443537", "n02119789"];
    let picture = |class: usize, copy: u8, path: PathBuf| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let pixel = |x: u32, y: u32| {
            let mut pixel =
                [(x as u8).wrapping_mul(5) / 2, (y as u8).wrapping_mul(3) / 2, 8 * copy];
            pixel[class] = 220;
            image::Rgb(pixel)
        };
        image::RgbImage::from_fn(48, 40, pixel).save(path).unwrap();
    };
    for (class, wnid) in classes.into_iter().enumerate() {
        for copy in 0..8 {
            picture(class, copy, folder.join(format!("train/{wnid}/{wnid}_{copy}.JPEG")));
        }
    }
    let mut labels = String::new();
    for at in 0..9_u8 {
        // Not in the order of the classes.
        let class = usize::from(2 * at % 3);
        picture(class, 9 + at, folder.join(format!("val/ILSVRC2012_val_{:08}.JPEG", at + 1)));
        labels += &format!("{}\n", classes[class]);
    }
    std::fs::write(folder.join("imagenet_2012_validation_synset_labels.txt"), labels).unwrap();
}

/// A state dict as PyTorch saves it, of weights as an architecture draws them.
fn state_dict(arch: &str, path: &Path) {
    let network = cp_net::arch::by_name(arch).unwrap().initialize(7).unwrap();
    let (mut entries, mut storages) = (Vec::new(), Vec::new());
    for (name, array) in network.params() {
        let sizes: Vec<i64> = array.shape().iter().map(|&size| size as i64).collect();
        let mut strides = vec![1; sizes.len()];
        for axis in (1..sizes.len()).rev() {
            strides[axis - 1] = strides[axis] * sizes[axis];
        }
        let key = storages.len().to_string();
        let storage = pytorch::storage("torch.FloatStorage", &key, array.len() as i64);
        entries.push((name.as_str(), pytorch::tensor(storage, 0, &sizes, &strides)));
        storages.push(pytorch::floats(&array.iter().copied().collect::<Vec<f32>>()));
    }
    let storages: Vec<&[u8]> = storages.iter().map(Vec::as_slice).collect();
    let file = pytorch::saved(&pytorch::pickle(&pytorch::dict(&entries)), &storages);
    std::fs::write(path, file).unwrap();
}

/// ImageNet's procedure, on a network small enough for a test.
#[test]
fn reproduce_alexnet_on_imagenet() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    imagenet(&data);
    let arch = "alexnet-32(width=0.05)";
    let weights = folder.path().join("alexnet.pth");
    state_dict(&format!("{}, classes=3)", arch.trim_end_matches(')')), &weights);
    let config = folder.path().join("small.toml");
    let text = format!(
        r#"
        [study]
        arch = "{arch}"
        validation_share = 0.25
        batches = [1]
        attacked = 3
        attack = {{ step = 0.1, max_steps = 5, test = "before" }}
        base = {{ target = {{ rank-sums = {{ conv = 20, linear = 30 }} }}, compress = {{ max_iters = 3, fine_tune = {{ epochs = 1, batch_size = 6 }} }} }}
        variants = [
            {{ name = "given", factor = "ranks", ranks = [2, 3, 4, 3, 3, 5, 6, 2] }},
            {{ name = "by losses", factor = "ranks", recipe = {{ plan = {{ loss = "cross-entropy" }} }} }},
        ]
        "#
    );
    std::fs::write(&config, text).unwrap();
    let results = folder.path().join("results");
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cp-experiments"));
        command
            .args([
                "reproduce-alexnet",
                "--dataset",
                "imagenet",
                "--threads",
                "1",
                "--run",
                "one",
                "--json",
            ])
            .arg("--data")
            .arg(&data)
            .arg("--results")
            .arg(&results)
            .arg("--config")
            .arg(&config)
            .args(more)
            .env_remove("POLYAD_DATA");
        command.output().unwrap()
    };
    let found = run(&["--weights", weights.to_str().unwrap()]);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    let result: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(result["experiment"], "reproduce-alexnet-imagenet");
    let networks = result["result"]["networks"].as_array().unwrap();
    let names: Vec<&serde_json::Value> = networks.iter().map(|network| &network["name"]).collect();
    assert_eq!(names, ["dense", "given", "by losses"]);
    assert!(networks.iter().all(|network| network["test"]["examples"] == 9));
    let page =
        std::fs::read_to_string(results.join("reproduce-alexnet-imagenet/one/summary.md")).unwrap();
    assert!(page.contains("18 images to train on, 6 for validation, 9 for the test"), "{page}");
    // Without a copy: where one is to be had.
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::create_dir(&data).unwrap();
    let without = run(&["--weights", weights.to_str().unwrap(), "--resume"]);
    let told = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(
        !without.status.success() && told.contains("imagenet") && told.contains("--data"),
        "{told}"
    );
}
