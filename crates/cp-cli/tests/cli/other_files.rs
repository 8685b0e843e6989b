//! Files in the place of others: of another kind, in another encoding, damaged, without an end.

use std::fs;

use ndarray::Array2;
use ndarray_npy::write_npy;

use crate::support::{HEAD, RGB, fails, json, model, polyad, refused, text, written};

#[test]
fn files_of_another_kind_are_named_wherever_they_are_given() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let given = folder.path().join("given\u{1b}[31m.bin");
    let out = folder.path().join("out");
    let kinds: [(&[u8], &str); 9] = [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (b"PK\x03\x04\x1b[2J model/data.pkl", "PyTorch"),
        (b"\x80\x02}q\0X\x0a\0\0\0state_dict", "pickle"),
        (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\x90\x01\x0a", "ONNX"),
        (b"<!DOCTYPE html><title>\x1b]0;x\x07</title>", "web page"),
        (b"{\"error\": \"Repository not found\"}", "error"),
        (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "gzip"),
        (b"\xfd7zXZ\0\0\x04", "xz"),
        (b"", "empty"),
    ];
    for (bytes, kind) in kinds {
        fs::write(&given, bytes).unwrap();
        let path = text(&given);
        let named = "given\\u{1b}[31m.bin";
        refused(&["inspect", path, "--arch", "small-cnn"], 1, &[named, kind]);
        refused(&["eval", path, "--dataset", "characters", "--split", "validation"], 1, &[kind]);
        refused(&["bench", text(&dense), path], 1, &[kind]);
        // The name says what was wanted, not what it is.
        let named_onnx = folder.path().join("given.onnx");
        fs::write(&named_onnx, bytes).unwrap();
        let path_onnx = text(&named_onnx);
        refused(&["inspect", path_onnx], 1, &["given.onnx", kind]);
        refused(&["bench", path_onnx, path_onnx], 1, &["given.onnx", kind]);
        let compress = ["compress", path_onnx, "--params-ratio", "0.5", "--out", text(&out)];
        refused(&compress, 1, &["given.onnx", kind]);
        refused(&["decompose", path, "--rank", "2"], 1, &[kind, ".npy"]);
        let array = folder.path().join("x.npy");
        write_npy(&array, &Array2::<f32>::eye(4)).unwrap();
        let start = ["decompose", text(&array), "--rank", "2", "--init-factors", path];
        refused(&start, 1, &[kind, ".npz"]);
        let net = folder.path().join("net.json");
        fs::write(&net, bytes).unwrap();
        refused(&["inspect", "--arch", text(&net)], 1, &["net.json", kind]);
        if !bytes.is_empty() {
            let plan = ["compress", text(&dense), "--ranks", path, "--out", text(&out)];
            refused(&plan, 1, &[kind, "plan"]);
        }
        let recipe = ["compress", text(&dense), "--params-ratio", "0.5", "--recipe", path];
        refused(&[&recipe[..], &["--out", text(&out)]].concat(), 1, &[kind, "recipe"]);
    }
    // Files of ours in each other's place.
    let array = folder.path().join("x.npy");
    refused(&["inspect", text(&array)], 1, &["x.npy", "NumPy", "decompose"]);
    refused(&["decompose", text(&dense), "--rank", "2"], 1, &["safetensors", "compress"]);
    refused(&["inspect", text(folder.path())], 1, &["a folder"]);
    refused(&["decompose", text(folder.path()), "--rank", "2"], 1, &["a folder"]);
    let plan = folder.path().join("plan.toml");
    fs::write(&plan, "[[layer]]\nname = \"conv1\"\n").unwrap();
    refused(&["inspect", text(&plan)], 1, &["a plan of ranks", "--ranks"]);
}

