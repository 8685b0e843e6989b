//! The Python of docs/pytorch.md, as it stands there, against the executor; where `POLYAD_PYTHON` names a Python that has
//! torch and safetensors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use cp_net::arch::{self, Builder, window};
use cp_net::{
    AdaptiveAvgPool, Architecture, AvgPool, Channels, Conv, Form, InputSpec, Lrn, METADATA_KEY,
    MaxPool, Network, Pad, PadMode, Padding, ParamRole, Slice, Softmax,
};
use cp_torch::tch::{self, Device, Tensor};
use cp_torch::{Executor, Mode, array_from_tensor, tensor_from_f32, tensor_from_u8};
use cp_train::batch::images_to_tensor;
use ndarray::{Array4, ArrayD, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::support::{json, text};

/// What a user has by the time of the document's example.
const BEFORE: &str = r#"
from safetensors.torch import load_file, save_file
inputs = load_file("inputs.safetensors")
images = inputs["half"]
"#;

/// Runs every model, with the arrays taken out and put back by name, and a model of one's own.
const AFTER: &str = r#"
outputs = {"example": logits}
with torch.no_grad():
    for name, x in inputs.items():
        model, arrays = Polyad(f"{name}.safetensors").eval(), load_file(f"{name}.safetensors")
        assert model.state_dict().keys() == arrays.keys()
        for array in model.state_dict().values():
            array.zero_()
        model.load_state_dict(arrays)
        if x.dtype == torch.uint8:
            x = prepare(x, model.architecture["inputs"][0])
        outputs[name] = model(x)

    own = nn.Module()
    own.features = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, groups=2))
    own.classifier = nn.Sequential(nn.Dropout(), nn.Linear(12 * 25, 10))
    adopt(own, "own.safetensors").eval()
    outputs["adopted"] = own.classifier(own.features(inputs["own"]).flatten(1))
    exported = torch.export.export(Polyad("own.safetensors").eval(), (inputs["own"],))
    outputs["exported"] = exported.module()(inputs["own"])
save_file(outputs, "outputs.safetensors")
"#;

#[test]
fn the_loader_of_the_document_computes_what_the_executor_does() {
    let Some(python) = std::env::var_os("POLYAD_PYTHON") else {
        println!("skipped: POLYAD_PYTHON not set");
        return;
    };
    // Small networks: threads that wait for each other on a busy machine take longer than the work.
    tch::set_num_threads(1);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let networks = networks(folder);
    let mut kinds = BTreeSet::new();
    let (mut inputs, mut expected) = (Vec::new(), BTreeMap::new());
    for (seed, (name, net)) in (100..).zip(&networks) {
        net.save(folder.join(format!("{name}.safetensors"))).unwrap();
        kinds.extend(net.nodes().iter().map(|node| node.op.kind()));
        let (given, x) = input(net.input(), seed);
        let model = Executor::new(net, Device::Cpu).unwrap();
        let y = tch::no_grad(|| model.forward(&x, Mode::Eval)).unwrap();
        inputs.push((*name, given));
        expected.insert(*name, array_from_tensor(&y).unwrap());
    }
    assert_eq!(kinds.len(), 20, "every operation: {kinds:?}");
    // The first network once more, in the format of before; this program reads it alike.
    let [new, old] = ["half", "old"].map(|name| folder.join(format!("{name}.safetensors")));
    format_1(&new, &old);
    assert_eq!(Network::load(&old).unwrap(), networks[0].1);
    inputs.push(("old", inputs[0].1.shallow_clone()));
    Tensor::write_safetensors(&inputs, folder.join("inputs.safetensors")).unwrap();

    let run = Command::new(&python)
        .args(["-c", &[BEFORE, &document(), AFTER].concat()])
        .current_dir(folder)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap_or_else(|error| panic!("POLYAD_PYTHON={}: {error}", python.display()));
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));

    let outputs = Tensor::read_safetensors(folder.join("outputs.safetensors")).unwrap();
    assert_eq!(outputs.len(), networks.len() + 4);
    for (name, y) in outputs {
        let net = match name.as_str() {
            "example" | "old" => "half",
            "adopted" | "exported" => "own",
            other => other,
        };
        let (expected, y) = (&expected[net], array_from_tensor(&y).unwrap());
        assert_eq!(y.shape(), expected.shape(), "{name}");
        assert!(y.iter().all(|value| value.is_finite()), "{name}");
        let scale = largest(expected);
        let difference = largest(&(&y - expected));
        println!("{name}: differs by up to {:.1e} of the largest value", difference / scale);
        assert!(scale > 1e-3 && difference <= 1e-5 * scale, "{name}: {difference} of {scale}");
    }
}

