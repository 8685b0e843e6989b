//! `polyad compress` beyond a ratio: rules for ranks, measured time, data, fine-tuning, work that is taken up again.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{fails, json, model, number, polyad, text};
use cp_net::Network;
use cp_plan::RankPlan;
use serde_json::Value;

/// A folder of grey images, bright in a place of the class's own: ten of each of ten classes to train on, two to test on.
pub(crate) fn images(folder: &Path) -> String {
    for class in 0..10_u32 {
        for (split, copies) in [("train", 10), ("test", 2)] {
            let place = folder.join(format!("images/{split}/class{class}"));
            fs::create_dir_all(&place).unwrap();
            for copy in 0..copies {
                let pixel = |x: u32, y: u32| {
                    let inside = x / 6 == class % 5 && y / 14 == class / 5;
                    image::Luma([
                        (if inside { 200 } else { 20 }) + (x * 7 + y * 3 + copy * 5) as u8 % 40
                    ])
                };
                let path = place.join(format!("{copy}.png"));
                image::GrayImage::from_fn(28, 28, pixel).save(path).unwrap();
            }
        }
    }
    format!("folder:{}", text(&folder.join("images")))
}

fn ranks(report: &Value) -> Vec<(String, Value)> {
    let layers = report["layers"].as_array().unwrap().iter();
    layers.map(|l| (l["name"].as_str().unwrap().to_owned(), l["rank"].clone())).collect()
}

#[test]
fn rules_for_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let out = folder.path().join("out.safetensors");
    let run = |rest: &[&str]| {
        let args = ["compress", text(&dense), "--max-iters", "5", "--out", text(&out)];
        json(&[&args[..], rest].concat())
    };
    let near = run(&["--error-target", "0.9", "--points", "4"]);
    for layer in near["layers"].as_array().unwrap() {
        assert!(number(layer, "relative_error") < 0.91, "{layer}");
    }
    let energy = run(&["--energy", "0.5", "--form", "tucker2"]);
    assert!(ranks(&energy).iter().any(|(_, rank)| rank.is_array()), "{energy}");
    run(&["--evbmf", "0.5", "--form", "tucker2"]);
    run(&["--macs-ratio", "0.5", "--plan-by", "max-error", "--points", "4"]);
    run(&["--macs-ratio", "0.5", "--form", "tkd-cpd", "--points", "4"]);
    let kept = run(&[
        "--macs-ratio",
        "0.5",
        "--keep",
        "conv1,fc2,conv1",
        "--multiple",
        "4",
        "--form",
        "cp3",
    ]);
    for (name, rank) in ranks(&kept) {
        assert!(name != "conv1" && name != "fc2");
        let rank = rank.as_u64().unwrap();
        assert!(rank % 4 == 0 || rank < 4, "{name}: {rank}");
    }
    let dense_layers = kept["dense"].as_array().unwrap();
    assert!(
        dense_layers.iter().any(|l| l["name"] == "conv1" && l["why"] == "kept dense by request")
    );
    fails(
        &["compress", text(&dense), "--macs-ratio", "0.5", "--keep", "conv9", "--out", text(&out)],
        1,
        &["conv9", "conv2"],
    );
}

