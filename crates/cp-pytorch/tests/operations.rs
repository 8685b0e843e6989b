//! Operations of ATen one by one: a program of each, put together by hand, and the node that it becomes. Values of what has a counterpart under
//! another rule are compared with numbers that were worked out from PyTorch's definition.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails, in its helpers too")]

mod common;

use std::collections::BTreeMap;

use common::{floats, member, zip};
use cp_net::Network;
use cp_pytorch::exported_program;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use serde_json::{Value, json};

/// A program of one input `x`, and weights of these shapes with the values 0, 1, 2, ….
struct Program {
    input: Vec<usize>,
    weights: Vec<(&'static str, Vec<usize>)>,
    nodes: Vec<Value>,
    values: BTreeMap<String, Value>,
    output: String,
}

fn meta(shape: &[usize]) -> Value {
    let sizes: Vec<Value> = shape.iter().map(|size| json!({"as_int": size})).collect();
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let strides: Vec<Value> = strides.iter().map(|step| json!({"as_int": step})).collect();
    json!({"dtype": 7, "sizes": sizes, "strides": strides, "storage_offset": {"as_int": 0}, "layout": 7})
}

impl Program {
    fn new(input: &[usize], weights: &[(&'static str, &[usize])]) -> Self {
        let weights: Vec<_> = weights.iter().map(|(name, shape)| (*name, shape.to_vec())).collect();
        let mut values = BTreeMap::from([("x".to_owned(), meta(input))]);
        values.extend(weights.iter().map(|(name, shape)| (own(name), meta(shape))));
        Self { input: input.to_vec(), weights, nodes: Vec::new(), values, output: "x".into() }
    }

    /// An operation that makes `name`. Arguments: a text is a tensor's name, other JSON what it is.
    fn then(mut self, target: &str, arguments: Value, name: &str, shape: &[usize]) -> Self {
        let argument = |(name, value): (&String, &Value)| {
            let arg = match value {
                Value::String(tensor) => json!({"as_tensor": {"name": own(tensor)}}),
                Value::Bool(flag) => json!({"as_bool": flag}),
                Value::Number(number) if number.is_f64() => json!({"as_float": number}),
                Value::Number(number) => json!({"as_int": number}),
                Value::Null => json!({"as_none": true}),
                Value::Array(items) => match items.first() {
                    Some(Value::String(_)) => {
                        let names: Vec<Value> =
                            items.iter().map(|name| json!({"name": name})).collect();
                        json!({"as_tensors": names})
                    }
                    Some(item) if item.is_f64() => json!({"as_floats": items}),
                    _ => json!({"as_ints": items}),
                },
                Value::Object(_) => value.clone(),
            };
            json!({"name": name, "arg": arg, "kind": 1})
        };
        let inputs: Vec<Value> = arguments.as_object().unwrap().iter().map(argument).collect();
        self.nodes.push(json!({
            "target": format!("torch.ops.aten.{target}"), "inputs": inputs,
            "outputs": [{"as_tensor": {"name": name}}], "metadata": {},
        }));
        self.values.insert(name.into(), meta(shape));
        self.output = name.into();
        self
    }

    fn read(&self) -> Result<Network, String> {
        let mut specs: Vec<Value> = Vec::new();
        let mut config = serde_json::Map::new();
        let mut members = vec![member("p/archive_format", *b"pt2")];
        for (name, shape) in &self.weights {
            specs.push(json!({"parameter": {"arg": {"name": own(name)}, "parameter_name": name}}));
            config.insert((*name).into(), json!({"path_name": name, "tensor_meta": meta(shape)}));
            let count: usize = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|value| value as f32).collect();
            members.push(member(&format!("p/data/weights/{name}"), floats(&values)));
        }
        specs.push(json!({"user_input": {"arg": {"as_tensor": {"name": "x"}}}}));
        let program = json!({
            "schema_version": {"major": 8, "minor": 17},
            "graph_module": {
                "graph": {"nodes": self.nodes, "tensor_values": self.values, "inputs": [], "outputs": []},
                "signature": {
                    "input_specs": specs,
                    "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": self.output}}}}],
                },
            },
        });
        members.push(member("p/models/model.json", program.to_string()));
        let config = json!({"config": config}).to_string();
        members.push(member("p/data/weights/model_weights_config.json", config));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.pt2");
        std::fs::write(&path, zip(&members)).unwrap();
        exported_program(&path).map_err(|error| error.to_string())
    }

    /// The nodes, and what the network makes of 0, 1, 2, ….
    #[track_caller]
    fn run(&self) -> (String, Vec<f32>) {
        let net = self.read().unwrap();
        let mut values = BTreeMap::from([("x".to_owned(), counting(&self.input))]);
        for node in net.nodes() {
            let inputs: Vec<ArrayViewD<'_, f32>> =
                node.inputs.iter().map(|input| values[input].view()).collect();
            let params: Vec<ArrayViewD<'_, f32>> =
                node.param_specs().map(|(name, _)| net.params()[&name].view()).collect();
            let outputs = node.op.eval(&inputs, &params);
            values.extend(node.outputs.iter().cloned().zip(outputs));
        }
        let nodes: Vec<String> =
            net.nodes().iter().map(|node| format!("{} {}", node.name, node.op)).collect();
        let output = &values[&net.architecture().outputs[0]];
        (nodes.join(", "), output.iter().copied().collect())
    }
}

