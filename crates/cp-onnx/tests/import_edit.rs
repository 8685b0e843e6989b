//! What is written back, where a region starts and ends, and what bad models come to.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod import_support;

use std::collections::BTreeMap;
use std::fs;

use cp_net::{Factors, Form};
use cp_onnx::{Binding, ImportError, ImportOptions, Model, OnnxError, Parts};
use import_support::{arrays, compare, floats, folder};
use ndarray::{Array2, ArrayD};

/// A field of a message.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    cp_onnx::wire::put_varint(&mut out, bytes.len() as u64);
    [out, bytes.to_vec()].concat()
}

fn int(number: u8, value: i64) -> Vec<u8> {
    let mut out = vec![number << 3];
    cp_onnx::wire::put_varint(&mut out, value.cast_unsigned());
    out
}

/// A node with attributes of whole numbers.
fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[(&str, i64)]) -> Vec<u8> {
    let mut body = Vec::new();
    inputs.iter().for_each(|name| body.extend(field(1, name.as_bytes())));
    outputs.iter().for_each(|name| body.extend(field(2, name.as_bytes())));
    body.extend(field(4, op.as_bytes()));
    for (name, value) in attributes {
        body.extend(field(5, &[field(1, name.as_bytes()), int(3, *value)].concat()));
    }
    field(1, &body)
}

/// An initializer of whole numbers.
fn integers(name: &str, values: &[i64]) -> Vec<u8> {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let body = [int(1, values.len() as i64), int(2, 7), field(8, name.as_bytes()), field(9, &raw)];
    field(5, &body.concat())
}

/// A value of a graph, with sizes; 0 is an open one.
fn value(number: u8, name: &str, sizes: &[i64]) -> Vec<u8> {
    let dims: Vec<u8> = sizes
        .iter()
        .flat_map(|&size| field(1, &if size == 0 { Vec::new() } else { int(1, size) }))
        .collect();
    let tensor = [int(1, 1), field(2, &dims)].concat();
    field(number, &[field(1, name.as_bytes()), field(2, &field(1, &tensor))].concat())
}

fn model(fields: &[Vec<u8>]) -> Model {
    let graph = fields.concat();
    Model::decode([int(1, 8), field(7, &graph), field(8, &int(2, 17))].concat()).unwrap()
}

fn refusal(model: &Model) -> String {
    model.import(&ImportOptions::new()).unwrap_err().to_string()
}

#[test]
fn all_refused_nodes_come_at_once() {
    let model = model(&[
        value(11, "x", &[1, 4]),
        node("Relu", &["x"], &["a"], &[("slope", 3)]),
        node("NonMaxSuppression", &["x"], &["b"], &[]),
        node("Add", &["a", "b"], &["y"], &[]),
        value(12, "y", &[1, 4]),
    ]);
    let error = model.import(&ImportOptions::new()).unwrap_err();
    let text = error.to_string();
    let OnnxError::Import { source: ImportError::Nodes { nodes }, .. } = error else {
        panic!("{text}");
    };
    assert_eq!(nodes.len(), 2, "{text}");
    assert!(text.contains("'a' (Relu): attribute 'slope' is not known"), "{text}");
    assert!(text.contains("'b' (NonMaxSuppression): the op is not known"), "{text}");
}

#[test]
fn an_open_size_is_asked_for() {
    let model = model(&[
        value(11, "x", &[0, 3, 0, 0]),
        node("Relu", &["x"], &["y"], &[]),
        value(12, "y", &[]),
    ]);
    let text = refusal(&model);
    assert!(text.contains("--input x=3x224x224"), "{text}");
    let network = model.import(&ImportOptions::new().input("x", [3, 8, 8])).unwrap().network;
    assert_eq!(network.input().shape, [3, 8, 8]);
    let text = model.import(&ImportOptions::new().input("z", [3])).unwrap_err().to_string();
    assert!(text.contains("input 'z': the model has no such value; its inputs are x"), "{text}");
    let text = model.import(&ImportOptions::new().input("x", [4, 8, 8])).unwrap_err().to_string();
    assert!(text.contains("is given [4, 8, 8], but the file has [?, 3, ?, ?]"), "{text}");
}

#[test]
fn huge_constants_are_refused_before_they_are_made() {
    let huge = |nodes: Vec<u8>, shape: &[i64]| {
        let model = model(&[
            value(11, "x", &[1, 4]),
            integers("s", shape),
            nodes,
            node("Add", &["x", "c"], &["y"], &[]),
            value(12, "y", &[]),
        ]);
        refusal(&model)
    };
    let shape = [1 << 20, 1 << 20, 1 << 20, 1 << 20];
    let text = huge(node("ConstantOfShape", &["s"], &["c"], &[]), &shape);
    assert!(text.contains("more than 536870912 values"), "{text}");
    let text = huge(node("Expand", &["s", "s"], &["c"], &[]), &shape);
    assert!(text.contains("more than 536870912 values"), "{text}");
    let text = huge(node("ConstantOfShape", &["s"], &["c"], &[]), &[-1]);
    assert!(text.contains("expected sizes"), "{text}");
}

