//! What goes wrong for people: numbers that are none, networks and data that do not belong together, sizes that memory cannot hold,
//! commands that are interrupted.

use std::fs;

use cp_net::Network;
use cp_onnx::{ExportOptions, export};
use ndarray::{Array2, Array3, ArrayD, IxDyn};
use ndarray_npy::write_npy;

use crate::support::{
    HEAD, RGB, fails, files, heeding, json, model, number, pictures, polyad, refused, text, written,
};

const FLAT: &str = r#"{"name": "flat", "op": "flatten", "inputs": ["input"]},
    {"name": "fc", "op": "linear", "out_features": 3, "inputs": ["flat"]}"#;

// Numbers that are none

#[test]
fn weights_that_are_no_numbers_are_named_by_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = pictures(folder.path());
    let nodes = format!(
        r#"{{"name": "norm", "op": "batch_norm", "inputs": ["input"]}}, {}"#,
        HEAD.replace("[\"input\"]", "[\"norm\"]")
    );
    let path = written(folder.path(), "net", RGB, &nodes);
    let out = folder.path().join("out.safetensors");
    let good = Network::load(&path).unwrap();
    for (array, value, what) in [
        ("norm.running_mean", f32::NAN, "NaN"),
        ("norm.running_var", f32::INFINITY, "infinite"),
        ("norm.running_var", -0.5, "negative variances"),
        ("fc.weight", f32::NEG_INFINITY, "infinite"),
    ] {
        let mut net = good.clone();
        let mut values = net.params()[array].clone();
        values.iter_mut().take(1).for_each(|first| *first = value);
        net.set_param(array, values).unwrap();
        net.save(&path).unwrap();
        let words = ["net.safetensors", array, "1 values", what];
        refused(&["inspect", text(&path)], 1, &words);
        refused(&["eval", text(&path), "--dataset", &dataset], 1, &words);
        refused(&["bench", text(&path), text(&path)], 1, &words);
        refused(
            &["compress", text(&path), "--params-ratio", "0.5", "--out", text(&out)],
            1,
            &words,
        );
        // The same as an ONNX model.
        let (model, out) = (folder.path().join("net.onnx"), folder.path().join("out.onnx"));
        export(&net, &ExportOptions::default()).unwrap().save(&model).unwrap();
        let words = ["net.onnx", array, "1 values", what];
        refused(&["inspect", text(&model)], 1, &words);
        refused(&["bench", text(&model), text(&model)], 1, &words);
        refused(&["eval", text(&model), "--dataset", &dataset], 1, &words);
        let compress = ["compress", text(&model), "--params-ratio", "0.5", "--out", text(&out)];
        refused(&compress, 1, &words);
        assert!(!out.exists());
    }
    assert!(!out.exists());
    // A constant beside the weights that all outputs are reckoned with.
    let (sum, k) =
        (r#"{"name": "sum", "op": "add", "inputs": ["fc", "k"]}"#, r#""op": "constant""#);
    let nodes = format!(r#"{HEAD}, {{"name": "k", {k}, "shape": [3], "inputs": []}}, {sum}"#);
    let mut net = Network::load(written(folder.path(), "sum", RGB, &nodes)).unwrap();
    let model = folder.path().join("sum.onnx");
    for value in [-1.0, f32::NAN] {
        net.set_param("k.value", ArrayD::from_elem(IxDyn(&[3]), value)).unwrap();
        export(&net, &ExportOptions::default()).unwrap().save(&model).unwrap();
        let inspect = ["inspect", text(&model)];
        if value.is_finite() {
            json(&inspect);
            continue;
        }
        let words = ["sum.onnx", "3 values", "NaN"];
        refused(&inspect, 1, &words);
        refused(&["bench", text(&model), text(&model)], 1, &words);
        refused(&["eval", text(&model), "--dataset", &dataset], 1, &words);
        let out = folder.path().join("o.safetensors");
        refused(&["convert", text(&model), text(&out)], 1, &words);
        assert!(!out.exists());
    }
    // Finite weights, and sums beyond f32.
    let mut net = good.clone();
    let huge = net.params()["fc.weight"].mapv(|_| 3e38);
    net.set_param("fc.weight", huge).unwrap();
    let bias = net.params()["norm.bias"].mapv(|_| 1e3);
    net.set_param("norm.bias", bias).unwrap();
    net.save(&path).unwrap();
    refused(&["eval", text(&path), "--dataset", &dataset], 1, &["net.safetensors", "NaN"]);
}

#[test]
fn arrays_that_are_no_numbers_or_none_of_f32() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let decompose = |array: &ArrayD<f64>, rest: &[&str], words: &[&str]| {
        write_npy(&path, array).unwrap();
        refused(&[&["decompose", text(&path), "--rank", "1"], rest].concat(), 1, words);
    };
    let ones = ArrayD::<f64>::ones(IxDyn(&[3, 3, 3]));
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut array = ones.clone();
        array[[0, 1, 2]] = value;
        decompose(&array, &[], &["x.npy", "1 values", "NaN or infinite"]);
    }
    let narrow = ["--dtype", "f32"];
    decompose(&(&ones * 1e39), &narrow, &["x.npy", "27 values", "too large", "--dtype"]);
    decompose(&(&ones * 1e-42), &narrow, &["x.npy", "too small", "--dtype"]);
    // The start and the statistics are looked at too.
    write_npy(&path, &ones).unwrap();
    let bad = folder.path().join("s.npy");
    write_npy(&bad, &Array2::<f64>::from_elem((9, 9), f64::NAN)).unwrap();
    let aware = ["decompose", text(&path), "--rank", "1", "--method", "als-sigma"];
    refused(&[&aware[..], &["--statistics", text(&bad)]].concat(), 1, &["s.npy", "NaN"]);
}

