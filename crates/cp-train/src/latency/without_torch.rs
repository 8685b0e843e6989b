//! What stands in the place of `alone.rs` in a program that was built without libtorch.

use cp_net::Network;
use cp_plan::Profile;

use crate::device::Device;
use crate::error::TrainError;
use crate::libtorch::{ENGINE, refused};
use crate::timing::TimingOptions;

pub(super) fn time(
    _: &Network,
    _: &mut Profile,
    _: usize,
    _: Device,
    _: &TimingOptions,
) -> Result<(), TrainError> {
    Err(refused(ENGINE))
}
