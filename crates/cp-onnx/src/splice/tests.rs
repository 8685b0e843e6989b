//! Factors of every form in the place of layers of every geometry, by the definitions of the ops.

use cp_net::{
    Architecture, Conv, Draw, Factors, Form, InputSpec, Linear, Network, Node, Op, Padding, Rank,
};
use ndarray::Array2;

use crate::model::Model;
use crate::parts::Parts;
use crate::proto::{Message, attribute, node};
use crate::testing::{assert_near, model_of, random, values};
use crate::{ExportOptions, Reason, export};

/// Random factors of `layer`, as a decomposition might give them.
fn factors(net: &Network, layer: &str, form: Form, rank: Rank) -> Vec<Factors> {
    let mut arch = net.architecture().clone();
    let parts = arch.factorize(layer, form, rank).unwrap().parts.clone();
    let groups = net.tensors(layer, form).unwrap().len();
    let mut draw = Draw::new(11);
    let group = |_| {
        let (mut matrices, mut gathers) = (Vec::new(), Vec::new());
        for part in &parts {
            match &arch.node(part).unwrap().op {
                Op::Gather(gather) => gathers.push(gather.indices.len() / groups),
                op if op.has_kernel() => {
                    let shape = op.params()[0].shape.clone();
                    let columns = shape[1..].iter().product();
                    let array = draw.array(&[shape[0] / groups, columns], (-1.0, 1.0));
                    matrices.push(array.into_dimensionality::<ndarray::Ix2>().unwrap());
                }
                _ => {}
            }
        }
        Factors::new(form, rank, matrices).with_order(orders(form, rank, &gathers))
    };
    (0..groups).map(group).collect()
}

/// Orders in which nothing stays where it was, of gathers of these sizes.
fn orders(form: Form, rank: Rank, sizes: &[usize]) -> Vec<Vec<usize>> {
    let backwards = |size: usize| (0..size).rev().collect();
    match (form, sizes) {
        (Form::Denton | Form::DentonSvd, &[first, _, last]) => {
            vec![backwards(first), backwards(last)]
        }
        (Form::Monochromatic, &[filters]) => {
            let colours = rank.parts()[0];
            vec![(0..filters).map(|filter| (filter * filter + 1) % colours).collect()]
        }
        _ => Vec::new(),
    }
}

/// A network of one layer, called `x`, that reads `in`.
fn alone(op: impl Into<Op>, input: &[usize]) -> Network {
    let spec = InputSpec::features(input).named("in");
    let arch = Architecture::new("alone", spec, vec![Node::new("x", op, ["in"])]);
    let mut draw = Draw::new(5);
    let params = arch.params().map(|(name, spec)| (name, draw.array(&spec.shape, (-1.0, 1.0))));
    let params = params.collect();
    Network::new(arch, params).unwrap()
}

/// Replaced in the model and in the network: the same outputs. `padding` is written by name into the model.
fn check(op: impl Into<Op>, input: &[usize], form: Form, rank: Rank, padding: Option<&str>) {
    let mut net = alone(op, input);
    let mut model = export(&net, &ExportOptions::default()).unwrap();
    if let Some(auto_pad) = padding {
        by_name(&mut model, auto_pad);
    }
    let layer = model.layers().unwrap().remove(0);
    let label = format!("{form} {rank} of {:?}", net.nodes()[0].op);
    let factors = factors(&net, "x", form, rank);
    model.replace(&layer, &Parts::new(&layer, &factors).unwrap()).unwrap();
    net.put_factors("x", &factors, 0.0).unwrap();
    let x = random(&[&[2], input].concat(), 3);
    let made = values(&model, &[("in", x.clone())]);
    let mut value = x;
    for node in net.nodes() {
        let params: Vec<_> =
            node.param_specs().map(|(name, _)| net.params()[&name].view()).collect();
        value = node.op.eval(&[value.view()], &params).remove(0);
    }
    assert_near(&made["x"], &value, &label);
    // Through bytes, the parts are known.
    let again = Model::decode(model.encode()).unwrap();
    let layers = again.layers().unwrap();
    let kernels = net.nodes().iter().filter(|node| node.op.has_kernel()).count();
    assert_eq!(layers.len(), kernels, "{label}");
    for layer in layers {
        let expected = Reason::Factorized { layer: "x".into() };
        assert_eq!(layer.left_alone, Some(expected), "{label}");
    }
}

