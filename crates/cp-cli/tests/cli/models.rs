//! `polyad inspect`, `compress`, `eval` and `bench` on small networks with random weights.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Stdio};

use crate::support::{
    assert_keys, fails, files, foreign, json, model, network, number, polyad, read_only, text,
};
use cp_net::{Form, Network};
use serde_json::Value;

fn stdout(args: &[&str]) -> String {
    String::from_utf8(polyad(args).assert().success().get_output().stdout.clone()).unwrap()
}

fn layer<'a>(report: &'a Value, name: &str) -> &'a Value {
    let layers = report["layers"].as_array().unwrap();
    layers
        .iter()
        .find(|layer| layer["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {report}"))
}

// inspect

#[test]
fn inspect_counts_what_is_known_of_alexnet() {
    let report = json(&["inspect", "--arch", "alexnet"]);
    assert_eq!(report["architecture"], "alexnet");
    assert_eq!(report["input"], serde_json::json!([3, 224, 224]));
    assert_eq!(report["parameters"], 61_100_840);
    // 714.2 M multiply-adds at 224×224.
    assert!((number(&report, "macs") / 1e6 - 714.2).abs() < 0.05, "{}", report["macs"]);
    // conv2: 192×64×5×5. Break-even of CP-4 is ⌊307200 / (192 + 64 + 5 + 5)⌋.
    let conv2 = layer(&report, "features.3");
    assert_eq!(conv2["kernel"], serde_json::json!([192, 64, 5, 5]));
    assert_eq!(conv2["output"], serde_json::json!([192, 27, 27]));
    assert_eq!(conv2["parameters"], 192 * 64 * 25 + 192);
    assert_eq!(conv2["macs"], 192 * 64 * 25 * 27 * 27);
    assert_eq!(conv2["breakeven"]["cp4"], 307_200 / 266);
    assert_eq!(conv2["breakeven"]["cp3"], 307_200 / 281);
    // fc6: 4096×9216.
    let fc6 = layer(&report, "classifier.1");
    assert_eq!(fc6["breakeven"]["low-rank"], 4096 * 9216 / (4096 + 9216));
    let text = stdout(&["inspect", "--arch", "alexnet"]);
    assert!(text.contains("61,100,840") && text.contains("features.3"), "{text}");
}

#[test]
fn inspect_takes_other_inputs_where_the_network_does() {
    let of =
        |input: &str| number(&json(&["inspect", "--arch", "resnet18", "--input", input]), "macs");
    assert!(of("3x224x224") > 3.0 * of("3x112x112"));
    fails(&["inspect", "--arch", "resnet18", "--input", "1x224x224"], 1, &["conv1", "3 channels"]);
    fails(&["inspect", "--arch", "small-cnn", "--input", "1x64x64"], 1, &["fc1"]);
}

#[test]
fn inspect_counts_small_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = model(folder.path(), "small-cnn");
    let net = Network::load(&path).unwrap();
    let report = json(&["inspect", text(&path), "--sparsity", "0.1,1"]);
    let kernel = net.kernel("fc1").unwrap();
    let largest = kernel.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let small = kernel.iter().filter(|value| f64::from(value.abs()) <= 0.1 * f64::from(largest));
    let share = small.count() as f64 / kernel.len() as f64;
    let expected = serde_json::json!([
        { "threshold": 0.1, "share": share },
        { "threshold": 1.0, "share": 1.0 },
    ]);
    assert_eq!(layer(&report, "fc1")["sparsity"], expected);
    let printed = stdout(&["inspect", text(&path), "--sparsity", "0.1"]);
    assert!(printed.contains(&format!("{:.2} %", 100.0 * share)), "{printed}");
    assert!(json(&["inspect", text(&path)])["layers"][0]["sparsity"].is_null());
    for wrong in ["-0.1", "1.5", "NaN", "much"] {
        let option = format!("--sparsity={wrong}");
        fails(&["inspect", text(&path), &option], 2, &["--sparsity", "from 0 to 1"]);
    }
    // Without weights there is nothing to count.
    fails(&["inspect", "--arch", "small-cnn", "--sparsity", "0.1"], 2, &["MODEL"]);
}