#[test]
fn cycles_and_missing_values_are_named() {
    let model = model(&[
        value(11, "x", &[1, 4]),
        node("Add", &["x", "b"], &["a"], &[]),
        node("Relu", &["a"], &["b"], &[]),
        value(12, "b", &[]),
    ]);
    let text = refusal(&model);
    assert!(text.contains("its input 'b' is missing"), "{text}");
}

#[test]
fn a_graph_that_moves_the_batch_is_refused() {
    let model = model(&[
        value(11, "x", &[1, 4, 5]),
        integers("s", &[4, -1]),
        node("Reshape", &["x", "s"], &["y"], &[]),
        value(12, "y", &[]),
    ]);
    assert!(refusal(&model).contains("it joins another axis with the batch axis"));
}

/// A model from a stranger comes to a network or an error, never to a panic: every byte of small models changed in turn.
#[test]
fn damaged_models_do_not_panic() {
    let Some(folder) = folder() else { return };
    for name in ["edge/local_function", "edge/symbolic_dims", "edge/old_opset9"] {
        let bytes = fs::read(folder.join(format!("{name}.onnx"))).unwrap();
        let options = ImportOptions::new().input("x", [8, 9, 9]);
        // The structure stands at the ends of a file, around the weights.
        let ends = (0..bytes.len().min(400)).chain(bytes.len().saturating_sub(700)..bytes.len());
        for at in ends {
            for flip in [1_u8, 0x80] {
                let mut bytes = bytes.clone();
                bytes[at] ^= flip;
                if let Ok(model) = Model::decode(bytes) {
                    let _outcome = model.import(&options);
                    let _outcome = model.import(&ImportOptions::new());
                }
            }
        }
        for length in (0..bytes.len()).step_by(7) {
            if let Ok(model) = Model::decode(bytes[..length].to_vec()) {
                let _outcome = model.import(&options);
            }
        }
    }
}

/// What is trained is in the file afterwards, in its own type, and nothing else changed.
#[test]
fn trained_values_are_written_back() {
    let Some(folder) = folder() else { return };
    for (name, options) in [
        ("exported/resnet.legacy", ImportOptions::new()),
        ("exported/resnet.unfolded", ImportOptions::new()),
        ("exported/audio1d.legacy", ImportOptions::new()),
        ("exported/resnet.fp16", ImportOptions::new()),
        ("third-party/ppocr-v2-cls", ImportOptions::new().input("x", [3, 48, 96])),
    ] {
        let mut model = Model::open(folder.join(format!("{name}.onnx"))).unwrap();
        let imported = model.import(&options).unwrap();
        assert_eq!(model.update(&imported, &imported.network).unwrap(), 0);
        let before = model.encode();
        let mut trained = imported.network.clone();
        let mut changed = 0;
        for (param, array) in imported.network.params() {
            // Numbers that half precision holds.
            if imported.sources.contains_key(param) && array.ndim() > 0 {
                trained.set_param(param, array.mapv(|value| value * 0.5)).unwrap();
                changed += 1;
            }
        }
        let written = model.update(&imported, &trained).unwrap();
        assert!(written > 0 && written <= changed, "{name}: {written} of {changed}");
        let after = model.import(&options).unwrap();
        for (param, array) in trained.params() {
            compare(param, &after.network.params()[param], array, 1e-3).unwrap();
        }
        assert_eq!(model.update(&after, &imported.network).unwrap(), written, "{name}");
        let restored = model.import(&options).unwrap();
        for (param, array) in imported.network.params() {
            compare(param, &restored.network.params()[param], array, 1e-6).unwrap();
        }
        // Numbers that stood one by one are raw bytes from then on.
        assert!(model.encode() == before || name.contains("ppocr"), "{name}");
    }
}

#[test]
fn what_cannot_be_written_back_is_named() {
    let Some(folder) = folder() else { return };
    // The file multiplies the kernel by a constant.
    let mut model = Model::open(folder.join("edge/weight_computed.onnx")).unwrap();
    let imported = model.import(&ImportOptions::new()).unwrap();
    let node = &imported.network.architecture().kernel_layers().next().unwrap().name.clone();
    let param = imported.network.node(node).unwrap().param("weight");
    let mut trained = imported.network.clone();
    trained.set_param(&param, ArrayD::zeros(imported.network.params()[&param].raw_dim())).unwrap();
    let before = model.encode();
    let text = model.update(&imported, &trained).unwrap_err().to_string();
    assert!(text.contains("the file computes it from other tensors"), "{text}");
    assert_eq!(model.encode(), before);
}

