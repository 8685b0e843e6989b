//! Small models for the tests of this crate, and their outputs by the definitions of cp-net's ops.

use std::collections::BTreeMap;

use cp_net::{Draw, Op};
use ndarray::{ArrayD, ArrayViewD, Axis, Ix2};

use crate::Float;
use crate::layers::{LayerKind, op};
use crate::model::Model;
use crate::proto::{Field, Kind, Message, attribute, graph, model, node, tensor};

/// Values from −1 to 1.
pub(crate) fn random(shape: &[usize], seed: u64) -> ArrayD<f32> {
    Draw::new(seed).array(shape, (-1.0, 1.0))
}

/// A model of IR 8 and opset 17, whose inputs and outputs have no types.
pub(crate) fn model_of(
    inputs: &[&str],
    initializers: &[(&str, ArrayD<f32>)],
    nodes: Vec<Message>,
    outputs: &[&str],
) -> Model {
    let named = |number, name: &&str| {
        Field::message(number, Message::new(Kind::Leaf, vec![Field::string(1, name)]))
    };
    let mut fields: Vec<Field> =
        nodes.into_iter().map(|node| Field::message(graph::NODES, node)).collect();
    fields.extend(initializers.iter().map(|(name, array)| {
        Field::message(graph::INITIALIZERS, tensor::make(name, array, Float::F32))
    }));
    fields.extend(inputs.iter().map(|name| named(graph::INPUTS, name)));
    fields.extend(outputs.iter().map(|name| named(graph::OUTPUTS, name)));
    with_graph(8, 17, fields)
}

/// A model with a graph of these fields.
pub(crate) fn with_graph(ir: i64, opset: i64, fields: Vec<Field>) -> Model {
    let set = Message::new(Kind::Leaf, vec![Field::string(1, ""), Field::int(2, opset)]);
    let root = Message::new(
        Kind::Model,
        vec![
            Field::int(model::IR_VERSION, ir),
            Field::message(model::OPSETS, set),
            Field::message(model::GRAPH, Message::new(Kind::Graph, fields)),
        ],
    );
    // Through bytes, as files come.
    Model::decode(Model { root, path: None }.encode()).unwrap()
}

/// Every value of a model of `Conv`, `Gemm`, `MatMul`, `Transpose`, `Identity`, `Gather`, `Unsqueeze` and `Squeeze`.
pub(crate) fn values(
    model: &Model,
    inputs: &[(&str, ArrayD<f32>)],
) -> BTreeMap<String, ArrayD<f32>> {
    let graph = model.graph().unwrap();
    let mut known: BTreeMap<String, ArrayD<f32>> =
        inputs.iter().map(|(name, array)| ((*name).to_owned(), array.clone())).collect();
    for (_, initializer) in graph.children(graph::INITIALIZERS) {
        let array = tensor::array(initializer, |_| unreachable!());
        // Positions and axes are small: they are numbers here, too.
        let integers = || {
            let values = tensor::integers(initializer).unwrap();
            ArrayD::from_shape_vec(vec![values.len()], values).unwrap().mapv(|value| value as f32)
        };
        let array = array.unwrap_or_else(|_| integers());
        known.insert(initializer.string(tensor::NAME), array);
    }
    for (_, found) in graph.children(graph::NODES) {
        let reads = found.strings(node::INPUTS);
        let read: Vec<ArrayD<f32>> =
            reads.iter().filter_map(|name| known.get(name).cloned()).collect();
        assert_eq!(reads.len(), read.len(), "{reads:?}");
        let made = match found.string(node::OP).as_str() {
            "Conv" => {
                let op = op(found, LayerKind::Conv, read[1].shape(), false).unwrap();
                let params: Vec<ArrayViewD<'_, f32>> = read[1..].iter().map(ArrayD::view).collect();
                assert!(matches!(op, Op::Conv(_)));
                op.eval(&[read[0].view()], &params).remove(0)
            }
            "Gemm" => gemm(found, &read),
            "MatMul" => matrix(&read[0], false).dot(&matrix(&read[1], false)).into_dyn(),
            "Transpose" => matrix(&read[0], true).into_dyn(),
            "Identity" => read[0].clone(),
            "Gather" => {
                let axis = node::attribute(found, "axis").unwrap().int(attribute::INT).unwrap();
                let indices: Vec<usize> = read[1].iter().map(|&index| index as usize).collect();
                read[0].select(Axis(axis as usize), &indices)
            }
            "Unsqueeze" => read[0].clone().insert_axis(Axis(axis(found, &read))),
            "Squeeze" => {
                assert_eq!(read[0].len_of(Axis(axis(found, &read))), 1);
                read[0].clone().index_axis_move(Axis(axis(found, &read)), 0)
            }
            other => panic!("{other}"),
        };
        known.insert(found.string(node::OUTPUTS), made);
    }
    known
}

/// The only one of `axes`, which is an attribute or the second input.
fn axis(found: &Message, read: &[ArrayD<f32>]) -> usize {
    let attribute = node::attribute(found, "axes").map(|axes| axes.ints(attribute::INTS));
    assert!(attribute.is_some() != (read.len() == 2), "an attribute or an input");
    attribute.map_or_else(|| read[1][[0]] as usize, |axes| axes[0] as usize)
}

fn matrix(array: &ArrayD<f32>, turned: bool) -> ndarray::Array2<f32> {
    let matrix = array.clone().into_dimensionality::<Ix2>().unwrap();
    if turned { matrix.reversed_axes().as_standard_layout().into_owned() } else { matrix }
}

fn gemm(found: &Message, read: &[ArrayD<f32>]) -> ArrayD<f32> {
    let flag = |name: &str| {
        node::attribute(found, name).and_then(|flag| flag.int(attribute::INT)).unwrap_or(0) != 0
    };
    let number = |name: &str| {
        let bytes = node::attribute(found, name).map(|found| found.fixed(attribute::FLOAT));
        bytes.map_or(1.0, |bytes| f32::from_le_bytes(bytes[..4].try_into().unwrap()))
    };
    let product = matrix(&read[0], flag("transA")).dot(&matrix(&read[1], flag("transB")));
    let mut sum = (product * number("alpha")).into_dyn();
    if let Some(bias) = read.get(2) {
        sum = sum + bias * number("beta");
    }
    sum
}

/// Whether two arrays are equal but for rounding.
#[track_caller]
pub(crate) fn assert_near(found: &ArrayD<f32>, expected: &ArrayD<f32>, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let largest = expected.iter().fold(1e-6_f32, |most, value| most.max(value.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-4 * largest, "{what}: {found}, not {expected}");
    }
}
