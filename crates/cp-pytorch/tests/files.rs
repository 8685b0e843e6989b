//! Every file of `shared/datasets/onnx/pytorch` beside the workspace, or of `POLYAD_ONNX`; without them the tests are skipped.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use common::{Member, folder, member, zip};
use cp_net::{Network, Op};
use cp_pytorch::{StateDict, StateDictOptions, exported_program, state_dict};
use ndarray::{ArrayD, ArrayViewD};
use ndarray_npy::NpzReader;

fn open(path: &Path) -> StateDict {
    state_dict(path, &StateDictOptions::default()).unwrap()
}

#[test]
fn three_files_hold_the_same_weights() {
    let Some(folder) = folder() else { return };
    let file = |name: &str| open(&folder.join("pytorch").join(name));
    let zipped = file("resnet.state.pth");
    assert_eq!(zipped.arrays().len(), 47);
    assert_eq!(zipped.arrays().values().map(ArrayD::len).sum::<usize>(), 59_034);
    assert_eq!(zipped.integers().len(), 9);
    assert!(zipped.integers().keys().all(|name| name.ends_with("num_batches_tracked")));
    assert_eq!(zipped.arrays()["stem.0.weight"].shape(), [16, 3, 7, 7]);
    assert_eq!(zipped.key(), None);
    assert_eq!(file("resnet.state-before-1.6.pth"), zipped);
    let checkpoint = file("resnet.checkpoint.pth.tar");
    assert_eq!(checkpoint.key(), Some("state_dict"));
    assert_eq!(checkpoint.arrays(), zipped.arrays());
    assert_eq!(checkpoint.integers(), zipped.integers());
}

#[test]
fn programs_in_python_are_refused_with_a_line_of_python() {
    let Some(folder) = folder() else { return };
    let check = |name: &str, expected: &str| {
        let path = folder.join("pytorch").join(name);
        let error = state_dict(&path, &StateDictOptions::default()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(expected), "{error}");
    };
    check(
        "resnet.torchscript.pt",
        r#"torch.save(torch.jit.load("resnet.torchscript.pt").state_dict(), "weights.pth")"#,
    );
    check(
        "resnet.whole-module.pt",
        r#"torch.save(torch.load("resnet.whole-module.pt", weights_only=False).state_dict(), "weights.pth")"#,
    );
    check("resnet.whole-module.pt", "of the class `models.ResNet`");
    check("resnet.exported.pt2", "is an exported program");
}

#[test]
fn only_a_program_is_a_network() {
    let Some(folder) = folder() else { return };
    for name in ["pytorch/resnet.state.pth", "pytorch/resnet.torchscript.pt", "exported/resnet.npz"]
    {
        let error = exported_program(folder.join(name)).unwrap_err().to_string();
        assert!(error.contains("not an exported program of PyTorch"), "{error}");
    }
}

/// All values of a network in evaluation mode, each op by its definition.
fn eval(net: &Network, inputs: HashMap<String, ArrayD<f32>>) -> HashMap<String, ArrayD<f32>> {
    let mut values = inputs;
    for node in net.nodes() {
        let inputs: Vec<ArrayViewD<'_, f32>> =
            node.inputs.iter().map(|input| values[input].view()).collect();
        let params: Vec<ArrayViewD<'_, f32>> =
            node.param_specs().map(|(name, _)| net.params()[&name].view()).collect();
        let outputs = node.op.eval(&inputs, &params);
        values.extend(node.outputs.iter().cloned().zip(outputs));
    }
    values
}

/// Compares with what PyTorch computed: the largest difference, as a part of the largest value.
fn difference(folder: &Path, net: &Network) -> f32 {
    let mut arrays =
        NpzReader::new(File::open(folder.join("exported/resnet.npz")).unwrap()).unwrap();
    let x: ArrayD<f32> = arrays.by_name("input").unwrap();
    let expected: ArrayD<f32> = arrays.by_name("output").unwrap();
    let name = net.input().name.clone();
    let values = eval(net, HashMap::from([(name, x)]));
    let got = &values[&net.architecture().outputs[0]];
    assert_eq!(got.shape(), expected.shape());
    let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let apart = got.iter().zip(&expected).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    apart / largest
}

#[test]
fn an_exported_program_computes_what_pytorch_does() {
    let Some(folder) = folder() else { return };
    let net = exported_program(folder.join("pytorch/resnet.exported.pt2")).unwrap();
    let worst = difference(&folder, &net);
    println!("largest difference: {worst:.1e}");
    assert!(worst <= 1e-4, "{worst}");
    // The names of PyTorch, and nothing that the network does not need.
    let weights = open(&folder.join("pytorch/resnet.state.pth"));
    assert_eq!(net.params(), weights.arrays());
    assert_eq!(net.input().shape, [3, 64, 64]);
    assert_eq!(net.architecture().name, "resnet.exported");
    for layer in ["stem.0", "stem.1", "layers.2.down.0", "fc"] {
        net.node(layer).unwrap();
    }
    assert!(net.nodes().iter().any(|node| matches!(node.op, Op::Dropout(_))));
    // What was exported is an architecture like any other: weights go into it by name.
    let (arch, params) = net.into_parts();
    let again = weights.into_network(arch).unwrap();
    assert!(again.notes.is_empty(), "{:?}", again.notes);
    assert_eq!(again.network.params(), &params);
}