/// `auto_pad` for `pads` in the model's only node.
fn by_name(model: &mut Model, auto_pad: &str) {
    use crate::proto::{Field, Payload, graph};
    for field in &mut model.root.fields {
        let Payload::Message(graph, _) = &mut field.payload else { continue };
        for field in graph.fields.iter_mut().filter(|field| field.number == graph::NODES) {
            let Payload::Message(node, _) = &mut field.payload else { continue };
            node.fields.retain(|field| match &field.payload {
                Payload::Message(attribute, _) => attribute.string(attribute::NAME) != "pads",
                Payload::Bytes(_) => true,
            });
            let attribute = attribute::string("auto_pad", auto_pad);
            node.fields.push(Field::message(node::ATTRIBUTES, attribute));
        }
    }
}

fn conv(channels: [usize; 2], kernel: &[usize], groups: usize) -> Conv {
    Conv { groups, ..Conv::new(channels[0], channels[1], kernel) }
}

/// Every form that a convolution with a spatial extent can have.
fn check_forms(conv: &Conv, input: &[usize], padding: Option<&str>) {
    let [out, inputs] = [conv.out_channels / conv.groups, conv.in_channels / conv.groups];
    let two = [out.min(2), inputs.min(2)];
    check(conv.clone(), input, Form::Cp3, 3.into(), padding);
    check(conv.clone(), input, Form::Cp4, 3.into(), padding);
    check(conv.clone(), input, Form::Tucker2, two.into(), padding);
    check(conv.clone(), input, Form::TkdCpd, [two[0], two[1], 3].into(), padding);
    check(conv.clone(), input, Form::Decoupled, 2.into(), padding);
    let halves = [out, inputs].map(|channels| 1 + usize::from(channels.is_multiple_of(2)));
    let rank = [halves[0], halves[1], 2].into();
    check(conv.clone(), input, Form::Denton, rank, padding);
    let rank = [halves[0], halves[1], out / halves[0], inputs / halves[1]].into();
    check(conv.clone(), input, Form::DentonSvd, rank, padding);
    if conv.groups == 1 {
        check(conv.clone(), input, Form::Monochromatic, 2.into(), padding);
    }
    if conv.kernel.len() == 2 {
        check(conv.clone(), input, Form::Jaderberg1, 2.into(), padding);
        check(conv.clone(), input, Form::Jaderberg2, 2.into(), padding);
        if conv.groups == 1 {
            check(conv.clone(), input, Form::Jaderberg1Shared, 3.into(), padding);
        }
    }
}

#[test]
fn every_form_over_one_to_three_axes() {
    check_forms(&conv([3, 4], &[3], 1), &[3, 9], None);
    check_forms(&conv([3, 4], &[3, 2], 1), &[3, 6, 5], None);
    check_forms(&conv([2, 3], &[2, 3, 2], 1), &[2, 4, 5, 4], None);
}

#[test]
fn every_form_with_every_geometry() {
    let dense = conv([4, 6], &[3, 3], 1);
    let strided = Conv { stride: vec![2, 3], ..dense.clone() };
    check_forms(&strided, &[4, 8, 9], None);
    let dilated = Conv { dilation: vec![3, 2], ..dense.clone() };
    check_forms(&dilated, &[4, 9, 8], None);
    let padding = Padding::Each(vec![[0, 2], [1, 0]]);
    check_forms(&Conv { padding, ..strided.clone() }, &[4, 7, 8], None);
    let grouped = conv([4, 6], &[3, 3], 2);
    let padding = Padding::symmetric([1, 1]);
    check_forms(&Conv { padding, stride: vec![2, 1], ..grouped }, &[4, 6, 6], None);
    check_forms(&Conv { bias: false, ..dense }, &[4, 5, 5], None);
}

