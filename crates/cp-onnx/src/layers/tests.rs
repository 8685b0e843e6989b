//! Every reason for which a layer is left alone, what is noted, and what is said of nodes.

use cp_net::{Conv, ConvTranspose, Linear, Op, Padding};
use ndarray::ArrayD;

use super::{Layer, Note, Reason};
use crate::limits::MAX_FOLDS;
use crate::model::Model;
use crate::proto::{Field, Kind, Message, attribute, graph, model, node, tensor};
use crate::testing::{model_of, random, with_graph};
use crate::{Float, OnnxError, Parts};

fn conv(name: &str, weight: &str, attributes: Vec<Message>) -> Message {
    node::make("Conv", name, &["x", weight], name, attributes)
}

/// The only layer of a model of these nodes, with the weight `w` of this shape.
fn layer(shape: &[usize], nodes: Vec<Message>) -> Layer {
    let outputs: Vec<String> = nodes.iter().map(|node| node.string(node::OUTPUTS)).collect();
    let outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    let model = model_of(&["x"], &[("w", random(shape, 1))], nodes, &outputs);
    let mut layers = model.layers().unwrap();
    assert_eq!(layers.len(), 1, "{layers:?}");
    layers.remove(0)
}

#[track_caller]
fn check(found: &Layer, expected: Reason, words: &str) {
    assert!(expected.to_string().contains(words), "{expected}");
    assert_eq!(found.left_alone, Some(expected));
}

#[test]
fn from_outside() {
    let model = model_of(&["x", "w"], &[], vec![conv("a", "w", Vec::new())], &["a"]);
    check(&model.layers().unwrap()[0], Reason::Input { value: "w".into() }, "'w' is an input");
    let model = model_of(&["x"], &[], vec![conv("a", "w", Vec::new())], &["a"]);
    check(&model.layers().unwrap()[0], Reason::Input { value: "w".into() }, "nothing makes it");
}

#[test]
fn computed_or_from_afar() {
    let double = node::make("Add", "double", &["w", "w"], "v", Vec::new());
    let found = layer(&[2, 3, 3, 3], vec![double, conv("a", "v", Vec::new())]);
    let reason = Reason::Computed { value: "v".into(), op: "Add".into() };
    check(&found, reason, "constant folder");

    let chain = |count: usize| {
        let mut nodes = Vec::new();
        let mut value = "w".to_owned();
        for index in 0..count {
            let next = format!("v{index}");
            nodes.push(node::make("Identity", "", &[&value], &next, Vec::new()));
            value = next;
        }
        nodes.push(conv("a", &value, Vec::new()));
        layer(&[2, 3, 3, 3], nodes)
    };
    assert_eq!(chain(MAX_FOLDS).left_alone, None);
    check(&chain(MAX_FOLDS + 1), Reason::Deep { most: MAX_FOLDS }, "more than 32 nodes");
}

#[test]
fn no_numbers() {
    let fields = vec![
        Field::message(graph::NODES, conv("a", "w", Vec::new())),
        Field::message(graph::INITIALIZERS, tensor::make_integers("w", &[1, 2])),
    ];
    let found = with_graph(8, 17, fields).layers().unwrap().remove(0);
    let Some(Reason::Unreadable { value, problem }) = &found.left_alone else {
        panic!("{found:?}")
    };
    assert_eq!(value, "w");
    assert!(problem.contains("type 7"), "{problem}");
}

#[test]
fn attributes_and_shapes() {
    let wrong = |name: &str, attribute: Message, shape: &[usize]| {
        let found = layer(shape, vec![conv("a", "w", vec![attribute])]);
        let reason = Reason::Attribute { node: "a".into(), attribute: name.into() };
        check(&found, reason, name);
    };
    let shape = [4, 3, 3, 3];
    wrong("layout", attribute::string("layout", "NHWC"), &shape);
    wrong("strides", attribute::ints("strides", &[1]), &shape);
    wrong("strides", attribute::ints("strides", &[0, 1]), &shape);
    wrong("dilations", attribute::ints("dilations", &[1, 1, 1]), &shape);
    wrong("pads", attribute::ints("pads", &[1, 1]), &shape);
    wrong("kernel_shape", attribute::ints("kernel_shape", &[3, 2]), &shape);
    wrong("group", attribute::int("group", 3), &shape);
    wrong("group", attribute::int("group", 0), &shape);
    let found = layer(&[4, 3], vec![conv("a", "w", Vec::new())]);
    check(&found, Reason::Shape { shape: vec![4, 3], op: "Conv" }, "none of a Conv");
    let found = layer(&[4, 3, 2], vec![node::make("Gemm", "a", &["x", "w"], "a", Vec::new())]);
    check(&found, Reason::Shape { shape: vec![4, 3, 2], op: "Gemm" }, "none of a Gemm");
}