#[test]
fn ranks_of_single_layers_can_be_given() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let [out, fix, saved] =
        ["out.safetensors", "fix.toml", "plan.toml"].map(|name| folder.path().join(name));
    let entry = |name: &str, form: &str, rank: &str| {
        format!("[[layer]]\nname = \"{name}\"\nform = \"{form}\"\nrank = {rank}\n")
    };
    fs::write(&fix, entry("conv2", "tucker2", "[5, 31]") + &entry("fc1", "low-rank", "7")).unwrap();
    let start =
        ["compress", text(&dense), "--max-iters", "5", "--out", text(&out), "--fix", text(&fix)];
    for rule in [
        &["--macs-ratio", "0.5"][..],
        &["--params-ratio", "0.9", "--multiple", "4"],
        &["--energy", "0.5"],
    ] {
        let report = json(&[&start[..], rule, &["--save-plan", text(&saved)]].concat());
        let ranks = ranks(&report);
        let rank = |name: &str| ranks.iter().find(|(n, _)| n == name).map(|(_, rank)| rank.clone());
        assert_eq!(rank("conv2"), Some(serde_json::json!([5, 31])), "{rule:?}");
        assert_eq!(rank("fc1"), Some(serde_json::json!(7)), "{rule:?}");
        let plan = fs::read_to_string(&saved).unwrap();
        assert_eq!(plan.matches("fixed by request").count(), 2, "{rule:?}: {plan}");
        let ratio = number(&report, "macs_ratio");
        assert!(rule[0] != "--macs-ratio" || ratio <= 0.5, "{ratio}");
    }
    let refused = |rule: &[&str], status: i32, words: &[&str]| {
        fails(&[&start[..], rule].concat(), status, words);
    };
    refused(&["--macs-ratio", "0.5", "--keep", "fc1"], 1, &["fix.toml", "fc1", "--keep"]);
    refused(&["--macs-ratio", "0.5", "--plan-by", "uniform", "--form", "cp3"], 2, &["--fix"]);
    refused(&["--macs-ratio", "0.01"], 1, &["nearest"]);
    fs::write(&fix, entry("conv7", "cp3", "4")).unwrap();
    refused(&["--macs-ratio", "0.5"], 1, &["fix.toml", "conv7"]);
    fs::write(&fix, entry("conv2", "cp3", "0")).unwrap();
    refused(&["--macs-ratio", "0.5"], 1, &["fix.toml", "conv2"]);
}

/// What rank 1 saves of a batch of 16 is far more than a tenth, however busy the machine is; it may still be interrupted while it measures,
/// hence the second and third try.
#[test]
fn a_plan_from_measured_time_fits() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let out = folder.path().join("out.safetensors");
    let timed = |ratio: &'static str| {
        [
            "compress",
            text(&dense),
            "--latency-ratio",
            ratio,
            "--timing-batch",
            "16",
            "--threads",
            "1",
            "--max-iters",
            "3",
            "--points",
            "4",
            "--form",
            "cp3",
            "--out",
            text(&out),
        ]
    };
    let run = || polyad(&timed("0.9")).arg("--json").output().unwrap();
    let mut output = run();
    for _ in 0..2 {
        if !output.status.success() {
            output = run();
        }
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(number(&report["latency"][0], "compressed_ms") > 0.0);
    assert_eq!(report["latency"][0]["batch"], 16);
    assert!(number(&report["after"], "macs") < number(&report["before"], "macs"), "{report}");
    assert!(!ranks(&report).is_empty(), "{report}");
    fails(&timed("0.0001"), 1, &["seconds", "nearest"]);
}

/// Options of a short compression with data.
fn tuned<'a>(dense: &'a Path, dataset: &'a str, out: &'a Path) -> Vec<&'a str> {
    vec![
        "compress",
        text(dense),
        "--macs-ratio",
        "0.5",
        "--form",
        "cp3",
        "--points",
        "4",
        "--max-iters",
        "5",
        "--dataset",
        dataset,
        "--test-split",
        "test",
        "--epochs",
        "2",
        "--batch-size",
        "20",
        "--calibrate",
        "0",
        "--threads",
        "1",
        "--out",
        text(out),
    ]
}