/// The blocks of Python in docs/pytorch.md, in order.
fn document() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/pytorch.md");
    let document = fs::read_to_string(path).unwrap();
    let blocks = document.split("```python\n").skip(1);
    blocks.filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect()
}

/// Networks with every operation and every form; `half` is what `polyad compress` makes.
fn networks(folder: &Path) -> Vec<(&'static str, Network)> {
    let mut charnet = arch::by_name("charnet").unwrap();
    charnet.factorize("conv2", Form::Cp4, 12).unwrap();
    charnet.factorize("conv3", Form::Cp4, 16).unwrap();
    let small = |name: &str| arch::by_name(name).unwrap().with_input_shape([3, 70, 64]).unwrap();
    let mut squeezenet = small("squeezenet1_1");
    squeezenet.factorize("fire5/expand3x3", Form::Cp3, 20).unwrap();
    squeezenet.factorize("fire5/squeeze1x1", Form::LowRank, 8).unwrap();
    vec![
        ("half", half_of_resnet20(folder)),
        ("charnet", random(&charnet, 2)),
        ("googlenet", random(&small("googlenet"), 3)),
        ("squeezenet", random(&squeezenet, 4)),
        ("one axis", random(&every_op(1), 5)),
        ("two axes", random(&every_op(2), 6)),
        ("three axes", random(&every_op(3), 7)),
        ("own", random(&own(), 8)),
    ]
}

fn half_of_resnet20(folder: &Path) -> Network {
    let [dense, half] = ["dense", "half"].map(|name| folder.join(format!("{name}.safetensors")));
    random(&arch::by_name("resnet20").unwrap(), 1).save(&dense).unwrap();
    let args = ["compress", text(&dense), "--params-ratio", "0.5", "--max-iters", "3"];
    json(&[&args[..], &["--out", text(&half)]].concat());
    Network::load(&half).unwrap()
}

/// What the document's last section is tried on: torch's names, a factorized convolution in groups, a factorized head.
fn own() -> Architecture {
    let mut arch = Builder::new("own", InputSpec::features([3, 11, 11]))
        .conv("features.0", 8, window(3).pad(1))
        .batch_norm("features.1")
        .relu("features.2")
        .conv("features.3", 12, window(3).stride(2).groups(2))
        .flatten("flatten")
        .linear("classifier.1", 10)
        .build()
        .unwrap();
    arch.factorize("features.3", Form::Cp4, 5).unwrap();
    arch.factorize("classifier.1", Form::LowRank, 4).unwrap();
    arch
}

