//! [`time_choices`]: how long a layer takes on this machine, dense and in each form and rank that a plan may choose.

#[cfg_attr(not(feature = "torch"), path = "latency/without_torch.rs")]
mod alone;
mod in_context;

use cp_net::Network;
use cp_plan::Profile;

use crate::engine::Engine;
use crate::error::TrainError;
use crate::timing::TimingOptions;

pub use in_context::{LayerTime, layer_times};

/// Fills in the seconds of every layer and choice of `profile`, and those of the whole network, for batches of `batch` examples
/// in `engine` with the threads set.
///
/// ONNX Runtime and cp-infer tell what each node of the running network takes; in libtorch each layer is timed alone. Values do not matter to the
/// time, so weights are drawn. Where the layers together take longer than the whole network, as on a busy machine they may, all
/// their times are scaled down to its time: what a plan saves is then never more than there is.
///
/// # Errors
/// A profile that is not of `network`, or a layer that cannot run.
pub fn time_choices(
    network: &Network,
    profile: &mut Profile,
    batch: usize,
    engine: Engine,
    options: &TimingOptions,
) -> Result<(), TrainError> {
    match engine {
        Engine::Torch(device) => alone::time(network, profile, batch, device, options)?,
        Engine::OnnxRuntime | Engine::Infer => {
            in_context::time(network, profile, batch, engine, options)?;
        }
    }
    fit_into_whole(profile);
    Ok(())
}

/// Scales the times of the layers so that all of them dense take no longer than the whole network.
fn fit_into_whole(profile: &mut Profile) {
    let Some(whole) = profile.dense_seconds else { return };
    let sum: f64 = profile.layers.iter().filter_map(|layer| layer.dense_seconds).sum();
    if sum <= whole {
        return;
    }
    for layer in &mut profile.layers {
        let choices = layer.choices.iter_mut().map(|choice| &mut choice.seconds);
        for seconds in choices.chain([&mut layer.dense_seconds]).flatten() {
            *seconds *= whole / sum;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use cp_net::Form;
    use cp_plan::{Decomposer, ProfileOptions};

    use super::*;

    #[test]
    fn layers_never_take_longer_than_the_network() {
        let net = cp_net::arch::by_name("small-cnn").unwrap().initialize(1).unwrap();
        let options =
            ProfileOptions { forms: vec![Form::Cp3], points: 2, ..ProfileOptions::default() };
        let decomposer = Decomposer::als(1, 0);
        let measured =
            Profile::measure(&net, [1, 28, 28], None, &options, &decomposer, &|_| {}).unwrap();
        let timed = |whole: f64| {
            let mut profile = measured.clone();
            profile.dense_seconds = Some(whole);
            for layer in &mut profile.layers {
                layer.dense_seconds = Some(2.0);
                layer.choices.iter_mut().for_each(|choice| choice.seconds = Some(0.5));
            }
            fit_into_whole(&mut profile);
            let layer = &profile.layers[1];
            (layer.dense_seconds.unwrap(), layer.choices[0].seconds.unwrap())
        };
        // Four layers: 8 seconds.
        assert_eq!(timed(10.0), (2.0, 0.5));
        assert_eq!(timed(4.0), (1.0, 0.25));
    }
}
