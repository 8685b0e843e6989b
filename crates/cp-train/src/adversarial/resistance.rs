//! [`resistance`]: networks attacked on the images of a data set that they know, side by side.

use std::sync::Arc;

use cp_data::{Dataset, Loader, LoaderConfig, Order, Subset};
use cp_net::Network;
use serde::{Deserialize, Serialize};

use super::{AttackOptions, Attacker};
use crate::batch::{fitting_transform, to_array};
use crate::device::Device;
use crate::error::TrainError;
use crate::evaluate::EvalOptions;
use crate::fit::check_fit;
use crate::memory::{Purpose, check_memory};
use crate::progress;

/// How steadfast a network is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resistance {
    /// On the first images that it takes for what they are. These differ between networks.
    pub own: Stat,
    /// On the first images that all networks take for what they are: the numbers that can be compared.
    pub common: Stat,
}

/// Steps that some images took.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// Images.
    pub images: usize,
    /// Mean number of steps, those that never flip with the largest.
    #[serde(with = "crate::finite")]
    pub mean: f64,
    /// Lower quartile, median and upper quartile.
    pub quartiles: [usize; 3],
    /// Images that never flip.
    pub never: usize,
    /// The steps of each image in the order of the data.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<usize>,
}

impl Stat {
    fn of(attacked: &[(usize, bool)]) -> Self {
        let steps: Vec<usize> = attacked.iter().map(|(steps, _)| *steps).collect();
        let mut sorted = steps.clone();
        sorted.sort_unstable();
        let at = |share: usize| {
            let last = sorted.len().saturating_sub(1);
            sorted.get((last * share).div_ceil(4)).copied().unwrap_or(0)
        };
        Self {
            images: steps.len(),
            mean: sorted.iter().sum::<usize>() as f64 / steps.len() as f64,
            quartiles: [at(1), at(2), at(3)],
            never: attacked.iter().filter(|(_, flipped)| !flipped).count(),
            steps,
        }
    }
}

/// Attacks each of `networks` on the first `examples` images of `data` that it classifies correctly, and on the first `examples` that all of them do.
/// With a class that is wanted, images of that class are left out.
///
/// # Errors
/// Where a network and the set do not belong together, options make no sense, a batch does not fit into memory, an image cannot be read;
/// [`TrainError::OutputsNotFinite`].
pub fn resistance(
    networks: &[&Network],
    data: &Arc<dyn Dataset>,
    examples: usize,
    attack: &AttackOptions,
    options: &EvalOptions,
    device: Device,
) -> Result<Vec<Resistance>, TrainError> {
    let batch_size = options.batch_size.min(data.len());
    attack.check(data.classes().len())?;
    for network in networks {
        let arch = network.architecture();
        check_fit(arch, data.as_ref())?;
        check_memory(arch, arch.input_shapes(), batch_size, Purpose::Training, device, "--batch")?;
    }
    let attackers = networks.iter().map(|network| Attacker::new(network, device));
    let attackers: Vec<Attacker> = attackers.collect::<Result<_, _>>()?;
    let known = known(&attackers, networks, data, examples, attack, options)?;
    let common = |place: &usize| known.iter().all(|known| known[*place]);
    let looked_at = known.first().map_or(0, Vec::len);
    let common: Vec<usize> = (0..looked_at).filter(common).take(examples).collect();
    let mut found = Vec::new();
    for ((attacker, network), known) in attackers.iter().zip(networks).zip(&known) {
        let own: Vec<usize> = (0..looked_at).filter(|&place| known[place]).take(examples).collect();
        let mut places = [&own[..], &common[..]].concat();
        places.sort_unstable();
        places.dedup();
        let attacked = attacked(attacker, network, data, &places, attack, options)?;
        let of = |wanted: &[usize]| {
            let one = |place: &usize| places.binary_search(place).ok().map(|at| attacked[at]);
            Stat::of(&wanted.iter().filter_map(one).collect::<Vec<_>>())
        };
        found.push(Resistance { own: of(&own), common: of(&common) });
    }
    Ok(found)
}

/// Which images each network takes for what they are, from the first on, as far as is needed for `examples` of each kind.
fn known(
    attackers: &[Attacker],
    networks: &[&Network],
    data: &Arc<dyn Dataset>,
    examples: usize,
    attack: &AttackOptions,
    options: &EvalOptions,
) -> Result<Vec<Vec<bool>>, TrainError> {
    let mut known = vec![Vec::new(); attackers.len()];
    let wanted = attack.target.map(|wanted| wanted.class);
    let bar = progress::bar(data.len() as u64, "known images");
    for start in (0..data.len()).step_by(options.batch_size) {
        let places: Vec<usize> = (start..data.len().min(start + options.batch_size)).collect();
        for ((attacker, network), known) in attackers.iter().zip(networks).zip(&mut known) {
            each_batch(network, data, &places, options, |inputs, labels| {
                let classes = attacker.classes(inputs.view())?;
                let right = classes.iter().zip(labels);
                known.extend(right.map(|(class, label)| class == label && wanted != Some(*label)));
                Ok(())
            })?;
        }
        bar.inc(places.len() as u64);
        let all = (0..known[0].len()).filter(|&place| known.iter().all(|known| known[place]));
        // All networks know what is common, so that each has as many of its own by then.
        if all.count() >= examples {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(known)
}

/// Steps of the images at these places, and whether they flipped.
fn attacked(
    attacker: &Attacker,
    network: &Network,
    data: &Arc<dyn Dataset>,
    places: &[usize],
    attack: &AttackOptions,
    options: &EvalOptions,
) -> Result<Vec<(usize, bool)>, TrainError> {
    let mut found = Vec::with_capacity(places.len());
    let bar = progress::bar(places.len() as u64, "attack");
    each_batch(network, data, places, options, |inputs, labels| {
        let places = &places[found.len()..][..labels.len()];
        let attacked = attacker.attack_at(places, inputs.view(), labels, attack)?;
        found.extend(attacked.steps.into_iter().zip(attacked.flipped));
        bar.inc(labels.len() as u64);
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(found)
}

/// The images at these places as inputs of `network`, batch by batch, with their labels.
fn each_batch(
    network: &Network,
    data: &Arc<dyn Dataset>,
    places: &[usize],
    options: &EvalOptions,
    mut take: impl FnMut(&ndarray::ArrayD<f32>, &[usize]) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let input = network.architecture().input();
    let part = Subset::new(data.name(), Arc::clone(data), places.to_vec())?;
    let loading = LoaderConfig {
        batch_size: options.batch_size,
        order: Order::Sequential,
        transform: fitting_transform(data.as_ref(), input)?,
        workers: options.workers,
        drop_last: false,
    };
    for batch in Loader::new(Arc::new(part), loading)? {
        let batch = batch?;
        let labels: Vec<usize> =
            batch.labels.iter().map(|&label| usize::try_from(label).unwrap_or(0)).collect();
        take(&to_array(&batch, input), &labels).map_err(|error| match error {
            TrainError::OutputsNotFinite { network, .. } => {
                TrainError::OutputsNotFinite { network, data: data.name().into() }
            }
            other => other,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_in_short() {
        let stat = Stat::of(&[(3, true), (1, true), (999, false), (5, true), (2, true)]);
        assert_eq!((stat.images, stat.never, stat.quartiles), (5, 1, [2, 3, 5]));
        assert!((stat.mean - 202.0).abs() < 1e-12);
        assert_eq!(stat.steps, [3, 1, 999, 5, 2]);
        let none = Stat::of(&[]);
        assert!(none.images == 0 && none.mean.is_nan());
    }
}