#[test]
fn foreign_weights_need_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let own = model(folder.path(), "charnet");
    let foreign = foreign(&own);
    fails(&["inspect", text(&foreign)], 1, &["--arch", "charnet", "resnet20", "foreign"]);
    let own = json(&["inspect", text(&own)]);
    assert_eq!(
        own["parameters"],
        json(&["inspect", text(&foreign), "--arch", "charnet"])["parameters"]
    );
}

#[test]
fn weights_of_another_architecture_are_listed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let own = model(folder.path(), "resnet20");
    let foreign = foreign(&own);
    fails(
        &["inspect", text(&foreign), "--arch", "resnet32"],
        1,
        &["foreign", "missing", "layer1.3.conv1.weight"],
    );
    fails(
        &["inspect", text(&foreign), "--arch", "charnet"],
        1,
        &["missing", "unexpected", "conv2"],
    );
    fails(&["inspect", text(&own), "--arch", "resnet32"], 1, &["resnet20", "resnet32"]);
}

#[test]
fn architectures_have_settings_classes_and_files_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let parameters = |args: &[&str]| number(&json(&[&["inspect"], args].concat()), "parameters");
    let of_100 = parameters(&["--arch", "resnet20", "--classes", "100"]);
    // 64 features, with a bias for each class.
    assert!((of_100 - (269_722.0 + 90.0 * 65.0)).abs() < 0.5, "{of_100}");
    let of_setting = parameters(&["--arch", "resnet20(classes=100)"]);
    assert!((of_setting - of_100).abs() < 0.5, "{of_setting}");

    let net = network("small-cnn");
    let file = folder.path().join("net.json");
    fs::write(&file, net.architecture().to_json().unwrap()).unwrap();
    let foreign = foreign(&model(folder.path(), "small-cnn"));
    let of_file = parameters(&[text(&foreign), "--arch", text(&file)]);
    assert!((of_file - net.param_count() as f64).abs() < 0.5, "{of_file}");
    fs::write(&file, "{").unwrap();
    fails(&["inspect", "--arch", text(&file)], 1, &["--arch", "net.json"]);
    fails(&["inspect", "--arch", "none.json"], 1, &["--arch", "none.json"]);

    // Weights for another number of classes say so, and are taken where nobody asked for one.
    let named = ["inspect", text(&foreign), "--arch", "small-cnn(classes=7)"];
    let output = polyad(&named).assert().success().get_output().clone();
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.starts_with("note: ") && note.contains("10 classes"), "{note}");
    let asked = ["inspect", text(&foreign), "--arch", "small-cnn", "--classes", "7"];
    fails(&asked, 1, &["foreign", "10 classes", "--classes asks for 7"]);
    fails(&["inspect", text(&foreign), "--classes", "7"], 2, &["--arch"]);
}