#[test]
fn other_operands_and_ops() {
    let found = layer(&[4, 3], vec![node::make("MatMul", "a", &["w", "x"], "a", Vec::new())]);
    check(&found, Reason::LeftOperand { op: "MatMul" }, "left operand");
    let transposed = node::make("ConvTranspose", "a", &["x", "w"], "a", Vec::new());
    check(&layer(&[4, 3, 2, 2], vec![transposed]), Reason::Transposed, "transposed");
    let grouped = |name: &str, group| conv(name, "w", vec![attribute::int("group", group)]);
    let found = layer(&[4, 3, 2, 2], vec![grouped("a", 1), grouped("b", 2)]);
    check(&found, Reason::Groups, "different numbers of groups");
    // The same number is no reason.
    assert_eq!(layer(&[4, 3, 2, 2], vec![grouped("a", 2), grouped("b", 2)]).left_alone, None);
    // A product of two values that are not constant is no layer.
    let product = node::make("MatMul", "a", &["x", "x"], "a", Vec::new());
    assert!(model_of(&["x"], &[], vec![product], &["a"]).layers().unwrap().is_empty());
}

#[test]
fn factorized_before() {
    let gemm = node::make("Gemm", "a", &["x", "w"], "a", Vec::new());
    let mut model = model_of(&["x"], &[("w", random(&[3, 3], 1))], vec![gemm], &["a"]);
    let layer = model.layers().unwrap().remove(0);
    let form = cp_net::Form::LowRank;
    let kernel = model.kernel(&layer).unwrap().into_dimensionality().unwrap();
    let factors = cp_net::Factors::new(form, 3, vec![kernel, ndarray::Array2::eye(3)]);
    let parts = Parts::new(&layer, &[factors]).unwrap();
    model.replace(&layer, &parts).unwrap();
    for part in model.layers().unwrap() {
        check(&part, Reason::Factorized { layer: "a".into() }, "factorized already");
        let error = model.clone().replace(&part, &parts).unwrap_err();
        assert!(matches!(error, OnnxError::LeftAlone { .. }), "{error}");
    }
    let error = model.replace(&layer, &parts).unwrap_err();
    assert!(matches!(error, OnnxError::UnknownLayer { .. }), "{error}");
}

/// A weight that is an input, too, in a model of this version; through a transposition.
fn default_input(ir: i64) -> (Model, Layer) {
    let named = |number, name: &str| {
        Field::message(number, Message::new(Kind::Leaf, vec![Field::string(1, name)]))
    };
    let array = random(&[3, 4], 1);
    let turned = node::make("Transpose", "turned", &["w"], "v", Vec::new());
    let product = node::make("MatMul", "a", &["x", "v"], "a", Vec::new());
    let model = with_graph(
        ir,
        11,
        vec![
            Field::message(graph::NODES, turned),
            Field::message(graph::NODES, product),
            Field::message(graph::INITIALIZERS, tensor::make("w", &array, Float::F32)),
            named(graph::INPUTS, "x"),
            graph::input("w", 1, &[3, 4]),
            named(graph::OUTPUTS, "a"),
        ],
    );
    let layer = model.layers().unwrap().remove(0);
    (model, layer)
}

#[test]
fn a_default_that_a_caller_may_override_is_constant_and_noted() {
    let (_, old) = default_input(3);
    assert_eq!((old.left_alone, old.note), (None, None));
    let (model, new) = default_input(8);
    let note = Note::DefaultInput { value: "w".into() };
    assert!(note.to_string().contains("'w' is an input with a default"), "{note}");
    assert_eq!((&new.left_alone, &new.note), (&None, &Some(note)));
    // Nobody has to feed it.
    let inputs: Vec<String> = model.inputs().into_iter().map(|input| input.name).collect();
    assert_eq!(inputs, ["x"]);
}