/// Text in another encoding is text all the same: it is said what to do about it.
#[test]
fn texts_in_other_encodings() {
    let folder = tempfile::tempdir().unwrap();
    let dense = model(folder.path(), "small-cnn");
    let (given, picture) = (folder.path().join("given.toml"), folder.path().join("x.png"));
    image::GrayImage::new(28, 28).save(&picture).unwrap();
    let out = folder.path().join("out.safetensors");
    let utf16 = |text: &str| -> Vec<u8> {
        [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    for bytes in [&b"name = \"caf\xe9\"\n"[..], &utf16("[[layer]]\nname = \"conv1\"\n")] {
        fs::write(&given, bytes).unwrap();
        let path = text(&given);
        let compress = ["compress", text(&dense), "--out", text(&out)];
        let words = ["given.toml", "a text file", "UTF-8"];
        for option in [
            &["--ranks", path][..],
            &["--fix", path, "--params-ratio", "0.5"],
            &["--recipe", path, "--params-ratio", "0.5"],
            &["--preprocess", path, "--params-ratio", "0.5"],
        ] {
            refused(&[&compress[..], option].concat(), 1, &words);
        }
        let run = ["run", text(&dense), text(&picture), "--names", path];
        refused(&run, 1, &[&words[..], &["--names"]].concat());
    }
    // A mark of the encoding in front is no part of the first name, and a name is no command to the terminal.
    let names: Vec<String> = (0..10).map(|class| format!("thing\u{1b}[3{class}m")).collect();
    fs::write(&given, format!("\u{feff}{}", names.join("\r\n"))).unwrap();
    let run = ["run", text(&dense), text(&picture), "--names", text(&given), "--top", "10"];
    let found = json(&run);
    for class in found["pictures"][0]["classes"].as_array().unwrap() {
        let number = class["class"].as_u64().unwrap() as usize;
        assert_eq!(class["name"], names[number]);
    }
    let shown = polyad(&run).assert().success().get_output().stdout.clone();
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("thing\\u{1b}[30m") && !shown.contains('\u{1b}'), "{shown:?}");
}

/// What a header says of itself is told in a line, whatever it holds.
#[test]
fn damaged_headers_of_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let check = |shape: &str, words: &[&str]| {
        let mut header =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}").into_bytes();
        header.resize((header.len() + 11).next_multiple_of(64) - 11, b' ');
        header.push(b'\n');
        let length = (header.len() as u16).to_le_bytes();
        fs::write(&path, [&b"\x93NUMPY\x01\0"[..], &length, &header, &[0; 64]].concat()).unwrap();
        let error = refused(&["decompose", text(&path), "--rank", "2"], 1, &["x.npy"]);
        words.iter().for_each(|word| assert!(error.contains(word), "'{word}' in {error}"));
        assert_eq!(error.lines().count(), 1, "{error}");
    };
    for shape in ["(1000000000000, 1000000000000, 3)", "(9223372036854775807, 9)"] {
        check(shape, &["more numbers than any file holds", "write it again"]);
    }
    for shape in ["(-4, 4)", "16", "'x'", "(2**4,)", "(4L, 4L)"] {
        check(shape, &["damaged"]);
    }
    check(&"(".repeat(30_000), &["damaged"]);
    check(&format!("'\u{1b}[2J{}'", "x".repeat(5000)), &["damaged"]);
    check("(5, 4)", &["truncated"]);
    check("(3, 4)", &["16 bytes behind"]);
}

/// A pipe that nobody writes into would be waited for without end, and a device may have none.
#[cfg(unix)]
#[test]
fn pipes_and_devices_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let net = model(folder.path(), "small-cnn");
    let pipe = folder.path().join("pipe.onnx");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let pictures = folder.path().join("pictures");
    fs::create_dir(&pictures).unwrap();
    let out = folder.path().join("out.onnx");
    for special in [text(&pipe), "/dev/zero", "/dev/null"] {
        refused(&["run", text(&net), special], 1, &[special, "pipe or a device"]);
        let archive = format!("tar:{special}");
        let eval = ["eval", text(&net), "--dataset", &archive, "--split", "test"];
        refused(&eval, 1, &[special, "pipe or a device"]);
        refused(&["inspect", special], 1, &[special]);
        let compress = ["compress", special, "--macs-ratio", "0.5", "--out", text(&out)];
        refused(&compress, 1, &[special]);
        let given = ["compress", text(&net), "--inputs", special, "--macs-ratio", "0.5"];
        fails(&[&given[..], &["--out", text(&out)]].concat(), 2, &["--inputs"]);
    }
    let picture = folder.path().join("x.png");
    image::GrayImage::new(28, 28).save(&picture).unwrap();
    let names = ["run", text(&net), text(&picture), "--names", "/dev/zero"];
    refused(&names, 1, &["--names", "/dev/zero"]);
    let recipe = ["compress", text(&net), "--recipe", "/dev/zero", "--params-ratio", "0.5"];
    refused(&[&recipe[..], &["--out", text(&out)]].concat(), 1, &["/dev/zero", "recipe"]);
    refused(&["decompose", "/dev/zero", "--rank", "2"], 1, &["/dev/zero"]);
    let init = ["--init-factors", "/dev/zero"];
    let array = folder.path().join("x.npy");
    write_npy(&array, &Array2::<f32>::eye(4)).unwrap();
    fails(&[&["decompose", text(&array), "--rank", "2"][..], &init].concat(), 1, &["/dev/zero"]);
}

#[test]
fn what_a_file_holds_cannot_move_the_cursor() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = HEAD.replace("\"fc\"", "\"f\\u001b[2Jc\\u202e\"");
    let path = written(folder.path(), "net", RGB, &nodes);
    let output = polyad(&["inspect", text(&path)]).assert().success().get_output().clone();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains("f\\u{1b}[2Jc\\u{202e}"), "{shown:?}");
    assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
}