#[test]
fn every_form_padded_by_name() {
    let strided = Conv { stride: vec![2, 3], ..conv([3, 4], &[3, 4], 1) };
    let named = [
        ("SAME_UPPER", Padding::Same),
        ("SAME_LOWER", Padding::SameLower),
        ("VALID", Padding::none(2)),
    ];
    for (name, padding) in named {
        check_forms(&Conv { padding, ..strided.clone() }, &[3, 8, 9], Some(name));
    }
}

#[test]
fn low_rank() {
    let pointwise = Conv { stride: vec![2, 1], ..conv([4, 6], &[1, 1], 2) };
    check(pointwise.clone(), &[4, 5, 4], Form::LowRank, 2.into(), None);
    let padding = Padding::Each(vec![[1, 0], [0, 2]]);
    check(Conv { padding, ..pointwise }, &[4, 5, 4], Form::LowRank, 1.into(), None);
    let linear = Linear { in_features: 5, out_features: 7, bias: true };
    check(linear.clone(), &[5], Form::LowRank, 3.into(), None);
    check(Linear { bias: false, ..linear }, &[5], Form::LowRank, 4.into(), None);
}

/// `Gemm` with these settings: `alpha`, `transA`, `transB`.
fn gemm(name: &str, inputs: &[&str], alpha: f32, trans_a: i64, trans_b: i64) -> Message {
    let attributes = vec![
        attribute::float("alpha", alpha),
        attribute::float("beta", 0.5),
        attribute::int("transA", trans_a),
        attribute::int("transB", trans_b),
    ];
    node::make("Gemm", name, inputs, name, attributes)
}

/// Factors of full rank change nothing, whichever of the nodes comes first.
fn check_shared(nodes: Vec<Message>) {
    // Square, so that it fits both ways round.
    let (w, b) = (random(&[4, 4], 1), random(&[4], 2));
    let outputs: Vec<String> = nodes.iter().map(|node| node.string(node::OUTPUTS)).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let mut model = model_of(&["x"], &[("w", w), ("b", b)], nodes, &outputs);
    let x = random(&[4, 4], 3);
    let before = values(&model, &[("x", x.clone())]);
    let layers = model.layers().unwrap();
    assert_eq!(layers.len(), 1, "{layers:?}");
    assert_eq!((layers[0].left_alone.clone(), layers[0].nodes.len()), (None, outputs.len()));
    let kernel = model.kernel(&layers[0]).unwrap().into_dimensionality().unwrap();
    let (form, rank) = (Form::LowRank, Rank::One(4));
    let factors = Factors::new(form, rank, vec![kernel, Array2::eye(4)]);
    model.replace(&layers[0], &Parts::new(&layers[0], &[factors]).unwrap()).unwrap();
    let after = values(&model, &[("x", x)]);
    for output in outputs {
        assert_near(&after[output], &before[output], output);
    }
    assert!(!after.contains_key("w"));
}

#[test]
fn a_linear_weight_that_is_shared() {
    let plain = || gemm("plain", &["x", "w", "b"], 1.0, 0, 0);
    let turned = || gemm("turned", &["x", "w", "b"], 1.0, 0, 1);
    let scaled = || gemm("scaled", &["x", "w"], -2.5, 1, 0);
    let product = || node::make("MatMul", "product", &["x", "w"], "product", Vec::new());
    check_shared(vec![plain(), turned()]);
    check_shared(vec![turned(), plain()]);
    check_shared(vec![turned(), scaled(), plain()]);
    check_shared(vec![plain(), product()]);
    check_shared(vec![product(), turned(), scaled()]);
    check_shared(vec![turned(), product()]);
}

/// All at once comes to what one after the other comes to.
#[test]
fn many_layers_at_once() {
    let net = cp_net::arch::by_name("small-cnn").unwrap().initialize(5).unwrap();
    let model = export(&net, &ExportOptions::default()).unwrap();
    let replacements: Vec<_> = (model.layers().unwrap().into_iter())
        .map(|layer| {
            let form = Form::Cp3.suited_to(&layer.op().unwrap()).unwrap();
            let parts = Parts::new(&layer, &factors(&net, &layer.name, form, 2.into())).unwrap();
            (layer, parts)
        })
        .collect();
    assert!(replacements.len() > 2);
    let mut one_by_one = model.clone();
    for (layer, parts) in &replacements {
        one_by_one.replace(layer, parts).unwrap();
    }
    let mut at_once = model.clone();
    at_once.replace_all(&replacements).unwrap();
    assert_eq!(at_once.encode(), one_by_one.encode());
    // One that is wrong leaves all as they were.
    let mut twice = replacements.clone();
    twice.push(replacements[0].clone());
    let mut unchanged = model.clone();
    unchanged.replace_all(&twice).unwrap_err();
    assert_eq!(unchanged.encode(), model.encode());
}

