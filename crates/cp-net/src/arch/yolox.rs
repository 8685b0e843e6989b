//! YOLOX-nano, a detector for 416×416 images: a backbone that keeps three scales, a pyramid that mixes them, and a head for each.
//!
//! The output is `[3549, 85]`: for every place of the three maps the box (4), how sure it is that there is an object (1), and the
//! classes (80), as the released ONNX file puts them out.
//!
//! Reference: Ge et al. (2021); names as in `Megvii-BaseDetection/YOLOX`.

use super::builder::{Builder, window};
use super::settings::Settings;
use crate::error::NetError;
use crate::network::architecture::Architecture;
use crate::network::input::{Channels, INPUT, InputSpec};
use crate::op::{
    BatchNorm, Concat, Coordinates, Reshape, Resize, ResizeMode, Rounding, Slice, Transpose,
};

/// Of a quarter of the width and a third of the depth, with depthwise separable 3×3 convolutions.
pub(super) fn nano(settings: &mut Settings) -> Result<Architecture, NetError> {
    let classes = settings.classes(80)?;
    // Pixels as they are, 0 … 255, in the order blue, green, red.
    let input = InputSpec {
        name: INPUT.into(),
        shape: vec![3, 416, 416],
        channels: Channels::Bgr,
        scale: 1.0,
        mean: vec![0.0; 3],
        std: vec![1.0; 3],
    };
    let net = focus(Builder::new("yolox-nano", input));

    let dark = |part: &str| format!("backbone.backbone.{part}");
    let mut net = base(net, &dark("stem.conv"), 16, 3, 1);
    net = separable(net, &dark("dark2.0"), 32, 2);
    net = csp(net, &dark("dark2.1"), 32, 1, true);
    net = separable(net, &dark("dark3.0"), 64, 2);
    net = csp(net, &dark("dark3.1"), 64, 3, true);
    let fine = net.here();
    net = separable(net, &dark("dark4.0"), 128, 2);
    net = csp(net, &dark("dark4.1"), 128, 3, true);
    let middle = net.here();
    net = separable(net, &dark("dark5.0"), 256, 2);
    net = pyramid_pooling(net, &dark("dark5.1"), 256);
    net = csp(net, &dark("dark5.2"), 256, 1, false);

    let neck = |part: &str| format!("backbone.{part}");
    let join = |net: Builder, name: &str, other: &str| {
        let here = net.here();
        net.concat(&neck(name), &[here, other.to_string()])
    };
    net = base(net, &neck("lateral_conv0"), 128, 1, 1);
    let lateral = net.here();
    net = join(upsample(net, &neck("upsample0")), "cat0", &middle);
    net = csp(net, &neck("C3_p4"), 128, 1, false);
    net = base(net, &neck("reduce_conv1"), 64, 1, 1);
    let reduced = net.here();
    net = join(upsample(net, &neck("upsample1")), "cat1", &fine);
    net = csp(net, &neck("C3_p3"), 64, 1, false);
    let small = net.here();
    net = join(separable(net, &neck("bu_conv2"), 64, 2), "cat2", &reduced);
    net = csp(net, &neck("C3_n3"), 128, 1, false);
    let medium = net.here();
    net = join(separable(net, &neck("bu_conv1"), 128, 2), "cat3", &lateral);
    net = csp(net, &neck("C3_n4"), 256, 1, false);
    let large = net.here();

    let mut maps = Vec::new();
    for (level, from) in [small, medium, large].iter().enumerate() {
        net = head(net.at(from), level, classes);
        maps.push(net.here());
    }
    net.node("detections", Concat { axis: 1 }, maps)
        .op("output", Transpose { axes: vec![1, 0] })
        .build()
}

/// Every other row and column, from each of the four places to start, side by side.
fn focus(mut net: Builder) -> Builder {
    let mut patches = Vec::new();
    for (name, row, column) in
        [("top_left", 0, 0), ("bottom_left", 1, 0), ("top_right", 0, 1), ("bottom_right", 1, 1)]
    {
        let of = |part: &str| format!("backbone.backbone.stem.{name}.{part}");
        let every_other = |axis, start| Slice { axis, start, end: None, step: 2 };
        net = net
            .at(INPUT)
            .op(&of("rows"), every_other(1, row))
            .op(&of("columns"), every_other(2, column));
        patches.push(net.here());
    }
    net.concat("backbone.backbone.stem.cat", &patches)
}

