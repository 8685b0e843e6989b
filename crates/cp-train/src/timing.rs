//! The only module that reads the clock: how long things take, and how to compare two of them on a noisy machine.
//!
//! Machines are shared and their speed drifts, so absolute times mean little and two times taken minutes apart mean nothing
//! together. [`interleaved`] therefore runs its subjects in turn (A B A B …) and reports medians; compare their ratio.

#![allow(clippy::disallowed_methods, reason = "this is the module that may read the clock")]

use std::time::{Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::error::TrainError;
use crate::libtorch;

/// Measures elapsed seconds.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// The date and time in UTC, such as `2026-01-31T12:00:00Z`.
pub fn utc_now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// How often to run each subject.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimingOptions {
    /// Runs of each subject before any is timed.
    pub warmup: usize,
    /// Timed samples of each subject.
    pub repeats: usize,
    /// A sample repeats the subject until it has lasted this many seconds, so that short calls are not lost in the clock's
    /// grain.
    pub min_sample_seconds: f64,
    /// No round of samples is begun after this many seconds in all, but the first three: a machine that is busy with other work can
    /// take a thousand times as long.
    pub max_seconds: f64,
}

impl Default for TimingOptions {
    fn default() -> Self {
        Self { warmup: 3, repeats: 21, min_sample_seconds: 0.005, max_seconds: 60.0 }
    }
}

/// Time of one subject.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// Median, in seconds per call.
    pub median: f64,
    /// First quartile, in seconds per call.
    pub lower: f64,
    /// Third quartile, in seconds per call.
    pub upper: f64,
}

impl Timing {
    /// Quartiles of samples in seconds per call.
    ///
    /// # Panics
    /// If there are none.
    pub fn of(mut samples: Vec<f64>) -> Self {
        assert!(!samples.is_empty(), "no samples");
        samples.sort_by(f64::total_cmp);
        Self {
            median: quantile(&samples, 0.5),
            lower: quantile(&samples, 0.25),
            upper: quantile(&samples, 0.75),
        }
    }
}

impl Timing {
    /// Distance of the quartiles relative to the median.
    pub fn spread(&self) -> f64 {
        (self.upper - self.lower) / self.median
    }
}

/// What there is to say where times spread so far that they should not be trusted: where the quartiles of most of them are further
/// apart than half the median.
pub fn too_noisy<'a>(times: impl IntoIterator<Item = &'a Timing>) -> Option<String> {
    let mut spreads: Vec<f64> = times.into_iter().map(Timing::spread).collect();
    spreads.sort_by(f64::total_cmp);
    let middle = *spreads.get(spreads.len() / 2)?;
    (middle > 0.5).then(|| {
        format!(
            "this machine is too busy for times to be trusted: half of the samples lie {:.0} % of their median apart; try again \
             when it is quiet, or with --threads 1",
            100.0 * middle
        )
    })
}

/// Linear interpolation between the two nearest of the sorted samples.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    // Not negative and below the length.
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// Times the subjects in turn: A B C A B C …
///
/// # Errors
/// The first error of a subject, or [`TrainError::Config`] where `repeats` is 0.
pub fn interleaved(
    subjects: &mut [&mut dyn FnMut() -> Result<(), TrainError>],
    options: &TimingOptions,
) -> Result<Vec<Timing>, TrainError> {
    struct Call<'a, 'b>(&'a mut &'b mut dyn FnMut() -> Result<(), TrainError>);
    impl Ready for Call<'_, '_> {
        fn pass(&mut self) -> Result<(), TrainError> {
            (self.0)()
        }
    }
    let mut calls: Vec<_> = subjects.iter_mut().map(Call).collect();
    take_turns(calls.iter_mut().map(|call| call as &mut dyn Ready).collect(), options)
}

fn take_turns(
    mut subjects: Vec<&mut dyn Ready>,
    options: &TimingOptions,
) -> Result<Vec<Timing>, TrainError> {
    if options.repeats == 0 {
        return Err(TrainError::Config {
            option: "repeats",
            got: "0".into(),
            expected: "at least 1",
        });
    }
    let mut calls = Vec::with_capacity(subjects.len());
    for subject in &mut subjects {
        for _ in 0..options.warmup {
            subject.pass()?;
        }
        let once = subject.sample(1, 0.0)?.max(1e-9);
        calls.push(((options.min_sample_seconds / once).ceil() as usize).max(1));
    }
    let mut samples = vec![Vec::new(); subjects.len()];
    let begin = Instant::now();
    for round in 0..options.repeats {
        if round >= 3 && begin.elapsed().as_secs_f64() > options.max_seconds {
            break;
        }
        for ((subject, &calls), samples) in subjects.iter_mut().zip(&calls).zip(&mut samples) {
            // The number of calls is from one call, which may have been the only quick one.
            samples.push(subject.sample(calls, 4.0 * options.min_sample_seconds)?);
        }
    }
    Ok(samples.into_iter().map(Timing::of).collect())
}

