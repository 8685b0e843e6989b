//! [`TrainData`]: what a run trains on.

use std::sync::Arc;

use cp_data::Dataset;

/// What a run trains on, and what it watches. The test set has no place here.
#[derive(Clone)]
pub struct TrainData {
    /// Examples to train on.
    pub train: Arc<dyn Dataset>,
    /// Held-out part of the training data, evaluated after every epoch.
    pub validation: Option<Arc<dyn Dataset>>,
}
