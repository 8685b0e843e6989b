//! Normalizations.

use cp_net::{BatchNorm, Lrn};
use tch::{TchError, Tensor};

use super::Run;

/// Batch normalization over all axes but the channels, (x − μ) / √(σ² + ε) · γ + β.
///
/// In training and calibration, μ and σ² are those of the batch, and the running ones move towards them (in place; the running
/// variance takes the unbiased estimate); else μ and σ² are the running ones.
///
/// # Shapes
/// `x`: `[B, C, …]`; `params`: γ, β, running mean and running variance, each `[C]`; result: as `x`.
pub(crate) fn batch_norm(
    x: &Tensor,
    params: &[Tensor],
    norm: &BatchNorm,
    run: Run,
) -> Result<Tensor, TchError> {
    let batch = run.train || run.calibration.is_some();
    let momentum = run.calibration.unwrap_or(norm.momentum);
    let [gamma, beta, mean, var] = [0, 1, 2, 3].map(|index| params.get(index));
    x.f_batch_norm(gamma, beta, mean, var, batch, momentum, norm.eps, true)
}

/// Local response normalization across channels, x · (k + α/n Σ_{c′} x²_{c′})^{−β}, where c′ runs over the n = `size`
/// channels from c − ⌊n/2⌋ to c + ⌊(n−1)/2⌋ that exist.
///
/// The sum is one of shifted views, which works in either layout; `torch.nn.LocalResponseNorm` pools a reshaped tensor,
/// which in channels-last costs two copies of it.
///
/// # Shapes
/// `x`: `[B, C, …]`; result: as `x`.
///
/// Reference: Krizhevsky et al. (2012), §3.3; `torch.nn.LocalResponseNorm` for α/n and for even n.
pub(crate) fn lrn(x: &Tensor, lrn: &Lrn) -> Result<Tensor, TchError> {
    let channels = x.size()[1];
    let (before, after) = (lrn.size / 2, lrn.size.saturating_sub(1) / 2);
    // Zeros in front of and behind the channels: the last pair of a padding list that starts at the last axis.
    let mut padding = vec![0; 2 * x.dim().saturating_sub(2)];
    padding.extend([before as i64, after as i64]);
    let squares = x.f_square()?.f_constant_pad_nd(padding)?;

    let mut sum = squares.f_narrow(1, 0, channels)?;
    for shift in 1..=(before + after) as i64 {
        sum = sum.f_add(&squares.f_narrow(1, shift, channels)?)?;
    }
    let scale = lrn.alpha / lrn.size as f64;
    let divisor = sum.f_mul_scalar(scale)?.f_add_scalar(lrn.k)?.f_pow_tensor_scalar(lrn.beta)?;
    x.f_div(&divisor)
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, Axis, Dimension};

    use super::*;
    use crate::layout::is_channels_last;
    use crate::testing::{assert_close, both_layouts, random};

    /// The definition, value by value in f64.
    fn lrn_slow(x: &ArrayD<f32>, lrn: &Lrn) -> ArrayD<f32> {
        let channels = x.len_of(Axis(1));
        ArrayD::from_shape_fn(x.raw_dim(), |at| {
            let c = at[1];
            let first = c.saturating_sub(lrn.size / 2);
            let last = (c + (lrn.size - 1) / 2).min(channels - 1);
            let sum: f64 = (first..=last)
                .map(|neighbor| {
                    let mut there = at.slice().to_vec();
                    there[1] = neighbor;
                    f64::from(x[there.as_slice()]).powi(2)
                })
                .sum();
            let divisor = (lrn.k + lrn.alpha / lrn.size as f64 * sum).powf(lrn.beta);
            (f64::from(x[at]) / divisor) as f32
        })
    }

    #[track_caller]
    fn check_lrn(shape: &[usize], lrn: &Lrn) {
        let array = random(shape, 7) * 3.0;
        for x in both_layouts(&array) {
            assert_close(&super::lrn(&x, lrn).unwrap(), &lrn_slow(&array, lrn), 1e-6);
        }
    }

    #[test]
    fn lrn_is_its_definition() {
        check_lrn(&[2, 7, 3, 4], &Lrn { size: 5, alpha: 1e-1, beta: 0.75, k: 1.0 });
        // An even window reaches one channel further back, as torch's does.
        check_lrn(&[1, 6, 2, 2], &Lrn { size: 4, alpha: 2.0, beta: 0.5, k: 2.0 });
        // A window wider than the channels.
        check_lrn(&[1, 2, 2, 3], &Lrn { size: 5, alpha: 1.0, beta: 0.75, k: 1.0 });
        check_lrn(&[1, 5, 4], &Lrn { size: 3, alpha: 1.0, beta: 0.75, k: 1.0 });
        check_lrn(&[1, 3, 2, 2], &Lrn { size: 1, alpha: 1.0, beta: 1.0, k: 0.5 });
    }

    #[test]
    fn lrn_is_torchs() {
        // torch 2.11.0: torch.nn.functional.local_response_norm(torch.arange(1., 6.).reshape(1, 5, 1, 1), 5, 1.0, 0.75, 1.0)
        // = x / (1 + s/5)^0.75 with s = 14, 30, 55, 54, 50.
        let x = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0]).reshape([1, 5, 1, 1]);
        let y = lrn(&x, &Lrn { size: 5, alpha: 1.0, beta: 0.75, k: 1.0 }).unwrap();
        let expected = [(1.0_f64, 14.0), (2.0, 30.0), (3.0, 55.0), (4.0, 54.0), (5.0, 50.0)]
            .map(|(x, s)| (x / (1.0_f64 + s / 5.0).powf(0.75)) as f32);
        assert_close(
            &y,
            &ndarray::arr1(&expected).into_shape_with_order(vec![1, 5, 1, 1]).unwrap(),
            1e-6,
        );
    }

    #[test]
    fn lrn_keeps_channels_last() {
        let [_, x] = both_layouts(&random(&[2, 8, 5, 5], 1));
        assert!(is_channels_last(
            &lrn(&x, &Lrn { size: 5, alpha: 1e-4, beta: 0.75, k: 1.0 }).unwrap()
        ));
    }

    const TRAINING: Run = Run { train: true, calibration: None, in_place: false };

    const NORM: BatchNorm = BatchNorm { channels: 3, eps: 1e-3, momentum: 0.25 };

    /// γ, β, running mean, running variance.
    fn norm_params() -> Vec<Tensor> {
        [[1.0_f32, 2.0, 0.5], [0.0, -1.0, 3.0], [0.1, 0.2, 0.3], [1.0, 4.0, 0.25]]
            .iter()
            .map(|values| Tensor::from_slice(values))
            .collect()
    }

    /// Mean and (biased) variance of every channel, in f64.
    fn moments(x: &ArrayD<f32>) -> Vec<(f64, f64)> {
        x.axis_iter(Axis(1))
            .map(|channel| {
                let n = channel.len() as f64;
                let mean = channel.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
                (mean, channel.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n)
            })
            .collect()
    }

    #[test]
    fn batch_norm_in_training_uses_the_batch_and_moves_the_statistics() {
        let array = random(&[4, 3, 5, 6], 3) * 2.0 + 0.5;
        let moments = moments(&array);
        let n = 4.0 * 5.0 * 6.0;
        for x in both_layouts(&array) {
            let params = norm_params();
            let y = batch_norm(&x, &params, &NORM, TRAINING).unwrap();
            let (gamma, beta) = ([1.0, 2.0, 0.5], [0.0, -1.0, 3.0]);
            let expected = ArrayD::from_shape_fn(array.raw_dim(), |at| {
                let (mean, var) = moments[at[1]];
                ((f64::from(array[&at]) - mean) / (var + NORM.eps).sqrt() * gamma[at[1]]
                    + beta[at[1]]) as f32
            });
            assert_close(&y, &expected, 1e-5);
            // new = (1 - momentum) · old + momentum · batch, with the unbiased variance.
            let old = [[0.1, 0.2, 0.3], [1.0, 4.0, 0.25]];
            for channel in 0..3 {
                let (mean, var) = moments[channel];
                let new_mean = 0.75 * old[0][channel] + 0.25 * mean;
                let new_var = 0.75 * old[1][channel] + 0.25 * var * n / (n - 1.0);
                assert!((params[2].double_value(&[channel as i64]) - new_mean).abs() < 1e-6);
                assert!((params[3].double_value(&[channel as i64]) - new_var).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn calibration_takes_the_mean_over_the_batches() {
        let batches = [5, 6, 7].map(|seed| random(&[4, 3, 5, 6], seed) * 2.0 + 0.5);
        let params = norm_params();
        for (seen, batch) in batches.iter().enumerate() {
            let weight = 1.0 / (seen as f64 + 1.0);
            let run = Run { train: false, calibration: Some(weight), in_place: false };
            let [x, _] = both_layouts(batch);
            let _ = batch_norm(&x, &params, &NORM, run).unwrap();
        }
        for channel in 0..3 {
            let of = |part: fn((f64, f64)) -> f64| {
                batches.iter().map(|batch| part(moments(batch)[channel])).sum::<f64>() / 3.0
            };
            let n = 4.0 * 5.0 * 6.0;
            let at = [channel as i64];
            assert!((params[2].double_value(&at) - of(|m| m.0)).abs() < 1e-6);
            assert!((params[3].double_value(&at) - of(|m| m.1) * n / (n - 1.0)).abs() < 1e-5);
        }
    }

    #[test]
    fn batch_norm_in_evaluation_uses_the_statistics_and_leaves_them() {
        let array = random(&[2, 3, 2, 2], 4);
        for x in both_layouts(&array) {
            let params = norm_params();
            let y = batch_norm(&x, &params, &NORM, Run { train: false, ..TRAINING }).unwrap();
            let at = [1, 1, 0, 1];
            let expected = (f64::from(array[at]) - 0.2) / (4.0_f64 + NORM.eps).sqrt() * 2.0 - 1.0;
            assert!((y.double_value(&[1, 1, 0, 1]) - expected).abs() < 1e-6);
            assert_eq!(Vec::<f32>::try_from(&params[2]).unwrap(), [0.1, 0.2, 0.3]);
            assert_eq!(Vec::<f32>::try_from(&params[3]).unwrap(), [1.0, 4.0, 0.25]);
        }
    }
}
