//! Networks of maps as networks of sequences of maps: every frame gives what it gave by itself, the numbers of the original program, and
//! what is refused.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::{difference, random, run};
use cp_net::{
    Architecture, AvgPool, BatchNorm, Conv, CpConv, Flatten, GlobalAvgPool, GlobalMaxPool, INPUT,
    InputSpec, Linear, MaxPool, Network, Node, Op, OpSpec, Padding, Relu, TuckerConv, arch,
};
use ndarray::{ArrayD, Axis, IxDyn, concatenate};

fn network(input: &[usize], nodes: Vec<Node>) -> Network {
    let arch = Architecture::new("still", InputSpec::features(input), nodes);
    let mut net = arch.initialize(1).unwrap();
    let arrays: Vec<(String, Vec<usize>)> =
        net.params().iter().map(|(name, array)| (name.clone(), array.shape().to_vec())).collect();
    for (seed, (name, shape)) in arrays.into_iter().enumerate() {
        let array = random(&shape, seed as u64)
            .mapv(|v| if name.ends_with("var") { v * v + 0.5 } else { v });
        net.set_param(&name, array).unwrap();
    }
    net
}

/// Convolutions of every kind, poolings, norms.
fn layers(padding: Padding) -> Vec<Node> {
    let dense =
        Conv { stride: vec![2, 1], padding, dilation: vec![1, 2], ..Conv::new(2, 6, [3, 2]) };
    let plain = Conv { padding: Padding::symmetric([1, 0]), ..Conv::new(6, 4, [3, 1]) };
    vec![
        Node::new("factored", CpConv { weights: true, ..CpConv::of(&dense, 5) }, [INPUT]),
        Node::new("norm", BatchNorm::new(6), ["factored"]),
        Node::new("relu", Relu {}, ["norm"]),
        Node::new("plain", plain, ["relu"]),
        Node::new(
            "pool",
            MaxPool {
                kernel: vec![2, 2],
                stride: vec![1, 2],
                padding: Padding::symmetric([1, 0]),
                dilation: vec![1, 1],
                ceil: false,
            },
            ["plain"],
        ),
        Node::new(
            "again",
            CpConv::of(&Conv { padding: Padding::symmetric([1, 1]), ..Conv::new(4, 3, [3, 3]) }, 2),
            ["pool"],
        ),
        Node::new(
            "mean",
            AvgPool {
                kernel: vec![2, 1],
                stride: vec![1, 1],
                padding: Padding::none(2),
                ceil: false,
                count_padding: true,
            },
            ["again"],
        ),
    ]
}

/// Maps `[B, C, H, W]` of every frame as the strips that the network takes.
fn strips(frames: &[ArrayD<f32>]) -> ArrayD<f32> {
    let views: Vec<_> = frames.iter().map(ArrayD::view).collect();
    concatenate(Axis(2), &views).unwrap()
}

#[test]
fn every_frame_gives_what_it_gave_by_itself() {
    for padding in [Padding::Each(vec![[1, 0], [2, 1]]), Padding::Same, Padding::SameLower] {
        let net = network(&[2, 9, 8], layers(padding.clone()));
        for (frames, taps) in [(4, 3), (3, 2), (1, 1), (2, 5)] {
            let (video, added) = net.transduced(frames, taps).unwrap();
            assert_eq!(added, ["again.axis0", "factored.axis0"]);
            assert_eq!(video.params()["factored.axis0"].shape(), [taps, 5]);
            let stills: Vec<ArrayD<f32>> =
                (0..frames).map(|f| random(&[2, 2, 9, 8], 90 + f as u64)).collect();
            let got = run(&video, &[strips(&stills)]).remove(0);
            assert_eq!(got.shape()[2], frames);
            for (frame, still) in stills.iter().enumerate() {
                let own = run(&net, std::slice::from_ref(still)).remove(0);
                let of_frame = got.index_axis(Axis(2), frame).to_owned();
                assert!(
                    difference(&of_frame, &own) < 1e-5,
                    "{padding:?}, {taps} taps, frame {frame}"
                );
            }
        }
    }
}

