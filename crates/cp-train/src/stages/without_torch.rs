//! What stands in the place of `torch.rs` in a program that was built without libtorch: evaluations run in the engine, and statistics in ONNX
//! Runtime; training is refused, by [`Recipe::check`](crate::Recipe::check) before anything runs.

use std::collections::BTreeSet;
use std::sync::Arc;

use cp_data::Dataset;
use cp_net::Network;
use cp_plan::LayerStatistics;

use super::Stages;
use crate::calibrate::CalibrationOptions;
use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::evaluate::{EvalOptions, Evaluation, evaluate_in};
use crate::exported::input_statistics;
use crate::key::Key;
use crate::libtorch::{CALIBRATION, FINE_TUNING, SENSITIVITY, refused};
use crate::sensitivity::{Sensitivity, SensitivityOptions};
use crate::statistics::StatisticsOptions;
use crate::train_data::TrainData;

impl Stages {
    pub(crate) fn fine_tuned(
        &self,
        _name: &str,
        _network: &Network,
        _frozen: &BTreeSet<String>,
        _dense: &Network,
        _data: &TrainData,
        _config: &TrainConfig,
    ) -> Result<Network, TrainError> {
        Err(refused(FINE_TUNING))
    }

    pub(crate) fn calibrated(
        &self,
        _network: &Network,
        _data: &Arc<dyn Dataset>,
        _options: &CalibrationOptions,
    ) -> Result<Network, TrainError> {
        Err(refused(CALIBRATION))
    }

    /// `network` on all of `set`.
    pub(super) fn evaluated(
        &self,
        network: &Network,
        set: &Arc<dyn Dataset>,
    ) -> Result<Evaluation, TrainError> {
        evaluate_in(self.engine, network, set, &EvalOptions::default())
    }

    /// Second moments of the inputs of `layers`.
    pub(crate) fn input_statistics(
        &self,
        network: &Network,
        layers: &[String],
        data: &Arc<dyn Dataset>,
        options: &StatisticsOptions,
    ) -> Result<LayerStatistics, TrainError> {
        input_statistics(network, layers, data, options)
    }

    pub(crate) fn sensitivity(
        &self,
        _key: &Key,
        _network: &Network,
        _data: &TrainData,
        _options: &SensitivityOptions,
    ) -> Result<Sensitivity, TrainError> {
        Err(refused(SENSITIVITY))
    }
}
