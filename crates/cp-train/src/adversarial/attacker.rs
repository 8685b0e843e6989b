//! [`Attacker`]: a network in libtorch, and the loop that changes its inputs.

use cp_net::{Channels, InputSpec, Network};
use cp_torch::tch::{self, Device, Kind, Tensor};
use cp_torch::{Executor, Mode, TorchError, array_from_tensor, tensor_from_f32, tensor_from_i64};
use ndarray::{ArrayD, ArrayViewD};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{AttackOptions, Attacked, Bounds, End, TestAt, Wanted};
use crate::error::TrainError;
use crate::scores::Scores;

/// The first of the streams of random starts, one for each place.
const STARTS: u64 = 1 << 48;

/// A network that is attacked: in eval mode, its parameters as they are.
pub struct Attacker {
    model: Executor,
    scores: Scores,
}

/// The images of a call that are still attacked.
struct Under {
    /// Their places in the call.
    at: Vec<i64>,
    start: Tensor,
    now: Tensor,
    labels: Tensor,
}

impl Under {
    /// Those at these places alone.
    fn only(&self, places: &[i64]) -> Result<Self, TrainError> {
        let index = tensor_from_i64(places)?.f_to_device(self.now.device())?;
        let of = |tensor: &Tensor| tensor.f_index_select(0, &index);
        let at = places.iter().map(|&place| self.at[place as usize]).collect();
        Ok(Self { at, start: of(&self.start)?, now: of(&self.now)?, labels: of(&self.labels)? })
    }
}

impl Attacker {
    /// Puts `network` on `device`.
    ///
    /// # Errors
    /// Where the device is not there or has no memory for it.
    pub fn new(network: &Network, device: crate::Device) -> Result<Self, TrainError> {
        let mut model = Executor::new(network, device.into())?;
        // Gradients are those of the input alone.
        model.freeze(|_| true);
        Ok(Self { scores: Scores::of(network.architecture()), model })
    }

    /// The likeliest class of each input.
    ///
    /// # Shapes
    /// `inputs`: `[N, …]`, normalized.
    ///
    /// # Errors
    /// What the network does not take; [`TrainError::OutputsNotFinite`].
    pub fn classes(&self, inputs: ArrayViewD<'_, f32>) -> Result<Vec<usize>, TrainError> {
        let x = tensor_from_f32(inputs)?.f_to_device(self.device())?;
        Ok(answers(&tch::no_grad(|| self.logits(&x))?)?)
    }

    /// Attacks inputs with these labels, all at once; random starts are those of the places 0, 1, ….
    ///
    /// # Shapes
    /// `inputs`: `[N, …]`, normalized; `labels`: N.
    ///
    /// # Errors
    /// What the network does not take; [`TrainError::OutputsNotFinite`].
    pub fn attack(
        &self,
        inputs: ArrayViewD<'_, f32>,
        labels: &[usize],
        options: &AttackOptions,
    ) -> Result<Attacked, TrainError> {
        let places: Vec<usize> = (0..labels.len()).collect();
        self.attack_at(&places, inputs, labels, options)
    }

