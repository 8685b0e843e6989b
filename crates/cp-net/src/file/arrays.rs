//! Arrays from elsewhere as the parameters of an architecture: by name, with another number of classes, and only where they are numbers.

use std::collections::BTreeMap;

use ndarray::ArrayD;

use crate::error::NetError;
use crate::file::names::matched;
use crate::network::Network;
use crate::network::architecture::Architecture;
use crate::network::check::check_shapes;

/// A network whose weights come from elsewhere, and what had to be done to fit them.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The network.
    pub network: Network,
    /// What a user should know: names that were changed, a head that was read off the weights.
    pub notes: Vec<String>,
}

impl Network {
    /// A network of arrays that come from elsewhere, such as a state dict of PyTorch, by name: as [`Network::load_as`] does it with those
    /// of a file. Counters (`num_batches_tracked`) may be among them.
    ///
    /// ```
    /// use cp_net::{Network, arch};
    ///
    /// let small = arch::by_name("small-cnn")?;
    /// let (_, params) = small.clone().initialize(1)?.into_parts();
    /// let wrapped = params.into_iter().map(|(name, array)| (format!("module.{name}"), array)).collect();
    /// let loaded = Network::from_arrays(small, wrapped)?;
    /// assert_eq!(loaded.notes, ["'module.' was dropped from 8 names of arrays"]);
    /// # Ok::<(), cp_net::NetError>(())
    /// ```
    ///
    /// # Errors
    /// [`NetError::ParamMismatch`] names missing, unexpected and mis-shaped arrays; [`NetError::BadValues`] for weights that are no
    /// numbers; as [`Architecture::check`].
    pub fn from_arrays(
        arch: Architecture,
        arrays: BTreeMap<String, ArrayD<f32>>,
    ) -> Result<Loaded, NetError> {
        arch.check()?;
        let wanted = arch.params().map(|(name, _)| name).collect();
        let found = matched(arrays.keys().map(String::as_str), &wanted);
        let mut notes = found.notes;
        let params: BTreeMap<String, ArrayD<f32>> = arrays
            .into_iter()
            .filter_map(|(name, array)| Some((found.names.get(&name)?.clone(), array)))
            .collect();
        let shapes = params.iter().map(|(name, array)| (name.as_str(), array.shape())).collect();
        let arch = match other_head(&arch, &shapes) {
            Some((other, note)) => {
                notes.push(note);
                other
            }
            None => arch,
        };
        check_shapes(&arch, &shapes)?;
        check_values(&arch, &params)?;
        Ok(Loaded { network: Network { arch, params }, notes })
    }
}

/// The architecture with as many classes as the weights have, where only the last layer's number of outputs differs.
pub(super) fn other_head(
    arch: &Architecture,
    given: &BTreeMap<&str, &[usize]>,
) -> Option<(Architecture, String)> {
    let head = arch.head_name().ok()?;
    let name = arch.node(&head).ok()?.param("weight");
    let (_, spec) = arch.params().find(|(param, _)| *param == name)?;
    let (&rows, columns) = given.get(name.as_str())?.split_first()?;
    if rows == spec.shape[0] || columns != &spec.shape[1..] {
        return None;
    }
    let [classes] = arch.output_shape(arch.input_shapes()).ok()?[..] else { return None };
    // Several outputs for each class where a maxout stands behind.
    let pieces = spec.shape[0] / classes;
    let other = arch.with_classes(rows / pieces).ok()?;
    check_shapes(&other, given).ok()?;
    let note = format!(
        "the last layer, '{head}', has weights for {} classes; '{}' has {classes}",
        rows / pieces,
        arch.name
    );
    Some((other, note))
}

/// Refuses parameters that are no numbers, and variances below 0.
pub(super) fn check_values(
    arch: &Architecture,
    params: &BTreeMap<String, ArrayD<f32>>,
) -> Result<(), NetError> {
    for (name, spec) in arch.params() {
        let Some(array) = params.get(&name) else { continue };
        let bad = |what, is: fn(&f32) -> bool| {
            let count = array.iter().filter(|value| is(value)).count();
            let error = NetError::BadValues { name: name.clone(), count, what };
            if count > 0 { Err(error) } else { Ok(()) }
        };
        bad("NaN or infinite", |value| !value.is_finite())?;
        if spec.slot == "running_var" {
            bad("negative variances", |value| *value < 0.0)?;
        }
    }
    Ok(())
}