#[test]
fn training_on_one_value_for_each_channel_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = pictures(folder.path());
    let nodes = r#"{"name": "conv", "op": "conv", "out_channels": 6, "kernel": [8, 8], "inputs": ["input"]},
        {"name": "norm", "op": "batch_norm", "inputs": ["conv"]},
        {"name": "flat", "op": "flatten", "inputs": ["norm"]},
        {"name": "fc", "op": "linear", "out_features": 3, "inputs": ["flat"]}"#;
    let path = written(folder.path(), "net", RGB, nodes);
    let out = folder.path().join("out.safetensors");
    let args = [
        "compress",
        text(&path),
        "--params-ratio",
        "0.5",
        "--dataset",
        &dataset,
        "--out",
        text(&out),
    ];
    let short =
        ["--form", "cp3", "--max-iters", "2", "--points", "2", "--epochs", "1", "--calibrate", "0"];
    refused(
        &[&args[..], &short, &["--batch-size", "1"]].concat(),
        1,
        &["norm", "one value", "at least 2"],
    );
}

// Networks and data that do not belong together

#[test]
fn networks_that_take_no_pictures_or_give_no_classes() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = pictures(folder.path());
    let check = |name: &str, input: &str, nodes: &str, words: &[&str]| {
        let path = written(folder.path(), name, input, nodes);
        let eval = ["eval", text(&path), "--dataset", &dataset];
        refused(&eval, 1, &[&[name, "folder"], words].concat());
    };
    check("vector", r#"{"shape": [7]}"#, FLAT, &["vectors of 7 numbers", "pictures"]);
    check("line", r#"{"shape": [4, 50]}"#, FLAT, &["[4, 50]", "pictures"]);
    check("volume", r#"{"shape": [1, 4, 8, 8]}"#, FLAT, &["[1, 4, 8, 8]", "pictures"]);
    check("maps", r#"{"shape": [64, 8, 8]}"#, HEAD, &["[64, 8, 8]", "pictures"]);
    check("bare", r#"{"shape": [3, 8, 8]}"#, HEAD, &["\"channels\"", "rgb"]);
    let relu = r#"{"name": "relu", "op": "relu", "inputs": ["input"]}"#;
    check("image", RGB, relu, &["relu", "[3, 8, 8]", "3 classes"]);
    let two = format!(
        "{}, {}",
        RGB.replace('{', r#"{"name": "a", "#),
        RGB.replace('{', r#"{"name": "b", "#)
    );
    check(
        "pair",
        &two,
        r#"{"name": "sum", "op": "add", "inputs": ["a", "b"]}"#,
        &["2 inputs", "'a'", "'b'"],
    );
    for classes in ["2", "4"] {
        let nodes = HEAD.replace("\"out_features\": 3", &format!("\"out_features\": {classes}"));
        let name = format!("net{classes}");
        let words = [&format!("{classes} outputs")[..], "3 classes", "blue, green, red"];
        check(&name, RGB, &nodes, &words);
    }
}

#[test]
fn networks_that_take_no_pictures_are_not_trained() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = pictures(folder.path());
    let path = written(folder.path(), "vector", r#"{"shape": [70]}"#, FLAT);
    let out = folder.path().join("out.safetensors");
    let args = [
        "compress",
        text(&path),
        "--params-ratio",
        "0.9",
        "--dataset",
        &dataset,
        "--out",
        text(&out),
    ];
    refused(&args, 1, &["vectors of 70 numbers", "pictures"]);
    assert!(!out.exists());
}

/// Weights of a checkpoint for another number of classes than was asked for, as of any other file.
#[test]
fn a_checkpoint_for_another_number_of_classes() {
    let folder = tempfile::tempdir().unwrap();
    let net = folder.path().join("net.json");
    let of = |classes: usize| {
        format!(
            r#"{{"name": "net", "inputs": [{{"shape": [4]}}], "nodes": [
            {{"name": "fc", "op": "linear", "out_features": {classes}, "inputs": ["input"]}}]}}"#
        )
    };
    fs::write(&net, of(10)).unwrap();
    for prefix in ["", "module.", "backbone."] {
        let path = folder.path().join("net.pth");
        let (weight, bias) = (format!("{prefix}fc.weight"), format!("{prefix}fc.bias"));
        fs::write(&path, checkpoint(&[(&weight, &[3, 4]), (&bias, &[3])])).unwrap();
        let named = ["inspect", text(&path), "--arch", text(&net)];
        let output = polyad(&named).arg("--json").assert().success().get_output().clone();
        let note = String::from_utf8(output.stderr).unwrap();
        assert!(note.contains("weights for 3 classes"), "{note}");
        json(&[&named[..], &["--classes", "3"]].concat());
        for classes in ["2", "5", "10"] {
            let asked = format!("--classes asks for {classes}");
            let args = [&named[..], &["--classes", classes]].concat();
            refused(&args, 1, &["net.pth", "3 classes", &asked]);
        }
    }
}

/// Zeros by name and shape as PyTorch wrote them before 1.6: pickles one after the other, then the storages.
fn checkpoint(arrays: &[(&str, &[usize])]) -> Vec<u8> {
    let text =
        |text: &str| [&b"X"[..], &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
    let whole = |number: usize| [&b"J"[..], &(number as u32).to_le_bytes()].concat();
    let tuple = |numbers: &[usize]| {
        let numbers: Vec<u8> = numbers.iter().flat_map(|number| whole(*number)).collect();
        [&b"("[..], &numbers, b"t"].concat()
    };
    let mut bytes =
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.".to_vec();
    bytes.extend(b"\x80\x02ccollections\nOrderedDict\n)R(");
    let (mut keys, mut storages) = (Vec::new(), Vec::new());
    for (key, (name, shape)) in arrays.iter().enumerate() {
        let (key, count) = (key.to_string(), shape.iter().product::<usize>());
        let strides: Vec<usize> =
            (1..=shape.len()).map(|axis| shape[axis..].iter().product()).collect();
        bytes.extend([text(name), b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec()].concat());
        bytes.extend([text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text(&key)].concat());
        bytes.extend([text("cpu"), whole(count), b"NtQ".to_vec(), whole(0)].concat());
        bytes.extend([tuple(shape), tuple(&strides)].concat());
        bytes.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        keys.extend(text(&key));
        storages.extend((count as u64).to_le_bytes());
        storages.extend(vec![0; 4 * count]);
    }
    bytes.extend(b"u.\x80\x02](");
    [bytes, keys, b"e.".to_vec(), storages].concat()
}

// Sizes that memory cannot hold

#[test]
fn sizes_are_known_before_anything_is_allocated() {
    let folder = tempfile::tempdir().unwrap();
    let path = written(folder.path(), "net", RGB, HEAD);
    let bench = |option: &[&str], code: i32, words: &[&str]| {
        refused(&[&["bench", text(&path), text(&path)], option].concat(), code, words);
    };
    for batch in ["1000000000000", "18446744073709551615"] {
        bench(&["--batch", batch], 1, &["--batch", batch, "3×8×8", "free"]);
    }
    bench(&["--batch", "1000000", "--input", "3x30000x40000"], 1, &["--input", "3×30000×40000"]);
    bench(&["--input", "3x99999999999x99999999999"], 1, &["net.safetensors", "99999999999"]);
    bench(&["--repeats", "18446744073709551615"], 2, &["--repeats", "at most"]);
    for option in ["--points", "--passes"] {
        let rest = ["--dataset", "characters", "--macs-ratio", "0.5", "--out", "o.safetensors"];
        let args = [&["compress", text(&path), option, "1000000000"][..], &rest].concat();
        refused(&args, 2, &[option, "at most 10000"]);
    }
    let large = ["--batch", "1000000", "--input", "3x37000x35000"];
    for engine in ["torch", "infer"] {
        for option in [&["--batch", "4,1000000000000"][..], &large] {
            bench(&[option, &["--engine", engine]].concat(), 1, &["--batch", "free"]);
        }
    }
    bench(&["--input", "3x4294967296x4294967296"], 1, &["net.safetensors", "4294967296"]);
    let out = folder.path().join("o.safetensors");
    let timed = ["compress", text(&path), "--latency-ratio", "0.5", "--out", text(&out)];
    let batches = ["--timing-batch", "1,18446744073709551615"];
    refused(&[&timed[..], &batches].concat(), 1, &["--timing-batch", "free"]);
    for classes in ["1000000000000", "18446744073709551615"] {
        let inspect = ["inspect", "--arch", "resnet20", "--classes", classes];
        refused(&inspect, 1, &["--classes", classes, "too large"]);
    }
    // Ranks of single layers, before the first decomposition.
    let plan = folder.path().join("plan.toml");
    for (rank, words) in [
        ("999999999999", &["999999999999", "'fc'"][..]),
        ("-1", &["line 4", "a whole number of at least 1"]),
        ("1.5", &["line 4", "a whole number of at least 1"]),
        ("[2]", &["line 4", "tucker2"]),
    ] {
        let entry = format!("[[layer]]\nname = \"fc\"\nform = \"low-rank\"\nrank = {rank}\n");
        fs::write(&plan, entry).unwrap();
        let args = ["compress", text(&path), "--ranks", text(&plan), "--out", text(&out)];
        refused(&args, 1, &[&["plan.toml"], words].concat());
    }
    // A batch larger than the set is the whole set.
    let dataset = pictures(folder.path());
    let eval = ["eval", text(&path), "--dataset", &dataset, "--batch", "18446744073709551615"];
    assert_eq!(json(&eval)["examples"], 24);

    let array = folder.path().join("x.npy");
    write_npy(&array, &Array2::<f32>::eye(4)).unwrap();
    for rank in ["1000000000000", "18446744073709551615"] {
        refused(&["decompose", text(&array), "--rank", rank], 1, &["--rank", rank, "free"]);
    }
    let many = ["decompose", text(&array), "--rank", "1", "--restarts", "1000000000000"];
    refused(&many, 2, &["--restarts", "at most"]);
    let cube = folder.path().join("cube.npy");
    write_npy(&cube, &Array3::<f32>::ones((3, 3, 3))).unwrap();
    for method in ["als-qr", "nls", "epc", "nonneg", "sampled-als"] {
        let args = ["decompose", text(&cube), "--method", method, "--rank", "1000000000000"];
        refused(&args, 1, &["--rank", "free"]);
    }
    let tucker = ["decompose", text(&cube), "--method", "hooi", "--ranks", "1000000000000,2,2"];
    refused(&tucker, 1, &["cube.npy", "1000000000000", "at most 3"]);
    let long = ["--max-iters", "18446744073709551615", "--restarts", "2"];
    json(&[&["decompose", text(&array), "--rank", "1", "--tol", "0.1"], &long[..]].concat());
}

/// Names of layers are looked up before anything is computed, and where they are all kept, nothing is.
#[test]
fn layers_to_keep_are_known_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    let net = written(folder.path(), "net", RGB, HEAD);
    let (onnx, work) = (folder.path().join("net.onnx"), folder.path().join("work"));
    polyad(&["convert", text(&net), text(&onnx)]).assert().success();
    let dataset = pictures(folder.path());
    let data = ["--dataset", &dataset, "--epochs", "1", "--work", text(&work)];
    for (path, out) in [(&net, "out.safetensors"), (&onnx, "out.onnx")] {
        let out = folder.path().join(out);
        let compress = ["compress", text(path), "--out", text(&out)];
        for keep in ["fd", "fc,", "fc,nope", " fc", "FC", "pool", "*"] {
            let args = [&compress[..], &["--params-ratio", "0.5", "--keep", keep]].concat();
            refused(&args, 1, &["--keep", "there are: fc"]);
        }
        for rule in [
            &["--energy", "0.5"][..],
            &["--evbmf"],
            &["--error-target", "0.5"],
            &["--params-ratio", "0.5", "--plan-by", "max-error"],
        ] {
            let args = [&compress[..], rule, &["--keep", "nope"]].concat();
            refused(&args, 1, &["--keep", "'nope'", "there are: fc"]);
        }
        assert!(!out.exists());
    }
    let out = folder.path().join("out.safetensors");
    let args = ["compress", text(&net), "--params-ratio", "0.5", "--keep", "nope"];
    refused(&[&args[..], &data, &["--out", text(&out)]].concat(), 1, &["--keep", "'nope'"]);
    assert!(!work.join("stages").exists());
}

/// What is read is not written over, by whatever option either is given.
#[test]
fn files_that_are_read_are_not_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let net = model(folder.path(), "small-cnn");
    let (recipe, out) = (folder.path().join("recipe.toml"), folder.path().join("out.safetensors"));
    let compress = |rest: &[&str]| -> Vec<String> {
        let args = [&["compress", text(&net), "--out", text(&out)][..], rest].concat();
        args.into_iter().map(String::from).collect()
    };
    let plain =
        compress(&["--params-ratio", "0.5", "--save-recipe", text(&recipe), "--points", "2"]);
    polyad(&plain.iter().map(String::as_str).collect::<Vec<_>>()).assert().success();
    let before = fs::read(&recipe).unwrap();
    for rest in [
        ["--recipe", text(&recipe), "--save-plan", text(&recipe)],
        ["--recipe", text(&recipe), "--save-recipe", text(&recipe)],
    ] {
        let args = compress(&rest);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        fails(&args, 1, &["recipe.toml", "--recipe", "overwrite"]);
        assert_eq!(fs::read(&recipe).unwrap(), before);
    }
    let array = folder.path().join("x.npy");
    write_npy(&array, &Array2::<f32>::eye(4)).unwrap();
    let start = folder.path().join("start.npz");
    let first = ["decompose", text(&array), "--rank", "2", "--out", text(&start)];
    polyad(&first).assert().success();
    let before = fs::read(&start).unwrap();
    fails(&[&first[..], &["--init-factors", text(&start)]].concat(), 1, &["--init-factors"]);
    assert_eq!(fs::read(&start).unwrap(), before);
}

/// Where every part is held, there is nothing to train.
#[test]
fn something_has_to_be_trained() {
    let folder = tempfile::tempdir().unwrap();
    let net = written(folder.path(), "net", RGB, FLAT);
    let dataset = pictures(folder.path());
    let out = folder.path().join("out.safetensors");
    let args = ["compress", text(&net), "--dataset", &dataset, "--params-ratio", "0.5"];
    let rest = ["--epochs", "1", "--freeze", "reduce,expand", "--out", text(&out)];
    let error = fails(&[&args[..], &rest].concat(), 2, &["--freeze"]);
    assert!(!error.contains("requires grad"), "{error}");
}

// Interrupted commands

#[cfg(unix)]
#[test]
fn an_interrupted_command_leaves_no_file() {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("x.npy");
    let array = ArrayD::from_shape_fn(IxDyn(&[40, 40, 40]), |i| {
        ((i[0] * 7 + i[1] * i[2] * 13 + i[0] * i[2]) % 17) as f64
    });
    write_npy(&input, &array).unwrap();
    let endless = ["--rank", "30", "--max-iters", "100000000", "--tol", "0"];
    let kill = |signal: &str, child: u32| {
        Command::new("kill").args([&format!("-{signal}"), &child.to_string()]).status().unwrap()
    };
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let place = folder.path().join(signal);
        fs::create_dir(&place).unwrap();
        let out = place.join("f.npz");
        fs::write(&out, "old").unwrap();
        let mut child = heeding()
            .args(["decompose", text(&input), "--threads", "1", "--out", text(&out)])
            .args(endless)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Until the unfinished file is there.
        while files(&place).len() < 2 {
            assert!(child.try_wait().unwrap().is_none(), "it was to run until it is interrupted");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(kill(signal, child.id()).success());
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(code), None), "{signal}");
        assert_eq!(files(&place), ["f.npz"], "{signal}");
        assert_eq!(fs::read_to_string(&out).unwrap(), "old");
    }
}