#[test]
fn damaged_models_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let own = model(folder.path(), "charnet");
    let bytes = fs::read(&own).unwrap();
    let check = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        for command in [
            &["inspect", text(&path)][..],
            &["eval", text(&path), "--dataset", "characters"],
            &[
                "compress",
                text(&path),
                "--macs-ratio",
                "0.5",
                "--out",
                text(&folder.path().join("out.safetensors")),
            ],
            &["bench", text(&own), text(&path)],
        ] {
            fails(command, 1, &[name]);
        }
    };
    check("truncated.safetensors", &bytes[..bytes.len() / 2]);
    check("header.safetensors", &bytes[..100]);
    check("empty.safetensors", b"");
    check("text.safetensors", b"this is no model");
    assert!(!folder.path().join("out.safetensors").exists());
    fails(&["inspect", "missing.safetensors"], 1, &["missing.safetensors"]);
    fails(&["inspect", "resnet18"], 1, &["--arch resnet18"]);
    fails(&["inspect", text(folder.path())], 1, &[text(folder.path())]);
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut polyad = Process::new(env!("CARGO_BIN_EXE_polyad"))
        .args(["inspect", "--arch", "googlenet"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(polyad.stdout.take());
    let output = polyad.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

// compress

#[test]
fn compress_meets_a_budget_and_leaves_a_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "resnet20");
    let out = folder.path().join("out.safetensors");
    let check = |option: &str, key: &str, form: &str| {
        let report = json(&[
            "compress",
            text(&dense),
            option,
            "0.5",
            "--form",
            form,
            "--max-iters",
            "5",
            "--out",
            text(&out),
        ]);
        let ratio = number(&report["after"], key) / number(&report["before"], key);
        assert!((0.4..=0.5).contains(&ratio), "{option} {form}: {ratio}");
        assert_eq!(report["before"]["parameters"], 269_722);
        let after = json(&["inspect", text(&out)]);
        for key in ["parameters", "macs"] {
            assert_eq!(after[key], report["after"][key], "{key}");
        }
        let layers = report["layers"].as_array().unwrap();
        assert!(!layers.is_empty());
        for layer in layers {
            let error = number(layer, "relative_error");
            assert!(error > 0.0 && error < 1.0, "{layer}");
            // The plan of `auto` may have forms with several ranks, which have no break-even rank.
            if form != "auto" {
                assert!(number(layer, "rank") < number(layer, "breakeven"), "{layer}");
            }
            assert!(number(&layer["after"], key) < number(&layer["before"], key), "{layer}");
        }
        Network::load(&out).unwrap();
    };
    check("--macs-ratio", "macs", "auto");
    check("--macs-ratio", "macs", "cp3");
    check("--params-ratio", "parameters", "cp4");
    assert_eq!(files(folder.path()), ["out.safetensors", "resnet20.safetensors"]);
}

#[test]
fn a_saved_plan_gives_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let [one, two, plan] =
        ["one.safetensors", "two.safetensors", "plan.toml"].map(|name| folder.path().join(name));
    let args = ["compress", text(&dense), "--max-iters", "10", "--seed", "3"];
    json(
        &[&args[..], &["--params-ratio", "0.2", "--save-plan", text(&plan), "--out", text(&one)]]
            .concat(),
    );
    json(&[&args[..], &["--ranks", text(&plan), "--out", text(&two)]].concat());
    assert_eq!(Network::load(&one).unwrap().params(), Network::load(&two).unwrap().params());
    let factorized = Network::load(&one).unwrap().architecture().factorized.clone();
    assert_eq!(factorized["fc1"].form, Form::LowRank);
}

#[test]
fn compress_reads_foreign_weights() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = foreign(&model(folder.path(), "small-cnn"));
    let out = folder.path().join("out.safetensors");
    let args = [
        "compress",
        text(&foreign),
        "--params-ratio",
        "0.5",
        "--max-iters",
        "3",
        "--out",
        text(&out),
    ];
    fails(&args, 1, &["--arch"]);
    assert!(!out.exists());
    json(&[&args[..], &["--arch", "small-cnn"]].concat());
    assert_eq!(Network::load(&out).unwrap().architecture().name, "small-cnn");
}

#[test]
fn plans_with_mistakes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let plan = folder.path().join("plan.toml");
    let out = folder.path().join("out.safetensors");
    let args =
        ["compress", text(&dense), "--ranks", text(&plan), "--max-iters", "3", "--out", text(&out)];
    let check = |toml: &str, words: &[&str]| {
        fs::write(&plan, toml).unwrap();
        fails(&args, 1, &[&["plan.toml"], words].concat());
        assert!(!out.exists());
    };
    check("not toml at all", &[]);
    check(&entry("conv9", "cp3", 4), &["conv9", "conv2"]);
    check(&entry("conv2", "cp3", 0), &["conv2", "rank"]);
    check(&entry("conv2", "magic", 4), &["magic"]);
    check(&entry("fc1", "cp3", 4), &["fc1", "low-rank"]);
    fails(
        &["compress", text(&dense), "--ranks", "missing.toml", "--out", text(&out)],
        1,
        &["missing.toml"],
    );
}

/// A plan of one layer.
fn entry(layer: &str, form: &str, rank: usize) -> String {
    format!("[[layer]]\nname = \"{layer}\"\nform = \"{form}\"\nrank = {rank}\n")
}