/// The members of an archive of stored members, in their order; fields of 64 bits do not occur.
fn members(bytes: &[u8]) -> Vec<Member> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let end = bytes.len() - 22;
    let (count, mut at) = (u16_at(end + 10), u32_at(end + 16));
    let mut found = Vec::new();
    for _ in 0..count {
        let (size, local) = (u32_at(at + 24), u32_at(at + 42));
        let name = std::str::from_utf8(&bytes[at + 46..at + 46 + u16_at(at + 28)]).unwrap();
        let data = local + 30 + u16_at(local + 26) + u16_at(local + 28);
        found.push(member(name, &bytes[data..data + size]));
        at += 46 + u16_at(at + 28) + u16_at(at + 30) + u16_at(at + 32);
    }
    found
}

/// The same program with its JSON changed.
fn with_program(folder: &Path, change: impl Fn(String) -> String) -> Result<Network, String> {
    let bytes = fs::read(folder.join("pytorch/resnet.exported.pt2")).unwrap();
    let mut members = members(&bytes);
    let program = members.iter_mut().find(|member| member.name == "r/models/model.json").unwrap();
    program.data = change(String::from_utf8(program.data.clone()).unwrap()).into_bytes();
    packed(&members)
}

fn packed(members: &[Member]) -> Result<Network, String> {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("r.pt2");
    fs::write(&path, zip(members)).unwrap();
    exported_program(&path).map_err(|error| error.to_string())
}

#[test]
fn the_same_program_in_the_layouts_of_before() {
    let Some(folder) = folder() else { return };
    let bytes = fs::read(folder.join("pytorch/resnet.exported.pt2")).unwrap();
    let program = members(&bytes).into_iter().find(|part| part.name == "r/models/model.json");
    let program = program.unwrap().data;
    let weights = fs::read(folder.join("pytorch/resnet.state.pth")).unwrap();
    let expected = exported_program(folder.join("pytorch/resnet.exported.pt2")).unwrap();
    let none = common::saved(b"\x80\x02}.", &[]);
    let old = packed(&[
        member("version", *b"8.0"),
        member("serialized_exported_program.json", program.clone()),
        member("serialized_state_dict.json", weights.clone()),
        member("serialized_constants.json", none.clone()),
    ]);
    assert_eq!(old.unwrap().params(), expected.params());
    let package = packed(&[
        member("r/archive_format", *b"pt2"),
        member("r/models/model.json", program),
        member("r/data/weights/model.pt", weights),
        member("r/data/constants/model.pt", none),
    ]);
    assert_eq!(package.unwrap().params(), expected.params());
}

#[test]
fn programs_that_are_refused() {
    let Some(folder) = folder() else { return };
    let check = |from: &str, to: &str, expected: &str| {
        let error = with_program(&folder, |json| {
            assert!(json.contains(from), "{from}");
            json.replace(from, to)
        })
        .unwrap_err();
        assert!(error.contains(expected), "{error}\n  lacks: {expected}");
    };
    check("\"major\": 8", "\"major\": 9", "is written in schema 9.17, this version reads 8.x");
    check("\"schema_version\"", "\"schema\"", "is written in schema null");
    // All at once, each with one of its places.
    let error = with_program(&folder, |json| {
        json.replace("aten.relu.default", "aten.bernoulli.default")
            .replace("aten.linear", "own.linear")
    });
    let error = error.unwrap_err();
    assert!(
        error.contains("aten.bernoulli.default: is not supported ('relu' and 6 more)"),
        "{error}"
    );
    // What reads what was not made does not complain again.
    assert_eq!(error.lines().count(), 3, "{error}");
    check(
        "{\"name\": \"training\", \"arg\": {\"as_bool\": false}",
        "{\"name\": \"training\", \"arg\": {\"as_bool\": true}",
        "model.eval()",
    );
    check(
        "\"start_dim\", \"arg\": {\"as_int\": 1}",
        "\"start_dim\", \"arg\": {\"as_int\": 0}",
        "the batch",
    );
    check("\"name\": \"padding\"", "\"name\": \"pads\"", "its argument 'pads' is not known");
    // A stride that PyTorch did not compute with.
    check(
        "\"name\": \"stride\", \"arg\": {\"as_ints\": [2, 2]}",
        "\"name\": \"stride\", \"arg\": {\"as_ints\": [1, 1]}",
        "and [",
    );
    check(
        "\"parameter_name\": \"fc.bias\"",
        "\"parameter_name\": \"fc.b\"",
        "no values of its weight 'fc.b'",
    );
}

#[test]
fn weights_of_a_program_stay_in_their_bounds() {
    let Some(folder) = folder() else { return };
    let bytes = fs::read(folder.join("pytorch/resnet.exported.pt2")).unwrap();
    let check = |change: &dyn Fn(&mut Member), expected: &str| {
        let mut members = members(&bytes);
        members.iter_mut().for_each(change);
        let error = packed(&members).unwrap_err();
        assert!(error.contains(expected), "{error}\n  lacks: {expected}");
    };
    let cut = |member: &mut Member| {
        if member.name == "r/data/weights/weight_27" {
            member.data.pop();
        }
    };
    check(&cut, "its weight 'fc.weight' reaches out of its storage of 479 elements");
    let config = |from: &'static str, to: &'static str| {
        move |member: &mut Member| {
            if member.name.ends_with("weights_config.json") {
                let text = String::from_utf8(member.data.clone()).unwrap();
                assert!(text.contains(from));
                member.data = text.replace(from, to).into_bytes();
            }
        }
    };
    check(&config("weight_27\"", "weight_99\""), "no member 'r/data/weights/weight_99'");
    check(&config("\"use_pickle\": false", "\"use_pickle\": true"), "is pickled");
    check(&config("\"dtype\": 7", "\"dtype\": 10"), "is complex");
    check(&config("\"layout\": 7", "\"layout\": 1"), "is no dense tensor");
}
