//! ChannelNets (Gao, Wang & Ji), against what the released code computes: the channel-wise layers with their gradients, and a small
//! ChannelNet-v1 with either padding.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use common::executor;
use common::golden::{Golden, LAYOUTS, check};
use cp_net::arch::{self, Builder, window};
use cp_net::{InputSpec, Network};
use cp_torch::array_from_tensor;
use cp_torch::tch::{Kind, Tensor, no_grad};
use cp_torch::{Executor, Mode};

fn parameter(model: &Executor, name: &str) -> Tensor {
    let found = model.tensors().find(|(known, ..)| *known == name);
    found.map(|(_, _, tensor)| tensor.shallow_clone()).unwrap()
}

/// A weight of the file, the axes that it has in ours, one after the other, and our name.
type Weight<'a> = (&'a str, &'a [i64], &'a str);

/// Output `y` of the layers that `build` puts behind the input, and where the file has them, its gradients.
fn check_layers(
    golden: &Golden,
    build: impl Fn(Builder) -> Builder,
    weights: &[Weight<'_>],
    y: &str,
    gradients: bool,
) {
    let x = golden.get("x");
    let shape: Vec<usize> = x.size()[1..].iter().map(|&size| size as usize).collect();
    let arch = build(Builder::new("layers", InputSpec::features(shape))).build().unwrap();
    assert_eq!(arch.params().count(), weights.len());
    let params = arch.params().map(|(name, spec)| {
        let (array, axes, _) = weights.iter().find(|(.., own)| *own == name).unwrap();
        let array = array_from_tensor(&golden.get(array).permute(*axes).contiguous()).unwrap();
        (name, array.into_shape_with_order(spec.shape).unwrap())
    });
    let params = params.collect();
    let net = Network::new(arch, params).unwrap();
    for layout in LAYOUTS {
        let model = executor(&net, layout);
        let x = x.copy().set_requires_grad(true);
        let got = model.forward(&x, Mode::Train).unwrap();
        check(&got, &golden.get(y), &format!("{y} in {layout:?}"));
        if !gradients {
            continue;
        }
        (got * golden.get("cotangent")).sum(Kind::Float).backward();
        check(&x.grad(), &golden.get("grad.x"), &format!("gradient of x in {layout:?}"));
        for (array, axes, name) in weights {
            let expected = golden.get(&format!("grad.{array}")).permute(*axes);
            let gradient = parameter(&model, name).grad().reshape(expected.size());
            check(&gradient, &expected, &format!("gradient of {array} in {layout:?}"));
        }
    }
    // What only runs forward.
    let got = no_grad(|| {
        let folded = net.folded().unwrap();
        executor(&folded, LAYOUTS[0]).forward(&x, Mode::Eval).unwrap()
    });
    check(&got, &golden.get(y), &format!("{y} when folded"));
}

#[test]
fn group_channelwise() {
    let Some(golden) = Golden::load("channelnets-group-channelwise") else { return };
    let weights: [Weight<'_>; 1] = [("kernel", &[0, 1], "layer.weight")];
    check_layers(&golden, |at| at.group_channelwise("layer", 2, 8), &weights, "y", true);
}

#[test]
fn separable_channelwise() {
    let Some(golden) = Golden::load("channelnets-separable-channelwise") else { return };
    let weights: [Weight<'_>; 2] =
        [("depthwise", &[0, 1, 2, 3], "depthwise.weight"), ("kernel", &[0], "layer.weight")];
    let build =
        |at: Builder| at.depthwise("depthwise", window(3).pad(1).no_bias()).channelwise("layer", 8);
    check_layers(&golden, build, &weights, "y", true);
}

#[test]
fn channelwise_across_pixels() {
    let Some(golden) = Golden::load("channelnets-released-code-channelwise") else { return };
    // Taps, inputs, outputs there.
    let weights: [Weight<'_>; 1] = [("kernel", &[2, 1, 0], "layer.weight")];
    check_layers(&golden, |at| at.channelwise_across_pixels("layer", 8), &weights, "y", true);
}

#[test]
fn classification_layers() {
    let Some(golden) = Golden::load("channelnets-classification-layer") else { return };
    let kernel: Weight<'_> = ("kernel", &[0, 1, 2], "layer.weight");
    check_layers(&golden, |at| at.convolutional_classifier("layer", 11), &[kernel], "y", true);

    let depthwise: Weight<'_> = ("released_code_depthwise", &[0, 1, 2, 3], "depthwise.weight");
    let build = |at: Builder| {
        at.depthwise("depthwise", window(3).same().no_bias()).convolutional_classifier("layer", 11)
    };
    check_layers(&golden, build, &[depthwise, kernel], "released_code_y", false);

    let weights: [Weight<'_>; 1] = [("unshared_kernel", &[0, 1], "layer.weight")];
    check_layers(&golden, |at| at.unshared_classifier("layer", 11), &weights, "unshared_y", false);
}

/// The block of the original program that a layer belongs to, behind `features.`.
const BLOCKS: [(&str, &str); 11] = [
    ("conv_1_0", "stage1.unit1.blocks.block2"),
    ("conv_1_1", "stage2.unit1.blocks.block1"),
    ("conv_1_2", "stage2.unit1.blocks.block2"),
    ("conv_1_3", "stage3.unit1.blocks.block1"),
    ("conv_1_4", "stage3.unit1.blocks.block2"),
    ("conv_1_5", "stage4.unit1.blocks.block1"),
    ("group_module", "stage4.unit1.blocks.block2"),
    ("group_channelwise_module_1", "stage4.unit2.blocks.block1"),
    ("group_channelwise_module_2", "stage4.unit2.blocks.block2"),
    ("conv_3_0", "stage5.unit1.blocks.block1"),
    ("conv_3_1", "stage5.unit1.blocks.block2"),
];

/// The original name of a parameter.
fn original(name: &str) -> String {
    if let Some(slot) = name.strip_prefix("classifier.") {
        return format!("output.{slot}");
    }
    let (layer, slot) = name.rsplit_once('.').unwrap();
    let stem = "features.stage1.unit1.blocks.block1";
    match layer {
        "stem" => return format!("{stem}.conv.{slot}"),
        "stem.bn" => return format!("{stem}.bn.{slot}"),
        _ => {}
    }
    let (block, layer) = layer.split_once('.').unwrap();
    let (_, path) = BLOCKS.iter().find(|(own, _)| *own == block).unwrap();
    // The two halves of a group module are numbered.
    let (kind, half) = match layer.strip_suffix(['1', '2']) {
        Some(kind) => (kind, &layer[kind.len()..]),
        None => (layer, ""),
    };
    let halves = if block.starts_with("group_channelwise") { "block.blocks" } else { "blocks" };
    let half = if half.is_empty() { String::new() } else { format!("{halves}.block{half}.") };
    let part = match kind {
        "channelwise" => "conv.conv",
        "depthwise" => "dw_conv",
        "pointwise" | "group_pointwise" => "pw_conv.conv",
        "bn" => "pw_conv.bn",
        other => panic!("no layer '{other}' in the original"),
    };
    format!("features.{path}.{half}{part}.{slot}")
}

/// Padded by 1 on either side as the class does, and as TensorFlow pads strides of 2.
#[test]
fn small_channelnet_v1() {
    let Some(golden) = Golden::load("channelnet-v1-small-released") else { return };
    for (same, y) in [(false, "y_eval"), (true, "y_eval_tf_same")] {
        let name = format!(
            "channelnet-v1(topology=released, channels=4/8/16/16/32/64, resolution=64, classes=10, same={same})"
        );
        let arch = arch::by_name(&name).unwrap();
        assert_eq!(arch.params().count(), golden.under("weight.").len());
        let params = arch.params().map(|(name, spec)| {
            let array = golden.get(&format!("weight.{}", original(&name)));
            let array = array_from_tensor(&array).unwrap();
            // One axis more is there in kernels along the channels.
            (name, array.into_shape_with_order(spec.shape).unwrap())
        });
        let params = params.collect();
        let net = Network::new(arch, params).unwrap();
        assert_eq!(net.param_count(), 16_734);
        for layout in LAYOUTS {
            for net in [&net, &net.folded().unwrap()] {
                let model = executor(net, layout);
                let got = no_grad(|| model.forward(&golden.get("x"), Mode::Eval).unwrap());
                check(&got, &golden.get(y), &format!("{y} in {layout:?}"));
            }
        }
    }
}
