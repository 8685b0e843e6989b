//! What holds for every op: random settings hang together, are what their files say, and are refused where they make no sense.
#![allow(clippy::unwrap_used, reason = "clippy allows it in tests, but not in their helpers")]

use cp_net::{Architecture, Draw, INPUT, InputSpec, Network, Node, Op, OpSpec, Way};
use ndarray::{ArrayD, ArrayViewD};
use serde_json::{Value, json};

const SEEDS: u64 = 100;

/// Arrays of inputs or parameters.
type Arrays = Vec<ArrayD<f32>>;

/// `seed`'s settings of the op `kind`, the shapes of its inputs, and values of inputs (a batch of 2) and parameters.
fn sample(kind: &str, seed: u64) -> (Op, Vec<Vec<usize>>, Arrays, Arrays) {
    let mut draw = Draw::new(seed);
    let sample = Op::sample(kind, &mut draw).unwrap();
    let values = sample.values;
    let inputs = sample.inputs.iter();
    let inputs =
        inputs.map(|shape| draw.array(&[&[2], shape.as_slice()].concat(), values)).collect();
    let params = sample.op.params();
    let params = params.iter().map(|spec| draw.array(&spec.shape, values)).collect();
    (sample.op, sample.inputs, inputs, params)
}

/// Calls `test` for every op and many settings; what it complains of is listed together.
fn every_op(test: impl Fn(&str, u64) -> Result<(), String>) {
    let failures: Vec<String> = Op::KINDS
        .iter()
        .flat_map(|kind| (0..SEEDS).map(move |seed| (kind, seed)))
        .filter_map(|(kind, seed)| {
            test(kind, seed).err().map(|error| format!("{kind}, seed {seed}: {error}"))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn shapes_are_those_of_the_definition() {
    every_op(|kind, seed| {
        let (op, shapes, inputs, params) = sample(kind, seed);
        op.check().map_err(|error| format!("{op:?}: {error}"))?;
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let outputs = op.output(&shapes).map_err(|error| format!("{op:?}: {error:?}"))?;
        let views: Vec<ArrayViewD<'_, f32>> = inputs.iter().map(ArrayD::view).collect();
        let params: Vec<ArrayViewD<'_, f32>> = params.iter().map(ArrayD::view).collect();
        let results = op.eval(&views, &params);
        let batch = if inputs.is_empty() { 1 } else { 2 };
        let expected: Vec<Vec<usize>> =
            outputs.iter().map(|shape| [&[batch], shape.as_slice()].concat()).collect();
        let got: Vec<Vec<usize>> = results.iter().map(|result| result.shape().to_vec()).collect();
        if got != expected || outputs.len() != op.output_count() {
            return Err(format!("{op:?} of {shapes:?}: {got:?}, expected {expected:?}"));
        }
        let finite = results.iter().all(|result| result.iter().all(|value| value.is_finite()));
        if finite { Ok(()) } else { Err(format!("{op:?}: values that are not finite")) }
    });
}

#[test]
fn files_hold_every_setting() {
    every_op(|kind, seed| {
        let (op, shapes, ..) = sample(kind, seed);
        let inputs = (0..shapes.len()).map(|index| format!("x{index}"));
        let node = Node::new("node", op, inputs);
        let text = serde_json::to_string(&node).unwrap();
        let back: Node = serde_json::from_str(&text).map_err(|error| format!("{text}: {error}"))?;
        if back != node {
            return Err(format!("{text} became {back:?}"));
        }
        // A slip of the pen is found.
        let mut wrong: Value = serde_json::from_str(&text).unwrap();
        wrong["strid"] = json!(2);
        match serde_json::from_value::<Node>(wrong) {
            Err(error) if error.to_string().contains("layer 'node'") => Ok(()),
            other => Err(format!("an unknown setting gave {other:?}")),
        }
    });
}

/// The terms of the sums of all convolutions of `way`.
fn terms(way: &Way, input: &[usize]) -> usize {
    let mut count = 0;
    let mut shape = input.to_vec();
    for part in &way.parts {
        shape = part.conv.output(&[&shape]).unwrap().remove(0);
        for _value in ndarray::indices(shape.as_slice()) {
            for _term in ndarray::indices(&part.conv.weight_shape()[1..]) {
                count += 1;
            }
        }
    }
    count
}

/// What the convolutions of a way give is what the op gives, and so does the network in which they stand in its place.
#[test]
fn every_way_is_the_definition() {
    let seen = std::cell::Cell::new(0);
    every_op(|kind, seed| {
        let (op, shapes, inputs, params) = sample(kind, seed);
        let ways = op.ways();
        if ways.is_empty() {
            return Ok(());
        }
        seen.set(seen.get() + 1);
        let slots: Vec<&str> = op.params().iter().map(|spec| spec.slot).collect();
        let find = |slot: &str| params[slots.iter().position(|s| *s == slot).unwrap()].view();
        let views: Vec<ArrayViewD<'_, f32>> = params.iter().map(ArrayD::view).collect();
        let expected = op.eval(&[inputs[0].view()], &views).remove(0);
        let near = |got: &ArrayD<f32>, what: &str| {
            let worst = (got - &expected).iter().fold(0.0, |worst: f32, d| worst.max(d.abs()));
            if worst <= 1e-5 { Ok(()) } else { Err(format!("{op:?} as {what}: off by {worst}")) }
        };
        for way in &ways {
            let mut y = inputs[0].clone();
            for part in &way.parts {
                let factors: Vec<_> = part.kernel.slots.iter().map(|slot| find(slot)).collect();
                let kernel = part.kernel.eval(&factors).mapv(|value| value as f32);
                let kernel = kernel.into_shape_with_order(part.conv.weight_shape()).unwrap();
                let mut arrays = vec![kernel];
                arrays.extend(part.conv.bias.then(|| find("bias").to_owned()));
                let arrays: Vec<ArrayViewD<'_, f32>> = arrays.iter().map(ArrayD::view).collect();
                y = part.conv.eval(&[y.view()], &arrays).remove(0);
            }
            near(&y, way.name)?;
        }
        let node = Node::new("layer", op.clone(), [INPUT]);
        let arch = Architecture::new("one", InputSpec::features(shapes[0].clone()), vec![node]);
        let names = slots.iter().map(|slot| format!("layer.{slot}"));
        let net = Network::new(arch, names.zip(params.iter().cloned()).collect()).unwrap();
        let folded = net.folded().unwrap();
        if folded.architecture().nodes.iter().any(|node| !matches!(node.op, Op::Conv(_))) {
            return Err(format!("{op:?} is still there"));
        }
        let macs = |net: &Network| net.cost(net.architecture().input_shapes()).unwrap().total.macs;
        assert_eq!(macs(&folded), macs(&net));
        near(&folded.eval(&[inputs[0].view()]).unwrap()[0], "folded")
    });
    assert!(seen.get() >= 3 * SEEDS);
}

/// Multiply-adds are the terms of the sums of the definition: of a convolution, those of every output value.
#[test]
fn costs_are_a_count() {
    every_op(|kind, seed| {
        let (op, shapes, ..) = sample(kind, seed);
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let outputs = op.output(&shapes).unwrap();
        let mut count = 0;
        match &op {
            Op::Conv(conv) => {
                for _value in ndarray::indices(outputs[0].as_slice()) {
                    for _term in ndarray::indices(&conv.weight_shape()[1..]) {
                        count += 1;
                    }
                }
            }
            Op::ConvTranspose(conv) => {
                for _value in ndarray::indices(shapes[0]) {
                    for _term in ndarray::indices(&conv.weight_shape()[1..]) {
                        count += 1;
                    }
                }
            }
            Op::CpConv(_) | Op::TtConv(_) | Op::TuckerConv(_) => {
                count = op.ways().iter().map(|way| terms(way, shapes[0])).min().unwrap();
            }
            Op::Linear(linear) => {
                for _value in ndarray::indices(outputs[0].as_slice()) {
                    for _term in 0..linear.in_features {
                        count += 1;
                    }
                }
            }
            Op::MatMul(_) => {
                for _value in ndarray::indices(outputs[0].as_slice()) {
                    for _term in 0..shapes[0][shapes[0].len() - 1] {
                        count += 1;
                    }
                }
            }
            _ => {}
        }
        let got = op.macs(&shapes, &outputs);
        if got == count { Ok(()) } else { Err(format!("{op:?}: {got}, counted {count}")) }
    });
}

/// Inputs of other ranks and sizes are refused or taken, and never a panic: they come from files.
#[test]
fn inputs_that_do_not_fit_are_no_panic() {
    every_op(|kind, seed| {
        let (op, ..) = sample(kind, seed);
        let mut draw = Draw::new(seed + 1000);
        for _ in 0..4 {
            let arity = op.arity();
            let count = (*arity.start()).min(3);
            let shapes: Vec<Vec<usize>> = (0..count)
                .map(|_| {
                    let axes = draw.size(0..=5);
                    draw.sizes(axes, 0..=4)
                })
                .collect();
            let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
            if let Err(error) = op.output(&shapes)
                && error.expected.is_empty()
            {
                return Err("an error that does not say what was expected".into());
            }
        }
        Ok(())
    });
}

/// Every number in the settings of every op, replaced by what makes no sense: an error with the number in it, or a setting that is
/// possible after all.
#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = std::cell::Cell::new(0);
    every_op(|kind, seed| {
        let (op, shapes, ..) = sample(kind, seed);
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let Value::Object(fields) = serde_json::to_value(&op).unwrap() else { unreachable!() };
        for (field, value) in &fields {
            for wrong in [json!(0), json!(1_u64 << 62), json!(-1), json!(1e300)] {
                let changed = match value {
                    Value::Number(_) => wrong.clone(),
                    Value::Array(items) if items.first().is_some_and(Value::is_number) => {
                        Value::Array(vec![wrong.clone(); items.len()])
                    }
                    _ => continue,
                };
                let mut fields = fields.clone();
                fields.insert(field.clone(), changed);
                let Ok(op) = serde_json::from_value::<Op>(Value::Object(fields)) else { continue };
                match op.check() {
                    Ok(()) => drop(op.output(&shapes)),
                    Err(error) if error.to_string().contains("expected") => {
                        refused.set(refused.get() + 1);
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        Ok(())
    });
    assert!(refused.get() > 1000, "{}", refused.get());
}
