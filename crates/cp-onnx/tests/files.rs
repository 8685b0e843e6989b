//! Every model of `shared/datasets/onnx` beside the workspace, or of `POLYAD_ONNX`; without them the tests are skipped.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod import_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cp_net::{Factors, Form};
use cp_onnx::{Binding, Layer, LayerKind, Model, OnnxError, Parts};
use cp_ort::{ElementType, Optimize, Session, SessionOptions, Tensor};
use import_support::cases::models;
use import_support::folder;
use ndarray::{Array2, ArrayD, Axis, Slice};

#[test]
fn every_model_is_written_as_it_was_read() {
    let Some(folder) = folder() else { return };
    for path in models(&folder) {
        let bytes = fs::read(&path).unwrap();
        assert!(Model::open(&path).unwrap().encode() == bytes, "{}", path.display());
    }
}

#[test]
fn quantized_models_are_refused() {
    let Some(folder) = folder() else { return };
    for name in ["qdq", "qoperator", "qdynamic"] {
        let path = folder.join(format!("exported/resnet.{name}.onnx"));
        let error = Model::open(&path).unwrap().layers().unwrap_err();
        assert!(matches!(error, OnnxError::Quantized { .. }), "{error}");
        assert!(error.to_string().contains("compress the float model first"), "{error}");
    }
}

#[test]
fn truncated_models_are_errors() {
    let Some(folder) = folder() else { return };
    let bytes = fs::read(folder.join("edge/weight_is_input.onnx")).unwrap();
    let whole = Model::decode(bytes.clone()).unwrap().encode();
    assert_eq!(whole, bytes);
    for length in 0..bytes.len() {
        // Between two fields of the model a shorter message is a message, too.
        if let Ok(model) = Model::decode(bytes[..length].to_vec()) {
            assert_eq!(model.encode(), bytes[..length]);
        }
    }
    Model::decode(b"PK\x03\x04 no model".to_vec()).unwrap_err();
}

#[test]
fn external_data_that_is_missing_or_short_is_named() {
    let Some(folder) = folder() else { return };
    let alone = tempfile::tempdir().unwrap();
    let path = alone.path().join("m.onnx");
    fs::copy(folder.join("exported/resnet.external.onnx"), &path).unwrap();
    let refused = || {
        let error = Model::open(&path).unwrap_err();
        assert!(matches!(error, OnnxError::Tensor { .. }), "{error}");
        assert!(error.to_string().contains("resnet.external.onnx.data"), "{error}");
    };
    refused();
    fs::write(alone.path().join("resnet.external.onnx.data"), [0; 10]).unwrap();
    refused();
}

/// How many layers a model has: weights that are the kernel of `Conv`, `ConvTranspose`, `Gemm` or `MatMul`, each once however many
/// nodes share it; and how many of them can be rewritten.
fn check_counts(folder: &Path, name: &str, expected: [usize; 2]) {
    let model = Model::open(folder.join(format!("third-party/{name}.onnx"))).unwrap();
    let layers = model.layers().unwrap();
    let open = layers.iter().filter(|layer| layer.left_alone.is_none()).count();
    assert_eq!([layers.len(), open], expected, "{name}");
}

#[test]
fn layers_are_counted() {
    let Some(folder) = folder() else { return };
    check_counts(&folder, "yolox-nano", [113, 113]);
    check_counts(&folder, "ppocr-v4-det", [64, 62]);
    check_counts(&folder, "ppocr-v2-cls", [54, 54]);
    check_counts(&folder, "ultraface-rfb-320", [52, 52]);
    check_counts(&folder, "spindle-eeg", [29, 25]);
    check_counts(&folder, "speech-embedding", [20, 20]);
    check_counts(&folder, "silero-vad-16k-8k", [16, 16]);
    check_counts(&folder, "basic-pitch", [9, 9]);
}

#[test]
fn defaults_that_callers_may_override_are_noted() {
    let Some(folder) = folder() else { return };
    let noted = |path: &str| {
        let layers = Model::open(folder.join(path)).unwrap().layers().unwrap();
        assert!(layers.iter().all(|layer| layer.left_alone.is_none()), "{path}");
        (layers.iter().filter(|layer| layer.note.is_some()).count(), layers.len())
    };
    // IR 4, all initializers are inputs: compressible, and said.
    assert_eq!(noted("third-party/ultraface-rfb-320.onnx"), (52, 52));
    // IR 3 has to list them.
    assert_eq!(noted("edge/old_opset9.onnx").0, 0);
    assert_eq!(noted("third-party/yolox-nano.onnx").0, 0);
    assert!(noted("edge/weight_default_input.onnx").0 > 0);
}

/// A field of bytes, shorter than 128.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

/// A model with one initializer `w` of four numbers at `location`.
fn external(location: &str) -> Vec<u8> {
    let entry = [field(1, b"location"), field(2, location.as_bytes())].concat();
    let tensor = [vec![8, 4, 16, 1], field(8, b"w"), field(13, &entry), vec![112, 1]].concat();
    [vec![8, 8], field(7, &field(5, &tensor)), vec![66, 2, 16, 17]].concat()
}