/// Convolution, batch norm (ε 1e-3), SiLU.
fn base(net: Builder, name: &str, out: usize, size: usize, stride: usize) -> Builder {
    let window = window(size).stride(stride).pad(size / 2).no_bias();
    finish(net.conv(&format!("{name}.conv"), out, window), name)
}

/// Batch norm and SiLU behind the convolution of `name`.
fn finish(net: Builder, name: &str) -> Builder {
    let norm = BatchNorm { channels: 0, eps: 1e-3, momentum: 0.03 };
    net.op(&format!("{name}.bn"), norm).silu(&format!("{name}.act"))
}

/// 3×3 of every channel by itself, then 1×1.
fn separable(net: Builder, name: &str, out: usize, stride: usize) -> Builder {
    let depthwise = format!("{name}.dconv");
    let net =
        net.depthwise(&format!("{depthwise}.conv"), window(3).stride(stride).pad(1).no_bias());
    base(finish(net, &depthwise), &format!("{name}.pconv"), out, 1, 1)
}

/// Half of the channels through `blocks` bottlenecks, half past them.
fn csp(net: Builder, name: &str, out: usize, blocks: usize, shortcut: bool) -> Builder {
    let of = |part: &str| format!("{name}.{part}");
    let from = net.here();
    let mut net = base(net, &of("conv1"), out / 2, 1, 1);
    let first = net.here();
    net = base(net.at(&from), &of("conv2"), out / 2, 1, 1);
    let past = net.here();
    net = net.at(&first);
    for block in 0..blocks {
        let entry = net.here();
        let part = |part: &str| of(&format!("m.{block}.{part}"));
        net = base(net, &part("conv1"), out / 2, 1, 1);
        net = separable(net, &part("conv2"), out / 2, 1);
        if shortcut {
            net = net.add(&part("add"), &entry);
        }
    }
    let through = net.here();
    base(net.concat(&of("cat"), &[through, past]), &of("conv3"), out, 1, 1)
}

/// Spatial pyramid pooling (He et al. 2015): the maxima over 5×5, 9×9 and 13×13 beside the map itself.
fn pyramid_pooling(net: Builder, name: &str, out: usize) -> Builder {
    let of = |part: &str| format!("{name}.{part}");
    let entry = net.channels();
    let mut net = base(net, &of("conv1"), entry / 2, 1, 1);
    let from = net.here();
    let mut maps = vec![from.clone()];
    for (index, size) in [5, 9, 13].into_iter().enumerate() {
        net = net.at(&from).max_pool(&of(&format!("m.{index}")), window(size).pad(size / 2));
        maps.push(net.here());
    }
    base(net.concat(&of("cat"), &maps), &of("conv2"), out, 1, 1)
}

/// Every pixel twice along both axes.
fn upsample(net: Builder, name: &str) -> Builder {
    let resize = Resize {
        sizes: None,
        scales: Some(vec![2.0, 2.0]),
        mode: ResizeMode::Nearest,
        coordinates: Coordinates::Asymmetric,
        rounding: Rounding::Floor,
    };
    net.op(name, resize)
}

/// Box, objectness and classes of every place of a map, `[85, places]`.
fn head(net: Builder, level: usize, classes: usize) -> Builder {
    let of = |part: &str| format!("head.{part}");
    let mut net = base(net, &of(&format!("stems.{level}")), 64, 1, 1);
    let stem = net.here();
    let pred = |part: &str| of(&format!("{part}_preds.{level}"));
    let convs = |net: Builder, branch: &str| {
        (0..2).fold(net.at(&stem), |net, conv| {
            separable(net, &of(&format!("{branch}_convs.{level}.{conv}")), 64, 1)
        })
    };
    net = convs(net, "cls")
        .conv(&pred("cls"), classes, window(1))
        .sigmoid(&of(&format!("cls_sigmoid.{level}")));
    net = convs(net, "reg");
    let regression = net.here();
    net = net
        .conv(&pred("reg"), 4, window(1))
        .at(&regression)
        .conv(&pred("obj"), 1, window(1))
        .sigmoid(&of(&format!("obj_sigmoid.{level}")));
    let parts =
        [pred("reg"), of(&format!("obj_sigmoid.{level}")), of(&format!("cls_sigmoid.{level}"))];
    let flat = Reshape { shape: vec![0, -1] };
    net.concat(&of(&format!("cat.{level}")), &parts).op(&of(&format!("flat.{level}")), flat)
}