#[test]
fn ranks_above_break_even_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let plan = folder.path().join("plan.toml");
    let out = folder.path().join("out.safetensors");
    // conv2 is 64×32×3×3: 18432 weights, break-even of CP-3 ⌊18432 / (64 + 32 + 9)⌋ = 175.
    let run = |rank: usize| {
        fs::write(&plan, entry("conv2", "cp3", rank)).unwrap();
        let args = [
            "compress",
            text(&dense),
            "--ranks",
            text(&plan),
            "--max-iters",
            "2",
            "--out",
            text(&out),
        ];
        String::from_utf8(polyad(&args).assert().success().get_output().stderr.clone()).unwrap()
    };
    assert_eq!(run(175), "");
    let warning = run(176);
    assert!(
        warning.starts_with("warning: ") && warning.contains("conv2") && warning.contains("175"),
        "{warning}"
    );
}

#[test]
fn nan_in_a_kernel_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut net = network("small-cnn");
    let mut kernel = net.params()["conv2.weight"].clone();
    kernel[[1, 2, 0, 1]] = f32::NAN;
    net.set_param("conv2.weight", kernel).unwrap();
    let dense = folder.path().join("nan.safetensors");
    net.save(&dense).unwrap();
    let out = folder.path().join("out.safetensors");
    fails(
        &["compress", text(&dense), "--params-ratio", "0.5", "--out", text(&out)],
        1,
        &["conv2", "NaN"],
    );
    assert_eq!(files(folder.path()), ["nan.safetensors"]);
}

#[test]
fn compress_does_not_write_where_it_should_not() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let before = fs::read(&dense).unwrap();
    let check = |out: &Path, words: &[&str]| {
        fails(&["compress", text(&dense), "--params-ratio", "0.5", "--out", text(out)], 1, words);
    };
    check(&dense, &["overwrite"]);
    assert_eq!(fs::read(&dense).unwrap(), before);
    check(folder.path(), &["folder"]);
    check(&folder.path().join("none/out.safetensors"), &["none", "does not exist"]);
    #[cfg(unix)]
    check(Path::new("/dev/null"), &["/dev/null", "not an ordinary file"]);
    assert_eq!(files(folder.path()), ["small-cnn.safetensors"]);
    if let Some(sealed) = read_only(folder.path()) {
        check(&sealed.join("out.safetensors"), &["out.safetensors", "cannot write"]);
    }
}

#[test]
fn a_budget_out_of_reach_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "resnet20");
    let out = folder.path().join("out.safetensors");
    fails(
        &["compress", text(&dense), "--macs-ratio", "0.000001", "--out", text(&out)],
        1,
        &["multiply-adds", "nearest"],
    );
    assert!(!out.exists());
}

// eval

/// A folder of grey images, three of each of ten classes: small-cnn's shape.
fn images(folder: &Path) -> PathBuf {
    for class in 0..10u8 {
        let class_folder = folder.join(format!("images/test/class{class}"));
        fs::create_dir_all(&class_folder).unwrap();
        for copy in 0..3u8 {
            let pixel = |x: u32, y: u32| {
                image::Luma([(x as u8).wrapping_mul(class + 3) ^ (y as u8).wrapping_mul(copy + 5)])
            };
            image::GrayImage::from_fn(28, 28, pixel)
                .save(class_folder.join(format!("{copy}.png")))
                .unwrap();
        }
    }
    folder.join("images")
}

#[test]
fn eval_counts_every_image_once() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), "small-cnn");
    let dataset = format!("folder:{}", text(&images(folder.path())));
    let args = ["eval", text(&model), "--dataset", &dataset, "--split", "test"];
    let report = json(&args);
    assert_keys(&report, &["examples", "top1", "top5", "loss", "seconds"]);
    assert_eq!(report["examples"], 30);
    let [top1, top5, loss] = ["top1", "top5", "loss"].map(|key| number(&report, key));
    assert!((0.0..=1.0).contains(&top1) && top1 <= top5 && top5 <= 1.0 && loss > 0.0, "{report}");
    // The size of the batches and the number of threads are nobody's business.
    let other = json(&[&args[..], &["--batch", "7", "--threads", "1"]].concat());
    assert_eq!((&other["top1"], &other["top5"]), (&report["top1"], &report["top5"]));
    assert!((number(&other, "loss") - loss).abs() < 1e-4 * loss, "{other} {report}");
    assert!(stdout(&args).contains("top-1"));
}

