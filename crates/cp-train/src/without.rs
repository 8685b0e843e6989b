//! What a program that was built without libtorch refuses, in words.

use crate::error::TrainError;

pub(crate) const FINE_TUNING: [&str; 2] = [
    "fine-tuning",
    "leave --epochs out, and with a data set take --preset quick --calibrate 0, which do what can be done without it",
];

pub(crate) const CALIBRATION: [&str; 2] =
    ["measuring the statistics of batch normalizations anew", "--calibrate 0 leaves it out"];

pub(crate) const SENSITIVITY: [&str; 2] = [
    "measuring losses layer by layer (--plan-by sensitivity, --rank-sums)",
    "plan by errors, which is the default",
];

pub(crate) fn refused([what, way_out]: [&'static str; 2]) -> TrainError {
    TrainError::NeedsLibtorch { what, way_out }
}