/// Every operation that works over `axes` spatial axes, with settings that differ from axis to axis, and every form.
fn every_op(axes: usize) -> Architecture {
    let of = |values: [usize; 3]| values[..axes].to_vec();
    let conv = |channels: [usize; 2], kernel, padding| {
        let [inputs, outputs] = channels;
        let padding = Padding::symmetric(of(padding));
        Conv { padding, ..Conv::new(inputs, outputs, of(kernel)) }
    };
    let uneven = |pairs: [[usize; 2]; 3]| Padding::Each(pairs[..axes].to_vec());
    let max_pool = |kernel, stride, padding| MaxPool {
        kernel: of(kernel),
        stride: of(stride),
        padding,
        dilation: of([1; 3]),
        ceil: true,
    };
    let avg_pool = |kernel, stride, padding, count_padding| AvgPool {
        kernel: of(kernel),
        stride: of(stride),
        padding,
        ceil: true,
        count_padding,
    };
    let grouped = Conv {
        stride: of([2, 1, 1]),
        dilation: of([1, 2, 1]),
        groups: 2,
        ..conv([4, 8], [3, 2, 3], [1, 0, 2])
    };
    let shape: Vec<usize> = [vec![4], of([9, 13, 7])].concat();
    let mut net = Builder::new("every-op", InputSpec::features(shape))
        .op("block.0.conv", grouped)
        .batch_norm("block.0.norm")
        .relu("block.0.relu")
        .op("lrn", Lrn { size: 4, alpha: 0.5, beta: 0.75, k: 2.0 })
        // 5, 11, 9 → 3, 6, 5: over the first two axes, the window that starts in the padding is dropped.
        .op("max", max_pool([2, 2, 3], [2, 2, 2], Padding::symmetric(of([1, 1, 1]))))
        // Over the second axis, the last window reaches beyond the padding and is a mean over less.
        .op("mean", avg_pool([2, 3, 2], [1, 2, 1], Padding::symmetric(of([0, 1, 1])), true))
        .maxout("maxout", 2)
        .op("body.conv", conv([4, 6], [3, 3, 3], [1, 1, 1]))
        .op("body.wide", conv([6, 4], [1, 1, 1], [0, 0, 0]))
        .add("sum", "maxout")
        .silu("silu")
        .op("gate", Conv { padding: Padding::Same, ..conv([4, 4], [2, 3, 2], [0, 0, 0]) })
        .sigmoid("sigmoid")
        .mul("product", "silu")
        .concat("both", &["maxout".into(), "product".into()])
        .relu6("clip")
        .op("upper", max_pool([2, 3, 2], [1, 1, 1], Padding::SameLower))
        .op("uneven max", max_pool([2, 2, 2], [1, 2, 1], uneven([[0, 1], [1, 0], [1, 1]])))
        .op("uneven mean", avg_pool([2, 2, 2], [1, 1, 1], uneven([[1, 0], [0, 1], [1, 1]]), false))
        .op("even mean", avg_pool([2, 3, 3], [1, 1, 1], Padding::symmetric(of([1, 1, 1])), false));
    if axes == 2 {
        net = net
            .op("shortcut.rows", Slice { axis: 1, start: 0, end: None, step: 2 })
            .op("shortcut.columns", Slice { axis: 2, start: 1, end: Some(-1), step: 1 })
            .op(
                "shortcut",
                Pad {
                    before: vec![1, 0, 1],
                    behind: vec![3, 0, 1],
                    mode: PadMode::Constant,
                    value: 0.25,
                },
            );
    }
    let channels = net.channels();
    let mut arch = net
        .op("tail", Conv { groups: 2, ..conv([channels, 6], [2, 2, 2], [1, 1, 1]) })
        .op("again", conv([6, 6], [1, 1, 1], [0, 0, 0]))
        .shared("and again", conv([6, 6], [1, 1, 1], [0, 0, 0]), "again")
        .op("pool", AdaptiveAvgPool { output: of([2, 3, 2]) })
        .dropout("drop", 0.5)
        .flatten("flatten")
        .linear("head", 10)
        .op("softmax", Softmax { axis: 0 })
        .build()
        .unwrap();
    arch.factorize("body.conv", Form::Cp4, 7).unwrap();
    arch.factorize("body.wide", Form::LowRank, 3).unwrap();
    arch.factorize("tail", Form::Cp3, 5).unwrap();
    arch.factorize("head", Form::LowRank, 6).unwrap();
    arch
}

