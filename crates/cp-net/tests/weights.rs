//! Model files: what is written is read again, and what cannot be read says so.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use common::factors;
use cp_net::{Architecture, FileKind, Form, METADATA_KEY, NetError, Network, arch, read_text};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn small() -> Network {
    arch::by_name("small-cnn").unwrap().initialize(1).unwrap()
}

#[test]
fn save_and_load_keep_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut net = small();
    for (layer, form, rank) in [("conv2", Form::Cp4, 5), ("fc1", Form::LowRank, 7)] {
        let factors = factors(&net, layer, form, rank, 3);
        net.put_factors(layer, &factors, 0.25).unwrap();
    }
    net.set_classes((0..10).map(|class| format!("class {class}")).collect()).unwrap();
    let paths = [folder.path().join("a.safetensors"), folder.path().join("b.safetensors")];
    for path in &paths {
        net.save(path).unwrap();
    }
    assert_eq!(Network::load(&paths[0]).unwrap(), net);
    assert_eq!(Architecture::read(&paths[0]).unwrap().as_ref(), Some(net.architecture()));
    assert_eq!(
        fs::read(&paths[0]).unwrap(),
        fs::read(&paths[1]).unwrap(),
        "equal networks give equal files"
    );
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    // Saving over a file replaces it.
    small().save(&paths[0]).unwrap();
    assert_eq!(Network::load(&paths[0]).unwrap(), small());
}

/// Writes the arrays of `net` as a foreign file would hold them.
fn foreign(path: &Path, net: &Network, rename: impl Fn(&str) -> String, dtype: Dtype) {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = net
        .params()
        .iter()
        .map(|(name, array)| {
            let bytes = array.iter().flat_map(|value| match dtype {
                Dtype::F64 => f64::from(*value).to_le_bytes().to_vec(),
                Dtype::F16 => half::f16::from_f32(*value).to_le_bytes().to_vec(),
                Dtype::BF16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
                _ => value.to_le_bytes().to_vec(),
            });
            (rename(name), array.shape().to_vec(), bytes.collect())
        })
        .collect();
    let counter = 5_i64.to_le_bytes();
    let mut tensors: HashMap<String, TensorView<'_>> = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            (name.clone(), TensorView::new(dtype, shape.clone(), bytes).unwrap())
        })
        .collect();
    let counter = TensorView::new(Dtype::I64, vec![], &counter).unwrap();
    tensors.insert(rename("bn1.num_batches_tracked"), counter);
    fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
}

#[test]
fn foreign_weights_of_any_float_type() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("foreign.safetensors");
    let net = small();
    for (dtype, tolerance) in
        [(Dtype::F32, 0.0), (Dtype::F64, 0.0), (Dtype::F16, 1e-3), (Dtype::BF16, 1e-2)]
    {
        foreign(&path, &net, |name| format!("module.{name}"), dtype);
        let loaded = Network::load_as(&path, arch::by_name("small-cnn").unwrap()).unwrap();
        assert_eq!(loaded.notes, ["'module.' was dropped from 8 names of arrays"]);
        let loaded = loaded.network;
        for (name, array) in net.params() {
            let worst =
                (&loaded.params()[name] - array).iter().fold(0.0_f32, |a, b| a.max(b.abs()));
            assert!(worst <= tolerance, "{name} as {dtype:?}: {worst}");
        }
    }
    foreign(&path, &net, str::to_string, Dtype::I32);
    let error =
        Network::load_as(&path, arch::by_name("small-cnn").unwrap()).unwrap_err().to_string();
    assert!(error.contains("is of type I32; F32, F64, F16 and BF16 can be read"), "{error}");
    let error = Network::load(&path).unwrap_err();
    assert!(matches!(error, NetError::NoArchitecture { .. }), "{error}");
    assert!(error.to_string().contains("resnet20"), "{error}");
}

#[test]
fn weights_that_do_not_fit_are_listed_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    let mut other = small();
    other.replace_head(7, 3).unwrap();
    foreign(&path, &other, |name| name.replace("conv1.", "stem."), Dtype::F32);
    let error =
        Network::load_as(&path, arch::by_name("small-cnn").unwrap()).unwrap_err().to_string();
    let expected = "the weights do not fit architecture 'small-cnn':\n  \
        missing (2): conv1.weight, conv1.bias\n  \
        unexpected (2): stem.bias, stem.weight\n  \
        mis-shaped (2): fc2.weight is [7, 128], expected [10, 128]; fc2.bias is [7], expected [10]\n";
    let expected = expected.replace("; fc2.bias", ", fc2.bias");
    assert!(error.starts_with(&format!("{}: {expected}", path.display())), "{error}");
    assert!(error.contains("`--arch net.json`"), "{error}");
    // Many names: a few are shown.
    let error = Network::load_as(&path, arch::by_name("resnet20").unwrap()).unwrap_err();
    assert!(error.to_string().len() < 900 && error.to_string().contains(" more)"), "{error}");
}