/// A network in an engine, with an input in its memory: what is left is a forward pass.
pub trait Ready {
    /// Runs forward once. The outputs are thrown away, where the engine left them.
    ///
    /// # Errors
    /// Where the engine stops.
    fn pass(&mut self) -> Result<(), TrainError>;

    /// Seconds of a pass, as the mean of `count`, or of fewer (but one) when `most` seconds are over. An engine in another process has a clock
    /// of its own, so that what it takes to ask it does not count.
    ///
    /// # Errors
    /// Where the engine stops.
    fn sample(&mut self, count: usize, most: f64) -> Result<f64, TrainError> {
        let watch = Instant::now();
        let mut made = 0;
        while made < count && (made == 0 || watch.elapsed().as_secs_f64() < most) {
            self.pass()?;
            made += 1;
        }
        Ok(watch.elapsed().as_secs_f64() / made as f64)
    }
}

/// Times what engines have made ready, in turn.
///
/// # Errors
/// As [`interleaved`].
pub fn in_turn(
    ready: &mut [Box<dyn Ready>],
    options: &TimingOptions,
) -> Result<Vec<Timing>, TrainError> {
    take_turns(ready.iter_mut().map(|ready| &mut **ready as &mut dyn Ready).collect(), options)
}

/// Sets the number of threads of every engine; 0 leaves it as it is. Returns the number in force.
pub fn set_threads(threads: usize) -> usize {
    libtorch::set_threads(threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_interpolate() {
        let timing = Timing::of(vec![4.0, 1.0, 3.0, 2.0]);
        assert_eq!((timing.lower, timing.median, timing.upper), (1.75, 2.5, 3.25));
    }

    #[test]
    fn subjects_run_in_turn_and_equally_often() {
        let log = std::cell::RefCell::new(String::new());
        let options = TimingOptions {
            warmup: 0,
            repeats: 3,
            min_sample_seconds: 0.0,
            ..TimingOptions::default()
        };
        let timings = interleaved(
            &mut [
                &mut || {
                    log.borrow_mut().push('a');
                    Ok(())
                },
                &mut || {
                    log.borrow_mut().push('b');
                    Ok(())
                },
            ],
            &options,
        )
        .unwrap();
        assert_eq!(timings.len(), 2);
        // One call each to see how long it lasts, then three interleaved samples.
        assert_eq!(*log.borrow(), "abababab");
    }

    #[test]
    fn a_measurement_ends_on_a_machine_that_became_slow() {
        let calls = std::cell::Cell::new(0);
        let slow_but_once = || {
            calls.set(calls.get() + 1);
            if calls.get() > 1 {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            Ok(())
        };
        let options =
            TimingOptions { warmup: 0, repeats: 1000, min_sample_seconds: 1e-3, max_seconds: 0.0 };
        interleaved(&mut [&mut { slow_but_once }], &options).unwrap();
        // One to see how long it lasts, then three samples, none of more than three calls.
        assert!(calls.get() <= 10, "{}", calls.get());
    }

    #[test]
    fn noise_is_told() {
        let of = |lower, upper| Timing { median: 1.0, lower, upper };
        assert_eq!(too_noisy([]), None);
        assert_eq!(too_noisy(&[of(0.9, 1.2), of(0.8, 1.1), of(0.5, 9.0)]), None);
        let told = too_noisy(&[of(0.9, 1.9), of(0.8, 1.8), of(0.9, 1.1)]).unwrap();
        assert!(told.contains("100 %"), "{told}");
    }

    #[test]
    fn a_slower_subject_measures_slower() {
        let spin = |n: u64| {
            move || {
                std::hint::black_box((0..n).fold(0u64, |sum, i| sum ^ std::hint::black_box(i)));
                Ok(())
            }
        };
        let timings =
            interleaved(&mut [&mut spin(10_000), &mut spin(1_000_000)], &TimingOptions::default())
                .unwrap();
        assert!(timings[1].median > 5.0 * timings[0].median, "{timings:?}");
    }
}