    /// [`Self::attack`], with the random starts of these places, which do not depend on what is beside.
    pub(super) fn attack_at(
        &self,
        places: &[usize],
        inputs: ArrayViewD<'_, f32>,
        labels: &[usize],
        options: &AttackOptions,
    ) -> Result<Attacked, TrainError> {
        let count = labels.len();
        let device = self.device();
        let start = tensor_from_f32(inputs.view())?.f_to_device(device)?;
        let numbers: Vec<i64> = labels.iter().map(|&label| label as i64).collect();
        let labels = tensor_from_i64(&numbers)?.f_to_device(device)?;
        let limits = self.limits(options, inputs.ndim())?;
        let now = match options.radius {
            Some(radius) if options.random_start => {
                let drawn = drawn(places, inputs.shape(), radius, options.seed);
                within(start.f_add(&tensor_from_f32(drawn.view())?.f_to_device(device)?)?, &limits)?
            }
            _ => start.shallow_clone(),
        };
        let never = options.max_steps - usize::from(options.test == TestAt::Before);
        let mut found = Attacked {
            steps: vec![never; count],
            flipped: vec![false; count],
            classes: vec![0; count],
            inputs: ArrayD::zeros(inputs.raw_dim()),
        };
        let mut ends = start.f_empty_like()?;
        let mut under = Under { at: (0..count as i64).collect(), start, now, labels };
        for look in 0..options.max_steps {
            if options.test == TestAt::After {
                under.now = self.stepped(&under, options, &limits)?;
            }
            let logits = tch::no_grad(|| self.logits(&under.now))?;
            let (classes, reached) = (answers(&logits)?, reached(&logits, &under.labels, options)?);
            let steps = look + usize::from(options.test == TestAt::After);
            let all = reached.iter().all(|&reached| reached);
            let last = look + 1 == options.max_steps;
            let mut left = Vec::new();
            let mut done = Vec::new();
            for (place, (&at, &reached)) in under.at.iter().zip(&reached).enumerate() {
                let at = at as usize;
                let ends_now = match options.end {
                    End::Each => reached,
                    End::All => all,
                };
                if ends_now {
                    found.steps[at] = steps;
                }
                if ends_now || last {
                    (found.flipped[at], found.classes[at]) = (reached, classes[place]);
                    done.push(place as i64);
                } else {
                    left.push(place as i64);
                }
            }
            if !done.is_empty() {
                let done = under.only(&done)?;
                ends = ends.f_index_copy(
                    0,
                    &tensor_from_i64(&done.at)?.f_to_device(device)?,
                    &done.now,
                )?;
                under = under.only(&left)?;
            }
            if under.at.is_empty() {
                break;
            }
            if options.test == TestAt::Before {
                under.now = self.stepped(&under, options, &limits)?;
            }
        }
        found.inputs = array_from_tensor(&ends)?;
        Ok(found)
    }

    fn device(&self) -> Device {
        self.model.device()
    }

    fn logits(&self, x: &Tensor) -> Result<Tensor, TrainError> {
        let logits = self.scores.forward(&self.model, x, Mode::Eval)?;
        let finite = logits.f_isfinite()?.f_all()?.f_int64_value(&[])?;
        if finite == 0 {
            let network = self.model.architecture().name.clone();
            return Err(TrainError::OutputsNotFinite { network, data: "the call".into() });
        }
        Ok(logits)
    }

    /// One step: up the loss of the label, or down that of the class that is wanted; then back into ball and bounds.
    fn stepped(
        &self,
        under: &Under,
        options: &AttackOptions,
        limits: &Option<(Tensor, Tensor)>,
    ) -> Result<Tensor, TrainError> {
        let x = under.now.f_detach_copy()?.f_set_requires_grad(true)?;
        let logits = self.logits(&x)?;
        let (labels, sign) = match options.target {
            None => (under.labels.shallow_clone(), 1.0),
            Some(Wanted { class, .. }) => (under.labels.f_full_like(class as i64)?, -1.0),
        };
        // The sum, so that the gradient of an image does not depend on how many are beside it: a mean over many may vanish in f32.
        let (no_weights, ignored) = (None::<Tensor>, -100);
        let loss =
            logits.f_cross_entropy_loss(&labels, no_weights, tch::Reduction::Sum, ignored, 0.0)?;
        let gradient = Tensor::f_run_backward(&[loss], &[&x], false, false)?;
        let gradient = gradient.first().map_or_else(|| x.f_zeros_like(), |found| found.f_sign())?;
        tch::no_grad(|| {
            let mut next = x.f_add(&gradient.f_mul_scalar(sign * options.step)?)?;
            if let Some(radius) = options.radius {
                let (low, high) =
                    (under.start.f_sub_scalar(radius)?, under.start.f_add_scalar(radius)?);
                next = next.f_maximum(&low)?.f_minimum(&high)?;
            }
            within(next, limits)
        })
    }

