//! Statistics of the inputs of a model's layers, from runs in ONNX Runtime: opaque ops between the layers are no obstacle.

use std::collections::BTreeMap;

use cp_net::Op;
use cp_ort::{ElementType, Session, Tensor};
use cp_plan::LayerStatistics;
use ndarray::ArrayD;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use super::{Examples, Host};
use crate::engine::tapped;
use crate::error::TrainError;
use crate::progress;
use crate::statistics::{LeftOut, StatisticsOptions, Sums, unfolded_size};

/// What is measured of a layer: at each of its nodes, the value that the node reads, and the op that it is.
struct Measured<'a> {
    layer: &'a str,
    nodes: Vec<(String, Op)>,
}

/// Second moments of the inputs of `layers` over `options.images` examples, and the layers that cannot be measured with the reason.
pub(super) fn statistics(
    host: &Host,
    examples: &Examples,
    layers: &[String],
    options: &StatisticsOptions,
) -> Result<(LayerStatistics, LeftOut), TrainError> {
    let (mut measured, mut left) = (Vec::new(), LeftOut::new());
    for name in layers {
        match nodes(host, name)? {
            Ok(nodes) => measured.push(Measured { layer: name, nodes }),
            Err(why) => left.push((name.clone(), why)),
        }
    }
    if measured.is_empty() {
        return Ok((LayerStatistics::new(), left));
    }
    let mut sums = BTreeMap::new();
    for Measured { layer, nodes } in &measured {
        if let Some((_, op)) = nodes.first() {
            let sum = Sums::of(op)
                .map_err(|why| TrainError::Statistics { layer: (*layer).into(), why })?;
            sums.insert(*layer, sum);
        }
    }
    let mut readers: BTreeMap<&str, Vec<(&str, &Op)>> = BTreeMap::new();
    for Measured { layer, nodes } in &measured {
        for (value, op) in nodes {
            readers.entry(value).or_default().push((*layer, op));
        }
    }
    let values: Vec<&str> = readers.keys().copied().collect();
    let (mut session, _folder) = tapped(&host.model, &values)?;
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let (mut seen, wanted) = (0, options.images.min(examples.examples()));
    let bar = progress::bar(wanted as u64, "input statistics");
    for run in 0..examples.runs() {
        if seen >= wanted {
            break;
        }
        let found = run_once(&mut session, examples, run, &values)?;
        for (value, x) in found {
            for (layer, op) in &readers[value] {
                if let Some(sums) = sums.get_mut(layer) {
                    sums.add(&x.view(), op, options.positions, &mut rng)?;
                }
            }
        }
        let before = seen;
        seen += examples.size_of(run);
        bar.inc((seen.min(wanted) - before) as u64);
    }
    bar.finish_and_clear();
    let found =
        sums.into_iter().map(|(layer, sums)| (layer.to_owned(), sums.finished(options.shrink)));
    Ok((found.collect(), left))
}

/// The nodes of a layer, or why they cannot be measured.
fn nodes(host: &Host, name: &str) -> Result<Result<Vec<(String, Op)>, String>, TrainError> {
    let Some(layer) = host.view.layers.get(name) else {
        return Ok(Err("it is no layer of the model".into()));
    };
    let values = host.model.value_of_layer_input(layer)?;
    let ops = host.model.geometry(layer)?;
    let mut nodes = Vec::with_capacity(ops.len());
    for (value, op) in values.into_iter().zip(ops) {
        let Some(value) = value else {
            return Ok(Err(
                "it stands inside a branch or a function, whose values cannot be seen".into()
            ));
        };
        let Some(op) = op else {
            return Ok(Err("its settings are not known here".into()));
        };
        if let Err(why) = unfolded_size(&op) {
            return Ok(Err(why));
        }
        nodes.push((value, op));
    }
    Ok(Ok(nodes))
}

/// One run: the values that were tapped, as f32.
fn run_once<'v>(
    session: &mut Session,
    examples: &Examples,
    run: usize,
    values: &[&'v str],
) -> Result<Vec<(&'v str, ArrayD<f32>)>, TrainError> {
    let feed = examples.run(run)?;
    let given: BTreeMap<&str, &Tensor> = feed.iter().map(|(name, x)| (name.as_str(), x)).collect();
    let inputs = cp_ort::Inputs::new(feed.iter().map(|(name, x)| (name.clone(), x.clone())))?;
    let outputs = session.run_prepared(&inputs)?;
    let mut found = Vec::with_capacity(values.len());
    for &value in values {
        // A layer may read an input of the model itself.
        let x = match given.get(value) {
            Some(&x) => x.clone(),
            None => outputs.tensor(value)?,
        };
        let Some(Tensor::F32(x)) = x.cast(&ElementType::F32) else {
            let (name, element) = (value.to_owned(), x.element_type().to_string());
            return Err(TrainError::InputType { name, element });
        };
        if x.iter().any(|x| !x.is_finite()) {
            return Err(TrainError::Inputs {
                from: "the examples".into(),
                what: format!("in the dense model the value '{value}' becomes NaN or infinite"),
            });
        }
        found.push((value, x));
    }
    Ok(found)
}
