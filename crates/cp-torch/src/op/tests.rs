use cp_net::{Draw, Op, ParamRole};
use ndarray::{ArrayD, Axis};
use tch::{Kind, Tensor};

use super::{Forward, Run};
use crate::convert::{array_from_tensor, tensor_from_f32};
use crate::layout::is_channels_last;
use crate::testing::{assert_close, both_layouts, random};

const EVALUATION: Run = Run { train: false, calibration: None, in_place: false };
const TRAINING: Run = Run { train: true, ..EVALUATION };
const IN_PLACE: Run = Run { in_place: true, ..EVALUATION };

/// An op with inputs and parameters that fit it.
struct Case {
    op: Op,
    inputs: Vec<ArrayD<f32>>,
    params: Vec<ArrayD<f32>>,
    /// Without the batch axis.
    outputs: Vec<Vec<usize>>,
    batch: usize,
}

/// Case `seed` of an op; the last of several inputs of every third does not depend on the example.
fn case(kind: &str, seed: u64) -> Case {
    let mut draw = Draw::new(seed);
    let sample = Op::sample(kind, &mut draw).unwrap();
    let count = sample.inputs.len();
    let inputs: Vec<ArrayD<f32>> = (0..count)
        .map(|index| {
            let batch = if count > 1 && index + 1 == count && seed % 3 == 2 { 1 } else { 2 };
            draw.array(&[&[batch], &sample.inputs[index][..]].concat(), sample.values)
        })
        .collect();
    let params =
        sample.op.params().iter().map(|spec| draw.array(&spec.shape, sample.values)).collect();
    let shapes: Vec<&[usize]> = sample.inputs.iter().map(Vec::as_slice).collect();
    let outputs = sample.op.output(&shapes).unwrap();
    Case { op: sample.op, inputs, params, outputs, batch: if count == 0 { 1 } else { 2 } }
}

fn tensors(arrays: &[ArrayD<f32>]) -> Vec<Tensor> {
    arrays.iter().map(|array| tensor_from_f32(array.view()).unwrap()).collect()
}

/// What is wrong with the outputs of a case.
fn compare(case: &Case, layout: usize) -> Result<(), String> {
    let views: Vec<_> = case.inputs.iter().map(ArrayD::view).collect();
    let params: Vec<_> = case.params.iter().map(ArrayD::view).collect();
    let expected = case.op.eval(&views, &params);
    let inputs: Vec<Tensor> =
        case.inputs.iter().map(|array| both_layouts(array)[layout].shallow_clone()).collect();
    let borrowed: Vec<&Tensor> = inputs.iter().collect();
    let found = case
        .op
        .forward(&borrowed, &tensors(&case.params), EVALUATION)
        .map_err(|error| error.to_string())?;
    if found.len() != expected.len() || found.len() != case.op.output_count() {
        return Err(format!("{} outputs", found.len()));
    }
    for ((found, expected), shape) in found.iter().zip(&expected).zip(&case.outputs) {
        let found = array_from_tensor(found).unwrap();
        let shape = [&[case.batch], &shape[..]].concat();
        if found.shape() != shape || expected.shape() != shape {
            return Err(format!(
                "shape {:?} and {:?}, not {shape:?}",
                found.shape(),
                expected.shape()
            ));
        }
        let finite = expected.iter().filter(|value| value.is_finite());
        let bound = 1e-5 * (1.0 + finite.fold(0.0_f32, |most, value| most.max(value.abs())));
        for (found, expected) in found.iter().zip(expected) {
            // Equal infinities have no distance.
            let near = (found - expected).abs() <= bound || found.total_cmp(expected).is_eq();
            if !near {
                return Err(format!("{found} is not {expected}"));
            }
        }
    }
    for (input, array) in inputs.iter().zip(&case.inputs) {
        if array_from_tensor(input).unwrap() != *array {
            return Err("an input has changed".into());
        }
    }
    Ok(())
}