/// Factors in the place of a layer, and the trained bias behind them.
#[test]
fn a_bias_is_written_back_beside_factors() {
    let Some(folder) = folder() else { return };
    let mut model = Model::open(folder.join("exported/resnet.legacy.onnx")).unwrap();
    let imported = model.import(&ImportOptions::new()).unwrap();
    let (param, layer) = imported
        .layers
        .iter()
        .find(|(_, layer)| layer.shape.len() == 2)
        .map(|(param, layer)| (param.clone(), layer.clone()))
        .unwrap();
    let kernel = imported.network.params()[&param].clone();
    let (out, inputs) = (layer.shape[0], layer.shape[1]);
    let matrix = kernel.into_shape_with_order([out, inputs]).unwrap();
    let factors = Factors::new(Form::LowRank, out, vec![matrix, Array2::eye(out)]);
    let node = imported.network.nodes().iter().find(|node| node.param("weight") == param).unwrap();
    let (name, bias) = (node.name.clone(), node.param("bias"));
    let mut trained = imported.network.clone();
    let shifted = trained.params()[&bias].mapv(|value| value + 1.0);
    trained.set_param(&bias, shifted.clone()).unwrap();
    trained.put_factors(&name, std::slice::from_ref(&factors), 0.0).unwrap();
    model.replace(&layer, &Parts::new(&layer, &[factors]).unwrap()).unwrap();
    assert_eq!(model.update(&imported, &trained).unwrap(), 1);
    let again = model.import(&ImportOptions::new()).unwrap().network;
    let x = floats(&arrays(&folder.join("exported/resnet.npz"))["input"]);
    let [got, expected] = [&again, &trained].map(|network| network.eval(&[x.view()]).unwrap());
    compare("output", &got[0], &expected[0], 1e-5).unwrap();
}

#[test]
fn kernels_are_the_layers_of_the_model() {
    let Some(folder) = folder() else { return };
    for name in ["exported/resnet.legacy", "exported/unet.dynamo", "exported/shared.legacy"] {
        let model = Model::open(folder.join(format!("{name}.onnx"))).unwrap();
        let imported = model.import(&ImportOptions::new()).unwrap();
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for layer in imported.layers.values() {
            *found.entry(layer.name.clone()).or_default() += 1;
        }
        let all: BTreeMap<String, usize> =
            model.layers().unwrap().into_iter().map(|layer| (layer.name, 1)).collect();
        assert_eq!(found, all, "{name}");
    }
}

/// The region by what the file says alone.
fn region_of(model: &Model) -> cp_onnx::Region {
    let unknown = |_: &[String]| Ok::<_, OnnxError>(BTreeMap::new());
    model.trainable_region(&ImportOptions::new(), &|_| true, unknown).unwrap().unwrap()
}

#[test]
fn regions_leave_foreign_ops_out() {
    let Some(folder) = folder() else { return };
    // Front and end are known.
    let model = Model::open(folder.join("exported/resnet.legacy.onnx")).unwrap();
    let region = region_of(&model);
    assert_eq!(region.outputs, ["output"]);
    assert_eq!(region.inputs[0].0, "input");
    assert!(region.before.is_empty() && region.behind.is_empty() && region.layers == 10);

    // The spectrogram is divided by what Equal and Where choose; the layers behind it are the longest part.
    let model = Model::open(folder.join("third-party/basic-pitch.onnx")).unwrap();
    let region = region_of(&model);
    println!("{region:#?}");
    assert!(region.layers >= 6, "{region:?}");
    let stopped = region.before.iter().chain(&region.behind);
    assert!(stopped.clone().any(|node| node.op == "Equal" || node.op == "Where"), "{region:?}");
    // The loss does not stand at a size of a map.
    let shapes = |name: &String| name.contains("Shape") || name.ends_with("__341:0");
    assert!(!region.outputs.iter().any(shapes), "{region:?}");

    // One layer in front of the foreign op, one behind it.
    let model = Model::open(folder.join("edge/contrib_op.onnx")).unwrap();
    let region = region_of(&model);
    assert_eq!(region.layers, 1, "{region:?}");
    let imported = model.import(&region.options(&ImportOptions::new())).unwrap();
    assert_eq!(imported.network.architecture().outputs, region.outputs);
    // The one that counts is the one inside.
    for layer in model.layers().unwrap() {
        let unknown = |_: &[String]| Ok::<_, OnnxError>(BTreeMap::new());
        let options = ImportOptions::new();
        let counts = |name: &str| name == layer.name;
        let region = model.trainable_region(&options, &counts, unknown).unwrap().unwrap();
        let imported = model.import(&region.options(&options)).unwrap();
        let inside: Vec<&str> = imported.layers.values().map(|layer| layer.name.as_str()).collect();
        assert_eq!(inside, [layer.name.as_str()]);
    }
}

/// A rate that is bound folds the branches for other rates away.
#[test]
fn a_bound_input_takes_a_branch() {
    let Some(folder) = folder() else { return };
    let model = Model::open(folder.join("third-party/silero-vad-16k-8k.onnx")).unwrap();
    let rate = ArrayD::from_elem(ndarray::IxDyn(&[]), 16_000);
    let options = ImportOptions::new()
        .bind("sr", Binding::Ints(rate))
        .input("input", [576])
        .input("state", [1, 128]);
    let text = model.import(&options).unwrap_err().to_string();
    // Nothing of the If is left to complain about.
    assert!(!text.contains("(If)"), "{text}");
    assert!(text.contains("Gather"), "{text}");
}
