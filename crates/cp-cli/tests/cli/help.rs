//! The command line as such: help, versions, usage errors.

use crate::support::{fails, polyad};

const COMMANDS: [&str; 7] = ["decompose", "inspect", "eval", "compress", "bench", "convert", "run"];

fn stdout(args: &[&str]) -> String {
    String::from_utf8(polyad(args).assert().success().get_output().stdout.clone()).unwrap()
}

#[test]
fn every_command_has_examples_of_itself() {
    let all = stdout(&["--help"]);
    for command in COMMANDS {
        assert!(all.contains(command), "{all}");
        let help = stdout(&[command, "--help"]);
        let (_, examples) =
            help.split_once("Examples:").unwrap_or_else(|| panic!("no examples in {help}"));
        assert!(examples.contains(&format!("polyad {command} ")), "{help}");
    }
}

#[test]
fn examples_in_the_help_can_be_parsed() {
    // A file that does not exist stops each of them after the command line has been understood: code 1, not 2.
    let folder = std::env::temp_dir();
    for command in COMMANDS {
        let help = stdout(&[command, "--help"]);
        let (_, examples) = help.split_once("Examples:").unwrap();
        for line in examples.lines().filter_map(|line| line.trim().strip_prefix("polyad ")) {
            let args: Vec<&str> = line.split_whitespace().collect();
            if args.windows(2).any(|pair| pair[0] == "inspect" && pair[1] == "--arch") {
                continue;
            }
            let output = polyad(&args).current_dir(&folder).assert().code(1).get_output().clone();
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(error.starts_with("error: "), "{line}: {error}");
        }
    }
}

#[test]
fn the_json_keys_that_the_help_promises_are_those_of_the_design() {
    let check = |command: &str, keys: &[&str]| {
        let help = stdout(&[command, "--help"]);
        let (_, json) = help.split_once("JSON: ").unwrap_or_else(|| panic!("{help}"));
        for key in keys {
            assert!(json.contains(key), "{key} in {help}");
        }
    };
    check("eval", &["examples", "top1", "top5", "loss", "seconds"]);
    check("bench", &["dense_ms", "compressed_ms", "ratio", "repeats", "threads", "batch"]);
    check(
        "decompose",
        &[
            "method",
            "shape",
            "rank",
            "iterations",
            "relative_error",
            "fit",
            "stop",
            "seconds",
            "seconds_per_iteration",
            "degeneracy",
        ],
    );
}

#[test]
fn usage_errors_end_with_code_2() {
    fails(&["decompose", "x.npy"], 2, &["--rank"]);
    fails(&["decompose", "x.npy", "--rank", "0"], 2, &["--rank", "at least 1"]);
    fails(&["decompose", "x.npy", "--rank", "2", "--method", "magic"], 2, &["magic", "als"]);
    fails(&["decompose", "x.npy", "--rank", "2", "--tol=-1"], 2, &["--tol", "at least 0"]);
    fails(
        &["decompose", "x.npy", "--rank", "2", "--threads", "0"],
        2,
        &["--threads", "at least 1"],
    );
    fails(
        &["decompose", "x.npy", "--rank", "2", "--init", "hosvd", "--restarts", "2"],
        2,
        &["--restarts", "hosvd"],
    );
    fails(
        &["decompose", "x.npy", "--rank", "2", "--threads", "1000000"],
        2,
        &["--threads", "at most 1024"],
    );
    fails(&["inspect"], 2, &["MODEL"]);
    fails(&["inspect", "--arch", "resnet19"], 2, &["resnet19", "resnet18"]);
    fails(&["inspect", "--arch", "resnet18", "--input", "3x0"], 2, &["--input", "3x224x224"]);
    fails(&["eval", "x.safetensors"], 2, &["--dataset"]);
    fails(
        &["compress", "x.safetensors", "--out", "y.safetensors"],
        2,
        &["--params-ratio", "--macs-ratio", "--ranks"],
    );
    fails(
        &[
            "compress",
            "x.safetensors",
            "--out",
            "y.safetensors",
            "--params-ratio",
            "0.5",
            "--macs-ratio",
            "0.5",
        ],
        2,
        &["--params-ratio", "--macs-ratio"],
    );
    fails(
        &["compress", "x.safetensors", "--out", "y.safetensors", "--macs-ratio", "1.5"],
        2,
        &["between 0 and 1"],
    );
    fails(&["bench", "x.safetensors"], 2, &["COMPRESSED"]);
    fails(&["bench", "x.safetensors", "y.safetensors", "--repeats", "0"], 2, &["at least 1"]);
}