/// Only the last layer has another size: its number of classes is read off the weights, and said.
#[test]
fn a_head_is_read_off_the_weights() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    for (name, classes) in [("small-cnn", 7), ("charnet", 5), ("resnet20", 1), ("resnet20", 300)] {
        let mut other = arch::by_name(name).unwrap().initialize(1).unwrap();
        other.replace_head(classes, 3).unwrap();
        foreign(&path, &other, str::to_string, Dtype::F32);
        let loaded = Network::load_as(&path, arch::by_name(name).unwrap()).unwrap();
        assert_eq!(loaded.network.params(), other.params());
        assert!(loaded.notes[0].contains(&format!("weights for {classes} classes")), "{name}");
    }
}

/// A head that is itself at odds, or one of nothing, is none to be read off.
#[test]
fn heads_that_make_no_sense() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    let net = small();
    for sizes in [[7, 9], [0, 0], [10, 7]] {
        let tensors: Vec<(&String, Vec<usize>, Vec<u8>)> = net
            .params()
            .iter()
            .map(|(name, array)| {
                let mut shape = array.shape().to_vec();
                match name.as_str() {
                    "fc2.weight" => shape[0] = sizes[0],
                    "fc2.bias" => shape[0] = sizes[1],
                    _ => {}
                }
                let bytes = vec![0; 4 * shape.iter().product::<usize>()];
                (name, shape, bytes)
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        let error = Network::load_as(&path, arch::by_name("small-cnn").unwrap()).unwrap_err();
        let told = error.to_string();
        assert!(told.contains("mis-shaped") && told.contains("fc2.bias"), "{sizes:?}: {told}");
    }
}

/// Weights that are no numbers are refused, whoever wrote the file.
#[test]
fn values_that_are_no_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let fails = |name: &str, value: f32, expected: &str| {
        let mut net = arch::by_name("resnet20").unwrap().initialize(1).unwrap();
        let mut array = net.params()[name].clone();
        array.iter_mut().take(2).for_each(|slot| *slot = value);
        net.set_param(name, array).unwrap();
        net.save(&path).unwrap();
        let own = Network::load(&path).unwrap_err().to_string();
        let others = [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::BF16].map(|dtype| {
            foreign(&path, &net, str::to_string, dtype);
            let loaded = Network::load_as(&path, arch::by_name("resnet20").unwrap());
            loaded.unwrap_err().to_string()
        });
        for error in others.into_iter().chain([own]) {
            assert!(
                error.contains(&format!("array '{name}' holds 2 values that are {expected}")),
                "{error}"
            );
        }
    };
    fails("conv1.weight", f32::NAN, "NaN or infinite");
    fails("linear.bias", f32::INFINITY, "NaN or infinite");
    fails("bn1.running_var", -1.0, "negative variances");
}

/// A ResNet-20 that was trained and one that was factorized, written by the version before format 2.
#[test]
fn files_of_format_1_are_read() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/resnet20-cp4-format1.safetensors");
    let net = Network::load(&path).unwrap();
    let arch = net.architecture();
    assert_eq!(arch.outputs, ["linear"]);
    assert_eq!(arch.node("layer2.0.shortcut").unwrap().op.kind(), "pad");
    let record = arch.factorization("layer1.0.conv1").unwrap();
    assert_eq!((record.form, record.weight.as_str()), (Form::Cp4, "layer1.0.conv1.weight"));
    // Counted by the version that wrote it.
    let cost = net.cost([3, 32, 32]).unwrap().total;
    assert_eq!((cost.params, cost.macs), (33_578, 4_862_144));
    // Taken apart, it is the architecture of today; written again, it is of format 2.
    let mut dense = net.clone();
    for layer in arch.factorized.keys() {
        dense.densify(layer).unwrap();
    }
    let today = arch::by_name("resnet20").unwrap();
    let shapes = |arch: &Architecture| {
        arch.params().map(|(name, spec)| (name, spec.shape)).collect::<Vec<_>>()
    };
    assert_eq!(shapes(dense.architecture()), shapes(&today));
    let folder = tempfile::tempdir().unwrap();
    let again = folder.path().join("again.safetensors");
    net.save(&again).unwrap();
    assert_eq!(Network::load(&again).unwrap(), net);
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    small().save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in [5, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = Network::load(&path).unwrap_err();
        assert!(matches!(error, NetError::BadFile { .. }), "{length}: {error}");
        assert!(error.to_string().starts_with(path.to_str().unwrap()), "{error}");
    }
    fs::write(&path, "").unwrap();
    let error = Network::load(&path).unwrap_err();
    assert!(matches!(error, NetError::ForeignFile { kind: FileKind::Empty, .. }), "{error}");
    let missing = folder.path().join("missing.safetensors");
    let error = Network::load(&missing).unwrap_err().to_string();
    assert!(error.starts_with(missing.to_str().unwrap()), "{error}");
}