/// Pictures of equal frames are classified as the picture.
#[test]
fn a_classifier_of_pictures_classifies_strips() {
    for (pool, frames) in [(Op::from(GlobalAvgPool {}), 3), (Op::from(GlobalMaxPool {}), 2)] {
        let mut nodes = layers(Padding::Same);
        nodes.push(Node::new("global", pool, ["mean"]));
        nodes.push(Node::new("flat", Flatten { axis: 0 }, ["global"]));
        nodes.push(Node::new(
            "fc",
            Linear { in_features: 3, out_features: 7, bias: true },
            ["flat"],
        ));
        let net = network(&[2, 9, 8], nodes);
        let (video, _) = net.transduced(frames, 3).unwrap();
        assert_eq!(video.input().shape, [2, 9 * frames, 8]);
        let still = random(&[2, 2, 9, 8], 7);
        let got = run(&video, &[strips(&vec![still.clone(); frames])]).remove(0);
        assert!(difference(&got, &run(&net, &[still]).remove(0)) < 1e-5);
    }
}

/// 1-D to 2-D.
#[test]
fn lines_become_maps() {
    let conv = Conv { padding: Padding::symmetric([1]), ..Conv::new(3, 4, [3]) };
    let net = network(&[3, 10], vec![Node::new("conv", CpConv::of(&conv, 4), [INPUT])]);
    let (maps, _) = net.transduced(5, 3).unwrap();
    let lines: Vec<ArrayD<f32>> = (0..5).map(|f| random(&[2, 3, 10], f)).collect();
    let got = run(&maps, &[strips(&lines)]).remove(0);
    assert_eq!(got.shape(), [2, 4, 5, 10]);
    let own = run(&net, &lines[3..4]).remove(0);
    assert!(difference(&got.index_axis(Axis(2), 3).to_owned(), &own) < 1e-5);
}

/// Factors that two layers share are a factor each then, and everything is saved and read.
#[test]
fn shared_factors_do_not_meet() {
    let text = r#"{"name": "two", "inputs": [{"shape": [2, 6, 6], "channels": "features"}], "nodes": [
        {"name": "a", "op": "cp_conv", "inputs": ["input"], "out_channels": 2, "kernel": [3, 3], "rank": 3, "padding": [1, 1], "bias": false},
        {"name": "b", "op": "cp_conv", "inputs": ["a"], "out_channels": 2, "kernel": [3, 3], "rank": 3, "padding": [1, 1], "bias": false,
         "params": {"axis0": "a.axis1", "axis1": "a.axis0", "input": "a.input"}}]}"#;
    let net = Architecture::from_json(text).unwrap().initialize(4).unwrap();
    let (video, added) = net.transduced(2, 3).unwrap();
    assert_eq!(added.len(), 2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("video.safetensors");
    video.save(&path).unwrap();
    let video = Network::load(&path).unwrap();
    let stills: Vec<ArrayD<f32>> = (0..2).map(|f| random(&[1, 2, 6, 6], f)).collect();
    let got = run(&video, &[strips(&stills)]).remove(0);
    for (frame, still) in stills.iter().enumerate() {
        let own = run(&net, std::slice::from_ref(still)).remove(0);
        assert!(difference(&got.index_axis(Axis(2), frame).to_owned(), &own) < 1e-5);
    }
}