    /// The limits of each channel, as they go along an input of `axes` axes.
    fn limits(
        &self,
        options: &AttackOptions,
        axes: usize,
    ) -> Result<Option<(Tensor, Tensor)>, TrainError> {
        let Some((low, high)) = limits_of(options.bounds, self.model.architecture().input()) else {
            return Ok(None);
        };
        let along = |values: Vec<f64>| -> Result<Tensor, TrainError> {
            let mut shape = vec![1; axes];
            if let Some(channels) = shape.get_mut(1) {
                *channels = values.len() as i64;
            }
            let values = Tensor::f_from_slice(&values)?.f_to_kind(Kind::Float)?;
            Ok(values.f_reshape(shape)?.f_to_device(self.device())?)
        };
        Ok(Some((along(low)?, along(high)?)))
    }
}

/// The smallest and the largest number of each channel of `input`.
fn limits_of(bounds: Bounds, input: &InputSpec) -> Option<(Vec<f64>, Vec<f64>)> {
    let channels = input.shape.first().copied().unwrap_or(1);
    match bounds {
        Bounds::None => None,
        Bounds::Range(low, high) => Some((vec![low; channels], vec![high; channels])),
        // What is no picture has no pixels.
        Bounds::Pixels if input.channels == Channels::Features => None,
        Bounds::Pixels => {
            let of = |values: &[f64], channel: usize, none: f64| {
                values.get(channel).or(values.first()).copied().unwrap_or(none)
            };
            let at = |pixel: f64| {
                let one = |channel| {
                    let (mean, std) = (of(&input.mean, channel, 0.0), of(&input.std, channel, 1.0));
                    (pixel * input.scale - mean) / std
                };
                (0..channels).map(one).collect::<Vec<f64>>()
            };
            // A negative scale turns them round.
            let ends = at(0.0).into_iter().zip(at(255.0));
            Some(ends.map(|(one, other)| (one.min(other), one.max(other))).unzip())
        }
    }
}

fn within(x: Tensor, limits: &Option<(Tensor, Tensor)>) -> Result<Tensor, TrainError> {
    Ok(match limits {
        Some((low, high)) => x.f_maximum(low)?.f_minimum(high)?,
        None => x,
    })
}

/// The likeliest classes.
fn answers(logits: &Tensor) -> Result<Vec<usize>, TorchError> {
    let classes = Vec::<i64>::try_from(logits.f_argmax(1, false)?.f_to_device(Device::Cpu)?)?;
    Ok(classes.into_iter().map(|class| class as usize).collect())
}

/// Which answers are as wanted.
fn reached(
    logits: &Tensor,
    labels: &Tensor,
    options: &AttackOptions,
) -> Result<Vec<bool>, TrainError> {
    let answers = logits.f_argmax(1, false)?;
    let reached = match options.target {
        None => answers.f_ne_tensor(labels)?,
        Some(Wanted { class, probability }) => {
            let share = logits.f_softmax(1, Kind::Double)?.f_select(1, class as i64)?;
            answers.f_eq(class as i64)?.f_logical_and(&share.f_ge(probability)?)?
        }
    };
    Ok(Vec::<bool>::try_from(reached.f_to_device(Device::Cpu)?).map_err(TorchError::from)?)
}

/// Numbers drawn evenly from −`radius`…`radius`: those of a place have a stream of their own.
fn drawn(places: &[usize], shape: &[usize], radius: f64, seed: u64) -> ArrayD<f32> {
    let mut drawn = ArrayD::zeros(shape);
    let radius = radius as f32;
    for (place, mut example) in places.iter().zip(drawn.outer_iter_mut()) {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(STARTS + *place as u64);
        example.mapv_inplace(|_| generator.random_range(-radius..=radius));
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_end_where_black_and_white_are() {
        let (low, high) = limits_of(Bounds::Pixels, &InputSpec::imagenet(8)).unwrap_or_default();
        let expected = |pixel: f64, mean: f64, std: f64| (pixel - mean) / std;
        assert!((low[0] - expected(0.0, 0.485, 0.229)).abs() < 1e-9, "{low:?}");
        assert!((high[2] - expected(1.0, 0.406, 0.225)).abs() < 1e-9, "{high:?}");
        assert_eq!(limits_of(Bounds::None, &InputSpec::imagenet(8)), None);
    }
}