// Networks that end in softmax

#[test]
fn the_loss_of_a_network_that_ends_in_softmax() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = pictures(folder.path());
    let weights = ArrayD::from_shape_fn(IxDyn(&[3, 3]), |i| if i[0] == i[1] { 9.0 } else { 0.0 });
    let loss = |name: &str, behind: &str| {
        let nodes = format!("{HEAD}{behind}");
        let path = written(folder.path(), name, RGB, &nodes);
        let mut net = Network::load(&path).unwrap();
        net.set_param("fc.weight", weights.clone()).unwrap();
        net.save(&path).unwrap();
        number(&json(&["eval", text(&path), "--dataset", &dataset]), "loss")
    };
    let plain = loss("logits", "");
    for (name, behind) in [
        ("soft", r#", {"name": "soft", "op": "softmax", "inputs": ["fc"]}"#),
        ("log", r#", {"name": "log", "op": "log_softmax", "inputs": ["fc"]}"#),
        (
            "same",
            r#", {"name": "s", "op": "softmax", "inputs": ["fc"]}, {"name": "i", "op": "identity", "inputs": ["s"]}"#,
        ),
    ] {
        let found = loss(name, behind);
        assert!((found - plain).abs() < 1e-6, "{name}: {found}, logits {plain}");
    }
}

// Negative numbers

#[test]
fn numbers_out_of_range_are_told_with_their_range() {
    let compress = |option: &str, value: &str, words: &[&str]| {
        let rest = [option, value, "--dataset", "characters", "--out", "o.safetensors"];
        let args = [&["compress", "net.safetensors", "--macs-ratio", "0.5"][..], &rest].concat();
        refused(&args, 2, &[&[option][..], words].concat());
    };
    for option in ["--statistics", "--calibrate", "--epochs"] {
        for value in ["-1", "1.5", "many", ""] {
            compress(option, value, &["a whole number of at least 0"]);
        }
    }
    for value in ["0", "-0.1", "inf", "nan", "fast"] {
        compress("--lr", value, &["a finite number above 0"]);
    }
    for option in ["--points", "--batch-size", "--patience", "--max-iters", "--timing-batch"] {
        compress(option, "0", &["must be at least 1"]);
    }
    refused(
        &["compress", "n.safetensors", "--ranks", "p.toml", "--keep", "conv1", "--out", "o"],
        2,
        &["--keep", "--ranks"],
    );
}

#[test]
fn a_negative_number_is_about_its_option() {
    let check = |args: &[&str]| {
        let error = fails(args, 2, &[]);
        let option = args.iter().rev().find(|arg| arg.starts_with("--")).unwrap();
        let said = error.split("Usage:").next().unwrap();
        assert!(said.contains(option) && !error.contains("-- -"), "{args:?}: {error}");
    };
    for (option, values) in [
        ("--batch", &["-1", "-1e3"][..]),
        ("--repeats", &["-1", "-0.5"]),
        ("--input", &["-3x8x8"]),
        ("--threads", &["-2"]),
        ("--seed", &["-1"]),
    ] {
        values.iter().for_each(|value| check(&["bench", "a", "b", option, value]));
    }
    for (option, values) in [
        ("--rank", &["-3", "-inf"][..]),
        ("--ranks", &["-3,2"]),
        ("--tol", &["-0.5", "-1e-9", "-inf", "-nan"]),
        ("--max-iters", &["-1"]),
        ("--ridge", &["-1"]),
        ("--delta", &["-.5"]),
        ("--penalty", &["-1"]),
        ("--samples", &["-7"]),
        ("--restarts", &["-1"]),
    ] {
        values.iter().for_each(|value| check(&["decompose", "x.npy", option, value]));
    }
    for option in
        ["--macs-ratio", "--params-ratio", "--error-target", "--energy", "--latency-ratio"]
    {
        check(&["compress", "a", "--out", "b", option, "-0.5"]);
    }
    for option in
        ["--points", "--multiple", "--timing-batch", "--max-iters", "--tol", "--batch-size"]
    {
        let data = ["compress", "a", "--out", "b", "--macs-ratio", "0.5", "--dataset", "d"];
        check(&[&data[..], &[option, "-1"]].concat());
    }
    check(&["inspect", "--arch", "resnet18", "--classes", "-1"]);
    check(&["eval", "a", "--dataset", "d", "--batch", "-1"]);
    // An option in the place of a value stays an option.
    let error =
        fails(&["compress", "missing.safetensors", "--evbmf", "--out", "b.safetensors"], 1, &[]);
    assert!(error.contains("missing.safetensors"), "{error}");
}