/// What is no model, no architecture and no text is named for what it is.
#[test]
fn files_of_another_kind_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("given");
    let named = |bytes: &[u8], words: [&str; 3]| {
        fs::write(&path, bytes).unwrap();
        let errors = [
            Network::load(&path).unwrap_err(),
            Network::load_as(&path, arch::by_name("small-cnn").unwrap()).unwrap_err(),
            Architecture::load(&path).unwrap_err(),
            read_text(&path, "a plan", "see --help").unwrap_err(),
        ];
        for error in errors.map(|error| error.to_string()) {
            assert!(error.starts_with(path.to_str().unwrap()), "{error}");
            assert!(error.contains(words[0]) && !error.contains('\u{1b}'), "{error}");
        }
        let [model, arch] = [
            Network::load(&path).unwrap_err().to_string(),
            Architecture::load(&path).unwrap_err().to_string(),
        ];
        assert!(model.contains(words[1]), "{model}");
        assert!(arch.contains(words[2]), "{arch}");
    };
    let arch = "net.json";
    named(b"PK\x03\x04\x1b[31m m/data.pkl", ["PyTorch checkpoint", "as a model", arch]);
    named(b"\x80\x02}q\0.", ["pickle", "as a model", arch]);
    named(b"\x08\x07\x12\x07pytorch\x42\x02\x10\x11", ["ONNX", "as a model", arch]);
    named(b"<html>\x1b]0;title\x07</html>", ["web page", "download", "download"]);
    named(b"\x1f\x8b\x08\0\0\0\0\0\0\x03", ["gzip", "unpack", arch]);
    named(br#"{"weight_map": {"a": "b"}}"#, ["shards", "join", arch]);
    let [error, text] = [
        Network::load(folder.path()).unwrap_err(),
        read_text(folder.path(), "a plan", "").unwrap_err(),
    ];
    assert!(error.to_string().contains("a folder") && text.to_string().contains("a folder"));
    #[cfg(unix)]
    {
        let endless = Network::load("/dev/zero").unwrap_err().to_string();
        assert!(endless.contains("no ordinary file"), "{endless}");
    }
    fs::write(&path, "[[layer]]\n").unwrap();
    assert_eq!(read_text(&path, "a plan", "").unwrap(), "[[layer]]\n");
}

/// f64 becomes f32 where that keeps the numbers.
#[test]
fn numbers_that_f32_does_not_have_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.safetensors");
    let net = small();
    let (layer, array) = net.params().iter().find(|(name, _)| name.ends_with(".weight")).unwrap();
    let load = |change: &dyn Fn(usize, f64) -> f64| {
        let bytes: BTreeMap<&String, Vec<u8>> = net
            .params()
            .iter()
            .map(|(name, array)| {
                let values = array.iter().enumerate().map(|(at, value)| {
                    let value = f64::from(*value);
                    if name == layer { change(at, value) } else { value }
                });
                (name, values.flat_map(f64::to_le_bytes).collect())
            })
            .collect();
        let views = net.params().iter().map(|(name, array)| {
            (name, TensorView::new(Dtype::F64, array.shape().to_vec(), &bytes[name]).unwrap())
        });
        fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        Network::load_as(&path, net.architecture().clone())
    };
    assert_eq!(load(&|_, value| value).unwrap().network, net);
    let fails = |change: &dyn Fn(usize, f64) -> f64, count: usize, size: &str| {
        let error = load(change).unwrap_err().to_string();
        let expected = format!("'{layer}' holds {count} values that are too {size} for f32");
        assert!(error.contains(&expected) && error.starts_with(path.to_str().unwrap()), "{error}");
    };
    fails(&|at, value| if at < 2 { -1e39 } else { value }, 2, "large");
    fails(&|_, _| 1e-60, array.len(), "small");
    // Denormal: nothing that a network could run on.
    fails(&|_, _| 1e-41, array.len(), "small");
    load(&|at, value| if at == 0 { 1e-60 } else { value }).unwrap();
    load(&|_, _| 0.0).unwrap();
}