#[test]
fn what_would_mix_frames_is_refused() {
    let refused = |nodes: Vec<Node>, words: &[&str]| {
        let message = network(&[2, 6, 6], nodes).transduced(3, 3).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    let factored = || Node::new("conv", CpConv::of(&Conv::new(2, 3, [3, 3]), 2), [INPUT]);
    refused(
        vec![factored(), Node::new("flat", Flatten { axis: 0 }, ["conv"])],
        &["flat", "global pooling"],
    );
    let tucker = TuckerConv::of(&Conv::new(3, 3, [3, 3]), [2, 2, 2, 2]);
    refused(vec![factored(), Node::new("other", tucker, ["conv"])], &["other", "tucker_conv"]);
    refused(vec![Node::new("conv", Conv::new(2, 3, [3, 3]), [INPUT])], &["cp_conv"]);
    let deep = Conv::new(2, 3, [1, 1, 1]);
    let arch = Architecture::new(
        "deep",
        InputSpec::features([2, 4, 4, 4]),
        vec![Node::new("conv", CpConv::of(&deep, 2), [INPUT])],
    );
    assert!(
        arch.initialize(1)
            .unwrap()
            .transduced(3, 3)
            .unwrap_err()
            .to_string()
            .contains("one or two axes")
    );
    // What a constant over channels is laid over moves by an axis.
    let text = r#"{"name": "n", "inputs": [{"shape": [2, 6, 6], "channels": "features"}], "nodes": [
        {"name": "conv", "op": "cp_conv", "inputs": ["input"], "out_channels": 3, "kernel": [3, 3], "rank": 2},
        {"name": "c", "op": "constant", "inputs": [], "shape": SHAPE},
        {"name": "sum", "op": "add", "inputs": ["conv", "c"]}]}"#;
    let with = |shape: &str| {
        let arch = Architecture::from_json(&text.replace("SHAPE", shape)).unwrap();
        arch.initialize(1).unwrap().transduced(3, 3)
    };
    assert!(with("[3, 1, 1]").unwrap_err().to_string().contains("'c'"));
    with("[4, 4]").unwrap();
    let two = r#"{"name": "n", "inputs": [{"name": "x", "shape": [2, 6, 6]}, {"name": "y", "shape": [3, 4, 4]}], "nodes": [
        {"name": "conv", "op": "cp_conv", "inputs": ["x"], "out_channels": 3, "kernel": [3, 3], "rank": 2},
        {"name": "sum", "op": "add", "inputs": ["conv", "y"]}]}"#;
    let two = Architecture::from_json(two).unwrap().initialize(1).unwrap().transduced(3, 3);
    assert!(two.unwrap_err().to_string().contains("'y'"));
    // No frames, no taps.
    let net = network(&[2, 6, 6], vec![factored()]);
    assert!(net.transduced(0, 3).is_err());
    assert!(net.transduced(3, 0).is_err());
    assert!(arch::by_name("cpac").unwrap().initialize(1).unwrap().transduced(3, 3).is_err());
}

/// `video_y` of `factorizedconv-cp-2d`, and the ranks that TensorLy chooses for a share of the parameters: the files of `shared/golden`
/// beside the workspace, or where `POLYAD_GOLDEN` says.
#[test]
fn as_the_original_program_has_it() {
    let Some(folder) = common::golden() else { return };
    let bytes = std::fs::read(folder.join("factorizedconv-cp-2d.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let array = |name: &str| {
        let tensor = golden.tensor(name).unwrap();
        let values =
            tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        ArrayD::from_shape_vec(IxDyn(tensor.shape()), values.collect()).unwrap()
    };
    let dense = Conv {
        stride: vec![2, 1],
        padding: Padding::symmetric([1, 1]),
        dilation: vec![1, 2],
        ..Conv::new(4, 5, [3, 2])
    };
    let op = CpConv { weights: true, ..CpConv::of(&dense, 6) };
    let mut net = network(&[4, 8, 7], vec![Node::new("conv", op, [INPUT])]);
    for (slot, name) in [
        ("output", "factor.T"),
        ("input", "factor.S"),
        ("axis0", "factor.k0"),
        ("axis1", "factor.k1"),
        ("weights", "lambda"),
        ("bias", "bias"),
    ] {
        net.set_param(&format!("conv.{slot}"), array(name)).unwrap();
    }
    let (video, added) = net.transduced(5, 3).unwrap();
    assert_eq!(added, ["conv.axis0"]);
    assert_eq!(video.params()["conv.axis0"], array("temporal_factor"));
    let x = array("video").into_shape_with_order(IxDyn(&[2, 4, 5 * 8, 7])).unwrap();
    assert!(difference(&run(&video, &[x]).remove(0), &array("video_y")) < 2e-5);
}

#[test]
fn ranks_of_a_share_are_those_of_tensorly() {
    let Some(folder) = common::golden() else { return };
    let text = std::fs::read_to_string(folder.join("factorizedconv-ranks.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&text).unwrap();
    let numbers = |value: &serde_json::Value| -> Vec<usize> {
        value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
    };
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        let shape = numbers(&case["shape"]);
        let dense = Conv::new(shape[1], shape[0], &shape[2..]);
        // "same": as many as the kernel has.
        let share = case["rank"].as_f64().unwrap_or(1.0);
        let cp = case["cp"].as_u64().unwrap() as usize;
        assert_eq!(CpConv::rank_of_share(&dense, share), cp, "{case}");
        for (name, full) in [("tucker", false), ("tucker_spatial_fixed", true)] {
            let ranks = TuckerConv::ranks_of_share(&dense, share, full);
            assert_eq!(ranks, numbers(&case[name]), "{case}");
            TuckerConv::of(&dense, ranks).check().unwrap();
        }
    }
}