#[test]
fn with_data_every_stage_is_evaluated_and_work_is_taken_up_again() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let dataset = images(folder.path());
    let out = folder.path().join("out.safetensors");
    let args = tuned(&dense, &dataset, &out);
    let report = json(&[&args[..], &["--distill", "0.5", "--statistics", "20"]].concat());
    let stages: Vec<&str> =
        report["stages"].as_array().unwrap().iter().map(|s| s["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["dense", "decomposed", "fine-tuned"]);
    for stage in report["stages"].as_array().unwrap() {
        assert_eq!(stage["validation"]["examples"], 10, "{stage}");
    }
    assert_eq!(report["test"]["compressed"]["examples"], 20);
    assert!(report["layers"][0]["weighted_error"].is_number(), "{report}");
    let work = folder.path().join("out.work");
    for file in [
        "plan.toml",
        "report.html",
        "summary.md",
        "provenance.json",
        "metrics.jsonl",
        "config.toml",
    ] {
        assert!(work.join(file).exists(), "{file}");
    }
    RankPlan::load(work.join("plan.toml")).unwrap();
    let first = fs::read(&out).unwrap();

    let again = [&args[..], &["--distill", "0.5", "--statistics", "20"]].concat();
    fails(&again, 1, &["out.work", "--resume"]);
    // A run that was killed in the fine-tuning, taken up by another spelling of the path.
    for entry in fs::read_dir(work.join("stages")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("fine-tuned") || name.starts_with("test-") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::remove_file(&out).unwrap();
    let elsewhere = folder.path().join("./out.safetensors");
    let mut spelled = again.clone();
    *spelled.last_mut().unwrap() = "20";
    let at = spelled.iter().position(|&arg| arg == text(&out)).unwrap();
    spelled[at] = text(&elsewhere);
    json(&[&spelled[..], &["--resume"]].concat());
    assert_eq!(fs::read(&out).unwrap(), first);
    // Other options: what differs is named, what does not depend on it is kept.
    let before = fs::read_dir(work.join("stages")).unwrap().count();
    let other = [&args[..], &["--distill", "0.25", "--statistics", "20", "--resume"]].concat();
    let output = polyad(&other).assert().success().get_output().clone();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("distill.weight is 0.25, was 0.5"), "{said}");
    assert!(!said.contains("'profile' is computed again"), "{said}");
    assert!(said.contains("'fine-tuned' is computed again"), "{said}");
    assert!(fs::read_dir(work.join("stages")).unwrap().count() > before);
    let sessions: Value =
        serde_json::from_slice(&fs::read(work.join("provenance.json")).unwrap()).unwrap();
    assert_eq!(sessions.as_array().unwrap().len(), 3);
    let nothing = folder.path().join("nothing.work");
    let elsewhere = [&again[..], &["--work", text(&nothing), "--resume"]].concat();
    fails(&elsewhere, 1, &["nothing.work", "no work to go on with"]);
}

#[test]
fn several_ratios_make_several_models() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let out = folder.path().join("out.safetensors");
    let work = folder.path().join("work");
    let report = json(&[
        "compress",
        text(&dense),
        "--macs-ratio",
        "0.6,0.3",
        "--form",
        "cp3",
        "--points",
        "4",
        "--max-iters",
        "3",
        "--work",
        text(&work),
        "--out",
        text(&out),
    ]);
    let budgets = report["budgets"].as_array().unwrap();
    assert_eq!(budgets.len(), 2);
    assert!(number(&budgets[0], "macs_ratio") > number(&budgets[1], "macs_ratio"));
    for ratio in ["0.6", "0.3"] {
        Network::load(folder.path().join(format!("out-{ratio}.safetensors"))).unwrap();
        assert!(work.join(format!("budgets/{ratio}/plan.toml")).exists());
    }
    assert!(work.join("report.html").exists());
    assert!(!out.exists());
}

#[test]
fn what_is_tested_on_is_neither_trained_nor_chosen_on() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let dataset = images(folder.path());
    let out = folder.path().join("out.safetensors");
    let args = tuned(&dense, &dataset, &out);
    for (option, split) in [("--train-split", "train"), ("--validation-split", "validation")] {
        let mut args = args.clone();
        let at = args.iter().position(|&arg| arg == "--test-split").unwrap();
        args[at + 1] = split;
        fails(&args, 2, &[option, "--test-split", split]);
    }
    assert!(!folder.path().join("out.work").exists());
}