#[test]
fn every_op_is_its_definition() {
    let mut failures = Vec::new();
    for kind in Op::KINDS {
        for seed in 0..30 {
            let case = case(kind, seed);
            for layout in [0, 1] {
                if let Err(failure) = compare(&case, layout) {
                    let shapes: Vec<_> = case.inputs.iter().map(ArrayD::shape).collect();
                    failures.push(format!(
                        "seed {seed}, layout {layout}, {:?} of {shapes:?}: {failure}",
                        case.op
                    ));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// Rounding up admits a window that is larger than the map.
#[test]
fn a_window_may_be_larger_than_the_map() {
    for axes in 1..=3 {
        for kind in ["avg_pool", "max_pool"] {
            let shape = [vec![2], vec![2; axes]].concat();
            let (kernel, stride) = (vec![3; axes], vec![2; axes]);
            let json =
                serde_json::json!({"op": kind, "kernel": kernel, "stride": stride, "ceil": true});
            let op = op(json, &shape);
            let outputs = op.output(&[&shape]).unwrap();
            let inputs = vec![Draw::new(7).array(&[vec![2], shape].concat(), (-1.0, 1.0))];
            let case = Case { op, inputs, params: vec![], outputs, batch: 2 };
            for layout in [0, 1] {
                assert_eq!(compare(&case, layout), Ok(()), "{kind} over {axes} axes");
            }
        }
    }
}

/// Σ y ⊙ c over all finite values of all outputs, where c are numbers that belong to the position.
fn score(op: &Op, inputs: &[Tensor], params: &[Tensor]) -> Tensor {
    let inputs: Vec<&Tensor> = inputs.iter().collect();
    let outputs = op.forward(&inputs, params, EVALUATION).unwrap();
    let mut sum = Tensor::zeros([], (Kind::Double, tch::Device::Cpu));
    for (index, y) in outputs.iter().enumerate() {
        let y = y.masked_fill(&y.isfinite().logical_not(), 0.0);
        let at = Tensor::arange(y.numel() as i64, (Kind::Double, tch::Device::Cpu));
        let c = (at * 0.7 + index as f64).cos().reshape(y.size());
        sum += (y * c).sum(Kind::Double);
    }
    sum
}

/// What is wrong with the gradient of a case in f64: up to 24 values of each input and parameter against central differences.
fn compare_gradient(case: &Case, layout: usize, draw: &mut Draw) -> Result<(), String> {
    let double = |x: Tensor| x.to_kind(Kind::Double);
    let mut inputs: Vec<Tensor> = case
        .inputs
        .iter()
        .map(|array| double(both_layouts(array)[layout].shallow_clone()))
        .collect();
    let mut params: Vec<Tensor> = tensors(&case.params).into_iter().map(double).collect();
    let trained: Vec<bool> =
        case.op.params().iter().map(|spec| spec.role != ParamRole::Buffer).collect();
    let leaves: Vec<Tensor> = inputs
        .iter()
        .chain(params.iter().zip(&trained).filter(|(_, trained)| **trained).map(|(param, _)| param))
        .map(Tensor::shallow_clone)
        .collect();
    if leaves.is_empty() {
        return Ok(());
    }
    for tensor in inputs.iter_mut().chain(&mut params) {
        *tensor = tensor.detach();
    }
    for leaf in &leaves {
        let _ = leaf.set_requires_grad(true);
    }
    let with_gradient: Vec<Tensor> = leaves.iter().map(Tensor::shallow_clone).collect();
    let count = inputs.len();
    let mut rest = with_gradient[count..].iter();
    let params_with: Vec<Tensor> = params
        .iter()
        .zip(&trained)
        .map(|(param, trained)| {
            let leaf = if *trained { rest.next() } else { None };
            leaf.unwrap_or(param).shallow_clone()
        })
        .collect();
    let total = score(&case.op, &with_gradient[..count], &params_with);
    if !total.requires_grad() {
        return Err("the outputs do not depend on any leaf".into());
    }
    total.backward();
    let _guard = tch::no_grad_guard();
    for (index, leaf) in leaves.iter().enumerate() {
        let gradient = leaf.grad();
        if !gradient.defined() {
            return Err(format!("no gradient of leaf {index}"));
        }
        let gradient = gradient.contiguous().flatten(0, -1);
        for _ in 0..leaf.numel().min(24) {
            let at = draw.size(0..=leaf.numel() - 1) as i64;
            // Changes the inputs and parameters too, which share the leaf's memory.
            let mut place = leaf.detach();
            let mut rest = at;
            let sizes = leaf.size();
            for axis in (0..sizes.len()).rev() {
                let after = rest / sizes[axis];
                place = place.select(axis as i64, rest % sizes[axis]);
                rest = after;
            }
            let mut scored = |by: f64| {
                let _ = place.g_add_scalar_(by);
                score(&case.op, &inputs, &params).double_value(&[])
            };
            let above = scored(1e-5);
            let below = scored(-2e-5);
            let _ = place.g_add_scalar_(1e-5);
            let (slope, gradient) = ((above - below) / 2e-5, gradient.double_value(&[at]));
            let near = (slope - gradient).abs() <= 1e-5 * (1.0 + slope.abs());
            if !near {
                return Err(format!("leaf {index} at {at}: {gradient}, differences say {slope}"));
            }
        }
    }
    Ok(())
}

#[test]
fn every_gradient_is_that_of_the_differences() {
    let mut failures = Vec::new();
    for kind in Op::KINDS {
        for seed in 100..104 {
            let case = case(kind, seed);
            let layout = seed as usize % 2;
            if let Err(failure) = compare_gradient(&case, layout, &mut Draw::new(seed)) {
                let shapes: Vec<_> = case.inputs.iter().map(ArrayD::shape).collect();
                failures.push(format!("seed {seed}, {:?} of {shapes:?}: {failure}", case.op));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// An op of a model file.
fn op(json: serde_json::Value, input: &[usize]) -> Op {
    let mut op: Op = serde_json::from_value(json).unwrap();
    op.complete(&[input]);
    op.check().unwrap();
    op
}

fn run(op: &impl Forward, x: &Tensor, params: &[Tensor]) -> Tensor {
    op.forward(&[x], params, EVALUATION).unwrap().remove(0)
}

#[test]
fn maps_keep_channels_last() {
    let conv = |channels: usize, kernel: &[usize], padding: serde_json::Value, groups: usize| {
        serde_json::json!({
            "op": "conv", "out_channels": channels, "kernel": kernel, "padding": padding, "groups": groups,
        })
    };
    let window = |op: &str, padding: serde_json::Value| serde_json::json!({"op": op, "kernel": [3, 3], "stride": [2, 2], "padding": padding, "ceil": true});
    for json in [
        conv(8, &[3, 3], serde_json::json!([1, 1]), 1),
        conv(8, &[3, 3], serde_json::json!([[0, 1], [1, 2]]), 1),
        conv(8, &[3, 3], "same".into(), 1),
        conv(8, &[5, 1], serde_json::json!([2, 0]), 8),
        conv(8, &[1, 5], serde_json::json!([0, 2]), 8),
        conv(6, &[1, 1], serde_json::json!([0, 0]), 1),
        serde_json::json!({"op": "conv_transpose", "out_channels": 8, "kernel": [2, 2], "stride": [2, 2]}),
        window("max_pool", serde_json::json!([1, 1])),
        window("max_pool", serde_json::json!([[0, 1], [0, 1]])),
        window("avg_pool", serde_json::json!([1, 1])),
        window("avg_pool", serde_json::json!([[0, 1], [0, 1]])),
        serde_json::json!({"op": "adaptive_avg_pool", "output": [2, 2]}),
        serde_json::json!({"op": "adaptive_max_pool", "output": [2, 2]}),
        serde_json::json!({"op": "batch_norm"}),
        serde_json::json!({"op": "scale_shift"}),
        serde_json::json!({"op": "group_norm", "groups": 2}),
        serde_json::json!({"op": "instance_norm"}),
        serde_json::json!({"op": "lrn", "size": 5}),
        serde_json::json!({"op": "maxout", "pieces": 2}),
        serde_json::json!({"op": "relu"}),
        serde_json::json!({"op": "leaky_relu"}),
        serde_json::json!({"op": "prelu"}),
        serde_json::json!({"op": "clip", "min": 0.0, "max": 6.0}),
        serde_json::json!({"op": "elu", "alpha": 0.5}),
        serde_json::json!({"op": "hard_swish"}),
        serde_json::json!({"op": "gather", "axis": 0, "indices": [3, 1, 2]}),
        serde_json::json!({"op": "pad", "before": [0, 1, 1], "behind": [0, 1, 1]}),
        serde_json::json!({"op": "pad", "before": [0, 1, 1], "behind": [0, 1, 1], "mode": "reflect"}),
        serde_json::json!({"op": "resize", "scales": [2.0, 2.0], "mode": "nearest"}),
        serde_json::json!({"op": "resize", "sizes": [5, 9], "mode": "nearest"}),
        serde_json::json!({"op": "resize", "scales": [2.0, 2.0], "mode": "linear"}),
        serde_json::json!({"op": "depth_to_space", "block": 2}),
    ] {
        let [_, x] = both_layouts(&random(&[2, 8, 6, 6], 1));
        let op = op(json, &[8, 6, 6]);
        let params: Vec<Tensor> = op
            .params()
            .iter()
            .map(|spec| both_layouts(&random(&spec.shape, 2).mapv(f32::abs))[1].shallow_clone())
            .collect();
        let y = run(&op, &x, &params);
        assert!(is_channels_last(&y), "{op:?}: {:?} {:?}", y.size(), y.stride());
    }
}

#[test]
fn the_kernel_decides_the_layout_of_a_gray_image() {
    let [_, x] = both_layouts(&random(&[2, 1, 6, 6], 1));
    let [_, weight] = both_layouts(&random(&[4, 1, 3, 3], 1));
    let conv = cp_net::Conv::new(1, 4, [3, 3]);
    assert!(is_channels_last(&super::conv::conv(&x, &weight, None, &conv).unwrap()));
}

#[test]
fn in_place_writes_over_the_first_input_and_spares_the_others() {
    let arrays = [1, 2, 3].map(|seed| random(&[2, 2, 3, 3], seed));
    let sum = &arrays[0] + &arrays[1] + &arrays[2];
    for layout in [0, 1] {
        let terms = arrays.each_ref().map(|array| both_layouts(array)[layout].shallow_clone());
        let inputs: Vec<&Tensor> = terms.iter().collect();
        let found = cp_net::Add {}.forward(&inputs, &[], EVALUATION).unwrap();
        assert_close(&found[0], &sum, 1e-6);
        assert_close(inputs[0], &arrays[0], 0.0);

        let found = cp_net::Add {}.forward(&inputs, &[], IN_PLACE).unwrap();
        assert_close(&found[0], &sum, 1e-6);
        assert_eq!(found[0].data_ptr(), inputs[0].data_ptr());
        assert_close(inputs[1], &arrays[1], 0.0);
        assert_close(inputs[2], &arrays[2], 0.0);

        let x = both_layouts(&arrays[0])[layout].shallow_clone();
        let found = cp_net::Relu {}.forward(&[&x], &[], IN_PLACE).unwrap();
        assert_close(&found[0], &arrays[0].mapv(|value| value.max(0.0)), 0.0);
        assert_eq!(found[0].data_ptr(), x.data_ptr());
    }
}

#[test]
fn a_sum_larger_than_its_first_term_is_not_written_over_it() {
    for (first, second, written) in [
        (vec![2, 3, 1, 1], vec![2, 3, 4, 5], false),
        (vec![1, 3, 4, 5], vec![2, 3, 4, 5], false),
        (vec![2, 5], vec![2, 3, 4, 5], false),
        (vec![2, 3, 4, 5], vec![2, 5], true),
        (vec![2, 3, 4, 5], vec![1, 3, 1, 1], true),
    ] {
        let (a, b) = (random(&first, 1), random(&second, 2));
        let expected = Op::Add(cp_net::Add {}).eval(&[a.view(), b.view()], &[]).remove(0);
        let terms = tensors(&[a.clone(), b.clone()]);
        let found = cp_net::Add {}.forward(&[&terms[0], &terms[1]], &[], IN_PLACE).unwrap();
        assert_close(&found[0], &expected, 1e-6);
        assert_eq!(found[0].data_ptr() == terms[0].data_ptr(), written, "{first:?} {second:?}");
        if !written {
            assert_close(&terms[0], &a, 0.0);
        }
        assert_close(&terms[1], &b, 0.0);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let [x, _] = both_layouts(&random(&[1, 5, 3, 3], 1));
    let refused = |op: Op, x: &Tensor| match op.forward(&[x], &[], EVALUATION) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{op:?} took it"),
    };
    let maxout = serde_json::json!({"op": "maxout", "pieces": 2});
    assert!(refused(serde_json::from_value(maxout).unwrap(), &x).contains("5 channels"));
    let pool = serde_json::json!({"op": "max_pool", "kernel": [1, 1, 1, 1]});
    let four = Tensor::zeros([1, 1, 2, 2, 2, 2], (Kind::Float, tch::Device::Cpu));
    assert!(refused(op(pool, &[1, 2, 2, 2, 2]), &four).contains("not 4"));
    let pool = serde_json::json!({"op": "max_pool", "kernel": [4, 4]});
    assert!(refused(op(pool, &[5, 3, 3]), &x).contains("at least 4"));

    let [weight, _] = both_layouts(&random(&[2, 5, 5, 5], 1));
    let conv = cp_net::Conv::new(5, 2, [5, 5]);
    assert!(super::conv::conv(&x, &weight, None, &conv).is_err());
    let [flat, _] = both_layouts(&random(&[1, 5], 1));
    assert!(super::conv::conv(&flat, &weight, None, &conv).is_err());
    let [odd, _] = both_layouts(&random(&[1, 4, 3, 3], 1));
    assert!(cp_net::Add {}.forward(&[&x, &odd], &[], EVALUATION).is_err());
}

#[test]
fn lrn_is_torchs() {
    // torch 2.11.0: torch.nn.functional.local_response_norm(torch.arange(1., 6.).reshape(1, 5, 1, 1), 5, 1.0, 0.75, 1.0)
    // = x / (1 + s/5)^0.75 with s = 14, 30, 55, 54, 50.
    let x = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0]).reshape([1, 5, 1, 1]);
    let y = run(&cp_net::Lrn { size: 5, alpha: 1.0, beta: 0.75, k: 1.0 }, &x, &[]);
    let expected = [(1.0_f64, 14.0), (2.0, 30.0), (3.0, 55.0), (4.0, 54.0), (5.0, 50.0)]
        .map(|(x, s)| (x / (1.0_f64 + s / 5.0).powf(0.75)) as f32);
    assert_close(
        &y,
        &ndarray::arr1(&expected).into_shape_with_order(vec![1, 5, 1, 1]).unwrap(),
        1e-6,
    );
}

#[test]
fn maxout_sends_the_gradient_to_the_winner() {
    let array = random(&[2, 6, 2, 2], 3);
    let maxout = op(serde_json::json!({"op": "maxout", "pieces": 3}), &[6, 2, 2]);
    for x in both_layouts(&array) {
        let x = x.set_requires_grad(true);
        let y = run(&maxout, &x, &[]);
        y.sum(Kind::Float).backward();
        let winners = array_from_tensor(&y).unwrap();
        let expected = ArrayD::from_shape_fn(array.raw_dim(), |at| {
            if array[&at] < winners[[at[0], at[1] / 3, at[2], at[3]]] { 0.0 } else { 1.0 }
        });
        assert_close(&x.grad(), &expected, 0.0);
        assert_eq!(x.grad().stride(), x.stride());
    }
}

const NORM: cp_net::BatchNorm = cp_net::BatchNorm { channels: 3, eps: 1e-3, momentum: 0.25 };

/// γ, β, running mean, running variance.
fn norm_params() -> Vec<Tensor> {
    [[1.0_f32, 2.0, 0.5], [0.0, -1.0, 3.0], [0.1, 0.2, 0.3], [1.0, 4.0, 0.25]]
        .iter()
        .map(|values| Tensor::from_slice(values))
        .collect()
}

/// Mean and (biased) variance of every channel, in f64.
fn moments(x: &ArrayD<f32>) -> Vec<(f64, f64)> {
    x.axis_iter(Axis(1))
        .map(|channel| {
            let n = channel.len() as f64;
            let mean = channel.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            (mean, channel.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n)
        })
        .collect()
}

#[test]
fn batch_norm_in_training_uses_the_batch_and_moves_the_statistics() {
    let array = random(&[4, 3, 5, 6], 3) * 2.0 + 0.5;
    let moments = moments(&array);
    let n = 4.0 * 5.0 * 6.0;
    for x in both_layouts(&array) {
        let params = norm_params();
        let y = NORM.forward(&[&x], &params, TRAINING).unwrap().remove(0);
        let (gamma, beta) = ([1.0, 2.0, 0.5], [0.0, -1.0, 3.0]);
        let expected = ArrayD::from_shape_fn(array.raw_dim(), |at| {
            let (mean, var) = moments[at[1]];
            ((f64::from(array[&at]) - mean) / (var + NORM.eps).sqrt() * gamma[at[1]] + beta[at[1]])
                as f32
        });
        assert_close(&y, &expected, 1e-5);
        // new = (1 - momentum) · old + momentum · batch, with the unbiased variance.
        let old = [[0.1, 0.2, 0.3], [1.0, 4.0, 0.25]];
        for channel in 0..3 {
            let (mean, var) = moments[channel];
            let new_mean = 0.75 * old[0][channel] + 0.25 * mean;
            let new_var = 0.75 * old[1][channel] + 0.25 * var * n / (n - 1.0);
            assert!((params[2].double_value(&[channel as i64]) - new_mean).abs() < 1e-6);
            assert!((params[3].double_value(&[channel as i64]) - new_var).abs() < 1e-6);
        }
    }
}

#[test]
fn calibration_takes_the_mean_over_the_batches() {
    let batches = [5, 6, 7].map(|seed| random(&[4, 3, 5, 6], seed) * 2.0 + 0.5);
    let params = norm_params();
    for (seen, batch) in batches.iter().enumerate() {
        let weight = 1.0 / (seen as f64 + 1.0);
        let run = Run { calibration: Some(weight), ..EVALUATION };
        let [x, _] = both_layouts(batch);
        let _ = NORM.forward(&[&x], &params, run).unwrap();
    }
    for channel in 0..3 {
        let of = |part: fn((f64, f64)) -> f64| {
            batches.iter().map(|batch| part(moments(batch)[channel])).sum::<f64>() / 3.0
        };
        let n = 4.0 * 5.0 * 6.0;
        let at = [channel as i64];
        assert!((params[2].double_value(&at) - of(|m| m.0)).abs() < 1e-6);
        assert!((params[3].double_value(&at) - of(|m| m.1) * n / (n - 1.0)).abs() < 1e-5);
    }
}

#[test]
fn batch_norm_in_evaluation_uses_the_statistics_and_leaves_them() {
    let array = random(&[2, 3, 2, 2], 4);
    for x in both_layouts(&array) {
        let params = norm_params();
        let y = run(&NORM, &x, &params);
        let expected =
            (f64::from(array[[1, 1, 0, 1]]) - 0.2) / (4.0_f64 + NORM.eps).sqrt() * 2.0 - 1.0;
        assert!((y.double_value(&[1, 1, 0, 1]) - expected).abs() < 1e-6);
        assert_eq!(Vec::<f32>::try_from(&params[2]).unwrap(), [0.1, 0.2, 0.3]);
        assert_eq!(Vec::<f32>::try_from(&params[3]).unwrap(), [1.0, 4.0, 0.25]);
    }
}

#[test]
fn dropout_is_for_training() {
    let dropout = op(serde_json::json!({"op": "dropout", "p": 0.5}), &[1000]);
    let x = Tensor::ones([2, 1000], (Kind::Float, tch::Device::Cpu));
    assert_eq!(run(&dropout, &x, &[]), x);
    let y = dropout.forward(&[&x], &[], TRAINING).unwrap().remove(0);
    let dropped = y.eq(0.0).sum(Kind::Double).double_value(&[]);
    assert!((800.0..1200.0).contains(&dropped), "{dropped}");
}
