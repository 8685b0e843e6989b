//! Adversarial resistance: how many small steps along the sign of the gradient turn a network's answer.
//!
//! One loop ([`Attacker::attack`]) serves the ways that the literature has, which differ in when they test, how far they may go and what they want:
//!
//! - [`AttackOptions::sign_steps`]: the measure of SqVaD's study of compressed AlexNets. xₛ₊₁ = xₛ + ε·sign(∇ₓ L(xₛ)), tested before each step,
//!   without bounds;
//! - [`AttackOptions::until_all`]: the function of its library, which steps first, clips, and stops when a whole batch has flipped;
//! - [`AttackOptions::fgsm`]: Goodfellow, Shlens & Szegedy (arXiv 1412.6572), §4: one step;
//! - [`AttackOptions::pgd`]: Madry et al. (arXiv 1706.06083), §2.1: steps that stay within a ball around the image.
//!
//! Lengths are in units of the network's normalized input, as in these programs; what pixels can be is [`Bounds::Pixels`].

#[cfg_attr(not(feature = "torch"), path = "adversarial/without_torch.rs")]
mod attacker;
mod resistance;

use serde::{Deserialize, Serialize};

pub use attacker::Attacker;
pub use resistance::{Resistance, Stat, resistance};

use crate::error::TrainError;

/// How images are attacked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttackOptions {
    /// ε, the length of a step in each number of the input.
    pub step: f64,
    /// Looks at the answer: with [`TestAt::Before`] there is a step less.
    pub max_steps: usize,
    /// When the answer is looked at.
    pub test: TestAt,
    /// How far each number may be from where it was, if that is limited: the ball in the maximum norm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub radius: Option<f64>,
    /// What the numbers of an input may be.
    #[serde(default)]
    pub bounds: Bounds,
    /// Starts from a point drawn evenly from the ball.
    #[serde(default)]
    pub random_start: bool,
    /// The answer that is wanted; none for any but the right one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Wanted>,
    /// When an attack ends.
    #[serde(default)]
    pub end: End,
    /// Seed of the random starts.
    #[serde(default)]
    pub seed: u64,
}

/// When the answer is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TestAt {
    /// Before each step: an image that is taken for something else as it is counts 0 steps, and one that never flips `max_steps` − 1.
    Before,
    /// After each step: the least count is 1, and that of one that never flips `max_steps`.
    After,
}

/// What the numbers of an input may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bounds {
    /// Anything.
    #[default]
    None,
    /// What pixels from 0 to 255 become by the network's normalization.
    Pixels,
    /// From the first to the second.
    Range(f64, f64),
}

/// A class that is wanted, with the probability from which on it counts; 0 where it need only be the likeliest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The class.
    pub class: usize,
    /// At least this probability, 0…1.
    pub probability: f64,
}

/// When an attack ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// Of each image by itself, when its answer is as wanted.
    #[default]
    Each,
    /// Of all images of a call together, when all answers are as wanted at the same look.
    All,
}

impl AttackOptions {
    /// SqVaD's measure: 1,000 looks, before each step; no bounds, no ball.
    pub fn sign_steps(step: f64) -> Self {
        Self {
            step,
            max_steps: 1000,
            test: TestAt::Before,
            radius: None,
            bounds: Bounds::None,
            random_start: false,
            target: None,
            end: End::Each,
            seed: 0,
        }
    }

    /// The function of SqVaD's library: steps first, and keeps numbers within 0…1; a batch ends when all of it has flipped.
    pub fn until_all(step: f64) -> Self {
        let bounds = Bounds::Range(0.0, 1.0);
        Self { test: TestAt::After, bounds, end: End::All, ..Self::sign_steps(step) }
    }

    /// One step, to what pixels can be.
    pub fn fgsm(step: f64) -> Self {
        let bounds = Bounds::Pixels;
        Self { max_steps: 1, test: TestAt::After, bounds, ..Self::sign_steps(step) }
    }

    /// Steps within a ball, from a point drawn in it, to what pixels can be; at the first flip an image is done.
    pub fn pgd(step: f64, radius: f64, max_steps: usize) -> Self {
        Self { max_steps, radius: Some(radius), random_start: true, ..Self::fgsm(step) }
    }

    /// Whether the numbers make sense; `classes` is how many there are to want.
    ///
    /// # Errors
    /// [`TrainError::Config`] with the field.
    pub fn check(&self, classes: usize) -> Result<(), TrainError> {
        let wrong =
            |option, got: String, expected| Err(TrainError::Config { option, got, expected });
        let above = |number: f64| number > 0.0 && number.is_finite();
        if !above(self.step) {
            return wrong("step", self.step.to_string(), "a finite number above 0");
        }
        if self.max_steps == 0 {
            return wrong("max_steps", "0".into(), "at least 1");
        }
        match self.radius {
            Some(radius) if !above(radius) => {
                return wrong("radius", radius.to_string(), "a finite number above 0");
            }
            None if self.random_start => {
                return wrong("random_start", "true".into(), "a radius, in which to draw");
            }
            _ => {}
        }
        if let Bounds::Range(low, high) = self.bounds
            && !(low < high && low.is_finite() && high.is_finite())
        {
            return wrong(
                "bounds",
                format!("{low} to {high}"),
                "two finite numbers, the smaller one first",
            );
        }
        if let Some(Wanted { class, probability }) = self.target {
            if class >= classes {
                return wrong(
                    "target",
                    class.to_string(),
                    "the number of a class, from 0 on and below their number",
                );
            }
            if !(0.0..1.0).contains(&probability) {
                return wrong(
                    "probability",
                    probability.to_string(),
                    "a number from 0 up to, but not, 1",
                );
            }
        }
        Ok(())
    }
}

/// What became of attacked images, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct Attacked {
    /// Steps that each took.
    pub steps: Vec<usize>,
    /// Whether its answer is as wanted in the end.
    pub flipped: Vec<bool>,
    /// Its answer in the end.
    pub classes: Vec<usize>,
    /// The inputs in the end, `[N, …]`.
    pub inputs: ndarray::ArrayD<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense() {
        let check = |options: AttackOptions, field: &str| {
            let error = options.check(10).map_err(|error| error.to_string());
            assert!(error.as_ref().is_err_and(|error| error.starts_with(field)), "{error:?}");
        };
        let sign = AttackOptions::sign_steps(0.1);
        assert!(sign.check(10).is_ok());
        for step in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            check(AttackOptions::sign_steps(step), "step");
            check(AttackOptions::pgd(0.1, step, 5), "radius");
        }
        check(AttackOptions { max_steps: 0, ..sign.clone() }, "max_steps");
        check(AttackOptions { random_start: true, ..sign.clone() }, "random_start");
        check(AttackOptions { bounds: Bounds::Range(1.0, 1.0), ..sign.clone() }, "bounds");
        let wanted = |class, probability| Some(Wanted { class, probability });
        check(AttackOptions { target: wanted(10, 0.5), ..sign.clone() }, "target");
        check(AttackOptions { target: wanted(9, 1.0), ..sign.clone() }, "probability");
        assert!(AttackOptions { target: wanted(9, 0.0), ..sign }.check(10).is_ok());
    }
}
