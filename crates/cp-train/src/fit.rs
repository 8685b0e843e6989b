//! [`check_fit`]: whether a network and a data set belong together, found out before anything runs.

use cp_data::Dataset;
use cp_net::{Architecture, Channels, InputSpec};

use crate::error::TrainError;

/// That the network takes the pictures of `data` and puts out one number for each of its classes.
///
/// # Errors
/// [`TrainError::Unfit`], which says what the network takes or gives, and what the data set has; [`TrainError::Empty`].
pub fn check_fit(network: &Architecture, data: &dyn Dataset) -> Result<(), TrainError> {
    check_takes(network, data)?;
    check_gives(network, data)
}

/// That the network takes the pictures of `data`; what it makes of them does not matter.
pub(crate) fn check_takes(network: &Architecture, data: &dyn Dataset) -> Result<(), TrainError> {
    if let [first, second, ..] = &network.inputs[..] {
        let count = network.inputs.len();
        let more = if count > 2 { ", …" } else { "" };
        let (first, second) = (&first.name, &second.name);
        let what = format!("takes {count} inputs ('{first}', '{second}'{more}) at a time");
        return Err(no_pictures(&network.name, what, data));
    }
    check_pictures(&network.name, network.input(), data)
}

/// That the input takes the pictures of `data`.
pub(crate) fn check_pictures(
    network: &str,
    input: &InputSpec,
    data: &dyn Dataset,
) -> Result<(), TrainError> {
    if data.is_empty() {
        return Err(TrainError::Empty { name: data.name().into() });
    }
    let shape = &input.shape;
    if let Some(features) = data.features(0) {
        if input.channels == Channels::Features && shape == features.shape() {
            return Ok(());
        }
        return Err(TrainError::Unfit {
            network: network.into(),
            what: format!("takes an input of shape {shape:?}"),
            data: data.name().into(),
            has: format!("features of shape {:?}", features.shape()),
        });
    }
    let what = match (shape.len(), input.channels) {
        (3, Channels::Gray | Channels::Rgb | Channels::Bgr) => return Ok(()),
        (0, _) => "takes single numbers".into(),
        (1, _) => format!("takes vectors of {} numbers", shape[0]),
        (2, _) => format!("takes sequences of shape {shape:?} (channels, length)"),
        (3, Channels::Features) => format!(
            "takes maps of features of shape {shape:?} (where they are pictures, write \"channels\": \"rgb\", \"bgr\" or \"gray\" \
             at its input, or name --preprocess)"
        ),
        _ => format!("takes volumes of shape {shape:?}"),
    };
    Err(no_pictures(network, what, data))
}

fn no_pictures(network: &str, what: String, data: &dyn Dataset) -> TrainError {
    TrainError::Unfit {
        network: network.into(),
        what,
        data: data.name().into(),
        has: "pictures, of channels, height and width".into(),
    }
}

/// That there is one output for each class.
fn check_gives(network: &Architecture, data: &dyn Dataset) -> Result<(), TrainError> {
    let output = network.output_shape(network.input_shapes())?;
    let classes = data.classes();
    let name = network.outputs.first().map_or("", String::as_str);
    let unfit = |what: String| {
        Err(TrainError::Unfit {
            network: network.name.clone(),
            what,
            data: data.name().into(),
            has: format!("{} classes ({})", classes.len(), listed(classes)),
        })
    };
    match output[..] {
        [outputs] if outputs == classes.len() => Ok(()),
        [outputs] => unfit(format!("has {outputs} outputs, one for each class")),
        _ => unfit(format!(
            "puts out '{name}' of shape {output:?} for a picture, not one number for each class"
        )),
    }
}

/// The first few names, each cut where it is long.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 5;
    const LETTERS: usize = 24;
    let short = |name: &String| match name.char_indices().nth(LETTERS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.clone(),
    };
    let mut shown: Vec<String> = names.iter().take(SHOWN).map(short).collect();
    if names.len() > SHOWN {
        shown.push("…".into());
    }
    shown.join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cp_data::Images;
    use ndarray::Array4;

    use super::*;

    /// Pictures of three classes.
    fn pictures() -> Images {
        let classes = ["cat", "dog", "hen"].map(String::from).to_vec();
        Images::new("animals", classes, Array4::zeros((3, 3, 8, 8)), vec![0, 1, 2]).unwrap()
    }

    fn network(inputs: &str, nodes: &str) -> Architecture {
        let text = format!(r#"{{"name": "net", "inputs": [{inputs}], "nodes": [{nodes}]}}"#);
        Architecture::from_json(&text).unwrap()
    }

    const POOL: &str = r#"{"name": "pool", "op": "global_avg_pool", "inputs": ["input"]}, {"name": "flat", "op": "flatten", "inputs": ["pool"]}"#;

    fn linear(outputs: usize) -> String {
        format!(
            r#"{POOL}, {{"name": "fc", "op": "linear", "out_features": {outputs}, "inputs": ["flat"]}}"#
        )
    }

    #[test]
    fn a_network_and_a_set_that_belong_together() {
        let rgb = network(r#"{"shape": [3, 8, 8], "channels": "rgb"}"#, &linear(3));
        check_fit(&rgb, &pictures()).unwrap();
        // Grey networks get the luma.
        let gray = network(r#"{"shape": [1, 28, 28], "channels": "gray"}"#, &linear(3));
        check_fit(&gray, &pictures()).unwrap();
    }

    #[test]
    fn what_does_not_belong_together_is_said() {
        let check = |network: &Architecture, words: &[&str]| {
            let error = check_fit(network, &pictures()).unwrap_err().to_string();
            for word in ["'net'", "'animals'"].iter().chain(words) {
                assert!(error.contains(word), "'{word}' is missing in: {error}");
            }
            assert!(error.len() < 400 && !error.contains('\n'), "{error}");
        };
        let flat = r#"{"name": "flat", "op": "flatten", "inputs": ["input"]}, {"name": "fc", "op": "linear", "out_features": 3, "inputs": ["flat"]}"#;
        check(&network(r#"{"shape": [7]}"#, flat), &["vectors of 7", "pictures"]);
        check(&network(r#"{"shape": [4, 50]}"#, flat), &["sequences of shape [4, 50]", "pictures"]);
        check(&network(r#"{"shape": [64, 7, 7]}"#, flat), &["maps of features", "channels"]);
        check(&network(r#"{"shape": [3, 8, 8]}"#, flat), &["maps of features", "\"rgb\""]);
        check(&network(r#"{"shape": [1, 4, 8, 8]}"#, flat), &["volumes", "pictures"]);
        let two = r#"{"name": "a", "shape": [3, 8, 8], "channels": "rgb"}, {"name": "b", "shape": [3, 8, 8], "channels": "rgb"}"#;
        let sum = r#"{"name": "sum", "op": "add", "inputs": ["a", "b"]}"#;
        check(&network(two, sum), &["2 inputs ('a', 'b')", "pictures"]);
        let rgb = r#"{"shape": [3, 8, 8], "channels": "rgb"}"#;
        check(
            &network(rgb, r#"{"name": "r", "op": "relu", "inputs": ["input"]}"#),
            &["'r'", "[3, 8, 8]", "3 classes"],
        );
        check(
            &network(
                rgb,
                POOL.split_once("}, ").map(|(pool, _)| format!("{pool}}}")).unwrap().as_str(),
            ),
            &["[3, 1, 1]", "3 classes"],
        );
        check(&network(rgb, &linear(2)), &["2 outputs", "3 classes (cat, dog, hen)"]);
        check(&network(rgb, &linear(10)), &["10 outputs", "3 classes"]);
    }
}