#[test]
fn external_data_stays_below_the_folder() {
    let all = tempfile::tempdir().unwrap();
    let own = all.path().join("own");
    fs::create_dir_all(own.join("in")).unwrap();
    for path in ["secret", "own/w.bin", "own/in/w.bin"] {
        fs::write(all.path().join(path), [0; 16]).unwrap();
    }
    let open = |location: &str| {
        let path = own.join("m.onnx");
        fs::write(&path, external(location)).unwrap();
        Model::open(&path)
    };
    for location in ["w.bin", "in/w.bin", "./w.bin"] {
        open(location).unwrap();
    }
    let absolute = all.path().join("secret");
    let mut outside =
        vec!["../secret", "in/../../secret", "", "in\\w.bin", absolute.to_str().unwrap()];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&absolute, own.join("link")).unwrap();
        outside.push("link");
    }
    for location in outside {
        let error = open(location).unwrap_err().to_string();
        assert!(error.contains("not below the model's folder"), "{location}: {error}");
    }
}

/// The exact factors of a kernel: Tucker-2 with identities around the kernel, or the kernel and an identity.
fn exact(model: &Model, layer: &Layer) -> Parts {
    let kernel = model.kernel(layer).unwrap();
    let (out, inputs) = (layer.shape[0] / layer.groups, layer.shape[1]);
    let pointwise = layer.kind != LayerKind::Conv || layer.shape[2..].iter().all(|&taps| taps == 1);
    let factors = (0..layer.groups).map(|group| {
        let rows = Slice::from(group * out..(group + 1) * out);
        let rows = kernel.slice_axis(Axis(0), rows).as_standard_layout().into_owned();
        let columns = rows.len() / out;
        let matrix = rows.into_shape_with_order([out, columns]).unwrap();
        if !pointwise {
            let parts = vec![Array2::eye(inputs), matrix, Array2::eye(out)];
            Factors::new(Form::Tucker2, [out, inputs], parts)
        } else if out <= inputs {
            let parts = vec![matrix, Array2::eye(out)];
            Factors::new(Form::LowRank, out, parts)
        } else {
            let parts = vec![Array2::eye(inputs), matrix];
            Factors::new(Form::LowRank, inputs, parts)
        }
    });
    Parts::new(layer, &factors.collect::<Vec<_>>()).unwrap()
}

/// The outputs of a model in ONNX Runtime without optimizations, fed with `in:NAME` (or `NAME`) of an `.npz`.
fn outputs(path: &Path, arrays: &BTreeMap<String, Binding>) -> Vec<(String, ArrayD<f32>)> {
    let options =
        SessionOptions { threads: 1, optimize: Optimize::None, ..SessionOptions::default() };
    let mut session = Session::new(path, &options).unwrap();
    let mut feed = Vec::new();
    for input in session.inputs() {
        let array = arrays.get(&format!("in:{}", input.name)).or_else(|| arrays.get(&input.name));
        let tensor = match array.unwrap() {
            Binding::Floats(array) => Tensor::from(array.clone()),
            Binding::Ints(array) => Tensor::from(array.clone()),
            Binding::Bools(array) => Tensor::from(array.clone()),
        };
        feed.push((input.name.clone(), tensor.cast(&input.ty).unwrap()));
    }
    let feed: Vec<(&str, Tensor)> =
        feed.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
    let outputs = session.run(&feed).unwrap().into_iter();
    let floats = |tensor: Tensor| match tensor {
        Tensor::I64(array) => array.mapv(|value| value as f32),
        other => other.cast(&ElementType::F32).unwrap().as_f32().unwrap().clone(),
    };
    outputs.map(|(name, tensor)| (name, floats(tensor))).collect()
}

#[test]
fn full_rank_rewriting_changes_no_output() {
    let Some(folder) = folder() else { return };
    if let Err(error) = cp_ort::library() {
        println!("skipped: {error}");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    for path in models(&folder) {
        let name = path.file_stem().unwrap().to_str().unwrap();
        if ["resnet.qdq", "resnet.qoperator", "resnet.qdynamic"].contains(&name) {
            continue;
        }
        let mut model = Model::open(&path).unwrap();
        let layers = model.layers().unwrap();
        let open = layers.iter().filter(|layer| layer.left_alone.is_none());
        let replacements: Vec<(Layer, Parts)> =
            open.map(|layer| (layer.clone(), exact(&model, layer))).collect();
        model.replace_all(&replacements).unwrap();
        let again = model.layers().unwrap();
        assert!(again.iter().all(|layer| layer.left_alone.is_some()), "{name}");
        let rewritten = work.path().join("rewritten.onnx");
        model.save(&rewritten).unwrap();
        let beside = path.with_extension("npz");
        let short = path.with_file_name(format!("{}.npz", name.split('.').next().unwrap()));
        let arrays = if beside.exists() { beside } else { short };
        let arrays = import_support::arrays(&arrays);
        let (dense, rewritten) = (outputs(&path, &arrays), outputs(&rewritten, &arrays));
        let names = |outputs: &[(String, ArrayD<f32>)]| -> Vec<String> {
            outputs.iter().map(|(output, _)| output.clone()).collect()
        };
        assert_eq!(names(&dense), names(&rewritten), "{name}");
        let mut worst: f32 = 0.0;
        for ((output, before), (_, after)) in dense.iter().zip(&rewritten) {
            assert_eq!(before.shape(), after.shape(), "{name}: {output}");
            let largest = before.iter().fold(1e-30_f32, |most, value| most.max(value.abs()));
            for (a, b) in before.iter().zip(after) {
                let difference = (a - b).abs() / largest;
                // max() would pass a NaN over.
                assert!(difference.is_finite(), "{name}: {output}: {a} and {b}");
                worst = worst.max(difference);
            }
        }
        println!("{name}: {} layers, {worst:.1e}", layers.len());
        assert!(worst <= if name.contains("fp16") { 2e-3 } else { 1e-4 }, "{name}: {worst}");
    }
}