/// The name in the graph of the weight `a.b`.
fn own(name: &str) -> String {
    name.replace('.', "_")
}

fn counting(shape: &[usize]) -> ArrayD<f32> {
    let count: usize = shape.iter().product();
    ArrayD::from_shape_vec(IxDyn(shape), (0..count).map(|value| value as f32).collect()).unwrap()
}

/// One operation of `x` and its nodes and values.
#[track_caller]
fn check(
    input: &[usize],
    weights: &[(&'static str, &[usize])],
    (target, arguments): (&str, Value),
    output: &[usize],
    (nodes, values): (&str, &[f32]),
) {
    let (got, made) = Program::new(input, weights).then(target, arguments, "y", output).run();
    assert_eq!((got.as_str(), made.len()), (nodes, output.iter().product()));
    // Some of the values, in order.
    for (at, (made, expected)) in made.iter().zip(values).enumerate() {
        assert!(
            (made - expected).abs() <= 1e-4 * expected.abs().max(1.0),
            "{at}: {made}, expected {expected}"
        );
    }
}

#[test]
fn convolutions() {
    let w: (&str, &[usize]) = ("c.weight", &[1, 1, 3]);
    // Weights 0 1 2 of 0 1 2 3.
    check(
        &[1, 1, 4],
        &[w],
        ("conv1d.default", json!({"input": "x", "weight": "c.weight"})),
        &[1, 1, 2],
        ("c conv", &[5.0, 8.0]),
    );
    let same = json!({"as_string": "same"});
    check(
        &[1, 1, 4],
        &[w],
        ("conv1d.padding", json!({"input": "x", "weight": "c.weight", "padding": same})),
        &[1, 1, 4],
        ("c conv", &[2.0, 5.0, 8.0, 3.0]),
    );
    let arguments = json!({
        "input": "x", "weight": "c.weight", "bias": "c.bias", "stride": [2], "padding": [1], "dilation": [1],
        "transposed": false, "output_padding": [0], "groups": 1,
    });
    let bias: (&str, &[usize]) = ("c.bias", &[1]);
    check(
        &[1, 1, 4],
        &[w, bias],
        ("convolution.default", arguments.clone()),
        &[1, 1, 2],
        ("c conv", &[2.0, 8.0]),
    );
    let mut turned = arguments;
    turned["transposed"] = json!(true);
    // x at 0, 2, 4, 6, each times 0 1 2, and one cut off at both sides.
    check(
        &[1, 1, 4],
        &[w, bias],
        ("convolution.default", turned),
        &[1, 1, 7],
        ("c conv_transpose", &[0.0, 0.0, 1.0, 2.0, 2.0, 4.0, 3.0]),
    );
    check(
        &[1, 1, 3],
        &[w],
        (
            "conv_transpose1d.default",
            json!({"input": "x", "weight": "c.weight", "stride": [2], "output_padding": [1]}),
        ),
        &[1, 1, 8],
        ("c conv_transpose", &[0.0, 0.0, 0.0, 1.0, 2.0, 2.0, 4.0, 0.0]),
    );
}

#[test]
fn linear_layers() {
    let w: (&str, &[usize]) = ("fc.weight", &[2, 3]);
    let b: (&str, &[usize]) = ("fc.bias", &[2]);
    let expected = ("fc linear", &[5.0, 15.0][..]);
    check(
        &[1, 3],
        &[w, b],
        ("linear.default", json!({"input": "x", "weight": "fc.weight", "bias": "fc.bias"})),
        &[1, 2],
        expected,
    );
    for turn in ["t.default", "permute.default", "transpose.int"] {
        let arguments = match turn {
            "permute.default" => json!({"self": "fc.weight", "dims": [1, 0]}),
            "transpose.int" => json!({"self": "fc.weight", "dim0": 0, "dim1": 1}),
            _ => json!({"self": "fc.weight"}),
        };
        let program = Program::new(&[1, 3], &[w, b]).then(turn, arguments, "turned", &[3, 2]).then(
            "addmm.default",
            json!({"self": "fc.bias", "mat1": "x", "mat2": "turned"}),
            "y",
            &[1, 2],
        );
        assert_eq!(program.run(), ("fc linear".into(), vec![5.0, 15.0]));
        assert_eq!(program.read().unwrap().params()["fc.weight"], counting(&[2, 3]));
    }
    // A weight that PyTorch holds the other way round has a name of its own.
    let m: (&str, &[usize]) = ("m", &[3, 2]);
    check(
        &[1, 3],
        &[m],
        ("mm.default", json!({"self": "x", "mat2": "m"})),
        &[1, 2],
        ("y linear", &[10.0, 13.0]),
    );
    let square = json!({"self": "x", "other": "x"});
    check(
        &[1, 2, 2],
        &[],
        ("matmul.default", square),
        &[1, 2, 2],
        ("y matmul", &[2.0, 3.0, 6.0, 11.0]),
    );
}

#[test]
fn normalizations() {
    let stats: [(&str, &[usize]); 2] = [("bn.mean", &[2]), ("bn.running_var", &[2])];
    let arguments = json!({
        "input": "x", "weight": null, "bias": null, "running_mean": "bn.mean", "running_var": "bn.running_var",
        "training": false, "momentum": 0.1, "eps": 1.0, "cudnn_enabled": true,
    });
    // Means 0 and 1, variances 0 and 1, with 1 added.
    check(
        &[1, 2, 1],
        &stats,
        ("batch_norm.default", arguments.clone()),
        &[1, 2, 1],
        ("bn batch_norm", &[0.0, 0.0]),
    );
    let mut free = arguments;
    free["running_mean"] = Value::Null;
    let error =
        Program::new(&[1, 2, 1], &stats).then("batch_norm.default", free, "y", &[1, 2, 1]).read();
    assert!(error.unwrap_err().contains("model.eval()"));
    let affine: [(&str, &[usize]); 2] = [("ln.weight", &[2]), ("ln.bias", &[2])];
    let arguments =
        json!({"input": "x", "normalized_shape": [2], "weight": "ln.weight", "bias": "ln.bias"});
    check(
        &[1, 2, 2],
        &affine,
        ("layer_norm.default", arguments),
        &[1, 2, 2],
        ("ln layer_norm", &[0.0, 1.99996, 0.0, 1.99996]),
    );
    let arguments = json!({"input": "x", "num_groups": 1});
    check(
        &[1, 2, 1],
        &[],
        ("group_norm.default", arguments),
        &[1, 2, 1],
        ("y group_norm", &[-0.99998, 0.99998]),
    );
    let arguments = json!({"input": "x", "use_input_stats": true, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": true});
    check(
        &[1, 1, 2],
        &[],
        ("instance_norm.default", arguments),
        &[1, 1, 2],
        ("y instance_norm", &[-0.99998, 0.99998]),
    );
}

#[test]
fn poolings() {
    check(
        &[1, 1, 5],
        &[],
        ("max_pool1d.default", json!({"self": "x", "kernel_size": [2]})),
        &[1, 1, 2],
        ("y max_pool", &[1.0, 3.0]),
    );
    check(
        &[1, 1, 5],
        &[],
        (
            "max_pool1d.default",
            json!({"self": "x", "kernel_size": [2], "stride": [2], "ceil_mode": true}),
        ),
        &[1, 1, 3],
        ("y max_pool", &[1.0, 3.0, 4.0]),
    );
    check(
        &[1, 1, 4, 4],
        &[],
        (
            "max_pool2d_with_indices.default",
            json!({"self": "x", "kernel_size": [2], "stride": [2], "padding": [1]}),
        ),
        &[1, 1, 3, 3],
        ("y max_pool", &[0.0, 2.0, 3.0]),
    );
    check(
        &[1, 1, 4],
        &[],
        ("avg_pool1d.default", json!({"self": "x", "kernel_size": [2], "padding": [1]})),
        &[1, 1, 3],
        ("y avg_pool", &[0.0, 1.5, 1.5]),
    );
    check(
        &[1, 1, 4],
        &[],
        (
            "avg_pool1d.default",
            json!({"self": "x", "kernel_size": [2], "padding": [1], "count_include_pad": false}),
        ),
        &[1, 1, 3],
        ("y avg_pool", &[0.0, 1.5, 3.0]),
    );
    check(
        &[1, 1, 5],
        &[],
        ("adaptive_avg_pool1d.default", json!({"self": "x", "output_size": [2]})),
        &[1, 1, 2],
        ("y adaptive_avg_pool", &[1.0, 3.0]),
    );
    check(
        &[1, 1, 2, 2],
        &[],
        ("mean.dim", json!({"self": "x", "dim": [2, 3], "keepdim": true})),
        &[1, 1, 1, 1],
        ("y global_avg_pool", &[1.5]),
    );
    check(
        &[1, 2, 2],
        &[],
        ("mean.dim", json!({"self": "x", "dim": [-2]})),
        &[1, 2],
        ("y reduce", &[1.0, 2.0]),
    );
    check(
        &[1, 2, 2],
        &[],
        ("sum.dim_IntList", json!({"self": "x", "dim": [1], "keepdim": true})),
        &[1, 1, 2],
        ("y reduce", &[2.0, 4.0]),
    );
}

#[test]
fn activations() {
    // Of 0 and 1.
    for (target, nodes, values) in [
        ("relu.default", "y relu", [0.0, 1.0]),
        ("sigmoid.default", "y sigmoid", [0.5, 0.731_059]),
        ("tanh.default", "y tanh", [0.0, 0.761_594]),
        ("silu.default", "y silu", [0.0, 0.731_059]),
        ("mish.default", "y mish", [0.0, 0.865_098]),
        ("hardswish.default", "y hard_swish", [0.0, 0.666_667]),
        ("hardsigmoid.default", "y hard_sigmoid", [0.5, 0.666_667]),
        ("gelu.default", "y gelu", [0.0, 0.841_345]),
        ("elu.default", "y elu", [0.0, 1.0]),
        ("leaky_relu.default", "y leaky_relu", [0.0, 1.0]),
        ("softplus.default", "y softplus", [std::f32::consts::LN_2, 1.313_262]),
        ("exp.default", "y exp", [1.0, std::f32::consts::E]),
        ("relu6.default", "y clip", [0.0, 1.0]),
    ] {
        check(&[1, 2], &[], (target, json!({"self": "x"})), &[1, 2], (nodes, &values));
    }
    let slope = json!({"self": "x", "weight": "p.weight"});
    check(
        &[1, 2, 1],
        &[("p.weight", &[2])],
        ("prelu.default", slope),
        &[1, 2, 1],
        ("p prelu", &[0.0, 1.0]),
    );
    let one = |target: &str, arguments: Value, nodes: &str, values: &[f32]| {
        let mut arguments = arguments;
        arguments["self"] = json!("x");
        check(&[1, 3], &[], (target, arguments), &[1, 3], (nodes, values));
    };
    one("hardtanh.default", json!({"min_val": 0.0, "max_val": 1.5}), "y clip", &[0.0, 1.0, 1.5]);
    one("hardtanh.default", json!({}), "y clip", &[0.0, 1.0, 1.0]);
    one("clamp.default", json!({"min": 1}), "y clip", &[1.0, 1.0, 2.0]);
    one(
        "gelu.default",
        json!({"approximate": {"as_string": "tanh"}}),
        "y gelu",
        &[0.0, 0.841_192, 1.954_598],
    );
    one("softmax.int", json!({"dim": -1}), "y softmax", &[0.090_031, 0.244_728, 0.665_241]);
    one(
        "_log_softmax.default",
        json!({"dim": 1, "half_to_float": false}),
        "y log_softmax",
        &[-2.407_606, -1.407_606],
    );
    one(
        "pow.Tensor_Scalar",
        json!({"exponent": 2}),
        "y.constant constant, y pow",
        &[0.0, 1.0, 4.0],
    );
    one(
        "add.Tensor",
        json!({"other": 2, "alpha": 3}),
        "y.constant constant, y add",
        &[6.0, 7.0, 8.0],
    );
    one("sub.Tensor", json!({"other": "x"}), "y sub", &[0.0, 0.0, 0.0]);
    one("rsub.Scalar", json!({"other": 5.0}), "y.constant constant, y sub", &[5.0, 4.0, 3.0]);
    one("div.Tensor", json!({"other": 4.0}), "y.constant constant, y div", &[0.0, 0.25, 0.5]);
    one("mul.Tensor", json!({"other": "x"}), "y mul", &[0.0, 1.0, 4.0]);
    one("maximum.default", json!({"other": "x"}), "y max", &[0.0, 1.0, 2.0]);
}

#[test]
fn weights_in_arithmetic() {
    let one = |shape: &'static [usize], expected: &[f32]| {
        check(
            &[2, 2, 1, 2],
            &[("s", shape)],
            ("mul.Tensor", json!({"self": "x", "other": "s"})),
            &[2, 2, 1, 2],
            ("s constant, y mul", expected),
        );
    };
    // Of 0 1 2 3 4 5 6 7.
    one(&[2], &[0.0, 1.0, 0.0, 3.0, 0.0, 5.0, 0.0, 7.0]);
    one(&[2, 1, 1], &[0.0, 0.0, 2.0, 3.0, 0.0, 0.0, 6.0, 7.0]);
    check(
        &[1, 2, 1],
        &[("s", &[1, 2, 1])],
        ("mul.Tensor", json!({"self": "x", "other": "s"})),
        &[1, 2, 1],
        ("y.constant constant, y mul", &[0.0, 1.0]),
    );
    let error = Program::new(&[2, 2], &[("s", &[2, 2])])
        .then("mul.Tensor", json!({"self": "x", "other": "s"}), "y", &[2, 2])
        .read();
    assert!(error.unwrap_err().contains("a weight has an axis where the batch is"));
}

#[test]
fn shapes() {
    let x = |mut arguments: Value| {
        arguments["self"] = json!("x");
        arguments
    };
    check(
        &[2, 2, 2],
        &[],
        ("flatten.using_ints", x(json!({"start_dim": 1}))),
        &[2, 4],
        ("y flatten", &[0.0, 1.0]),
    );
    check(
        &[1, 2, 2, 2],
        &[],
        ("flatten.using_ints", x(json!({"start_dim": 2}))),
        &[1, 2, 4],
        ("y flatten", &[0.0, 1.0]),
    );
    check(
        &[1, 2, 2, 2],
        &[],
        ("flatten.using_ints", x(json!({"start_dim": 1, "end_dim": 2}))),
        &[1, 4, 2],
        ("y reshape", &[0.0, 1.0]),
    );
    let size = json!({"as_sym_ints": [{"as_name": "sym_size"}, {"as_int": -1}]});
    check(
        &[2, 2, 2],
        &[],
        ("view.default", x(json!({"size": size}))),
        &[2, 4],
        ("y flatten", &[0.0, 1.0]),
    );
    check(
        &[1, 4, 2],
        &[],
        ("view.default", x(json!({"size": [1, 2, 2, 2]}))),
        &[1, 2, 2, 2],
        ("y reshape", &[0.0, 1.0]),
    );
    check(
        &[1, 2, 3],
        &[],
        ("permute.default", x(json!({"dims": [0, 2, 1]}))),
        &[1, 3, 2],
        ("y transpose", &[0.0, 3.0, 1.0, 4.0]),
    );
    check(
        &[1, 2, 3],
        &[],
        ("transpose.int", x(json!({"dim0": -1, "dim1": -2}))),
        &[1, 3, 2],
        ("y transpose", &[0.0, 3.0, 1.0, 4.0]),
    );
    check(
        &[1, 1, 3],
        &[],
        ("squeeze.dims", x(json!({"dim": [1]}))),
        &[1, 3],
        ("y squeeze", &[0.0, 1.0]),
    );
    check(
        &[1, 3],
        &[],
        ("unsqueeze.default", x(json!({"dim": -1}))),
        &[1, 3, 1],
        ("y unsqueeze", &[0.0, 1.0]),
    );
    check(
        &[1, 4],
        &[],
        (
            "slice.Tensor",
            x(json!({"dim": 1, "start": 1, "end": 9_223_372_036_854_775_807_i64, "step": 2})),
        ),
        &[1, 2],
        ("y slice", &[1.0, 3.0]),
    );
    check(
        &[1, 3, 2],
        &[],
        ("select.int", x(json!({"dim": 1, "index": -1}))),
        &[1, 2],
        ("y slice, y_2 squeeze", &[4.0, 5.0]),
    );
    check(
        &[1, 3, 2],
        &[],
        ("select.int", x(json!({"dim": 1, "index": 1}))),
        &[1, 2],
        ("y slice, y_2 squeeze", &[2.0, 3.0]),
    );
    check(
        &[1, 4, 1, 1],
        &[],
        ("pixel_shuffle.default", x(json!({"upscale_factor": 2}))),
        &[1, 1, 2, 2],
        ("y depth_to_space", &[0.0, 1.0, 2.0, 3.0]),
    );
    check(
        &[1, 2],
        &[],
        ("cat.default", json!({"tensors": ["x", "x"], "dim": 1})),
        &[1, 4],
        ("y concat", &[0.0, 1.0, 0.0, 1.0]),
    );
    check(
        &[1, 2],
        &[],
        ("stack.default", json!({"tensors": ["x", "x"], "dim": -1})),
        &[1, 2, 2],
        ("y unsqueeze, y_2 unsqueeze, y_3 concat", &[0.0, 0.0, 1.0, 1.0]),
    );
    check(
        &[1, 1, 2],
        &[],
        ("constant_pad_nd.default", x(json!({"pad": [1, 2], "value": 7.0}))),
        &[1, 1, 5],
        ("y pad", &[7.0, 0.0, 1.0, 7.0, 7.0]),
    );
    check(
        &[1, 1, 2, 2],
        &[],
        ("reflection_pad2d.default", x(json!({"padding": [1, 0, 0, 1]}))),
        &[1, 1, 3, 3],
        ("y pad", &[1.0, 0.0, 1.0, 3.0, 2.0, 3.0, 1.0, 0.0, 1.0]),
    );
}

/// By PyTorch's rules: ⌊x / s⌋; the halves; the outermost pixels matched.
#[test]
fn resizing() {
    let x = |mut arguments: Value| {
        arguments["input"] = json!("x");
        arguments
    };
    check(
        &[1, 1, 2],
        &[],
        ("upsample_nearest1d.vec", x(json!({"output_size": null, "scale_factors": [2.0]}))),
        &[1, 1, 4],
        ("y resize", &[0.0, 0.0, 1.0, 1.0]),
    );
    check(
        &[1, 1, 3],
        &[],
        ("upsample_nearest1d.vec", x(json!({"output_size": [5]}))),
        &[1, 1, 5],
        ("y resize", &[0.0, 0.0, 1.0, 1.0, 2.0]),
    );
    check(
        &[1, 1, 2],
        &[],
        ("upsample_linear1d.vec", x(json!({"output_size": [4], "align_corners": false}))),
        &[1, 1, 4],
        ("y resize", &[0.0, 0.25, 0.75, 1.0]),
    );
    check(
        &[1, 1, 2],
        &[],
        ("upsample_linear1d.vec", x(json!({"output_size": [4], "align_corners": true}))),
        &[1, 1, 4],
        ("y resize", &[0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]),
    );
    check(
        &[1, 1, 2],
        &[],
        (
            "upsample_linear1d.default",
            json!({"self": "x", "output_size": [4], "align_corners": false, "scales": 2.0}),
        ),
        &[1, 1, 4],
        ("y resize", &[0.0, 0.25, 0.75, 1.0]),
    );
}

#[test]
fn several_outputs() {
    let mut program = Program::new(&[1, 4], &[]).then(
        "split.Tensor",
        json!({"self": "x", "split_size": 3, "dim": 1}),
        "a",
        &[1, 3],
    );
    program.nodes[0]["outputs"] = json!([{"as_tensors": [{"name": "a"}, {"name": "b"}]}]);
    program.values.insert("b".into(), meta(&[1, 1]));
    let program = program.then("mul.Tensor", json!({"self": "a", "other": "b"}), "y", &[1, 3]);
    assert_eq!(program.run(), ("a split, y mul".into(), vec![0.0, 3.0, 6.0]));
}

/// What works in place changes what it works on, under all of its names; where others see the memory, it is refused.
#[test]
fn in_place() {
    let program = Program::new(&[1, 2], &[])
        .then("neg.default", json!({"self": "x"}), "a", &[1, 2])
        .then("dropout.default", json!({"input": "a", "p": 0.0, "train": false}), "b", &[1, 2])
        .then("relu_.default", json!({"self": "b"}), "c", &[1, 2])
        .then("add.Tensor", json!({"self": "a", "other": "c"}), "y", &[1, 2]);
    assert_eq!(program.run(), ("a neg, c relu, y add".into(), vec![0.0, 0.0]));
    let program = Program::new(&[1, 2, 1], &[])
        .then("neg.default", json!({"self": "x"}), "a", &[1, 2, 1])
        .then("flatten.using_ints", json!({"self": "a", "start_dim": 1}), "b", &[1, 2])
        .then("relu_.default", json!({"self": "b"}), "y", &[1, 2]);
    let error = program.read().unwrap_err();
    assert!(
        error.contains("aten.relu_.default: it works in place on memory that is seen elsewhere"),
        "{error}"
    );
}

#[test]
fn what_a_network_does_not_have() {
    let check = |target: &str, arguments: Value, output: &[usize], expected: &str| {
        let program =
            Program::new(&[2, 2, 2], &[("w", &[2, 2])]).then(target, arguments, "y", output);
        let error = program.read().unwrap_err();
        assert!(error.contains(expected), "{error}\n  lacks: {expected}");
    };
    let batch = "the batch";
    check("mean.dim", json!({"self": "x", "dim": [0, 1]}), &[2], batch);
    check("mean.default", json!({"self": "x"}), &[], batch);
    check("softmax.int", json!({"self": "x", "dim": 0}), &[2, 2, 2], batch);
    check("permute.default", json!({"self": "x", "dims": [1, 0, 2]}), &[2, 2, 2], batch);
    check("view.default", json!({"self": "x", "size": [4, 2]}), &[4, 2], batch);
    check(
        "constant_pad_nd.default",
        json!({"self": "x", "pad": [0, 0, 0, 0, 1, 0]}),
        &[3, 2, 2],
        batch,
    );
    check(
        "constant_pad_nd.default",
        json!({"self": "x", "pad": [-1, 0]}),
        &[2, 2, 1],
        "it cuts off",
    );
    check("add.Tensor", json!({"self": "w", "other": 1}), &[2, 2], "on weights alone");
    check("add.Tensor", json!({"self": "x", "other": "x", "alpha": 2}), &[2, 2, 2], "'alpha' is 2");
    check(
        "div.Tensor_mode",
        json!({"self": "x", "other": 2, "rounding_mode": {"as_string": "floor"}}),
        &[2, 2, 2],
        "rounds its quotient",
    );
    check(
        "dropout.default",
        json!({"input": "x", "p": 0.5, "train": true}),
        &[2, 2, 2],
        "model.eval()",
    );
    check("softplus.default", json!({"self": "x", "beta": 2.0}), &[2, 2, 2], "'beta' is not 1");
    check(
        "expand.default",
        json!({"self": "x", "size": [2, 2, 4]}),
        &[2, 2, 4],
        "it repeats values",
    );
    check(
        "relu.default",
        json!({"self": "y"}),
        &[2, 2, 2],
        "it reads 'y', which is not made before",
    );
    check(
        "relu.default",
        json!({"self": "x", "own": 1}),
        &[2, 2, 2],
        "its argument 'own' is not known",
    );
    check(
        "conv2d.default",
        json!({"input": "x", "weight": "w"}),
        &[2, 2, 2],
        "it needs a batch axis",
    );
    check("upsample_bicubic2d.vec", json!({"input": "x"}), &[2, 2, 2], "is not supported");
    // Shapes that PyTorch does not say are not believed.
    check(
        "relu.default",
        json!({"self": "x"}),
        &[2, 2, 3],
        "'y' has shape [2, 2] here and [2, 3] in PyTorch",
    );
}