#[test]
fn losses_of_layers_share_out_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let dataset = images(folder.path());
    let out = folder.path().join("out.safetensors");
    let mut args = tuned(&dense, &dataset, &out);
    args.splice(2..4, ["--rank-sums", "40,30", "--loss", "cross-entropy", "--size-share", "0.5"]);
    let at = args.iter().position(|&arg| arg == "--points").unwrap();
    args.drain(at..at + 2);
    let report = json(&args);
    let of = |name: &str| {
        ranks(&report)
            .iter()
            .filter(|(n, _)| n.starts_with(name))
            .map(|(_, r)| r.as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(of("fc"), 30, "{report}");
    let stages = fs::read_dir(folder.path().join("out.work/stages")).unwrap();
    let names = stages.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    assert_eq!(names.filter(|name| name.starts_with("sensitivity-")).count(), 1);
}

#[test]
fn options_that_do_not_go_together() {
    let out = PathBuf::from("out.safetensors");
    let check = |rest: &[&str], words: &[&str]| {
        fails(&[&["compress", "x.safetensors", "--out", text(&out)], rest].concat(), 2, words);
    };
    check(
        &["--macs-ratio", "0.5", "--plan-by", "sensitivity"],
        &["--plan-by sensitivity", "--dataset"],
    );
    check(&["--macs-ratio", "0.5", "--plan-by", "uniform"], &["--form cp3"]);
    check(&["--latency-ratio", "0.5", "--plan-by", "uniform", "--form", "cp3"], &["--macs-ratio"]);
    check(&["--macs-ratio", "0.5", "--epochs", "3"], &["--dataset"]);
    check(&["--macs-ratio", "0.5", "--resume"], &["--resume", "--work"]);
    check(&["--macs-ratio", "0.5,2"], &["between 0 and 1"]);
    check(&["--rank-sums", "40,30"], &["--dataset"]);
    check(&["--rank-sums", "40"], &["750,900"]);
    check(&["--energy", "0.5", "--never-slower"], &["--never-slower"]);
    check(&["--macs-ratio", "0.5", "--dataset", "cifar10", "--distill", "2"], &["--distill"]);
    check(&["--macs-ratio", "0.5", "--max-energy", "0"], &["--max-energy"]);
    check(&["--macs-ratio", "0.5,0.3,0.5"], &["0.5", "twice"]);
    let data = ["--macs-ratio", "0.5", "--dataset", "cifar10"];
    for (rest, words) in [
        (&["--lr", "nan"][..], ["--lr", "above 0"]),
        (&["--freeze", "reduse"], ["reduse", "reduce, spatial"]),
        (&["--factor-lr", "nan"], ["--factor-lr", "at least 0"]),
        // What nothing would read is refused, not ignored.
        (&["--passes", "3", "--schedule", "layerwise"], ["--passes", "--schedule passes"]),
        (&["--step-epochs", "3", "--schedule", "at-once"], ["--step-epochs", "layerwise"]),
        (&["--preset", "quick", "--lr", "0.1"], ["--lr", "--epochs"]),
        (&["--epochs", "0", "--distill", "0.5"], ["--distill", "--epochs"]),
        (&["--method", "power", "--tol", "1e-3"], ["--tol", "--method power"]),
        (&["--method", "nonneg"], ["--method", "no statistics"]),
        (&["--preset", "long"], ["--preset", "best"]),
    ] {
        let start = ["compress", "x.safetensors", "--out", text(&out)];
        fails(&[&start[..], &data, rest].concat(), 2, &words);
        // Nothing is left that a corrected command would meet.
        assert!(!out.with_extension("work").exists());
    }
    check(&["--energy", "0.5", "--form", "auto"], &["--form auto", "one form"]);
    check(&["--energy", "0.5", "--points", "3"], &["--points"]);
    check(&["--evbmf", "1", "--plan-by", "errors"], &["--plan-by"]);
    check(&[], &["--macs-ratio"]);
    let help = polyad(&["compress", "--help"]).assert().success().get_output().stdout.clone();
    assert!(String::from_utf8(help).unwrap().contains("--latency-ratio"));
    let short = polyad(&["compress", "-h"]).assert().success().get_output().stdout.clone();
    let lines = String::from_utf8(short).unwrap().lines().count();
    assert!(lines <= 60, "{lines} lines");
}