#[test]
fn nodes_as_ops() {
    let settings = |name: &str, pads: Message| {
        let attributes = vec![
            attribute::ints("strides", &[2, 1]),
            attribute::ints("dilations", &[1, 3]),
            attribute::int("group", 2),
            pads,
        ];
        conv(name, "w", attributes)
    };
    let nodes = vec![
        settings("a", attribute::ints("pads", &[1, 0, 2, 3])),
        settings("b", attribute::string("auto_pad", "SAME_LOWER")),
        settings("c", attribute::ints("pads", &[-1, 0, 2, 3])),
    ];
    let model = model_of(&["x"], &[("w", random(&[4, 3, 3, 2], 1))], nodes, &["a", "b", "c"]);
    let layer = model.layers().unwrap().remove(0);
    let expected = |padding| {
        let unit = Conv::new(6, 4, [3, 2]);
        let (stride, dilation) = (vec![2, 1], vec![1, 3]);
        Some(Op::from(Conv { stride, dilation, padding, groups: 2, bias: false, ..unit }))
    };
    let found = model.geometry(&layer).unwrap();
    // Negative padding is nothing that cp-net has.
    let each = Padding::Each(vec![[1, 2], [0, 3]]);
    assert_eq!(found, [expected(each), expected(Padding::SameLower), None]);
    let inputs = model.value_of_layer_input(&layer).unwrap();
    assert_eq!(inputs, [Some("x".to_owned()), Some("x".into()), Some("x".into())]);

    let turned = vec![attribute::int("transB", 1)];
    let nodes = vec![
        node::make("MatMul", "a", &["x", "w"], "a", Vec::new()),
        node::make("Gemm", "b", &["a", "w", "bias"], "b", turned),
    ];
    let arrays = [("w", random(&[3, 5], 1)), ("bias", ArrayD::zeros(vec![3]))];
    let model = model_of(&["x"], &arrays, nodes, &["b"]);
    let layer = model.layers().unwrap().remove(0);
    let linear = |in_features, out_features, bias| {
        Some(Op::from(Linear { in_features, out_features, bias }))
    };
    assert_eq!(model.geometry(&layer).unwrap(), [linear(3, 5, false), linear(5, 3, true)]);
    let inputs = model.value_of_layer_input(&layer).unwrap();
    assert_eq!(inputs, [Some("x".to_owned()), Some("a".into())]);
    // What is transposed on the way in has its features along another axis.
    let turned = vec![attribute::int("transA", 1), attribute::int("transB", 0)];
    let nodes = vec![node::make("Gemm", "b", &["x", "w", "bias"], "b", turned)];
    let arrays = [("w", random(&[3, 5], 1)), ("bias", ArrayD::zeros(vec![5]))];
    let model = model_of(&["x"], &arrays, nodes, &["b"]);
    let layer = model.layers().unwrap().remove(0);
    assert_eq!(model.geometry(&layer).unwrap(), [None]);
}

#[test]
fn transposed_convolutions_as_ops() {
    let attributes = vec![
        attribute::ints("strides", &[2]),
        attribute::ints("pads", &[1, 0]),
        attribute::ints("output_padding", &[1]),
        attribute::int("group", 2),
    ];
    let named = vec![attribute::string("auto_pad", "SAME_UPPER")];
    let nodes = vec![
        node::make("ConvTranspose", "a", &["x", "w"], "a", attributes),
        node::make("ConvTranspose", "b", &["x", "w"], "b", named),
    ];
    let model = model_of(&["x"], &[("w", random(&[4, 3, 5], 1))], nodes, &["a", "b"]);
    let layer = model.layers().unwrap().remove(0);
    let expected = ConvTranspose {
        in_channels: 4,
        out_channels: 6,
        kernel: vec![5],
        stride: vec![2],
        padding: Padding::Each(vec![[1, 0]]),
        output_padding: vec![1],
        dilation: vec![1],
        groups: 2,
        bias: false,
    };
    assert_eq!(model.geometry(&layer).unwrap(), [Some(Op::from(expected)), None]);
}

#[test]
fn graphs_inside_of_graphs() {
    // Every `If` is a message of three: node, attribute, graph.
    let nested = |count: usize| {
        let mut inner = Message::new(Kind::Graph, Vec::new());
        for _ in 0..count {
            let branch = Message::new(
                Kind::Attribute,
                vec![
                    Field::string(attribute::NAME, "then_branch"),
                    Field::message(attribute::GRAPH, inner),
                ],
            );
            let node = node::make("If", "", &["c"], "y", vec![branch]);
            inner = Message::new(Kind::Graph, vec![Field::message(graph::NODES, node)]);
        }
        let root = Message::new(Kind::Model, vec![Field::message(model::GRAPH, inner)]);
        Model::decode(Model { root, path: None }.encode())
    };
    // Model and graph, then three each; names are no messages.
    assert!(nested(32).unwrap().layers().unwrap().is_empty());
    let error = nested(33).unwrap_err();
    assert!(error.to_string().contains("more than 100 messages inside each other"), "{error}");
}

/// Values of a branch are out of reach.
#[test]
fn layers_of_a_branch() {
    let inner = Message::new(
        Kind::Graph,
        vec![
            Field::message(graph::NODES, conv("a", "w", Vec::new())),
            Field::message(graph::OUTPUTS, Message::new(Kind::Leaf, vec![Field::string(1, "a")])),
        ],
    );
    let branch = Message::new(
        Kind::Attribute,
        vec![
            Field::string(attribute::NAME, "then_branch"),
            Field::message(attribute::GRAPH, inner),
        ],
    );
    let node = node::make("If", "if", &["c"], "y", vec![branch]);
    let model = model_of(&["x", "c"], &[("w", random(&[2, 3, 3], 1))], vec![node], &["y"]);
    let layer = model.layers().unwrap().remove(0);
    assert_eq!(layer.left_alone, None);
    assert_eq!(model.value_of_layer_input(&layer).unwrap(), [None]);
    assert!(matches!(model.geometry(&layer).unwrap()[..], [Some(Op::Conv(_))]));
    let error = model.taps(&["a"]).unwrap_err();
    assert!(error.to_string().contains("nothing in the main graph makes the value 'a'"), "{error}");
}
