//! [`sensitivity`]: every layer compressed alone, and the network measured.

use std::io::Write;
use std::path::{Path, PathBuf};

use cp_net::Network;
use cp_plan::PlannedLayer;
use cp_torch::Executor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Probe, Sensitivity, SensitivityOptions};
use crate::device::Device;
use crate::error::TrainError;
use crate::evaluate::{EvalOptions, Evaluation, evaluate};
use crate::key::{data_identity, fingerprint, hex};
use crate::progress;
use crate::record::{NoRecord, write_atomic};
use crate::train::train;
use crate::train_data::TrainData;

/// Compresses every layer alone, fine-tunes shortly where asked to, and evaluates the network on the validation data.
///
/// With a `cache` file, every probe is kept as it is done: a killed run goes on behind the last one, and a second run with the
/// same network, data and options reads the file. A file of other ones is not touched, and an error.
///
/// # Errors
/// No validation data; what decomposition, training and evaluation refuse; a cache of another run.
pub fn sensitivity(
    network: &Network,
    data: &TrainData,
    options: &SensitivityOptions,
    device: impl Into<Device>,
    cache: Option<&Path>,
) -> Result<Sensitivity, TrainError> {
    let device = device.into().into();
    let Some(validation) = &data.validation else {
        return Err(TrainError::Config {
            option: "sensitivity",
            got: "no validation data".into(),
            expected: "validation data to measure on",
        });
    };
    let arch = network.architecture();
    let planned = options.probes(arch, &arch.compressible())?;
    let mut cache = Cache::open(cache, network, data, options)?;
    let score = |network: &Network| -> Result<Evaluation, TrainError> {
        evaluate(&Executor::new(network, device)?, validation, &EvalOptions::default())
    };
    let dense = match cache.dense {
        Some(dense) => dense,
        None => {
            let dense = score(network)?;
            cache.write(&Line::Dense(dense))?;
            dense
        }
    };
    let bar = progress::bar(planned.len() as u64, "probe layers");
    let mut probes = std::mem::take(&mut cache.probes);
    probes.truncate(planned.len());
    bar.inc(probes.len() as u64);
    for planned in planned.into_iter().skip(probes.len()) {
        bar.set_message(planned.name.clone());
        let (mut probed, rel_error) = options.probed(network, &planned)?;
        if let Some(config) = &options.fine_tune {
            let mut model = Executor::new(&probed, device)?;
            let unwatched = TrainData { train: data.train.clone(), validation: None };
            train(&mut model, &unwatched, config, &mut NoRecord, None)?;
            probed = model.network()?;
        }
        let evaluation = Evaluation { seconds: 0.0, ..score(&probed)? };
        let PlannedLayer { name: layer, form, rank, .. } = planned;
        let probe = Probe { layer, form, rank, rel_error, evaluation };
        cache.write(&Line::Probe(probe.clone()))?;
        probes.push(probe);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(Sensitivity { dense: Evaluation { seconds: 0.0, ..dense }, probes })
}

/// The probes done so far, as lines of JSON behind one that says what they belong to.
struct Cache {
    path: Option<PathBuf>,
    dense: Option<Evaluation>,
    probes: Vec<Probe>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// SHA-256 of network, data and options.
    Of(String),
    Dense(Evaluation),
    Probe(Probe),
}

impl Cache {
    fn open(
        path: Option<&Path>,
        network: &Network,
        data: &TrainData,
        options: &SensitivityOptions,
    ) -> Result<Self, TrainError> {
        let mut cache = Self { path: path.map(Path::to_owned), dense: None, probes: Vec::new() };
        let Some(path) = path else { return Ok(cache) };
        let of = inputs(network, data, options)?;
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                write_atomic(path, line(&Line::Of(of)).as_bytes())?;
                return Ok(cache);
            }
            Err(error) => return Err(TrainError::io(path)(error)),
        };
        let mut lines = text.lines().map(serde_json::from_str::<Line>);
        match lines.next() {
            Some(Ok(Line::Of(found))) if found == of => {}
            _ => {
                return Err(TrainError::Checkpoint {
                    path: path.into(),
                    what: "it holds probes of another network, other data or other options".into(),
                });
            }
        }
        // What a kill cut off, and everything behind it, is computed again.
        for line in lines.map_while(Result::ok) {
            match line {
                Line::Dense(dense) => cache.dense = Some(dense),
                Line::Probe(probe) => cache.probes.push(probe),
                Line::Of(_) => break,
            }
        }
        let mut whole = line(&Line::Of(of));
        whole.extend(cache.dense.iter().map(|dense| line(&Line::Dense(*dense))));
        whole.extend(cache.probes.iter().map(|probe| line(&Line::Probe(probe.clone()))));
        write_atomic(path, whole.as_bytes())?;
        Ok(cache)
    }

    fn write(&mut self, what: &Line) -> Result<(), TrainError> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut file =
            std::fs::OpenOptions::new().append(true).open(path).map_err(TrainError::io(path))?;
        file.write_all(line(what).as_bytes()).map_err(TrainError::io(path))
    }
}

fn line(what: &Line) -> String {
    // Strings and numbers always have a JSON form.
    serde_json::to_string(what).unwrap_or_default() + "\n"
}

/// SHA-256 of everything that decides the probes.
fn inputs(
    network: &Network,
    data: &TrainData,
    options: &SensitivityOptions,
) -> Result<String, TrainError> {
    let mut hash = Sha256::new();
    hash.update(fingerprint(network));
    for set in std::iter::once(&data.train).chain(&data.validation) {
        hash.update(data_identity(&**set)?);
    }
    hash.update(serde_json::to_string(options).unwrap_or_default());
    Ok(hex(hash))
}