/// What an input is prepared with has to be numbers of f32, in which networks run.
#[test]
fn settings_of_inputs_that_f32_does_not_have() {
    let of = |setting: &str| {
        Architecture::from_json(&format!(
            r#"{{"name": "n", "inputs": [{{"shape": [1, 4, 4], "channels": "gray", {setting}}}], "nodes": [
            {{"name": "flat", "op": "flatten", "inputs": ["input"]}}]}}"#
        ))
    };
    of(r#""scale": 0.5, "mean": [1e30], "std": [1e-30]"#).unwrap();
    for setting in [
        r#""scale": 1e39"#,
        r#""mean": [-1e39]"#,
        r#""std": [1e-60]"#,
        r#""std": [1e-42]"#,
        r#""std": [1e39]"#,
    ] {
        let error = of(setting).unwrap_err().to_string();
        let name = setting.split('"').nth(1).unwrap();
        assert!(error.contains(name) && error.contains("numbers"), "{setting}: {error}");
    }
}

/// Replaces the JSON in the metadata of an otherwise good file.
fn with_metadata(path: &Path, json: &str) {
    let metadata = HashMap::from([(METADATA_KEY.to_string(), json.to_string())]);
    let tensors: Vec<(String, TensorView<'_>)> = Vec::new();
    fs::write(path, safetensors::serialize(tensors, Some(metadata)).unwrap()).unwrap();
}

#[test]
fn architectures_that_cannot_be_understood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let fails = |json: &str, expected: &str| {
        with_metadata(&path, json);
        let error = Network::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && error.starts_with(path.to_str().unwrap()), "{error}");
    };
    fails("{", "its architecture cannot be read");
    fails(
        r#"{"format": 3, "architecture": "later"}"#,
        "written in format 3, this version reads up to 2; update polyad",
    );
    let arch = serde_json::to_string(&arch::by_name("small-cnn").unwrap()).unwrap();
    fails(&format!(r#"{{"format": 2, "architecture": {arch}}}"#), "missing (8)");
    let unknown = arch.replacen("\"relu\"", "\"gulu\"", 1);
    fails(&format!(r#"{{"format": 2, "architecture": {unknown}}}"#), "unknown variant `gulu`");
    let loose = arch.replacen("\"inputs\":[\"relu1\"]", "\"inputs\":[\"relu7\"]", 1);
    fails(
        &format!(r#"{{"format": 2, "architecture": {loose}}}"#),
        "which is not defined before it",
    );
}

/// Nothing half-written, and the file that was there stays.
#[test]
fn a_place_that_cannot_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    let error = small().save(file.join("model.safetensors")).unwrap_err().to_string();
    assert!(error.starts_with(file.to_str().unwrap()), "{error}");

    let locked = folder.path().join("locked");
    fs::create_dir(&locked).unwrap();
    let path = locked.join("model.safetensors");
    small().save(&path).unwrap();
    let mut permissions = fs::metadata(&locked).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&locked, permissions).unwrap();
    if fs::write(locked.join("probe"), "").is_ok() {
        println!("skipped: this user may write to read-only folders");
        return;
    }
    let error = small().save(&path).unwrap_err();
    assert!(matches!(&error, NetError::Io { .. }), "{error}");
    assert_eq!(Network::load(&path).unwrap(), small());
}

/// The published weights load by name, where the data is.
#[test]
fn pretrained_files_load() {
    let Some(data) = std::env::var_os("POLYAD_DATA") else {
        println!("skipped: POLYAD_DATA not set");
        return;
    };
    let load = |file: &str, name: &str| {
        let path = Path::new(&data).join("pretrained").join(file);
        let net = Network::load_as(&path, arch::by_name(name).unwrap()).unwrap().network;
        assert!(
            net.params().values().all(|array| array.iter().all(|value| value.is_finite())),
            "{file}"
        );
        assert!(
            net.params().values().any(|array| array.iter().any(|value| *value != 0.0)),
            "{file}"
        );
    };
    load("bvlc_googlenet-imagenet-caffe.safetensors", "googlenet");
    load("squeezenet1_1-imagenet-caffe.safetensors", "squeezenet1_1");
    load("resnet20-cifar10.safetensors", "resnet20");
    load("resnet56-cifar10.safetensors", "resnet56");
    load("small-cnn-fashion-mnist.safetensors", "small-cnn");
}