#[test]
fn eval_finds_a_broken_image_and_too_many_classes() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path(), "small-cnn");
    let images = images(folder.path());
    let dataset = format!("folder:{}", text(&images));
    let broken = images.join("test/class4/1.png");
    let bytes = fs::read(&broken).unwrap();
    fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
    fails(&["eval", text(&model), "--dataset", &dataset], 1, &["class4", "1.png"]);
    fails(
        &["eval", text(&model), "--dataset", "characters", "--split", "validation"],
        1,
        &["36 classes", "10 outputs"],
    );
}

#[test]
fn eval_names_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let charnet = model(folder.path(), "charnet");
    let eval = |rest: &[&str], words: &[&str]| {
        fails(&[&["eval", text(&charnet)], rest].concat(), 1, words);
    };
    eval(&["--dataset", "cifar11"], &["cifar11", "cifar10"]);
    eval(&["--dataset", "characters", "--split", "tset"], &["tset", "test"]);
    eval(&["--dataset", "cifar10", "--data", "no-such-folder"], &["no-such-folder"]);
    eval(
        &["--dataset", "cifar10", "--split", "test-1000", "--data", text(folder.path())],
        &[text(folder.path())],
    );
    // A file that is there, but not the right one.
    let cifar = folder.path().join("cifar-10");
    fs::create_dir(&cifar).unwrap();
    fs::write(cifar.join("test_batch_first1000.bin"), vec![0; 1000]).unwrap();
    eval(
        &["--dataset", "cifar10", "--split", "test-1000", "--data", text(folder.path())],
        &["test_batch_first1000.bin"],
    );
    fs::write(cifar.join("test_batch_first1000.bin"), vec![0; 3073 * 1000]).unwrap();
    eval(
        &["--dataset", "cifar10", "--split", "test-1000", "--data", text(folder.path())],
        &["test_batch_first1000.bin"],
    );
}

/// Also on a machine with a GPU: the library that is named is not there.
#[test]
fn a_gpu_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let charnet = model(folder.path(), "charnet");
    let args = ["eval", text(&charnet), "--dataset", "characters", "--split", "validation"];
    let mut command = polyad(&[&args[..], &["--device", "cuda"]].concat());
    command.env("POLYAD_LIBTORCH_CUDA", folder.path().join("libtorch_cuda.so"));
    let output = command.assert().code(1).get_output().clone();
    let error = String::from_utf8(output.stderr).unwrap();
    for word in ["--device", "POLYAD_LIBTORCH_CUDA", "2.11.0"] {
        assert!(error.contains(word), "'{word}' is missing in: {error}");
    }
}

// bench

#[test]
fn bench_compares_two_models() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let out = folder.path().join("out.safetensors");
    json(&[
        "compress",
        text(&dense),
        "--macs-ratio",
        "0.2",
        "--max-iters",
        "2",
        "--out",
        text(&out),
    ]);
    let args =
        ["bench", text(&dense), text(&out), "--batch", "4", "--repeats", "5", "--threads", "1"];
    let report = json(&args);
    assert_eq!(
        (&report["repeats"], &report["threads"], &report["batch"]),
        (&5.into(), &1.into(), &4.into())
    );
    let [dense_ms, compressed_ms, ratio] =
        ["dense_ms", "compressed_ms", "ratio"].map(|key| number(&report, key));
    assert!(dense_ms > 0.0 && compressed_ms > 0.0);
    assert!((ratio - dense_ms / compressed_ms).abs() < 1e-9);
    assert!(stdout(&args).contains("ratio"));
    fails(
        &["bench", text(&dense), text(&out), "--input", "3x28x28"],
        1,
        &["small-cnn.safetensors", "conv1"],
    );
}