/// The model in `path` as a file of format 1, which had its settings in the op, and the shortcut of ResNets as one op.
fn format_1(path: &Path, to: &Path) {
    let bytes = fs::read(path).unwrap();
    let (length, rest) = bytes.split_at(8);
    let arrays = u64::from_le_bytes(length.try_into().unwrap()) as usize;
    let mut header: Value = serde_json::from_slice(&rest[..arrays]).unwrap();
    let metadata = &mut header["__metadata__"][METADATA_KEY];
    let mut model: Value = serde_json::from_str(metadata.as_str().unwrap()).unwrap();
    assert_eq!(model["format"], 2);
    let arch = model["architecture"].as_object_mut().unwrap();
    let mut input = arch.remove("inputs").unwrap()[0].take();
    input.as_object_mut().unwrap().remove("name");
    arch.remove("outputs");
    let mut nodes = Vec::new();
    let (mut read, mut step) = (Value::Null, Value::Null);
    for mut node in arch["nodes"].take().as_array_mut().unwrap().drain(..) {
        let mut op = node.as_object_mut().unwrap().clone();
        let (name, mut inputs) = (op.remove("name").unwrap(), op.remove("inputs").unwrap());
        match op["op"].as_str().unwrap() {
            "slice" => {
                if name.as_str().unwrap().ends_with(".rows") {
                    (read, step) = (inputs, op["step"].clone());
                }
                continue;
            }
            "pad" => {
                let (before, after) = (op["before"][0].clone(), op["behind"][0].clone());
                op = serde_json::Map::new();
                op.extend([
                    ("op".to_string(), "pad_shortcut".into()),
                    ("stride".into(), step.clone()),
                    ("before".into(), before),
                    ("after".into(), after),
                ]);
                inputs = read.clone();
            }
            "conv" => {
                let of = ["stride", "padding", "dilation", "groups"];
                let geometry: serde_json::Map<String, Value> =
                    of.iter().map(|key| (key.to_string(), op.remove(*key).unwrap())).collect();
                op.insert("geometry".into(), geometry.into());
            }
            "flatten" | "concat" | "softmax" => drop(op.remove("axis")),
            "max_pool" => drop(op.remove("dilation")),
            "avg_pool" => drop(op.remove("count_padding")),
            _ => {}
        }
        nodes.push(serde_json::json!({"name": name, "op": op, "inputs": inputs}));
    }
    arch["nodes"] = nodes.into();
    arch.insert("input".into(), input);
    model["format"] = 1.into();
    *metadata = model.to_string().into();
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    fs::write(to, [&length[..], &header, &rest[arrays..]].concat()).unwrap();
}

/// Random weights, and biases and statistics that are not the 0 and 1 of a fresh network.
fn random(arch: &Architecture, seed: u64) -> Network {
    let mut net = arch.initialize(seed).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for (name, role) in net.roles() {
        if role != ParamRole::Weight {
            let moved = net.params()[&name].mapv(|value| value + rng.random_range(-0.5..0.5));
            net.set_param(&name, moved).unwrap();
        }
    }
    net
}

/// Two inputs: as Python gets them, and as the executor does. Images are bytes, which the document's `prepare` scales.
fn input(spec: &InputSpec, seed: u64) -> (Tensor, Tensor) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let shape: Vec<usize> = [vec![2], spec.shape.clone()].concat();
    if spec.channels == Channels::Features {
        let x = ArrayD::from_shape_simple_fn(IxDyn(&shape), || rng.random_range(-1.0..1.0));
        let x = tensor_from_f32(x.view()).unwrap();
        return (x.shallow_clone(), x);
    }
    let shape = (shape[0], shape[1], shape[2], shape[3]);
    let pixels = Array4::from_shape_simple_fn(shape, || rng.random());
    let x = images_to_tensor(&pixels, spec, Device::Cpu).unwrap();
    (tensor_from_u8(pixels.into_dyn().view()).unwrap(), x)
}

fn largest(array: &ArrayD<f32>) -> f32 {
    array.iter().fold(0.0, |largest, value| value.abs().max(largest))
}
