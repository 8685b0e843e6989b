//! The learning rate as a pure function of the step.

use crate::config::{Schedule, TrainConfig};

/// Learning rate of step `step` (from 0) of a run whose epochs have `steps_per_epoch` steps each.
///
/// Warm-up: step s of w gets (s+1)/w of the peak. Then the schedule, whose cosine runs from the end of the warm-up to the end
/// of the run.
///
/// # Panics
/// If `steps_per_epoch` is 0.
pub fn lr_at(config: &TrainConfig, step: usize, steps_per_epoch: usize) -> f64 {
    assert!(steps_per_epoch > 0, "an epoch needs a step");
    let warmup = (config.warmup_epochs * steps_per_epoch as f64).round();
    let position = step as f64;
    if position < warmup {
        return config.lr * (position + 1.0) / warmup;
    }
    match &config.schedule {
        Schedule::Constant => config.lr,
        Schedule::Cosine => {
            let total = (config.epochs * steps_per_epoch) as f64;
            let progress = ((position - warmup) / (total - warmup).max(1.0)).min(1.0);
            config.lr * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
        }
        Schedule::Step { epochs, gamma } => {
            let epoch = step / steps_per_epoch;
            let falls = epochs.iter().filter(|&&start| epoch >= start).count();
            config.lr * gamma.powi(i32::try_from(falls).unwrap_or(i32::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;

    use super::*;
    use crate::config::OptimizerConfig;

    fn config(schedule: Schedule, warmup_epochs: f64) -> TrainConfig {
        TrainConfig {
            epochs: 10,
            batch_size: 1,
            optimizer: OptimizerConfig::sgd(0.0),
            lr: 0.1,
            schedule,
            warmup_epochs,
            label_smoothing: 0.0,
            clip_norm: None,
            l1: None,
            augmentation: Default::default(),
            groups: Vec::new(),
            distill: None,
            patience: None,
            keep_best: false,
            seed: 0,
            workers: 1,
        }
    }

    #[test]
    fn warm_up_rises_linearly_to_the_peak() {
        let config = config(Schedule::Constant, 0.5);
        assert_relative_eq!(lr_at(&config, 0, 8), 0.025);
        assert_relative_eq!(lr_at(&config, 3, 8), 0.1);
        assert_relative_eq!(lr_at(&config, 4, 8), 0.1);
    }

    #[test]
    fn cosine_starts_at_the_peak_and_ends_near_zero() {
        let config = config(Schedule::Cosine, 0.0);
        assert_relative_eq!(lr_at(&config, 0, 10), 0.1);
        assert_relative_eq!(lr_at(&config, 50, 10), 0.05, epsilon = 1e-12);
        assert!(lr_at(&config, 99, 10) < 1e-4);
    }

    #[test]
    fn steps_fall_at_the_start_of_their_epochs() {
        let config = config(Schedule::Step { epochs: vec![5, 8], gamma: 0.1 }, 0.0);
        for (step, expected) in [(49, 0.1), (50, 0.01), (79, 0.01), (80, 0.001)] {
            assert_relative_eq!(lr_at(&config, step, 10), expected, max_relative = 1e-12);
        }
    }
}
