//! What stands in the place of `attacker.rs` in a program that was built without libtorch, which alone has gradients.

use cp_net::Network;
use ndarray::ArrayViewD;

use super::{AttackOptions, Attacked};
use crate::error::TrainError;
use crate::libtorch::{ATTACK, refused};

/// A network that is attacked.
pub struct Attacker;

impl Attacker {
    /// # Errors
    /// Always.
    pub fn new(_: &Network, _: crate::Device) -> Result<Self, TrainError> {
        Err(refused(ATTACK))
    }

    /// # Errors
    /// Always.
    pub fn classes(&self, _: ArrayViewD<'_, f32>) -> Result<Vec<usize>, TrainError> {
        Err(refused(ATTACK))
    }

    /// # Errors
    /// Always.
    pub fn attack(
        &self,
        _: ArrayViewD<'_, f32>,
        _: &[usize],
        _: &AttackOptions,
    ) -> Result<Attacked, TrainError> {
        Err(refused(ATTACK))
    }

    pub(super) fn attack_at(
        &self,
        _: &[usize],
        _: ArrayViewD<'_, f32>,
        _: &[usize],
        _: &AttackOptions,
    ) -> Result<Attacked, TrainError> {
        Err(refused(ATTACK))
    }
}