/// Fields that nobody knows, in every message of a kind, and what a model says beside its graph.
#[test]
fn all_else_survives() {
    use crate::proto::{Field, Kind, Payload, graph, model};
    let conv = |name: &str, input: &str, weight: &str| {
        let mut node = node::make("Conv", name, &[input, weight], name, Vec::new());
        node.fields.push(Field::string(99, &format!("unknown of {name}")));
        node
    };
    let foreign = {
        let mut node = node::make("Anything", "foreign", &["a"], "f", Vec::new());
        node.fields.push(Field::string(node::DOMAIN, "com.example"));
        node
    };
    let arrays = [("w", random(&[4, 3, 3], 1)), ("v", random(&[2, 4, 3], 2))];
    let nodes = vec![conv("a", "x", "w"), foreign, conv("b", "f", "v")];
    let mut model = model_of(&["x"], &arrays, nodes, &["b"]);
    let set = Message::new(Kind::Leaf, vec![Field::string(1, "com.example"), Field::int(2, 7)]);
    model.root.fields.push(Field::message(model::OPSETS, set));
    model.root.fields.push(model::entry(model::METADATA, "author", "somebody"));
    model.root.fields.push(Field::string(98, "unknown of the model"));
    for field in &mut model.root.fields {
        let Payload::Message(graph, _) = &mut field.payload else { continue };
        if field.number != model::GRAPH {
            continue;
        }
        graph.fields.push(Field::string(97, "unknown of the graph"));
        for field in graph.fields.iter_mut().filter(|field| field.number == graph::INITIALIZERS) {
            let Payload::Message(tensor, _) = &mut field.payload else { continue };
            tensor.fields.push(Field::string(96, "unknown of a tensor"));
        }
    }
    let layer = model.layers().unwrap().remove(0);
    let net = alone(Conv { bias: false, ..Conv::new(3, 4, [3]) }, &[3, 9]);
    let parts = Parts::new(&layer, &factors(&net, "x", Form::Cp3, 2.into())).unwrap();
    model.replace(&layer, &parts).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    model.save(&path).unwrap();
    let again = Model::open(&path).unwrap();
    let bytes = again.encode();
    assert_eq!(bytes, model.encode());
    let count =
        |text: &str| bytes.windows(text.len()).filter(|part| *part == text.as_bytes()).count();
    for text in ["unknown of the model", "unknown of the graph", "unknown of b", "somebody"] {
        assert_eq!(count(text), 1, "{text}");
    }
    // Gone with what they stood in, the node `a` and its weight; the other weight is left.
    assert_eq!(count("unknown of a"), count("unknown of a tensor"));
    assert_eq!(count("unknown of a tensor"), 1);
    assert_eq!(crate::proto::model::opset(&again.root, model::OPSETS), 17);
    let sets: Vec<(String, Option<i64>)> =
        (again.root.children(model::OPSETS)).map(|(_, set)| (set.string(1), set.int(2))).collect();
    assert_eq!(sets, [(String::new(), Some(17)), ("com.example".into(), Some(7))]);
    assert_eq!(again.root.int(model::IR_VERSION), Some(8));
    // A second run adds to the record.
    let mut twice = again.clone();
    let layer = twice.layers().unwrap().into_iter().find(|layer| layer.name == "b").unwrap();
    let net = alone(Conv { bias: false, ..Conv::new(4, 2, [3]) }, &[4, 9]);
    let parts = Parts::new(&layer, &factors(&net, "x", Form::Cp3, 2.into())).unwrap();
    twice.replace(&layer, &parts).unwrap();
    let names: Vec<String> =
        twice.factorizations().unwrap().into_iter().map(|record| record.layer).collect();
    assert_eq!(names, ["a", "b"]);
}
